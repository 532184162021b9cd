//! From an archive's table of contents to the steps of a load.
//!
//! The schema part holds the definitions from before and after the data. Its pre-data entries run
//! first, in one process. Every other entry becomes a [`Step`], and so does every data part, and
//! the [`Schedule`](super::schedule::Schedule) decides when each runs. An entry is handed to
//! `pg_restore --use-list` by its dump id, never by section or name, so that each runs exactly once.
//! Sections cannot be used together with a list: `pg_restore` gives comments and privileges the
//! section of the entry before them, and the list changes what stands before them.

mod graph;
mod kind;
mod omit;
mod relations;
mod select;

use std::collections::{BTreeSet, HashMap, HashSet};

use backup_core::facts::TableName;
use backup_core::manifest::PartName;
use backup_pg_archive::{Section, TocEntry};

use super::schedule::{Locks, Pass, Step};
use kind::{Kind, Lock, PER_ENTRY};
use omit::Omitted;
pub(crate) use omit::{Omit, is_for_superusers};
use relations::Relations;
pub(crate) use relations::name_of;
pub(crate) use select::{Selected, select};

/// Stands for the privileges of all objects: two GRANTs on one object collide in the catalog.
const PRIVILEGES: u32 = 0;

/// Tables with so many bytes of rows are vacuumed before a foreign key is checked.
const WORTH_A_VACUUM: u64 = 4 << 20;

/// One data part, as the schedule sees it.
#[derive(Debug, Clone)]
pub(crate) struct DataPart {
    /// Its name.
    pub(crate) name: PartName,
    /// Its raw bytes.
    pub(crate) bytes: u64,
    /// The tables that are loaded from it, with the bytes of their rows.
    pub(crate) tables: Vec<(TableName, u64)>,
    /// Whether it also holds what is not wanted.
    pub(crate) has_others: bool,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// Loads the data part of this position.
    Load(usize),
    /// Vacuums and analyses the table of this name, as SQL.
    Vacuum(String),
    /// Restores the entry with this dump id.
    Restore(u32),
}

/// A whole load.
#[derive(Debug)]
pub(crate) struct LoadPlan {
    /// Dump ids of the entries before the data, in their order.
    pub(crate) pre_data: Vec<u32>,
    /// Everything else: first data parts, then entries in the archive's order, and the vacuum of
    /// tables where it is needed.
    pub(crate) steps: Vec<Step>,
    /// What each step does.
    pub(crate) work: Vec<Work>,
    /// Entries left out that somebody may miss, as text.
    pub(crate) left_out: Vec<String>,
}

impl LoadPlan {
    /// Plans the load of an archive with these `entries` and data `parts`.
    pub(crate) fn new(entries: &[TocEntry], parts: &[DataPart], omit: Omit<'_>) -> Self {
        let mut plan = Self {
            pre_data: Vec::new(),
            steps: Vec::new(),
            work: Vec::new(),
            left_out: Vec::new(),
        };
        for (position, part) in parts.iter().enumerate() {
            plan.work.push(Work::Load(position));
            plan.steps.push(Step {
                after: Vec::new(),
                pass: Pass::Main,
                locks: Locks::Exclusive(Vec::new()),
                cost: part.bytes.max(1),
                batchable: false,
            });
        }
        let known: Vec<&TocEntry> = entries.iter().filter(|entry| omit.knows(entry)).collect();
        let relations = Relations::new(&known, parts);
        let mut planner = Planner {
            relations: &relations,
            parts: parts.len(),
            vacuum_of: HashMap::new(),
            indexes_of: HashMap::new(),
            step_of: HashMap::new(),
            locks_of: HashMap::new(),
        };
        for (entry, section) in with_sections(entries) {
            match omit.reason(entry) {
                Some(Omitted::Silently) => continue,
                Some(Omitted::Worth) => {
                    plan.left_out.push(describe(entry));
                    continue;
                }
                None => {}
            }
            let kind = Kind::of(entry);
            let early = section == Section::PreData && kind.pass == Pass::Main;
            if early || planner.is_early_index(entry, kind) {
                plan.pre_data.push(entry.dump_id);
                continue;
            }
            if entry.desc == "FK CONSTRAINT" && !omit.vacuum {
                plan.vacuum(entry, &mut planner);
            }
            let step = planner.step(entry, kind);
            planner.planned(entry, plan.steps.len());
            plan.steps.push(step);
            plan.work.push(Work::Restore(entry.dump_id));
        }
        plan
    }

    /// Dump ids of all entries that are restored.
    pub(crate) fn restored(&self) -> HashSet<u32> {
        let later = self.work.iter().filter_map(|work| match work {
            Work::Restore(id) => Some(*id),
            Work::Load(_) | Work::Vacuum(_) => None,
        });
        self.pre_data.iter().copied().chain(later).collect()
    }

    /// Dump ids of the entries that come after the data and are no content themselves, in the
    /// archive's order.
    pub(crate) fn made_again(&self, entries: &[TocEntry]) -> Vec<u32> {
        let later: HashSet<&Work> = self.work.iter().collect();
        let made = entries.iter().filter(|entry| {
            entry.desc != "MATERIALIZED VIEW DATA" && later.contains(&Work::Restore(entry.dump_id))
        });
        made.map(|entry| entry.dump_id).collect()
    }

    /// The tables that are vacuumed and analysed on the way, as SQL.
    pub(crate) fn vacuumed(&self) -> HashSet<String> {
        let tables = self.work.iter().filter_map(|work| match work {
            Work::Vacuum(table) => Some(table.clone()),
            Work::Load(_) | Work::Restore(_) => None,
        });
        tables.collect()
    }

    /// Plans the vacuum of the large tables that a foreign key is about.
    ///
    /// After a load no row is known to be visible to everybody, so an index-only scan would look at
    /// the table for each. Vacuum costs one pass over pages that are still in memory, and the check
    /// of the foreign key becomes a merge of two indexes, at a fifth of the cost. It has to come
    /// after all loads: as long as a transaction is open that is older than the rows, they are not
    /// visible to everybody. <https://www.postgresql.org/docs/current/storage-vm.html>
    fn vacuum(&mut self, foreign_key: &TocEntry, planner: &mut Planner<'_>) {
        let tables = foreign_key.dependencies.iter();
        let families = tables.filter_map(|id| planner.relations.family(*id));
        for &id in families.flatten() {
            let bytes = planner.relations.bytes(id);
            let Some(name) = planner.relations.sql_names.get(&id) else {
                continue;
            };
            if bytes < WORTH_A_VACUUM || planner.vacuum_of.contains_key(&id) {
                continue;
            }
            let indexes = planner.indexes_of.get(&id).into_iter().flatten();
            planner.vacuum_of.insert(id, self.steps.len());
            self.work.push(Work::Vacuum(name.clone()));
            self.steps.push(Step {
                after: (0..planner.parts).chain(indexes.copied()).collect(),
                pass: Pass::Main,
                locks: Locks::Exclusive(vec![id]),
                cost: PER_ENTRY + bytes / 10,
                batchable: false,
            });
        }
    }
}

/// `FK CONSTRAINT shop.orders orders_customer_fkey`, for messages.
pub(crate) fn describe(entry: &TocEntry) -> String {
    match &entry.namespace {
        Some(namespace) if !namespace.is_empty() => {
            format!("{} {namespace}.{}", entry.desc, entry.tag)
        }
        _ => format!("{} {}", entry.desc, entry.tag),
    }
}

/// The text of a list file for `pg_restore --use-list`: it restores these entries in this order.
pub(crate) fn list_file(dump_ids: &[u32]) -> String {
    let lines: Vec<String> = dump_ids.iter().map(|id| format!("{id};\n")).collect();
    lines.concat()
}

/// Comments, labels and privileges have no section of their own: they belong to the section of what
/// stands before them, as `pg_restore` sees it.
fn with_sections(entries: &[TocEntry]) -> impl Iterator<Item = (&TocEntry, Section)> {
    entries.iter().scan(Section::PreData, |current, entry| {
        if entry.section != Section::None {
            *current = entry.section;
        }
        Some((entry, *current))
    })
}

struct Planner<'a> {
    relations: &'a Relations,
    parts: usize,
    /// The step that vacuums a table.
    vacuum_of: HashMap<u32, usize>,
    /// The steps that build indexes of a table, so far.
    indexes_of: HashMap<u32, Vec<usize>>,
    /// The step of each entry planned so far.
    step_of: HashMap<u32, usize>,
    /// The relations that each of them is about.
    locks_of: HashMap<u32, Vec<u32>>,
}

impl Planner<'_> {
    /// Whether this is an index or key of a partitioned table, which has no rows to index.
    ///
    /// The partitions' own ones depend on it and must not wait for the other partitions' data. And
    /// it must not run beside a load: ALTER TABLE on the parent waits for every COPY into a
    /// partition, which looks at the parent for the partition's bounds.
    fn is_early_index(&self, entry: &TocEntry, kind: Kind) -> bool {
        let makes_index = matches!(entry.desc.as_bytes(), b"INDEX" | b"CONSTRAINT");
        let on = &entry.dependencies;
        makes_index
            && !kind.recurses
            && on.iter().any(|id| self.relations.is_partitioned(*id))
            && !on
                .iter()
                .any(|id| self.step_of.contains_key(id) || self.relations.has_rows(*id))
    }

    fn planned(&mut self, entry: &TocEntry, step: usize) {
        self.step_of.insert(entry.dump_id, step);
        if matches!(entry.desc.as_bytes(), b"INDEX" | b"CONSTRAINT") {
            for table in entry
                .dependencies
                .iter()
                .filter(|id| self.relations.has_rows(**id))
            {
                self.indexes_of.entry(*table).or_default().push(step);
            }
        }
    }

    fn step(&mut self, entry: &TocEntry, kind: Kind) -> Step {
        let mut after = BTreeSet::new();
        let mut relations = BTreeSet::new();
        let mut bytes = 0;
        // pg_dump names a table once for each column that matters.
        let dependencies: BTreeSet<u32> = entry.dependencies.iter().copied().collect();
        for id in &dependencies {
            // What is not planned yet stands later in the archive, whose own order runs this entry
            // before it: such a dependency is none.
            after.extend(self.step_of.get(id));
            if kind.lock == Lock::Parent {
                relations.extend(self.locks_of.get(id).into_iter().flatten());
            }
            let Some(family) = self.relations.family(*id) else {
                continue;
            };
            let family = if kind.recurses { family } else { &[*id][..] };
            relations.extend(family);
            after.extend(family.iter().flat_map(|id| self.relations.parts(*id)));
            if entry.desc == "FK CONSTRAINT" {
                // It could run without them, but they make its check cheap, and they lock the table
                // against it anyway.
                let indexes = family.iter().filter_map(|id| self.indexes_of.get(id));
                after.extend(indexes.flatten());
                after.extend(family.iter().filter_map(|id| self.vacuum_of.get(id)));
            }
            bytes += family
                .iter()
                .map(|id| self.relations.bytes(*id))
                .sum::<u64>();
        }
        if entry.desc == "CHECK CONSTRAINT" && relations.is_empty() {
            // A domain's, which rows of any table may violate if it was never validated.
            after.extend(0..self.parts);
        }
        let relations: Vec<u32> = relations.into_iter().collect();
        self.locks_of.insert(entry.dump_id, relations.clone());
        let locks = match kind.lock {
            Lock::Shared => Locks::Shared(relations),
            Lock::Exclusive | Lock::Parent => Locks::Exclusive(relations),
            Lock::Privileges => Locks::Exclusive(vec![PRIVILEGES]),
            Lock::Everything => {
                after.extend(0..self.parts);
                Locks::Everything
            }
        };
        Step {
            after: after.into_iter().collect(),
            pass: kind.pass,
            locks,
            cost: kind.fixed.saturating_add(bytes / 100 * kind.percent),
            batchable: true,
        }
    }
}

#[cfg(test)]
mod tests;
