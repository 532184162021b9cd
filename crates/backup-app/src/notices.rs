//! Telling people how runs end and what is not as it should be: the one place where that passes, from
//! whatever frontend.
//!
//! Each notifier has a desk of its own, where notices wait for their turn, so that a mail server that
//! hangs keeps no run and no other notifier from going on. A run only leaves its report here and goes
//! on. Whoever ends the process waits for the desks, and not for long.

mod adapter;
mod background;
mod boards;
mod desk;
mod report;
mod telegram;
mod words;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backup_core::backup::SourceName;
use backup_core::clock::Clock as _;
use backup_core::error::ErrorKind;
use backup_core::notifier::{Notice, NoticeEvent, Tone};
use backup_core::run_record::{Operation, RunRecord};
use chrono::{DateTime, Utc};
use futures::future::join_all;
use serde::Serialize;

use crate::backup_run::BackupRun;
use crate::check::CheckReport;
use crate::clock::SystemClock;
use crate::compose::App;
use crate::error::{AppError, ErrorReport};
use crate::journal;
use desk::Desk;
use report::Report;

/// How long the end of a process may wait for notices.
pub const LIMIT: Duration = Duration::from_secs(30);

/// And once somebody wants it to end.
pub const HURRIED_LIMIT: Duration = Duration::from_secs(5);

/// Says what is wrong with telling.
pub(crate) type Tell = Arc<dyn Fn(&journal::Notice) + Send + Sync>;

/// Tells what is to be told to all who are configured. Clones share their desks.
#[derive(Clone)]
pub struct Notices {
    app: Arc<App>,
    desks: Arc<Vec<Desk>>,
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notices").finish_non_exhaustive()
    }
}

/// What came of a test.
#[derive(Debug, Serialize)]
pub struct NotifyTest {
    /// The notifier.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// Whether the other side took the notice.
    pub arrived: bool,
    /// What the other side said.
    pub said: Option<String>,
    /// Why it did not take it.
    pub error: Option<ErrorReport>,
}

impl Notices {
    /// To all who are configured; `None` if nobody is. What goes wrong is told to `tell`.
    pub(crate) fn new(app: &Arc<App>, tell: &Tell) -> Option<Self> {
        let configured = app.config().notify.iter();
        let desks: Vec<_> = configured
            .map(|(name, config)| Desk::new(name, config, app, tell))
            .collect();
        (!desks.is_empty()).then(|| Self {
            app: Arc::clone(app),
            desks: Arc::new(desks),
        })
    }

    /// A run begins.
    pub(crate) fn began(&self, operation: &Operation, source: &SourceName) {
        let event = NoticeEvent::Started;
        let is_wanted = |desk: &&Desk| desk.wants(event, Some(operation), source);
        if self.desks.iter().any(|desk| is_wanted(&desk)) {
            self.post(Report::begun(&self.app, operation, source));
        }
    }

    /// A backup has ended, after all its attempts.
    pub(crate) fn backed_up(
        &self,
        (source, database): (&SourceName, &str),
        run: &BackupRun,
        begun: DateTime<Utc>,
    ) {
        if let Some(report) = Report::of_backup(&self.app, (source, database), run, begun) {
            self.post(report);
        }
    }

    /// Any other run has ended, at one place if it was about one, or one whose process is gone was noticed.
    pub fn ended(&self, run: &RunRecord, place: Option<&str>) {
        if let Some(report) = Report::of_run(&self.app, run, place) {
            self.post(report);
        }
    }

    /// What was found of all sources. It may be said again and again: what was told is not told twice.
    pub fn found(&self, check: &CheckReport) {
        for report in Report::of_check(&self.app, check) {
            self.post(report);
        }
    }

    fn post(&self, report: Report) {
        let report = Arc::new(report);
        for desk in self.desks.iter().filter(|desk| desk.is_about(&report)) {
            desk.post(Arc::clone(&report));
        }
    }

    /// Waits until everything is told, at most for `limit`. What is not by then is a warning.
    pub async fn flush(&self, limit: Duration) {
        let deadline = tokio::time::Instant::now() + limit;
        join_all(self.desks.iter().map(|desk| desk.close(deadline))).await;
    }
}

impl App {
    /// Finds out whether all notifiers can be made: addresses that are some, secrets that are there.
    ///
    /// # Errors
    /// When one cannot.
    pub fn check_notify(&self) -> Result<(), AppError> {
        for (name, config) in &self.config().notify {
            adapter::adapter(name, config, self.environment())?;
        }
        Ok(())
    }

    /// Sends a notice to the notifiers of these names, or to all, and says of each whether it went.
    ///
    /// # Errors
    /// When there is no such notifier, or none at all.
    pub async fn test_notifiers(
        self: &Arc<Self>,
        names: &[String],
    ) -> Result<Vec<NotifyTest>, AppError> {
        let configured = &self.config().notify;
        if configured.is_empty() {
            let hint = "configure a [notify.NAME]";
            return Err(AppError::usage_hint("no notifier is configured", hint));
        }
        for name in names {
            if !configured.contains_key(name) {
                return Err(
                    backup_config::Error::undefined("notify", name, configured.keys()).into(),
                );
            }
        }
        let notice = self.test_notice();
        let places = self.places().unwrap_or_default();
        let silent: Tell = Arc::new(|_| {});
        let chosen = configured.iter();
        let chosen = chosen.filter(|(name, _)| names.is_empty() || names.contains(name));
        let tests = chosen.map(|(name, config)| {
            let desk = Desk::new(name, config, self, &silent);
            let (notice, places) = (&notice, &places);
            async move {
                let sent = desk.clerk().send(notice, places).await;
                let (said, error) = match sent {
                    Ok(receipt) => (Some(receipt.said), None),
                    Err(error) => (None, Some(error.report())),
                };
                NotifyTest {
                    name: name.clone(),
                    kind: config.kind.as_str(),
                    arrived: error.is_none(),
                    said,
                    error,
                }
            }
        });
        Ok(join_all(tests).await)
    }

    fn test_notice(&self) -> Notice {
        let title = "This is a test of the backup notifications";
        let event = NoticeEvent::Test;
        let sources = self.sources();
        Notice {
            host: words::host(),
            remarks: vec!["Somebody ran `backup-cli notify test`. Nothing is to be done.".into()],
            facts: vec![
                words::fact("sources", "Configured sources", &sources.join(", "))
                    .with_value(sources),
            ],
            ..Notice::new(event, Tone::Neutral, SystemClock.now(), title)
        }
    }
}

/// The class of an error, as it is remembered.
fn kind_of(kind: Option<ErrorKind>) -> String {
    kind.map_or("failed", ErrorKind::as_str).to_owned()
}
