//! What the roles of the source could do, out of the part `globals`.
//!
//! Of its statements nothing is run: only names are taken, and only from the two forms of line
//! that `pg_dumpall` writes for what matters here.
//! <https://github.com/postgres/postgres/blob/master/src/bin/pg_dump/pg_dumpall.c>

use std::collections::BTreeSet;

use backup_core::body::collect;
use backup_core::error::PortError;
use backup_core::manifest::{PartFormat, PartKind};
use backup_core::restorer::PartReader;

/// No list of roles is longer.
const MOST: usize = 64 << 20;

/// What the roles of the source could do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Globals {
    /// Who could do everything.
    pub(super) superusers: BTreeSet<String>,
    /// Who is a member of whom: role and member.
    pub(super) memberships: Vec<(String, String)>,
}

impl Globals {
    /// Reads the part, if the backup has one.
    pub(super) async fn read(parts: &dyn PartReader) -> Result<Self, PortError> {
        let mut records = parts.manifest().parts.iter();
        let found = records.find(|p| p.kind == PartKind::Globals && p.format == PartFormat::Sql);
        let Some(part) = found else {
            return Ok(Self::default());
        };
        let text = collect(parts.open(&part.name).await?, MOST).await?;
        Ok(Self::parse(&String::from_utf8_lossy(&text)))
    }

    fn parse(text: &str) -> Self {
        let mut globals = Self::default();
        for line in text.lines() {
            if let Some((role, rest)) = line.strip_prefix("ALTER ROLE ").and_then(identifier) {
                if rest.starts_with(" WITH SUPERUSER ") {
                    globals.superusers.insert(role);
                }
            } else if let Some((role, rest)) = line.strip_prefix("GRANT ").and_then(identifier)
                && let Some((member, rest)) = rest.strip_prefix(" TO ").and_then(identifier)
                && rest.starts_with([' ', ';'])
            {
                globals.memberships.push((role, member));
            }
        }
        globals
    }
}

/// The identifier at the beginning, unquoted, and what comes after it.
fn identifier(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', ';'])?;
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut name = String::new();
    let mut rest = quoted;
    loop {
        let end = rest.find('"')?;
        name.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_taken() {
        let text = "CREATE ROLE app;
ALTER ROLE app WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB NOLOGIN;
ALTER ROLE \"O'Dd \"\" WITH SUPERUSER x\" WITH NOSUPERUSER INHERIT;
ALTER ROLE postgres WITH SUPERUSER INHERIT CREATEROLE LOGIN PASSWORD 'x';
ALTER ROLE app SET search_path TO 'x';
GRANT reader TO \"a b\" WITH INHERIT TRUE GRANTED BY postgres;
GRANT reader TO writer;
GRANT CREATE ON TABLESPACE t TO writer;
COMMENT ON ROLE app IS 'GRANT a TO b;';
";
        let pair = |role: &str, member: &str| (role.to_owned(), member.to_owned());
        assert_eq!(
            Globals::parse(text),
            Globals {
                superusers: ["postgres".to_owned()].into(),
                memberships: vec![pair("reader", "a b"), pair("reader", "writer")],
            }
        );
    }
}
