//! `undo`: swap back what a restore replaced.

use std::sync::Arc;

use backup_app::{AppError, Keys, Place, SystemClock, who};
use backup_core::clock::Clock as _;
use backup_core::engine::{self, Engine};
use backup_core::error::chain;
use backup_core::observer::NoopObserver;
use backup_core::run_record::{Operation, RunRecord};

use super::{Context, Outcome, replace};
use crate::args::UndoArgs;
use crate::report::UndoView;
use crate::{exit_code, render};

/// The record of the restore, and where it was found.
struct Recorded {
    record: Option<RunRecord>,
    place: Place,
    engine: Engine,
}

pub(super) async fn run(context: &Context, arguments: &UndoArgs) -> Outcome {
    let recorded = context
        .stoppable(async { Ok(find_record(context, arguments).await) })
        .await?;
    let record = recorded.as_ref().and_then(|found| found.record.as_ref());
    let source = record.and_then(|record| record.source.clone());
    let server = arguments.target_server.clone().or_else(|| {
        let source = source.as_ref()?;
        context.app.server_of(source.as_str())
    });
    let target = context.app.restore_target(server.as_deref())?;
    let mut run = RunRecord::begin(Operation::Undo, who(), SystemClock.now());
    run.undone = Some(arguments.run.clone());
    run.source = source;
    run.target_database = record.and_then(|record| record.target_database.clone());
    announce(context, arguments, recorded.as_ref(), &run).await;
    let cancel = context.interrupt.token().child_token();
    let result = engine::undo(&target.replacer, &arguments.run, &run.id, &cancel).await;
    match &result {
        Ok((replacement, _)) => run.replaced(replacement),
        Err(error) => run.failed(error),
    }
    if let Some(found) = &recorded {
        let written = context.record(&found.engine, &found.place.name, run).await;
        if let (Some(_), Ok((replacement, claim))) = (written, &result) {
            replace::acknowledge(claim.as_ref(), replacement).await;
        }
    }
    let (replacement, _) = result?;
    if context.json {
        render::json(&UndoView::new(&replacement, &arguments.run));
    } else {
        let name = render::name(&replacement.database);
        render::line(&format!(
            "{name} is again what it was before {}",
            arguments.run
        ));
        if let Some(kept_as) = &replacement.kept_as {
            render::line(&format!(
                "what it was since is kept as {}; to swap once more: {}",
                render::name(kept_as),
                arguments.undo_command(context.config.as_deref(), &replacement.run),
            ));
        }
    }
    for warning in &replacement.warnings {
        render::warn(&render::name(warning));
    }
    Ok(if replacement.warnings.is_empty() {
        exit_code::DONE
    } else {
        exit_code::WARNINGS
    })
}

/// Writes down that it begins, or says that it cannot be.
async fn announce(
    context: &Context,
    arguments: &UndoArgs,
    recorded: Option<&Recorded>,
    run: &RunRecord,
) {
    match recorded {
        Some(found) => {
            let place = &found.place.name;
            if found.record.is_none() {
                render::warn(&format!(
                    "{}: run {} is not recorded there; this undo will be",
                    render::name(place),
                    arguments.run
                ));
            }
            context.announce(&found.engine, place, run).await;
        }
        None => render::warn(match context.app.places() {
            Ok(_) => "this undo is recorded nowhere, because no place for backups can be read",
            Err(_) => {
                "this undo is recorded nowhere, because no place for backups is given; say --from URL"
            }
        }),
    }
}

/// Looks for the restore's record. Swapping back must not depend on a store that may be down: what
/// is set aside says itself whose it is.
async fn find_record(context: &Context, arguments: &UndoArgs) -> Option<Recorded> {
    let mut first = None;
    for place in context.app.places().ok()? {
        let found = async {
            let observer = Arc::new(NoopObserver);
            let engine = context.app.engine(&place, Keys::None, observer)?;
            let record = engine.history().get(&arguments.run).await?;
            Ok::<_, AppError>((engine, record))
        };
        match found.await {
            Ok((engine, record)) => {
                let is_it = record.is_some();
                let recorded = Recorded {
                    record,
                    place,
                    engine,
                };
                if is_it {
                    return Some(recorded);
                }
                first.get_or_insert(recorded);
            }
            Err(error) => render::warn(&format!(
                "{}: the run is not looked up: {}",
                place.name,
                render::name(&chain(&error))
            )),
        }
    }
    first
}
