//! What needs what in an archive, and what belongs to what.

use std::collections::HashMap;

use backup_pg_archive::TocEntry;

use super::kind::{mentions, starts};

/// The entries of an archive, by dump id, and what holds between them.
pub(super) struct Graph<'a> {
    pub(super) entries: &'a [TocEntry],
    by_id: HashMap<u32, &'a TocEntry>,
    needs: HashMap<u32, Vec<u32>>,
    needed_by: HashMap<u32, Vec<u32>>,
}

impl<'a> Graph<'a> {
    pub(super) fn new(entries: &'a [TocEntry]) -> Self {
        let by_id = entries
            .iter()
            .map(|entry| (entry.dump_id, entry))
            .collect::<HashMap<_, _>>();
        let mut graph = Self {
            entries,
            by_id,
            needs: HashMap::new(),
            needed_by: HashMap::new(),
        };
        for entry in entries {
            for (needer, needed) in graph.edges(entry) {
                graph.needs.entry(needer).or_default().push(needed);
                graph.needed_by.entry(needed).or_default().push(needer);
            }
        }
        graph
    }

    /// Who needs what because of `entry`: mostly the dependencies as `pg_dump` recorded them.
    fn edges(&self, entry: &TocEntry) -> Vec<(u32, u32)> {
        let id = entry.dump_id;
        let mut edges = Vec::new();
        for on in self.dependencies(entry) {
            match entry.desc.as_bytes() {
                // Created by itself; the dependency on its table is there for the order only.
                b"SEQUENCE" if is_standalone(entry) && is_relation(on) => {}
                b"SEQUENCE OWNED BY" => {
                    let tables = self.dependencies(on).filter(|table| is_relation(table));
                    edges.extend(tables.map(|table| (id, table.dump_id)));
                    edges.push((id, on.dump_id));
                }
                // The view is made as a dummy first, which is worth nothing without its query.
                b"RULE" if is_query_of(entry, on) => {
                    edges.extend([(id, on.dump_id), (on.dump_id, id)]);
                }
                _ => edges.push((id, on.dump_id)),
            }
        }
        // Until 17, `pg_dump` does not record which operator classes the index behind it needs, and
        // those may be an extension's for types that are not.
        if entry.desc == "CONSTRAINT" && mentions(entry, b" EXCLUDE USING ") {
            let classes = self
                .entries
                .iter()
                .filter(|other| matches!(other.desc.as_bytes(), b"EXTENSION" | b"OPERATOR CLASS"));
            edges.extend(classes.map(|class| (id, class.dump_id)));
        }
        edges
    }

    /// What an entry depends on, as far as the archive has it.
    fn dependencies(&self, entry: &TocEntry) -> impl Iterator<Item = &'a TocEntry> {
        let ids = entry.dependencies.iter();
        ids.filter_map(|id| self.by_id.get(id).copied())
    }

    pub(super) fn entry(&self, id: u32) -> Option<&'a TocEntry> {
        self.by_id.get(&id).copied()
    }

    /// What has to be there before the entry can be restored.
    pub(super) fn needs(&self, id: u32) -> &[u32] {
        self.needs.get(&id).map_or(&[], Vec::as_slice)
    }

    pub(super) fn needed_by(&self, id: u32) -> &[u32] {
        self.needed_by.get(&id).map_or(&[], Vec::as_slice)
    }

    /// What the entry is a part or a property of: an index of its table, a comment of whatever it
    /// is about. Where a name leaves it open, all that it may mean.
    pub(super) fn owners(&self, entry: &TocEntry) -> Vec<u32> {
        let on: Vec<&TocEntry> = self.dependencies(entry).collect();
        let ids = |owners: &mut dyn Iterator<Item = &&TocEntry>| -> Vec<u32> {
            owners.map(|owner| owner.dump_id).collect()
        };
        match entry.desc.as_bytes() {
            b"INDEX"
            | b"STATISTICS"
            | b"ROW SECURITY"
            | b"SEQUENCE"
            | b"MATERIALIZED VIEW DATA"
            | b"STATISTICS DATA"
            | b"EXTENDED STATISTICS DATA" => ids(&mut on.iter().filter(|on| is_relation(on))),
            b"SEQUENCE OWNED BY" => {
                let tables = on.iter().flat_map(|on| self.dependencies(on));
                let tables = tables.filter(|table| is_relation(table));
                tables.map(|table| table.dump_id).collect()
            }
            b"CONSTRAINT" | b"CHECK CONSTRAINT" | b"FK CONSTRAINT" | b"DEFAULT" | b"TRIGGER"
            | b"RULE" | b"POLICY" => ids(&mut on.iter().filter(|on| is_named_after(entry, on))),
            b"TABLE ATTACH" => ids(&mut on.iter().filter(|on| is_called_as(entry, on))),
            b"INDEX ATTACH" => {
                let indexes = ids(&mut on.iter().filter(|on| is_index(entry, on)));
                match indexes.as_slice() {
                    [] => ids(&mut on.iter()),
                    _ => indexes,
                }
            }
            b"COMMENT" | b"SECURITY LABEL" | b"ACL" => ids(&mut on.iter()),
            _ => Vec::new(),
        }
    }

    /// Partitions and inheriting tables, by the dump id of the parent.
    pub(super) fn children(&self) -> HashMap<u32, Vec<u32>> {
        let mut children = HashMap::<u32, Vec<u32>>::new();
        for entry in self.entries {
            let tables = self.dependencies(entry).filter(|on| is_table(on));
            match entry.desc.as_bytes() {
                b"TABLE ATTACH" => {
                    let (child, parents): (Vec<&TocEntry>, Vec<&TocEntry>) =
                        tables.partition(|on| is_called_as(entry, on));
                    for parent in parents {
                        let child = child.iter().map(|child| child.dump_id);
                        children.entry(parent.dump_id).or_default().extend(child);
                    }
                }
                b"TABLE" | b"FOREIGN TABLE" if mentions(entry, b"\nINHERITS (") => {
                    for parent in tables {
                        let family = children.entry(parent.dump_id).or_default();
                        family.push(entry.dump_id);
                    }
                }
                _ => {}
            }
        }
        children
    }
}

/// Tables, which have rows or stand for some.
pub(super) fn is_table(entry: &TocEntry) -> bool {
    matches!(entry.desc.as_bytes(), b"TABLE" | b"FOREIGN TABLE")
}

/// Tables and what is made of them. Sequences are not among them: one that is needed comes along.
pub(super) fn is_relation(entry: &TocEntry) -> bool {
    is_table(entry) || matches!(entry.desc.as_bytes(), b"VIEW" | b"MATERIALIZED VIEW")
}

/// A sequence by `CREATE SEQUENCE`, unlike one of an identity column.
fn is_standalone(sequence: &TocEntry) -> bool {
    let definition = sequence.defn.as_ref();
    !definition.is_some_and(|definition| starts(definition, b"ALTER TABLE "))
}

fn is_query_of(rule: &TocEntry, view: &TocEntry) -> bool {
    is_relation(view)
        && rule.tag.as_bytes().strip_prefix(view.tag.as_bytes()) == Some(b" _RETURN".as_slice())
}

/// `orders orders_pkey` is named after `orders`.
fn is_named_after(entry: &TocEntry, owner: &TocEntry) -> bool {
    let rest = entry.tag.as_bytes().strip_prefix(owner.tag.as_bytes());
    rest.is_some_and(|rest| rest.starts_with(b" ")) && entry.namespace == owner.namespace
}

fn is_called_as(entry: &TocEntry, other: &TocEntry) -> bool {
    entry.tag == other.tag && entry.namespace == other.namespace
}

/// Whether it is the index that `attach` attaches, or the constraint that makes it.
fn is_index(attach: &TocEntry, index: &TocEntry) -> bool {
    match index.desc.as_bytes() {
        b"INDEX" => is_called_as(attach, index),
        b"CONSTRAINT" => {
            let table = index.tag.as_bytes().strip_suffix(attach.tag.as_bytes());
            table.is_some_and(|table| table.ends_with(b" ")) && attach.namespace == index.namespace
        }
        _ => false,
    }
}
