//! Definitions: what is gone, changed, no longer valid or additional, by name. And texts that a
//! server prints otherwise when it has read its own print, which are no difference.

use anyhow::{Context as _, Result};
use backup_core::restorer::Definitions;
use backup_e2e::pg::Cluster;
use backup_e2e::vault::{Vault, id_of};
use rstest::rstest;
use serde_json::json;

use crate::Restored;

const SHOP: &str = "
CREATE ROLE compare_owner;
CREATE ROLE compare_reader;
CREATE SCHEMA shop;
CREATE TYPE shop.mood AS ENUM ('good', 'bad');
CREATE FUNCTION shop.tax(numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$ SELECT $1 * 0.2 $$;
CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TABLE shop.customer (
  id int PRIMARY KEY,
  name text NOT NULL DEFAULT 'nobody',
  mood shop.mood,
  CONSTRAINT named CHECK (name <> '')
);
CREATE TABLE shop.invoice (id int, customer int, amount numeric);
ALTER TABLE shop.invoice ADD CONSTRAINT of_customer FOREIGN KEY (customer)
  REFERENCES shop.customer NOT VALID;
ALTER TABLE shop.invoice ADD CONSTRAINT positive CHECK (amount > 0) NOT VALID;
CREATE INDEX customer_name ON shop.customer (lower(name));
CREATE TRIGGER touch BEFORE UPDATE ON shop.customer FOR EACH ROW EXECUTE FUNCTION shop.touch();
CREATE VIEW shop.taxes AS SELECT id, shop.tax(amount) AS tax FROM shop.invoice;
CREATE MATERIALIZED VIEW shop.sums AS SELECT customer, sum(amount) FROM shop.invoice GROUP BY 1;
CREATE MATERIALIZED VIEW shop.unfilled AS SELECT 1 AS one WITH NO DATA;
CREATE SEQUENCE shop.number;
CREATE POLICY own ON shop.customer USING (name = current_user);
COMMENT ON TABLE shop.customer IS 'who buys';
GRANT SELECT ON shop.customer TO compare_reader;
INSERT INTO shop.customer SELECT i, 'name ' || i FROM generate_series(1, 20) AS i;
INSERT INTO shop.invoice SELECT i, i, i FROM generate_series(1, 20) AS i;
REFRESH MATERIALIZED VIEW shop.sums;
";

/// Which of the lists has the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    Missing,
    Different,
    Extra,
}

/// One change, how to undo it, and what is to be said about it.
const CHANGES: [(&str, &str, List, &str); 18] = [
    (
        "DROP INDEX shop.customer_name",
        "CREATE INDEX customer_name ON shop.customer (lower(name))",
        List::Missing,
        "INDEX shop.customer_name",
    ),
    (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'shop.customer_name'::regclass",
        "UPDATE pg_index SET indisvalid = true WHERE indexrelid = 'shop.customer_name'::regclass",
        List::Different,
        "INDEX shop.customer_name (not valid)",
    ),
    (
        "CREATE OR REPLACE FUNCTION shop.tax(numeric) RETURNS numeric LANGUAGE sql IMMUTABLE
           AS $$ SELECT $1 * 0.3 $$",
        "CREATE OR REPLACE FUNCTION shop.tax(numeric) RETURNS numeric LANGUAGE sql IMMUTABLE
           AS $$ SELECT $1 * 0.2 $$",
        List::Different,
        "FUNCTION shop.tax(numeric)",
    ),
    (
        "DROP TRIGGER touch ON shop.customer",
        "CREATE TRIGGER touch BEFORE UPDATE ON shop.customer
           FOR EACH ROW EXECUTE FUNCTION shop.touch()",
        List::Missing,
        "TRIGGER shop.customer touch",
    ),
    (
        "ALTER TABLE shop.customer DISABLE TRIGGER touch",
        "ALTER TABLE shop.customer ENABLE TRIGGER touch",
        List::Different,
        "TRIGGER shop.customer touch",
    ),
    (
        "REVOKE SELECT ON shop.customer FROM compare_reader",
        "GRANT SELECT ON shop.customer TO compare_reader",
        List::Missing,
        "ACL shop.TABLE customer",
    ),
    (
        "GRANT UPDATE ON shop.customer TO compare_reader",
        "REVOKE UPDATE ON shop.customer FROM compare_reader",
        List::Different,
        "ACL shop.TABLE customer",
    ),
    (
        "ALTER TABLE shop.invoice OWNER TO compare_owner",
        "ALTER TABLE shop.invoice OWNER TO postgres",
        List::Different,
        "TABLE shop.invoice (owner)",
    ),
    (
        "ALTER TABLE shop.invoice VALIDATE CONSTRAINT of_customer",
        "ALTER TABLE shop.invoice DROP CONSTRAINT of_customer,
           ADD CONSTRAINT of_customer FOREIGN KEY (customer) REFERENCES shop.customer NOT VALID",
        List::Different,
        "FK CONSTRAINT shop.invoice of_customer (validated)",
    ),
    (
        "ALTER TABLE shop.invoice VALIDATE CONSTRAINT positive",
        "ALTER TABLE shop.invoice DROP CONSTRAINT positive,
           ADD CONSTRAINT positive CHECK (amount > 0) NOT VALID",
        List::Missing,
        "CHECK CONSTRAINT shop.invoice positive",
    ),
    (
        "REFRESH MATERIALIZED VIEW shop.sums WITH NO DATA",
        "REFRESH MATERIALIZED VIEW shop.sums",
        List::Missing,
        "MATERIALIZED VIEW DATA shop.sums",
    ),
    (
        "REFRESH MATERIALIZED VIEW shop.unfilled",
        "REFRESH MATERIALIZED VIEW shop.unfilled WITH NO DATA",
        List::Extra,
        "MATERIALIZED VIEW DATA shop.unfilled",
    ),
    (
        "ALTER TABLE shop.customer ALTER name DROP DEFAULT",
        "ALTER TABLE shop.customer ALTER name SET DEFAULT 'nobody'",
        List::Different,
        "TABLE shop.customer",
    ),
    (
        "ALTER SEQUENCE shop.number INCREMENT 7",
        "ALTER SEQUENCE shop.number INCREMENT 1",
        List::Different,
        "SEQUENCE shop.number",
    ),
    (
        "CREATE OR REPLACE VIEW shop.taxes AS
           SELECT id, shop.tax(amount + 1) AS tax FROM shop.invoice",
        "CREATE OR REPLACE VIEW shop.taxes AS
           SELECT id, shop.tax(amount) AS tax FROM shop.invoice",
        List::Different,
        "VIEW shop.taxes",
    ),
    (
        "ALTER POLICY own ON shop.customer USING (true)",
        "ALTER POLICY own ON shop.customer USING (name = current_user)",
        List::Different,
        "POLICY shop.customer own",
    ),
    (
        "COMMENT ON TABLE shop.customer IS 'who sells'",
        "COMMENT ON TABLE shop.customer IS 'who buys'",
        List::Different,
        "COMMENT shop.TABLE customer",
    ),
    (
        "CREATE FUNCTION shop.more() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DROP FUNCTION shop.more()",
        List::Extra,
        "FUNCTION shop.more()",
    ),
];

fn named(found: &Definitions) -> Vec<(List, &str)> {
    let lists = [
        (List::Missing, &found.missing),
        (List::Different, &found.different),
        (List::Extra, &found.extra),
    ];
    lists
        .into_iter()
        .flat_map(|(list, names)| names.iter().map(move |name| (list, name.as_str())))
        .collect()
}

#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn every_change_of_definitions_is_found(#[values(14, 18)] major: u16) -> Result<()> {
    let cluster = Cluster::shared(major)?;
    let database = cluster.fresh_db("defined")?;
    cluster.psql(&database, SHOP)?;
    let restored = Restored::new(cluster, &database)?;
    let report = restored.compare()?;
    assert!(report.is_equal(), "nothing was changed: {report:?}");
    let views: Vec<_> = report.materialized_views.iter().collect();
    assert!(
        matches!(views.as_slice(), [(view, Some(20))] if view.to_string() == "shop.sums"),
        "{views:?}"
    );
    for (change, undo, list, name) in CHANGES {
        restored.change(change)?;
        let report = restored.compare()?;
        let found = report.definitions.as_ref().context("definitions")?;
        let named = named(found);
        assert!(named.contains(&(list, name)), "{change}: {named:?}");
        // A constraint that was validated goes from an entry of its own into its table's.
        let own = named.len() == 1 || named.contains(&(List::Different, "TABLE shop.invoice"));
        assert!(own, "{change}: {named:?}");
        assert!(
            !report.is_equal() && report.equal == report.tables,
            "{change}"
        );
        restored.change(undo)?;
        let report = restored.compare()?;
        assert!(report.is_equal(), "{undo}: {report:?}");
    }
    Ok(())
}

/// Definitions that a server prints in another form once it has read its own print, and what a
/// dump has in an order that a restore does not keep.
const RESTLESS: &str = "
CREATE ROLE restless_a; CREATE ROLE restless_b;
CREATE TABLE t (s varchar(10) CHECK (s IN ('a', 'b')), g int DEFAULT (-1), at timestamptz
  DEFAULT (now() AT TIME ZONE 'utc' - interval '1 day'), PRIMARY KEY (s));
CREATE VIEW v AS SELECT * FROM t WHERE s IN ('x', 'y') AND g BETWEEN -3 AND 4 AND s LIKE 'a%';
CREATE MATERIALIZED VIEW m AS SELECT * FROM v WHERE s IN ('p', 'q');
CREATE INDEX i ON t ((s || 'x')) WHERE s IN ('a', 'b');
CREATE DOMAIN d AS varchar CHECK (VALUE IN ('a', 'b'));
CREATE TABLE parent (a int, b text);
CREATE TABLE heir (b text, extra int, a int);
ALTER TABLE heir INHERIT parent;
CREATE POLICY p ON t USING (s = ANY (ARRAY['a', 'b']::varchar[]));
CREATE TABLE parted (a varchar CHECK (a IN ('a', 'b'))) PARTITION BY LIST (a);
CREATE TABLE part PARTITION OF parted FOR VALUES IN ('a', 'b');
CREATE FUNCTION f(x varchar DEFAULT 'a', y int DEFAULT -1) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE RULE r AS ON DELETE TO t WHERE OLD.s IN ('a', 'b') DO INSTEAD NOTHING;
CREATE TRIGGER z BEFORE UPDATE ON t FOR EACH ROW WHEN (NEW.s IN ('a', 'b'))
  EXECUTE FUNCTION suppress_redundant_updates_trigger();
GRANT SELECT ON t TO restless_b; GRANT SELECT, UPDATE ON t TO restless_a;
REVOKE UPDATE ON t FROM restless_a; REVOKE ALL ON t FROM postgres; GRANT SELECT ON t TO postgres;
DROP EXTENSION plpgsql; CREATE EXTENSION plpgsql; COMMENT ON EXTENSION plpgsql IS 'ours';
INSERT INTO t VALUES ('a'); INSERT INTO parted VALUES ('a');
";

/// Checks a restore of `database` by the program: all definitions are found, and no warning.
fn assert_at_rest(vault: &Vault, id: &str, target: &str, more: &[&str]) -> Result<()> {
    let restore = vault.restore(id, target, more)?;
    let found = &restore["compare"]["definitions"];
    assert_eq!(restore["warnings"], json!([]), "{restore}");
    assert_eq!(found["equal"], found["expected"], "{restore}");
    assert_eq!(found["texts_compared"], true);
    for list in ["missing", "different", "unclear", "extra"] {
        assert_eq!(found[list], json!([]), "{restore}");
    }
    assert!(found["expected"].as_u64() > Some(5), "{restore}");
    Ok(())
}

#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn what_a_server_prints_otherwise_is_no_difference(
    #[values(14, 15, 16, 17, 18)] major: u16,
) -> Result<()> {
    let cluster = Cluster::shared(major)?;
    let vault = Vault::local(cluster)?;
    let database = cluster.fresh_db("restless")?;
    cluster.psql(&database, RESTLESS)?;
    let backup = vault.back_up(&database, &[])?;
    let id = id_of(&backup)?;
    let target = format!("{database}_all");
    assert_at_rest(&vault, id, &target, &[])?;
    let texts = [&database, &target].map(|name| cluster.schema_dump(name));
    let [before, after] = texts;
    assert_ne!(
        before?, after?,
        "no text has changed, so this proves nothing"
    );
    // A backup of a restored database is restored as well.
    let again = vault.back_up(&target, &[])?;
    assert_at_rest(&vault, id_of(&again)?, &format!("{target}_again"), &[])?;
    assert_at_rest(&vault, id, &format!("{database}_mine"), &["--no-owner"])?;
    assert_at_rest(&vault, id, &format!("{database}_one"), &["--table", "t"])?;
    assert_at_rest(&vault, id, &format!("{database}_empty"), &["--schema-only"])?;
    let filtered = vault.back_up(&database, &["-t", "t", "-t", "v"])?;
    let run = vault.restore(id_of(&filtered)?, &format!("{database}_filtered"), &[])?;
    let found = &run["compare"]["definitions"];
    assert_eq!(found["equal"], found["expected"], "{run}");
    Ok(())
}
