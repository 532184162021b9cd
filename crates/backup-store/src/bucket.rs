//! Buckets, whoever keeps them.

use std::fmt;
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::body::BodyStream;
use backup_core::error::{ErrorKind, PortError};
use backup_core::store::{
    Depth, Entry, ObjectMeta, PutOptions, Store, StoreError, StoreKey, UnfinishedUpload,
};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{BackoffConfig, Certificate, ClientOptions, ObjectStore, RetryConfig};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::conditions;
use crate::config::{BucketConfig, Service};
use crate::error::port_error;
use crate::limits::Limits;
use crate::objects::Objects;
use crate::s3::Uploads;
use crate::upload::Marks;
use crate::{azure, gcs, s3};

/// A bucket, or a prefix in one.
pub(crate) struct BucketStore {
    name: String,
    objects: Objects,
    limits: Arc<Limits>,
    /// Where they can be asked for.
    uploads: Option<Arc<Uploads>>,
    /// Set once the server was found to keep its word.
    conditional: OnceCell<()>,
}

impl fmt::Debug for BucketStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BucketStore").field(&self.name).finish()
    }
}

/// A client of a bucket.
pub(crate) struct Connected {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// Azure drops blocks that nobody commits by itself; of Google's, a rule of the bucket takes care.
    pub(crate) uploads: Option<Arc<Uploads>>,
}

impl From<Arc<dyn ObjectStore>> for Connected {
    fn from(store: Arc<dyn ObjectStore>) -> Self {
        Self {
            store,
            uploads: None,
        }
    }
}

impl BucketStore {
    pub(crate) fn new(config: &BucketConfig, limits: Limits) -> Result<Self, PortError> {
        let limits = Arc::new(limits);
        let client = client(config, &limits)?;
        // The client counts all of an upload as waiting for the first byte of the answer.
        let patient = client.clone().with_read_timeout(limits.request_timeout);
        let Connected { store, uploads } = connect(config, &limits, client)?;
        let patient = connect(config, &limits, patient)?.store;
        let objects = Objects::new(store, config.prefix.clone(), Arc::clone(&limits));
        Ok(Self {
            name: config.describe(),
            objects: objects.with_uploads_through(patient, Marks::of(config)),
            limits,
            uploads,
            conditional: OnceCell::new(),
        })
    }

    async fn children(&self, prefix: Option<StoreKey>) -> Result<Vec<Entry>, StoreError> {
        let path = self.objects.list_path(prefix.as_ref())?;
        let listed = self.objects.store.list_with_delimiter(path.as_ref()).await;
        let listed = listed.map_err(|e| list_error(path.as_ref(), &e))?;
        let objects = listed.objects.iter().filter_map(|meta| self.object(meta));
        let prefixes = listed.common_prefixes.iter();
        let prefixes = prefixes.filter_map(|path| self.objects.key(path).map(Entry::Prefix));
        Ok(objects
            .chain(prefixes)
            .filter(|entry| is_below(entry, prefix.as_ref()))
            .collect())
    }

    /// `None` for what has no key of ours.
    fn object(&self, meta: &object_store::ObjectMeta) -> Option<Entry> {
        let key = self.objects.key(&meta.location)?;
        Some(Entry::Object(ObjectMeta {
            key,
            bytes: meta.size,
            modified: meta.last_modified,
        }))
    }
}

fn is_below(entry: &Entry, prefix: Option<&StoreKey>) -> bool {
    let (Entry::Object(ObjectMeta { key, .. }) | Entry::Prefix(key)) = entry;
    prefix.is_none_or(|prefix| {
        let rest = key.as_str().strip_prefix(prefix.as_str());
        rest.is_some_and(|rest| rest.starts_with('/'))
    })
}

fn list_error(path: Option<&Path>, error: &object_store::Error) -> PortError {
    let at = path.map_or("the bucket", Path::as_ref);
    let port = port_error("list objects of", at, error);
    if matches!(error, object_store::Error::InvalidPath { .. }) {
        return port.with_hint(
            "another program's object has a name that cannot be handled, as a//b; \
             move it, or use a prefix of the bucket that is ours alone",
        );
    }
    port
}

fn client(config: &BucketConfig, limits: &Limits) -> Result<ClientOptions, PortError> {
    let endpoint = config.endpoint.as_ref();
    let mut client = ClientOptions::new()
        .with_connect_timeout(limits.connect_timeout)
        .with_read_timeout(limits.read_timeout)
        .with_timeout(limits.request_timeout)
        .with_allow_http(endpoint.is_some_and(|url| url.scheme() == "http"));
    if let Some(file) = &config.ca_certificate {
        for certificate in certificates(file)? {
            client = client.with_root_certificate(certificate);
        }
    }
    Ok(client)
}

fn connect(
    config: &BucketConfig,
    limits: &Limits,
    client: ClientOptions,
) -> Result<Connected, PortError> {
    let retry = RetryConfig {
        max_retries: limits.max_retries,
        retry_timeout: limits.retry_timeout,
        backoff: BackoffConfig {
            init_backoff: limits.first_backoff,
            base: 3.0,
            ..BackoffConfig::default()
        },
    };
    match &config.service {
        Service::S3(s3) => s3::connect(config, s3, &client, retry),
        Service::Gcs(gcs) => gcs::connect(config, gcs, client, retry).map(Connected::from),
        Service::Azure(azure) => azure::connect(config, azure, client, retry).map(Connected::from),
    }
}

fn certificates(file: &FilePath) -> Result<Vec<Certificate>, PortError> {
    let invalid = || {
        PortError::new(
            ErrorKind::InvalidInput,
            format!("read certificates of {}", file.display()),
        )
    };
    let pem = std::fs::read(file).map_err(|e| invalid().with_source(e))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|e| invalid().with_source(e))?;
    if found.is_empty() {
        return Err(invalid().with_hint("the file has no certificate in PEM form"));
    }
    Ok(found)
}

#[async_trait]
impl Store for BucketStore {
    fn describe(&self) -> String {
        self.name.clone()
    }

    fn capacity(&self, options: &PutOptions) -> u64 {
        self.limits.capacity(options.expected_bytes)
    }

    async fn put(
        &self,
        key: &StoreKey,
        body: BodyStream,
        options: &PutOptions,
        cancel: &CancellationToken,
    ) -> Result<u64, StoreError> {
        self.objects.put(key, body, options, cancel).await
    }

    async fn create(&self, key: &StoreKey, content: Bytes) -> Result<(), StoreError> {
        self.objects.create(key, content).await
    }

    async fn replace(
        &self,
        key: &StoreKey,
        seen: &Bytes,
        content: Bytes,
    ) -> Result<(), StoreError> {
        let path = self.objects.path(key)?;
        conditions::replace(&self.objects, &path, seen, content).await
    }

    async fn check_conditions(&self) -> Result<(), StoreError> {
        let check = || conditions::check(&self.objects, &self.name);
        self.conditional.get_or_try_init(check).await.copied()
    }

    async fn read(
        &self,
        key: &StoreKey,
        range: Option<Range<u64>>,
    ) -> Result<BodyStream, StoreError> {
        self.objects.read(key, range).await
    }

    async fn head(&self, key: &StoreKey) -> Result<ObjectMeta, StoreError> {
        self.objects.head(key).await
    }

    fn list(
        &self,
        prefix: Option<&StoreKey>,
        depth: Depth,
    ) -> BoxStream<'_, Result<Entry, StoreError>> {
        let prefix = prefix.cloned();
        if depth == Depth::Children {
            let children = async move {
                match self.children(prefix).await {
                    Ok(entries) => stream::iter(entries).map(Ok).boxed(),
                    Err(e) => stream::iter([Err(e)]).boxed(),
                }
            };
            return stream::once(children).flatten().boxed();
        }
        let path = match self.objects.list_path(prefix.as_ref()) {
            Ok(path) => path,
            Err(e) => return stream::iter([Err(e)]).boxed(),
        };
        let listed = self.objects.store.list(path.as_ref());
        let entries = listed.filter_map(move |item| {
            let entry = match item {
                Ok(meta) => self
                    .object(&meta)
                    .filter(|e| is_below(e, prefix.as_ref()))
                    .map(Ok),
                Err(e) => Some(Err(list_error(path.as_ref(), &e))),
            };
            std::future::ready(entry)
        });
        entries.boxed()
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.objects.delete(key).await
    }

    async fn unfinished_uploads(
        &self,
        prefix: &StoreKey,
    ) -> Result<Vec<UnfinishedUpload>, StoreError> {
        let Some(uploads) = &self.uploads else {
            return Ok(Vec::new());
        };
        let below = format!("{}/", self.objects.path(prefix)?);
        let begun = uploads.list(&below).await?;
        let ours = begun.into_iter().filter_map(|begun| {
            let path = Path::parse(&begun.key).ok()?;
            let key = self.objects.key(&path)?;
            key.as_str()
                .starts_with(prefix.as_str())
                .then_some(UnfinishedUpload {
                    key,
                    id: begun.id,
                    begun_at: begun.at,
                })
        });
        Ok(ours.collect())
    }

    async fn abort_upload(&self, upload: &UnfinishedUpload) -> Result<(), StoreError> {
        let Some(uploads) = &self.uploads else {
            return Ok(());
        };
        let path = self.objects.path(&upload.key)?;
        uploads.abort(&path, &upload.id).await
    }
}
