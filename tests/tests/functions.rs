//! Functions that do not survive a restore: they find what they call only under the `search_path`
//! of those who usually call them.

use anyhow::{Context as _, Result};
use backup_e2e::pg::Cluster;
use backup_e2e::vault::{Vault, id_of};
use rstest::rstest;
use serde_json::json;

const FUNCTIONS: &str = "
CREATE TYPE mood AS ENUM ('good');
CREATE TABLE look (t text);
CREATE FUNCTION helper(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper($1)';
CREATE FUNCTION inlined(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT helper($1)';
CREATE FUNCTION called(text) RETURNS text LANGUAGE plpgsql IMMUTABLE
  AS 'BEGIN RETURN helper($1); END';
CREATE FUNCTION compiled(text) RETURNS text LANGUAGE plpgsql IMMUTABLE
  AS 'DECLARE m mood; BEGIN RETURN $1; END';
CREATE FUNCTION looking(text) RETURNS text LANGUAGE plpgsql IMMUTABLE
  AS 'BEGIN RETURN coalesce((SELECT t FROM look), $1); END';
CREATE SCHEMA app;
";

/// What breaks, by PostgreSQL's own words in every version, and what is to be said about it.
const BROKEN: [(&str, &str, &str, &str); 7] = [
    (
        "CREATE TABLE app.t (a text, g text GENERATED ALWAYS AS (called(a)) STORED)",
        "table app.t",
        "function helper(text)",
        "public.called(text)",
    ),
    (
        "CREATE TABLE app.t (a text, g text GENERATED ALWAYS AS (inlined(a)) STORED)",
        "TABLE app.t",
        "function helper(text)",
        "public.inlined(text)",
    ),
    (
        "CREATE TABLE app.t (a text CHECK (called(a) <> ''))",
        "table app.t",
        "function helper(text)",
        "public.called(text)",
    ),
    (
        "CREATE TABLE app.t (a text CHECK (inlined(a) <> ''))",
        "table app.t",
        "function helper(text)",
        "public.inlined(text)",
    ),
    (
        "CREATE TABLE app.t (a text CHECK (compiled(a) <> ''))",
        "table app.t",
        "type mood",
        "public.compiled(text)",
    ),
    (
        "CREATE TABLE app.t (a text CHECK (looking(a) <> ''))",
        "table app.t",
        "relation look",
        "public.looking(text)",
    ),
    // Since 17 the source's own users could not make it in this order any more.
    (
        "CREATE TABLE app.t (a text);
         CREATE OR REPLACE FUNCTION called(text) RETURNS text LANGUAGE plpgsql IMMUTABLE
           AS 'BEGIN RETURN $1; END';
         CREATE INDEX i ON app.t (called(a));
         CREATE OR REPLACE FUNCTION called(text) RETURNS text LANGUAGE plpgsql IMMUTABLE
           AS 'BEGIN RETURN helper($1); END'",
        "INDEX app.i",
        "function helper(text)",
        "public.called(text)",
    ),
];

#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn a_function_that_needs_a_search_path_is_named(#[values(14, 18)] major: u16) -> Result<()> {
    let cluster = Cluster::shared(major)?;
    let vault = Vault::local(cluster)?;
    for (sql, what, uses, function) in BROKEN {
        let database = cluster.fresh_db("broken")?;
        cluster.psql(&database, FUNCTIONS)?;
        cluster.psql(&database, &format!("{sql}; INSERT INTO app.t VALUES ('x')"))?;
        let backup = vault.back_up(&database, &[])?;
        let target = format!("{database}_restored");
        let target_db = format!("--target-db={target}");
        let run = vault.read(&["restore", id_of(&backup)?, &target_db, "--json"])?;
        let view = run.exits(1)?.json()?;
        let expected = format!(
            "cannot restore {what}: {uses} is found only through a search_path, and {function} \
             uses it without its schema"
        );
        let error = &view["error"];
        let causes = error["causes"].as_array().context("causes")?;
        assert!(causes.contains(&json!(expected)), "{sql}: {error:#}");
        let hint = error["hint"].as_str().context("a hint")?;
        assert!(
            hint.contains(&format!("ALTER FUNCTION {function} SET search_path")),
            "{hint}"
        );
        assert!(!cluster.has_db(&target)?);
    }
    Ok(())
}

/// Triggers are made after the rows are there, and what says its own `search_path` finds its own.
#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn what_does_not_run_during_a_restore_is_no_trouble(#[values(14, 18)] major: u16) -> Result<()> {
    let cluster = Cluster::shared(major)?;
    let vault = Vault::local(cluster)?;
    let database = cluster.fresh_db("sound")?;
    cluster.psql(&database, FUNCTIONS)?;
    cluster.psql(
        &database,
        "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql
           AS 'BEGIN NEW.a := helper(NEW.a); RETURN NEW; END';
         CREATE TABLE app.t (a text);
         CREATE TRIGGER stamp BEFORE INSERT ON app.t FOR EACH ROW EXECUTE FUNCTION stamp();
         ALTER FUNCTION called(text) SET search_path = public;
         CREATE TABLE app.g (a text, g text GENERATED ALWAYS AS (called(a)) STORED);
         INSERT INTO app.t VALUES ('x');
         INSERT INTO app.g VALUES ('x');",
    )?;
    let backup = vault.back_up(&database, &[])?;
    let target = format!("{database}_restored");
    let restore = vault.restore(id_of(&backup)?, &target, &[])?;
    assert_eq!(restore["warnings"], json!([]));
    assert_eq!(restore["compare"]["equal"], 3, "{restore}");
    assert_eq!(cluster.query(&target, "SELECT a FROM app.t")?, "X");
    assert_eq!(cluster.query(&target, "SELECT g FROM app.g")?, "X");
    Ok(())
}
