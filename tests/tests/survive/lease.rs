//! Of several runs of one source one goes on, whatever hosts and places they are on, and whoever
//! lost his turn publishes nothing.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use backup_e2e::evidence;
use backup_e2e::fake_tools::{Calls, FakeTools, pause_after};
use backup_e2e::pg::Cluster;
use backup_e2e::s3::{Kind, Server};
use backup_e2e::sample;
use backup_e2e::scene::{Done, RUN_LIMIT, Run, SOURCE, Scene, Store, unique, wait_for_silence};
use backup_e2e::vault::{Vault, id_of};
use nix::sys::signal::Signal;
use serde_json::Value;

/// A short lease, though not so short that it ends where this machine stands still, and what clocks may
/// differ by.
const LEASE: &str = "lease = '12s'";
const OVER: Duration = Duration::from_secs(12 + 5);

/// A scene, and programs by which its runs stand still in the middle of the rows.
struct Stage {
    scene: Scene<'static>,
    fakes: FakeTools,
}

impl Stage {
    fn new(store: Store) -> Result<Self> {
        let cluster = Cluster::shared(17)?;
        let database = cluster.fresh_db(&unique("lease"))?;
        cluster.psql(&database, &sample::bulk_sql("app", "bulk", 4))?;
        let scene = Scene::with(cluster, &database, store, |settings| {
            settings.defaults = vec![LEASE.to_owned()];
        })?;
        let fakes = FakeTools::new(cluster.bin_dir())?;
        fakes.misbehave("pg_dump", Calls::Data, &pause_after(500_000))?;
        Ok(Self { scene, fakes })
    }

    /// A run that is to stand still.
    fn start(&mut self) -> Result<Run> {
        let healthy = self.scene.settings.bin_dir.clone();
        self.fakes
            .bin_dir()
            .clone_into(&mut self.scene.settings.bin_dir);
        let run = self.scene.start(&["backup", SOURCE, "--json"]);
        self.scene.settings.bin_dir = healthy;
        run
    }

    /// One that stands still.
    fn paused(&mut self) -> Result<Run> {
        let mut run = self.start()?;
        let flag = self.fakes.flag("paused");
        run.wait_until("the dump of rows", || Ok(flag.exists()))?;
        Ok(run)
    }

    /// Lets what stands still go on.
    fn go_on(&self) -> Result<()> {
        Ok(fs::write(self.fakes.flag("go"), "")?)
    }

    /// Lets the next run stand still again.
    fn reset(&self) {
        for flag in ["paused", "go"] {
            let _ = fs::remove_file(self.fakes.flag(flag));
        }
    }

    /// A run that nothing holds up.
    fn run(&self, more: &[&str]) -> Result<Done> {
        let arguments: Vec<_> = ["backup", SOURCE].iter().chain(more).copied().collect();
        self.scene.run(&arguments)
    }

    fn ids(&self) -> Result<Vec<String>> {
        let done = self.scene.run(&["list", "--json"])?.expect(0, &[])?;
        let list: Vec<Value> = serde_json::from_str(&done.stdout)?;
        list.iter().map(|b| id_of(b).map(str::to_owned)).collect()
    }

    /// The key of the lease and what it says.
    fn lease(&self) -> Result<(String, Value)> {
        let keys = self.scene.place.keys()?;
        let key = keys
            .into_iter()
            .find(|key| key.ends_with("_leases/backup/shop.json"));
        let key = key.context("a lease")?;
        let text = self.scene.place.get(&key)?;
        Ok((key, serde_json::from_slice(&text)?))
    }
}

fn json(done: &Done) -> Result<Value> {
    serde_json::from_str(&done.stdout).with_context(|| done.text())
}

fn id_in(done: &Done) -> Result<String> {
    Ok(id_of(&json(done)?)?.to_owned())
}

/// How often a second run is refused.
const REFUSALS: usize = 5;

/// The second of two runs is told who is first; another source is nobody's business.
fn check_second(store: Store) -> Result<()> {
    let mut stage = Stage::new(store)?;
    let first = stage.paused()?;
    let process = format!("process {}", first.pid());
    let words = [
        "the backup lease of shop is held by ",
        "@",
        &process,
        "since",
    ];
    // The quickest of several, beside what a listing takes: what else the machine does is not the
    // program's doing.
    let (mut quickest, mut listing) = (Duration::MAX, Duration::MAX);
    for _ in 0..REFUSALS {
        let second = stage.run(&[])?.expect(5, &words)?;
        quickest = quickest.min(second.elapsed);
        let listed = stage.scene.run(&["list"])?.expect(0, &[])?;
        listing = listing.min(listed.elapsed);
    }
    ensure!(
        quickest < listing + Duration::from_secs(1),
        "{quickest:?}, and {listing:?} for a list"
    );
    let told = stage.run(&["--json"])?.expect(5, &[])?;
    let view = json(&told)?;
    let holder = &view["error"]["holder"];
    ensure!(view["error"]["kind"] == "conflict", "{view}");
    ensure!(holder["pid"] == first.pid(), "{view}");
    for field in ["user", "host", "backup", "since", "until", "operation"] {
        ensure!(holder[field].is_string(), "{field}: {view}");
    }
    let before = stage.ids()?.len();
    stage.go_on()?;
    let done = first.finish(RUN_LIMIT)?.expect(0, &[])?;
    ensure!(holder["backup"] == id_in(&done)?, "{view}");
    ensure!(stage.ids()?.len() == before + 1);
    ensure!(stage.lease()?.1["state"] == "released");
    stage.run(&[])?.expect(0, &[])?;
    evidence::note(
        14,
        format!(
            "the second run in {} ended with 5 after {} ms, the quickest of {REFUSALS}, where a list \
             took {} ms, and named user, host and process of the first",
            place_of(store),
            quickest.as_millis(),
            listing.as_millis(),
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

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_14_the_second_run_is_told_who_is_first() -> Result<()> {
    check_second(Store::Local)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_14_the_second_run_is_told_who_is_first_by_seaweedfs() -> Result<()> {
    check_second(Store::S3(Kind::SeaweedFs))
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_14_the_second_run_is_told_who_is_first_by_minio() -> Result<()> {
    check_second(Store::S3(Kind::MinIo))
}

/// How often it is tried who is first.
const ROUNDS: usize = 5;

/// Of runs that start at the same moment one goes on, and the others name it.
fn check_race(store: Store) -> Result<()> {
    let mut stage = Stage::new(store)?;
    for round in 0..ROUNDS {
        stage.reset();
        let before = stage.ids()?.len();
        let mut racing = vec![stage.start()?, stage.start()?, stage.start()?];
        let mut losers = Vec::new();
        wait_for_silence(Duration::from_mins(1), || {
            for number in (0..racing.len()).rev() {
                if racing[number].has_ended()? {
                    losers.push(racing.remove(number));
                }
            }
            Ok((losers.len() < 2).then(|| format!("{} run", racing.len())))
        })?;
        stage.go_on()?;
        let winner = racing.pop().context("a winner")?;
        let process = format!("process {}", winner.pid());
        for loser in losers {
            loser.finish(RUN_LIMIT)?.expect(5, &[&process])?;
        }
        let won = id_in(&winner.finish(RUN_LIMIT)?.expect(0, &[])?)?;
        let ids = stage.ids()?;
        ensure!(
            ids.len() == before + 1 && ids.contains(&won),
            "{round}: {ids:?}"
        );
    }
    evidence::note(
        14,
        format!(
            "in each of {ROUNDS} rounds of three runs that started at the same moment in {}, one \
             went on and made the only backup, and the others ended with 5 and named it",
            place_of(store)
        ),
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_14_of_racing_runs_one_goes_on() -> Result<()> {
    check_race(Store::Local)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_14_of_racing_runs_one_goes_on_in_seaweedfs() -> Result<()> {
    check_race(Store::S3(Kind::SeaweedFs))
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_14_of_racing_runs_one_goes_on_in_minio() -> Result<()> {
    check_race(Store::S3(Kind::MinIo))
}

/// A killed run is in nobody's way: here at once, elsewhere when its time is over.
fn check_killed(store: Store) -> Result<()> {
    let mut stage = Stage::new(store)?;
    let mut next_took = Duration::ZERO;
    for elsewhere in [false, true] {
        stage.reset();
        // Longer than any of this takes, so that the next run does not just wait until it is over.
        let lease = if elsewhere { LEASE } else { "lease = '30min'" };
        stage.scene.settings.defaults = vec![lease.to_owned()];
        let killed = stage.paused()?;
        killed.signal(Signal::SIGKILL)?;
        killed.finish(RUN_LIMIT)?;
        let (key, mut lease) = stage.lease()?;
        ensure!(lease["state"] == "held", "{lease}");
        if elsewhere {
            // As seen from another host, where nobody can know whether the process lives.
            lease["process"]["table"] = "another boot".into();
            stage.scene.place.put(&key, &serde_json::to_vec(&lease)?)?;
            stage.run(&[])?.expect(5, &["held by"])?;
            wait_for_silence(3 * OVER, || {
                let done = stage.run(&[])?;
                Ok((done.code == 5).then(|| done.text()))
            })?;
        }
        let next = stage.run(&["--json"])?.expect(0, &[])?;
        if !elsewhere {
            next_took = next.elapsed;
        }
        let next = id_in(&next)?;
        let ids = stage.ids()?;
        ensure!(ids.contains(&next), "{ids:?}");
        // The run that was killed will never be a backup, and is not taken for a damaged one.
        let id = lease["backup"].as_str().context("an id")?;
        let manifest = key.replace("_leases/backup/shop.json", "backups/shop/");
        let bar = stage
            .scene
            .place
            .get(&format!("{manifest}{id}/manifest.json"))?;
        ensure!(String::from_utf8(bar)?.contains("barred_at"));
        ensure!(!ids.iter().any(|other| other == id), "{ids:?}");
    }
    stage.scene.run(&["verify", "--all"])?.expect(0, &[])?;
    evidence::note(
        14,
        format!(
            "after kill -9 the next run in {} was done {:.1} s later, although the lease had 30 \
             minutes to go",
            place_of(store),
            next_took.as_secs_f64()
        ),
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_14_a_killed_run_is_in_nobodys_way() -> Result<()> {
    check_killed(Store::Local)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_14_a_killed_run_is_in_nobodys_way_in_seaweedfs() -> Result<()> {
    check_killed(Store::S3(Kind::SeaweedFs))
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_14_a_killed_run_is_in_nobodys_way_in_minio() -> Result<()> {
    check_killed(Store::S3(Kind::MinIo))
}

/// A run that stood still for longer than its lease publishes nothing once another has been there,
/// and goes on when nobody was.
fn check_stopped(store: Store) -> Result<()> {
    let mut stage = Stage::new(store)?;
    let stopped = stage.paused()?;
    stopped.signal(Signal::SIGSTOP)?;
    stage.run(&[])?.expect(5, &["held by"])?;
    wait_for_silence(3 * OVER, || {
        let done = stage.run(&["--json"])?;
        Ok((done.code == 5).then(|| done.text()))
    })?;
    let ids = stage.ids()?;
    stage.go_on()?;
    stopped.signal(Signal::SIGCONT)?;
    let words = "nothing was published: the backup lease of shop was lost to ";
    stopped.finish(RUN_LIMIT)?.expect(1, &[words])?;
    ensure!(stage.ids()? == ids, "{ids:?}");
    ensure!(
        ids.len() == 2,
        "the first backup and that of the other run: {ids:?}"
    );

    stage.reset();
    let stopped = stage.paused()?;
    stopped.signal(Signal::SIGSTOP)?;
    std::thread::sleep(OVER);
    stage.go_on()?;
    stopped.signal(Signal::SIGCONT)?;
    stopped.finish(RUN_LIMIT)?.expect(0, &[])?;
    ensure!(stage.ids()?.len() == ids.len() + 1);
    stage
        .scene
        .run(&["verify", "--all"])?
        .expect(0, &[])
        .map(drop)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_stopped_run_publishes_nothing_after_another() -> Result<()> {
    check_stopped(Store::Local)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_stopped_run_publishes_nothing_after_another_in_seaweedfs() -> Result<()> {
    check_stopped(Store::S3(Kind::SeaweedFs))
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_stopped_run_publishes_nothing_after_another_in_minio() -> Result<()> {
    check_stopped(Store::S3(Kind::MinIo))
}

/// Another source in the same place is not held up.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn sources_do_not_wait_for_each_other() -> Result<()> {
    let mut stage = Stage::new(Store::Local)?;
    let shop = stage.paused()?;
    let cluster = Cluster::shared(17)?;
    let other = Vault::local(cluster)?;
    let place = format!("file://{}", stage.scene.settings.store);
    let run = other.cli.run([
        "backup",
        "-d",
        &stage.scene.settings.database,
        "--to",
        &place,
        "--no-encryption",
    ])?;
    run.exits(0)?;
    stage.go_on()?;
    shop.finish(RUN_LIMIT)?.expect(0, &[]).map(drop)
}

/// Who reads says so while it lasts. A login that may only read cannot, and reads all the same.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn readers_leave_a_note_if_they_may() -> Result<()> {
    let mut stage = Stage::new(Store::S3(Kind::SeaweedFs))?;
    let note = "others cannot see what is being read here, and could remove it";
    let read = stage.scene.run(&["verify", "--all"])?.expect(0, &[])?;
    ensure!(!read.text().contains(note), "{}", read.text());
    let keys = stage.scene.place.keys()?;
    ensure!(
        !keys.iter().any(|key| key.contains("_leases/readers/")),
        "{keys:?}"
    );

    stage.run(&[])?.expect(0, &[])?;
    let (access_key, secret_key) = Server::shared(Kind::SeaweedFs)?.reader();
    access_key.clone_into(&mut stage.scene.settings.access_key);
    secret_key.clone_into(&mut stage.scene.settings.secret_key);
    let read = stage.scene.run(&["verify", "--all"])?.expect(0, &[note])?;
    let said = read.text().matches(note).count();
    ensure!(said == 1, "it is said once: {}", read.text());
    Ok(())
}
