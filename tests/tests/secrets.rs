//! Secrets stay where they were put: they are in nothing that is said, stored, or seen by others.
//!
//! Every secret of a scene is a canary, and every scene, good or bad, is searched for all of them:
//! what the program says in each of its forms, the objects it stores, the arguments and variables
//! of everything that runs meanwhile, and the files it leaves.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::fake_tools::{Calls, FakeTools, pause_after};
use backup_e2e::pg::{Cluster, ClusterOptions};
use backup_e2e::s3::Kind;
use backup_e2e::scene::{Place, Process, SOURCE, Scene, Settings, Store, is_record, unique};

const PASSWORD: &str = r#"c4n4ry:p\w'o"r@d% s p"#;
const WRONG_PASSWORD: &str = r"wr0ng:c4n4ry\p@ss% w";
const WRONG_SECRET: &str = "wr0ng/c4n4ry+secret=";

/// A table, a column and a value that only encrypted objects may name.
const NAMES: [&str; 3] = ["canary_table", "canary_column", "canary_value"];

const LIMIT: Duration = Duration::from_mins(1);

fn cluster() -> Result<&'static Cluster> {
    static CLUSTER: OnceLock<Result<Cluster, String>> = OnceLock::new();
    let start = || {
        let options = ClusterOptions::default().scram(PASSWORD);
        Cluster::start(17, &options).map_err(|error| format!("{error:#}"))
    };
    let started = CLUSTER.get_or_init(start).as_ref();
    started.map_err(|message| anyhow::anyhow!("{message}"))
}

fn database(cluster: &Cluster) -> Result<String> {
    let name = cluster.fresh_db(&unique("secret"))?;
    let [table, column, value] = NAMES;
    let sql =
        format!("CREATE TABLE {table} ({column} text); INSERT INTO {table} VALUES ('{value}')");
    cluster.psql(&name, &sql)?;
    Ok(name)
}

/// What must be nowhere: each secret, and the forms it takes in URLs, JSON, shells and files.
fn canaries(scene: &Scene<'_>) -> Result<Vec<String>> {
    let identity = fs::read_to_string(scene.path("identity"))?;
    let key = identity
        .lines()
        .find(|line| line.starts_with("AGE-SECRET-KEY-"));
    let mut canaries = vec![
        key.context("a private key")?.to_owned(),
        scene.settings.secret_key.clone(),
        WRONG_SECRET.to_owned(),
    ];
    for password in [PASSWORD, WRONG_PASSWORD] {
        canaries.push(password.to_owned());
        canaries.push(password.replace('\\', "\\\\").replace(':', "\\:"));
        canaries.push(password.replace('\\', "\\\\").replace('"', "\\\""));
        canaries.push(password.replace('\'', "\\'"));
        // A piece that no escaping changes.
        let pieces = password.split([':', '\\', '\'', '"', '@', '%', ' ']);
        canaries.extend(pieces.filter(|piece| piece.len() > 4).map(str::to_owned));
    }
    let mut encoded: Vec<_> = canaries
        .iter()
        .map(|canary| percent_encoded(canary))
        .collect();
    canaries.append(&mut encoded);
    canaries.retain(|canary| canary.len() > 4);
    Ok(canaries)
}

fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}

fn assert_clean(what: &str, text: &str, canaries: &[String]) -> Result<()> {
    let found = canaries
        .iter()
        .find(|canary| text.contains(canary.as_str()));
    ensure!(found.is_none(), "{what} has {found:?}: {text}");
    Ok(())
}

/// The arguments of everything that runs on this host.
fn command_lines() -> String {
    let mut text = String::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        text += &String::from_utf8_lossy(&arguments).replace('\0', " ");
        text.push('\n');
    }
    text
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

/// Runs a command while watching everything else; returns what it said.
fn watched(scene: &Scene<'_>, arguments: &[&str], canaries: &[String]) -> Result<(i32, String)> {
    let mut run = scene.start(arguments)?;
    let own = run.pid();
    while !run.has_ended()? {
        assert_clean("a command line", &command_lines(), canaries)?;
        for process in scene
            .processes()
            .iter()
            .filter(|process| process.pid != own)
        {
            assert_child_is_clean(process, canaries)?;
        }
        for file in files_below(&scene.tmp()) {
            let text = String::from_utf8_lossy(&fs::read(&file).unwrap_or_default()).into_owned();
            if file.ends_with("passfile") {
                continue;
            }
            assert_clean(&file.display().to_string(), &text, canaries)?;
        }
    }
    let done = run.finish(LIMIT)?;
    assert_clean("what was said", &done.text(), canaries)?;
    let left = files_below(&scene.tmp());
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok((done.code, done.text()))
}

fn assert_child_is_clean(process: &Process, canaries: &[String]) -> Result<()> {
    let names = process
        .environment
        .iter()
        .filter_map(|v| v.split('=').next());
    let names: BTreeSet<_> = names.collect();
    // The marks of the scene and of the harness' own psql.
    if names.contains("PGB_E2E_SCENE") {
        return Ok(());
    }
    ensure!(!names.contains("PGPASSWORD"), "{process:?}");
    for variable in &process.environment {
        assert_clean("a child's variable", variable, canaries)?;
        if let Some(path) = variable.strip_prefix("PGPASSFILE=")
            && let Ok(meta) = fs::metadata(path)
        {
            let mode = meta.permissions().mode() & 0o777;
            ensure!(mode == 0o600, "{path} has mode {mode:o}");
        }
    }
    Ok(())
}

/// The forms in which the program talks.
const TONGUES: [&[&str]; 4] = [
    &[],
    &["-v"],
    &["--json"],
    &["-v", "--json", "--log-format", "json"],
];

type Change<'a> = &'a dyn Fn(&mut Settings);

/// A command, how its settings are changed, and how it ends.
type Row<'a> = (&'a str, Change<'a>, Vec<&'a str>, i32);

fn rows<'a>(older: &'a str, target: &'a str, s3: bool) -> Vec<Row<'a>> {
    let restore = || vec!["restore", older, "--target-db", target];
    let verify = || vec!["verify", older, "--level", "decoded"];
    let as_is: Change<'_> = &|_| {};
    let mut rows: Vec<Row<'a>> = vec![
        ("backup", as_is, vec!["backup", SOURCE], 0),
        ("list", as_is, vec!["list"], 0),
        ("show", as_is, vec!["show", older], 0),
        ("verify", as_is, verify(), 0),
        ("config", as_is, vec!["config", "show"], 0),
        ("restore", as_is, restore(), 0),
        (
            "wrong password",
            &|s| s.password = Some(WRONG_PASSWORD.to_owned()),
            vec!["backup", SOURCE],
            9,
        ),
        (
            "restore with a wrong password",
            &|s| s.password = Some(WRONG_PASSWORD.to_owned()),
            restore(),
            9,
        ),
        (
            "no such database",
            &|s| "nothing".clone_into(&mut s.database),
            vec!["backup", SOURCE],
            9,
        ),
        (
            "no such backup",
            as_is,
            vec!["show", "20200101T000000Z-0000"],
            4,
        ),
    ];
    if s3 {
        let wrong: Change<'_> = &|s| WRONG_SECRET.clone_into(&mut s.secret_key);
        rows.push(("wrong secret", wrong, vec!["backup", SOURCE], 8));
        rows.push(("listing with a wrong secret", wrong, vec!["list"], 8));
    }
    rows
}

fn check_everything_said(store: Store) -> Result<()> {
    let cluster = cluster()?;
    let database = database(cluster)?;
    let mut scene = Scene::new(cluster, &database, store)?;
    let canaries = canaries(&scene)?;
    let right = scene.settings.clone();
    let (older, target) = (scene.older().to_owned(), scene.target());
    let is_bucket = matches!(scene.place, Place::Bucket { .. });
    for (name, change, arguments, code) in rows(&older, &target, is_bucket) {
        for tongue in TONGUES {
            scene.settings = right.clone();
            change(&mut scene.settings);
            let arguments = [&arguments[..], tongue].concat();
            let check = watched(&scene, &arguments, &canaries);
            let check = check.and_then(|(ended, said)| {
                ensure!(ended == code, "code {ended} instead of {code}: {said}");
                if cluster.has_db(&target)? {
                    cluster.drop_db(&target)?;
                }
                Ok(())
            });
            check.with_context(|| format!("{name} {tongue:?}"))?;
        }
    }
    assert_stored_clean(&scene, &canaries)
}

/// No object has a secret, and none that is in the clear has a name or a value. The record of a
/// failed run tells which host it could not reach.
fn assert_stored_clean(scene: &Scene<'_>, canaries: &[String]) -> Result<()> {
    let keys = scene.place.keys()?;
    ensure!(keys.len() > 5, "{keys:?}");
    ensure!(keys.iter().any(|key| is_record(key)), "no record: {keys:?}");
    for key in keys {
        let bytes = scene.place.get(&key)?;
        let text = String::from_utf8_lossy(&bytes);
        assert_clean(&key, &text, canaries)?;
        let host = (!is_record(&key)).then_some("127.0.0.1");
        for name in NAMES.iter().copied().chain(host) {
            ensure!(!text.contains(name), "{key} names {name}");
            ensure!(!key.contains(name), "{key} is named after {name}");
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn nothing_said_or_stored_in_a_folder_has_a_secret() -> Result<()> {
    check_everything_said(Store::Local)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn nothing_said_or_stored_in_a_bucket_has_a_secret() -> Result<()> {
    check_everything_said(Store::S3(Kind::SeaweedFs))
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn not_even_every_log_line_there_is_has_a_secret() -> Result<()> {
    let cluster = cluster()?;
    let database = database(cluster)?;
    for store in [Store::Local, Store::S3(Kind::SeaweedFs)] {
        let mut scene = Scene::new(cluster, &database, store)?;
        let canaries = canaries(&scene)?;
        scene.settings.env = vec![("RUST_LOG".to_owned(), "trace".to_owned())];
        let (_, said) = watched(&scene, &["backup", SOURCE], &canaries)?;
        ensure!(said.contains("DEBUG"), "{said}");
        let target = scene.target();
        let restore = ["restore", scene.older(), "--target-db", &target];
        let (code, said) = watched(&scene, &restore, &canaries)?;
        ensure!(code == 0, "{said}");
        cluster.drop_db(&target)?;
    }
    Ok(())
}

/// The child that a paused backup has: what it was given, and what is left afterwards.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_child_gets_its_password_by_a_private_file_that_goes() -> Result<()> {
    let cluster = cluster()?;
    let database = database(cluster)?;
    let mut scene = Scene::new(cluster, &database, Store::Local)?;
    let canaries = canaries(&scene)?;
    let fakes = FakeTools::new(cluster.bin_dir())?;
    fakes.misbehave("pg_dump", Calls::Data, &pause_after(100))?;
    fakes.bin_dir().clone_into(&mut scene.settings.bin_dir);
    let flag = fakes.flag("paused");
    let mut run = scene.start(&["backup", SOURCE])?;
    run.wait_until("the dump of rows", || Ok(flag.exists()))?;
    let own = run.pid();
    let children = scene.processes();
    let children: Vec<_> = children
        .iter()
        .filter(|process| process.pid != own)
        .collect();
    ensure!(!children.is_empty(), "no child was seen");
    let mut passfile = None;
    for child in children {
        assert_child_is_clean(child, &canaries)?;
        assert_clean("a command line", &child.command_line, &canaries)?;
        let path = child
            .environment
            .iter()
            .find_map(|v| v.strip_prefix("PGPASSFILE="));
        passfile = passfile.or(path.map(PathBuf::from));
    }
    let passfile = passfile.context("a password file")?;
    ensure!(passfile.starts_with(scene.tmp()), "{}", passfile.display());
    let folder = passfile.parent().context("a folder")?;
    let mode = |path: &Path| fs::metadata(path).map(|meta| meta.permissions().mode() & 0o777);
    assert_eq!((mode(&passfile)?, mode(folder)?), (0o600, 0o700));
    fs::write(fakes.flag("go"), "")?;
    run.finish(LIMIT)?.expect(0, &[])?;
    ensure!(!folder.exists(), "{} is left", folder.display());
    Ok(())
}

/// What a user gives by mistake is not repeated.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_secret_in_the_wrong_place_is_not_repeated() -> Result<()> {
    let cluster = cluster()?;
    let database = database(cluster)?;
    let mut scene = Scene::new(cluster, &database, Store::Local)?;
    let canaries = canaries(&scene)?;
    let key = canaries[0].clone();
    let broken = scene.path("broken");
    fs::write(&broken, format!("{}\n", &key[..key.len() - 4]))?;
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o600))?;
    let piece = vec![key[16..key.len() - 4].to_owned()];
    let older = scene.older().to_owned();
    // A private key for a public one: it is on the command line then, but goes no further.
    for tongue in TONGUES {
        let arguments = [&["backup", SOURCE, "--recipient", &key][..], tongue].concat();
        let run = scene.run(&arguments)?;
        ensure!(
            [2, 10].contains(&run.code),
            "code {}: {}",
            run.code,
            run.text()
        );
        assert_clean("what was said", &run.text(), &piece)?;
    }
    scene.settings.identity = Some(broken);
    for tongue in TONGUES {
        let verify = ["verify", &older, "--level", "decoded"];
        let run = scene.run(&[&verify[..], tongue].concat())?;
        ensure!([2, 10].contains(&run.code), "code {}", run.code);
        assert_clean("what was said", &run.text(), &piece)?;
    }
    Ok(())
}
