//! `copy`: bring backups to another place that lacks them.

use std::sync::Arc;

use backup_app::{AppError, Keys, Place, Reading, begin, choose_found};
use backup_core::catalog::{ListRequest, Selector};
use backup_core::engine::{CopyOutcome, Engine};
use backup_core::error::Error as CoreError;
use backup_core::manifest::Manifest;
use backup_core::observer::Observer;
use backup_core::run_record::Operation;

use super::listing::{none_of, warn_damaged};
use super::{Context, Outcome, selector};
use crate::args::CopyArgs;
use crate::progress::Progress;
use crate::report::CopyView;
use crate::{exit_code, render};

/// The two ends.
struct Ends {
    from: Engine,
    from_place: Place,
    to: Engine,
    to_place: Place,
    progress: Arc<Progress>,
}

pub(super) async fn run(context: &Context, arguments: &CopyArgs) -> Outcome {
    let progress = Arc::new(Progress::new("copy", context.quiet));
    let observer: Arc<dyn Observer> = Arc::<Progress>::clone(&progress);
    let from_place = context.app.place(&arguments.from)?;
    let to_place = context.app.place(&arguments.to)?;
    if from_place == to_place {
        return Err(AppError::usage("--from and --to are the same place"));
    }
    let app = &context.app;
    let ends = Ends {
        from: app.engine(&from_place, Keys::None, Arc::clone(&observer))?,
        to: app.engine(&to_place, Keys::Recipients, observer)?,
        from_place,
        to_place,
        progress,
    };
    let wanted = choose(context, arguments, &ends);
    let (wanted, unreadable) = context.stoppable(wanted).await?;
    if wanted.is_empty() && !unreadable {
        render::note("nothing is missing");
    }
    let mut codes = Vec::new();
    for backup in &wanted {
        match one(context, arguments, &ends, backup).await {
            Ok(outcome) => {
                codes.push(exit_code::DONE);
                print(context, &ends, backup, &outcome);
            }
            Err(AppError::Engine(CoreError::Cancelled)) => return Err(CoreError::Cancelled.into()),
            Err(error) if wanted.len() == 1 => return Err(error),
            // The others are copied all the same.
            Err(error) => {
                codes.push(exit_code::of(&error));
                failed(context, &ends, backup, &error);
            }
        }
    }
    Ok(match exit_code::of_several(&codes) {
        // What cannot even be read may be missing there, too.
        exit_code::DONE if unreadable => exit_code::WARNINGS,
        code => code,
    })
}

/// Copies one backup, and leaves a note of it where it went.
async fn one(
    context: &Context,
    arguments: &CopyArgs,
    ends: &Ends,
    backup: &Manifest,
) -> Result<CopyOutcome, AppError> {
    let cancel = context.interrupt.token().child_token();
    if cancel.is_cancelled() {
        return Err(CoreError::Cancelled.into());
    }
    let mut run = begin(&ends.to, Operation::Copy);
    run.source = Some(backup.source.clone());
    run.backup = Some(backup.id.clone());
    let work = ends.from.copy(backup, &ends.to, arguments.jobs, &cancel);
    let what = Reading {
        engine: &ends.from,
        place: &ends.from_place.name,
        backup,
        operation: Operation::Copy,
    };
    let copied = context.reading(&what, Box::pin(work)).await.flatten();
    ends.progress.finish();
    match &copied {
        Ok(outcome) => run.copied(outcome),
        Err(error) => run.failed(error),
    }
    context.record(&ends.to, &ends.to_place.name, run).await;
    Ok(copied?)
}

fn nothing(backup: &str, why: Option<CoreError>) -> AppError {
    let what = format!("backup {backup}");
    why.unwrap_or(CoreError::NotFound { what }).into()
}

/// What is to be copied, the newest first: it is what a disaster needs. And whether there is
/// something that cannot be read.
async fn choose(
    context: &Context,
    arguments: &CopyArgs,
    ends: &Ends,
) -> Result<(Vec<Manifest>, bool), AppError> {
    let source = arguments.source.as_deref();
    if !arguments.missing {
        let mut found = Vec::new();
        for backup in &arguments.backups {
            let selector: Selector = selector(backup)?;
            let at = (&ends.from_place, &ends.from);
            let (here, missing) = context.app.find_at(at, &selector, source).await?;
            let chosen = choose_found(&selector, here)?;
            let chosen = chosen.ok_or_else(|| nothing(backup, missing))?;
            found.push(chosen.manifest);
        }
        return Ok((found, false));
    }
    let everything = ListRequest::default();
    let catalog = ends.from.catalog();
    let here = context.listed(&catalog, source, &everything).await?;
    warn_damaged(&ends.from_place.name, &here.damaged);
    if here.backups.is_empty() && here.damaged.is_empty() {
        none_of(source)?;
    }
    let there = context
        .listed(&ends.to.catalog(), source, &everything)
        .await?;
    warn_damaged(&ends.to_place.name, &there.damaged);
    let (from, to) = ((&ends.from, &here), (&ends.to, &ends.to_place, &there));
    let missing = context.app.lacking(from, to).await?;
    Ok((missing, !here.damaged.is_empty()))
}

fn print(context: &Context, ends: &Ends, backup: &Manifest, outcome: &CopyOutcome) {
    if context.json {
        render::json(&CopyView::new(backup, &ends.to_place.name, outcome));
        return;
    }
    let what = match outcome.objects {
        0 => "was there already".to_owned(),
        objects => format!(
            "{}, {}",
            render::counted(objects as u64, "object"),
            render::size(outcome.bytes)
        ),
    };
    render::line(&format!(
        "{}  {}  -> {}  {what}",
        backup.id,
        render::name(backup.source.as_str()),
        render::name(&ends.to_place.name),
    ));
}

fn failed(context: &Context, ends: &Ends, backup: &Manifest, error: &AppError) {
    if context.json {
        render::json(&CopyView::failed(backup, &ends.to_place.name, error));
    } else {
        let text = error.render();
        render::complain(&format!("copy of {}: {text}", backup.id));
    }
}
