//! Header and table of contents, written as `pg_dump` writes them.
//!
//! The layout is that of `WriteHead` and `WriteToc` in PostgreSQL's
//! `src/bin/pg_dump/pg_backup_archiver.c`.

use crate::writer::{write_bytes, write_int};
use crate::{ArchiveVersion, Compression, DataState, DumpText, Header, TocEntry};

const CUSTOM_FORMAT: u8 = 1;
/// Of integers and of offsets.
const SIZES: [u8; 2] = [4, 8];

/// The bytes that an archive with this header and these entries begins with; all of it, where no
/// entry has data.
///
/// The layout keeps its version, so whatever reads the original reads this. Whatever the original's
/// sizes of integers were, here they are 4 and 8.
#[must_use]
pub fn encode_contents(header: &Header, entries: &[TocEntry]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_header(header, &mut out);
    write_count(entries.len(), &mut out);
    for entry in entries {
        encode_entry(entry, header.version, &mut out);
    }
    out
}

fn encode_header(header: &Header, out: &mut Vec<u8>) {
    let version = header.version;
    out.extend_from_slice(b"PGDMP");
    out.extend_from_slice(&[version.major, version.minor, version.revision]);
    out.extend_from_slice(&SIZES);
    out.push(CUSTOM_FORMAT);
    if version.minor >= 15 {
        out.push(header.compression.into());
    } else {
        // The level; the default, where there was any.
        write_int(
            if header.compression == Compression::None {
                0
            } else {
                -1
            },
            out,
        );
    }
    for number in header.created.to_tm() {
        write_int(number, out);
    }
    // Daylight saving time is for display only.
    write_int(0, out);
    for text in [
        &header.database,
        &header.server_version,
        &header.dump_version,
    ] {
        write_text(text.as_ref(), out);
    }
}

fn encode_entry(entry: &TocEntry, version: ArchiveVersion, out: &mut Vec<u8>) {
    write_id(entry.dump_id, out);
    write_int(entry.had_dumper.into(), out);
    for oid in [entry.table_oid, entry.oid] {
        write_bytes(oid.to_string().as_bytes(), out);
    }
    write_bytes(entry.tag.as_bytes(), out);
    write_bytes(entry.desc.as_bytes(), out);
    write_int(entry.section.number(), out);
    for text in [
        &entry.defn,
        &entry.drop_stmt,
        &entry.copy_stmt,
        &entry.namespace,
        &entry.tablespace,
    ] {
        write_text(text.as_ref(), out);
    }
    if version.minor >= 14 {
        write_text(entry.table_am.as_ref(), out);
    }
    if version.minor >= 16 {
        let relkind = entry.relkind.and_then(|kind| u8::try_from(kind).ok());
        write_int(relkind.unwrap_or(0).into(), out);
    }
    write_text(entry.owner.as_ref(), out);
    write_bytes(b"false", out); // WITH OIDS
    for id in &entry.dependencies {
        write_bytes(id.to_string().as_bytes(), out);
    }
    write_text(None, out); // end of the dependencies
    let (flag, offset) = match entry.data_state {
        DataState::NotSet => (1, 0),
        DataState::At(offset) => (2, offset),
        DataState::NoData => (3, 0),
    };
    out.push(flag);
    out.extend_from_slice(&offset.to_le_bytes());
}

fn write_text(text: Option<&DumpText>, out: &mut Vec<u8>) {
    match text {
        Some(text) => write_bytes(text.as_bytes(), out),
        None => write_int(-1, out),
    }
}

/// Ids and counts were read as numbers of this range.
fn write_id(id: u32, out: &mut Vec<u8>) {
    write_int(i32::try_from(id).unwrap_or(i32::MAX), out);
}

fn write_count(count: usize, out: &mut Vec<u8>) {
    write_int(i32::try_from(count).unwrap_or(i32::MAX), out);
}
