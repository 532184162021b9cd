//! The right to replace one database.

use async_trait::async_trait;
use backup_core::backup::{BackupId, SourceName};
use backup_core::error::{PortError, chain};
use backup_core::replacer::{Claim, ReplaceRequest, Replaceable, Replacement};
use backup_core::restorer::Purpose;
use backup_core::run_record::RunId;
use sqlx::postgres::PgConnection;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::checks::{carry_over, check_fit, check_rights, compare_kind, left_behind, rehearse};
use super::database::Database;
use super::exchange::{Exchange, New, Old};
use super::held::Held;
use super::{ReplaceError, connect};
use crate::mark::{Aside, Comment, Mark, kept_name, newcomer_name};
use crate::session::execute;
use crate::{ConnectionConfig, quote_ident};

/// See [`Claim`].
#[derive(Debug)]
pub(super) struct PgClaim {
    config: ConnectionConfig,
    /// Empty once an exchange failed in the middle: its session was ended.
    held: Mutex<Option<Held>>,
    name: String,
    /// What has the name; nothing, if somebody dropped it before an undo.
    current: Option<Database>,
    newcomer: String,
    goal: Goal,
    run: RunId,
    warnings: Vec<String>,
    /// What a rename does not bring to the other database.
    staying: Vec<String>,
    unrecorded: Vec<Replacement>,
}

/// What a claim is for.
#[derive(Debug)]
enum Goal {
    /// A restore.
    Restore {
        replaceable: Replaceable,
        backup: BackupId,
        source: SourceName,
    },
    /// To bring back what was set aside.
    Undo { kept: Box<Database> },
}

impl PgClaim {
    pub(super) async fn to_replace(
        config: &ConnectionConfig,
        request: &ReplaceRequest,
    ) -> Result<Self, ReplaceError> {
        let name = &request.database;
        let held = Held::take(config, name).await?;
        let mut scout = connect(config).await?;
        let all = Database::all(&mut scout).await?;
        let Some(current) = all.iter().find(|database| database.name == *name) else {
            return Err(ReplaceError::NotThere {
                database: name.clone(),
            });
        };
        check_fit(current, config, request.replaceable)?;
        check_rights(&mut scout, current).await?;
        rehearse(&mut scout, name).await?;
        let warnings = sweep(&mut scout, &all, name).await;
        let staying = left_behind(&mut scout, current).await?;
        Ok(Self {
            config: config.clone(),
            held: Mutex::new(Some(held)),
            name: name.clone(),
            current: Some(current.clone()),
            newcomer: newcomer_name(name, &request.run),
            goal: Goal::Restore {
                replaceable: request.replaceable,
                backup: request.backup.clone(),
                source: request.source.clone(),
            },
            run: request.run.clone(),
            warnings,
            staying,
            unrecorded: unrecorded(&all, name),
        })
    }

    pub(super) async fn to_undo(
        config: &ConnectionConfig,
        run: &RunId,
        by: &RunId,
    ) -> Result<Self, ReplaceError> {
        let mut scout = connect(config).await?;
        let all = Database::all(&mut scout).await?;
        let is_it = |database: &&Database| database.aside().is_some_and(|aside| aside.run == *run);
        let found = all.iter().find(is_it);
        let Some((kept, aside)) = found.and_then(|kept| Some((kept, kept.aside()?))) else {
            return Err(ReplaceError::NothingAside {
                run: run.clone(),
                server: config.server(),
            });
        };
        let name = &aside.database;
        let held = Held::take(config, name).await?;
        let current = all.iter().find(|database| database.name == *name);
        let mut staying = Vec::new();
        if let Some(current) = current {
            check_fit(current, config, Replaceable::Any)?;
            check_rights(&mut scout, current).await?;
            staying = left_behind(&mut scout, current).await?;
        }
        check_rights(&mut scout, kept).await?;
        Ok(Self {
            config: config.clone(),
            held: Mutex::new(Some(held)),
            name: name.clone(),
            current: current.cloned(),
            newcomer: kept.name.clone(),
            goal: Goal::Undo {
                kept: Box::new(kept.clone()),
            },
            run: by.clone(),
            warnings: Vec::new(),
            staying,
            unrecorded: unrecorded(&all, name),
        })
    }

    async fn exchange(&self, cancel: &CancellationToken) -> Result<Replacement, ReplaceError> {
        let mut place = self.held.lock().await;
        let held = place.take().ok_or_else(|| ReplaceError::Lost {
            database: self.name.clone(),
        })?;
        let mut scout = connect(&self.config).await?;
        let (old, new) = self.sides(&mut scout).await?;
        if let Some(old) = &old {
            carry_over(&mut scout, &self.name, &self.newcomer).await?;
            // Hours may have passed since the claim.
            check_rights(&mut scout, old).await?;
        }
        let disposes = old.as_ref().is_some_and(Database::is_archive);
        let exchange = Exchange {
            config: &self.config,
            name: &self.name,
            new: New {
                comment: self.comment(old.as_ref(), &new),
                database: new,
            },
            old: old.map(|database| Old {
                kept_as: kept_name(&self.name, &self.run),
                mark: Mark::Aside(self.aside(&database)),
                database,
            }),
        };
        *place = Some(exchange.run(held, cancel).await?);
        let mut replacement = self.replacement(exchange.old.map(|old| old.kept_as));
        replacement.warnings.clone_from(&self.staying);
        if disposes {
            replacement.warnings.extend(self.dispose(&mut scout).await);
        }
        Ok(replacement)
    }

    /// Both as they are now: whoever changed places with them meanwhile, it is they or none.
    async fn sides(
        &self,
        scout: &mut PgConnection,
    ) -> Result<(Option<Database>, Database), ReplaceError> {
        let changed = |name: &str| ReplaceError::Changed {
            what: format!("database {name:?}"),
        };
        let old = Database::find(scout, &self.name).await?;
        let oid = |database: &Option<Database>| database.as_ref().map(|database| database.oid);
        if oid(&old) != oid(&self.current) {
            return Err(changed(&self.name));
        }
        let new = Database::find(scout, &self.newcomer).await?;
        let new = new.filter(|new| match &self.goal {
            Goal::Restore { .. } => true,
            Goal::Undo { kept } => kept.oid == new.oid,
        });
        let new = new.ok_or_else(|| changed(&self.newcomer))?;
        if let (Some(old), Goal::Restore { replaceable, .. }) = (&old, &self.goal) {
            check_fit(old, &self.config, *replaceable)?;
        }
        Ok((old, new))
    }

    /// What is said about the database that clients use from then on, without how it was made: a
    /// mark that lets the next restore replace it is only on one that may be replaced now.
    fn comment(&self, old: Option<&Database>, new: &Database) -> Comment {
        match (&self.goal, old) {
            (Goal::Restore { .. }, Some(old)) => Comment {
                mark: self.archive_mark(),
                ..old.comment.clone().without_mark()
            },
            _ => new.comment.clone().without_mark(),
        }
    }

    fn archive_mark(&self) -> Option<Mark> {
        match &self.goal {
            Goal::Restore {
                replaceable: Replaceable::Restored,
                backup,
                source,
            } => Some(Mark::Archive(format!(
                "restore of {source} {backup}, run {}",
                self.run
            ))),
            _ => None,
        }
    }

    fn aside(&self, old: &Database) -> Aside {
        let replacement = self.replacement(None);
        Aside {
            database: self.name.clone(),
            run: self.run.clone(),
            oid: old.oid,
            backup: replacement.backup,
            source: replacement.source,
            recorded: false,
            disposable: self.archive_mark().is_some() && old.is_archive(),
        }
    }

    fn replacement(&self, kept_as: Option<String>) -> Replacement {
        let (backup, source) = match &self.goal {
            Goal::Restore { backup, source, .. } => (Some(backup.clone()), Some(source.clone())),
            Goal::Undo { .. } => (None, None),
        };
        Replacement {
            run: self.run.clone(),
            database: self.name.clone(),
            kept_as,
            backup,
            source,
            warnings: Vec::new(),
        }
    }

    /// Drops what the replacement before this one set aside, of an archive. Returns what could not
    /// be dropped.
    async fn dispose(&self, connection: &mut PgConnection) -> Vec<String> {
        let all = match Database::all(connection).await {
            Ok(all) => all,
            Err(error) => return vec![chain(&error)],
        };
        let mut warnings = Vec::new();
        for database in &all {
            let disposable = database.aside().is_some_and(|aside| {
                aside.disposable && aside.database == self.name && aside.run != self.run
            });
            if !disposable {
                continue;
            }
            tracing::info!(
                database = database.name,
                "drop an archive that was replaced before"
            );
            let sql = format!("DROP DATABASE {} WITH (FORCE)", quote_ident(&database.name));
            let operation = format!("drop database {:?}", database.name);
            if let Err(error) = execute(connection, sql, &operation).await {
                warnings.push(chain(&error));
            }
        }
        warnings
    }

    async fn recorded(&self, replacement: &Replacement) -> Result<(), ReplaceError> {
        let Some(name) = &replacement.kept_as else {
            return Ok(());
        };
        let mut connection = connect(&self.config).await?;
        let Some(database) = Database::find(&mut connection, name).await? else {
            return Ok(());
        };
        let Some(aside) = database
            .aside()
            .filter(|aside| aside.run == replacement.run)
        else {
            return Ok(());
        };
        let comment = Comment {
            mark: Some(Mark::Aside(Aside {
                recorded: true,
                ..aside.clone()
            })),
            ..database.comment.clone()
        };
        let operation = "note that the exchange is recorded";
        Ok(execute(&mut connection, comment.statement(name), operation).await?)
    }

    async fn check_kind(&self) -> Result<Vec<String>, ReplaceError> {
        let Some(current) = &self.current else {
            return Ok(Vec::new());
        };
        let mut scout = connect(&self.config).await?;
        let (_, new) = self.sides(&mut scout).await?;
        compare_kind(&mut scout, current, &new).await
    }
}

#[async_trait]
impl Claim for PgClaim {
    fn newcomer(&self) -> &str {
        &self.newcomer
    }

    fn database(&self) -> &str {
        &self.name
    }

    fn purpose(&self) -> Purpose {
        Purpose::Replace {
            database: self.name.clone(),
            run: self.run.clone(),
        }
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn unrecorded(&self) -> &[Replacement] {
        &self.unrecorded
    }

    async fn check_newcomer(&self) -> Result<Vec<String>, PortError> {
        Ok(self.check_kind().await?)
    }

    async fn replace(&self, cancel: &CancellationToken) -> Result<Replacement, PortError> {
        Ok(self.exchange(cancel).await?)
    }

    async fn acknowledge(&self, replacement: &Replacement) -> Result<(), PortError> {
        Ok(self.recorded(replacement).await?)
    }
}

/// Drops what killed runs left on the way to replace `name`. No other run is on that way: the name
/// is locked. A database that somebody is in stays, and one that was renamed is somebody's.
async fn sweep(connection: &mut PgConnection, all: &[Database], name: &str) -> Vec<String> {
    let mut said = Vec::new();
    let on_the_way = |database: &&Database| {
        database.way().is_some_and(|way| way.database == name) || database.is_unmarked_for(name)
    };
    for database in all.iter().filter(on_the_way) {
        let left = &database.name;
        let sql = format!("DROP DATABASE {}", quote_ident(left));
        said.push(match execute(connection, sql, "drop it").await {
            Ok(()) => format!("{left}, which an interrupted run had left, is removed"),
            Err(error) => {
                let why = chain(&error);
                format!("{left}, which an interrupted run left, stays: {why}")
            }
        });
    }
    said
}

/// The exchanges of `name` that no record tells of, the newest first.
fn unrecorded(all: &[Database], name: &str) -> Vec<Replacement> {
    let mut found: Vec<_> = all
        .iter()
        .filter_map(|database| Some((database, database.aside()?)))
        .filter(|(_, aside)| aside.database == name && !aside.recorded)
        .map(|(database, aside)| Replacement {
            run: aside.run.clone(),
            database: name.to_owned(),
            kept_as: Some(database.name.clone()),
            backup: aside.backup.clone(),
            source: aside.source.clone(),
            warnings: Vec::new(),
        })
        .collect();
    found.sort_by(|a, b| b.run.cmp(&a.run));
    found
}
