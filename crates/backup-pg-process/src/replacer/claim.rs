//! The right to replace one database.

use async_trait::async_trait;
use backup_core::backup::{BackupId, SourceName};
use backup_core::error::PortError;
use backup_core::replacer::{Claim, ReplaceRequest, Replaceable, Replacement};
use backup_core::run_record::RunId;
use sqlx::postgres::PgConnection;
use tokio_util::sync::CancellationToken;

use super::database::{Database, aside_name, made_by, sessions};
use super::exchange::{Exchange, New, Old};
use super::{ReplaceError, connect};
use crate::mark::{Aside, Comment, Mark};
use crate::properties::{Properties, run_all};
use crate::session::{KeptAlive, execute};
use crate::{ConnectionConfig, Error, quote_ident};

/// A lock on a name that the server drops with the session, however that ends.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) name: String,
    pub(super) connection: KeptAlive,
}

impl Held {
    /// Takes it or fails at once.
    pub(super) async fn take(config: &ConnectionConfig, name: &str) -> Result<Self, ReplaceError> {
        let mut connection = connect(config).await?;
        if !try_lock(&mut connection, name).await? {
            return Err(ReplaceError::Held {
                database: name.to_owned(),
            });
        }
        Ok(Self {
            name: name.to_owned(),
            connection: KeptAlive::new(connection),
        })
    }
}

/// Takes the lock on a name until the session ends, unless another session has it.
pub(super) async fn try_lock(connection: &mut PgConnection, name: &str) -> Result<bool, Error> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock(hashtextextended($1, 0))")
        .bind(format!("backup-manager replaces database {name}"))
        .fetch_one(connection)
        .await
        .map_err(Error::query("reserve the database"))
}

/// See [`Claim`].
#[derive(Debug)]
pub(super) struct PgClaim {
    config: ConnectionConfig,
    held: tokio::sync::Mutex<Option<Held>>,
    database: Database,
    replaceable: Replaceable,
    run: RunId,
    backup: BackupId,
    source: SourceName,
    newcomer: String,
    kept_as: String,
    warnings: Vec<String>,
    unrecorded: Vec<Replacement>,
}

impl PgClaim {
    pub(super) async fn new(
        config: &ConnectionConfig,
        request: &ReplaceRequest,
    ) -> Result<Self, ReplaceError> {
        let name = &request.database;
        let held = Held::take(config, name).await?;
        let mut scout = connect(config).await?;
        let all = Database::all(&mut scout).await?;
        let Some(database) = all.iter().find(|database| database.name == *name) else {
            return Err(ReplaceError::NotThere {
                database: name.clone(),
            });
        };
        let database = database.clone();
        check_fit(&database, config, request.replaceable)?;
        check_rights(&mut scout, &database).await?;
        rehearse(&mut scout, name).await?;
        let warnings = sweep(&mut scout, &all, name).await;
        let unrecorded = unrecorded(&all, name);
        Ok(Self {
            config: config.clone(),
            held: tokio::sync::Mutex::new(Some(held)),
            database,
            replaceable: request.replaceable,
            run: request.run.clone(),
            backup: request.backup.clone(),
            source: request.source.clone(),
            newcomer: aside_name(name, "new", &request.run),
            kept_as: aside_name(name, "before", &request.run),
            warnings,
            unrecorded,
        })
    }

    async fn exchange(&self, cancel: &CancellationToken) -> Result<Replacement, ReplaceError> {
        let name = &self.database.name;
        let lost = || ReplaceError::Lost {
            database: name.clone(),
        };
        let held = self.held.lock().await.take().ok_or_else(lost)?;
        let mut scout = connect(&self.config).await?;
        let new = Database::find(&mut scout, &self.newcomer).await?;
        let new = new.ok_or_else(|| ReplaceError::Changed {
            what: format!("database {:?}", self.newcomer),
        })?;
        // Its comment may be another by now.
        let old = Database::find(&mut scout, name).await?;
        let old = old.filter(|old| old.oid == self.database.oid);
        let old = old.ok_or_else(|| ReplaceError::Changed {
            what: format!("database {name:?}"),
        })?;
        check_fit(&old, &self.config, self.replaceable)?;
        carry_over(&mut scout, name, &self.newcomer).await?;
        let disposable = self.replaceable == Replaceable::Restored;
        let comment = old.comment.clone().in_use();
        let exchange = Exchange {
            config: &self.config,
            name,
            new: New {
                comment: Comment {
                    mark: disposable
                        .then(|| made_by(self.source.as_str(), &self.backup, &self.run)),
                    ..comment
                },
                database: new,
            },
            old: Some(Old {
                kept_as: self.kept_as.clone(),
                mark: Mark::Aside(Aside {
                    database: name.clone(),
                    run: self.run.clone(),
                    backup: Some(self.backup.clone()),
                    source: Some(self.source.clone()),
                    recorded: false,
                    disposable,
                }),
                database: old,
            }),
            same_properties: true,
        };
        exchange.run(held, cancel).await?;
        // It is done: what fails from here on is a warning.
        let mut warnings = match exchange.left_behind().await {
            Ok(warnings) => warnings,
            Err(error) => vec![backup_core::error::chain(&error)],
        };
        if disposable {
            warnings.extend(self.dispose(&mut scout).await);
        }
        Ok(Replacement {
            run: self.run.clone(),
            database: name.clone(),
            kept_as: Some(self.kept_as.clone()),
            backup: Some(self.backup.clone()),
            source: Some(self.source.clone()),
            warnings,
        })
    }

    /// Drops what earlier replacements of a restored database by another set aside. Returns what
    /// could not be dropped.
    async fn dispose(&self, connection: &mut PgConnection) -> Vec<String> {
        let all = match Database::all(connection).await {
            Ok(all) => all,
            Err(error) => return vec![backup_core::error::chain(&error)],
        };
        let old = all.iter().filter(|database| match &database.comment.mark {
            Some(Mark::Aside(aside)) => {
                aside.disposable && aside.database == self.database.name && aside.run != self.run
            }
            _ => false,
        });
        let mut warnings = Vec::new();
        for database in old {
            let sql = format!("DROP DATABASE {} WITH (FORCE)", quote_ident(&database.name));
            let operation = format!("drop database {:?}", database.name);
            if let Err(error) = execute(connection, sql, &operation).await {
                warnings.push(backup_core::error::chain(&error));
            }
        }
        warnings
    }
}

#[async_trait]
impl Claim for PgClaim {
    fn newcomer(&self) -> &str {
        &self.newcomer
    }

    fn database(&self) -> &str {
        &self.database.name
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn unrecorded(&self) -> &[Replacement] {
        &self.unrecorded
    }

    async fn replace(&self, cancel: &CancellationToken) -> Result<Replacement, PortError> {
        Ok(self.exchange(cancel).await?)
    }
}

fn check_fit(
    database: &Database,
    config: &ConnectionConfig,
    replaceable: Replaceable,
) -> Result<(), ReplaceError> {
    let unfit = |reason| {
        Err(ReplaceError::Unfit {
            database: database.name.clone(),
            reason,
        })
    };
    match &database.comment.mark {
        _ if database.is_template => unfit("is a template"),
        _ if !database.allows_connections => unfit("accepts no connections"),
        _ if database.name == config.maintenance_database => {
            unfit("is the one that work on the server connects to")
        }
        Some(Mark::Aside(_)) => unfit("was set aside when another took its place"),
        Some(Mark::Newcomer { .. }) => unfit("is being made to replace another"),
        Some(Mark::Made(_)) => Ok(()),
        None if replaceable == Replaceable::Any => Ok(()),
        None => Err(ReplaceError::NotRestored {
            database: database.name.clone(),
        }),
    }
}

/// Whether the login could rename it and end its sessions, and nothing else would keep it.
pub(super) async fn check_rights(
    connection: &mut PgConnection,
    database: &Database,
) -> Result<(), ReplaceError> {
    let failed = || Error::query("ask what the login may do");
    let may_rename: bool = sqlx::query_scalar(
        "SELECT me.rolsuper OR me.rolcreatedb AND pg_has_role(d.datdba,
             CASE WHEN current_setting('server_version_num')::int4 >= 160000
                  THEN 'SET' ELSE 'MEMBER' END)
         FROM pg_database d, pg_roles me
         WHERE d.oid = $1 AND me.rolname = current_user",
    )
    .bind(database.sql_oid())
    .fetch_one(&mut *connection)
    .await
    .map_err(failed())?;
    if !may_rename {
        return Err(ReplaceError::MayNotRename {
            database: database.name.clone(),
        });
    }
    let names: Vec<String> =
        sqlx::query_scalar("SELECT gid FROM pg_prepared_xacts WHERE database::text = $1")
            .bind(&database.name)
            .fetch_all(&mut *connection)
            .await
            .map_err(failed())?;
    if !names.is_empty() {
        return Err(ReplaceError::Prepared {
            database: database.name.clone(),
            names,
        });
    }
    let sessions = sessions(connection, database).await?;
    let others = sessions.into_iter().filter(|session| !session.may_end);
    let sessions: Vec<_> = others.map(|session| session.text).collect();
    if sessions.is_empty() {
        Ok(())
    } else {
        Err(ReplaceError::MayNotEnd { sessions })
    }
}

/// Whether what belongs to the database can be given to another by this login: does it to the
/// database itself, and takes it back.
async fn rehearse(connection: &mut PgConnection, name: &str) -> Result<(), ReplaceError> {
    let properties = Properties::read(connection, name).await?;
    let mut statements = vec!["BEGIN".to_owned()];
    statements.extend(properties.all_statements(name));
    let done = run_all(connection, statements).await;
    let back = execute(connection, "ROLLBACK", "end the rehearsal").await;
    done.map_err(|source| ReplaceError::MayNotCarry {
        database: name.to_owned(),
        source,
    })?;
    Ok(back?)
}

/// Gives `to` what belongs to `from`.
async fn carry_over(
    connection: &mut PgConnection,
    from: &str,
    to: &str,
) -> Result<(), ReplaceError> {
    let wanted = Properties::read(connection, from).await?;
    let carried = async {
        run_all(connection, vec![wanted.owner_statement(to)]).await?;
        let found = Properties::read(connection, to).await?;
        run_all(connection, wanted.statements(to, &found)).await
    };
    carried.await.map_err(|source| ReplaceError::MayNotCarry {
        database: from.to_owned(),
        source,
    })
}

/// Drops what killed runs left on the way to replace `name`. No other run is on that way: the name
/// is locked. A database that somebody is in stays.
async fn sweep(connection: &mut PgConnection, all: &[Database], name: &str) -> Vec<String> {
    let mut said = Vec::new();
    for database in all {
        match &database.comment.mark {
            Some(Mark::Newcomer { replaces, .. }) if replaces == name && database.name != name => {}
            _ => continue,
        }
        let left = &database.name;
        let sql = format!("DROP DATABASE {}", quote_ident(left));
        said.push(match execute(connection, sql, "drop it").await {
            Ok(()) => format!("{left}, which an interrupted run had left, is removed"),
            Err(error) => {
                let why = backup_core::error::chain(&error);
                format!("{left}, which an interrupted run left, stays: {why}")
            }
        });
    }
    said
}

/// The exchanges of `name` that no record tells of, the newest first.
fn unrecorded(all: &[Database], name: &str) -> Vec<Replacement> {
    let aside = all
        .iter()
        .filter_map(|database| match &database.comment.mark {
            Some(Mark::Aside(aside)) => Some((database, aside)),
            _ => None,
        });
    let mut found: Vec<_> = aside
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
