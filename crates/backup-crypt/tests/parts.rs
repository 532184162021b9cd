//! What happens to whole, cut, changed and failing parts.

use std::io;

use backup_core::body::{BodyStream, body_of, collect};
use backup_core::cipher::{BackupKey, Cipher};
use backup_core::error::{ErrorKind, PortError};
use backup_crypt::{AgeCipher, Identities, NewIdentity, Recipients};
use backup_crypt::{generate, load_identities, parse_recipients};
use backup_testing::contract;
use bytes::Bytes;
use chrono::DateTime;
use futures::stream::{self, StreamExt};
use secrecy::ExposeSecret;

const LIMIT: usize = 64 << 20;
const BLOCK: usize = 64 << 10;
const STORED_BLOCK: usize = BLOCK + 16;

fn new_identity() -> NewIdentity {
    generate(DateTime::UNIX_EPOCH)
}

fn writer_for(readers: &[&NewIdentity]) -> AgeCipher {
    let texts: Vec<_> = readers.iter().map(|new| new.recipient.clone()).collect();
    AgeCipher::new(
        parse_recipients(&texts).expect("recipients"),
        Identities::default(),
    )
}

fn reader_with(new: &NewIdentity) -> AgeCipher {
    let identities = load_identities(new.identity_file.expose_secret()).expect("identity");
    AgeCipher::new(Recipients::default(), identities)
}

fn both() -> AgeCipher {
    let new = new_identity();
    let identities = load_identities(new.identity_file.expose_secret()).expect("identity");
    AgeCipher::new(identities.recipients(), identities)
}

fn noise(bytes: usize) -> Bytes {
    let mut state = 1_u64;
    std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_be_bytes()[0]
    })
    .take(bytes)
    .collect()
}

fn in_chunks(content: &Bytes, size: usize) -> BodyStream {
    let chunks: Vec<_> = (0..content.len())
        .step_by(size)
        .map(|at| Ok(content.slice(at..content.len().min(at + size))))
        .collect();
    stream::iter(chunks).boxed()
}

async fn all(body: BodyStream) -> Result<Bytes, PortError> {
    collect(body, LIMIT).await
}

async fn encrypted(key: &dyn BackupKey, content: &Bytes) -> Bytes {
    all(key.encrypt(body_of(content.clone())))
        .await
        .expect("encrypts")
}

/// Length of the header and the nonce behind it.
fn payload_start(stored: &Bytes, content: usize) -> usize {
    stored.len() - content - 16 * content.div_ceil(BLOCK).max(1)
}

#[tokio::test]
async fn keeps_the_contract() {
    contract::cipher::all(&both()).await;
    contract::cipher::strangers_are_refused(&both(), &both());
}

#[tokio::test]
async fn lengths_around_blocks_survive() {
    let key = both().seal().unwrap().key;
    for length in [
        0,
        1,
        BLOCK - 1,
        BLOCK,
        BLOCK + 1,
        2 * BLOCK,
        10 * BLOCK,
        1_000_000,
    ] {
        let content = noise(length);
        for chunk in [997, BLOCK, usize::MAX / 2] {
            let stored = all(key.encrypt(in_chunks(&content, chunk))).await.unwrap();
            let again = all(key.decrypt(in_chunks(&stored, chunk))).await.unwrap();
            assert!(again == content, "{length} in chunks of {chunk}");
        }
    }
}

#[tokio::test]
async fn a_cut_at_any_border_is_corrupt() {
    let key = both().seal().unwrap().key;
    for length in [0, 1, BLOCK, 4 * BLOCK, 1_000_000] {
        let stored = encrypted(&*key, &noise(length)).await;
        let start = payload_start(&stored, length);
        let borders = (start..=stored.len()).step_by(STORED_BLOCK);
        let near = borders.flat_map(|at| [at - 1, at, at + 1, at + 15, at + 16]);
        for cut in near
            .chain([0, 1, 21, start / 2])
            .filter(|cut| *cut < stored.len())
        {
            let error = all(key.decrypt(body_of(stored.slice(..cut))))
                .await
                .unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::Corrupt,
                "{length} cut to {cut}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn blocks_removed_repeated_or_swapped_are_corrupt() {
    let key = both().seal().unwrap().key;
    let content = noise(5 * BLOCK);
    let stored = encrypted(&*key, &content).await;
    let start = payload_start(&stored, content.len());
    let block = |n: usize| stored.slice(start + n * STORED_BLOCK..start + (n + 1) * STORED_BLOCK);
    for order in [
        &[0, 1, 2, 3][..],
        &[1, 2, 3, 4],
        &[0, 1, 3, 2, 4],
        &[0, 1, 2, 3, 4, 4],
        &[0, 1, 2, 3, 4, 0],
        &[4],
        &[],
    ] {
        let blocks = order.iter().map(|n| Ok(block(*n)));
        let pieces: Vec<_> = [Ok(stored.slice(..start))]
            .into_iter()
            .chain(blocks)
            .collect();
        let body = stream::iter(pieces);
        let error = all(key.decrypt(body.boxed())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{order:?}");
    }
}

#[tokio::test]
async fn a_changed_bit_is_an_error() {
    let key = both().seal().unwrap().key;
    let content = noise(1_000_000);
    let stored = encrypted(&*key, &content).await;
    let start = payload_start(&stored, content.len());
    for at in (0..start)
        .chain((start..stored.len()).step_by(9973))
        .chain([stored.len() - 1])
    {
        let mut changed = stored.to_vec();
        changed[at] ^= 1 << (at % 8);
        let error = all(key.decrypt(body_of(changed))).await.unwrap_err();
        // A changed header may look like one for somebody else.
        let foreign = at < start && error.kind() == ErrorKind::PermissionDenied;
        assert!(
            foreign || error.kind() == ErrorKind::Corrupt,
            "at {at}: {error}"
        );
    }
}

#[tokio::test]
async fn only_authenticated_blocks_come_out() {
    let key = both().seal().unwrap().key;
    let content = noise(4 * BLOCK);
    let mut changed = encrypted(&*key, &content).await.to_vec();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    let items: Vec<_> = key.decrypt(body_of(changed)).collect().await;
    let (end, whole) = items.split_last().unwrap();
    assert!(end.is_err());
    let whole: Vec<_> = whole
        .iter()
        .flat_map(|item| item.as_ref().unwrap().to_vec())
        .collect();
    assert!(whole == content[..3 * BLOCK]);
}

#[tokio::test]
async fn each_recipient_opens_and_no_stranger() {
    let readers = [new_identity(), new_identity(), new_identity()];
    let cipher = writer_for(&readers.each_ref());
    let sealed = cipher.seal().unwrap();
    let content = noise(100_000);
    let stored = encrypted(&*sealed.key, &content).await;
    for reader in &readers {
        let key = reader_with(reader).open(&sealed.wrapped).unwrap();
        assert_eq!(
            all(key.decrypt(body_of(stored.clone()))).await.unwrap(),
            content
        );
    }

    for (stranger, says) in [
        (
            reader_with(&new_identity()),
            "the configured identity does not fit the backup's key",
        ),
        (cipher, "no identity is configured to open the backup's key"),
    ] {
        let error = stranger.open(&sealed.wrapped).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert_eq!(error.to_string(), says);
        assert!(error.hint().is_some());
    }
    let error = AgeCipher::new(Recipients::default(), Identities::default())
        .seal()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_foreign_key_does_not_fit() {
    let cipher = both();
    let stored = encrypted(&*cipher.seal().unwrap().key, &noise(1000)).await;
    let other = cipher.seal().unwrap().key;
    let error = all(other.decrypt(body_of(stored))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(
        error.to_string(),
        "the backup's key does not fit this object"
    );
}

#[tokio::test]
async fn wrapped_keys_cut_or_changed_do_not_open() {
    let cipher = both();
    let wrapped = cipher.seal().unwrap().wrapped;
    for cut in 0..wrapped.len() {
        let error = cipher.open(&wrapped[..cut]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "cut to {cut}");
    }
    for at in 0..wrapped.len() {
        let mut changed = wrapped.to_vec();
        changed[at] ^= 1;
        assert!(cipher.open(&changed).is_err(), "changed at {at}");
    }
}

#[tokio::test]
async fn a_wrapped_key_that_holds_no_identity_is_corrupt() {
    let new = new_identity();
    let reader = reader_with(&new);
    // What a part looks like, encrypted to the reader itself.
    let recipient = new.recipient.parse::<age::x25519::Recipient>().unwrap();
    for content in [&b"rows"[..], b"", &[b'#'; 10_000], b"\xff\xfe"] {
        let wrapped = age::encrypt(&recipient, content).unwrap();
        let error = reader.open(&wrapped).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[tokio::test]
async fn an_endless_header_is_refused_early() {
    let key = both().seal().unwrap().key;
    let line = Bytes::from(format!("-> X25519 {}\n", "A".repeat(50)).repeat(100));
    let first = stream::once(async { Ok(Bytes::from_static(b"age-encryption.org/v1\n")) });
    let endless = first
        .chain(stream::repeat_with(move || Ok(line.clone())))
        .boxed();
    let error = all(key.decrypt(endless)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn errors_of_the_body_pass_unchanged_and_leave_no_end() {
    let key = both().seal().unwrap().key;
    let content = noise(300_000);
    let stored = encrypted(&*key, &content).await;
    let fail = |content: Bytes, error: io::Error| -> BodyStream {
        stream::iter([Ok(content), Err(error)]).boxed()
    };
    let port = || {
        PortError::new(ErrorKind::Cancelled, "stop")
            .with_hint("later")
            .into_io()
    };
    let bare = || io::Error::from(io::ErrorKind::ConnectionReset);
    let interrupted = || io::Error::from(io::ErrorKind::Interrupted);
    let early = || io::Error::from(io::ErrorKind::UnexpectedEof);
    for make in [&port as &dyn Fn() -> io::Error, &bare, &interrupted, &early] {
        for (decrypting, content) in [
            (false, Bytes::new()),
            (false, content.clone()),
            (true, Bytes::new()),
            (true, stored.slice(..100)),
            (true, stored.slice(..stored.len() / 2)),
            (true, stored.clone()),
        ] {
            let body = fail(content, make());
            let body = if decrypting {
                key.decrypt(body)
            } else {
                key.encrypt(body)
            };
            let mut items: Vec<_> = body.collect().await;
            let error = items.pop().unwrap().unwrap_err();
            assert_eq!(error.kind(), make().kind());
            assert_eq!(error.to_string(), make().to_string());
            let hint = error
                .downcast::<PortError>()
                .ok()
                .and_then(|e| e.hint().map(str::to_owned));
            let expected = make().downcast::<PortError>().ok();
            assert_eq!(hint, expected.and_then(|e| e.hint().map(str::to_owned)));

            let written: Vec<_> = items.into_iter().map(Result::unwrap).collect();
            if !decrypting {
                let left = all(key.decrypt(body_of(written.concat()))).await;
                assert_eq!(left.unwrap_err().kind(), ErrorKind::Corrupt);
            }
        }
    }
}

#[tokio::test]
async fn secrets_are_in_no_debug_output() {
    let new = new_identity();
    let secret = new.identity_file.expose_secret().lines().last().unwrap();
    let cipher = reader_with(&new);
    let sealed = both().seal().unwrap();
    let texts = [
        format!("{cipher:?} {cipher:#?}"),
        format!("{sealed:?} {sealed:#?}"),
        format!("{new:?} {new:#?}"),
        format!("{:?}", cipher.open(&sealed.wrapped).unwrap_err()),
    ];
    for text in texts {
        assert!(!text.to_uppercase().contains("AGE-SECRET-KEY-1"), "{text}");
        assert!(!text.contains(&secret[20..40]), "{text}");
    }
}
