//! Where bytes live.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use tokio_util::sync::CancellationToken;

use crate::body::BodyStream;
use crate::error::{ErrorKind, PortError};

/// The error of a store call.
pub type StoreError = PortError;

/// The name of an object: segments of `A-Z a-z 0-9 . _ ~ -` joined by `/`, none empty,
/// none `.` or `..`. Built by [`crate::layout`] alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreKey(String);

impl StoreKey {
    /// Checks and wraps a key.
    ///
    /// # Errors
    /// `InvalidInput` when the text is no key.
    pub fn new(text: impl Into<String>) -> Result<Self, PortError> {
        let text = text.into();
        let good = text.split('/').all(|segment| {
            !segment.is_empty()
                && segment != "."
                && segment != ".."
                && segment
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._~-".contains(&b))
        });
        if good {
            Ok(Self(text))
        } else {
            Err(PortError::new(
                ErrorKind::InvalidInput,
                format!("{text:?} is not a store key"),
            ))
        }
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a store tells about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its key.
    pub key: StoreKey,
    /// Its length.
    pub bytes: u64,
    /// When the store says that it was last written.
    pub modified: DateTime<Utc>,
}

/// How far a listing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Every object under the prefix, as [`Entry::Object`].
    Recursive,
    /// One level, as a folder shows it: objects and [`Entry::Prefix`]es.
    Children,
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An object.
    Object(ObjectMeta),
    /// Something that has objects below it; no trailing slash. Some stores go on showing one
    /// for a while after its last object was deleted.
    Prefix(StoreKey),
}

/// An upload that was begun and has not come to an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedUpload {
    /// The object that it was to become.
    pub key: StoreKey,
    /// The store's name for it.
    pub id: String,
    /// Since when, by the store's clock.
    pub begun_at: DateTime<Utc>,
}

/// Options of [`Store::put`].
#[derive(Debug, Clone, Default)]
pub struct PutOptions {
    /// How long the body is likely to be; sizes the upload parts. No promise.
    pub expected_bytes: Option<u64>,
}

/// Holds objects. Implementations are object stores, a local directory, or a user's own.
///
/// Keys that exist are never overwritten by us except where a caller says so; reads see
/// what was written (all supported stores are strongly consistent). Foreign objects in a
/// listing (keys that are no [`StoreKey`]) are left out, never touched.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync {
    /// Where this is, for messages: a URL without credentials.
    fn describe(&self) -> String;

    /// How many bytes one object can hold when it is opened with this expectation.
    /// A longer body must be continued in a second object by the caller.
    fn capacity(&self, options: &PutOptions) -> u64;

    /// Streams `body` into `key` and returns the bytes written. All or nothing: the object
    /// appears when this returns `Ok`, and then holds the whole body. Memory is bounded.
    ///
    /// # Errors
    /// When the body ends with an error the upload is aborted, nothing appears, and that
    /// error comes back. After `Timeout` or `Unavailable` it is unknown whether the object
    /// exists; no upload is left open as far as the store can still be reached.
    ///
    /// # Cancellation
    /// The token aborts the upload and returns `Cancelled`. Dropping the future may leave an
    /// upload open that only the store's own expiry removes.
    async fn put(
        &self,
        key: &StoreKey,
        body: BodyStream,
        options: &PutOptions,
        cancel: &CancellationToken,
    ) -> Result<u64, StoreError>;

    /// Writes a small object only if `key` is free.
    ///
    /// # Errors
    /// `AlreadyExists` when it is taken, possibly by an earlier try of this very call whose
    /// answer was lost: read back and compare before believing it.
    async fn create(&self, key: &StoreKey, content: Bytes) -> Result<(), StoreError>;

    /// Replaces a small object if its content is still `seen`, as one step: of several callers
    /// that have seen the same, one succeeds. Only for objects that this way alone changes, and
    /// whose every content is different from those before. A store that cannot do it need not
    /// have it: leases need it, and giving a backup to others.
    ///
    /// # Errors
    /// `Conflict` when the object is another or gone, possibly by an earlier try of this very
    /// call whose answer was lost: read back and compare before believing it. `Unsuitable` where
    /// the store cannot. After `Timeout` or `Unavailable` it is unknown which content is there.
    async fn replace(
        &self,
        key: &StoreKey,
        seen: &Bytes,
        content: Bytes,
    ) -> Result<(), StoreError> {
        let _ = (key, seen, content);
        Err(unconditional(&self.describe()))
    }

    /// Finds out, at the first call, whether [`Self::create`] and [`Self::replace`] keep their
    /// word: some servers answer the second create of a key with success, or replace whatever is
    /// there. Leaves no object behind.
    ///
    /// # Errors
    /// `Unsuitable` where they do not.
    async fn check_conditions(&self) -> Result<(), StoreError> {
        Err(unconditional(&self.describe()))
    }

    /// The stores behind this one that get all that is written, each of which knows by itself whose
    /// turn it is. None for a store of its own.
    fn members(&self) -> Vec<Arc<dyn Store>> {
        Vec::new()
    }

    /// Takes one of the [`members`](Self::members) out of the run, for this reason.
    fn exclude(&self, _member: &Arc<dyn Store>, _reason: PortError) {}

    /// Ends a run that published: where it failed behind this store, what it left is removed. Only
    /// as long as nobody else may write there.
    async fn settle(&self) {}

    /// Streams an object, or a range of it. Survives lost connections and a reader that is
    /// slow for hours.
    ///
    /// # Errors
    /// `NotFound`, at once or as the first item. The body ends with an error when the
    /// object became shorter or changed while it was read.
    async fn read(
        &self,
        key: &StoreKey,
        range: Option<Range<u64>>,
    ) -> Result<BodyStream, StoreError>;

    /// Length and time of an object.
    ///
    /// # Errors
    /// `NotFound`.
    async fn head(&self, key: &StoreKey) -> Result<ObjectMeta, StoreError>;

    /// Lists below `prefix` (`None` = everything), in no promised order, over any number of
    /// pages. `prefix` is a whole segment path: `a` does not match `ab/c`.
    fn list(
        &self,
        prefix: Option<&StoreKey>,
        depth: Depth,
    ) -> BoxStream<'_, Result<Entry, StoreError>>;

    /// Removes an object; removing what is not there is no error.
    ///
    /// # Errors
    /// `PermissionDenied` where the store forbids deletion (object lock, a writer's rights).
    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError>;

    /// Uploads below `prefix` that were begun and have not come to an end: somebody is at them, or died
    /// doing so. A store that keeps none, or does not tell, has none.
    ///
    /// # Errors
    /// `PermissionDenied` for whoever may not ask.
    async fn unfinished_uploads(
        &self,
        prefix: &StoreKey,
    ) -> Result<Vec<UnfinishedUpload>, StoreError> {
        let _ = prefix;
        Ok(Vec::new())
    }

    /// Ends one of these without an object; one that is gone is no error.
    ///
    /// # Errors
    /// As for [`delete`](Self::delete).
    async fn abort_upload(&self, upload: &UnfinishedUpload) -> Result<(), StoreError> {
        let _ = upload;
        Ok(())
    }
}

/// Says that a store cannot write on a condition.
fn unconditional(store: &str) -> StoreError {
    let message = format!("{store} cannot replace an object on a condition");
    PortError::new(ErrorKind::Unsuitable, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_cannot_leave_their_prefix() {
        for bad in [
            "", "/a", "a/", "a//b", "../a", "a/./b", "a b", "a\\b", "%41", "a\n",
        ] {
            assert!(StoreKey::new(bad).is_err(), "{bad:?}");
        }
        for good in [
            "a",
            "backups/app~20x/20260205T030000Z-7f3a/manifest.json",
            "..a",
        ] {
            assert_eq!(StoreKey::new(good).unwrap().as_str(), good);
        }
    }
}
