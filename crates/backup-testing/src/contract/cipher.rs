//! The contract of [`Cipher`] and [`BackupKey`].

use std::sync::Arc;

use backup_core::cipher::{BackupKey, Cipher};
use backup_core::error::ErrorKind;
use bytes::Bytes;

use super::codec::Codec;
use crate::bodies::{random, text};

macro_rules! codec {
    ($key:ident) => {
        Codec {
            encode: &|body| $key.encrypt(body),
            decode: &|body| $key.decrypt(body),
        }
    };
}

/// Everything, for a cipher that holds an identity for its own recipients.
pub async fn all(cipher: &dyn Cipher) {
    names_are_usable(cipher);
    wrapped_keys_open(cipher).await;
    wrapped_keys_are_wrapped_again(cipher).await;
    damaged_wrapped_keys_do_not_open(cipher);
    backups_have_keys_of_their_own(cipher).await;
    roundtrip(cipher).await;
    content_is_hidden(cipher).await;
    cuts_are_errors(cipher).await;
    garbage_is_an_error(cipher).await;
    damage_is_an_error(cipher).await;
    input_errors_pass(cipher).await;
    memory_is_bounded(cipher).await;
}

fn fresh(cipher: &dyn Cipher) -> Arc<dyn BackupKey> {
    cipher.seal().expect("a fresh key").key
}

/// Name and extension fit into manifests and keys; there is somebody to seal to.
pub fn names_are_usable(cipher: &dyn Cipher) {
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric());
    assert!(plain(cipher.name()), "name {:?}", cipher.name());
    let bare = cipher.extension().strip_prefix('.');
    assert!(
        bare.is_some_and(plain),
        "extension {:?}",
        cipher.extension()
    );
    assert!(!cipher.recipients().is_empty(), "no recipients");
}

/// A key that is wrapped again is the same key, in another form.
pub async fn wrapped_keys_are_wrapped_again(cipher: &dyn Cipher) {
    let sealed = cipher.seal().expect("a fresh key");
    let again = cipher.rewrap(&sealed.wrapped).expect("it is wrapped again");
    let opened = cipher.open(&again).expect("the key opens");
    let content = text(10_000);
    let key = &sealed.key;
    let coded = codec!(key).encoded(&content).await;
    assert!(codec!(opened).decoded(coded).await == Ok(content.to_vec()));
    let error = cipher.rewrap(b"no key").expect_err("garbage");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

/// What was encrypted with a fresh key is decrypted with its stored form, and the other way.
pub async fn wrapped_keys_open(cipher: &dyn Cipher) {
    let sealed = cipher.seal().expect("a fresh key");
    let opened = cipher.open(&sealed.wrapped).expect("the key opens");
    let content = text(100_000);
    for (here, there) in [(&sealed.key, &opened), (&opened, &sealed.key)] {
        let coded = codec!(here).encoded(&content).await;
        assert!(codec!(there).decoded(coded).await == Ok(content.to_vec()));
    }
}

/// A stored key that was cut or changed is an error, never another key.
pub fn damaged_wrapped_keys_do_not_open(cipher: &dyn Cipher) {
    let wrapped = cipher.seal().expect("a fresh key").wrapped;
    for cut in [0, 1, wrapped.len() / 2] {
        let refused = cipher.open(&wrapped[..cut]).map(drop).map_err(|e| e.kind());
        assert_eq!(refused, Err(ErrorKind::Corrupt), "cut to {cut}");
    }
    let refused = cipher.open(&random(200, 1)).map(drop).map_err(|e| e.kind());
    assert_eq!(refused, Err(ErrorKind::Corrupt), "random bytes");
}

/// One backup's key does not open another's parts.
pub async fn backups_have_keys_of_their_own(cipher: &dyn Cipher) {
    let (one, other) = (fresh(cipher), fresh(cipher));
    let coded = codec!(one).encoded(&text(1000)).await;
    let outcome = codec!(other).decoded(coded).await;
    assert_eq!(outcome, Err(ErrorKind::PermissionDenied), "a foreign key");
}

/// `stranger` holds none of the identities that `cipher` seals to.
pub fn strangers_are_refused(cipher: &dyn Cipher, stranger: &dyn Cipher) {
    let wrapped = cipher.seal().expect("a fresh key").wrapped;
    let refused = stranger.open(&wrapped).map(drop).map_err(|e| e.kind());
    assert_eq!(refused, Err(ErrorKind::PermissionDenied));
}

/// Nothing, one byte, sizes around 64 KiB, 1 MiB of noise and of text, in any chunks.
pub async fn roundtrip(cipher: &dyn Cipher) {
    let key = fresh(cipher);
    codec!(key).roundtrip().await;
}

/// No piece of the content is in the output.
pub async fn content_is_hidden(cipher: &dyn Cipher) {
    let key = fresh(cipher);
    let secret = b"correct horse battery staple";
    let content = Bytes::from(secret.repeat(5000));
    let coded = codec!(key).encoded(&content).await;
    let found = coded.windows(12).any(|window| window == &secret[..12]);
    assert!(!found, "content is readable in the encrypted bytes");
}

/// A stream cut anywhere, also between blocks and to nothing, ends with `Corrupt`.
pub async fn cuts_are_errors(cipher: &dyn Cipher) {
    let key = fresh(cipher);
    codec!(key).cuts_are_errors().await;
}

/// Bytes behind the end, and bytes that are no stream at all.
pub async fn garbage_is_an_error(cipher: &dyn Cipher) {
    let key = fresh(cipher);
    codec!(key).garbage_is_an_error().await;
}

/// One changed bit anywhere is an error.
pub async fn damage_is_an_error(cipher: &dyn Cipher) {
    let key = fresh(cipher);
    for content in [text(300_000), Bytes::from_static(b"short")] {
        for (at, outcome) in codec!(key).flipped(&content).await {
            assert!(outcome.is_err(), "byte {at} changed: accepted");
        }
    }
}

/// An error of the input is the last item of the output.
pub async fn input_errors_pass(cipher: &dyn Cipher) {
    let key = fresh(cipher);
    codec!(key).input_errors_pass().await;
}

/// Does not run ahead of its reader.
pub async fn memory_is_bounded(cipher: &dyn Cipher) {
    let key = fresh(cipher);
    codec!(key).memory_is_bounded().await;
}
