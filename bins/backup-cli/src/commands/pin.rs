//! `pin` and `unpin`: whether a backup stays whatever a policy says.

use std::sync::Arc;

use backup_app::{AppError, Keys, Place, begin, who};
use backup_core::engine::Engine;
use backup_core::error::Error as CoreError;
use backup_core::manifest::Manifest;
use backup_core::observer::NoopObserver;
use backup_core::pin::PinRequest;
use backup_core::run_record::Operation;

use super::{Context, Outcome};
use crate::args::{PinArgs, UnpinArgs};
use crate::report::{PinView, PinnedView, pin_text};
use crate::{exit_code, render};

/// What is to become of a pin.
enum Change<'a> {
    Set(&'a PinArgs),
    Remove,
}

pub(super) async fn pin(context: &Context, arguments: &PinArgs) -> Outcome {
    let (backup, source) = (&arguments.backup, arguments.source.as_deref());
    change(context, (backup, source), &Change::Set(arguments)).await
}

pub(super) async fn unpin(context: &Context, arguments: &UnpinArgs) -> Outcome {
    let (backup, source) = (&arguments.backup, arguments.source.as_deref());
    change(context, (backup, source), &Change::Remove).await
}

/// Changes the pin of one backup in every place that has it.
async fn change(
    context: &Context,
    (backup, source): (&str, Option<&str>),
    change: &Change<'_>,
) -> Outcome {
    let found = context.find_quietly(backup, source, Keys::None).await?;
    let manifest = found.manifest;
    let mut changed = 0;
    for place in context.app.places()? {
        let observer = Arc::new(NoopObserver);
        let engine = context.app.engine(&place, Keys::None, observer)?;
        changed += usize::from(at(context, (&place, &engine), &manifest, change).await?);
    }
    if changed == 0 {
        let what = format!("pin of backup {}", manifest.id);
        return Err(CoreError::NotFound { what }.into());
    }
    Ok(exit_code::DONE)
}

/// Changes the pin at one place, and leaves a note of it. Says whether there was anything to do.
async fn at(
    context: &Context,
    (place, engine): (&Place, &Engine),
    manifest: &Manifest,
    change: &Change<'_>,
) -> Result<bool, AppError> {
    let (source, id) = (&manifest.source, &manifest.id);
    let pins = engine.pins();
    let operation = match change {
        Change::Set(_) => Operation::Pin,
        Change::Remove => Operation::Unpin,
    };
    let mut run = begin(engine, operation);
    run.source = Some(source.clone());
    run.backup = Some(id.clone());
    context.announce(engine, &place.name, &run).await;
    let work = async {
        Ok(match change {
            Change::Set(arguments) => {
                let request = PinRequest {
                    until: arguments.until,
                    reason: arguments.reason.clone(),
                    who: who(),
                };
                match pins.set(source, id, request).await {
                    Ok(pin) => Some(backup_core::pin::FoundPin::Readable(pin)),
                    Err(CoreError::NotFound { .. }) => None,
                    Err(error) => return Err(AppError::from(error)),
                }
            }
            Change::Remove => pins.remove(source, id).await?,
        })
    };
    let pin = match context.stoppable(work).await {
        Ok(Some(pin)) => pin,
        // Another place has the backup, or there was no pin.
        Ok(None) => return Ok(false),
        Err(error) => {
            run.ended_with(&error, error.kind());
            context.record(engine, &place.name, run).await;
            return Err(error);
        }
    };
    run.done();
    let run = context.record(engine, &place.name, run).await;
    let pinned = matches!(change, Change::Set(_));
    if context.json {
        render::json(&PinnedView {
            run_id: run.map(|run| run.to_string()),
            id: id.to_string(),
            source: source.to_string(),
            destination: place.name.clone(),
            pinned,
            pin: PinView::of(&pin),
        });
    } else {
        let state = if pinned {
            pin_text(&pin)
        } else {
            format!("not {} any more", pin_text(&pin))
        };
        let source = render::name(source.as_str());
        let state = render::name(&state);
        render::line(&format!("{id}  {source}  {}  {state}", place.name));
    }
    Ok(true)
}
