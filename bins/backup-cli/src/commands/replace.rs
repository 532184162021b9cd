//! What `restore --swap` and `--replace-archive` do before they restore.

use std::sync::Arc;

use backup_app::{AppError, RestoreTarget, who};
use backup_core::error::{Error as CoreError, ErrorKind, PortError, chain};
use backup_core::replacer::{
    Claim, Occupant, ReplaceRequest, Replaceable, Replacement, Replacer as _,
};
use backup_core::run_record::{RunId, RunRecord};

use super::{Context, Found, confirm};
use crate::args::RestoreArgs;
use crate::render;

/// What is to become of the name that a restore is given.
pub(super) enum Place {
    /// Nothing has it.
    Plain,
    /// Nothing has it, and the next may replace what is made there.
    Archive,
    /// Something has it, and is going to be replaced.
    Claimed(Arc<dyn Claim>),
}

/// Finds out, asks if it must, and reserves the name.
pub(super) async fn prepare(
    context: &Context,
    arguments: &RestoreArgs,
    (found, target): (&Found, &RestoreTarget),
    run: &RunId,
) -> Result<Place, AppError> {
    let replaceable = match (arguments.replace.swap, arguments.replace.replace_archive) {
        (true, _) => Replaceable::Any,
        (_, true) => Replaceable::Restored,
        _ => return Ok(Place::Plain),
    };
    let database = arguments.target_db();
    let undo = |run: &RunId| arguments.undo_command(context.config.as_deref(), run);
    let looked = context
        .stoppable(async { Ok(target.replacer.look(database).await) })
        .await?;
    let operation = format!("replace database {database}");
    let occupant = looked.map_err(|source| CoreError::Replace { operation, source })?;
    match occupant {
        None if replaceable == Replaceable::Restored => return Ok(Place::Archive),
        None => {
            return Err(CoreError::NotFound {
                what: format!("database {database:?}, which is to be replaced,"),
            }
            .into());
        }
        Some(occupant) if arguments.replace.swap && !arguments.replace.yes => {
            context
                .stoppable(ask(database, &occupant, found, &undo(run)))
                .await?;
        }
        Some(_) => {}
    }
    let request = ReplaceRequest {
        database: database.to_owned(),
        replaceable,
        run: run.clone(),
        backup: found.manifest.id.clone(),
        source: found.manifest.source.clone(),
    };
    let cancel = context.interrupt.token();
    let claim = found
        .engine
        .claim(&target.replacer, &request, cancel)
        .await?;
    for warning in claim.warnings() {
        render::warn(&render::name(warning));
    }
    for replacement in claim.unrecorded() {
        render::warn(&format!(
            "run {} replaced {} and was not recorded; to swap back: {}",
            replacement.run,
            render::name(&replacement.database),
            undo(&replacement.run),
        ));
        record_killed(context, found, claim.as_ref(), replacement).await;
    }
    Ok(Place::Claimed(claim))
}

/// Writes the record that a run owes which was killed, or could not write it.
async fn record_killed(
    context: &Context,
    found: &Found,
    claim: &dyn Claim,
    replacement: &Replacement,
) {
    let known = found.engine.history().get(&replacement.run).await;
    let recorded = match known {
        Ok(Some(_)) => true,
        Ok(None) => {
            let record = RunRecord::of_killed(replacement, who());
            let written = context.record(&found.engine, &found.place.name, record);
            written.await.is_some()
        }
        Err(error) => {
            render::warn(&render::name(&chain(&error)));
            false
        }
    };
    if recorded {
        acknowledge(claim, replacement).await;
    }
}

/// Notes in the server that a replacement is recorded. Without that it is told again.
pub(super) async fn acknowledge(claim: &dyn Claim, replacement: &Replacement) {
    if let Err(error) = claim.acknowledge(replacement).await {
        tracing::warn!(
            error = chain(&error),
            "the server does not know that this run is recorded"
        );
    }
}

/// Asks for the database's name.
async fn ask(
    database: &str,
    occupant: &Occupant,
    found: &Found,
    undo: &str,
) -> Result<(), AppError> {
    let name = render::name(database);
    let facts = [
        Some(format!("on {}", render::name(&occupant.server))),
        occupant
            .system_identifier
            .as_ref()
            .map(|id| format!("cluster {id}")),
        occupant.bytes.map(render::size),
        Some(render::counted(occupant.sessions, "session")),
    ];
    let facts: Vec<_> = facts.into_iter().flatten().collect();
    let text = format!(
        "{name} ({}) is going to be replaced by backup {} of {}.\n\
         Sessions in it are ended. It is kept under another name, and `{undo}` \
         swaps back.",
        facts.join(", "),
        found.manifest.id,
        render::name(found.manifest.source.as_str()),
    );
    let hint = "type its name when asked, or say --yes";
    let refusal = PortError::new(ErrorKind::Refused, "nobody confirmed it");
    let refusal = CoreError::Replace {
        operation: format!("replace database {database}"),
        source: refusal.with_hint(hint),
    };
    confirm::ask(text, database.to_owned(), refusal.into()).await
}
