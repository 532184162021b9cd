//! Everything that a server tells, read from the places again and again, so that no question of
//! anybody makes it read them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use backup_core::backup::SourceName;
use backup_core::check::Status;
use backup_core::clock::Clock as _;
use backup_core::error::chain;
use backup_core::manifest::Manifest;
use chrono::{DateTime, Utc};
use futures::future::join_all;
use serde::Serialize;
use utoipa::ToSchema;

use crate::backup_run::BackupView;
use crate::check::{CheckReport, Looked, SourceCheck};
use crate::clock::SystemClock;
use crate::compose::{App, Lister};
use crate::error::AppError;
use crate::families::is_about;
use crate::listing::{Held, ListView, PlaceListing, RunView, Views};
use crate::place::Place;
use crate::schedules::ScheduleReport;
use crate::text::shown;

/// How long one place may take to be read. Then the others are shown without.
const LIMIT: Duration = Duration::from_mins(2);

/// How many runs to come are shown of a schedule.
const NEXT: usize = 3;

/// What was found when all places were read.
#[derive(Debug)]
pub struct Overview {
    /// When.
    pub taken_at: DateTime<Utc>,
    /// Backups at any place, newest first.
    pub backups: Vec<BackupEntry>,
    /// Runs that left a record, newest first. They go back to the oldest backup, and at least
    /// some weeks.
    pub runs: Vec<RunView>,
    /// Sources that are configured or have backups, by name.
    pub sources: Vec<SourceView>,
    /// What is not known, or no longer so: names of places, and why.
    pub incomplete: Vec<String>,
    /// How all that is judged.
    pub check: CheckReport,
}

/// One backup.
#[derive(Debug)]
pub struct BackupEntry {
    /// As listings show it.
    pub view: ListView,
    /// Whether it has all that its source is configured to have.
    pub is_whole: bool,
    held: Arc<Held>,
    index: usize,
}

/// A source at a glance.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SourceView {
    /// Its name.
    pub name: String,
    /// Whether it is in the configuration; else it has only left backups.
    pub configured: bool,
    /// `ok`, `warning`, `critical` or `unknown`: the worst of its places.
    pub status: &'static str,
    /// How many backups it has.
    pub backups: usize,
    /// The newest of them.
    pub latest: Option<ListView>,
    /// When it runs by itself.
    pub schedule: Option<ScheduleReport>,
    /// How it stands at each of its places.
    pub places: Vec<SourceCheck>,
}

impl BackupEntry {
    /// All that its manifest says.
    #[must_use]
    pub fn details(&self) -> Option<BackupView> {
        let manifest: &Manifest = self.held.listing.backups.get(self.index)?;
        let places = self.view.destinations.clone();
        Some(BackupView::committed(manifest, places, Vec::new()))
    }
}

/// Reads all places again and again. What was read is remembered, so that only what is new is
/// read once more.
#[derive(Debug)]
pub struct Watcher {
    app: Arc<App>,
    places: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    place: Place,
    lister: Option<Lister>,
    /// What was found the last time that it could be read.
    last: Option<PlaceListing>,
}

impl Watcher {
    /// Of all places that the configuration names.
    ///
    /// # Errors
    /// When there is none.
    pub fn new(app: Arc<App>) -> Result<Self, AppError> {
        let places = app.places()?.into_iter().map(|place| Watched {
            place,
            lister: None,
            last: None,
        });
        Ok(Self {
            places: places.collect(),
            app,
        })
    }

    /// Reads all places. One that cannot be read is shown as it was, and said to be so.
    ///
    /// # Errors
    /// When the configuration makes no sense.
    pub async fn look(&mut self) -> Result<Overview, AppError> {
        let now = SystemClock.now();
        let app = &self.app;
        let looks = self.places.iter_mut().map(|place| place.look(app, now));
        let mut incomplete = Vec::new();
        let mut looked = Vec::new();
        for (look, problem) in join_all(looks).await {
            incomplete.extend(problem);
            looked.push(look);
        }
        let mut views = Views::new();
        let mut entries = BTreeMap::new();
        let mut runs = BTreeMap::new();
        for place in self.places.iter().filter_map(|place| place.last.as_ref()) {
            place.add_to(&mut views);
            incomplete.extend(place.damage());
            incomplete.extend(place.warnings.iter().cloned());
            for (index, manifest) in place.held.listing.backups.iter().enumerate() {
                let key = (manifest.id.to_string(), manifest.source.to_string());
                entries.insert(key, (Arc::clone(&place.held), index));
            }
            for run in &place.held.runs {
                let view = || RunView::new(run, place.name());
                runs.entry(run.id.clone()).or_insert_with(view);
            }
        }
        let backups = views.into_iter().rev().filter_map(|(key, view)| {
            let (held, index) = entries.remove(&key)?;
            let is_whole = held.listing.backups.get(index)?.is_whole();
            Some(BackupEntry {
                view,
                is_whole,
                held,
                index,
            })
        });
        let backups: Vec<_> = backups.collect();
        let (sources, check) = self.sources(&looked, &backups, now)?;
        Ok(Overview {
            taken_at: now,
            runs: runs.into_values().rev().collect(),
            backups,
            sources,
            incomplete,
            check,
        })
    }

    fn sources(
        &self,
        looked: &[Looked],
        backups: &[BackupEntry],
        now: DateTime<Utc>,
    ) -> Result<(Vec<SourceView>, CheckReport), AppError> {
        let app = &self.app;
        let configured: BTreeSet<String> = app.sources().into_iter().collect();
        let known = backups.iter().map(|backup| backup.view.source.clone());
        let names: BTreeSet<String> = configured.iter().cloned().chain(known).collect();
        let wanted = names.iter().map(|name| {
            SourceName::new(name.as_str()).map_err(|error| AppError::usage(error.to_string()))
        });
        let wanted = wanted.collect::<Result<_, _>>()?;
        let check = app.judge(&wanted, looked, now)?;
        // A source that stands for several databases is shown as these.
        let names: BTreeSet<_> = check.sources.iter().map(|one| one.source.clone()).collect();
        let schedules = app.schedules()?;
        let mut stored: BTreeMap<&str, (usize, Option<&BackupEntry>)> = BTreeMap::new();
        for backup in backups {
            let (count, latest) = stored.entry(&backup.view.source).or_default();
            *count += 1;
            if latest.is_none() && backup.is_whole {
                *latest = Some(backup);
            }
        }
        let view = |name: String| {
            let places = check.sources.iter().filter(|place| place.source == name);
            let places: Vec<_> = places.cloned().collect();
            let worst = places.iter().map(|place| place.status).max();
            let (count, latest) = stored.get(&*name).copied().unwrap_or_default();
            let mut about = schedules.iter();
            let schedule = about.find(|one| {
                let source = one.source.as_deref();
                source.is_some_and(|source| is_about(source, &name))
            });
            SourceView {
                configured: app.config().settings_of(&name).is_some(),
                status: worst.unwrap_or(Status::Unknown).as_str(),
                backups: count,
                latest: latest.map(|backup| backup.view.clone()),
                schedule: schedule.map(|one| one.report(now, NEXT)),
                places,
                name,
            }
        };
        Ok((names.into_iter().map(view).collect(), check))
    }
}

impl Watched {
    /// Reads the place; the text says why not, if it cannot be.
    async fn look(&mut self, app: &App, now: DateTime<Utc>) -> (Looked, Option<String>) {
        let asked = tokio::time::timeout(LIMIT, self.ask(app, now)).await;
        let asked = asked.unwrap_or(Err(AppError::Timeout(LIMIT)));
        let place = self.place.clone();
        match asked {
            Ok(listing) => {
                let held = Arc::clone(&listing.held);
                self.last = Some(listing);
                (app.looked(place, Ok(held)), None)
            }
            Err(error) => {
                // It may be another repository, or need another login.
                self.lister = None;
                let since = match &self.last {
                    Some(_) => "shown as it was",
                    None => "not known",
                };
                let why = shown(&chain(&error));
                let problem = format!("{}: {since}: {why}", place.name);
                (app.looked(place, Err(error)), Some(problem))
            }
        }
    }

    async fn ask(&mut self, app: &App, now: DateTime<Utc>) -> Result<PlaceListing, AppError> {
        let lister = match self.lister.take() {
            Some(lister) => lister,
            None => app.lister(&self.place).await?,
        };
        let held = Arc::new(app.held(&lister, now).await?);
        let listing = app.with_details(&self.place, &lister, held).await?;
        // One that remembers nothing may be of a place that was empty until now.
        self.lister = (lister.remembers() || self.place.is_local()).then_some(lister);
        Ok(listing)
    }
}
