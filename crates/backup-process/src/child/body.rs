//! A program's standard output as a body that tells how the program ended.

use std::time::Duration;

use backup_core::body::BodyStream;
use backup_core::error::PortError;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream;
use tokio::io::AsyncReadExt as _;
use tokio::process::ChildStdout;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{StderrLog, ToolChild, ToolCommand, misbehaved};
use crate::Error;

/// Bytes asked for at once.
const CHUNK: usize = 256 << 10;
/// How long a program may live after it closed its output.
const EXIT_AFTER_EOF: Duration = Duration::from_secs(10);
/// How long its output may stay open and silent after it exited.
const EOF_AFTER_EXIT: Duration = Duration::from_secs(2);

/// Starts a program whose standard output is the body.
///
/// The body ends without an error only if the program exited with 0 and its output came to its end.
/// Otherwise the last item is a [`PortError`] with the program's last words, of the kind that `judge`
/// reads out of them. What it wrote to standard error although it succeeded comes through the
/// receiver, before the body's end.
///
/// # Errors
/// `ToolFailed` when the program cannot be started.
///
/// # Cancellation
/// The token ends the program and then the body with `Cancelled`. Dropping the body kills the
/// program.
pub fn stdout_body(
    command: &ToolCommand,
    judge: fn(Error) -> PortError,
    cancel: &CancellationToken,
) -> Result<(BodyStream, oneshot::Receiver<StderrLog>), Error> {
    let mut child = ToolChild::spawn(command)?;
    let (said, stderr) = oneshot::channel();
    let state = Reading {
        pipe: child.take_stdout(),
        child,
        buffer: BytesMut::new(),
        cancel: cancel.clone(),
        said: Some(said),
    };
    let body = stream::unfold(Some(state), move |state| async move {
        let mut state = state?;
        match state.next().await {
            Ok(Some(chunk)) => Some((Ok(chunk), Some(state))),
            Ok(None) => None,
            Err(error) => {
                state.child.terminate().await;
                Some((Err(judge(error).into_io()), None))
            }
        }
    });
    Ok((body.boxed(), stderr))
}

struct Reading {
    pipe: Option<ChildStdout>,
    child: ToolChild,
    buffer: BytesMut,
    cancel: CancellationToken,
    said: Option<oneshot::Sender<StderrLog>>,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let cancel = self.cancel.clone();
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled),
            item = self.read_or_end() => item,
        }
    }

    async fn read_or_end(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(chunk) = self.read().await? {
            return Ok(Some(chunk));
        }
        self.pipe = None;
        self.end().await
    }

    /// The next bytes, or `None` at the end of the output.
    async fn read(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(pipe) = &mut self.pipe else {
            return Ok(None);
        };
        self.buffer.reserve(CHUNK);
        let read = if self.child.status.is_none() {
            tokio::select! {
                biased;
                read = pipe.read_buf(&mut self.buffer) => Some(read),
                status = self.child.wait_status() => {
                    // Why it failed matters more than the rest of what it wrote.
                    if !status?.success() {
                        return Ok(None);
                    }
                    None
                }
            }
        } else {
            None
        };
        let read = match read {
            Some(read) => read,
            // Exited: all it wrote is in the pipe already, unless a grandchild has it too.
            None => tokio::time::timeout(EOF_AFTER_EXIT, pipe.read_buf(&mut self.buffer))
                .await
                .map_err(|_| misbehaved(self.child.name(), "exited but left its output open"))?,
        };
        let read = read.map_err(|source| Error::ToolIo {
            tool: self.child.name().to_owned(),
            source,
        })?;
        Ok((read > 0).then(|| self.buffer.split().freeze()))
    }

    async fn end(&mut self) -> Result<Option<Bytes>, Error> {
        let exit = tokio::time::timeout(EXIT_AFTER_EOF, self.child.wait())
            .await
            .map_err(|_| misbehaved(self.child.name(), "closed its output but did not exit"))??;
        let stderr = exit.into_result()?;
        if let Some(said) = self.said.take() {
            // Nobody need listen.
            let _ = said.send(stderr);
        }
        Ok(None)
    }
}
