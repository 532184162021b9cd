//! What every codec of this crate promises about content, damage and errors.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backup_compress::{Gzip, Identity, Zstd, by_name};
use backup_core::body::{BodyStream, body_of, collect, counted};
use backup_core::compressor::Compressor;
use backup_core::error::{ErrorKind, PortError};
use backup_testing::contract;
use bytes::Bytes;
use futures::stream::{self, StreamExt};

const LIMIT: usize = 64 << 20;

fn codecs() -> Vec<(Arc<dyn Compressor>, Option<i32>)> {
    vec![
        (Arc::new(Zstd::new()), None),
        (Arc::new(Zstd::new()), Some(-7)),
        (Arc::new(Zstd::new()), Some(9)),
        (Arc::new(Zstd::new().with_workers(1)), None),
        (Arc::new(Zstd::new().with_workers(3)), Some(1)),
        (Arc::new(Gzip::new()), None),
        (Arc::new(Gzip::new()), Some(1)),
        (Arc::new(Gzip::new()), Some(9)),
    ]
}

/// Rows that compress about as well as real ones, the same in every run.
fn rows(bytes: usize) -> Bytes {
    let mut text = String::with_capacity(bytes + 100);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut id = 0;
    while text.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        id += 1;
        let _ = writeln!(text, "{id}\tcustomer {}\t{state:016x}\t\\N", state % 1000);
    }
    text.truncate(bytes);
    text.into()
}

fn noise(bytes: usize) -> Bytes {
    let mut state = 1_u64;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    noise.truncate(bytes);
    noise.into()
}

fn in_chunks(content: &Bytes, size: usize) -> BodyStream {
    let chunks: Vec<_> = (0..content.len())
        .step_by(size)
        .map(|at| Ok(content.slice(at..content.len().min(at + size))))
        .collect();
    stream::iter(chunks).boxed()
}

/// A body that makes its reader wait before every chunk.
fn slowly(body: BodyStream) -> BodyStream {
    body.then(|chunk| async move {
        tokio::task::yield_now().await;
        chunk
    })
    .boxed()
}

async fn all(body: BodyStream) -> Result<Bytes, PortError> {
    collect(body, LIMIT).await
}

#[tokio::test]
async fn content_survives_whatever_the_chunks() {
    for (codec, level) in codecs() {
        for (length, chunk) in [
            (0, 1),
            (1, 1),
            (100, 7),
            (300_000, 1000),
            (5 << 20, 256 << 10),
            ((3 << 20) + 17, 3 << 20),
        ] {
            let content = rows(length);
            let stored = all(codec.compress(in_chunks(&content, chunk), level))
                .await
                .unwrap();
            let again = all(codec.decompress(slowly(in_chunks(&stored, chunk))))
                .await
                .unwrap();
            assert!(
                again == content,
                "{codec:?} {level:?} {length} in chunks of {chunk}"
            );
        }
    }
}

#[tokio::test]
async fn output_does_not_depend_on_how_input_arrives() {
    for (codec, level) in codecs() {
        let content = rows(2 << 20);
        let at_once = all(codec.compress(body_of(content.clone()), level))
            .await
            .unwrap();
        let in_bits = all(codec.compress(slowly(in_chunks(&content, 4096)), level))
            .await
            .unwrap();
        // A flush per chunk would cost several per cent.
        let (least, most) = (
            at_once.len().min(in_bits.len()),
            at_once.len().max(in_bits.len()),
        );
        assert!(most - least <= least / 1000, "{codec:?} {least} {most}");
    }
}

#[tokio::test]
async fn chunks_are_large() {
    let content = rows(5 << 20);
    for (codec, level) in codecs() {
        let chunks: Vec<_> = codec
            .compress(in_chunks(&content, 64 << 10), level)
            .collect()
            .await;
        let (last, full) = chunks.split_last().unwrap();
        assert!(
            full.iter()
                .all(|chunk| chunk.as_ref().unwrap().len() == 256 << 10)
        );
        assert!(!last.as_ref().unwrap().is_empty());
    }
}

#[tokio::test]
async fn an_end_too_early_is_corrupt() {
    for (codec, level) in codecs() {
        let stored = all(codec.compress(body_of(rows(700_000)), level))
            .await
            .unwrap();
        for length in (0..stored.len()).step_by(4099).chain([1, stored.len() - 1]) {
            for chunk in [stored.len(), 1000] {
                let cut = in_chunks(&stored.slice(..length), chunk);
                let error = all(codec.decompress(cut)).await.unwrap_err();
                assert_eq!(
                    error.kind(),
                    ErrorKind::Corrupt,
                    "{codec:?} cut at {length}: {error}"
                );
            }
        }
    }
}

#[tokio::test]
async fn damage_is_corrupt() {
    for (codec, level) in codecs() {
        let content = rows(200_000);
        let stored = all(codec.compress(body_of(content.clone()), level))
            .await
            .unwrap();
        for at in (0..stored.len()).step_by(769) {
            let mut damaged = stored.to_vec();
            damaged[at] ^= 1 << (at % 8);
            match all(codec.decompress(body_of(damaged))).await {
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{codec:?} at {at}"),
                // Bytes without meaning, such as the time in a gzip header.
                Ok(again) => assert!(again == content && at < 16, "{codec:?} at {at}"),
            }
        }
    }
}

#[tokio::test]
async fn several_members_are_one_content() {
    for (codec, level) in codecs() {
        let one = all(codec.compress(body_of("one,"), level)).await.unwrap();
        let two = all(codec.compress(body_of("two"), level)).await.unwrap();
        let joined = Bytes::from([&one[..], &two[..]].concat());
        for chunk in [1, one.len(), joined.len()] {
            let again = all(codec.decompress(in_chunks(&joined, chunk)))
                .await
                .unwrap();
            assert_eq!(again, "one,two");
        }
        let cut = joined.slice(..joined.len() - 1);
        let error = all(codec.decompress(body_of(cut))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let trailed = Bytes::from([&one[..], b"trailing rubbish, not a frame"].concat());
        let error = all(codec.decompress(body_of(trailed))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[tokio::test]
async fn errors_of_the_body_pass_unchanged_and_last() {
    let failing = |content: Bytes, error: io::Error| -> BodyStream {
        stream::iter([
            Ok(content),
            Err(error),
            Ok(Bytes::from_static(b"never read")),
        ])
        .boxed()
    };
    let mut all_codecs = codecs();
    all_codecs.push((Arc::new(Identity::new()), None));
    for (codec, level) in all_codecs {
        let content = rows(1 << 20);
        let stored = all(codec.compress(body_of(content.clone()), level))
            .await
            .unwrap();
        let port = || {
            PortError::new(ErrorKind::Cancelled, "stop")
                .with_hint("try later")
                .into_io()
        };
        let bare = || io::Error::from(io::ErrorKind::ConnectionReset);

        for make in [&port as &dyn Fn() -> io::Error, &bare] {
            let half = stored.slice(..stored.len() / 2);
            for body in [
                codec.compress(failing(content.clone(), make()), level),
                codec.decompress(failing(half.clone(), make())),
                codec.decompress(failing(stored.clone(), make())),
            ] {
                let items: Vec<_> = body
                    .take_while(|item| {
                        futures::future::ready(!matches!(item, Ok(chunk) if chunk == "never read"))
                    })
                    .collect()
                    .await;
                let errors = items.iter().filter(|item| item.is_err()).count();
                assert_eq!(errors, 1);
                let error = items.into_iter().find_map(Result::err).unwrap();
                assert_eq!(error.kind(), make().kind());
                assert_eq!(error.to_string(), make().to_string());
                let port_error = error.downcast::<PortError>().ok();
                let expected = make().downcast::<PortError>().ok();
                assert_eq!(
                    port_error.map(|e| (e.kind(), e.hint().map(str::to_owned))),
                    expected.map(|e| (e.kind(), e.hint().map(str::to_owned))),
                );
            }
        }
    }
}

#[tokio::test]
async fn what_a_failed_body_left_has_no_end() {
    for (codec, level) in codecs() {
        let body = stream::iter([Ok(rows(3 << 20)), Err(io::Error::other("child died"))]).boxed();
        let written: Vec<_> = codec
            .compress(body, level)
            .filter_map(|item| futures::future::ready(item.ok()))
            .collect()
            .await;
        let error = all(codec.decompress(body_of(written.concat())))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[tokio::test]
async fn zstd_carries_a_checksum() {
    // Frame header descriptor: bit 2 is Content_Checksum_flag.
    for workers in [0, 2] {
        let zstd = Zstd::new().with_workers(workers);
        let stored = all(zstd.compress(body_of(rows(1000)), None)).await.unwrap();
        assert_eq!(stored[..4], [0x28, 0xb5, 0x2f, 0xfd]);
        assert_eq!(stored[4] & 0b100, 0b100);
    }
}

#[tokio::test]
async fn a_window_past_the_limit_is_refused() {
    // Magic number, no flags, window of 2^(10 + exponent), one empty last block.
    let frame = |exponent: u8| vec![0x28, 0xb5, 0x2f, 0xfd, 0, exponent << 3, 1, 0, 0];
    let zstd = Zstd::new();
    assert_eq!(all(zstd.decompress(body_of(frame(17)))).await.unwrap(), "");
    let error = all(zstd.decompress(body_of(frame(18)))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn levels_outside_become_the_nearest() {
    for (name, low, high) in [("zstd", -7, 19), ("gzip", 1, 9)] {
        let codec = by_name(name).unwrap();
        for (wild, tame) in [(i32::MIN, low), (i32::MAX, high)] {
            let content = rows(100_000);
            let one = all(codec.compress(body_of(content.clone()), Some(wild)))
                .await
                .unwrap();
            let other = all(codec.compress(body_of(content), Some(tame)))
                .await
                .unwrap();
            assert_eq!(one, other);
        }
    }
}

#[tokio::test]
async fn noise_passes() {
    let noise = noise(3 << 20);
    for (codec, level) in codecs() {
        let stored = all(codec.compress(in_chunks(&noise, 100_000), level))
            .await
            .unwrap();
        assert!(all(codec.decompress(body_of(stored))).await.unwrap() == noise);
    }
}

#[tokio::test]
async fn compressors_keep_the_contract() {
    for zstd in [Zstd::new(), Zstd::new().with_workers(2)] {
        contract::compressor::names_are_usable(&zstd);
        contract::compressor::roundtrip(&zstd).await;
        contract::compressor::cuts_are_errors(&zstd).await;
        contract::compressor::garbage_is_an_error(&zstd).await;
        contract::compressor::damage_is_never_silent(&zstd).await;
        contract::compressor::input_errors_pass(&zstd).await;
    }
    contract::compressor::all(&Gzip::new()).await;
    contract::compressor::transparent(&Identity::new()).await;
}

#[tokio::test]
async fn nothing_is_read_far_ahead() {
    const AHEAD: u64 = 24 << 20;
    for (codec, level) in codecs() {
        let read = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&read);
        let input = counted(in_chunks(&noise(64 << 20), 256 << 10), move |bytes| {
            count.fetch_add(bytes, Ordering::Relaxed);
        });
        let mut output = codec.compress(input, level);
        let mut taken = 0;
        for _ in 0..20 {
            taken += output.next().await.unwrap().unwrap().len() as u64;
            let ahead = read.load(Ordering::Relaxed).saturating_sub(taken);
            assert!(ahead < AHEAD, "{codec:?} {level:?} is {ahead} ahead");
        }
    }
}
