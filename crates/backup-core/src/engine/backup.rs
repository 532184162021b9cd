//! Taking a backup: plan, parts, facts, manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::FutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::part::{Codec, PartWriter, StoredPart};
use super::turn::Turn;
use super::{Engine, unless};
use crate::backup::SourceName;
use crate::body::{body_of, collect, lock, sha256_hex};
use crate::dumper::{DumpRequest, DumpSession, Dumper, PartPlan, PartReport, PartStream};
use crate::error::{Error, ErrorKind, PortError, chain};
use crate::facts::Facts;
use crate::layout;
use crate::manifest::{
    EncryptionRecord, FORMAT, MAX_MANIFEST_BYTES, Manifest, PartFormat, PartKind, PartName,
    PartRecord, Totals,
};
use crate::observer::Event;
use crate::removal;
use crate::store::StoreKey;

/// What to back up and how.
#[derive(Debug, Clone)]
pub struct BackupRequest {
    /// Under which name.
    pub source: SourceName,
    /// How many parts at once.
    pub jobs: usize,
    /// Name of the compressor.
    pub compression: String,
    /// Its level; `None` = its default.
    pub level: Option<i32>,
    /// Whether to encrypt. Needs a cipher with recipients.
    pub encrypt: bool,
    /// How often one part is tried inside the same dump session.
    pub part_attempts: usize,
    /// Pause between tries of a part.
    pub part_retry_delay: Duration,
    /// A part in which nothing moves for so long has failed.
    pub stall_timeout: Duration,
    /// Whether a filter is that of the source itself, and not of this one backup.
    pub as_configured: bool,
    /// Not if there is one that began since then, whoever took it: asked again under the lease, so that of
    /// several runs one takes it.
    pub unless_since: Option<DateTime<Utc>>,
    /// When the dump was taken, if it was not now but by somebody else's tool.
    pub adopted: Option<DateTime<Utc>>,
    /// The ids of all repositories that it is written to, if there are several.
    pub repositories: Vec<String>,
}

impl BackupRequest {
    /// A request with the defaults: 4 jobs, zstd, encrypted, two tries a part.
    #[must_use]
    pub fn new(source: SourceName) -> Self {
        Self {
            source,
            jobs: 4,
            compression: "zstd".to_owned(),
            level: None,
            encrypt: true,
            part_attempts: 2,
            part_retry_delay: Duration::from_secs(2),
            stall_timeout: Duration::from_mins(30),
            as_configured: false,
            unless_since: None,
            adopted: None,
            repositories: Vec::new(),
        }
    }
}

/// A committed backup.
#[derive(Debug, Clone)]
pub struct BackupOutcome {
    /// Its record, as stored.
    pub manifest: Manifest,
    /// What was not as it should be, though the backup is complete.
    pub warnings: Vec<String>,
}

/// What is known of a backup before its source is touched.
struct Begun<'a> {
    turn: &'a Turn,
    started_at: DateTime<Utc>,
    repository: String,
}

/// One backup in the making.
struct Run {
    writer: Arc<PartWriter>,
    session: Arc<dyn DumpSession>,
    repository: String,
    copies: Vec<String>,
    as_configured: bool,
    adopted: bool,
    started_at: DateTime<Utc>,
    encryption: Option<EncryptionRecord>,
    compression: String,
}

impl Engine {
    /// Takes a backup. It exists when this returns `Ok`, and not before.
    ///
    /// # Errors
    /// After any error nothing was committed and what had been stored is removed again, as
    /// far as the store can still be reached; backups that existed before are untouched.
    ///
    /// # Cancellation
    /// The token ends the dump, aborts uploads and returns [`Error::Cancelled`].
    pub async fn backup(
        &self,
        dumper: &dyn Dumper,
        request: &BackupRequest,
        cancel: &CancellationToken,
    ) -> Result<BackupOutcome, Error> {
        let now = self.clock.now();
        let started_at = request.adopted.unwrap_or(now);
        let codec = self.codec(request)?;
        let repository = unless(cancel, self.catalog().repository(now)).await??;
        let turn = self.take_turn(&request.source, started_at, cancel).await?;
        if let Err(error) = self.check_wanted(request, turn.token()).await {
            self.end_turn(turn).await;
            return Err(error);
        }
        let begun = Begun {
            turn: &turn,
            started_at,
            repository,
        };
        let taken = self
            .take(dumper, request, (begun, codec), turn.token())
            .await;
        let result = turn.judge(taken, cancel).await;
        if result.is_ok() {
            self.store.settle().await;
        }
        self.end_turn(turn).await;
        result
    }

    /// Takes a backup whose id is ours.
    async fn take(
        &self,
        dumper: &dyn Dumper,
        request: &BackupRequest,
        (begun, (codec, sealed)): (Begun<'_>, (Codec, Option<(EncryptionRecord, Bytes)>)),
        cancel: &CancellationToken,
    ) -> Result<BackupOutcome, Error> {
        let dump = DumpRequest { jobs: request.jobs };
        let session: Arc<dyn DumpSession> = dumper
            .open(&dump, cancel)
            .await
            .map_err(|e| Error::dump(format!("open source {}", request.source), e))?
            .into();
        let run = Run {
            compression: compression_text(&codec),
            writer: Arc::new(PartWriter {
                store: Arc::clone(&self.store),
                observer: Arc::clone(&self.observer),
                codec,
                source: request.source.clone(),
                id: begun.turn.id.clone(),
                stall_timeout: request.stall_timeout,
                parts: cancel.child_token(),
                written: Mutex::default(),
            }),
            session,
            copies: copies(&request.repositories, &begun.repository),
            as_configured: request.as_configured,
            adopted: request.adopted.is_some(),
            repository: begun.repository,
            started_at: begun.started_at,
            encryption: sealed.as_ref().map(|(record, _)| record.clone()),
        };
        let (result, finished) = self.store_parts(&run, request, sealed, cancel).await;
        // An error of the run itself comes first.
        let committed = match (result, finished) {
            (Ok(stored), Ok(())) => self.commit(&run, begun.turn, stored, cancel).await,
            (Ok(_), Err(e)) => Err(Error::dump("hold the source until all parts were read", e)),
            (Err(e), _) => Err(e),
        };
        if committed.is_err() {
            self.clean_up(&run.writer).await;
        }
        committed
    }

    /// Chooses the codecs and makes the backup's key.
    fn codec(
        &self,
        request: &BackupRequest,
    ) -> Result<(Codec, Option<(EncryptionRecord, Bytes)>), Error> {
        let compressor = self.compressor(&request.compression)?;
        let mut codec = Codec {
            level: request.level.or(compressor.default_level()),
            compressor,
            key: None,
            cipher_extension: "",
        };
        if !request.encrypt {
            return Ok((codec, None));
        }
        let Some(cipher) = &self.cipher else {
            return Err(Error::InvalidInput {
                message: "encryption is wanted but no recipient is configured".to_owned(),
            });
        };
        let sealed = cipher
            .seal()
            .map_err(|e| Error::key("make the backup's key", e))?;
        codec.key = Some(sealed.key);
        codec.cipher_extension = cipher.extension();
        let record = EncryptionRecord {
            cipher: cipher.name().to_owned(),
            key: layout::wrapped_key_name(cipher.extension(), 1),
            key_sha256: sha256_hex(&sealed.wrapped),
            recipients: cipher.recipients(),
        };
        Ok((codec, Some((record, sealed.wrapped))))
    }

    /// Stores the key and all parts, and ends the session on every path: after the last part, or as
    /// soon as nothing can come of them, since a store that does not answer is given longer to
    /// clean up than a server should be held.
    async fn store_parts(
        &self,
        run: &Run,
        request: &BackupRequest,
        sealed: Option<(EncryptionRecord, Bytes)>,
        cancel: &CancellationToken,
    ) -> (Result<Vec<StoredPart>, Error>, Result<(), PortError>) {
        let work = self.run(run, request, sealed, cancel);
        tokio::pin!(work);
        tokio::select! {
            biased;
            result = &mut work => (result, run.session.finish().await),
            () = run.writer.parts.cancelled() => tokio::join!(work, run.session.finish()),
        }
    }

    /// Stores the key and all parts.
    async fn run(
        &self,
        run: &Run,
        request: &BackupRequest,
        sealed: Option<(EncryptionRecord, Bytes)>,
        cancel: &CancellationToken,
    ) -> Result<Vec<StoredPart>, Error> {
        let plans = run.session.parts().to_vec();
        check_plan(&plans)?;
        self.observer.event(&Event::Planned {
            parts: plans.len(),
            estimated_bytes: plans.iter().map(|plan| plan.estimated_bytes).sum(),
        });
        if let Some((record, wrapped)) = sealed {
            let key = layout::object_key(&run.writer.source, &run.writer.id, &record.key)
                .map_err(|e| Error::store("store the backup's key", e))?;
            unless(cancel, self.create(&run.writer, key, wrapped))
                .await?
                .map_err(|failed| failed.error)?;
        }
        let token = &run.writer.parts;
        let mut stored = BTreeMap::new();
        let mut failure = None;
        let mut waiting = plans.into_iter().enumerate();
        let mut running = JoinSet::new();
        loop {
            while running.len() < request.jobs.max(1)
                && !token.is_cancelled()
                && let Some((index, plan)) = waiting.next()
            {
                let job = PartJob::new(self, run, request, plan);
                running.spawn(async move { (index, job.run().await) });
            }
            let Some(joined) = running.join_next().await else {
                break;
            };
            match joined.map_err(died) {
                Ok((index, Ok(part))) => {
                    stored.insert(index, part);
                }
                Ok((_, Err(e))) | Err(e) => {
                    // The first failure is the cause; those after it are our own cancelling, but
                    // for a stall, which stops the others before it has aborted its upload.
                    token.cancel();
                    if failure.is_none() || matches!(e, Error::Stalled { .. }) {
                        failure = Some(e);
                    }
                }
            }
        }
        match failure {
            _ if cancel.is_cancelled() => Err(Error::Cancelled),
            Some(error) => Err(error),
            // Somebody else ended the parts: what is stored is not all.
            None if waiting.len() > 0 => Err(Error::Cancelled),
            None => Ok(stored.into_values().collect()),
        }
    }

    /// Writes the facts, then the manifest: the backup exists.
    async fn commit(
        &self,
        run: &Run,
        turn: &Turn,
        stored: Vec<StoredPart>,
        cancel: &CancellationToken,
    ) -> Result<BackupOutcome, Error> {
        let facts = gather(run, &stored);
        let text = serde_json::to_vec(&facts)
            .map_err(|e| PortError::new(ErrorKind::Internal, "encode facts").with_source(e))
            .map_err(|e| Error::dump("describe the backup", e))?;
        let plan = PartPlan {
            name: PartName::facts(),
            kind: PartKind::Facts,
            format: PartFormat::Json,
            estimated_bytes: text.len() as u64,
        };
        let stream = PartStream {
            body: body_of(text),
            report: futures::future::ready(Ok(PartReport::default())).boxed(),
        };
        let facts_part = run.writer.store(&plan, 1, stream, cancel).await?;
        let mut parts: Vec<_> = stored.into_iter().map(|part| part.record).collect();
        parts.push(facts_part.record);
        let source = run.session.source();
        let manifest = Manifest {
            format: FORMAT,
            id: run.writer.id.clone(),
            source: run.writer.source.clone(),
            database: source.database.clone(),
            repository: run.repository.clone(),
            copies: run.copies.clone(),
            started_at: run.started_at,
            finished_at: self.finished_at(run),
            adopted: run.adopted,
            server_version: source.server_version.clone(),
            tool_version: source.tool_version.clone(),
            filtered: source.filtered,
            as_configured: facts.as_configured,
            compression: run.compression.clone(),
            encryption: run.encryption.clone(),
            totals: totals(&facts, &parts),
            parts,
            warnings: facts.warnings.len() as u64,
        };
        turn.confirm(self.store.as_ref(), &manifest, cancel).await?;
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let text = manifest
            .encode()
            .map_err(|e| Error::dump("describe the backup", e))?;
        let key = layout::manifest_key(&manifest.source, &manifest.id);
        // Not cancellable: a request that is on its way may still arrive.
        if let Err(NotCreated { error, absent }) = self.create(&run.writer, key, text.into()).await
        {
            if !absent {
                self.leave(&run.writer);
            }
            return Err(error);
        }
        self.remove_first_tries(run, &manifest).await;
        Ok(BackupOutcome {
            manifest,
            warnings: facts.warnings,
        })
    }

    /// How long somebody else's tool took is not known.
    fn finished_at(&self, run: &Run) -> DateTime<Utc> {
        if run.adopted {
            run.started_at
        } else {
            self.clock.now()
        }
    }

    /// Removes what a try stored that was taken for failed: an answer got lost. It would be taken
    /// for a part by whoever restores by hand.
    async fn remove_first_tries(&self, run: &Run, manifest: &Manifest) {
        let objects = manifest.parts.iter().flat_map(|part| &part.objects);
        let mut named: BTreeSet<&str> = objects.map(|object| object.name.as_str()).collect();
        named.extend(
            manifest
                .encryption
                .as_ref()
                .map(|record| record.key.as_str()),
        );
        let manifest_key = layout::manifest_key(&manifest.source, &manifest.id);
        lock(&run.writer.written).retain(|key| {
            let name = key.as_str().rsplit('/').next().unwrap_or_default();
            *key != manifest_key && !named.contains(name)
        });
        self.clean_up(&run.writer).await;
    }

    /// Creates a small object. When the store's answer is an error, looks whether the object
    /// is there nevertheless and is ours: answers get lost.
    async fn create(
        &self,
        writer: &PartWriter,
        key: StoreKey,
        content: Bytes,
    ) -> Result<(), NotCreated> {
        // Before it is there: this may be dropped while the request is on its way.
        lock(&writer.written).push(key.clone());
        let Err(error) = self.store.create(&key, content.clone()).await else {
            return Ok(());
        };
        let there = match self.store.read(&key, None).await {
            Ok(body) => collect(body, MAX_MANIFEST_BYTES).await,
            Err(e) => Err(e),
        };
        // A request that timed out may still be carried out after we looked.
        let settled = !error.kind().is_outage();
        let operation = format!("write {key}");
        match there {
            Ok(found) if found == content => Ok(()),
            Ok(found) => {
                lock(&writer.written).retain(|written| *written != key);
                if Manifest::barred_at(&found).is_some() {
                    return Err(NotCreated {
                        error: Error::barred(&writer.source),
                        absent: true,
                    });
                }
                let foreign = PortError::new(ErrorKind::Conflict, "another run has written it");
                Err(NotCreated {
                    error: Error::store(operation, foreign),
                    absent: false,
                })
            }
            Err(e) => Err(NotCreated {
                absent: settled && e.kind() == ErrorKind::NotFound,
                error: Error::store(operation, error),
            }),
        }
    }

    /// Leaves everything where it is: the store did not say whether it has the manifest, and
    /// should it turn up, then with its parts.
    fn leave(&self, writer: &PartWriter) {
        lock(&writer.written).clear();
        let text = format!(
            "it is not known whether backup {} was committed; its objects are left",
            writer.id
        );
        self.observer.event(&Event::Warning(text));
    }

    /// Removes what is written and does not belong to a backup.
    async fn clean_up(&self, writer: &PartWriter) {
        let keys = std::mem::take(&mut *lock(&writer.written));
        for text in removal::remove(self.store.as_ref(), keys).await {
            self.observer.event(&Event::Warning(text));
        }
    }
}

/// A small object that could not be created.
struct NotCreated {
    error: Error,
    /// Whether it is certain that nothing is there, nor will be.
    absent: bool,
}

/// One part with its tries, in a task of its own.
struct PartJob {
    engine: Engine,
    writer: Arc<PartWriter>,
    session: Arc<dyn DumpSession>,
    plan: PartPlan,
    attempts: usize,
    delay: Duration,
    cancel: CancellationToken,
}

impl PartJob {
    fn new(engine: &Engine, run: &Run, request: &BackupRequest, plan: PartPlan) -> Self {
        Self {
            engine: engine.clone(),
            writer: Arc::clone(&run.writer),
            session: Arc::clone(&run.session),
            plan,
            attempts: request.part_attempts,
            delay: request.part_retry_delay,
            cancel: run.writer.parts.clone(),
        }
    }

    async fn run(self) -> Result<StoredPart, Error> {
        let part = self.plan.name.clone();
        let started = Instant::now();
        self.tell(&Event::PartStarted { part: part.clone() });
        let mut tries = 1;
        loop {
            let error = match self.once(tries).await {
                Ok(stored) => {
                    let elapsed = started.elapsed();
                    self.tell(&Event::PartFinished { part, elapsed });
                    return Ok(stored);
                }
                Err(error) => error,
            };
            // Nothing moved for as long as the source may be held in vain: not once more.
            let stalled = matches!(error, Error::Stalled { .. });
            let again = tries < self.attempts && error.kind().is_retryable() && !stalled;
            if self.cancel.is_cancelled() || !again {
                return Err(error);
            }
            tries += 1;
            self.tell(&Event::PartRetried {
                part: part.clone(),
                reason: chain(&error),
            });
            tokio::select! {
                () = tokio::time::sleep(self.delay) => {}
                () = self.cancel.cancelled() => return Err(error),
            }
        }
    }

    async fn once(&self, attempt: usize) -> Result<StoredPart, Error> {
        let token = self.cancel.child_token();
        let started = tokio::select! {
            stream = self.session.part(&self.plan, &token) => {
                stream.map_err(|e| Error::dump(format!("dump part {}", self.plan.name), e))
            }
            () = self.cancel.cancelled() => Err(Error::Cancelled),
            () = tokio::time::sleep(self.writer.stall_timeout) => Err(Error::Stalled {
                part: self.plan.name.clone(),
                after: self.writer.stall_timeout,
            }),
        };
        let stored = match started {
            Ok(stream) => self.writer.store(&self.plan, attempt, stream, &token).await,
            Err(e) => Err(e),
        };
        token.cancel();
        stored
    }

    fn tell(&self, event: &Event) {
        self.engine.observer.event(event);
    }
}

/// A dump without parts, or with two of one name, would be committed without its content.
fn check_plan(plans: &[PartPlan]) -> Result<(), Error> {
    let mut names: Vec<_> = plans.iter().map(|plan| &plan.name).collect();
    names.sort();
    names.dedup();
    if plans.is_empty() || names.len() < plans.len() || names.contains(&&PartName::facts()) {
        let wrong = PortError::new(
            ErrorKind::Internal,
            "the dumper planned no parts, or two of one name",
        );
        return Err(Error::dump("plan the dump", wrong));
    }
    Ok(())
}

/// A task of ours that panicked or was aborted.
fn died(error: tokio::task::JoinError) -> Error {
    let source = PortError::new(ErrorKind::Internal, "the task died").with_source(error);
    Error::dump("dump a part", source)
}

/// Those besides the one that the manifest names first.
fn copies(repositories: &[String], first: &str) -> Vec<String> {
    let others = repositories.iter().filter(|id| *id != first);
    others.cloned().collect()
}

fn compression_text(codec: &Codec) -> String {
    match codec.level {
        Some(level) => format!("{}:{level}", codec.compressor.name()),
        None => codec.compressor.name().to_owned(),
    }
}

fn gather(run: &Run, stored: &[StoredPart]) -> Facts {
    let source = run.session.source();
    let mut warnings = source.warnings.clone();
    for part in stored {
        warnings.extend(part.report.warnings.iter().cloned());
    }
    Facts {
        backup: run.writer.id.clone(),
        source: run.writer.source.clone(),
        database: source.database.clone(),
        filtered: source.filtered,
        as_configured: source.filtered && run.as_configured,
        digests: stored
            .iter()
            .flat_map(|part| &part.record.objects)
            .map(|object| (object.name.clone(), object.sha256.clone()))
            .collect(),
        parts: stored
            .iter()
            .map(|part| (part.record.name.clone(), part.report.facts.clone()))
            .collect(),
        details: source.details.clone(),
        warnings,
    }
}

fn totals(facts: &Facts, parts: &[PartRecord]) -> Totals {
    let tables = facts.tables();
    Totals {
        tables: tables.len() as u64,
        rows: tables.values().map(|table| table.fingerprint.rows).sum(),
        large_objects: facts.large_objects().map_or(0, |objects| objects.count),
        objects: facts.objects(),
        raw_bytes: parts.iter().map(|part| part.raw_bytes).sum(),
        stored_bytes: parts.iter().map(PartRecord::stored_bytes).sum(),
    }
}
