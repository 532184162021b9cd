//! The operations, over whatever ports they are given.
//!
//! An [`Engine`] is a cheap handle: one store, the codecs it can use, a clock, an observer.
//! Every operation takes its own request and cancellation token, keeps no state between
//! calls, and leaves the store either as it was or with one more committed backup; only
//! [`Engine::expire`] takes something away.

mod backup;
mod compare;
mod copy;
mod drill;
mod expire;
mod interrupted;
mod part;
mod reader;
mod rekey;
mod restore;
mod sandbox;
mod splitter;
mod turn;
mod verify;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use backup::{BackupOutcome, BackupRequest};
pub use compare::{CompareReport, Difference, NotComparable, SequenceBehind, compare};
pub use copy::CopyOutcome;
pub use drill::{
    DrillLevel, DrillOptions, DrillOutcome, DrillStep, LevelResult, LevelState, TableResult,
    TableState,
};
pub use expire::{ExpireOutcome, ExpiryPlan, ExpiryRules, JudgedBackup, Orphan};
pub use reader::BackupReader;
pub use rekey::RekeyOutcome;
pub use restore::{RestoreOptions, RestoreOutcome, undo};
pub use sandbox::{SandboxOutcome, SandboxRequest, Swept};
pub use verify::{PartProblem, VerifyLevel, VerifyReport, VerifyRequest};

use crate::audit::Audit;
use crate::catalog::Catalog;
use crate::cipher::Cipher;
use crate::clock::Clock;
use crate::compressor::Compressor;
use crate::error::Error;
use crate::history::History;
use crate::lease::{LeaseSettings, Leases};
use crate::manifest::Manifest;
use crate::notifier::board::Board;
use crate::observer::{Event, NoopObserver, Observer};
use crate::pin::Pins;
use crate::restorer::PartReader as _;
use crate::store::Store;

/// Runs backups, restores, verifications against one store.
#[derive(Debug, Clone)]
pub struct Engine {
    store: Arc<dyn Store>,
    compressors: Vec<Arc<dyn Compressor>>,
    cipher: Option<Arc<dyn Cipher>>,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
    leases: Option<LeaseSettings>,
}

impl Engine {
    /// An engine without codecs: it can list, and back up once it has a compressor.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self {
            store,
            compressors: Vec::new(),
            cipher: None,
            clock,
            observer: Arc::new(NoopObserver),
            leases: None,
        }
    }

    /// The same over another store.
    #[must_use]
    pub fn over(mut self, store: Arc<dyn Store>) -> Self {
        self.store = store;
        self
    }

    /// Adds an algorithm that parts may be written or read with.
    #[must_use]
    pub fn with_compressor(mut self, compressor: Arc<dyn Compressor>) -> Self {
        self.compressors.push(compressor);
        self
    }

    /// Sets the cipher for new backups and for reading encrypted ones.
    #[must_use]
    pub fn with_cipher(mut self, cipher: Arc<dyn Cipher>) -> Self {
        self.cipher = Some(cipher);
        self
    }

    /// Sets who is told what happens.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Lets one run at a time take backups of a source, on whatever host. Without it, that is for
    /// the caller to see to.
    #[must_use]
    pub fn with_leases(mut self, settings: LeaseSettings) -> Self {
        self.leases = Some(settings);
        self
    }

    /// Takes leases in the store, if the engine was told how.
    #[must_use]
    pub fn leases(&self) -> Option<Leases> {
        let settings = self.leases.clone()?;
        let (store, clock) = (Arc::clone(&self.store), Arc::clone(&self.clock));
        Some(Leases::new(store, clock, settings))
    }

    /// The committed backups of the store.
    #[must_use]
    pub fn catalog(&self) -> Catalog<'_> {
        Catalog::new(self.store.as_ref())
    }

    /// What was done to the store's backups, and when.
    #[must_use]
    pub fn history(&self) -> History<'_> {
        History::new(self.store.as_ref(), self.clock.as_ref())
    }

    /// What somebody said must stay.
    #[must_use]
    pub fn pins(&self) -> Pins<'_> {
        Pins::new(self.store.as_ref(), self.clock.as_ref())
    }

    /// What was told of the store's sources.
    #[must_use]
    pub fn board(&self) -> Board {
        Board::new(Arc::clone(&self.store))
    }

    /// Who did what in the store, so that a change of it shows.
    #[must_use]
    pub fn audit(&self) -> Audit {
        Audit::new(Arc::clone(&self.store), Arc::clone(&self.clock))
    }

    /// Opens a backup for reading: unwraps its key, reads its facts and checks that both
    /// belong to the manifest. That it comes from another repository is a warning.
    ///
    /// # Errors
    /// `Key` when no identity fits, `Corrupt` when key or facts are damaged or belong to
    /// another backup.
    pub async fn open(&self, manifest: Manifest) -> Result<Arc<BackupReader>, Error> {
        let (reader, here) = tokio::join!(BackupReader::open(self, manifest), self.repository());
        let reader = reader?;
        self.tell_stranger(reader.manifest(), here.as_deref());
        Ok(Arc::new(reader))
    }

    /// The id of the repository, where it can be read: no backup is worse for the lack of it.
    async fn repository(&self) -> Option<String> {
        self.catalog().existing_repository().await.ok().flatten()
    }

    /// Says so when a backup lies in a repository that it was not written to. Whoever copied it
    /// in may have meant to; unnoticed it would stand for one of the database that is kept here.
    fn tell_stranger(&self, backup: &Manifest, here: Option<&str>) {
        let known =
            |here: &str| here == backup.repository || backup.copies.iter().any(|id| id == here);
        if here.is_some_and(|here| !known(here)) {
            let text = format!(
                "backup {} was written to another repository than the one it lies in",
                backup.id
            );
            self.observer.event(&Event::Warning(text));
        }
    }

    fn compressor(&self, name: &str) -> Result<Arc<dyn Compressor>, Error> {
        self.compressors
            .iter()
            .find(|compressor| compressor.name() == name)
            .cloned()
            .ok_or_else(|| Error::InvalidInput {
                message: format!("compression {name:?} is not supported"),
            })
    }
}

/// Drops work that cannot be cancelled from within: a store that does not answer is asked for
/// minutes. What is done is told, and nothing begins any more.
async fn unless<T>(cancel: &CancellationToken, work: impl Future<Output = T>) -> Result<T, Error> {
    if cancel.is_cancelled() {
        return Err(Error::Cancelled);
    }
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = cancel.cancelled() => Err(Error::Cancelled),
    }
}
