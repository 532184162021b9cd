//! Writing on a condition, which a lease needs, and whether a server means it.

use backup_core::error::{ErrorKind, PortError};
use backup_core::layout;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, UpdateVersion};

use crate::error::port_error;
use crate::objects::Objects;
use crate::upload;

/// Puts `content` in the place of `seen`.
pub(crate) async fn replace(
    objects: &Objects,
    path: &Path,
    seen: &Bytes,
    content: Bytes,
) -> Result<(), PortError> {
    let Some((found, tag)) = get(objects, path).await? else {
        return Err(changed(path));
    };
    if found != seen {
        return Err(changed(path));
    }
    if update(objects, path, tag, content).await? {
        Ok(())
    } else {
        Err(changed(path))
    }
}

fn changed(path: &Path) -> PortError {
    let message = format!("object {path} is another by now");
    PortError::new(ErrorKind::Conflict, message)
}

/// What tells one content of an object from others: a tag, or a generation.
type Tag = UpdateVersion;

/// A small object and its tag, from one answer.
async fn get(objects: &Objects, path: &Path) -> Result<Option<(Bytes, Tag)>, PortError> {
    let failed = |e: object_store::Error| port_error("read object", path, &e);
    match objects.store.get(path).await {
        Ok(answer) => {
            let tag = UpdateVersion {
                e_tag: answer.meta.e_tag.clone(),
                version: answer.meta.version.clone(),
            };
            Ok(Some((answer.bytes().await.map_err(failed)?, tag)))
        }
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(e) => Err(failed(e)),
    }
}

/// Overwrites what has this tag; says no when there is no such thing.
async fn update(
    objects: &Objects,
    path: &Path,
    tag: Tag,
    content: Bytes,
) -> Result<bool, PortError> {
    if tag.e_tag.is_none() && tag.version.is_none() {
        return Err(unsuitable(path, "the server gives objects no tags"));
    }
    let options = PutOptions {
        mode: PutMode::Update(tag),
        tags: objects.marks().tags.clone(),
        ..PutOptions::default()
    };
    match objects.store.put_opts(path, content.into(), options).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::Precondition { .. }) => Ok(false),
        Err(e) => Err(port_error("replace object", path, &e)),
    }
}

fn unsuitable(at: impl std::fmt::Display, message: &str) -> PortError {
    PortError::new(ErrorKind::Unsuitable, format!("{at}: {message}")).with_hint(
        "runs that meet cannot be kept apart there; update the server, or use one that heeds \
         If-None-Match and If-Match when an object is written",
    )
}

/// Tries it on an object of its own.
pub(crate) async fn check(objects: &Objects, name: &str) -> Result<(), PortError> {
    let path = objects.path(&layout::probe_key(rand::random()))?;
    let found = experiment(objects, &path, name).await;
    // Backups can be written by a login that may delete nothing.
    if let Err(error) = objects.store.delete(&path).await {
        tracing::debug!(%path, %error, "what a store was tried with is left there");
    }
    found
}

async fn experiment(objects: &Objects, path: &Path, name: &str) -> Result<(), PortError> {
    let store = &*objects.store;
    let content = |text: &'static str| Bytes::from_static(text.as_bytes());
    match upload::create(store, path, content("one").into(), objects.marks()).await {
        Ok(()) => {}
        // Nobody else knows the name: it is ours, and its answer was lost.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
        Err(e) => return Err(refused(name, e)),
    }
    match upload::create(store, path, content("two").into(), objects.marks()).await {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
        Err(e) => return Err(refused(name, e)),
        Ok(()) => {
            let what = "the server creates objects that are there already";
            return Err(unsuitable(name, what));
        }
    }
    let Some((first, tag)) = get(objects, path).await? else {
        return Err(unsuitable(name, "an object that was created is not there"));
    };
    if !update(objects, path, tag.clone(), content("three"))
        .await
        .map_err(|e| refused(name, e))?
        // A lost answer looks the same; what is there tells.
        && get(objects, path).await?.is_none_or(|(found, _)| found != "three")
    {
        let what = "the server does not replace an object by its tag";
        return Err(unsuitable(name, what));
    }
    let stale = update(objects, path, tag, content("four")).await;
    let last = get(objects, path).await?.map(|(found, _)| found);
    let overwritten = stale.map_err(|e| refused(name, e))?;
    if overwritten || first != "one" || last.as_deref() != Some(b"three") {
        let what = "the server replaces objects whatever their tag";
        return Err(unsuitable(name, what));
    }
    Ok(())
}

/// A server that does not know such requests refuses them in its own way.
fn refused(name: &str, error: PortError) -> PortError {
    match error.kind() {
        ErrorKind::InvalidInput => {
            unsuitable(name, "the server does not know writing on a condition").with_source(error)
        }
        _ => error,
    }
}
