//! A table that somebody has locked, and who waits for whom.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use backup_e2e::evidence;
use backup_e2e::pg::{Cluster, quote_literal};
use backup_e2e::scene::{SOURCE, Scene, Store, unique};

/// Longer than a run that gives up may take; what takes longer hangs.
const BOUND: Duration = Duration::from_mins(1);

/// Within that long a run that waits for 5 s has to be over.
const LIMIT: Duration = Duration::from_secs(10);

/// A psql that stays connected.
struct Session {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Session {
    fn open(cluster: &Cluster, database: &str) -> Result<Self> {
        let mut command = cluster.tool("psql", database);
        command.args(["-X", "-q", "-At"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let answers = BufReader::new(child.stdout.take().context("a pipe")?);
        Ok(Self { child, answers })
    }

    /// Runs a statement and returns the last line of its answer.
    fn run(&mut self, sql: &str) -> Result<String> {
        let mut input = self.child.stdin.as_ref().context("a pipe")?;
        writeln!(input, "{sql};\n\\echo .")?;
        let mut last = String::new();
        loop {
            let mut line = String::new();
            ensure!(self.answers.read_line(&mut line)? > 0, "psql ended");
            if line == ".\n" {
                return Ok(last.trim_end().to_owned());
            }
            last = line;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the run holds the table that it has locked already, and waits for the other.
fn waits(cluster: &Cluster, database: &str) -> Result<bool> {
    let sql = format!(
        "SELECT count(*) FILTER (WHERE granted AND relation = 'app.bulk'::regclass) > 0
            AND count(*) FILTER (WHERE NOT granted) = 1
         FROM pg_locks WHERE mode = 'AccessShareLock' AND pid IN (
           SELECT pid FROM pg_stat_activity WHERE application_name = 'backup-manager'
             AND datname = {})",
        quote_literal(database)
    );
    Ok(cluster.query(database, &sql)? == "t")
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn check_15_a_locked_table_and_who_holds_it_are_named_and_nobody_waits_longer() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let database = cluster.fresh_db(&unique("lockedout"))?;
    cluster.psql(
        &database,
        "CREATE SCHEMA app; CREATE TABLE app.bulk (id int, note text);
         INSERT INTO app.bulk VALUES (1, 'one'); CREATE TABLE app.second AS SELECT 1 AS a;",
    )?;
    let mut scene = Scene::new(cluster, &database, Store::Local)?;
    scene.settings.defaults = vec!["lock_wait_timeout = '5s'".to_owned()];
    let before = scene.state()?;
    let mut holder = Session::open(cluster, &database)?;
    holder.run("BEGIN; LOCK TABLE app.second IN ACCESS EXCLUSIVE MODE")?;
    let pid = holder.run("SELECT pg_backend_pid()")?;
    let mut run = scene.start(&["backup", SOURCE])?;
    run.wait_until("the lock", || waits(cluster, &database))?;

    let (done, longest) = thread::scope(|scope| {
        let waiter = scope.spawn(|| run.finish(BOUND));
        // Who writes waits for nobody: what the run holds stands in the way of nothing but this.
        cluster.psql(
            &database,
            "SET lock_timeout = '1s'; UPDATE app.bulk SET note = 'two'",
        )?;
        let asked = Instant::now();
        let change = "SET lock_timeout = '60s'; ALTER TABLE app.bulk ADD COLUMN late int";
        cluster.psql(&database, change)?;
        let longest = asked.elapsed();
        let done = waiter.join().expect("the waiter does not panic")?;
        anyhow::Ok((done, longest))
    })?;
    // Not the text of the query: it can hold data.
    let blocker = format!("process {pid} of postgres (psql, idle in transaction)");
    let words = ["table app.second is locked", &blocker, "waited 5 s"];
    let done = done.expect(1, &words)?;
    ensure!(done.elapsed < LIMIT, "{:?}", done.elapsed);
    ensure!(longest < LIMIT, "somebody waited for us: {longest:?}");
    holder.run("ROLLBACK")?;
    drop(holder);
    scene.assert_nothing_published(&before)?;
    evidence::note(
        15,
        format!(
            "with a limit of 5 s the run ended with 1 after {:.1} s and named the process, its role, its program and its state; a \
             change of definitions waited for it for {:.1} s, and a writer not at all",
            done.elapsed.as_secs_f64(),
            longest.as_secs_f64()
        ),
    );
    Ok(())
}
