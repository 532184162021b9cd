//! Who owns a restored database, and what it takes.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use backup_e2e::pg::{Cluster, ClusterOptions};
use backup_e2e::sample;
use backup_e2e::vault::{Vault, id_of};
use rstest::rstest;
use serde_json::{Value, json};

/// A cluster of its own: its roles matter.
const SHOP: &str = "
CREATE ROLE \"Shop owner\"; CREATE ROLE reader; CREATE ROLE writer; CREATE ROLE other;
CREATE SCHEMA shop AUTHORIZATION \"Shop owner\";
CREATE SCHEMA aside AUTHORIZATION other;
CREATE TABLE shop.customer (id int PRIMARY KEY, name text);
ALTER TABLE shop.customer OWNER TO \"Shop owner\";
CREATE FUNCTION shop.f(\"to\" int, reader int) RETURNS int LANGUAGE sql AS 'SELECT 1';
ALTER FUNCTION shop.f OWNER TO \"Shop owner\";
CREATE TABLE aside.t AS SELECT 1 AS a;
ALTER TABLE aside.t OWNER TO other;
GRANT USAGE ON SCHEMA shop TO reader, writer;
GRANT SELECT ON shop.customer TO reader WITH GRANT OPTION;
GRANT INSERT (name), UPDATE ON shop.customer TO writer;
REVOKE ALL ON FUNCTION shop.f FROM PUBLIC; GRANT EXECUTE ON FUNCTION shop.f TO reader;
ALTER DEFAULT PRIVILEGES FOR ROLE \"Shop owner\" IN SCHEMA shop GRANT SELECT ON TABLES TO reader;
CREATE POLICY own ON shop.customer TO writer, reader USING (name = current_user);
INSERT INTO shop.customer VALUES (1, 'one'), (2, 'two');
SELECT lo_from_bytea(4711, 'a large object');
ALTER LARGE OBJECT 4711 OWNER TO \"Shop owner\"; GRANT SELECT ON LARGE OBJECT 4711 TO reader;
";

/// What names a role in a database, its own grants and settings left out.
const ROLES: &str = "
SELECT string_agg(DISTINCT pg_get_userbyid(refobjid), ', ' ORDER BY pg_get_userbyid(refobjid))
FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass
  AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())";

struct Shop {
    cluster: Cluster,
    vault: Vault,
    id: String,
}

fn shop(major: u16) -> Result<Shop> {
    let cluster = Cluster::start(major, &ClusterOptions::default())?;
    let vault = Vault::local(&cluster)?;
    cluster.create_db("shop")?;
    cluster.psql("shop", SHOP)?;
    cluster.psql("shop", "ALTER DATABASE shop OWNER TO \"Shop owner\"")?;
    let id = id_of(&vault.back_up("shop", &[])?)?.to_owned();
    Ok(Shop { cluster, vault, id })
}

impl Shop {
    fn restore(&self, target: &str, more: &[&str]) -> Result<Value> {
        let restore = self.vault.restore(&self.id, target, more)?;
        let compare = &restore["compare"];
        assert_eq!(compare["tables"], compare["equal"], "{restore}");
        let definitions = &compare["definitions"];
        assert_eq!(definitions["expected"], definitions["equal"], "{restore}");
        let warnings = restore["warnings"].as_array().context("warnings")?;
        // The sample has a type that no server can sort.
        let about = |text: &Value| text.to_string().contains("no statistics for");
        assert!(warnings.iter().all(about), "{warnings:?}");
        Ok(restore)
    }

    /// Fails with a code and returns the message with its causes, and the hint.
    fn refused(&self, code: i32, more: &[&str]) -> Result<(String, String)> {
        let arguments = ["restore", &self.id, "--target-db=refused", "--json"];
        let run = self.vault.read(&[&arguments, more].concat())?.exits(code)?;
        let error = &run.json()?["error"];
        assert!(!self.cluster.has_db("refused")?);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let causes = error["causes"].as_array().context("causes")?;
        let words: Vec<String> = causes.iter().map(text).collect();
        let message = format!("{}: {}", text(&error["message"]), words.join(": "));
        Ok((message, text(&error["hint"])))
    }

    fn query(&self, database: &str, sql: &str) -> Result<String> {
        self.cluster.query(database, sql)
    }

    fn owner(&self, database: &str) -> Result<String> {
        let sql =
            "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()";
        self.query(database, sql)
    }

    fn roles(&self) -> Result<BTreeSet<String>> {
        let names = self.query(
            "postgres",
            "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_'",
        )?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Forgets the roles of the source, with everything of theirs.
    fn forget(&self, roles: &[&str]) -> Result<()> {
        if self.cluster.has_db("shop")? {
            self.cluster.drop_db("shop")?;
        }
        for role in roles {
            self.cluster
                .psql("postgres", &format!("DROP ROLE {role}"))?;
        }
        Ok(())
    }
}

#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn one_role_owns_everything(#[values(14, 17, 18)] major: u16) -> Result<()> {
    let shop = shop(major)?;
    let (message, _) = shop.refused(7, &["--owner", "the owner"])?;
    assert!(
        message.contains("roles that the backup needs do not exist: the owner"),
        "{message}"
    );
    shop.cluster.psql("postgres", "CREATE ROLE \"the owner\"")?;
    let view = shop.restore("all", &["--owner", "the owner"])?;
    let notes = view["notes"].to_string();
    let open = "what the source had closed: FUNCTION f(\\\"to\\\" integer, reader integer)\"";
    assert!(notes.contains(open), "{notes}");
    assert_eq!(
        shop.query("all", ROLES)?,
        "reader, the owner, writer",
        "policies name roles"
    );
    assert_eq!(shop.owner("all")?, "the owner");
    let grants = "SELECT count(*) FROM pg_class WHERE relacl IS NOT NULL AND oid >= 16384";
    assert_eq!(shop.query("all", grants)?, "0");

    // And by a login that is no superuser.
    shop.cluster
        .psql("postgres", "CREATE ROLE restorer LOGIN CREATEDB")?;
    let (message, hint) = shop.refused(7, &["-U", "restorer", "--owner", "the owner"])?;
    assert!(
        message.contains("role restorer cannot act as the owners the owner"),
        "{message}"
    );
    assert!(hint.contains("GRANT"), "{hint}");
    shop.cluster
        .psql("postgres", "GRANT \"the owner\" TO restorer")?;
    shop.restore("again", &["-U", "restorer", "--owner", "the owner"])?;
    assert_eq!(shop.owner("again")?, "the owner");
    let owner = "SELECT pg_get_userbyid(lomowner) FROM pg_largeobject_metadata";
    assert_eq!(shop.query("again", owner)?, "the owner");
    let owner = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'customer'";
    assert_eq!(shop.query("again", owner)?, "the owner");
    Ok(())
}

/// The limit is for those who use the database; a restore has more sessions than that.
#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn a_connection_limit_comes_along_and_stops_no_restore(#[values(14, 18)] major: u16) -> Result<()> {
    let cluster = Cluster::start(major, &ClusterOptions::default())?;
    let vault = Vault::local(&cluster)?;
    cluster.create_db("narrow")?;
    cluster.psql(
        "narrow",
        "CREATE ROLE restorer LOGIN CREATEDB; ALTER DATABASE narrow CONNECTION LIMIT 1;
         ALTER DATABASE narrow OWNER TO restorer",
    )?;
    for table in 0..8 {
        let sql = format!("CREATE TABLE t{table} AS SELECT generate_series(1, 20000) AS a");
        cluster.psql("narrow", &sql)?;
    }
    let id = id_of(&vault.back_up("narrow", &[])?)?.to_owned();
    let more = ["-U", "restorer", "--no-owner", "-j", "4"];
    let view = vault.restore(&id, "wide", &more)?;
    assert_eq!(view["compare"]["equal"], json!(8), "{view}");
    let limit = "SELECT datconnlimit FROM pg_database WHERE datname = 'wide'";
    assert_eq!(cluster.query("postgres", limit)?, "1");
    Ok(())
}

#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn roles_are_renamed(#[values(14, 17, 18)] major: u16) -> Result<()> {
    let shop = shop(major)?;
    let (message, _) = shop.refused(2, &["--map-role", "Shopowner=x"])?;
    assert!(
        message.contains("role Shopowner is to be renamed"),
        "{message}"
    );
    // Whoever may do what two could is none of them.
    let (message, _) = shop.refused(2, &["--map-role", "reader=writer"])?;
    assert!(
        message.contains("reader and writer would both be writer"),
        "{message}"
    );
    shop.forget(&["\"Shop owner\"", "reader"])?;
    shop.cluster.psql(
        "postgres",
        "CREATE ROLE \"new=owner\"; CREATE ROLE \"New \"\"reader\"",
    )?;
    let map = [
        "--map-role",
        "Shop owner=new=owner",
        "--map-role",
        "reader=New \"reader",
    ];
    shop.restore("all", &map)?;
    assert_eq!(
        shop.query("all", ROLES)?,
        "New \"reader, new=owner, other, writer"
    );
    assert_eq!(shop.owner("all")?, "new=owner");
    let acl = "SELECT relacl FROM pg_class WHERE relname = 'customer'";
    let acl = shop.query("all", acl)?;
    assert!(acl.contains("New \\\"\\\"reader\\\"=r*/"), "{acl}");
    assert!(acl.contains("writer=w/"), "{acl}");
    let policy = "SELECT array_to_string(roles, '+') FROM pg_policies";
    assert_eq!(shop.query("all", policy)?, "New \"reader+writer");
    let object = "SELECT pg_get_userbyid(lomowner) || lomacl::text FROM pg_largeobject_metadata";
    let object = shop.query("all", object)?;
    assert!(
        object.starts_with("new=owner") && object.contains("reader"),
        "{object}"
    );
    Ok(())
}

#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn missing_roles_are_made_when_wanted(#[values(14, 16, 18)] major: u16) -> Result<()> {
    let shop = shop(major)?;
    shop.forget(&["\"Shop owner\"", "reader", "writer", "other"])?;
    let before = shop.roles()?;
    let (message, hint) = shop.refused(7, &[])?;
    assert!(
        message.contains(
            "roles that the backup needs do not exist: Shop owner, other, reader, writer"
        ),
        "{message}"
    );
    assert!(hint.contains("--create-roles"), "{hint}");
    shop.cluster
        .psql("postgres", "CREATE ROLE restorer LOGIN CREATEDB")?;
    let (message, _) = shop.refused(7, &["-U", "restorer", "--create-roles"])?;
    assert!(
        message.contains("role restorer may not create the roles that are missing"),
        "{message}"
    );
    let (message, _) = shop.refused(7, &["--no-owner"])?;
    assert!(
        message.contains("policies or user mappings name"),
        "{message}"
    );
    assert_eq!(shop.roles()?.len(), before.len() + 1);

    let restore = shop.restore("all", &["--create-roles"])?;
    let notes = restore["notes"].as_array().context("notes")?;
    let note = "roles created, which cannot log in: Shop owner, other, reader, writer";
    assert!(notes.contains(&json!(note)), "{notes:?}");
    let flags = "SELECT count(*) FROM pg_authid WHERE rolname IN ('Shop owner', 'other', 'reader',
        'writer') AND NOT rolcanlogin AND NOT rolsuper AND rolpassword IS NULL";
    assert_eq!(shop.query("postgres", flags)?, "4");
    shop.cluster.drop_db("all")?;
    shop.forget(&["\"Shop owner\"", "reader", "writer", "other"])?;

    // A login that may make roles may act as them; nothing else is needed.
    shop.cluster
        .psql("postgres", "ALTER ROLE restorer CREATEROLE")?;
    shop.restore("all", &["-U", "restorer", "--create-roles"])?;
    assert_eq!(shop.owner("all")?, "Shop owner");
    shop.cluster.drop_db("all")?;
    shop.forget(&["\"Shop owner\"", "reader", "writer", "other"])?;
    let mut expected = before;
    expected.insert("restorer".to_owned());
    assert_eq!(shop.roles()?, expected);
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_restore_that_fails_takes_its_roles_with_it() -> Result<()> {
    let shop = shop(17)?;
    shop.forget(&["\"Shop owner\"", "reader", "writer", "other"])?;
    let before = shop.roles()?;
    let root = shop.vault.cli.local_root();
    let keys = shop.vault.keys_stored()?;
    let key = keys
        .iter()
        .find(|key| key.contains("data-rest"))
        .context("a part")?;
    std::fs::remove_file(root.join(key))?;
    let (message, _) = shop.refused(6, &["--create-roles"])?;
    assert!(message.contains("data-rest"), "{message}");
    assert_eq!(shop.roles()?, before);
    Ok(())
}

/// Of roles and extensions, only those count that the chosen entries need.
#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn some_tables_need_some_roles_only() -> Result<()> {
    let shop = shop(18)?;
    shop.cluster.psql(
        "shop",
        "CREATE EXTENSION hstore SCHEMA aside; ALTER DATABASE shop OWNER TO other",
    )?;
    let id = id_of(&shop.vault.back_up("shop", &[])?)?.to_owned();
    let shop = Shop { id, ..shop };
    shop.forget(&["\"Shop owner\"", "reader", "writer"])?;
    let extension = shop
        .cluster
        .bin_dir()
        .join("../share/extension/hstore.control");
    assert!(extension.exists(), "{}", extension.display());
    let (message, _) = shop.refused(7, &["--table", "shop.customer"])?;
    assert!(
        message.contains("do not exist: Shop owner, reader, writer"),
        "{message}"
    );
    let restore = shop.restore("some", &["--table", "aside.t"])?;
    assert_eq!(restore["compare"]["tables"], 1);
    Ok(())
}

/// Nearly every kind of object, some of which only superusers may own.
#[rstest]
#[ignore = "needs servers: run ./scripts/test"]
fn everything_changes_hands(#[values(14, 15, 16, 17, 18)] major: u16) -> Result<()> {
    let cluster = Cluster::start(major, &ClusterOptions::default())?;
    let vault = Vault::local(&cluster)?;
    cluster.create_db("everything")?;
    cluster.psql("everything", &sample::everything_sql(major))?;
    // A materialized view of rows that its owner may not see cannot be filled.
    cluster.psql(
        "everything",
        "ALTER TABLE app.customer NO FORCE ROW LEVEL SECURITY",
    )?;
    cluster.psql("postgres", "CREATE ROLE heir; CREATE ROLE \"Other heir\"")?;
    let id = id_of(&vault.back_up("everything", &[])?)?.to_owned();
    let shop = Shop { cluster, vault, id };
    shop.restore("one", &["--owner", "heir"])?;
    let owners = "SELECT string_agg(DISTINCT pg_get_userbyid(relowner), ', ') FROM pg_class
        WHERE relnamespace = 'app'::regnamespace";
    assert_eq!(shop.query("one", owners)?, "heir");
    let renamed = [
        "--map-role",
        "sample_owner=heir",
        "--map-role",
        "sample_writer=Other heir",
    ];
    shop.restore("renamed", &renamed)?;
    let roles = shop.query("renamed", ROLES)?;
    assert!(
        roles.contains("heir") && roles.contains("Other heir"),
        "{roles}"
    );
    assert!(
        !roles.contains("sample_owner") && !roles.contains("sample_writer"),
        "{roles}"
    );
    assert!(roles.contains("sample_reader"), "{roles}");
    Ok(())
}
