//! An inspector that knows the parts of a scripted dumper by their content.

use std::sync::{Arc, Mutex};

use backup_core::body::BodyStream;
use backup_core::dumper::PartStream;
use backup_core::error::{ErrorKind, PortError};
use backup_core::facts::TableName;
use backup_core::inspector::{Inspector, RowFormat};
use backup_core::manifest::PartFormat;
use bytes::Bytes;
use futures::stream::{self, StreamExt};

use crate::lock;
use crate::scripted_dumper::{ScriptedDumper, ScriptedPart};

/// Reports for each content what the dumper reported for it; any other content is `Corrupt`.
#[derive(Debug, Clone)]
pub struct ScriptedInspector {
    parts: Arc<Vec<ScriptedPart>>,
}

impl ScriptedInspector {
    /// Knows the parts of `dumper`.
    #[must_use]
    pub fn of(dumper: &ScriptedDumper) -> Self {
        Self {
            parts: Arc::new(dumper.parts().to_vec()),
        }
    }
}

impl Inspector for ScriptedInspector {
    fn inspect(&self, _format: PartFormat, body: BodyStream) -> PartStream {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let parts = Arc::clone(&self.parts);
        let collected = Arc::clone(&seen);
        let body = body.inspect(move |item| {
            if let Ok(chunk) = item {
                lock(&collected).extend_from_slice(chunk);
            }
        });
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let body = stream::unfold(Some((body.boxed(), sender)), move |state| {
            let seen = Arc::clone(&seen);
            let parts = Arc::clone(&parts);
            async move {
                let (mut body, sender) = state?;
                match body.next().await {
                    Some(Ok(chunk)) => Some((Ok(chunk), Some((body, sender)))),
                    Some(Err(e)) => Some((Err(e), None)),
                    None => {
                        let content = lock(&seen);
                        match parts.iter().find(|part| part.content == content[..]) {
                            Some(part) => {
                                let _ = sender.send(part.report.clone());
                                None
                            }
                            None => Some((Err(unknown().into_io()), None)),
                        }
                    }
                }
            }
        });
        PartStream {
            body: body.boxed(),
            report: Box::pin(async move { receiver.await.map_err(|_| unknown()) }),
        }
    }

    fn rows(&self, table: &TableName, _format: RowFormat, body: BodyStream) -> BodyStream {
        let head = Bytes::from(format!("rows of {table}:\n"));
        stream::once(async move { Ok(head) }).chain(body).boxed()
    }
}

fn unknown() -> PortError {
    PortError::new(ErrorKind::Corrupt, "content is none of the scripted parts")
}
