//! Pins of a backup, at every place that has it, each with a record of who changed it.

use std::sync::Arc;

use backup_core::backup::{BackupId, SourceName};
use backup_core::clock::Clock as _;
use backup_core::error::Error as CoreError;
use backup_core::observer::NoopObserver;
use backup_core::pin::{FoundPin, PinRequest};
use backup_core::run_record::{Operation, RunId, Who};
use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use crate::clock::SystemClock;
use crate::compose::App;
use crate::error::AppError;
use crate::journal::{Journal, begin};
use crate::keys::Keys;
use crate::place::Place;

/// What is to become of a pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinChange {
    /// The backup stays.
    Set {
        /// Until then; for ever if absent.
        until: Option<DateTime<Utc>>,
        /// Why.
        reason: Option<String>,
    },
    /// Its policy decides again.
    Remove,
}

/// A pin that was set or taken away at one place.
#[derive(Debug, Clone)]
pub struct ChangedPin {
    /// The name of the place.
    pub place: String,
    /// The record of it, if it was written.
    pub run: Option<RunId>,
    /// What is set, or was.
    pub pin: FoundPin,
}

/// Whose pin is changed, and who hears of it.
#[derive(Debug, Clone, Copy)]
pub struct Pinning<'a> {
    /// Of which source.
    pub source: &'a SourceName,
    /// Which backup.
    pub backup: &'a BackupId,
    /// What is to become of it.
    pub change: &'a PinChange,
    /// Who says so.
    pub who: &'a Who,
    /// Keeps the records.
    pub journal: &'a Journal,
}

impl App {
    /// Whether a pin that ends then, or never if that is absent, would take the place of one that
    /// holds longer. Not so when that moment has passed: such a pin is refused.
    ///
    /// # Errors
    /// The first place that cannot tell.
    pub async fn shortens_pin(
        &self,
        (source, backup): (&SourceName, &BackupId),
        until: Option<DateTime<Utc>>,
    ) -> Result<bool, AppError> {
        let now = SystemClock.now();
        if until.is_none_or(|until| until <= now) {
            return Ok(false);
        }
        for place in self.places()? {
            let engine = self.engine(&place, Keys::None, Arc::new(NoopObserver))?;
            let found = engine.pins().get(source, backup).await?;
            if found.is_some_and(|pin| pin.holds(now) && pin.outlasts(until)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Changes the pin of a backup in every place that has it, and tells each that changed: none
    /// if there was nothing to do.
    ///
    /// # Errors
    /// The first place that cannot do it; those that were told have done it.
    ///
    /// # Cancellation
    /// Ends waiting for a store; what it does then is not known.
    pub async fn change_pin(
        &self,
        pinning: &Pinning<'_>,
        tell: &mut (dyn FnMut(&ChangedPin) + Send),
        cancel: &CancellationToken,
    ) -> Result<(), AppError> {
        for place in self.places()? {
            if let Some(changed) = self.change_pin_at(&place, pinning, cancel).await? {
                tell(&changed);
            }
        }
        Ok(())
    }

    async fn change_pin_at(
        &self,
        place: &Place,
        pinning: &Pinning<'_>,
        cancel: &CancellationToken,
    ) -> Result<Option<ChangedPin>, AppError> {
        let (source, id) = (pinning.source, pinning.backup);
        let engine = self.engine(place, Keys::None, Arc::new(NoopObserver))?;
        let operation = match pinning.change {
            PinChange::Set { .. } => Operation::Pin,
            PinChange::Remove => Operation::Unpin,
        };
        let mut run = begin(&engine, operation);
        run.source = Some(source.clone());
        run.backup = Some(id.clone());
        run.who = pinning.who.clone();
        let journal = pinning.journal;
        journal.announce(&engine, &place.name, &run, cancel).await;
        let pins = engine.pins();
        let work = async {
            match pinning.change {
                PinChange::Set { until, reason } => {
                    let request = PinRequest {
                        until: *until,
                        reason: reason.clone(),
                        who: pinning.who.clone(),
                    };
                    match pins.set(source, id, request).await {
                        Ok(pin) => Ok(Some(FoundPin::Readable(pin))),
                        Err(CoreError::NotFound { .. }) => Ok(None),
                        Err(error) => Err(error),
                    }
                }
                PinChange::Remove => pins.remove(source, id).await,
            }
        };
        let done = tokio::select! {
            done = work => done,
            () = cancel.cancelled() => Err(CoreError::Cancelled),
        };
        match done {
            Ok(Some(pin)) => {
                run.done();
                Ok(Some(ChangedPin {
                    run: journal.record(&engine, &place.name, run, cancel).await,
                    place: place.name.clone(),
                    pin,
                }))
            }
            // Another place has the backup, or there was no pin.
            Ok(None) => {
                journal.audit_end(&place.name, &run, cancel).await;
                Ok(None)
            }
            Err(error) => {
                let error = AppError::from(error);
                run.ended_with(&error, error.kind());
                journal.record(&engine, &place.name, run, cancel).await;
                Err(error)
            }
        }
    }
}
