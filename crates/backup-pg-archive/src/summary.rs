//! Numbers and names by kind of object.

use std::collections::BTreeSet;

use crate::{DumpText, TocEntry};

/// What a table of contents lists, by kind.
///
/// An archive of one section lists that section only: one of `--section=data` has no tables, only
/// the data of tables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Summary {
    /// Tables, partitioned ones and partitions included, foreign ones not.
    pub tables: usize,
    /// Foreign tables.
    pub foreign_tables: usize,
    /// Entries with the data of a table.
    pub table_data: usize,
    /// Indexes of their own, not those that a constraint makes.
    pub indexes: usize,
    /// Primary keys, unique and exclusion constraints: each makes an index.
    pub key_constraints: usize,
    /// Foreign keys.
    pub foreign_keys: usize,
    /// Triggers on tables; event triggers not.
    pub triggers: usize,
    /// Sequences.
    pub sequences: usize,
    /// Views.
    pub views: usize,
    /// Materialized views.
    pub materialized_views: usize,
    /// Functions, procedures and aggregates.
    pub functions: usize,
    /// Names of the extensions.
    pub extensions: BTreeSet<DumpText>,
    /// Names of the schemas that the archive creates.
    pub schemas: BTreeSet<DumpText>,
    /// Roles that own something in the archive; they must exist before a restore.
    pub owners: BTreeSet<DumpText>,
}

impl Summary {
    /// Counts `entries`.
    #[must_use]
    pub fn of(entries: &[TocEntry]) -> Self {
        let mut summary = Self::default();
        for entry in entries {
            summary.add(entry);
        }
        summary
    }

    fn add(&mut self, entry: &TocEntry) {
        match entry.desc.as_bytes() {
            b"TABLE" => self.tables += 1,
            b"FOREIGN TABLE" => self.foreign_tables += 1,
            b"TABLE DATA" => self.table_data += 1,
            b"INDEX" => self.indexes += 1,
            b"CONSTRAINT" if makes_index(entry) => self.key_constraints += 1,
            b"FK CONSTRAINT" => self.foreign_keys += 1,
            b"TRIGGER" => self.triggers += 1,
            b"SEQUENCE" => self.sequences += 1,
            b"VIEW" => self.views += 1,
            b"MATERIALIZED VIEW" => self.materialized_views += 1,
            b"FUNCTION" | b"PROCEDURE" | b"AGGREGATE" => self.functions += 1,
            b"EXTENSION" => insert(&mut self.extensions, Some(&entry.tag)),
            b"SCHEMA" => insert(&mut self.schemas, Some(&entry.tag)),
            _ => {}
        }
        insert(&mut self.owners, entry.owner.as_ref());
    }
}

fn insert(names: &mut BTreeSet<DumpText>, name: Option<&DumpText>) {
    if let Some(name) = name.filter(|name| !name.is_empty() && !names.contains(*name)) {
        names.insert(name.clone());
    }
}

/// Since 18 a not-null constraint can be an entry too, of the same kind as keys.
fn makes_index(entry: &TocEntry) -> bool {
    let definition = entry.defn.as_ref().map_or(&b""[..], DumpText::as_bytes);
    [&b" PRIMARY KEY "[..], b" UNIQUE ", b" EXCLUDE "]
        .iter()
        .any(|words| memchr::memmem::find(definition, words).is_some())
}
