//! What can be wrong with an archive.

use crate::{ArchiveVersion, Compression, DumpText};

/// Why an archive was refused.
///
/// Every variant but [`TableNotFound`](Self::TableNotFound) and
/// [`InvalidSpec`](Self::InvalidSpec) means that the bytes are not a complete archive this crate can
/// vouch for. A reader that returned one returns [`Refused`](Self::Refused) from then on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The stream does not start as a `pg_dump` archive does.
    #[error("not a pg_dump archive")]
    NotAnArchive,
    /// An archive, but of the directory or tar format.
    #[error("archive format {format} is not the custom format")]
    NotCustomFormat {
        /// The format's number in the header.
        format: u8,
    },
    /// The layout of this archive version is not known.
    #[error("archive version {version} is not supported")]
    UnsupportedVersion {
        /// The version in the header.
        version: ArchiveVersion,
    },
    /// Integers or file offsets have a width that no `pg_dump` writes.
    #[error("integers of {int_size} and offsets of {off_size} bytes are not supported")]
    UnsupportedSizes {
        /// Bytes of an integer, sign not counted.
        int_size: u8,
        /// Bytes of a file offset.
        off_size: u8,
    },
    /// The data blocks are compressed by a method that is not known here.
    #[error("data blocks are compressed with {compression}")]
    Compressed {
        /// The method in the header.
        compression: Compression,
    },
    /// A data block is not what its compression makes of anything.
    #[error("a data block cannot be unpacked with {compression}")]
    BadCompression {
        /// The method in the header.
        compression: Compression,
    },
    /// The stream ended inside something.
    #[error("archive ends early, inside its {place}")]
    Truncated {
        /// What was being read.
        place: &'static str,
    },
    /// The stream ended between blocks, but the table of contents promises more of them.
    #[error("archive ends without the data of {missing} entries, first {name}")]
    MissingData {
        /// The lowest dump id whose data is missing.
        dump_id: u32,
        /// That entry's tag.
        name: DumpText,
        /// How many entries lack their data.
        missing: usize,
    },
    /// The bytes contradict the format.
    #[error("malformed archive near byte {offset}: {problem}")]
    Malformed {
        /// Where reading stopped, in bytes from the start.
        offset: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// The archive asks for more memory than [`Limits`](crate::Limits) allow.
    #[error("{what} exceeds the limit of {limit}")]
    LimitExceeded {
        /// What is too large.
        what: &'static str,
        /// The limit in force.
        limit: u64,
    },
    /// A table's data is not COPY text, as `pg_dump --inserts` writes it.
    #[error("data of table {table} is not COPY text")]
    NotCopyText {
        /// The table.
        table: DumpText,
    },
    /// A table's data lacks the line `\.` that ends COPY text, or goes on after it.
    #[error("data of table {table} is not ended as COPY text is")]
    BadEndMark {
        /// The table.
        table: DumpText,
    },
    /// The archive holds no data of the table that was asked for.
    #[error("archive has no data of table {namespace}.{table}")]
    TableNotFound {
        /// The schema that was asked for.
        namespace: DumpText,
        /// The table that was asked for.
        table: DumpText,
    },
    /// The archive to write cannot be described so.
    #[error("cannot write the archive: {problem}")]
    InvalidSpec {
        /// What is wrong.
        problem: &'static str,
    },
    /// Reading goes on after an earlier error.
    #[error("archive was refused before")]
    Refused,
}
