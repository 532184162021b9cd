//! Buckets of Google Cloud Storage.

use std::sync::Arc;

use backup_core::error::{ErrorKind, PortError};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use secrecy::ExposeSecret as _;

use crate::config::{BucketConfig, GcsConfig};
use crate::connector::Connector;

pub(crate) fn connect(
    config: &BucketConfig,
    gcs: &GcsConfig,
    client: ClientOptions,
    retry: RetryConfig,
) -> Result<Arc<dyn ObjectStore>, PortError> {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&config.bucket)
        .with_service_account_key(gcs.service_account.expose_secret())
        .with_client_options(client)
        .with_http_connector(Connector)
        .with_retry(retry);
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_base_url(endpoint.as_str().trim_end_matches('/'));
    }
    // The cause is left out: it may quote what stands in the place of the key.
    let built = builder.build().map_err(|_| {
        let what = format!("configure bucket {}", config.bucket);
        PortError::new(ErrorKind::InvalidInput, what)
            .with_hint("service_account must be the JSON key of a service account, as downloaded")
    })?;
    Ok(Arc::new(built))
}
