//! Tokens: long random texts of which only the hash is kept.

use std::sync::Arc;

use backup_config::AccessConfig;
use backup_core::body::hex;
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::access::Principal;

/// By this, a scanner that looks for leaked secrets knows it.
const PREFIX: &str = "backup_token_";

/// A token and what stands in the configuration for it.
#[derive(Debug)]
pub struct NewToken {
    /// To be shown once.
    pub token: SecretString,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// A token of 256 random bits.
#[must_use]
pub fn new_token() -> NewToken {
    let token = format!("{PREFIX}{}", hex(&rand::random::<[u8; 32]>()));
    NewToken {
        sha256: hex(&hash(&token)),
        token: token.into(),
    }
}

/// The tokens that the configuration knows.
#[derive(Debug)]
pub struct Tokens(Vec<([u8; 32], Arc<Principal>)>);

impl Tokens {
    /// Those of these entries. An entry whose hash is none lets nobody in.
    #[must_use]
    pub fn new(entries: &[AccessConfig]) -> Self {
        let known = entries.iter().filter_map(|entry| {
            let hash = unhex(&entry.token_sha256)?;
            Some((hash, Arc::new(Principal::from(entry))))
        });
        Self(known.collect())
    }

    /// Whose token it is. How long that takes says nothing about which tokens there are.
    #[must_use]
    pub fn owner(&self, token: &str) -> Option<Arc<Principal>> {
        let hash = hash(token);
        let mut owner = None;
        for (known, principal) in &self.0 {
            if bool::from(known.ct_eq(&hash)) {
                owner = Some(principal);
            }
        }
        owner.cloned()
    }

    /// Whether nobody can come in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use backup_config::Role;
    use secrecy::ExposeSecret as _;

    use super::*;

    fn entry(name: &str, token_sha256: &str) -> AccessConfig {
        AccessConfig {
            name: name.to_owned(),
            token_sha256: token_sha256.to_owned(),
            role: Role::Viewer,
            sources: vec!["*".to_owned()],
        }
    }

    #[test]
    fn a_token_is_known_by_its_hash_alone() {
        let (one, two) = (new_token(), new_token());
        let (first, second) = (one.token.expose_secret(), two.token.expose_secret());
        assert_ne!(first, second);
        assert_eq!(first.len(), PREFIX.len() + 64);
        let tokens = Tokens::new(&[
            entry("one", &one.sha256),
            entry("two", &two.sha256.to_uppercase()),
            entry("none", "not a hash"),
        ]);
        let name = |token: &str| tokens.owner(token).map(|owner| owner.name.clone());
        assert_eq!(name(first).as_deref(), Some("one"));
        assert_eq!(name(second).as_deref(), Some("two"));
        for wrong in [
            "",
            "not a hash",
            &one.sha256,
            &first[1..],
            &format!("{first} "),
        ] {
            assert_eq!(name(wrong), None, "{wrong}");
        }
        assert!(!format!("{one:?}").contains(first));
        assert!(Tokens::new(&[]).is_empty());
    }

    #[test]
    fn the_hash_is_the_one_that_other_tools_make() {
        let entry = entry(
            "known",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        );
        assert!(Tokens::new(&[entry]).owner("abc").is_some());
    }
}
