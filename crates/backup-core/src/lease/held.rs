//! A lease that is held, and renewed until it is given back.

use std::sync::{Arc, Mutex as SyncMutex};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::record::LeaseRecord;
use super::{Holder, Leases, SlotMark, Stored, TRIES, contended};
use crate::backup::BackupId;
use crate::body::{body_of, lock};
use crate::error::{Error, ErrorKind, PortError};
use crate::store::{PutOptions, StoreKey};

/// How long giving a lease back may take.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);

/// Whether others want the same lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One at a time has it.
    Exclusive,
    /// Nobody else writes under this key.
    Reader,
}

/// A lease that this process has. It is renewed in the background until it is released; one that
/// is dropped ends by itself, and for this process at once.
#[derive(Debug)]
pub struct Lease {
    held: Arc<Held>,
    nonce: String,
    /// Whether the store need not be asked any more.
    is_over: bool,
    /// Ends the renewing.
    stop: CancellationToken,
}

#[derive(Debug)]
struct Held {
    leases: Leases,
    form: Form,
    key: StoreKey,
    what: String,
    /// What we know to be stored.
    current: Mutex<Stored>,
    /// Cancelled when the lease is lost.
    token: CancellationToken,
    loss: SyncMutex<Option<Loss>>,
}

/// Who has what was ours.
#[derive(Debug, Clone)]
struct Loss(Option<Box<Holder>>);

/// Why a lease could not be written.
enum NotWritten {
    Lost(Loss),
    Store(Error),
}

impl From<Error> for NotWritten {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl Lease {
    pub(super) fn hold(
        leases: Leases,
        (key, what): (StoreKey, String),
        stored: Stored,
        cancel: &CancellationToken,
    ) -> Self {
        Self::begin(leases, (key, what, Form::Exclusive), stored, cancel)
    }

    pub(super) fn begin(
        leases: Leases,
        (key, what, form): (StoreKey, String, Form),
        stored: Stored,
        cancel: &CancellationToken,
    ) -> Self {
        let nonce = stored.1.nonce.clone();
        let held = Arc::new(Held {
            leases,
            form,
            key,
            what,
            current: Mutex::new(stored),
            token: cancel.child_token(),
            loss: SyncMutex::default(),
        });
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&held).renew_until(stop.clone()));
        Self {
            held,
            nonce,
            is_over: false,
            stop,
        }
    }

    /// Cancelled when the lease is lost, and with the token that it was taken with.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.held.token
    }

    /// The error to end with if the lease is lost.
    #[must_use]
    pub fn loss(&self) -> Option<Error> {
        let loss = lock(&self.held.loss).clone();
        loss.map(|loss| self.held.lost(loss))
    }

    /// Renews it now. Whoever is about to commit asks for that: between two renewals nobody knows
    /// whether he still has it, and he who sleeps right after this finds a bar.
    ///
    /// # Errors
    /// [`Error::LeaseLost`], or what the store reports.
    pub async fn confirm(&self) -> Result<(), Error> {
        match self.held.write(LeaseRecord::renewed).await {
            Ok(()) => Ok(()),
            Err(NotWritten::Store(error)) => Err(error),
            Err(NotWritten::Lost(loss)) => {
                self.held.lose(loss.clone());
                Err(self.held.lost(loss))
            }
        }
    }

    /// The error to end with when a bar stands where the manifest should go.
    pub(crate) async fn taken_over(&self) -> Error {
        let by = match self.held.leases.read(&self.held.key).await {
            Ok(Some((_, found))) if found.nonce != self.nonce => Some(Box::new(found.holder())),
            _ => None,
        };
        self.held.lost(Loss(by))
    }

    /// Gives it back, within five seconds. One that is lost is nobody's to give back.
    ///
    /// # Errors
    /// What the store reports, which is no failure of the run: the lease ends by itself.
    pub async fn release(self) -> Result<(), Error> {
        self.end(LeaseRecord::released).await
    }

    /// Gives it back as [`Self::release`] does, and leaves word that `slot` was run.
    ///
    /// # Errors
    /// As of [`Self::release`].
    pub async fn settle(self, slot: DateTime<Utc>) -> Result<(), Error> {
        self.end(move |record, now| record.released_at(now, |mark| mark.settle(slot)))
            .await
    }

    /// Gives it back as [`Self::release`] does, and leaves word that `slot` was not run: only who dies
    /// with it leaves it counted.
    ///
    /// # Errors
    /// As of [`Self::release`].
    pub async fn postpone(self, slot: DateTime<Utc>) -> Result<(), Error> {
        self.end(move |record, now| record.released_at(now, |mark| mark.given_back(slot)))
            .await
    }

    /// How far the schedule is that it was taken for, this time included.
    pub async fn slot(&self) -> Option<SlotMark> {
        self.held.current.lock().await.1.slot
    }

    async fn end(
        mut self,
        last: impl Fn(&LeaseRecord, DateTime<Utc>) -> LeaseRecord,
    ) -> Result<(), Error> {
        self.stop.cancel();
        self.is_over = lock(&self.held.loss).is_some();
        if self.is_over {
            return Ok(());
        }
        match timeout(RELEASE_LIMIT, self.held.give_back(last)).await {
            Ok(Ok(()) | Err(NotWritten::Lost(_))) => {
                self.is_over = true;
                Ok(())
            }
            Ok(Err(NotWritten::Store(error))) => Err(error),
            Err(_) => {
                let late = PortError::new(ErrorKind::Timeout, "the store did not answer in time");
                Err(Error::store(format!("release {}", self.held.what), late))
            }
        }
    }

    pub(super) async fn unbarred(&self) -> Vec<BackupId> {
        self.held.current.lock().await.1.unbarred.clone()
    }

    /// The next content of the record will say so.
    pub(super) async fn all_barred(&self) {
        self.held.current.lock().await.1.unbarred.clear();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.stop.cancel();
        if !self.is_over {
            self.held.leases.settings.given_up.add(&self.nonce);
        }
    }
}

impl Held {
    /// Renews the lease after each third of its time, sooner when that failed.
    ///
    /// One that could not be renewed in time may be somebody else's by now, or not: the store may
    /// have been out of reach for everybody. That is found out when it is back, and the work so far
    /// is not thrown away before.
    async fn renew_until(self: Arc<Self>, stop: CancellationToken) {
        let work = async {
            let third = self.leases.settings.ttl / 3;
            let mut pause = third;
            loop {
                sleep(pause).await;
                pause = match timeout(third, self.write(LeaseRecord::renewed)).await {
                    Ok(Ok(())) => third,
                    Ok(Err(NotWritten::Lost(loss))) => return self.lose(loss),
                    Ok(Err(NotWritten::Store(_))) | Err(_) => third / 8,
                };
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    /// Writes the next content in the place of the one that we know.
    async fn write(
        &self,
        next: impl Fn(&LeaseRecord, DateTime<Utc>) -> LeaseRecord,
    ) -> Result<(), NotWritten> {
        let failed = |e| Error::store(format!("renew {}", self.what), e);
        let mut current = self.current.lock().await;
        for _ in 0..TRIES {
            let record = next(&current.1, self.leases.clock.now());
            let text = record.encode().map_err(failed)?;
            let Err(error) = self.send(&current.0, text.clone()).await else {
                *current = (text, record);
                return Ok(());
            };
            match self.leases.read(&self.key).await? {
                Some((found, _)) if found == text => {
                    *current = (text, record);
                    return Ok(());
                }
                Some((found, _)) if found == current.0 => return Err(failed(error).into()),
                // An earlier request of ours came late.
                Some((found, ours)) if ours.nonce == record.nonce => *current = (found, ours),
                Some((_, found)) => {
                    let by = Some(Box::new(found.holder()));
                    return Err(NotWritten::Lost(Loss(by)));
                }
                None if self.form == Form::Reader => return Err(failed(error).into()),
                // Somebody removed it, and nobody took it: it is still ours if nobody does now. In a
                // bucket that is gone, it cannot be written either.
                None => match self.leases.store.create(&self.key, text.clone()).await {
                    Ok(()) => {
                        *current = (text, record);
                        return Ok(());
                    }
                    Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                    Err(e) => return Err(failed(e).into()),
                },
            }
        }
        Err(failed(contended()).into())
    }

    async fn send(&self, seen: &Bytes, text: Bytes) -> Result<(), PortError> {
        let store = &self.leases.store;
        match self.form {
            Form::Exclusive => store.replace(&self.key, seen, text).await,
            Form::Reader => {
                let (options, never) = (PutOptions::default(), CancellationToken::new());
                let put = store.put(&self.key, body_of(text), &options, &never).await;
                put.map(drop)
            }
        }
    }

    async fn give_back(
        &self,
        last: impl Fn(&LeaseRecord, DateTime<Utc>) -> LeaseRecord,
    ) -> Result<(), NotWritten> {
        match self.form {
            Form::Exclusive => self.write(last).await,
            Form::Reader => {
                let deleted = self.leases.store.delete(&self.key).await;
                deleted.map_err(|e| Error::store(format!("release {}", self.what), e).into())
            }
        }
    }

    fn lose(&self, loss: Loss) {
        lock(&self.loss).get_or_insert(loss);
        self.token.cancel();
    }

    fn lost(&self, loss: Loss) -> Error {
        Error::LeaseLost {
            what: self.what.clone(),
            by: loss.0,
        }
    }
}
