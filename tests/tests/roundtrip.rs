//! From a database through a backup into another database, and nothing is lost on the way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use backup_e2e::cli::Running;
use backup_e2e::pg::{Cluster, ClusterOptions};
use backup_e2e::sample;
use backup_e2e::vault::{Vault, id_of};
use rstest::rstest;
use serde_json::{Value, json};

/// Counts that `backup --json` reports, by SQL. Members of extensions are created by them; an index
/// that a constraint makes comes with it; a partition has the triggers of its parent.
const COUNTS: &str = "
WITH relation AS (
  SELECT c.* FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                    AND d.objid = c.oid AND d.deptype = 'e'))
SELECT json_build_object(
  'tables', (SELECT count(*) FROM relation WHERE relkind = 'r'),
  'rows', (SELECT coalesce(sum((xpath('/row/n/text()', query_to_xml(
             format('SELECT count(*) AS n FROM ONLY %s', oid::regclass), false, true, ''
           )))[1]::text::bigint), 0) FROM relation WHERE relkind = 'r'),
  'indexes', (SELECT count(*) FROM relation WHERE relkind IN ('i', 'I') AND NOT EXISTS (
               SELECT FROM pg_constraint k
               WHERE k.conindid = relation.oid AND k.contype IN ('p', 'u', 'x'))),
  'triggers', (SELECT count(*) FROM pg_trigger t LEFT JOIN pg_trigger p ON p.oid = t.tgparentid
               WHERE CASE WHEN p.oid IS NULL THEN NOT t.tgisinternal
                          ELSE t.tgenabled <> p.tgenabled END),
  'sequences', (SELECT count(*) FROM relation WHERE relkind = 'S'))";

/// What belongs to the database itself, which no schema dump shows.
const PROPERTIES: &str = "
SELECT json_build_object(
  'owner', pg_get_userbyid(datdba), 'encoding', pg_encoding_to_char(encoding),
  'collate', datcollate, 'ctype', datctype, 'limit', datconnlimit,
  'comment', shobj_description(d.oid, 'pg_database'),
  'grants', (SELECT json_agg(g::text ORDER BY g::text) FROM unnest(datacl) AS g),
  'settings', (SELECT json_agg(json_build_array(setrole::regrole, setconfig) ORDER BY setrole)
               FROM pg_db_role_setting WHERE setdatabase = d.oid))
FROM pg_database d WHERE datname = current_database()";

fn counts(cluster: &Cluster, database: &str) -> Result<Value> {
    Ok(serde_json::from_str(&cluster.query(database, COUNTS)?)?)
}

/// Asserts that `restored` is `original` again, by every means that shares no code with the
/// program.
fn assert_same(cluster: &Cluster, original: &str, restored: &str) -> Result<()> {
    assert_eq!(cluster.contents(original)?, cluster.contents(restored)?);
    assert_eq!(
        cluster.schema_dump(original)?,
        cluster.schema_dump(restored)?
    );
    let properties = |database: &str| -> Result<Value> {
        Ok(serde_json::from_str(&cluster.query(database, PROPERTIES)?)?)
    };
    let mut found = properties(restored)?;
    // The mark says which databases the program may drop; the source's comment comes after it.
    let comment = found["comment"].as_str().context("a mark")?;
    let (mark, rest) = comment.split_once('\n').unwrap_or((comment, ""));
    assert!(
        mark.starts_with("made by backup-manager: restore of "),
        "{comment}"
    );
    found["comment"] = if rest.is_empty() {
        Value::Null
    } else {
        json!(rest)
    };
    assert_eq!(properties(original)?, found);
    Ok(())
}

/// Asserts that the program's own comparison found all `tables` equal.
fn assert_compared(restore: &Value, tables: &Value) {
    let compare = &restore["compare"];
    assert_eq!(
        (&compare["tables"], &compare["equal"]),
        (tables, tables),
        "{restore}"
    );
    let definitions = &compare["definitions"];
    assert_eq!(
        definitions["equal"], definitions["expected"],
        "{definitions}"
    );
    assert!(definitions["expected"].as_u64() > Some(0), "{restore}");
    for empty in ["missing", "different", "unclear", "extra"] {
        assert_eq!(definitions[empty], json!([]), "{definitions}");
    }
    for empty in ["different", "missing", "not_comparable", "sequences_behind"] {
        assert_eq!(compare[empty], json!([]), "{restore}");
    }
}

fn everything(cluster: &Cluster) -> Result<String> {
    let database = cluster.fresh_db("everything")?;
    cluster.psql(&database, &sample::everything_sql(cluster.major()))?;
    Ok(database)
}

#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn every_kind_of_object_survives(#[values(14, 15, 16, 17, 18)] major: u16) -> Result<()> {
    let cluster = Cluster::shared(major)?;
    let vault = Vault::seaweedfs(cluster)?;
    let database = everything(cluster)?;
    let expected = counts(cluster, &database)?;
    assert!(expected["rows"].as_u64() > Some(8000), "{expected}");

    let backup = vault.back_up(&database, &["--jobs", "4"])?;
    for (what, number) in expected.as_object().context("counts")? {
        assert_eq!(&backup[what], number, "{what} of PostgreSQL {major}");
    }
    assert_eq!(backup["error"], Value::Null);
    let warnings = backup["warnings"].as_array().context("warnings")?;
    assert!(
        matches!(warnings.as_slice(), [one] if one.to_string().contains("foreign table")),
        "{warnings:?}"
    );
    let id = id_of(&backup)?;
    vault.verify(id)?;

    let target = format!("{database} restored");
    let restore = vault.restore(id, &target, &[])?;
    assert_same(cluster, &database, &target)?;
    assert_compared(&restore, &backup["tables"]);
    assert_eq!(restore["compare"]["rows"], backup["rows"]);
    assert_eq!(restore["compare"]["large_objects_equal"], true);
    Ok(())
}

/// Everything that may be done to the bytes, and the extension that says so.
#[rstest]
#[case("zstd:3", true, ".zst.age")]
#[case("gzip:6", true, ".gz.age")]
#[case("none", true, ".age")]
#[case("zstd:3", false, ".zst")]
#[case("none", false, "")]
#[ignore = "needs servers: run ./scripts/test"]
fn every_coding_survives(
    #[case] compression: &str,
    #[case] encrypted: bool,
    #[case] extension: &str,
) -> Result<()> {
    const CANARY: &[u8] = b"the canary sings";
    let cluster = Cluster::shared(17)?;
    let vault = Vault::local(cluster)?;
    let database = everything(cluster)?;
    cluster.psql(
        &database,
        "CREATE TABLE canary AS SELECT 'the canary sings' AS song",
    )?;
    let mut options = vec!["-Z", compression];
    options.extend((!encrypted).then_some("--no-encryption"));

    let backup = vault.back_up(&database, &options)?;
    let id = id_of(&backup)?;
    let expected = ["facts.json", "globals.sql", "data-rest.dump", "schema.dump"]
        .map(|name| format!("{name}{extension}"));
    let keys = vault.keys_stored()?;
    let mut visible = false;
    for name in &expected {
        let key = keys
            .iter()
            .find(|key| key.ends_with(&format!("{id}/{name}")));
        let bytes = vault.object(key.with_context(|| format!("{name} among {keys:?}"))?)?;
        visible |= bytes.windows(CANARY.len()).any(|window| window == CANARY);
        assert_eq!(
            bytes.starts_with(b"age-encryption.org/v1"),
            encrypted,
            "{name}"
        );
    }
    assert_eq!(visible, extension.is_empty());
    assert_eq!(keys.iter().any(|key| key.ends_with("key.age")), encrypted);
    assert_eq!(vault.cat(id, "public.canary")?, [CANARY, b"\n"].concat());

    vault.verify(id)?;
    let target = format!("{database}_restored");
    let restore = vault.restore(id, &target, &[])?;
    assert_compared(&restore, &backup["tables"]);
    assert_same(cluster, &database, &target)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn an_old_server_moves_to_the_newest() -> Result<()> {
    let (old, new) = (Cluster::shared(14)?, Cluster::shared(18)?);
    let vault = Vault::local(old)?;
    let database = everything(old)?;
    let backup = vault.back_up(&database, &[])?;
    let there = vault.beside(new)?;
    // Its roles are the cluster's business.
    new.psql("postgres", include_str!("../src/sample/roles.sql"))?;

    let moved = format!("{database} from 14");
    let restore = there.restore(id_of(&backup)?, &moved, &[])?;
    assert_compared(&restore, &backup["tables"]);
    assert_eq!(old.contents(&database)?, new.contents(&moved)?);
    assert_eq!(counts(old, &database)?, counts(new, &moved)?);
    // The same program for both, so that only the databases can differ; the texts of views do, and
    // since 15 the schema `public` is everybody's no more.
    let objects = |port: u16, database: &str| -> Result<Vec<String>> {
        let mut dump = new.tool("pg_dump", database);
        dump.arg("--schema-only").env("PGPORT", port.to_string());
        let dump = Running::start(dump)?.wait()?.exits(0)?.text();
        let titles = dump.lines().filter(|line| line.starts_with("-- Name: "));
        let own =
            titles.filter(|line| !line.contains(" public; Type: ") && !line.contains(": public;"));
        Ok(own.map(str::to_owned).collect())
    };
    assert_eq!(
        objects(old.port(), &database)?,
        objects(new.port(), &moved)?
    );

    let back = there.back_up(&moved, &[])?;
    let refused = vault
        .read(&["restore", id_of(&back)?, "--target-db", "too_old"])?
        .exits(7)?;
    assert!(
        refused
            .stderr
            .contains("cannot be restored into PostgreSQL 14"),
        "{}",
        refused.stderr
    );
    assert!(!old.has_db("too_old")?);
    Ok(())
}

/// Hashes of enum values depend on the database, so a restore spreads the rows anew; `pg_dump` loads
/// them through the parent for that reason. The second case is large enough for parts of their own.
#[rstest]
#[case(14, 2_000)]
#[case(18, 800_000)]
#[ignore = "needs servers: run ./scripts/test"]
fn rows_that_move_to_another_partition_are_no_difference(
    #[case] major: u16,
    #[case] rows: u32,
) -> Result<()> {
    let cluster = Cluster::shared(major)?;
    let vault = Vault::local(cluster)?;
    let database = cluster.fresh_db("moving")?;
    let labels: Vec<_> = (0..40).map(|number| format!("'label {number}'")).collect();
    let sql = format!(
        "CREATE TYPE label AS ENUM ({labels});
         CREATE TABLE seen (what text);
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN INSERT INTO public.seen VALUES (TG_TABLE_NAME); RETURN NEW; END $$;
         CREATE TABLE spread (label label, id int, note text) PARTITION BY HASH (label);
         CREATE TABLE spread_0 PARTITION OF spread FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE spread_1 PARTITION OF spread FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         INSERT INTO spread SELECT (enum_range(NULL::label))[1 + i % 40], i, repeat(md5(i::text), 5)
         FROM generate_series(1, {rows}) AS i;
         CREATE TRIGGER see AFTER INSERT ON spread FOR EACH ROW EXECUTE FUNCTION see();
         CREATE TRIGGER see_one BEFORE INSERT ON spread_1 FOR EACH ROW EXECUTE FUNCTION see();
         INSERT INTO spread VALUES ('label 1', 0, 'seen'), ('label 2', -1, 'seen');
         CREATE INDEX ON spread (id);
         ANALYZE spread;",
        labels = labels.join(", ")
    );
    cluster.psql(&database, &sql)?;
    let backup = vault.back_up(&database, &["--jobs", "4"])?;
    let parts = backup["parts"].as_array().context("parts")?;
    let data = parts.iter().filter(|part| part["kind"] == "data").count();
    // The larger of the two, at least; which rows it has is the server's choice.
    assert_eq!(data > 1, rows > 10_000, "{parts:?}");

    let target = format!("{database}_restored");
    let restore = vault.restore(id_of(&backup)?, &target, &[])?;
    assert_compared(&restore, &json!(3));
    let places = "SELECT DISTINCT label || ' in ' || tableoid::regclass FROM spread ORDER BY 1";
    let (before, after) = (
        cluster.query(&database, places)?,
        cluster.query(&target, places)?,
    );
    assert_ne!(before, after, "no row has moved, so this proves nothing");
    assert_same(cluster, &database, &target)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn one_table_in_pieces_is_one_table_again() -> Result<()> {
    let cluster = Cluster::shared(18)?;
    let vault = Vault::seaweedfs(cluster)?;
    let database = everything(cluster)?;
    cluster.psql(&database, &sample::bulk_sql("app", "huge", 400))?;
    // Long values lie elsewhere, and rows have gone.
    cluster.psql(
        &database,
        "INSERT INTO app.huge SELECT -i, now(), (SELECT string_agg(md5((i * j)::text), '')
           FROM generate_series(1, 4000) AS j) FROM generate_series(1, 20) AS i;
         DELETE FROM app.huge WHERE id % 1000 = 0;",
    )?;
    let rows = cluster.query(
        &database,
        "COPY (SELECT * FROM app.huge ORDER BY id) TO STDOUT",
    )?;

    let backup = vault.back_up(&database, &["--jobs", "2"])?;
    let id = id_of(&backup)?;
    let shown = vault.read(&["show", id, "--json"])?.exits(0)?.json()?;
    let parts = shown["parts"].as_array().context("parts")?;
    let large: Vec<_> = parts
        .iter()
        .filter(|part| part["raw_bytes"].as_u64() > Some(64 << 20))
        .collect();
    assert!(
        large.len() >= 2 && large.iter().all(|part| part["kind"] == "data"),
        "{parts:#?}"
    );
    let facts = shown["table_facts"].as_array().context("tables")?;
    let huge = facts
        .iter()
        .find(|table| table["table"] == "huge")
        .context("huge")?;
    assert_eq!(huge["rows"], rows.lines().count());
    assert_eq!(huge["bytes"], rows.len() + 1);

    let mut printed: Vec<String> = vault
        .read(&["cat", id, "--table", "app.huge"])?
        .exits(0)?
        .text()
        .lines()
        .map(str::to_owned)
        .collect();
    printed.sort_by_key(|line| {
        line.split('\t')
            .next()
            .and_then(|id| id.parse::<i64>().ok())
    });
    assert!(
        printed.iter().map(String::as_str).eq(rows.lines()),
        "cat prints other rows"
    );

    let target = format!("{database}_restored");
    let restore = vault.restore(id, &target, &[])?;
    assert_compared(&restore, &backup["tables"]);
    assert_same(cluster, &database, &target)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_backup_under_load_shows_one_instant() -> Result<()> {
    const SUMS: &str = "SELECT (SELECT sum(abalance) FROM pgbench_accounts),
        (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(bbalance) FROM pgbench_branches),
        (SELECT sum(delta) FROM pgbench_history)";
    const DONE: &str = "SELECT count(*) FROM pgbench_history";
    let cluster = Cluster::shared(16)?;
    let vault = Vault::local(cluster)?;
    let database = cluster.fresh_db("busy")?;
    let bench = |arguments: &[&str]| {
        let mut command = cluster.tool("pgbench", &database);
        command.args(arguments);
        Running::start(command)
    };
    // Enough for the accounts to be a part of their own.
    bench(&["-i", "-q", "--foreign-keys", "-s", "8"])?
        .wait()?
        .exits(0)?;
    let done = || -> Result<u64> { Ok(cluster.query(&database, DONE)?.parse()?) };
    let mut writers = bench(&["-n", "-c", "4", "-T", "600"])?;
    let deadline = Instant::now() + Duration::from_mins(1);
    while done()? < 100 {
        ensure!(
            Instant::now() < deadline && !writers.has_ended()?,
            "pgbench does nothing"
        );
    }

    let before = done()?;
    let backup = vault.back_up(&database, &["--jobs", "4"])?;
    let after = done()?;
    drop(writers);
    let id = id_of(&backup)?;
    let parts = backup["parts"].as_array().context("parts")?;
    assert!(
        parts.iter().filter(|part| part["kind"] == "data").count() >= 2,
        "{parts:?}"
    );

    let target = format!("{database}_restored");
    let restore = vault.restore(id, &target, &[])?;
    assert_compared(&restore, &json!(4));
    let sums = cluster.query(&target, SUMS)?;
    let sums: Vec<_> = sums.split('|').collect();
    assert!(
        sums.len() == 4 && sums.iter().all(|sum| *sum == sums[0]),
        "{sums:?}"
    );
    let restored: u64 = cluster.query(&target, DONE)?.parse()?;
    assert!(
        before <= restored && restored < after,
        "{before} <= {restored} < {after}"
    );
    assert_eq!(
        cluster.schema_dump(&database)?,
        cluster.schema_dump(&target)?
    );
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn missing_roles_are_asked_for_before_any_work() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let vault = Vault::local(cluster)?;
    let database = everything(cluster)?;
    let backup = vault.back_up(&database, &[])?;
    let id = id_of(&backup)?;
    let stranger = Cluster::start(17, &ClusterOptions::default())?;
    let there = vault.beside(&stranger)?;

    let refused = there
        .read(&["restore", id, "--target-db", "moved", "--json"])?
        .exits(7)?;
    let error = &refused.json()?["error"];
    for role in [
        "sample_owner",
        "sample_reader",
        "sample_writer",
        "sample_O'Dd \"role\"",
    ] {
        assert!(error["message"].to_string().contains("moved"), "{error}");
        let causes = error["causes"].as_array().context("causes")?;
        assert!(
            causes
                .iter()
                .any(|cause| cause.as_str().is_some_and(|c| c.contains(role))),
            "{error}"
        );
    }
    assert!(
        error["hint"]
            .as_str()
            .is_some_and(|hint| hint.contains("--no-owner")),
        "{error}"
    );
    assert!(!stranger.has_db("moved")?);

    // Not all can do without: a policy is nothing without the role that it is for.
    let refused = there
        .read(&["restore", id, "--target-db", "moved", "--no-owner"])?
        .exits(7)?;
    assert!(
        refused
            .stderr
            .contains("name do not exist: sample_reader\n"),
        "{}",
        refused.stderr
    );
    assert!(!stranger.has_db("moved")?);

    stranger.psql("postgres", "CREATE ROLE sample_reader")?;
    let restore = there.restore(id, "moved", &["--no-owner"])?;
    assert_compared(&restore, &backup["tables"]);
    let without_owner = |cluster: &Cluster, database: &str| -> Result<_> {
        let mut contents = cluster.contents(database)?;
        for value in contents
            .values_mut()
            .filter(|value| value.contains(" bytes "))
        {
            value.truncate(value.find(" of ").unwrap_or(value.len()));
        }
        Ok(contents)
    };
    assert_eq!(
        without_owner(cluster, &database)?,
        without_owner(&stranger, "moved")?
    );
    let owners = "SELECT DISTINCT relowner::regrole::text FROM pg_class";
    assert_eq!(stranger.query("moved", owners)?, "postgres");
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn an_existing_database_is_never_touched() -> Result<()> {
    let cluster = Cluster::shared(15)?;
    let vault = Vault::local(cluster)?;
    let source = cluster.fresh_db("source")?;
    cluster.psql(&source, "CREATE TABLE t AS SELECT 1 AS a")?;
    let backup = vault.back_up(&source, &[])?;
    let id = id_of(&backup)?;
    let taken = cluster.fresh_db("taken")?;
    cluster.psql(&taken, "CREATE TABLE mine AS SELECT 'precious' AS a")?;
    let state = || -> Result<_> {
        let identity = cluster.query(
            &taken,
            "SELECT oid FROM pg_database WHERE datname = current_database()",
        )?;
        Ok((
            identity,
            cluster.contents(&taken)?,
            cluster.schema_dump(&taken)?,
            cluster.query(&taken, PROPERTIES)?,
        ))
    };
    let before = state()?;
    for target in [taken.as_str(), source.as_str(), "postgres", "template1"] {
        let run = vault
            .read(&["restore", id, "--target-db", target])?
            .exits(12)?;
        let says = format!("database {target:?} already exists");
        assert!(
            run.stderr.contains(&says) && run.stdout.is_empty(),
            "{}",
            run.stderr
        );
    }
    assert_eq!(before, state()?);

    // The same name is free again after a restore that was dropped.
    vault.restore(id, "short_lived", &[])?;
    vault
        .read(&["restore", id, "--target-db", "short_lived"])?
        .exits(12)?;
    cluster.drop_db("short_lived")?;
    vault.restore(id, "short_lived", &[])?;
    assert_eq!(cluster.contents("short_lived")?, cluster.contents(&source)?);
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn thousands_of_objects_take_bounded_time() -> Result<()> {
    const LIMIT: Duration = Duration::from_mins(4);
    // As the manual advises for so many tables.
    let options = ClusterOptions::default().set("max_locks_per_transaction", "512");
    let cluster = Cluster::start(17, &options)?;
    let vault = Vault::local(&cluster)?;
    let database = cluster.fresh_db("crowd")?;
    let tables = "DO $$ BEGIN FOR i IN 1..3000 LOOP
        EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, note text)', i);
        EXECUTE format('INSERT INTO t%1$s VALUES (%1$s, ''only row'')', i);
        IF i % 200 = 0 THEN COMMIT; END IF;
      END LOOP; END $$;
      SELECT count(lo_from_bytea(0, i::text::bytea)) FROM generate_series(1, 5000) AS i;";
    cluster.psql(&database, tables)?;

    let started = Instant::now();
    let backup = vault.back_up(&database, &[])?;
    assert_eq!(
        (&backup["tables"], &backup["rows"]),
        (&json!(3000), &json!(3000))
    );
    let id = id_of(&backup)?;
    assert_eq!(vault.cat(id, "public.t2999")?, b"2999\tonly row\n");
    let restore = vault.restore(id, "crowd_restored", &[])?;
    let elapsed = started.elapsed();
    assert_compared(&restore, &json!(3000));
    assert_eq!(restore["compare"]["large_objects_equal"], true);
    assert_same(&cluster, &database, "crowd_restored")?;
    assert!(elapsed < LIMIT, "{elapsed:?}");
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn more_tables_than_can_be_locked_are_explained() -> Result<()> {
    let options = ClusterOptions::default()
        .set("max_locks_per_transaction", "10")
        .set("max_connections", "20");
    let cluster = Cluster::start(17, &options)?;
    let vault = Vault::local(&cluster)?;
    // Those that the dump's own session can still lock, and those that it cannot.
    for (count, words) in [(600, "dump part"), (6000, "lock the tables")] {
        let database = cluster.fresh_db("locked")?;
        let create = "SELECT format('CREATE TABLE t%s ()', i) FROM generate_series(1";
        cluster.psql(&database, &format!("{create}, {count}) AS i \\gexec"))?;
        let run = vault.cli.run([
            "backup",
            "-d",
            &database,
            "--to",
            &vault.url,
            "--no-encryption",
        ])?;
        let run = run.exits(9)?;
        assert!(
            run.stderr.contains("out of shared memory"),
            "{}",
            run.stderr
        );
        let hint = "hint: there are more tables than the server can lock";
        for words in [words, hint] {
            assert!(run.stderr.contains(words), "{}", run.stderr);
        }
        assert!(
            !vault
                .keys_stored()?
                .iter()
                .any(|key| key.starts_with("backups/"))
        );
    }
    Ok(())
}

/// How many sessions of client programs a server's log shows, and the most at work at the same time.
/// They are known by how they begin; the sessions of the program under test begin otherwise. At work is
/// one until its last statement is over: a busy server sees later that a program has gone.
fn client_sessions(log: &str) -> (usize, usize) {
    let (mut spans, mut open) = (Vec::new(), BTreeMap::new());
    for (number, line) in log.lines().enumerate() {
        let pid = line.split(['[', ']']).nth(1).unwrap_or_default();
        if line.contains("disconnection:") {
            open.remove(pid);
        } else if let Some(session) = open.get(pid) {
            let (_, last): &mut (usize, usize) = &mut spans[*session];
            *last = number;
        } else if line.contains("set_config('search_path', '', false)") {
            open.insert(pid, spans.len());
            spans.push((number, number));
        }
    }
    let at_work = |at: &usize| {
        let among = |(first, last): &&(usize, usize)| (*first..=*last).contains(at);
        spans.iter().filter(among).count()
    };
    let most = spans.iter().map(|(first, _)| at_work(first)).max();
    (spans.len(), most.unwrap_or(0))
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn one_job_is_one_at_a_time() -> Result<()> {
    let options = ClusterOptions::default()
        .set("log_statement", "all")
        .set("log_duration", "on")
        .set("log_disconnections", "on");
    let cluster = Cluster::start(17, &options)?;
    let vault = Vault::local(&cluster)?;
    let database = everything(&cluster)?;
    for table in ["one", "two"] {
        cluster.psql(&database, &sample::bulk_sql("app", table, 100))?;
    }
    let sessions =
        || -> Result<_> { Ok(client_sessions(&std::fs::read_to_string(cluster.log())?)) };
    let (others, _) = sessions()?;
    assert_eq!(others, 0);
    let backup = vault.back_up(&database, &["--jobs", "1"])?;
    let parts = backup["parts"].as_array().context("parts")?;
    assert_eq!(
        parts.iter().filter(|part| part["kind"] == "data").count(),
        3,
        "{parts:?}"
    );
    let (dumping, at_once) = sessions()?;
    assert!(
        dumping >= parts.len() - 1 && at_once == 1,
        "{dumping} sessions, {at_once} at once"
    );
    let restore = vault.restore(id_of(&backup)?, "restored", &["--jobs", "1"])?;
    assert_compared(&restore, &backup["tables"]);
    let (all, at_once) = sessions()?;
    assert!(
        all > dumping + 3 && at_once == 1,
        "{all} sessions, {at_once} at once"
    );
    assert_same(&cluster, &database, "restored")?;
    // With several they are seen to be at work at the same time.
    vault.back_up(&database, &["--jobs", "3"])?;
    let (_, at_once) = sessions()?;
    assert!(at_once > 1, "{at_once} at once");
    Ok(())
}
