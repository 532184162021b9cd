//! The fixtures themselves: a test that fails here says nothing about the product.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use backup_e2e::pg::{Cluster, ClusterOptions, MAJORS};
use backup_e2e::s3::{Kind, Server, Upload};
use backup_e2e::{fault, sample};

/// Runs `check` for every major at once.
fn on_every_major(check: impl Fn(u16) -> Result<()> + Sync) {
    thread::scope(|scope| {
        for major in MAJORS {
            let check = &check;
            scope.spawn(move || {
                check(major).unwrap_or_else(|e| panic!("PostgreSQL {major}: {e:?}"));
            });
        }
    });
}

/// The `/proc` entry of the server on this data directory.
fn process_of(data: &Path) -> Result<PathBuf> {
    let lock_file = std::fs::read_to_string(data.join("postmaster.pid"))?;
    Ok(Path::new("/proc").join(lock_file.lines().next().unwrap_or_default()))
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn every_major_answers_and_leaves_nothing_behind() {
    on_every_major(|major| {
        let cluster = Cluster::start(major, &ClusterOptions::default().set("work_mem", "7MB"))?;
        let version = cluster.query("postgres", "SHOW server_version_num")?;
        assert!(version.starts_with(&major.to_string()), "{version}");
        assert_eq!(cluster.query("postgres", "SHOW work_mem")?, "7MB");
        let files = cluster.data_dir();
        let process = process_of(&files)?;
        assert!(process.exists());
        drop(cluster);
        assert!(!process.exists() && !files.exists());
        Ok(())
    });
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_password_may_be_any_string() {
    for password in [
        "p:a\\ss'w\"or d",
        "%41$é列 and more",
        ":::::::::::",
        " lead and trail ",
    ] {
        let cluster = Cluster::start(17, &ClusterOptions::default().scram(password)).unwrap();
        assert_eq!(
            cluster.query("postgres", "SELECT 1").unwrap(),
            "1",
            "{password}"
        );
        let mut wrong = cluster.tool("psql", "postgres");
        wrong
            .args(["-X", "-w", "-c", "SELECT 1"])
            .env("PGPASSWORD", "wrong")
            .stderr(Stdio::null());
        assert!(!wrong.status().unwrap().success());
    }
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_database_may_have_any_name() {
    let cluster = Cluster::shared(18).unwrap();
    for name in [
        "dbname=postgres",
        "postgresql://x",
        "a \"b\" 'c'",
        "two\nlines",
        "naïve 列",
        "UPPER",
    ] {
        cluster.create_db(name).unwrap();
        assert!(cluster.has_db(name).unwrap(), "{name}");
        assert_eq!(
            cluster.query(name, "SELECT current_database()").unwrap(),
            name
        );
        cluster.drop_db(name).unwrap();
        assert!(!cluster.has_db(name).unwrap(), "{name}");
    }
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn the_sample_survives_a_stock_dump_and_restore() {
    on_every_major(|major| {
        let cluster = Cluster::shared(major)?;
        let database = cluster.fresh_db("sample")?;
        cluster.psql(&database, &sample::everything_sql(major))?;
        let contents = cluster.contents(&database)?;
        assert!(contents.len() >= 40, "{contents:#?}");
        assert!(
            contents["table app.customer"].starts_with("3010 rows "),
            "{contents:#?}"
        );

        let restored = cluster.fresh_db("restored")?;
        let file = cluster.socket_dir().join(&restored);
        let dump = cluster
            .tool("pg_dump", &database)
            .arg("-Fc")
            .arg("-f")
            .arg(&file)
            .status()?;
        assert!(dump.success());
        // One job: with more, stock pg_restore may create the trigger of a partitioned table while
        // rows are still being loaded into its partitions, and the trigger fires.
        let mut restore = cluster.tool("pg_restore", &restored);
        restore
            .args(["--exit-on-error", "-d", &restored])
            .arg(&file);
        assert!(restore.status()?.success());

        assert_eq!(contents, cluster.contents(&restored)?);
        let schema = cluster.schema_dump(&database)?;
        assert!(schema.contains("CREATE EVENT TRIGGER") && !schema.contains("\\restrict"));
        assert_eq!(schema, cluster.schema_dump(&restored)?);
        Ok(())
    });
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn contents_tell_databases_apart() {
    let cluster = Cluster::shared(16).unwrap();
    let database = cluster.fresh_db("apart").unwrap();
    cluster
        .psql(
            &database,
            "CREATE TABLE t (a text); INSERT INTO t VALUES (''), ('x')",
        )
        .unwrap();
    let before = cluster.contents(&database).unwrap();
    cluster
        .psql(&database, "UPDATE t SET a = NULL WHERE a = ''")
        .unwrap();
    let after = cluster.contents(&database).unwrap();
    assert_ne!(before, after);
    cluster
        .psql(&database, "TRUNCATE t; INSERT INTO t VALUES ('x'), (NULL)")
        .unwrap();
    assert_eq!(after, cluster.contents(&database).unwrap());
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_cluster_crashes_restarts_and_freezes() {
    let mut cluster = Cluster::start(18, &ClusterOptions::default()).unwrap();
    cluster
        .psql("postgres", "CREATE TABLE t (); CHECKPOINT")
        .unwrap();
    cluster.crash().unwrap();
    assert!(cluster.query("postgres", "SELECT 1").is_err());
    cluster.restart().unwrap();
    assert_eq!(
        cluster.query("postgres", "SELECT count(*) FROM t").unwrap(),
        "0"
    );

    cluster.freeze().unwrap();
    let mut waiting = cluster.tool("psql", "postgres");
    let mut waiting = waiting.args(["-X", "-c", "SELECT 1"]).spawn().unwrap();
    thread::sleep(Duration::from_millis(500));
    assert!(waiting.try_wait().unwrap().is_none());
    cluster.thaw().unwrap();
    assert!(waiting.wait().unwrap().success());
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_proxy_stands_between_client_and_cluster() {
    let cluster = Cluster::shared(15).unwrap();
    let proxy = fault::Proxy::start(cluster.port()).unwrap();
    let sql = "SELECT repeat('x', 100000)";
    let select = || {
        let mut psql = cluster.tool("psql", "postgres");
        psql.args(["-X", "-At", "-o", "/dev/null", "-c", sql]);
        psql.env("PGPORT", proxy.port().to_string())
            .status()
            .unwrap()
            .success()
    };
    assert!(select());
    let direction = fault::Direction::ToClient;
    proxy.set(fault::Faults::after(
        fault::Action::Reset,
        direction,
        50_000,
        1,
    ));
    assert!(!select());
    assert!(select());
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_killed_process_takes_its_servers_along() {
    let mut owner = Command::new(env!("CARGO_BIN_EXE_test-cluster"))
        .arg("18")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let data = lines
        .find_map(|line| line.strip_prefix("PGDATA=").map(PathBuf::from))
        .unwrap();
    let process = process_of(&data).unwrap();
    assert!(process.exists());

    owner.kill().unwrap();
    owner.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while process.exists() {
        assert!(
            Instant::now() < deadline,
            "{} still runs",
            process.display()
        );
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn seaweedfs_keeps_objects() {
    check_s3(Kind::SeaweedFs).unwrap();
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn minio_keeps_objects() {
    check_s3(Kind::MinIo).unwrap();
}

fn check_s3(kind: Kind) -> Result<()> {
    let mut server = Server::start(kind)?;
    server.create_bucket("first")?;
    server.create_bucket("second")?;
    let keys = ["a/1", "a/2", "b/odd name+&é%", "b/€"];
    for key in keys {
        server.put_object("first", key, key.as_bytes())?;
    }
    assert_eq!(server.list_keys("first", "")?, keys);
    assert_eq!(server.list_keys("first", "a/")?, ["a/1", "a/2"]);
    assert!(server.list_keys("second", "")?.is_empty());
    assert_eq!(server.get_object("first", keys[2])?, keys[2].as_bytes());
    server.delete_object("first", "a/1")?;
    assert!(server.get_object("first", "a/1").is_err());
    assert!(server.list_keys("missing", "").is_err());
    assert!(server.list_multipart_uploads("first")?.is_empty());
    let key = "c/begun &".to_owned();
    let upload_id = server.begin_multipart_upload("first", &key)?;
    let uploads = server.list_multipart_uploads("first")?;
    assert_eq!(uploads, [Upload { key, upload_id }]);

    server.kill()?;
    assert!(server.list_keys("first", "").is_err());
    server.restart()?;
    assert_eq!(server.list_keys("first", "b/")?, keys[2..]);
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn more_than_a_page_of_keys_is_listed() {
    let server = Server::shared(Kind::SeaweedFs).unwrap();
    server.create_bucket("pages").unwrap();
    for number in 0..1010 {
        server
            .put_object("pages", &format!("k{number:04}"), b"")
            .unwrap();
    }
    let keys = server.list_keys("pages", "").unwrap();
    assert_eq!(keys.len(), 1010);
    assert_eq!(keys[1009], "k1009");
}
