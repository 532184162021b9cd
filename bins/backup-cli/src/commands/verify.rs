//! `verify`: prove stored backups.

use std::sync::Arc;

use backup_app::{AppError, Found, Keys, Mark, VerifyTask, sample_each};
use backup_core::catalog::ListRequest;
use backup_core::engine::{VerifyLevel, VerifyReport, VerifyRequest};
use backup_core::error::Error as CoreError;
use backup_core::observer::Observer;

use super::{Context, Outcome};
use crate::args::{LevelArg, VerifyArgs};
use crate::progress::Progress;
use crate::report::VerifyView;
use crate::{exit_code, render};

pub(super) async fn run(context: &Context, arguments: &VerifyArgs) -> Outcome {
    let progress = Arc::new(Progress::new("verify", context.quiet));
    let observer: Arc<dyn Observer> = Arc::<Progress>::clone(&progress);
    let request = VerifyRequest {
        level: match arguments.level {
            LevelArg::Stored => VerifyLevel::Stored,
            LevelArg::Hashed => VerifyLevel::Hashed,
            LevelArg::Decoded => VerifyLevel::Decoded,
        },
        jobs: arguments.jobs,
    };
    let keys = match arguments.level {
        LevelArg::Decoded => Keys::Identities,
        LevelArg::Stored | LevelArg::Hashed => Keys::None,
    };
    let (chosen, unreadable) = context
        .stoppable(choose(context, arguments, keys, observer))
        .await?;
    if chosen.is_empty() && unreadable == 0 {
        let what = "backup to verify".to_owned();
        return Err(AppError::Engine(CoreError::NotFound { what }));
    }
    let mut damaged = unreadable;
    let mut codes = Vec::new();
    for found in chosen {
        match one(context, &found, request, &progress).await {
            Ok(report) => {
                damaged += usize::from(!report.problems.is_empty());
                codes.push(exit_code::DONE);
                print(context, &found, &report);
            }
            Err(AppError::Engine(CoreError::Cancelled)) => return Err(CoreError::Cancelled.into()),
            // Of the others something can be said.
            Err(error) => {
                codes.push(exit_code::of(&error));
                print_failed(context, &found, request.level, &error);
            }
        }
    }
    progress.finish();
    Ok(if damaged == 0 {
        exit_code::of_several(&codes)
    } else {
        exit_code::INTEGRITY
    })
}

/// Verifies one backup, and leaves a note of it.
async fn one(
    context: &Context,
    found: &Found,
    request: VerifyRequest,
    progress: &Progress,
) -> Result<VerifyReport, AppError> {
    let task = VerifyTask {
        found,
        request,
        mark: Mark::default(),
    };
    let done = task.run(&context.journal, context.interrupt.token()).await;
    progress.finish();
    done.result
}

/// The backups to look at, and how many manifests cannot even be read.
async fn choose(
    context: &Context,
    arguments: &VerifyArgs,
    keys: Keys,
    observer: Arc<dyn Observer>,
) -> Result<(Vec<Found>, usize), AppError> {
    let source = arguments.source.as_deref();
    let mut chosen = Vec::new();
    for backup in &arguments.backups {
        chosen.push(
            context
                .find(backup, source, keys, Arc::clone(&observer))
                .await?,
        );
    }
    if !arguments.backups.is_empty() {
        return Ok((chosen, 0));
    }
    let mut unreadable = 0;
    for place in context.app.places()? {
        let engine = context.app.engine(&place, keys, Arc::clone(&observer))?;
        let catalog = engine.catalog();
        let everything = ListRequest::default();
        let mut listing = context.listed(&catalog, source, &everything).await?;
        for (key, reason) in &listing.damaged {
            render::complain(&format!("{}: {key}: {reason}", place.name));
        }
        unreadable += listing.damaged.len();
        if let Some(count) = arguments.sample {
            sample_each(&mut listing.backups, count);
        }
        chosen.extend(listing.backups.into_iter().map(|manifest| Found {
            manifest,
            place: place.clone(),
            engine: engine.clone(),
        }));
    }
    Ok((chosen, unreadable))
}

fn print(context: &Context, found: &Found, report: &VerifyReport) {
    let view = VerifyView::new(&found.manifest, &found.place.name, report);
    if context.json {
        render::json(&view);
        return;
    }
    let state = if report.problems.is_empty() {
        "ok     "
    } else {
        "damaged"
    };
    render::line(&format!(
        "{state}  {}  {}  {}  {} parts, {} read",
        found.manifest.id,
        render::name(found.manifest.source.as_str()),
        found.place.name,
        report.parts,
        render::size(report.bytes_read),
    ));
    for problem in &report.problems {
        render::complain(&format!(
            "part {}: {}",
            problem.part,
            render::name(&problem.problem)
        ));
    }
}

/// Says of a backup that cannot be judged why.
fn print_failed(context: &Context, found: &Found, level: VerifyLevel, error: &AppError) {
    let (manifest, place) = (&found.manifest, &found.place.name);
    if context.json {
        render::json(&VerifyView::failed(manifest, place, level, error));
        return;
    }
    let source = render::name(manifest.source.as_str());
    render::line(&format!("failed   {}  {source}  {place}", manifest.id));
    render::complain(&format!("backup {}: {}", manifest.id, error.render()));
}
