//! Jobs for all sources at once, which schedules ask for.

use backup_core::backup::SourceName;
use backup_core::catalog::ListRequest;
use backup_core::engine::{ExpiryPlan, VerifyLevel, VerifyRequest};
use backup_core::error::Error as CoreError;
use chrono::TimeDelta;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::End;
use super::running::Running;
use super::view::{JobError, State};
use super::work::{AppWorker, failed, of_report, with_warnings};
use crate::drill::DrillWish;
use crate::error::AppError;
use crate::found::Found;
use crate::journal::Mark;
use crate::keys::Keys;
use crate::place::Place;
use crate::prune::{PruneApproval, PruneJob, PruneRun};
use crate::text::shown;
use crate::verify::{VerifyTask, sample};

/// How many backups of each source at each place are verified: the newest, and one of the others.
const SAMPLE: usize = 2;

/// What came of several pieces of work.
#[derive(Default)]
pub(super) struct Sum(Vec<End>);

impl Sum {
    pub(super) fn add(&mut self, end: End) {
        self.0.push(end);
    }

    /// The worst of all; of several that failed, the error says how many.
    pub(super) fn end(self) -> End {
        let count = self.0.len();
        let failed = self.0.iter().filter(|end| end.state == State::Failed);
        let failed = failed.count();
        // What failed before somebody stopped the rest is not forgotten.
        let rank = |end: &End| (end.state == State::Failed, end.state);
        let worst = self.0.into_iter().max_by_key(rank);
        let mut end = worst.unwrap_or_else(|| End::new(State::Success));
        if let Some(error) = &mut end.error
            && count > 1
        {
            error.message = format!("{failed} of {count} failed: {}", error.message);
        }
        end
    }
}

/// A schedule was configured, so nobody is asked.
struct Configured;

impl PruneApproval for Configured {
    fn approve<'a>(
        &'a self,
        _: &'a PruneJob,
        _: &'a ExpiryPlan,
    ) -> BoxFuture<'a, Result<(), AppError>> {
        async { Ok(()) }.boxed()
    }
}

/// Gives the name of the job to the first of its runs.
struct Marks<'a> {
    job: &'a Running,
    named: bool,
}

impl Marks<'_> {
    fn next(&mut self) -> Mark {
        if std::mem::replace(&mut self.named, true) {
            self.job.mark().unnamed()
        } else {
            self.job.mark()
        }
    }
}

impl AppWorker {
    /// Proves the newest backup of every source at every place, and another one.
    pub(super) async fn verify_due(&self, job: &Running) -> Result<End, AppError> {
        let (mut sum, mut marks) = (Sum::default(), Marks { job, named: false });
        for place in self.app.places()? {
            let chosen = tokio::select! {
                chosen = self.to_verify(job, &place, &mut sum) => chosen,
                () = job.cancel.cancelled() => Err(CoreError::Cancelled.into()),
            };
            match chosen {
                Ok(chosen) => {
                    for found in chosen {
                        sum.add(self.verified(job, &found, marks.next()).await);
                    }
                }
                // The other places are looked at all the same.
                Err(error) => {
                    if !matches!(error, AppError::Engine(CoreError::Cancelled)) {
                        self.leave_record_of(job, (marks.next(), None), &error)
                            .await;
                    }
                    sum.add(failed(&error));
                }
            }
        }
        if sum.0.is_empty() {
            let what = "backup to verify".to_owned();
            return Err(CoreError::NotFound { what }.into());
        }
        Ok(sum.end())
    }

    async fn verified(&self, job: &Running, found: &Found, mark: Mark) -> End {
        let level = VerifyLevel::Hashed;
        let jobs = match self.app.jobs(None) {
            Ok(jobs) => jobs,
            Err(error) => return failed(&error),
        };
        let task = VerifyTask {
            found,
            request: VerifyRequest { level, jobs },
            mark,
        };
        let done = Box::pin(task.run(&self.journal, &job.cancel)).await;
        job.recorded(done.run.as_slice());
        match done.result {
            Ok(report) => of_report(&report),
            Err(error) => failed(&error),
        }
    }

    /// The backups of one place that are verified. A manifest that cannot be read is a failure.
    async fn to_verify(
        &self,
        job: &Running,
        place: &Place,
        sum: &mut Sum,
    ) -> Result<Vec<Found>, AppError> {
        let observer = job.observer("verify");
        let engine = self.app.engine(place, Keys::None, observer)?;
        let mut chosen = Vec::new();
        for source in engine.catalog().sources().await? {
            let request = ListRequest {
                source: Some(source),
                ..ListRequest::default()
            };
            let mut listing = engine.catalog().list(&request).await?;
            self.journal.damaged(&place.name, &listing.damaged);
            for (key, _) in &listing.damaged {
                let what = format!("{}: {key} cannot be read", place.name);
                sum.add(failed(&CoreError::Corrupt { what, source: None }.into()));
            }
            sample(&mut listing.backups, SAMPLE);
            chosen.extend(listing.backups.into_iter().map(|manifest| Found {
                manifest,
                place: place.clone(),
                engine: engine.clone(),
            }));
        }
        Ok(chosen)
    }

    /// Rehearses a restore of every source, that of the longest ago first.
    pub(super) async fn drill_due(&self, job: &Running) -> Result<End, AppError> {
        let wish = DrillWish {
            all: true,
            older_than: Some(TimeDelta::zero()),
            ..DrillWish::default()
        };
        let chosen = tokio::select! {
            chosen = self.app.choose_drills(&wish, &self.journal) => chosen?,
            () = job.cancel.cancelled() => return Err(CoreError::Cancelled.into()),
        };
        let (mut sum, mut marks) = (Sum::default(), Marks { job, named: false });
        // Nothing was rehearsed: that is no success.
        if !chosen.complete || chosen.drills.is_empty() {
            sum.add(End::new(State::Warnings));
        }
        for drill in &chosen.drills {
            let of = (&drill.manifest, &drill.place);
            let drilled = self.drilled(job, of, marks.next()).await;
            sum.add(drilled.unwrap_or_else(|error| failed(&error)));
        }
        Ok(sum.end())
    }

    /// Lets old backups of all sources go.
    pub(super) async fn prune(&self, job: &Running) -> Result<End, AppError> {
        let (mut sum, mut marks) = (Sum::default(), Marks { job, named: false });
        let mut prunes = Vec::new();
        for name in self.app.sources() {
            let source = [name.clone()];
            let found = tokio::select! {
                found = self.app.prune_jobs(&source) => found,
                () = job.cancel.cancelled() => return Err(CoreError::Cancelled.into()),
            };
            match found {
                Ok(found) => prunes.extend(found),
                // The others are pruned all the same.
                Err(error) => {
                    let source = SourceName::new(name).ok();
                    let of = (marks.next(), source.as_ref());
                    self.leave_record_of(job, of, &error).await;
                    sum.add(failed(&error));
                }
            }
        }
        for mut prune in prunes {
            if job.cancel.is_cancelled() {
                sum.add(failed(&CoreError::Cancelled.into()));
                break;
            }
            prune.mark = marks.next();
            let done = prune.run(&Configured, &self.journal, &job.cancel).await;
            job.recorded(done.run.as_slice());
            sum.add(pruned(&done));
        }
        Ok(sum.end())
    }
}

fn pruned(done: &PruneRun) -> End {
    match (&done.plan, &done.result) {
        (_, Err(error)) => failed(error),
        (Some(plan), Ok(Some(outcome))) => {
            let warnings = plan.warnings.iter().chain(&outcome.warnings);
            for warning in warnings {
                tracing::warn!(target: "backup", "prune: {}", shown(warning));
            }
            if outcome.stopped {
                End::new(State::Cancelled)
            } else if outcome.failed_wholly() {
                End {
                    error: Some(JobError::nothing_deleted()),
                    ..End::new(State::Failed)
                }
            } else {
                End::new(with_warnings(plan.warnings.len() + outcome.warnings.len()))
            }
        }
        (_, Ok(_)) => End::new(State::Success),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_are_as_good_as_the_worst() {
        let error = |text: &str| failed(&AppError::usage(text));
        let mut sum = Sum::default();
        assert_eq!(Sum::default().end().state, State::Success);
        sum.add(End::new(State::Warnings));
        sum.add(error("no"));
        sum.add(End::new(State::Success));
        let end = sum.end();
        assert_eq!(end.state, State::Failed);
        assert_eq!(end.error.unwrap().message, "1 of 3 failed: no");
        let mut one = Sum::default();
        one.add(error("no"));
        assert_eq!(one.end().error.unwrap().message, "no");
        let mut stopped = Sum::default();
        stopped.add(End::new(State::Success));
        stopped.add(failed(&CoreError::Cancelled.into()));
        assert_eq!(stopped.end().state, State::Cancelled);
        // What failed before that is still told.
        let mut both = Sum::default();
        both.add(error("no"));
        both.add(failed(&CoreError::Cancelled.into()));
        let end = both.end();
        assert_eq!(end.state, State::Failed);
        assert_eq!(end.error.unwrap().message, "1 of 2 failed: no");
    }
}
