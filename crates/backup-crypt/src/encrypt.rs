//! Bodies into age files.

use std::io::{self, Write};
use std::iter;
use std::sync::{Arc, Mutex, PoisonError};

use age::stream::StreamWriter;
use age::{Encryptor, x25519};
use backup_core::body::BodyStream;
use backup_core::error::{ErrorKind, PortError};
use bytes::Bytes;
use futures::stream::{self, StreamExt};

/// Encrypted bytes leave in chunks of at least this size, the last one excepted.
const CHUNK_BYTES: usize = 128 * 1024;

/// One block of age's STREAM: plaintext, and the same with its tag.
const BLOCK_BYTES: usize = 64 * 1024;
const STORED_BLOCK_BYTES: usize = BLOCK_BYTES + 16;

/// Encrypts `body` to `recipient`.
///
/// The last block, the one that tells a reader that nothing is missing, is written only
/// after the body's clean end. An error of the body is the last item, unchanged.
pub(crate) fn encrypt(body: BodyStream, recipient: &x25519::Recipient) -> BodyStream {
    let sink = Sink::default();
    let writer = match begin(recipient, sink.clone()) {
        Ok(writer) => writer,
        Err(error) => return stream::once(async { Err(error) }).boxed(),
    };
    let encryption = Encryption {
        body,
        pending: Bytes::new(),
        writer: Some(writer),
        sink,
    };
    stream::try_unfold(encryption, |mut encryption| async move {
        Ok(encryption.next().await?.map(|chunk| (chunk, encryption)))
    })
    .boxed()
}

fn begin(recipient: &x25519::Recipient, sink: Sink) -> io::Result<StreamWriter<Sink>> {
    let recipient: &dyn age::Recipient = recipient;
    Encryptor::with_recipients(iter::once(recipient))
        .map_err(|source| {
            PortError::new(ErrorKind::Internal, "begin an encrypted object")
                .with_source(source)
                .into_io()
        })?
        .wrap_output(sink)
}

struct Encryption {
    body: BodyStream,
    /// What of the body's last chunk is not encrypted yet.
    pending: Bytes,
    /// `None` when the last block is written.
    writer: Option<StreamWriter<Sink>>,
    sink: Sink,
}

impl Encryption {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while let Some(writer) = &mut self.writer {
            if self.sink.len() >= CHUNK_BYTES {
                break;
            }
            if self.pending.is_empty() {
                tokio::task::coop::consume_budget().await;
                match self.body.next().await {
                    Some(chunk) => self.pending = chunk?,
                    None => self.finish()?,
                }
                continue;
            }
            let length = self.pending.len().min(BLOCK_BYTES);
            writer.write_all(&self.pending.split_to(length))?;
        }
        Ok(self.sink.take())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.writer
            .take()
            .map_or(Ok(()), |writer| writer.finish().map(drop))
    }
}

/// Where the writer, which does not give access to what it writes to, leaves its output.
/// Never contended: writer and reader are one task.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn len(&self) -> usize {
        self.with(|written| written.len())
    }

    fn take(&self) -> Option<Bytes> {
        self.with(|written| (!written.is_empty()).then(|| std::mem::take(written).into()))
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|written| {
            if bytes.len() == STORED_BLOCK_BYTES {
                written.reserve(CHUNK_BYTES + STORED_BLOCK_BYTES - written.len().min(CHUNK_BYTES));
            }
            written.extend_from_slice(bytes);
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
