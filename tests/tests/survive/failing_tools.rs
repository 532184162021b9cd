//! A dump that fails anywhere publishes nothing: whatever its tools and its database do.

use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::evidence;
use backup_e2e::fake_tools::{Calls, FakeTools, pause_after};
use backup_e2e::fault::{Faults, Proxy};
use backup_e2e::pg::{Cluster, ClusterOptions, quote_literal};
use backup_e2e::s3::Kind;
use backup_e2e::sample;
use backup_e2e::scene::{Done, Run, SOURCE, Scene, Settings, Store, unique, wait_for_silence};

/// A password that needs care in URLs, connection strings, password files and shells.
const PASSWORD: &str = r#"c4n4ry40fe:pa:ss\w'o"r@d% & $x"#;

/// Uncompressed, so that the rows take several parts of an upload.
const PLAIN: &str = "compression = 'none'";

/// Longer than any of these failures may take; what takes longer hangs.
const BOUND: Duration = Duration::from_mins(3);

/// For what is soon so.
const PATIENCE: Duration = Duration::from_mins(1);

/// A cluster of this file's own: its roles are changed, and it asks for passwords.
fn cluster() -> Result<&'static Cluster> {
    static CLUSTER: OnceLock<Result<Cluster, String>> = OnceLock::new();
    let start = || {
        let options = ClusterOptions::default().scram(PASSWORD);
        Cluster::start(17, &options).map_err(|error| format!("{error:#}"))
    };
    let started = CLUSTER.get_or_init(start).as_ref();
    started.map_err(|message| anyhow::anyhow!("{message}"))
}

/// A database in which two tables have rows.
fn database(cluster: &Cluster, megabytes: u32) -> Result<String> {
    let name = cluster.fresh_db(&unique("failing"))?;
    let sql = "CREATE TABLE app.second (id int PRIMARY KEY, note text);
               INSERT INTO app.second SELECT i, 'note ' || i FROM generate_series(1, 500) AS i;";
    cluster.psql(&name, &(sample::bulk_sql("app", "bulk", megabytes) + sql))?;
    Ok(name)
}

/// A scene whose first backup is small, so that it is soon proved, and whose database then grew to
/// `megabytes`.
fn grown(store: Store, megabytes: u32, defaults: &[&str]) -> Result<Scene<'static>> {
    let cluster = cluster()?;
    let name = cluster.fresh_db(&unique("failing"))?;
    let sql = "CREATE SCHEMA app; CREATE TABLE app.second (id int PRIMARY KEY, note text);
               INSERT INTO app.second SELECT i, 'note ' || i FROM generate_series(1, 500) AS i;";
    cluster.psql(&name, sql)?;
    let scene = Scene::with(cluster, &name, store, |settings| {
        settings.defaults = defaults.iter().map(ToString::to_string).collect();
    })?;
    cluster.psql(&name, &sample::bulk_sql("app", "bulk", megabytes))?;
    Ok(scene)
}

/// A tool that misbehaves, and what is to come of it.
struct Row {
    name: &'static str,
    tool: &'static str,
    calls: Calls,
    body: &'static str,
    words: &'static [&'static str],
}

const fn data(name: &'static str, body: &'static str, words: &'static [&'static str]) -> Row {
    Row {
        name,
        tool: "pg_dump",
        calls: Calls::Data,
        body,
        words,
    }
}

const TOOL_FAILURES: [Row; 15] = [
    data(
        "fails after its last byte",
        r#""$real" "$@"; echo 'pg_dump: error: lost my way at the end' >&2; exit 1"#,
        &[
            "data-rest",
            "pg_dump exited with 1",
            "lost my way at the end",
        ],
    ),
    data(
        "ends well after half of its bytes",
        r#""$real" "$@" >"$dir/all"; head -c $(($(stat -c %s "$dir/all") / 2)) "$dir/all""#,
        &["data-rest", "end"],
    ),
    data(
        "ends well one byte early",
        r#""$real" "$@" | head -c -1"#,
        &["data-rest", "end"],
    ),
    data(
        "is killed midway",
        r#""$real" "$@" | head -c 2000000; kill -9 $$"#,
        &["data-rest", "pg_dump was killed by signal 9 (SIGKILL)"],
    ),
    data(
        "floods its words, then fails",
        r"yes 'pg_dump: so many words' | head -c 20000000 >&2; echo 'the last words' >&2; exit 3",
        &["pg_dump exited with 3", "the last words"],
    ),
    data(
        "hangs",
        r#""$real" "$@" | head -c 2000000; exec sleep 1000"#,
        &["data-rest", "no bytes moved for 5 s"],
    ),
    data(
        "hangs and ignores signals",
        r#"trap '' TERM INT HUP; "$real" "$@" | head -c 2000000; while :; do sleep 100; done"#,
        &["data-rest", "no bytes moved for 5 s"],
    ),
    data(
        "writes garbage",
        "head -c 2000000 /dev/urandom",
        &["data-rest"],
    ),
    data("writes nothing", "exit 0", &["data-rest"]),
    data(
        "dumps another database",
        r#"args=(); for a; do case $a in --snapshot=*) ;; *) args+=("$a") ;; esac; done
           PGDATABASE=postgres exec "$real" "${args[@]}""#,
        &["data-rest", "postgres", "instead of"],
    ),
    data(
        "leaves a table out",
        r#"exec "$real" "$@" --exclude-table=app.second"#,
        &["data-rest", "left out", "app.second"],
    ),
    data(
        "does not end",
        r#""$real" "$@"; exec >&-; exec sleep 1000"#,
        &["data-rest", "no bytes moved for 5 s"],
    ),
    data(
        "leaves a child with its output",
        r#""$real" "$@"; sleep 1000 & exit 0"#,
        &["data-rest", "exited but left its output open"],
    ),
    Row {
        name: "fails over the definitions",
        tool: "pg_dump",
        calls: Calls::Schema,
        body: "echo 'pg_dump: error: no definitions today' >&2; exit 1",
        words: &["schema", "pg_dump exited with 1", "no definitions today"],
    },
    Row {
        name: "fails over the roles",
        tool: "pg_dumpall",
        calls: Calls::All,
        body: "echo 'pg_dumpall: error: no roles today' >&2; exit 1",
        words: &["globals", "pg_dumpall exited with 1", "no roles today"],
    },
];

/// Every so many of them.
fn check_tool_failures(store: Store, step: usize) -> Result<()> {
    let cluster = cluster()?;
    let mut scene = grown(store, 4, &[PLAIN])?;
    let patient = scene.settings.defaults.clone();
    let rows = TOOL_FAILURES.iter().step_by(step);
    let ways = rows.len();
    for row in rows {
        let fakes = FakeTools::new(cluster.bin_dir())?;
        fakes.misbehave(row.tool, row.calls, row.body)?;
        fakes.bin_dir().clone_into(&mut scene.settings.bin_dir);
        // Only those that hang need not be waited for; the others may stand still for a moment.
        let hangs = row.words.iter().any(|word| word.contains("no bytes moved"));
        let stall = hangs.then(|| "stall_timeout = '5s'".to_owned());
        scene.settings.defaults = [patient.clone(), stall.into_iter().collect()].concat();
        let before = scene.state()?;
        let run = scene.start(&["backup", SOURCE])?.finish(BOUND);
        let check = run.and_then(|run| {
            let run = run.expect(1, row.words)?;
            assert_bounded(&run)?;
            assert_recorded(&scene, row.words)?;
            scene.assert_nothing_published(&before)
        });
        check.with_context(|| format!("a tool that {}", row.name))?;
    }
    scene.good_backup()?;
    evidence::note(
        2,
        format!(
            "{ways} ways in which a tool fails, in {}: nothing published, each recorded",
            place_of(store)
        ),
    );
    Ok(())
}

fn place_of(store: Store) -> &'static str {
    match store {
        Store::Local => "a folder",
        Store::S3(Kind::SeaweedFs) => "SeaweedFS",
        Store::S3(Kind::MinIo) => "MinIO",
    }
}

/// What the programs above say themselves.
const SAID: [&str; 4] = [
    "lost my way at the end",
    "the last words",
    "no definitions today",
    "no roles today",
];

/// The run left a record, which says the same, but for what a program said: it may quote rows.
fn assert_recorded(scene: &Scene<'_>, words: &[&str]) -> Result<()> {
    let record = scene.newest_record()?;
    ensure!(record["result"] == "failed", "{record}");
    let error = record["error"].as_str().context("an error")?;
    for word in words {
        let expected = !SAID.contains(word);
        ensure!(error.contains(word) == expected, "{word}: {record}");
    }
    Ok(())
}

fn assert_bounded(run: &Done) -> Result<()> {
    ensure!(run.text().len() < 20_000, "{} bytes said", run.text().len());
    let megabytes = run.peak_memory >> 20;
    ensure!(megabytes < 200, "{megabytes} MiB of memory");
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_02_a_failing_tool_publishes_nothing_in_a_folder() -> Result<()> {
    check_tool_failures(Store::Local, 1)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_02_a_failing_tool_publishes_nothing_in_a_bucket() -> Result<()> {
    check_tool_failures(Store::S3(Kind::SeaweedFs), 3)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_02_a_failing_tool_publishes_nothing_in_minio() -> Result<()> {
    check_tool_failures(Store::S3(Kind::MinIo), 4)
}

/// What a dump writes before it fails.
const WRITTEN: usize = 20_000_000;

/// Writes so much, waits, and ends as told.
fn late_failure(end: &str) -> String {
    format!(
        r#""$real" "$@" | head -c {WRITTEN} >"$dir/all"; stat -c %s "$dir/all" >"$dir/written"
           cat "$dir/all"; touch "$dir/paused"
           until [ -e "$dir/go" -o ! -d "$dir" ]; do sleep 0.05; done; {end}"#
    )
}

/// A dump that fails when nearly all of it is stored, by itself or by a signal.
fn check_late_failures(store: Store) -> Result<()> {
    let cluster = cluster()?;
    let mut scene = grown(store, 26, &[PLAIN])?;
    let mut open = 0;
    for (end, reason) in [
        ("exit 1", "pg_dump exited with 1"),
        ("kill -9 $$", "pg_dump was killed by signal 9 (SIGKILL)"),
    ] {
        let before = scene.state()?;
        let fakes = FakeTools::new(cluster.bin_dir())?;
        fakes.misbehave("pg_dump", Calls::Data, &late_failure(end))?;
        fakes.bin_dir().clone_into(&mut scene.settings.bin_dir);
        let mut run = scene.start(&["backup", SOURCE])?;
        let flag = fakes.flag("paused");
        run.wait_until("the dump of rows", || Ok(flag.exists()))?;
        let written = fs::read_to_string(fakes.flag("written"))?;
        ensure!(written.trim() == WRITTEN.to_string(), "{written} bytes");
        if store != Store::Local {
            // Some of it is in the bucket by now, or that it goes away would prove nothing.
            run.wait_until("an upload", || Ok(!scene.place.uploads()?.is_empty()))?;
            open += scene.place.uploads()?.len();
        }
        fs::write(fakes.flag("go"), "")?;
        let check = run.finish(BOUND).and_then(|run| {
            run.expect(1, &["data-rest", reason])?;
            assert_told(&scene, reason)?;
            scene.assert_nothing_published(&before)
        });
        check.with_context(|| end.to_owned())?;
    }
    evidence::note(
        2,
        format!(
            "pg_dump wrote {WRITTEN} bytes and then exited with 1 or was killed, \
             with {open} open uploads in {}: exit code 1, no new object, no open upload, a record \
             with the reason, the older backup as good as before",
            place_of(store)
        ),
    );
    Ok(())
}

/// The newest run is told as failed, and why.
fn assert_told(scene: &Scene<'_>, reason: &str) -> Result<()> {
    let done = scene.run(&["runs", "--json"])?.expect(0, &[])?;
    let runs: serde_json::Value = serde_json::from_str(&done.stdout)?;
    let newest = &runs[0];
    ensure!(
        newest["operation"] == "backup" && newest["result"] == "failed",
        "{newest}"
    );
    let error = newest["error"].as_str().context("a reason")?;
    ensure!(error.contains(reason), "{newest}");
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_02_a_dump_that_fails_late_leaves_nothing_in_a_folder() -> Result<()> {
    check_late_failures(Store::Local)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_02_a_dump_that_fails_late_leaves_nothing_in_a_bucket() -> Result<()> {
    check_late_failures(Store::S3(Kind::SeaweedFs))
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_02_a_dump_that_fails_late_leaves_nothing_in_minio() -> Result<()> {
    check_late_failures(Store::S3(Kind::MinIo))
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_flood_of_words_hides_no_warning_and_harms_no_backup() -> Result<()> {
    let cluster = cluster()?;
    let database = database(cluster, 2)?;
    let mut scene = Scene::new(cluster, &database, Store::Local)?;
    let fakes = FakeTools::new(cluster.bin_dir())?;
    let body = r#"echo 'pg_dump: warning: the first warning' >&2
                  yes 'pg_dump: so many words' | head -c 50000000 >&2
                  echo 'pg_dump: warning: the last warning' >&2
                  exec "$real" "$@""#;
    fakes.misbehave("pg_dump", Calls::Data, body)?;
    fakes.bin_dir().clone_into(&mut scene.settings.bin_dir);
    let done = scene.run(&["backup", SOURCE, "--json"])?;
    let done = done.expect(3, &["the first warning", "the last warning"])?;
    assert_bounded(&done)?;
    let view: serde_json::Value = serde_json::from_str(&done.stdout)?;
    let warnings = view["warnings"].as_array().context("a list")?;
    ensure!(warnings.len() == 2, "{warnings:?}");
    scene.assert_nobody_left()?;
    scene.assert_proved(view["id"].as_str().context("an id")?)
}

type Change<'a> = &'a dyn Fn(&mut Settings);

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_database_that_refuses_is_named() -> Result<()> {
    let cluster = cluster()?;
    let database = database(cluster, 2)?;
    let mut scene = Scene::new(cluster, &database, Store::Local)?;
    let closed = closed_port()?;
    let sql = format!(
        "CREATE ROLE reader LOGIN PASSWORD {}; GRANT USAGE ON SCHEMA app TO reader;
         GRANT SELECT ON app.bulk TO reader",
        quote_literal(PASSWORD)
    );
    cluster.psql(&database, &sql)?;
    let right = scene.settings.clone();
    let rows: [(&str, Change<'_>, &[&str]); 5] = [
        (
            "wrong password",
            &|s| s.password = Some("wr0ng c4n4ry18ce".to_owned()),
            &["password authentication failed", "28P01"],
        ),
        ("no password", &|s| s.password = None, &["password"]),
        (
            "no server",
            &move |s| s.pg_port = closed,
            &["cannot connect", "refused"],
        ),
        (
            "no database",
            &|s| s.database = "nobody_s".to_owned(),
            &["nobody_s", "does not exist", "3D000"],
        ),
        (
            "no rights",
            &|s| s.user = "reader".to_owned(),
            &["permission denied for table second"],
        ),
    ];
    for (name, change, words) in rows {
        scene.settings = right.clone();
        change(&mut scene.settings);
        let before = scene.state()?;
        let run = scene.start(&["backup", SOURCE])?.finish(BOUND);
        let check = run.and_then(|run| run.expect(9, words));
        let check = check.and_then(|_| scene.assert_nothing_published(&before));
        check.with_context(|| name.to_owned())?;
    }
    cluster
        .psql(&database, "DROP OWNED BY reader; DROP ROLE reader")
        .map(drop)
}

/// A port on which nobody listens.
fn closed_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?.port())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_server_that_says_nothing_is_given_up() -> Result<()> {
    let cluster = cluster()?;
    let database = database(cluster, 2)?;
    let proxy = Proxy::start(cluster.port())?;
    let mut scene = Scene::new(cluster, &database, Store::Local)?;
    scene.settings.pg_port = proxy.port();
    let before = scene.state()?;
    // Connections stand, and no answer ever comes.
    proxy.set(Faults {
        latency: Duration::from_hours(1),
        ..Faults::default()
    });
    let run = scene.start(&["backup", SOURCE])?.finish(BOUND)?;
    let run = run.expect(9, &["no connection to 127.0.0.1"])?;
    ensure!(run.elapsed < Duration::from_secs(30), "{:?}", run.elapsed);
    scene.assert_nothing_published(&before)
}

/// A run that stands still inside `pg_dump`'s rows until the file `go` is made.
fn paused(scene: &mut Scene<'_>, fakes: &FakeTools) -> Result<Run> {
    fakes.misbehave("pg_dump", Calls::Data, &pause_after(1_000_000))?;
    fakes.bin_dir().clone_into(&mut scene.settings.bin_dir);
    let mut run = scene.start(&["backup", SOURCE, "--json"])?;
    let flag = fakes.flag("paused");
    run.wait_until("the dump of rows", || Ok(flag.exists()))?;
    Ok(run)
}

/// Ends the scene's sessions that fulfil `condition`, and waits until they are gone.
fn terminate(cluster: &Cluster, database: &str, condition: &str) -> Result<()> {
    let chosen = format!(
        "FROM pg_stat_activity WHERE datname = {} AND pid <> pg_backend_pid()
         AND application_name = 'backup-manager' AND {condition}",
        quote_literal(database)
    );
    let count = || cluster.query("postgres", &format!("SELECT count(*) {chosen}"));
    // A program that dumps something else besides is soon done.
    wait_for_silence(PATIENCE, || {
        let found = count()?;
        Ok((found != "1").then(|| format!("{found} sessions and not one")))
    })?;
    let ended = format!("SELECT count(pg_terminate_backend(pid)) {chosen}");
    ensure!(cluster.query("postgres", &ended)? == "1", "not one session");
    wait_for_silence(PATIENCE, || {
        let left = count()?;
        Ok((left != "0").then(|| format!("{left} sessions")))
    })
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_part_whose_session_was_ended_is_dumped_again() -> Result<()> {
    let cluster = cluster()?;
    // More than connections hold while nobody reads.
    let database = database(cluster, 20)?;
    let contents = cluster.contents(&database)?;
    for store in [Store::Local, Store::S3(Kind::SeaweedFs)] {
        let mut scene = Scene::new(cluster, &database, store)?;
        let fakes = FakeTools::new(cluster.bin_dir())?;
        let run = paused(&mut scene, &fakes)?;
        // What is written after the snapshot was taken must not be in the second try either.
        let late = "INSERT INTO app.second VALUES (0, 'late')";
        cluster.psql(&database, late)?;
        terminate(cluster, &database, "query LIKE 'COPY %'")?;
        fs::write(fakes.flag("go"), "")?;
        let done = run.finish(BOUND)?.expect(0, &["success"])?;
        let view: serde_json::Value = serde_json::from_str(&done.stdout)?;
        let id = view["id"].as_str().context("an id")?;
        scene.assert_nobody_left()?;
        scene.assert_proved(id)?;
        let target = scene.target();
        scene
            .run(&["restore", id, "--target-db", &target])?
            .expect(0, &["equal"])?;
        assert_eq!(cluster.contents(&target)?, contents);
        cluster.drop_db(&target)?;
        cluster.psql(&database, "DELETE FROM app.second WHERE id = 0")?;
    }
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn without_its_snapshot_no_dump_is_published() -> Result<()> {
    let cluster = cluster()?;
    for store in [Store::Local, Store::S3(Kind::SeaweedFs)] {
        // More than connections hold while nobody reads.
        let mut scene = grown(store, 20, &[PLAIN])?;
        let before = scene.state()?;
        let fakes = FakeTools::new(cluster.bin_dir())?;
        let run = paused(&mut scene, &fakes)?;
        let database = &scene.settings.database;
        terminate(cluster, database, "state = 'idle in transaction'")?;
        fs::write(fakes.flag("go"), "")?;
        let words = ["snapshot of database", "was lost"];
        run.finish(BOUND)?.expect(9, &words)?;
        scene.assert_nothing_published(&before)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_server_that_goes_away_midway_leaves_nothing() -> Result<()> {
    let cluster = cluster()?;
    for store in [Store::Local, Store::S3(Kind::SeaweedFs)] {
        let proxy = Proxy::start(cluster.port())?;
        let fakes = FakeTools::new(cluster.bin_dir())?;
        // More than connections hold while nobody reads.
        let mut scene = grown(store, 20, &[])?;
        scene.settings.pg_port = proxy.port();
        let before = scene.state()?;
        let run = paused(&mut scene, &fakes)?;
        // A cut connection and a port that refuses: for a client, a server that died.
        proxy.set(Faults {
            refuse: true,
            ..Faults::default()
        });
        proxy.cut();
        fs::write(fakes.flag("go"), "")?;
        run.finish(BOUND)?.expect(9, &["failed"])?;
        scene.assert_nothing_published(&before)?;
    }
    Ok(())
}
