//! What all requests share.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use axum::http::StatusCode;
use backup_app::token::Tokens;
use backup_app::{App, AuditDesk, Config, Jobs, Journal, MissedSlots, Notice, Overview};
use backup_core::clock::Clock as _;
use chrono::TimeDelta;
use chrono_tz::Tz;
use tokio::sync::Semaphore;

use crate::access::Caller;
use crate::bot::{Allowed, Health};
use crate::failures::Failures;
use crate::idempotency::Idempotency;
use crate::problem::Problem;
use crate::session::Sessions;
use crate::turns::Turns;

/// An overview that is older means that nobody reads the places any more.
const STALE: TimeDelta = TimeDelta::minutes(15);

/// How many look at the sandboxes at once.
const LOOKS: usize = 4;

/// What all requests share.
#[derive(Debug)]
pub struct Server {
    pub(crate) app: Arc<App>,
    pub(crate) sessions: Sessions,
    /// On which clock times are shown that belong to no source.
    pub(crate) zone: Tz,
    /// What this server does for others.
    pub jobs: Jobs,
    pub(crate) journal: Journal,
    pub(crate) audit: AuditDesk,
    pub(crate) failures: Failures,
    pub(crate) turns: Turns,
    pub(crate) idempotency: Idempotency,
    pub(crate) metrics: bool,
    /// How many may look at the sandboxes at once.
    pub(crate) looks: Semaphore,
    tokens: RwLock<Arc<Tokens>>,
    overview: RwLock<Option<Arc<Overview>>>,
    /// How the bot is.
    pub(crate) bot: Health,
    allowed: RwLock<Arc<Allowed>>,
    missed: OnceLock<Arc<Mutex<MissedSlots>>>,
}

impl Server {
    /// With the tokens of a configuration, before anything was read.
    #[must_use]
    pub fn new(app: &Arc<App>) -> Self {
        let tell = |notice: &Notice| match notice {
            Notice::Warning(text) => tracing::warn!(target: "backup", "{text}"),
            Notice::Note(text) => tracing::info!(target: "backup", "{text}"),
        };
        Self {
            journal: Journal::new(tell),
            audit: AuditDesk::default(),
            failures: Failures::default(),
            turns: Turns::default(),
            idempotency: Idempotency::default(),
            metrics: app.config().server_http.metrics,
            looks: Semaphore::new(LOOKS),
            sessions: Sessions::new(&app.config().server_http),
            zone: app.config().defaults.timezone.parse().unwrap_or(Tz::UTC),
            tokens: RwLock::new(Arc::new(Tokens::new(&app.config().access))),
            overview: RwLock::default(),
            jobs: Jobs::new(Arc::clone(app)),
            app: Arc::clone(app),
            bot: Health::default(),
            allowed: RwLock::new(Arc::new(allowed(app.config()))),
            missed: OnceLock::new(),
        }
    }

    /// Who may come in is from now on what this configuration says. Everything else stays as it
    /// was when the process began.
    pub fn admit(&self, config: &Config) {
        let mut tokens = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        *tokens = Arc::new(Tokens::new(&config.access));
        drop(tokens);
        let mut people = self.allowed.write().unwrap_or_else(PoisonError::into_inner);
        *people = Arc::new(allowed(config));
        drop(people);
        // A session is as good as the token that opened it, which may be one that is known no more.
        self.sessions.forget();
    }

    /// Who has which token.
    pub(crate) fn tokens(&self) -> Arc<Tokens> {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&tokens)
    }

    /// Who may talk to the bot.
    pub(crate) fn allowed(&self) -> Arc<Allowed> {
        let people = self.allowed.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&people)
    }

    /// Counts an order of somebody.
    pub(crate) fn turn(&self, caller: &Caller) -> Result<(), Problem> {
        if self.turns.order(&caller.0.name, Instant::now()) {
            let detail = "too many orders; wait a minute";
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, detail));
        }
        Ok(())
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

    /// On which clock a source lives.
    pub(crate) fn zone_of(&self, overview: &Overview, source: &str) -> Tz {
        let mut all = overview.sources.iter();
        let schedule = all
            .find(|one| one.name == source)
            .and_then(|one| one.schedule.as_ref());
        let zone = schedule.and_then(|schedule| schedule.timezone.parse().ok());
        zone.unwrap_or(self.zone)
    }

    /// Whether what is shown was read lately.
    pub(crate) fn is_ready(&self) -> bool {
        let now = backup_app::SystemClock.now();
        let overview = self.overview();
        overview.is_some_and(|overview| now - overview.taken_at < STALE)
    }
}

fn allowed(config: &Config) -> Allowed {
    Allowed::new(config.telegram_bot.as_ref())
}
