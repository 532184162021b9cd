//! Assertions: SQL that must give `true`.

use std::time::Duration;

use backup_core::drill::{Answer, Assertion};
use futures::StreamExt as _;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Column as _, Row as _, TypeInfo as _};

use crate::session::execute;
use crate::{ConnectionConfig, Error};

/// What we wait longer than the server is told to.
const MERCY: Duration = Duration::from_secs(10);

/// Asks in a transaction that can only read, with the database's own search path.
pub(super) async fn ask(
    connection: &ConnectionConfig,
    database: &str,
    assertion: &Assertion,
) -> Result<Answer, Error> {
    let mut connection = connection.connect(database).await?;
    let limit = assertion.timeout.as_millis();
    let sql = format!(
        "SET default_transaction_read_only = on; SET statement_timeout = {limit};
         SET idle_in_transaction_session_timeout = 0; BEGIN READ ONLY"
    );
    execute(&mut connection, sql, "prepare an assertion").await?;
    let late = || {
        Answer::Fails(format!(
            "no answer within {} s",
            assertion.timeout.as_secs()
        ))
    };
    let asked = tokio::time::timeout(
        assertion.timeout + MERCY,
        first_rows(&mut connection, &assertion.sql),
    );
    match asked.await {
        Ok(Ok(rows)) => Ok(judge(&rows)),
        Ok(Err(error)) => match error.as_database_error() {
            // query_canceled
            Some(database) if database.code().as_deref() == Some("57014") => Ok(late()),
            Some(database) => Ok(Answer::Fails(database.message().to_owned())),
            None => Err(Error::query("try an assertion")(error)),
        },
        Err(_) => Ok(late()),
    }
}

/// Two are enough to know that there are several. A prepared statement is one statement.
async fn first_rows(connection: &mut PgConnection, sql: &str) -> Result<Vec<PgRow>, sqlx::Error> {
    let mut answers = sqlx::query(AssertSqlSafe(sql)).fetch(connection);
    let mut rows = Vec::new();
    while rows.len() < 2
        && let Some(row) = answers.next().await
    {
        rows.push(row?);
    }
    Ok(rows)
}

fn judge(rows: &[PgRow]) -> Answer {
    let fails = |why: &str| Answer::Fails(why.to_owned());
    let row = match rows {
        [] => return fails("it gave no row"),
        [row] => row,
        _ => return fails("it gave several rows"),
    };
    let [column] = row.columns() else {
        return fails("it gave not one column");
    };
    let kind = column.type_info().name();
    if kind != "BOOL" {
        return Answer::Fails(format!(
            "it gave {} instead of a boolean",
            kind.to_lowercase()
        ));
    }
    match row.try_get::<Option<bool>, _>(0) {
        Ok(Some(true)) => Answer::Holds,
        Ok(Some(false)) => fails("it is false"),
        Ok(None) => fails("it is null"),
        Err(error) => Answer::Fails(error.to_string()),
    }
}
