//! Moves a body through a codec.

use std::io;

use async_compression::codecs::{DecodeV2, EncodeV2};
use async_compression::core::util::{PartialBuffer, WriteBuffer};
use backup_core::body::BodyStream;
use backup_core::error::{ErrorKind, PortError};
use bytes::{Buf, Bytes};
use futures::stream::{self, StreamExt};

/// Size of the chunks that leave a codec, the last one excepted.
const CHUNK_BYTES: usize = 256 * 1024;

/// Compresses `body`. The codec finishes its stream only after the body's clean end; an
/// error of the body is the last item, unchanged.
pub(crate) fn encode<E>(body: BodyStream, name: &'static str, encoder: E) -> BodyStream
where
    E: EncodeV2 + Send + 'static,
{
    let encoding = Encoding {
        input: Input::new(body),
        output: Output::default(),
        encoder,
        name,
        finished: false,
    };
    stream::try_unfold(encoding, |mut encoding| async move {
        Ok(encoding.next().await?.map(|chunk| (chunk, encoding)))
    })
    .boxed()
}

/// Decompresses `body`. Whatever the codec does not like, and an end in the middle of
/// what it calls a member or frame, ends the stream with a `Corrupt` error; an error of
/// the body is the last item, unchanged.
pub(crate) fn decode<D>(body: BodyStream, name: &'static str, decoder: D) -> BodyStream
where
    D: DecodeV2 + Send + 'static,
{
    let decoding = Decoding {
        input: Input::new(body),
        output: Output::default(),
        decoder,
        name,
        member: Member::NotBegun,
    };
    stream::try_unfold(decoding, |mut decoding| async move {
        Ok(decoding.next().await?.map(|chunk| (chunk, decoding)))
    })
    .boxed()
}

struct Encoding<E> {
    input: Input,
    output: Output,
    encoder: E,
    name: &'static str,
    finished: bool,
}

impl<E: EncodeV2> Encoding<E> {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while !self.finished && !self.output.is_full() {
            self.input.fill().await?;
            self.step().map_err(|source| {
                let message = format!("{} encoder failed", self.name);
                PortError::new(ErrorKind::Internal, message)
                    .with_source(source)
                    .into_io()
            })?;
        }
        Ok(self.output.take())
    }

    fn step(&mut self) -> io::Result<()> {
        let Self {
            input,
            output,
            encoder,
            ..
        } = self;
        if input.chunk.is_empty() {
            self.finished = output.write(|room| encoder.finish(room))?;
            return Ok(());
        }
        input.read(|chunk| output.write(|room| encoder.encode(chunk, room)))
    }
}

/// Where the decoder is in the sequence of members (gzip) or frames (zstd).
#[derive(PartialEq, Eq)]
enum Member {
    NotBegun,
    Inside,
    Ended,
    /// No more input will come and nothing is missing.
    Last,
}

struct Decoding<D> {
    input: Input,
    output: Output,
    decoder: D,
    name: &'static str,
    member: Member,
}

impl<D: DecodeV2> Decoding<D> {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while self.member != Member::Last && !self.output.is_full() {
            self.input.fill().await?;
            if self.input.chunk.is_empty() && self.member == Member::Ended {
                self.member = Member::Last;
            } else {
                self.step()?;
            }
        }
        Ok(self.output.take())
    }

    fn step(&mut self) -> io::Result<()> {
        let Self {
            input,
            output,
            decoder,
            ..
        } = self;
        let at_end = input.chunk.is_empty();
        let before = (input.chunk.len(), output.filled);
        let begun = if self.member == Member::Ended {
            decoder.reinit()
        } else {
            Ok(())
        };
        let decoded = begun
            .and_then(|()| input.read(|chunk| output.write(|room| decoder.decode(chunk, room))));
        match decoded {
            Ok(true) => self.member = Member::Ended,
            // The decoder may still hold output, but without any more the rest is missing.
            Ok(false) if before == (input.chunk.len(), output.filled) => {
                return Err(self.corrupt(at_end, None));
            }
            Ok(false) => self.member = Member::Inside,
            Err(source) => return Err(self.corrupt(at_end, Some(source))),
        }
        Ok(())
    }

    fn corrupt(&self, at_end: bool, source: Option<io::Error>) -> io::Error {
        let name = self.name;
        let message = match (at_end, &self.member) {
            (true, Member::NotBegun) => format!("{name} stream is empty"),
            (true, _) => format!("{name} stream is cut short"),
            (false, _) => format!("{name} stream is damaged"),
        };
        let error = PortError::new(ErrorKind::Corrupt, message);
        match source {
            Some(source) => error.with_source(source),
            None => error,
        }
        .into_io()
    }
}

/// A body and what is left of its current chunk.
struct Input {
    body: BodyStream,
    chunk: Bytes,
    ended: bool,
}

impl Input {
    fn new(body: BodyStream) -> Self {
        Self {
            body,
            chunk: Bytes::new(),
            ended: false,
        }
    }

    /// Gets the next chunk when there is none; none afterwards means the clean end.
    async fn fill(&mut self) -> io::Result<()> {
        while self.chunk.is_empty() && !self.ended {
            // A codec may swallow gigabytes before it has a chunk of output: let others run.
            tokio::task::coop::consume_budget().await;
            match self.body.next().await {
                Some(chunk) => self.chunk = chunk?,
                None => self.ended = true,
            }
        }
        Ok(())
    }

    fn read<T>(&mut self, read: impl FnOnce(&mut PartialBuffer<&[u8]>) -> T) -> T {
        let mut unread = PartialBuffer::new(&self.chunk[..]);
        let result = read(&mut unread);
        let consumed = unread.written_len();
        self.chunk.advance(consumed);
        result
    }
}

/// The chunk that is being filled.
#[derive(Default)]
struct Output {
    buffer: Vec<u8>,
    filled: usize,
}

impl Output {
    fn is_full(&self) -> bool {
        self.filled == CHUNK_BYTES
    }

    fn write<T>(&mut self, write: impl FnOnce(&mut WriteBuffer<'_>) -> T) -> T {
        if self.buffer.is_empty() {
            self.buffer = vec![0; CHUNK_BYTES];
        }
        let mut room = WriteBuffer::new_initialized(&mut self.buffer[self.filled..]);
        let result = write(&mut room);
        self.filled += room.written_len();
        result
    }

    /// What is there, if anything.
    fn take(&mut self) -> Option<Bytes> {
        let mut chunk = std::mem::take(&mut self.buffer);
        chunk.truncate(std::mem::take(&mut self.filled));
        // The last chunk may be a few bytes: do not keep a large buffer alive for it.
        chunk.shrink_to_fit();
        (!chunk.is_empty()).then(|| chunk.into())
    }
}
