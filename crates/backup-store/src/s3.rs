//! Buckets that speak S3.

mod uploads;

use std::str::FromStr as _;
use std::sync::Arc;

use backup_core::error::{ErrorKind, PortError};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::{ClientOptions, RetryConfig};
use secrecy::ExposeSecret as _;
use url::Url;

use crate::bucket::Connected;
use crate::config::{BucketConfig, S3Config, ServerEncryption};
use crate::connector::Connector;
use crate::error::port_error;

pub(crate) use uploads::Uploads;

pub(crate) fn connect(
    config: &BucketConfig,
    s3: &S3Config,
    client: &ClientOptions,
    retry: RetryConfig,
) -> Result<Connected, PortError> {
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&config.bucket)
        .with_region(&s3.region)
        .with_access_key_id(s3.access_key_id.expose_secret())
        .with_secret_access_key(s3.secret_access_key.expose_secret())
        .with_virtual_hosted_style_request(s3.virtual_hosted_style)
        // One object at a time is deleted, and not every server has the bulk request.
        .with_disable_bulk_delete(true)
        .with_client_options(client.clone())
        .with_http_connector(Connector)
        .with_retry(retry);
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/'));
    }
    if let Some(token) = &s3.session_token {
        builder = builder.with_token(token.expose_secret());
    }
    if s3.checksum {
        builder = builder.with_checksum_algorithm(Checksum::SHA256);
    }
    for (key, value) in encryption(&s3.encryption) {
        let key = AmazonS3ConfigKey::from_str(key);
        let key = key.map_err(|e| port_error("configure bucket", &config.bucket, &e))?;
        builder = builder.with_config(key, value);
    }
    let built = builder.build();
    let built = built.map_err(|e| port_error("configure bucket", &config.bucket, &e))?;
    let (store, bucket) = (Arc::new(built), address(config, s3)?);
    let uploads = Uploads::new(Arc::clone(&store), client, bucket, &s3.region)?;
    Ok(Connected {
        store,
        uploads: Some(Arc::new(uploads)),
    })
}

/// The bucket's own address.
fn address(config: &BucketConfig, s3: &S3Config) -> Result<Url, PortError> {
    let (bucket, region) = (&config.bucket, &s3.region);
    let text = match (&config.endpoint, s3.virtual_hosted_style) {
        (Some(endpoint), true) => endpoint.to_string(),
        (Some(endpoint), false) => {
            format!("{}/{bucket}", endpoint.as_str().trim_end_matches('/'))
        }
        (None, true) => format!("https://{bucket}.s3.{region}.amazonaws.com/"),
        (None, false) => format!("https://s3.{region}.amazonaws.com/{bucket}"),
    };
    Url::parse(&text).map_err(|e| {
        PortError::new(
            ErrorKind::InvalidInput,
            format!("configure bucket {bucket}"),
        )
        .with_source(e)
    })
}

/// The settings of the client, by name: its own type for them is not public.
fn encryption(encryption: &ServerEncryption) -> Vec<(&'static str, &str)> {
    const KIND: &str = "aws_server_side_encryption";
    match encryption {
        ServerEncryption::Default => vec![],
        ServerEncryption::Aes256 => vec![(KIND, "AES256")],
        ServerEncryption::Kms(None) => vec![(KIND, "aws:kms")],
        ServerEncryption::Kms(Some(key)) => {
            vec![(KIND, "aws:kms"), ("aws_sse_kms_key_id", key)]
        }
    }
}
