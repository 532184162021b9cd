//! The header of an archive.

use std::fmt;

use crate::DumpText;

/// What stands before the table of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// Version of the archive's layout.
    pub version: ArchiveVersion,
    /// Bytes of an integer, its sign byte not counted. Always 4 in practice.
    pub int_size: u8,
    /// Bytes of a file offset. 8, or 4 on very old platforms.
    pub off_size: u8,
    /// How `pg_dump` compressed the data blocks.
    pub compression: Compression,
    /// When the dump started.
    pub created: CreatedAt,
    /// Name of the dumped database.
    pub database: Option<DumpText>,
    /// The server's version, such as `16.15 (Debian 16.15-1)`.
    pub server_version: Option<DumpText>,
    /// The version of the `pg_dump` that wrote the archive.
    pub dump_version: Option<DumpText>,
}

/// Version of the archive's layout, not of PostgreSQL: 1.14 since 12, 1.15 since 16, 1.16 since 17.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub struct ArchiveVersion {
    pub major: u8,
    pub minor: u8,
    pub revision: u8,
}

impl ArchiveVersion {
    /// Whether this crate knows the layout. Each minor version may add a field to every entry, so
    /// an unknown newer one is refused rather than misread.
    pub(crate) fn is_known(self) -> bool {
        self.major == 1 && (12..=16).contains(&self.minor)
    }
}

impl fmt::Display for ArchiveVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}-{}", self.major, self.minor, self.revision)
    }
}

/// How the data blocks are compressed. Archives before 1.15 know only gzip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub enum Compression {
    None,
    Gzip,
    Lz4,
    Zstd,
    /// A method that this crate does not know, by its number.
    Unknown(u8),
}

impl From<u8> for Compression {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Lz4,
            3 => Self::Zstd,
            other => Self::Unknown(other),
        }
    }
}

impl From<Compression> for u8 {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Lz4 => 2,
            Compression::Zstd => 3,
            Compression::Unknown(number) => number,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("nothing"),
            Self::Gzip => f.write_str("gzip"),
            Self::Lz4 => f.write_str("lz4"),
            Self::Zstd => f.write_str("zstd"),
            Self::Unknown(number) => write!(f, "unknown method {number}"),
        }
    }
}

/// Wall clock of the dumping host when the dump started. The archive does not say in which zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub struct CreatedAt {
    pub year: i32,
    /// 1 to 12.
    pub month: i32,
    pub day: i32,
    pub hour: i32,
    pub minute: i32,
    pub second: i32,
}

impl CreatedAt {
    /// From the first six of C's `struct tm`: second, minute, hour, day, month from 0, year - 1900.
    pub(crate) fn from_tm(tm: [i32; 6]) -> Self {
        let [second, minute, hour, day, month, year] = tm;
        Self {
            year: year.saturating_add(1900),
            month: month.saturating_add(1),
            day,
            hour,
            minute,
            second,
        }
    }

    pub(crate) fn to_tm(self) -> [i32; 6] {
        [
            self.second,
            self.minute,
            self.hour,
            self.day,
            self.month.saturating_sub(1),
            self.year.saturating_sub(1900),
        ]
    }
}

impl fmt::Display for CreatedAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
            self.year, self.month, self.day, self.hour, self.minute, self.second
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn created_at_is_read_as_c_writes_it() {
        let created = CreatedAt::from_tm([10, 27, 3, 21, 10, 126]);
        assert_eq!(created.to_string(), "2026-11-21 03:27:10");
        assert_eq!(created.to_tm(), [10, 27, 3, 21, 10, 126]);
    }

    #[test]
    fn compression_names() {
        let names: Vec<String> = (0..5).map(|n| Compression::from(n).to_string()).collect();
        assert_eq!(
            names,
            ["nothing", "gzip", "lz4", "zstd", "unknown method 4"]
        );
    }
}
