//! What dead runs left that is no object of a backup: uploads that nobody finished, notes of readers, and what
//! a store was tried with.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use super::{ExpireOutcome, ExpiryPlan};
use crate::backup::SourceName;
use crate::engine::{Engine, unless};
use crate::error::{Error, ErrorKind, chain};
use crate::layout;
use crate::retention::Candidate;
use crate::store::UnfinishedUpload;

impl Engine {
    /// Uploads of which no run takes care any more. Whoever may not ask for them has none.
    ///
    /// One for an object of a backup that is there is left to the rules of the bucket. It may be a first try
    /// whose answer was lost. But servers have been seen that kept an upload which was completed, and whose
    /// object lost its content when that was ended (<https://github.com/seaweedfs/seaweedfs/issues/10663>).
    pub(super) async fn dead_uploads(
        &self,
        source: &SourceName,
        backups: &[Candidate],
        grace: TimeDelta,
    ) -> Result<Vec<UnfinishedUpload>, Error> {
        let prefix = layout::source_prefix(source);
        let uploads = match self.store.unfinished_uploads(&prefix).await {
            Err(e) if e.kind() == ErrorKind::PermissionDenied => return Ok(Vec::new()),
            found => found.map_err(|e| Error::store(format!("list uploads below {prefix}"), e))?,
        };
        if uploads.is_empty() {
            return Ok(uploads);
        }
        let (now, in_use) = (self.clock.now(), self.in_use(source).await?);
        let backups: BTreeSet<_> = backups.iter().map(|backup| &backup.id).collect();
        let mut dead = Vec::new();
        for upload in uploads {
            let Some((id, name)) = layout::parse_object_key(source, &upload.key) else {
                continue;
            };
            let since = upload.begun_at.max(id.started_at());
            if !layout::is_object_name(name) || in_use.contains_key(&id) || now - since < grace {
                continue;
            }
            if backups.contains(&id) && self.is_there(&upload).await? {
                tracing::debug!(key = %upload.key, "an upload stays: its object is there");
            } else {
                dead.push(upload);
            }
        }
        dead.sort_by(|a, b| (&a.key, &a.id).cmp(&(&b.key, &b.id)));
        Ok(dead)
    }

    /// Ends the uploads of dead runs. Who has only slept for so long finds his upload gone, and fails.
    pub(super) async fn end_uploads(
        &self,
        plan: &ExpiryPlan,
        outcome: &mut ExpireOutcome,
        cancel: &CancellationToken,
    ) {
        if plan.uploads.is_empty() || outcome.is_over() {
            return;
        }
        // Much time may have passed since the plan was made.
        let what = "unfinished uploads stay for now";
        let in_use = outcome.ask(what, cancel, self.in_use(&plan.source));
        let Some(in_use) = in_use.await else {
            return;
        };
        let of_dead = plan.uploads.iter().filter(|upload| {
            let object = layout::parse_object_key(&plan.source, &upload.key);
            object.is_some_and(|(id, _)| !in_use.contains_key(&id))
        });
        for upload in of_dead {
            let what = format!("an upload of {} stays", upload.key);
            let ended = outcome.ask(&what, cancel, self.end_upload(upload)).await;
            outcome.aborted_uploads += usize::from(ended == Some(true));
            if outcome.is_over() {
                return;
            }
        }
    }

    /// Whether it did; not where its object is there by now.
    async fn end_upload(&self, upload: &UnfinishedUpload) -> Result<bool, Error> {
        if self.is_there(upload).await? {
            return Ok(false);
        }
        let ended = self.store.abort_upload(upload).await;
        ended.map_err(|e| Error::store("end the upload", e))?;
        Ok(true)
    }

    async fn is_there(&self, upload: &UnfinishedUpload) -> Result<bool, Error> {
        match self.store.head(&upload.key).await {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::store(format!("look at {}", upload.key), e)),
        }
    }

    /// Removes what dead runs left among the leases. Without a backup nothing speaks for the clock.
    pub(super) async fn remove_litter(
        &self,
        plan: &ExpiryPlan,
        outcome: &mut ExpireOutcome,
        cancel: &CancellationToken,
    ) {
        if plan.backups.is_empty() || outcome.is_over() {
            return;
        }
        if let Some(leases) = self.leases() {
            match unless(cancel, leases.remove_litter(&plan.source)).await {
                // It harms nobody; the next one finds it.
                Ok(Err(error)) => {
                    tracing::debug!(error = %chain(&error), "leases of the dead stay");
                }
                Ok(Ok(())) => {}
                Err(_) => outcome.stopped = true,
            }
        }
    }
}
