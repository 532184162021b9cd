//! The roles that an archive names: who owns, who is granted something, whom policies and user
//! mappings are about. And the same archive with other roles.

use std::collections::BTreeSet;
use std::ops::Range;

use backup_core::restorer::Ownership;
use backup_pg_archive::{DumpText, TocEntry};

use super::definitions::OWNED_WITH;
use super::sql_text::{quoted, tokens, unquoted};
use super::toc_list::is_for_superusers;
use crate::DatabaseDetails;
use crate::inspector::{bytes_of, text_of};

/// How roles are called in the target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Roles<'a>(pub(crate) &'a Ownership);

impl Roles<'_> {
    /// Whether anything has another owner or grantee than in the archive.
    pub(crate) fn are_changed(self) -> bool {
        matches!(self.0, Ownership::Role(_) | Ownership::Renamed(_))
    }

    /// Whether owners and grants are restored.
    pub(crate) fn are_kept(self) -> bool {
        matches!(self.0, Ownership::Keep | Ownership::Renamed(_))
    }

    fn name<'n>(&'n self, old: &'n str) -> &'n str {
        match self.0 {
            Ownership::Renamed(names) => names.get(old).map_or(old, String::as_str),
            _ => old,
        }
    }

    /// The entry as the target gets it.
    pub(crate) fn changed(self, entry: &mut TocEntry) {
        let owned = entry.owner.as_ref().is_some_and(|owner| !owner.is_empty());
        if let Ownership::Role(role) = self.0 {
            if owned {
                // What only superusers may own stays the login's.
                let superusers = is_for_superusers(entry);
                entry.owner = Some(bytes_of(if superusers { "" } else { role }).into());
            }
            return;
        }
        if owned && let Some(owner) = &entry.owner {
            entry.owner = Some(self.bytes(owner.as_bytes()).into());
        }
        let Some(text) = entry.defn.as_ref().map(DumpText::as_bytes) else {
            return;
        };
        let mut changed = Vec::with_capacity(text.len());
        let mut from = 0;
        for range in named(entry) {
            let old = unquoted(&text[range.clone()]);
            let new = self.bytes(&old);
            if new != old {
                changed.extend_from_slice(&text[from..range.start]);
                changed.extend(quoted(&new));
                from = range.end;
            }
        }
        changed.extend_from_slice(&text[from..]);
        if entry.desc == "USER MAPPING" {
            entry.tag = self.mapping_tag(entry).into();
        }
        entry.defn = Some(changed.into());
    }

    fn bytes(self, old: &[u8]) -> Vec<u8> {
        bytes_of(self.name(&text_of(old)))
    }

    /// `USER MAPPING role SERVER server`.
    fn mapping_tag(self, entry: &TocEntry) -> Vec<u8> {
        let tag = entry.tag.as_bytes();
        let server = tag.windows(8).rposition(|window| window == b" SERVER ");
        let role = server.and_then(|at| tag.get(b"USER MAPPING ".len()..at));
        match (role, server) {
            (Some(role), Some(server)) => {
                [b"USER MAPPING ", &*self.bytes(role), &tag[server..]].concat()
            }
            _ => tag.to_vec(),
        }
    }

    /// What the dump says about the database, under the target's roles.
    pub(crate) fn details(self, details: &mut DatabaseDetails) {
        let rename = |name: &mut String| {
            let new = self.name(name).to_owned();
            *name = new;
        };
        if let Ownership::Role(role) = self.0 {
            details.owner.clone_from(role);
        }
        rename(&mut details.owner);
        details.roles.iter_mut().for_each(rename);
        details.named_roles.iter_mut().for_each(rename);
        let grants = details.grants.iter_mut().flatten();
        grants.for_each(|grant| grant.grantee.iter_mut().for_each(rename));
        let settings = details.settings.iter_mut();
        settings.for_each(|setting| setting.role.iter_mut().for_each(rename));
    }
}

/// The roles that `entries` need, as far as they are restored under `ownership`.
#[derive(Debug, Default)]
pub(crate) struct NeededRoles {
    /// Owners, which a login that is no superuser must be a member of.
    pub(crate) owners: BTreeSet<String>,
    /// These and everybody else.
    pub(crate) all: BTreeSet<String>,
}

impl NeededRoles {
    /// Of entries that have the target's roles already.
    pub(crate) fn of<'a>(entries: impl Iterator<Item = &'a TocEntry>) -> Self {
        let mut needed = Self::default();
        for entry in entries {
            if let Some(text) = entry.defn.as_ref().map(DumpText::as_bytes) {
                let names = named(entry).into_iter();
                let names = names.map(|range| text_of(&unquoted(&text[range])));
                needed.all.extend(names);
            }
            let owner = entry.owner.as_ref().filter(|owner| !owner.is_empty());
            let Some(owner) = owner.map(|owner| text_of(owner.as_bytes())) else {
                continue;
            };
            // A role that cannot be given anything, and which nothing here has to be given to.
            let is_public = entry.desc == "SCHEMA" && entry.tag == "public";
            if !is_public && !OWNED_WITH.contains(&entry.desc.as_bytes()) {
                needed.owners.insert(owner.clone());
            }
            needed.all.insert(owner);
        }
        needed
    }
}

/// What was closed to everybody: a restore without grants leaves it open, as new objects are.
pub(crate) fn closed<'a>(entries: impl Iterator<Item = &'a TocEntry>) -> Vec<String> {
    let is_closed = |entry: &&TocEntry| {
        let text = entry.defn.as_ref().map_or(&b""[..], DumpText::as_bytes);
        let ranges = tokens(text);
        let words: Vec<&[u8]> = ranges.into_iter().map(|range| &text[range]).collect();
        let mut statements = words.split(|word| *word == b";");
        statements.any(|words| {
            words.first() == Some(&&b"REVOKE"[..]) && words.ends_with(&[b"FROM", b"PUBLIC"])
        })
    };
    let of_acl = entries
        .filter(|entry| entry.desc == "ACL")
        .filter(is_closed);
    of_acl.map(|entry| text_of(entry.tag.as_bytes())).collect()
}

/// Where an entry's definition names roles.
pub(super) fn named(entry: &TocEntry) -> Vec<Range<usize>> {
    let text = entry.defn.as_ref().map_or(&b""[..], DumpText::as_bytes);
    match entry.desc.as_bytes() {
        b"ACL" | b"DEFAULT ACL" => after(text, &[b"TO", b"FROM", b"ROLE", b"AUTHORIZATION"]),
        b"POLICY" => after(text, &[b"TO"]),
        b"USER MAPPING" => {
            let mut roles = after(text, &[b"FOR"]);
            roles.truncate(1);
            roles
        }
        _ => Vec::new(),
    }
}

/// The names in the lists that follow these words, outside of parentheses. Names that are key words
/// are quoted in a dump, so an unquoted one is the key word.
fn after(text: &[u8], words: &[&[u8]]) -> Vec<Range<usize>> {
    enum Awaits {
        Word,
        Name,
        Comma,
    }
    let mut found = Vec::new();
    let mut depth = 0_u32;
    let mut awaits = Awaits::Word;
    for range in tokens(text) {
        let word = &text[range.clone()];
        awaits = match (word, awaits) {
            (b"(", _) => {
                depth += 1;
                Awaits::Word
            }
            (b")", _) => {
                depth = depth.saturating_sub(1);
                Awaits::Word
            }
            _ if depth > 0 => Awaits::Word,
            _ if words.contains(&word) => Awaits::Name,
            (b",", Awaits::Comma) => Awaits::Name,
            // Everybody is no role.
            (b"PUBLIC", Awaits::Name) => Awaits::Comma,
            (_, Awaits::Name) => {
                found.push(range);
                Awaits::Comma
            }
            _ => Awaits::Word,
        };
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rstest::rstest;

    use super::*;

    fn entry(kind: &str, owner: &str, text: &str) -> TocEntry {
        let mut entry = TocEntry::default();
        entry.desc = kind.into();
        entry.tag = "USER MAPPING a SERVER s".into();
        entry.owner = Some(owner.into());
        entry.defn = Some(text.into());
        entry
    }

    fn renamed() -> Ownership {
        let names = [("a", "A new"), ("b", "b")];
        Ownership::Renamed(
            names
                .map(|(old, new)| (old.to_owned(), new.to_owned()))
                .into(),
        )
    }

    #[rstest]
    #[case(
        "ACL",
        "GRANT SELECT ON TABLE a.\"to\" TO a;\n",
        "GRANT SELECT ON TABLE a.\"to\" TO \"A new\";\n"
    )]
    #[case(
        "ACL",
        "REVOKE ALL ON FUNCTION f(a integer) FROM PUBLIC;\nGRANT ALL ON FUNCTION f(a integer) TO a WITH GRANT OPTION;",
        "REVOKE ALL ON FUNCTION f(a integer) FROM PUBLIC;\nGRANT ALL ON FUNCTION f(a integer) TO \"A new\" WITH GRANT OPTION;"
    )]
    #[case(
        "ACL",
        "SET SESSION AUTHORIZATION a;\nGRANT USAGE ON SCHEMA a TO c;\nRESET SESSION AUTHORIZATION;",
        "SET SESSION AUTHORIZATION \"A new\";\nGRANT USAGE ON SCHEMA a TO c;\nRESET SESSION AUTHORIZATION;"
    )]
    #[case(
        "DEFAULT ACL",
        "ALTER DEFAULT PRIVILEGES FOR ROLE a IN SCHEMA a GRANT SELECT ON TABLES  TO \"a\";",
        "ALTER DEFAULT PRIVILEGES FOR ROLE \"A new\" IN SCHEMA a GRANT SELECT ON TABLES  TO \"A new\";"
    )]
    #[case(
        "POLICY",
        "CREATE POLICY p ON a FOR SELECT TO c, a USING ((a = 'TO a'));",
        "CREATE POLICY p ON a FOR SELECT TO c, \"A new\" USING ((a = 'TO a'));"
    )]
    #[case(
        "USER MAPPING",
        "CREATE USER MAPPING FOR a SERVER s OPTIONS (\n    \"user\" 'a'\n);",
        "CREATE USER MAPPING FOR \"A new\" SERVER s OPTIONS (\n    \"user\" 'a'\n);"
    )]
    #[case(
        "TABLE",
        "CREATE TABLE a (a int) TO a;",
        "CREATE TABLE a (a int) TO a;"
    )]
    fn roles_are_renamed_and_nothing_else(
        #[case] kind: &str,
        #[case] text: &str,
        #[case] expected: &str,
    ) {
        let mut entry = entry(kind, "a", text);
        Roles(&renamed()).changed(&mut entry);
        assert_eq!(entry.defn.unwrap().to_str_lossy(), expected);
        assert_eq!(entry.owner.unwrap(), "A new");
        let tag = if kind == "USER MAPPING" {
            "USER MAPPING A new SERVER s"
        } else {
            "USER MAPPING a SERVER s"
        };
        assert_eq!(entry.tag, tag);
    }

    #[test]
    fn needed_roles_are_owners_and_everybody_who_is_named() {
        let entries = [
            entry("TABLE", "own", ""),
            entry("INDEX", "with table", ""),
            entry(
                "ACL",
                "own",
                "GRANT SELECT ON TABLE t TO PUBLIC;GRANT SELECT ON TABLE t TO \"q\"\"r\";",
            ),
            entry(
                "POLICY",
                "own",
                "CREATE POLICY p ON t TO x, y USING (true);",
            ),
            entry("EXTENSION", "", "CREATE EXTENSION e;"),
        ];
        let needed = NeededRoles::of(entries.iter());
        let names = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>();
        assert_eq!(names(&needed.owners), ["own"]);
        assert_eq!(names(&needed.all), ["own", "q\"r", "with table", "x", "y"]);
    }

    #[test]
    fn what_was_closed_to_everybody_is_known() {
        let acl = |tag: &str, text: &str| {
            let mut entry = entry("ACL", "a", text);
            entry.tag = bytes_of(tag).into();
            entry
        };
        let revoke = "REVOKE ALL ON FUNCTION a.f() FROM PUBLIC;\nGRANT ALL ON FUNCTION a.f() TO b;";
        let entries = [
            acl("FUNCTION f()", revoke),
            acl("TABLE t", "GRANT SELECT ON TABLE a.t TO PUBLIC;"),
            acl("TABLE u", "REVOKE ALL ON TABLE a.u FROM b;"),
            acl(
                "TABLE v",
                "GRANT ALL ON TABLE \"REVOKE x FROM PUBLIC;\" TO b;",
            ),
            entry(
                "FUNCTION",
                "a",
                "SELECT 1; REVOKE ALL ON FUNCTION a.f() FROM PUBLIC;",
            ),
        ];
        assert_eq!(closed(entries.iter()), ["FUNCTION f()"]);
    }

    #[test]
    fn one_role_owns_everything_that_it_may() {
        let ownership = Ownership::Role("r".to_owned());
        let owner = |kind: &str| {
            let mut entry = entry(kind, "a", "CREATE … TO a");
            Roles(&ownership).changed(&mut entry);
            entry.owner.unwrap().to_string()
        };
        assert_eq!([owner("TABLE"), owner("EVENT TRIGGER")], ["r", ""]);
        let mut details = DatabaseDetails {
            owner: "a".to_owned(),
            ..DatabaseDetails::default()
        };
        Roles(&ownership).details(&mut details);
        assert_eq!(details.owner, "r");
        Roles(&Ownership::Renamed(BTreeMap::from([(
            "r".to_owned(),
            "s".to_owned(),
        )])))
        .details(&mut details);
        assert_eq!(details.owner, "s");
    }
}
