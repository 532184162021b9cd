//! What of a backup a restore takes: which definitions, which data parts, which rows of them.

use std::collections::{BTreeSet, HashSet};

use backup_core::facts::{PartFacts, Scope, TableFacts, TableName};
use backup_core::manifest::{PartFormat, PartKind, PartName, PartRecord};
use backup_core::restorer::{PartReader, Selection};
use backup_pg_archive::TocEntry;

use super::error::RestoreError;
use super::refill::SetAside;
use super::toc_list::{DataPart, Selected, select};

/// A selection, worked out on one backup.
#[derive(Debug)]
pub(crate) struct Choice {
    /// Dump ids of the entries to restore; all if absent.
    pub(crate) dump_ids: Option<HashSet<u32>>,
    /// Where only content is restored: dump ids of the definitions that it goes into.
    pub(crate) definitions: Option<HashSet<u32>>,
    /// The data parts to load.
    pub(crate) parts: Vec<DataPart>,
    /// The content that comes with it.
    pub(crate) scope: Scope,
    /// What the selection leaves out although somebody may expect it.
    pub(crate) warnings: Vec<String>,
}

impl Choice {
    /// Works out `selection` on the definitions in `entries` and the data parts of `reader`.
    pub(crate) fn new(
        selection: &Selection,
        entries: &[TocEntry],
        reader: &dyn PartReader,
    ) -> Result<Self, RestoreError> {
        let mut choice = Self {
            dump_ids: None,
            definitions: None,
            parts: Vec::new(),
            scope: Scope::Everything,
            warnings: Vec::new(),
        };
        let mut relations = None;
        if selection.is_partial() {
            let Selected {
                dump_ids,
                content,
                warnings,
            } = select(entries, selection)?;
            choice.dump_ids = Some(dump_ids);
            choice.warnings = warnings;
            relations = Some(content);
        }
        if selection.definitions_only {
            relations = Some(BTreeSet::new());
            let everything = || entries.iter().map(|entry| entry.dump_id).collect();
            let dump_ids = choice.dump_ids.get_or_insert_with(everything);
            for entry in entries.iter().filter(|entry| is_about_content(entry)) {
                dump_ids.remove(&entry.dump_id);
            }
        }
        if selection.content_only {
            let everything = || entries.iter().map(|entry| entry.dump_id).collect();
            let chosen = choice.dump_ids.take().unwrap_or_else(everything);
            let aside = set_aside(entries);
            let loaded = entries
                .iter()
                .filter(|entry| is_about_content(entry) || aside.contains(&entry.dump_id));
            let loaded: HashSet<u32> = loaded.map(|entry| entry.dump_id).collect();
            choice.dump_ids = Some(chosen.intersection(&loaded).copied().collect());
            choice.definitions = Some(chosen);
        }
        choice.parts = match &relations {
            None => all_parts(reader)?,
            Some(relations) => parts_with(relations, reader)?,
        };
        if let Some(relations) = relations {
            let parts = choice.parts.iter().map(|part| part.name.clone());
            choice.scope = Scope::Only {
                parts: parts.collect(),
                relations,
            };
        }
        Ok(choice)
    }
}

/// What acts on rows while they are loaded, and is made after them otherwise: it is taken away for
/// that time. With what is said about it, which goes with it.
fn set_aside(entries: &[TocEntry]) -> HashSet<u32> {
    let acts = |entry: &&TocEntry| SetAside::of(entry).is_some();
    let mut aside: HashSet<u32> = entries
        .iter()
        .filter(acts)
        .map(|entry| entry.dump_id)
        .collect();
    let about = entries.iter().filter(|entry| {
        matches!(entry.desc.as_bytes(), b"COMMENT" | b"SECURITY LABEL")
            && entry.dependencies.iter().any(|id| aside.contains(id))
    });
    let about: Vec<u32> = about.map(|entry| entry.dump_id).collect();
    aside.extend(about);
    aside
}

/// Content and what is about content. Until 16, `pg_dump` has large objects among the definitions,
/// without their bytes.
fn is_about_content(entry: &TocEntry) -> bool {
    match entry.desc.as_bytes() {
        b"MATERIALIZED VIEW DATA"
        | b"STATISTICS DATA"
        | b"EXTENDED STATISTICS DATA"
        | b"BLOB"
        | b"BLOB METADATA" => true,
        b"COMMENT" | b"SECURITY LABEL" | b"ACL" => {
            entry.tag.as_bytes().starts_with(b"LARGE OBJECT ")
        }
        _ => false,
    }
}

fn all_parts(reader: &dyn PartReader) -> Result<Vec<DataPart>, RestoreError> {
    let facts = reader.facts();
    let parts = data_parts(reader).map(|record| {
        let tables = facts.parts.get(&record.name).map(|facts| &facts.tables);
        data_part(record, tables.into_iter().flatten())
    });
    parts.collect()
}

/// The parts that have anything of `relations`. A sequence can have its value in several parts, as
/// `pg_dump` puts it beside the rows of its table; one of them is enough.
fn parts_with(
    relations: &BTreeSet<TableName>,
    reader: &dyn PartReader,
) -> Result<Vec<DataPart>, RestoreError> {
    let facts = reader.facts();
    let facts_of = |name: &PartName| facts.parts.get(name);
    let is_wanted = |name: &TableName| relations.contains(name);
    let mut needed = BTreeSet::new();
    let mut sequences = BTreeSet::new();
    let has_rows = |part: &PartFacts| part.tables.iter().any(|facts| is_wanted(&facts.table));
    for name in data_parts(reader).map(|record| &record.name) {
        let Some(part) = facts_of(name).filter(|part| has_rows(part)) else {
            continue;
        };
        needed.insert(name);
        sequences.extend(part.sequences.iter().map(|facts| &facts.sequence));
    }
    for name in data_parts(reader).map(|record| &record.name) {
        let own = facts_of(name).into_iter().flat_map(|part| &part.sequences);
        for facts in own.filter(|facts| is_wanted(&facts.sequence)) {
            if sequences.insert(&facts.sequence) {
                needed.insert(name);
            }
        }
    }
    let mut parts = Vec::new();
    for record in data_parts(reader).filter(|record| needed.contains(&record.name)) {
        let Some(content) = facts_of(&record.name) else {
            continue;
        };
        let tables = content.tables.iter();
        let part = data_part(record, tables.filter(|facts| is_wanted(&facts.table)))?;
        let mut sequences = content.sequences.iter().map(|facts| &facts.sequence);
        let has_others = part.tables.len() < content.tables.len()
            || content.large_objects.is_some()
            || sequences.any(|sequence| !is_wanted(sequence));
        parts.push(DataPart { has_others, ..part });
    }
    Ok(parts)
}

fn data_parts(reader: &dyn PartReader) -> impl Iterator<Item = &PartRecord> {
    let parts = reader.manifest().parts.iter();
    parts.filter(|record| record.kind == PartKind::Data)
}

/// The part as the schedule wants it.
fn data_part<'a>(
    record: &PartRecord,
    tables: impl Iterator<Item = &'a TableFacts>,
) -> Result<DataPart, RestoreError> {
    if record.format != PartFormat::Custom {
        return Err(RestoreError::bad_backup(format!(
            "part {} is not in the custom format of pg_dump",
            record.name
        )));
    }
    Ok(DataPart {
        name: record.name.clone(),
        bytes: record.raw_bytes,
        tables: tables
            .map(|facts| (facts.table.clone(), facts.fingerprint.bytes))
            .collect(),
        has_others: false,
    })
}
