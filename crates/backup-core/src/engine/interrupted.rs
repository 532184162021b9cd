//! Records of runs that did not live to leave one.

use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use super::{Engine, unless};
use crate::catalog::Selector;
use crate::error::Error;
use crate::history::HistoryRequest;
use crate::lease::DeadRun;
use crate::manifest::Manifest;
use crate::run_record::{Operation, RunRecord};

/// How long before it takes its lease a run may begin.
const BEFORE: TimeDelta = TimeDelta::days(1);

impl Engine {
    /// Leaves the record of every run that ended without leaving one: whose process is gone, or did
    /// not renew its lease in time. After that it commits nothing any more. However many notice it,
    /// there is one record. Gives those that are new.
    ///
    /// # Errors
    /// What the store reports, also when this login may not write.
    ///
    /// # Cancellation
    /// `Cancelled`; what is left is noticed the next time.
    pub async fn note_interrupted(
        &self,
        cancel: &CancellationToken,
    ) -> Result<Vec<RunRecord>, Error> {
        let Some(leases) = self.leases() else {
            return Ok(Vec::new());
        };
        let mut noted = Vec::new();
        for dead in unless(cancel, leases.dead()).await?? {
            noted.extend(self.note_dead(&dead, cancel).await?);
            let backups = [&dead.backup];
            let retiring = leases.retire(&dead.source, &backups, cancel);
            unless(cancel, retiring).await??;
        }
        Ok(noted)
    }

    /// Leaves the record of a dead run, unless it left one by itself.
    pub(super) async fn note_dead(
        &self,
        dead: &DeadRun,
        cancel: &CancellationToken,
    ) -> Result<Option<RunRecord>, Error> {
        if unless(cancel, self.is_accounted_for(dead)).await?? {
            return Ok(None);
        }
        let record = RunRecord::of_dead(dead, self.committed(dead).await?.as_ref());
        self.history().note(&record, cancel).await?;
        Ok(Some(record))
    }

    /// Whether a record tells of it. A lease stays behind also where its run could not give it back,
    /// and said itself how it ended.
    async fn is_accounted_for(&self, dead: &DeadRun) -> Result<bool, Error> {
        let request = HistoryRequest {
            since: dead.since.checked_sub_signed(BEFORE),
            operation: Some(Operation::Backup),
            limit: None,
        };
        let listing = self.history().list(&request).await?;
        Ok(listing.runs.iter().any(|run| {
            let lasted = run.started_at <= dead.since && dead.since <= run.finished_at;
            run.source.as_ref() == Some(&dead.source) && lasted
        }))
    }

    /// What it has committed, if it came to that.
    async fn committed(&self, dead: &DeadRun) -> Result<Option<Manifest>, Error> {
        let selector = Selector::Prefix(dead.backup.to_string());
        match self.catalog().find(&selector, Some(&dead.source)).await {
            Ok(manifest) => Ok(Some(manifest)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
