//! What can be known before anything is done.

use std::collections::BTreeMap;

use backup_core::replacer::Replaceable;
use serde_json::Value;
use sqlx::postgres::PgConnection;

use super::ReplaceError;
use super::database::{Database, sessions};
use crate::mark::Way;
use crate::properties::{Properties, run_all};
use crate::session::execute;
use crate::{ConnectionConfig, Error};

/// Whether it is a database whose name may go to another.
pub(super) fn check_fit(
    database: &Database,
    config: &ConnectionConfig,
    replaceable: Replaceable,
) -> Result<(), ReplaceError> {
    let unfit = |reason: &'static str| {
        Err(ReplaceError::Unfit {
            database: database.name.clone(),
            reason,
        })
    };
    if database.is_template {
        return unfit("is a template");
    }
    if !database.allows_connections {
        return unfit("accepts no connections");
    }
    if database.name == config.maintenance_database {
        return unfit("is the one that work on the server connects to");
    }
    if database.aside().is_some() {
        return unfit("was set aside when another took its place");
    }
    if let Some(Way {
        database: other, ..
    }) = database.way()
    {
        return Err(ReplaceError::OnItsWay {
            database: database.name.clone(),
            replaces: other.clone(),
        });
    }
    if replaceable == Replaceable::Any || database.is_restored() {
        Ok(())
    } else {
        Err(ReplaceError::NotRestored {
            database: database.name.clone(),
        })
    }
}

/// Whether the login could rename it and end its sessions, and nothing else would keep it.
pub(super) async fn check_rights(
    connection: &mut PgConnection,
    database: &Database,
) -> Result<(), ReplaceError> {
    let failed = || Error::query("ask what the login may do");
    // To rename takes the owner's rights without a SET ROLE, to give away takes the other.
    let may_rename: bool = sqlx::query_scalar(
        "SELECT me.rolsuper OR me.rolcreatedb AND pg_has_role(d.datdba, 'USAGE')
           AND pg_has_role(d.datdba,
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
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT gid FROM pg_prepared_xacts p JOIN pg_database d ON d.datname = p.database
         WHERE d.oid = $1",
    )
    .bind(database.sql_oid())
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
pub(super) async fn rehearse(
    connection: &mut PgConnection,
    name: &str,
) -> Result<(), ReplaceError> {
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
pub(super) async fn carry_over(
    connection: &mut PgConnection,
    from: &str,
    to: &str,
) -> Result<(), ReplaceError> {
    let wanted = Properties::read(connection, from).await?;
    let carried = async {
        let found = Properties::read(connection, to).await?;
        run_all(connection, wanted.owner_statement(to, &found)).await?;
        // The owner's own grants went with the ownership.
        let found = Properties::read(connection, to).await?;
        run_all(connection, wanted.statements(to, &found)).await
    };
    carried.await.map_err(|source| ReplaceError::MayNotCarry {
        database: from.to_owned(),
        source,
    })
}

/// How a database stores and sorts text, which nothing can change later.
const KIND: [&str; 7] = [
    "encoding",
    "datcollate",
    "datctype",
    "datlocprovider",
    "daticulocale",
    "datlocale",
    "daticurules",
];

/// Whether `new` stores and sorts text as `old` does. Returns what else differs or stays behind.
pub(super) async fn compare_kind(
    connection: &mut PgConnection,
    old: &Database,
    new: &Database,
) -> Result<Vec<String>, ReplaceError> {
    let (before, after) = (kind(connection, old).await?, kind(connection, new).await?);
    let differing: Vec<_> = KIND
        .iter()
        .filter(|key| before.get(**key) != after.get(**key))
        .map(|key| key.trim_start_matches("dat").to_owned())
        .collect();
    if !differing.is_empty() {
        return Err(ReplaceError::OfAnotherKind {
            database: old.name.clone(),
            differing,
        });
    }
    let mut warnings = Vec::new();
    if before.get("dattablespace") != after.get("dattablespace") {
        warnings.push(format!("{} has another default tablespace", old.name));
    }
    Ok(warnings)
}

async fn kind(
    connection: &mut PgConnection,
    database: &Database,
) -> Result<BTreeMap<String, String>, Error> {
    let failed = || Error::query("ask how the database stores text");
    let row: String =
        sqlx::query_scalar("SELECT to_jsonb(d)::text FROM pg_database d WHERE oid = $1")
            .bind(database.sql_oid())
            .fetch_one(connection)
            .await
            .map_err(failed())?;
    let row: BTreeMap<String, Value> =
        serde_json::from_str(&row).map_err(|e| failed()(sqlx::Error::Decode(e.into())))?;
    // `en_US.UTF-8` and `en_US.utf8` are one.
    let plain = |value: Value| value.to_string().to_lowercase().replace('-', "");
    Ok(row
        .into_iter()
        .map(|(key, value)| (key, plain(value)))
        .collect())
}

/// What a database takes with it when it is renamed, and somebody has to think about.
pub(super) async fn left_behind(
    connection: &mut PgConnection,
    old: &Database,
) -> Result<Vec<String>, Error> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT 'subscription ' || subname FROM pg_subscription WHERE subdbid = $1
         UNION ALL
         SELECT 'replication slot ' || slot_name FROM pg_replication_slots WHERE datoid = $1
         UNION ALL
         SELECT 'security label ' || label FROM pg_shseclabel
         WHERE classoid = 'pg_database'::regclass AND objoid = $1",
    )
    .bind(old.sql_oid())
    .fetch_all(connection)
    .await
    .map_err(Error::query("look for what stays with the old database"))?;
    let say = |name: String| format!("{name} stays with the database that is set aside");
    Ok(names.into_iter().map(say).collect())
}
