//! Writes archives of one table's rows.

use crate::copy::END_MARK;
use crate::{ArchiveError, CreatedAt};

/// What an archive of one table's rows says about them.
///
/// Names are given as they are, not quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableDataSpec<'a> {
    /// The database the rows come from.
    pub database: &'a str,
    /// The server's version, such as `16.15`.
    pub server_version: &'a str,
    /// What to name as the version of the `pg_dump` that wrote the archive.
    pub dump_version: &'a str,
    /// The client encoding that the rows and these names are in, such as `UTF8`.
    pub encoding: &'a str,
    /// When the dump started.
    pub created: CreatedAt,
    /// The table's schema.
    pub namespace: &'a str,
    /// The table.
    pub table: &'a str,
    /// The table's OID on the server; 0 if it does not matter.
    pub table_oid: u32,
    /// The table's owner.
    pub owner: &'a str,
    /// The columns that the rows hold, in their order; without generated ones.
    pub columns: &'a [&'a str],
}

/// Writes an archive that holds the rows of one table, or of a part of it, and nothing else.
///
/// For rows that did not come from `pg_dump` but from a `COPY … TO STDOUT` of our own. The archive
/// is of version 1.14, which `pg_restore` reads since PostgreSQL 12, from a pipe too:
/// `pg_restore --data-only -d …`. The methods append to a buffer that the caller sends on and
/// clears.
///
/// ```
/// use backup_pg_archive::{ArchiveWriter, CreatedAt, Inspector, TableDataSpec};
///
/// # fn main() -> Result<(), backup_pg_archive::ArchiveError> {
/// let created = CreatedAt { year: 2026, month: 2, day: 5, hour: 3, minute: 0, second: 0 };
/// let mut archive = Vec::new();
/// let mut writer = ArchiveWriter::start(
///     &TableDataSpec {
///         database: "shop",
///         server_version: "17.11",
///         dump_version: "17.11",
///         encoding: "UTF8",
///         created,
///         namespace: "public",
///         table: "customer",
///         table_oid: 16_385,
///         owner: "shop",
///         columns: &["id", "name"],
///     },
///     &mut archive,
/// )?;
/// writer.rows(b"1\tann\n2\tbob\n", &mut archive);
/// writer.end(&mut archive)?;
///
/// let mut inspector = Inspector::new();
/// inspector.push(&archive)?;
/// assert_eq!(inspector.finish()?.tables[0].fingerprint.rows, 2);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ArchiveWriter {
    at_line_start: bool,
}

/// Largest chunk: `pg_restore` holds a whole chunk in memory.
const CHUNK_BYTES: usize = 1 << 20;

const SECTION_PRE_DATA: i32 = 2;
const SECTION_DATA: i32 = 3;
const TABLE_DATA_ID: i32 = 4;

impl ArchiveWriter {
    /// Writes everything up to the first row.
    ///
    /// # Errors
    /// [`InvalidSpec`](ArchiveError::InvalidSpec) if a name holds a zero byte or the encoding is no
    /// name of one; nothing was written then.
    pub fn start(spec: &TableDataSpec<'_>, out: &mut Vec<u8>) -> Result<Self, ArchiveError> {
        check(spec)?;
        write_header(spec, out);
        write_contents(spec, out);
        out.push(1);
        write_int(TABLE_DATA_ID, out);
        Ok(Self {
            at_line_start: true,
        })
    }

    /// Writes rows as COPY text, without an end mark. `rows` may be cut anywhere.
    ///
    /// Each call makes chunks of its own, five bytes each, so pass many rows at once.
    pub fn rows(&mut self, rows: &[u8], out: &mut Vec<u8>) {
        for chunk in rows.chunks(CHUNK_BYTES) {
            write_bytes(chunk, out);
        }
        if let Some(&last) = rows.last() {
            self.at_line_start = last == b'\n';
        }
    }

    /// Writes the end of the archive.
    ///
    /// # Errors
    /// [`Truncated`](ArchiveError::Truncated) if the last row lacks its newline: then the COPY was
    /// cut off, and the archive must not be used.
    pub fn end(self, out: &mut Vec<u8>) -> Result<(), ArchiveError> {
        if !self.at_line_start {
            return Err(ArchiveError::Truncated { place: "last row" });
        }
        write_bytes(END_MARK, out);
        write_int(0, out);
        Ok(())
    }
}

fn check(spec: &TableDataSpec<'_>) -> Result<(), ArchiveError> {
    let invalid = |problem| Err(ArchiveError::InvalidSpec { problem });
    let name_chars = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if spec.encoding.is_empty() || !spec.encoding.bytes().all(name_chars) {
        return invalid("impossible name of an encoding");
    }
    let names = [
        spec.database,
        spec.server_version,
        spec.dump_version,
        spec.namespace,
        spec.table,
        spec.owner,
    ];
    if names
        .iter()
        .chain(spec.columns)
        .any(|name| name.contains('\0'))
    {
        return invalid("zero byte in a name");
    }
    if spec.namespace.is_empty() || spec.table.is_empty() || spec.columns.contains(&"") {
        return invalid("empty name");
    }
    Ok(())
}

fn write_header(spec: &TableDataSpec<'_>, out: &mut Vec<u8>) {
    // Version 1.14-0, integers of 4 bytes, offsets of 8, custom format.
    out.extend_from_slice(b"PGDMP\x01\x0e\x00\x04\x08\x01");
    // No compression.
    write_int(0, out);
    for number in spec.created.to_tm() {
        write_int(number, out);
    }
    // No daylight saving time.
    write_int(0, out);
    for text in [spec.database, spec.server_version, spec.dump_version] {
        write_bytes(text.as_bytes(), out);
    }
}

/// The three settings are those that `pg_dump` writes; `pg_restore` applies them before the rows.
fn write_contents(spec: &TableDataSpec<'_>, out: &mut Vec<u8>) {
    let encoding = format!("SET client_encoding = '{}';\n", spec.encoding);
    let copy = copy_statement(spec);
    let settings = [
        ("ENCODING", encoding.as_str()),
        ("STDSTRINGS", "SET standard_conforming_strings = 'on';\n"),
        (
            "SEARCHPATH",
            "SELECT pg_catalog.set_config('search_path', '', false);\n",
        ),
    ];
    write_int(TABLE_DATA_ID, out);
    for (id, (kind, defn)) in (1..).zip(settings) {
        let setting = Entry {
            id,
            kind,
            tag: kind,
            section: SECTION_PRE_DATA,
            defn: Some(defn),
            ..Entry::default()
        };
        setting.write(out);
    }
    let data = Entry {
        id: TABLE_DATA_ID,
        had_dumper: true,
        oid: spec.table_oid,
        kind: "TABLE DATA",
        tag: spec.table,
        section: SECTION_DATA,
        defn: Some(""),
        copy: Some(&copy),
        namespace: Some(spec.namespace),
        owner: Some(spec.owner),
    };
    data.write(out);
}

#[derive(Default)]
struct Entry<'a> {
    id: i32,
    had_dumper: bool,
    oid: u32,
    kind: &'a str,
    tag: &'a str,
    section: i32,
    defn: Option<&'a str>,
    copy: Option<&'a str>,
    namespace: Option<&'a str>,
    owner: Option<&'a str>,
}

impl Entry<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        write_int(self.id, out);
        write_int(self.had_dumper.into(), out);
        // The catalog's OID; pg_dump has none for settings and data.
        write_bytes(b"0", out);
        write_bytes(self.oid.to_string().as_bytes(), out);
        write_bytes(self.tag.as_bytes(), out);
        write_bytes(self.kind.as_bytes(), out);
        write_int(self.section, out);
        write_text(self.defn, out);
        write_text(None, out); // the statement that drops it
        write_text(self.copy, out);
        write_text(self.namespace, out);
        write_text(None, out); // tablespace
        write_text(None, out); // table access method
        write_text(self.owner, out);
        write_bytes(b"false", out); // WITH OIDS
        write_text(None, out); // end of the dependencies
        // Position unknown, or no data; then the position.
        out.push(if self.had_dumper { 1 } else { 3 });
        out.extend_from_slice(&[0; 8]);
    }
}

fn copy_statement(spec: &TableDataSpec<'_>) -> String {
    let columns: Vec<String> = spec.columns.iter().map(|name| quote(name)).collect();
    let list = if columns.is_empty() {
        String::new()
    } else {
        format!("({})", columns.join(", "))
    };
    let (namespace, table) = (quote(spec.namespace), quote(spec.table));
    format!("COPY {namespace}.{table} {list} FROM stdin;\n")
}

/// Quotes an identifier, needed or not: so no list of key words is needed.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn write_text(text: Option<&str>, out: &mut Vec<u8>) {
    match text {
        Some(text) => write_bytes(text.as_bytes(), out),
        None => write_int(-1, out),
    }
}

/// A length and so many bytes: a string or a chunk.
pub(crate) fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    // Chunks are cut to size, and no name or version comes near the limit of 2 GiB.
    write_int(i32::try_from(bytes.len()).unwrap_or(i32::MAX), out);
    out.extend_from_slice(bytes);
}

pub(crate) fn write_int(number: i32, out: &mut Vec<u8>) {
    out.push(number.is_negative().into());
    out.extend_from_slice(&number.unsigned_abs().to_le_bytes());
}
