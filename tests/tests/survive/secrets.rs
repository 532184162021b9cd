//! Secrets stay where they were put: they are in nothing that is said, stored, or seen by others.
//!
//! Check 7. In every end-to-end test, what the program says is searched for every secret by the
//! harness ([`backup_e2e::canary`]). Here every scene, good or bad, is searched once more while it
//! runs: what the program says in each of its forms, the objects it stores, the arguments and
//! variables of everything that it runs meanwhile, and the files it leaves.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::canary::{self, Kind};
use backup_e2e::evidence;
use backup_e2e::fake_tools::{Calls, FakeTools, pause_after};
use backup_e2e::pg::{Cluster, ClusterOptions};
use backup_e2e::s3;
use backup_e2e::scene::{Place, Process, SOURCE, Scene, Settings, Store, is_record, unique};

const PASSWORD: &str = r#"c4n4ry7d1e:p\w'o"r@d% s p"#;
const WRONG_PASSWORD: &str = r"wr0ng:c4n4ry8b0f\p@ss% w";
const WRONG_SECRET: &str = "wr0ng/c4n4ry5ac3+secret=";

/// A table, a column and a value that only encrypted objects may name.
const NAMES: [&str; 3] = ["canary_table", "canary_column", "canary_value"];

/// A variable that every program of a scene has, and no child of it.
const MARK: &str = "PGB_E2E_SCENE";

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
fn watched(scene: &Scene<'_>, arguments: &[&str]) -> Result<(i32, String)> {
    let mut run = scene.start(arguments)?;
    let own = run.pid();
    while !run.has_ended()? {
        for process in scene
            .processes()
            .iter()
            .filter(|process| process.pid != own)
        {
            assert_child_is_clean(process, own)?;
        }
        for file in files_below(&scene.tmp()) {
            if file.ends_with("passfile") {
                continue;
            }
            let bytes = fs::read(&file).unwrap_or_default();
            canary::look(Kind::Stored, &file.display().to_string(), bytes)?;
        }
        thread::sleep(Duration::from_millis(5));
    }
    let done = run.finish(LIMIT)?;
    let left = files_below(&scene.tmp());
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok((done.code, done.text()))
}

/// What stands in a file of a process; nothing once it is gone.
fn fields_of(pid: u32, file: &str) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let fields = bytes.split(|byte| *byte == 0).filter(|f| !f.is_empty());
    fields
        .map(|field| String::from_utf8_lossy(field).into_owned())
        .collect()
}

/// Looks at a process that the program started.
fn assert_child_is_clean(process: &Process, program: u32) -> Result<()> {
    let names = process
        .environment
        .iter()
        .filter_map(|v| v.split('=').next());
    let names: BTreeSet<_> = names.collect();
    // The mark of the scene is the program's own variable. A child that was started a moment ago is
    // a copy of the program, with its arguments, until it becomes the tool.
    if names.contains(MARK) {
        let own = fields_of(program, "cmdline").join(" ");
        let is_copy = own.is_empty() || process.command_line == own;
        // It may have become the tool between its two files.
        let now = fields_of(process.pid, "environ");
        let is_marked = now.iter().any(|variable| variable.starts_with(MARK));
        ensure!(is_copy || !is_marked, "it has all variables: {process:?}");
        return Ok(());
    }
    canary::look(Kind::CommandLine, "a command line", &process.command_line)?;
    ensure!(!names.contains("PGPASSWORD"), "{process:?}");
    for variable in &process.environment {
        canary::look(Kind::CommandLine, "a child's variable", variable)?;
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
    let right = scene.settings.clone();
    let (older, target) = (scene.older().to_owned(), scene.target());
    let is_bucket = matches!(scene.place, Place::Bucket { .. });
    let rows = rows(&older, &target, is_bucket);
    let runs = rows.len() * TONGUES.len();
    for (name, change, arguments, code) in rows {
        for tongue in TONGUES {
            scene.settings = right.clone();
            change(&mut scene.settings);
            let arguments = [&arguments[..], tongue].concat();
            let check = watched(&scene, &arguments);
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
    let objects = assert_stored_clean(&scene)?;
    let place = if is_bucket { "a bucket" } else { "a folder" };
    evidence::note(
        7,
        format!(
            "{runs} commands, good and failing ones, in each form of output, and their {objects} objects in \
             {place} had no secret; in this process so far {}",
            canary::seen()
        ),
    );
    Ok(())
}

/// No object has a secret, and none that is in the clear has a name or a value. The record of a
/// failed run tells which host it could not reach.
fn assert_stored_clean(scene: &Scene<'_>) -> Result<usize> {
    let keys = scene.place.keys()?;
    ensure!(keys.len() > 5, "{keys:?}");
    ensure!(keys.iter().any(|key| is_record(key)), "no record: {keys:?}");
    for key in &keys {
        let bytes = scene.place.get(key)?;
        let text = String::from_utf8_lossy(&bytes);
        canary::look(Kind::Stored, key, &bytes)?;
        let host = (!is_record(key)).then_some("127.0.0.1");
        for name in NAMES.iter().copied().chain(host) {
            ensure!(!text.contains(name), "{key} names {name}");
            ensure!(!key.contains(name), "{key} is named after {name}");
        }
    }
    Ok(keys.len())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_07_nothing_said_or_stored_in_a_folder_has_a_secret() -> Result<()> {
    check_everything_said(Store::Local)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_07_nothing_said_or_stored_in_a_bucket_has_a_secret() -> Result<()> {
    check_everything_said(Store::S3(s3::Kind::SeaweedFs))
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_07_not_even_every_log_line_there_is_has_a_secret() -> Result<()> {
    let cluster = cluster()?;
    let database = database(cluster)?;
    let mut lines = 0;
    for store in [Store::Local, Store::S3(s3::Kind::SeaweedFs)] {
        let mut scene = Scene::new(cluster, &database, store)?;
        scene.settings.env = vec![("RUST_LOG".to_owned(), "trace".to_owned())];
        let (code, said) = watched(&scene, &["backup", SOURCE])?;
        ensure!(code == 0, "{said}");
        ensure!(said.contains("DEBUG"), "{said}");
        lines += said.lines().count();
        let target = scene.target();
        let restore = ["restore", scene.older(), "--target-db", &target];
        let (code, said) = watched(&scene, &restore)?;
        ensure!(code == 0, "{said}");
        lines += said.lines().count();
        cluster.drop_db(&target)?;
    }
    let said = format!(
        "with every log line there is, {lines} of them, a backup and a restore said no secret"
    );
    evidence::note(7, said);
    Ok(())
}

/// The child that a paused backup has: what it was given, and what is left afterwards.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_07_a_child_gets_its_password_by_a_private_file_that_goes() -> Result<()> {
    let cluster = cluster()?;
    let database = database(cluster)?;
    let mut scene = Scene::new(cluster, &database, Store::Local)?;
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
        assert_child_is_clean(child, own)?;
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
    let said = "a child got its password by a file that only its user reads, which goes with it";
    evidence::note(7, said);
    Ok(())
}

/// What a user gives by mistake is not repeated.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_07_a_secret_in_the_wrong_place_is_not_repeated() -> Result<()> {
    let cluster = cluster()?;
    let database = database(cluster)?;
    let mut scene = Scene::new(cluster, &database, Store::Local)?;
    let identity = fs::read_to_string(scene.path("identity"))?;
    let mut lines = identity.lines();
    let key = lines.find(|line| line.starts_with("AGE-SECRET-KEY-"));
    let key = key.context("a private key")?.to_owned();
    let broken = scene.path("broken");
    fs::write(&broken, format!("{}\n", &key[..key.len() - 4]))?;
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o600))?;
    let piece = &key[16..key.len() - 4];
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
        ensure!(!run.text().contains(piece), "{}", run.text());
    }
    scene.settings.identity = Some(broken);
    for tongue in TONGUES {
        let verify = ["verify", &older, "--level", "decoded"];
        let run = scene.run(&[&verify[..], tongue].concat())?;
        ensure!([2, 10].contains(&run.code), "code {}", run.code);
        ensure!(!run.text().contains(piece), "{}", run.text());
    }
    let said = "a private key given for a public one, and one that is damaged, were not repeated";
    evidence::note(7, said);
    Ok(())
}
