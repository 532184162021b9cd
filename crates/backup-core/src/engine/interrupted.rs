//! Records of runs that did not live to leave one.

use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use super::{Engine, unless};
use crate::catalog::Selector;
use crate::error::Error;
use crate::history::HistoryRequest;
use crate::lease::{DeadRun, Leases};
use crate::manifest::Manifest;
use crate::run_record::{Operation, RunRecord};

/// How long before it takes its lease a run may begin.
const BEFORE: TimeDelta = TimeDelta::days(1);

impl Engine {
    /// Leaves the record of every run that certainly ended without leaving one. Its turn is taken
    /// first, so that it commits nothing any more. However many notice it,
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
        let (mut noted, mut failure) = (Vec::new(), None);
        for dead in unless(cancel, leases.dead()).await?? {
            match self.note_taken(&leases, &dead, cancel).await {
                Ok(record) => noted.extend(record),
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                // The others are noted all the same.
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if noted.is_empty() => Err(error),
            _ => Ok(noted),
        }
    }

    async fn note_taken(
        &self,
        leases: &Leases,
        dead: &DeadRun,
        cancel: &CancellationToken,
    ) -> Result<Option<RunRecord>, Error> {
        let backups = [&dead.backup];
        let taking = leases.take_from(&dead.source, &backups, cancel);
        let Some(lease) = unless(cancel, taking).await?? else {
            return Ok(None);
        };
        let noted = self.note_dead(dead, cancel).await;
        let released = lease.release().await;
        match noted {
            // It is noted, and a lease that stays ends by itself.
            Ok(Some(record)) => Ok(Some(record)),
            noted => released.and(noted),
        }
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
            // It was there when the lease was taken, and after it was last renewed; another that was
            // refused meanwhile was not.
            let lasted = run.started_at <= dead.since && dead.seen <= run.finished_at;
            let is_here = run.who.host == dead.who.host;
            run.source.as_ref() == Some(&dead.source) && lasted && is_here
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
