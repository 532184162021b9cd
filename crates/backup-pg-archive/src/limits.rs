//! How much memory an archive may ask for.

/// Bounds on what is kept of an archive, so that damaged or hostile input cannot exhaust memory.
///
/// Only the table of contents is kept; rows never are. Whatever the limits, memory also stays within
/// a small multiple of the bytes received: a length that the archive merely claims allocates nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest string, such as a function's definition.
    pub string_bytes: u64,
    /// Most entries.
    pub entries: u64,
    /// Largest header and table of contents together.
    pub contents_bytes: u64,
}

impl Default for Limits {
    /// 256 MiB a string, 10 million entries, 1 GiB in all: a table takes about 1 KiB.
    fn default() -> Self {
        Self {
            string_bytes: 256 << 20,
            entries: 10_000_000,
            contents_bytes: 1 << 30,
        }
    }
}
