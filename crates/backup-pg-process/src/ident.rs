//! Quoting: every name that leaves this crate goes through one of these.

/// An SQL identifier, always in double quotes.
///
/// NUL cannot occur in a name, and the server refuses it in a query.
#[must_use]
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Schema and name of an object as SQL.
#[must_use]
pub(crate) fn quote_qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quote_ident(schema), quote_ident(name))
}

/// An SQL string literal that means the same whatever `standard_conforming_strings` says.
///
/// <https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-STRINGS-ESCAPE>
#[must_use]
pub fn quote_literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!(" E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

/// A pattern for `pg_dump --table` that matches exactly one schema and name.
///
/// Within double quotes every character stands for itself, and a quote is doubled.
/// <https://www.postgresql.org/docs/current/app-psql.html#APP-PSQL-PATTERNS>
#[must_use]
pub fn exact_pattern(schema: &str, name: &str) -> String {
    quote_qualified(schema, name)
}

/// A value for a connection string: `dbname=` and this is safe whatever the name is.
///
/// <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-KEYWORD-VALUE>
#[must_use]
pub fn conninfo_value(value: &str) -> String {
    let escaped = value.replace('\\', "\\\\").replace('\'', "\\'");
    format!("'{escaped}'")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("plain", "\"plain\"")]
    #[case("Upper", "\"Upper\"")]
    #[case("a\"b", "\"a\"\"b\"")]
    #[case("a.b*?$[x]\n\\", "\"a.b*?$[x]\n\\\"")]
    #[case("имя", "\"имя\"")]
    #[case("", "\"\"")]
    fn identifiers(#[case] name: &str, #[case] expected: &str) {
        assert_eq!(quote_ident(name), expected);
        assert_eq!(exact_pattern(name, name), format!("{expected}.{expected}"));
    }

    #[rstest]
    #[case("plain", "'plain'")]
    #[case("it's", "'it''s'")]
    #[case("a\\b", " E'a\\\\b'")]
    #[case("'\\", " E'''\\\\'")]
    fn literals(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(quote_literal(text), expected);
    }

    #[rstest]
    #[case("shop", "'shop'")]
    #[case("dbname=other", "'dbname=other'")]
    #[case("it's \\", "'it\\'s \\\\'")]
    fn conninfo_values(#[case] value: &str, #[case] expected: &str) {
        assert_eq!(conninfo_value(value), expected);
    }
}
