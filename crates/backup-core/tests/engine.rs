//! The engine against fakes: what is published, and what is left when something fails.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

#[path = "engine/audit.rs"]
mod audit;
#[path = "engine/backup.rs"]
mod backup;
#[path = "engine/binding.rs"]
mod binding;
#[path = "engine/catalog.rs"]
mod catalog;
#[path = "engine/copy.rs"]
mod copy;
#[path = "engine/doctor.rs"]
mod doctor;
#[path = "engine/drill.rs"]
mod drill;
#[path = "engine/expire.rs"]
mod expire;
#[path = "engine/expire_leased.rs"]
mod expire_leased;
#[path = "engine/fan_out.rs"]
mod fan_out;
#[path = "engine/history.rs"]
mod history;
#[path = "engine/interrupted.rs"]
mod interrupted;
#[path = "engine/lease.rs"]
mod lease;
#[path = "engine/rekey.rs"]
mod rekey;
#[path = "engine/replace.rs"]
mod replace;
#[path = "engine/restore.rs"]
mod restore;
#[path = "engine/verify.rs"]
mod verify;

use std::sync::Arc;
use std::time::Duration;

use backup_core::backup::SourceName;
use backup_core::engine::{BackupOutcome, BackupRequest, Engine};
use backup_core::error::Error;
use backup_core::facts::{ContentHash, Fingerprint, PartFacts, TableFacts, TableName};
use backup_core::lease::{GivenUp, LeaseSettings};
use backup_core::run_record::Who;
use backup_core::store::Store;
use backup_testing::{
    FakeCipher, FakeCompressor, FakeProcesses, FixedClock, MemoryStore, ScriptedDumper,
    ScriptedPart, TestObserver, bodies,
};
use chrono::{TimeZone, Utc};
use tokio_util::sync::CancellationToken;

/// One memory store with an engine over it, or over what is wrapped around it.
struct Bench {
    memory: Arc<MemoryStore>,
    engine: Engine,
    observer: TestObserver,
    clock: FixedClock,
}

impl Bench {
    fn new() -> Self {
        Self::over(MemoryStore::new(), |memory| memory)
    }

    fn over(memory: MemoryStore, wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) -> Self {
        let memory = Arc::new(memory);
        let store = wrap(Arc::clone(&memory) as Arc<dyn Store>);
        let observer = TestObserver::default();
        let clock = FixedClock::new(Utc.with_ymd_and_hms(2026, 2, 5, 3, 0, 0).unwrap());
        let engine = Engine::new(store, Arc::new(clock.clone()))
            .with_compressor(Arc::new(FakeCompressor))
            .with_cipher(Arc::new(FakeCipher::new(&["alice"], &["alice"])))
            .with_observer(Arc::new(observer.clone()));
        Self {
            memory,
            engine,
            observer,
            clock,
        }
    }

    async fn backup(&self, dumper: &ScriptedDumper) -> Result<BackupOutcome, Error> {
        self.run(dumper, &request("app")).await
    }

    /// A backup of something that stands still.
    async fn impatient_backup(&self, dumper: &ScriptedDumper) -> Result<BackupOutcome, Error> {
        let mut request = request("app");
        request.stall_timeout = Duration::from_secs(1);
        self.run(dumper, &request).await
    }

    async fn run(
        &self,
        dumper: &ScriptedDumper,
        request: &BackupRequest,
    ) -> Result<BackupOutcome, Error> {
        let never = CancellationToken::new();
        self.engine.backup(dumper, request, &never).await
    }

    /// Takes a backup that must succeed, a minute after the one before.
    async fn good(&self) -> BackupOutcome {
        self.clock.advance(Duration::from_mins(1));
        self.backup(&dumper()).await.unwrap()
    }
}

fn source(name: &str) -> SourceName {
    SourceName::new(name).unwrap()
}

fn request(name: &str) -> BackupRequest {
    BackupRequest {
        compression: "fake".to_owned(),
        part_retry_delay: Duration::from_millis(1),
        stall_timeout: Duration::from_mins(1),
        ..BackupRequest::new(source(name))
    }
}

/// Leases of a process of its own.
fn lease_settings(pid: u32) -> LeaseSettings {
    LeaseSettings {
        who: Who {
            user: "postgres".to_owned(),
            host: format!("host-{pid}"),
        },
        processes: Arc::new(FakeProcesses::new(pid)),
        ttl: Duration::from_mins(1),
        given_up: GivenUp::default(),
    }
}

fn table(name: &str, rows: u64) -> PartFacts {
    PartFacts {
        tables: vec![TableFacts {
            table: TableName {
                schema: "public".to_owned(),
                name: name.to_owned(),
            },
            columns: "id".to_owned(),
            fingerprint: Fingerprint {
                rows,
                bytes: rows * 8,
                hash: ContentHash(u128::from(rows) * 77),
            },
        }],
        ..PartFacts::default()
    }
}

/// Two parts, the second longer than a few chunks.
fn dumper() -> ScriptedDumper {
    ScriptedDumper::new().part(small_part()).part(big_part())
}

fn small_part() -> ScriptedPart {
    ScriptedPart::new("data-0001", bodies::text(1000)).facts(table("orders", 10))
}

fn big_part() -> ScriptedPart {
    ScriptedPart::new("data-rest", bodies::random(300_000, 7)).facts(table("lines", 20))
}
