//! `rekey`: let others open stored backups.

use std::sync::Arc;

use backup_app::{AppError, Keys, begin};
use backup_core::catalog::{ListRequest, Selector};
use backup_core::engine::RekeyOutcome;
use backup_core::error::{Error as CoreError, chain};
use backup_core::observer::{NoopObserver, Observer};
use backup_core::run_record::Operation;

use super::listing::warn_damaged;
use super::{Context, Found, Outcome, source_name};
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
    let rekeyed = found.engine.rekey(&found.manifest, &cancel).await;
    match &rekeyed {
        Ok(outcome) => run.rekeyed(outcome.left.len()),
        Err(error) => run.failed(error),
    }
    context.record(&found.engine, &found.place.name, run).await;
    Ok(rekeyed?)
}

/// Every copy of what is meant, and whether there may be more that cannot be read.
async fn choose(context: &Context, arguments: &RekeyArgs) -> Result<(Vec<Found>, bool), AppError> {
    let observer: Arc<dyn Observer> = Arc::new(NoopObserver);
    let source = arguments.source.as_deref();
    let mut requests = Vec::new();
    for backup in &arguments.backups {
        let found = context.find_quietly(backup, source, Keys::None).await?;
        requests.push(found.manifest);
    }
    let (mut chosen, mut unsure) = (Vec::new(), false);
    for place in context.app.places()? {
        let engine = context
            .app
            .engine(&place, Keys::None, Arc::clone(&observer))?;
        let mut backups = Vec::new();
        for wanted in &requests {
            let selector = Selector::Prefix(wanted.id.to_string());
            let catalog = engine.catalog();
            match catalog.find(&selector, Some(&wanted.source)).await {
                Ok(manifest) => backups.push(manifest),
                Err(CoreError::NotFound { .. }) => {}
                Err(error) => {
                    unsure = true;
                    let why = render::name(&chain(&error));
                    render::warn(&format!("{}: {why}", place.name));
                }
            }
        }
        if arguments.all {
            let request = ListRequest {
                source: source.map(source_name).transpose()?,
                ..ListRequest::default()
            };
            let listing = engine.catalog().list(&request).await?;
            unsure |= !listing.damaged.is_empty();
            warn_damaged(&place.name, &listing.damaged);
            let encrypted = listing.backups.into_iter();
            backups.extend(encrypted.filter(|backup| backup.encryption.is_some()));
        }
        for manifest in backups {
            let (app, observer) = (&context.app, Arc::clone(&observer));
            chosen.push(Found {
                engine: app.rekey_engine(&place, &manifest.source, observer)?,
                manifest,
                place: place.clone(),
            });
        }
    }
    Ok((chosen, unsure))
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
