//! What an audit record says.

use std::fmt;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::chain::Head;
use crate::backup::{BackupId, SourceName};
use crate::error::PortError;
use crate::run_record::{Operation, RunId, RunRecord, RunResult, Who};
use crate::versioned;

/// The format of records that this build writes, and the newest it reads.
const AUDIT_FORMAT: u32 = 1;

/// Makes `as_str` and `Display` of an enum whose last variant is what only a later release knows.
macro_rules! known_names {
    ($name:ident { $($variant:ident => $text:literal),+ $(,)? }) => {
        impl $name {
            /// The name used in JSON.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)+
                    Self::Other(name) => name,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

/// What somebody did, or asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AuditAction {
    /// Come in.
    SignIn,
    /// Take a backup.
    Backup,
    /// Put one into a new database.
    Restore,
    /// Put one in the place of a database.
    Replace,
    /// Swap back what that replaced.
    Undo,
    /// Rehearse a restore.
    Drill,
    /// Prove a stored backup.
    Verify,
    /// Let backups go.
    Prune,
    /// Say that one stays.
    Pin,
    /// Take that back.
    Unpin,
    /// Change who can open one.
    Rekey,
    /// Stop a run.
    Cancel,
    /// Drop a database to look into.
    DropSandbox,
    /// Something that only a later release does.
    #[serde(untagged)]
    Other(String),
}

known_names!(AuditAction {
    SignIn => "sign-in",
    Backup => "backup",
    Restore => "restore",
    Replace => "replace",
    Undo => "undo",
    Drill => "drill",
    Verify => "verify",
    Prune => "prune",
    Pin => "pin",
    Unpin => "unpin",
    Rekey => "rekey",
    Cancel => "cancel",
    DropSandbox => "drop-sandbox",
});

impl AuditAction {
    /// Whether something may be lost by it that is there: no such request is carried out that is
    /// not written down first.
    #[must_use]
    pub fn is_destructive(&self) -> bool {
        matches!(
            self,
            Self::Replace
                | Self::Undo
                | Self::Prune
                | Self::Unpin
                | Self::Rekey
                | Self::DropSandbox
        )
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AuditOutcome {
    /// The request was let through.
    Allowed,
    /// It was not.
    Denied,
    /// The work began.
    Started,
    /// It was done.
    Done,
    /// It failed, or some of it.
    Failed,
    /// Somebody stopped it.
    Cancelled,
    /// Something that only a later release says.
    #[serde(untagged)]
    Other(String),
}

known_names!(AuditOutcome {
    Allowed => "allowed",
    Denied => "denied",
    Started => "started",
    Done => "done",
    Failed => "failed",
    Cancelled => "cancelled",
});

/// From what kind of address a request came. The address itself says more of a person than a
/// record that everybody may read should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressClass {
    /// This machine.
    Loopback,
    /// A network of one's own.
    Private,
    /// Any other.
    Public,
}

impl AddressClass {
    /// The class of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            address if address.is_loopback() => Self::Loopback,
            IpAddr::V4(v4) if v4.is_private() || v4.is_link_local() => Self::Private,
            IpAddr::V6(v6) if v6.is_unique_local() || v6.is_unicast_link_local() => Self::Private,
            _ => Self::Public,
        }
    }
}

/// What is to be written down. Fields that a later release adds are passed over.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Who asked, as the server knows them: the name of a token. Absent for who has a shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// The account and the machine of the process that writes this.
    pub who: Who,
    /// From where the request came, if it came over a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<AddressClass>,
    /// What was done, or asked for.
    pub action: AuditAction,
    /// What came of it.
    pub outcome: AuditOutcome,
    /// The source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceName>,
    /// The backups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backups: Vec<BackupId>,
    /// The run that does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The database that is made, replaced or dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// How often, where many are counted in one record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl AuditEntry {
    /// That `who` did this.
    #[must_use]
    pub fn new(action: AuditAction, outcome: AuditOutcome, who: Who) -> Self {
        Self {
            person: None,
            who,
            address: None,
            action,
            outcome,
            source: None,
            backups: Vec::new(),
            run: None,
            database: None,
            count: None,
        }
    }

    /// What a run does, or did if it is over.
    #[must_use]
    pub fn of_run(run: &RunRecord, is_over: bool) -> Self {
        let action = match &run.operation {
            Operation::Backup => AuditAction::Backup,
            Operation::Restore => AuditAction::Replace,
            Operation::Verify => AuditAction::Verify,
            Operation::Undo => AuditAction::Undo,
            Operation::Drill => AuditAction::Drill,
            Operation::Prune => AuditAction::Prune,
            Operation::Pin => AuditAction::Pin,
            Operation::Unpin => AuditAction::Unpin,
            Operation::Rekey => AuditAction::Rekey,
            other => AuditAction::Other(other.as_str().to_owned()),
        };
        let outcome = match (is_over, run.result) {
            (false, _) => AuditOutcome::Started,
            (_, RunResult::Success | RunResult::Warnings) => AuditOutcome::Done,
            (_, RunResult::Failed) => AuditOutcome::Failed,
            (_, RunResult::Cancelled) => AuditOutcome::Cancelled,
        };
        let pruned = run.prune.iter().flat_map(|prune| &prune.backups);
        Self {
            source: run.source.clone(),
            backups: run.backup.iter().chain(pruned).cloned().collect(),
            run: Some(run.id.clone()),
            database: run.target_database.clone(),
            count: run.prune.as_ref().map(|prune| prune.deleted),
            ..Self::new(action, outcome, run.who.clone())
        }
    }
}

/// One record of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Always 1 when written by this build.
    pub format: u32,
    /// Its place in the chain; the first has 1.
    pub number: u64,
    /// The SHA-256 of the record before, as it is stored; 64 zeros in the first.
    pub previous: String,
    /// The repository that it belongs to.
    pub repository: String,
    /// When it was written.
    pub time: DateTime<Utc>,
    /// So that no two records are alike.
    pub nonce: String,
    /// What it says.
    #[serde(flatten)]
    pub entry: AuditEntry,
}

impl AuditRecord {
    /// The record that comes after `head`.
    pub(super) fn new(
        entry: &AuditEntry,
        head: &Head,
        repository: &str,
        time: DateTime<Utc>,
    ) -> Self {
        Self {
            format: AUDIT_FORMAT,
            number: head.number + 1,
            previous: head.sha256.clone(),
            repository: repository.to_owned(),
            time,
            nonce: format!("{:016x}", rand::random::<u64>()),
            entry: entry.clone(),
        }
    }

    /// The stored form.
    ///
    /// # Errors
    /// `Internal`, which JSON of plain data does not have.
    pub fn encode(&self) -> Result<Vec<u8>, PortError> {
        versioned::encode(self, "audit record")
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// `Corrupt` when it is no record; `InvalidInput` when a later release wrote it.
    pub fn decode(text: &[u8]) -> Result<Self, PortError> {
        versioned::decode(text, AUDIT_FORMAT, "audit record")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_classes() {
        for (address, class) in [
            ("127.0.0.1", AddressClass::Loopback),
            ("::1", AddressClass::Loopback),
            ("::ffff:127.0.0.1", AddressClass::Loopback),
            ("10.1.2.3", AddressClass::Private),
            ("fd00::1", AddressClass::Private),
            ("fe80::1", AddressClass::Private),
            ("8.8.8.8", AddressClass::Public),
            ("2001:db8::1", AddressClass::Public),
        ] {
            assert_eq!(
                AddressClass::of(address.parse().unwrap()),
                class,
                "{address}"
            );
        }
    }

    #[test]
    fn names_are_those_in_json() {
        for action in [
            AuditAction::SignIn,
            AuditAction::DropSandbox,
            AuditAction::Replace,
            AuditAction::Other("later".to_owned()),
        ] {
            let json = serde_json::to_string(&action).unwrap();
            assert_eq!(json, format!("{:?}", action.as_str()));
            assert_eq!(serde_json::from_str::<AuditAction>(&json).unwrap(), action);
        }
    }
}
