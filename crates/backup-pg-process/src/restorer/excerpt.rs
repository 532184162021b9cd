//! Some of a data part.
//!
//! Every data part is an archive with dump ids of its own, which only its table of contents tells.
//! So that is read from the stream first, and then the whole stream goes into `pg_restore` together
//! with a list of what is wanted.

use std::collections::{BTreeSet, HashSet};

use backup_core::body::BodyStream;
use backup_core::facts::{Scope, TableName};
use backup_core::manifest::PartName;
use backup_pg_archive::{Contents, Limits, Visitor, Walker};
use bytes::{Buf as _, Bytes};
use futures::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::error::RestoreError;
use super::toc_list::{DataPart, name_of};
use crate::Error;

/// Reads as much of an archive as its table of contents takes. Returns that, and the whole body.
pub(crate) async fn contents(
    part: &PartName,
    mut body: BodyStream,
    cancel: &CancellationToken,
) -> Result<(Contents, BodyStream), RestoreError> {
    struct Blind;
    impl Visitor for Blind {}

    let mut walker = Walker::new(Limits::default());
    let mut read = Vec::new();
    loop {
        if let Some(contents) = walker.contents() {
            let whole = stream::iter(read.into_iter().map(Ok)).chain(body);
            return Ok((contents.clone(), whole.fuse().boxed()));
        }
        let chunk = tokio::select! {
            chunk = body.next() => chunk,
            () = cancel.cancelled() => return Err(Error::Cancelled.into()),
        };
        let Some(chunk) = chunk else {
            return Err(RestoreError::bad_backup(format!(
                "part {part} ends within its table of contents"
            )));
        };
        let chunk = chunk.map_err(|error| RestoreError::reading(part, error))?;
        walker
            .push(&chunk, &mut Blind)
            .map_err(|error| RestoreError::no_archive(part, error))?;
        read.push(chunk);
    }
}

/// The body with `beginning` instead of its first `length` bytes.
pub(crate) fn with_other_beginning(
    body: BodyStream,
    length: usize,
    beginning: Vec<u8>,
) -> BodyStream {
    let mut to_skip = length;
    let rest = body.filter_map(move |chunk| {
        let kept = match chunk {
            Ok(mut chunk) => {
                let skipped = to_skip.min(chunk.len());
                to_skip -= skipped;
                chunk.advance(skipped);
                (!chunk.is_empty()).then_some(Ok(chunk))
            }
            Err(error) => Some(Err(error)),
        };
        std::future::ready(kept)
    });
    let beginning = stream::iter([Ok(Bytes::from(beginning))]);
    beginning.chain(rest).fuse().boxed()
}

/// Dump ids of the entries with rows and values within `scope`, in the archive's order: from a pipe
/// they can be restored in no other. An archive that lacks what the facts promise is refused.
pub(crate) fn wanted(
    part: &DataPart,
    contents: &Contents,
    scope: &Scope,
) -> Result<Vec<u32>, RestoreError> {
    let Scope::Only { relations, .. } = scope else {
        let ids = contents.entries.iter().map(|entry| entry.dump_id);
        return Ok(ids.collect());
    };
    let mut missing: BTreeSet<&TableName> = part.tables.iter().map(|(name, _)| name).collect();
    let relations: HashSet<&TableName> = relations.iter().collect();
    let mut ids = Vec::new();
    for entry in &contents.entries {
        let has_rows = entry.desc == "TABLE DATA";
        let name = name_of(entry);
        if (has_rows || entry.desc == "SEQUENCE SET") && relations.contains(&name) {
            ids.push(entry.dump_id);
            if has_rows {
                missing.remove(&name);
            }
        }
    }
    match missing.first() {
        None => Ok(ids),
        Some(table) => Err(RestoreError::bad_backup(format!(
            "part {} lacks the rows of {table}",
            part.name
        ))),
    }
}
