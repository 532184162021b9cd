//! What may name a database: such a name is stored, listed and logged.

use crate::AppError;

/// How connection URLs begin.
///
/// <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS>
const SCHEMES: [&str; 2] = ["postgresql://", "postgres://"];

/// Refuses what every PostgreSQL tool takes for a connection string where a name of a database is asked for.
/// It may hold a password, so it is not repeated.
///
/// # Errors
/// When it is one.
pub fn refuse_connection_string(flag: &str, text: &str) -> Result<(), AppError> {
    if is_url(text) || text.contains('=') {
        return Err(AppError::usage_hint(
            format!("{flag} names a database, and was given a connection string"),
            format!(
                "say {flag} NAME -h HOST -p PORT -U USER; a password comes from PGPASSWORD or ~/.pgpass"
            ),
        ));
    }
    Ok(())
}

/// Whether it is a connection URL.
pub(crate) fn is_url(text: &str) -> bool {
    SCHEMES.iter().any(|scheme| {
        let start = text.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings_are_refused_and_not_repeated() {
        for text in [
            "postgresql://u:hunter2@db/shop",
            "POSTGRES://u:hunter2@db/shop",
            "host=db password=hunter2 dbname=shop",
        ] {
            let error = refuse_connection_string("-d", text).unwrap_err();
            let said = format!("{error:?}");
            assert!(said.contains("connection string"), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn odd_names_are_names() {
        for text in ["shop", "postgres", "postgres:/", "a://b", "bücher", ""] {
            refuse_connection_string("-d", text).unwrap();
        }
    }
}
