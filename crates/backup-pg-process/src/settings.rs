//! [`PgSettingsDumper`]: how a server is configured, as one JSON document.

use async_trait::async_trait;
use backup_core::body::body_of;
use backup_core::dumper::{DumpRequest, DumpSession, Dumper, PartPlan, PartStream, SourceFacts};
use backup_core::error::{ErrorKind, PortError};
use backup_core::inspector::Inspector as _;
use backup_core::manifest::{PartFormat, PartKind, PartName};
use serde_json::{Map, Value};
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use crate::{ConnectionConfig, Error, PgInspector, ToolVersion, session};

/// What backups of it are called where others have the name of their database.
const DATABASE: &str = "configuration";

/// What is asked, and since which major. Each answer is one JSON array in an order of its own, so that
/// two documents can be compared line by line.
const QUESTIONS: [(&str, u32, &str); 5] = [
    (
        "settings",
        0,
        "SELECT name, setting, unit, source, sourcefile, sourceline, pending_restart
         FROM pg_settings WHERE source NOT IN ('default', 'override', 'client', 'session')
         ORDER BY name",
    ),
    (
        "role_and_database_settings",
        0,
        "SELECT d.datname AS database, r.rolname AS role, s.setconfig AS settings
         FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase
         LEFT JOIN pg_roles r ON r.oid = s.setrole ORDER BY 1 NULLS FIRST, 2 NULLS FIRST",
    ),
    (
        "files",
        0,
        "SELECT sourcefile, sourceline, name, setting, applied, error FROM pg_file_settings
         ORDER BY seqno",
    ),
    (
        "hba",
        0,
        "SELECT * FROM pg_hba_file_rules ORDER BY line_number",
    ),
    (
        "ident",
        15,
        "SELECT * FROM pg_ident_file_mappings ORDER BY line_number",
    ),
];

/// Whose files are shown in `pg_settings`.
const READS_ALL: &str = "SELECT pg_has_role(current_user, 'pg_read_all_settings', 'USAGE')";

/// Asks one server.
#[derive(Debug, Clone)]
pub struct PgSettingsDumper {
    connection: ConnectionConfig,
}

impl PgSettingsDumper {
    /// A dumper that connects when it is opened.
    #[must_use]
    pub fn new(connection: ConnectionConfig) -> Self {
        Self { connection }
    }

    async fn ask(&self) -> Result<Session, Error> {
        let mut connection = session::connect(&self.connection).await?;
        let number: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int")
            .fetch_one(&mut connection)
            .await
            .map_err(Error::query("ask for the server's version"))?;
        let number = u32::try_from(number).unwrap_or_default();
        let version = ToolVersion::from_num(number);
        let mut document = Map::new();
        let mut warnings = Vec::new();
        document.insert("server_version".to_owned(), version.to_string().into());
        for (name, since, query) in QUESTIONS {
            if version.major < since {
                continue;
            }
            let found = rows(&mut connection, query).await;
            let found = match found.map_err(|error| error_of(name, error)) {
                Ok(found) => found,
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    warnings.push(not_readable(name));
                    Value::Null
                }
                Err(error) => return Err(error),
            };
            document.insert(name.to_owned(), found);
        }
        let reads_all: bool = sqlx::query_scalar(READS_ALL)
            .fetch_one(&mut connection)
            .await
            .map_err(Error::query("ask what the login may read"))?;
        if !reads_all {
            let text = "settings that only some may see are missing: GRANT pg_read_all_settings TO the \
                        login";
            warnings.push(text.to_owned());
        }
        let text = serde_json::to_vec_pretty(&Value::Object(document)).map_err(|e| {
            Error::InvalidInput {
                message: format!("the configuration has no JSON form: {e}"),
            }
        })?;
        Session::new(text, version.to_string(), warnings)
    }
}

fn error_of(name: &str, error: sqlx::Error) -> Error {
    Error::query(format!("ask for {name}"))(error)
}

fn not_readable(name: &str) -> String {
    let right = match name {
        "hba" => "GRANT SELECT ON pg_hba_file_rules, GRANT EXECUTE ON FUNCTION pg_hba_file_rules()",
        "ident" => {
            "GRANT SELECT ON pg_ident_file_mappings, GRANT EXECUTE ON FUNCTION \
             pg_ident_file_mappings()"
        }
        _ => {
            "GRANT SELECT ON pg_file_settings, GRANT EXECUTE ON FUNCTION pg_show_all_file_settings()"
        }
    };
    format!("{name} is missing, which the login may not read: {right} TO the login")
}

async fn rows(connection: &mut PgConnection, query: &'static str) -> Result<Value, sqlx::Error> {
    let wrapped = format!(
        "SELECT coalesce(json_agg(row_to_json(found)), '[]')::text FROM ({query}) AS found"
    );
    let text: String = sqlx::query_scalar(sqlx::AssertSqlSafe(wrapped))
        .fetch_one(connection)
        .await?;
    serde_json::from_str(&text).map_err(|e| sqlx::Error::Decode(e.into()))
}

#[async_trait]
impl Dumper for PgSettingsDumper {
    async fn open(
        &self,
        _request: &DumpRequest,
        cancel: &CancellationToken,
    ) -> Result<Box<dyn DumpSession>, PortError> {
        tokio::select! {
            session = self.ask() => Ok(Box::new(session?)),
            () = cancel.cancelled() => Err(PortError::cancelled()),
        }
    }
}

#[derive(Debug)]
struct Session {
    text: Vec<u8>,
    source: SourceFacts,
    parts: Vec<PartPlan>,
}

impl Session {
    fn new(text: Vec<u8>, version: String, warnings: Vec<String>) -> Result<Self, Error> {
        let name = PartName::new("settings").map_err(|e| Error::InvalidInput {
            message: e.to_string(),
        })?;
        Ok(Self {
            source: SourceFacts {
                database: DATABASE.to_owned(),
                tool_version: version.clone(),
                server_version: version,
                filtered: false,
                details: Value::Null,
                warnings,
            },
            parts: vec![PartPlan {
                name,
                kind: PartKind::Settings,
                format: PartFormat::Json,
                estimated_bytes: text.len() as u64,
            }],
            text,
        })
    }
}

#[async_trait]
impl DumpSession for Session {
    fn source(&self) -> &SourceFacts {
        &self.source
    }

    fn parts(&self) -> &[PartPlan] {
        &self.parts
    }

    async fn part(
        &self,
        part: &PartPlan,
        _cancel: &CancellationToken,
    ) -> Result<PartStream, PortError> {
        Ok(PgInspector.inspect(part.format, body_of(self.text.clone())))
    }

    async fn finish(&self) -> Result<(), PortError> {
        Ok(())
    }
}
