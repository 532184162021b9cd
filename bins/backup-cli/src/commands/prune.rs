//! `prune`: let old backups go, and say why the others stay.

use backup_app::{AppError, PruneApproval, PruneJob, SystemClock};
use backup_core::clock::Clock as _;
use backup_core::engine::{ExpireOutcome, ExpiryPlan, JudgedBackup};
use backup_core::error::Error as CoreError;
use backup_core::run_record::RunId;
use futures::future::BoxFuture;

use super::{Context, Outcome, confirm};
use crate::args::PruneArgs;
use crate::report::{PruneView, reasons};
use crate::{exit_code, render};

pub(super) async fn run(context: &Context, arguments: &PruneArgs) -> Outcome {
    let jobs = context.stoppable(jobs(context, arguments)).await?;
    let mut codes = Vec::new();
    for job in &jobs {
        codes.push(one(context, arguments, job).await?);
    }
    Ok(exit_code::of_several(&codes))
}

async fn jobs(context: &Context, arguments: &PruneArgs) -> Result<Vec<PruneJob>, AppError> {
    let names: Vec<String> = arguments.sources().cloned().collect();
    let mut jobs = context.app.prune_jobs(&names).await?;
    for PruneJob { rules, .. } in &mut jobs {
        rules.guards.clock_is_right = arguments.clock_is_right;
        rules.max_deletions = arguments.max_deletions.unwrap_or(rules.max_deletions);
    }
    Ok(jobs)
}

async fn one(context: &Context, arguments: &PruneArgs, job: &PruneJob) -> Outcome {
    if arguments.dry_run {
        return dry(context, arguments, job).await;
    }
    let approval = Asker { context, arguments };
    let stop = context.interrupt.token();
    let done = job.run(&approval, &context.journal, stop).await;
    let outcome = match done.result {
        Ok(outcome) => outcome,
        Err(error) => return failed(context, arguments, job, (done.run, error)),
    };
    let (Some(plan), Some(outcome)) = (done.plan, outcome) else {
        return Ok(nothing(context, arguments, job));
    };
    if context.json {
        let view = view(arguments, job).planned(&plan);
        render::json(&view.done(&outcome, done.run.as_ref()));
    } else {
        print_outcome(&outcome);
    }
    if outcome.stopped {
        return Err(CoreError::Cancelled.into());
    }
    Ok(warnings(&plan, Some(&outcome)))
}

/// Looking needs no lease and leaves no record.
async fn dry(context: &Context, arguments: &PruneArgs, job: &PruneJob) -> Outcome {
    let stop = context.interrupt.token();
    let plan = match job.plan(stop).await {
        Ok(plan) => plan,
        Err(CoreError::NotFound { .. }) if job.may_be_empty => {
            return Ok(nothing(context, arguments, job));
        }
        Err(error) => return failed(context, arguments, job, (None, error.into())),
    };
    if context.json {
        render::json(&view(arguments, job).planned(&plan));
    } else {
        print(job, &plan);
    }
    Ok(warnings(&plan, None))
}

/// Shows what may go, and asks whether it goes.
struct Asker<'a> {
    context: &'a Context,
    arguments: &'a PruneArgs,
}

impl PruneApproval for Asker<'_> {
    fn approve<'a>(
        &'a self,
        job: &'a PruneJob,
        plan: &'a ExpiryPlan,
    ) -> BoxFuture<'a, Result<(), AppError>> {
        let (context, arguments) = (self.context, self.arguments);
        Box::pin(async move {
            if !context.json {
                print(job, plan);
            }
            if plan.going().next().is_some() && !arguments.yes {
                confirm(context, job, plan).await?;
            }
            Ok(())
        })
    }
}

fn view(arguments: &PruneArgs, job: &PruneJob) -> PruneView {
    PruneView::new(job.source.as_str(), &job.place.name, arguments.dry_run)
}

fn nothing(context: &Context, arguments: &PruneArgs, job: &PruneJob) -> u8 {
    if context.json {
        let mut view = view(arguments, job);
        view.status = if arguments.dry_run {
            "planned"
        } else {
            "success"
        };
        render::json(&view);
    } else {
        let source = render::name(job.source.as_str());
        render::line(&format!("{source} at {}: no backups", job.place.name));
    }
    exit_code::DONE
}

/// Says what went wrong with one of them; only a signal ends them all.
fn failed(
    context: &Context,
    arguments: &PruneArgs,
    job: &PruneJob,
    (run, error): (Option<RunId>, AppError),
) -> Outcome {
    if matches!(error, AppError::Engine(CoreError::Cancelled)) {
        return Err(error);
    }
    if context.json {
        let mut view = view(arguments, job);
        view.run_id = run.map(|run| run.to_string());
        view.status = "failed";
        view.error = Some(error.report());
        render::json(&view);
    } else {
        let source = render::name(job.source.as_str());
        let why = error.render();
        render::complain(&format!("prune of {source} at {}: {why}", job.place.name));
    }
    Ok(exit_code::of(&error))
}

fn warnings(plan: &ExpiryPlan, outcome: Option<&ExpireOutcome>) -> u8 {
    let more = outcome.is_some_and(|outcome| !outcome.warnings.is_empty());
    if outcome.is_some_and(ExpireOutcome::failed_wholly) {
        exit_code::STORE
    } else if more || !plan.warnings.is_empty() {
        exit_code::WARNINGS
    } else {
        exit_code::DONE
    }
}

/// Asks for the number of backups, which nobody types without having read it, and looks again
/// after the time that this took.
async fn confirm(context: &Context, job: &PruneJob, plan: &ExpiryPlan) -> Result<(), AppError> {
    let count = plan.going().count();
    let text = format!(
        "{} of {} at {} will be deleted.",
        render::counted(count as u64, "backup"),
        render::name(job.source.as_str()),
        job.place.name,
    );
    let refusal = CoreError::Refused {
        message: "nobody confirmed it; nothing was deleted".to_owned(),
        hint: "type the number of backups when asked, or say --yes",
    };
    let asked = confirm::ask(text, count.to_string(), refusal.into());
    context.stoppable(asked).await?;
    let cancel = context.interrupt.token();
    let now = job.plan(cancel).await?;
    let ids = |backup: &JudgedBackup| backup.manifest.id.clone();
    if now.going().map(ids).eq(plan.going().map(ids)) {
        return Ok(());
    }
    Err(AppError::from(CoreError::Refused {
        message: "what may go has changed meanwhile; nothing was deleted".to_owned(),
        hint: "run it again",
    }))
}

fn print(job: &PruneJob, plan: &ExpiryPlan) {
    let bytes = |backups: &mut dyn Iterator<Item = &JudgedBackup>| {
        let bytes = backups.map(|backup| backup.manifest.totals.stored_bytes);
        render::size(bytes.sum())
    };
    let going = plan.going().count();
    render::line(&format!(
        "{} at {}: {} of {} may go ({})",
        render::name(job.source.as_str()),
        job.place.name,
        plan.expiring().count(),
        render::counted(plan.backups.len() as u64, "backup"),
        bytes(&mut plan.expiring()),
    ));
    let mut table = render::table(&["id", "age", "stored", "verdict", "why"], &[1, 2]);
    let now = SystemClock.now();
    for backup in &plan.backups {
        let manifest = &backup.manifest;
        let why = match reasons(backup).join(", ") {
            why if why.is_empty() => "no rule keeps it".to_owned(),
            why => render::name(&why),
        };
        let marks = [(manifest.filtered, "filtered"), (backup.damaged, "damaged")];
        let marks = marks.iter().filter(|(is_so, _)| *is_so);
        let why = marks.fold(why, |why, (_, mark)| format!("{why} ({mark})"));
        table.add_row([
            manifest.id.to_string(),
            format!("{} d", (now - manifest.started_at).num_days()),
            render::size(manifest.totals.stored_bytes),
            if backup.verdict.expires() {
                "expire".to_owned()
            } else {
                "keep".to_owned()
            },
            why,
        ]);
    }
    render::print(&table);
    for orphan in &plan.orphans {
        let objects = render::counted(orphan.objects.len() as u64, "object");
        let size = render::size(orphan.bytes);
        render::line(&format!(
            "{}  left by a dead run: {objects}, {size}",
            orphan.id
        ));
    }
    if !plan.uploads.is_empty() {
        let uploads = render::counted(plan.uploads.len() as u64, "unfinished upload");
        render::line(&format!("{uploads} of dead runs"));
    }
    if plan.postponed() > 0 {
        render::note(&format!(
            "one run deletes {going} of them, the oldest; see max_deletions"
        ));
    }
    for warning in &plan.warnings {
        render::warn(&render::name(warning));
    }
}

fn print_outcome(outcome: &ExpireOutcome) {
    let mut parts = vec![format!(
        "{} deleted",
        render::counted(outcome.deleted.len() as u64, "backup")
    )];
    if !outcome.swept.is_empty() {
        let runs = render::counted(outcome.swept.len() as u64, "dead run");
        parts.push(format!("what {runs} had left removed"));
    }
    if outcome.aborted_uploads > 0 {
        let uploads = render::counted(outcome.aborted_uploads as u64, "unfinished upload");
        parts.push(format!("{uploads} ended"));
    }
    parts.push(format!("{} free", render::size(outcome.freed_bytes)));
    render::line(&parts.join(", "));
    for warning in &outcome.warnings {
        render::warn(&render::name(warning));
    }
}
