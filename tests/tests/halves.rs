//! A backup in two steps: its definitions first, its rows later.

use anyhow::{Context as _, Result};
use backup_e2e::pg::{Cluster, ClusterOptions};
use backup_e2e::sample;
use backup_e2e::vault::{Vault, id_of};
use rstest::rstest;
use serde_json::{Value, json};

/// Whatever a row could stumble over that comes after the rows otherwise.
const TRAPS: &str = "
CREATE SCHEMA shop;
CREATE TABLE shop.seen (what text);
CREATE FUNCTION shop.see() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO shop.seen VALUES (TG_TABLE_NAME); NEW.note := 'changed'; RETURN NEW; END $$;
CREATE TABLE shop.a (id int PRIMARY KEY, b int, note text);
CREATE TABLE shop.b (id int PRIMARY KEY, a int, note text);
CREATE DOMAIN shop.small AS int;
CREATE TABLE shop.c (s shop.small) PARTITION BY LIST (s);
CREATE TABLE shop.c1 PARTITION OF shop.c DEFAULT;
CREATE MATERIALIZED VIEW shop.m AS SELECT id FROM shop.a;
INSERT INTO shop.a SELECT i, i, 'a' FROM generate_series(1, 50) AS i;
INSERT INTO shop.b SELECT i, i, 'b' FROM generate_series(1, 50) AS i;
INSERT INTO shop.c SELECT i FROM generate_series(1, 50) AS i;
REFRESH MATERIALIZED VIEW shop.m;
-- Each needs the other.
ALTER TABLE shop.a ADD CONSTRAINT a_b FOREIGN KEY (b) REFERENCES shop.b;
ALTER TABLE shop.b ADD CONSTRAINT b_a FOREIGN KEY (a) REFERENCES shop.a;
COMMENT ON CONSTRAINT a_b ON shop.a IS 'round';
ALTER TABLE shop.a ADD CONSTRAINT few CHECK (id < 10) NOT VALID;
ALTER DOMAIN shop.small ADD CONSTRAINT small CHECK (VALUE < 10) NOT VALID;
CREATE TRIGGER see BEFORE INSERT ON shop.a FOR EACH ROW EXECUTE FUNCTION shop.see();
COMMENT ON TRIGGER see ON shop.a IS 'stamps';
CREATE TRIGGER see_all AFTER INSERT ON shop.c FOR EACH ROW EXECUTE FUNCTION shop.see();
ALTER TABLE shop.b ENABLE ROW LEVEL SECURITY;
CREATE POLICY none ON shop.b USING (false);
CREATE SEQUENCE shop.s; SELECT setval('shop.s', 77);
SELECT lo_from_bytea(4711, 'a large object');
";

struct Halves<'a> {
    cluster: &'a Cluster,
    vault: Vault,
    database: String,
    id: String,
}

impl<'a> Halves<'a> {
    fn new(cluster: &'a Cluster, sql: &str) -> Result<Self> {
        let vault = Vault::local(cluster)?;
        let database = cluster.fresh_db("halves")?;
        cluster.psql(&database, sql)?;
        let id = id_of(&vault.back_up(&database, &[])?)?.to_owned();
        Ok(Self {
            cluster,
            vault,
            database,
            id,
        })
    }

    fn restore(&self, target: &str, more: &[&str]) -> Result<Value> {
        self.vault.restore(&self.id, target, more)
    }

    fn refused(&self, target: &str, code: i32, more: &[&str]) -> Result<String> {
        let target = format!("--target-db={target}");
        let arguments = ["restore", &self.id, &target, "--data-only"];
        let run = self.vault.read(&[&arguments, more].concat())?;
        Ok(run.exits(code)?.stderr)
    }

    fn assert_same(&self, target: &str) -> Result<()> {
        let cluster = self.cluster;
        assert_eq!(cluster.contents(&self.database)?, cluster.contents(target)?);
        let dumps = [&self.database, target].map(|name| cluster.schema_dump(name));
        let [before, after] = dumps;
        assert_eq!(before?, after?);
        Ok(())
    }
}

#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn rows_come_into_their_definitions(
    #[values(14, 15, 16, 17, 18)] major: u16,
    #[values(true, false)] superuser: bool,
) -> Result<()> {
    let cluster = Cluster::shared(major)?;
    let halves = Halves::new(cluster, TRAPS)?;
    let target = format!("{}_filled", halves.database);
    let mut login = Vec::new();
    if !superuser {
        let role = format!("{target}_login");
        cluster.psql(
            "postgres",
            &format!("CREATE ROLE \"{role}\" LOGIN CREATEDB"),
        )?;
        login.extend(["-U".to_owned(), role, "--no-owner".to_owned()]);
    }
    let login: Vec<&str> = login.iter().map(String::as_str).collect();
    halves.restore(&target, &[&["--schema-only"], &login[..]].concat())?;
    let empty = cluster.schema_dump(&target)?;
    let restore = halves.restore(&target, &[&["--data-only"], &login[..]].concat())?;
    assert_eq!(restore["warnings"], json!([]), "{restore}");
    assert_eq!(
        (&restore["data_only"], &restore["partial"]),
        (&json!(true), &json!(true))
    );
    let compare = &restore["compare"];
    assert_eq!(
        (&compare["tables"], &compare["equal"]),
        (&json!(4), &json!(4)),
        "{restore}"
    );
    assert_eq!(compare["large_objects_equal"], true);
    let definitions = &compare["definitions"];
    assert_eq!(definitions["expected"], definitions["equal"]);
    assert_eq!(
        compare["materialized_views"],
        json!([{"name": "shop.m", "rows": 50}])
    );
    assert_eq!(
        cluster.schema_dump(&target)?,
        empty,
        "what was set aside is there again"
    );
    assert_eq!(
        cluster.query(&target, "SELECT count(*) FROM shop.seen")?,
        "0"
    );
    assert_eq!(
        cluster.query(&target, "SELECT last_value FROM shop.s")?,
        "77"
    );
    if superuser {
        halves.assert_same(&target)?;
    }
    let refused = halves.refused(&target, 12, &login)?;
    assert!(refused.contains("table shop.a is not empty"), "{refused}");
    Ok(())
}

#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn every_kind_of_object_comes_in_halves(#[values(14, 18)] major: u16) -> Result<()> {
    let cluster = Cluster::start(major, &ClusterOptions::default())?;
    let halves = Halves::new(&cluster, &sample::everything_sql(major))?;
    halves.restore("filled", &["--schema-only"])?;
    let restore = halves.restore("filled", &["--data-only"])?;
    assert_eq!(restore["compare"]["tables"], restore["compare"]["equal"]);
    halves.assert_same("filled")
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn only_empty_definitions_of_the_same_backup_are_filled() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let halves = Halves::new(cluster, TRAPS)?;
    let name = |suffix: &str| format!("{}_{suffix}", halves.database);
    let reason = halves.refused(&name("absent"), 12, &[])?;
    assert!(reason.contains("it does not exist"), "{reason}");

    // Neither the source, nor a whole restore, nor that of another backup.
    halves.restore(&name("whole"), &[])?;
    let other = id_of(&halves.vault.back_up(&halves.database, &[])?)?.to_owned();
    halves
        .vault
        .restore(&other, &name("other"), &["--schema-only"])?;
    for target in [halves.database.clone(), name("whole"), name("other")] {
        let before = cluster.contents(&target)?;
        let reason = halves.refused(&target, 12, &[])?;
        let words = "was not made by a restore of the definitions of this backup";
        assert!(reason.contains(words), "{target}: {reason}");
        assert!(reason.contains("hint: --data-only loads into"), "{reason}");
        assert_eq!(cluster.contents(&target)?, before);
    }

    let target = name("used");
    halves.restore(&target, &["--schema-only"])?;
    cluster.psql(&target, "INSERT INTO shop.seen VALUES ('me')")?;
    let reason = halves.refused(&target, 12, &[])?;
    assert!(reason.contains("table shop.seen is not empty"), "{reason}");
    assert_eq!(cluster.query(&target, "SELECT what FROM shop.seen")?, "me");
    Ok(())
}

#[rstest]
#[case::damaged("data-rest", 6)]
#[case::differs("", 6)]
#[ignore = "needs servers: run ./scripts/test"]
fn a_load_that_fails_leaves_empty_definitions(
    #[case] damage: &str,
    #[case] code: i32,
    #[values(14, 18)] major: u16,
) -> Result<()> {
    let cluster = Cluster::shared(major)?;
    let halves = Halves::new(cluster, TRAPS)?;
    let target = format!("{}_failed", halves.database);
    halves.restore(&target, &["--schema-only"])?;
    let schema = cluster.schema_dump(&target)?;
    let contents = cluster.contents(&target)?;
    let undo: Box<dyn FnOnce() -> Result<()>> = if damage.is_empty() {
        cluster.psql(&target, "ALTER TABLE shop.a ALTER note SET DEFAULT 'other'")?;
        let target = target.clone();
        Box::new(move || {
            cluster
                .psql(&target, "ALTER TABLE shop.a ALTER note DROP DEFAULT")
                .map(drop)
        })
    } else {
        let keys = halves.vault.keys_stored()?;
        let key = keys
            .iter()
            .find(|key| key.contains(&halves.id) && key.contains(damage));
        let path = halves.vault.cli.local_root().join(key.context("a part")?);
        let good = std::fs::read(&path)?;
        let mut bad = good.clone();
        // After most of it was loaded.
        *bad.last_mut().context("bytes")? ^= 1;
        std::fs::write(&path, bad)?;
        Box::new(move || Ok(std::fs::write(&path, good)?))
    };
    let said = halves.refused(&target, code, &[])?;
    assert!(
        said.contains(if damage.is_empty() {
            "TABLE shop.a"
        } else {
            damage
        }),
        "{said}"
    );
    undo()?;
    assert_eq!(cluster.contents(&target)?, contents);
    assert_eq!(cluster.schema_dump(&target)?, schema);
    assert_eq!(
        cluster.query(
            &target,
            "SELECT relispopulated FROM pg_class WHERE relname = 'm'"
        )?,
        "f"
    );
    // And the next try succeeds.
    let restore = halves.restore(&target, &["--data-only"])?;
    assert_eq!(restore["compare"]["tables"], restore["compare"]["equal"]);
    halves.assert_same(&target)
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn some_tables_can_be_filled() -> Result<()> {
    let cluster = Cluster::shared(18)?;
    let halves = Halves::new(cluster, TRAPS)?;
    let target = format!("{}_some", halves.database);
    halves.restore(&target, &["--schema-only"])?;
    let restore = halves.restore(&target, &["--data-only", "--table", "shop.c"])?;
    assert_eq!(restore["compare"]["tables"], 1, "{restore}");
    assert_eq!(cluster.query(&target, "SELECT count(*) FROM shop.c")?, "50");
    assert_eq!(cluster.query(&target, "SELECT count(*) FROM shop.a")?, "0");
    // A key to rows that are not there is no less a key.
    let other = format!("{}_key", halves.database);
    halves.restore(&other, &["--schema-only"])?;
    let said = halves.refused(&other, 1, &["--table", "shop.a"])?;
    assert!(said.contains("violates foreign key constraint"), "{said}");
    assert_eq!(cluster.query(&other, "SELECT count(*) FROM shop.a")?, "0");
    Ok(())
}
