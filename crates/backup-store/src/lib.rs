//! Where backups live: a local directory, or a bucket that speaks S3 (AWS, MinIO and others), of
//! Google Cloud Storage or of Azure Blob Storage.
//!
//! Everything on the wire is `object_store`'s; this crate adds what a backup needs beyond it:
//! uploads of any length in bounded memory that leave nothing behind when they fail, reads
//! that survive lost connections and a consumer that is slow for hours, private file modes,
//! and errors that say what to do.
//!
//! Nothing is read from the environment and no credential is ever printed.
//!
//! ```
//! use backup_store::{StoreConfig, StoreOptions, open};
//!
//! let directory = std::env::temp_dir();
//! let config = StoreConfig::parse(directory.to_str().unwrap(), &StoreOptions::default())?;
//! let store = open(&config)?;
//! assert!(store.describe().starts_with("file:///"));
//! # Ok::<(), backup_core::error::PortError>(())
//! ```
mod azure;
mod bucket;
mod cached;
mod conditions;
mod config;
mod connector;
mod download;
mod error;
mod gcs;
mod limits;
mod local;
mod objects;
mod s3;
mod source;
mod upload;

use std::sync::Arc;

use backup_core::error::PortError;
use backup_core::store::Store;

pub use cached::CachedStore;
pub use config::{
    AzureConfig, AzureCredential, BucketConfig, GcsConfig, Location, S3Config, Scheme,
    ServerEncryption, Service, StoreConfig, StoreOptions,
};
pub use limits::Limits;
pub use local::{Space, free_bytes, space};

/// Opens a store. No connection is made and nothing is created: that is for the first call.
///
/// # Errors
/// `InvalidInput` when the configuration cannot work: an unreadable CA file, an endpoint that
/// is no URL.
pub fn open(config: &StoreConfig) -> Result<Arc<dyn Store>, PortError> {
    Ok(match &config.location {
        Location::Local { root } => Arc::new(local::LocalStore::new(root.clone(), config.limits)),
        Location::Bucket(bucket) => Arc::new(bucket::BucketStore::new(bucket, config.limits)?),
    })
}
