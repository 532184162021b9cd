//! Redis: backups of a real server, and what becomes of them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Cli, Run, Running};
use backup_e2e::redis::{Redis, bin_dir};
use backup_e2e::scene::wait_for_silence;

const CANARY: &str = "c4nary:s3cret/\\\"'";

/// A program configured to back up one server.
struct Kit {
    cli: Cli,
    config: String,
}

impl Kit {
    /// `source` is what `[source.cache]` says besides its kind.
    fn new(source: &str) -> Result<Self> {
        let cli = Cli::without_server()?;
        let keys = cli.keys()?;
        let text = format!(
            "[encryption]\nrecipients = [\"{}\"]\nidentities = {{ file = \"{}\" }}\n\
             [destination.local]\nurl = \"{}\"\n[drill]\n[retention.few]\nkeep_last = 1\nmin_keep = 1\n\
             [source.cache]\nkind = \"redis\"\nretention = \"few\"\nbin_dir = \"{}\"\n{source}\n",
            keys.recipient,
            keys.identity,
            cli.local_store(),
            bin_dir()?.display(),
        );
        let config = cli.private_file("backup.toml", &text)?;
        Ok(Self { cli, config })
    }

    fn run(&self, words: &[&str]) -> Result<Run> {
        self.cli.run([&["--config", &self.config], words].concat())
    }

    fn backup(&self) -> Result<serde_json::Value> {
        self.run(&["backup", "cache", "--json"])?.exits(0)?.json()
    }

    /// Names of everything that is stored, records of runs and leases left out.
    fn stored(&self) -> Vec<String> {
        let mut open = vec![self.cli.local_root().join("backups")];
        let mut found = Vec::new();
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    open.push(entry.path());
                } else {
                    found.push(entry.path().display().to_string());
                }
            }
        }
        found
    }
}

fn url(redis: &Redis) -> String {
    format!("url = \"redis://127.0.0.1:{}\"", redis.port())
}

/// Every kind of value, small and large ones, in two databases.
fn fill(redis: &Redis) -> Result<()> {
    let long = "abcdefgh".repeat(5000);
    let odd: String = (0..3000_u32)
        .map(|n| char::from_u32(32 + n * 7 % 90).unwrap_or(' '))
        .collect();
    let many: Vec<String> = (0..700).map(|n| format!("member {n}")).collect();
    let mut questions: Vec<Vec<&str>> = vec![
        vec!["SET", "text", "hello"],
        vec!["SET", "number", "12345"],
        vec!["SET", "long", &long],
        vec!["SET", "odd", &odd],
        vec!["SET", "ending", "soon", "EX", "86400"],
        vec!["RPUSH", "list", "a", "1", "-2", "99999999999", &long],
        vec!["SADD", "numbers", "1", "2", "70000"],
        vec!["SADD", "names", "x", "y"],
        vec!["ZADD", "small", "1.5", "a", "-inf", "b", "3", "c"],
        vec!["HSET", "hash", "field", "value", "n", "7"],
        vec!["XADD", "stream", "1-1", "k", "v"],
        vec!["XADD", "stream", "2-1", "k", "v2", "k2", "w"],
        vec!["XGROUP", "CREATE", "stream", "group", "0"],
        vec![
            "XREADGROUP",
            "GROUP",
            "group",
            "me",
            "COUNT",
            "1",
            "STREAMS",
            "stream",
            ">",
        ],
        vec!["PFADD", "hyper", "a", "b", "c"],
        vec!["-n", "3", "SET", "elsewhere", "x"],
        vec![
            "FUNCTION",
            "LOAD",
            "#!lua name=lib\nredis.register_function('f', function() return 1 end)",
        ],
        vec!["DEBUG", "POPULATE", "5000", "filler", "50"],
    ];
    for (command, key) in [("RPUSH", "long list"), ("SADD", "big set")] {
        questions.push(
            [command, key]
                .into_iter()
                .chain(many.iter().map(String::as_str))
                .collect(),
        );
    }
    let pairs = |what: &'static str, key: &'static str, score: bool| -> Vec<String> {
        let mut words = vec![what.to_owned(), key.to_owned()];
        for (n, name) in many.iter().enumerate() {
            let number = format!("{n}.25");
            words.extend(if score {
                [number, name.clone()]
            } else {
                [name.clone(), number]
            });
        }
        words
    };
    let (hash, sorted) = (
        pairs("HSET", "big hash", false),
        pairs("ZADD", "big sorted", true),
    );
    questions.push(hash.iter().map(String::as_str).collect());
    questions.push(sorted.iter().map(String::as_str).collect());
    for question in questions {
        let answer = redis.ask(&question)?;
        ensure!(!answer.contains("ERR"), "{question:?}: {answer}");
    }
    Ok(())
}

fn start() -> Result<Redis> {
    Redis::start(&["--enable-debug-command", "yes"], &[], |_| Ok(()))
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_server_comes_back_key_by_key() -> Result<()> {
    let redis = start()?;
    fill(&redis)?;
    let kit = Kit::new(&url(&redis))?;
    redis.ask(&["SET", "gone", "when the drill runs", "PX", "20000"])?;
    let backup = kit.backup()?;
    assert_eq!(backup["status"], "success");
    assert_eq!(backup["database"], "redis");
    assert_eq!(backup["server_version"], "7.0.15");
    assert_eq!(backup["tables"], 3, "two databases, and the functions");
    assert_eq!(backup["rows"], 5000 + 19);
    assert_eq!(backup["parts"][0]["name"], "redis");
    let id = backup["id"].as_str().context("an id")?.to_owned();

    let listed = kit.run(&["list", "--json"])?.exits(0)?.json()?;
    assert_eq!(listed[0]["id"], id.as_str());
    assert_eq!(listed[0]["source"], "cache");
    let shown = kit.run(&["show", &id, "--json"])?.exits(0)?.json()?;
    assert_eq!(shown["objects"]["streams"], 1);
    assert_eq!(shown["objects"]["hashes"], 2);
    assert_eq!(shown["objects"]["expiring_keys"], 2);
    assert_eq!(shown["table_facts"][1]["table"], "db3");
    assert_eq!(shown["table_facts"][1]["rows"], 1);
    let text = kit.run(&["show", &id])?.exits(0)?.text();
    ensure!(text.contains("databases    3 with 5,019 keys"), "{text}");
    kit.run(&["verify", &id, "--level", "decoded"])?.exits(0)?;

    // The key that ends is gone by now in the source; in the backup it is not.
    wait_for_silence(Duration::from_mins(2), || {
        let found = redis.ask(&["EXISTS", "gone"])?;
        Ok((found.trim() != "0").then_some(found))
    })?;
    let digest = |redis: &Redis| -> Result<String> {
        redis.ask(&["DEL", "gone"])?;
        redis.ask(&["DEBUG", "DIGEST"])
    };
    let drilled = kit.run(&["drill", "cache", "--json"])?;
    let report = drilled.json()?;
    ensure!(drilled.code == Some(0), "{report}\n{}", drilled.stderr);
    assert_eq!(report["level"], "compared", "{report}");

    let folder = kit.cli.folder().join("back");
    let back = folder.display().to_string();
    let restored = kit.run(&["restore", &id, "--target-dir", &back, "--json"])?;
    let restored = restored.exits(0)?.json()?;
    let file = folder.join("dump.rdb");
    assert_eq!(restored["files"][0]["path"], file.display().to_string());
    assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    let again = kit
        .run(&["restore", &id, "--target-dir", &back])?
        .exits(2)?;
    ensure!(
        again.stderr.contains("is there already"),
        "{}",
        again.stderr
    );
    let catted = kit.run(&["cat", &id, "--part", "redis"])?.exits(0)?;
    assert_eq!(catted.stdout, fs::read(&file)?);

    let copy = Redis::start(&["--enable-debug-command", "yes"], &[], |folder| {
        fs::copy(&file, folder.join("dump.rdb"))?;
        Ok(())
    })?;
    assert_eq!(digest(&copy)?, digest(&redis)?);
    assert_eq!(
        copy.ask(&["FUNCTION", "LIST"])?,
        redis.ask(&["FUNCTION", "LIST"])?
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn it_is_kept_checked_and_let_go_like_any_other_and_no_database() -> Result<()> {
    let redis = start()?;
    redis.ask(&["SET", "a", "1"])?;
    let kit = Kit::new(&url(&redis))?;
    let first = kit.backup()?["id"].as_str().context("an id")?.to_owned();
    // Ids of one second are in no order.
    thread::sleep(Duration::from_millis(1100));
    let second = kit.backup()?["id"].as_str().context("an id")?.to_owned();
    kit.run(&["check"])?.exits(0)?;
    kit.run(&["doctor", "cache"])?;
    kit.run(&["prune", "--yes"])?.exits(0)?;
    let listed = kit.run(&["list", "--json"])?.exits(0)?.json()?;
    let ids: Vec<_> = listed
        .as_array()
        .context("a list")?
        .iter()
        .map(|b| &b["id"])
        .collect();
    assert_eq!(ids, [second.as_str()], "and no longer {first}");
    let refused = kit
        .run(&["restore", &second, "--target-db", "x"])?
        .exits(2)?;
    ensure!(
        refused.stderr.contains("--target-dir"),
        "{}",
        refused.stderr
    );
    let refused = kit
        .run(&["cat", &second, "--table", "redis.db0"])?
        .exits(2)?;
    ensure!(
        refused.stderr.contains("is no database"),
        "{}",
        refused.stderr
    );
    Ok(())
}

/// A `redis-cli` that writes down how it is called.
fn watched(folder: &Path) -> Result<String> {
    let programs = folder.join("watched");
    fs::create_dir(&programs)?;
    let real = bin_dir()?.join("redis-cli");
    let calls = folder.join("calls");
    let text = format!(
        "#!/bin/sh\necho \"$@\" >> {}\nexec {} \"$@\"\n",
        calls.display(),
        real.display()
    );
    fs::write(programs.join("redis-cli"), text)?;
    fs::set_permissions(
        programs.join("redis-cli"),
        fs::Permissions::from_mode(0o755),
    )?;
    Ok(programs.display().to_string())
}

/// Puts a list of users into a server's directory: one for everything, and one for backups alone.
fn access_list(folder: &Path) -> Result<()> {
    let file = folder.join("password");
    fs::write(&file, CANARY)?;
    let mut program = Command::new("sha256sum");
    program.arg(&file);
    let sum = Running::start(program)?.wait()?.exits(0)?.text();
    let sum = sum.trim_start_matches('\\');
    let hash = sum.split(' ').next().unwrap_or_default();
    let user = format!("user backup on #{hash} ~* &* -@all +ping +info +sync +psync +replconf\n");
    fs::write(
        folder.join("acl"),
        user + "user default on >open ~* &* +@all\n",
    )?;
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_login_gets_in_and_its_password_gets_nowhere() -> Result<()> {
    // The path of the list is known only in the directory: it is relative.
    let redis = Redis::start(
        &["--aclfile", "acl"],
        &["-a", "open", "--no-auth-warning"],
        access_list,
    )?;
    redis.ask(&["SET", "a", "1"])?;
    let kit = Kit::new("url = \"redis://127.0.0.1:1\"")?;
    let programs = watched(kit.cli.folder())?;
    let configure = |password: &str| -> Result<()> {
        let secret = kit.cli.private_file("redis-password", password)?;
        let text = fs::read_to_string(&kit.config)?;
        let kept: Vec<&str> = text
            .lines()
            .filter(|line| {
                !["bin_dir", "url = \"redis", "user", "password"]
                    .iter()
                    .any(|key| line.starts_with(key))
            })
            .collect();
        let source = format!(
            "\nbin_dir = \"{programs}\"\n{}\nuser = \"backup\"\npassword = {{ file = \"{secret}\" }}\n",
            url(&redis)
        );
        fs::write(&kit.config, kept.join("\n") + &source)?;
        Ok(())
    };
    configure(CANARY)?;
    let good = kit.run(&["-v", "backup", "cache"])?.exits(0)?;
    let doctor = kit.run(&["doctor", "cache"])?;
    configure(&format!("{CANARY}x"))?;
    let stored = kit.stored();
    let bad = kit.run(&["-v", "backup", "cache"])?.exits(9)?;
    ensure!(bad.stderr.contains("WRONGPASS"), "{}", bad.stderr);
    assert_eq!(kit.stored(), stored);
    let shown = kit.run(&["config", "show"])?.exits(0)?;
    let calls = fs::read_to_string(kit.cli.folder().join("calls"))?;
    ensure!(calls.contains("--user backup --rdb -"), "{calls}");
    for run in [&good, &doctor, &bad, &shown] {
        ensure!(
            !run.text().contains("c4nary") && !run.stderr.contains("c4nary"),
            "{}",
            run.words
        );
    }
    ensure!(!calls.contains("c4nary"), "{calls}");
    let url = format!("url = \"redis://:{}@127.0.0.1:1\"", "c4nary");
    let refused = Kit::new(&url)?.run(&["config", "check"])?.exits(2)?;
    ensure!(!refused.stderr.contains("c4nary"), "{}", refused.stderr);
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_server_that_dies_meanwhile_publishes_nothing() -> Result<()> {
    // Each key takes a while, so that there is a middle.
    let slow = [
        "--enable-debug-command",
        "yes",
        "--rdb-key-save-delay",
        "200",
    ];
    let redis = Redis::start(&slow, &[], |_| Ok(()))?;
    redis.ask(&["DEBUG", "POPULATE", "100000", "key", "500"])?;
    let kit = Kit::new(&url(&redis))?;
    let running = kit
        .cli
        .start(["--config", &kit.config, "backup", "cache"])?;
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let info = redis.ask(&["INFO", "persistence"])?;
        if info.contains("rdb_bgsave_in_progress:1") && !kit.stored().is_empty() {
            break;
        }
        ensure!(Instant::now() < deadline, "no snapshot is taken: {info}");
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_secs(2));
    redis.kill()?;
    let done = running.wait()?;
    ensure!(
        !matches!(done.code, Some(0 | 3) | None),
        "{:?}: {}",
        done.code,
        done.stderr
    );
    assert_eq!(kit.stored(), Vec::<String>::new());
    let listed = kit.run(&["list", "--json"])?.exits(0)?.json()?;
    assert_eq!(listed, serde_json::json!([]));
    let runs = kit.run(&["runs", "--json"])?.exits(0)?.json()?;
    assert_eq!(runs[0]["result"], "failed");
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn tls_reaches_the_server_that_an_authority_vouches_for() -> Result<()> {
    let redis = Redis::start(
        &[
            "--port",
            "0",
            "--tls-port",
            "{port}",
            "--tls-cert-file",
            "server.pem",
            "--tls-key-file",
            "server.key",
            "--tls-ca-cert-file",
            "server.pem",
            "--tls-auth-clients",
            "no",
        ],
        &["--tls", "--insecure"],
        |folder| {
            for name in ["server", "other"] {
                let mut program = Command::new("openssl");
                program.current_dir(folder).args([
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:prime256v1",
                    "-nodes",
                    "-days",
                    "2",
                    "-subj",
                    "/CN=127.0.0.1",
                    "-keyout",
                ]);
                program
                    .arg(format!("{name}.key"))
                    .arg("-out")
                    .arg(format!("{name}.pem"));
                Running::start(program)?.wait()?.exits(0)?;
            }
            Ok(())
        },
    )?;
    redis.ask(&["SET", "a", "1"])?;
    let source = |ca: &str| {
        let ca = redis.folder().join(ca).display().to_string();
        format!(
            "url = \"rediss://127.0.0.1:{}\"\nca_file = \"{ca}\"",
            redis.port()
        )
    };
    let kit = Kit::new(&source("server.pem"))?;
    assert_eq!(kit.backup()?["rows"], 1);
    let other = Kit::new(&source("other.pem"))?;
    other.run(&["backup", "cache"])?.exits(9)?;
    let plain = Kit::new(&url(&redis))?;
    ensure!(
        plain.run(&["backup", "cache"])?.code != Some(0),
        "without TLS"
    );
    Ok(())
}
