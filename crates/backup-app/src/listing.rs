//! What a place has, as listings show it.

mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_core::backup::{BackupId, SourceName};
use backup_core::catalog::Listing;
use backup_core::clock::Clock as _;
use backup_core::engine::{Engine, JudgedBackup};
use backup_core::error::{Error as CoreError, chain};
use backup_core::history::{HistoryRequest, Proofs};
use backup_core::manifest::Manifest;
use backup_core::run_record::RunRecord;
use backup_core::store::StoreKey;

pub use view::{DAMAGED, ListView, RunView, lacking, tiers};

use crate::check::Lost;
use crate::clock::SystemClock;
use crate::compose::{App, Lister};
use crate::error::AppError;
use crate::place::Place;
use crate::text::{shown, time};

/// What is read of one place.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) listing: Listing,
    /// Newest first.
    pub(crate) runs: Vec<RunRecord>,
    pub(crate) damaged_records: Vec<(StoreKey, String)>,
    pub(crate) lost_notices: Lost,
}

/// What one place has, with what is known of its backups.
#[derive(Debug)]
pub struct PlaceListing {
    /// What is not known, for people.
    pub warnings: Vec<String>,
    pub(crate) held: Arc<Held>,
    place: String,
    proofs: Proofs,
    kept: Kept,
}

/// What keeps backups at one place.
#[derive(Debug, Default)]
struct Kept {
    judged: BTreeMap<(SourceName, BackupId), JudgedBackup>,
    pinned: BTreeSet<(SourceName, BackupId)>,
}

/// Backups of several places, by id and source.
pub type Views = BTreeMap<(String, String), ListView>;

impl PlaceListing {
    /// The name of the place.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.place
    }

    /// Adds its backups to those of other places.
    pub fn add_to(&self, views: &mut Views) {
        for manifest in &self.held.listing.backups {
            let key = (manifest.id.to_string(), manifest.source.to_string());
            let view = match views.remove(&key) {
                Some(view) => view.also_at(&self.place),
                None => ListView::new(manifest, &self.place),
            };
            let view = view.lacking(self.held.listing.lacking(manifest));
            let view = view.damaged(self.proofs.is_damaged(manifest));
            let view = view.proved(self.proofs.newest(manifest));
            let view = view.drilled(self.proofs.newest_drill(manifest));
            views.insert(key, self.kept.show(manifest, view));
        }
    }

    /// Backups that were found damaged, for people. What is missing of one is in [`Self::damage`].
    #[must_use]
    pub fn found_damaged(&self) -> Vec<String> {
        let listing = &self.held.listing;
        let whole = listing.backups.iter();
        let whole = whole.filter(|manifest| listing.lacking(manifest).is_none());
        let damaged = whole.filter_map(|manifest| {
            let at = time(self.proofs.damaged_at(manifest)?);
            let (place, id) = (&self.place, &manifest.id);
            Some(format!("{place}: backup {id}: found damaged at {at}"))
        });
        damaged.collect()
    }

    /// What there is and cannot be used as it is, for people.
    #[must_use]
    pub fn damage(&self) -> Vec<String> {
        let place = &self.place;
        let lost = self.held.listing.backups.iter().filter_map(|manifest| {
            let lost = self.held.listing.lacking(manifest)?;
            Some(format!(
                "{place}: backup {}: {}",
                manifest.id,
                lacking(lost)
            ))
        });
        let unreadable = self.held.listing.damaged.iter();
        let unreadable = unreadable.map(|(key, reason)| format!("{place}: {key}: {reason}"));
        lost.chain(unreadable).collect()
    }
}

impl Kept {
    fn show(&self, manifest: &Manifest, view: ListView) -> ListView {
        let of = (manifest.source.clone(), manifest.id.clone());
        let view = view.pinned(self.pinned.contains(&of));
        match self.judged.get(&of) {
            Some(judged) => view.kept(judged),
            None => view,
        }
    }
}

impl App {
    /// What is known of backups that were listed.
    ///
    /// # Errors
    /// When settings make no sense. What else cannot be read is
    /// a warning: a listing is worth having without.
    pub async fn place_listing(
        &self,
        place: &Place,
        lister: &Lister,
        listing: Listing,
    ) -> Result<PlaceListing, AppError> {
        let engine = &lister.engine;
        let oldest = listing.backups.last().map(|oldest| oldest.started_at);
        let mut held = Held {
            listing,
            runs: Vec::new(),
            damaged_records: Vec::new(),
            lost_notices: Lost::new(),
        };
        let mut warnings = Vec::new();
        if let Some(since) = oldest {
            let request = HistoryRequest {
                since: Some(since),
                ..HistoryRequest::default()
            };
            match engine.history().list(&request).await {
                Ok(history) => {
                    held.runs = history.runs;
                    held.damaged_records = history.damaged;
                }
                Err(error) => {
                    let why = shown(&chain(&error));
                    let place = &place.name;
                    warnings.push(format!("{place}: verifications are not known: {why}"));
                }
            }
        }
        let mut listing = self.with_details(place, lister, Arc::new(held)).await?;
        warnings.append(&mut listing.warnings);
        lister.remember();
        Ok(PlaceListing {
            warnings,
            ..listing
        })
    }

    /// The same of what was read already.
    pub(crate) async fn with_details(
        &self,
        place: &Place,
        lister: &Lister,
        held: Arc<Held>,
    ) -> Result<PlaceListing, AppError> {
        let damaged = held.damaged_records.iter();
        let damaged = damaged.map(|(key, reason)| format!("{}: {key}: {reason}", place.name));
        let mut warnings: Vec<_> = damaged.collect();
        let backups = &held.listing.backups;
        let kept = self.kept(place, &lister.engine, backups, &mut warnings);
        Ok(PlaceListing {
            kept: kept.await?,
            place: place.name.clone(),
            proofs: Proofs::new(held.runs.clone()),
            warnings,
            held,
        })
    }

    /// Pins, and where somebody chose a policy what it says.
    async fn kept(
        &self,
        place: &Place,
        engine: &Engine,
        backups: &[Manifest],
        warnings: &mut Vec<String>,
    ) -> Result<Kept, AppError> {
        let sources: BTreeSet<_> = backups.iter().map(|backup| &backup.source).collect();
        let now = SystemClock.now();
        let mut kept = Kept::default();
        let mut warn = |what: &str, error: &CoreError| {
            let why = shown(&chain(error));
            warnings.push(format!("{}: {what} are not known: {why}", place.name));
        };
        for source in sources {
            match engine.pins().list(source).await {
                Ok(pins) => {
                    let holding = pins.into_iter().filter(|(_, pin)| pin.holds(now));
                    let of_source = holding.map(|(id, _)| (source.clone(), id));
                    kept.pinned.extend(of_source);
                }
                Err(error) => warn("pins", &error),
            }
            let Some(rules) = self.expiry_rules(source, place)? else {
                continue;
            };
            // Slots depend on all backups, not only on those that are listed.
            match engine.judged(source, &rules).await {
                Ok(judged) => {
                    let of = |judged: JudgedBackup| {
                        ((source.clone(), judged.manifest.id.clone()), judged)
                    };
                    kept.judged.extend(judged.into_iter().map(of));
                }
                Err(error) => warn("retention slots", &error),
            }
        }
        Ok(kept)
    }
}
