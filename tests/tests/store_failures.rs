//! A dump that cannot be stored publishes nothing: a disk that is full, or may not be written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::pg::Cluster;
use backup_e2e::sample;
use backup_e2e::scene::{Place, SOURCE, Scene, Store, unique};

/// Uncompressed, so that the rows do not fit.
const PLAIN: &str = "compression = 'none'";

/// Longer than any of these failures may take, with all retries.
const BOUND: Duration = Duration::from_mins(2);

fn database(cluster: &Cluster) -> Result<String> {
    let name = cluster.fresh_db(&unique("storing"))?;
    cluster.psql(&name, &sample::bulk_sql("app", "bulk", 20))?;
    Ok(name)
}

/// A small disk of its own, unmounted on drop.
struct Disk {
    path: PathBuf,
}

impl Disk {
    fn mount(path: &Path, megabytes: u32) -> Result<Self> {
        fs::create_dir(path)?;
        let size = format!("size={megabytes}m,mode=0700");
        mount(&["-t", "tmpfs", "-o", &size, "none"], path)?;
        Ok(Self {
            path: path.to_owned(),
        })
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

/// Needs the right to mount, so it is for root; the name says so to whoever has to leave it out.
#[test]
#[ignore = "needs servers and the right to mount: run ./scripts/test as root"]
fn a_full_or_read_only_disk_leaves_no_backup_as_root() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let database = database(cluster)?;
    let mut disk = None;
    let mut root = PathBuf::new();
    // The place is a folder, made by the first run: the disk must be there before.
    let scene = Scene::with(cluster, &database, Store::Local, |settings| {
        settings.defaults = vec![PLAIN.to_owned()];
        root = PathBuf::from(&settings.store);
        disk = Some(Disk::mount(&root, 60));
    })?;
    let _disk = disk.context("a disk")??;
    ensure!(matches!(&scene.place, Place::Local(path) if *path == root));

    let filler = root.join("filler");
    fs::write(&filler, vec![7; 40 << 20])?;
    let before = scene.state()?;
    let run = scene.start(&["backup", SOURCE])?.finish(BOUND)?;
    run.expect(
        8,
        &["No space left on device", "free space on the destination"],
    )?;
    scene.assert_nothing_published(&before)?;

    mount(&["-o", "remount,ro"], &root)?;
    let run = scene.start(&["backup", SOURCE])?.finish(BOUND)?;
    run.expect(8, &["Read-only file system"])?;
    scene.assert_nothing_published(&before)?;

    mount(&["-o", "remount,rw"], &root)?;
    fs::remove_file(&filler)?;
    let id = scene.good_backup()?;
    scene.assert_proved(&id)
}
