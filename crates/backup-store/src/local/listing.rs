//! Files as a listing of objects. Names that are no keys are skipped, whatever is below them;
//! links are not followed.

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
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.contains('/')) else {
            continue;
        };
        let text = key.map_or_else(|| name.to_owned(), |key| format!("{key}/{name}"));
        let Ok(key) = StoreKey::new(text) else {
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
/// no prefixes.
fn holds_objects(root: &Path, key: &StoreKey) -> io::Result<bool> {
    let folder = read(root, Some(key))?;
    if !folder.objects.is_empty() {
        return Ok(true);
    }
    for key in &folder.folders {
        if holds_objects(root, key)? {
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

/// Everything below, one directory after the other.
pub(super) fn recursive(
    root: PathBuf,
    prefix: Option<StoreKey>,
) -> BoxStream<'static, Result<Entry, StoreError>> {
    let folders = stream::try_unfold(vec![prefix], move |mut waiting| {
        let root = root.clone();
        async move {
            let Some(key) = waiting.pop() else {
                return Ok(None);
            };
            let at = path_of(&root, key.as_ref());
            let folder = blocking(move || read(&root, key.as_ref())).await;
            let folder = folder.map_err(|e| local_error("list", &at, e))?;
            waiting.extend(folder.folders.into_iter().map(Some));
            let objects = folder
                .objects
                .into_iter()
                .map(|meta| Ok(Entry::Object(meta)));
            Ok(Some((stream::iter(objects), waiting)))
        }
    });
    folders.try_flatten().boxed()
}
