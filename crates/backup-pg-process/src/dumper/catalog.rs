//! What the server's catalogs say: tables to lock and plan for, and the database itself.

use serde::Deserialize;
use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use crate::details::{
    DatabaseDetails, DatabaseGrant, DatabaseSetting, ExtensionDetails, LocaleProvider,
    SnapshotDetails,
};
use crate::error::Error;
use crate::mappings;
use crate::session::system_identifier;

/// One table that holds rows, or the head of a partitioned one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) oid: u32,
    /// Names in the database's own encoding, as `pg_dump` writes them.
    pub(super) schema: Vec<u8>,
    pub(super) name: Vec<u8>,
    /// Both as SQL; absent where they are no text in any encoding.
    pub(super) sql_name: Option<String>,
    pub(super) form: TableForm,
    /// A policy would hide rows from this login.
    pub(super) hides_rows: bool,
    /// This login may lock it.
    pub(super) may_lock: bool,
    /// Names of its columns and owner are the same in the archive's encoding and in UTF-8.
    pub(super) plain_inside: bool,
    /// Bytes of the rows themselves, and with their long values. 0 until measured.
    pub(super) heap_bytes: u64,
    pub(super) bytes: u64,
}

/// How a table's rows can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TableForm {
    /// It gives none: it is the head of a partitioned table, or unlogged and this is a standby.
    Empty,
    /// By `pg_dump` only: it is no heap, or `pg_dump` loads it through the head of its partitions.
    Whole,
    /// In ranges of blocks too.
    Blocks,
}

impl Table {
    /// The names as text where they are the same in the archive's encoding and in UTF-8.
    pub(super) fn plain_names(&self, encoding: &str) -> Option<(&str, &str)> {
        let names = (
            std::str::from_utf8(&self.schema).ok()?,
            std::str::from_utf8(&self.name).ok()?,
        );
        let same = encoding == "UTF8" || (names.0.is_ascii() && names.1.is_ascii());
        same.then_some(names)
    }
}

/// The first column of the only row, as text.
pub(super) async fn text(
    connection: &mut PgConnection,
    query: &'static str,
    operation: &str,
) -> Result<String, Error> {
    sqlx::query_scalar(query)
        .fetch_one(connection)
        .await
        .map_err(Error::query(operation))
}

/// `server_version_num`.
pub(super) async fn version_num(connection: &mut PgConnection) -> Result<u32, Error> {
    let version = text(connection, "SHOW server_version_num", "read the version").await?;
    version.parse().map_err(|_| Error::InvalidInput {
        message: format!("server version {version:?} is not a number"),
    })
}

/// Every table whose rows `pg_dump` will read, without locking any: sizes are not asked for here.
///
/// Members of extensions are left to `pg_dump`, which knows which of them hold configuration.
const TABLES: &str = "
SELECT c.oid::int8 AS oid,
       convert_to(n.nspname, getdatabaseencoding()) AS schema,
       convert_to(c.relname, getdatabaseencoding()) AS name,
       textsend(format('%I.%I', n.nspname, c.relname)) AS sql_name,
       CASE WHEN c.relkind = 'p' OR (c.relpersistence = 'u' AND pg_is_in_recovery()) THEN 'empty'
            WHEN a.amname = 'heap'
             AND NOT EXISTS (SELECT FROM pg_partition_ancestors(c.oid) p
                             JOIN pg_partitioned_table t ON t.partrelid = p.relid
                             WHERE t.partstrat = 'h') THEN 'blocks'
            ELSE 'whole' END AS form,
       row_security_active(c.oid) AS hides_rows,
       coalesce(has_schema_privilege(n.oid, 'USAGE')
                AND has_table_privilege(c.oid, 'SELECT'), false) AS may_lock,
       getdatabaseencoding() = 'UTF8'
       OR (pg_get_userbyid(c.relowner) ~ '^[ -~]*$'
           AND NOT EXISTS (SELECT FROM pg_attribute t
                           WHERE t.attrelid = c.oid AND t.attnum > 0 AND NOT t.attisdropped
                             AND t.attname !~ '^[ -~]*$')) AS plain_inside
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_am a ON a.oid = c.relam
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND NOT EXISTS (SELECT FROM pg_depend d
                  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                    AND d.objsubid = 0 AND d.deptype = 'e')
ORDER BY c.oid";

/// Lists the tables.
pub(super) async fn tables(connection: &mut PgConnection) -> Result<Vec<Table>, Error> {
    let rows = sqlx::query(TABLES).fetch_all(connection).await;
    rows.and_then(|rows| rows.iter().map(table).collect())
        .map_err(Error::query("list the tables"))
}

fn table(row: &sqlx::postgres::PgRow) -> Result<Table, sqlx::Error> {
    let oid: i64 = row.try_get("oid")?;
    let sql_name: Vec<u8> = row.try_get("sql_name")?;
    Ok(Table {
        oid: u32::try_from(oid).unwrap_or_default(),
        schema: row.try_get("schema")?,
        name: row.try_get("name")?,
        sql_name: String::from_utf8(sql_name).ok(),
        form: match row.try_get("form")? {
            "empty" => TableForm::Empty,
            "blocks" => TableForm::Blocks,
            _ => TableForm::Whole,
        },
        hides_rows: row.try_get("hides_rows")?,
        may_lock: row.try_get("may_lock")?,
        plain_inside: row.try_get("plain_inside")?,
        heap_bytes: 0,
        bytes: 0,
    })
}

/// Fills the sizes in. The functions lock what they measure, so only the session that holds the
/// locks may ask: another one would queue behind whoever waits for them.
pub(super) async fn measure(
    connection: &mut PgConnection,
    tables: &mut [Table],
) -> Result<u64, Error> {
    let failed = || Error::query("measure the tables");
    let oids: Vec<i64> = tables.iter().map(|table| i64::from(table.oid)).collect();
    let rows = sqlx::query(
        "SELECT o, coalesce(pg_relation_size(o::oid), 0) AS heap,
                coalesce(pg_table_size(o::oid), 0) AS whole
         FROM unnest($1::int8[]) WITH ORDINALITY AS t(o, n) ORDER BY n",
    )
    .bind(&oids)
    .fetch_all(&mut *connection)
    .await
    .map_err(failed())?;
    for (table, row) in tables.iter_mut().zip(&rows) {
        let heap: i64 = row.try_get("heap").map_err(failed())?;
        let whole: i64 = row.try_get("whole").map_err(failed())?;
        table.heap_bytes = u64::try_from(heap).unwrap_or(0);
        table.bytes = u64::try_from(whole).unwrap_or(0);
    }
    let objects: i64 = sqlx::query_scalar("SELECT pg_relation_size('pg_largeobject')")
        .fetch_one(connection)
        .await
        .map_err(failed())?;
    Ok(u64::try_from(objects).unwrap_or(0))
}

/// A table's columns that hold data of their own, and its owner.
pub(super) async fn columns(
    connection: &mut PgConnection,
    oid: u32,
) -> Result<(Vec<String>, String), Error> {
    let failed = || Error::query("list the columns");
    let columns = sqlx::query_scalar(
        "SELECT attname::text FROM pg_attribute
         WHERE attrelid = $1::int8::oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
         ORDER BY attnum",
    )
    .bind(i64::from(oid))
    .fetch_all(&mut *connection)
    .await
    .map_err(failed())?;
    let owner = sqlx::query_scalar(
        "SELECT pg_get_userbyid(relowner)::text FROM pg_class WHERE oid = $1::int8::oid",
    )
    .bind(i64::from(oid))
    .fetch_one(connection)
    .await
    .map_err(failed())?;
    Ok((columns, owner))
}

/// Everything about the database that lies outside `pg_dump`'s archive, in one row of JSON.
const DETAILS: &str = "
WITH db AS (SELECT * FROM pg_database WHERE datname = current_database())
SELECT jsonb_build_object(
  'database', (SELECT to_jsonb(db) FROM db),
  'owner', (SELECT pg_get_userbyid(datdba) FROM db),
  'encoding', getdatabaseencoding(),
  'tablespace', (SELECT spcname FROM pg_tablespace t JOIN db ON t.oid = db.dattablespace
                 WHERE spcname <> 'pg_default'),
  'comment', (SELECT shobj_description(oid, 'pg_database') FROM db),
  'grants', (SELECT jsonb_agg(jsonb_build_object(
       'grantee', CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee) END,
       'grantor', pg_get_userbyid(a.grantor),
       'privilege', a.privilege_type, 'grantable', a.is_grantable))
     FROM db, aclexplode(db.datacl) a),
  'settings', (SELECT jsonb_agg(jsonb_build_array(r.rolname, setting))
     FROM db JOIN pg_db_role_setting s ON s.setdatabase = db.oid
     LEFT JOIN pg_roles r ON r.oid = s.setrole,
     unnest(s.setconfig) AS setting),
  'extensions', (SELECT jsonb_agg(jsonb_build_object(
       'name', extname, 'version', extversion, 'schema', n.nspname) ORDER BY extname)
     FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace),
  'roles', (SELECT jsonb_agg(DISTINCT name ORDER BY name) FROM (
     SELECT pg_get_userbyid(s.refobjid)::text AS name FROM pg_shdepend s, db
     WHERE s.refclassid = 'pg_authid'::regclass
       AND (s.dbid = db.oid OR s.classid = 'pg_database'::regclass AND s.objid = db.oid)
     UNION SELECT pg_get_userbyid(datdba) FROM db
     UNION SELECT pg_get_userbyid(c.relowner) FROM pg_class c WHERE c.oid >= 16384
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
       AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
     UNION SELECT pg_get_userbyid(p.proowner) FROM pg_proc p WHERE p.oid >= 16384
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
     UNION SELECT pg_get_userbyid(n.nspowner) FROM pg_namespace n WHERE n.oid >= 16384
       AND n.nspname !~ '^pg_'
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = n.oid AND d.deptype = 'e')) r),
  'named_roles', (SELECT jsonb_agg(DISTINCT name ORDER BY name) FROM (
     SELECT pg_get_userbyid(role)::text AS name FROM pg_policy, unnest(polroles) AS role
     WHERE role <> 0
     UNION SELECT usename::text FROM pg_user_mappings WHERE umuser <> 0) r),
  'large_objects', (SELECT count(*) FROM pg_largeobject_metadata),
  'lc_monetary', current_setting('lc_monetary'),
  'snapshot', jsonb_build_object(
     'time', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),
     'lsn', CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                 ELSE pg_current_wal_lsn() END,
     'txid_snapshot', pg_current_snapshot()::text,
     'in_recovery', pg_is_in_recovery()),
  'foreign_tables', (SELECT count(*) FROM pg_foreign_table),
  'unread', (SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relpersistence = 'u'
             AND pg_is_in_recovery()),
  'subscriptions', (SELECT count(subname) FROM pg_subscription s, db WHERE s.subdbid = db.oid),
  'bare_mappings', (SELECT count(*) FROM pg_user_mappings WHERE umoptions IS NULL),
  'reads_mappings', has_table_privilege('pg_user_mapping', 'select'),
  'is_superuser', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
  'reads_passwords', has_table_privilege('pg_authid', 'select')
)::text";

/// What [`DETAILS`] returns.
#[derive(Debug, Deserialize)]
struct Answer {
    database: DatabaseRow,
    owner: String,
    encoding: String,
    tablespace: Option<String>,
    comment: Option<String>,
    grants: Option<Vec<DatabaseGrant>>,
    settings: Option<Vec<(Option<String>, String)>>,
    extensions: Option<Vec<ExtensionDetails>>,
    roles: Option<Vec<String>>,
    named_roles: Option<Vec<String>>,
    large_objects: u64,
    lc_monetary: String,
    snapshot: SnapshotDetails,
    foreign_tables: u64,
    unread: u64,
    subscriptions: u64,
    /// User mappings whose options the login does not see, or that have none.
    bare_mappings: u64,
    reads_mappings: bool,
    is_superuser: bool,
    reads_passwords: bool,
}

/// A row of `pg_database`; the columns differ by version.
#[derive(Debug, Deserialize)]
struct DatabaseRow {
    datname: String,
    datcollate: String,
    datctype: String,
    datconnlimit: i32,
    datlocprovider: Option<String>,
    /// 15 and 16; 17 has `datlocale`.
    daticulocale: Option<String>,
    datlocale: Option<String>,
    daticurules: Option<String>,
    datcollversion: Option<String>,
}

/// The database, and what the login can see.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) details: DatabaseDetails,
    pub(super) warnings: Vec<String>,
    pub(super) reads_passwords: bool,
}

/// Reads the details within the snapshot of the connection.
pub(super) async fn details(
    connection: &mut PgConnection,
    version_num: u32,
    names_all: bool,
) -> Result<Found, Error> {
    let operation = "read the database's properties";
    let json = text(connection, DETAILS, operation).await?;
    let mut answer: Answer = serde_json::from_str(&json).map_err(|source| Error::Query {
        operation: operation.to_owned(),
        source: sqlx::Error::Decode(source.into()),
    })?;
    if answer.bare_mappings > 0 && answer.reads_mappings {
        answer.bare_mappings = mappings::hidden(connection).await?;
    }
    let warnings = warnings(&answer, names_all);
    let reads_passwords = answer.reads_passwords;
    let mut details = into_details(answer, version_num);
    details.system_identifier = system_identifier(connection).await?;
    Ok(Found {
        details,
        warnings,
        reads_passwords,
    })
}

/// What is not as the server has it. A filter that names what is dumped leaves out all that has no schema.
fn warnings(answer: &Answer, names_all: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if answer.foreign_tables > 0 {
        warnings.push(format!(
            "{} foreign tables: their rows live elsewhere and are not in the backup",
            answer.foreign_tables
        ));
    }
    if answer.unread > 0 {
        warnings.push(format!(
            "{} unlogged tables are in the backup without their rows: a standby has none of them",
            answer.unread
        ));
    }
    if answer.subscriptions > 0 && !answer.is_superuser && !names_all {
        warnings.push(format!(
            "{} subscriptions are not in the backup: only a superuser can dump them",
            answer.subscriptions
        ));
    }
    if answer.bare_mappings > 0 && !answer.is_superuser && !names_all {
        warnings.push(format!(
            "the options of {} user mappings (names and passwords at other servers), if they have any, \
             are not in the backup: only a superuser can dump them",
            answer.bare_mappings
        ));
    }
    warnings
}

fn into_details(answer: Answer, version_num: u32) -> DatabaseDetails {
    let database = answer.database;
    let settings = answer.settings.unwrap_or_default().into_iter();
    DatabaseDetails {
        name: database.datname,
        server_version_num: version_num,
        encoding: answer.encoding,
        collate: database.datcollate,
        ctype: database.datctype,
        locale_provider: match database.datlocprovider.as_deref() {
            Some("i") => LocaleProvider::Icu,
            Some("b") => LocaleProvider::Builtin,
            _ => LocaleProvider::Libc,
        },
        locale: database.datlocale.or(database.daticulocale),
        icu_rules: database.daticurules,
        collation_version: database.datcollversion,
        owner: answer.owner,
        grants: answer.grants,
        settings: settings
            .map(|(role, setting)| {
                let (name, value) = setting.split_once('=').unwrap_or((&setting, ""));
                DatabaseSetting {
                    role,
                    name: name.to_owned(),
                    value: value.to_owned(),
                }
            })
            .collect(),
        comment: answer.comment,
        tablespace: answer.tablespace,
        connection_limit: database.datconnlimit,
        extensions: answer.extensions.unwrap_or_default(),
        roles: answer.roles.unwrap_or_default(),
        named_roles: answer.named_roles.unwrap_or_default(),
        large_objects: answer.large_objects,
        lc_monetary: answer.lc_monetary,
        snapshot: answer.snapshot,
        system_identifier: None,
    }
}
