//! `backup`: take backups, one source after another.

use std::sync::Arc;

use backup_app::{AppError, BackupJob, BackupView, names};
use backup_core::engine::BackupOutcome;
use backup_core::observer::Observer;

use super::{Context, Outcome};
use crate::args::BackupArgs;
use crate::progress::Progress;
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
        context.app.check_backup_job(&job)?;
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
    let (app, stop) = (&context.app, context.interrupt.token());
    let run = app.run_backup(job, &context.journal, observer, stop).await;
    progress.finish();
    if context.json {
        render::json(&BackupView::of(job, &run));
    }
    let stopped = run.is_cancelled();
    match run.result {
        Ok(outcome) => Ok(done(context, job, &outcome)),
        Err(error) if stopped => {
            if !context.json {
                // Sources before this one may have their backup.
                let source = render::name(job.source.as_str());
                let what = "stopped by a signal; nothing was published";
                render::complain(&format!("backup of {source}: {what}"));
            }
            Err(error)
        }
        Err(error) => {
            if !context.json {
                let source = render::name(job.source.as_str());
                render::complain(&format!("backup of {source}: {}", error.render()));
            }
            Ok(exit_code::of(&error))
        }
    }
}

fn done(context: &Context, job: &BackupJob, outcome: &BackupOutcome) -> u8 {
    let manifest = &outcome.manifest;
    if !context.json {
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
