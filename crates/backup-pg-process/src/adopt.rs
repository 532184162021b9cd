//! [`PgAdopter`]: a dump that somebody else took with `pg_dump`, made a backup like any other.
//!
//! A custom archive becomes two parts: the archive itself, untouched to the byte, which is where rows
//! are loaded from; and its definitions once more, as an archive of their own, which is how every
//! restore wants them. A dump in tar or SQL form is kept as it is: its completeness is checked, and
//! nothing can be made of it here but the file.

mod details;
mod form;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::body::{BodyStream, body_of};
use backup_core::dumper::{DumpRequest, DumpSession, Dumper, PartPlan, PartStream, SourceFacts};
use backup_core::error::{ErrorKind, PortError};
use backup_core::inspector::Inspector as _;
use backup_core::manifest::{PartFormat, PartKind, PartName};
use backup_pg_archive::{ArchiveReport, DataState, Inspector, Section, encode_contents};
use chrono::NaiveDateTime;
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::PgInspector;
use form::Form;

/// A file with a dump, clear of what it may have been packed with.
pub trait DumpFile: fmt::Debug + Send + Sync {
    /// Its bytes from the beginning; more than once.
    ///
    /// # Errors
    /// When it cannot be opened.
    fn open(&self) -> Result<BodyStream, PortError>;

    /// Its length, as far as it is known.
    fn bytes(&self) -> u64;
}

/// What a look at a dump finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundDump {
    /// The database, if the dump names it.
    pub database: Option<String>,
    /// When it began, by the clock on the wall of the host that dumped it: which zone that was, no dump
    /// says.
    pub created: Option<NaiveDateTime>,
}

/// Makes a backup of one file.
#[derive(Debug)]
pub struct PgAdopter {
    file: Arc<dyn DumpFile>,
    /// What the database is called where the dump does not say.
    database: String,
}

impl PgAdopter {
    /// Reads `file` when it is opened; `database` is what a dump is of that does not say.
    #[must_use]
    pub fn new(file: Arc<dyn DumpFile>, database: impl Into<String>) -> Self {
        Self {
            file,
            database: database.into(),
        }
    }

    /// What the dump says of itself at its beginning, without reading it all.
    ///
    /// # Errors
    /// `InvalidInput` when it is none.
    pub async fn look(&self) -> Result<FoundDump, PortError> {
        let mut body = self.file.open()?;
        let begin = form::beginning(&mut body).await?;
        match Form::of(&begin)? {
            Form::Custom => {
                let mut inspector = Inspector::new();
                inspector.push(&begin).map_err(damaged)?;
                while inspector.contents().is_none()
                    && let Some(chunk) = body.next().await
                {
                    inspector
                        .push(&chunk.map_err(unreadable)?)
                        .map_err(damaged)?;
                }
                let header = inspector.contents().map(|contents| &contents.header);
                Ok(FoundDump {
                    database: header.and_then(|h| Some(h.database.as_ref()?.to_string())),
                    created: header.and_then(|h| details::created(&h.created)),
                })
            }
            Form::Tar | Form::Sql => Ok(FoundDump {
                database: None,
                created: None,
            }),
        }
    }

    /// Reads an archive to its end, which shows whether anything is missing.
    async fn whole(&self, cancel: &CancellationToken) -> Result<ArchiveReport, PortError> {
        let mut body = self.file.open()?;
        let mut inspector = Inspector::new();
        loop {
            let chunk = tokio::select! {
                chunk = body.next() => chunk,
                () = cancel.cancelled() => return Err(PortError::cancelled()),
            };
            match chunk {
                Some(chunk) => inspector
                    .push(&chunk.map_err(unreadable)?)
                    .map_err(damaged)?,
                None => return inspector.finish().map_err(damaged),
            }
        }
    }
}

fn damaged(error: backup_pg_archive::ArchiveError) -> PortError {
    let what = "the dump is not complete and well-formed, and no backup is made of it";
    PortError::new(ErrorKind::InvalidInput, what).with_source(error)
}

fn unreadable(error: std::io::Error) -> PortError {
    PortError::from_io(error, ErrorKind::InvalidInput, "the file cannot be read")
}

#[async_trait]
impl Dumper for PgAdopter {
    async fn open(
        &self,
        _request: &DumpRequest,
        cancel: &CancellationToken,
    ) -> Result<Box<dyn DumpSession>, PortError> {
        let mut body = self.file.open()?;
        let begin = form::beginning(&mut body).await?;
        drop(body);
        let form = Form::of(&begin)?;
        let plan = |name: &str, kind, format, bytes| {
            Ok::<_, PortError>(PartPlan {
                name: PartName::new(name)?,
                kind,
                format,
                estimated_bytes: bytes,
            })
        };
        let bytes = self.file.bytes();
        let mut warnings = Vec::new();
        let mut source = SourceFacts {
            database: self.database.clone(),
            server_version: "unknown".to_owned(),
            tool_version: "unknown".to_owned(),
            filtered: false,
            details: serde_json::Value::Null,
            warnings: Vec::new(),
        };
        let mut definitions = Vec::new();
        let mut parts = Vec::new();
        match form {
            Form::Custom => {
                let archive = self.whole(cancel).await?;
                source.filtered = lacks_rows(&archive)?;
                if source.filtered {
                    warnings.push("the dump has definitions and no rows".to_owned());
                }
                let found = details::details(&archive, &mut warnings);
                source.database.clone_from(&found.name);
                source.server_version = details::version(archive.header.server_version.as_ref());
                source.tool_version = details::version(archive.header.dump_version.as_ref());
                source.details = serde_json::to_value(&found).map_err(|e| {
                    PortError::new(ErrorKind::Internal, "describe the database").with_source(e)
                })?;
                definitions = definitions_of(archive);
                let length = definitions.len() as u64;
                parts.push(plan(
                    "schema",
                    PartKind::Schema,
                    PartFormat::Custom,
                    length,
                )?);
                parts.push(plan("data", PartKind::Data, PartFormat::Custom, bytes)?);
            }
            Form::Tar => parts.push(plan("dump", PartKind::Data, PartFormat::Tar, bytes)?),
            Form::Sql => parts.push(plan("dump", PartKind::Data, PartFormat::Sql, bytes)?),
        }
        source.warnings = warnings;
        Ok(Box::new(Session {
            file: Arc::clone(&self.file),
            source,
            parts,
            definitions,
        }))
    }
}

/// Whether it was dumped with `--schema-only`. What `--data-only` makes is of no use by itself.
fn lacks_rows(archive: &ArchiveReport) -> Result<bool, PortError> {
    let has = |desc: &str| archive.entries.iter().any(|entry| entry.desc == desc);
    match (has("TABLE"), archive.tables.is_empty()) {
        (false, false) => {
            let what = "the dump has rows without the definitions of their tables (--data-only)";
            Err(PortError::new(ErrorKind::InvalidInput, what)
                .with_hint("adopt one of the whole database"))
        }
        (tables, no_rows) => Ok(tables && no_rows),
    }
}

/// The archive without its rows, as `pg_dump` writes it for the sections before and after them.
fn definitions_of(archive: ArchiveReport) -> Vec<u8> {
    let mut section = Section::None;
    let mut entries = archive.entries;
    entries.retain(|entry| {
        // Comments and grants are of no section: they go with what stands before them, as
        // pg_restore does it. Since 17, large objects come among the rows.
        if entry.section != Section::None {
            section = entry.section;
        }
        section != Section::Data
    });
    for entry in &mut entries {
        entry.had_dumper = false;
        entry.data_state = DataState::NoData;
    }
    encode_contents(&archive.header, &entries)
}

#[derive(Debug)]
struct Session {
    file: Arc<dyn DumpFile>,
    source: SourceFacts,
    parts: Vec<PartPlan>,
    definitions: Vec<u8>,
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
        cancel: &CancellationToken,
    ) -> Result<PartStream, PortError> {
        let body = match part.kind {
            PartKind::Schema => body_of(self.definitions.clone()),
            _ => self.file.open()?,
        };
        Ok(PgInspector.inspect(part.format, until(body, cancel)))
    }

    async fn finish(&self) -> Result<(), PortError> {
        Ok(())
    }
}

/// A file has no process to end.
fn until(body: BodyStream, cancel: &CancellationToken) -> BodyStream {
    let cancel = cancel.clone();
    body.map(move |item| {
        if cancel.is_cancelled() {
            return Err(PortError::cancelled().into_io());
        }
        item
    })
    .boxed()
}
