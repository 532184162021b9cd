//! Disks that are full: that of the backups, that of temporary files, and that of the log.
//!
//! They need the right to mount, so they are for root; the names say so to whoever has to leave
//! them out.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::evidence;
use backup_e2e::pg::Cluster;
use backup_e2e::scene::{Place, SOURCE, Scene, Store, unique};
use backup_e2e::vault::{Vault, id_of};

/// Longer than any of these runs may take.
const BOUND: Duration = Duration::from_mins(1);

/// A small disk of its own, unmounted on drop.
struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Of 1 MB.
    fn mount(path: &Path) -> Result<Self> {
        fs::create_dir(path)?;
        mount(&["-t", "tmpfs", "-o", "size=1m,mode=0700", "none"], path)?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    fn remount(&self, option: &str) -> Result<()> {
        mount(&["-o", &format!("remount,{option}")], &self.path)
    }

    /// Leaves no room.
    fn fill(&self) -> Result<()> {
        let written = fs::write(self.filler(), vec![7; 2 << 20]);
        ensure!(written.is_err(), "there is more room than thought");
        Ok(())
    }

    fn empty(&self) -> Result<()> {
        Ok(fs::remove_file(self.filler())?)
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

fn mount(arguments: &[&str], path: &Path) -> Result<()> {
    let status = Command::new("mount").args(arguments).arg(path).status()?;
    ensure!(status.success(), "mount {arguments:?}: {status}");
    Ok(())
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(&self.path)
            .status();
    }
}

/// A database of few bytes.
fn database(cluster: &Cluster) -> Result<String> {
    let name = cluster.fresh_db(&unique("fulldisk"))?;
    let sql = "CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t VALUES (1, 'one')";
    cluster.psql(&name, sql)?;
    Ok(name)
}

/// Some 4 MB that do not get smaller.
const GROWTH: &str = "INSERT INTO t SELECT i, md5(i::text) || md5((i * 7)::text)
                      FROM generate_series(2, 60000) AS i";

#[test]
#[ignore = "needs servers and the right to mount: run ./scripts/test as root"]
fn check_20_a_full_or_read_only_destination_leaves_no_backup_as_root() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let database = database(cluster)?;
    let mut disk = None;
    let mut root = PathBuf::new();
    // The place is a folder, made by the first run: the disk must be there before.
    let scene = Scene::with(cluster, &database, Store::Local, |settings| {
        root = PathBuf::from(&settings.store);
        disk = Some(Disk::mount(&root));
    })?;
    let disk = disk.context("a disk")??;
    ensure!(matches!(&scene.place, Place::Local(path) if *path == root));

    cluster.psql(&database, GROWTH)?;
    let before = scene.state()?;
    let run = scene.start(&["backup", SOURCE])?.finish(BOUND)?;
    let words = ["No space left on device", "free space on the destination"];
    let run = run.expect(8, &words)?;
    let again = ["tried again", "attempt 2"];
    ensure!(
        !again.iter().any(|words| run.stderr.contains(words)),
        "no room, and still tried again: {}",
        run.stderr
    );
    scene.assert_nothing_published(&before)?;

    disk.remount("ro")?;
    let run = scene.start(&["backup", SOURCE])?.finish(BOUND)?;
    run.expect(8, &["Read-only file system"])?;
    scene.assert_nothing_published(&before)?;

    disk.remount("rw,size=32m")?;
    let id = scene.good_backup()?;
    scene.assert_proved(&id)?;
    evidence::note(
        20,
        "a destination of 1 MB that was full, then read-only: exit code 8, nothing left of the \
         backup, the older one intact; with more room the next run went well",
    );
    Ok(())
}

#[test]
#[ignore = "needs servers and the right to mount: run ./scripts/test as root"]
fn check_20_a_full_disk_for_temporary_files_leaves_nothing_as_root() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let database = database(cluster)?;
    cluster.psql(&database, GROWTH)?;
    let mut scene = Scene::new(cluster, &database, Store::Local)?;
    let disk = Disk::mount(&scene.path("spool"))?;
    let spool = disk.path.display().to_string();
    scene.settings.env.push(("TMPDIR".to_owned(), spool));
    disk.fill()?;
    // A backup lies nowhere in between.
    scene.run(&["backup", SOURCE])?.expect(0, &[])?;

    // A restore has its definitions there.
    let before = scene.state()?;
    let target = scene.target();
    let restore = ["restore", "latest", "--source", SOURCE, "--target-db"];
    let restore = [&restore[..], &[target.as_str()]].concat();
    let run = scene.start(&restore)?.finish(BOUND)?;
    run.expect(1, &["No space left on device"])?;
    ensure!(!cluster.has_db(&target)?, "a database is left");
    let left: Vec<_> = fs::read_dir(&disk.path)?.flatten().collect();
    ensure!(left.len() == 1, "temporary files: {left:?}");
    scene.assert_nothing_published(&before)?;

    disk.empty()?;
    scene.run(&restore)?.expect(0, &["equal in content"])?;
    ensure!(cluster.contents(&target)? == cluster.contents(&database)?);
    evidence::note(
        20,
        "with a full disk for temporary files a backup of 4 MB went well, and a restore ended with \
         1 and left no database and no file; with room it went well",
    );
    Ok(())
}

#[test]
#[ignore = "needs servers and the right to mount: run ./scripts/test as root"]
fn check_20_a_full_disk_for_logs_costs_no_backup_as_root() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let database = database(cluster)?;
    let vault = Vault::local(cluster)?;
    let older = id_of(&vault.back_up(&database, &[])?)?.to_owned();
    let disk = Disk::mount(&vault.cli.folder().join("logs"))?;
    disk.fill()?;
    let log = || File::create(disk.path.join("log"));
    let name = format!("--dbname={database}");
    let place = ["--to", &vault.url, "--recipient", &vault.keys.recipient];
    let backup = ["-v", "backup", &name];
    let mut command = vault.cli.command(backup.into_iter().chain(place))?;
    let status = command.stdout(Stdio::null()).stderr(log()?).status()?;
    ensure!(status.code() == Some(0), "{status}");
    let listed = vault.cli.run(["list", "--from", &vault.url, "--json"])?;
    let listed = listed.exits(0)?.json()?;
    ensure!(listed.as_array().map(Vec::len) == Some(2), "{listed}");
    for id in [older.as_str(), "latest"] {
        vault.verify(id)?;
    }
    // Who reads what is printed has to know that it is not all of it.
    let list = ["list", "--from", &vault.url, "--json"];
    let mut command = vault.cli.command(list)?;
    let status = command.stdout(log()?).stderr(Stdio::null()).status()?;
    ensure!(status.code() == Some(1), "{status}");
    evidence::note(
        20,
        "with a full disk for its log a backup went well all the same, and a command whose answer \
         could not be written ended with 1",
    );
    Ok(())
}
