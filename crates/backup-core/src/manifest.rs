//! The record of one backup: written last, create-only. What has a manifest is a backup,
//! what has none is nothing. Only the names of its key and recipients ever change, and only by
//! replacing it in one step.
//!
//! Format 1 is documented in `docs/FORMAT.md`. The manifest is stored in the clear and
//! therefore names no table and no host.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::backup::{BackupId, SourceName};
use crate::error::{ErrorKind, PortError};
use crate::versioned;

/// The format this build writes, and the newest it reads.
pub const FORMAT: u32 = 1;

/// No manifest is longer.
pub const MAX_MANIFEST_BYTES: usize = 16 << 20;

/// A part's name within its backup: `schema`, `data-0001`, `facts`. Letters, digits, `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PartName(String);

impl PartName {
    /// Checks and wraps a name.
    ///
    /// # Errors
    /// `InvalidInput` when it is empty, longer than 64 bytes or has other characters.
    pub fn new(name: impl Into<String>) -> Result<Self, PortError> {
        let name = name.into();
        let good = (1..=64).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if good {
            Ok(Self(name))
        } else {
            Err(PortError::new(
                ErrorKind::InvalidInput,
                format!("{name:?} is not a part name"),
            ))
        }
    }

    /// The part that holds [`crate::facts::Facts`].
    #[must_use]
    pub fn facts() -> Self {
        Self("facts".to_owned())
    }

    /// What the wrapped key is called in findings; it is no part.
    pub(crate) fn key() -> Self {
        Self("key".to_owned())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PartName {
    type Error = PortError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text)
    }
}

impl From<PartName> for String {
    fn from(name: PartName) -> Self {
        name.0
    }
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a part holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PartKind {
    /// Roles and tablespaces of the whole server.
    Globals,
    /// All definitions: pre-data and post-data sections of one database.
    Schema,
    /// Rows, sequence states, large objects.
    Data,
    /// How a server is configured.
    Settings,
    /// What the backup holds and its fingerprints.
    Facts,
}

/// The form of a part's raw bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PartFormat {
    /// `pg_dump`'s custom format, uncompressed inside.
    Custom,
    /// `pg_dump`'s tar format.
    Tar,
    /// SQL text.
    Sql,
    /// Redis' snapshot file.
    Rdb,
    /// JSON text.
    Json,
    /// Whatever a user's own dumper writes.
    Opaque,
}

impl PartFormat {
    /// Every format.
    pub(crate) const ALL: [Self; 6] = [
        Self::Custom,
        Self::Tar,
        Self::Sql,
        Self::Rdb,
        Self::Json,
        Self::Opaque,
    ];

    /// What an object's name has before the codecs' extensions.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Custom => ".dump",
            Self::Tar => ".tar",
            Self::Sql => ".sql",
            Self::Rdb => ".rdb",
            Self::Json => ".json",
            Self::Opaque => ".bin",
        }
    }
}

/// One stored object of a part. Most parts have one; longer ones continue in the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredObject {
    /// File name beside the manifest.
    pub name: String,
    /// Length as stored.
    pub bytes: u64,
    /// SHA-256 of the stored bytes.
    pub sha256: String,
    /// CRC-32 of the stored bytes.
    pub crc32: String,
}

/// One part of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRecord {
    /// Its name.
    pub name: PartName,
    /// What it holds.
    pub kind: PartKind,
    /// The form of its raw bytes.
    pub format: PartFormat,
    /// Length before compression.
    pub raw_bytes: u64,
    /// xxh3-128 of the raw bytes, 32 hex digits.
    pub raw_xxh3: String,
    /// Its objects, to be joined in this order.
    pub objects: Vec<StoredObject>,
}

impl PartRecord {
    /// Length as stored.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.bytes).sum()
    }
}

/// How the parts are encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncryptionRecord {
    /// The cipher's name.
    pub cipher: String,
    /// File name of the wrapped key beside the manifest.
    pub key: String,
    /// SHA-256 of the wrapped key as stored: without it the backup is lost, so it is checked too.
    pub key_sha256: String,
    /// Who can unwrap it, as far as public.
    pub recipients: Vec<String>,
}

/// Sums over the whole backup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Tables with data entries.
    pub tables: u64,
    /// Rows.
    pub rows: u64,
    /// Large objects.
    pub large_objects: u64,
    /// Schema objects by kind: `indexes`, `triggers`, `sequences`, …
    pub objects: BTreeMap<String, u64>,
    /// Raw bytes of all parts.
    pub raw_bytes: u64,
    /// Stored bytes of all parts.
    pub stored_bytes: u64,
}

/// What a backup is of, and so what can be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A database of PostgreSQL, which a restore makes again.
    Database,
    /// A server of Redis.
    Redis,
    /// How a server is configured.
    Settings,
    /// A dump in a form that is only kept and given back.
    ForeignDump,
}

impl Content {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Database => "a database of PostgreSQL",
            Self::Redis => "a snapshot of Redis",
            Self::Settings => "the configuration of a server",
            Self::ForeignDump => "a dump in tar or SQL form",
        }
    }

    /// Whether a drill can rehearse its restore.
    #[must_use]
    pub fn can_be_drilled(self) -> bool {
        matches!(self, Self::Database | Self::Redis)
    }
}

/// The record of one committed backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always [`FORMAT`] when written by this build.
    pub format: u32,
    /// Its name.
    pub id: BackupId,
    /// What was backed up.
    pub source: SourceName,
    /// The database's name.
    pub database: String,
    /// The repository it was written to. Reading a backup that was copied in from another one
    /// gives a warning.
    pub repository: String,
    /// Other repositories that got it at the same time, if they have ids of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<String>,
    /// Start of the run.
    pub started_at: DateTime<Utc>,
    /// When all parts were stored.
    pub finished_at: DateTime<Utc>,
    /// Version of the server that was dumped.
    pub server_version: String,
    /// Version of the tool that dumped it.
    pub tool_version: String,
    /// Whether a filter left something out: such a backup never stands for a full one.
    pub filtered: bool,
    /// Whether what was left out is what its source is configured to leave out: such a backup has
    /// all that it is meant to have.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub as_configured: bool,
    /// Whether it was made of a dump that somebody else's tool had taken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
    /// Compression of every part: `zstd:3`, `gzip:6`, `none`.
    pub compression: String,
    /// Encryption of every part; absent when said so explicitly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EncryptionRecord>,
    /// The parts, in the order in which they were planned; `facts` is the last.
    pub parts: Vec<PartRecord>,
    /// Sums.
    pub totals: Totals,
    /// How many warnings the run gave; their texts are in the facts.
    pub warnings: u64,
}

impl Manifest {
    /// Whether it has all that its source was configured to have when it was taken.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.filtered || self.as_configured
    }

    /// The stored form.
    ///
    /// # Errors
    /// `Internal`, which JSON of plain data does not have.
    pub fn encode(&self) -> Result<Vec<u8>, PortError> {
        versioned::encode(self, "manifest")
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// `Corrupt` when it is no manifest; `InvalidInput` when a newer build wrote it.
    pub fn decode(text: &[u8]) -> Result<Self, PortError> {
        versioned::decode(text, FORMAT, "manifest")
    }

    /// What stands in a manifest's place so that none can come: the run that it was for lost its
    /// lease.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub(crate) fn barred(at: DateTime<Utc>) -> Result<Vec<u8>, PortError> {
        let bar = Bar {
            format: FORMAT,
            barred_at: at,
        };
        versioned::encode(&bar, "manifest")
    }

    /// Since when this stands in a manifest's place, if it is what [`Self::barred`] makes.
    #[must_use]
    pub(crate) fn barred_at(text: &[u8]) -> Option<DateTime<Utc>> {
        let bar = versioned::decode::<Bar>(text, FORMAT, "manifest").ok()?;
        Some(bar.barred_at)
    }

    /// Whether this is the record of the same backup, whoever can open it now.
    #[must_use]
    pub fn is_same_backup(&self, other: &Self) -> bool {
        let cipher = |record: &EncryptionRecord| record.cipher.clone();
        let encryption = |manifest: &Self| manifest.encryption.as_ref().map(cipher);
        let rest = |manifest: &Self| Self {
            encryption: None,
            ..manifest.clone()
        };
        encryption(self) == encryption(other) && rest(self) == rest(other)
    }

    /// What it is a backup of, as its parts tell.
    #[must_use]
    pub fn content(&self) -> Content {
        let has = |wanted: fn(&PartRecord) -> bool| self.parts.iter().any(wanted);
        if has(|part| part.format == PartFormat::Rdb) {
            Content::Redis
        } else if has(|part| part.kind == PartKind::Settings) {
            Content::Settings
        } else if has(|part| {
            part.kind == PartKind::Data && matches!(part.format, PartFormat::Tar | PartFormat::Sql)
        }) {
            Content::ForeignDump
        } else {
            Content::Database
        }
    }

    /// The part of that name.
    #[must_use]
    pub fn part(&self, name: &PartName) -> Option<&PartRecord> {
        self.parts.iter().find(|part| part.name == *name)
    }
}

/// The stored form of what bars a manifest. No manifest has its field.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bar {
    format: u32,
    barred_at: DateTime<Utc>,
}
