//! What was told, in the store: one object for each notifier and source, and one for each notifier
//! that says whether it can be reached. Each is changed on the condition that nobody else changed it.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::told::{TOLD_FORMAT, Told};
use crate::backup::SourceName;
use crate::catalog::{Catalog, read_small};
use crate::error::{Error, PortError};
use crate::layout;
use crate::store::{Store, StoreKey};
use crate::versioned;

/// No object is longer.
const MAX_BYTES: usize = 1 << 18;

const WHAT: &str = "what was told";

/// Whether a notifier can be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Always [`TOLD_FORMAT`].
    pub format: u32,
    /// Grows with every change, so that no content comes twice.
    pub revision: u64,
    /// How notices are lost, if they are.
    pub failing: Option<Undelivered>,
}

/// How notices are lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undelivered {
    /// Since when none arrived.
    pub since: DateTime<Utc>,
    /// When one was tried last.
    pub last: DateTime<Utc>,
    /// Why the last one did not.
    pub why: String,
}

impl Delivery {
    /// The same after a notice arrived, or did not.
    #[must_use]
    pub fn after(&self, now: DateTime<Utc>, failure: Option<&str>) -> Self {
        let since = self.failing.as_ref().map_or(now, |known| known.since);
        Self {
            format: TOLD_FORMAT,
            revision: self.revision + 1,
            failing: failure.map(|why| Undelivered {
                since,
                last: now,
                why: why.to_owned(),
            }),
        }
    }
}

/// Something as it was read.
#[derive(Debug, Clone)]
pub struct Seen<T> {
    /// What it says; empty where nothing is there.
    pub value: T,
    /// Its bytes, if it is there.
    pub bytes: Option<Bytes>,
}

/// What was told, in one store.
#[derive(Debug, Clone)]
pub struct Board(Arc<dyn Store>);

impl Board {
    /// In this store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self(store)
    }

    /// Whether there is a repository. Nothing is to be written where there is none: some servers make a
    /// bucket that is not there.
    ///
    /// # Errors
    /// What the store reports.
    pub async fn is_there(&self) -> Result<bool, Error> {
        let catalog = Catalog::new(self.0.as_ref());
        Ok(catalog.existing_repository().await?.is_some())
    }

    /// What a notifier was told of a source. What cannot be read as such counts as nothing: rather
    /// twice than never.
    ///
    /// # Errors
    /// What the store reports.
    pub async fn told(&self, notifier: &str, source: &SourceName) -> Result<Seen<Told>, Error> {
        self.read(&layout::told_key(notifier, source)).await
    }

    /// Whether a notifier can be reached, as it was last seen.
    ///
    /// # Errors
    /// What the store reports.
    pub async fn delivery(&self, notifier: &str) -> Result<Seen<Delivery>, Error> {
        self.read(&layout::delivery_key(notifier)).await
    }

    /// Changes what a notifier was told, if it is still as it was seen. Gives the bytes for the next
    /// change.
    ///
    /// # Errors
    /// `AlreadyExists` or `Conflict` when somebody else changed it; what else the store reports.
    pub async fn tell(
        &self,
        (notifier, source): (&str, &SourceName),
        seen: Option<&Bytes>,
        told: &Told,
    ) -> Result<Bytes, PortError> {
        let key = layout::told_key(notifier, source);
        self.write(&key, seen, told).await
    }

    /// Changes whether a notifier can be reached, if it is still as it was seen.
    ///
    /// # Errors
    /// As [`tell`](Self::tell).
    pub async fn deliver(
        &self,
        notifier: &str,
        seen: Option<&Bytes>,
        delivery: &Delivery,
    ) -> Result<Bytes, PortError> {
        let key = layout::delivery_key(notifier);
        self.write(&key, seen, delivery).await
    }

    async fn read<T: DeserializeOwned + Default>(&self, key: &StoreKey) -> Result<Seen<T>, Error> {
        let bytes = read_small(self.0.as_ref(), key, MAX_BYTES).await?;
        let decoded = bytes
            .as_ref()
            .and_then(|bytes| versioned::decode(bytes, TOLD_FORMAT, WHAT).ok());
        Ok(Seen {
            value: decoded.unwrap_or_default(),
            bytes,
        })
    }

    async fn write(
        &self,
        key: &StoreKey,
        seen: Option<&Bytes>,
        value: &impl Serialize,
    ) -> Result<Bytes, PortError> {
        let content = Bytes::from(versioned::encode(value, WHAT)?);
        match seen {
            None => self.0.create(key, content.clone()).await?,
            Some(seen) => self.0.replace(key, seen, content.clone()).await?,
        }
        Ok(content)
    }
}
