//! Runs that are killed before each thing that they do to the world. What is left is the old state or the
//! new one, never half of it; nobody is left behind, and the next run goes on at once.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::Run;
use backup_e2e::crash::Moments;
use backup_e2e::evidence;
use backup_e2e::pg::{Cluster, quote_literal};
use backup_e2e::s3::Kind;
use backup_e2e::sample;
use backup_e2e::scene::{Place, is_note, processes_with, wait_for_silence};
use backup_e2e::sweep::{LATER, sweep};
use backup_e2e::vault::{Vault, id_of};
use chrono::{DateTime, Utc};
use serde_json::Value;

/// How long children and sessions may outlive a run.
const GONE: Duration = Duration::from_mins(1);

/// A database, a place for its backups, and what kills runs there.
struct Yard {
    cluster: &'static Cluster,
    vault: Vault,
    place: Place,
    database: String,
    moments: Moments,
}

/// Everything in a place.
type Saved = BTreeMap<String, Vec<u8>>;

impl Yard {
    fn new(name: &str, kind: Option<Kind>, megabytes: u32) -> Result<Self> {
        let cluster = Cluster::shared(17)?;
        let database = cluster.fresh_db(name)?;
        let rows = sample::bulk_sql("app", "bulk", megabytes);
        let sql = "CREATE TABLE small (id serial PRIMARY KEY, note text);
                   INSERT INTO small (note) SELECT 'note ' || i FROM generate_series(1, 99) AS i;";
        cluster.psql(&database, &(rows + sql))?;
        let vault = match kind {
            None => Vault::local(cluster)?,
            Some(kind) => Vault::in_bucket(cluster, kind)?,
        };
        let place = match vault.bucket() {
            None => Place::Local(vault.cli.local_root()),
            Some((server, bucket)) => Place::Bucket {
                server,
                bucket: bucket.to_owned(),
            },
        };
        Ok(Self {
            cluster,
            vault,
            place,
            database,
            moments: Moments::new()?,
        })
    }

    fn back_up(&self) -> Result<String> {
        let view = self
            .vault
            .back_up(&self.database, &["--compress", "none"])?;
        Ok(id_of(&view)?.to_owned())
    }

    fn json(&self, said: &str) -> Result<Value> {
        let mut arguments: Vec<_> = said.split_whitespace().collect();
        arguments.extend(["--from", &self.vault.url, "--json"]);
        self.vault.cli.run(arguments)?.exits(0)?.json()
    }

    /// The ids of the backups, newest first.
    fn listed(&self) -> Result<Vec<String>> {
        let views = self.json("list")?;
        let views = views.as_array().context("an array")?;
        let id = |view: &Value| view["id"].as_str().map(str::to_owned);
        Ok(views.iter().filter_map(id).collect())
    }

    /// Every listed backup is whole, byte by byte and inside.
    fn assert_all_good(&self) -> Result<()> {
        let run = self
            .vault
            .read(&["verify", "--all", "--level", "decoded"])?;
        run.exits(0).map(drop)
    }

    /// No child and no session outlives a run by much.
    fn assert_nobody_left(&self, databases: &[&str]) -> Result<()> {
        let marks: Vec<_> = databases
            .iter()
            .map(|name| format!("PGDATABASE={name}"))
            .collect();
        wait_for_silence(GONE, || {
            let left = processes_with(&marks);
            Ok((!left.is_empty()).then(|| format!("processes: {left:?}")))
        })?;
        let names: Vec<_> = databases.iter().map(|name| quote_literal(name)).collect();
        let sql = format!(
            "SELECT pid, query FROM pg_stat_activity
             WHERE application_name = 'backup-manager' AND datname IN ({})",
            names.join(", ")
        );
        wait_for_silence(GONE, || {
            let left = self.cluster.query("postgres", &sql)?;
            Ok((!left.is_empty()).then(|| format!("sessions: {left}")))
        })
    }

    fn save(&self) -> Result<Saved> {
        let keys = self.place.keys()?.into_iter();
        keys.map(|key| Ok((key.clone(), self.place.get(&key)?)))
            .collect()
    }

    /// Makes the place what it was.
    fn put_back(&self, saved: &Saved) -> Result<()> {
        for key in self.place.keys()? {
            if !saved.contains_key(&key) {
                self.place.delete(&key)?;
            }
        }
        saved
            .iter()
            .try_for_each(|(key, bytes)| self.place.put(key, bytes))
    }

    fn prune(&self) -> [&str; 9] {
        [
            "prune",
            &self.database,
            "--keep-last",
            "2",
            "--min-keep",
            "1",
            "--yes",
            "--from",
            &self.vault.url,
        ]
    }

    /// Long after: what dead runs left is swept, and what is there belongs to a backup.
    fn assert_swept(&self, kept: &[String]) -> Result<usize> {
        self.vault.cli.run(self.prune())?.exits(0)?;
        let swept = self.sweep()?;
        ensure!(self.listed()? == kept, "{:?}", self.listed()?);
        let mut keys = self.place.keys()?;
        keys.retain(|key| {
            let of_one = kept.iter().any(|id| key.contains(id));
            // What keeps a dead run from committing stays in the place of its manifest.
            let bar = key.ends_with("/manifest.json");
            !of_one && !bar && !is_note(key) && !key.ends_with("repository.json")
        });
        ensure!(keys.is_empty(), "left behind: {keys:?}");
        let uploads = self.place.uploads()?;
        ensure!(uploads.is_empty(), "open uploads: {uploads:?}");
        self.assert_all_good()?;
        Ok(swept)
    }

    /// The prune of some days later; how many uploads it ended.
    fn sweep(&self) -> Result<usize> {
        if let Place::Bucket { server, .. } = &self.place {
            let outcome = sweep(server, &self.vault.url, &self.database)?;
            return Ok(outcome.aborted_uploads);
        }
        let later = DateTime::<Utc>::from(SystemTime::now() + LATER);
        // That no backup was taken for so long would be a reason not to believe the clock.
        let prune = self.prune().into_iter().chain(["--clock-is-right"]);
        self.vault.cli.run_at(later, prune)?.exits(0)?;
        Ok(0)
    }
}

/// What the records say of backups: how many ended how.
fn results(runs: &Value) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for run in runs.as_array().into_iter().flatten() {
        let result = run["result"].as_str().unwrap_or("none");
        *counted.entry(result.to_owned()).or_default() += 1;
    }
    counted
}

fn check_backups(name: &str, kind: Option<Kind>, megabytes: u32, least: usize) -> Result<()> {
    let yard = Yard::new(name, kind, megabytes)?;
    let mut known = vec![yard.back_up()?];
    let dbname = format!("--dbname={}", yard.database);
    let (mut committed, mut begun) = (0, 0);
    let command = || {
        let recipient = &*yard.vault.keys.recipient;
        let to = ["backup", &dbname, "--to", &yard.vault.url];
        let how = ["--recipient", recipient, "--compress", "none"];
        yard.vault.cli.command(to.into_iter().chain(how))
    };
    let mut moments = Vec::new();
    let deaths = yard.moments.each((1, 0), command, |moment| {
        moments.push(moment.to_owned());
        yard.assert_nobody_left(&[&yard.database])?;
        let mut listed = yard.listed()?;
        listed.retain(|id| !known.contains(id));
        ensure!(listed.len() <= 1, "{listed:?}");
        committed += listed.len();
        begun += usize::from(has_lease(&yard)?);
        known.append(&mut listed);
        known.push(yard.back_up()?);
        Ok(())
    })?;
    ensure!(deaths >= least, "only {deaths} deaths: {moments:?}");
    yard.assert_all_good()?;
    // Whoever had the turn when he was killed is told as that, unless he had told himself how it ended.
    let told = results(&yard.json("runs --operation backup")?);
    let interrupted = told.get("interrupted").copied().unwrap_or(0);
    ensure!(
        interrupted + committed >= begun && interrupted > 0,
        "{begun} died at work, {committed} of them done, and the records say {told:?}"
    );
    let kept: Vec<_> = yard.listed()?.into_iter().take(2).collect();
    let target = format!("{}_back", yard.database);
    yard.vault.restore(&kept[0], &target, &[])?;
    let same = yard.cluster.contents(&target)? == yard.cluster.contents(&yard.database)?;
    ensure!(same, "another content");
    let uploads = yard.assert_swept(&kept)?;
    ensure!(
        uploads > 0 || kind.is_none(),
        "no upload in parts was left open: {moments:?}"
    );
    evidence::note(
        8,
        format!(
            "{deaths} deaths of a backup into {}: {committed} were committed by then and are whole, \
             {interrupted} told as interrupted, {uploads} open uploads ended by the sweep, each next run succeeded",
            yard.place_name()
        ),
    );
    Ok(())
}

impl Yard {
    fn place_name(&self) -> &'static str {
        match self.place {
            Place::Local(_) => "a folder",
            Place::Bucket { .. } => "a bucket",
        }
    }
}

/// Whether a lease says that a run is at it.
fn has_lease(yard: &Yard) -> Result<bool> {
    for key in yard.place.keys()? {
        if key.contains("_leases/backup/") && !key.contains('#') {
            let text = yard.place.get(&key)?;
            let lease: Value = serde_json::from_slice(&text)?;
            return Ok(lease["state"] == "held");
        }
    }
    Ok(false)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_08_a_backup_into_a_folder_is_killed_before_each_step() -> Result<()> {
    check_backups("dying_folder", None, 1, 25)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_08_a_backup_into_a_bucket_is_killed_before_each_step() -> Result<()> {
    // Long enough for an upload in parts.
    check_backups("dying_bucket", Some(Kind::SeaweedFs), 14, 15)
}

fn check_prunes(name: &str, kind: Option<Kind>) -> Result<()> {
    let yard = Yard::new(name, kind, 0)?;
    for _ in 0..4 {
        yard.back_up()?;
    }
    let (all, saved) = (yard.listed()?, yard.save()?);
    let mut halfway = 0;
    let command = || yard.vault.cli.command(yard.prune());
    let deaths = yard.moments.each((1, 0), command, |_| {
        let listed = yard.listed()?;
        ensure!(
            listed.starts_with(&all[..2]) && listed.iter().all(|id| all.contains(id)),
            "{listed:?}"
        );
        halfway += usize::from(listed.len() == 3);
        yard.assert_all_good()?;
        yard.vault.cli.run(yard.prune())?.exits(0)?;
        ensure!(yard.listed()? == all[..2], "{:?}", yard.listed()?);
        yard.put_back(&saved)
    })?;
    ensure!(halfway > 0, "no death came between two deletions");
    yard.assert_swept(&all[..2])?;
    let what = yard.place_name();
    evidence::note(
        8,
        format!(
            "{deaths} deaths of a prune in {what}: what is listed is whole, the next one ends it"
        ),
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_08_a_prune_of_a_folder_is_killed_before_each_step() -> Result<()> {
    check_prunes("dying_prune", None)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_08_a_prune_of_a_bucket_is_killed_before_each_step() -> Result<()> {
    check_prunes("dying_bucket_prune", Some(Kind::SeaweedFs))
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_08_a_copy_is_killed_before_each_step() -> Result<()> {
    let yard = Yard::new("dying_copy", Some(Kind::SeaweedFs), 0)?;
    let id = yard.back_up()?;
    let far = yard.vault.cli.local_store();
    let root = yard.vault.cli.local_root();
    let copy = ["copy", &id, "--from", &yard.vault.url, "--to", &far];
    let verify = ["verify", "--all", "--from", &far];
    let mut whole = 0;
    let deaths = yard.moments.each(
        (1, 0),
        || yard.vault.cli.command(copy),
        |_| {
            let listed = yard.vault.cli.run(["list", "--json", "--from", &far])?;
            let listed = listed.json()?;
            let there = listed.as_array().is_some_and(|views| !views.is_empty());
            if there {
                whole += 1;
                yard.vault.cli.run(verify)?.exits(0)?;
            }
            yard.vault.cli.run(copy)?.exits(0)?;
            yard.vault.cli.run(verify)?.exits(0)?;
            Ok(std::fs::remove_dir_all(&root)?)
        },
    )?;
    ensure!(
        whole > 0 && whole < deaths,
        "{whole} of {deaths} were whole"
    );
    yard.assert_all_good()?;
    evidence::note(
        8,
        format!("{deaths} deaths of a copy, {whole} after it was whole: the next one ends it"),
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_08_a_change_of_keys_is_killed_before_each_step() -> Result<()> {
    let yard = Yard::new("dying_rekey", None, 0)?;
    let (id, new) = (yard.back_up()?, yard.vault.cli.keys()?);
    let (saved, old) = (yard.save()?, &yard.vault.keys);
    let from = ["--from", &*yard.vault.url];
    let opens = |identity: &str| -> Result<Run> {
        let verify = ["verify", &id, "--level", "decoded", "-i", identity];
        yard.vault.cli.run(verify.into_iter().chain(from))
    };
    let rekey = [
        "rekey",
        &id,
        "--recipient",
        &new.recipient,
        "-i",
        &old.identity,
    ];
    let command = || yard.vault.cli.command(rekey.into_iter().chain(from));
    let mut done = 0;
    let deaths = yard.moments.each((1, 0), command, |_| {
        // It opens for one of the two, and for the new one alone only when that is all there is.
        let for_old = opens(&old.identity)?.code;
        if for_old == Some(0) {
            let again = yard.vault.cli.run(rekey.into_iter().chain(from))?;
            again.exits(0)?;
        } else {
            ensure!(for_old == Some(10), "{for_old:?}");
            done += 1;
        }
        opens(&new.identity)?.exits(0)?;
        yard.put_back(&saved)
    })?;
    ensure!(done > 0 && done < deaths, "{done} of {deaths}");
    evidence::note(
        8,
        format!("{deaths} deaths of a change of keys: one of the two keys opens it each time"),
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_08_a_restore_is_killed_before_each_step() -> Result<()> {
    let yard = Yard::new("dying_restore", None, 1)?;
    let id = yard.back_up()?;
    let before = yard.cluster.contents(&yard.database)?;
    let target = format!("{}_back", yard.database);
    let flag = format!("--target-db={target}");
    let identity = &*yard.vault.keys.identity;
    let restore = [
        "restore",
        &id,
        &flag,
        "-i",
        identity,
        "--from",
        &yard.vault.url,
    ];
    let command = || yard.vault.cli.command(restore);
    let mut left = 0;
    let deaths = yard.moments.each((1, 0), command, |_| {
        yard.assert_nobody_left(&[&yard.database, &target])?;
        if !yard.cluster.has_db(&target)? {
            return Ok(());
        }
        left += 1;
        // It is in the way of the next one, which never takes it for its own.
        yard.vault.cli.run(restore)?.exits(12)?;
        yard.cluster.drop_db(&target)
    })?;
    ensure!(left > 0 && left < deaths, "{left} of {deaths}");
    ensure!(yard.cluster.contents(&target)? == before, "another content");
    ensure!(
        yard.cluster.contents(&yard.database)? == before,
        "the source changed"
    );
    evidence::note(
        8,
        format!(
            "{deaths} deaths of a restore: the source is untouched, {left} left a database that the \
             next one refuses to touch"
        ),
    );
    Ok(())
}
