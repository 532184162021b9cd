//! Names of things: which backup, of which source.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::stamped::{stamp, stamped_name};

/// A backup's name: UTC start time to the second and a short random suffix,
/// `20260205T030000Z-7f3a`.
///
/// Sorts by age as text, does not collide when two runs start in the same second,
/// and can be read in a bucket listing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId(String);

const SUFFIX_LEN: usize = 4;

impl BackupId {
    /// The id of a backup that starts at `started_at`; `suffix` is random.
    #[must_use]
    pub fn new(started_at: DateTime<Utc>, suffix: u16) -> Self {
        Self(format!("{}-{suffix:04x}", stamp(started_at)))
    }
}

/// The text is not a backup id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a backup id (expected 20260205T030000Z-7f3a)")]
pub struct ParseBackupIdError(String);

stamped_name!(BackupId, ParseBackupIdError, SUFFIX_LEN);

/// What is backed up, by the name its owner gave it. Any text of 1 to 200 bytes:
/// without a configuration it is the database's name, and those may hold anything.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourceName(String);

/// The longest source name in bytes.
pub const MAX_SOURCE_NAME: usize = 200;

/// The text cannot name a source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a source name has 1 to {MAX_SOURCE_NAME} bytes and no NUL")]
pub struct SourceNameError;

impl SourceName {
    /// Checks and wraps a name.
    ///
    /// # Errors
    /// When it is empty, longer than [`MAX_SOURCE_NAME`] or holds a NUL.
    pub fn new(name: impl Into<String>) -> Result<Self, SourceNameError> {
        let name = name.into();
        if name.is_empty() || name.len() > MAX_SOURCE_NAME || name.contains('\0') {
            return Err(SourceNameError);
        }
        Ok(Self(name))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SourceName {
    type Error = SourceNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text)
    }
}

impl From<SourceName> for String {
    fn from(name: SourceName) -> Self {
        name.0
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;

    #[test]
    fn id_sorts_by_time_and_parses_back() {
        let early = Utc.with_ymd_and_hms(2026, 2, 5, 3, 0, 0).unwrap();
        let late = Utc.with_ymd_and_hms(2026, 2, 5, 3, 0, 1).unwrap();
        let first = BackupId::new(early, 0xffff);
        let second = BackupId::new(late, 0);
        assert_eq!(first.as_str(), "20260205T030000Z-ffff");
        assert!(first < second);
        assert_eq!(first.as_str().parse::<BackupId>().unwrap(), first);
        assert_eq!(first.started_at(), early);
    }

    #[test]
    fn only_the_canonical_form_is_an_id() {
        for text in [
            "",
            "latest",
            "20260205T030000Z",
            "20260205T030000Z-7F3A",
            "20261305T030000Z-7f3a",
            "20260205T030000Z-7f3a/",
            "../60205T030000Z-7f3a",
            "20260205T030000Z-7f3",
            " 0260205T030000Z-7f3a",
        ] {
            assert!(text.parse::<BackupId>().is_err(), "{text}");
        }
    }

    #[test]
    fn source_names_are_bounded() {
        assert!(SourceName::new("").is_err());
        assert!(SourceName::new("a\0b").is_err());
        assert!(SourceName::new("x".repeat(201)).is_err());
        for name in ["a b", "../up", "dbname=other", "имя", "new\nline"] {
            assert_eq!(SourceName::new(name).unwrap().as_str(), name);
        }
    }
}
