//! A restored database takes the place of a live one at one moment, with all that belongs to the
//! name, and gives it back. Whatever ends the run in between, the name leads to one of the two.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Cli, Run, Running};
use backup_e2e::pg::{Cluster, ClusterOptions, quote_identifier, quote_literal};
use backup_e2e::vault::{Vault, id_of};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// How long a session that was ended, or its lock, may take to go.
const GONE_LIMIT: Duration = Duration::from_secs(10);

/// A live database, a backup of an earlier state of it, and all that belongs to its name.
struct Stage {
    cluster: Cluster,
    vault: Vault,
    backup: String,
}

/// A name that has to be quoted everywhere.
const LIVE: &str = "live \"shop\"; --";

impl Stage {
    fn new(major: u16) -> Result<Self> {
        Self::with(major, &ClusterOptions::default())
    }

    fn with(major: u16, options: &ClusterOptions) -> Result<Self> {
        let cluster = Cluster::start(major, options)?;
        let vault = Vault::local(&cluster)?;
        cluster.psql(
            "postgres",
            "CREATE ROLE app; CREATE ROLE report; CREATE ROLE nobody",
        )?;
        cluster.create_db(LIVE)?;
        let name = quote_identifier(LIVE);
        cluster.psql(
            "postgres",
            &format!(
                "ALTER DATABASE {name} OWNER TO app;
                 COMMENT ON DATABASE {name} IS 'the shop
and its second line';
                 REVOKE CONNECT ON DATABASE {name} FROM PUBLIC;
                 GRANT CONNECT ON DATABASE {name} TO report WITH GRANT OPTION;
                 ALTER DATABASE {name} SET work_mem TO '8MB';"
            ),
        )?;
        cluster.psql(
            LIVE,
            "GRANT CREATE ON SCHEMA public TO app; SET ROLE app;
             CREATE TABLE a (state text); CREATE TABLE b (state text);
             CREATE TABLE rows AS SELECT i, repeat('x', 100) AS filler
               FROM generate_series(1, 20000) AS i;
             INSERT INTO a VALUES ('saved'); INSERT INTO b VALUES ('saved');",
        )?;
        let backup = vault.back_up(LIVE, &[])?;
        let backup = id_of(&backup)?.to_owned();
        // What came after the backup, to the content and to what belongs to the name.
        cluster.psql(
            LIVE,
            "BEGIN; UPDATE a SET state = 'lost'; UPDATE b SET state = 'lost'; COMMIT",
        )?;
        cluster.psql(
            "postgres",
            &format!(
                "GRANT CREATE ON DATABASE {name} TO report;
                 REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC;
                 ALTER DATABASE {name} SET search_path TO '$user', 'a, b', public;
                 ALTER DATABASE {name} RESET work_mem;
                 ALTER ROLE report IN DATABASE {name} SET statement_timeout TO '1min';
                 ALTER DATABASE {name} CONNECTION LIMIT 77;"
            ),
        )?;
        Ok(Self {
            cluster,
            vault,
            backup,
        })
    }

    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let mut arguments = vec!["restore", &self.backup, "--from", &self.vault.url];
        arguments.extend([
            "-i",
            &self.vault.keys.identity,
            "--target-db",
            LIVE,
            "--json",
        ]);
        arguments.extend(more);
        arguments
    }

    fn swap(&self) -> Result<Run> {
        self.vault.cli.run(self.arguments(&["--swap", "--yes"]))
    }

    fn start_swap(&self, cli: &Cli) -> Result<Running> {
        cli.start(self.arguments(&["--swap", "--yes"]))
    }

    fn undo(&self, run: &str) -> Result<Run> {
        let from = ["--from", &self.vault.url];
        self.vault
            .cli
            .run(["undo", run, "--json"].into_iter().chain(from))
    }

    fn state(&self) -> Result<String> {
        let sql = "SELECT (SELECT state FROM a) || ' ' || (SELECT state FROM b)";
        self.cluster.query(LIVE, sql)
    }

    /// All databases of ours, with their ids.
    fn databases(&self) -> Result<String> {
        let sql = "SELECT oid, datname, datallowconn FROM pg_database ORDER BY oid";
        self.cluster.query("postgres", sql)
    }

    /// Everything that belongs to a database besides its content.
    fn properties(&self, database: &str) -> Result<String> {
        let literal = quote_literal(database);
        self.cluster.query(
            "postgres",
            &format!(
                "SELECT pg_get_userbyid(datdba), datconnlimit, datallowconn,
                   (SELECT string_agg(concat_ws(' ', grantee::regrole, privilege_type,
                                      is_grantable), ', ' ORDER BY grantee, privilege_type)
                    FROM aclexplode(coalesce(datacl, acldefault('d', datdba)))),
                   (SELECT string_agg(setrole::regrole || setconfig::text, ', ' ORDER BY setrole)
                    FROM pg_db_role_setting WHERE setdatabase = d.oid),
                   shobj_description(oid, 'pg_database')
                 FROM pg_database d WHERE datname = {literal}"
            ),
        )
    }

    /// Nothing happened to anybody.
    fn assert_untouched(&self, before: &str) -> Result<()> {
        let after = self.databases()?;
        ensure!(
            after == before,
            "databases before:\n{before}\nafter:\n{after}"
        );
        ensure!(self.state()? == "lost lost", "{}", self.state()?);
        Ok(())
    }

    /// Waits until nothing of a killed run holds the name.
    fn wait_until_free(&self) -> Result<()> {
        let deadline = Instant::now() + GONE_LIMIT;
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'backup-manager'";
        while self.cluster.query("postgres", sql)? != "0" {
            ensure!(Instant::now() < deadline, "sessions of the killed run stay");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

fn text<'a>(view: &'a Value, field: &str) -> Result<&'a str> {
    view[field]
        .as_str()
        .with_context(|| format!("{field} in {view}"))
}

fn check_there_and_back(major: u16) -> Result<()> {
    let stage = Stage::new(major)?;
    let properties = stage.properties(LIVE)?;
    let live = stage.cluster.contents(LIVE)?;

    let view = stage.swap()?.exits(0)?.json()?;
    ensure!(
        view["swapped"] == true && view["target_database"] == LIVE,
        "{view}"
    );
    ensure!(view["compare"]["equal"] == 3, "{view}");
    let (run, kept_as) = (text(&view, "run_id")?, text(&view, "kept_as")?);
    ensure!(kept_as == format!("{LIVE}__before_{run}"), "{kept_as}");
    ensure!(stage.state()? == "saved saved", "{}", stage.state()?);
    ensure!(
        stage.properties(LIVE)? == properties,
        "{}",
        stage.properties(LIVE)?
    );
    ensure!(
        stage.cluster.contents(kept_as)? == live,
        "the old one changed"
    );

    let undone = stage.undo(run)?.exits(0)?.json()?;
    ensure!(
        undone["database"] == LIVE && undone["undone"] == run,
        "{undone}"
    );
    ensure!(stage.cluster.contents(LIVE)? == live, "not what it was");
    ensure!(
        stage.properties(LIVE)? == properties,
        "{}",
        stage.properties(LIVE)?
    );
    let again = text(&undone, "kept_as")?;
    ensure!(again.contains("__before_") && again != kept_as, "{again}");

    // An undo is a swap like any other.
    stage.undo(text(&undone, "run_id")?)?.exits(0)?;
    ensure!(stage.state()? == "saved saved", "{}", stage.state()?);

    let runs = stage
        .vault
        .cli
        .run(["runs", "--from", &stage.vault.url, "--json"])?;
    let runs = runs.exits(0)?.json()?;
    let told: Vec<_> = runs.as_array().context("runs")?.iter().collect();
    let operations: Vec<_> = told.iter().map(|run| run["operation"].as_str()).collect();
    ensure!(
        operations == [Some("undo"), Some("undo"), Some("restore"), Some("backup")],
        "{operations:?}"
    );
    ensure!(
        told[1]["undone"] == run && told[2]["kept_as"] == kept_as,
        "{runs}"
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_swap_takes_all_that_belongs_to_the_name_and_is_undone_14() -> Result<()> {
    check_there_and_back(14)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_swap_takes_all_that_belongs_to_the_name_and_is_undone_18() -> Result<()> {
    check_there_and_back(18)
}

/// Reads both tables over new connections for as long as `going`; what was seen, in order, and
/// which errors.
fn watch(stage: &Stage, going: &AtomicBool) -> (Vec<String>, Vec<String>) {
    let (mut seen, mut errors) = (Vec::new(), Vec::new());
    while going.load(Ordering::Relaxed) {
        match stage.state() {
            Ok(found) => seen.push(found),
            Err(error) => errors.push(format!("{error:#}")),
        }
    }
    seen.dedup();
    (seen, errors)
}

/// Writes to the database for as long as `going`, over sessions that last or new ones each time.
/// `pgbench` gives up when its session is ended, so it is started again.
fn load(stage: &Stage, more: &[&str], going: &AtomicBool) -> Result<()> {
    while going.load(Ordering::Relaxed) {
        let mut command = stage.cluster.tool("pgbench", LIVE);
        command.args(["-n", "-c", "4", "-j", "2", "-t", "40"]);
        command.args(more);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status()?;
    }
    Ok(())
}

/// Swaps to `backup` and back while clients work, and returns what both said and all saw.
fn exchange_under_load(stage: &Stage, backup: &str) -> Result<(Value, Vec<String>, Vec<String>)> {
    let going = AtomicBool::new(true);
    thread::scope(|scope| {
        let watchers: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| watch(stage, &going)))
            .collect();
        let loads = [&["-C"][..], &[]].map(|more| scope.spawn(|| load(stage, more, &going)));
        let exchange = || -> Result<Value> {
            thread::sleep(Duration::from_secs(1));
            let mut arguments = stage.arguments(&["--swap", "--yes"]);
            arguments[1] = backup;
            let swap = stage.vault.cli.run(arguments)?.exits(0)?.json()?;
            thread::sleep(Duration::from_secs(1));
            let undo = stage.undo(text(&swap, "run_id")?)?.exits(0)?.json()?;
            thread::sleep(Duration::from_secs(1));
            Ok(undo)
        };
        let undo = exchange();
        going.store(false, Ordering::Relaxed);
        let panicked = |_| anyhow::anyhow!("a client panicked");
        for load in loads {
            load.join().map_err(panicked)??;
        }
        let mut errors = Vec::new();
        let mut seen = Vec::new();
        for watcher in watchers {
            let (states, failures) = watcher.join().map_err(panicked)?;
            seen.push(states.join(", "));
            errors.extend(failures);
        }
        Ok((undo?, seen, errors))
    })
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn under_load_nobody_sees_a_half_state() -> Result<()> {
    let stage = Stage::new(17)?;
    let mut init = stage.cluster.tool("pgbench", LIVE);
    ensure!(
        init.args(["-i", "-q"])
            .stderr(Stdio::null())
            .status()?
            .success()
    );
    let backup = stage.vault.back_up(LIVE, &[])?;
    let backup = id_of(&backup)?;
    // From here on, what the backup has is 'lost', and live goes on.
    let later = "BEGIN; UPDATE a SET state = 'now'; UPDATE b SET state = 'now'; COMMIT";
    stage.cluster.psql(LIVE, later)?;
    let (undo, seen, errors) = exchange_under_load(&stage, backup)?;
    for seen in seen {
        ensure!(seen == "now now, lost lost, now now", "{seen}");
    }
    // Those in the middle of it are told to come back.
    for error in errors {
        let told = [
            "terminating connection",
            "does not exist",
            "server closed the connection",
        ];
        ensure!(told.iter().any(|text| error.contains(text)), "{error}");
    }
    // Every transaction of the load is in one database or the other, whole.
    for database in [LIVE, text(&undo, "kept_as")?] {
        let sums = stage.cluster.query(
            database,
            "SELECT (SELECT count(*) > 0 FROM pgbench_history),
                    (SELECT sum(abalance) FROM pgbench_accounts)
                  = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)",
        )?;
        ensure!(sums == "t|t", "{database}: {sums}");
    }
    Ok(())
}

/// Starts a swap and kills it when `moment` has come.
fn kill_at(stage: &Stage, moment: impl Fn() -> Result<bool>) -> Result<()> {
    let mut run = stage.start_swap(&stage.vault.cli)?;
    let deadline = Instant::now() + Duration::from_mins(1);
    while !moment()? {
        ensure!(
            !run.has_ended()?,
            "it ended before its moment: {:?}",
            run.wait()?
        );
        ensure!(Instant::now() < deadline, "the moment did not come");
    }
    run.signal(Signal::SIGKILL)?;
    let run = run.wait()?;
    ensure!(run.signal == Some(9), "{run:?}");
    stage.wait_until_free()
}

fn sessions_in(stage: &Stage, database: &str) -> Result<String> {
    let literal = quote_literal(database);
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname LIKE {literal}");
    stage.cluster.query("postgres", &sql)
}

fn count_databases(stage: &Stage, pattern: &str) -> Result<usize> {
    let literal = quote_literal(pattern);
    let sql = format!("SELECT count(*) FROM pg_database WHERE datname LIKE {literal}");
    Ok(stage.cluster.query("postgres", &sql)?.parse()?)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_run_that_is_killed_leaves_the_old_one_and_is_made_good() -> Result<()> {
    let stage = Stage::new(17)?;
    let before = stage.databases()?;
    let newcomer = "%\\_\\_new\\_%";
    let moments: [(&str, &dyn Fn() -> Result<bool>); 3] = [
        ("made", &|| Ok(count_databases(&stage, newcomer)? == 1)),
        ("loading", &|| Ok(sessions_in(&stage, newcomer)? != "0")),
        ("loaded", &|| {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY%TO STDOUT%'
                       AND datname LIKE '%\\_\\_new\\_%'";
            Ok(stage.cluster.query("postgres", sql)? != "0")
        }),
    ];
    for (name, moment) in moments {
        let killed = kill_at(&stage, moment);
        killed.with_context(|| name.to_owned())?;
        ensure!(stage.state()? == "lost lost", "{name}: {}", stage.state()?);
        ensure!(count_databases(&stage, newcomer)? == 1, "{name}");
    }
    // The next run clears away what they left: each of them had cleared away the one before.
    let run = stage.swap()?.exits(0)?;
    ensure!(
        run.stderr
            .contains("which an interrupted run had left, is removed"),
        "{}",
        run.stderr
    );
    let view = run.json()?;
    ensure!(stage.state()? == "saved saved" && count_databases(&stage, newcomer)? == 0);
    stage.undo(text(&view, "run_id")?)?.exits(0)?;
    stage.cluster.drop_db(&format!("{LIVE}__before_{}", {
        let sql = "SELECT substr(datname, position('__before_' in datname) + 9)
                   FROM pg_database WHERE datname LIKE '%\\_\\_before\\_%'";
        stage.cluster.query("postgres", sql)?
    }))?;
    stage.assert_untouched(&before)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_run_that_is_killed_while_it_waits_for_sessions_leaves_the_old_one_open() -> Result<()> {
    let stage = Stage::new(17)?;
    let properties = stage.properties(LIVE)?;
    // A session that cannot end: the rename waits for it.
    let mut command = stage.cluster.tool("psql", LIVE);
    let mut stuck = command
        .args(["-X", "-c", "SELECT pg_sleep(600)"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let pid = "SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'";
    let mut backend = String::new();
    while backend.is_empty() {
        backend = stage.cluster.query("postgres", pid)?;
    }
    let backend = Pid::from_raw(backend.parse()?);
    kill(backend, Signal::SIGSTOP)?;
    let renaming = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'ALTER DATABASE%RENAME%'
                    AND state = 'active'";
    let killed = kill_at(&stage, || {
        Ok(stage.cluster.query("postgres", renaming)? == "1")
    });
    kill(backend, Signal::SIGCONT)?;
    killed?;
    stuck.wait()?;
    ensure!(stage.state()? == "lost lost", "{}", stage.state()?);
    ensure!(
        stage.properties(LIVE)? == properties,
        "{}",
        stage.properties(LIVE)?
    );
    stage.swap()?.exits(0)?;
    ensure!(stage.state()? == "saved saved");
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_run_that_is_killed_after_the_exchange_is_finished_by_the_next() -> Result<()> {
    let stage = Stage::new(17)?;
    let view = stage.swap()?.exits(0)?.json()?;
    let (run, kept_as) = (text(&view, "run_id")?, text(&view, "kept_as")?);
    // What the server has when the run is killed right after its commit: the note without the
    // record. That moment is too short to be met.
    let comment = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = ";
    let comment = format!("{comment}{}", quote_literal(kept_as));
    let told = stage.cluster.query("postgres", &comment)?;
    ensure!(told.contains("\"recorded\":true"), "{told}");
    let untold = told.replace("\"recorded\":true", "\"recorded\":false");
    let name = quote_identifier(kept_as);
    let sql = format!("COMMENT ON DATABASE {name} IS {}", quote_literal(&untold));
    stage.cluster.psql("postgres", &sql)?;
    let records = stage.vault.cli.local_root().join("_runs");
    std::fs::remove_dir_all(&records)?;
    stage
        .cluster
        .psql(LIVE, "UPDATE a SET state = 'written since'")?;
    let databases = stage.databases()?;

    let again = stage.swap()?.exits(0)?;
    ensure!(again.stderr.contains(run), "{}", again.stderr);
    let again = again.json()?;
    ensure!(
        again["run_id"] == run && again["kept_as"] == kept_as,
        "{again}"
    );
    ensure!(
        stage.databases()? == databases,
        "something was exchanged again"
    );
    ensure!(
        stage.state()? == "written since saved",
        "{}",
        stage.state()?
    );
    ensure!(
        stage
            .cluster
            .query("postgres", &comment)?
            .contains("\"recorded\":true")
    );
    let runs = stage
        .vault
        .cli
        .run(["runs", "--from", &stage.vault.url, "--json"])?;
    let runs = runs.exits(0)?.json()?;
    ensure!(
        runs[0]["id"] == run && runs[0]["result"] == "warnings",
        "{runs}"
    );

    // And from then on it is history.
    let third = stage.swap()?.exits(0)?.json()?;
    ensure!(third["run_id"] != run, "{third}");
    ensure!(stage.state()? == "saved saved");
    stage.undo(run)?.exits(0)?;
    ensure!(stage.state()? == "lost lost", "{}", stage.state()?);
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn one_name_is_replaced_by_one_run_at_a_time() -> Result<()> {
    let stage = Stage::new(17)?;
    let before = stage.databases()?;
    let mut first = stage.start_swap(&stage.vault.cli)?;
    first.signal(Signal::SIGCONT)?;
    let deadline = Instant::now() + Duration::from_mins(1);
    while count_databases(&stage, "%\\_\\_new\\_%")? == 0 {
        ensure!(
            !first.has_ended()? && Instant::now() < deadline,
            "it does not begin"
        );
    }
    first.signal(Signal::SIGSTOP)?;
    let second = stage.swap()?.exits(5)?;
    ensure!(
        second.text().contains("another run is replacing database"),
        "{}",
        second.text()
    );
    first.signal(Signal::SIGCONT)?;
    first.signal(Signal::SIGTERM)?;
    let first = first.wait()?;
    ensure!(first.code == Some(143), "{first:?}");
    stage.assert_untouched(&before)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn nothing_is_replaced_that_nobody_confirmed_or_nobody_has() -> Result<()> {
    let stage = Stage::new(17)?;
    let before = stage.databases()?;
    let run = stage
        .vault
        .cli
        .run(stage.arguments(&["--swap"]))?
        .exits(12)?;
    ensure!(run.text().contains("nobody confirmed it"), "{}", run.text());
    ensure!(
        run.stderr.contains("cluster ") && run.stderr.contains("0 sessions"),
        "{}",
        run.stderr
    );
    let mut arguments = stage.arguments(&["--swap", "--yes"]);
    let target = arguments
        .iter()
        .position(|word| *word == LIVE)
        .context("a target")?;
    arguments[target] = "no such";
    let run = stage.vault.cli.run(arguments.clone())?.exits(4)?;
    ensure!(run.text().contains("no such"), "{}", run.text());
    arguments[target] = "postgres";
    let run = stage.vault.cli.run(arguments.clone())?.exits(12)?;
    ensure!(run.text().contains("connects to"), "{}", run.text());
    arguments[target] = "template1";
    stage.vault.cli.run(arguments)?.exits(12)?;
    for more in [
        &["--no-compare"][..],
        &["--schema-only"],
        &["--table", "a"],
        &["--replace-archive"],
    ] {
        let arguments = stage.arguments(&[&["--swap", "--yes"], more].concat());
        stage.vault.cli.run(arguments)?.exits(2)?;
    }
    let unknown = stage.undo("20200101T000000Z-00000000")?.exits(4)?;
    ensure!(unknown.text().contains("set aside"), "{}", unknown.text());
    stage.assert_untouched(&before)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn what_would_fail_at_the_end_is_refused_before_the_work() -> Result<()> {
    let options = ClusterOptions::default().set("max_prepared_transactions", "2");
    let stage = Stage::with(17, &options)?;
    stage.cluster.psql(
        "postgres",
        "CREATE ROLE restorer LOGIN CREATEDB; GRANT pg_read_all_data TO restorer",
    )?;
    let before = stage.databases()?;
    let cli = Cli::new(&stage.cluster)?.with_env("PGUSER", "restorer");
    let swap = || stage.start_swap(&cli)?.wait();
    let refused = |code: i32, words: &str| -> Result<()> {
        let run = swap()?.exits(code)?;
        ensure!(run.text().contains(words), "{}", run.text());
        stage.assert_untouched(&before)
    };
    refused(7, "may not rename")?;
    stage.cluster.psql("postgres", "GRANT app TO restorer")?;
    // Settings of another role take a superuser.
    refused(7, "cannot carry over")?;
    let name = quote_identifier(LIVE);
    let reset = format!("ALTER ROLE report IN DATABASE {name} RESET ALL");
    stage.cluster.psql("postgres", &reset)?;
    // A superuser is connected, whom this login may not send away.
    let mut command = stage.cluster.tool("psql", LIVE);
    let mut superuser = command
        .args(["-X", "-c", "SELECT pg_sleep(600)"])
        .env("PGAPPNAME", "the boss")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    while sessions_in(&stage, LIVE)? == "0" {}
    let checked = refused(7, "the boss");
    superuser.kill()?;
    superuser.wait()?;
    checked?;
    while sessions_in(&stage, LIVE)? != "0" {
        stage.cluster.psql(
            "postgres",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'the boss'",
        )?;
    }
    stage.cluster.psql(
        LIVE,
        "BEGIN; INSERT INTO b VALUES ('x'); PREPARE TRANSACTION 'two phases'",
    )?;
    refused(7, "two phases")?;
    stage.cluster.psql(LIVE, "ROLLBACK PREPARED 'two phases'")?;

    // And without all that, this login can.
    let properties = stage.properties(LIVE)?;
    let run = swap()?.exits(0)?.json()?;
    ensure!(
        run["swapped"] == true && stage.state()? == "saved saved",
        "{run}"
    );
    ensure!(
        stage.properties(LIVE)? == properties,
        "{}",
        stage.properties(LIVE)?
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn an_archive_is_replaced_and_nothing_else_is() -> Result<()> {
    let stage = Stage::new(17)?;
    let before = stage.databases()?;
    let arguments = stage.arguments(&["--replace-archive"]);
    let run = stage.vault.cli.run(arguments.clone())?.exits(12)?;
    ensure!(
        run.text().contains("was not made by a restore"),
        "{}",
        run.text()
    );
    stage.assert_untouched(&before)?;

    let archive = |expected: &str| -> Result<Value> {
        let mut arguments = arguments.clone();
        let target = arguments
            .iter()
            .position(|word| *word == LIVE)
            .context("a target")?;
        arguments[target] = "archive";
        let view = stage.vault.cli.run(arguments)?.exits(0)?.json()?;
        let found = stage.cluster.query("archive", "SELECT state FROM a")?;
        ensure!(found == expected, "{found}");
        Ok(view)
    };
    let first = archive("saved")?;
    ensure!(
        first["swapped"] == false && first["kept_as"].is_null(),
        "{first}"
    );
    let mut kept = String::new();
    for round in 0..3 {
        stage
            .cluster
            .psql("archive", "UPDATE a SET state = 'played with'")?;
        let second = archive("saved")?;
        ensure!(second["swapped"] == true, "{second}");
        // What was replaced before is gone, what was replaced now is not.
        ensure!(
            count_databases(&stage, "archive\\_\\_%")? == 1,
            "round {round}"
        );
        text(&second, "kept_as")?.clone_into(&mut kept);
        let found = stage.cluster.query(&kept, "SELECT state FROM a")?;
        ensure!(found == "played with", "{found}");
    }
    // A database that clients use since a swap is none that a restore may throw away.
    stage.swap()?.exits(0)?;
    stage.vault.cli.run(arguments)?.exits(12)?;
    ensure!(stage.state()? == "saved saved" && count_databases(&stage, &kept)? == 1);
    Ok(())
}
