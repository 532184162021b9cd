//! A directory.
//!
//! `object_store` writes staging files (`name#1`), syncs them and moves them into place. It
//! knows no file modes, so directories are made here, closed to others before anything is in
//! them, and a finished file is closed as well. Listings are made here too: those of
//! `object_store` show empty folders, follow links, and fail at a foreign folder that cannot
//! be read, as `lost+found` in the root of a disk.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use backup_core::body::BodyStream;
use backup_core::error::{ErrorKind, PortError};
use backup_core::store::{Depth, Entry, ObjectMeta, PutOptions, Store, StoreError, StoreKey};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use object_store::local::LocalFileSystem;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::limits::Limits;
use crate::objects::Objects;

mod listing;
mod replace;
mod sweep;

/// A file is read and written in pieces of this size; larger ones gain nothing.
const PIECE: u64 = 1 << 20;

/// A chunk of a body is not longer.
const SMALL: u64 = 256 << 10;

/// A directory that holds objects as files.
pub(crate) struct LocalStore {
    root: PathBuf,
    limits: Arc<Limits>,
    objects: OnceLock<Objects>,
    ready: OnceCell<()>,
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalStore").field(&self.root).finish()
    }
}

impl LocalStore {
    pub(crate) fn new(root: PathBuf, limits: Limits) -> Self {
        let part_bytes = limits.part_bytes.min(PIECE);
        let limits = Limits {
            part_bytes,
            max_part_bytes: part_bytes,
            // A file has no parts, so there is no limit to their number.
            max_parts: u64::MAX,
            // One is being written, one waits.
            parts_in_flight: 2,
            read_bytes: limits.read_bytes.min(PIECE),
            ..limits
        };
        Self {
            root,
            limits: Arc::new(limits),
            objects: OnceLock::new(),
            ready: OnceCell::new(),
        }
    }

    /// The objects, once there is a directory.
    fn objects(&self) -> Result<&Objects, PortError> {
        if let Some(objects) = self.objects.get() {
            return Ok(objects);
        }
        let files = LocalFileSystem::new_with_prefix(&self.root)
            .map_err(|_| self.missing())?
            .with_fsync(true);
        let objects = Objects::new(Arc::new(files), None, Arc::clone(&self.limits));
        Ok(self.objects.get_or_init(|| objects))
    }

    fn missing(&self) -> PortError {
        PortError::new(
            ErrorKind::NotFound,
            format!("directory {} does not exist", self.root.display()),
        )
        .with_hint("create it, or check that its disk is mounted")
    }

    /// Makes the root once, and clears what dead runs left behind.
    async fn prepare(&self) -> Result<&Objects, PortError> {
        let prepare = || async {
            let root = self.root.clone();
            blocking(move || {
                // One level only: a missing parent is a disk that is not mounted.
                make_private_dir(&root)?;
                sweep::remove_stale(&root, sweep::STALE);
                Ok(())
            })
            .await
            .map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => self.missing(),
                _ => local_error("create directory", &self.root, e),
            })
        };
        self.ready.get_or_try_init(prepare).await?;
        self.objects()
    }

    /// Keeps the folders, also from other processes, until it is dropped: shared by whoever makes
    /// some and writes into them. Without it, somebody who removes an empty folder could come
    /// between. A file system that knows no such lock, or not of directories, has none.
    async fn keep_folders(&self) -> Result<fs::File, PortError> {
        let root = self.root.clone();
        let kept = blocking(move || {
            let folder = fs::File::open(root)?;
            let _ = folder.lock_shared();
            Ok(folder)
        });
        kept.await
            .map_err(|e| local_error("open directory", &self.root, e))
    }

    /// Makes the folders of a key.
    async fn make_folders(&self, key: &StoreKey) -> Result<(), PortError> {
        let (root, file) = (self.root.clone(), self.file(key));
        let made = blocking(move || {
            let folders: Vec<_> = file
                .ancestors()
                .skip(1)
                .take_while(|dir| *dir != root)
                .collect();
            folders.into_iter().rev().try_for_each(make_private_dir)
        });
        made.await
            .map_err(|e| local_error("create folder of", &self.file(key), e))
    }

    /// Closes a finished file to others and makes that last.
    async fn close_to_others(&self, key: &StoreKey) -> Result<(), PortError> {
        let file = self.file(key);
        let closed = blocking(move || fs::set_permissions(file, fs::Permissions::from_mode(0o600)));
        closed
            .await
            .map_err(|e| local_error("set mode of", &self.file(key), e))
    }

    /// A file that fits into one chunk, read at once: a listing reads thousands. `None` when it
    /// is longer, or empty, or anything but a file.
    async fn read_small(&self, key: &StoreKey) -> Result<Option<Bytes>, PortError> {
        let file = self.file(key);
        let read = blocking(move || {
            let file = fs::File::open(file)?;
            let meta = file.metadata()?;
            if !meta.is_file() || meta.len() > SMALL {
                return Ok(None);
            }
            let mut content = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
            file.take(SMALL + 1).read_to_end(&mut content)?;
            let is_small = (1..=SMALL).contains(&(content.len() as u64));
            Ok(is_small.then(|| content.into()))
        });
        read.await
            .map_err(|e| local_error("read object", &self.file(key), e))
    }

    fn file(&self, key: &StoreKey) -> PathBuf {
        self.root.join(key.as_str())
    }

    /// Removes the folders of `key` that are empty, unless somebody is about to write into one.
    async fn remove_empty_folders(&self, key: &StoreKey) {
        let (root, file) = (self.root.clone(), self.file(key));
        let removed = blocking(move || {
            let alone = fs::File::open(&root)?;
            alone.try_lock()?;
            let folders = file.ancestors().skip(1).take_while(|dir| *dir != root);
            // The first that is not empty ends it.
            for folder in folders {
                replace::remove_folder(folder)?;
            }
            Ok(())
        });
        let _ = removed.await;
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(io::Error::other(e)))
}

/// Makes one directory for the owner alone, whatever the umask, and makes it last.
fn make_private_dir(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {}
        Err(_) if dir.is_dir() => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Err(e) => return Err(e),
    }
    match dir.parent() {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn local_error(operation: &str, path: &Path, error: io::Error) -> PortError {
    let wrapped = object_store::Error::Generic {
        store: "local",
        source: Box::new(error),
    };
    crate::error::port_error(operation, path.display(), &wrapped)
}

/// Room in a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What this user can still write.
    pub free: u64,
    /// What is taken.
    pub used: u64,
}

impl Space {
    /// How much of it is taken, in percent, rounded up as `df` does.
    #[must_use]
    pub fn used_percent(self) -> u64 {
        let all = u128::from(self.free) + u128::from(self.used);
        let percent = (u128::from(self.used) * 100).div_ceil(all.max(1));
        u64::try_from(percent).unwrap_or(100)
    }
}

/// The room in the file system of `path`, which must exist.
///
/// # Errors
/// `NotFound` or `PermissionDenied` when the file system cannot be asked.
pub fn space(path: &Path) -> Result<Space, PortError> {
    let stat = nix::sys::statvfs::statvfs(path)
        .map_err(|e| local_error("ask for free space of", path, e.into()))?;
    let used = stat.blocks().saturating_sub(stat.blocks_free());
    Ok(Space {
        free: stat.blocks_available().saturating_mul(stat.fragment_size()),
        used: used.saturating_mul(stat.fragment_size()),
    })
}

/// Bytes that this user can still write below `path`, which must exist.
///
/// # Errors
/// As [`space`].
pub fn free_bytes(path: &Path) -> Result<u64, PortError> {
    Ok(space(path)?.free)
}

#[async_trait]
impl Store for LocalStore {
    fn describe(&self) -> String {
        match url::Url::from_file_path(&self.root) {
            Ok(url) => url.to_string(),
            Err(()) => self.root.display().to_string(),
        }
    }

    fn capacity(&self, _options: &PutOptions) -> u64 {
        u64::MAX
    }

    async fn put(
        &self,
        key: &StoreKey,
        body: BodyStream,
        options: &PutOptions,
        cancel: &CancellationToken,
    ) -> Result<u64, StoreError> {
        let objects = self.prepare().await?;
        let written = {
            let _kept = self.keep_folders().await?;
            self.make_folders(key).await?;
            objects.put(key, body, options, cancel).await
        };
        match written {
            Ok(_) => self.close_to_others(key).await?,
            Err(_) => self.remove_empty_folders(key).await,
        }
        written
    }

    async fn create(&self, key: &StoreKey, content: Bytes) -> Result<(), StoreError> {
        let objects = self.prepare().await?;
        let _kept = self.keep_folders().await?;
        self.make_folders(key).await?;
        objects.create(key, content).await?;
        self.close_to_others(key).await
    }

    async fn replace(
        &self,
        key: &StoreKey,
        seen: &Bytes,
        content: Bytes,
    ) -> Result<(), StoreError> {
        self.prepare().await?;
        let (file, seen) = (self.file(key), seen.clone());
        let replaced = blocking(move || replace::replace(&file, &seen, &content)).await;
        match replaced {
            Ok(true) => Ok(()),
            Ok(false) => {
                let message = format!("object {key} is another by now");
                Err(PortError::new(ErrorKind::Conflict, message))
            }
            Err(e) => Err(replace::error(&self.root, &self.file(key), e)),
        }
    }

    async fn check_conditions(&self) -> Result<(), StoreError> {
        self.prepare().await?;
        let root = self.root.clone();
        let locked = blocking(move || replace::check(&root)).await;
        locked.map_err(|e| replace::error(&self.root, &self.root, e))
    }

    async fn read(
        &self,
        key: &StoreKey,
        range: Option<Range<u64>>,
    ) -> Result<BodyStream, StoreError> {
        let objects = self.objects()?;
        if range.is_none()
            && let Some(content) = self.read_small(key).await?
        {
            return Ok(stream::iter([Ok(content)]).boxed());
        }
        objects.read(key, range).await
    }

    async fn head(&self, key: &StoreKey) -> Result<ObjectMeta, StoreError> {
        self.objects()?.head(key).await
    }

    fn list(
        &self,
        prefix: Option<&StoreKey>,
        depth: Depth,
    ) -> BoxStream<'_, Result<Entry, StoreError>> {
        let root = self.root.clone();
        match depth {
            Depth::Recursive => listing::recursive(root, prefix.cloned()),
            Depth::Children => listing::children(root, prefix.cloned()),
        }
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        let Ok(objects) = self.objects() else {
            return Ok(());
        };
        objects.delete(key).await?;
        let folder = self.file(key).parent().map(Path::to_path_buf);
        // `object_store` syncs no deletion, and one that comes back would be found damaged.
        let synced = blocking(move || folder.map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all()));
        let _ = synced.await;
        self.remove_empty_folders(key).await;
        Ok(())
    }
}
