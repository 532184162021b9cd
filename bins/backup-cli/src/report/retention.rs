//! `prune`, `simulate` and pins as JSON.

use backup_app::{ErrorReport, SimulatedYear, tiers};
use backup_core::engine::{ExpireOutcome, ExpiryPlan, JudgedBackup, Orphan};
use backup_core::pin::{FoundPin, Pin};
use backup_core::retention::{KeepReason, Tier};
use backup_core::run_record::RunId;
use serde::Serialize;

use crate::render;

/// `prune --json`: one source at one place.
#[derive(Debug, Serialize)]
pub(crate) struct PruneView {
    pub(crate) run_id: Option<String>,
    source: String,
    destination: String,
    dry_run: bool,
    pub(crate) status: &'static str,
    kept: usize,
    expired: usize,
    backups: Vec<VerdictView>,
    orphans: Vec<OrphanView>,
    /// Uploads that dead runs began.
    uploads: usize,
    deleted: Vec<String>,
    /// Backups that were to go and are still there.
    failed: Vec<String>,
    /// Objects of no backup that could not be deleted.
    left: Vec<String>,
    freed_bytes: u64,
    warnings: Vec<String>,
    pub(crate) error: Option<ErrorReport>,
}

/// The decision on one backup.
#[derive(Debug, Serialize)]
struct VerdictView {
    id: String,
    started_at: String,
    stored_bytes: u64,
    filtered: bool,
    damaged: bool,
    verdict: &'static str,
    reasons: Vec<String>,
    tiers: Vec<&'static str>,
    retention_until: Option<String>,
    pin: Option<PinView>,
}

/// What a dead run left behind.
#[derive(Debug, Serialize)]
struct OrphanView {
    id: String,
    objects: usize,
    bytes: u64,
}

/// A pin.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PinView {
    until: Option<String>,
    reason: Option<String>,
    who: String,
    pinned_at: String,
}

/// `pin --json` and `unpin --json`
#[derive(Debug, Serialize)]
pub(crate) struct PinnedView {
    pub(crate) run_id: Option<String>,
    pub(crate) id: String,
    pub(crate) source: String,
    pub(crate) destination: String,
    pub(crate) pinned: bool,
    pub(crate) pin: Option<PinView>,
}

impl PruneView {
    /// A source of which nothing is known yet.
    pub(crate) fn new(source: &str, destination: &str, dry_run: bool) -> Self {
        Self {
            run_id: None,
            source: source.to_owned(),
            destination: destination.to_owned(),
            dry_run,
            status: if dry_run { "planned" } else { "failed" },
            kept: 0,
            expired: 0,
            backups: Vec::new(),
            orphans: Vec::new(),
            uploads: 0,
            deleted: Vec::new(),
            failed: Vec::new(),
            left: Vec::new(),
            freed_bytes: 0,
            warnings: Vec::new(),
            error: None,
        }
    }

    /// The same with what is to be done.
    pub(crate) fn planned(mut self, plan: &ExpiryPlan) -> Self {
        self.expired = plan.expiring().count();
        self.kept = plan.backups.len() - self.expired;
        self.backups = plan.backups.iter().map(VerdictView::from).collect();
        self.orphans = plan.orphans.iter().map(OrphanView::from).collect();
        self.uploads = plan.uploads.len();
        self.warnings.extend_from_slice(&plan.warnings);
        self
    }

    /// The same with what was done.
    pub(crate) fn done(mut self, outcome: &ExpireOutcome, run: Option<&RunId>) -> Self {
        self.run_id = run.map(ToString::to_string);
        self.status = match (outcome.stopped, outcome.warnings.is_empty()) {
            (true, _) => "cancelled",
            _ if outcome.failed_wholly() => "failed",
            (_, true) if self.warnings.is_empty() => "success",
            _ => "warnings",
        };
        self.deleted = outcome.deleted.iter().map(ToString::to_string).collect();
        let failed = outcome.failed.iter().map(|(id, _)| id);
        let failed = failed.chain(&outcome.forbidden);
        self.failed = failed.map(ToString::to_string).collect();
        self.left = outcome.left.iter().map(ToString::to_string).collect();
        self.freed_bytes = outcome.freed_bytes;
        self.warnings.extend_from_slice(&outcome.warnings);
        self
    }
}

impl From<&JudgedBackup> for VerdictView {
    fn from(backup: &JudgedBackup) -> Self {
        let manifest = &backup.manifest;
        Self {
            id: manifest.id.to_string(),
            started_at: render::time(manifest.started_at),
            stored_bytes: manifest.totals.stored_bytes,
            filtered: manifest.filtered,
            damaged: backup.damaged,
            verdict: if backup.verdict.expires() {
                "expire"
            } else {
                "keep"
            },
            reasons: reasons(backup),
            tiers: tiers(&backup.verdict),
            retention_until: backup.until().map(render::time),
            pin: backup.pin.as_ref().and_then(PinView::of),
        }
    }
}

impl From<&Orphan> for OrphanView {
    fn from(orphan: &Orphan) -> Self {
        Self {
            id: orphan.id.to_string(),
            objects: orphan.objects.len(),
            bytes: orphan.bytes,
        }
    }
}

impl PinView {
    /// A pin that can be read.
    pub(crate) fn of(found: &FoundPin) -> Option<Self> {
        found.readable().map(Self::from)
    }
}

impl From<&Pin> for PinView {
    fn from(pin: &Pin) -> Self {
        Self {
            until: pin.until.map(render::time),
            reason: pin.reason.clone(),
            who: pin.who.to_string(),
            pinned_at: render::time(pin.pinned_at),
        }
    }
}

/// Every reason to keep a backup, in words.
pub(crate) fn reasons(backup: &JudgedBackup) -> Vec<String> {
    let text = |reason: &KeepReason| match (reason, &backup.pin) {
        (KeepReason::Pinned, Some(pin)) => pin_text(pin),
        _ => reason.to_string(),
    };
    backup.verdict.keep.iter().map(text).collect()
}

/// What a pin says.
pub(crate) fn pin_text(found: &FoundPin) -> String {
    let Some(pin) = found.readable() else {
        return "pinned (its record cannot be read)".to_owned();
    };
    let until = pin
        .until
        .map(|until| format!(" until {}", render::time(until)));
    let reason = pin.reason.as_ref().map(|reason| format!(": {reason}"));
    let parts = [until, reason].into_iter().flatten();
    parts.fold("pinned".to_owned(), |text, part| text + &part)
}

/// `simulate --json`: one year.
#[derive(Debug, Serialize)]
pub(crate) struct SimulatedView {
    year: usize,
    pub(crate) ends_at: String,
    pub(crate) daily: usize,
    pub(crate) weekly: usize,
    pub(crate) monthly: usize,
    pub(crate) yearly: usize,
    pub(crate) others: usize,
    pub(crate) total: usize,
    pub(crate) oldest: String,
}

impl SimulatedView {
    /// The years, the first first.
    pub(crate) fn all(years: &[SimulatedYear]) -> Vec<Self> {
        let view = |(index, year): (usize, &SimulatedYear)| {
            let of = |tier: Tier| year.tiers.get(&tier).copied().unwrap_or(0);
            Self {
                year: index + 1,
                ends_at: render::time(year.ends),
                daily: of(Tier::Daily),
                weekly: of(Tier::Weekly),
                monthly: of(Tier::Monthly),
                yearly: of(Tier::Yearly),
                others: year.others,
                total: year.total,
                oldest: render::time(year.oldest),
            }
        };
        years.iter().enumerate().map(view).collect()
    }
}
