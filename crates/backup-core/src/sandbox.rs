//! Databases for people who want to look into a backup: made beside everything else, handed to one
//! person with a login that can only read, and dropped when their time is over.
//!
//! Nothing is remembered but what the server itself says of its databases, so any process can list
//! them and drop what has ended. Whoever asks never gets to say a name.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::backup::{BackupId, SourceName};
use crate::error::PortError;
use crate::manifest::Manifest;
use crate::restorer::Restorer;

/// How much of a source's name is in the name of a sandbox.
const NAME_PART: usize = 24;

/// Whose a sandbox is, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenancy {
    /// Who asked for it, as the frontend knows him.
    pub person: String,
    /// When it may be dropped.
    pub until: DateTime<Utc>,
}

/// A database that was made to be looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// Its name, and that of its login.
    pub database: String,
    /// Whose it is, and until when.
    pub tenancy: Tenancy,
    /// Of which source.
    pub source: SourceName,
    /// What was restored.
    pub backup: BackupId,
    /// Its bytes on disk, if the login may know.
    pub bytes: Option<u64>,
    /// Whether somebody can log in: the restore is over.
    pub is_open: bool,
    /// Who is connected to it.
    pub sessions: u64,
}

impl Sandbox {
    /// Whether its time is over.
    #[must_use]
    pub fn has_ended(&self, now: DateTime<Utc>) -> bool {
        self.tenancy.until <= now
    }
}

/// How somebody gets in. The password is nowhere else.
#[derive(Clone, PartialEq, Eq)]
pub struct SandboxAccess {
    /// Host, as it is configured.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Database, and login.
    pub database: String,
    /// The password, which works until the sandbox ends.
    pub password: String,
}

impl fmt::Debug for SandboxAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SandboxAccess")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

/// What keeps people from filling a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SandboxLimits {
    /// How many one person may have.
    pub per_person: usize,
    /// How many there may be.
    pub total: usize,
    /// How large a backup may be, uncompressed.
    pub max_bytes: u64,
    /// How long one lasts.
    pub ttl: Duration,
}

/// Why there is no sandbox for somebody now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SandboxRefusal {
    /// He has enough.
    #[error("{have} sandboxes are there already, which is all that one person may have")]
    PerPerson {
        /// How many.
        have: usize,
    },
    /// All together have enough.
    #[error("{have} sandboxes are there already, which is all that the server may have")]
    Total {
        /// How many.
        have: usize,
    },
    /// It is too large.
    #[error("the backup has {bytes} bytes uncompressed, and sandboxes may have {limit}")]
    TooLarge {
        /// Its bytes.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
}

impl SandboxLimits {
    /// Whether one more of `backup` is within the limits. What has ended counts as long as it is
    /// there: it takes room.
    ///
    /// # Errors
    /// The limit that it is not within.
    pub fn admit(
        &self,
        there: &[Sandbox],
        person: &str,
        backup: &Manifest,
    ) -> Result<(), SandboxRefusal> {
        let own = there.iter().filter(|s| s.tenancy.person == person).count();
        if own >= self.per_person {
            return Err(SandboxRefusal::PerPerson { have: own });
        }
        if there.len() >= self.total {
            return Err(SandboxRefusal::Total { have: there.len() });
        }
        let bytes = backup.totals.raw_bytes;
        if bytes > self.max_bytes {
            let limit = self.max_bytes;
            return Err(SandboxRefusal::TooLarge { bytes, limit });
        }
        Ok(())
    }
}

/// The name of a sandbox: no quotes are needed for it, and nobody chose it.
#[must_use]
pub fn sandbox_name(source: &SourceName, backup: &BackupId, nonce: u32) -> String {
    let plain = source.as_str().chars().map(|c| match c {
        'a'..='z' | '0'..='9' => c,
        'A'..='Z' => c.to_ascii_lowercase(),
        _ => '_',
    });
    let plain: String = plain.take(NAME_PART).collect();
    let day = backup.started_at().format("%Y%m%d");
    format!("restore_{plain}_{day}_{nonce:08x}")
}

/// Whether a name is of the form that [`sandbox_name`] gives.
#[must_use]
pub fn is_sandbox_name(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("restore_") else {
        return false;
    };
    let mut parts = rest.rsplitn(3, '_');
    let hex = |text: &str| {
        let digit = |b: u8| b.is_ascii_digit() || matches!(b, b'a'..=b'f');
        text.len() == 8 && text.bytes().all(digit)
    };
    let day = |text: &str| text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit());
    let plain = |b: u8| b.is_ascii_digit() || b.is_ascii_lowercase() || b == b'_';
    parts.next().is_some_and(hex)
        && parts.next().is_some_and(day)
        && parts
            .next()
            .is_some_and(|text| text.len() <= NAME_PART && text.bytes().all(plain))
}

/// Holds a place that others wait for; dropping it gives it back.
pub trait SandboxPlace: fmt::Debug + Send + Sync {}

/// A server for sandboxes.
#[async_trait]
pub trait SandboxServer: fmt::Debug + Send + Sync {
    /// Restores into it.
    fn restorer(&self) -> &dyn Restorer;

    /// Sees that sandboxes may be made there at all, and that this person gets no other one now.
    ///
    /// # Errors
    /// `Refused` where somebody depends on the server, or where a login is missing or may do too
    /// much; `Conflict` while another sandbox is made for the same person.
    async fn enter(&self, person: &str) -> Result<Box<dyn SandboxPlace>, PortError>;

    /// Waits until nobody else is between counting sandboxes and making one.
    ///
    /// # Errors
    /// When the server cannot be asked.
    ///
    /// # Cancellation
    /// Dropping the future gives up the turn.
    async fn admission(&self) -> Result<Box<dyn SandboxPlace>, PortError>;

    /// Every sandbox there, by name.
    ///
    /// # Errors
    /// When the server cannot be asked.
    async fn list(&self) -> Result<Vec<Sandbox>, PortError>;

    /// Makes the login of a restored sandbox: it can read that database until then. In other
    /// databases of the same server it may do what everybody with a login may there.
    ///
    /// # Errors
    /// What the server says; there is no such login then.
    async fn open(&self, database: &str, until: DateTime<Utc>) -> Result<SandboxAccess, PortError>;

    /// Drops a sandbox and its login, whoever is connected.
    ///
    /// # Errors
    /// `NotFound` when there is no sandbox of that name: no other database is ever dropped.
    async fn remove(&self, database: &str) -> Result<(), PortError>;

    /// Drops logins of sandboxes that are gone, once their time was over at `now`; their names.
    ///
    /// # Errors
    /// When one cannot be dropped; the others may be gone.
    async fn remove_lone_logins(&self, now: DateTime<Utc>) -> Result<Vec<String>, PortError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str) -> SourceName {
        SourceName::new(name).unwrap()
    }

    #[test]
    fn names_need_no_quotes_and_are_known_again() {
        let id: BackupId = "20260205T030000Z-7f3a".parse().unwrap();
        for (name, expected) in [
            ("shop", "restore_shop_20260205_0000beef"),
            ("Every/Thing", "restore_every_thing_20260205_0000beef"),
            ("a\"; DROP", "restore_a___drop_20260205_0000beef"),
            ("лавка", "restore_______20260205_0000beef"),
        ] {
            let made = sandbox_name(&source(name), &id, 0xbeef);
            assert_eq!(made, expected);
            assert!(is_sandbox_name(&made), "{made}");
        }
        let long = sandbox_name(&source(&"x".repeat(200)), &id, u32::MAX);
        assert!(long.len() <= 63 && is_sandbox_name(&long), "{long}");
    }

    #[test]
    fn other_names_are_none() {
        for name in [
            "shop",
            "restore_shop",
            "restore_shop_20260205",
            "restore_shop_20260205_beef",
            "restore_shop_2026020x_0000beef",
            "restore_Shop_20260205_0000beef",
            "restore_shop_20260205_0000BEEF",
            "xrestore_shop_20260205_0000beef",
        ] {
            assert!(!is_sandbox_name(name), "{name}");
        }
    }

    #[test]
    fn a_password_is_not_in_debug_output() {
        let access = SandboxAccess {
            host: "db".to_owned(),
            port: 5432,
            database: "restore_shop_20260205_0000beef".to_owned(),
            password: "hunter2".to_owned(),
        };
        assert!(!format!("{access:?}").contains("hunter2"));
    }
}
