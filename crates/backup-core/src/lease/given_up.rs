//! Leases that this process has done with, and that the store may still show as held.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use crate::body::lock;

/// Leases that were dropped, or could not be given back because the store was away. They stand in
/// nobody's way who shares this: else the next attempt of a run would be stopped by the one before,
/// for as long as a lease lasts. Clones share it.
///
/// Only what was given up is remembered, never what is held: engines that do not share it can only
/// take each other for alive.
#[derive(Debug, Clone, Default)]
pub struct GivenUp(Arc<Mutex<BTreeSet<String>>>);

impl GivenUp {
    pub(super) fn contains(&self, nonce: &str) -> bool {
        lock(&self.0).contains(nonce)
    }

    pub(super) fn add(&self, nonce: &str) {
        lock(&self.0).insert(nonce.to_owned());
    }

    /// Adds it when the result is dropped, if it was begun and not kept.
    pub(super) fn unless_kept(&self, nonce: &str) -> Taking {
        Taking {
            given_up: self.clone(),
            nonce: nonce.to_owned(),
            may_be_stored: false,
        }
    }
}

/// A lease that is being taken.
pub(super) struct Taking {
    given_up: GivenUp,
    nonce: String,
    may_be_stored: bool,
}

impl Taking {
    /// From now on it may be in the store.
    pub(super) fn begin(&mut self) {
        self.may_be_stored = true;
    }

    /// It is ours, and somebody else's business.
    pub(super) fn keep(&mut self) {
        self.may_be_stored = false;
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        if self.may_be_stored {
            self.given_up.add(&self.nonce);
        }
    }
}
