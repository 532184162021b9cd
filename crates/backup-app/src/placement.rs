//! What belongs where: one answer for backups, copies and checks.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::backup::SourceName;
use backup_core::catalog::{ListRequest, Listing};
use backup_core::engine::Engine;
use backup_core::history::{HistoryRequest, Proofs};
use backup_core::manifest::Manifest;
use backup_core::retention::Candidate;
use backup_retention::{Placement, Tz};

use crate::compose::App;
use crate::error::AppError;
use crate::place::Place;

impl App {
    /// What a place wants of a source; `None` if it is everything. Midnight is where the retention
    /// of the source has it, or that of the place.
    pub(crate) fn placement(
        &self,
        source: &SourceName,
        place: &Place,
    ) -> Result<Option<Placement>, AppError> {
        let tiers = &place.settings.tiers;
        if tiers.is_empty() {
            return Ok(None);
        }
        let config = self.config();
        let of_source = config.settings_of(source.as_str());
        let of_source = of_source.and_then(|source| source.retention.as_ref());
        let mut names = of_source
            .into_iter()
            .chain(&place.settings.retention)
            .chain(&config.defaults.retention);
        let policy = names.find_map(|name| config.retention.get(name));
        let zone = match policy.and_then(|policy| policy.timezone.as_deref()) {
            Some(zone) => zone
                .parse()
                .map_err(|_| AppError::usage(format!("there is no time zone {zone:?}")))?,
            None => Tz::UTC,
        };
        let tiers = tiers.iter().map(|&tier| tier.into());
        Ok(Some(Placement::new(tiers, zone)))
    }

    /// What a place has of a source.
    pub(crate) async fn has(
        &self,
        place: &Place,
        source: &SourceName,
    ) -> Result<Vec<Candidate>, AppError> {
        let lister = self.unchecked_lister(place).await?;
        let request = ListRequest {
            source: Some(source.clone()),
            ..ListRequest::default()
        };
        let listing = lister.engine.catalog().list(&request).await?;
        let proofs = proofs(&lister.engine, &listing).await?;
        lister.remember();
        let backups = listing.backups.iter();
        Ok(backups.map(|b| candidate(b, &listing, &proofs)).collect())
    }

    /// Of the backups at one place, those that another lacks, in their order.
    ///
    /// # Errors
    /// When a setting makes no sense, or when a place cannot tell what is good there.
    pub async fn lacking(
        &self,
        (from, here): (&Engine, &Listing),
        (to, place, there): (&Engine, &Place, &Listing),
    ) -> Result<Vec<Manifest>, AppError> {
        let whole = there.backups.iter().filter(|backup| !there.lacks(backup));
        let whole: BTreeSet<_> = whole.map(|b| (&b.source, &b.id)).collect();
        let is_missing = |b: &&Manifest| !whole.contains(&(&b.source, &b.id));
        let missing: Vec<_> = here.backups.iter().filter(is_missing).cloned().collect();
        if place.settings.tiers.is_empty() || missing.is_empty() {
            return Ok(missing);
        }
        let (ours, theirs) = (proofs(from, here).await?, proofs(to, there).await?);
        let mut by_source: BTreeMap<&SourceName, Vec<&Manifest>> = BTreeMap::new();
        for backup in &missing {
            by_source.entry(&backup.source).or_default().push(backup);
        }
        let mut wanted = Vec::new();
        for (source, backups) in by_source {
            let Some(placement) = self.placement(source, place)? else {
                continue;
            };
            let of_source = there.backups.iter().filter(|b| b.source == *source);
            let has: Vec<_> = of_source.map(|b| candidate(b, there, &theirs)).collect();
            let offered: Vec<_> = backups.iter().map(|b| candidate(b, here, &ours)).collect();
            let lacking = placement.lacking(&offered, &has).into_iter();
            wanted.extend(lacking.map(|index| (source.clone(), offered[index].id.clone())));
        }
        let is_wanted = |b: &Manifest| wanted.iter().any(|(s, id)| *s == b.source && *id == b.id);
        Ok(missing.into_iter().filter(is_wanted).collect())
    }
}

/// What the records of a place say of the backups that are listed.
async fn proofs(engine: &Engine, listing: &Listing) -> Result<Proofs, AppError> {
    let Some(oldest) = listing.backups.iter().map(|b| b.started_at).min() else {
        return Ok(Proofs::new(Vec::new()));
    };
    let request = HistoryRequest {
        since: Some(oldest),
        ..HistoryRequest::default()
    };
    let history = engine.history().list(&request).await?;
    Ok(Proofs::new(history.runs))
}

fn candidate(backup: &Manifest, listing: &Listing, proofs: &Proofs) -> Candidate {
    Candidate {
        extent: backup.into(),
        damaged: proofs.is_damaged(backup) || listing.lacks(backup),
        ..Candidate::new(backup.id.clone())
    }
}
