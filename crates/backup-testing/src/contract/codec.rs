//! What compressors and ciphers share: bytes there and back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backup_core::body::{BodyStream, counted};
use backup_core::error::ErrorKind;
use bytes::Bytes;
use futures::StreamExt;

use crate::bodies::{chunked, drain, failing, generated, kind_of, random, text};

const BLOCK: usize = 64 << 10;
/// How far a codec may read ahead of what was taken from it.
const AHEAD: u64 = 64 << 20;
/// No chunk that a codec gives is longer.
const CHUNK: usize = 8 << 20;

/// Both directions of one codec.
pub(super) struct Codec<'a> {
    pub(super) encode: &'a (dyn Fn(BodyStream) -> BodyStream + Sync),
    pub(super) decode: &'a (dyn Fn(BodyStream) -> BodyStream + Sync),
}

impl Codec<'_> {
    pub(super) async fn encoded(&self, content: &Bytes) -> Bytes {
        let (coded, error) = drain((self.encode)(chunked(content.clone(), 10_007))).await;
        assert!(error.is_none(), "encoding failed: {error:?}");
        coded.into()
    }

    /// The decoded content, or the kind of the error.
    pub(super) async fn decoded(&self, coded: Bytes) -> Result<Vec<u8>, ErrorKind> {
        match drain((self.decode)(chunked(coded, 8191))).await {
            (content, None) => Ok(content),
            (_, Some(error)) => Err(kind_of(error)),
        }
    }

    pub(super) async fn roundtrip(&self) {
        let mut contents = vec![Bytes::new(), Bytes::from_static(b"x")];
        for len in [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 1 << 20] {
            contents.push(random(len, len as u64));
            contents.push(text(len));
        }
        for content in contents {
            for chunk in [1021, BLOCK, usize::MAX] {
                let (coded, error) = drain((self.encode)(chunked(content.clone(), chunk))).await;
                assert!(
                    error.is_none(),
                    "encoding {} bytes: {error:?}",
                    content.len()
                );
                let (back, error) = drain((self.decode)(chunked(coded, chunk))).await;
                assert!(
                    error.is_none(),
                    "decoding {} bytes: {error:?}",
                    content.len()
                );
                assert!(
                    back == content,
                    "{} bytes came back differently",
                    content.len()
                );
            }
        }
    }

    /// Cut anywhere, also to nothing and at block borders.
    pub(super) async fn cuts_are_errors(&self) {
        for content in [
            Bytes::new(),
            text(500),
            random(3 * BLOCK, 7),
            text(3 * BLOCK),
        ] {
            let coded = self.encoded(&content).await;
            let len = coded.len();
            let mut cuts: Vec<usize> = (0..40).map(|n| n * len / 40).collect();
            cuts.extend([1, 2, len - 1, len.saturating_sub(8)]);
            let borders = (0..4).map(|n| n * BLOCK);
            cuts.extend(borders.flat_map(|b| [b.saturating_sub(1), b, b + 1, b + 16]));
            for cut in cuts.into_iter().filter(|cut| *cut < len) {
                let outcome = self.decoded(coded.slice(..cut)).await;
                let (all, cut_to) = (content.len(), format!("{cut} of {len}"));
                match outcome {
                    Err(ErrorKind::Corrupt) => {}
                    Err(kind) => panic!("{all} bytes coded and cut to {cut_to}: {kind}"),
                    Ok(_) => panic!("{all} bytes coded and cut to {cut_to}: accepted"),
                }
            }
        }
    }

    pub(super) async fn garbage_is_an_error(&self) {
        let coded = self.encoded(&text(BLOCK)).await;
        for tail in [
            Bytes::from_static(b"x"),
            random(1000, 5),
            Bytes::from_static(&[0; 512]),
        ] {
            let longer = [&coded[..], &tail[..]].concat();
            let outcome = self.decoded(longer.into()).await;
            assert!(
                outcome.is_err(),
                "{} bytes behind the end: accepted",
                tail.len()
            );
        }
        let outcome = self.decoded(random(BLOCK, 3)).await;
        assert_eq!(outcome, Err(ErrorKind::Corrupt), "random bytes");
    }

    /// Outcomes of decoding with one bit changed in 200 places.
    pub(super) async fn flipped(
        &self,
        content: &Bytes,
    ) -> Vec<(usize, Result<Vec<u8>, ErrorKind>)> {
        let coded = self.encoded(content).await;
        let mut outcomes = Vec::new();
        for n in 0..200 {
            let at = n * coded.len() / 200;
            let mut damaged = coded.to_vec();
            damaged[at] ^= 1 << (n % 8);
            outcomes.push((at, self.decoded(damaged.into()).await));
        }
        outcomes
    }

    /// Errors of the input come out as the last item, in both directions.
    pub(super) async fn input_errors_pass(&self) {
        for content in [Bytes::new(), random(BLOCK, 1), random(1 << 20, 2)] {
            let coded = self.encoded(&content).await;
            let half = coded.slice(..coded.len() / 2);
            let cases = [
                (
                    "encode",
                    (self.encode)(failing(content, ErrorKind::ToolFailed)),
                ),
                (
                    "decode half",
                    (self.decode)(failing(half, ErrorKind::ToolFailed)),
                ),
                (
                    "decode all",
                    (self.decode)(failing(coded, ErrorKind::ToolFailed)),
                ),
            ];
            for (name, mut body) in cases {
                let mut last = None;
                while let Some(item) = body.next().await {
                    assert!(last.is_none(), "{name}: something follows the error");
                    last = item.err();
                }
                let kind = last.map(kind_of);
                assert_eq!(kind, Some(ErrorKind::ToolFailed), "{name}: the last item");
            }
        }
    }

    /// Reads no further ahead than [`AHEAD`] and gives no chunk above [`CHUNK`].
    pub(super) async fn memory_is_bounded(&self) {
        let pulled = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&pulled);
        let input = counted(generated(256 << 20, 11), move |n| {
            count.fetch_add(n, Ordering::Relaxed);
        });
        let mut body = (self.encode)(input);
        let mut taken = 0;
        while taken < 4 << 20 {
            let chunk = body.next().await.expect("more output").expect("no error");
            assert!(chunk.len() <= CHUNK, "a chunk of {} bytes", chunk.len());
            taken += chunk.len() as u64;
        }
        // Time for a stage that does not wait to be asked.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let ahead = pulled.load(Ordering::Relaxed).saturating_sub(taken);
        assert!(ahead <= AHEAD, "read {ahead} bytes ahead of the reader");
    }

    /// What shrinks to little must come back in small pieces.
    pub(super) async fn expansion_is_bounded(&self) {
        let zeros = Bytes::from(vec![0_u8; 32 << 20]);
        let coded = self.encoded(&zeros).await;
        let mut body = (self.decode)(chunked(coded, BLOCK));
        let mut total = 0;
        while let Some(chunk) = body.next().await {
            let chunk = chunk.expect("no error");
            assert!(chunk.len() <= CHUNK, "a chunk of {} bytes", chunk.len());
            total += chunk.len();
        }
        assert_eq!(total, zeros.len(), "all zeros came back");
    }
}
