//! A live database, a backup of it, and what is done to both.

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::{Cli, Run, Running};
use backup_e2e::pg::{Cluster, ClusterOptions, quote_identifier, quote_literal};
use backup_e2e::vault::{Vault, id_of};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a session that was ended, or its lock, may take to go.
pub(super) const GONE_LIMIT: Duration = Duration::from_mins(1);

/// A live database, a backup of an earlier state of it, and all that belongs to its name.
pub(super) struct Stage {
    pub(super) cluster: Cluster,
    pub(super) vault: Vault,
    pub(super) backup: String,
}

/// A name that has to be quoted everywhere.
pub(super) const LIVE: &str = "live \"shop\"; --";

impl Stage {
    pub(super) fn new(major: u16) -> Result<Self> {
        Self::with(major, &ClusterOptions::default())
    }

    pub(super) fn with(major: u16, options: &ClusterOptions) -> Result<Self> {
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

    pub(super) fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
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

    pub(super) fn swap(&self) -> Result<Run> {
        self.vault.cli.run(self.arguments(&["--swap", "--yes"]))
    }

    pub(super) fn start_swap(&self, cli: &Cli) -> Result<Running> {
        cli.start(self.arguments(&["--swap", "--yes"]))
    }

    pub(super) fn undo(&self, run: &str) -> Result<Run> {
        let from = ["--from", &self.vault.url];
        self.vault
            .cli
            .run(["undo", run, "--json"].into_iter().chain(from))
    }

    pub(super) fn state(&self) -> Result<String> {
        let sql = "SELECT (SELECT state FROM a) || ' ' || (SELECT state FROM b)";
        self.cluster.query(LIVE, sql)
    }

    /// All databases of ours, with their ids.
    pub(super) fn databases(&self) -> Result<String> {
        let sql = "SELECT oid, datname, datallowconn FROM pg_database ORDER BY oid";
        self.cluster.query("postgres", sql)
    }

    /// Everything that belongs to a database besides its content.
    pub(super) fn properties(&self, database: &str) -> Result<String> {
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
    pub(super) fn assert_untouched(&self, before: &str) -> Result<()> {
        let after = self.databases()?;
        ensure!(
            after == before,
            "databases before:\n{before}\nafter:\n{after}"
        );
        ensure!(self.state()? == "lost lost", "{}", self.state()?);
        Ok(())
    }

    /// What the records tell, newest first.
    pub(super) fn runs(&self) -> Result<Value> {
        let arguments = ["runs", "--from", &self.vault.url, "--json"];
        self.vault.cli.run(arguments)?.exits(0)?.json()
    }

    /// Who changed what, the oldest first: action, outcome and run.
    pub(super) fn audit(&self) -> Result<Vec<(String, String, String)>> {
        let url = &self.vault.url;
        let listed = self
            .vault
            .cli
            .run(["runs", "--audit", "--json", "--from", url])?;
        let listed = listed.exits(0)?.json()?;
        let records = listed.as_array().into_iter().flatten().rev();
        let field = |record: &Value, name| text(record, name).map(str::to_owned);
        records
            .map(|record| {
                let (action, outcome) = (field(record, "action")?, field(record, "outcome")?);
                Ok((action, outcome, field(record, "run_id")?))
            })
            .collect()
    }

    /// Waits until nothing of a killed run holds the name.
    pub(super) fn wait_until_free(&self) -> Result<()> {
        let deadline = Instant::now() + GONE_LIMIT;
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'backup-manager'";
        while self.cluster.query("postgres", sql)? != "0" {
            ensure!(Instant::now() < deadline, "sessions of the killed run stay");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

pub(super) fn text<'a>(view: &'a Value, field: &str) -> Result<&'a str> {
    view[field]
        .as_str()
        .with_context(|| format!("{field} in {view}"))
}

/// Reads both tables over new connections for as long as `going`; what was seen, in order, and
/// which errors. Whoever gets as far as the tables and finds none has seen a half state.
pub(super) fn watch(stage: &Stage, going: &AtomicBool) -> (Vec<String>, Vec<String>) {
    watch_aloud(stage, going, &Mutex::default())
}

/// The same, who tells others all the while what was seen last.
pub(super) fn watch_aloud(
    stage: &Stage,
    going: &AtomicBool,
    last: &Mutex<String>,
) -> (Vec<String>, Vec<String>) {
    let (mut seen, mut errors) = (Vec::new(), Vec::new());
    while going.load(Ordering::Relaxed) {
        match stage.state().map_err(|error| format!("{error:#}")) {
            Err(error) if !error.contains("relation") => errors.push(error),
            Ok(found) | Err(found) => {
                last.lock().expect("no panic").clone_from(&found);
                seen.push(found);
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
    seen.dedup();
    (seen, errors)
}

/// What a client is told in the middle of an exchange, by the server or because it is gone; besides
/// that there is no such database.
const COME_BACK: [&str; 5] = [
    "terminating connection",
    "is not currently accepting connections",
    "server closed the connection",
    "connection to server was lost",
    "Connection reset by peer",
];

/// These errors send a client away, and tell nothing of what is in the database.
pub(super) fn ensure_come_back(errors: &[String]) -> Result<()> {
    for error in errors {
        let is_renamed = error.contains("database \"") && error.contains("does not exist");
        let is_told = COME_BACK.iter().any(|text| error.contains(text));
        ensure!(is_renamed || is_told, "a client was told: {error}");
    }
    Ok(())
}

/// Starts a swap and kills it when `moment` has come.
pub(super) fn kill_at(stage: &Stage, moment: impl Fn() -> Result<bool>) -> Result<()> {
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

pub(super) fn sessions_in(stage: &Stage, database: &str) -> Result<String> {
    let literal = quote_literal(database);
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname LIKE {literal}");
    stage.cluster.query("postgres", &sql)
}

pub(super) fn count_databases(stage: &Stage, pattern: &str) -> Result<usize> {
    let literal = quote_literal(pattern);
    let sql = format!("SELECT count(*) FROM pg_database WHERE datname LIKE {literal}");
    Ok(stage.cluster.query("postgres", &sql)?.parse()?)
}
