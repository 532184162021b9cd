//! `rekey`: let others open stored backups.

use std::sync::Arc;

use backup_app::{AppError, Keys, Place, begin};
use backup_core::backup::BackupId;
use backup_core::catalog::{ListRequest, Selector};
use backup_core::engine::RekeyOutcome;
use backup_core::error::Error as CoreError;
use backup_core::manifest::Manifest;
use backup_core::observer::NoopObserver;
use backup_core::run_record::Operation;

use super::listing::{none_of, warn_damaged};
use super::{Context, Found, Outcome};
use crate::args::RekeyArgs;
use crate::report::RekeyView;
use crate::{exit_code, render};

pub(super) async fn run(context: &Context, arguments: &RekeyArgs) -> Outcome {
    let chosen = choose(context, arguments);
    let (chosen, unsure) = context.stoppable(chosen).await?;
    if chosen.is_empty() && !unsure {
        render::note("there is no encrypted backup");
    }
    let mut codes = Vec::new();
    for found in &chosen {
        match one(context, found).await {
            Ok(outcome) => codes.push(print(context, found, &outcome)),
            Err(AppError::Engine(CoreError::Cancelled)) => return Err(CoreError::Cancelled.into()),
            Err(error) if chosen.len() == 1 => return Err(error),
            // The others get their new key all the same.
            Err(error) => {
                codes.push(exit_code::of(&error));
                failed(context, found, &error);
            }
        }
    }
    Ok(match exit_code::of_several(&codes) {
        exit_code::DONE if unsure => exit_code::WARNINGS,
        code => code,
    })
}

/// Gives one backup to others at one place, and leaves a note of it there.
async fn one(context: &Context, found: &Found) -> Result<RekeyOutcome, AppError> {
    let cancel = context.interrupt.token().child_token();
    if cancel.is_cancelled() {
        return Err(CoreError::Cancelled.into());
    }
    let mut run = begin(&found.engine, Operation::Rekey);
    run.source = Some(found.manifest.source.clone());
    run.backup = Some(found.manifest.id.clone());
    context
        .announce(&found.engine, &found.place.name, &run)
        .await;
    let rekeyed = found.engine.rekey(&found.manifest, &cancel).await;
    match &rekeyed {
        Ok(outcome) => run.rekeyed(outcome.left.len()),
        Err(error) => run.failed(error),
    }
    context.record(&found.engine, &found.place.name, run).await;
    Ok(rekeyed?)
}

/// One backup that is meant, wherever it is.
struct Wanted {
    selector: Selector,
    source: Option<String>,
    is_there: bool,
}

/// What places have of what is meant.
#[derive(Default)]
struct Seen {
    backups: Vec<(Place, Manifest)>,
    /// Whether there may be more that cannot be seen.
    unsure: bool,
    /// Whether there is any backup, be it encrypted or not.
    any: bool,
}

/// Every copy of what is meant, and whether there may be more that cannot be seen.
async fn choose(context: &Context, arguments: &RekeyArgs) -> Result<(Vec<Found>, bool), AppError> {
    context.app.check_recipients()?;
    let mut wanted = wanted(context, arguments).await?;
    let places = context.app.places()?;
    let (mut seen, mut failures) = (Seen::default(), Vec::new());
    for place in &places {
        let looked = look(context, arguments, place, (&mut wanted, &mut seen)).await;
        if let Err(error) = looked {
            if places.len() > 1 {
                render::warn(&format!("{}: {}", place.name, error.render()));
            }
            failures.push(error);
        }
    }
    let missing = wanted.iter().find(|wanted| !wanted.is_there);
    let is_silent = failures.len() == places.len();
    seen.unsure |= !failures.is_empty();
    match (failures.into_iter().next(), missing) {
        // It may be there.
        (Some(error), Some(_)) => return Err(error),
        (Some(error), None) if is_silent => return Err(error),
        (None, Some(Wanted { selector, .. })) => {
            let what = format!("backup {selector}");
            return Err(CoreError::NotFound { what }.into());
        }
        // The other places get their new keys all the same.
        (_, None) => {}
    }
    if arguments.all && !seen.any && !seen.unsure {
        none_of(arguments.source.as_deref())?;
    }
    let mut chosen = Vec::new();
    for (place, manifest) in seen.backups {
        let (app, observer) = (&context.app, Arc::new(NoopObserver));
        chosen.push(Found {
            engine: app.rekey_engine(&place, &manifest.source, observer)?,
            manifest,
            place,
        });
    }
    Ok((chosen, seen.unsure))
}

/// A whole id means the same backup whatever place does not answer; for all else every place counts.
async fn wanted(context: &Context, arguments: &RekeyArgs) -> Result<Vec<Wanted>, AppError> {
    let mut wanted = Vec::new();
    for backup in &arguments.backups {
        let mut source = arguments.source.clone();
        let mut id = backup.clone();
        if backup.parse::<BackupId>().is_err() {
            let found = context.find_quietly(backup, source.as_deref(), Keys::None);
            let manifest = found.await?.manifest;
            source = Some(manifest.source.to_string());
            id = manifest.id.to_string();
        }
        wanted.push(Wanted {
            selector: Selector::Prefix(id),
            source,
            is_there: false,
        });
    }
    Ok(wanted)
}

/// Adds what one place has.
async fn look(
    context: &Context,
    arguments: &RekeyArgs,
    place: &Place,
    (wanted, seen): (&mut [Wanted], &mut Seen),
) -> Result<(), AppError> {
    let observer = Arc::new(NoopObserver);
    let engine = context.app.engine(place, Keys::None, observer)?;
    for wanted in wanted {
        let at = (place, &engine);
        let source = wanted.source.as_deref();
        let found = context.app.find_at(at, &wanted.selector, source);
        for found in found.await?.0 {
            wanted.is_there = true;
            wanted.source = Some(found.manifest.source.to_string());
            seen.backups.push((found.place, found.manifest));
        }
    }
    if arguments.all {
        let source = arguments.source.as_deref();
        let everything = ListRequest::default();
        let catalog = engine.catalog();
        let listing = context.listed(&catalog, source, &everything).await?;
        seen.unsure |= !listing.damaged.is_empty();
        seen.any |= !listing.backups.is_empty();
        warn_damaged(&place.name, &listing.damaged);
        let encrypted = listing.backups.into_iter();
        let encrypted = encrypted.filter(|backup| backup.encryption.is_some());
        seen.backups
            .extend(encrypted.map(|backup| (place.clone(), backup)));
    }
    Ok(())
}

fn print(context: &Context, found: &Found, outcome: &RekeyOutcome) -> u8 {
    let (manifest, place) = (&outcome.manifest, &found.place.name);
    let recipients = manifest.encryption.iter().flat_map(|e| &e.recipients);
    let recipients: Vec<_> = recipients.map(String::as_str).collect();
    if context.json {
        render::json(&RekeyView::new(outcome, place));
    } else {
        render::line(&format!(
            "{}  {}  {}  opens for {}",
            manifest.id,
            render::name(manifest.source.as_str()),
            render::name(place),
            recipients.join(", "),
        ));
    }
    for (key, why) in &outcome.left {
        let what = "an old key stays there, so whoever it was for can still open the backup";
        let (id, why) = (&manifest.id, render::name(why));
        render::warn(&format!("{place}: {key} of {id}: {what}: {why}"));
    }
    if outcome.left.is_empty() {
        exit_code::DONE
    } else {
        exit_code::WARNINGS
    }
}

fn failed(context: &Context, found: &Found, error: &AppError) {
    let (manifest, place) = (&found.manifest, &found.place.name);
    if context.json {
        render::json(&RekeyView::failed(manifest, place, error));
        return;
    }
    let (id, text) = (&manifest.id, error.render());
    render::complain(&format!("{place}: backup {id}: {text}"));
}
