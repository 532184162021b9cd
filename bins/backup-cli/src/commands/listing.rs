//! What commands share that list something over all places.

use std::collections::BTreeMap;

use backup_app::AppError;
use backup_core::catalog::{Catalog, ListRequest, Listing};
use backup_core::error::Error as CoreError;
use backup_core::store::StoreKey;
use serde::Serialize;

use super::Context;
use crate::{exit_code, render};

/// What was found, by a key that sorts by age, and how many entries cannot be read.
#[derive(Debug)]
pub(super) struct Gathered<K, V> {
    pub(super) found: BTreeMap<K, V>,
    damaged: usize,
}

impl<K: Ord, V: Serialize> Gathered<K, V> {
    pub(super) fn new() -> Self {
        Self {
            found: BTreeMap::new(),
            damaged: 0,
        }
    }

    /// Whether there is nothing, not even what cannot be read.
    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty() && self.damaged == 0
    }

    /// Says of a place what cannot be read there.
    pub(super) fn damaged(&mut self, place: &str, entries: &[(StoreKey, String)]) {
        self.damaged += entries.len();
        warn_damaged(place, entries);
    }

    /// Says what else is wrong at a place.
    pub(super) fn damage(&mut self, what: &str) {
        self.damaged += 1;
        render::warn(what);
    }

    /// Shows the newest, and says how to end. `print` is for people.
    pub(super) fn show(
        self,
        context: &Context,
        limit: Option<usize>,
        print: impl FnOnce(&[V]),
    ) -> u8 {
        let limit = limit.unwrap_or(usize::MAX);
        let views: Vec<_> = self.found.into_values().rev().take(limit).collect();
        if context.json {
            render::json(&views);
        } else {
            print(&views);
        }
        if self.damaged == 0 {
            exit_code::DONE
        } else {
            exit_code::WARNINGS
        }
    }
}

impl Context {
    /// What a catalog has of the sources that a name means, newest first, or of all.
    pub(super) async fn listed(
        &self,
        catalog: &Catalog<'_>,
        source: Option<&str>,
        request: &ListRequest,
    ) -> Result<Listing, AppError> {
        let Some(name) = source else {
            return Ok(catalog.list(request).await?);
        };
        let mut all = Listing::default();
        for source in self.app.sources_named(name, catalog).await? {
            let request = ListRequest {
                source: Some(source),
                ..request.clone()
            };
            all = all.and(catalog.list(&request).await?);
        }
        all.backups.truncate(request.limit.unwrap_or(usize::MAX));
        Ok(all)
    }
}

/// What to say when nothing is stored: of a source that somebody named, that is an error, since he
/// may have mistyped it.
pub(super) fn none_of(source: Option<&str>) -> Result<(), AppError> {
    match source {
        None => Ok(()),
        Some(name) => Err(CoreError::NotFound {
            what: format!("backup of source {name:?}"),
        }
        .into()),
    }
}

/// Says what cannot be read at a place, though the listing is worth having without.
pub(super) fn warn_damaged(place: &str, entries: &[(StoreKey, String)]) {
    for (key, reason) in entries {
        render::warn(&format!("{place}: {key}: {reason}"));
    }
}
