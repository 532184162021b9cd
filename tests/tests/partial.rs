//! Some of a backup into a new database: what was selected, with all that it needs, and no more.

use anyhow::{Context as _, Result};
use backup_e2e::pg::Cluster;
use backup_e2e::sample;
use backup_e2e::vault::{Vault, id_of};
use rstest::rstest;
use serde_json::{Value, json};

/// Tables and sequences of a database, those of extensions left out.
const RELATIONS: &str = "
SELECT string_agg(format('%s.%s', n.nspname, c.relname), ' ' ORDER BY n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'S', 'v', 'm') AND n.nspname !~ '^pg_'
  AND n.nspname <> 'information_schema'";

/// Two schemas whose tables know each other, and one table that gets a part of its own.
const SHOP: &str = "
CREATE SCHEMA shop;
CREATE SCHEMA lib;
CREATE SCHEMA other;
CREATE TYPE shop.mood AS ENUM ('good', 'bad');
CREATE FUNCTION lib.greeting() RETURNS text LANGUAGE sql AS $$ SELECT 'hello' $$;
CREATE TABLE other.region (id int PRIMARY KEY, name text);
CREATE TABLE shop.customer (
  id serial PRIMARY KEY,
  name text NOT NULL DEFAULT lib.greeting(),
  mood shop.mood DEFAULT 'good',
  region int REFERENCES other.region
);
CREATE INDEX customer_name ON shop.customer (lower(name));
COMMENT ON TABLE shop.customer IS 'who buys';
CREATE TABLE shop.invoice (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  customer int NOT NULL CONSTRAINT of_customer REFERENCES shop.customer,
  amount numeric
);
CREATE TABLE shop.event (id int, at date NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE shop.event_25 PARTITION OF shop.event FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE other.event_rest PARTITION OF shop.event DEFAULT;
CREATE VIEW shop.by_region AS SELECT r.name, count(*) FROM shop.customer c
  JOIN other.region r ON r.id = c.region GROUP BY r.name;
CREATE VIEW shop.sums AS SELECT customer, sum(amount) FROM shop.invoice GROUP BY customer;
INSERT INTO other.region SELECT i, 'region ' || i FROM generate_series(1, 5) AS i;
INSERT INTO shop.customer (name, mood, region)
  SELECT 'name ' || i, 'bad', 1 + i % 5 FROM generate_series(1, 200) AS i;
INSERT INTO shop.invoice (customer, amount) SELECT 1 + i % 200, i FROM generate_series(1, 1000) AS i;
INSERT INTO shop.event SELECT i, date '2025-01-01' + i FROM generate_series(1, 500) AS i;
SELECT lo_from_bytea(0, 'a large object');
";

fn shop(cluster: &Cluster) -> Result<String> {
    let database = cluster.fresh_db("shop")?;
    cluster.psql(&database, SHOP)?;
    Ok(database)
}

fn rows(cluster: &Cluster, database: &str, table: &str) -> Result<String> {
    let sql = format!("COPY (SELECT * FROM {table} ORDER BY 1, 2) TO STDOUT");
    cluster.query(database, &sql)
}

/// Asserts that the tables have the same rows in both, and at least one.
fn assert_same_rows(cluster: &Cluster, databases: [&str; 2], tables: &[&str]) -> Result<()> {
    for table in tables {
        let [before, after] = databases.map(|database| rows(cluster, database, table));
        let before = before?;
        assert!(!before.is_empty(), "{table}");
        assert_eq!(before, after?, "{table}");
    }
    Ok(())
}

fn warnings(restore: &Value) -> Result<Vec<&str>> {
    let warnings = restore["warnings"].as_array().context("warnings")?;
    Ok(warnings.iter().filter_map(Value::as_str).collect())
}

/// Asserts that all of `tables` were compared and found equal.
fn assert_compared(restore: &Value, tables: usize) {
    let compare = &restore["compare"];
    let found = (&compare["tables"], &compare["equal"]);
    assert_eq!(found, (&json!(tables), &json!(tables)), "{restore}");
    assert_eq!(compare["large_objects_equal"], Value::Null);
}

/// Asserts that hardly more was read than `parts`, the definitions and the facts.
fn assert_read(backup: &Value, restore: &Value, parts: &[&str]) -> Result<()> {
    let all = backup["parts"].as_array().context("parts")?;
    let stored = |part: &Value| part["stored_bytes"].as_u64().unwrap_or_default();
    let needed: u64 = all
        .iter()
        .filter(|part| {
            let name = part["name"].as_str().unwrap_or_default();
            parts.contains(&name) || ["schema", "facts"].contains(&name)
        })
        .map(stored)
        .sum();
    let whole: u64 = all.iter().map(stored).sum();
    let read = restore["bytes_read"].as_u64().context("bytes_read")?;
    assert!(
        read * 10 <= needed * 11 && needed * 10 < whole * 9,
        "{read} read, {needed} needed of {whole}"
    );
    Ok(())
}

#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn one_table_out_of_several(#[values(14, 18)] major: u16) -> Result<()> {
    let cluster = Cluster::shared(major)?;
    let vault = Vault::local(cluster)?;
    let database = shop(cluster)?;
    cluster.psql(&database, &sample::bulk_sql("shop", "bulk", 80))?;
    // Without the key that leads out of the selection, nothing is worth a warning.
    cluster.psql(
        &database,
        "ALTER TABLE shop.customer DROP CONSTRAINT customer_region_fkey",
    )?;
    let backup = vault.back_up(&database, &["--jobs", "2"])?;
    let id = id_of(&backup)?;

    let target = format!("{database}_one");
    let restore = vault.restore(id, &target, &["--table", "shop.customer"])?;
    assert_eq!(restore["warnings"], json!([]));
    assert_eq!(restore["partial"], true);
    assert_compared(&restore, 1);
    assert_read(&backup, &restore, &["data-rest"])?;
    assert_same_rows(cluster, [&database, &target], &["shop.customer"])?;
    assert_eq!(
        cluster.query(&target, RELATIONS)?,
        "shop.customer shop.customer_id_seq"
    );
    cluster.psql(&target, "INSERT INTO shop.customer DEFAULT VALUES")?;
    let newest = "SELECT id, name, mood FROM shop.customer ORDER BY id DESC LIMIT 1";
    assert_eq!(cluster.query(&target, newest)?, "201|hello|good");
    let indexes = "SELECT string_agg(indexrelid::regclass::text, ' '
                     ORDER BY indexrelid::regclass::text) FROM pg_index
                   WHERE indrelid = 'shop.customer'::regclass";
    let indexes = cluster.query(&target, indexes)?;
    assert_eq!(indexes, "shop.customer_name shop.customer_pkey");
    let comment = "SELECT obj_description('shop.customer'::regclass)";
    assert_eq!(cluster.query(&target, comment)?, "who buys");
    assert_eq!(
        cluster.query(&target, "SELECT count(*) FROM pg_largeobject_metadata")?,
        "0"
    );

    let target = format!("{database}_bulk");
    let restore = vault.restore(id, &target, &["--table", "bulk", "--jobs", "2"])?;
    assert_compared(&restore, 1);
    let parts = backup["parts"].as_array().context("parts")?;
    let own: Vec<&str> = parts
        .iter()
        .filter(|part| part["kind"] == "data" && part["name"] != "data-rest")
        .filter_map(|part| part["name"].as_str())
        .collect();
    let read = restore["bytes_read"].as_u64().context("bytes_read")?;
    let stored = |name: &&str| {
        let part = parts.iter().find(|part| part["name"] == **name);
        part.and_then(|part| part["stored_bytes"].as_u64())
            .unwrap_or_default()
    };
    let needed: u64 = own.iter().chain(&["schema", "facts"]).map(stored).sum();
    assert!(
        !own.is_empty() && read <= needed,
        "{read} of {needed}: {own:?}"
    );
    assert_same_rows(cluster, [&database, &target], &["shop.bulk"])
}

#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn a_partitioned_table_and_one_partition(#[values(14, 18)] major: u16) -> Result<()> {
    let cluster = Cluster::shared(major)?;
    let vault = Vault::local(cluster)?;
    let database = shop(cluster)?;
    let backup = vault.back_up(&database, &[])?;
    let id = id_of(&backup)?;

    let target = format!("{database}_all");
    let restore = vault.restore(id, &target, &["--table", "shop.event"])?;
    assert_eq!(restore["warnings"], json!([]));
    assert_compared(&restore, 2);
    assert_same_rows(
        cluster,
        [&database, &target],
        &["shop.event", "shop.event_25"],
    )?;
    assert_eq!(
        cluster.query(&target, RELATIONS)?,
        "other.event_rest shop.event shop.event_25"
    );
    let keys = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'shop.event_pkey'::regclass";
    assert_eq!(cluster.query(&target, keys)?, "2");

    let target = format!("{database}_part");
    let restore = vault.restore(id, &target, &["--table", "shop.event_25"])?;
    let warnings = warnings(&restore)?;
    assert!(
        matches!(warnings.as_slice(), [one] if one.starts_with("TABLE shop.event was not selected")),
        "{warnings:?}"
    );
    assert_compared(&restore, 1);
    assert_same_rows(cluster, [&database, &target], &["shop.event_25"])?;
    assert_eq!(
        rows(cluster, &target, "shop.event")?,
        rows(cluster, &database, "shop.event_25")?
    );
    Ok(())
}

#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn a_schema_with_what_it_needs(#[values(14, 18)] major: u16) -> Result<()> {
    let cluster = Cluster::shared(major)?;
    let vault = Vault::local(cluster)?;
    let database = shop(cluster)?;
    let backup = vault.back_up(&database, &[])?;
    let target = format!("{database}_schema");
    let restore = vault.restore(id_of(&backup)?, &target, &["--schema", "shop"])?;
    assert_compared(&restore, 4);
    let tables = ["shop.customer", "shop.invoice", "shop.event", "shop.sums"];
    assert_same_rows(cluster, [&database, &target], &tables)?;
    let left_out = [
        "VIEW shop.by_region is left out: it needs TABLE other.region",
        "FK CONSTRAINT shop.customer customer_region_fkey is left out: it needs TABLE other.region",
    ];
    let warnings = warnings(&restore)?;
    for expected in left_out {
        assert!(
            warnings.iter().any(|text| text.starts_with(expected)),
            "{warnings:?}"
        );
    }
    assert_eq!(warnings.len(), left_out.len(), "{warnings:?}");
    assert_eq!(
        cluster.query(&target, RELATIONS)?,
        "other.event_rest shop.customer shop.customer_id_seq shop.event shop.event_25 \
         shop.invoice shop.invoice_id_seq shop.sums"
    );
    cluster.psql(
        &target,
        "INSERT INTO shop.customer (region) VALUES (77);
         INSERT INTO shop.invoice (customer) VALUES (201);",
    )?;
    let newest = "SELECT name, mood, max(i.id) FROM shop.customer c
                  JOIN shop.invoice i ON i.customer = c.id WHERE c.id = 201 GROUP BY 1, 2";
    assert_eq!(cluster.query(&target, newest)?, "hello|good|1001");
    Ok(())
}

#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn a_foreign_key_that_leads_out_is_left_out(#[values(14, 18)] major: u16) -> Result<()> {
    let cluster = Cluster::shared(major)?;
    let vault = Vault::local(cluster)?;
    let database = shop(cluster)?;
    let backup = vault.back_up(&database, &[])?;
    let target = format!("{database}_key");
    let target_db = format!("--target-db={target}");
    let table = ["--table", "shop.invoice"];
    let run = vault.read(&[&["restore", id_of(&backup)?, &target_db], &table[..]].concat())?;
    let run = run.exits(3)?;
    let expected =
        "FK CONSTRAINT shop.invoice of_customer is left out: it needs TABLE shop.customer";
    assert!(run.stderr.contains(expected), "{}", run.stderr);
    assert!(run.text().contains("restored a part of "), "{}", run.text());
    assert!(run.text().contains("1 of 1 table equal"), "{}", run.text());
    assert_same_rows(cluster, [&database, &target], &["shop.invoice"])?;

    let target = format!("{database}_both");
    let both = [&table[..], &["--table", "shop.customer"]].concat();
    let restore = vault.restore(id_of(&backup)?, &target, &both)?;
    assert_compared(&restore, 2);
    let keys = "SELECT string_agg(conname, ' ') FROM pg_constraint WHERE contype = 'f'";
    assert_eq!(cluster.query(&target, keys)?, "of_customer");
    Ok(())
}

#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn definitions_without_rows(#[values(14, 18)] major: u16) -> Result<()> {
    let cluster = Cluster::shared(major)?;
    let vault = Vault::local(cluster)?;
    let database = shop(cluster)?;
    let backup = vault.back_up(&database, &[])?;
    let id = id_of(&backup)?;
    let target = format!("{database}_empty");
    let restore = vault.restore(id, &target, &["--schema-only"])?;
    let compare = &restore["compare"];
    assert_eq!(compare["tables"], 0);
    let definitions = &compare["definitions"];
    assert_eq!(definitions["equal"], definitions["expected"]);
    assert!(definitions["expected"].as_u64() > Some(20), "{restore}");
    assert_eq!(restore["definitions_only"], true);
    assert_eq!(restore["warnings"], json!([]));
    assert_eq!(
        cluster.schema_dump(&database)?,
        cluster.schema_dump(&target)?
    );
    for table in [
        "shop.customer",
        "shop.invoice",
        "shop.event",
        "other.region",
    ] {
        assert_eq!(rows(cluster, &target, table)?, "", "{table}");
    }
    assert_eq!(
        cluster.query(&target, "SELECT count(*) FROM pg_largeobject_metadata")?,
        "0"
    );

    let target = format!("{database}_said");
    let target_db = format!("--target-db={target}");
    let one = [
        "restore",
        id,
        &target_db,
        "--schema-only",
        "--table",
        "region",
    ];
    let run = vault.read(&one)?.exits(0)?;
    assert!(run.text().contains("definitions only"), "{}", run.text());
    assert_eq!(cluster.query(&target, RELATIONS)?, "other.region");
    Ok(())
}

#[rstest]
#[case(&["--table", "shop.nobody"], "table shop.nobody not found")]
#[case(&["--schema", "nowhere", "--table", "shop.customer"], "schema nowhere not found")]
#[ignore = "needs servers: run ./scripts/test"]
fn what_is_not_there_is_refused_before_any_work(
    #[case] selection: &[&str],
    #[case] message: &str,
    #[values(14, 18)] major: u16,
) -> Result<()> {
    let cluster = Cluster::shared(major)?;
    let vault = Vault::local(cluster)?;
    let database = shop(cluster)?;
    let backup = vault.back_up(&database, &[])?;
    let target = format!("{database}_none");
    let target_db = format!("--target-db={target}");
    let arguments = ["restore", id_of(&backup)?, &target_db, "--json"];
    let run = vault
        .read(&[&arguments[..], selection].concat())?
        .exits(4)?;
    let error = &run.json()?["error"];
    assert_eq!(error["message"], message, "{error}");
    assert_eq!(error["kind"], "not_found");
    assert!(!cluster.has_db(&target)?);
    Ok(())
}

/// `pg_restore` ends as soon as it has what is wanted; what follows is looked at all the same.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn damage_behind_what_is_wanted_is_found() -> Result<()> {
    let cluster = Cluster::shared(18)?;
    let vault = Vault::local(cluster)?;
    let database = shop(cluster)?;
    let backup = vault.back_up(&database, &["--no-encryption", "-Z", "none"])?;
    let keys = vault.keys_stored()?;
    let key = keys.iter().find(|key| key.ends_with("data-rest.dump"));
    let path = vault.cli.local_root().join(key.context("a part")?);
    let mut bytes = std::fs::read(&path)?;
    *bytes.last_mut().context("bytes")? ^= 1;
    std::fs::write(&path, bytes)?;
    let target = format!("--target-db={database}_damaged");
    let table = ["restore", id_of(&backup)?, &target, "--table", "region"];
    let run = vault.read(&table)?.exits(6)?;
    assert!(run.stderr.contains("data-rest"), "{}", run.stderr);
    assert!(!cluster.has_db(&format!("{database}_damaged"))?);
    Ok(())
}

/// Nearly every kind of object, in a schema of which some things need tables elsewhere.
#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn a_schema_of_everything(#[values(14, 15, 16, 17, 18)] major: u16) -> Result<()> {
    let cluster = Cluster::shared(major)?;
    let vault = Vault::local(cluster)?;
    let database = cluster.fresh_db("everything")?;
    cluster.psql(&database, &sample::everything_sql(major))?;
    let backup = vault.back_up(&database, &[])?;
    let target = format!("{database}_app");
    let restore = vault.restore(id_of(&backup)?, &target, &["--schema", "app"])?;
    // Publications and event triggers are for whole databases, and that is said. With its cast, a
    // type without a collation is compared as text, of which the server makes no statistics.
    for warning in warnings(&restore)? {
        assert!(
            warning.ends_with("is left out: it is for the whole database")
                || warning.starts_with("no statistics for \"app\".\"everything\""),
            "{warning}"
        );
    }
    let about = restore["warnings"].to_string();
    for kind in [
        "PUBLICATION TABLE app.sample_some customer",
        "EVENT TRIGGER sample_watch",
    ] {
        assert!(about.contains(kind), "{about}");
    }
    assert_eq!(restore["compare"]["tables"], restore["compare"]["equal"]);
    // Of the schema itself, nothing is missing.
    let titles = |database: &str| -> Result<Vec<String>> {
        let dump = cluster.schema_dump(database)?;
        let titles = dump
            .lines()
            .filter(|line| line.starts_with("-- Name: ") && line.contains("; Schema: app;"));
        let own = titles.filter(|line| !line.contains("Type: PUBLICATION"));
        Ok(own.map(str::to_owned).collect())
    };
    assert_eq!(titles(&database)?, titles(&target)?);
    // Nor of what is in no schema and belongs to it.
    let casts =
        "SELECT count(*) FROM pg_cast c JOIN pg_type t ON t.oid IN (c.castsource, c.casttarget)
                 WHERE t.typnamespace = 'app'::regnamespace";
    let mappings =
        "SELECT count(*) FROM pg_user_mappings m JOIN pg_foreign_table f ON f.ftserver = m.srvid";
    for query in [casts, mappings] {
        let expected = cluster.query(&database, query)?;
        assert_ne!(expected, "0", "{query}");
        assert_eq!(cluster.query(&target, query)?, expected, "{query}");
    }
    let target = format!("{database}_ext");
    vault.restore(id_of(&backup)?, &target, &["--schema", "ext"])?;
    let extensions = "SELECT string_agg(extname, ' ' ORDER BY extname) FROM pg_extension
                      WHERE extnamespace = 'ext'::regnamespace";
    let expected = cluster.query(&database, extensions)?;
    assert_eq!(cluster.query(&target, extensions)?, expected);

    for table in [
        "app.customer",
        "app.event",
        "app.cat",
        "app.by_mood_0",
        "app.grouped",
    ] {
        let target = format!("{database} {table}");
        let restore = vault.restore(id_of(&backup)?, &target, &["--table", table])?;
        let compare = &restore["compare"];
        assert_eq!(compare["tables"], compare["equal"], "{table}: {restore}");
    }
    Ok(())
}
