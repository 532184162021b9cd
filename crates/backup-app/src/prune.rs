//! One prune of a source at a place, from what may go to its record, the same for every frontend.

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::backup::SourceName;
use backup_core::engine::{Engine, ExpireOutcome, ExpiryPlan, ExpiryRules};
use backup_core::error::{Error as CoreError, ErrorKind, chain};
use backup_core::lease::Lease;
use backup_core::observer::NoopObserver;
use backup_core::run_record::{Operation, RunId, RunRecord};
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::compose::App;
use crate::error::AppError;
use crate::families::Membership;
use crate::journal::{Journal, Mark, Notice};
use crate::keys::Keys;
use crate::place::Place;
use crate::text::shown;

/// One source at one place.
#[derive(Debug)]
pub struct PruneJob {
    /// Whose backups.
    pub source: SourceName,
    /// Where.
    pub place: Place,
    /// Does it.
    pub engine: Engine,
    /// What stays.
    pub rules: ExpiryRules,
    /// What belongs into its record.
    pub mark: Mark,
    /// Whether it is in order that there is nothing yet.
    pub may_be_empty: bool,
    pub(crate) membership: Option<Membership>,
}

/// What came of it.
#[derive(Debug)]
pub struct PruneRun {
    /// What was judged, if it came to that.
    pub plan: Option<ExpiryPlan>,
    /// What went; nothing was there to be judged if there is no plan.
    pub result: Result<Option<ExpireOutcome>, AppError>,
    /// The record, if it is there.
    pub run: Option<RunId>,
}

/// Says whether what may go goes.
pub trait PruneApproval: Send + Sync {
    /// An error if not.
    fn approve<'a>(
        &'a self,
        job: &'a PruneJob,
        plan: &'a ExpiryPlan,
    ) -> BoxFuture<'a, Result<(), AppError>>;
}

impl App {
    /// What is to be pruned of these sources: those that are named, else those that are configured,
    /// else the only one that is stored. That nobody chose what to keep is said before anything is
    /// touched.
    ///
    /// # Errors
    /// When it is not clear what is meant or what is to be kept, and when a place cannot be asked.
    pub async fn prune_jobs(&self, names: &[String]) -> Result<Vec<PruneJob>, AppError> {
        let mut jobs = Vec::new();
        for source in self.prune_sources(names).await? {
            for place in self.places_of_source(&source)? {
                let Some(rules) = self.expiry_rules(&source, &place)? else {
                    let name = shown(source.as_str());
                    return Err(AppError::usage_hint(
                        format!("nobody has said what to keep of {name} at {}", place.name),
                        "configure a [retention.NAME] and say retention = \"NAME\" at the source, \
                         the destination or [defaults], or say what to keep, such as --keep-daily 7",
                    ));
                };
                jobs.push(PruneJob {
                    engine: self.prune_engine(&place)?,
                    may_be_empty: self.is_configured(&source),
                    mark: Mark::default(),
                    membership: self.membership(&source),
                    source: source.clone(),
                    place,
                    rules,
                });
            }
        }
        Ok(jobs)
    }

    fn prune_engine(&self, place: &Place) -> Result<Engine, AppError> {
        self.engine(place, Keys::None, Arc::new(NoopObserver))
    }

    async fn prune_sources(&self, names: &[String]) -> Result<Vec<SourceName>, AppError> {
        let configured = self.sources();
        let names = if names.is_empty() { &configured } else { names };
        if !names.is_empty() {
            return self.prune_named(names).await;
        }
        let mut stored = Vec::new();
        for place in self.places()? {
            let engine = self.prune_engine(&place)?;
            stored.extend(engine.catalog().sources().await?);
        }
        stored.sort();
        stored.dedup();
        match stored.len() {
            0 => {
                let what = "backup to judge".to_owned();
                Err(CoreError::NotFound { what }.into())
            }
            1 => Ok(stored),
            count => Err(AppError::usage(format!(
                "{count} sources are stored here; say which"
            ))),
        }
    }

    async fn prune_named(&self, names: &[String]) -> Result<Vec<SourceName>, AppError> {
        let mut meant = BTreeSet::new();
        for name in names {
            let source = SourceName::new(name).map_err(|e| AppError::usage(e.to_string()))?;
            for place in self.places_of_source(&source)? {
                let engine = self.prune_engine(&place)?;
                let sources = self.sources_named(name, &engine.catalog()).await?;
                meant.extend(sources);
            }
        }
        // Of several places, one may have databases and another nothing yet.
        let is_alone = |source: &SourceName| {
            let prefix = format!("{source}/");
            !meant
                .iter()
                .any(|other| other.as_str().starts_with(&prefix))
        };
        let stands_for_itself = |source: &&SourceName| !self.is_family(source) || is_alone(source);
        Ok(meant.iter().filter(stands_for_itself).cloned().collect())
    }
}

impl PruneJob {
    /// Lets go what no reason keeps, if `approval` says so, and leaves a record of it. Others are
    /// kept from doing the same meanwhile.
    ///
    /// # Cancellation
    /// Nothing more goes; what is gone is in the result and the record.
    pub async fn run(
        &self,
        approval: &dyn PruneApproval,
        journal: &Journal,
        cancel: &CancellationToken,
    ) -> PruneRun {
        let mut run = self.mark.begin(Operation::Prune);
        run.source = Some(self.source.clone());
        journal.began(&run);
        let mut plan = None;
        let result = match self.hold(journal, cancel).await {
            Ok(lease) => {
                let token = lease.as_ref().map_or(cancel, Lease::token);
                let result = self.held((approval, journal), &run, &mut plan, token).await;
                let lost = lease.as_ref().and_then(Lease::loss);
                self.give_back(lease, journal).await;
                match (result, lost) {
                    // Nobody stopped it but whoever took its turn.
                    (Err(AppError::Engine(CoreError::Cancelled)), Some(lost))
                        if !cancel.is_cancelled() =>
                    {
                        Err(lost.into())
                    }
                    (result, _) => result,
                }
            }
            Err(error) => Err(error),
        };
        match (&plan, &result) {
            (Some(plan), Ok(Some(outcome))) => run.pruned(plan, outcome),
            (_, Err(error)) => run.ended_with(error, error.kind()),
            (_, Ok(_)) => {
                return PruneRun {
                    plan,
                    result,
                    run: None,
                };
            }
        }
        let place = &self.place.name;
        let run = journal.record(&self.engine, place, run, cancel).await;
        PruneRun { plan, result, run }
    }

    /// What may go. That no newer backup comes of a database that its server has no more is no sign of
    /// a wrong clock: backups of the server's others tell. The server is asked only then.
    ///
    /// # Errors
    /// As [`Engine::plan_expiry`].
    ///
    /// # Cancellation
    /// `cancel` ends it.
    pub async fn plan(&self, cancel: &CancellationToken) -> Result<ExpiryPlan, CoreError> {
        let planned = self.engine.plan_expiry(&self.source, &self.rules, cancel);
        let planned = planned.await;
        let (Err(CoreError::Refused { .. }), Some(membership)) = (&planned, &self.membership)
        else {
            return planned;
        };
        let witness = membership.witness(&self.engine.catalog(), cancel).await;
        if witness.is_none() {
            return planned;
        }
        let mut rules = self.rules.clone();
        rules.guards.witness = witness;
        let planned = self.engine.plan_expiry(&self.source, &rules, cancel);
        planned.await
    }

    /// Keeps others from doing the same meanwhile.
    async fn hold(
        &self,
        journal: &Journal,
        cancel: &CancellationToken,
    ) -> Result<Option<Lease>, AppError> {
        let holding = self
            .engine
            .hold_stored(&self.source, Operation::Prune, cancel);
        match holding.await {
            // Whoever may delete need not be allowed to write.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                let what = "others do not see that it is pruned: the login may not write there";
                let place = shown(&self.place.name);
                journal.tell(&Notice::Note(format!("{place}: {what}")));
                Ok(None)
            }
            held => Ok(held?),
        }
    }

    async fn give_back(&self, lease: Option<Lease>, journal: &Journal) {
        if let Some(lease) = lease
            && let Err(error) = lease.release().await
        {
            let (place, why) = (&self.place.name, shown(&chain(&error)));
            journal.warn(format!("{place}: the lease ends by itself only: {why}"));
        }
    }

    async fn held(
        &self,
        (approval, journal): (&dyn PruneApproval, &Journal),
        run: &RunRecord,
        plan: &mut Option<ExpiryPlan>,
        cancel: &CancellationToken,
    ) -> Result<Option<ExpireOutcome>, AppError> {
        let planned = match self.plan(cancel).await {
            // A configured source may have no backup yet.
            Err(CoreError::NotFound { .. }) if self.may_be_empty => return Ok(None),
            planned => plan.insert(planned?),
        };
        approval.approve(self, planned).await?;
        if !planned.is_empty() {
            let place = &self.place.name;
            journal.announce(&self.engine, place, run, cancel).await;
        }
        Ok(Some(self.engine.expire(planned, cancel).await))
    }
}
