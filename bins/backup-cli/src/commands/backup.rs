//! `backup`: take backups, one source after another.

use std::sync::Arc;

use backup_app::{AppError, BackupJob, Keys, SystemClock, names};
use backup_core::clock::Clock as _;
use backup_core::engine::{BackupOutcome, Engine};
use backup_core::error::{Error as CoreError, chain};
use backup_core::fan_out::{FanOut, MemberOutcome};
use backup_core::observer::{NoopObserver, Observer};
use backup_core::run_record::{Operation, RunId, RunRecord};

use super::{Context, Outcome, history};
use crate::args::BackupArgs;
use crate::progress::Progress;
use crate::report::{BackupView, DestinationView};
use crate::{exit_code, render};

pub(super) async fn run(context: &Context, arguments: &BackupArgs) -> Outcome {
    let sources = sources(context, arguments)?;
    if sources.is_empty() {
        return Err(AppError::usage_hint(
            "no source is configured",
            "configure a [source.NAME], or say -d NAME --to URL",
        ));
    }
    // Everything that can be known to be wrong is said before the first source is touched.
    let mut jobs = Vec::new();
    for source in &sources {
        let job = context.app.backup_job(source.as_deref())?;
        context.app.backup_engine(&job, Arc::new(NoopObserver))?;
        jobs.push(job);
    }
    let mut codes = Vec::new();
    let mut waiting = jobs.into_iter();
    while let Some(job) = waiting.next() {
        match one(context, &job).await {
            Ok(code) => codes.push(code),
            Err(stopped) => {
                if !context.json {
                    for job in waiting {
                        let source = render::name(job.source.as_str());
                        render::complain(&format!("backup of {source}: not begun"));
                    }
                }
                return Err(stopped);
            }
        }
    }
    Ok(exit_code::of_several(&codes))
}

/// Configured names, or `None` for the database that flags and variables name.
fn sources(context: &Context, arguments: &BackupArgs) -> Result<Vec<Option<String>>, AppError> {
    // A stray variable must not lead away from what is configured.
    let environment = context.app.environment();
    let zero_config = arguments.overrides().database.is_some()
        || (context.app.sources().is_empty() && environment.first(names::PG_DATABASE).is_some());
    if arguments.all {
        Ok(context.app.sources().into_iter().map(Some).collect())
    } else if !arguments.sources.is_empty() {
        Ok(arguments.sources.iter().cloned().map(Some).collect())
    } else if zero_config {
        Ok(vec![None])
    } else {
        let configured = context.app.sources();
        if configured.len() > 1 {
            return Err(AppError::usage_hint(
                format!("{} sources are configured", configured.len()),
                format!("name some of {}, or say --all", configured.join(", ")),
            ));
        }
        Ok(configured.into_iter().map(Some).collect())
    }
}

/// Takes one backup; only a signal ends them all.
async fn one(context: &Context, job: &BackupJob) -> Outcome {
    let label = format!("backup {}", render::name(job.source.as_str()));
    let progress = Arc::new(Progress::new(&label, context.quiet));
    let observer: Arc<dyn Observer> = Arc::<Progress>::clone(&progress);
    let (engine, fan_out) = context.app.backup_engine(job, observer)?;
    let mut run = history::begin(&engine, Operation::Backup);
    run.source = Some(job.source.clone());
    let result = within_time(context, job, &engine, fan_out.as_deref()).await;
    let result = match (result, &fan_out) {
        (Ok(outcome), Some(fan_out)) => Ok(settled(outcome, fan_out.outcomes())),
        (Ok(outcome), None) => Ok((outcome, vec![DestinationView::good(&job.places[0].name)])),
        (Err(error), _) => Err(error),
    };
    progress.finish();
    match &result {
        Ok((outcome, _)) => run.backed_up(outcome),
        Err(AppError::Engine(error)) => run.failed(error),
        Err(error) => run.ended_with(error, error.kind()),
    }
    let run = record(
        context,
        job,
        run,
        result.as_ref().ok().map(|(_, d)| d.as_slice()),
    )
    .await;
    match result {
        Ok((outcome, destinations)) => Ok(done(context, job, &outcome, destinations, run.as_ref())),
        Err(AppError::Engine(CoreError::Cancelled)) => {
            let error = AppError::Engine(CoreError::Cancelled);
            if context.json {
                failed(context, job, &error, run.as_ref());
            } else {
                // Sources before this one may have their backup.
                let source = render::name(job.source.as_str());
                let what = "stopped by a signal; nothing was published";
                render::complain(&format!("backup of {source}: {what}"));
            }
            Err(error)
        }
        Err(error) => Ok(failed(context, job, &error, run.as_ref())),
    }
}

/// What came of every place, also as warnings of the backup.
fn settled(
    mut outcome: BackupOutcome,
    members: Vec<MemberOutcome>,
) -> (BackupOutcome, Vec<DestinationView>) {
    let mut destinations = Vec::new();
    for member in members {
        let error = member.failure.map(|failure| {
            let hint = failure.hint().map(|hint| format!(" (hint: {hint})"));
            let text = format!("{}{}", chain(&failure), hint.unwrap_or_default());
            let name = &member.name;
            outcome
                .warnings
                .push(format!("{name} has not got the backup: {text}"));
            text
        });
        outcome.warnings.extend(member.warnings);
        destinations.push(DestinationView {
            status: if error.is_some() { "failed" } else { "success" },
            name: member.name,
            error,
        });
    }
    (outcome, destinations)
}

/// Leaves the record of the run in every place that has the backup, or else in all that take it.
async fn record(
    context: &Context,
    job: &BackupJob,
    run: RunRecord,
    destinations: Option<&[DestinationView]>,
) -> Option<RunId> {
    let mut recorded = None;
    for place in &job.places {
        let failed = |d: &DestinationView| d.name == place.name && d.error.is_some();
        if destinations.is_some_and(|all| all.iter().any(failed)) {
            continue;
        }
        let observer = Arc::new(NoopObserver);
        let Ok(engine) = context.app.engine(place, Keys::Recipients, observer) else {
            continue;
        };
        let written = context.record(&engine, &place.name, run.clone()).await;
        recorded = recorded.or(written);
    }
    recorded
}

/// Takes the backup, unless a signal or the time limit ends it.
async fn within_time(
    context: &Context,
    job: &BackupJob,
    engine: &Engine,
    fan_out: Option<&FanOut>,
) -> Result<BackupOutcome, AppError> {
    let cancel = context.interrupt.token().child_token();
    let work = async {
        let mut request = job.request.clone();
        if let Some(fan_out) = fan_out {
            tokio::select! {
                ids = fan_out.prepare(SystemClock.now()) => request.repositories = ids?,
                () = cancel.cancelled() => return Err(CoreError::Cancelled),
            }
        }
        Box::pin(engine.backup(&job.dumper, &request, &cancel)).await
    };
    tokio::pin!(work);
    let mut timed_out = false;
    let result = tokio::select! {
        result = &mut work => result,
        () = tokio::time::sleep(job.timeout) => {
            timed_out = true;
            cancel.cancel();
            work.await
        }
    };
    match result {
        Err(CoreError::Cancelled) if timed_out => Err(AppError::Timeout(job.timeout)),
        result => result.map_err(AppError::from),
    }
}

fn done(
    context: &Context,
    job: &BackupJob,
    outcome: &BackupOutcome,
    destinations: Vec<DestinationView>,
    run: Option<&RunId>,
) -> u8 {
    let manifest = &outcome.manifest;
    if context.json {
        let warnings = outcome.warnings.clone();
        render::json(&BackupView {
            run_id: run.map(ToString::to_string),
            ..BackupView::committed(manifest, destinations, warnings)
        });
    } else {
        let elapsed = (manifest.finished_at - manifest.started_at).as_seconds_f64();
        let totals = &manifest.totals;
        render::line(&format!(
            "{}  {}  {}, {}  {} -> {}  {}",
            manifest.id,
            render::name(job.source.as_str()),
            render::counted(totals.tables, "table"),
            render::counted(totals.rows, "row"),
            render::size(totals.raw_bytes),
            render::size(totals.stored_bytes),
            render::duration(elapsed),
        ));
    }
    for warning in &outcome.warnings {
        render::warn(&render::name(warning));
    }
    if outcome.warnings.is_empty() {
        exit_code::DONE
    } else {
        exit_code::WARNINGS
    }
}

fn failed(context: &Context, job: &BackupJob, error: &AppError, run: Option<&RunId>) -> u8 {
    if context.json {
        render::json(&BackupView {
            run_id: run.map(ToString::to_string),
            source: job.source.to_string(),
            database: job.database.clone(),
            status: "failed",
            destinations: job
                .places
                .iter()
                .map(|place| DestinationView {
                    name: place.name.clone(),
                    status: "failed",
                    error: Some(error.render()),
                })
                .collect(),
            error: Some(error.report()),
            ..BackupView::default()
        });
    } else {
        let source = render::name(job.source.as_str());
        render::complain(&format!("backup of {source}: {}", error.render()));
    }
    exit_code::of(error)
}
