//! One notifier: what waits for it, and what becomes of that.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backup_config::{NotifyConfig, NotifyKind};
use backup_core::backup::SourceName;
use backup_core::clock::Clock as _;
use backup_core::notifier::told::{Telling, Told};
use backup_core::notifier::{Notice, NoticeEvent, Notifier, Receipt};
use backup_core::run_record::Operation;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::adapter::adapter;
use super::boards::{Boards, Claimed};
use super::report::Report;
use super::{LIMIT, Tell};
use crate::access::matches;
use crate::clock::SystemClock;
use crate::compose::App;
use crate::error::AppError;
use crate::families::is_about;
use crate::journal;
use crate::place::Place;
use crate::text::shown;

/// How often somebody else may change what was told while I look at it.
const TRIES: usize = 3;

/// How long nobody is told again what is found by looking, after that did not go.
const QUIET: Duration = Duration::from_mins(10);

/// Where notices for one notifier wait.
pub(super) struct Desk {
    name: String,
    config: NotifyConfig,
    app: Arc<App>,
    tell: Tell,
    waiting: Arc<AtomicUsize>,
    open: Mutex<Option<Open>>,
}

/// Somebody sits there.
struct Open {
    sender: UnboundedSender<Arc<Report>>,
    clerk: JoinHandle<()>,
}

impl Desk {
    pub(super) fn new(name: &str, config: &NotifyConfig, app: &Arc<App>, tell: &Tell) -> Self {
        Self {
            name: name.to_owned(),
            config: config.clone(),
            app: Arc::clone(app),
            tell: Arc::clone(tell),
            waiting: Arc::default(),
            open: Mutex::default(),
        }
    }

    /// Whether it is told of an event.
    pub(super) fn wants(
        &self,
        event: NoticeEvent,
        operation: Option<&Operation>,
        source: &SourceName,
    ) -> bool {
        self.config.events().contains(&event)
            && operation.is_none_or(|operation| self.config.is_about(operation))
            && self.is_of(source)
    }

    fn is_of(&self, source: &SourceName) -> bool {
        let source = source.as_str();
        let mut said = self.config.sources.iter();
        said.any(|name| matches(name, source) || is_about(name, source))
    }

    /// Whether anything in a report may be for it.
    pub(super) fn is_about(&self, report: &Report) -> bool {
        let events: &[_] = if report.begins {
            &[NoticeEvent::Started]
        } else if report.operation.is_none() {
            &[NoticeEvent::Stale]
        } else {
            &[NoticeEvent::Success, NoticeEvent::Failure]
        };
        let operation = report.operation.as_ref();
        let mut events = events.iter();
        events.any(|event| self.wants(*event, operation, &report.source))
    }

    /// Leaves a report.
    pub(super) fn post(&self, report: Arc<Report>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever died of a mistake of ours is replaced.
        if open.as_ref().is_some_and(|open| open.clerk.is_finished()) {
            let name = shown(&self.name);
            let text = format!("notifier {name}: something went wrong, and a notice is lost");
            (self.tell)(&journal::Notice::Warning(text));
            *open = None;
        }
        let open = open.get_or_insert_with(|| {
            let (sender, mut receiver) = unbounded_channel::<Arc<Report>>();
            let (mut clerk, waiting) = (self.clerk(), Arc::clone(&self.waiting));
            let clerk = tokio::spawn(async move {
                while let Some(report) = receiver.recv().await {
                    clerk.see_to(&report).await;
                    waiting.fetch_sub(1, Ordering::Relaxed);
                }
            });
            Open { sender, clerk }
        });
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // He is gone only when the process ends.
        let _ = open.sender.send(report);
    }

    /// Waits until all is done that was left, at most until then.
    pub(super) async fn close(&self, deadline: Instant) {
        let open = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.take()
        };
        let Some(Open { sender, mut clerk }) = open else {
            return;
        };
        drop(sender);
        if tokio::time::timeout_at(deadline, &mut clerk).await.is_err() {
            clerk.abort();
            let left = self.waiting.swap(0, Ordering::Relaxed);
            let (name, limit) = (shown(&self.name), LIMIT.as_secs());
            let text = format!(
                "notifier {name}: of {left} runs it is not known whether they were told: there was \
                 no time, at most {limit} s"
            );
            (self.tell)(&journal::Notice::Warning(text));
        }
    }

    /// Who does the work.
    pub(super) fn clerk(&self) -> Clerk {
        Clerk {
            name: self.name.clone(),
            config: self.config.clone(),
            app: Arc::clone(&self.app),
            tell: Arc::clone(&self.tell),
            me: format!("{:016x}", rand::random::<u64>()),
            notifier: None,
            boards: Boards::default(),
            known: BTreeMap::new(),
            quiet_until: None,
            is_well: false,
        }
    }
}

/// Does the work of one desk, one report after another.
pub(super) struct Clerk {
    name: String,
    config: NotifyConfig,
    app: Arc<App>,
    tell: Tell,
    me: String,
    notifier: Option<Arc<dyn Notifier>>,
    boards: Boards,
    /// What was told, as it was last seen.
    known: BTreeMap<SourceName, Told>,
    quiet_until: Option<Instant>,
    /// Whether the places know that it can be reached.
    is_well: bool,
}

impl Clerk {
    fn wants(&self, event: NoticeEvent) -> bool {
        self.config.events().contains(&event)
    }

    async fn see_to(&mut self, report: &Report) {
        if report.begins {
            self.tell(report, NoticeEvent::Started, None).await;
            return;
        }
        let trouble = report.trouble();
        if self.wants(trouble) {
            // A service that waits for pings knows by itself what it was told, and wants each of them.
            match self.config.kind {
                NotifyKind::Ping if report.is_fine() => {}
                NotifyKind::Ping => {
                    self.tell(report, trouble, None).await;
                }
                _ => self.settle(report).await,
            }
        }
        let is_run = report.operation.is_some();
        if is_run && report.is_fine() && self.wants(NoticeEvent::Success) {
            self.tell(report, NoticeEvent::Success, None).await;
        }
    }

    /// Tells what is worth telling after all that was told before.
    async fn settle(&mut self, report: &Report) {
        let situation = report.situation();
        let of = (self.name.clone(), report.source.clone());
        let of = (of.0.as_str(), &of.1);
        let known = self.known.get(&report.source);
        // What is found by looking is found every minute.
        if report.operation.is_none() {
            let is_old =
                known.is_some_and(|told| told.judge(SystemClock.now(), &situation).is_none());
            let is_quiet = self.quiet_until.is_some_and(|until| Instant::now() < until);
            if is_old || is_quiet {
                return;
            }
        }
        let known = known.cloned();
        for _ in 0..TRIES {
            let places = &report.places;
            let reading = self.boards.read(&self.app, of, places, known.as_ref());
            let mut state = reading.await;
            let now = SystemClock.now();
            let Some(telling) = state.told.judge(now, &situation) else {
                self.known.insert(report.source.clone(), state.told);
                return;
            };
            if state.told.is_claimed(now, &situation.topic, &self.me) {
                return;
            }
            let claimed = state.told.claimed(now, &situation.topic, &self.me);
            if state.claim(of, &claimed).await == Claimed::Lost {
                continue;
            }
            let event = match telling {
                Telling::Recovered { .. } => NoticeEvent::Recovered,
                _ => report.trouble(),
            };
            let arrived = !self.wants(event) || self.tell(report, event, Some(telling)).await;
            let now = SystemClock.now();
            let after = claimed.after(now, &situation, arrived);
            let again = |told: &Told| told.after(now, &situation, arrived);
            state.write(of, &after, again).await;
            self.known.insert(report.source.clone(), after);
            return;
        }
    }

    /// Tells it; whether that went. What did not is a warning.
    async fn tell(&mut self, report: &Report, event: NoticeEvent, why: Option<Telling>) -> bool {
        let notice = report.notice(&self.app, event, why).await;
        let sent = self.send(&notice, &report.places).await;
        let name = shown(&self.name);
        match sent {
            Ok(receipt) => {
                self.quiet_until = None;
                let said = shown(&receipt.said);
                tracing::debug!(target: "backup", "notifier {name}: {}: {said}", notice.title);
                true
            }
            Err(error) => {
                self.quiet_until = Some(Instant::now() + QUIET);
                let (title, why) = (&notice.title, shown(&error.line()));
                let text = format!("notifier {name}: \"{title}\" was not told: {why}");
                (self.tell)(&journal::Notice::Warning(text));
                false
            }
        }
    }

    /// Sends a notice, and notes at the places whether the notifier can be reached.
    pub(super) async fn send(
        &mut self,
        notice: &Notice,
        places: &[Place],
    ) -> Result<Receipt, AppError> {
        let sent = match self.notifier().await {
            Ok(notifier) => notifier
                .notify(notice)
                .await
                .map_err(|error| AppError::setup(format!("tell notifier {}", self.name), error)),
            Err(error) => Err(error),
        };
        if self.is_well && sent.is_ok() {
            return sent;
        }
        self.is_well = sent.is_ok();
        let failure = sent.as_ref().err().map(|error| shown(&error.line()));
        let now = (SystemClock.now(), failure.as_deref());
        let noting = self.boards.delivered(&self.app, &self.name, places, now);
        noting.await;
        sent
    }

    /// The notifier. Its secrets are fetched when there is something to tell, and not before.
    async fn notifier(&mut self) -> Result<Arc<dyn Notifier>, AppError> {
        if let Some(notifier) = &self.notifier {
            return Ok(Arc::clone(notifier));
        }
        let (name, config) = (self.name.clone(), self.config.clone());
        let app = Arc::clone(&self.app);
        let made = move || adapter(&name, &config, app.environment());
        let made = tokio::task::spawn_blocking(made).await;
        let made = made.map_err(|error| AppError::File {
            operation: format!("set up notifier {}", self.name),
            source: error.into(),
        })??;
        self.notifier = Some(Arc::clone(&made));
        Ok(made)
    }
}
