//! [`AgeCipher`] and the key of one backup.

use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;

use age::armor::ArmoredReader;
use age::{DecryptError, Decryptor, EncryptError, Encryptor, x25519};
use backup_core::body::BodyStream;
use backup_core::cipher::{BackupKey, Cipher, SealedKey};
use backup_core::error::{ErrorKind, PortError};
use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};

use crate::{Identities, Recipients, decrypt, encrypt};

/// The text of an identity is 74 bytes and a line end; by hand somebody may have added comments.
const MAX_KEY_BYTES: u64 = 4096;

/// [`Cipher`] with X25519 recipients and identities.
///
/// A host that only makes backups has recipients and no identities, one that only
/// restores the other way round.
#[derive(Debug, Clone)]
pub struct AgeCipher {
    recipients: Recipients,
    identities: Identities,
}

impl AgeCipher {
    /// Seals for `recipients`, opens with `identities`; either may be empty.
    #[must_use]
    pub fn new(recipients: Recipients, identities: Identities) -> Self {
        Self {
            recipients,
            identities,
        }
    }
}

impl Cipher for AgeCipher {
    fn name(&self) -> &'static str {
        "age"
    }

    fn extension(&self) -> &'static str {
        ".age"
    }

    fn recipients(&self) -> Vec<String> {
        self.recipients.to_texts()
    }

    fn seal(&self) -> Result<SealedKey, PortError> {
        if self.recipients.is_empty() {
            return Err(no_recipients());
        }
        let identity = x25519::Identity::generate();
        let wrapped = self.wrap(&identity)?;
        Ok(SealedKey {
            key: Arc::new(AgeKey { identity }),
            wrapped,
        })
    }

    fn open(&self, wrapped: &[u8]) -> Result<Arc<dyn BackupKey>, PortError> {
        let text = unwrap(wrapped, &self.identities).map_err(|error| not_opened(error, self))?;
        let identity = identity_of(&text)?;
        Ok(Arc::new(AgeKey { identity }))
    }

    fn rewrap(&self, wrapped: &[u8]) -> Result<Bytes, PortError> {
        if self.recipients.is_empty() {
            return Err(no_recipients());
        }
        let text = unwrap(wrapped, &self.identities).map_err(|error| not_opened(error, self))?;
        let identity = identity_of(&text)?;
        self.wrap(&identity)
    }
}

/// A backup's own identity, in memory only.
struct AgeKey {
    identity: x25519::Identity,
}

impl fmt::Debug for AgeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgeKey(redacted)")
    }
}

impl BackupKey for AgeKey {
    fn encrypt(&self, body: BodyStream) -> BodyStream {
        encrypt::encrypt(body, &self.identity.to_public())
    }

    fn decrypt(&self, body: BodyStream) -> BodyStream {
        decrypt::decrypt(body, self.identity.clone())
    }
}

impl AgeCipher {
    fn wrap(&self, identity: &x25519::Identity) -> Result<Bytes, PortError> {
        wrap(&identity.to_string(), &self.recipients).map_err(|source| {
            PortError::new(ErrorKind::Internal, "encrypt the backup's key").with_source(source)
        })
    }
}

fn no_recipients() -> PortError {
    PortError::new(ErrorKind::InvalidInput, "no recipients to encrypt for")
        .with_hint("make an identity and configure its `age1…` recipient")
}

/// The identity that a wrapped key holds.
fn identity_of(text: &SecretString) -> Result<x25519::Identity, PortError> {
    crate::load_identities(text.expose_secret())
        .ok()
        .and_then(Identities::into_only)
        .ok_or_else(|| PortError::new(ErrorKind::Corrupt, "the backup's key is no age identity"))
}

fn wrap(identity: &SecretString, recipients: &Recipients) -> Result<Bytes, EncryptError> {
    let mut wrapped = Vec::new();
    let mut writer = Encryptor::with_recipients(recipients.iter())?.wrap_output(&mut wrapped)?;
    writer.write_all(identity.expose_secret().as_bytes())?;
    writer.write_all(b"\n")?;
    writer.finish()?;
    Ok(wrapped.into())
}

fn unwrap(wrapped: &[u8], identities: &Identities) -> Result<SecretString, DecryptError> {
    let decryptor = Decryptor::new_buffered(ArmoredReader::new(wrapped))?;
    // Sized at once: growing would leave copies of the secret behind.
    let mut text = String::with_capacity(usize::try_from(MAX_KEY_BYTES).unwrap_or(0) + 1);
    decryptor
        .decrypt(identities.iter())?
        .take(MAX_KEY_BYTES)
        .read_to_string(&mut text)?;
    Ok(text.into())
}

fn not_opened(error: DecryptError, cipher: &AgeCipher) -> PortError {
    if !matches!(error, DecryptError::NoMatchingKeys) {
        return PortError::new(ErrorKind::Corrupt, "the backup's key is damaged")
            .with_source(error);
    }
    let message = match cipher.identities.len() {
        0 => "no identity is configured to open the backup's key".to_owned(),
        1 => "the configured identity does not fit the backup's key".to_owned(),
        n => format!("each of the {n} configured identities does not fit the backup's key"),
    };
    PortError::new(ErrorKind::PermissionDenied, message)
        .with_hint("use the identity file of one of the recipients that the manifest names")
}
