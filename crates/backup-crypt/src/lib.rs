//! The cipher of backup parts: [age](https://age-encryption.org/v1) with a key per backup.
//!
//! Each backup has an age identity of its own. Its parts are encrypted to that identity;
//! the identity, as the text that `age` reads, is encrypted to the configured recipients
//! and stored beside them. So a host that holds recipients only cannot read what it
//! wrote. New recipients of a backup need its key wrapped again, and the manifest, which
//! holds the wrapped key's digest, written again, but no part. By hand it is:
//!
//! ```text
//! age -d -i identity.txt key.age > backup.key
//! age -d -i backup.key data.dump.zst.age | zstd -d | pg_restore …
//! ```
//!
//! ```
//! use backup_core::body::{body_of, collect};
//! use backup_core::cipher::Cipher;
//! use backup_crypt::{AgeCipher, Identities, Recipients, generate, load_identities};
//! use secrecy::ExposeSecret;
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let new = generate(chrono::DateTime::UNIX_EPOCH);
//! let recipients = backup_crypt::parse_recipients(&[new.recipient])?;
//! let identities = load_identities(new.identity_file.expose_secret())?;
//!
//! let writer = AgeCipher::new(recipients, Identities::default());
//! let sealed = writer.seal()?;
//! let stored = collect(sealed.key.encrypt(body_of("some rows")), 1024).await?;
//!
//! let reader = AgeCipher::new(Recipients::default(), identities);
//! let key = reader.open(&sealed.wrapped)?;
//! assert_eq!(collect(key.decrypt(body_of(stored)), 1024).await?, "some rows");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cipher;
mod decrypt;
mod encrypt;
mod error;
mod keys;

pub use cipher::AgeCipher;
pub use error::Error;
pub use keys::{Identities, NewIdentity, Recipients, generate, load_identities, parse_recipients};
