//! Which backups to drill.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_app::{AppError, Keys, Place, SystemClock};
use backup_core::backup::{BackupId, SourceName};
use backup_core::catalog::ListRequest;
use backup_core::clock::Clock as _;
use backup_core::drill::{Choice, ChoiceReason, Drilled, choose as choose_backup, due};
use backup_core::error::{Error as CoreError, chain};
use backup_core::manifest::Manifest;
use backup_core::observer::NoopObserver;
use chrono::{DateTime, TimeDelta, Utc};

use crate::args::DrillArgs;
use crate::commands::listing::warn_damaged;
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

/// What is to be drilled.
pub(super) struct Choices {
    pub(super) drills: Vec<Chosen>,
    /// Whether every place could be asked.
    pub(super) complete: bool,
}

/// What one place has of a source.
struct Copies {
    place: Place,
    backups: Vec<Manifest>,
    drilled: Drilled,
}

/// What is known of one source.
struct Known {
    source: SourceName,
    /// Of all places, each once.
    backups: Vec<Manifest>,
    drilled: Drilled,
    copies: Vec<Copies>,
}

impl Known {
    fn new(source: SourceName) -> Self {
        Self {
            source,
            backups: Vec::new(),
            drilled: Drilled::default(),
            copies: Vec::new(),
        }
    }

    fn add(&mut self, copies: Copies) {
        for backup in &copies.backups {
            if !self.backups.iter().any(|known| known.id == backup.id) {
                self.backups.push(backup.clone());
            }
        }
        self.drilled = std::mem::take(&mut self.drilled).and(&copies.drilled);
        self.copies.push(copies);
    }

    /// Of several copies, the one that was not drilled for longest: each has to be proved.
    fn place_of(&self, backup: &BackupId) -> Option<&Place> {
        let has = |copies: &&Copies| copies.backups.iter().any(|b| b.id == *backup);
        let copies = self.copies.iter().filter(has);
        let oldest = copies.min_by_key(|c| c.drilled.last_of(&self.source, backup));
        oldest.map(|copies| &copies.place)
    }
}

/// The backups to drill, in this order.
pub(super) async fn choose(context: &Context, arguments: &DrillArgs) -> Result<Choices, AppError> {
    if let Some(backup) = &arguments.backup {
        let drills = named(context, backup, &arguments.sources).await?;
        return Ok(Choices {
            drills,
            complete: true,
        });
    }
    let now = SystemClock.now();
    let remembered = arguments.older_than.unwrap_or_default().max(REMEMBERED);
    let (known, complete) = known(context, arguments, now - remembered).await?;
    let sources = known.keys().cloned();
    let order: Vec<SourceName> = match arguments.older_than {
        None => sources.collect(),
        Some(age) => {
            let all = known.values();
            let drilled = all.fold(Drilled::default(), |all, k| all.and(&k.drilled));
            due(sources, &drilled, age, now)
        }
    };
    let configured = context.app.config().drill.backup_age;
    let configured = configured.and_then(|age| TimeDelta::from_std(age).ok());
    let choice = match arguments.age.or(configured) {
        Some(age) => Choice::Aged(age),
        None => Choice::InTurn,
    };
    let mut drills = Vec::new();
    for source in order.iter().filter_map(|source| known.get(source)) {
        match choose_one(source, choice, now) {
            Some(chosen) => drills.push(chosen),
            None if arguments.all => {
                let name = render::name(source.source.as_str());
                render::warn(&format!("{name} has no backup that is old enough"));
            }
            None => {
                let what = format!("backup of {} that is old enough", source.source);
                return Err(CoreError::NotFound { what }.into());
            }
        }
    }
    Ok(Choices { drills, complete })
}

fn choose_one(known: &Known, choice: Choice, now: DateTime<Utc>) -> Option<Chosen> {
    let (manifest, reason) =
        choose_backup(&known.backups, &known.drilled, choice, now, rand::random())?;
    if !manifest.is_whole() {
        let name = render::name(known.source.as_str());
        let id = &manifest.id;
        render::warn(&format!("{name} has filtered backups only: {id}"));
    }
    Some(Chosen {
        manifest: manifest.clone(),
        place: known.place_of(&manifest.id)?.clone(),
        reason,
    })
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

/// What all places have of the sources that are asked for, and whether all could be asked.
async fn known(
    context: &Context,
    arguments: &DrillArgs,
    oldest: DateTime<Utc>,
) -> Result<(BTreeMap<SourceName, Known>, bool), AppError> {
    let wanted: BTreeSet<SourceName> = arguments
        .sources
        .iter()
        .map(|name| source_name(name))
        .collect::<Result<_, _>>()?;
    let mut known: BTreeMap<SourceName, Known> = BTreeMap::new();
    let mut unreachable = None;
    let mut meant: BTreeSet<SourceName> = BTreeSet::new();
    for place in context.app.places()? {
        match at(context, &place, &wanted, oldest).await {
            Ok(found) => {
                for (source, copies) in found {
                    meant.extend(
                        wanted
                            .iter()
                            .find(|name| context.app.means(name, &source))
                            .cloned(),
                    );
                    let entry = known.entry(source.clone());
                    entry.or_insert_with(|| Known::new(source)).add(copies);
                }
            }
            // What other places have can be drilled all the same.
            Err(error) => {
                let text = render::name(&chain(&error));
                render::warn(&format!("{}: left out: {text}", render::name(&place.name)));
                unreachable.get_or_insert(error);
            }
        }
    }
    let complete = unreachable.is_none();
    if let Err(error) = check(arguments, (&wanted, &meant), &known) {
        // Perhaps it lies where nobody could look.
        return Err(unreachable.unwrap_or(error));
    }
    Ok((known, complete))
}

/// What one place has of the sources that are asked for.
async fn at(
    context: &Context,
    place: &Place,
    wanted: &BTreeSet<SourceName>,
    oldest: DateTime<Utc>,
) -> Result<Vec<(SourceName, Copies)>, AppError> {
    let observer = Arc::new(NoopObserver);
    let engine = context.app.engine(place, Keys::None, observer)?;
    let mut found = Vec::new();
    for source in engine.catalog().sources().await? {
        if !wanted.is_empty() && !wanted.iter().any(|name| context.app.means(name, &source)) {
            continue;
        }
        let request = ListRequest {
            source: Some(source.clone()),
            ..ListRequest::default()
        };
        let listing = engine.catalog().list(&request).await?;
        warn_damaged(&place.name, &listing.damaged);
        if !listing.backups.is_empty() {
            found.push((source, listing.backups));
        }
    }
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let drilled = history::drilled(&engine, &place.name, oldest).await?;
    let copies = found.into_iter().map(|(source, backups)| {
        let copies = Copies {
            place: place.clone(),
            backups,
            drilled: drilled.clone(),
        };
        (source, copies)
    });
    Ok(copies.collect())
}

/// Whether what was asked for is clear, and there.
fn check(
    arguments: &DrillArgs,
    (wanted, meant): (&BTreeSet<SourceName>, &BTreeSet<SourceName>),
    known: &BTreeMap<SourceName, Known>,
) -> Result<(), AppError> {
    if let Some(missing) = wanted.difference(meant).next() {
        let what = format!("backup of {missing}");
        return Err(CoreError::NotFound { what }.into());
    }
    match known.len() {
        0 => Err(CoreError::NotFound {
            what: "backup to drill".to_owned(),
        }
        .into()),
        2.. if wanted.is_empty() && !arguments.all => Err(AppError::usage_hint(
            format!("{} sources have backups", known.len()),
            "name some, or say --all",
        )),
        _ => Ok(()),
    }
}
