//! What local and remote stores have in common.

use std::ops::Range;
use std::sync::Arc;

use backup_core::body::BodyStream;
use backup_core::error::PortError;
use backup_core::store::{ObjectMeta, PutOptions, StoreKey};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use tokio_util::sync::CancellationToken;

use crate::download::Reader;
use crate::error::port_error;
use crate::limits::Limits;
use crate::source::Source;
use crate::upload::{self, Marks, Uploader};

/// Objects of an `object_store` under a prefix.
#[derive(Debug, Clone)]
pub(crate) struct Objects {
    pub(crate) store: Arc<dyn ObjectStore>,
    prefix: Option<StoreKey>,
    limits: Arc<Limits>,
    uploader: Uploader,
}

impl Objects {
    pub(crate) fn new(
        store: Arc<dyn ObjectStore>,
        prefix: Option<StoreKey>,
        limits: Arc<Limits>,
    ) -> Self {
        Self {
            uploader: Uploader::new(Arc::clone(&store), Arc::clone(&limits), Marks::default()),
            store,
            prefix,
            limits,
        }
    }

    /// Sends long bodies through another client to the same place, and marks what is written.
    pub(crate) fn with_uploads_through(
        mut self,
        store: Arc<dyn ObjectStore>,
        marks: Marks,
    ) -> Self {
        self.uploader = Uploader::new(store, Arc::clone(&self.limits), marks);
        self
    }

    /// What small objects are marked with.
    pub(crate) fn marks(&self) -> &Marks {
        &self.uploader.marks
    }

    /// The path of a key. Not [`Path::from`], which would encode `~` once more.
    pub(crate) fn path(&self, key: &StoreKey) -> Result<Path, PortError> {
        let text = match &self.prefix {
            Some(prefix) => format!("{prefix}/{key}"),
            None => key.to_string(),
        };
        Path::parse(&text).map_err(|e| port_error("name object", &text, &e.into()))
    }

    /// The path that a listing of `prefix` begins with.
    pub(crate) fn list_path(&self, prefix: Option<&StoreKey>) -> Result<Option<Path>, PortError> {
        match (prefix, &self.prefix) {
            (Some(key), _) => self.path(key).map(Some),
            (None, Some(own)) => Ok(Path::parse(own.as_str()).ok()),
            (None, None) => Ok(None),
        }
    }

    /// The key of a path, if it is one of ours.
    pub(crate) fn key(&self, path: &Path) -> Option<StoreKey> {
        let text = path.as_ref();
        let text = match &self.prefix {
            Some(prefix) => text.strip_prefix(prefix.as_str())?.strip_prefix('/')?,
            None => text,
        };
        StoreKey::new(text).ok()
    }

    pub(crate) async fn put(
        &self,
        key: &StoreKey,
        body: BodyStream,
        options: &PutOptions,
        cancel: &CancellationToken,
    ) -> Result<u64, PortError> {
        let part_bytes = self.limits.part_size(options.expected_bytes);
        let source = Source::new(body, part_bytes, cancel);
        self.uploader.put(&self.path(key)?, source, cancel).await
    }

    pub(crate) async fn create(&self, key: &StoreKey, content: Bytes) -> Result<(), PortError> {
        let path = self.path(key)?;
        upload::create(&*self.store, &path, content.into(), self.marks()).await
    }

    pub(crate) async fn read(
        &self,
        key: &StoreKey,
        range: Option<Range<u64>>,
    ) -> Result<BodyStream, PortError> {
        let reader = Reader {
            store: Arc::clone(&self.store),
            limits: Arc::clone(&self.limits),
            path: self.path(key)?,
        };
        reader.read(range).await
    }

    pub(crate) async fn head(&self, key: &StoreKey) -> Result<ObjectMeta, PortError> {
        let path = self.path(key)?;
        let meta = self.store.head(&path).await;
        let meta = meta.map_err(|e| port_error("look at object", &path, &e))?;
        Ok(ObjectMeta {
            key: key.clone(),
            bytes: meta.size,
            modified: meta.last_modified,
        })
    }

    pub(crate) async fn delete(&self, key: &StoreKey) -> Result<(), PortError> {
        let path = self.path(key)?;
        match self.store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => {
                let error = port_error("delete object", &path, &e);
                // A folder of the path is a file: the object cannot exist.
                if error.kind() == backup_core::error::ErrorKind::NotFound {
                    return Ok(());
                }
                Err(error)
            }
        }
    }
}
