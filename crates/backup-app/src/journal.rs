//! The notes that runs leave in stores: what was done, and what is being read. They never change
//! how a run ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backup_core::audit::{Audit, AuditEntry};
use backup_core::backup::SourceName;
use backup_core::clock::Clock as _;
use backup_core::engine::Engine;
use backup_core::error::{Error as CoreError, chain};
use backup_core::lease::{Lease, Work};
use backup_core::manifest::Manifest;
use backup_core::observer::NoopObserver;
use backup_core::run_record::{Operation, RunId, RunRecord};
use backup_core::store::StoreKey;
use chrono::{DateTime, Utc};
use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::audit::tell_head;
use crate::clock::SystemClock;
use crate::compose::App;
use crate::keys::Keys;
use crate::notices::{Notices, Tell};
use crate::proof_log::ProofLog;
use crate::text::shown;
use crate::who::who;

/// How long a store may take to note a reader. The work itself may well go on without.
const LIMIT: Duration = Duration::from_secs(10);
/// How long an audit record may take once somebody wants the run to stop.
const HURRIED_LIMIT: Duration = Duration::from_secs(2);

/// Something that is to be said and is no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// It is not as it should be.
    Warning(String),
    /// It is worth knowing.
    Note(String),
}

/// Writes the notes. What a place does not take is said once of each.
pub struct Journal {
    tell: Tell,
    /// Who is told how runs end.
    notices: Option<Notices>,
    /// Where proofs are told besides.
    proofs: Option<ProofLog>,
    /// The places that took no record.
    unrecorded: Mutex<BTreeSet<String>>,
    /// The places where readers leave no note.
    unprotected: Mutex<BTreeSet<String>>,
    /// The places that took no audit record.
    unaudited: Mutex<BTreeSet<String>>,
    /// Where it was written down that these runs begin.
    announced: Mutex<BTreeMap<RunId, Audit>>,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").finish_non_exhaustive()
    }
}

/// What is read, and why.
#[derive(Debug, Clone)]
pub struct Reading<'a> {
    /// Reads.
    pub engine: &'a Engine,
    /// The name of the place.
    pub place: &'a str,
    /// Which backup.
    pub backup: &'a Manifest,
    /// Why.
    pub operation: Operation,
}

/// What is known of a run before it begins, and belongs into its record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mark {
    /// Its name, if somebody was told it already.
    pub id: Option<RunId>,
    /// The moment of the schedule that asked for it.
    pub slot: Option<DateTime<Utc>>,
    /// Who asked for it, if it was not who runs this process.
    pub by: Option<String>,
}

impl Mark {
    /// The record of a run that begins now.
    #[must_use]
    pub fn begin(&self, operation: Operation) -> RunRecord {
        let mut run = RunRecord::begin(operation, who(), SystemClock.now());
        if let Some(id) = &self.id {
            run.id = id.clone();
        }
        run.slot = self.slot;
        if let Some(by) = &self.by {
            run.who.user.clone_from(by);
        }
        run
    }

    /// Of a run that comes after the one that has the name.
    #[must_use]
    pub fn unnamed(&self) -> Self {
        Self {
            id: None,
            slot: self.slot,
            by: self.by.clone(),
        }
    }
}

/// The record of a run that begins now.
#[must_use]
pub fn begin(engine: &Engine, operation: Operation) -> RunRecord {
    engine.history().begin(operation, who())
}

impl Journal {
    /// A journal whose troubles are told to `tell`.
    pub fn new(tell: impl Fn(&Notice) + Send + Sync + 'static) -> Self {
        Self {
            tell: Arc::new(tell),
            notices: None,
            proofs: None,
            unrecorded: Mutex::default(),
            unprotected: Mutex::default(),
            unaudited: Mutex::default(),
            announced: Mutex::default(),
        }
    }

    /// The same that tells all who are configured how runs end, and the log of proofs, if there is one.
    #[must_use]
    pub fn telling(mut self, app: &Arc<App>) -> Self {
        self.notices = Notices::new(app, &self.tell);
        self.proofs = app.config().log.proofs.clone().map(ProofLog::new);
        self
    }

    /// Has told that a run begins.
    pub fn began(&self, run: &RunRecord) {
        if let (Some(notices), Some(source)) = (&self.notices, &run.source) {
            notices.began(&run.operation, source);
        }
    }

    /// Who is told how runs end, if anybody is.
    #[must_use]
    pub fn notices(&self) -> Option<&Notices> {
        self.notices.as_ref()
    }

    /// Writes down for the audit that a run begins now that changes or removes something; how it
    /// ends is written when it is recorded. Where that does not go, the run goes on: whoever has a
    /// shell here could do as much without us.
    ///
    /// # Cancellation
    /// `stop` leaves it two seconds.
    pub async fn announce(
        &self,
        engine: &Engine,
        place: &str,
        run: &RunRecord,
        stop: &CancellationToken,
    ) {
        let audit = engine.audit();
        let entry = AuditEntry::of_run(run, false);
        self.audited(&audit, place, &entry, stop).await;
        if let Ok(mut announced) = self.announced.lock() {
            announced.insert(run.id.clone(), audit);
        }
    }

    /// Writes down for the audit how a run ended that was announced: also one that had nothing to do,
    /// and leaves no record.
    ///
    /// # Cancellation
    /// `stop` leaves it two seconds.
    pub(crate) async fn audit_end(&self, place: &str, run: &RunRecord, stop: &CancellationToken) {
        let announced = self.announced.lock();
        let announced = announced.ok().and_then(|mut known| known.remove(&run.id));
        if let Some(audit) = announced {
            let entry = AuditEntry::of_run(run, true);
            self.audited(&audit, place, &entry, stop).await;
        }
    }

    /// Adds a record to the audit.
    async fn audited(
        &self,
        audit: &Audit,
        place: &str,
        entry: &AuditEntry,
        stop: &CancellationToken,
    ) {
        let late = async {
            stop.cancelled().await;
            tokio::time::sleep(HURRIED_LIMIT).await;
        };
        let why = tokio::select! {
            added = audit.append(entry) => match added {
                Ok(head) => {
                    works(&self.unaudited, place);
                    tell_head(place, &head);
                    return;
                }
                Err(error) => chain(&error),
            },
            () = late => "the store did not answer in time".to_owned(),
        };
        if first(&self.unaudited, place) {
            let why = shown(&why);
            self.warn(format!("{place}: this is not in the audit: {why}"));
        }
    }

    /// Writes the record of a run that has ended, and has it told; its id, if it is there.
    ///
    /// # Cancellation
    /// `stop` leaves it two seconds.
    pub async fn record(
        &self,
        engine: &Engine,
        place: &str,
        run: RunRecord,
        stop: &CancellationToken,
    ) -> Option<RunId> {
        let (noted, run) = self.note(engine, place, run, stop).await;
        // A backup has a record for each attempt at each place, and is told of once; what is adopted
        // says nothing of how backups go.
        let is_told_here = !matches!(run.operation, Operation::Backup | Operation::Adopt);
        if let Some(notices) = self.notices.as_ref().filter(|_| is_told_here) {
            notices.ended(&run, Some(place));
        }
        noted
    }

    /// Writes the record of a run that has ended and has nothing told; its id, if it is there, and the
    /// record.
    pub(crate) async fn note(
        &self,
        engine: &Engine,
        place: &str,
        mut run: RunRecord,
        stop: &CancellationToken,
    ) -> (Option<RunId>, RunRecord) {
        self.audit_end(place, &run, stop).await;
        let recorded = engine.history().record(&mut run, stop).await;
        self.log_proof(place, &run);
        let Err(error) = recorded else {
            works(&self.unrecorded, place);
            return (Some(run.id.clone()), run);
        };
        if first(&self.unrecorded, place) {
            let why = shown(&chain(&error));
            self.warn(format!("{place}: this run is not recorded: {why}"));
        }
        (None, run)
    }

    /// Tells the log of proofs of a verification or a drill.
    fn log_proof(&self, place: &str, run: &RunRecord) {
        let Some(log) = self.proofs.as_ref().filter(|_| ProofLog::takes(run)) else {
            return;
        };
        let name = log.name();
        match log.append(run, place) {
            Ok(()) => works(&self.unrecorded, &name),
            Err(error) if first(&self.unrecorded, &name) => {
                self.warn(format!("{}: this run is not in it: {error}", shown(&name)));
            }
            Err(_) => {}
        }
    }

    /// Does `work`, which reads a backup, while the store says so, so that nobody removes it
    /// meanwhile.
    ///
    /// # Errors
    /// `NotFound`, and no work is done, when it was removed between being found and that. What is
    /// no more is not damaged.
    ///
    /// # Cancellation
    /// `stop` ends waiting for the store; `work` has to know of it by itself.
    pub async fn reading<T>(
        &self,
        reading: &Reading<'_>,
        work: impl Future<Output = T>,
        stop: &CancellationToken,
    ) -> Result<T, CoreError> {
        let lease = self.reader_lease(reading, stop).await;
        let result = if is_gone(reading, stop).await {
            let id = &reading.backup.id;
            Err(CoreError::NotFound {
                what: format!("backup {id}, which was removed just now"),
            })
        } else {
            Ok(work.await)
        };
        if let Some(lease) = lease
            && let Err(error) = lease.release().await
        {
            let why = shown(&chain(&error));
            let place = reading.place;
            self.warn(format!("{place}: the note that it is read stays: {why}"));
        }
        result
    }

    /// None where the login may only read, or the store does not answer: that is said once, and
    /// is no reason not to read.
    async fn reader_lease(&self, reading: &Reading<'_>, stop: &CancellationToken) -> Option<Lease> {
        let leases = reading.engine.leases()?;
        let work = Work {
            operation: reading.operation.clone(),
            backup: Some(reading.backup.id.clone()),
            slot: None,
        };
        let taking = leases.reading(&reading.backup.source, &work, stop);
        let taken = tokio::select! {
            taken = tokio::time::timeout(LIMIT, taking) => taken,
            () = stop.cancelled() => return None,
        };
        let why = match taken {
            Ok(Ok(lease)) => {
                works(&self.unprotected, reading.place);
                return Some(lease);
            }
            Ok(Err(error)) => chain(&error),
            Err(_) => "the store did not answer in time".to_owned(),
        };
        let place = reading.place;
        if first(&self.unprotected, place) {
            let why = shown(&why);
            let what = "others cannot see what is being read here, and could remove it";
            (self.tell)(&Notice::Note(format!("{place}: {what}: {why}")));
        }
        None
    }

    /// Says something.
    pub(crate) fn tell(&self, notice: &Notice) {
        (self.tell)(notice);
    }

    /// Says of a place what cannot be read there.
    pub(crate) fn damaged(&self, place: &str, entries: &[(StoreKey, String)]) {
        for (key, reason) in entries {
            self.warn(shown(&format!("{place}: {key}: {reason}")));
        }
    }

    /// Says what is not as it should be.
    pub(crate) fn warn(&self, text: String) {
        (self.tell)(&Notice::Warning(text));
    }
}

impl App {
    /// Leaves the records of backups whose process is gone, at every place that lets us, and gives
    /// those that are new. It is no harm where it cannot be: somebody else will notice.
    ///
    /// # Cancellation
    /// `cancel` ends it.
    pub async fn note_interrupted(&self, cancel: &CancellationToken) -> Vec<RunRecord> {
        let places = self.places().unwrap_or_default();
        let noted = join_all(places.iter().map(|place| async {
            let engine = self
                .engine(place, Keys::None, Arc::new(NoopObserver))
                .ok()?;
            let noting = tokio::time::timeout(LIMIT, engine.note_interrupted(cancel));
            match noting.await.ok()? {
                Ok(noted) => Some(noted),
                Err(error) => {
                    let (place, why) = (shown(&place.name), shown(&chain(&error)));
                    tracing::debug!(target: "backup", "{place}: interrupted runs: {why}");
                    None
                }
            }
        }));
        let mut noted: Vec<_> = noted.await.into_iter().flatten().flatten().collect();
        // A run that wrote to several places is one.
        noted.sort_by(|a, b| a.id.cmp(&b.id));
        noted.dedup_by(|a, b| a.id == b.id);
        for run in &noted {
            let source = run.source.as_ref().map_or("", SourceName::as_str);
            tracing::warn!(
                target: "backup",
                run = run.id.as_str(),
                "a backup of {} was interrupted: its process is gone",
                shown(source),
            );
        }
        noted
    }
}

/// Whether the manifest is certainly not there any more. What else is wrong with the store, the work
/// finds out.
async fn is_gone(reading: &Reading<'_>, stop: &CancellationToken) -> bool {
    let catalog = reading.engine.catalog();
    tokio::select! {
        gone = catalog.is_gone(reading.backup) => gone,
        () = tokio::time::sleep(LIMIT) => false,
        () = stop.cancelled() => false,
    }
}

/// It took one again; should it take none later, that is said anew.
fn works(places: &Mutex<BTreeSet<String>>, place: &str) {
    if let Ok(mut places) = places.lock() {
        places.remove(place);
    }
}

/// Whether a place is named for the first time.
fn first(places: &Mutex<BTreeSet<String>>, place: &str) -> bool {
    let mut places = places.lock();
    places
        .as_mut()
        .is_ok_and(|places| places.insert(place.to_owned()))
}

#[cfg(test)]
mod tests {
    use backup_core::engine::BackupRequest;
    use backup_core::error::ErrorKind;
    use backup_testing::{
        FakeCompressor, FixedClock, MemoryStore, ScriptedDumper, ScriptedPart, bodies,
    };

    use super::*;

    /// Pruned between being found and being read: that is no damage.
    #[tokio::test]
    async fn what_was_removed_just_now_is_not_read() {
        let memory = Arc::new(MemoryStore::new());
        let engine = Engine::new(memory.clone(), Arc::new(FixedClock::default()))
            .with_compressor(Arc::new(FakeCompressor));
        let never = CancellationToken::new();
        let request = BackupRequest {
            compression: "fake".to_owned(),
            encrypt: false,
            ..BackupRequest::new(SourceName::new("app").unwrap())
        };
        let dumper = ScriptedDumper::new().part(ScriptedPart::new("data-0001", bodies::text(1000)));
        let taken = engine.backup(&dumper, &request, &never).await.unwrap();
        let journal = Journal::new(|_| {});
        let reading = Reading {
            engine: &engine,
            place: "here",
            backup: &taken.manifest,
            operation: Operation::Verify,
        };
        let read = journal.reading(&reading, async { 7 }, &never).await;
        assert_eq!(read.unwrap(), 7);
        let manifest = format!("backups/app/{}/manifest.json", taken.manifest.id);
        assert!(memory.remove(&manifest));
        let read = journal.reading(&reading, async { 7 }, &never).await;
        assert_eq!(read.unwrap_err().kind(), ErrorKind::NotFound);
    }
}
