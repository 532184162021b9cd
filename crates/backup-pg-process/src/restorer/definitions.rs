//! Are the definitions in the target those that were to be restored?
//!
//! `pg_dump` writes the target's definitions as it wrote the source's, and the two tables of
//! contents are compared entry by entry. Nothing of the source is needed for that.

mod dump;
mod text;

use std::collections::{BTreeMap, HashSet};

use backup_core::facts::TableName;
use backup_core::restorer::Definitions;
use backup_pg_archive::{DumpText, Header, TocEntry};

use super::toc_list::{Omit, describe};
use crate::inspector::table_name;
pub(crate) use dump::TargetDump;

/// Kinds whose entries are called the same by every release, and made by every release. What else
/// there is, one release has as an entry and the next as a line of another entry.
const LASTING: [&[u8]; 23] = [
    b"SCHEMA",
    b"EXTENSION",
    b"TYPE",
    b"DOMAIN",
    b"FUNCTION",
    b"PROCEDURE",
    b"AGGREGATE",
    b"TABLE",
    b"FOREIGN TABLE",
    b"VIEW",
    b"MATERIALIZED VIEW",
    b"MATERIALIZED VIEW DATA",
    b"SEQUENCE",
    b"INDEX",
    b"CONSTRAINT",
    b"FK CONSTRAINT",
    b"TRIGGER",
    b"EVENT TRIGGER",
    b"POLICY",
    b"ROW SECURITY",
    b"STATISTICS",
    b"PUBLICATION",
    b"SUBSCRIPTION",
];

/// Kinds that belong to whoever owns the object that they are a part of.
pub(super) const OWNED_WITH: [&[u8]; 16] = [
    b"ACL",
    b"CHECK CONSTRAINT",
    b"COMMENT",
    b"CONSTRAINT",
    b"DEFAULT",
    b"FK CONSTRAINT",
    b"INDEX",
    b"INDEX ATTACH",
    b"MATERIALIZED VIEW DATA",
    b"POLICY",
    b"ROW SECURITY",
    b"RULE",
    b"SECURITY LABEL",
    b"SEQUENCE OWNED BY",
    b"TABLE ATTACH",
    b"TRIGGER",
];

/// Which owners and grants are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owners {
    /// All of them.
    AsDumped,
    /// Owners; there are no grants.
    WithoutGrants,
    /// None: everything is the login's.
    Login,
    /// None: the definitions were there, and perhaps more than is looked for.
    DecidedBefore,
}

/// What the target's login cannot restore or dump as it was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowances {
    /// Which owners count.
    pub(crate) owners: Owners,
    /// The login is no superuser: it cannot own `public`, describe extensions that it did not make,
    /// or see subscriptions and the passwords of user mappings.
    pub(crate) no_superuser: bool,
}

impl Allowances {
    fn any_owner(self) -> bool {
        matches!(self.owners, Owners::Login | Owners::DecidedBefore)
    }
}

/// One entry, as far as it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Definition {
    name: String,
    owner: Vec<u8>,
    text: Vec<u8>,
    not_valid: bool,
}

/// Kind, schema and name.
type Key = (DumpText, DumpText, DumpText);
type Entries = BTreeMap<Key, Vec<Definition>>;

/// What a target has to have.
#[derive(Debug)]
pub(crate) struct Expected {
    entries: Entries,
    count: usize,
    versions: Versions,
    allowances: Allowances,
}

/// Who wrote an archive of what.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Versions {
    tool: String,
    server: String,
}

/// How alike two archives are because of who wrote them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Likeness {
    /// The same releases: a difference is one.
    Same,
    /// Other minor releases: a text may differ because of them.
    Minor,
    /// Other majors.
    Major,
}

impl Versions {
    fn of(header: &Header) -> Self {
        // What distributions add in parentheses is left out.
        let plain = |text: &Option<DumpText>| {
            let text = text.as_ref().map(ToString::to_string).unwrap_or_default();
            text.split(' ').next().unwrap_or_default().to_owned()
        };
        Self {
            tool: plain(&header.dump_version),
            server: plain(&header.server_version),
        }
    }

    fn likeness(&self, other: &Self) -> Likeness {
        let major =
            |text: &str| -> String { text.chars().take_while(char::is_ascii_digit).collect() };
        if self == other {
            Likeness::Same
        } else if major(&self.tool) == major(&other.tool)
            && major(&self.server) == major(&other.server)
        {
            Likeness::Minor
        } else {
            Likeness::Major
        }
    }
}

impl Expected {
    /// Those of `entries` that are `restored`.
    pub(crate) fn new(
        header: &Header,
        entries: &[TocEntry],
        restored: &HashSet<u32>,
        allowances: Allowances,
    ) -> Self {
        let restored = entries
            .iter()
            .filter(|entry| restored.contains(&entry.dump_id));
        let entries = keyed(restored, allowances);
        Self {
            count: entries.values().map(Vec::len).sum(),
            entries,
            versions: Versions::of(header),
            allowances,
        }
    }

    /// The materialized views that are filled.
    pub(crate) fn filled_views(&self) -> Vec<TableName> {
        let views = self
            .entries
            .keys()
            .filter(|(kind, ..)| kind == "MATERIALIZED VIEW DATA");
        views
            .map(|(_, schema, name)| table_name(schema.as_bytes(), name.as_bytes()))
            .collect()
    }

    /// Compares with what the target's dump has. Indexes that are `invalid` are not in it.
    pub(crate) fn compare(
        &self,
        header: &Header,
        entries: &[TocEntry],
        invalid: &[TableName],
    ) -> Definitions {
        self.compare_with(&Versions::of(header), entries, invalid)
    }

    fn compare_with(
        &self,
        versions: &Versions,
        entries: &[TocEntry],
        invalid: &[TableName],
    ) -> Definitions {
        let likeness = self.versions.likeness(versions);
        let omit = Omit::default();
        let wanted = entries.iter().filter(|entry| omit.reason(entry).is_none());
        let mut found = keyed(wanted, self.allowances);
        let mut report = Definitions {
            expected: self.count,
            texts_compared: likeness != Likeness::Major,
            ..Definitions::default()
        };
        for (key, wanted) in &self.entries {
            let found = found.remove(key).unwrap_or_default();
            if likeness == Likeness::Major && !is_lasting(key) {
                report.expected -= wanted.len();
                continue;
            }
            pair(wanted, found, likeness, &mut report);
        }
        if likeness != Likeness::Major && self.allowances.owners != Owners::DecidedBefore {
            let extra = found.into_values().flatten();
            report.extra.extend(extra.map(|found| found.name));
        }
        report
            .different
            .extend(name_invalid(invalid, &mut report.missing));
        report
    }
}

/// Several entries may have one name, such as operators for several types.
fn pair(
    wanted: &[Definition],
    mut found: Vec<Definition>,
    likeness: Likeness,
    report: &mut Definitions,
) {
    let mut unmatched = Vec::new();
    for wanted in wanted {
        match found.iter().position(|found| found == wanted) {
            Some(at) => {
                found.swap_remove(at);
                report.equal += 1;
            }
            None => unmatched.push(wanted),
        }
    }
    let mut found = found.into_iter();
    for wanted in unmatched {
        let Some(found) = found.next() else {
            report.missing.push(wanted.name.clone());
            continue;
        };
        if found.not_valid != wanted.not_valid {
            let how = if found.not_valid {
                "not validated"
            } else {
                "validated"
            };
            report.different.push(format!("{} ({how})", wanted.name));
        } else if !wanted.owner.is_empty()
            && found.owner != wanted.owner
            && likeness != Likeness::Major
        {
            report.different.push(format!("{} (owner)", wanted.name));
        } else if found.text == wanted.text || likeness == Likeness::Major {
            report.equal += 1;
        } else if likeness == Likeness::Minor {
            report.equal += 1;
            report.unclear.push(wanted.name.clone());
        } else {
            tracing::debug!(
                definition = wanted.name,
                dumped = %String::from_utf8_lossy(&wanted.text),
                restored = %String::from_utf8_lossy(&found.text),
                "not as dumped"
            );
            report.different.push(wanted.name.clone());
        }
    }
    if likeness != Likeness::Major {
        report.extra.extend(found.map(|found| found.name));
    }
}

fn is_lasting((kind, _, name): &Key) -> bool {
    // Since 15, `public` belongs to another role, and is dumped in other cases.
    LASTING.contains(&kind.as_bytes()) && !(kind == "SCHEMA" && name == "public")
}

/// Says of missing indexes that they are there and of no use.
fn name_invalid(invalid: &[TableName], missing: &mut Vec<String>) -> Vec<String> {
    let mut named = Vec::new();
    for index in invalid {
        let name = format!("INDEX {index}");
        missing.retain(|missing| *missing != name);
        named.push(format!("{name} (not valid)"));
    }
    named
}

fn keyed<'a>(entries: impl Iterator<Item = &'a TocEntry>, allowances: Allowances) -> Entries {
    let mut keyed = Entries::new();
    for entry in entries.filter(|entry| !is_nobodys(entry, allowances)) {
        let key = (
            entry.desc.clone(),
            entry.namespace.clone().unwrap_or_default(),
            entry.tag.clone(),
        );
        let secret = allowances.no_superuser && entry.desc == "USER MAPPING";
        let with = OWNED_WITH.contains(&entry.desc.as_bytes());
        let owner = if allowances.any_owner() || with {
            None
        } else {
            entry.owner.as_ref()
        };
        keyed.entry(key).or_default().push(Definition {
            name: describe(entry),
            owner: owner.map_or_else(Vec::new, |owner| owner.as_bytes().to_vec()),
            text: if secret {
                Vec::new()
            } else {
                text::canonical(entry, allowances.no_superuser)
            },
            not_valid: text::is_not_valid(entry),
        });
    }
    keyed
}

/// What a restore that lacks nothing may lack, or have besides.
fn is_nobodys(entry: &TocEntry, allowances: Allowances) -> bool {
    let (kind, tag) = (entry.desc.as_bytes(), entry.tag.as_bytes());
    let no_grants = allowances.owners != Owners::AsDumped;
    let public = allowances.no_superuser || no_grants;
    match kind {
        // A new database has it, and whether it is dumped depends on when it was made.
        b"EXTENSION" => tag == b"plpgsql",
        // An extension brings its own.
        b"COMMENT" if tag.starts_with(b"EXTENSION ") => true,
        b"COMMENT" | b"ACL" | b"SECURITY LABEL" if tag == b"SCHEMA public" => public,
        b"SCHEMA" if tag == b"public" => public,
        b"COMMENT" | b"SECURITY LABEL" if tag.starts_with(b"SUBSCRIPTION ") => {
            allowances.no_superuser
        }
        b"ACL" | b"DEFAULT ACL" => no_grants,
        _ if kind.starts_with(b"SUBSCRIPTION") => allowances.no_superuser,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
