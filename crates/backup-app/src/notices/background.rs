//! What is known of a source beside the run that is told of. It is read only when something is told,
//! and what cannot be read soon is left out.

use std::sync::Arc;
use std::time::Duration;

use backup_core::backup::{BackupId, SourceName};
use backup_core::clock::Clock as _;
use backup_core::observer::NoopObserver;
use chrono::{DateTime, TimeDelta, Utc};

use crate::clock::SystemClock;
use crate::compose::App;
use crate::families::is_about;
use crate::keys::Keys;

/// How long each of these may take.
const LIMIT: Duration = Duration::from_secs(10);

/// What is known of a source.
#[derive(Debug, Clone, Default)]
pub(super) struct Background {
    /// The newest good backup anywhere: its id, when it was done and how old it is.
    pub(super) newest: Option<(String, DateTime<Utc>, TimeDelta)>,
    /// When the content of a backup was last found good.
    pub(super) verified: Option<DateTime<Utc>>,
    /// When a restore was last rehearsed with success.
    pub(super) drilled: Option<DateTime<Utc>>,
    /// Until when a backup is kept at least.
    pub(super) kept_until: Option<DateTime<Utc>>,
    /// When the next backup is due.
    pub(super) next: Option<DateTime<Utc>>,
}

impl Background {
    /// Of a source, and of one of its backups if it was taken just now.
    pub(super) async fn read(app: &App, source: &SourceName, taken: Option<&BackupId>) -> Self {
        let looking = tokio::time::timeout(LIMIT, Self::looked(app, source));
        let keeping = tokio::time::timeout(LIMIT, kept_until(app, source, taken));
        let (looked, kept_until) = tokio::join!(looking, keeping);
        Self {
            kept_until: kept_until.unwrap_or_default(),
            next: next(app, source),
            ..looked.unwrap_or_default()
        }
    }

    async fn looked(app: &App, source: &SourceName) -> Self {
        let Ok(report) = app.check(&[source.to_string()]).await else {
            return Self::default();
        };
        let newest = report.sources.iter().filter_map(|one| {
            let age = TimeDelta::seconds(one.age_seconds?.max(0));
            Some((one.backup.clone()?, one.last_success?, age))
        });
        let sources = || report.sources.iter();
        Self {
            newest: newest.max_by_key(|(_, at, _)| *at),
            verified: sources().filter_map(|one| one.last_verified).max(),
            drilled: sources().filter_map(|one| one.last_drill).max(),
            ..Self::default()
        }
    }
}

/// The latest of what the rules of all its places say, if all of them say when.
async fn kept_until(
    app: &App,
    source: &SourceName,
    taken: Option<&BackupId>,
) -> Option<DateTime<Utc>> {
    let taken = taken?;
    let mut latest = None;
    for place in app.places_of_source(source).ok()? {
        let rules = app.expiry_rules(source, &place).ok()??;
        let engine = app
            .engine(&place, Keys::None, Arc::new(NoopObserver))
            .ok()?;
        let judged = engine.judged(source, &rules).await.ok()?;
        if let Some(backup) = judged.iter().find(|one| one.manifest.id == *taken) {
            latest = latest.max(Some(backup.until()?));
        }
    }
    latest
}

fn next(app: &App, source: &SourceName) -> Option<DateTime<Utc>> {
    let schedules = app.schedules().ok()?;
    let mut about = schedules.iter().filter(|one| {
        let name = one.source.as_deref();
        name.is_some_and(|name| is_about(name, source.as_str()))
    });
    let report = about.next()?.report(SystemClock.now(), 1);
    report.next.first().map(|run| run.utc)
}
