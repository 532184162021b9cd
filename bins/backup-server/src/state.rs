//! What all requests share.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use backup_app::token::Tokens;
use backup_app::{App, Jobs, MissedSlots, Overview};
use backup_core::clock::Clock as _;
use chrono::TimeDelta;

use crate::failures::Failures;

/// An overview that is older means that nobody reads the places any more.
const STALE: TimeDelta = TimeDelta::minutes(15);

/// What all requests share.
#[derive(Debug)]
pub struct Server {
    pub(crate) tokens: Tokens,
    pub(crate) failures: Failures,
    pub(crate) metrics: bool,
    /// What this server does for others.
    pub jobs: Jobs,
    overview: RwLock<Option<Arc<Overview>>>,
    missed: OnceLock<Arc<Mutex<MissedSlots>>>,
}

impl Server {
    /// With the tokens of a configuration, before anything was read.
    #[must_use]
    pub fn new(app: &Arc<App>) -> Self {
        Self {
            tokens: Tokens::new(&app.config().access),
            failures: Failures::default(),
            metrics: app.config().server_http.metrics,
            jobs: Jobs::new(Arc::clone(app)),
            overview: RwLock::default(),
            missed: OnceLock::new(),
        }
    }

    /// Answers from now on come from this.
    pub fn show(&self, overview: Overview) {
        let mut shown = self
            .overview
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *shown = Some(Arc::new(overview));
    }

    /// From now on the slots that are missed are counted there.
    pub(crate) fn watch_missed(&self, missed: Arc<Mutex<MissedSlots>>) {
        let _ = self.missed.set(missed);
    }

    /// The slots that were missed since this process began.
    pub(crate) fn missed(&self) -> MissedSlots {
        let missed = self.missed.get();
        let counted = |all: &Arc<Mutex<MissedSlots>>| {
            all.lock().unwrap_or_else(PoisonError::into_inner).clone()
        };
        missed.map(counted).unwrap_or_default()
    }

    /// What was last read.
    pub(crate) fn overview(&self) -> Option<Arc<Overview>> {
        let shown = self.overview.read().unwrap_or_else(PoisonError::into_inner);
        shown.clone()
    }

    /// Whether what is shown was read lately.
    pub(crate) fn is_ready(&self) -> bool {
        let now = backup_app::SystemClock.now();
        let overview = self.overview();
        overview.is_some_and(|overview| now - overview.taken_at < STALE)
    }
}
