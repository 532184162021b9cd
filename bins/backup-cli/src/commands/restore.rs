//! `restore`: into a new database, compared with the dump, and if wanted into the place of another.

use std::sync::Arc;

use backup_app::report::DefinitionsView;
use backup_app::{
    AppError, Keys, Reading, RestoreTarget, begin, refuse_password, refuse_unless_database,
};
use backup_core::engine::{CompareReport, RestoreOptions, RestoreOutcome};
use backup_core::error::Error as CoreError;
use backup_core::observer::Observer;
use backup_core::replacer::Replacement;
use backup_core::restorer::{Purpose, RestoreRequest};
use backup_core::run_record::{Operation, RunId};
use serde_json::json;

use super::replace::Place;
use super::{Context, Found, Outcome, extract, replace};
use crate::args::RestoreArgs;
use crate::progress::Progress;
use crate::report::{CompareView, RestoreView};
use crate::{exit_code, render};

pub(super) async fn run(context: &Context, arguments: &RestoreArgs) -> Outcome {
    refuse_password("--target-db", arguments.target_db())?;
    let source = arguments.source.as_deref();
    let backup = &arguments.backup;
    let found = context
        .stoppable(context.find_quietly(backup, source, Keys::Identities))
        .await?;
    if let Some(directory) = &arguments.target_dir {
        return extract::run(context, &found, directory).await;
    }
    refuse_unless_database(&found.manifest)?;
    let server = arguments
        .target_server
        .clone()
        .or_else(|| context.app.server_of(found.manifest.source.as_str()));
    let target = context.app.restore_target(server.as_deref())?;
    let mut run = begin(&found.engine, Operation::Restore);
    run.source = Some(found.manifest.source.clone());
    run.backup = Some(found.manifest.id.clone());
    run.target_database = Some(arguments.target_db().to_owned());
    let id = run.id.clone();
    context.journal.began(&run);
    // Until the record is written, nobody else may take the run for a killed one.
    let place = replace::prepare(context, arguments, (&found, &target), &id).await;
    let (place, result) = match place {
        Ok(place) => {
            if let Place::Claimed(_) = &place {
                let at = &found.place.name;
                context.announce(&found.engine, at, &run).await;
            }
            let result = restore(context, arguments, (&found, &target), &place).await;
            (place, result)
        }
        Err(AppError::Engine(error)) => (Place::Plain, Err(error)),
        Err(error) => return Err(error),
    };
    match &result {
        Ok(outcome) => run.restored(outcome),
        Err(error) => run.failed(error),
    }
    let damaged = run.damaged;
    let recorded = context.record(&found.engine, &found.place.name, run).await;
    if let (Some(_), Ok(outcome), Place::Claimed(claim)) = (&recorded, &result, &place)
        && let Some(replacement) = &outcome.replaced
    {
        replace::acknowledge(claim.as_ref(), replacement).await;
    }
    if damaged && recorded.is_some() {
        // Whoever stops that has the error all the same.
        let _ = context.stoppable(suggest(context, &found)).await;
    }
    match result {
        Ok(outcome) => Ok(done(context, arguments, &outcome, recorded.as_ref())),
        Err(CoreError::Differs(report)) => Ok(differs(context, &report)),
        Err(error) => Err(error.into()),
    }
}

/// Names the backup to take instead of one that was found, and recorded, to be damaged.
async fn suggest(context: &Context, bad: &Found) -> Result<(), AppError> {
    let source = bad.manifest.source.as_str();
    let verified = context.find_quietly("latest-verified", Some(source), Keys::None);
    let source = render::name(source);
    match verified.await {
        Ok(good) => render::warn(&format!(
            "the newest backup of {source} that was found good is {} at {}, of {}",
            good.manifest.id,
            render::name(&good.place.name),
            render::time(good.manifest.started_at),
        )),
        Err(AppError::Engine(CoreError::NotFound { .. })) => render::warn(&format!(
            "no other backup of {source} has been verified: see `list`, and `verify` those before it"
        )),
        Err(error) => return Err(error),
    }
    Ok(())
}

async fn restore(
    context: &Context,
    arguments: &RestoreArgs,
    (found, target): (&Found, &RestoreTarget),
    place: &Place,
) -> Result<RestoreOutcome, CoreError> {
    let label = format!("restore {}", render::name(arguments.target_db()));
    let progress = Arc::new(Progress::new(&label, context.quiet));
    let observer: Arc<dyn Observer> = Arc::<Progress>::clone(&progress);
    let engine = found.engine.clone().with_observer(observer);
    let options = RestoreOptions {
        target: RestoreRequest {
            target_database: arguments.target_db().to_owned(),
            purpose: match place {
                Place::Archive => Purpose::Archive,
                Place::Plain | Place::Claimed(_) => Purpose::Plain,
            },
            jobs: target.jobs,
            ownership: arguments.ownership(),
            selection: arguments.selection(),
        },
        compare: !arguments.no_compare,
        keep_failed: arguments.keep_failed,
        replace: match place {
            Place::Claimed(claim) => Some(Arc::clone(claim)),
            Place::Plain | Place::Archive => None,
        },
    };
    let cancel = context.interrupt.token().child_token();
    let backup = found.manifest.clone();
    let work = engine.restore(&target.restorer, backup, &options, &cancel);
    let what = Reading {
        engine: &engine,
        place: &found.place.name,
        backup: &found.manifest,
        operation: Operation::Restore,
    };
    let result = context.reading(&what, Box::pin(work)).await;
    progress.finish();
    result?
}

fn swapped(context: &Context, arguments: &RestoreArgs, replacement: &Replacement) {
    let name = render::name(&replacement.database);
    if let Some(kept_as) = &replacement.kept_as {
        let kept_as = render::name(kept_as);
        render::line(&format!(
            "{name} is now that database; what it was before is kept as {kept_as}"
        ));
        let undo = arguments.undo_command(context.config.as_deref(), &replacement.run);
        render::line(&format!("to swap back: {undo}"));
    }
}

fn done(
    context: &Context,
    arguments: &RestoreArgs,
    outcome: &RestoreOutcome,
    run: Option<&RunId>,
) -> u8 {
    if context.json {
        render::json(&RestoreView::new(outcome, arguments, run));
    } else {
        let selection = arguments.selection();
        let what = if selection.is_partial() {
            "a part of "
        } else if selection.content_only {
            "the rows of "
        } else {
            ""
        };
        let elapsed = (outcome.finished_at - outcome.started_at).as_seconds_f64();
        render::line(&format!(
            "restored {what}{} into {} in {}, {} read",
            outcome.manifest.id,
            render::name(arguments.target_db()),
            render::duration(elapsed),
            render::size(outcome.bytes_read),
        ));
        match &outcome.compare {
            Some(report) if selection.definitions_only => render::line(&format!(
                "definitions only, without rows{}",
                definitions_text(report)
            )),
            Some(report) => render::line(&equal_text(report)),
            None => render::line("not compared with the dump"),
        }
        if let Some(replacement) = &outcome.replaced {
            swapped(context, arguments, replacement);
        }
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

fn equal_text(report: &CompareReport) -> String {
    let large_objects = match report.large_objects_equal {
        Some(_) => ", large objects equal",
        None => "",
    };
    let refreshed = match report.materialized_views.len() {
        0 => String::new(),
        count => format!(
            "; {} filled anew, not compared in content",
            render::counted(count as u64, "materialized view")
        ),
    };
    format!(
        "compared: {} of {} equal in content, {}{large_objects}{}{refreshed}",
        report.equal,
        render::counted(report.tables as u64, "table"),
        render::counted(report.rows, "row"),
        definitions_text(report),
    )
}

fn definitions_text(report: &CompareReport) -> String {
    match &report.definitions {
        None => String::new(),
        Some(found) if found.texts_compared => format!(
            "; {} equal",
            render::counted(found.equal as u64, "definition")
        ),
        Some(found) => format!(
            "; {} there, their texts are another release's",
            render::counted(found.equal as u64, "definition")
        ),
    }
}

fn differs(context: &Context, report: &CompareReport) -> u8 {
    let view = CompareView::from(report);
    let error = AppError::from(CoreError::Differs(Box::new(report.clone())));
    if context.json {
        render::json(&json!({ "error": error.report(), "compare": view }));
        return exit_code::of(&error);
    }
    for found in &report.different {
        render::line(&format!(
            "different  {}: {} rows, {} bytes dumped; {} rows, {} bytes restored",
            render::name(&found.table.to_string()),
            render::count(found.dumped.rows),
            render::count(found.dumped.bytes),
            render::count(found.restored.rows),
            render::count(found.restored.bytes),
        ));
    }
    for table in &report.missing {
        render::line(&format!("missing    {}", render::name(&table.to_string())));
    }
    for found in &report.not_comparable {
        let table = render::name(&found.table.to_string());
        render::line(&format!(
            "unreadable {table}: {}",
            render::name(&found.reason)
        ));
    }
    let definitions = report.definitions.iter().map(DefinitionsView::from);
    for found in definitions {
        for (what, name) in found.differences() {
            render::line(&format!("{what:<10} {}", render::name(name)));
        }
    }
    render::error(&error, false);
    exit_code::of(&error)
}
