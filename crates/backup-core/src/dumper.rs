//! Taking a dump: a plan of parts, each a byte stream.

use std::fmt;

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::body::BodyStream;
use crate::error::PortError;
use crate::facts::PartFacts;
use crate::manifest::{PartFormat, PartKind, PartName};

/// What to dump and how hard.
#[derive(Debug, Clone)]
pub struct DumpRequest {
    /// How many parts the engine will read at once: what a plan is made for.
    pub jobs: usize,
}

/// What a dump session found out about its source.
#[derive(Debug, Clone)]
pub struct SourceFacts {
    /// The database's name.
    pub database: String,
    /// Version of the server.
    pub server_version: String,
    /// Version of the tool.
    pub tool_version: String,
    /// Whether a filter leaves something out.
    pub filtered: bool,
    /// What the restorer of the same kind needs; confidential.
    pub details: serde_json::Value,
    /// What is not as it should be.
    pub warnings: Vec<String>,
}

/// One part to be dumped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartPlan {
    /// Its name.
    pub name: PartName,
    /// What it holds.
    pub kind: PartKind,
    /// The form of its bytes.
    pub format: PartFormat,
    /// Raw bytes it is likely to have; sizes the upload.
    pub estimated_bytes: u64,
}

/// A body and what is known when it has passed.
pub struct PartStream {
    /// The bytes. Ends without an error only if the dump of this part is complete: the tool
    /// exited with 0 and what passed was well-formed.
    pub body: BodyStream,
    /// What passed; ready when the body has ended without an error.
    pub report: BoxFuture<'static, Result<PartReport, PortError>>,
}

impl fmt::Debug for PartStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartStream").finish_non_exhaustive()
    }
}

/// What a part turned out to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartReport {
    /// Its content.
    pub facts: PartFacts,
    /// What the tool said although it succeeded.
    pub warnings: Vec<String>,
}

/// Takes dumps of one source.
#[async_trait]
pub trait Dumper: fmt::Debug + Send + Sync {
    /// Fixes the moment that all parts will show, and plans them.
    ///
    /// # Errors
    /// `ToolMissing` before any work when no tool fits the server; `PermissionDenied`,
    /// `Unavailable` or `ToolFailed` from the source. Nothing is held after an error.
    async fn open(
        &self,
        request: &DumpRequest,
        cancel: &CancellationToken,
    ) -> Result<Box<dyn DumpSession>, PortError>;
}

/// One dump in progress.
#[async_trait]
pub trait DumpSession: fmt::Debug + Send + Sync {
    /// What is being dumped.
    fn source(&self) -> &SourceFacts;

    /// The parts, in the order in which they should start.
    fn parts(&self) -> &[PartPlan];

    /// Starts one part. May be called at the same time for several, and again for one whose
    /// first try failed: every try shows the same moment.
    ///
    /// # Errors
    /// When it cannot start. Later failures are the body's last item.
    ///
    /// # Cancellation
    /// The token ends the part's processes and then its body with an error.
    async fn part(
        &self,
        part: &PartPlan,
        cancel: &CancellationToken,
    ) -> Result<PartStream, PortError>;

    /// Releases what the session holds. Called after the last part, also after failures.
    ///
    /// # Errors
    /// When the moment could not be held until now, so that parts may not fit together.
    async fn finish(&self) -> Result<(), PortError>;
}
