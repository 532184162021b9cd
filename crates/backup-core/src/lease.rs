//! Who may do what now, across hosts: leases, which are objects in the store itself.
//!
//! An exclusive lease is written on the condition that nobody else wrote it meanwhile, and is
//! renewed while its run lasts. One that was not renewed for its time may be taken over. That
//! compares the clocks of two hosts, so they must not be apart by more than [`SKEW`]; should they
//! be, or should a process stand still and wake up later, then two runs do the same work, and
//! still no harm is done: whoever takes a lease over first bars the manifest of the run that had
//! it. The store decides which of manifest and bar is there first, and never are both.
//!
//! A reader's lease excludes nobody. It tells what must not be removed now.

mod dead;
mod given_up;
mod held;
mod readers;
mod record;
mod slot;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::backup::{BackupId, SourceName};
use crate::catalog::read_small;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, PortError};
use crate::layout;
use crate::manifest::{MAX_MANIFEST_BYTES, Manifest};
use crate::run_record::{Operation, Who};
use crate::store::{Store, StoreKey};

pub use dead::DeadRun;
pub use given_up::GivenUp;
pub use held::Lease;
use record::{LeaseRecord, MAX_LEASE_BYTES};
pub use slot::SlotMark;

/// How far apart the clocks of hosts that share a store may be before one takes the other for
/// dead.
pub const SKEW: Duration = Duration::from_secs(5);

/// How often a lease that others change at the same time is tried.
const TRIES: usize = 8;

/// What a lease makes exclusive for a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseKind {
    /// Taking backups.
    Backup,
    /// Removing them.
    Prune,
    /// Seeing to what its schedule asks for.
    Schedule,
}

impl fmt::Display for LeaseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backup => "backup",
            Self::Prune => "prune",
            Self::Schedule => "schedule",
        })
    }
}

/// Who has a lease. It is what the store says, and whoever can write there can forge it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Account and machine.
    #[serde(flatten)]
    pub who: Who,
    /// The process there.
    pub pid: u32,
    /// What it does.
    pub operation: Operation,
    /// The backup that it writes or reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupId>,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Until when, if it does not renew it.
    pub until: DateTime<Utc>,
}

impl Holder {
    /// Whether who has the lease of backups takes none: he sees to what a dead run left, for a moment.
    #[must_use]
    pub fn is_tidying(&self) -> bool {
        self.backup.is_none()
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |at: &DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
        write!(f, "{}, process {} ({}", self.who, self.pid, self.operation)?;
        if let Some(backup) = &self.backup {
            write!(f, " {backup}")?;
        }
        let (since, until) = (time(&self.since), time(&self.until));
        write!(f, "), since {since}, until {until} unless renewed")
    }
}

/// One process, so that it is not taken for another of the same number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessMark {
    /// Its number.
    pub pid: u32,
    /// Among which processes that counts: a boot of a machine, and a container there. Empty if
    /// that is not known.
    pub table: String,
    /// When it began, in the system's own count.
    pub started: u64,
}

/// Whether a holder of a lease is still alive. Only the edge has one that asks the system.
pub trait Processes: fmt::Debug + Send + Sync {
    /// This process.
    fn me(&self) -> ProcessMark;

    /// Whether that process has certainly ended. Of another machine's that is never known.
    fn is_gone(&self, process: &ProcessMark) -> bool;
}

/// How leases are taken.
#[derive(Debug, Clone)]
pub struct LeaseSettings {
    /// By whom.
    pub who: Who,
    /// Who else is there.
    pub processes: Arc<dyn Processes>,
    /// How long one lasts that is not renewed. It is renewed after a third of that.
    pub ttl: Duration,
    /// What this process has done with, for all engines that may follow one another over a store.
    pub given_up: GivenUp,
}

/// What a lease is wanted for.
#[derive(Debug, Clone)]
pub struct Work {
    /// The operation.
    pub operation: Operation,
    /// The backup that will be written, or is read.
    pub backup: Option<BackupId>,
    /// What a schedule asks for.
    pub slot: Option<DateTime<Utc>>,
}

/// Takes leases in one store.
#[derive(Debug, Clone)]
pub struct Leases {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    settings: LeaseSettings,
}

/// A lease as it is stored.
type Stored = (Bytes, LeaseRecord);

impl Leases {
    /// Leases in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, settings: LeaseSettings) -> Self {
        Self {
            store,
            clock,
            settings,
        }
    }

    /// Takes the lease that one process at a time has. When this returns, the run that had it
    /// before either has committed its backup or never will.
    ///
    /// # Errors
    /// [`Error::Held`] at once when somebody else has it. `Unsuitable` when the store cannot keep
    /// two apart.
    ///
    /// # Cancellation
    /// The token of the lease is a child of `cancel`. Dropping the future may leave a lease that
    /// ends by itself.
    pub async fn exclusive(
        &self,
        kind: LeaseKind,
        source: &SourceName,
        work: &Work,
        cancel: &CancellationToken,
    ) -> Result<Lease, Error> {
        let key = layout::lease_key(kind, source);
        let what = format!("the {kind} lease of {source}");
        let stored = self.take(&key, &what, work).await?;
        let lease = Lease::hold(self.clone(), (key, what), stored, cancel);
        match self.bar(source, &lease).await {
            Ok(()) => Ok(lease),
            Err(error) => {
                // What is still to be barred stays in the record.
                let _ = lease.release().await;
                Err(error)
            }
        }
    }

    /// Sees that a run whose lease ended without being given back commits none of these backups any
    /// more, however long it stood still: whoever removes what it left must know. One that goes on
    /// is left alone.
    ///
    /// # Errors
    /// What the store reports, also when this login must not write.
    pub(crate) async fn retire(
        &self,
        source: &SourceName,
        backups: &[&BackupId],
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        match self.take_from(source, backups, cancel).await? {
            Some(lease) => lease.release().await,
            None => Ok(()),
        }
    }

    /// Takes the lease of a source from the run that writes one of these backups, which bars it. None
    /// if that has it still, has committed, or another has it since.
    ///
    /// # Errors
    /// What the store reports.
    pub(crate) async fn take_from(
        &self,
        source: &SourceName,
        backups: &[&BackupId],
        cancel: &CancellationToken,
    ) -> Result<Option<Lease>, Error> {
        let kind = LeaseKind::Backup;
        let Some((_, record)) = self.read(&layout::lease_key(kind, source)).await? else {
            return Ok(None);
        };
        let concerned = record.uncommitted().any(|id| backups.contains(&id));
        if self.is_held(&record) || !concerned {
            return Ok(None);
        }
        let work = Work {
            operation: Operation::Prune,
            backup: None,
            slot: None,
        };
        match self.exclusive(kind, source, &work, cancel).await {
            // The backup that began meanwhile has barred it.
            Err(Error::Held { .. }) => Ok(None),
            taken => taken.map(Some),
        }
    }

    /// Whether somebody has the lease of backups now. It is not taken, so somebody may have it right
    /// after.
    ///
    /// # Errors
    /// [`Error::Held`] when somebody has it; what the store reports.
    pub(crate) async fn check_free(&self, source: &SourceName) -> Result<(), Error> {
        let kind = LeaseKind::Backup;
        let found = self.read(&layout::lease_key(kind, source)).await?;
        match found {
            Some((_, record)) if self.is_held(&record) => Err(Error::Held {
                what: format!("the {kind} lease of {source}"),
                holder: Box::new(record.holder()),
            }),
            _ => Ok(()),
        }
    }

    /// How far a schedule is; none if nobody ever began what it asks for.
    ///
    /// # Errors
    /// What the store reports.
    pub async fn slot(&self, source: &SourceName) -> Result<Option<SlotMark>, Error> {
        let key = layout::lease_key(LeaseKind::Schedule, source);
        let found = self.read(&key).await?;
        Ok(found.and_then(|(_, record)| record.slot))
    }

    async fn take(&self, key: &StoreKey, what: &str, work: &Work) -> Result<Stored, Error> {
        let failed = |e| Error::store(format!("take {what}"), e);
        let nonce = record::nonce();
        // Whatever becomes of a request whose answer nobody waits for.
        let mut taking = self.settings.given_up.unless_kept(&nonce);
        let mut mine = None;
        for _ in 0..TRIES {
            let found = self.read(key).await?;
            if let Some((_, record)) = &found {
                if record.nonce == nonce {
                    // The answer came late, or never.
                    taking.keep();
                    return found.ok_or_else(|| failed(contended()));
                }
                if self.is_held(record) {
                    return Err(Error::Held {
                        what: what.to_owned(),
                        holder: Box::new(record.holder()),
                    });
                }
            }
            // Only now: somebody who is to be told no should be told so at once.
            if mine.is_none() {
                self.store.check_conditions().await.map_err(failed)?;
            }
            let before = found.as_ref().map(|(_, record)| record);
            let record = LeaseRecord::new(self, work, &nonce, before);
            let text = record.encode().map_err(failed)?;
            taking.begin();
            let written = match &found {
                None => self.store.create(key, text.clone()).await,
                Some((seen, _)) => self.store.replace(key, seen, text.clone()).await,
            };
            match written {
                Ok(()) => {
                    taking.keep();
                    return Ok((text, record));
                }
                Err(e) if matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::Conflict) => {}
                Err(e) => match self.read(key).await {
                    Ok(Some((seen, found))) if found.nonce == nonce => {
                        taking.keep();
                        return Ok((seen, found));
                    }
                    _ => return Err(failed(e)),
                },
            }
            mine = Some(record);
        }
        Err(failed(contended()))
    }

    /// Sees that nobody commits any more who had the lease before.
    async fn bar(&self, source: &SourceName, lease: &Lease) -> Result<(), Error> {
        for id in lease.unbarred().await {
            let key = layout::manifest_key(source, &id);
            let failed = |e| Error::store(format!("bar {key}"), e);
            let bar = Manifest::barred(self.clock.now()).map_err(failed)?;
            let Err(error) = self.store.create(&key, bar.into()).await else {
                continue;
            };
            // A bar and a manifest are as good as each other: nothing else will come.
            let there = read_small(self.store.as_ref(), &key, MAX_MANIFEST_BYTES).await;
            if !matches!(there, Ok(Some(_))) {
                return Err(failed(error));
            }
        }
        lease.all_barred().await;
        Ok(())
    }

    /// What is stored under a lease's key.
    async fn read(&self, key: &StoreKey) -> Result<Option<Stored>, Error> {
        let Some(text) = read_small(self.store.as_ref(), key, MAX_LEASE_BYTES).await? else {
            return Ok(None);
        };
        match LeaseRecord::decode(&text) {
            Ok(record) => Ok(Some((text, record))),
            Err(e) if e.kind() == ErrorKind::Corrupt => Err(Error::Corrupt {
                what: format!("read {key}"),
                source: Some(e.with_hint("remove it once no run of that source goes on anywhere")),
            }),
            Err(e) => Err(Error::store(format!("read {key}"), e)),
        }
    }

    fn is_held(&self, record: &LeaseRecord) -> bool {
        let in_time = record.ends(SKEW).is_none_or(|end| self.clock.now() < end);
        record.is_held()
            && in_time
            && !self.settings.given_up.contains(&record.nonce)
            && !self.settings.processes.is_gone(&record.process)
    }
}

fn contended() -> PortError {
    PortError::new(ErrorKind::Conflict, "others change it all the time")
}
