//! Fixtures for the end-to-end tests: real servers that live as long as a test needs them.
//!
//! The servers themselves come from `scripts/test-servers`, which prints where they are; those
//! lines are the environment that this crate reads (`PGB_TEST_PG14` … `PGB_TEST_PG18`,
//! `PGB_TEST_WEED`, `PGB_TEST_PGBOUNCER`, `PGB_TEST_PROMTOOL`, `PGB_TEST_CHROMIUM`, `PGB_TEST_CHROMEDRIVER`,
//! `PGB_TEST_SCHEMATHESIS`, `PGB_TEST_SMTP`, `PGB_TEST_MINIO`, `PGB_TEST_AZURITE`, `PGB_TEST_HADOLINT`,
//! `PGB_TEST_COMPOSE`, `PGB_TEST_AIRFLOW`, `PGB_TEST_KUBERNETES_VALIDATE`). A test that needs one says
//! `#[ignore = "needs servers: run ./scripts/test"]`, so that a plain `cargo test` reports it as
//! ignored and never as passed; `scripts/test` runs the ignored ones too, and there a server that
//! is missing fails the test. Tests that need `MinIO` have `minio` in their name, because a
//! machine without Go cannot have it, and those that need Azurite have `azurite`, because of Node.
//!
//! Nothing outlives the test process: a fixture stops its server when dropped, and the kernel
//! stops it when the process dies first.
//!
//! ```no_run
//! use backup_e2e::{pg, sample};
//!
//! # fn main() -> anyhow::Result<()> {
//! let cluster = pg::Cluster::shared(18)?;
//! let database = cluster.fresh_db("shop")?;
//! cluster.psql(&database, &sample::everything_sql(18))?;
//! let before = cluster.contents(&database)?;
//! // … back up, restore into `restored` …
//! # let restored = database.clone();
//! assert_eq!(before, cluster.contents(&restored)?);
//! # Ok(())
//! # }
//! ```

pub mod azure;
pub mod bot_api;
pub mod browser;
pub mod canary;
pub mod checks;
pub mod cli;
pub mod crash;
pub mod crowd;
pub mod drills;
pub mod evidence;
pub mod fake_tools;
pub mod fault;
pub mod golden;
pub mod http;
pub mod mailbox;
pub mod pg;
pub mod pooler;
pub mod random_db;
pub mod receiver;
pub mod redis;
pub mod reliability;
pub mod s3;
pub mod s3_fault;
pub mod sample;
pub mod scene;
pub mod sweep;
pub mod vault;

mod binaries;
mod child;
mod ports;
mod scratch;
mod servers;

pub use binaries::{
    airflow, binary, compose_reader, hadolint, kubernetes_validate, promtool, schemathesis,
};
pub use ports::free_port;
