//! Programs and servers of versions that do not fit are refused before any work.

use std::process::Command;

use anyhow::{Result, ensure};
use backup_e2e::cli::Running;
use backup_e2e::evidence;
use backup_e2e::pg::Cluster;
use backup_e2e::s3::Kind;
use backup_e2e::scene::{SOURCE, Scene, Store, unique};
use backup_e2e::vault::{Vault, id_of};

/// As `pg_dump` and servers tell it, without what a packager adds.
fn version(cluster: &Cluster) -> Result<String> {
    cluster.query("postgres", "SHOW server_version")
}

/// Hides the programs that the system has installed, and becomes the program that is given.
const HIDE: &str = "for directory in /usr/lib/postgresql /usr/libexec /usr/local/pgsql; do
                      [ ! -d $directory ] || /bin/mount -t tmpfs none $directory || exit 99
                    done
                    exec \"$@\"";

/// Needs the right to mount, so it is for root; the name says so to whoever has to leave it out.
#[test]
#[ignore = "needs servers and the right to mount: run ./scripts/test as root"]
fn check_26_programs_of_14_are_refused_for_a_server_of_15_as_root() -> Result<()> {
    let (older, newer) = (Cluster::shared(14)?, Cluster::shared(15)?);
    let database = newer.fresh_db("newerthan")?;
    newer.psql(&database, "CREATE TABLE t AS SELECT 1 AS a")?;
    for mut vault in [Vault::local(newer)?, Vault::seaweedfs(newer)?] {
        vault.back_up(&database, &[])?;
        let before = vault.keys_stored()?;
        let path = format!("{}:/usr/bin:/bin", older.bin_dir().display());
        vault.cli = vault.cli.with_env("PATH", &path);
        let words = [
            format!("no pg_dump for server {}", version(newer)?),
            format!("newest pg_dump found is {}", version(older)?),
            "postgresql-client-15".to_owned(),
        ];
        let place = ["-d", &database, "--to", &vault.url, "--no-encryption"];
        for command in ["backup", "doctor"] {
            let command = vault.cli.command([&[command], &place[..]].concat())?;
            let mut hidden = Command::new("/usr/bin/unshare");
            hidden.args(["--mount", "/bin/sh", "-c", HIDE, "sh"]);
            hidden.arg(command.get_program()).args(command.get_args());
            hidden.env_clear().envs(vault.cli.env());
            let run = Running::start(hidden)?.wait()?.exits(7)?;
            let said = run.text() + &run.stderr;
            for words in &words {
                ensure!(said.contains(words), "{words}: {said}");
            }
        }
        ensure!(vault.keys_stored()? == before, "something was stored");
    }
    evidence::note(
        26,
        "programs of 14 for a server of 15, a folder and a bucket: refused before work with 7 and \
         both versions",
    );
    Ok(())
}

/// Whatever else is installed, it is no `pg_dump` of 18.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_26_an_older_pg_dump_is_refused_before_work() -> Result<()> {
    let newest = Cluster::shared(18)?;
    let database = newest.fresh_db(&unique("newerthan"))?;
    newest.psql(&database, "CREATE TABLE t AS SELECT 1 AS a")?;
    for store in [Store::Local, Store::S3(Kind::SeaweedFs)] {
        let mut scene = Scene::new(newest, &database, store)?;
        let before = scene.state()?;
        let oldest = Cluster::shared(14)?;
        oldest.bin_dir().clone_into(&mut scene.settings.bin_dir);
        let server = format!("no pg_dump for server {}", version(newest)?);
        let words = [
            &*server,
            "newest pg_dump found is 1",
            "postgresql-client-18",
        ];
        scene.run(&["backup", SOURCE])?.expect(7, &words)?;
        scene.assert_nothing_published(&before)?;
    }
    evidence::note(
        26,
        "an older pg_dump for a server of 18, a folder and a bucket: refused before work with 7",
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_26_a_dump_of_a_newer_server_is_refused_before_work() -> Result<()> {
    let (newer, older) = (Cluster::shared(17)?, Cluster::shared(15)?);
    let vault = Vault::local(newer)?;
    let database = newer.fresh_db("newerdump")?;
    newer.psql(&database, "CREATE TABLE t AS SELECT 1 AS a")?;
    let id = id_of(&vault.back_up(&database, &[])?)?.to_owned();
    let live = older.fresh_db("olderlive")?;
    older.psql(&live, "CREATE TABLE mine AS SELECT 1 AS a")?;
    let databases = || {
        older.query(
            "postgres",
            "SELECT array_agg(oid ORDER BY oid) FROM pg_database WHERE datname LIKE 'olderlive%'",
        )
    };
    let (before, content) = (databases()?, older.contents(&live)?);
    let there = vault.beside(older)?;
    let words = [
        format!("PostgreSQL {}", version(newer)?),
        format!("cannot be restored into PostgreSQL {}", version(older)?),
    ];
    for more in [
        vec!["--target-db=olderlive_new"],
        vec!["--target-db", &live, "--swap", "--yes"],
    ] {
        let run = there.read(&[&["restore", &id][..], &more].concat())?;
        let run = run.exits(7)?;
        for words in &words {
            ensure!(run.stderr.contains(words), "{words}: {}", run.stderr);
        }
        ensure!(databases()? == before, "a database was made");
        ensure!(older.contents(&live)? == content, "the live one changed");
    }
    evidence::note(
        26,
        "a dump of 17 into a server of 15, beside and over a database, refused before work with 7 \
         and both versions",
    );
    Ok(())
}
