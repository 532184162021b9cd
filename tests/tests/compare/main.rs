//! What the comparison after a restore sees: every change that is made to the restored database
//! between the load and the comparison, and nothing where there is none.
//!
//! The program offers no place to change anything there, so these tests use its ports.

mod content;
mod definitions;
mod space;

use std::sync::Arc;

use anyhow::{Context as _, Result};
use backup_compress::Algorithm;
use backup_core::catalog::Selector;
use backup_core::engine::{BackupReader, CompareReport, Engine, compare};
use backup_core::restorer::{
    Ownership, PartReader, Purpose, RestoreRequest, RestoreSession, Restorer as _, Selection,
};
use backup_e2e::pg::{Cluster, SUPERUSER};
use backup_e2e::vault::{Vault, id_of};
use backup_pg_process::{ConnectionConfig, PgRestorer, PgRestorerConfig, ToolLocator};
use backup_store::{StoreConfig, StoreOptions};
use backup_testing::FixedClock;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// A restored database that has not been compared yet.
struct Restored<'a> {
    cluster: &'a Cluster,
    /// Its name.
    database: String,
    reader: Arc<BackupReader>,
    session: Box<dyn RestoreSession>,
    runtime: Runtime,
    // The backup lives as long as it is read.
    _vault: Vault,
}

impl<'a> Restored<'a> {
    /// Backs `database` up and restores it.
    fn new(cluster: &'a Cluster, database: &str) -> Result<Self> {
        let vault = Vault::local(cluster)?;
        let backup = vault.back_up(database, &["--no-encryption"])?;
        let target = format!("{database}_restored");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let (reader, session) = runtime.block_on(async {
            let reader = open(&vault, id_of(&backup)?).await?;
            let session = load(cluster, &target, Arc::clone(&reader)).await?;
            anyhow::Ok((reader, session))
        })?;
        Ok(Self {
            cluster,
            database: target,
            reader,
            session,
            runtime,
            _vault: vault,
        })
    }

    /// Changes it.
    fn change(&self, sql: &str) -> Result<()> {
        let changed = self.cluster.psql(&self.database, sql);
        changed.map(drop).with_context(|| sql.to_owned())
    }

    /// Compares it with the backup.
    fn compare(&self) -> Result<CompareReport> {
        let cancel = CancellationToken::new();
        let reading = self.session.read_back(&cancel);
        let found = self.runtime.block_on(reading)?;
        let facts = self.reader.facts();
        Ok(compare(&facts.within(&self.session.scope()), &found))
    }
}

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        // The cluster ends with the test anyway.
        let _ = self.runtime.block_on(self.session.discard());
    }
}

async fn open(vault: &Vault, id: &str) -> Result<Arc<BackupReader>> {
    let config = StoreConfig::parse(&vault.url, &StoreOptions::default())?;
    let clock = Arc::new(FixedClock::default());
    let mut engine = Engine::new(backup_store::open(&config)?, clock);
    for algorithm in Algorithm::ALL {
        engine = engine.with_compressor(algorithm.compressor(0));
    }
    let manifest = engine
        .catalog()
        .find(&Selector::Prefix(id.to_owned()), None)
        .await?;
    Ok(engine.open(manifest).await?)
}

async fn load(
    cluster: &Cluster,
    target: &str,
    reader: Arc<BackupReader>,
) -> Result<Box<dyn RestoreSession>> {
    let restorer = PgRestorer::new(config(cluster));
    let request = request(target);
    let cancel = CancellationToken::new();
    let session = restorer
        .create(&request, reader as Arc<dyn PartReader>, &cancel)
        .await?;
    session.load(&cancel).await?;
    Ok(session)
}

fn config(cluster: &Cluster) -> PgRestorerConfig {
    let mut connection = ConnectionConfig::new(cluster.host(), SUPERUSER);
    connection.port = cluster.port();
    let tools = ToolLocator::only_in([cluster.bin_dir().to_owned()]);
    PgRestorerConfig::new(connection, tools)
}

fn request(target: &str) -> RestoreRequest {
    RestoreRequest {
        target_database: target.to_owned(),
        purpose: Purpose::Plain,
        jobs: 2,
        ownership: Ownership::Keep,
        selection: Selection::default(),
    }
}
