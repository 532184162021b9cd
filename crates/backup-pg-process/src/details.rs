//! What a dump tells its restore about the database itself: everything that `pg_dump` without
//! `--create` leaves out. Travels in `SourceFacts::details`, encrypted with the other facts.

use serde::{Deserialize, Serialize};

/// The database as it was when it was dumped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DatabaseDetails {
    /// Name.
    pub name: String,
    /// `server_version_num`, such as 170002.
    pub server_version_num: u32,
    /// Encoding as the server names it, such as `UTF8`.
    pub encoding: String,
    /// `datcollate`.
    pub collate: String,
    /// `datctype`.
    pub ctype: String,
    /// Which library sorts.
    pub locale_provider: LocaleProvider,
    /// `daticulocale` or `datlocale`, for the other providers.
    pub locale: Option<String>,
    /// `daticurules`.
    pub icu_rules: Option<String>,
    /// `datcollversion`: a restore under another version sorts differently.
    pub collation_version: Option<String>,
    /// Owner.
    pub owner: String,
    /// Grants; `None` when they are the built-in ones.
    pub grants: Option<Vec<DatabaseGrant>>,
    /// `ALTER DATABASE … SET` and `ALTER ROLE … IN DATABASE … SET`.
    pub settings: Vec<DatabaseSetting>,
    /// Comment.
    pub comment: Option<String>,
    /// Default tablespace, if not `pg_default`.
    pub tablespace: Option<String>,
    /// `datconnlimit`; -1 is none.
    pub connection_limit: i32,
    /// Extensions.
    pub extensions: Vec<ExtensionDetails>,
    /// Roles that own something or are granted something, also by default privileges and policies.
    pub roles: Vec<String>,
    /// Those of them that policies and user mappings name: needed even without owners and grants.
    pub named_roles: Vec<String>,
    /// Large objects.
    pub large_objects: u64,
    /// `lc_monetary` that the rows were printed under: `money` must be read under the same.
    pub lc_monetary: String,
    /// The moment.
    pub snapshot: SnapshotDetails,
    /// `system_identifier` of the cluster, if it could be read.
    pub system_identifier: Option<String>,
}

/// Which library sorts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LocaleProvider {
    /// The C library.
    #[default]
    Libc,
    /// ICU, since 15.
    Icu,
    /// PostgreSQL itself, since 17.
    Builtin,
}

/// One grant on the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseGrant {
    /// Who has it; `None` is everybody.
    pub grantee: Option<String>,
    /// Who gave it.
    pub grantor: String,
    /// `CONNECT`, `CREATE` or `TEMPORARY`.
    pub privilege: String,
    /// Whether it may be passed on.
    pub grantable: bool,
}

/// One setting that belongs to the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseSetting {
    /// For this role only.
    pub role: Option<String>,
    /// Name.
    pub name: String,
    /// Value as `pg_db_role_setting` has it: of a list such as `search_path`, each member is
    /// quoted as an identifier where it must be.
    pub value: String,
}

/// One extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtensionDetails {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// The schema that it lives in.
    pub schema: String,
}

/// The moment that a dump shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotDetails {
    /// Server time in RFC 3339.
    pub time: String,
    /// Position in the write-ahead log, at or just after the moment.
    pub lsn: Option<String>,
    /// `pg_current_snapshot()`.
    pub txid_snapshot: Option<String>,
    /// Whether the server is a standby.
    pub in_recovery: bool,
}
