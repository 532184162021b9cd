//! `backup`: take backups, as many at a time as is allowed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_app::{
    AppError, BackupJob, BackupQueue, BackupRun, BackupView, SkippedDatabase, SystemClock, Whose,
    is_anothers, names,
};
use backup_core::backup::{BackupId, SourceName};
use backup_core::clock::Clock as _;
use backup_core::engine::BackupOutcome;
use backup_core::error::Error as CoreError;
use backup_core::manifest::{Content, Manifest};
use backup_core::observer::Observer;
use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::{Context, Outcome};
use crate::args::BackupArgs;
use crate::progress::Progress;
use crate::{exit_code, render, teamcity};

/// How often it is looked what became of a backup that another run takes.
const LOOK: Duration = Duration::from_secs(2);

/// How it ended.
enum Ended {
    /// A database of a source, with or without a backup now.
    Done(SourceName, String, Box<BackupRun>),
    /// A source that has a backup which is new enough.
    Elsewhere(Box<BackupJob>, BackupId),
    /// A signal came before it could begin.
    NotBegun(Box<BackupJob>),
}

pub(super) async fn run(context: &Context, arguments: &BackupArgs) -> Outcome {
    let sources = sources(context, arguments)?;
    if sources.is_empty() {
        return Err(AppError::usage_hint(
            "no source is configured",
            "configure a [source.NAME], or say -d NAME --to URL",
        ));
    }
    let stop = context.interrupt.token();
    let queue = context.app.backup_queue()?;
    let mut tasks = match context.app.backup_tasks(&sources, stop).await {
        Err(AppError::Engine(CoreError::Cancelled)) => return Err(not_begun(context, &sources)),
        tasks => tasks?,
    };
    let mut warned = false;
    for skipped in &tasks.skipped {
        warned |= left_out(context, skipped);
    }
    let several = tasks.jobs.len() > 1;
    if let Some(age) = arguments.older_than {
        share(&mut tasks.jobs, age);
    }
    let mut running: FuturesUnordered<_> = tasks
        .jobs
        .into_iter()
        .map(|job| one(context, &queue, job, several))
        .collect();
    let mut codes = Vec::new();
    let mut stopped = None;
    // What came of one is said as a whole, when it is over.
    while let Some(ended) = running.next().await {
        match tell(context, ended) {
            Ok(code) => codes.push(code),
            Err(error) => {
                stopped.get_or_insert(error);
            }
        }
    }
    // A place that is new has a repository to leave records in only now.
    for refused in tasks.refused {
        let (source, database) = (refused.source.clone(), refused.database.clone());
        let run = context.app.record_refused(refused, &context.journal, stop);
        codes.push(tell(
            context,
            Ended::Done(source, database, Box::new(run.await)),
        )?);
    }
    match stopped {
        Some(error) => Err(error),
        None => Ok(match exit_code::of_several(&codes) {
            exit_code::DONE if warned => exit_code::WARNINGS,
            code => code,
        }),
    }
}

/// A signal came before it was known what to do.
fn not_begun(context: &Context, sources: &[Option<String>]) -> AppError {
    let error = AppError::from(CoreError::Cancelled);
    if context.json {
        render::error(&error, true);
    } else {
        for source in sources.iter().flatten() {
            render::complain(&format!("backup of {}: not begun", render::name(source)));
        }
    }
    error
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

/// Takes one backup when it is its turn.
async fn one(context: &Context, queue: &BackupQueue, job: Box<BackupJob>, several: bool) -> Ended {
    let begun = Instant::now();
    loop {
        let stop = context.interrupt.token();
        let Some(turn) = queue.turn(job.server(), stop).await else {
            return Ended::NotBegun(job);
        };
        // Whoever has it has no more time than we would.
        let may_wait = begun.elapsed() < job.settings.values.timeout;
        match context.app.whose(&job, stop).await {
            Ok(Whose::Taken(backup)) => return Ended::Elsewhere(job, backup),
            Ok(Whose::Anothers) if may_wait => {}
            Err(AppError::Engine(CoreError::Cancelled)) => return Ended::NotBegun(job),
            // What is wrong with a place the backup itself says, and records.
            Ok(Whose::Ours | Whose::Anothers) | Err(_) => {
                let run = taken(context, &job, several).await;
                if let Err(AppError::Engine(CoreError::Taken { backup, .. })) = &run.result {
                    return Ended::Elsewhere(job, backup.clone());
                }
                // Another run was quicker by a moment.
                if !(job.request.unless_since.is_some() && may_wait && is_anothers(&run)) {
                    return Ended::Done(job.source, job.database, Box::new(run));
                }
            }
        }
        // Others may begin meanwhile.
        drop(turn);
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return Ended::NotBegun(job),
        }
    }
}

async fn taken(context: &Context, job: &BackupJob, several: bool) -> BackupRun {
    let (app, stop) = (&context.app, context.interrupt.token());
    let label = format!("backup {}", render::name(job.source.as_str()));
    let mut progress = Progress::new(&label, context.quiet);
    if several {
        progress = progress.among_others();
    }
    let progress = Arc::new(progress);
    let observer: Arc<dyn Observer> = Arc::<Progress>::clone(&progress);
    let run = Box::pin(app.run_backup(job, &context.journal, observer, stop)).await;
    progress.finish();
    run
}

/// Makes them work that others may do too. In any order, so that not all look at the same one.
fn share(jobs: &mut [Box<BackupJob>], age: TimeDelta) {
    let now = SystemClock.now();
    let since = now.checked_sub_signed(age);
    let since = since.unwrap_or(DateTime::<Utc>::MIN_UTC);
    for job in jobs.iter_mut() {
        job.request.unless_since = Some(since);
    }
    jobs.sort_by_cached_key(|_| rand::random::<u64>());
}

/// Says what came of it; an error only of what a signal stopped.
fn tell(context: &Context, ended: Ended) -> Outcome {
    match ended {
        Ended::NotBegun(job) => {
            if context.json {
                render::json(&BackupView::not_begun(&job));
            } else {
                let source = render::name(job.source.as_str());
                render::complain(&format!("backup of {source}: not begun"));
            }
            Err(CoreError::Cancelled.into())
        }
        Ended::Elsewhere(job, backup) => {
            if context.json {
                render::json(&BackupView::elsewhere(&job, &backup));
            } else {
                let source = render::name(job.source.as_str());
                render::note(&format!("{source}: skipped: it has backup {backup}"));
            }
            Ok(exit_code::DONE)
        }
        Ended::Done(source, database, run) => finished(context, (&source, &database), *run),
    }
}

/// Says what came of one that has ended; an error only of what a signal stopped.
pub(super) fn finished(
    context: &Context,
    (source, database): (&SourceName, &str),
    run: BackupRun,
) -> Outcome {
    if context.json {
        render::json(&BackupView::of(source, database, &run));
    }
    told(context, source, run)
}

fn told(context: &Context, source: &SourceName, run: BackupRun) -> Outcome {
    let stopped = run.is_cancelled();
    let source = render::name(source.as_str());
    match run.result {
        Ok(outcome) => Ok(done(context, &source, &outcome)),
        Err(error) if stopped => {
            if !context.json {
                // Others may have their backup.
                let what = "stopped by a signal; nothing was published";
                render::complain(&format!("backup of {source}: {what}"));
            }
            Err(error)
        }
        Err(error) => {
            if !context.json {
                render::complain(&format!("backup of {source}: {}", error.render()));
            }
            Ok(exit_code::of(&error))
        }
    }
}

/// A database that nobody named and that cannot be taken. Says whether anybody may miss it.
fn left_out(context: &Context, skipped: &SkippedDatabase) -> bool {
    if context.json {
        render::json(&BackupView::skipped(skipped));
    }
    let Some(warning) = skipped.warning() else {
        if !context.json {
            let source = render::name(&skipped.source);
            render::note(&format!("{source}: skipped: {}", skipped.obstacle.reason()));
        }
        return false;
    };
    render::warn(&render::name(&warning));
    true
}

fn statistics(manifest: &Manifest) {
    let elapsed = (manifest.finished_at - manifest.started_at).as_seconds_f64();
    let totals = &manifest.totals;
    for (what, value) in [
        ("duration_seconds", format!("{elapsed:.3}")),
        ("raw_bytes", totals.raw_bytes.to_string()),
        ("stored_bytes", totals.stored_bytes.to_string()),
        ("rows", totals.rows.to_string()),
    ] {
        teamcity::statistic(&format!("backup.{}.{what}", manifest.source), &value);
    }
}

fn done(context: &Context, source: &str, outcome: &BackupOutcome) -> u8 {
    let manifest = &outcome.manifest;
    if !context.json {
        let elapsed = (manifest.finished_at - manifest.started_at).as_seconds_f64();
        let totals = &manifest.totals;
        let (tables, rows) = match manifest.content() {
            Content::Redis => ("database", "key"),
            _ => ("table", "row"),
        };
        render::line(&format!(
            "{}  {}  {}, {}  {} -> {}  {}",
            manifest.id,
            source,
            render::counted(totals.tables, tables),
            render::counted(totals.rows, rows),
            render::size(totals.raw_bytes),
            render::size(totals.stored_bytes),
            render::duration(elapsed),
        ));
        statistics(manifest);
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
