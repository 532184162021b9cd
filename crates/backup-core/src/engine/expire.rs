//! Which backups may go, and letting them go.

mod dead;
mod delete;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use super::{Engine, unless};
use crate::backup::{BackupId, SourceName};
use crate::catalog::{ListRequest, Listing};
use crate::error::{Error, chain};
use crate::history::{HistoryRequest, Proofs};
use crate::layout;
use crate::lease::{Holder, Lease, LeaseKind};
use crate::manifest::Manifest;
use crate::pin::FoundPin;
use crate::retention::{
    Candidate, Count, Guards, KeepReason, RetentionPolicy, Verdict, judge, plan,
};
use crate::run_record::Operation;
use crate::store::{Depth, Entry, ObjectMeta, StoreKey, UnfinishedUpload};

pub use delete::ExpireOutcome;

/// By what backups are judged.
#[derive(Debug, Clone)]
pub struct ExpiryRules {
    /// Which slots and ages are kept.
    pub policy: Arc<dyn RetentionPolicy>,
    /// What is kept whatever the policy says.
    pub guards: Guards,
    /// How many backups one run may delete.
    pub max_deletions: Count,
    /// How old objects without a manifest must be before they belong to no run any more. Longer
    /// than any backup takes: the parts of one that still runs look the same.
    pub orphan_grace: TimeDelta,
}

impl ExpiryRules {
    /// The rules with this policy, and the defaults for all else: a hundred deletions, a day.
    #[must_use]
    pub fn new(policy: Arc<dyn RetentionPolicy>) -> Self {
        Self {
            policy,
            guards: Guards::default(),
            max_deletions: Count::of(100),
            orphan_grace: TimeDelta::days(1),
        }
    }
}

/// A committed backup with the decision on it.
#[derive(Debug, Clone)]
pub struct JudgedBackup {
    /// Its record.
    pub manifest: Manifest,
    /// Every reason to keep it; none means that it may go.
    pub verdict: Verdict,
    /// Whether it was found damaged.
    pub damaged: bool,
    /// Its pin, whether that holds or has ended.
    pub pin: Option<FoundPin>,
}

impl JudgedBackup {
    /// When it can go at the earliest, if there is a backup in every period to come. `None` when
    /// it never can, or when what keeps it has no date.
    #[must_use]
    pub fn until(&self) -> Option<DateTime<Utc>> {
        let mut rules = self.verdict.clone();
        let before = rules.keep.len();
        rules.keep.retain(|reason| *reason != KeepReason::Pinned);
        let by_rules = rules.until();
        if rules.keep.len() == before {
            return by_rules;
        }
        let pin = self.pin.as_ref().and_then(FoundPin::readable)?.until?;
        // A rule without an end outlasts the pin.
        match by_rules {
            None if rules.keep.iter().any(KeepReason::is_rule) => None,
            by_rules => Some(pin).max(by_rules),
        }
    }
}

/// What a run left behind that never came to an end, or a deletion that did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// The name that the backup would have had.
    pub id: BackupId,
    /// Its objects, as far as they have names that we give.
    pub objects: Vec<StoreKey>,
    /// Their bytes.
    pub bytes: u64,
}

/// What would go, and why the rest stays.
#[derive(Debug, Clone)]
pub struct ExpiryPlan {
    /// The source.
    pub source: SourceName,
    /// Every committed backup that can be read, newest first.
    pub backups: Vec<JudgedBackup>,
    /// What else goes.
    pub orphans: Vec<Orphan>,
    /// Uploads that dead runs began, which no listing of objects shows and which cost all the same.
    pub uploads: Vec<UnfinishedUpload>,
    /// What could not be read and is therefore left alone.
    pub warnings: Vec<String>,
    /// How many backups one run may delete.
    pub max_deletions: Count,
    orphan_grace: TimeDelta,
}

impl ExpiryPlan {
    /// Every backup that may go, oldest first.
    pub fn expiring(&self) -> impl Iterator<Item = &JudgedBackup> {
        let oldest_first = self.backups.iter().rev();
        oldest_first.filter(|backup| backup.verdict.expires())
    }

    /// Those that one run deletes, oldest first.
    pub fn going(&self) -> impl Iterator<Item = &JudgedBackup> {
        self.expiring().take(self.max_deletions.limit())
    }

    /// How many backups may go and are left to the next run.
    #[must_use]
    pub fn postponed(&self) -> usize {
        self.expiring().count() - self.going().count()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.going().next().is_none() && self.orphans.is_empty() && self.uploads.is_empty()
    }
}

/// What is known of a source's backups.
struct Known {
    listing: Listing,
    proofs: Proofs,
    pins: BTreeMap<BackupId, FoundPin>,
    warnings: Vec<String>,
}

impl Engine {
    /// Judges the backups of a source, and finds what dead runs left behind. Changes nothing.
    ///
    /// A manifest that cannot be read is left alone with all that belongs to it: a later release
    /// may have written it.
    ///
    /// # Errors
    /// `Refused` when a safety rule says that nothing may go, `NotFound` when there is nothing of
    /// this source, and what the store reports: nobody guesses which backups are proved or pinned.
    pub async fn plan_expiry(
        &self,
        source: &SourceName,
        rules: &ExpiryRules,
        cancel: &CancellationToken,
    ) -> Result<ExpiryPlan, Error> {
        unless(cancel, self.find_expiry(source, rules)).await?
    }

    async fn find_expiry(
        &self,
        source: &SourceName,
        rules: &ExpiryRules,
    ) -> Result<ExpiryPlan, Error> {
        let now = self.clock.now();
        let known = self.known(source, now).await?;
        let listing = &known.listing;
        if listing.backups.is_empty()
            && listing.damaged.is_empty()
            && listing.uncommitted.is_empty()
        {
            return Err(Error::NotFound {
                what: format!("backup of source {:?}", source.as_str()),
            });
        }
        // As for writing: it may be somebody else's place, or a damaged one.
        if self.catalog().existing_repository().await?.is_none() {
            return Err(Error::refused(
                "there are backups but no repository.json",
                "check that this is the right place; restore the file from a copy",
            ));
        }
        let candidates = known.candidates(now);
        let verdicts = plan(&*rules.policy, &candidates, &rules.guards, now)?;
        let mut orphans = Vec::new();
        // Without a backup to compare it with, nothing speaks for the clock.
        let uncommitted = listing.uncommitted.iter();
        let in_use = self.in_use(source).await?;
        let uncommitted = uncommitted.filter(|(_, id)| !in_use.contains_key(id));
        for (source, id) in uncommitted.filter(|_| !candidates.is_empty()) {
            let found = self.orphan(source, id, rules.orphan_grace).await?;
            orphans.extend(found);
        }
        orphans.sort_by(|a, b| a.id.cmp(&b.id));
        let mut warnings = known.warnings.clone();
        let dead = async {
            if candidates.is_empty() {
                return Ok(Vec::new());
            }
            self.dead_uploads(source, &candidates, rules.orphan_grace)
                .await
        };
        let uploads = match dead.await {
            Ok(uploads) => uploads,
            Err(error) => {
                warnings.push(format!("unfinished uploads: {}", chain(&error)));
                Vec::new()
            }
        };
        Ok(ExpiryPlan {
            source: source.clone(),
            orphans,
            uploads,
            warnings,
            max_deletions: rules.max_deletions,
            orphan_grace: rules.orphan_grace,
            backups: known.judged(candidates, verdicts),
        })
    }

    /// The backups of a source with what the rules say of each, for looking only: the clock is
    /// believed, and nothing is refused. Newest first.
    ///
    /// # Errors
    /// What the store reports.
    pub async fn judged(
        &self,
        source: &SourceName,
        rules: &ExpiryRules,
    ) -> Result<Vec<JudgedBackup>, Error> {
        let now = self.clock.now();
        let known = self.known(source, now).await?;
        let candidates = known.candidates(now);
        let verdicts = judge(&*rules.policy, &candidates, &rules.guards, now)?;
        Ok(known.judged(candidates, verdicts))
    }

    /// Holds what is stored of a source, so that one run at a time lets backups go or brings some.
    /// None where the engine was not told how to.
    ///
    /// # Errors
    /// [`Error::Held`] when another run does it.
    pub async fn hold_stored(
        &self,
        source: &SourceName,
        operation: Operation,
        cancel: &CancellationToken,
    ) -> Result<Option<Lease>, Error> {
        self.hold(LeaseKind::Prune, source, operation, cancel).await
    }

    /// The backups of a source that are being read or written now, and by whom.
    pub(super) async fn in_use(
        &self,
        source: &SourceName,
    ) -> Result<BTreeMap<BackupId, Vec<Holder>>, Error> {
        match self.leases() {
            Some(leases) => leases.in_use(source).await,
            None => Ok(BTreeMap::new()),
        }
    }

    async fn known(&self, source: &SourceName, now: DateTime<Utc>) -> Result<Known, Error> {
        let request = ListRequest {
            source: Some(source.clone()),
            ..ListRequest::default()
        };
        let listing = self.catalog().list(&request).await?;
        let request = HistoryRequest {
            since: listing.backups.last().map(|oldest| oldest.started_at),
            ..HistoryRequest::default()
        };
        let (history, pins) = (self.history(), self.pins());
        let (runs, pins) = tokio::try_join!(history.list(&request), pins.list(source))?;
        let unreadable = listing.damaged.iter().chain(&runs.damaged);
        let mut warnings: Vec<_> = unreadable
            .map(|(key, reason)| format!("{key}: {reason}"))
            .collect();
        for (id, pin) in &pins {
            if let FoundPin::Unreadable(reason) = pin
                && pin.holds(now)
            {
                warnings.push(format!("pin of backup {id}: {reason}"));
            }
        }
        Ok(Known {
            listing,
            proofs: Proofs::new(runs.runs),
            pins,
            warnings,
        })
    }

    /// What lies below a name without a manifest, if it is old enough to belong to no run.
    async fn orphan(
        &self,
        source: &SourceName,
        id: &BackupId,
        grace: TimeDelta,
    ) -> Result<Option<Orphan>, Error> {
        let objects = self.objects_below(source, id).await?;
        let newest = objects.iter().map(|object| object.modified).max();
        let manifest = layout::manifest_key(source, id);
        let named = objects.iter().any(|object| object.key == manifest);
        // A bar stays: the run that it keeps out may stand still for long.
        if named && !self.catalog().is_barred(source, id).await? {
            return Ok(None);
        }
        let Some(newest) = newest else {
            return Ok(None);
        };
        if self.clock.now() - newest.max(id.started_at()) < grace {
            return Ok(None);
        }
        let mut ours = ours(source, id, objects);
        ours.retain(|object| object.key != manifest);
        Ok((!ours.is_empty()).then(|| Orphan {
            id: id.clone(),
            bytes: ours.iter().map(|object| object.bytes).sum(),
            objects: ours.into_iter().map(|object| object.key).collect(),
        }))
    }

    async fn objects_below(
        &self,
        source: &SourceName,
        id: &BackupId,
    ) -> Result<Vec<ObjectMeta>, Error> {
        let prefix = layout::backup_prefix(source, id);
        self.store
            .list(Some(&prefix), Depth::Recursive)
            .try_filter_map(|entry| async move {
                Ok(match entry {
                    Entry::Object(meta) => Some(meta),
                    Entry::Prefix(_) => None,
                })
            })
            .try_collect()
            .await
            .map_err(|e| Error::store(format!("list {prefix}"), e))
    }
}

impl Known {
    fn candidates(&self, now: DateTime<Utc>) -> Vec<Candidate> {
        let candidate = |manifest: &Manifest| Candidate {
            id: manifest.id.clone(),
            extent: manifest.into(),
            damaged: self.proofs.is_damaged(manifest) || self.listing.lacks(manifest),
            pinned: self
                .pins
                .get(&manifest.id)
                .is_some_and(|pin| pin.holds(now)),
            verified_at: self.proofs.verified_at(manifest),
        };
        self.listing.backups.iter().map(candidate).collect()
    }

    fn judged(mut self, candidates: Vec<Candidate>, verdicts: Vec<Verdict>) -> Vec<JudgedBackup> {
        let manifests = std::mem::take(&mut self.listing.backups);
        let judged = manifests.into_iter().zip(candidates).zip(verdicts);
        judged
            .map(|((manifest, candidate), verdict)| JudgedBackup {
                pin: self.pins.remove(&manifest.id),
                damaged: candidate.damaged,
                manifest,
                verdict,
            })
            .collect()
    }
}

/// Of the objects below a backup's name, those with names that we give.
fn ours(source: &SourceName, id: &BackupId, objects: Vec<ObjectMeta>) -> Vec<ObjectMeta> {
    let prefix = layout::backup_prefix(source, id);
    let is_ours = |object: &ObjectMeta| {
        let name = object.key.as_str().strip_prefix(prefix.as_str());
        let name = name.and_then(|name| name.strip_prefix('/'));
        name.is_some_and(layout::is_object_name)
    };
    objects.into_iter().filter(is_ours).collect()
}
