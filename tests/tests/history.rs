//! What was done is told later, by the store alone: how each run ended, and which backups are
//! proved.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::Cli;
use backup_e2e::drills;
use backup_e2e::fake_tools::{Calls, FakeTools, pause_after};
use backup_e2e::pg::Cluster;
use backup_e2e::s3::Kind;
use backup_e2e::sample;
use backup_e2e::scene::{Place, SOURCE, Scene, Store, is_record, unique};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const STORES: [Store; 2] = [Store::Local, Store::S3(Kind::SeaweedFs)];

const LIMIT: Duration = Duration::from_mins(1);

fn scene(store: Store) -> Result<(Scene<'static>, &'static Cluster)> {
    let cluster = Cluster::shared(17)?;
    let database = cluster.fresh_db(&unique("history"))?;
    cluster.psql(&database, &sample::bulk_sql("app", "bulk", 5))?;
    Ok((Scene::new(cluster, &database, store)?, cluster))
}

fn printed(scene: &Scene<'_>, arguments: &[&str]) -> Result<Value> {
    let done = scene.run(&[arguments, &["--json"]].concat())?;
    let done = done.expect(0, &[])?;
    Ok(serde_json::from_str(&done.stdout)?)
}

/// What `runs` says, newest first.
fn runs(scene: &Scene<'_>, more: &[&str]) -> Result<Vec<Value>> {
    let runs = printed(scene, &[&["runs"], more].concat())?;
    runs.as_array().cloned().context("an array")
}

/// The one backup of the scene as `list` shows it.
fn listed(scene: &Scene<'_>) -> Result<Value> {
    let views = printed(scene, &["list"])?;
    let view = views.as_array().and_then(|views| views.last());
    view.cloned().context("a backup")
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_backup_is_told_with_its_numbers() -> Result<()> {
    for store in STORES {
        let (scene, _) = scene(store)?;
        let backup = printed(&scene, &["backup", SOURCE])?;
        let found = runs(&scene, &[])?;
        // The scene's own first backup is the other one.
        assert_eq!(found.len(), 2, "{found:?}");
        let run = &found[0];
        for (field, expected) in [
            ("id", &backup["run_id"]),
            ("backup", &backup["id"]),
            ("raw_bytes", &backup["raw_bytes"]),
            ("stored_bytes", &backup["stored_bytes"]),
            ("operation", &json!("backup")),
            ("source", &json!(SOURCE)),
            ("result", &json!("success")),
            ("error", &Value::Null),
            ("destination", &json!("store")),
        ] {
            assert_eq!(&run[field], expected, "{field} of {run}");
        }
        for field in ["user", "host"] {
            let text = run["who"][field].as_str().unwrap_or_default();
            ensure!(!text.is_empty(), "no {field} in {run}");
        }
        assert_eq!(found[1]["backup"], scene.older());
        assert_eq!(runs(&scene, &["--limit", "1"])?, found[..1]);
        assert_eq!(runs(&scene, &["--days", "1"])?, found);
        assert_eq!(runs(&scene, &["--operation", "backup"])?, found);
        assert_eq!(runs(&scene, &["--operation", "verify"])?, [] as [Value; 0]);
        let id = backup["id"].as_str().context("an id")?;
        let words = ["RUN", "RESULT", "WHO", id, "success", "@"];
        scene.run(&["runs"])?.expect(0, &words)?;
    }
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_failure_is_told_without_the_words_of_the_tool() -> Result<()> {
    for store in STORES {
        let (mut scene, cluster) = scene(store)?;
        let fakes = FakeTools::new(cluster.bin_dir())?;
        let body = "echo 'pg_dump: error: lost my way' >&2; exit 1";
        fakes.misbehave("pg_dump", Calls::Data, body)?;
        fakes.bin_dir().clone_into(&mut scene.settings.bin_dir);
        let before = scene.state()?;
        let done = scene.run(&["backup", SOURCE, "--json"])?;
        let view: Value = serde_json::from_str(&done.expect(1, &[])?.stdout)?;
        scene.assert_nothing_published(&before)?;
        let run = runs(&scene, &["--operation", "backup"])?.swap_remove(0);
        assert_eq!(run["result"], "failed", "{run}");
        assert_eq!(run["id"], view["run_id"]);
        assert_eq!(run["backup"], Value::Null);
        let error = run["error"].as_str().context("an error")?;
        for word in ["data-rest", "pg_dump exited with 1"] {
            ensure!(error.contains(word), "not a word of {word}: {error}");
        }
        // Programs quote rows, and records are in the clear.
        ensure!(!error.contains("lost my way"), "{error}");
        ensure!(!error.contains('\n'), "{error}");
    }
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_stopped_run_is_told_as_cancelled() -> Result<()> {
    for store in STORES {
        let (mut scene, cluster) = scene(store)?;
        let fakes = FakeTools::new(cluster.bin_dir())?;
        fakes.misbehave("pg_dump", Calls::Data, &pause_after(1_000_000))?;
        fakes.bin_dir().clone_into(&mut scene.settings.bin_dir);
        let flag = fakes.flag("paused");
        let before = scene.state()?;
        let mut run = scene.start(&["backup", SOURCE])?;
        run.wait_until("the dump of rows", || Ok(flag.exists()))?;
        run.signal(Signal::SIGTERM)?;
        run.finish(LIMIT)?.expect(143, &["stopped by a signal"])?;
        // What feeds the tool is of the test.
        fs::write(fakes.flag("go"), "")?;
        scene.assert_nothing_published(&before)?;
        let run = runs(&scene, &["--operation", "backup"])?.swap_remove(0);
        assert_eq!(run["result"], "cancelled", "{run}");
        assert_eq!(run["source"], SOURCE);
    }
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_verification_shows_in_the_list_until_a_restore_proves_more() -> Result<()> {
    for store in STORES {
        let (scene, cluster) = scene(store)?;
        let older = scene.older();
        let view = listed(&scene)?;
        assert_eq!(
            (&view["verified_at"], &view["verified_level"]),
            (&Value::Null, &Value::Null)
        );
        for level in ["stored", "hashed", "decoded"] {
            scene
                .run(&["verify", older, "--level", level])?
                .expect(0, &[])?;
            let view = listed(&scene)?;
            assert_eq!(view["verified_level"], level, "{view}");
            let run = runs(&scene, &["--operation", "verify"])?.swap_remove(0);
            assert_eq!(view["verified_at"], run["finished_at"]);
            assert_eq!(run["verify"], json!({ "level": level, "problems": 0 }));
        }
        let target = scene.target();
        // Without a comparison it proves nothing.
        let restore = ["restore", older, "--target-db", &target];
        printed(&scene, &[&restore[..], &["--no-compare"]].concat())?;
        cluster.drop_db(&target)?;
        assert_eq!(listed(&scene)?["verified_level"], "decoded");
        let restored = printed(&scene, &restore)?;
        cluster.drop_db(&target)?;
        assert_eq!(listed(&scene)?["verified_level"], "restored");
        let run = runs(&scene, &["--operation", "restore"])?.swap_remove(0);
        assert_eq!(run["id"], restored["run_id"]);
        assert_eq!(run["target_database"], target.as_str());
        assert_eq!(run["compare"]["equal"], restored["compare"]["equal"]);
        scene.run(&["list"])?.expect(0, &["VERIFIED", "restored"])?;

        let shown = printed(&scene, &["show", older])?;
        assert_eq!(shown["verified_level"], "restored");
        let tries = shown["verifications"].as_array().context("an array")?;
        assert_eq!((tries.len(), &tries[0]), (5, &run));
        scene
            .run(&["show", older])?
            .expect(0, &["verify decoded", "restored"])?;
    }
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn damage_that_was_found_is_a_failure_and_no_proof() -> Result<()> {
    for store in STORES {
        let (scene, _) = scene(store)?;
        let older = scene.older();
        let keys = scene.objects_of(older)?;
        let rows = keys.iter().find(|key| key.contains("data-rest"));
        let rows = rows.context("rows")?;
        let bytes = scene.place.get(rows)?;
        scene.place.put(rows, &bytes[..bytes.len() / 2])?;
        scene.run(&["verify", older])?.expect(6, &["data-rest"])?;
        let run = runs(&scene, &["--operation", "verify"])?.swap_remove(0);
        assert_eq!(
            (&run["result"], &run["verify"]["problems"]),
            (&json!("failed"), &json!(1))
        );
        ensure!(run["error"].to_string().contains("data-rest"), "{run}");
        // The listing sees by itself that it is shorter.
        let list = scene.run(&["list", "--json"])?;
        let list = list.expect(3, &["1 object is not as written", "data-rest"])?;
        let views: Vec<Value> = serde_json::from_str(&list.stdout)?;
        let view = views.last().context("a backup")?;
        assert_eq!(view["verified_at"], Value::Null, "{view}");
        assert_eq!(view["status"], "failed", "{view}");
    }
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_restore_that_finds_damage_takes_a_proof_back() -> Result<()> {
    let scene = drills::scene(17, &sample::bulk_sql("app", "bulk", 5))?;
    let cluster = Cluster::shared(17)?;
    let (older, target) = (scene.older().to_owned(), scene.target());
    scene.run(&["verify", &older])?.expect(0, &["ok"])?;
    let latest = ["show", "latest-verified", "--source", SOURCE, "--json"];
    scene.run(&latest)?.expect(0, &[&older])?;
    let keys = scene.objects_of(&older)?;
    let key = keys.iter().find(|key| key.contains("data-"));
    let key = key.context("rows")?;
    let mut bytes = scene.place.get(key)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    scene.place.put(key, &bytes)?;
    scene
        .run(&["restore", &older, "--target-db", &target])?
        .expect(6, &["data-", "no other backup of", "has been verified"])?;
    ensure!(!cluster.has_db(&target)?, "a database is left");
    is_told_as_damaged(&scene, &older)?;
    scene.run(&latest)?.expect(4, &["verified backup"])?;
    // Where there is a good one, it is named.
    let good = scene.good_backup()?;
    scene.run(&["verify", &good])?.expect(0, &["ok"])?;
    let named = format!("that was found good is {good} at store");
    scene
        .run(&["restore", &older, "--target-db", &target])?
        .expect(6, &["data-", &named])?;
    scene.run(&latest)?.expect(0, &[&good])?;
    // Gone, so that what follows is about the other.
    for key in scene.objects_of(&good)? {
        scene.place.delete(&key)?;
    }

    // A drill says so, too.
    bytes[middle] ^= 1;
    scene.place.put(key, &bytes)?;
    scene.run(&["verify", &older])?.expect(0, &["ok"])?;
    scene.run(&latest)?.expect(0, &[&older])?;
    bytes[middle] ^= 1;
    scene.place.put(key, &bytes)?;
    scene.run(&["drill", "--backup", &older])?.expect(6, &[])?;
    scene.run(&latest)?.expect(4, &["verified backup"])?;
    Ok(())
}

/// By everything that shows backups, to people and to programs.
fn is_told_as_damaged(scene: &Scene<'_>, id: &str) -> Result<()> {
    let found = format!("backup {id}: found damaged at ");
    let list = scene.run(&["list", "--json"])?.expect(3, &[&found])?;
    let views: Vec<Value> = serde_json::from_str(&list.stdout)?;
    assert_eq!(views[0]["status"], "failed", "{views:?}");
    assert_eq!(views[0]["verified_at"], Value::Null, "{views:?}");
    scene
        .run(&["list"])?
        .expect(3, &[" damaged ", "(damaged)"])?;
    scene
        .run(&["show", id])?
        .expect(3, &["found damaged at "])?;
    let shown = scene.run(&["show", id, "--json"])?.expect(3, &[])?;
    let shown: Value = serde_json::from_str(&shown.stdout)?;
    assert_eq!(shown["status"], "failed", "{shown}");
    let why = &shown["destinations"][0]["error"];
    assert_eq!(why, "found damaged by a verification", "{shown}");
    Ok(())
}

/// What a killed restore leaves cannot be taken for a restored database.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_restore_that_was_killed_is_known_by_what_it_left() -> Result<()> {
    let (mut scene, cluster) = scene(Store::Local)?;
    let (older, target) = (scene.older().to_owned(), scene.target());
    let fakes = FakeTools::new(cluster.bin_dir())?;
    let body = "touch \"$dir/begun\"; exec sleep 600";
    fakes.misbehave("pg_restore", Calls::All, body)?;
    let good = scene.settings.bin_dir.clone();
    fakes.bin_dir().clone_into(&mut scene.settings.bin_dir);
    let restore = ["restore", &older, "--target-db", &target];
    let mut run = scene.start(&restore)?;
    let flag = fakes.flag("begun");
    run.wait_until("a database that is being filled", || {
        Ok(flag.exists() && cluster.has_db(&target)?)
    })?;
    run.signal(Signal::SIGKILL)?;
    run.finish(LIMIT)?;
    scene.settings.bin_dir = good;
    let left = format!("a restore of {SOURCE} {older} is filling it, or did not finish");
    let remedy = format!("DROP DATABASE \"{target}\"");
    let refused = scene.run(&restore)?;
    refused.expect(12, &[&left, &remedy])?;
    cluster.drop_db(&target)?;
    scene.run(&restore)?.expect(0, &["restored"])?;
    let exists = format!("database \"{target}\" already exists\n");
    let refused = scene.run(&restore)?.expect(12, &[&exists])?;
    ensure!(!refused.text().contains("filling it"), "{refused:?}");
    cluster.drop_db(&target)?;
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn no_row_is_in_a_record() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    // It complains of what it finds only where the backup is restored.
    let scene = drills::scene(
        17,
        "CREATE FUNCTION public.strict(card text) RETURNS boolean LANGUAGE plpgsql AS $$
         BEGIN
           IF EXISTS (SELECT FROM pg_class WHERE relname = 'only_at_the_source') THEN RETURN true;
           END IF;
           RAISE 'unknown card %', card;
         END $$;
         CREATE TABLE only_at_the_source ();
         CREATE TABLE cards (number text CHECK (public.strict(number)));
         INSERT INTO cards VALUES ('4111-1111');
         DROP TABLE only_at_the_source;",
    )?;
    let (older, target) = (scene.older().to_owned(), scene.target());
    for (arguments, operation) in [
        (&["restore", &older, "--target-db", &target][..], "restore"),
        (&["drill", "--backup", &older], "drill"),
    ] {
        scene
            .run(arguments)?
            .expect(1, &["unknown card 4111-1111"])?;
        let record = scene.newest_record()?;
        ensure!(record["operation"] == operation, "{record}");
        ensure!(record["result"] == "failed", "{record}");
        ensure!(!record.to_string().contains("4111"), "{record}");
    }
    ensure!(!cluster.has_db(&target)?, "a database is left");
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_damaged_record_is_named_and_hides_no_other() -> Result<()> {
    for store in STORES {
        let (scene, _) = scene(store)?;
        scene.good_backup()?;
        let mut keys = scene.place.keys()?;
        keys.retain(|key| is_record(key));
        keys.sort();
        assert_eq!(keys.len(), 2, "{keys:?}");
        scene.place.put(&keys[1], b"{")?;
        let done = scene.run(&["runs", "--json"])?;
        let name = keys[1].rsplit('/').next().context("a name")?;
        let done = done.expect(3, &["warning", name, "cannot be read"])?;
        let left: Value = serde_json::from_str(&done.stdout)?;
        assert_eq!(left.as_array().map(Vec::len), Some(1), "{left}");
        scene.run(&["list"])?.expect(0, &["warning", name])?;
    }
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn where_no_record_can_be_written_everything_ends_as_ever() -> Result<()> {
    let (mut scene, cluster) = scene(Store::Local)?;
    let Place::Local(root) = &scene.place else {
        unreachable!("the scene has a folder");
    };
    // Even root cannot write below a file.
    let records = root.join("_runs");
    fs::rename(&records, scene.path("records"))?;
    fs::write(&records, "")?;
    let (older, target) = (scene.older().to_owned(), scene.target());
    let words = ["warning", "not recorded", "_runs"];
    let done = scene
        .run(&["backup", SOURCE, "--json"])?
        .expect(0, &words)?;
    let view: Value = serde_json::from_str(&done.stdout)?;
    assert_eq!(
        (&view["status"], view.get("run_id")),
        (&json!("success"), None)
    );
    let done = scene.run(&["verify", "--all"])?.expect(0, &words)?;
    assert_eq!(
        done.stderr.matches("not recorded").count(),
        1,
        "{}",
        done.stderr
    );
    scene
        .run(&["restore", &older, "--target-db", &target])?
        .expect(0, &words)?;
    // It exists now.
    scene
        .run(&["restore", &older, "--target-db", &target])?
        .expect(12, &words)?;
    cluster.drop_db(&target)?;
    scene.run(&["list"])?.expect(0, &[&older])?;
    scene.run(&["show", &older])?.expect(0, &["never"])?;
    let fakes = FakeTools::new(cluster.bin_dir())?;
    fakes.misbehave("pg_dump", Calls::Data, "exit 1")?;
    fakes.bin_dir().clone_into(&mut scene.settings.bin_dir);
    scene.run(&["backup", SOURCE])?.expect(1, &words).map(drop)
}

/// As README.md promises: whoever proves backups need not be able to destroy them.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_login_that_may_only_read_lists_and_verifies() -> Result<()> {
    let (mut scene, _) = scene(Store::S3(Kind::SeaweedFs))?;
    let Place::Bucket { server, .. } = &scene.place else {
        unreachable!("the scene has a bucket");
    };
    let (access_key, secret_key) = server.reader();
    access_key.clone_into(&mut scene.settings.access_key);
    secret_key.clone_into(&mut scene.settings.secret_key);
    let (older, before) = (scene.older().to_owned(), scene.place.keys()?);
    scene.run(&["list"])?.expect(0, &[&older])?;
    scene.run(&["runs"])?.expect(0, &[&older, "success"])?;
    for level in ["stored", "hashed", "decoded"] {
        let words = ["ok", &older, "warning", "not recorded"];
        let done = scene.run(&["verify", "latest", "--level", level])?;
        done.expect(0, &words).with_context(|| level.to_owned())?;
    }
    // It may really do no more.
    scene
        .run(&["backup", SOURCE])?
        .expect(8, &["backup of shop"])?;
    assert_eq!(scene.place.keys()?, before);
    Ok(())
}

/// For those who collect files and read no store.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn proofs_have_a_log_of_their_own() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let database = cluster.fresh_db(&unique("proofs"))?;
    cluster.psql(&database, &sample::bulk_sql("app", "bulk", 1))?;
    let cli = Cli::new(cluster)?;
    let log = cli.folder().join("proofs.jsonl");
    let config = |proofs: &Path| {
        let text = format!(
            "[encryption]\nmode = 'none'\n[destination.near]\nurl = '{}'\n\
             [log]\nproofs = '{}'\n[source.shop]\ndatabase = '{database}'\n",
            cli.local_store(),
            proofs.display(),
        );
        cli.private_file("backup.toml", &text)
    };
    let own = config(&log)?;
    let run = |config: &str, words: &[&str]| cli.run([&["--config", config], words].concat());
    let backup = run(&own, &["backup", "shop", "--json"])?.exits(0)?.json()?;
    ensure!(!log.exists(), "a backup proves nothing");
    run(&own, &["verify", "--all"])?.exits(0)?;
    let id = backup["id"].as_str().context("an id")?;
    let data = cli.local_root().join(format!("backups/shop/{id}"));
    let data = fs::read_dir(data)?
        .filter_map(Result::ok)
        .map(|entry| entry.path());
    let mut data = data.filter(|path| path.to_string_lossy().contains("/data-"));
    let object = data.next().context("rows")?;
    let mut bytes = fs::read(&object)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&object, bytes)?;
    run(&own, &["verify", "--all"])?.exits(6)?;
    let lines = fs::read_to_string(&log)?;
    let lines = lines.lines().map(serde_json::from_str);
    let lines = lines.collect::<Result<Vec<Value>, _>>()?;
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            (
                &line["operation"],
                &line["backup"],
                &line["result"],
                &line["verify"]["problems"],
            )
        })
        .collect();
    let (verify, success, failed) = (json!("verify"), json!("success"), json!("failed"));
    let (none, one) = (json!(0), json!(1));
    let of = &backup["id"];
    assert_eq!(
        told,
        [(&verify, of, &success, &none), (&verify, of, &failed, &one)]
    );
    // It changes nothing where it cannot be written, and that is said.
    let wrong = config(Path::new("/nowhere/proofs.jsonl"))?;
    let said = run(&wrong, &["verify", "--all"])?.exits(6)?.stderr;
    ensure!(
        said.contains("/nowhere/proofs.jsonl: this run is not in it"),
        "{said}"
    );
    Ok(())
}
