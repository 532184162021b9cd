//! The target's definitions, as `pg_dump` sees them.

use std::path::PathBuf;

use backup_core::error::{ErrorKind, PortError};
use backup_core::facts::TableName;
use backup_core::restorer::Definitions;
use backup_pg_archive::{ArchiveReport, Inspector};
use backup_process::ToolEnv;
use backup_process::child::{ToolCommand, stdout_body};
use futures::StreamExt as _;
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use super::Expected;
use crate::Error;
use crate::error::judged;
use crate::inspector::table_name;
use crate::restorer::error::RestoreError;

/// Sections by name as in the dump of a source: `--schema-only` would leave out that materialized
/// views are filled. The database is named by the environment only.
const ARGS: [&str; 6] = [
    "--format=custom",
    "--compress=0",
    "--no-password",
    "--section=pre-data",
    "--section=post-data",
    "--lock-wait-timeout=60000",
];

/// `pg_dump` leaves these out, as if they were not there.
const INVALID: &str = "
SELECT convert_to(n.nspname, getdatabaseencoding()), convert_to(c.relname, getdatabaseencoding())
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT (i.indisvalid AND i.indisready) AND c.relkind = 'i' AND n.nspname !~ '^pg_(toast|temp)'";

/// How to compare the target's definitions.
#[derive(Debug)]
pub(crate) struct TargetDump {
    /// `pg_dump`, of the target's major.
    pub(crate) program: PathBuf,
    /// Leads to the target.
    pub(crate) env: ToolEnv,
    /// What has to be there.
    pub(crate) expected: Expected,
}

impl TargetDump {
    /// Dumps and compares.
    pub(crate) async fn compare(
        &self,
        mut connection: PgConnection,
        cancel: &CancellationToken,
    ) -> Result<Definitions, RestoreError> {
        let archive = self.dump(cancel).await?;
        let rows: Vec<(Vec<u8>, Vec<u8>)> = sqlx::query_as(INVALID)
            .fetch_all(&mut connection)
            .await
            .map_err(Error::query("list the invalid indexes"))?;
        let names = rows.iter().map(|(schema, name)| table_name(schema, name));
        let invalid: Vec<TableName> = names.collect();
        Ok(self
            .expected
            .compare(&archive.header, &archive.entries, &invalid))
    }

    async fn dump(&self, cancel: &CancellationToken) -> Result<ArchiveReport, RestoreError> {
        let command = ToolCommand::new(&self.program, self.env.clone()).args(ARGS);
        let (mut body, _) = stdout_body(&command, judged, cancel)?;
        let mut inspector = Inspector::new();
        let malformed = |source| {
            let error = PortError::new(ErrorKind::ToolFailed, "the archive is not complete");
            RestoreError::Definitions(error.with_source(source))
        };
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| {
                let message = "cannot read from pg_dump";
                RestoreError::Definitions(PortError::from_io(
                    error,
                    ErrorKind::Unavailable,
                    message,
                ))
            })?;
            inspector.push(&chunk).map_err(malformed)?;
        }
        inspector.finish().map_err(malformed)
    }
}
