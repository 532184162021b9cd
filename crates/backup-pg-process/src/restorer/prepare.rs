//! Before a restore: what is needed, whether the server has it, and the empty database.

use std::sync::{Arc, Mutex};

use backup_core::manifest::{Manifest, PartFormat, PartKind, PartName};
use backup_core::restorer::{Ownership, PartReader, Purpose, RestoreRequest};
use backup_pg_archive::{ArchiveReport, DumpText};
use tokio_util::sync::CancellationToken;

use super::choice::Choice;
use super::complaints::Names;
use super::definitions::{Allowances, Expected, TargetDump};
use super::error::RestoreError;
use super::load::Loader;
use super::pg_restore::PgRestore;
use super::rehearsal::Backstage;
use super::target::{Server, Target};
use super::toc_list::{LoadPlan, Omit};
use super::workspace::Workspace;
use super::{Pending, PgRestorer, Session};
use crate::mark::{Mark, Way};
use crate::{DatabaseDetails, Error, Tools};

/// The definitions, and what of them is restored.
struct Planned {
    archive: ArchiveReport,
    choice: Choice,
    plan: LoadPlan,
}

impl PgRestorer {
    /// Checks everything and makes the database.
    pub(super) async fn prepare(
        &self,
        request: &RestoreRequest,
        reader: Arc<dyn PartReader>,
        cancel: &CancellationToken,
    ) -> Result<Session, RestoreError> {
        let details = details(reader.as_ref())?;
        let mark = mark(reader.manifest(), request);
        let connection = self.config.connection.clone();
        let target = Target::new(connection, &request.target_database, mark);
        let (server, mut warnings) = self.look(request, &details, reader.manifest()).await?;
        let workspace = Workspace::create(self.config.work_dir.as_deref())?;
        let part = schema_part(reader.as_ref())?;
        let archive = fetch(reader.as_ref(), &part, &workspace, cancel).await?;
        let planned = self.plan(request, archive, &server, reader.as_ref())?;
        warnings.extend(planned.choice.warnings.iter().cloned());
        let tools = self.tools(&planned.archive, &server, cancel).await?;
        let archive = (&planned.archive, &server);
        let pg_restore = self.pg_restore(&tools, archive, request, &mut warnings)?;
        warnings.extend(self.left_out(&planned.plan));
        let backstage = self.backstage(&details, &planned.archive, &server);
        let definitions = self.definitions(&tools, &server, request, &planned)?;
        if definitions.is_none() {
            warnings.push(format!(
                "definitions are not compared: pg_dump {} cannot read PostgreSQL {}",
                tools.version,
                server.major()
            ));
        }
        if cancel.is_cancelled() {
            return Err(Error::Cancelled.into());
        }
        warnings.extend(target.create(&server, &details, &request.ownership).await?);
        let Planned { choice, plan, .. } = planned;
        Ok(Session {
            request: request.clone(),
            details,
            target: target.clone(),
            vacuum_analyze: self.config.vacuum_analyze,
            version_num: server.version_num,
            scope: choice.scope.clone(),
            definitions,
            pending: Mutex::new(Some(Pending {
                loader: Arc::new(Loader {
                    reader: Arc::clone(&reader),
                    target,
                    workspace,
                    pg_restore,
                    parts: choice.parts,
                    scope: choice.scope,
                    backstage,
                }),
                plan,
                warnings,
            })),
            reader,
        })
    }

    /// Looks at the server, and refuses what it cannot take. Returns what is worth a warning.
    async fn look(
        &self,
        request: &RestoreRequest,
        details: &DatabaseDetails,
        manifest: &Manifest,
    ) -> Result<(Server, Vec<String>), RestoreError> {
        let connection = &self.config.connection;
        let mut connection = connection.connect(&connection.maintenance_database).await?;
        let server = Server::read(&mut connection).await?;
        server.check_name(&request.target_database)?;
        let warnings = server.check(manifest, details, &request.ownership)?;
        if Target::exists(&request.target_database, &mut connection).await? {
            return Err(RestoreError::TargetExists {
                database: request.target_database.clone(),
            });
        }
        Ok((server, warnings))
    }

    fn plan(
        &self,
        request: &RestoreRequest,
        archive: ArchiveReport,
        server: &Server,
        reader: &dyn PartReader,
    ) -> Result<Planned, RestoreError> {
        let choice = Choice::new(&request.selection, &archive.entries, reader)?;
        let login_owns = request.ownership == Ownership::Login;
        let omit = Omit {
            all_but: choice.dump_ids.as_ref(),
            vacuum: !self.config.vacuum_analyze,
            privileges: login_owns,
            superuser_objects: (login_owns || self.config.rehearsal.is_some())
                && !server.is_superuser,
        };
        let plan = LoadPlan::new(&archive.entries, &choice.parts, omit);
        Ok(Planned {
            archive,
            choice,
            plan,
        })
    }

    /// What the plan leaves out, as warnings, unless nobody expects it of a rehearsal.
    fn left_out(&self, plan: &LoadPlan) -> Vec<String> {
        let left_out = plan.left_out.iter();
        let words = |entry| format!("{entry} is left out: only a superuser may create it");
        let left_out: Vec<String> = left_out.map(words).collect();
        match &self.config.rehearsal {
            Some(rehearsal) => {
                rehearsal.leave_out(left_out);
                Vec::new()
            }
            None => left_out,
        }
    }

    fn backstage(
        &self,
        details: &DatabaseDetails,
        archive: &ArchiveReport,
        server: &Server,
    ) -> Option<Backstage> {
        let rehearsal = self.config.rehearsal.as_ref()?;
        Some(rehearsal.backstage(details, &archive.entries, server))
    }

    /// The tools of the target's major: a newer `pg_restore` sets what an older server does not
    /// know. But never older than what wrote the archive, or it cannot read it.
    async fn tools(
        &self,
        archive: &ArchiveReport,
        server: &Server,
        cancel: &CancellationToken,
    ) -> Result<Tools, RestoreError> {
        let reads = oldest_reader(archive);
        let wanted = server.major().max(reads);
        let located = self.config.tools.locate(wanted * 10_000, cancel).await;
        if !matches!(located, Err(Error::ToolMissing { .. })) {
            return Ok(located?);
        }
        // pg_restore talks to newer servers too, unlike pg_dump.
        let installed = self.config.tools.installed(cancel).await?;
        let newest = installed
            .into_iter()
            .filter(|tools| tools.version.major >= reads)
            .max_by_key(|tools| tools.version);
        newest.map_or_else(|| Ok(located?), Ok)
    }

    /// How to compare the definitions, if these tools can.
    fn definitions(
        &self,
        tools: &Tools,
        server: &Server,
        request: &RestoreRequest,
        planned: &Planned,
    ) -> Result<Option<TargetDump>, RestoreError> {
        if tools.version.major < server.major() {
            return Ok(None);
        }
        let allowances = Allowances {
            any_owner: request.ownership == Ownership::Login,
            no_superuser: !server.is_superuser,
        };
        let archive = &planned.archive;
        let restored = planned.plan.restored();
        let expected = Expected::new(&archive.header, &archive.entries, &restored, allowances);
        let connection = &self.config.connection;
        let settings = [("statement_timeout", "0"), ("jit", "off")];
        Ok(Some(TargetDump {
            program: tools.pg_dump.clone(),
            env: connection.tool_env(&request.target_database, &settings)?,
            expected,
        }))
    }

    fn pg_restore(
        &self,
        tools: &Tools,
        (archive, server): (&ArchiveReport, &Server),
        request: &RestoreRequest,
        warnings: &mut Vec<String>,
    ) -> Result<PgRestore, RestoreError> {
        let memory = self.config.maintenance_work_mem_bytes;
        let memory = memory.map(|bytes| format!("{}kB", bytes >> 10));
        // All of this is for a database that nobody uses yet. A crash of the server can lose the
        // last commits of a load, but `finish` commits durably after all of them.
        let mut settings = vec![
            ("synchronous_commit", "off"),
            ("statement_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
            // Checking a foreign key looks expensive enough to compile, and runs once.
            ("jit", "off"),
        ];
        if let Some(memory) = &memory {
            settings.push(("maintenance_work_mem", memory));
        }
        let database = &request.target_database;
        let env = self.config.connection.tool_env(database, &settings)?;
        let mut pg_restore = PgRestore::new(tools.pg_restore.clone(), env, database)
            .with_names(Names::of(&archive.entries));
        if request.ownership == Ownership::Login {
            pg_restore = pg_restore.with_option("--no-owner").with_option("--no-acl");
        }
        let tablespaces = archive
            .entries
            .iter()
            .filter_map(|entry| entry.tablespace.as_ref());
        let missing: Option<&DumpText> = tablespaces
            .filter(|name| !name.is_empty())
            .find(|name| !server.has_tablespace(&name.to_str_lossy()));
        if let Some(missing) = missing {
            pg_restore = pg_restore.with_option("--no-tablespaces");
            warnings.push(format!(
                "tablespace {missing} does not exist on the target, so the default is used"
            ));
        }
        Ok(pg_restore)
    }
}

pub(crate) fn details(reader: &dyn PartReader) -> Result<DatabaseDetails, RestoreError> {
    let details = &reader.facts().details;
    serde_json::from_value(details.clone()).map_err(|error| RestoreError::BadBackup {
        what: "the backup does not say what its database was like".to_owned(),
        source: Some(error.into()),
    })
}

/// Keeps the definitions, which `pg_restore` reads several times, in the private directory.
async fn fetch(
    reader: &dyn PartReader,
    part: &PartName,
    workspace: &Workspace,
    cancel: &CancellationToken,
) -> Result<ArchiveReport, RestoreError> {
    let body = reader
        .open(part)
        .await
        .map_err(|source| RestoreError::Part {
            part: part.clone(),
            source,
        })?;
    workspace.keep_archive(part, body, cancel).await
}

fn schema_part(reader: &dyn PartReader) -> Result<PartName, RestoreError> {
    let mut parts = reader.manifest().parts.iter();
    let part = parts
        .find(|part| part.kind == PartKind::Schema && part.format == PartFormat::Custom)
        .ok_or_else(|| RestoreError::bad_backup("the backup has no definitions"))?;
    Ok(part.name.clone())
}

/// The oldest major whose `pg_restore` reads the archive.
///
/// <https://github.com/postgres/postgres/blob/master/src/bin/pg_dump/pg_backup_archiver.h>
fn oldest_reader(archive: &ArchiveReport) -> u32 {
    match archive.header.version.minor {
        ..=14 => 12,
        15 => 16,
        _ => 17,
    }
}

/// Tells this run from every other one, also of the same backup.
fn mark(manifest: &Manifest, request: &RestoreRequest) -> Mark {
    let Manifest { source, id, .. } = manifest;
    let made = format!("restore of {source} {id}, {}", nonce());
    match &request.purpose {
        Purpose::Plain => Mark::Made(made),
        Purpose::Archive => Mark::Archive(made),
        Purpose::Replace { database, run } => Mark::Newcomer {
            way: Way {
                database: database.clone(),
                run: run.clone(),
            },
            made,
        },
    }
}

fn nonce() -> String {
    use std::hash::{BuildHasher as _, Hasher as _};
    let random = std::hash::RandomState::new();
    let mut hasher = random.build_hasher();
    hasher.write_u32(std::process::id());
    format!("run {:016x}", hasher.finish())
}
