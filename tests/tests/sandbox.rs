//! A sandbox: what its visitor can see, and everything he cannot do.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use backup_compress::Algorithm;
use backup_core::catalog::ListRequest;
use backup_core::engine::{Engine, SandboxOutcome, SandboxRequest};
use backup_core::error::{Error, ErrorKind};
use backup_core::manifest::Manifest;
use backup_core::restorer::Selection;
use backup_core::sandbox::{SandboxLimits, SandboxServer as _, is_sandbox_name};
use backup_e2e::cli::{Cli, Running};
use backup_e2e::pg::{Cluster, ClusterOptions};
use backup_pg_process::{
    ConnectionConfig, PgRestorer, PgRestorerConfig, PgSandboxes, SslMode, ToolLocator,
};
use backup_store::{StoreConfig, StoreOptions};
use backup_testing::FixedClock;
use rstest::rstest;
use tokio_util::sync::CancellationToken;

const ADMIN: &str = "the admin's own c4n4ry77a2";
const RESTORER: &str = "weak-c4n4ry5d1e";

/// With rows that a policy hides, a view, a large object, and names that need quotes.
const SHOP: &str = r#"
CREATE ROLE shop_owner;
CREATE SCHEMA "odd ""one""";
CREATE TABLE "odd ""one"""."t%I" (a int PRIMARY KEY, b text);
INSERT INTO "odd ""one"""."t%I" SELECT g, 'row ' || g FROM generate_series(1, 50) g;
CREATE TABLE orders (id int PRIMARY KEY, customer text);
INSERT INTO orders VALUES (1, 'anna'), (2, 'boris');
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE orders FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON orders USING (customer = current_user);
ALTER TABLE orders OWNER TO shop_owner;
CREATE VIEW all_orders AS SELECT * FROM orders;
CREATE FUNCTION touch() RETURNS void LANGUAGE sql AS 'INSERT INTO orders VALUES (3, ''x'')';
SELECT lo_from_bytea(4711, 'large');
"#;

struct Stage {
    cluster: Cluster,
    cli: Cli,
    engine: Engine,
    clock: FixedClock,
    backup: Manifest,
}

impl Stage {
    async fn new(major: u16) -> Result<Self> {
        let cluster = Cluster::start(major, &ClusterOptions::default().scram(ADMIN))?;
        cluster.create_db("shop")?;
        cluster.psql("shop", SHOP)?;
        let login = format!("CREATE ROLE restorer LOGIN CREATEDB PASSWORD '{RESTORER}'");
        cluster.psql("postgres", &login)?;
        let cli = Cli::new(&cluster)?.with_env("PGPASSWORD", ADMIN);
        let url = cli.local_store();
        let backup = ["backup", "-d", "shop", "--to", &url, "--no-encryption"];
        cli.run(backup)?.exits(0)?;
        let store = backup_store::open(&StoreConfig::parse(&url, &StoreOptions::default())?)?;
        let clock = FixedClock::new(SystemTime::now().into());
        let mut engine = Engine::new(store, Arc::new(clock.clone()));
        for algorithm in Algorithm::ALL {
            engine = engine.with_compressor(algorithm.compressor(0));
        }
        let all = ListRequest::default();
        let mut listed = engine.catalog().list(&all).await?.backups;
        let backup = listed.pop().context("a backup")?;
        Ok(Self {
            cluster,
            cli,
            engine,
            clock,
            backup,
        })
    }

    fn login(&self, user: &str, password: &str) -> ConnectionConfig {
        ConnectionConfig {
            port: self.cluster.port(),
            password: Some(password.to_owned().into()),
            ssl_mode: SslMode::Disable,
            ..ConnectionConfig::new(self.cluster.host(), user)
        }
    }

    fn server(&self, restorer: (&str, &str), production: bool) -> PgSandboxes {
        let tools = ToolLocator::only_in([self.cluster.bin_dir().to_owned()]);
        let config = PgRestorerConfig::new(self.login(restorer.0, restorer.1), tools);
        let admin = Some(self.login("postgres", ADMIN));
        PgSandboxes::new("sandboxes", PgRestorer::new(config), admin, production)
    }

    async fn make(&self, server: &PgSandboxes, person: &str) -> Result<SandboxOutcome, Error> {
        let request = SandboxRequest {
            person: person.to_owned(),
            selection: Selection::default(),
            jobs: 2,
            limits: SandboxLimits {
                per_person: 2,
                total: 3,
                max_bytes: 1 << 30,
                ttl: Duration::from_hours(24),
            },
        };
        let never = CancellationToken::new();
        self.engine
            .make_sandbox(server, self.backup.clone(), &request, &never)
            .await
    }

    /// A session that is there when this returns.
    async fn sleep_in(&self, database: &str) -> Result<std::process::Child> {
        let mut session = self.cluster.tool("psql", database);
        session.args(["-XAtw", "-c", "SELECT pg_sleep(60)"]);
        let session = session.spawn()?;
        let there = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'");
        while self.cluster.query("postgres", &there)?.trim() == "0" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(session)
    }

    /// What the visitor gets for a statement.
    fn visit(&self, outcome: &SandboxOutcome, database: &str, sql: &str) -> Result<String> {
        let access = &outcome.access;
        let mut command = self.cluster.tool("psql", database);
        command
            .args(["-XAtw", "-v", "ON_ERROR_STOP=1", "-c", sql])
            .env("PGUSER", &access.database)
            .env("PGPASSWORD", &access.password);
        let run = Running::start(command)?.wait()?;
        ensure!(run.code == Some(0), "{}", run.stderr);
        let text = String::from_utf8_lossy(&run.stdout).trim().to_owned();
        Ok(text)
    }
}

#[rstest]
#[tokio::test]
#[ignore = "needs servers: run ./scripts/test"]
async fn a_visitor_reads_everything_there_and_nothing_else(
    #[values(14, 18)] major: u16,
) -> Result<()> {
    let stage = Stage::new(major).await?;
    let server = stage.server(("restorer", RESTORER), false);
    let made = stage.make(&server, "anna").await?;
    let name = made.access.database.clone();
    ensure!(is_sandbox_name(&name), "{name}");
    let compare = made.restore.compare.as_ref().context("a comparison")?;
    ensure!(compare.is_equal(), "{compare:?}");
    for (sql, expected) in [
        (r#"SELECT count(*) FROM "odd ""one"""."t%I""#, "50"),
        // Not only those of a policy, of which nobody would know.
        ("SELECT count(*) FROM orders", "2"),
        ("SELECT count(*) FROM all_orders", "2"),
        ("SELECT convert_from(lo_get(4711), 'UTF8')", "large"),
        ("SELECT current_user = current_database()", "t"),
    ] {
        assert_eq!(stage.visit(&made, &name, sql)?, expected, "{sql}");
    }
    for sql in [
        "BEGIN READ WRITE; DELETE FROM orders",
        "BEGIN READ WRITE; SELECT touch()",
        "BEGIN READ WRITE; CREATE TABLE public.mine (a int)",
        "BEGIN READ WRITE; CREATE TEMP TABLE mine (a int)",
        "CREATE DATABASE mine",
        "DROP DATABASE shop",
        "SET ROLE restorer",
        "SELECT pg_read_file('/etc/passwd')",
        "COPY orders TO PROGRAM 'true'",
        "SELECT rolpassword FROM pg_authid",
    ] {
        // Everybody may there, and the schema is not the restoring login's.
        if major < 15 && sql.contains("public.mine") {
            continue;
        }
        let writes = sql.starts_with("BEGIN READ WRITE");
        let done = stage.visit(&made, &name, sql);
        let error = done.err().with_context(|| format!("{sql} was allowed"))?;
        let text = error.to_string();
        ensure!(!(writes && text.contains("read-only")), "{sql}: {text}");
        ensure!(
            [
                "permission denied",
                "must be owner",
                "must be superuser",
                "read-only transaction"
            ]
            .iter()
            .any(|words| text.contains(words)),
            "{text}"
        );
    }
    let done = stage.visit(&made, &name, "DELETE FROM orders");
    let text = done.err().context("deleted")?.to_string();
    ensure!(text.contains("read-only transaction"), "{text}");
    // The live database has no word for him.
    let live = stage.visit(&made, "shop", "SELECT count(*) FROM orders");
    ensure!(live.is_err(), "he reads the live database");
    // The password is nowhere in the server's log.
    let log = std::fs::read_to_string(stage.cluster.log())?;
    ensure!(
        !log.contains(&made.access.password),
        "a password in the log"
    );

    // Nobody else gets in, not even with a password of his own.
    let other = stage.make(&server, "boris").await?;
    let error = stage
        .visit(&other, &name, "SELECT 1")
        .err()
        .context("he got in")?;
    ensure!(
        error.to_string().contains("permission denied for database"),
        "{error}"
    );

    let there = server.list().await?;
    assert_eq!(there.len(), 2);
    let own = there
        .iter()
        .find(|s| s.database == name)
        .context("listed")?;
    assert_eq!((own.tenancy.person.as_str(), own.is_open), ("anna", true));
    assert_eq!(own.backup, stage.backup.id);
    ensure!(own.bytes.is_some_and(|bytes| bytes > 1_000_000), "{own:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs servers: run ./scripts/test"]
async fn sandboxes_end_and_nothing_else_is_ever_dropped() -> Result<()> {
    let stage = Stage::new(17).await?;
    let server = stage.server(("restorer", RESTORER), false);
    let made = stage.make(&server, "anna").await?;
    let name = made.access.database.clone();
    // Not ours: another owner, no comment, another name.
    stage.cluster.create_db("restore_shop_20260205_0000beef")?;
    for database in [
        "shop",
        "postgres",
        "restore_shop_20260205_0000beef",
        "x\"; DROP",
    ] {
        let error = server.remove(database).await.err().context("removed")?;
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    let comment = stage.cluster.query(
        "postgres",
        &format!(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{name}'"
        ),
    )?;
    let forged = format!(
        "COMMENT ON DATABASE shop IS {}",
        backup_e2e::pg::quote_literal(comment.trim())
    );
    stage.cluster.psql("postgres", &forged)?;
    assert_eq!(server.list().await?.len(), 1);

    assert_eq!(stage.engine.sweep_sandboxes(&server).await?.len(), 0);
    // What was left by somebody who died between dropping a database and its login.
    for (login, until) in [
        ("gone_20260205_0000beef", "2026-02-06"),
        ("stays", "2026-02-06"),
    ] {
        let sql = format!(
            "CREATE ROLE restore_{login} LOGIN NOINHERIT CONNECTION LIMIT 5 VALID UNTIL '{until}'"
        );
        stage.cluster.psql("postgres", &sql)?;
    }
    stage.clock.advance(Duration::from_hours(25));
    // Somebody is connected, which keeps nothing.
    let mut session = stage.sleep_in(&name).await?;
    let swept = stage.engine.sweep_sandboxes(&server).await?;
    ensure!(
        matches!(swept.as_slice(), [one] if one.left.is_none()),
        "{swept:?}"
    );
    session.wait()?;
    ensure!(!stage.cluster.has_db(&name)?, "it is still there");
    let roles = "SELECT string_agg(rolname, ' ') FROM pg_roles WHERE rolname LIKE 'restore\\_%'";
    let roles = stage.cluster.query("postgres", roles)?;
    assert_eq!(roles.trim(), "restore_stays");
    ensure!(
        stage.cluster.has_db("restore_shop_20260205_0000beef")?,
        "dropped"
    );
    assert_eq!(
        stage
            .cluster
            .query("shop", "SELECT count(*) FROM orders")?
            .trim(),
        "2"
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs servers: run ./scripts/test"]
async fn limits_hold_and_a_server_that_is_not_for_it_is_refused() -> Result<()> {
    let stage = Stage::new(17).await?;
    let server = stage.server(("restorer", RESTORER), false);
    // Of two at once, one is made.
    let (first, second) = tokio::join!(stage.make(&server, "anna"), stage.make(&server, "anna"));
    let failed = [first, second]
        .into_iter()
        .filter_map(Result::err)
        .collect::<Vec<_>>();
    let [error] = failed.as_slice() else {
        anyhow::bail!("{failed:?}");
    };
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    stage.make(&server, "anna").await?;
    let words = |error: Error| (error.kind(), backup_core::error::chain(&error));
    let (kind, text) = words(stage.make(&server, "anna").await.err().context("made")?);
    assert_eq!(kind, ErrorKind::Refused);
    ensure!(text.contains("2 sandboxes are there already"), "{text}");
    // Of several people at once, only those for whom there is room.
    let (boris, clara, dora) = tokio::join!(
        stage.make(&server, "boris"),
        stage.make(&server, "clara"),
        stage.make(&server, "dora")
    );
    let failed: Vec<_> = [boris, clara, dora]
        .into_iter()
        .filter_map(Result::err)
        .collect();
    assert_eq!(failed.len(), 2, "{failed:?}");
    for error in failed {
        let (_, text) = words(error);
        ensure!(text.contains("3 sandboxes are there already"), "{text}");
    }
    let there = server.list().await?;
    assert_eq!(there.len(), 3);
    // While it is filled too, nobody but its owner gets in.
    let open = "SELECT count(*) FROM pg_database d, aclexplode(d.datacl) a \
                WHERE d.datname LIKE 'restore\\_%' AND a.grantee = 0";
    assert_eq!(stage.cluster.query("postgres", open)?.trim(), "0");

    let production = stage.server(("restorer", RESTORER), true);
    let (kind, text) = words(
        stage
            .make(&production, "dora")
            .await
            .err()
            .context("made")?,
    );
    ensure!(
        kind == ErrorKind::Refused && text.contains("production"),
        "{text}"
    );
    let powerful = stage.server(("postgres", ADMIN), false);
    let (kind, text) = words(stage.make(&powerful, "dora").await.err().context("made")?);
    ensure!(
        kind == ErrorKind::Refused && text.contains("superuser"),
        "{text}"
    );
    drop(stage.cli);
    Ok(())
}
