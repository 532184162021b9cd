//! Old backups go, by policies that say why, in real places: nothing else goes with them, what is
//! left is good, and a prune that is killed leaves no half of a backup.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use backup_compress::Algorithm;
use backup_core::backup::SourceName;
use backup_core::engine::{BackupRequest, Engine};
use backup_e2e::cli::{Cli, Running};
use backup_e2e::pg::{Cluster, SUPERUSER};
use backup_e2e::s3::{Kind, Server};
use backup_e2e::sample;
use backup_e2e::scene::{Place, SOURCE, Scene, Store, is_note, unique};
use backup_store::{StoreConfig, StoreOptions};
use backup_testing::{FixedClock, ScriptedDumper, ScriptedPart, bodies};
use chrono::{DateTime, TimeDelta, Utc};
use nix::pty::{OpenptyResult, openpty};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// A repository whose backups have made-up ages, and the program to prune it.
struct Keep {
    cli: Cli,
    url: String,
    place: Place,
    /// What the keys of the place have before those of the repository.
    prefix: &'static str,
    engine: Engine,
    clock: FixedClock,
}

impl Keep {
    fn local() -> Result<Self> {
        let cli = Cli::without_server()?;
        let place = Place::Local(cli.local_root());
        let url = cli.local_store();
        Self::with(cli, (url, place), "", &StoreOptions::default())
    }

    fn in_bucket(name: &str) -> Result<Self> {
        let server = Server::shared(Kind::SeaweedFs)?;
        let bucket = unique(name).replace('_', "-");
        server.create_bucket(&bucket)?;
        let cli = Cli::without_server()?.with_s3(server);
        let url = format!("s3://{bucket}/some/prefix");
        let place = Place::Bucket { server, bucket };
        Self::with(cli, (url, place), "some/prefix/", &server.options())
    }

    fn with(
        cli: Cli,
        (url, place): (String, Place),
        prefix: &'static str,
        options: &StoreOptions,
    ) -> Result<Self> {
        let store = backup_store::open(&StoreConfig::parse(&url, options)?)?;
        let clock = FixedClock::default();
        let mut engine = Engine::new(store, Arc::new(clock.clone()));
        for algorithm in Algorithm::ALL {
            engine = engine.with_compressor(algorithm.compressor(0));
        }
        Ok(Self {
            cli,
            url,
            place,
            prefix,
            engine,
            clock,
        })
    }

    /// Takes a backup at each of these ages in days; their ids.
    async fn backups(&self, source: &str, ages: impl Iterator<Item = i64>) -> Result<Vec<String>> {
        let now: DateTime<Utc> = SystemTime::now().into();
        let part = ScriptedPart::new("data-rest", bodies::random(10_000, 7));
        let dumper = ScriptedDumper::new().part(part);
        let request = BackupRequest {
            encrypt: false,
            ..BackupRequest::new(SourceName::new(source)?)
        };
        let mut ids = Vec::new();
        for age in ages {
            self.clock
                .set(now - TimeDelta::days(age) - TimeDelta::hours(1));
            let never = CancellationToken::new();
            let taken = self.engine.backup(&dumper, &request, &never).await?;
            ids.push(taken.manifest.id.to_string());
        }
        Ok(ids)
    }

    /// Every key below the repository, whatever it is.
    fn keys(&self) -> Result<BTreeSet<String>> {
        let keys = self.place.keys()?.into_iter();
        let inside = |key: String| key.strip_prefix(self.prefix).map(str::to_owned);
        Ok(keys.filter_map(inside).collect())
    }

    fn put(&self, key: &str) -> Result<()> {
        let key = format!("{}{key}", self.prefix);
        self.place.put(&key, b"foreign")
    }

    /// What a run prints as JSON.
    fn json(&self, said: &str, code: i32) -> Result<Value> {
        let mut arguments: Vec<_> = said.split_whitespace().collect();
        arguments.extend(["--from", &self.url, "--json"]);
        self.cli.run(arguments)?.exits(code)?.json()
    }

    /// The ids that are listed, newest first.
    fn listed(&self, source: &str) -> Result<Vec<String>> {
        let views = self.json(&format!("list {source}"), 0)?;
        let views = views.as_array().context("an array")?;
        let id = |view: &Value| view["id"].as_str().map(str::to_owned);
        Ok(views.iter().filter_map(id).collect())
    }

    /// Every listed backup is whole, byte by byte.
    fn assert_all_good(&self) -> Result<()> {
        let arguments = ["verify", "--all", "--from", &self.url];
        self.cli.run(arguments)?.exits(0).map(drop)
    }

    /// Makes every file as old as that; a bucket does not let anybody.
    fn age(&self, by: Duration) -> Result<()> {
        for key in self.keys()? {
            let file = fs::File::options()
                .write(true)
                .open(self.cli.local_root().join(key))?;
            file.set_modified(SystemTime::now() - by)?;
        }
        Ok(())
    }
}

fn ids(value: &Value) -> Vec<&str> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Value::as_str).collect()
}

async fn neighbours_stay(keep: &Keep) -> Result<()> {
    let ids_of_app = keep.backups("app", 0..20).await?;
    let names = ["app-x", "my-app", "ap", "app.x"];
    for name in names {
        keep.backups(name, 0..3).await?;
    }
    let old = format!("backups/app/{}", ids_of_app[19]);
    let foreign = [
        "README.txt".to_owned(),
        "backups/app/README.txt".to_owned(),
        "backups/app/not-a-backup/data.dump".to_owned(),
        "elsewhere/backups/app/x/manifest.json".to_owned(),
        format!("{old}/notes.txt"),
        format!("{old}x/schema.dump"),
    ];
    for key in &foreign {
        keep.put(key)?;
    }
    let before = keep.keys()?;
    let prune = "prune app --keep-last 4 --keep-weekly 2 --keep-daily none --keep-monthly none \
                 --keep-yearly none --min-keep 1";
    let planned = keep.json(&format!("{prune} --dry-run"), 0)?;
    assert_eq!(keep.keys()?, before, "a dry run changed something");
    let done = keep.json(&format!("{prune} --yes"), 0)?;
    assert_eq!(done["backups"], planned["backups"]);
    let deleted = ids(&done["deleted"]);
    let left = keep.listed("app")?;
    assert_eq!(left[..4], ids_of_app[..4]);
    // The first of each of two weeks is there too, at most one of them among the newest.
    ensure!((5..=6).contains(&left.len()), "{left:?}");
    assert_eq!(deleted.len() + left.len(), 20);

    let gone = |key: &&String| {
        let of = |id: &&str| key.starts_with(&format!("backups/app/{id}/"));
        deleted.iter().any(of) && !foreign.contains(key)
    };
    let expected: BTreeSet<_> = before.iter().filter(|key| !gone(key)).cloned().collect();
    let mut after = keep.keys()?;
    after.retain(|key| !is_note(key));
    assert_eq!(after, expected);
    for name in names {
        assert_eq!(keep.listed(name)?.len(), 3, "{name}");
    }
    keep.assert_all_good()?;
    let runs = keep.json("runs --operation prune", 0)?;
    assert_eq!(runs[0]["prune"]["backups"], done["deleted"]);
    assert_eq!(runs[0]["result"], "success");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_and_foreign_files_are_never_touched() -> Result<()> {
    neighbours_stay(&Keep::local()?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: run ./scripts/test"]
async fn neighbours_and_foreign_objects_of_a_bucket_are_never_touched() -> Result<()> {
    neighbours_stay(&Keep::in_bucket("keep_neighbours")?).await
}

/// What is typed where `--yes` is not said: the number of backups is the confirmation, and of those
/// that were shown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_typed_number_is_the_confirmation() -> Result<()> {
    let keep = Keep::local()?;
    let all = keep.backups("app", 0..6).await?;
    let start = |terminal: &OpenptyResult| -> Result<Running> {
        let arguments = ["prune", "--keep-last", "2", "--min-keep", "1", "--from"];
        let mut command = keep.cli.command(arguments.iter().chain(&[&*keep.url]))?;
        command.stdin(terminal.slave.try_clone()?);
        Running::start(command)
    };
    let typed = |text: &str| -> Result<_> {
        let terminal = openpty(None, None)?;
        fs::File::from(terminal.master.try_clone()?).write_all(text.as_bytes())?;
        start(&terminal)?.wait()
    };
    for wrong in ["y\n", "\n", "\u{4}", "app\n", "3\n", "4 \n4\n"] {
        let run = typed(wrong)?.exits(12)?;
        let said = format!("{}{}", run.text(), run.stderr);
        for words in [
            "4 of 6 backups may go",
            "Type 4 to go on",
            "nobody confirmed it",
        ] {
            ensure!(said.contains(words), "{wrong:?}: {said}");
        }
        assert_eq!(keep.listed("app")?, all);
    }
    // Another one may go by the time that somebody types.
    let terminal = openpty(None, None)?;
    let run = start(&terminal)?;
    let seen = || -> Result<usize> {
        let runs = keep.json("list app", 0)?;
        Ok(runs.as_array().map_or(0, Vec::len))
    };
    assert_eq!(seen()?, 6);
    keep.backups("app", 9..10).await?;
    // Whether it looked before or after that one came, it does not delete what was not shown.
    fs::File::from(terminal.master.try_clone()?).write_all(b"4\n")?;
    run.wait()?.exits(12)?;
    assert_eq!(seen()?, 7);

    typed("5\n")?.exits(0)?;
    assert_eq!(keep.listed("app")?, all[..2]);
    keep.assert_all_good()
}

/// Kills a prune as soon as it has deleted something; gives the place, and what was there. One that
/// is done before is tried again in a place of its own.
async fn kill_a_prune(place: impl Fn(usize) -> Result<Keep>) -> Result<(Keep, Vec<String>)> {
    for number in 0..10 {
        let keep = place(number)?;
        let all = keep.backups("app", 0..60).await?;
        let arguments = ["prune", "app", "--keep-last", "3", "--yes", "--from"];
        let mut run = keep.cli.start(arguments.iter().chain(&[&*keep.url]))?;
        let manifests = |keys: &BTreeSet<String>| {
            let is_manifest = |key: &&String| key.ends_with("/manifest.json");
            keys.iter().filter(is_manifest).count()
        };
        // A folder may go while it is looked into.
        let is_whole = || !keep.keys().is_ok_and(|keys| manifests(&keys) < 60);
        while is_whole() && !run.has_ended()? {}
        let struck = !run.has_ended()?;
        if struck {
            run.signal(Signal::SIGKILL)?;
        }
        run.wait()?;
        keep.assert_all_good()?;
        if struck {
            return Ok((keep, all));
        }
    }
    anyhow::bail!("each prune was done before it was killed")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prune_that_is_killed_leaves_no_half_of_a_backup() -> Result<()> {
    let (keep, all) = kill_a_prune(|_| Keep::local()).await?;
    // As a prune that died between the manifest and the rest leaves it, whatever happened above.
    let torn = &keep.backups("app", 70..71).await?[0];
    let folder = keep.cli.local_root().join("backups/app").join(torn);
    fs::remove_file(folder.join("manifest.json"))?;
    let prune = "prune app --keep-last 3 --yes";
    keep.json(prune, 0)?;
    assert_eq!(keep.listed("app")?, all[..3]);
    ensure!(folder.exists(), "objects of a run that may go on are gone");

    keep.age(Duration::from_hours(25))?;
    let plan = keep.json(&format!("{prune} --dry-run"), 0)?;
    let orphans = plan["orphans"].as_array().context("an array")?;
    let orphan = orphans.iter().find(|orphan| orphan["id"] == *torn);
    assert_eq!(orphan.context("an orphan")?["objects"], 2);
    let done = keep.json(prune, 0)?;
    ensure!(done["freed_bytes"].as_u64() > Some(9_000), "{done}");
    let mut keys = keep.keys()?;
    keys.retain(|key| !is_note(key) && !all[..3].iter().any(|id| key.contains(id)));
    assert_eq!(keys.into_iter().collect::<Vec<_>>(), ["repository.json"]);
    keep.assert_all_good()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: run ./scripts/test"]
async fn a_killed_prune_of_a_bucket_is_finished_and_the_young_are_spared() -> Result<()> {
    let bucket = |number| Keep::in_bucket(&format!("keep_killed_{number}"));
    let (keep, all) = kill_a_prune(bucket).await?;
    let running = "backups/app/20200101T030000Z-00aa/data-rest.dump.zst";
    keep.put(running)?;
    keep.json("prune app --keep-last 3 --yes", 0)?;
    assert_eq!(keep.listed("app")?, all[..3]);
    ensure!(keep.keys()?.contains(running), "objects of a run are gone");
    keep.assert_all_good()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: run ./scripts/test"]
async fn what_a_store_forbids_is_told_once_and_stays_whole() -> Result<()> {
    let mut keep = Keep::in_bucket("keep_forbidden")?;
    keep.backups("app", 0..9).await?;
    let before = keep.keys()?;
    let server = Server::shared(Kind::SeaweedFs)?;
    let (id, key) = server.reader();
    let own = Cli::without_server()?.with_s3(server);
    let reader = own
        .with_env("AWS_ACCESS_KEY_ID", id)
        .with_env("AWS_SECRET_ACCESS_KEY", key);
    let owner = std::mem::replace(&mut keep.cli, reader);
    let done = keep.json("prune app --keep-last 3 --yes", 3)?;
    let warnings = ids(&done["warnings"]);
    assert_eq!(warnings.len(), 1, "{done}");
    let words = "the store keeps 6 of the backups";
    ensure!(warnings[0].starts_with(words), "{done}");
    assert_eq!(done["deleted"], serde_json::json!([]));
    assert_eq!(ids(&done["failed"]).len(), 6);
    assert_eq!(keep.keys()?, before);
    keep.cli = owner;
    keep.assert_all_good()
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn pinned_and_proved_backups_stay_and_restore() -> Result<()> {
    for store in [Store::Local, Store::S3(Kind::SeaweedFs)] {
        let cluster = Cluster::shared(17)?;
        let database = cluster.fresh_db(&unique("keep"))?;
        cluster.psql(&database, &sample::bulk_sql("app", "bulk", 5))?;
        let scene = Scene::new(cluster, &database, store)?;
        let pinned = scene.older().to_owned();
        let later = || {
            // Of two that begin in one second, neither is the newer one.
            std::thread::sleep(Duration::from_millis(1100));
            scene.good_backup()
        };
        let (proved, old, newest) = (later()?, later()?, later()?);
        let why = ["--reason", "before the migration"];
        scene
            .run(&[&["pin", &*pinned][..], &why].concat())?
            .expect(0, &["pinned"])?;
        scene.run(&["verify", &proved])?.expect(0, &["ok"])?;
        // Nobody chose what to keep.
        scene.run(&["prune"])?.expect(2, &["[retention.NAME]"])?;
        let policy = ["--keep-last", "1", "--min-keep", "1"];
        let prune = [&["prune", SOURCE][..], &policy].concat();
        let words = ["nobody confirmed", "--yes"];
        scene.run(&prune)?.expect(12, &words)?;
        let words = [
            "expire",
            "last verified",
            "keep_last 1, min_keep",
            "1 backup deleted",
        ];
        scene
            .run(&[&prune[..], &["--yes"]].concat())?
            .expect(0, &words)?;
        assert_eq!(scene.objects_of(&old)?, [] as [&str; 0]);
        for (id, words) in [
            (&pinned, "pinned: before the migration"),
            (&proved, "hashed"),
            (&newest, "never"),
        ] {
            scene.run(&["show", id])?.expect(0, &[words])?;
            scene.assert_proved(id)?;
        }
        let target = scene.target();
        scene
            .run(&["restore", &pinned, "--target-db", &target])?
            .expect(0, &[])?;
        cluster.drop_db(&target)?;

        scene.run(&["unpin", &pinned])?.expect(0, &["not pinned"])?;
        // Each of them was proved just now, and of those the newest one is enough.
        scene
            .run(&[&prune[..], &["--yes"]].concat())?
            .expect(0, &["2 backups deleted"])?;
        scene.assert_proved(&newest)?;
        for id in [&pinned, &proved] {
            assert_eq!(scene.objects_of(id)?, [] as [&str; 0]);
        }
    }
    Ok(())
}

/// A database that its server has no more gets no newer backup, and that is no jump of the clock. One
/// whose backups fail keeps its old ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: run ./scripts/test"]
async fn what_is_gone_from_the_server_is_pruned_and_what_fails_is_not() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let (living, failing) = (cluster.fresh_db("keep")?, cluster.fresh_db("keep")?);
    let cli = Cli::new(cluster)?;
    let (place, url) = (Place::Local(cli.local_root()), cli.local_store());
    let keep = Keep::with(cli, (url, place), "", &StoreOptions::default())?;
    keep.backups(&format!("all/{failing}"), 60..70).await?;
    let gone = keep.backups("all/dropped", 60..70).await?;
    let settings = format!(
        "[encryption]\nmode = 'none'\n[destination.near]\nurl = '{}'\n[server.main]\n\
         host = '{}'\nport = {}\nuser = '{SUPERUSER}'\n[source.all]\nserver = 'main'\ndatabases = ['*']\n\
         [defaults]\nretention = 'few'\n[retention.few]\nkeep_last = 4\nmin_keep = 1\n",
        keep.url,
        cluster.host(),
        cluster.port(),
    );
    let config = keep.cli.private_file("backup.toml", &settings)?;
    let prune = |source: &str, code| -> Result<Value> {
        let said = ["--config", &config, "prune", source, "--yes", "--json"];
        keep.cli.run(said)?.exits(code)?.json()
    };
    // Nothing newer is there at all: nobody can tell.
    let refused = prune("all/dropped", 12)?;
    let why = refused["error"]["message"].to_string();
    ensure!(why.contains("60 days old"), "{why}");
    keep.backups(&format!("all/{living}"), 0..2).await?;
    let done = prune("all/dropped", 0)?;
    assert_eq!(ids(&done["deleted"]).len(), 6);
    assert_eq!(keep.listed("all/dropped")?, gone[..4]);
    prune(&format!("all/{failing}"), 12)?;
    assert_eq!(keep.listed(&format!("all/{failing}"))?.len(), 10);
    Ok(())
}
