//! Which entries a restore of some schemas or tables takes.
//!
//! What was selected is taken with all that belongs to it, and with all that it needs: schemas,
//! types, functions. A table that was not selected is no such thing. What needs one, say a foreign
//! key or a view, is left out and named in a warning. Only where a selected table itself cannot be
//! made without it, the definition of the other table comes along, without its rows.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use backup_core::facts::{FindTableError, TableName, find_table};
use backup_core::restorer::Selection;
use backup_pg_archive::{DumpText, TocEntry};

use super::describe;
use super::graph::{Graph, is_relation, is_table};
use super::kind::mentions;
use super::relations::{family, name_of};
use crate::inspector::bytes_of;
use crate::restorer::error::RestoreError;

/// What was found.
#[derive(Debug)]
pub(crate) struct Selected {
    /// Dump ids of the entries to restore.
    pub(crate) dump_ids: HashSet<u32>,
    /// Tables and sequences whose content belongs to it.
    pub(crate) content: BTreeSet<TableName>,
    /// What is left out, and what comes along although it was not selected.
    pub(crate) warnings: Vec<String>,
}

/// Selects among the entries of the part with the definitions.
pub(crate) fn select(
    entries: &[TocEntry],
    selection: &Selection,
) -> Result<Selected, RestoreError> {
    let graph = Graph::new(entries);
    let mut warnings = Vec::new();
    let roots = roots(entries, selection)?;
    let schemas = selection.schemas.iter().map(|schema| bytes_of(schema));
    let mut picker = Picker {
        relations: with_families(&graph, roots, &mut warnings),
        graph,
        schemas: schemas.collect(),
        used_schemas: HashSet::new(),
        taken: HashSet::new(),
        blocked: HashMap::new(),
        left_out: HashSet::new(),
        warnings,
    };
    picker.take_tables();
    picker.block();
    while picker.take_what_belongs() {}
    Ok(picker.selected())
}

/// The relations that were selected by name or by schema.
fn roots(entries: &[TocEntry], selection: &Selection) -> Result<BTreeSet<u32>, RestoreError> {
    let mut roots = BTreeSet::new();
    let mut missing = Vec::new();
    let relations: Vec<(TableName, u32)> = entries
        .iter()
        .filter(|entry| is_relation(entry) || entry.desc == "SEQUENCE")
        .map(|entry| (name_of(entry), entry.dump_id))
        .collect();
    for schema in &selection.schemas {
        let bytes = bytes_of(schema);
        let is_there = entries.iter().any(|entry| {
            namespace(entry) == bytes || entry.desc == "SCHEMA" && entry.tag.as_bytes() == bytes
        });
        if !is_there {
            missing.push(format!("schema {schema}"));
        }
        let members = relations.iter().filter(|(name, _)| name.schema == *schema);
        roots.extend(members.map(|(_, id)| id));
    }
    for text in &selection.tables {
        match find_table(relations.iter().map(|(name, _)| name.clone()), text) {
            Ok(table) => {
                let found = relations.iter().filter(|(name, _)| *name == table);
                roots.extend(found.map(|(_, id)| id));
            }
            Err(FindTableError::NotFound { text }) => missing.push(format!("table {text}")),
            Err(error @ FindTableError::Ambiguous { .. }) => {
                return Err(RestoreError::Ambiguous {
                    what: error.to_string(),
                });
            }
        }
    }
    if missing.is_empty() {
        Ok(roots)
    } else {
        Err(RestoreError::NotInBackup {
            what: missing.join(", "),
        })
    }
}

/// Adds partitions and heirs: the rows of a table are theirs too. And where rows are spread by hash,
/// the whole of it: they may come to lie in other partitions, and are loaded through the parent.
fn with_families(
    graph: &Graph<'_>,
    mut roots: BTreeSet<u32>,
    warnings: &mut Vec<String>,
) -> HashSet<u32> {
    let children = graph.children();
    let mut parents = HashMap::<u32, Vec<u32>>::new();
    for (&parent, members) in &children {
        for &child in members {
            parents.entry(child).or_default().push(parent);
        }
    }
    let is_hashed = |id: &u32| {
        let entry = graph.entry(*id);
        entry.is_some_and(|entry| mentions(entry, b"PARTITION BY HASH"))
    };
    let ancestors: BTreeSet<u32> = roots.iter().flat_map(|&id| family(id, &parents)).collect();
    for id in ancestors.into_iter().filter(is_hashed) {
        if roots.insert(id)
            && let Some(entry) = graph.entry(id)
        {
            warnings.push(format!(
                "{} is restored with all its partitions: rows can move between them",
                describe(entry)
            ));
        }
    }
    let members = roots.iter().flat_map(|&id| family(id, &children));
    members.collect()
}

struct Picker<'a> {
    graph: Graph<'a>,
    /// Selected relations and sequences, with their families.
    relations: HashSet<u32>,
    schemas: HashSet<Vec<u8>>,
    /// Schemas of what is taken.
    used_schemas: HashSet<Vec<u8>>,
    taken: HashSet<u32>,
    /// What cannot be taken, and the relation that it would need.
    blocked: HashMap<u32, u32>,
    /// What would have been taken but for that.
    left_out: HashSet<u32>,
    warnings: Vec<String>,
}

impl Picker<'_> {
    /// Takes the selected tables with everything that they need, whatever it is.
    fn take_tables(&mut self) {
        let graph = &self.graph;
        let selected = graph.entries.iter().filter(|entry| is_table(entry));
        let selected = selected.filter(|entry| self.relations.contains(&entry.dump_id));
        let mut open: VecDeque<u32> = selected.map(|entry| entry.dump_id).collect();
        self.taken.extend(&open);
        let mut along = Vec::new();
        while let Some(id) = open.pop_front() {
            for &needed in graph.needs(id) {
                if !self.taken.insert(needed) {
                    continue;
                }
                open.push_back(needed);
                if !self.relations.contains(&needed)
                    && let (Some(entry), Some(by)) = (graph.entry(needed), graph.entry(id))
                    && is_relation(entry)
                {
                    along.push(format!(
                        "{} was not selected, and only its definition is restored: {} needs it",
                        describe(entry),
                        describe(by)
                    ));
                }
            }
        }
        self.warnings.extend(along);
        let taken: Vec<u32> = self.taken.iter().copied().collect();
        for id in taken {
            self.use_schema(id);
        }
    }

    /// Finds out what needs a relation that is not there.
    fn block(&mut self) {
        let graph = &self.graph;
        let absent = graph.entries.iter().filter(|entry| {
            let id = entry.dump_id;
            is_relation(entry) && !self.relations.contains(&id) && !self.taken.contains(&id)
        });
        let mut open: VecDeque<u32> = absent.map(|entry| entry.dump_id).collect();
        self.blocked.extend(open.iter().map(|&id| (id, id)));
        while let Some(id) = open.pop_front() {
            let Some(&reason) = self.blocked.get(&id) else {
                continue;
            };
            for &needer in graph.needed_by(id) {
                if !self.taken.contains(&needer) && !self.blocked.contains_key(&needer) {
                    self.blocked.insert(needer, reason);
                    open.push_back(needer);
                }
            }
        }
    }

    /// Takes what belongs to what was taken so far. Whether it found anything.
    fn take_what_belongs(&mut self) -> bool {
        let before = self.taken.len();
        for entry in self.graph.entries {
            let id = entry.dump_id;
            if self.taken.contains(&id) || self.left_out.contains(&id) || !self.is_wanted(entry) {
                continue;
            }
            if self.blocked.contains_key(&id) {
                self.left_out.insert(id);
            } else {
                self.take(id);
            }
        }
        self.taken.len() > before
    }

    fn is_wanted(&self, entry: &TocEntry) -> bool {
        if is_never_wanted(entry) {
            return false;
        }
        if self.relations.contains(&entry.dump_id) || self.schemas.contains(namespace(entry)) {
            return true;
        }
        match entry.desc.as_bytes() {
            b"SCHEMA" => return self.schemas.contains(entry.tag.as_bytes()),
            b"EXTENSION" => return self.lives_in_a_selected_schema(entry),
            b"CAST" | b"TRANSFORM" => return self.is_between_what_is_taken(entry),
            b"USER MAPPING" => return self.is_for_a_taken_server(entry),
            _ => {}
        }
        // What is said about a table is as much a part of its definition as its columns are, so it
        // comes with a definition that only came along; an index does not.
        let about = matches!(
            entry.desc.as_bytes(),
            b"COMMENT" | b"SECURITY LABEL" | b"ACL" | b"TABLE ATTACH" | b"INDEX ATTACH"
        );
        // Every database has the schema `public`, so archives may lack its entry.
        let schema = entry.tag.as_bytes().strip_prefix(b"SCHEMA ");
        if about && schema.is_some_and(|schema| self.used_schemas.contains(schema)) {
            return true;
        }
        let mut owners = self.graph.owners(entry).into_iter();
        owners.any(|owner| {
            let relation = self.graph.entry(owner).is_some_and(is_relation);
            self.relations.contains(&owner) || (about || !relation) && self.taken.contains(&owner)
        })
    }

    fn lives_in_a_selected_schema(&self, extension: &TocEntry) -> bool {
        let needs = self.graph.needs(extension.dump_id).iter();
        let mut schemas = needs.filter_map(|id| self.graph.entry(*id));
        schemas.any(|on| on.desc == "SCHEMA" && self.schemas.contains(on.tag.as_bytes()))
    }

    /// Casts and transforms are in no schema: they belong to the types and functions that they join.
    fn is_between_what_is_taken(&self, entry: &TocEntry) -> bool {
        let needs = self.graph.needs(entry.dump_id);
        !needs.is_empty() && needs.iter().all(|id| self.taken.contains(id))
    }

    /// `USER MAPPING somebody SERVER there` names its server in its tag alone.
    fn is_for_a_taken_server(&self, mapping: &TocEntry) -> bool {
        let entries = self.graph.entries.iter();
        let mut servers = entries.filter(|entry| entry.desc == "SERVER");
        servers.any(|server| {
            let tag = mapping.tag.as_bytes().strip_suffix(server.tag.as_bytes());
            self.taken.contains(&server.dump_id) && tag.is_some_and(|t| t.ends_with(b" SERVER "))
        })
    }

    /// What would act on something that is taken, and is only restored with a whole database.
    fn left_to_whole_databases(&self) -> Vec<String> {
        let entries = self.graph.entries.iter();
        let never = entries.filter(|entry| is_never_wanted(entry));
        let acting = never.filter(|entry| {
            let mut needs = self.graph.needs(entry.dump_id).iter();
            needs.any(|id| {
                let is_schema = self.graph.entry(*id).is_some_and(|on| on.desc == "SCHEMA");
                self.relations.contains(id) || !is_schema && self.taken.contains(id)
            })
        });
        let say = |entry| {
            format!(
                "{} is left out: it is for the whole database",
                describe(entry)
            )
        };
        acting.map(say).collect()
    }

    /// Takes an entry with all that it needs.
    fn take(&mut self, id: u32) {
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            if self.taken.insert(id) {
                open.extend(self.graph.needs(id));
                self.use_schema(id);
            }
        }
    }

    fn use_schema(&mut self, id: u32) {
        if let Some(entry) = self.graph.entry(id) {
            self.used_schemas.insert(namespace(entry).to_vec());
        }
    }

    fn selected(mut self) -> Selected {
        let mut content = BTreeSet::new();
        let left = self.left_to_whole_databases();
        self.warnings.extend(left);
        for entry in self.graph.entries {
            let id = entry.dump_id;
            if let Some(needed) = self.blocked.get(&id)
                && self.left_out.contains(&id)
                && !is_worthless_alone(entry)
                && let Some(needed) = self.graph.entry(*needed)
            {
                self.warnings.push(format!(
                    "{} is left out: it needs {}, which was not selected",
                    describe(entry),
                    describe(needed)
                ));
            }
            let has_content =
                entry.desc == "SEQUENCE" || entry.desc == "TABLE" && self.relations.contains(&id);
            if has_content && self.taken.contains(&id) {
                content.insert(name_of(entry));
            }
        }
        Selected {
            dump_ids: self.taken,
            content,
            warnings: self.warnings,
        }
    }
}

fn namespace(entry: &TocEntry) -> &[u8] {
    let namespace = entry.namespace.as_ref();
    namespace.map_or(&b""[..], DumpText::as_bytes)
}

/// What acts beyond the objects it names: it is for whole databases.
fn is_never_wanted(entry: &TocEntry) -> bool {
    let kinds: [&[u8]; 3] = [b"PUBLICATION", b"SUBSCRIPTION", b"EVENT TRIGGER"];
    let kind = entry.desc.as_bytes();
    kinds.iter().any(|never| kind.starts_with(never))
}

/// What is not worth a warning of its own beside that of its owner.
fn is_worthless_alone(entry: &TocEntry) -> bool {
    match entry.desc.as_bytes() {
        b"COMMENT" | b"SECURITY LABEL" | b"ACL" | b"MATERIALIZED VIEW DATA" => true,
        b"RULE" => entry.tag.as_bytes().ends_with(b" _RETURN"),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
