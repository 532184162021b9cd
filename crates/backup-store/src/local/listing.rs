//! Files as a listing of objects. Names that are no keys are skipped, whatever is below them;
//! links are not followed.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use backup_core::store::{Entry, ObjectMeta, StoreError, StoreKey};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::{blocking, local_error};

/// What one directory holds, in keys.
#[derive(Debug, Default)]
struct Folder {
    objects: Vec<ObjectMeta>,
    folders: Vec<StoreKey>,
}

fn path_of(root: &Path, key: Option<&StoreKey>) -> PathBuf {
    key.map_or_else(|| root.to_path_buf(), |key| root.join(key.as_str()))
}

/// The key of what has this name in the folder of `parent`, if it can have one.
fn key_of(parent: Option<&StoreKey>, name: &OsStr) -> Option<StoreKey> {
    let name = name.to_str().filter(|name| !name.contains('/'))?;
    let text = parent.map_or_else(|| name.to_owned(), |parent| format!("{parent}/{name}"));
    StoreKey::new(text).ok()
}

/// A directory's content; nothing when it is gone, or was never one.
fn read(root: &Path, key: Option<&StoreKey>) -> io::Result<Folder> {
    let entries = match fs::read_dir(path_of(root, key)) {
        Ok(entries) => entries,
        Err(e) if is_absent(&e) => return Ok(Folder::default()),
        Err(e) => return Err(e),
    };
    let mut found = Folder::default();
    for entry in entries {
        let entry = entry?;
        let Some(key) = key_of(key, &entry.file_name()) else {
            continue;
        };
        let kind = entry.file_type()?;
        if kind.is_dir() {
            found.folders.push(key);
        } else if kind.is_file() {
            match entry.metadata() {
                Ok(meta) => found.objects.push(ObjectMeta {
                    key,
                    bytes: meta.len(),
                    modified: meta.modified()?.into(),
                }),
                // Deleted since.
                Err(e) if is_absent(&e) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(found)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Whether there is any object below: folders that a failed or deleted backup left behind are
/// no prefixes. The first one is enough, and its length is of no interest.
fn holds_objects(root: &Path, key: &StoreKey) -> io::Result<bool> {
    let entries = match fs::read_dir(path_of(root, Some(key))) {
        Ok(entries) => entries,
        Err(e) if is_absent(&e) => return Ok(false),
        Err(e) => return Err(e),
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Some(below) = key_of(Some(key), &entry.file_name()) else {
            continue;
        };
        let kind = entry.file_type()?;
        if kind.is_file() {
            return Ok(true);
        }
        if kind.is_dir() {
            folders.push(below);
        }
    }
    for folder in folders {
        if holds_objects(root, &folder)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// One level.
pub(super) fn children(
    root: PathBuf,
    prefix: Option<StoreKey>,
) -> BoxStream<'static, Result<Entry, StoreError>> {
    let at = path_of(&root, prefix.as_ref());
    let listed = blocking(move || {
        let folder = read(&root, prefix.as_ref())?;
        let mut entries: Vec<_> = folder.objects.into_iter().map(Entry::Object).collect();
        for key in folder.folders {
            if holds_objects(&root, &key)? {
                entries.push(Entry::Prefix(key));
            }
        }
        Ok(entries)
    });
    let entries = async move {
        let entries = listed.await.map_err(|e| local_error("list", &at, e))?;
        Ok(stream::iter(entries).map(Ok))
    };
    stream::once(entries).try_flatten().boxed()
}

/// How many objects are collected before they are handed on: a change of threads for each of
/// thousands of small folders would cost more than reading them.
const BATCH: usize = 2000;

/// Everything below, one directory after the other.
pub(super) fn recursive(
    root: PathBuf,
    prefix: Option<StoreKey>,
) -> BoxStream<'static, Result<Entry, StoreError>> {
    let batches = stream::try_unfold(vec![prefix], move |waiting| {
        let root = root.clone();
        async move {
            if waiting.is_empty() {
                return Ok(None);
            }
            let at = root.clone();
            let walked = blocking(move || walk(&root, waiting)).await;
            let (objects, waiting) = walked.map_err(|e| local_error("list", &at, e))?;
            let objects = objects.into_iter().map(|meta| Ok(Entry::Object(meta)));
            Ok(Some((stream::iter(objects), waiting)))
        }
    });
    batches.try_flatten().boxed()
}

/// Reads some of the folders that wait, and says which are left.
fn walk(
    root: &Path,
    mut waiting: Vec<Option<StoreKey>>,
) -> io::Result<(Vec<ObjectMeta>, Vec<Option<StoreKey>>)> {
    let mut objects = Vec::new();
    while objects.len() < BATCH
        && let Some(key) = waiting.pop()
    {
        let folder = read(root, key.as_ref())?;
        objects.extend(folder.objects);
        waiting.extend(folder.folders.into_iter().map(Some));
    }
    Ok((objects, waiting))
}
