//! One store of several.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use super::MemberOutcome;
use crate::body::{BodyStream, collect, lock};
use crate::catalog::Catalog;
use crate::error::{Error, ErrorKind, PortError};
use crate::layout;
use crate::manifest::MAX_MANIFEST_BYTES;
use crate::removal;
use crate::store::{PutOptions, Store, StoreKey};

/// A store with what a run has written to it.
#[derive(Debug)]
pub(crate) struct Member {
    name: String,
    store: Arc<dyn Store>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failure: Option<PortError>,
    /// Whether an object may be there, or turn up, of which nothing is known.
    uncertain: bool,
    /// Keys that may exist because of this run.
    written: Vec<StoreKey>,
    /// What could not be removed.
    warnings: Vec<String>,
}

impl Member {
    pub(crate) fn new(name: String, store: Arc<dyn Store>) -> Self {
        Self {
            name,
            store,
            state: Mutex::default(),
        }
    }

    pub(super) fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    pub(super) fn shared_store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// Whether it still takes part.
    pub(super) fn is_active(&self) -> bool {
        lock(&self.state).failure.is_none()
    }

    pub(super) fn is_uncertain(&self) -> bool {
        lock(&self.state).uncertain
    }

    /// Takes it out of the run. The first reason counts.
    pub(crate) fn give_up(&self, error: PortError) {
        lock(&self.state).failure.get_or_insert(error);
    }

    pub(super) async fn repository(&self) -> Result<Option<String>, Error> {
        Catalog::new(self.store()).existing_repository().await
    }

    pub(super) async fn join_repository(
        &self,
        now: DateTime<Utc>,
        like: Option<&str>,
    ) -> Result<String, Error> {
        Catalog::new(self.store()).join_repository(now, like).await
    }

    /// Stores an object and asks afterwards how long it is.
    pub(crate) async fn put(
        &self,
        key: &StoreKey,
        body: BodyStream,
        options: &PutOptions,
        cancel: &CancellationToken,
    ) -> Result<u64, PortError> {
        lock(&self.state).written.push(key.clone());
        let written = self.store.put(key, body, options, cancel).await?;
        let stored = tokio::select! {
            meta = self.store.head(key) => meta?.bytes,
            () = cancel.cancelled() => return Err(PortError::cancelled()),
        };
        if stored == written {
            return Ok(written);
        }
        let what = format!("{key}: the store holds {stored} bytes of {written}");
        Err(PortError::new(ErrorKind::Corrupt, what))
    }

    /// Creates a small object. When the answer is an error, looks whether the object is there
    /// nevertheless: answers get lost.
    pub(crate) async fn create(&self, key: &StoreKey, content: &Bytes) -> Result<(), PortError> {
        lock(&self.state).written.push(key.clone());
        let Err(error) = self.store.create(key, content.clone()).await else {
            return Ok(());
        };
        let there = match self.store.read(key, None).await {
            Ok(body) => collect(body, MAX_MANIFEST_BYTES).await,
            Err(e) => Err(e),
        };
        // A request that timed out may still be carried out after we looked.
        let settled = !error.kind().is_outage();
        match there {
            Ok(found) if found == *content => return Ok(()),
            Ok(_) => lock(&self.state).written.retain(|written| written != key),
            Err(e) if settled && e.kind() == ErrorKind::NotFound => {}
            // Without its manifest it is no backup, whatever else may still turn up.
            Err(_) if layout::parse_manifest_key(key).is_none() => {}
            Err(_) => lock(&self.state).uncertain = true,
        }
        Err(error)
    }

    /// Removes what this run left here if it failed here.
    pub(crate) async fn settle(&self) {
        if self.is_active() {
            return;
        }
        let warnings = if self.is_uncertain() {
            vec![format!(
                "{}: it is not known whether the backup is there; its objects are left",
                self.name
            )]
        } else {
            let keys = std::mem::take(&mut lock(&self.state).written);
            let left = removal::remove(self.store(), keys).await;
            let named = left
                .into_iter()
                .map(|text| format!("{}: {text}", self.name));
            named.collect()
        };
        lock(&self.state).warnings.extend(warnings);
    }

    pub(crate) fn outcome(&self) -> MemberOutcome {
        let state = lock(&self.state);
        let failure = state.failure.as_ref();
        MemberOutcome {
            name: self.name.clone(),
            failure: failure.map(|e| {
                let text = crate::error::chain(e);
                let copy = PortError::new(e.kind(), text);
                match e.hint() {
                    Some(hint) => copy.with_hint(hint),
                    None => copy,
                }
            }),
            warnings: state.warnings.clone(),
        }
    }
}
