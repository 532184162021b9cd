//! Which backups to drill.

use std::sync::Arc;

use backup_app::{AppError, Keys, Place, SystemClock};
use backup_core::backup::SourceName;
use backup_core::catalog::ListRequest;
use backup_core::clock::Clock as _;
use backup_core::drill::{Choice, ChoiceReason, Drilled, choose as choose_backup, due};
use backup_core::error::Error as CoreError;
use backup_core::manifest::Manifest;
use backup_core::observer::NoopObserver;
use chrono::{DateTime, TimeDelta, Utc};

use crate::args::DrillArgs;
use crate::commands::{Context, history, source_name};
use crate::render;

/// How far back records of drills matter.
const REMEMBERED: TimeDelta = TimeDelta::days(400);

/// One backup to drill.
pub(super) struct Chosen {
    pub(super) manifest: Manifest,
    pub(super) place: Place,
    pub(super) reason: ChoiceReason,
}

/// What is known of one source.
struct Known {
    /// Newest first.
    backups: Vec<Manifest>,
    place: Place,
    drilled: Drilled,
}

/// The backups to drill, in this order.
pub(super) async fn choose(
    context: &Context,
    arguments: &DrillArgs,
) -> Result<Vec<Chosen>, AppError> {
    if let Some(backup) = &arguments.backup {
        return named(context, backup, &arguments.sources).await;
    }
    let now = SystemClock.now();
    let remembered = arguments.older_than.unwrap_or_default().max(REMEMBERED);
    let known = known(context, arguments, now - remembered).await?;
    let sources = known
        .iter()
        .filter_map(|k| Some(k.backups.first()?.source.clone()));
    let order: Vec<SourceName> = match arguments.older_than {
        None => sources.collect(),
        // The newest of all places counts, so one that has none must not hide another's.
        Some(age) => {
            let drilled = known
                .iter()
                .fold(Drilled::default(), |all, k| all.and(&k.drilled));
            due(sources, &drilled, age, now)
        }
    };
    let configured = context.app.config().drill.backup_age;
    let configured = configured.and_then(|age| TimeDelta::from_std(age).ok());
    let choice = match arguments.age.or(configured) {
        Some(age) => Choice::Aged(age),
        None => Choice::InTurn,
    };
    let mut chosen = Vec::new();
    for source in order {
        let of = |k: &&Known| k.backups.first().is_some_and(|b| b.source == source);
        let Some(known) = known.iter().find(of) else {
            continue;
        };
        let found = choose_backup(&known.backups, &known.drilled, choice, now, rand::random());
        match found {
            Some((manifest, reason)) => {
                if manifest.filtered {
                    let name = render::name(source.as_str());
                    render::warn(&format!(
                        "{name} has filtered backups only: {}",
                        manifest.id
                    ));
                }
                chosen.push(Chosen {
                    manifest: manifest.clone(),
                    place: known.place.clone(),
                    reason,
                });
            }
            None if arguments.all => {
                let name = render::name(source.as_str());
                render::warn(&format!("{name} has no backup that is old enough"));
            }
            None => {
                let what = format!("backup of {source} that is old enough");
                return Err(CoreError::NotFound { what }.into());
            }
        }
    }
    Ok(chosen)
}

async fn named(
    context: &Context,
    backup: &str,
    sources: &[String],
) -> Result<Vec<Chosen>, AppError> {
    let source = match sources {
        [] => None,
        [source] => Some(source.as_str()),
        _ => return Err(AppError::usage("one backup is of one source")),
    };
    let found = context.find_quietly(backup, source, Keys::None).await?;
    Ok(vec![Chosen {
        manifest: found.manifest,
        place: found.place,
        reason: ChoiceReason::Named,
    }])
}

/// The sources that are asked for, each at the first place that has backups of it.
async fn known(
    context: &Context,
    arguments: &DrillArgs,
    oldest: DateTime<Utc>,
) -> Result<Vec<Known>, AppError> {
    let wanted: Vec<SourceName> = arguments
        .sources
        .iter()
        .map(|name| source_name(name))
        .collect::<Result<_, _>>()?;
    let mut known: Vec<Known> = Vec::new();
    for place in context.app.places()? {
        let engine = context
            .app
            .engine(&place, Keys::None, Arc::new(NoopObserver))?;
        let stored = engine.catalog().sources().await?;
        let mut drilled = None;
        for source in stored {
            let is_known = |k: &Known| k.backups.iter().any(|b| b.source == source);
            if !wanted.is_empty() && !wanted.contains(&source) || known.iter().any(is_known) {
                continue;
            }
            let request = ListRequest {
                source: Some(source),
                ..ListRequest::default()
            };
            let listing = engine.catalog().list(&request).await?;
            for (key, reason) in listing.damaged {
                render::warn(&format!("{}: {key}: {reason}", place.name));
            }
            if listing.backups.is_empty() {
                continue;
            }
            if drilled.is_none() {
                drilled = Some(history::drilled(&engine, &place.name, oldest).await?);
            }
            known.push(Known {
                backups: listing.backups,
                place: place.clone(),
                drilled: drilled.clone().unwrap_or_default(),
            });
        }
    }
    check(arguments, &wanted, &known)?;
    Ok(known)
}

/// Whether what was asked for is clear, and there.
fn check(arguments: &DrillArgs, wanted: &[SourceName], known: &[Known]) -> Result<(), AppError> {
    let has = |source: &&SourceName| {
        known
            .iter()
            .any(|k| k.backups.iter().any(|b| b.source == **source))
    };
    if let Some(missing) = wanted.iter().find(|source| !has(source)) {
        let what = format!("backup of {missing}");
        return Err(CoreError::NotFound { what }.into());
    }
    match known {
        [] => Err(CoreError::NotFound {
            what: "backup to drill".to_owned(),
        }
        .into()),
        [_, _, ..] if wanted.is_empty() && !arguments.all => Err(AppError::usage_hint(
            format!("{} sources have backups", known.len()),
            "name some, or say --all",
        )),
        _ => Ok(()),
    }
}
