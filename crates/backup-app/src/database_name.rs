//! What may name a database: anything, as PostgreSQL sees it, but such a name is stored, listed and logged.

use crate::AppError;

/// How connection URLs begin.
///
/// <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS>
const SCHEMES: [&str; 2] = ["postgresql://", "postgres://"];

/// Refuses a connection string with a password where a name of a database is asked for. It is not repeated.
///
/// # Errors
/// When it is one.
pub fn refuse_password(flag: &str, text: &str) -> Result<(), AppError> {
    if has_password(text) {
        return Err(AppError::usage_hint(
            format!("{flag} takes a name, and was given a connection string with a password"),
            format!(
                "give {flag} the name alone, and -h, -p and -U; a password comes from PGPASSWORD or ~/.pgpass"
            ),
        ));
    }
    Ok(())
}

/// Whether every PostgreSQL tool would take it for a connection string and read a password in it.
pub(crate) fn has_password(text: &str) -> bool {
    in_login(text) || is_set(text)
}

/// As in `postgresql://user:password@host`.
fn in_login(text: &str) -> bool {
    let rest = SCHEMES.iter().find_map(|scheme| {
        let (start, rest) = text.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    rest.and_then(|rest| rest.rsplit_once('@'))
        .is_some_and(|(login, _)| login.contains(':'))
}

/// As in `password=…`, between spaces or behind the `?` of a URL; also `sslpassword`.
fn is_set(text: &str) -> bool {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("password") {
        if after.trim_start().starts_with('=') {
            return true;
        }
        rest = after;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_refused_and_not_repeated() {
        for text in [
            "postgresql://u:hunter2@db/shop",
            "POSTGRES://u:hunt@er2@db/shop",
            "postgresql://db/shop?user=u&password=hunter2",
            "host=db password=hunter2 dbname=shop",
            "user=password password = 'hunter2'",
            "sslpassword=hunter2",
        ] {
            let error = refuse_password("-d", text).unwrap_err();
            let said = format!("{error:?}");
            assert!(said.contains("with a password"), "{said}");
            assert!(!said.contains("er2"), "{said}");
        }
    }

    #[test]
    fn everything_else_is_a_name() {
        for text in [
            "shop",
            "postgresql://x",
            "postgresql://u@h/x:y",
            "a://b:c@d",
            "dbname=other",
            "passwords",
            "my password",
            "bücher",
            "",
        ] {
            refuse_password("-d", text).unwrap();
        }
    }
}
