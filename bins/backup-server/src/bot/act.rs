//! What is to be done is done, for one person after the other what he wants in its order.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use backup_app::access::Action;
use backup_app::{JobRefusal, JobView, Work, who};
use backup_core::audit::{AuditAction, AuditEntry, AuditOutcome};
use backup_core::backup::{BackupId, SourceName};
use backup_core::restorer::Selection;
use backup_telegram::{ApiError, Say};
use tokio::sync::mpsc;

use super::gate::Person;
use super::known::Known;
use super::machine::{Do, Knows as _};
use super::{Bot, QUEUE};
use crate::problem::Problem;
use crate::routes::orders::queue;

/// How long an answer is tried to be given. Whoever waits longer asks again.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);

/// How soon after one try the next one is, and how late at most.
const FIRST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_mins(1);

impl Bot {
    /// Has it done after what this person wanted before.
    pub(super) fn enqueue(self: &Arc<Self>, person: Person, todo: Vec<Do>) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queues.entry(person.chat).or_insert_with(|| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            self.tasks.spawn(Arc::clone(self).work_off(receiver));
            sender
        });
        if queue.try_send((person, todo)).is_err() {
            tracing::debug!(target: "backup", "telegram bot: too much at once is left out");
        }
    }

    async fn work_off(self: Arc<Self>, mut queue: mpsc::Receiver<(Person, Vec<Do>)>) {
        loop {
            let next = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                next = queue.recv() => next,
            };
            let Some((person, todo)) = next else {
                return;
            };
            for one in todo {
                self.perform(&person, one).await;
            }
        }
    }

    async fn perform(self: &Arc<Self>, person: &Person, one: Do) {
        match one {
            Do::Say { say, card } => {
                let sending = || self.client.send(person.chat, &say);
                let sent = self.insist(ANSWER_LIMIT, sending).await;
                self.said(sent, card.as_deref());
            }
            Do::Change { message, say, card } => {
                let sent = self
                    .change((person.chat, message), &say, ANSWER_LIMIT)
                    .await;
                self.said(sent, card.as_deref());
            }
            Do::Answer { callback, text } => {
                // It is only so that his Telegram stops waiting.
                let _ = self.client.answer(&callback, text).await;
            }
            Do::Order {
                message,
                source,
                backup,
            } => match self.order(person, &source, &backup).await {
                Ok(job) => {
                    let follower = Arc::clone(self).follow(person.clone(), message, job);
                    self.tasks.spawn(follower);
                }
                Err(refusal) => {
                    let say = Say::text(refusal);
                    let sent = self
                        .change((person.chat, message), &say, ANSWER_LIMIT)
                        .await;
                    self.said(sent, None);
                }
            },
            Do::Stop { job } => {
                let job = self.server.job(&person.caller, &job);
                if let Some(job) = job.filter(|job| person.caller.may_stop(job).is_ok()) {
                    // How it ended is told where it is followed.
                    let _ = self.server.stop(&person.caller, &job).await;
                }
            }
        }
    }

    fn said(&self, sent: Result<i64, ApiError>, card: Option<&str>) {
        match (sent, card) {
            (Ok(message), Some(card)) => self.machine().bind(card, message),
            (Ok(_), None) => {}
            (Err(error), _) => tracing::warn!(target: "backup", "telegram bot: not told: {error}"),
        }
    }

    /// Says something in the place of a message, or, if that is gone, in a new one; its number.
    pub(super) async fn change(
        &self,
        (chat, message): (i64, i64),
        say: &Say,
        limit: Duration,
    ) -> Result<i64, ApiError> {
        let changing = || self.client.edit(chat, message, say);
        match self.insist(limit, changing).await {
            Ok(()) => Ok(message),
            Err(ApiError::Refused { code: 400, .. }) => {
                self.insist(limit, || self.client.send(chat, say)).await
            }
            Err(error) => Err(error),
        }
    }

    /// Calls until it is done, is refused for good, or the time or the server is over.
    pub(super) async fn insist<T, F>(
        &self,
        limit: Duration,
        call: impl Fn() -> F,
    ) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let deadline = Instant::now().checked_add(limit);
        let mut pause = FIRST;
        loop {
            let error = match call().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let wait = match &error {
                ApiError::TooMany(wait) => *wait,
                _ => pause,
            };
            let late = deadline.is_some_and(|deadline| {
                let left = deadline.saturating_duration_since(Instant::now());
                wait > left
            });
            if late || !error.may_pass() {
                return Err(error);
            }
            tokio::select! {
                () = self.stop.cancelled() => return Err(error),
                () = tokio::time::sleep(wait) => {}
            }
            pause = (pause * 2).min(LATEST);
        }
    }

    /// Has a backup restored as everybody else who asks for it; if it is not, why.
    async fn order(&self, person: &Person, source: &str, backup: &str) -> Result<JobView, String> {
        let (w, caller) = (person.w, &person.caller);
        let refused = |problem: &Problem| {
            let status = StatusCode::from_u16(problem.status).unwrap_or_default();
            let (title, text) = w.problem(status);
            format!("{title}. {text}")
        };
        if let Err(problem) = caller.may(Action::Restore, Some(source)) {
            self.denied(person).await;
            return Err(refused(&problem));
        }
        let known = Known(&self.server).backups(caller, source);
        let is_there = known.iter().any(|one| one.id == backup);
        let (Ok(source), Ok(backup), true) = (
            SourceName::new(source),
            backup.parse::<BackupId>(),
            is_there,
        ) else {
            return Err(w.bot_nothing_there.to_owned());
        };
        let selection = Selection::default();
        let work = Work::Sandbox {
            source,
            backup,
            selection,
        };
        match queue(&self.server, caller, work).await {
            Ok(Ok(job)) => Ok(job),
            Ok(Err(refusal)) => {
                // What he wants is being done for him: he is told how it goes.
                let same = match &refusal {
                    JobRefusal::Running { id } => self.server.job(caller, id),
                    _ => None,
                };
                same.ok_or_else(|| w.refusal(&refusal).to_owned())
            }
            Err(problem) => Err(refused(&problem)),
        }
    }

    /// Writes down that somebody was not let do something.
    async fn denied(&self, person: &Person) {
        let entry = AuditEntry {
            person: Some(person.caller.0.name.clone()),
            ..AuditEntry::new(AuditAction::Restore, AuditOutcome::Denied, who())
        };
        self.server.audit.denied(&self.server.app, entry).await;
    }
}
