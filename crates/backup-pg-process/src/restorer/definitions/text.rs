//! Texts of definitions in a form in which a server's second print equals its first.
//!
//! A server keeps expressions parsed and prints them with parentheses and casts of its own. What it
//! reads back from that print it may print otherwise: `x IN ('a', 'b')` on a `varchar` column
//! becomes `ANY ((ARRAY['a'::character varying, …])::text[])`, and once restored
//! `ANY (ARRAY[('a'::character varying)::text, …])`. So parentheses and casts are left out of the
//! comparison. Everything else counts, bodies of functions to the byte.

use backup_pg_archive::{DumpText, TocEntry};

use crate::restorer::roles::named;
use crate::restorer::sql_text;

/// Types whose names are several words, by the words that may follow.
const LONGER_TYPES: [(&[u8], &[&[u8]]); 4] = [
    (b"character", &[b"varying"]),
    (b"bit", &[b"varying"]),
    (b"double", &[b"precision"]),
    (
        b"interval",
        &[
            b"year", b"month", b"day", b"hour", b"minute", b"second", b"to",
        ],
    ),
];
/// What may come after the precision of these: `timestamp(3) without time zone`.
const ZONED_TYPES: [&[u8]; 2] = [b"time", b"timestamp"];
const ZONE_WORDS: [&[u8]; 4] = [b"with", b"without", b"time", b"zone"];

/// How lines begin that say who grants what the next lines say, word by word.
const GRANTORS: [&[u8]; 2] = [
    b"SET\0SESSION\0AUTHORIZATION\0",
    b"RESET\0SESSION\0AUTHORIZATION\0",
];

/// The text of an entry to compare by. Who granted something is left out where the login had to
/// choose who grants, which only a superuser can say.
pub(super) fn canonical(entry: &TocEntry, any_grantor: bool) -> Vec<u8> {
    let text = entry.defn.as_ref().map_or(&b""[..], DumpText::as_bytes);
    let inherits = text.windows(11).any(|window| window == b"\nINHERITS (");
    let by_lines = match entry.desc.as_bytes() {
        // The columns of an heir come in the order of its parent's when it is made anew.
        b"TABLE" | b"FOREIGN TABLE" => inherits,
        // Grants are kept in the order in which they were made.
        b"ACL" | b"DEFAULT ACL" => true,
        _ => false,
    };
    if entry.desc == "POLICY" {
        return join(with_sorted_roles(entry, text));
    }
    if !by_lines {
        return join(tokens(text));
    }
    let lines = text.split(|byte| *byte == b'\n');
    let mut lines: Vec<Vec<u8>> = lines
        .map(|line| join(tokens(line.strip_suffix(b",").unwrap_or(line))))
        .collect();
    if any_grantor {
        lines.retain(|line| !GRANTORS.iter().any(|begin| line.starts_with(begin)));
    }
    lines.sort();
    if any_grantor {
        lines.dedup();
    }
    lines.join(&b'\n')
}

/// The words of a policy; its roles come in the order of the server's own table of roles.
fn with_sorted_roles<'a>(entry: &TocEntry, text: &'a [u8]) -> Vec<&'a [u8]> {
    let named = named(entry);
    let mut roles: Vec<&[u8]> = named
        .iter()
        .map(|range| plain(&text[range.clone()]))
        .collect();
    roles.sort_unstable();
    let mut roles = roles.into_iter();
    let ranges = sql_text::tokens(text).into_iter();
    let words = ranges.map(|range| {
        if named.contains(&range) {
            roles.next().unwrap_or_default()
        } else {
            plain(&text[range])
        }
    });
    words.collect()
}

/// Whether it is a constraint that its rows were not checked against.
pub(super) fn is_not_valid(entry: &TocEntry) -> bool {
    let text = entry.defn.as_ref().map_or(&b""[..], DumpText::as_bytes);
    text.trim_ascii_end().ends_with(b" NOT VALID;")
}

fn join(tokens: Vec<&[u8]>) -> Vec<u8> {
    let mut joined = Vec::new();
    let mut rest = tokens.into_iter().peekable();
    while let Some(token) = rest.next() {
        match token {
            b"(" | b")" => {}
            b"::" => skip_type(&mut rest),
            _ => {
                joined.extend_from_slice(token);
                joined.push(0);
            }
        }
    }
    joined
}

type Tokens<'a> = std::iter::Peekable<std::vec::IntoIter<&'a [u8]>>;

/// Passes over the name of a type.
fn skip_type(rest: &mut Tokens<'_>) {
    let Some(mut word) = rest.next() else { return };
    while rest.next_if_eq(&&b"."[..]).is_some() {
        word = rest.next().unwrap_or_default();
    }
    if let Some((_, longer)) = LONGER_TYPES.iter().find(|(name, _)| *name == word) {
        while rest.next_if(|next| longer.contains(next)).is_some() {}
    }
    skip_modifier(rest);
    if ZONED_TYPES.contains(&word) {
        while rest.next_if(|next| ZONE_WORDS.contains(next)).is_some() {}
    }
    while rest.next_if_eq(&&b"["[..]).is_some() {
        while rest
            .next_if(|next| next.iter().all(u8::is_ascii_digit))
            .is_some()
        {}
        rest.next_if_eq(&&b"]"[..]);
    }
}

/// Passes over `(10,2)`, which after a cast can be nothing else.
fn skip_modifier(rest: &mut Tokens<'_>) {
    if rest.next_if_eq(&&b"("[..]).is_some() {
        for token in rest.by_ref() {
            if token == b")" {
                break;
            }
        }
    }
}

fn tokens(text: &[u8]) -> Vec<&[u8]> {
    let ranges = sql_text::tokens(text).into_iter();
    ranges.map(|range| plain(&text[range])).collect()
}

/// A quoted name without its quotes where it needs none: we quote always, `pg_dump` only then.
fn plain(word: &[u8]) -> &[u8] {
    let inner = word
        .strip_prefix(b"\"")
        .and_then(|word| word.strip_suffix(b"\""));
    let simple = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_';
    inner
        .filter(|name| !name.is_empty() && name.iter().all(simple))
        .unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn entry(kind: &str, text: &str) -> TocEntry {
        let mut entry = TocEntry::default();
        entry.desc = kind.into();
        entry.defn = Some(text.into());
        entry
    }

    fn same(kind: &str, one: &str, other: &str) -> bool {
        canonical(&entry(kind, one), false) == canonical(&entry(kind, other), false)
    }

    #[rstest]
    #[case::varchar_in_list(
        "CHECK (((s)::text = ANY ((ARRAY['a'::character varying, 'b'::character varying])::text[])))",
        "CHECK (((s)::text = ANY (ARRAY[('a'::character varying)::text, ('b'::character varying)::text])))"
    )]
    #[case::precision("(a)::numeric(10,2) + 1", "a + 1")]
    #[case::zone("('x'::timestamp(3) without time zone)::date < b", "'x' < b")]
    #[case::interval("now() - '1 day'::interval day to second(3)", "(now() - '1 day')")]
    #[case::qualified("'x'::\"Odd.schema\".\"t y\"[][] = c", "'x' = c")]
    #[case::spacing("SELECT a,\n    b", "SELECT a, b")]
    fn what_a_server_writes_otherwise_is_the_same(#[case] one: &str, #[case] other: &str) {
        assert!(same("VIEW", one, other));
    }

    #[rstest]
    #[case("CHECK (a > 1)", "CHECK (a >= 1)")]
    #[case("CHECK (a > 1)", "CHECK (a > 1) NOT VALID")]
    #[case("DEFAULT 'a (b)'", "DEFAULT 'a b'")]
    #[case("DEFAULT 'it''s'::text", "DEFAULT 'its'::text")]
    #[case("AS $$ SELECT (1)::int $$", "AS $$ SELECT 1 $$")]
    #[case(
        "AS $_$ SELECT '$$' $_$ LANGUAGE sql",
        "AS $_$ SELECT '$$' $_$ LANGUAGE c"
    )]
    #[case("a::text = b", "a::text <> b")]
    #[case("SELECT ab", "SELECT a b")]
    #[case("E'a\\'b::text'", "E'a\\'b'")]
    fn what_means_something_else_is_different(#[case] one: &str, #[case] other: &str) {
        assert!(!same("VIEW", one, other));
    }

    #[test]
    fn an_heirs_columns_and_grants_have_no_order() {
        let one = "CREATE TABLE c (\n    b text,\n    a integer\n)\nINHERITS (p);";
        let other = "CREATE TABLE c (\n    a integer,\n    b text\n)\nINHERITS (p);";
        assert!(same("TABLE", one, other));
        let plain = |text: &str| text.replace("\nINHERITS (p)", "");
        assert!(!same("TABLE", &plain(one), &plain(other)));
        let grants = "GRANT SELECT ON TABLE t TO a;\nGRANT SELECT ON TABLE t TO b;\n";
        let others = "GRANT SELECT ON TABLE t TO b;\nGRANT SELECT ON TABLE t TO a;\n";
        assert!(same("ACL", grants, others));
        assert!(!same("ACL", grants, "GRANT SELECT ON TABLE t TO a;\n"));
    }

    #[test]
    fn who_granted_counts_where_it_could_be_said() {
        let plain = entry("ACL", "GRANT SELECT ON TABLE t TO a;\n");
        let by_b = entry(
            "ACL",
            "SET SESSION AUTHORIZATION b;\nGRANT SELECT ON TABLE t TO a;\n\
             RESET SESSION AUTHORIZATION;\n",
        );
        assert_ne!(canonical(&plain, false), canonical(&by_b, false));
        assert_eq!(canonical(&plain, true), canonical(&by_b, true));
    }

    #[test]
    fn the_roles_of_a_policy_have_no_order() {
        let policy = |roles: &str| format!("CREATE POLICY p ON t TO {roles} USING ((b = 'a, b'));");
        assert!(same("POLICY", &policy("\"B\", a"), &policy("a, \"B\"")));
        assert!(!same("POLICY", &policy("a, b"), &policy("a, c")));
    }

    #[test]
    fn no_text_is_too_odd() {
        for text in [
            "$",
            "$1",
            "'",
            "\"",
            "E'\\",
            "::",
            "x::",
            "x::a.",
            "$a$",
            "x::numeric(",
        ] {
            canonical(&entry("VIEW", text), false);
        }
    }

    #[test]
    fn constraints_say_whether_they_hold() {
        let text = "ALTER TABLE t\n    ADD CONSTRAINT c CHECK ((a > 0)) NOT VALID;\n";
        assert!(is_not_valid(&entry("CHECK CONSTRAINT", text)));
        assert!(!is_not_valid(&entry(
            "CHECK CONSTRAINT",
            &text.replace(" NOT VALID", "")
        )));
    }
}
