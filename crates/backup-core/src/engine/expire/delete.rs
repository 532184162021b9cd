//! Deleting what a plan lets go: the manifest first, whose loss is what makes it no backup any
//! more, then everything else. What a crash leaves in between, the next run finds without a
//! manifest.

use std::collections::BTreeSet;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::{ExpiryPlan, JudgedBackup, Orphan, ours};
use crate::backup::{BackupId, SourceName};
use crate::engine::{Engine, unless};
use crate::error::{Error, ErrorKind, PortError, chain};
use crate::layout;
use crate::manifest::Manifest;
use crate::observer::Event;
use crate::pin::FoundPin;
use crate::store::StoreKey;

/// How many objects are deleted at the same time.
const DELETERS: usize = 8;

/// What came of letting backups go.
#[derive(Debug, Clone, Default)]
pub struct ExpireOutcome {
    /// Backups that are no more, in the order of their deletion. Objects may be left of them.
    pub deleted: Vec<BackupId>,
    /// The stored bytes of those, and of what dead runs had left.
    pub freed_bytes: u64,
    /// Dead runs of which nothing is left.
    pub swept: Vec<BackupId>,
    /// How many uploads of dead runs were ended.
    pub aborted_uploads: usize,
    /// Backups that stay because the store forbids to delete them.
    pub forbidden: Vec<BackupId>,
    /// Backups that stay though they were to go, and why.
    pub failed: Vec<(BackupId, String)>,
    /// Objects that belong to no backup any more and could not be deleted.
    pub left: Vec<StoreKey>,
    /// How many backups were not tried because the store does not answer.
    pub untried: usize,
    /// What is not as it should be, for people.
    pub warnings: Vec<String>,
    /// Whether somebody stopped it.
    pub stopped: bool,
    /// Whether the store does not answer. It would be asked for minutes, of each thing.
    away: bool,
}

/// Why a backup is still there.
enum Stays {
    Pinned,
    /// Somebody reads it.
    InUse(String),
    Forbidden(String),
    Failed(Error),
}

impl Engine {
    /// Deletes what the plan lets go, oldest first, and says what came of it. What was pinned
    /// since stays, and so does what somebody reads. [`Engine::hold_stored`] keeps others from
    /// doing the same meanwhile.
    ///
    /// # Cancellation
    /// The token ends it between two requests.
    pub async fn expire(&self, plan: &ExpiryPlan, cancel: &CancellationToken) -> ExpireOutcome {
        let mut outcome = ExpireOutcome::default();
        let mut going: Vec<_> = plan.going().collect();
        going.reverse();
        let mut refusal = None;
        while let Some(backup) = going.pop() {
            outcome.stopped |= cancel.is_cancelled();
            if outcome.is_over() {
                outcome.untried = if outcome.away { going.len() + 1 } else { 0 };
                break;
            }
            let id = &backup.manifest.id;
            match self.let_go(backup, &mut outcome, cancel).await {
                Ok(()) => outcome.deleted.push(id.clone()),
                Err(Stays::Pinned) => {
                    let text = format!("backup {id} was pinned meanwhile and stays");
                    outcome.warnings.push(text);
                }
                Err(Stays::InUse(by)) => {
                    let text = format!("backup {id} stays for now: it is in use by {by}");
                    outcome.warnings.push(text);
                }
                Err(Stays::Forbidden(why)) => {
                    refusal.get_or_insert(why);
                    outcome.forbidden.push(id.clone());
                }
                Err(Stays::Failed(Error::Cancelled)) => outcome.stopped = true,
                Err(Stays::Failed(error)) => {
                    outcome.failed.push((id.clone(), chain(&error)));
                    outcome.note_away(error.kind());
                }
            }
        }
        self.sweep_all(plan, &mut outcome, cancel).await;
        self.end_uploads(plan, &mut outcome, cancel).await;
        self.remove_litter(plan, &mut outcome, cancel).await;
        outcome.tell(plan.postponed(), refusal);
        outcome
    }

    /// Deletes one backup. Without an error it is none any more, whatever is left of it.
    async fn let_go(
        &self,
        backup: &JudgedBackup,
        outcome: &mut ExpireOutcome,
        cancel: &CancellationToken,
    ) -> Result<(), Stays> {
        let manifest = &backup.manifest;
        let (source, id) = (&manifest.source, &manifest.id);
        let look = async {
            let pin = self.pins().get(source, id).await?;
            let users = self.users(source, id).await?;
            Ok((pin, users, self.objects_below(source, id).await?))
        };
        let looked: Result<_, Error> = unless(cancel, look).await.and_then(|looked| looked);
        let (pin, users, objects) = looked.map_err(Stays::Failed)?;
        if let Some(by) = users {
            return Err(Stays::InUse(by));
        }
        if pin.as_ref().is_some_and(|pin| pin.holds(self.clock.now())) {
            return Err(Stays::Pinned);
        }
        self.uncommit(source, id).await?;
        self.observer
            .event(&Event::Note(format!("backup {id} is deleted")));
        // Who read the manifest just before it went has said so before.
        let why = match self.users(source, id).await {
            Ok(by) => by.map(|by| format!("in use by {by}")),
            Err(error) => {
                outcome.note_away(error.kind());
                Some(format!("who uses them is not known: {}", chain(&error)))
            }
        };
        if let Some(why) = why {
            let text = format!("objects of backup {id} are left for now: {why}");
            outcome.warnings.push(text);
            return Ok(());
        }
        outcome.freed_bytes += manifest.totals.stored_bytes;
        let mut keys: BTreeSet<_> = named(manifest).collect();
        keys.extend(
            ours(source, id, objects)
                .into_iter()
                .map(|object| object.key),
        );
        if let Some(FoundPin::Readable(_)) = pin {
            keys.insert(layout::pin_key(source, id));
        }
        self.delete_all(keys.into_iter().collect(), outcome, cancel)
            .await;
        Ok(())
    }

    /// Who reads or writes a backup now, in words.
    async fn users(&self, source: &SourceName, id: &BackupId) -> Result<Option<String>, Error> {
        let in_use = self.in_use(source).await?;
        let holders = in_use.get(id).filter(|holders| !holders.is_empty());
        Ok(holders.map(|holders| {
            let names: Vec<String> = holders.iter().map(ToString::to_string).collect();
            names.join("; ")
        }))
    }

    /// Removes the manifest. An answer that got lost is resolved by looking.
    async fn uncommit(&self, source: &SourceName, id: &BackupId) -> Result<(), Stays> {
        let key = layout::manifest_key(source, id);
        let Err(error) = self.store.delete(&key).await else {
            return Ok(());
        };
        if error.kind() == ErrorKind::PermissionDenied {
            return Err(Stays::Forbidden(chain(&error)));
        }
        match self.store.head(&key).await {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            _ => Err(Stays::Failed(Error::store(format!("delete {key}"), error))),
        }
    }

    /// Removes what dead runs left, after none of them can commit it any more.
    async fn sweep_all(
        &self,
        plan: &ExpiryPlan,
        outcome: &mut ExpireOutcome,
        cancel: &CancellationToken,
    ) {
        if plan.orphans.is_empty() || outcome.is_over() {
            return;
        }
        if let Some(leases) = self.leases() {
            let orphans: Vec<_> = plan.orphans.iter().map(|orphan| &orphan.id).collect();
            let retired = leases.retire(&plan.source, &orphans, cancel);
            let what = "what dead runs left stays for now";
            if outcome.ask(what, cancel, retired).await.is_none() {
                return;
            }
        }
        for orphan in &plan.orphans {
            outcome.stopped |= cancel.is_cancelled();
            if outcome.is_over() {
                break;
            }
            self.sweep(plan, orphan, outcome, cancel).await;
        }
    }

    /// Removes what a dead run left, unless it came to life.
    async fn sweep(
        &self,
        plan: &ExpiryPlan,
        orphan: &Orphan,
        outcome: &mut ExpireOutcome,
        cancel: &CancellationToken,
    ) {
        let look = self.orphan(&plan.source, &orphan.id, plan.orphan_grace);
        let what = format!("what is left of {}", orphan.id);
        let Some(Some(found)) = outcome.ask(&what, cancel, look).await else {
            return;
        };
        let before = outcome.left.len();
        self.delete_all(found.objects, outcome, cancel).await;
        if outcome.left.len() == before {
            outcome.swept.push(orphan.id.clone());
            outcome.freed_bytes += found.bytes;
        }
    }

    /// Deletes objects that belong to no backup any more, as long as the store answers.
    async fn delete_all(
        &self,
        keys: Vec<StoreKey>,
        outcome: &mut ExpireOutcome,
        cancel: &CancellationToken,
    ) {
        let mut first: Option<PortError> = None;
        let before = outcome.left.len();
        let (mut untried, mut asked) = (keys.into_iter(), FuturesUnordered::new());
        loop {
            while asked.len() < DELETERS
                && !outcome.is_over()
                && let Some(key) = untried.next()
            {
                asked.push(async move {
                    let deleted = unless(cancel, self.store.delete(&key)).await;
                    (key, deleted)
                });
            }
            let Some((key, deleted)) = asked.next().await else {
                break;
            };
            match deleted {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => {
                    outcome.note_away(error.kind());
                    first.get_or_insert(error);
                }
                Err(_) => outcome.stopped = true,
            }
            outcome.left.push(key);
        }
        outcome.left.extend(untried);
        outcome.left[before..].sort();
        if let (Some(error), Some(key)) = (first, outcome.left.get(before)) {
            let text = format!("{key} is left behind: {}", chain(&error));
            outcome.warnings.push(text);
        }
    }
}

/// The objects that a manifest names, and the wrapped key.
fn named(manifest: &Manifest) -> impl Iterator<Item = StoreKey> {
    let parts = manifest.parts.iter().flat_map(|part| &part.objects);
    let key = manifest.encryption.as_ref().map(|record| &record.key);
    let names = parts.map(|object| &object.name).chain(key);
    // A name that is none was written by somebody who wanted other objects to go.
    names.filter_map(|name| layout::object_key(&manifest.source, &manifest.id, name).ok())
}

impl ExpireOutcome {
    /// Whether nothing went although something should have, and nobody forbade it.
    #[must_use]
    pub fn failed_wholly(&self) -> bool {
        self.deleted.is_empty() && !self.failed.is_empty()
    }

    /// Whether there is no use in going on.
    pub(super) fn is_over(&self) -> bool {
        self.stopped || self.away
    }

    /// What comes of a request; nothing when it failed, which is told, or when somebody stopped it.
    pub(super) async fn ask<T>(
        &mut self,
        what: &str,
        cancel: &CancellationToken,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Option<T> {
        match unless(cancel, request).await.and_then(|answer| answer) {
            Ok(answer) => Some(answer),
            Err(Error::Cancelled) => {
                self.stopped = true;
                None
            }
            Err(error) => {
                self.warnings.push(format!("{what}: {}", chain(&error)));
                self.note_away(error.kind());
                None
            }
        }
    }

    /// Takes a failure for what it says of the store.
    fn note_away(&mut self, kind: ErrorKind) {
        self.away |= kind.is_outage();
    }

    /// Says in words what is not as it should be.
    fn tell(&mut self, postponed: usize, refusal: Option<String>) {
        for (id, why) in &self.failed {
            self.warnings
                .push(format!("backup {id} is not deleted: {why}"));
        }
        if self.untried > 0 {
            let text = format!(
                "{} more were not tried: the store does not answer",
                self.untried
            );
            self.warnings.push(text);
        }
        if let Some(why) = refusal {
            let count = self.forbidden.len();
            self.warnings.push(format!(
                "the store keeps {count} of the backups that may go: {why}"
            ));
        }
        if !self.left.is_empty() {
            let count = self.left.len();
            self.warnings.push(format!(
                "{count} objects of no backup are left; the next prune removes them"
            ));
        }
        if postponed > 0 {
            self.warnings.push(format!(
                "{postponed} more may go and are left to the next run, for max_deletions"
            ));
        }
    }
}
