//! Which backups to drill.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_core::backup::{BackupId, SourceName};
use backup_core::catalog::ListRequest;
use backup_core::clock::Clock as _;
use backup_core::drill::{Choice, ChoiceReason, Drilled, choose as choose_backup, due};
use backup_core::engine::Engine;
use backup_core::error::{Error as CoreError, chain};
use backup_core::history::HistoryRequest;
use backup_core::manifest::Manifest;
use backup_core::observer::NoopObserver;
use backup_core::run_record::Operation;
use chrono::{DateTime, TimeDelta, Utc};

use crate::clock::SystemClock;
use crate::compose::App;
use crate::error::AppError;
use crate::journal::Journal;
use crate::keys::Keys;
use crate::place::Place;
use crate::text::shown;

/// How far back records of drills matter.
const REMEMBERED: TimeDelta = TimeDelta::days(400);

/// Which backups somebody wants to be drilled.
#[derive(Debug, Clone, Default)]
pub struct DrillWish {
    /// Of these sources; of the only one that is stored if empty.
    pub sources: Vec<SourceName>,
    /// Of all that are stored, also if some have nothing to drill.
    pub all: bool,
    /// Only of sources whose last drill is so long ago, the longest ago first.
    pub older_than: Option<TimeDelta>,
    /// How old the backup must be, instead of what is configured.
    pub age: Option<TimeDelta>,
}

/// One backup to drill.
#[derive(Debug)]
pub struct ChosenDrill {
    /// Which.
    pub manifest: Manifest,
    /// Where it is read.
    pub place: Place,
    /// Why this one.
    pub reason: ChoiceReason,
}

/// What is to be drilled.
#[derive(Debug)]
pub struct ChosenDrills {
    /// In this order.
    pub drills: Vec<ChosenDrill>,
    /// Whether every place could be asked.
    pub complete: bool,
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

/// Looks for what is to be drilled.
struct Chooser<'a> {
    app: &'a App,
    wish: &'a DrillWish,
    journal: &'a Journal,
}

impl App {
    /// The backups to drill, in this order. What is not as it should be is told to `journal`.
    ///
    /// # Errors
    /// When it is not clear what is meant, or it is not there; when no place can be asked.
    pub async fn choose_drills(
        &self,
        wish: &DrillWish,
        journal: &Journal,
    ) -> Result<ChosenDrills, AppError> {
        let chooser = Chooser {
            app: self,
            wish,
            journal,
        };
        chooser.choose().await
    }
}

impl Chooser<'_> {
    async fn choose(&self) -> Result<ChosenDrills, AppError> {
        let wish = self.wish;
        let now = SystemClock.now();
        let remembered = wish.older_than.unwrap_or_default().max(REMEMBERED);
        let (known, complete) = self.known(now - remembered).await?;
        let sources = known.keys().cloned();
        let order: Vec<SourceName> = match wish.older_than {
            None => sources.collect(),
            Some(age) => {
                let all = known.values();
                let drilled = all.fold(Drilled::default(), |all, k| all.and(&k.drilled));
                due(sources, &drilled, age, now)
            }
        };
        let configured = self.app.config().drill.backup_age;
        let configured = configured.and_then(|age| TimeDelta::from_std(age).ok());
        let choice = match wish.age.or(configured) {
            Some(age) => Choice::Aged(age),
            None => Choice::InTurn,
        };
        let mut drills = Vec::new();
        for source in order.iter().filter_map(|source| known.get(source)) {
            match self.choose_one(source, choice, now) {
                Some(chosen) => drills.push(chosen),
                None if wish.all => {
                    let name = shown(source.source.as_str());
                    self.journal
                        .warn(format!("{name} has no backup that is old enough"));
                }
                None => {
                    let what = format!("backup of {} that is old enough", source.source);
                    return Err(CoreError::NotFound { what }.into());
                }
            }
        }
        Ok(ChosenDrills { drills, complete })
    }

    fn choose_one(&self, known: &Known, choice: Choice, now: DateTime<Utc>) -> Option<ChosenDrill> {
        let (manifest, reason) =
            choose_backup(&known.backups, &known.drilled, choice, now, rand::random())?;
        if !manifest.is_whole() {
            let name = shown(known.source.as_str());
            let id = &manifest.id;
            self.journal
                .warn(format!("{name} has filtered backups only: {id}"));
        }
        Some(ChosenDrill {
            manifest: manifest.clone(),
            place: known.place_of(&manifest.id)?.clone(),
            reason,
        })
    }

    /// What all places have of the sources that are asked for, and whether all could be asked.
    async fn known(
        &self,
        oldest: DateTime<Utc>,
    ) -> Result<(BTreeMap<SourceName, Known>, bool), AppError> {
        let wanted: BTreeSet<SourceName> = self.wish.sources.iter().cloned().collect();
        let mut known: BTreeMap<SourceName, Known> = BTreeMap::new();
        let mut unreachable = None;
        let mut meant: BTreeSet<SourceName> = BTreeSet::new();
        for place in self.app.places()? {
            match self.at(&place, &wanted, oldest).await {
                Ok(found) => {
                    for (source, copies) in found {
                        let mut names = wanted.iter();
                        meant.extend(names.find(|name| self.app.means(name, &source)).cloned());
                        let entry = known.entry(source.clone());
                        entry.or_insert_with(|| Known::new(source)).add(copies);
                    }
                }
                // What other places have can be drilled all the same.
                Err(error) => {
                    let (place, text) = (shown(&place.name), shown(&chain(&error)));
                    self.journal.warn(format!("{place}: left out: {text}"));
                    unreachable.get_or_insert(error);
                }
            }
        }
        let complete = unreachable.is_none();
        if let Err(error) = self.check((&wanted, &meant), &known) {
            // Perhaps it lies where nobody could look.
            return Err(unreachable.unwrap_or(error));
        }
        Ok((known, complete))
    }

    /// What one place has of the sources that are asked for.
    async fn at(
        &self,
        place: &Place,
        wanted: &BTreeSet<SourceName>,
        oldest: DateTime<Utc>,
    ) -> Result<Vec<(SourceName, Copies)>, AppError> {
        let engine = self.app.engine(place, Keys::None, Arc::new(NoopObserver))?;
        let mut found = Vec::new();
        for source in engine.catalog().sources().await? {
            if !wanted.is_empty() && !wanted.iter().any(|name| self.app.means(name, &source)) {
                continue;
            }
            let request = ListRequest {
                source: Some(source.clone()),
                ..ListRequest::default()
            };
            let listing = engine.catalog().list(&request).await?;
            self.journal.damaged(&place.name, &listing.damaged);
            let mut backups = listing.backups;
            // Of one source, all are of one kind, unless dumps of somebody else's tools are among them.
            backups.retain(|backup| backup.content().can_be_drilled());
            if !backups.is_empty() {
                found.push((source, backups));
            }
        }
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let drilled = self.drilled(&engine, &place.name, oldest).await?;
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

    /// What the records since `oldest` say of drills, which is what a choice depends on.
    async fn drilled(
        &self,
        engine: &Engine,
        place: &str,
        oldest: DateTime<Utc>,
    ) -> Result<Drilled, AppError> {
        let request = HistoryRequest {
            since: Some(oldest),
            operation: Some(Operation::Drill),
            limit: None,
        };
        let listing = engine.history().list(&request).await?;
        self.journal.damaged(place, &listing.damaged);
        Ok(Drilled::new(listing.runs))
    }

    /// Whether what was asked for is clear, and there.
    fn check(
        &self,
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
            2.. if wanted.is_empty() && !self.wish.all => Err(AppError::usage_hint(
                format!("{} sources have backups", known.len()),
                "name some, or say --all",
            )),
            _ => Ok(()),
        }
    }
}
