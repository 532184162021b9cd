//! Before a restore: what is needed, whether the server has it, and the empty database.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use backup_core::manifest::{Manifest, PartFormat, PartKind, PartName};
use backup_core::restorer::{Ownership, PartReader, Purpose, RestoreRequest};
use backup_pg_archive::{ArchiveReport, DumpText, encode_contents};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use super::choice::Choice;
use super::complaints::Names;
use super::definitions::{Allowances, Expected, Owners, TargetDump};
use super::error::RestoreError;
use super::extensions::Extensions;
use super::load::Loader;
use super::pg_restore::PgRestore;
use super::refill::Refill;
use super::rehearsal::Backstage;
use super::roles::{NeededRoles, Roles, closed};
use super::target::roles::{Needs, check_renamed};
use super::target::{Server, Target, space};
use super::toc_list::{LoadPlan, Omit};
use super::workspace::Workspace;
use super::{Filling, Pending, PgRestorer, Session};
use crate::inspector::text_of;
use crate::mark::{Mark, SandboxMark, Way};
use crate::{DatabaseDetails, Error, Tools};

/// How many of the objects that are open are named.
const NAMED_OPEN: usize = 10;

/// The definitions, and what of them is restored.
struct Planned {
    archive: ArchiveReport,
    choice: Choice,
    plan: LoadPlan,
    /// Dump ids of the definitions that are compared.
    compared: HashSet<u32>,
}

impl PgRestorer {
    /// Checks everything and makes the database.
    pub(super) async fn prepare(
        &self,
        request: &RestoreRequest,
        reader: Arc<dyn PartReader>,
        cancel: &CancellationToken,
    ) -> Result<Session, RestoreError> {
        let details = details_for(request, reader.as_ref())?;
        let mark = mark(reader.manifest(), request);
        let connection = self.config.connection.clone();
        let target = Target::new(connection, &request.target_database, mark);
        let (server, directory) = self.look(request, &details, reader.manifest()).await?;
        let workspace = Workspace::create(self.config.work_dir.as_deref())?;
        let archive = fetch(reader.as_ref(), &workspace, cancel).await?;
        let archive = with_roles(archive, &workspace, &request.ownership)?;
        let planned = self.plan(request, archive, &server, reader.as_ref())?;
        self.check_space(directory, reader.as_ref(), &planned.choice)?;
        let (new_roles, mut warnings) = self.check(request, &details, &planned, &server)?;
        let target = target.with_new_roles(new_roles);
        let extensions = self.extensions(request, &details, &planned, &server)?;
        let tools = self.tools(&planned.archive, &server, cancel).await?;
        let backstage = self.backstage(&details, &planned.archive, &server);
        let (archive, tools) = (&planned.archive, (&tools, &server));
        let pg_restore = self.pg_restore(tools, archive, request, &mut warnings)?;
        let definitions = self.definitions(tools, request, &planned, &mut warnings)?;
        if cancel.is_cancelled() {
            return Err(Error::Cancelled.into());
        }
        let open = opened(request, &planned);
        let refill = if request.selection.content_only {
            Some(refill(&target, reader.as_ref(), &planned).await?)
        } else {
            warnings.extend(target.create(&server, &details, &request.ownership).await?);
            None
        };
        let loader = Arc::new(Loader {
            reader: Arc::clone(&reader),
            target: target.clone(),
            workspace,
            pg_restore,
            parts: planned.choice.parts,
            scope: planned.choice.scope.clone(),
            ownership: request.ownership.clone(),
            extensions,
            backstage,
        });
        Ok(Session {
            request: request.clone(),
            details,
            notes: notes(&target, &server, open),
            target,
            vacuum_analyze: self.config.vacuum_analyze,
            version_num: server.version_num,
            scope: planned.choice.scope,
            definitions,
            refill: refill.map(|refill| Filling {
                refill,
                loader: Arc::clone(&loader),
                aside: planned.plan.made_again(&planned.archive.entries),
            }),
            pending: Mutex::new(Some(Pending {
                loader,
                plan: planned.plan,
                warnings,
            })),
            reader,
        })
    }

    /// Looks at the server, and refuses what cannot work whatever is restored.
    async fn look(
        &self,
        request: &RestoreRequest,
        details: &DatabaseDetails,
        manifest: &Manifest,
    ) -> Result<(Server, Option<PathBuf>), RestoreError> {
        let config = &self.config.connection;
        let mut connection = config.connect(&config.maintenance_database).await?;
        let server = Server::read(&mut connection).await?;
        server.check_is_primary()?;
        server.check_name(&request.target_database)?;
        server.check_version(manifest, details)?;
        let makes = !request.selection.content_only;
        if makes {
            check_free(&request.target_database, &mut connection).await?;
        }
        let directory = match self.config.free_bytes {
            Some(_) => space::directory(&mut connection, config, details).await?,
            None => None,
        };
        Ok((server, directory))
    }

    /// Refuses what does not fit, where that can be seen.
    fn check_space(
        &self,
        directory: Option<PathBuf>,
        reader: &dyn PartReader,
        choice: &Choice,
    ) -> Result<(), RestoreError> {
        let free = |directory: &PathBuf| self.config.free_bytes.and_then(|free| free(directory));
        match directory.as_ref().and_then(free).zip(directory) {
            Some((free, directory)) => {
                let needed = space::needed(&reader.facts().within(&choice.scope));
                space::check(directory, needed, free)
            }
            None => Ok(()),
        }
    }

    /// Who creates the extensions.
    fn extensions(
        &self,
        request: &RestoreRequest,
        details: &DatabaseDetails,
        planned: &Planned,
        server: &Server,
    ) -> Result<Extensions, RestoreError> {
        if self.config.rehearsal.is_some() {
            // There a superuser makes them, and what is needed besides.
            return Ok(Extensions::default());
        }
        let restored = planned.plan.restored();
        let entries = planned.archive.entries.iter();
        let entries = entries.filter(|entry| restored.contains(&entry.dump_id));
        let admin = (
            self.config.admin.as_ref(),
            self.config.admin_extensions.as_slice(),
        );
        let database = &request.target_database;
        Extensions::new(entries, details, server, database, admin)
    }

    /// Checks that the server has what is needed by what is restored. Returns the roles to make, and
    /// what is worth a warning.
    fn check(
        &self,
        request: &RestoreRequest,
        details: &DatabaseDetails,
        planned: &Planned,
        server: &Server,
    ) -> Result<(Vec<String>, Vec<String>), RestoreError> {
        let partial = request.selection.is_partial() || request.selection.content_only;
        let restored = planned.plan.restored();
        let entries = planned.archive.entries.iter();
        let entries = entries.filter(|entry| restored.contains(&entry.dump_id));
        let needed = NeededRoles::of(entries.clone());
        let needs = Needs {
            details,
            needed: &needed,
            partial,
            owner: Some(&details.owner)
                .filter(|owner| !owner.is_empty() && !request.selection.content_only),
            ownership: &request.ownership,
            create: self.config.create_roles,
        };
        let new_roles = needs.check(server)?;
        let chosen: HashSet<String> = entries
            .filter(|entry| entry.desc == "EXTENSION")
            .map(|entry| text_of(entry.tag.as_bytes()))
            .collect();
        let extensions = details.extensions.iter();
        let extensions = extensions.filter(|wanted| !partial || chosen.contains(&wanted.name));
        let mut warnings = server.check_extensions(extensions)?;
        warnings.extend(planned.choice.warnings.iter().cloned());
        warnings.extend(self.left_out(&planned.plan));
        Ok((new_roles, warnings))
    }

    fn plan(
        &self,
        request: &RestoreRequest,
        archive: ArchiveReport,
        server: &Server,
        reader: &dyn PartReader,
    ) -> Result<Planned, RestoreError> {
        let choice = Choice::new(&request.selection, &archive.entries, reader)?;
        let keeps = Roles(&request.ownership).are_kept();
        let omit = Omit {
            all_but: choice.dump_ids.as_ref(),
            there: choice.definitions.as_ref(),
            vacuum: !self.config.vacuum_analyze,
            privileges: !keeps,
            superuser_objects: (!keeps || self.config.rehearsal.is_some()) && !server.is_superuser,
        };
        let plan = LoadPlan::new(&archive.entries, &choice.parts, omit);
        // What is compared is there in the end, whoever restored it.
        let ends_with = Omit {
            all_but: choice.definitions.as_ref().or(omit.all_but),
            ..omit
        };
        let entries = archive.entries.iter();
        let compared = entries.filter(|entry| ends_with.reason(entry).is_none());
        let compared = compared.map(|entry| entry.dump_id).collect();
        Ok(Planned {
            archive,
            choice,
            plan,
            compared,
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
        (tools, server): (&Tools, &Server),
        request: &RestoreRequest,
        planned: &Planned,
        warnings: &mut Vec<String>,
    ) -> Result<Option<TargetDump>, RestoreError> {
        if tools.version.major < server.major() {
            warnings.push(format!(
                "definitions are not compared: pg_dump {} cannot read PostgreSQL {}",
                tools.version,
                server.major()
            ));
            return Ok(None);
        }
        let owners = match &request.ownership {
            _ if request.selection.content_only => Owners::DecidedBefore,
            Ownership::Login => Owners::Login,
            Ownership::Role(_) => Owners::WithoutGrants,
            _ => Owners::AsDumped,
        };
        let allowances = Allowances {
            owners,
            no_superuser: !server.is_superuser,
        };
        let archive = &planned.archive;
        let compared = &planned.compared;
        let expected = Expected::new(&archive.header, &archive.entries, compared, allowances);
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
        (tools, server): (&Tools, &Server),
        archive: &ArchiveReport,
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
        if !Roles(&request.ownership).are_kept() {
            pg_restore = pg_restore.with_option("--no-acl");
        }
        if request.ownership == Ownership::Login {
            pg_restore = pg_restore.with_option("--no-owner");
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

/// The right to fill a database that is there.
async fn refill(
    target: &Target,
    reader: &dyn PartReader,
    planned: &Planned,
) -> Result<Refill, RestoreError> {
    let made_by = definitions_of(reader.manifest());
    let facts = reader.facts().within(&planned.choice.scope);
    let restored = planned.plan.restored();
    let entries = planned.archive.entries.iter();
    let entries = entries.filter(|entry| restored.contains(&entry.dump_id));
    Refill::new(target, &made_by, &facts, entries).await
}

/// What is worth knowing before the load.
fn notes(target: &Target, server: &Server, open: Option<String>) -> Vec<String> {
    let mut notes = Vec::new();
    if server.is_superuser {
        notes.push(format!(
            "role {} is a superuser, so functions inside the backup run with all rights on the \
             server while it is restored: for a backup of somebody else's database use a role that \
             is none (CREATE ROLE … LOGIN CREATEDB)",
            server.login
        ));
    }
    if !target.new_roles.is_empty() {
        let roles = target.new_roles.join(", ");
        notes.push(format!("roles created, which cannot log in: {roles}"));
    }
    notes.extend(open);
    notes
}

/// What a restore without grants opens to everybody.
fn opened(request: &RestoreRequest, planned: &Planned) -> Option<String> {
    if Roles(&request.ownership).are_kept() || request.selection.content_only {
        return None;
    }
    let chosen = planned.choice.dump_ids.as_ref();
    let entries = planned.archive.entries.iter();
    let closed = closed(entries.filter(|e| chosen.is_none_or(|ids| ids.contains(&e.dump_id))));
    let (first, rest) = closed.split_at(closed.len().min(NAMED_OPEN));
    let more = match rest.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!first.is_empty()).then(|| {
        format!(
            "REVOKE is left out with the grants, so everybody who can connect may use what the \
             source had closed: {}{more}",
            first.join(", ")
        )
    })
}

/// The archive with the roles of the target, also where it is kept for `pg_restore`.
fn with_roles(
    mut archive: ArchiveReport,
    workspace: &Workspace,
    ownership: &Ownership,
) -> Result<ArchiveReport, RestoreError> {
    let roles = Roles(ownership);
    if !roles.are_changed() {
        return Ok(archive);
    }
    if archive.entries.iter().any(|entry| entry.had_dumper) {
        return Err(RestoreError::bad_backup(
            "there is content among the definitions",
        ));
    }
    let entries = archive.entries.iter_mut();
    entries.for_each(|entry| roles.changed(entry));
    workspace.replace_archive(&encode_contents(&archive.header, &archive.entries))?;
    Ok(archive)
}

/// What the dump says about the database, under the target's roles.
fn details_for(
    request: &RestoreRequest,
    reader: &dyn PartReader,
) -> Result<DatabaseDetails, RestoreError> {
    let mut details = details(reader)?;
    check_renamed(&request.ownership, &details)?;
    Roles(&request.ownership).details(&mut details);
    Ok(details)
}

/// Keeps the definitions, which `pg_restore` reads several times, in the private directory.
async fn fetch(
    reader: &dyn PartReader,
    workspace: &Workspace,
    cancel: &CancellationToken,
) -> Result<ArchiveReport, RestoreError> {
    let part = schema_part(reader)?;
    let body = reader
        .open(&part)
        .await
        .map_err(|source| RestoreError::Part {
            part: part.clone(),
            source,
        })?;
    workspace.keep_archive(&part, body, cancel).await
}

fn schema_part(reader: &dyn PartReader) -> Result<PartName, RestoreError> {
    let mut parts = reader.manifest().parts.iter();
    let part = parts
        .find(|part| part.kind == PartKind::Schema && part.format == PartFormat::Custom)
        .ok_or_else(|| RestoreError::bad_backup("the backup has no definitions"))?;
    Ok(part.name.clone())
}

/// Refuses a name that a database has.
async fn check_free(name: &str, connection: &mut PgConnection) -> Result<(), RestoreError> {
    let database = name.to_owned();
    match Target::mark_of(name, connection).await? {
        None => Ok(()),
        Some(mark) => Err(match mark.as_ref().and_then(Mark::unfinished_restore) {
            Some(restore) => RestoreError::TargetUnfinished {
                database,
                // Without what tells it from others of the same backup.
                restore: restore
                    .rsplit_once(", ")
                    .map_or(restore, |(words, _)| words)
                    .to_owned(),
            },
            None => RestoreError::TargetExists { database },
        }),
    }
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
    if request.selection.definitions_only {
        return Mark::Made(format!("{}{}", definitions_of(manifest), nonce()));
    }
    let Manifest { source, id, .. } = manifest;
    let made = format!("restore of {source} {id}, {}", nonce());
    match &request.purpose {
        Purpose::Plain => Mark::Made(made),
        Purpose::Archive => Mark::Archive(made),
        Purpose::Sandbox(tenancy) => Mark::Sandbox(SandboxMark {
            person: tenancy.person.clone(),
            until: tenancy.until,
            source: source.clone(),
            backup: id.clone(),
        }),
        Purpose::Replace { database, run } => Mark::Newcomer {
            way: Way {
                database: database.clone(),
                run: run.clone(),
            },
            made,
        },
    }
}

/// How runs begin that restore only the definitions of a backup.
fn definitions_of(manifest: &Manifest) -> String {
    let Manifest { source, id, .. } = manifest;
    format!("restore of {source} {id}, definitions only, ")
}

fn nonce() -> String {
    use std::hash::{BuildHasher as _, Hasher as _};
    let random = std::hash::RandomState::new();
    let mut hasher = random.build_hasher();
    hasher.write_u32(std::process::id());
    format!("run {:016x}", hasher.finish())
}
