//! An extension that keeps rows of its own: some come with it, some are the user's and are dumped.

use std::fs;

use anyhow::Result;
use backup_e2e::pg::{Cluster, ClusterOptions};
use backup_e2e::vault::{Vault, id_of};
use serde_json::json;

const SCRIPT: &str = "
CREATE TABLE label (id int PRIMARY KEY, name text);
INSERT INTO label VALUES (1, 'comes with the extension');
SELECT pg_extension_config_dump('label', 'WHERE id > 1');
";

const DATABASE: &str = "
CREATE SCHEMA shelf;
CREATE EXTENSION shelf SCHEMA shelf;
INSERT INTO shelf.label VALUES (2, 'is the user''s'), (3, 'too');
CREATE TABLE book (id int PRIMARY KEY, label int);
INSERT INTO book VALUES (1, 1), (2, 3);
";

/// Extensions can be found outside of the server's own folder since PostgreSQL 18.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn rows_that_an_extension_keeps_for_its_user_come_back_and_are_compared() -> Result<()> {
    let cluster = Cluster::start(18, &ClusterOptions::default())?;
    let vault = Vault::local(&cluster)?;
    let folder = vault.cli.folder().join("share");
    let extensions = folder.join("extension");
    fs::create_dir_all(&extensions)?;
    fs::write(extensions.join("shelf--1.sql"), SCRIPT)?;
    fs::write(extensions.join("shelf.control"), "default_version = '1'\n")?;
    let path = format!("$system:{}", folder.display());
    cluster.psql(
        "postgres",
        &format!("ALTER SYSTEM SET extension_control_path = '{path}'"),
    )?;
    cluster.psql("postgres", "SELECT pg_reload_conf()")?;
    cluster.create_db("library")?;
    cluster.psql("library", DATABASE)?;
    let id = id_of(&vault.back_up("library", &[])?)?.to_owned();
    let rows = "SELECT string_agg(id || name, ',' ORDER BY id) FROM shelf.label";
    for (target, more, tables) in [
        ("whole", &[][..], 2),
        ("some", &["--table", "public.book"][..], 1),
    ] {
        let view = vault.restore(&id, target, more)?;
        let compare = &view["compare"];
        assert_eq!(compare["tables"], json!(tables), "{view}");
        assert_eq!(compare["equal"], json!(tables), "{view}");
        if target == "whole" {
            assert_eq!(
                cluster.query(target, rows)?,
                cluster.query("library", rows)?
            );
        }
        assert_eq!(cluster.query(target, "SELECT sum(label) FROM book")?, "4");
    }
    // What comes with the extension is its own, and is not in the dump.
    let changed = "UPDATE shelf.label SET name = 'changed' WHERE id = 1";
    cluster.psql("library", changed)?;
    let id = id_of(&vault.back_up("library", &[])?)?.to_owned();
    let view = vault.restore(&id, "again", &[])?;
    assert_eq!(view["compare"]["equal"], json!(2), "{view}");
    let first = "SELECT name FROM shelf.label WHERE id = 1";
    assert_eq!(cluster.query("again", first)?, "comes with the extension");
    Ok(())
}
