//! Age files into bodies.

use std::io;
use std::iter;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use age::stream::StreamReader;
use age::{DecryptError, Decryptor, x25519};
use backup_core::body::BodyStream;
use backup_core::error::{BoxError, ErrorKind, PortError};
use bytes::{Bytes, BytesMut};
use futures::io::AsyncReadExt;
use futures::stream::{self, IntoAsyncRead, StreamExt, TryStreamExt};

/// age's own block: what one read gives at most.
const BLOCK_BYTES: usize = 64 * 1024;

/// An honest header is a few hundred bytes; parsing one takes time quadratic in its length.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// The header's last line starts like this.
const HEADER_END: &[u8] = b"\n--- ";

type Source = IntoAsyncRead<BodyStream>;

/// Decrypts `body` with `identity`.
///
/// Only whole, authenticated blocks come out. The end is clean only if age's own last
/// block was there and nothing behind it. An error of the body is the last item, unchanged.
pub(crate) fn decrypt(body: BodyStream, identity: x25519::Identity) -> BodyStream {
    let body_error = BodyError::default();
    let body = body_error.watch(body);
    let blocks = async move {
        let reader = match open(body, &identity).await {
            Ok(reader) => reader,
            Err(error) => return Err(body_error.or(error)),
        };
        Ok(stream::try_unfold(
            (reader, body_error),
            |(mut reader, body_error)| async move {
                match next_block(&mut reader).await {
                    Ok(block) => Ok(block.map(|block| (block, (reader, body_error)))),
                    Err(error) => Err(body_error.or(error)),
                }
            },
        ))
    };
    stream::once(blocks).try_flatten().boxed()
}

async fn open(
    mut body: BodyStream,
    identity: &x25519::Identity,
) -> Result<StreamReader<Source>, PortError> {
    let beginning = read_beginning(&mut body).await?;
    let whole = stream::once(async { Ok(beginning) }).chain(body).boxed();
    let decryptor = Decryptor::new_async_buffered(whole.into_async_read())
        .await
        .map_err(not_decrypted)?;
    let identity: &dyn age::Identity = identity;
    decryptor
        .decrypt_async(iter::once(identity))
        .map_err(not_decrypted)
}

/// The body's first bytes, with all of the header.
async fn read_beginning(body: &mut BodyStream) -> Result<Bytes, PortError> {
    let mut beginning = BytesMut::new();
    loop {
        let searched = &beginning[..beginning.len().min(MAX_HEADER_BYTES)];
        if memchr::memmem::find(searched, HEADER_END).is_some() {
            return Ok(beginning.freeze());
        }
        if beginning.len() >= MAX_HEADER_BYTES {
            return Err(PortError::new(
                ErrorKind::Corrupt,
                "object does not begin like an age file",
            ));
        }
        match body.next().await {
            Some(chunk) => beginning.extend_from_slice(&chunk.map_err(cut_short)?),
            None => return Err(cut_short(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

async fn next_block(reader: &mut StreamReader<Source>) -> Result<Option<Bytes>, PortError> {
    let mut block = vec![0; BLOCK_BYTES];
    let length = reader.read(&mut block).await.map_err(|source| {
        if source.kind() == io::ErrorKind::UnexpectedEof {
            cut_short(source)
        } else {
            damaged(source)
        }
    })?;
    block.truncate(length);
    Ok((!block.is_empty()).then(|| block.into()))
}

fn not_decrypted(error: DecryptError) -> PortError {
    match error {
        DecryptError::NoMatchingKeys => PortError::new(
            ErrorKind::PermissionDenied,
            "the backup's key does not fit this object",
        ),
        DecryptError::Io(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
            cut_short(source)
        }
        other => damaged(other),
    }
}

fn cut_short(source: io::Error) -> PortError {
    PortError::new(ErrorKind::Corrupt, "encrypted object is cut short").with_source(source)
}

fn damaged(source: impl Into<BoxError>) -> PortError {
    PortError::new(ErrorKind::Corrupt, "encrypted object is damaged").with_source(source)
}

/// Keeps an error of the body aside, so that on its way through age it is neither changed
/// nor taken for damage.
#[derive(Clone, Default)]
struct BodyError(Arc<Mutex<Option<io::Error>>>);

impl BodyError {
    fn watch(&self, body: BodyStream) -> BodyStream {
        let aside = self.clone();
        body.map_err(move |error| {
            *aside.slot() = Some(error);
            io::Error::other("the body failed")
        })
        .boxed()
    }

    fn or(&self, error: PortError) -> io::Error {
        self.slot().take().unwrap_or_else(|| error.into_io())
    }

    fn slot(&self) -> MutexGuard<'_, Option<io::Error>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
