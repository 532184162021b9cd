//! From an archive's table of contents to the steps of a load.
//!
//! The schema part holds the definitions from before and after the data. Its pre-data entries run
//! first, in one process. Every other entry becomes a [`Step`], and so does every data part, and
//! the [`Schedule`](super::schedule::Schedule) decides when each runs. An entry is handed to
//! `pg_restore --use-list` by its dump id, never by section or name, so that each runs exactly once.
//! Sections cannot be used together with a list: `pg_restore` gives comments and privileges the
//! section of the entry before them, and the list changes what stands before them.

use std::collections::{BTreeSet, HashMap, HashSet};

use backup_core::facts::TableName;
use backup_core::manifest::PartName;
use backup_pg_archive::{DumpText, Section, TocEntry};

use super::schedule::{Locks, Pass, Step};
use crate::ident::quote_qualified;
use crate::inspector::table_name;

/// What every entry costs besides the work on rows: a round trip and some catalog rows, about as
/// much as this many bytes of data.
const PER_ENTRY: u64 = 64 << 10;

/// A query of unknown cost: enough to get a process of its own.
const UNKNOWN_QUERY: u64 = 32 << 20;

/// Tables with so many bytes of rows are vacuumed before their indexes are built.
const WORTH_A_VACUUM: u64 = 4 << 20;

/// Stands for the privileges of all objects: two GRANTs on one object collide in the catalog.
const PRIVILEGES: u32 = 0;

/// One data part, as the schedule sees it.
#[derive(Debug, Clone)]
pub(crate) struct DataPart {
    /// Its name.
    pub(crate) name: PartName,
    /// Its raw bytes.
    pub(crate) bytes: u64,
    /// The tables it has rows of, with the bytes of them.
    pub(crate) tables: Vec<(TableName, u64)>,
}

/// What to leave out of a restore.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Omit {
    /// VACUUM and ANALYZE of large tables.
    pub(crate) vacuum: bool,
    /// GRANT and REVOKE: owners are not kept.
    pub(crate) privileges: bool,
    /// What only a superuser may create, since the login is none and owners are not kept.
    pub(crate) superuser_objects: bool,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Everything else: data parts, large tables to vacuum, then entries in the archive's order.
    pub(crate) steps: Vec<Step>,
    /// What each step does.
    pub(crate) work: Vec<Work>,
    /// Entries left out that somebody may miss, as text.
    pub(crate) left_out: Vec<String>,
}

impl LoadPlan {
    /// Plans the load of an archive with these `entries` and data `parts`.
    pub(crate) fn new(entries: &[TocEntry], parts: &[DataPart], omit: Omit) -> Self {
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
        let relations = Relations::new(entries, parts);
        let mut planner = Planner {
            relations: &relations,
            parts: parts.len(),
            vacuum_of: HashMap::new(),
            indexes_of: HashMap::new(),
            step_of: HashMap::new(),
            locks_of: HashMap::new(),
        };
        if !omit.vacuum {
            planner.vacuum_of = plan.vacuum(entries, &relations);
        }
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
            let step = planner.step(entry, kind);
            planner.planned(entry, plan.steps.len());
            plan.steps.push(step);
            plan.work.push(Work::Restore(entry.dump_id));
        }
        plan
    }

    /// The tables that are vacuumed and analysed on the way, as SQL.
    pub(crate) fn vacuumed(&self) -> HashSet<String> {
        let tables = self.work.iter().filter_map(|work| match work {
            Work::Vacuum(table) => Some(table.clone()),
            Work::Load(_) | Work::Restore(_) => None,
        });
        tables.collect()
    }

    /// Plans the vacuum of large tables, and says which steps those are.
    ///
    /// Right after a load no row is known to be visible to everybody, so an index-only scan would
    /// look at the table for each. Vacuum costs one pass over pages that are still in memory, and
    /// makes the check of a foreign key on such a table several times cheaper. Autovacuum would do
    /// the same a little later, when the restored database is in use.
    /// <https://www.postgresql.org/docs/current/storage-vm.html>
    fn vacuum(&mut self, entries: &[TocEntry], relations: &Relations) -> HashMap<u32, usize> {
        let mut vacuum_of = HashMap::new();
        for entry in entries.iter().filter(|entry| entry.desc == "TABLE") {
            let (id, bytes) = (entry.dump_id, relations.bytes(entry.dump_id));
            let Some(name) = sql_name(entry).filter(|_| bytes >= WORTH_A_VACUUM) else {
                continue;
            };
            vacuum_of.insert(id, self.steps.len());
            self.work.push(Work::Vacuum(name));
            self.steps.push(Step {
                after: relations.parts(id).to_vec(),
                pass: Pass::Main,
                locks: Locks::Exclusive(vec![id]),
                cost: PER_ENTRY + bytes / 10,
                batchable: false,
            });
        }
        vacuum_of
    }
}

/// The name of a table for statements in UTF-8; archives in other encodings have it only in ASCII.
fn sql_name(entry: &TocEntry) -> Option<String> {
    let schema = entry.namespace.as_ref()?.as_str()?;
    let name = entry.tag.as_str()?;
    (schema.is_ascii() && name.is_ascii()).then(|| quote_qualified(schema, name))
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
    dump_ids.iter().map(|id| format!("{id};\n")).collect()
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

enum Omitted {
    /// Nobody would expect it.
    Silently,
    /// Somebody may miss it.
    Worth,
}

impl Omit {
    fn reason(self, entry: &TocEntry) -> Option<Omitted> {
        match entry.desc.as_bytes() {
            // The reader's own settings, and the database itself, which exists.
            b"ENCODING" | b"STDSTRINGS" | b"SEARCHPATH" | b"DATABASE" | b"DATABASE PROPERTIES" => {
                Some(Omitted::Silently)
            }
            b"ACL" | b"COMMENT" | b"SECURITY LABEL" if starts(&entry.tag, b"DATABASE ") => {
                Some(Omitted::Silently)
            }
            b"ACL" | b"DEFAULT ACL" if self.privileges => Some(Omitted::Silently),
            _ if self.superuser_objects && needs_superuser(entry) => Some(Omitted::Worth),
            _ => None,
        }
    }
}

fn needs_superuser(entry: &TocEntry) -> bool {
    match entry.desc.as_bytes() {
        b"EVENT TRIGGER" | b"SUBSCRIPTION" | b"SUBSCRIPTION TABLE" => true,
        b"PUBLICATION" => mentions(entry, b"FOR ALL TABLES"),
        b"PUBLICATION TABLES IN SCHEMA" => true,
        b"COMMENT" | b"SECURITY LABEL" => {
            starts(&entry.tag, b"EVENT TRIGGER ") || starts(&entry.tag, b"SUBSCRIPTION ")
        }
        _ => false,
    }
}

/// What an entry's kind says about when and how it runs.
#[derive(Debug, Clone, Copy)]
struct Kind {
    pass: Pass,
    lock: Lock,
    /// Whether it works on the descendants of its table too.
    recurses: bool,
    /// Cost as a share of the table's bytes, in percent.
    percent: u64,
    /// Cost besides.
    fixed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lock {
    Shared,
    Exclusive,
    /// As the object that it is about, exclusively.
    Parent,
    Privileges,
    Everything,
}

impl Kind {
    /// `cost` is the percentage of the table's bytes and what comes on top.
    const fn new(pass: Pass, lock: Lock, cost: (u64, u64)) -> Self {
        let (percent, fixed) = cost;
        Self {
            pass,
            lock,
            recurses: true,
            percent,
            fixed,
        }
    }

    /// The shares are what a table of narrow rows took; what matters is only their order of size.
    fn of(entry: &TocEntry) -> Self {
        let main = |lock, percent| Self::new(Pass::Main, lock, (percent, PER_ENTRY));
        let last = Self::new(Pass::EventTriggers, Lock::Privileges, (0, PER_ENTRY));
        match entry.desc.as_bytes() {
            b"INDEX" => main(Lock::Shared, 45).on_one_table(),
            b"CONSTRAINT" if is_only(entry) => main(Lock::Exclusive, 30).on_one_table(),
            b"CONSTRAINT" => main(Lock::Exclusive, 5),
            b"INDEX ATTACH" => main(Lock::Exclusive, 0).on_one_table(),
            b"FK CONSTRAINT" => main(Lock::Exclusive, 40),
            b"CHECK CONSTRAINT" => main(Lock::Exclusive, 5),
            b"TRIGGER"
            | b"RULE"
            | b"POLICY"
            | b"ROW SECURITY"
            | b"STATISTICS"
            | b"STATISTICS DATA"
            | b"EXTENDED STATISTICS DATA"
            | b"PUBLICATION"
            | b"PUBLICATION TABLE"
            | b"PUBLICATION TABLES IN SCHEMA"
            | b"SUBSCRIPTION"
            | b"SUBSCRIPTION TABLE" => main(Lock::Exclusive, 0),
            b"ACL" | b"DEFAULT ACL" => {
                Self::new(Pass::Privileges, Lock::Privileges, (0, PER_ENTRY / 4))
            }
            b"MATERIALIZED VIEW DATA" => {
                Self::new(Pass::Refresh, Lock::Exclusive, (0, UNKNOWN_QUERY))
            }
            b"EVENT TRIGGER" => last,
            b"COMMENT" | b"SECURITY LABEL" if starts(&entry.tag, b"EVENT TRIGGER ") => last,
            b"COMMENT" | b"SECURITY LABEL" => main(Lock::Parent, 0),
            // Whatever a later release adds: nothing is known about its locks.
            _ => main(Lock::Everything, 0),
        }
    }

    fn on_one_table(self) -> Self {
        Self {
            recurses: false,
            ..self
        }
    }
}

/// `ALTER TABLE ONLY` leaves descendants alone.
fn is_only(entry: &TocEntry) -> bool {
    let definition = entry.defn.as_ref();
    definition.is_some_and(|definition| starts(definition, b"ALTER TABLE ONLY "))
}

fn mentions(entry: &TocEntry, words: &[u8]) -> bool {
    let definition = entry.defn.as_ref().map_or(&b""[..], DumpText::as_bytes);
    definition
        .windows(words.len())
        .any(|window| window == words)
}

fn starts(text: &DumpText, with: &[u8]) -> bool {
    text.as_bytes().starts_with(with)
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
            if entry.desc == "FK CONSTRAINT" {
                // It could run without, but is checked by a merge of two indexes if there are two.
                // As they cannot be built at the same time, it may as well wait for them.
                let indexes = family.iter().filter_map(|id| self.indexes_of.get(id));
                after.extend(indexes.flatten());
            }
            after.extend(family.iter().flat_map(|id| self.relations.parts(*id)));
            after.extend(family.iter().filter_map(|id| self.vacuum_of.get(id)));
            bytes += family
                .iter()
                .map(|id| self.relations.bytes(*id))
                .sum::<u64>();
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

/// The archive's relations: which parts hold their rows, and which of them are one family.
struct Relations {
    /// By dump id: itself and its descendants.
    families: HashMap<u32, Vec<u32>>,
    parts: HashMap<u32, Vec<usize>>,
    bytes: HashMap<u32, u64>,
    all_parts: Vec<usize>,
    parents: HashSet<u32>,
    tables: HashSet<u32>,
}

impl Relations {
    fn new(entries: &[TocEntry], parts: &[DataPart]) -> Self {
        let ids: HashMap<u32, &TocEntry> = entries
            .iter()
            .filter(|entry| is_relation(entry))
            .map(|entry| (entry.dump_id, entry))
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
        };
        for (&id, entry) in &ids {
            if entry.desc == "TABLE" {
                relations.tables.insert(id);
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
    fn family(&self, id: u32) -> Option<&[u32]> {
        self.families.get(&id).map(Vec::as_slice)
    }

    /// The parts that hold its rows. A table that no part is known to hold waits for all of them,
    /// unless it is clear that it has no rows itself.
    fn parts(&self, id: u32) -> &[usize] {
        match self.parts.get(&id) {
            Some(parts) => parts,
            None if self.tables.contains(&id) && !self.parents.contains(&id) => &self.all_parts,
            None => &[],
        }
    }

    /// Whether it has descendants and no rows of its own.
    fn is_partitioned(&self, id: u32) -> bool {
        self.parents.contains(&id) && !self.parts.contains_key(&id)
    }

    /// Whether it may have rows of its own.
    fn has_rows(&self, id: u32) -> bool {
        !self.parts(id).is_empty()
    }

    fn bytes(&self, id: u32) -> u64 {
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
fn children(entries: &[TocEntry], ids: &HashMap<u32, &TocEntry>) -> HashMap<u32, Vec<u32>> {
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

fn family(id: u32, children: &HashMap<u32, Vec<u32>>) -> Vec<u32> {
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
fn name_of(entry: &TocEntry) -> TableName {
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

#[cfg(test)]
mod tests;
