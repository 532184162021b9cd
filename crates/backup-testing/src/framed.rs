//! The format of the fake codecs: a mark, changed bytes, and a trailer of length and sum.

use std::io;

use backup_core::body::BodyStream;
use backup_core::error::{ErrorKind, PortError};
use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt};

pub(crate) const MARK: usize = 8;
const TRAILER: usize = 16;

#[derive(Debug, Clone, Copy)]
struct Sum {
    bytes: u64,
    hash: u64,
}

impl Sum {
    fn new() -> Self {
        Self {
            bytes: 0,
            hash: 0xcbf2_9ce4_8422_2325,
        }
    }

    fn update(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        for byte in chunk {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn trailer(self) -> [u8; TRAILER] {
        let mut trailer = [0; TRAILER];
        trailer[..8].copy_from_slice(&self.bytes.to_le_bytes());
        trailer[8..].copy_from_slice(&self.hash.to_le_bytes());
        trailer
    }
}

fn mask(chunk: &[u8], mask: u8) -> Bytes {
    chunk.iter().map(|byte| byte ^ mask).collect()
}

/// Why a mark does not fit: what to report for the one that was found.
pub(crate) type Mismatch = fn(&[u8]) -> ErrorKind;

/// `mark`, the body under `mask`, the trailer.
pub(crate) fn encode(body: BodyStream, mark: [u8; MARK], with: u8) -> BodyStream {
    let head = stream::once(async move { Ok(Bytes::copy_from_slice(&mark)) });
    let coded = stream::unfold(
        (Some(body), Sum::new()),
        move |(body, mut sum)| async move {
            let mut body = body?;
            match body.next().await {
                Some(Ok(chunk)) => {
                    sum.update(&chunk);
                    Some((Ok(mask(&chunk, with)), (Some(body), sum)))
                }
                Some(Err(e)) => Some((Err(e), (None, sum))),
                None => Some((Ok(Bytes::copy_from_slice(&sum.trailer())), (None, sum))),
            }
        },
    );
    head.chain(coded).boxed()
}

struct Decoder {
    body: Option<BodyStream>,
    mark: [u8; MARK],
    with: u8,
    mismatch: Mismatch,
    marked: bool,
    held: BytesMut,
    sum: Sum,
}

/// The content of [`encode`]; `Corrupt` as the last item when anything is missing or changed.
pub(crate) fn decode(
    body: BodyStream,
    mark: [u8; MARK],
    with: u8,
    mismatch: Mismatch,
) -> BodyStream {
    let decoder = Decoder {
        body: Some(body),
        mark,
        with,
        mismatch,
        marked: false,
        held: BytesMut::new(),
        sum: Sum::new(),
    };
    stream::unfold(decoder, |mut decoder| async move {
        let item = decoder.next().await?;
        if item.is_err() {
            decoder.body = None;
        }
        Some((item, decoder))
    })
    .boxed()
}

impl Decoder {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            let body = self.body.as_mut()?;
            match body.next().await {
                Some(Ok(chunk)) => self.held.extend_from_slice(&chunk),
                Some(Err(e)) => return Some(Err(e)),
                None => {
                    self.body = None;
                    return self.end().err().map(Err);
                }
            }
            if !self.marked && self.held.len() >= MARK {
                let mark = self.held.split_to(MARK);
                if mark[..] != self.mark {
                    return Some(Err(failed((self.mismatch)(&mark))));
                }
                self.marked = true;
            }
            // The trailer is known only when the end is: the last bytes wait for it.
            if self.marked && self.held.len() > TRAILER {
                let ready = self.held.split_to(self.held.len() - TRAILER);
                let content = mask(&ready, self.with);
                self.sum.update(&content);
                return Some(Ok(content));
            }
        }
    }

    fn end(&self) -> io::Result<()> {
        if self.marked && self.held[..] == self.sum.trailer() {
            Ok(())
        } else {
            Err(failed(ErrorKind::Corrupt))
        }
    }
}

fn failed(kind: ErrorKind) -> io::Error {
    PortError::new(kind, "framed content is cut or changed").into_io()
}
