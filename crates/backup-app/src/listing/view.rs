//! Backups and runs as JSON, the same from every frontend; the domain's own types may change
//! without them.

use backup_core::catalog::Incomplete;
use backup_core::engine::JudgedBackup;
use backup_core::history::Proof;
use backup_core::manifest::{Content, Manifest};
use backup_core::retention::{KeepReason, Tier, Verdict};
use backup_core::run_record::{CompareFacts, DrillFacts, PruneFacts, RunRecord, VerifyFacts, Who};
use serde::Serialize;
use utoipa::ToSchema;

use crate::DestinationView;
use crate::text::time;

/// What is said of a copy of which not every byte was found good since.
pub const DAMAGED: &str = "found damaged by a verification";

/// What a committed backup has lost, in words.
#[must_use]
pub fn lacking(incomplete: &Incomplete) -> String {
    let count = incomplete.objects.len();
    let first = incomplete.objects.first().map_or("", String::as_str);
    match count {
        1 => format!("1 object is not as written: {first}"),
        _ => format!("{count} objects are not as written, {first} among them"),
    }
}

/// `list --json`
#[derive(Debug, Clone, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the names are those of the documented JSON")]
pub struct ListView {
    pub id: String,
    pub source: String,
    pub database: String,
    pub started_at: String,
    pub raw_bytes: u64,
    pub stored_bytes: u64,
    pub status: &'static str,
    pub filtered: bool,
    pub encrypted: bool,
    pub pinned: bool,
    pub tiers: Vec<String>,
    pub retention_until: Option<String>,
    /// Whether anything keeps it where rules were asked; `None` where there are none.
    #[serde(skip)]
    pub is_kept: Option<bool>,
    pub verified_at: Option<String>,
    pub verified_level: Option<&'static str>,
    pub drilled_at: Option<String>,
    pub drill_status: Option<String>,
    pub destinations: Vec<DestinationView>,
    /// What it is a backup of.
    #[serde(skip)]
    pub content: Content,
}

impl ListView {
    /// A backup that is committed at `place`.
    #[must_use]
    pub fn new(manifest: &Manifest, place: &str) -> Self {
        Self {
            id: manifest.id.to_string(),
            source: manifest.source.to_string(),
            database: manifest.database.clone(),
            started_at: time(manifest.started_at),
            raw_bytes: manifest.totals.raw_bytes,
            stored_bytes: manifest.totals.stored_bytes,
            status: "success",
            filtered: manifest.filtered,
            encrypted: manifest.encryption.is_some(),
            pinned: false,
            tiers: Vec::new(),
            retention_until: None,
            is_kept: None,
            verified_at: None,
            verified_level: None,
            drilled_at: None,
            drill_status: None,
            destinations: Vec::new(),
            content: manifest.content(),
        }
        .also_at(place)
    }

    /// Whether a restore makes a database of it.
    #[must_use]
    pub fn is_database(&self) -> bool {
        self.content == Content::Database
    }

    /// The same, with the newest proof of several places.
    #[must_use]
    pub fn proved(mut self, proof: Option<Proof>) -> Self {
        if let Some(proof) = proof {
            // Of one form, so that they compare as text.
            let at = time(proof.at);
            if self.verified_at.as_ref().is_none_or(|known| *known < at) {
                self.verified_at = Some(at);
                self.verified_level = Some(proof.level.as_str());
            }
        }
        self
    }

    /// The same, with the newest drill of several places.
    #[must_use]
    pub fn drilled(mut self, drill: Option<&RunRecord>) -> Self {
        if let Some(run) = drill {
            let at = time(run.finished_at);
            if self.drilled_at.as_ref().is_none_or(|known| *known < at) {
                self.drilled_at = Some(at);
                self.drill_status = Some(run.result.as_str().to_owned());
            }
        }
        self
    }

    /// The same, with what keeps it at one of several places: what keeps it at any, counts.
    #[must_use]
    pub fn kept(mut self, backup: &JudgedBackup) -> Self {
        for tier in tiers(&backup.verdict) {
            if !self.tiers.iter().any(|known| known == tier) {
                self.tiers.push(tier.to_owned());
            }
        }
        let is_kept = !backup.verdict.keep.is_empty();
        self.is_kept = Some(is_kept || self.is_kept == Some(true));
        // Of one form, so that they compare as text. Where it has no end, it has none at all.
        let until = backup.until().map(time);
        self.retention_until = match (self.destinations.len(), self.retention_until) {
            (1, _) => until,
            (_, known) => known.zip(until).map(|(known, until)| known.max(until)),
        };
        self
    }

    /// The same, with a pin at one of several places.
    #[must_use]
    pub fn pinned(mut self, pinned: bool) -> Self {
        self.pinned |= pinned;
        self
    }

    /// The same, with what is missing at the place that was named last.
    #[must_use]
    pub fn lacking(self, incomplete: Option<&Incomplete>) -> Self {
        self.failing(incomplete.map(lacking))
    }

    /// The same, with whether it was found damaged at the place that was named last. What is
    /// missing there is said before, and says more.
    #[must_use]
    pub fn damaged(self, damaged: bool) -> Self {
        let last = self.destinations.last();
        let is_good = last.is_none_or(|place| place.error.is_none());
        self.failing((damaged && is_good).then(|| DAMAGED.to_owned()))
    }

    /// The same, with what is wrong at the place that was named last.
    fn failing(mut self, error: Option<String>) -> Self {
        if let (Some(error), Some(place)) = (error, self.destinations.last_mut()) {
            place.status = "failed";
            place.error = Some(error);
        }
        let good = |place: &&DestinationView| place.error.is_none();
        self.status = match self.destinations.iter().filter(good).count() {
            0 => "failed",
            count if count < self.destinations.len() => "partial",
            _ => "success",
        };
        self
    }

    /// The same, also found at another place.
    #[must_use]
    pub fn also_at(mut self, place: &str) -> Self {
        self.destinations.push(DestinationView::good(place));
        self
    }
}

/// `runs --json`
#[derive(Debug, Clone, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the names are those of the documented JSON")]
pub struct RunView {
    pub id: String,
    pub operation: String,
    pub source: Option<String>,
    pub backup: Option<String>,
    pub target_database: Option<String>,
    pub kept_as: Option<String>,
    pub undone: Option<String>,
    pub started_at: String,
    pub finished_at: String,
    pub duration_seconds: f64,
    pub result: &'static str,
    pub error: Option<String>,
    pub warnings: u64,
    #[schema(value_type = Object)]
    pub who: Who,
    /// The moment of the schedule that asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    pub raw_bytes: Option<u64>,
    pub stored_bytes: Option<u64>,
    pub bytes_read: Option<u64>,
    #[schema(value_type = Option<Object>)]
    pub compare: Option<CompareFacts>,
    #[schema(value_type = Option<Object>)]
    pub verify: Option<VerifyFacts>,
    #[schema(value_type = Option<Object>)]
    pub drill: Option<DrillFacts>,
    #[schema(value_type = Option<Object>)]
    pub prune: Option<PruneFacts>,
    pub destination: String,
}

impl RunView {
    /// A run whose record is at `place`.
    #[must_use]
    pub fn new(run: &RunRecord, place: &str) -> Self {
        Self {
            id: run.id.to_string(),
            operation: run.operation.to_string(),
            source: run.source.as_ref().map(ToString::to_string),
            backup: run.backup.as_ref().map(ToString::to_string),
            target_database: run.target_database.clone(),
            kept_as: run.kept_as.clone(),
            undone: run.undone.as_ref().map(ToString::to_string),
            started_at: time(run.started_at),
            finished_at: time(run.finished_at),
            duration_seconds: (run.finished_at - run.started_at).as_seconds_f64(),
            result: run.result.as_str(),
            error: run.error.clone(),
            warnings: run.warnings,
            who: run.who.clone(),
            slot: run.slot.map(time),
            raw_bytes: run.raw_bytes,
            stored_bytes: run.stored_bytes,
            bytes_read: run.bytes_read,
            compare: run.compare,
            verify: run.verify,
            drill: run.drill,
            prune: run.prune.clone(),
            destination: place.to_owned(),
        }
    }
}

/// The tiers whose slots a backup fills.
#[must_use]
pub fn tiers(verdict: &Verdict) -> Vec<&'static str> {
    let tiers = verdict.keep.iter().filter_map(KeepReason::tier);
    tiers.map(Tier::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored_at(place: &str) -> ListView {
        ListView {
            id: "20260205T030000Z-aaaa".to_owned(),
            source: "shop".to_owned(),
            database: "shop".to_owned(),
            started_at: "2026-02-05T03:00:00Z".to_owned(),
            raw_bytes: 2,
            stored_bytes: 1,
            status: "success",
            filtered: false,
            encrypted: false,
            pinned: false,
            tiers: Vec::new(),
            retention_until: None,
            is_kept: None,
            verified_at: None,
            verified_level: None,
            drilled_at: None,
            drill_status: None,
            destinations: vec![DestinationView::good(place)],
            content: Content::Database,
        }
    }

    fn errors(view: &ListView) -> Vec<(&str, Option<&str>)> {
        let places = view.destinations.iter();
        let places = places.map(|place| (place.status, place.error.as_deref()));
        places.collect()
    }

    #[test]
    fn a_copy_that_was_found_damaged_is_no_success_and_others_stay_good() {
        let damaged = ("failed", Some("found damaged by a verification"));
        let view = stored_at("near").lacking(None).damaged(true);
        assert_eq!((view.status, errors(&view)), ("failed", vec![damaged]));
        let view = view.also_at("far").lacking(None).damaged(false);
        assert_eq!(
            (view.status, errors(&view)),
            ("partial", vec![damaged, ("success", None)])
        );
        let view = stored_at("far").lacking(None).damaged(false);
        assert_eq!(view.status, "success");
        let view = view.also_at("near").lacking(None).damaged(true);
        assert_eq!(
            (view.status, errors(&view)),
            ("partial", vec![("success", None), damaged])
        );
    }

    #[test]
    fn what_is_missing_says_more_than_that_it_is_damaged() {
        let lost = Incomplete {
            source: backup_core::backup::SourceName::new("shop").unwrap(),
            id: "20260205T030000Z-abcd".parse().unwrap(),
            objects: vec!["a/b".to_owned()],
        };
        let view = stored_at("near").lacking(Some(&lost)).damaged(true);
        let missing = ("failed", Some("1 object is not as written: a/b"));
        assert_eq!((view.status, errors(&view)), ("failed", vec![missing]));
    }
}
