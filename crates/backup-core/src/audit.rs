//! Who did what: records that are only ever added, each with the hash of the one before.
//!
//! A record that was changed, taken out, put in or moved no longer fits its neighbours. What was
//! cut off at the end does not show by itself, and whoever may write to the store can write all of
//! it anew: so the hash of the newest record belongs somewhere else too. It is logged with every
//! record, and [`Audit::verify`] is given one to look for.

mod chain;
mod entry;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::Mutex;

use crate::body::sha256_hex;
use crate::catalog::{Catalog, read_small};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, PortError};
use crate::layout;
use crate::store::{Depth, Entry, Store, StoreKey};

pub use chain::{Break, BreakKind, Head, Walk};
pub use entry::{AddressClass, AuditAction, AuditEntry, AuditOutcome, AuditRecord};

/// No record is longer.
const MAX_RECORD_BYTES: usize = 1 << 20;
/// How often a record is tried whose place others take. Each time, one of them has got on.
const TRIES: usize = 200;
/// How long writing a record may take.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// How many records are read at the same time.
const READERS: usize = 32;
/// How far the clocks of writers may be apart before a record is missed in a listing by time.
const APART: TimeDelta = TimeDelta::days(1);

/// The name of a chain: `main`, which all writers share, or one writer's own where the store cannot
/// keep two apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChainName(Option<u64>);

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("main"),
            Some(writer) => write!(f, "w{writer:016x}"),
        }
    }
}

/// The text is not the name of a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a chain of audit records")]
pub struct ParseChainError;

impl FromStr for ChainName {
    type Err = ParseChainError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let writer = |digits: &str| u64::from_str_radix(digits, 16).ok();
        let name = match text.strip_prefix('w') {
            Some(digits) => Self(Some(writer(digits).ok_or(ParseChainError)?)),
            None => Self(None),
        };
        // In the one form that we write.
        if name.to_string() == text {
            Ok(name)
        } else {
            Err(ParseChainError)
        }
    }
}

/// A record as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audited {
    /// In which chain.
    pub chain: ChainName,
    /// Its own hash.
    pub sha256: String,
    /// What it says.
    pub record: AuditRecord,
}

/// What was found of one chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainReport {
    /// Which.
    pub chain: ChainName,
    /// Where it ends as far as it is whole.
    pub head: Head,
    /// The first thing that is wrong.
    pub broken: Option<Break>,
}

/// What was found of all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// The chains, in order of their names.
    pub chains: Vec<ChainReport>,
    /// Objects that no writer of ours put there.
    pub strangers: Vec<StoreKey>,
    /// The expected head, if no chain has it.
    pub lost: Option<String>,
}

impl AuditReport {
    /// Whether nothing shows that somebody changed something.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let whole = |chain: &ChainReport| chain.broken.is_none();
        self.strangers.is_empty() && self.lost.is_none() && self.chains.iter().all(whole)
    }
}

/// What a listing of audit records should bring.
#[derive(Debug, Clone, Default)]
pub struct AuditRequest {
    /// Only records of this moment or later.
    pub since: Option<DateTime<Utc>>,
    /// At most so many of each chain, the newest.
    pub limit: Option<usize>,
}

/// Writes and reads the audit records of one store. Whoever writes often keeps one.
#[derive(Debug)]
pub struct Audit {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// Where this writer has its chain when it cannot share one.
    own: ChainName,
    /// Where the next record goes, as far as this writer knows; those of one process queue here.
    next: Mutex<Option<(ChainName, Head)>>,
}

impl Audit {
    /// The audit records of `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            clock,
            own: ChainName(Some(rand::random())),
            next: Mutex::new(None),
        }
    }

    /// Adds a record; the new head. Takes ten seconds at most.
    ///
    /// # Errors
    /// What the store reports; then the record may still turn up, never twice. `NotFound` where there
    /// is no repository: a record must not be what makes one.
    ///
    /// # Cancellation
    /// Dropping the future may leave the record or not.
    pub async fn append(&self, entry: &AuditEntry) -> Result<Head, Error> {
        let written = tokio::time::timeout(WRITE_LIMIT, self.write(entry));
        written.await.unwrap_or_else(|_| {
            let late = PortError::new(ErrorKind::Timeout, "the store did not answer in time");
            Err(failed(late))
        })
    }

    async fn write(&self, entry: &AuditEntry) -> Result<Head, Error> {
        let mut next = self.next.lock().await;
        let repository = Catalog::new(&*self.store).existing_repository().await?;
        // Some servers would make a bucket that is not there, and a disk may not be mounted.
        let repository = repository.ok_or_else(|| {
            let absent = PortError::new(ErrorKind::NotFound, "there is no repository.json");
            failed(absent)
        })?;
        let (chain, mut head) = if let Some(known) = next.take() {
            known
        } else {
            let chain = self.chain().await?;
            let head = self.head(&chain).await?;
            (chain, head)
        };
        for _ in 0..TRIES {
            let record = AuditRecord::new(entry, &head, &repository, self.clock.now());
            let text = Bytes::from(record.encode().map_err(failed)?);
            let key = layout::audit_key(&chain, record.number);
            let created = self.store.create(&key, text.clone()).await;
            let there = match created {
                Ok(()) => text.clone(),
                // Another writer was first, or our own answer is lost.
                Err(error) => match read_small(&*self.store, &key, MAX_RECORD_BYTES).await {
                    Ok(Some(there)) => there,
                    _ => return Err(Error::store(format!("write {key}"), error)),
                },
            };
            head = Head {
                number: record.number,
                sha256: sha256_hex(&there),
            };
            if there == text {
                *next = Some((chain, head.clone()));
                return Ok(head);
            }
        }
        let contended = PortError::new(ErrorKind::Conflict, "others add records all the time");
        Err(failed(contended))
    }

    /// The chain that this writer adds to.
    async fn chain(&self) -> Result<ChainName, Error> {
        match self.store.check_conditions().await {
            Ok(()) => Ok(ChainName::default()),
            Err(error) if error.kind() == ErrorKind::Unsuitable => Ok(self.own.clone()),
            Err(error) => Err(failed(error)),
        }
    }

    /// The newest record of a chain.
    async fn head(&self, chain: &ChainName) -> Result<Head, Error> {
        for folder in self.folders(chain).await? {
            if let Some(number) = self.numbers(chain, &folder).await?.pop_last() {
                let text = self.read(chain, number).await?;
                let sha256 = sha256_hex(&text.unwrap_or_default());
                return Ok(Head { number, sha256 });
            }
        }
        Ok(Head::default())
    }

    /// Records, newest first.
    ///
    /// # Errors
    /// What the store reports; `Corrupt` for one that cannot be read.
    pub async fn list(&self, request: &AuditRequest) -> Result<Vec<Audited>, Error> {
        let mut found = Vec::new();
        for chain in self.chains().await?.0 {
            found.extend(self.list_chain(&chain, request).await?);
        }
        found.sort_by_key(|audited| Reverse(audited.record.time));
        found.truncate(request.limit.unwrap_or(usize::MAX));
        Ok(found)
    }

    async fn list_chain(
        &self,
        chain: &ChainName,
        request: &AuditRequest,
    ) -> Result<Vec<Audited>, Error> {
        let limit = request.limit.unwrap_or(usize::MAX);
        let mut found = Vec::new();
        for folder in self.folders(chain).await? {
            let numbers = self.numbers(chain, &folder).await?;
            let texts = stream::iter(numbers.into_iter().rev())
                .map(|number| async move {
                    let text = self.read(chain, number).await?;
                    Ok::<_, Error>((number, text))
                })
                .buffered(READERS);
            let mut texts = std::pin::pin!(texts);
            while found.len() < limit
                && let Some((number, text)) = texts.try_next().await?
            {
                let Some(text) = text else { continue };
                let record = AuditRecord::decode(&text).map_err(|source| Error::Corrupt {
                    what: format!("read {}", layout::audit_key(chain, number)),
                    source: Some(source),
                })?;
                if request
                    .since
                    .is_some_and(|since| record.time < since - APART)
                {
                    return Ok(found);
                }
                if request.since.is_none_or(|since| record.time >= since) {
                    found.push(Audited {
                        chain: chain.clone(),
                        sha256: sha256_hex(&text),
                        record,
                    });
                }
            }
        }
        Ok(found)
    }

    /// Walks every chain from its first record. `expected` is a head that was noted before: one of
    /// the chains must have it, at its end or before.
    ///
    /// # Errors
    /// What the store reports. What is wrong with the records is in the report.
    pub async fn verify(&self, expected: Option<&str>) -> Result<AuditReport, Error> {
        let (chains, strangers) = self.chains().await?;
        let mut report = AuditReport {
            strangers,
            lost: expected.map(str::to_ascii_lowercase),
            ..AuditReport::default()
        };
        for chain in chains {
            let (chain, strangers) = self.walk(&chain, &mut report.lost).await?;
            report.chains.push(chain);
            report.strangers.extend(strangers);
        }
        Ok(report)
    }

    /// Walks one chain; takes the expected head if it passes it.
    async fn walk(
        &self,
        chain: &ChainName,
        expected: &mut Option<String>,
    ) -> Result<(ChainReport, Vec<StoreKey>), Error> {
        let prefix = layout::chain_prefix(chain);
        let (mut last, mut strangers) = (0, Vec::new());
        let mut entries = self.store.list(Some(&prefix), Depth::Recursive);
        while let Some(entry) = entries.try_next().await.map_err(failed_to_list)? {
            if let Entry::Object(meta) = entry {
                match layout::parse_audit_key(chain, &meta.key) {
                    Some(number) => last = last.max(number),
                    None => strangers.push(meta.key),
                }
            }
        }
        let (mut walk, mut broken) = (Walk::default(), None);
        // By their numbers and not by the listing: others add records meanwhile.
        let texts = stream::iter(1..=last)
            .map(|number| self.read(chain, number))
            .buffered(READERS);
        let mut texts = std::pin::pin!(texts);
        while let Some(text) = texts.try_next().await? {
            if let Err(found) = walk.follow(text.as_deref()).map_err(failed)? {
                broken = Some(found);
                break;
            }
            if expected.as_ref() == Some(&walk.head().sha256) {
                *expected = None;
            }
        }
        let report = ChainReport {
            chain: chain.clone(),
            head: walk.head().clone(),
            broken,
        };
        Ok((report, strangers))
    }

    /// Every chain, and what else is there.
    async fn chains(&self) -> Result<(BTreeSet<ChainName>, Vec<StoreKey>), Error> {
        let prefix = layout::audit_prefix();
        let (mut chains, mut strangers) = (BTreeSet::new(), Vec::new());
        let mut entries = self.store.list(Some(&prefix), Depth::Children);
        while let Some(entry) = entries.try_next().await.map_err(failed_to_list)? {
            match entry {
                Entry::Prefix(prefix) => match layout::parse_chain_prefix(&prefix) {
                    Some(chain) => {
                        chains.insert(chain);
                    }
                    None => strangers.push(prefix),
                },
                Entry::Object(meta) => strangers.push(meta.key),
            }
        }
        Ok((chains, strangers))
    }

    /// The folders of a chain, newest first.
    async fn folders(&self, chain: &ChainName) -> Result<Vec<StoreKey>, Error> {
        let prefix = layout::chain_prefix(chain);
        let mut folders = BTreeSet::new();
        let mut entries = self.store.list(Some(&prefix), Depth::Children);
        while let Some(entry) = entries.try_next().await.map_err(failed_to_list)? {
            if let Entry::Prefix(folder) = entry {
                folders.insert(folder);
            }
        }
        Ok(folders.into_iter().rev().collect())
    }

    async fn numbers(&self, chain: &ChainName, folder: &StoreKey) -> Result<BTreeSet<u64>, Error> {
        let mut numbers = BTreeSet::new();
        let mut entries = self.store.list(Some(folder), Depth::Children);
        while let Some(entry) = entries.try_next().await.map_err(failed_to_list)? {
            if let Entry::Object(meta) = entry {
                numbers.extend(layout::parse_audit_key(chain, &meta.key));
            }
        }
        Ok(numbers)
    }

    async fn read(&self, chain: &ChainName, number: u64) -> Result<Option<Bytes>, Error> {
        let key = layout::audit_key(chain, number);
        read_small(&*self.store, &key, MAX_RECORD_BYTES).await
    }
}

fn failed(source: PortError) -> Error {
    Error::store("write an audit record", source)
}

fn failed_to_list(source: PortError) -> Error {
    Error::store("list audit records", source)
}
