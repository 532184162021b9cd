//! Embeds the engine: a dumper of one's own backs up into memory, without PostgreSQL, without a
//! child process, without a global.
//!
//! `cargo run -p backup-core --example embed`

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::backup::SourceName;
use backup_core::body::body_of;
use backup_core::catalog::ListRequest;
use backup_core::dumper::{
    DumpRequest, DumpSession, Dumper, PartPlan, PartReport, PartStream, SourceFacts,
};
use backup_core::engine::{BackupRequest, Engine};
use backup_core::error::PortError;
use backup_core::manifest::{PartFormat, PartKind, PartName};
use backup_core::restorer::PartReader;
use backup_testing::{FakeCompressor, FixedClock, MemoryStore};
use chrono::DateTime;
use futures::FutureExt;
use tokio_util::sync::CancellationToken;

/// A service that keeps its notes in memory and wants them backed up.
#[derive(Debug, Clone)]
struct Notes(Vec<&'static str>);

#[async_trait]
impl Dumper for Notes {
    async fn open(
        &self,
        _request: &DumpRequest,
        _cancel: &CancellationToken,
    ) -> Result<Box<dyn DumpSession>, PortError> {
        let text = self.0.join("\n");
        Ok(Box::new(NotesDump {
            source: SourceFacts {
                database: "notes".to_owned(),
                server_version: "1.0".to_owned(),
                tool_version: "1.0".to_owned(),
                filtered: false,
                details: serde_json::Value::Null,
                warnings: Vec::new(),
            },
            parts: vec![PartPlan {
                name: PartName::new("notes")?,
                kind: PartKind::Data,
                format: PartFormat::Opaque,
                estimated_bytes: text.len() as u64,
            }],
            text,
        }))
    }
}

/// The notes as they were when the dump began.
#[derive(Debug)]
struct NotesDump {
    source: SourceFacts,
    parts: Vec<PartPlan>,
    text: String,
}

#[async_trait]
impl DumpSession for NotesDump {
    fn source(&self) -> &SourceFacts {
        &self.source
    }

    fn parts(&self) -> &[PartPlan] {
        &self.parts
    }

    async fn part(
        &self,
        _part: &PartPlan,
        _cancel: &CancellationToken,
    ) -> Result<PartStream, PortError> {
        Ok(PartStream {
            body: body_of(self.text.clone()),
            report: futures::future::ready(Ok(PartReport::default())).boxed(),
        })
    }

    async fn finish(&self) -> Result<(), PortError> {
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Arc::new(MemoryStore::new());
    let clock = FixedClock::new(DateTime::UNIX_EPOCH);
    let engine = Engine::new(store, Arc::new(clock)).with_compressor(Arc::new(FakeCompressor));
    let request = BackupRequest {
        compression: "fake".to_owned(),
        encrypt: false,
        ..BackupRequest::new(SourceName::new("notes")?)
    };
    let notes = Notes(vec!["buy milk", "water the plants"]);
    engine
        .backup(&notes, &request, &CancellationToken::new())
        .await?;

    let listing = engine.catalog().list(&ListRequest::default()).await?;
    let reader = engine.open(listing.backups[0].clone()).await?;
    let body = PartReader::open(reader.as_ref(), &PartName::new("notes")?).await?;
    let text = backup_core::body::collect(body, 1 << 20).await?;
    assert_eq!(text, "buy milk\nwater the plants");
    Ok(())
}
