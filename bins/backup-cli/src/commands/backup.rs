//! `backup`: take backups, one source after another.

use std::sync::Arc;

use backup_app::{AppError, BackupJob, Keys, names};
use backup_core::engine::{BackupOutcome, Engine};
use backup_core::error::Error as CoreError;
use backup_core::observer::{NoopObserver, Observer};
use backup_core::run_record::{Operation, RunId};

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
        context
            .app
            .engine(&job.place, Keys::Recipients, Arc::new(NoopObserver))?;
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
    let engine = context.app.engine(&job.place, Keys::Recipients, observer)?;
    let mut run = history::begin(&engine, Operation::Backup);
    run.source = Some(job.source.clone());
    let result = within_time(context, job, &engine).await;
    progress.finish();
    match &result {
        Ok(outcome) => run.backed_up(outcome),
        Err(AppError::Engine(error)) => run.failed(error),
        Err(error) => run.ended_with(error, error.kind()),
    }
    let run = context.record(&engine, &job.place.name, run).await;
    match result {
        Ok(outcome) => Ok(done(context, job, &outcome, run.as_ref())),
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

/// Takes the backup, unless a signal or the time limit ends it.
async fn within_time(
    context: &Context,
    job: &BackupJob,
    engine: &Engine,
) -> Result<BackupOutcome, AppError> {
    let cancel = context.interrupt.token().child_token();
    let work = engine.backup(&job.dumper, &job.request, &cancel);
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

fn done(context: &Context, job: &BackupJob, outcome: &BackupOutcome, run: Option<&RunId>) -> u8 {
    let manifest = &outcome.manifest;
    if context.json {
        let warnings = outcome.warnings.clone();
        render::json(&BackupView {
            run_id: run.map(ToString::to_string),
            ..BackupView::committed(manifest, &job.place.name, warnings)
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
            destinations: vec![DestinationView {
                name: job.place.name.clone(),
                status: "failed",
                error: Some(error.render()),
            }],
            error: Some(error.report()),
            ..BackupView::default()
        });
    } else {
        let source = render::name(job.source.as_str());
        render::complain(&format!("backup of {source}: {}", error.render()));
    }
    exit_code::of(error)
}
