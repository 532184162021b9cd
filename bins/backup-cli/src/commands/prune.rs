//! `prune`: let old backups go, and say why the others stay.

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_app::{AppError, Keys, Place, SystemClock, begin};
use backup_core::backup::SourceName;
use backup_core::clock::Clock as _;
use backup_core::engine::{Engine, ExpireOutcome, ExpiryPlan, ExpiryRules, JudgedBackup};
use backup_core::error::{Error as CoreError, ErrorKind, chain};
use backup_core::lease::Lease;
use backup_core::run_record::{Operation, RunRecord};
use tokio_util::sync::CancellationToken;

use super::{Context, Outcome, confirm, source_name};
use crate::args::PruneArgs;
use crate::progress::Progress;
use crate::report::{PruneView, reasons};
use crate::{exit_code, render};

/// One source at one place.
struct Job {
    source: SourceName,
    place: Place,
    engine: Engine,
    rules: ExpiryRules,
}

pub(super) async fn run(context: &Context, arguments: &PruneArgs) -> Outcome {
    let jobs = context.stoppable(jobs(context, arguments)).await?;
    let mut codes = Vec::new();
    for job in &jobs {
        codes.push(one(context, arguments, job).await?);
    }
    Ok(exit_code::of_several(&codes))
}

/// What is to be done. That nobody chose what to keep is said before anything is touched.
async fn jobs(context: &Context, arguments: &PruneArgs) -> Result<Vec<Job>, AppError> {
    let mut jobs = Vec::new();
    for source in sources(context, arguments).await? {
        for place in context.app.places_of_source(&source)? {
            let Some(mut rules) = context.app.expiry_rules(&source, &place)? else {
                let name = render::name(source.as_str());
                return Err(AppError::usage_hint(
                    format!("nobody has said what to keep of {name} at {}", place.name),
                    "configure a [retention.NAME] and say retention = \"NAME\" at the source, the \
                     destination or [defaults], or say what to keep, such as --keep-daily 7",
                ));
            };
            rules.guards.clock_is_right = arguments.clock_is_right;
            rules.max_deletions = arguments.max_deletions.unwrap_or(rules.max_deletions);
            let engine = engine(context, &place)?;
            jobs.push(Job {
                source: source.clone(),
                place,
                engine,
                rules,
            });
        }
    }
    Ok(jobs)
}

fn engine(context: &Context, place: &Place) -> Result<Engine, AppError> {
    // There is nothing that a bar could show.
    let observer = Arc::new(Progress::new("prune", true));
    context.app.engine(place, Keys::None, observer)
}

/// Those that are named, else those that are configured, else the only one that is stored.
async fn sources(context: &Context, arguments: &PruneArgs) -> Result<Vec<SourceName>, AppError> {
    let mut names: Vec<String> = arguments.sources().cloned().collect();
    if names.is_empty() {
        names = context.app.sources();
    }
    if !names.is_empty() {
        let mut meant = BTreeSet::new();
        for name in &names {
            for place in context.app.places_of_source(&source_name(name)?)? {
                let engine = engine(context, &place)?;
                let sources = context.app.sources_named(name, &engine.catalog()).await?;
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
        let stands_for_itself =
            |source: &&SourceName| !context.app.is_family(source) || is_alone(source);
        return Ok(meant.iter().filter(stands_for_itself).cloned().collect());
    }
    let mut stored = Vec::new();
    for place in context.app.places()? {
        let engine = engine(context, &place)?;
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

async fn one(context: &Context, arguments: &PruneArgs, job: &Job) -> Outcome {
    let mut run = begin(&job.engine, Operation::Prune);
    run.source = Some(job.source.clone());
    let lease = match hold(context, arguments, job).await {
        Ok(lease) => lease,
        Err(error) => return failed(context, arguments, job, (run, error)).await,
    };
    let stop = context.interrupt.token();
    let cancel = lease.as_ref().map_or(stop, Lease::token).clone();
    let code = held(context, arguments, job, (run.clone(), &cancel)).await;
    let lost = lease.as_ref().and_then(Lease::loss);
    if let Some(lease) = lease
        && let Err(error) = lease.release().await
    {
        let why = render::name(&chain(&error));
        let place = &job.place.name;
        render::warn(&format!("{place}: the lease ends by itself only: {why}"));
    }
    match (code, lost) {
        // Nobody stopped it but whoever took its turn.
        (Err(AppError::Engine(CoreError::Cancelled)), Some(lost)) if !stop.is_cancelled() => {
            failed(context, arguments, job, (run, lost.into())).await
        }
        (code, _) => code,
    }
}

/// Keeps others from doing the same meanwhile. Looking needs no lease.
async fn hold(
    context: &Context,
    arguments: &PruneArgs,
    job: &Job,
) -> Result<Option<Lease>, AppError> {
    if arguments.dry_run {
        return Ok(None);
    }
    let stop = context.interrupt.token();
    let holding = job.engine.hold_stored(&job.source, Operation::Prune, stop);
    match holding.await {
        // Whoever may delete need not be allowed to write.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let what = "others do not see that it is pruned: the login may not write there";
            render::note(&format!("{}: {what}", render::name(&job.place.name)));
            Ok(None)
        }
        held => Ok(held?),
    }
}

async fn held(
    context: &Context,
    arguments: &PruneArgs,
    job: &Job,
    (mut run, cancel): (RunRecord, &CancellationToken),
) -> Outcome {
    let planned = job.engine.plan_expiry(&job.source, &job.rules, cancel);
    let plan = match planned.await {
        Ok(plan) => plan,
        // A configured source may have no backup yet.
        Err(CoreError::NotFound { .. }) if context.app.is_configured(&job.source) => {
            return Ok(nothing(context, arguments, job));
        }
        Err(error) => return failed(context, arguments, job, (run, error.into())).await,
    };
    if !context.json {
        print(job, &plan);
    }
    if arguments.dry_run {
        if context.json {
            render::json(&view(arguments, job).planned(&plan));
        }
        return Ok(warnings(&plan, None));
    }
    let must_ask = plan.going().next().is_some() && !arguments.yes;
    if must_ask && let Err(error) = confirm(context, job, &plan).await {
        return failed(context, arguments, job, (run, error)).await;
    }
    if plan.going().next().is_some() || !plan.orphans.is_empty() {
        let place = &job.place.name;
        context.announce(&job.engine, place, &run).await;
    }
    let outcome = job.engine.expire(&plan, cancel).await;
    run.pruned(&plan, &outcome);
    let run = context.record(&job.engine, &job.place.name, run).await;
    if context.json {
        let view = view(arguments, job).planned(&plan);
        render::json(&view.done(&outcome, run.as_ref()));
    } else {
        print_outcome(&outcome);
    }
    if outcome.stopped {
        return Err(CoreError::Cancelled.into());
    }
    Ok(warnings(&plan, Some(&outcome)))
}

fn view(arguments: &PruneArgs, job: &Job) -> PruneView {
    PruneView::new(job.source.as_str(), &job.place.name, arguments.dry_run)
}

fn nothing(context: &Context, arguments: &PruneArgs, job: &Job) -> u8 {
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
async fn failed(
    context: &Context,
    arguments: &PruneArgs,
    job: &Job,
    (mut run, error): (RunRecord, AppError),
) -> Outcome {
    run.ended_with(&error, error.kind());
    let run = if arguments.dry_run {
        None
    } else {
        context.record(&job.engine, &job.place.name, run).await
    };
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
async fn confirm(context: &Context, job: &Job, plan: &ExpiryPlan) -> Result<(), AppError> {
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
    let now = job
        .engine
        .plan_expiry(&job.source, &job.rules, cancel)
        .await?;
    let ids = |backup: &JudgedBackup| backup.manifest.id.clone();
    if now.going().map(ids).eq(plan.going().map(ids)) {
        return Ok(());
    }
    Err(AppError::from(CoreError::Refused {
        message: "what may go has changed meanwhile; nothing was deleted".to_owned(),
        hint: "run it again",
    }))
}

fn print(job: &Job, plan: &ExpiryPlan) {
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
    parts.push(format!("{} free", render::size(outcome.freed_bytes)));
    render::line(&parts.join(", "));
    for warning in &outcome.warnings {
        render::warn(&render::name(warning));
    }
}
