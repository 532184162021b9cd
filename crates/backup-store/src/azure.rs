//! Containers of Azure Blob Storage.

use std::sync::Arc;

use backup_core::error::{ErrorKind, PortError};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use secrecy::ExposeSecret as _;

use crate::config::{AzureConfig, AzureCredential, BucketConfig};
use crate::connector::Connector;

pub(crate) fn connect(
    config: &BucketConfig,
    azure: &AzureConfig,
    client: ClientOptions,
    retry: RetryConfig,
) -> Result<Arc<dyn ObjectStore>, PortError> {
    let mut builder = MicrosoftAzureBuilder::new()
        .with_account(&azure.account)
        .with_container_name(&config.bucket)
        .with_client_options(client)
        .with_http_connector(Connector)
        .with_retry(retry);
    builder = match &azure.credential {
        AzureCredential::AccessKey(key) => builder.with_access_key(key.expose_secret()),
        AzureCredential::SasToken(token) => {
            builder.with_config(AzureConfigKey::SasKey, token.expose_secret())
        }
    };
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/').to_owned());
    }
    // The cause is left out: it may quote a piece of the secret.
    let built = builder.build().map_err(|_| {
        let what = format!("configure container {}", config.bucket);
        PortError::new(ErrorKind::InvalidInput, what)
            .with_hint("check the form of the account's name and of its key or signature")
    })?;
    Ok(Arc::new(built))
}
