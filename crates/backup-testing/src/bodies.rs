//! Bodies and contents to feed to ports.

use std::io;

use backup_core::body::BodyStream;
use backup_core::error::{ErrorKind, PortError};
use bytes::Bytes;
use futures::stream::{self, StreamExt};

/// `len` incompressible bytes, the same for the same `seed`.
#[must_use]
pub fn random(len: usize, seed: u64) -> Bytes {
    let mut content = Vec::with_capacity(len + 8);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while content.len() < len {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let word = state.wrapping_mul(0x2545_f491_4f6c_dd1d);
        content.extend_from_slice(&word.to_le_bytes());
    }
    content.truncate(len);
    content.into()
}

/// `len` bytes of lines that compress well, as COPY text does.
#[must_use]
pub fn text(len: usize) -> Bytes {
    use std::fmt::Write as _;
    let mut content = String::with_capacity(len + 64);
    let mut row = 0_u64;
    while content.len() < len {
        let _ = writeln!(content, "{row}\tcustomer {}\t2026-02-05\t\\N", row % 97);
        row += 1;
    }
    content.truncate(len);
    content.into()
}

/// `content` in chunks of at most `chunk` bytes.
///
/// # Panics
/// When `chunk` is 0.
#[must_use]
pub fn chunked(content: impl Into<Bytes>, chunk: usize) -> BodyStream {
    assert!(chunk > 0, "a chunk has at least one byte");
    let mut rest = content.into();
    stream::iter(std::iter::from_fn(move || {
        (!rest.is_empty()).then(|| Ok(rest.split_to(chunk.min(rest.len()))))
    }))
    .boxed()
}

/// `len` bytes without holding them: one block of [`random`] bytes over and over, each copy
/// marked with its number so that no two are alike.
#[must_use]
pub fn generated(len: u64, seed: u64) -> BodyStream {
    const BLOCK: usize = 256 << 10;
    let block = random(BLOCK, seed);
    let mut sent = 0_u64;
    stream::iter(std::iter::from_fn(move || {
        let rest = usize::try_from(len - sent).unwrap_or(BLOCK).min(BLOCK);
        if rest == 0 {
            return None;
        }
        let mut copy = block.to_vec();
        copy[..8].copy_from_slice(&sent.to_le_bytes());
        copy.truncate(rest);
        sent += rest as u64;
        Some(Ok(Bytes::from(copy)))
    }))
    .boxed()
}

/// `content`, then an error of `kind`.
#[must_use]
pub fn failing(content: impl Into<Bytes>, kind: ErrorKind) -> BodyStream {
    then(
        content,
        stream::once(async move { Err(scripted(kind)) }).boxed(),
    )
}

/// `content`, then nothing for ever.
#[must_use]
pub fn stalling(content: impl Into<Bytes>) -> BodyStream {
    then(content, stream::pending().boxed())
}

/// `content`, then a panic.
///
/// # Panics
/// When it is read that far; that is its purpose.
#[must_use]
pub fn panicking(content: impl Into<Bytes>) -> BodyStream {
    let last = stream::once(async { panic!("scripted panic") });
    then(content, last.boxed())
}

fn then(content: impl Into<Bytes>, last: BodyStream) -> BodyStream {
    chunked(content, 64 << 10).chain(last).boxed()
}

/// Everything up to the end, and how it ended.
pub async fn drain(mut body: BodyStream) -> (Vec<u8>, Option<io::Error>) {
    let mut content = Vec::new();
    while let Some(item) = body.next().await {
        match item {
            Ok(chunk) => content.extend_from_slice(&chunk),
            Err(e) => return (content, Some(e)),
        }
    }
    (content, None)
}

/// The kind of an error that came out of a body; `Internal` when no port spoke.
#[must_use]
pub fn kind_of(error: io::Error) -> ErrorKind {
    PortError::from_io(error, ErrorKind::Internal, "no port error").kind()
}

/// The error that fakes report when they were told to.
pub(crate) fn scripted(kind: ErrorKind) -> io::Error {
    PortError::new(kind, SCRIPTED).into_io()
}

pub(crate) const SCRIPTED: &str = "scripted failure";
