//! Who can read backups: the keys that flags and configuration name.

use std::sync::Arc;

use backup_config::{EncryptionMode, SecretRef, SourceSettings};
use backup_core::backup::SourceName;
use backup_core::cipher::Cipher;
use backup_core::engine::Engine;
use backup_core::observer::Observer;
use backup_crypt::{AgeCipher, Identities, Recipients, load_identities, parse_recipients};
use secrecy::ExposeSecret as _;

use crate::compose::App;
use crate::error::AppError;
use crate::place::Place;

/// Which keys an operation needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// None: listing, hashing.
    None,
    /// Public ones, to write: those of the job.
    Recipients,
    /// Private ones, to read.
    Identities,
}

impl App {
    /// Opens what was encrypted. Whom to encrypt to is said by the job of a backup.
    pub(crate) fn cipher(&self, keys: Keys) -> Result<Option<Arc<dyn Cipher>>, AppError> {
        let identities = match keys {
            Keys::Identities => self.loaded_identities()?,
            Keys::None | Keys::Recipients => Identities::default(),
        };
        if identities.is_empty() {
            return Ok(None);
        }
        let cipher = AgeCipher::new(Recipients::default(), identities);
        Ok(Some(Arc::new(cipher)))
    }

    /// Sees that somebody is named who is to open backups, before any place is asked.
    ///
    /// # Errors
    /// When nobody is, for no source, or the public keys cannot be read.
    pub fn check_recipients(&self) -> Result<(), AppError> {
        let named = self.recipients();
        if !named.is_empty() {
            return parse_recipients(named).map(drop).map_err(unusable_keys);
        }
        let mut sources = self.config().source.values();
        if sources.any(|source| !self.config().resolved(source).recipients.is_empty()) {
            return Ok(());
        }
        Err(nobody_named())
    }

    /// An engine over `place` that opens backups of `source` and encrypts them to whom its next
    /// one would be encrypted to.
    ///
    /// # Errors
    /// When nobody is named, or the place or the keys cannot be used.
    pub fn rekey_engine(
        &self,
        place: &Place,
        source: &SourceName,
        observer: Arc<dyn Observer>,
    ) -> Result<Engine, AppError> {
        let own = self.config().settings_of(source.as_str());
        let own = own.map(|settings| self.config().resolved(settings).recipients);
        let named = match own {
            Some(own) if self.overrides().recipients.is_empty() => own,
            _ => self.recipients().to_vec(),
        };
        if named.is_empty() {
            return Err(nobody_named());
        }
        let recipients = parse_recipients(&named).map_err(unusable_keys)?;
        let cipher = AgeCipher::new(recipients, self.loaded_identities()?);
        let engine = self.engine(place, Keys::None, observer)?;
        Ok(engine.with_cipher(Arc::new(cipher)))
    }

    /// The private keys that are configured or given.
    pub(crate) fn loaded_identities(&self) -> Result<Identities, AppError> {
        let mut identities = Identities::default();
        for reference in self.identities() {
            let text = reference.resolve(self.environment())?;
            let loaded = load_identities(text.expose_secret()).map_err(unusable_keys)?;
            identities = identities.and(loaded);
        }
        Ok(identities)
    }

    pub(crate) fn recipients(&self) -> &[String] {
        if self.overrides().recipients.is_empty() {
            &self.config().encryption.recipients
        } else {
            &self.overrides().recipients
        }
    }

    fn identities(&self) -> Vec<SecretRef> {
        let given = self.overrides().identities.iter();
        let mut references: Vec<_> = given.map(|path| SecretRef::File(path.clone())).collect();
        if references.is_empty() {
            references.extend(self.config().encryption.identities.clone());
        }
        references
    }

    /// Whether new backups are encrypted, as the command line and `settings` say.
    pub(crate) fn encrypts(&self, settings: &SourceSettings) -> Result<bool, AppError> {
        let asked = !self.overrides().recipients.is_empty();
        let off =
            self.overrides().no_encryption || (!asked && settings.mode == EncryptionMode::None);
        if asked && self.overrides().no_encryption {
            return Err(AppError::usage(
                "--recipient and --no-encryption exclude each other",
            ));
        }
        if !off && settings.recipients.is_empty() {
            return Err(AppError::usage_hint(
                "backups are encrypted, and no recipient is given",
                "name public keys under [encryption] recipients, or say --recipient age1… \
                 (backup-cli keygen makes a key pair); without encryption, mode = \"none\" or \
                 --no-encryption",
            ));
        }
        Ok(!off)
    }
}

fn nobody_named() -> AppError {
    AppError::usage_hint(
        "nobody is named who is to open the backups",
        "say --recipient age1… (backup-cli keygen makes a key pair)",
    )
}

pub(crate) fn unusable_keys(error: backup_crypt::Error) -> AppError {
    AppError::setup("read the keys", error.into())
}
