//! What a restore leaves out.

use std::collections::HashSet;

use backup_pg_archive::TocEntry;

use super::kind::{mentions, starts};

/// What to leave out of a restore.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Omit<'a> {
    /// Everything but these entries, if given.
    pub(crate) all_but: Option<&'a HashSet<u32>>,
    /// Entries that are in the target already, if any.
    pub(crate) there: Option<&'a HashSet<u32>>,
    /// VACUUM and ANALYZE of large tables.
    pub(crate) vacuum: bool,
    /// GRANT and REVOKE: owners are not kept.
    pub(crate) privileges: bool,
    /// What only a superuser may create, since the login is none and owners are not kept.
    pub(crate) superuser_objects: bool,
}

pub(crate) enum Omitted {
    /// Nobody would expect it.
    Silently,
    /// Somebody may miss it.
    Worth,
}

impl Omit<'_> {
    /// Whether the entry was selected.
    pub(super) fn wants(self, entry: &TocEntry) -> bool {
        self.all_but.is_none_or(|ids| ids.contains(&entry.dump_id))
    }

    /// Whether the target has it, before or after.
    pub(super) fn knows(self, entry: &TocEntry) -> bool {
        self.wants(entry) || self.there.is_some_and(|ids| ids.contains(&entry.dump_id))
    }

    pub(crate) fn reason(self, entry: &TocEntry) -> Option<Omitted> {
        if !self.wants(entry) {
            return Some(Omitted::Silently);
        }
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

/// Whether only a superuser may own or create it.
pub(crate) fn is_for_superusers(entry: &TocEntry) -> bool {
    entry.desc == "FOREIGN DATA WRAPPER" || needs_superuser(entry)
}

fn needs_superuser(entry: &TocEntry) -> bool {
    match entry.desc.as_bytes() {
        b"EVENT TRIGGER"
        | b"SUBSCRIPTION"
        | b"SUBSCRIPTION TABLE"
        | b"PUBLICATION TABLES IN SCHEMA" => true,
        b"PUBLICATION" => mentions(entry, b"FOR ALL TABLES"),
        b"COMMENT" | b"SECURITY LABEL" => {
            starts(&entry.tag, b"EVENT TRIGGER ") || starts(&entry.tag, b"SUBSCRIPTION ")
        }
        _ => false,
    }
}
