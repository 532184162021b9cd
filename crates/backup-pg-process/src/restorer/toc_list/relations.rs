//! The relations of an archive.

use std::collections::{BTreeSet, HashMap, HashSet};

use backup_core::facts::TableName;
use backup_pg_archive::{DumpText, TocEntry};

use super::DataPart;
use super::kind::mentions;
use crate::ident::quote_qualified;
use crate::inspector::table_name;

/// The archive's relations: which parts hold their rows, and which of them are one family.
pub(super) struct Relations {
    /// By dump id: itself and its descendants.
    families: HashMap<u32, Vec<u32>>,
    parts: HashMap<u32, Vec<usize>>,
    bytes: HashMap<u32, u64>,
    all_parts: Vec<usize>,
    parents: HashSet<u32>,
    tables: HashSet<u32>,
    /// Tables with a name that can be written in any encoding.
    pub(super) sql_names: HashMap<u32, String>,
}

impl Relations {
    pub(super) fn new(entries: &[&TocEntry], parts: &[DataPart]) -> Self {
        let ids: HashMap<u32, &TocEntry> = entries
            .iter()
            .filter(|entry| is_relation(entry))
            .map(|entry| (entry.dump_id, *entry))
            .collect();
        let children = children(entries, &ids);
        let by_name = parts_by_name(parts);
        let mut relations = Self {
            families: ids.keys().map(|&id| (id, family(id, &children))).collect(),
            parts: HashMap::new(),
            bytes: HashMap::new(),
            all_parts: (0..parts.len()).collect(),
            parents: children.keys().copied().collect(),
            tables: HashSet::new(),
            sql_names: HashMap::new(),
        };
        for (&id, entry) in &ids {
            if entry.desc == "TABLE" {
                relations.tables.insert(id);
                relations
                    .sql_names
                    .extend(sql_name(entry).map(|name| (id, name)));
            }
            if let Some((parts, bytes)) = by_name.get(&name_of(entry)) {
                relations.parts.insert(id, parts.clone());
                relations.bytes.insert(id, *bytes);
            }
        }
        for (&id, entry) in &ids {
            if mentions(entry, b"PARTITION BY HASH") {
                relations.share_parts(id);
            }
        }
        relations
    }

    /// Makes every partition wait for the rows of all. `pg_dump` may load those of a partition by
    /// hash through its parent, as the hash can differ on the target, so that they go anywhere.
    fn share_parts(&mut self, parent: u32) {
        let family = self.families.get(&parent).cloned().unwrap_or_default();
        let parts = family
            .iter()
            .flat_map(|id| self.parts.get(id).into_iter().flatten());
        let parts: Vec<usize> = parts
            .copied()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        for id in family {
            if let Some(own) = self.parts.get_mut(&id) {
                own.clone_from(&parts);
            }
        }
    }

    /// Itself and what inherits from it: a foreign key, trigger or ALTER TABLE on a partitioned
    /// table works on its partitions too. `None` when it is no relation.
    pub(super) fn family(&self, id: u32) -> Option<&[u32]> {
        self.families.get(&id).map(Vec::as_slice)
    }

    /// The parts that hold its rows. A table that no part is known to hold waits for all of them,
    /// unless it is clear that it has no rows itself.
    pub(super) fn parts(&self, id: u32) -> &[usize] {
        match self.parts.get(&id) {
            Some(parts) => parts,
            None if self.tables.contains(&id) && !self.parents.contains(&id) => &self.all_parts,
            None => &[],
        }
    }

    /// Whether it has descendants and no rows of its own.
    pub(super) fn is_partitioned(&self, id: u32) -> bool {
        self.parents.contains(&id) && !self.parts.contains_key(&id)
    }

    /// Whether it may have rows of its own.
    pub(super) fn has_rows(&self, id: u32) -> bool {
        !self.parts(id).is_empty()
    }

    pub(super) fn bytes(&self, id: u32) -> u64 {
        self.bytes.get(&id).copied().unwrap_or(0)
    }
}

fn is_relation(entry: &TocEntry) -> bool {
    matches!(
        entry.desc.as_bytes(),
        b"TABLE" | b"FOREIGN TABLE" | b"VIEW" | b"MATERIALIZED VIEW" | b"SEQUENCE" | b"PUBLICATION"
    )
}

/// Partitions and inheriting tables, by the dump id of the parent.
fn children(entries: &[&TocEntry], ids: &HashMap<u32, &TocEntry>) -> HashMap<u32, Vec<u32>> {
    let mut children = HashMap::<u32, Vec<u32>>::new();
    for entry in entries {
        match entry.desc.as_bytes() {
            // Depends on the partitioned table and on the partition, which it is named after.
            b"TABLE ATTACH" => {
                let is_child = |id: &u32| ids.get(id).is_some_and(|r| name_of(r) == name_of(entry));
                let known = entry.dependencies.iter().filter(|id| ids.contains_key(*id));
                let (child, parents): (Vec<u32>, Vec<u32>) = known.partition(|id| is_child(id));
                for parent in parents {
                    children.entry(parent).or_default().extend(&child);
                }
            }
            b"TABLE" | b"FOREIGN TABLE" => {
                for parent in entry.dependencies.iter().filter(|id| ids.contains_key(*id)) {
                    children.entry(*parent).or_default().push(entry.dump_id);
                }
            }
            _ => {}
        }
    }
    children
}

/// The entry itself and whatever can be reached from it.
pub(super) fn family(id: u32, children: &HashMap<u32, Vec<u32>>) -> Vec<u32> {
    let mut family = vec![id];
    let mut seen = HashSet::from([id]);
    let mut next = 0;
    while let Some(member) = family.get(next) {
        let new = children.get(member).into_iter().flatten().copied();
        let new: Vec<u32> = new.filter(|child| seen.insert(*child)).collect();
        family.extend(new);
        next += 1;
    }
    family
}

/// Names as the facts have them: text, whatever the archive's encoding.
pub(crate) fn name_of(entry: &TocEntry) -> TableName {
    let namespace = entry
        .namespace
        .as_ref()
        .map_or(&b""[..], DumpText::as_bytes);
    table_name(namespace, entry.tag.as_bytes())
}

type PartsAndBytes = (Vec<usize>, u64);

fn parts_by_name(parts: &[DataPart]) -> HashMap<TableName, PartsAndBytes> {
    let mut by_name = HashMap::<TableName, PartsAndBytes>::new();
    for (position, part) in parts.iter().enumerate() {
        for (table, bytes) in &part.tables {
            let (parts, sum) = by_name.entry(table.clone()).or_default();
            parts.push(position);
            *sum += bytes;
        }
    }
    by_name
}

/// The name of a table for statements in UTF-8; archives in other encodings have it only in ASCII.
fn sql_name(entry: &TocEntry) -> Option<String> {
    let schema = entry.namespace.as_ref()?.as_str()?;
    let name = entry.tag.as_str()?;
    (schema.is_ascii() && name.is_ascii()).then(|| quote_qualified(schema, name))
}
