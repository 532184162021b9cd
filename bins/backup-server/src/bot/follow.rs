//! Tells somebody how what he asked for goes, in one message, and at its end how he gets in.

use std::sync::Arc;
use std::time::Duration;

use backup_app::JobView;
use backup_telegram::Say;
use tokio::time::Instant;

use super::Bot;
use super::gate::Person;
use super::known::Known;
use super::machine::Knows as _;
use super::speech;

/// How often a message is changed at most.
const EVERY: Duration = Duration::from_secs(3);

/// How long the end is tried to be told: about as long as somebody may want to know it.
const END_LIMIT: Duration = Duration::from_hours(24);

/// How long a password stays in the chat.
const PASSWORD: Duration = Duration::from_mins(5);

/// How long a last word may take once the server is to stop.
const LAST_WORD: Duration = Duration::from_secs(2);

impl Bot {
    /// Follows a job until its end, or that of the server.
    pub(super) async fn follow(self: Arc<Self>, person: Person, message: i64, job: JobView) {
        let Some(mut changes) = self.server.jobs.watch(&job.id) else {
            return;
        };
        let w = person.w;
        let source = job.source.as_deref().unwrap_or_default();
        let title = speech::title(w, source, job.backup.as_deref().unwrap_or_default());
        let (mut message, mut shown, mut steps) = (message, String::new(), Vec::new());
        let mut next = Instant::now();
        loop {
            let job = changes.borrow_and_update().clone();
            if job.is_over() {
                break;
            }
            if let Some(phase) = job
                .phase
                .as_ref()
                .filter(|&phase| steps.last() != Some(phase))
            {
                steps.push(phase.clone());
            }
            let text = speech::progress(w, &title, &job, &steps);
            if text != shown && Instant::now() >= next {
                let say = Say::text(text.as_str());
                // The end is told whatever becomes of this.
                let told = self.change((person.chat, message), &say, EVERY).await;
                message = told.unwrap_or(message);
                shown.clone_from(&text);
                next = Instant::now() + EVERY;
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    let say = Say::text(format!("{title}\n{}", w.bot_interrupted));
                    let telling = self.client.edit(person.chat, message, &say);
                    let _ = tokio::time::timeout(LAST_WORD, telling).await;
                    return;
                }
                next = changes.changed() => if next.is_err() {
                    return;
                },
                () = tokio::time::sleep_until(next), if text != shown => {}
            }
        }
        let ended = changes.borrow().clone();
        self.finish(&person, message, &title, ended).await;
    }

    /// Tells how it ended, and how he gets in if he still may.
    async fn finish(&self, person: &Person, message: i64, title: &str, job: JobView) {
        if !self.server.allowed().has(person) {
            return;
        }
        let (w, who) = (person.w, &person.caller.0);
        let known = Known(&self.server);
        let source = job.source.as_deref().unwrap_or_default();
        let clock = (known.now(), known.zone_of(source));
        let mut text = speech::ended(w, title, &job, who, clock);
        let access = job.sandbox.as_ref().map(|_| {
            // Told once, here or anywhere else.
            self.server.jobs.take_access(&job.id, &who.name)
        });
        match &access {
            Some(Some(_)) => text = format!("{text}\n\n{}", w.bot_password_follows),
            Some(None) => text = format!("{text}\n\n{}", w.password_gone),
            None => {}
        }
        let say = Say::text(text);
        let told = self.change((person.chat, message), &say, END_LIMIT).await;
        if let Err(error) = &told {
            let job = job.id.as_str();
            tracing::warn!(target: "backup", job, "telegram bot: its end is not told: {error}");
        }
        if let Some(access) = access.flatten() {
            self.tell_password(person, access.password).await;
        }
    }

    async fn tell_password(&self, person: &Person, password: String) {
        let say = Say {
            is_secret: true,
            ..Say::text(password)
        };
        let sent = self
            .insist(END_LIMIT, || self.client.send(person.chat, &say))
            .await;
        match sent {
            Ok(message) => {
                tokio::select! {
                    () = tokio::time::sleep(PASSWORD) => {
                        let deleting = || self.client.delete(person.chat, message);
                        let _ = self.insist(END_LIMIT, deleting).await;
                    }
                    () = self.stop.cancelled() => {
                        let deleting = self.client.delete(person.chat, message);
                        let _ = tokio::time::timeout(LAST_WORD, deleting).await;
                    }
                }
            }
            Err(error) => {
                tracing::warn!(target: "backup", "telegram bot: a password is not told: {error}");
                let lost = Say::text(person.w.bot_password_lost);
                let telling = self.client.send(person.chat, &lost);
                let _ = tokio::time::timeout(LAST_WORD, telling).await;
            }
        }
    }
}
