//! Pins: somebody said that a backup stays, whatever a policy says.
//!
//! A pin is a small object of its own, so that no manifest ever changes. One that cannot be read
//! holds as if it had no end.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::backup::{BackupId, SourceName};
use crate::body::body_of;
use crate::catalog::read_small;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, PortError, chain};
use crate::layout;
use crate::run_record::Who;
use crate::store::{Depth, Entry, PutOptions, Store, StoreKey};
use crate::versioned;

/// The format of pins that this build writes, and the newest it reads.
const PIN_FORMAT: u32 = 1;
/// No pin is longer.
const MAX_PIN_BYTES: usize = 64 << 10;
/// The longest reason in bytes.
pub const MAX_REASON: usize = 1000;
/// How many pins are read at the same time.
const READERS: usize = 32;

/// That a backup stays, and why. Fields that a later release adds are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Always 1 when written by this build.
    pub format: u32,
    /// The source.
    pub source: SourceName,
    /// The backup.
    pub backup: BackupId,
    /// Until then; for ever if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who said so.
    pub who: Who,
    /// When.
    pub pinned_at: DateTime<Utc>,
}

/// What somebody who pins a backup says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PinRequest {
    /// Until then; for ever if absent.
    pub until: Option<DateTime<Utc>>,
    /// Why.
    pub reason: Option<String>,
    /// Who says so.
    pub who: Who,
}

/// A pin as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundPin {
    /// One that can be read.
    Readable(Pin),
    /// One that cannot, with the reason: who wrote it meant something.
    Unreadable(String),
}

impl FoundPin {
    /// Whether it holds now.
    #[must_use]
    pub fn holds(&self, now: DateTime<Utc>) -> bool {
        match self {
            Self::Readable(pin) => pin.until.is_none_or(|until| now < until),
            Self::Unreadable(_) => true,
        }
    }

    /// Whether it would hold longer than one that ends then, or never if that is absent.
    #[must_use]
    pub fn outlasts(&self, until: Option<DateTime<Utc>>) -> bool {
        let Some(until) = until else {
            return false;
        };
        match self {
            Self::Readable(pin) => pin.until.is_none_or(|own| until < own),
            Self::Unreadable(_) => true,
        }
    }

    /// What it is, if it can be read.
    #[must_use]
    pub fn readable(&self) -> Option<&Pin> {
        match self {
            Self::Readable(pin) => Some(pin),
            Self::Unreadable(_) => None,
        }
    }
}

/// Sets, takes away and finds pins in one store.
#[derive(Debug, Clone, Copy)]
pub struct Pins<'a> {
    store: &'a dyn Store,
    clock: &'a dyn Clock,
}

impl<'a> Pins<'a> {
    /// The pins of `store`.
    #[must_use]
    pub fn new(store: &'a dyn Store, clock: &'a dyn Clock) -> Self {
        Self { store, clock }
    }

    /// Pins a committed backup, also if it has a pin, which the new one replaces.
    ///
    /// # Errors
    /// `NotFound` when there is no such backup; `InvalidInput` when the end has passed or the
    /// reason is too long; what the store reports, after which it is not known whether it holds.
    pub async fn set(
        &self,
        source: &SourceName,
        id: &BackupId,
        request: PinRequest,
    ) -> Result<Pin, Error> {
        let now = self.clock.now();
        let long = request.reason.as_ref().map_or(0, String::len) > MAX_REASON;
        if request.until.is_some_and(|until| until <= now) || long {
            return Err(Error::InvalidInput {
                message: if long {
                    format!("a reason has at most {MAX_REASON} bytes")
                } else {
                    "a pin must not end in the past".to_owned()
                },
            });
        }
        self.look_for(source, id).await?;
        let pin = Pin {
            format: PIN_FORMAT,
            source: source.clone(),
            backup: id.clone(),
            until: request.until,
            reason: request.reason,
            who: request.who,
            pinned_at: now,
        };
        self.write(&pin).await?;
        // Whoever let it go meanwhile may not have seen the pin.
        let there = self.look_for(source, id).await;
        if let Err(Error::NotFound { .. }) = &there {
            let _ = self.store.delete(&layout::pin_key(source, id)).await;
        }
        there.map(|()| pin)
    }

    /// Whether there is such a backup.
    async fn look_for(&self, source: &SourceName, id: &BackupId) -> Result<(), Error> {
        let manifest = layout::manifest_key(source, id);
        match self.store.head(&manifest).await {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == ErrorKind::NotFound => Err(Error::NotFound {
                what: format!("backup {id} of {source}"),
            }),
            Err(e) => Err(Error::store(format!("look for {manifest}"), e)),
        }
    }

    async fn write(&self, pin: &Pin) -> Result<(), Error> {
        let key = layout::pin_key(&pin.source, &pin.backup);
        let failed = |e| Error::store(format!("write {key}"), e);
        let text = versioned::encode(pin, "pin").map_err(failed)?;
        let options = PutOptions {
            expected_bytes: Some(text.len() as u64),
        };
        let never = CancellationToken::new();
        let body = body_of(text);
        // It may replace one: between taking the old one away and setting a new one there would be
        // none.
        let Err(error) = self.store.put(&key, body, &options, &never).await else {
            return Ok(());
        };
        // Answers get lost.
        match self.get(&pin.source, &pin.backup).await {
            Ok(Some(FoundPin::Readable(found))) if found == *pin => Ok(()),
            _ => Err(failed(error)),
        }
    }

    /// Takes a pin away; what it was, if there was one.
    ///
    /// # Errors
    /// What the store reports, after which it is not known whether it still holds.
    pub async fn remove(
        &self,
        source: &SourceName,
        id: &BackupId,
    ) -> Result<Option<FoundPin>, Error> {
        let found = self.get(source, id).await?;
        if found.is_some() {
            let key = layout::pin_key(source, id);
            let deleted = self.store.delete(&key).await;
            deleted.map_err(|e| Error::store(format!("delete {key}"), e))?;
        }
        Ok(found)
    }

    /// The pin of a backup, whether it holds or has ended.
    ///
    /// # Errors
    /// What the store reports.
    pub async fn get(&self, source: &SourceName, id: &BackupId) -> Result<Option<FoundPin>, Error> {
        let key = layout::pin_key(source, id);
        let text = match read_small(self.store, &key, MAX_PIN_BYTES).await {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(None),
            // Too long for one.
            Err(e) if e.kind() == ErrorKind::Corrupt => {
                return Ok(Some(FoundPin::Unreadable(chain(&e))));
            }
            Err(e) => return Err(e),
        };
        let decoded: Result<Pin, PortError> = versioned::decode(&text, PIN_FORMAT, "pin");
        Ok(Some(match decoded {
            Ok(pin) if pin.backup == *id && pin.source == *source => FoundPin::Readable(pin),
            Ok(_) => FoundPin::Unreadable("pin belongs to another backup".to_owned()),
            Err(e) => FoundPin::Unreadable(chain(&e)),
        }))
    }

    /// Every pin of a source's backups, also those that have ended.
    ///
    /// # Errors
    /// What the store reports.
    pub async fn list(&self, source: &SourceName) -> Result<BTreeMap<BackupId, FoundPin>, Error> {
        let prefix = layout::pins_prefix(source);
        let ids: Vec<BackupId> = self
            .store
            .list(Some(&prefix), Depth::Children)
            .try_filter_map(|entry| async move { Ok(pinned_by(source, &entry)) })
            .try_collect()
            .await
            .map_err(|e| Error::store(format!("list {prefix}"), e))?;
        stream::iter(ids)
            .map(|id| async move {
                let pin = self.get(source, &id).await?;
                Ok(pin.map(|pin| (id, pin)))
            })
            .buffer_unordered(READERS)
            .try_filter_map(|found| async move { Ok(found) })
            .try_collect()
            .await
    }
}

fn pinned_by(source: &SourceName, entry: &Entry) -> Option<BackupId> {
    let key: &StoreKey = match entry {
        Entry::Object(meta) => &meta.key,
        Entry::Prefix(_) => return None,
    };
    layout::parse_pin_key(source, key)
}
