//! Room for the database, asked for before it is made.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use backup_core::error::ErrorKind;
use backup_core::restorer::{PartReader, Restorer as _};
use backup_e2e::pg::Cluster;
use backup_e2e::vault::{Vault, id_of};
use backup_pg_process::PgRestorer;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::{config, open, request};

type Free = fn(&Path) -> Option<u64>;

/// As if the disk were nearly full, wherever it is.
fn little(directory: &Path) -> Option<u64> {
    directory.ends_with("data").then_some(3 << 20)
}

fn unknown(_: &Path) -> Option<u64> {
    None
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_database_that_does_not_fit_is_not_begun() -> Result<()> {
    let cluster = Cluster::shared(17)?;
    let vault = Vault::local(cluster)?;
    let database = cluster.fresh_db("wide")?;
    let rows = "CREATE TABLE wide AS SELECT repeat('x', 1000) AS a FROM generate_series(1, 20000)";
    cluster.psql(&database, rows)?;
    let backup = vault.back_up(&database, &["--no-encryption"])?;
    let target = format!("{database}_restored");
    let cancel = CancellationToken::new();
    Runtime::new()?.block_on(async {
        let reader = open(&vault, id_of(&backup)?).await?;
        let create = async |free_bytes: Option<Free>, socket: bool| {
            let mut config = config(cluster);
            config.free_bytes = free_bytes;
            if socket {
                config.connection.host = cluster.socket_dir().display().to_string();
            }
            let reader = Arc::clone(&reader) as Arc<dyn PartReader>;
            let restorer = PgRestorer::new(config);
            restorer.create(&request(&target), reader, &cancel).await
        };
        for socket in [true, false] {
            let error = create(Some(little), socket).await.err();
            let error = error.context("refused")?;
            assert_eq!(error.kind(), ErrorKind::Unsuitable);
            let text = error.to_string();
            // 20 MB, half as much again, and what an empty database takes.
            let words = "about 92 MiB are needed and 3 MiB are free in /";
            assert!(text.starts_with(words), "{text}");
            let hint = error.hint().unwrap_or_default();
            assert!(hint.contains("--no-space-check"), "{hint}");
            assert!(!cluster.has_db(&target)?);
        }
        for free_bytes in [None, Some(unknown as Free)] {
            let session = create(free_bytes, true).await?;
            session.discard().await?;
        }
        anyhow::Ok(())
    })
}
