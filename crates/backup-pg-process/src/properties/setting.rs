//! Settings of a database as SQL.

use crate::{quote_ident, quote_literal};

/// The name of a setting may have dots, each piece an identifier.
pub(super) fn quote_setting(name: &str) -> String {
    name.split('.')
        .map(quote_ident)
        .collect::<Vec<_>>()
        .join(".")
}

/// Settings that are lists are stored as they are written, with quoted elements: quoting the whole
/// would make one element of it. `pg_dump` knows the same names.
/// <https://github.com/postgres/postgres/blob/master/src/bin/pg_dump/dumputils.c>
pub(super) fn setting_value(name: &str, value: &str) -> String {
    const LISTS: [&str; 8] = [
        "local_preload_libraries",
        "oauth_validator_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
        "restrict_nonsystem_relation_kind",
    ];
    if !LISTS.contains(&name.to_ascii_lowercase().as_str()) {
        return quote_literal(value);
    }
    let elements: Vec<String> = list_elements(value)
        .iter()
        .map(|e| quote_literal(e))
        .collect();
    if elements.is_empty() {
        "''".to_owned()
    } else {
        elements.join(", ")
    }
}

/// Splits `"$user", public` into its elements, unquoted.
fn list_elements(value: &str) -> Vec<String> {
    let (mut elements, mut element, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = value.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                element.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => elements.push(std::mem::take(&mut element)),
            c if c.is_whitespace() && !quoted => {}
            c => element.push(c),
        }
    }
    if !element.is_empty() || !elements.is_empty() {
        elements.push(element);
    }
    elements
}
