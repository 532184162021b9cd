//! The binary as a user meets it, as far as that needs no server: usage, exit codes, JSON.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;

/// A directory of its own, and the binary without anything from this environment.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            dir: tempfile::tempdir()?,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// An empty directory as a place for backups.
    fn place(&self) -> std::io::Result<String> {
        let path = self.path("repo");
        std::fs::create_dir(&path)?;
        Ok(file_url(&path))
    }

    /// A repository in a directory of its own, with nothing but the manifests of these backups.
    fn repository(&self, name: &str, backups: &[(&str, &str)]) -> std::io::Result<String> {
        let root = self.path(name);
        for (source, id) in backups {
            let folder = root.join("backups").join(source).join(id);
            std::fs::create_dir_all(&folder)?;
            let manifest = MANIFEST.replace("SOURCE", source).replace("ID", id);
            std::fs::write(folder.join("manifest.json"), manifest)?;
        }
        let record = r#"{"format":1,"repository":"r","created_at":"2026-02-05T03:00:00Z"}"#;
        std::fs::write(root.join("repository.json"), record)?;
        Ok(file_url(&root))
    }

    fn write(&self, name: &str, content: &str, mode: u32) -> std::io::Result<PathBuf> {
        let path = self.path(name);
        std::fs::write(&path, content)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
        Ok(path)
    }

    fn run(&self, arguments: &[&str]) -> std::io::Result<Output> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backup-cli"));
        command
            .env_clear()
            .env("HOME", self.dir.path())
            .args(arguments)
            .output()
    }
}

/// A backup without parts.
const MANIFEST: &str = r#"{"format":1,"id":"ID","source":"SOURCE","database":"d","repository":"r",
"started_at":"2026-02-05T03:00:00Z","finished_at":"2026-02-05T03:00:01Z","server_version":"17.2",
"tool_version":"17.2","filtered":false,"compression":"none","parts":[],"totals":{"tables":0,
"rows":0,"large_objects":0,"objects":{},"raw_bytes":0,"stored_bytes":0},"warnings":0}"#;

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn file_url(path: &Path) -> String {
    format!("file://{}", path.display())
}

#[test]
fn help_and_version_go_to_stdout() -> std::io::Result<()> {
    let bench = Bench::new()?;
    for arguments in [
        &["--help"][..],
        &["-?"],
        &["backup", "--help"],
        &["--version"],
    ] {
        let output = bench.run(arguments)?;
        assert_eq!(code(&output), Some(0), "{arguments:?}");
        assert!(stdout(&output).contains("backup-cli"), "{arguments:?}");
        assert_eq!(stderr(&output), "", "{arguments:?}");
    }
    Ok(())
}

/// What is said, how it ends, and what the message must hold.
const MISTAKES: &[(&str, i32, &[&str])] = &[
    ("", 2, &["Usage"]),
    ("bakcup", 2, &["bakcup", "backup"]),
    ("backup", 2, &["no source is configured", "-d NAME"]),
    ("backup -d x --no-encryption", 2, &["no place", "--to"]),
    ("backup shop", 2, &["source \"shop\" is not configured"]),
    (
        "backup -d x --to PLACE",
        2,
        &["no recipient", "--no-encryption"],
    ),
    ("backup -d x --to PLACE --recipient age1no", 2, &["age1no"]),
    ("backup -d x --to ftp://x --no-encryption", 2, &["ftp"]),
    (
        "backup -d x --to PLACE --no-encryption -Z zstd:99",
        2,
        &["99", "19"],
    ),
    (
        "backup -d x --to PLACE --no-encryption -j 0",
        2,
        &["one job"],
    ),
    ("list", 2, &["no place for backups"]),
    ("list --from MISSING", 8, &["no directory", "mounted"]),
    ("show nonsense --from PLACE", 2, &["nonsense", "latest"]),
    ("show latest --from PLACE", 4, &["not found"]),
    ("verify --from PLACE", 2, &["BACKUPS"]),
    ("verify --all --from PLACE", 4, &["not found"]),
    ("restore latest --from PLACE", 2, &["--target-db"]),
    (
        "cat latest --from PLACE --table a.b -i /none",
        2,
        &["/none"],
    ),
    ("--config /none.toml list", 2, &["/none.toml"]),
    ("config show --nonsense", 2, &["--nonsense"]),
];

#[test]
fn wrong_input_is_refused_with_what_to_say_instead() -> std::io::Result<()> {
    let bench = Bench::new()?;
    let place = bench.place()?;
    let missing = file_url(&bench.path("missing"));
    for (said, expected, texts) in MISTAKES {
        let said = said.replace("PLACE", &place).replace("MISSING", &missing);
        let arguments: Vec<_> = said.split_whitespace().collect();
        let output = bench.run(&arguments)?;
        let message = stderr(&output);
        assert_eq!(code(&output), Some(*expected), "{said}: {message}");
        for text in *texts {
            assert!(message.contains(text), "{said}: {message}");
        }
        assert_eq!(stdout(&output), "", "{said}");
    }
    Ok(())
}

/// What names a source or a database is stored, listed and logged.
#[test]
fn a_password_is_in_no_name_and_nothing_of_it_is_kept() -> std::io::Result<()> {
    let bench = Bench::new()?;
    let place = bench.place()?;
    for text in [
        "postgresql://backup:hunter2@127.0.0.1:1/shop",
        "host=127.0.0.1 port=1 password=hunter2 dbname=shop",
    ] {
        for arguments in [
            &["backup", "--to", &place, "--no-encryption", "-d", text][..],
            &["doctor", "--to", &place, "--no-encryption", "-d", text],
            &["restore", "latest", "--from", &place, "--target-db", text],
        ] {
            let output = bench.run(arguments)?;
            let said = stderr(&output) + &stdout(&output);
            assert_eq!(code(&output), Some(2), "{said}");
            assert!(said.contains("connection string"), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_backup-cli"));
    let output = command
        .env_clear()
        .env("PGDATABASE", "postgres://backup:hunter2@127.0.0.1:1/shop")
        .args(["backup", "--to", &place, "--no-encryption"])
        .output()?;
    assert_eq!(code(&output), Some(2));
    assert!(stderr(&output).contains("PGDATABASE takes a name"));
    assert!(!stderr(&output).contains("hunter2"));
    assert_eq!(std::fs::read_dir(bench.path("repo"))?.count(), 0);
    Ok(())
}

#[test]
fn errors_are_json_on_stdout_when_json_is_asked_for() -> std::io::Result<()> {
    let bench = Bench::new()?;
    let place = bench.place()?;
    let output = bench.run(&["show", "latest", "--from", &place, "--json"])?;
    assert_eq!(code(&output), Some(4));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(value["error"]["kind"], "not_found");
    assert!(
        value["error"]["message"]
            .as_str()
            .is_some_and(|text| text.contains("not found"))
    );
    assert!(value["error"]["causes"].is_array());
    Ok(())
}

/// A slip in a name is no empty answer.
#[test]
fn a_name_that_nobody_configured_is_told_with_those_that_are() -> std::io::Result<()> {
    let bench = Bench::new()?;
    let place = bench.place()?;
    let config = format!(
        "[server.main]\nhost = \"/nowhere\"\n[destination.far]\nurl = \"{place}\"\n\
         [source.shop]\nserver = \"main\"\n[source.blog]\nserver = \"main\"\n"
    );
    let config = bench.write("backup.toml", &config, 0o600)?;
    let config = config.display().to_string();
    for (arguments, hint) in [
        (&["list", "shpo"][..], "those that are: blog, shop"),
        (&["backup", "shpo"], "those that are: blog, shop"),
        (
            &["copy", "latest", "--from", "fra", "--to", "far"],
            "those that are: far",
        ),
    ] {
        let output = bench.run(&[&["--config", &config], arguments].concat())?;
        assert_eq!(code(&output), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(hint), "{}", stderr(&output));
    }
    for arguments in [&["list", "shop"][..], &["list", "shpo", "--days", "3"]] {
        let output = bench.run(&[&["--config", &config], arguments].concat())?;
        assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    }
    let secret = "postgresql://backup:hunter2@db/shop";
    for arguments in [
        &["list", secret][..],
        &["backup", secret],
        &["drill", secret],
    ] {
        let output = bench.run(&[&["--config", &config], arguments].concat())?;
        let said = stderr(&output) + &stdout(&output);
        assert_eq!(code(&output), Some(2), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    Ok(())
}

#[test]
fn nothing_that_is_configured_is_not_right() -> std::io::Result<()> {
    let bench = Bench::new()?;
    let output = bench.run(&["config", "check"])?;
    assert_eq!(code(&output), Some(2), "{}", stdout(&output));
    assert!(stderr(&output).contains("nothing is configured"));
    assert!(stderr(&output).contains("--config FILE"));
    Ok(())
}

#[test]
fn an_empty_place_lists_nothing() -> std::io::Result<()> {
    let bench = Bench::new()?;
    let place = bench.place()?;
    let output = bench.run(&["list", "--from", &place, "--json"])?;
    assert_eq!((code(&output), stdout(&output).trim()), (Some(0), "[]"));
    Ok(())
}

/// What `latest` means is not for the order of the places to say.
#[test]
fn latest_of_different_sources_in_different_places_is_refused() -> std::io::Result<()> {
    let (shop, newer, blog) = (
        "20260205T030000Z-0001",
        "20260207T030000Z-0003",
        "20260206T030000Z-0002",
    );
    let bench = Bench::new()?;
    let one = bench.repository("one", &[("shop", shop)])?;
    let two = bench.repository("two", &[("blog", blog)])?;
    let toml = format!(
        "[encryption]\nmode = 'none'\n[destination.one]\nurl = '{one}'\n\
         [destination.two]\nurl = '{two}'\n"
    );
    let config = bench.write("backup.toml", &toml, 0o600)?;
    let config = config.to_string_lossy();
    let run = |said: &str| {
        let mut arguments = vec!["--config", &*config];
        arguments.extend(said.split_whitespace());
        bench.run(&arguments)
    };
    for said in [
        "verify latest --level stored",
        "verify oldest --level stored",
        "show latest",
        "cat latest --table a.b",
        "restore latest --target-db x -h /none -U nobody",
    ] {
        let output = run(said)?;
        let text = stderr(&output);
        assert_eq!(code(&output), Some(2), "{said}: {text}");
        let expected = "there are backups of shop and of blog";
        assert!(text.contains(expected), "{said}: {text}");
        assert!(text.contains("--source"), "{said}: {text}");
        assert_eq!(stdout(&output), "", "{said}");
    }
    for (said, found) in [
        ("verify latest --source shop --level stored", shop),
        ("verify latest --source blog --level stored", blog),
        ("verify 20260206 --level stored", blog),
    ] {
        let output = run(said)?;
        assert_eq!(code(&output), Some(0), "{said}: {}", stderr(&output));
        assert!(stdout(&output).contains(found), "{said}");
    }
    // Of one source, the newest and the oldest of all places count.
    bench.repository("two", &[("shop", newer)])?;
    std::fs::remove_dir_all(bench.path("two/backups/blog"))?;
    for (said, found) in [("latest", newer), ("oldest", shop)] {
        let output = run(&format!("verify {said} --level stored"))?;
        assert_eq!(code(&output), Some(0), "{said}: {}", stderr(&output));
        assert!(
            stdout(&output).contains(found),
            "{said}: {}",
            stdout(&output)
        );
    }
    Ok(())
}

/// One backup that cannot be judged leaves the others to be proved.
#[test]
fn verify_goes_on_after_a_backup_that_cannot_be_judged() -> std::io::Result<()> {
    let (good, unclear) = ("20260205T030000Z-0001", "20260206T030000Z-0002");
    let bench = Bench::new()?;
    let place = bench.repository("repo", &[("shop", good), ("shop", unclear)])?;
    let folder = bench.path("repo/backups/shop").join(unclear);
    let manifest = folder.join("manifest.json");
    let text = std::fs::read_to_string(&manifest)?;
    let key = r#""encryption":{"cipher":"age","key":"key.age","key_sha256":"","recipients":[]},"#;
    std::fs::write(
        &manifest,
        text.replace(r#""parts""#, &format!(r#"{key}"parts""#)),
    )?;
    // It is neither there nor missing.
    std::os::unix::fs::symlink("key.age", folder.join("key.age"))?;
    let run = |more: &[&str]| bench.run(&[&["verify", "--from", &place], more].concat());
    let said = |word: &str, id: &str, output: &Output| {
        let words = [word, id, "shop"];
        let is_line = |line: &str| words.iter().all(|word| line.contains(word));
        stdout(output).lines().filter(|line| is_line(line)).count() == 1
    };

    let output = run(&["--all"])?;
    assert_eq!(code(&output), Some(3), "{}", stderr(&output));
    assert!(said("ok", good, &output), "{}", stdout(&output));
    assert!(said("failed", unclear, &output), "{}", stdout(&output));
    assert_eq!(stdout(&output).lines().count(), 2);
    let expected = format!("error: backup {unclear}: read key.age");
    assert!(stderr(&output).contains(&expected), "{}", stderr(&output));

    let output = run(&["--all", "--json"])?;
    assert_eq!(code(&output), Some(3));
    let views: Vec<serde_json::Value> = stdout(&output)
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    assert_eq!(
        (&views[0]["id"], &views[0]["status"]),
        (&unclear.into(), &"failed".into())
    );
    assert_eq!(views[0]["error"]["message"], "read key.age");
    assert_eq!(
        (&views[1]["id"], &views[1]["status"]),
        (&good.into(), &"ok".into())
    );
    assert!(views[1]["error"].is_null());

    // Where nothing else was asked for, the error says how it ends; and damage is worse.
    assert_eq!(code(&run(&[unclear])?), Some(8));
    std::fs::remove_dir_all(bench.path("repo/backups/shop").join(good))?;
    assert_eq!(code(&run(&["--all"])?), Some(8));
    let damaged = bench.path("repo/backups/shop").join(good);
    std::fs::create_dir_all(&damaged)?;
    std::fs::write(damaged.join("manifest.json"), "{")?;
    assert_eq!(code(&run(&["--all"])?), Some(6));
    Ok(())
}

#[test]
fn a_failed_backup_is_json_too_and_names_the_server() -> std::io::Result<()> {
    let bench = Bench::new()?;
    let place = file_url(&bench.path("repo"));
    let host = bench.path("no-socket");
    let host = host.to_string_lossy();
    let output = bench.run(&[
        "backup",
        "-h",
        &host,
        "-U",
        "nobody",
        "-d",
        "shop",
        "--to",
        &place,
        "--no-encryption",
        "--json",
    ])?;
    assert_eq!(code(&output), Some(9), "{}", stderr(&output));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(
        (&value["status"], &value["source"]),
        (&"failed".into(), &"shop".into())
    );
    assert_eq!(value["destinations"][0]["status"], "failed");
    assert!(value["error"].to_string().contains("no-socket"), "{value}");
    Ok(())
}

/// A run of several sources says of each how it ended: others may have their backup.
#[test]
fn a_stopped_backup_says_of_which_source_nothing_was_published() -> std::io::Result<()> {
    let bench = Bench::new()?;
    // Accepts and says nothing.
    let server = std::net::TcpListener::bind("127.0.0.1:0")?;
    let toml = format!(
        "[encryption]\nmode = 'none'\n[server.main]\nhost = '127.0.0.1'\nport = {}\n\
         user = 'backup'\nsslmode = 'disable'\n[source.blog]\nserver = 'main'\n\
         [source.shop]\nserver = 'main'\n[destination.local]\nurl = '{}'\n",
        server.local_addr()?.port(),
        bench.place()?
    );
    let config = bench.write("backup.toml", &toml, 0o600)?;
    let run = std::process::Command::new("env")
        .env_clear()
        .env("HOME", bench.dir.path())
        .args(["--default-signal=TERM", env!("CARGO_BIN_EXE_backup-cli")])
        .arg("--config")
        .arg(&config)
        .args(["backup", "--all"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    let connection = server.accept()?;
    let asked = std::process::Command::new("kill")
        .arg(run.id().to_string())
        .status()?;
    assert!(asked.success());
    let output = run.wait_with_output()?;
    drop(connection);
    let text = stderr(&output);
    assert_eq!(code(&output), Some(143), "{text}");
    for line in [
        "error: backup of blog: stopped by a signal; nothing was published",
        "error: backup of shop: not begun",
    ] {
        let said = text.lines().filter(|found| found.trim() == line).count();
        assert_eq!(said, 1, "{text}");
    }
    assert_eq!(text.matches("nothing was published").count(), 1, "{text}");
    assert_eq!(stdout(&output), "");
    Ok(())
}

#[test]
fn keygen_writes_a_private_file_and_never_over_another() -> std::io::Result<()> {
    let bench = Bench::new()?;
    let path = bench.path("identity.txt");
    let name = path.to_string_lossy();
    let output = bench.run(&["keygen", "-o", &name])?;
    assert_eq!(code(&output), Some(0));
    assert!(stderr(&output).contains("public key: age1"));
    assert_eq!(stdout(&output), "");
    let text = std::fs::read_to_string(&path)?;
    assert!(text.contains("AGE-SECRET-KEY-1") && text.contains("# public key: age1"));
    assert_eq!(
        std::fs::metadata(&path)?.permissions().mode() & 0o777,
        0o600
    );
    let again = bench.run(&["keygen", "-o", &name])?;
    assert_ne!(code(&again), Some(0));
    assert_eq!(std::fs::read_to_string(&path)?, text);
    Ok(())
}

#[test]
fn the_configuration_is_checked_and_shown_without_secrets() -> std::io::Result<()> {
    let bench = Bench::new()?;
    let password = bench.write("password", "canary-password", 0o600)?;
    let repo = file_url(&bench.path("repo"));
    let toml = format!(
        "[encryption]\nmode = 'none'\n[server.main]\nhost = '/tmp'\nuser = 'backup'\n\
         password = {{ file = '{}' }}\n[source.shop]\nserver = 'main'\ndestinations = ['local']\n\
         [destination.local]\nurl = '{repo}'\n",
        password.display()
    );
    let config = bench.write("backup.toml", &toml, 0o600)?;
    let config = config.to_string_lossy();
    let check = bench.run(&["--config", &config, "config", "check"])?;
    assert_eq!(code(&check), Some(0), "{}", stderr(&check));
    assert_eq!(stdout(&check), "ok: 1 source, 1 server, 1 destination\n");
    for json in [false, true] {
        let mut arguments = vec!["--config", &config, "config", "show"];
        arguments.extend(json.then_some("--json"));
        let shown = bench.run(&arguments)?;
        assert!(stdout(&shown).contains("shop"), "{}", stdout(&shown));
        assert!(!stdout(&shown).contains("canary"), "{}", stdout(&shown));
    }
    Ok(())
}

#[test]
fn a_configuration_that_others_can_read_is_refused() -> std::io::Result<()> {
    let bench = Bench::new()?;
    let config = bench.write("backup.toml", "", 0o644)?;
    let output = bench.run(&["--config", &config.to_string_lossy(), "list"])?;
    assert_eq!(code(&output), Some(2));
    assert!(stderr(&output).contains("chmod 600"), "{}", stderr(&output));
    Ok(())
}

#[test]
fn a_typing_error_in_the_configuration_suggests_what_was_meant() -> std::io::Result<()> {
    let bench = Bench::new()?;
    let config = bench.write("backup.toml", "[defaults]\njbos = 2\n", 0o600)?;
    let output = bench.run(&["--config", &config.to_string_lossy(), "list"])?;
    assert_eq!(code(&output), Some(2));
    let text = stderr(&output);
    assert!(
        text.contains("unknown key \"jbos\" in defaults") && text.contains("\"jobs\""),
        "{text}"
    );
    Ok(())
}

#[test]
fn completions_and_man_pages_are_complete() -> std::io::Result<()> {
    let bench = Bench::new()?;
    for shell in ["bash", "zsh", "fish"] {
        let output = bench.run(&["completions", shell])?;
        assert!(stdout(&output).contains("restore"), "{shell}");
    }
    let man = bench.path("man");
    let output = bench.run(&["man", &man.to_string_lossy()])?;
    assert_eq!(code(&output), Some(0));
    let page = man.join("backup-cli-restore.1");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&page)?);
    assert_eq!(mode & 0o777, 0o644);
    let page = std::fs::read_to_string(page)?;
    assert!(page.contains("target"), "{page}");
    Ok(())
}

/// A private key that was not written must not be encrypted to.
#[test]
fn a_result_that_cannot_be_written_is_no_success() -> std::io::Result<()> {
    let bench = Bench::new()?;
    let place = bench.place()?;
    for arguments in [&["keygen"][..], &["list", "--json", "--from", &place]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full")?;
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_backup-cli"))
            .env_clear()
            .args(arguments)
            .stdout(full)
            .stderr(std::process::Stdio::piped())
            .spawn()?
            .wait_with_output()?;
        assert_eq!(code(&output), Some(1), "{arguments:?}");
        assert!(
            !stderr(&output).contains("public key"),
            "{}",
            stderr(&output)
        );
    }
    Ok(())
}

/// A full disk or a closed pipe behind the log ends no backup and no prune.
#[test]
fn a_log_that_cannot_be_written_ends_nothing() -> std::io::Result<()> {
    let bench = Bench::new()?;
    let place = bench.place()?;
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full")?;
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_backup-cli"))
        .env_clear()
        .args(["-v", "backup", "-d", "x", "-h", "/nowhere", "-U", "me"])
        .args(["--to", &place, "--no-encryption", "--json"])
        .stdout(std::process::Stdio::piped())
        .stderr(full)
        .spawn()?
        .wait_with_output()?;
    assert_eq!(code(&output), Some(9));
    Ok(())
}

#[test]
fn variables_that_would_lead_elsewhere_are_refused() -> std::io::Result<()> {
    let bench = Bench::new()?;
    let place = bench.place()?;
    for name in ["PGSERVICE", "PGHOSTADDR", "PGOPTIONS"] {
        let output = Command::new(env!("CARGO_BIN_EXE_backup-cli"))
            .env_clear()
            .env(name, "x")
            .args(["backup", "-d", "shop", "--to", &place, "--no-encryption"])
            .output()?;
        assert_eq!(code(&output), Some(2), "{name}");
        assert!(stderr(&output).contains(name), "{}", stderr(&output));
    }
    Ok(())
}
