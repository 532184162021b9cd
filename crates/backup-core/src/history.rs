//! What was done, and when: the run records that the store holds.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::backup::{BackupId, SourceName};
use crate::catalog::{Unreadable, read_small};
use crate::clock::Clock;
use crate::engine::{DrillLevel, VerifyLevel};
use crate::error::{Error, ErrorKind, PortError, chain};
use crate::layout;
use crate::manifest::{MAX_MANIFEST_BYTES, Manifest};
use crate::run_record::{MAX_RUN_BYTES, Operation, RunId, RunRecord, RunResult, Who};
use crate::store::{Depth, Entry, Store, StoreKey};

/// How long writing a record may take.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// The same once somebody wants the run to stop.
const HURRIED_LIMIT: Duration = Duration::from_secs(2);
/// How many months are listed at the same time.
const LISTERS: usize = 8;
/// How many records are read at the same time.
const READERS: usize = 32;

/// What a listing of runs should bring.
#[derive(Debug, Clone, Default)]
pub struct HistoryRequest {
    /// Only runs that began at or after this moment.
    pub since: Option<DateTime<Utc>>,
    /// Only runs of this operation.
    pub operation: Option<Operation>,
    /// At most so many, the newest.
    pub limit: Option<usize>,
}

/// Runs, newest first.
#[derive(Debug, Clone, Default)]
pub struct HistoryListing {
    /// Their records.
    pub runs: Vec<RunRecord>,
    /// Records that exist and cannot be read, with the reason.
    pub damaged: Vec<(StoreKey, String)>,
}

/// Writes and finds run records in one store.
#[derive(Debug, Clone, Copy)]
pub struct History<'a> {
    store: &'a dyn Store,
    clock: &'a dyn Clock,
}

impl<'a> History<'a> {
    /// The history of `store`.
    #[must_use]
    pub fn new(store: &'a dyn Store, clock: &'a dyn Clock) -> Self {
        Self { store, clock }
    }

    /// The record of a run that begins now.
    #[must_use]
    pub fn begin(&self, operation: Operation, who: Who) -> RunRecord {
        RunRecord::begin(operation, who, self.clock.now())
    }

    /// Writes the record of a run that ends now. Takes ten seconds at most, and two from when
    /// `cancel` is cancelled.
    ///
    /// # Errors
    /// What the store reports, which is no failure of the run. `NotFound` where there is no
    /// repository: a record must not be what makes one.
    pub async fn record(
        &self,
        run: &mut RunRecord,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        run.finished_at = self.clock.now();
        self.note(run, cancel).await
    }

    /// Writes a record as it is: who notes what became of another's run says when that was. The same
    /// record may be there already.
    ///
    /// # Errors
    /// As of [`Self::record`].
    pub async fn note(&self, run: &RunRecord, cancel: &CancellationToken) -> Result<(), Error> {
        let key = layout::run_key(&run.id);
        let text = run
            .encode()
            .map_err(|e| Error::store(format!("write {key}"), e))?;
        let limit = async {
            tokio::select! {
                () = tokio::time::sleep(WRITE_LIMIT) => {}
                () = async {
                    cancel.cancelled().await;
                    tokio::time::sleep(HURRIED_LIMIT).await;
                } => {}
            }
        };
        tokio::select! {
            written = self.write(&key, text.into()) => written,
            () = limit => {
                let late = PortError::new(ErrorKind::Timeout, "the store did not answer in time");
                Err(Error::store(format!("write {key}"), late))
            }
        }
    }

    async fn write(&self, key: &StoreKey, text: Bytes) -> Result<(), Error> {
        // Some servers would make a bucket that is not there, and a disk may not be mounted.
        let repository = layout::repository_key();
        if read_small(self.store, &repository, MAX_MANIFEST_BYTES)
            .await?
            .is_none()
        {
            let absent = PortError::new(ErrorKind::NotFound, "there is no repository.json");
            return Err(Error::store(format!("write {key}"), absent));
        }
        let Err(error) = self.store.create(key, text.clone()).await else {
            return Ok(());
        };
        // Answers get lost.
        match read_small(self.store, key, MAX_RUN_BYTES).await {
            Ok(Some(found)) if found == text => Ok(()),
            _ => Err(Error::store(format!("write {key}"), error)),
        }
    }

    /// Runs, newest first.
    ///
    /// # Errors
    /// What the store reports; a damaged record is in the result instead.
    pub async fn list(&self, request: &HistoryRequest) -> Result<HistoryListing, Error> {
        Records(self.store).list(request).await
    }

    /// The record of one run, if there is one.
    ///
    /// # Errors
    /// What the store reports; `Corrupt` for a damaged record.
    pub async fn get(&self, id: &RunId) -> Result<Option<RunRecord>, Error> {
        Records(self.store)
            .read(id)
            .await
            .map_err(|unreadable| match unreadable {
                Unreadable::Damaged(key, reason) => Error::corrupt(format!("{key}: {reason}")),
                Unreadable::Store(error) => error,
            })
    }
}

/// The records of one store, to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Records<'a>(pub(crate) &'a dyn Store);

impl Records<'_> {
    /// See [`History::list`].
    pub(crate) async fn list(&self, request: &HistoryRequest) -> Result<HistoryListing, Error> {
        let since = request.since;
        let months = self.months(since).await?;
        let read = stream::iter(months)
            .map(|month| async move { self.runs_of(&month, since).await })
            .buffered(LISTERS)
            .map_ok(|runs| stream::iter(runs.into_iter().map(Ok)))
            .try_flatten()
            .map(|id| async move {
                match id {
                    Ok(id) => self.read(&id).await,
                    Err(error) => Err(Unreadable::Store(error)),
                }
            })
            .buffered(READERS);
        let mut read = std::pin::pin!(read);
        let limit = request.limit.unwrap_or(usize::MAX);
        let wanted = |run: &RunRecord| {
            let operation = request.operation.as_ref();
            operation.is_none_or(|operation| run.operation == *operation)
        };
        let mut listing = HistoryListing::default();
        while listing.runs.len() < limit
            && let Some(item) = read.next().await
        {
            match item {
                Ok(run) => listing.runs.extend(run.filter(wanted)),
                Err(Unreadable::Damaged(key, reason)) => listing.damaged.push((key, reason)),
                Err(Unreadable::Store(error)) => return Err(error),
            }
        }
        Ok(listing)
    }

    /// The months that have runs, newest first.
    async fn months(&self, since: Option<DateTime<Utc>>) -> Result<Vec<StoreKey>, Error> {
        let years = self.prefixes(&layout::runs_prefix()).await?;
        let first = since.map(layout::runs_of_year);
        let years = years
            .into_iter()
            .filter(|year| first.as_ref().is_none_or(|first| year >= first));
        let found: Vec<Vec<StoreKey>> = stream::iter(years)
            .map(|year| async move { self.prefixes(&year).await })
            .buffered(LISTERS)
            .try_collect()
            .await?;
        let first = since.map(layout::runs_of_month);
        let mut months: Vec<_> = found.into_iter().flatten().collect();
        months.retain(|month| first.as_ref().is_none_or(|first| month >= first));
        months.sort();
        months.reverse();
        Ok(months)
    }

    async fn prefixes(&self, below: &StoreKey) -> Result<Vec<StoreKey>, Error> {
        self.0
            .list(Some(below), Depth::Children)
            .try_filter_map(|entry| async move {
                Ok(match entry {
                    Entry::Prefix(prefix) => Some(prefix),
                    Entry::Object(_) => None,
                })
            })
            .try_collect()
            .await
            .map_err(|e| Error::store(format!("list {below}"), e))
    }

    /// The runs of one month, newest first.
    async fn runs_of(
        &self,
        month: &StoreKey,
        since: Option<DateTime<Utc>>,
    ) -> Result<Vec<RunId>, Error> {
        let mut runs: Vec<RunId> = self
            .0
            .list(Some(month), Depth::Children)
            .try_filter_map(|entry| async move {
                Ok(match entry {
                    Entry::Object(meta) => layout::parse_run_key(&meta.key),
                    Entry::Prefix(_) => None,
                })
            })
            .try_collect()
            .await
            .map_err(|e| Error::store(format!("list {month}"), e))?;
        // A name tells whole seconds.
        runs.retain(|run| {
            since.is_none_or(|since| run.started_at().timestamp() >= since.timestamp())
        });
        runs.sort();
        runs.reverse();
        Ok(runs)
    }

    async fn read(&self, id: &RunId) -> Result<Option<RunRecord>, Unreadable> {
        let key = layout::run_key(id);
        let read = read_small(self.0, &key, MAX_RUN_BYTES).await;
        let text = match read {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(None),
            Err(e) if e.kind() == ErrorKind::Corrupt => {
                return Err(Unreadable::Damaged(key, chain(&e)));
            }
            Err(e) => return Err(Unreadable::Store(e)),
        };
        match RunRecord::decode(&text) {
            Ok(run) if run.id == *id => Ok(Some(run)),
            Ok(_) => Err(Unreadable::Damaged(
                key,
                "run record belongs to another run".to_owned(),
            )),
            Err(e) => Err(Unreadable::Damaged(key, chain(&e))),
        }
    }
}

/// How deeply a backup was proved, each deeper than the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProofLevel {
    /// As [`VerifyLevel::Stored`].
    Stored,
    /// As [`VerifyLevel::Hashed`].
    Hashed,
    /// As [`VerifyLevel::Decoded`].
    Decoded,
    /// It was restored whole, and was equal to the dump.
    Restored,
}

impl ProofLevel {
    /// The name used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Hashed => "hashed",
            Self::Decoded => "decoded",
            Self::Restored => "restored",
        }
    }
}

impl From<VerifyLevel> for ProofLevel {
    fn from(level: VerifyLevel) -> Self {
        match level {
            VerifyLevel::Stored => Self::Stored,
            VerifyLevel::Hashed => Self::Hashed,
            VerifyLevel::Decoded => Self::Decoded,
        }
    }
}

/// When and how deeply a backup was proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// When that was done.
    pub at: DateTime<Utc>,
    /// How deeply.
    pub level: ProofLevel,
}

/// Which backups were tried, by the records of runs.
#[derive(Debug, Clone, Default)]
pub struct Proofs(BTreeMap<(SourceName, BackupId), Vec<RunRecord>>);

impl Proofs {
    /// What `runs`, newest first, say of backups.
    #[must_use]
    pub fn new(runs: Vec<RunRecord>) -> Self {
        let mut proofs: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for run in runs {
            let tries = matches!(
                run.operation,
                Operation::Verify | Operation::Restore | Operation::Drill
            );
            if let (true, Some(source), Some(backup)) = (tries, &run.source, &run.backup) {
                let of = (source.clone(), backup.clone());
                proofs.entry(of).or_default().push(run);
            }
        }
        Self(proofs)
    }

    /// The runs that tried a backup, proved or not, newest first.
    #[must_use]
    pub fn tries(&self, backup: &Manifest) -> &[RunRecord] {
        let of = (backup.source.clone(), backup.id.clone());
        self.0.get(&of).map_or(&[], Vec::as_slice)
    }

    /// Whether every byte of a backup was found good, unless it was found damaged since.
    #[must_use]
    pub fn is_verified(&self, backup: &Manifest) -> bool {
        self.verified_at(backup).is_some()
    }

    /// When every byte of a backup was last found good, unless it was found damaged since.
    #[must_use]
    pub fn verified_at(&self, backup: &Manifest) -> Option<DateTime<Utc>> {
        let proved = self.since_damage(backup);
        let whole = proved
            .iter()
            .filter(|proof| proof.level >= ProofLevel::Hashed);
        whole.map(|proof| proof.at).max()
    }

    /// Whether a backup was found damaged, and not every byte of it found good since.
    #[must_use]
    pub fn is_damaged(&self, backup: &Manifest) -> bool {
        self.damaged_at(backup).is_some()
    }

    /// When a backup was last found damaged, unless every byte of it was found good since.
    #[must_use]
    pub fn damaged_at(&self, backup: &Manifest) -> Option<DateTime<Utc>> {
        let found = self.tries(backup).iter().filter(|run| found_damage(run));
        let at = found.map(|run| run.finished_at).max()?;
        (!self.is_verified(backup)).then_some(at)
    }

    /// The newest drill of a backup that says something about it: not one that was stopped, lacked
    /// the private key or had no server to restore to.
    #[must_use]
    pub fn newest_drill(&self, backup: &Manifest) -> Option<&RunRecord> {
        let drills = self.tries(backup).iter().filter(|run| judged_backup(run));
        drills.max_by_key(|run| run.finished_at)
    }

    /// When and how deeply a backup was last proved, unless it was found damaged since.
    #[must_use]
    pub fn newest(&self, backup: &Manifest) -> Option<Proof> {
        self.since_damage(backup).pop()
    }

    /// Every proof since the backup was last found damaged, the newest last.
    fn since_damage(&self, backup: &Manifest) -> Vec<Proof> {
        let mut tries: Vec<_> = self.tries(backup).iter().collect();
        tries.sort_by_key(|run| run.finished_at);
        let mut proofs = Vec::new();
        for run in tries {
            if found_damage(run) {
                proofs.clear();
            }
            let at = run.finished_at;
            proofs.extend(proved(run, backup).map(|level| Proof { at, level }));
        }
        proofs
    }
}

/// Whether this run found the backup damaged.
fn found_damage(run: &RunRecord) -> bool {
    run.damaged || run.verify.is_some_and(|found| found.problems > 0)
}

/// Whether this run is a drill whose result is about the backup: one that failed found it damaged, or had all of it
/// and a server to restore it to.
fn judged_backup(run: &RunRecord) -> bool {
    if run.operation != Operation::Drill {
        return false;
    }
    let level = run.drill.and_then(|drill| drill.level);
    match (run.result, run.kind) {
        (RunResult::Cancelled, _) => false,
        (RunResult::Failed, Some(kind)) => {
            kind == ErrorKind::Corrupt || level >= Some(DrillLevel::Decoded)
        }
        // What an older version noted has no kind.
        _ => true,
    }
}

/// How deeply this run proved the backup, if it did.
fn proved(run: &RunRecord, backup: &Manifest) -> Option<ProofLevel> {
    if !run.is_success() {
        return None;
    }
    match run.operation {
        Operation::Verify => {
            let found = run.verify.filter(|found| found.problems == 0)?;
            Some(found.level.into())
        }
        Operation::Restore | Operation::Drill => {
            let found = run.compare?;
            // A part of the backup proves nothing about the rest.
            let all = found.equal == found.tables && found.tables == backup.totals.tables;
            (all && !run.partial).then_some(ProofLevel::Restored)
        }
        _ => None,
    }
}
