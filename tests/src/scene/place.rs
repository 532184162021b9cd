//! Where backups go, seen without the product's own store code.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::s3::{Kind, Server, Upload};
use crate::scratch::Scratch;

/// A folder or a bucket.
#[derive(Debug)]
pub enum Place {
    /// A folder of its own.
    Local(PathBuf),
    /// A bucket of its own in the shared server of that kind.
    Bucket {
        /// The server.
        server: &'static Server,
        /// The bucket.
        bucket: String,
    },
}

impl Place {
    pub(super) fn local(scratch: &Scratch) -> Self {
        Self::Local(scratch.path().join("store"))
    }

    pub(super) fn bucket(kind: Kind, bucket: &str) -> Result<Self> {
        let server = Server::shared(kind)?;
        server.create_bucket(bucket)?;
        Ok(Self::Bucket {
            server,
            bucket: bucket.to_owned(),
        })
    }

    /// All keys or, for a folder, all files, whatever they are called; in order.
    ///
    /// # Errors
    ///
    /// When they cannot be listed.
    pub fn keys(&self) -> Result<Vec<String>> {
        match self {
            Self::Local(root) => {
                let mut keys = Vec::new();
                walk(root, root, &mut keys)?;
                keys.sort();
                Ok(keys)
            }
            Self::Bucket { server, bucket } => server.list_keys(bucket, ""),
        }
    }

    /// Uploads that nobody finished.
    ///
    /// # Errors
    ///
    /// When they cannot be listed.
    pub fn uploads(&self) -> Result<Vec<Upload>> {
        match self {
            Self::Local(_) => Ok(Vec::new()),
            Self::Bucket { server, bucket } => server.list_multipart_uploads(bucket),
        }
    }

    /// An object's bytes.
    ///
    /// # Errors
    ///
    /// When it is not there.
    pub fn get(&self, key: &str) -> Result<Vec<u8>> {
        match self {
            Self::Local(root) => fs::read(root.join(key)).with_context(|| format!("read {key}")),
            Self::Bucket { server, bucket } => server.get_object(bucket, key),
        }
    }

    /// Replaces or makes an object.
    ///
    /// # Errors
    ///
    /// When the place refuses.
    pub fn put(&self, key: &str, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Local(root) => {
                let path = root.join(key);
                fs::create_dir_all(path.parent().unwrap_or(root))?;
                fs::write(path, bytes).with_context(|| format!("write {key}"))
            }
            Self::Bucket { server, bucket } => server.put_object(bucket, key, bytes),
        }
    }

    /// Removes an object.
    ///
    /// # Errors
    ///
    /// When the place refuses.
    pub fn delete(&self, key: &str) -> Result<()> {
        match self {
            Self::Local(root) => {
                fs::remove_file(root.join(key)).with_context(|| format!("remove {key}"))
            }
            Self::Bucket { server, bucket } => server.delete_object(bucket, key),
        }
    }
}

fn walk(root: &Path, folder: &Path, keys: &mut Vec<String>) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(root, &path, keys)?;
        } else {
            keys.push(path.strip_prefix(root)?.display().to_string());
        }
    }
    Ok(())
}
