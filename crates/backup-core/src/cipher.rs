//! Making bytes unreadable to whoever holds the store.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::body::BodyStream;
use crate::error::PortError;

/// Wraps and unwraps the keys of backups.
///
/// Every backup has a key of its own that lives in memory only; what is stored is that key
/// encrypted to the recipients. So a host that only makes backups cannot read old ones, and new
/// recipients of a backup need no part of it encrypted again: what changes is the wrapped key and
/// the manifest, which holds its digest and names the recipients.
pub trait Cipher: fmt::Debug + Send + Sync {
    /// The name in manifests: `age`.
    fn name(&self) -> &'static str;

    /// What an encrypted object's name ends with: `.age`.
    fn extension(&self) -> &'static str;

    /// The public recipients, as text, for the manifest.
    fn recipients(&self) -> Vec<String>;

    /// Makes a new backup key and wraps it to the recipients.
    ///
    /// # Errors
    /// `InvalidInput` without recipients.
    fn seal(&self) -> Result<SealedKey, PortError>;

    /// Unwraps a stored key.
    ///
    /// # Errors
    /// `PermissionDenied` when none of the identities fits or there is none;
    /// `Corrupt` when the bytes are no wrapped key.
    fn open(&self, wrapped: &[u8]) -> Result<Arc<dyn BackupKey>, PortError>;

    /// Wraps a stored key to the recipients instead of those that it has. No two results are equal.
    ///
    /// # Errors
    /// Those of [`Self::open`] and of [`Self::seal`].
    fn rewrap(&self, wrapped: &[u8]) -> Result<Bytes, PortError>;
}

/// A fresh key and its stored form.
#[derive(Debug)]
pub struct SealedKey {
    /// The usable key, in memory.
    pub key: Arc<dyn BackupKey>,
    /// What is stored beside the parts.
    pub wrapped: Bytes,
}

/// Encrypts and decrypts the parts of one backup.
pub trait BackupKey: fmt::Debug + Send + Sync {
    /// Encrypts `body`; authenticated, with a mark at the end so that a cut is noticed.
    fn encrypt(&self, body: BodyStream) -> BodyStream;

    /// The content again. Anything altered, cut or meant for another key ends with a
    /// `Corrupt` error (`PermissionDenied` when the key does not fit at all).
    fn decrypt(&self, body: BodyStream) -> BodyStream;
}
