//! The bot: people look into backups from a phone. It is asked by long polling, so nothing of it can
//! be reached from outside.
//!
//! [`gate`] lets through what a person of the list said, alone with the bot, and [`machine`] says
//! what is to be done then; both are pure. Here it is heard and done, by what the routes call too, so
//! that nobody may do more by the bot than by the others.

mod act;
mod cards;
mod follow;
mod gate;
mod health;
mod known;
mod machine;
mod speech;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backup_app::{SystemClock, TelegramBotConfig};
use backup_core::clock::Clock as _;
use backup_telegram::{ApiError, Client, Update, UpdateKind, Waiting};
use futures::FutureExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::pages::words::Words;
use crate::state::Server;
use crate::turns::Turns;
pub(crate) use gate::Allowed;
use gate::{Ignored, Person};
pub(crate) use health::Health;
use health::{Strangers, Trouble};
use known::Known;
use machine::{Do, Machine};

/// How long one question for updates stays open.
const PATIENCE: Duration = Duration::from_secs(25);

/// How soon after an answer without updates the next question follows, should the server not wait.
const PACE: Duration = Duration::from_secs(1);

/// How long forgetting what was heard may take once the server is to stop, and ending what is told.
const CONFIRM_LIMIT: Duration = Duration::from_secs(2);
const GRACE: Duration = Duration::from_secs(4);

/// How much of what one person wants waits for its turn.
const QUEUE: usize = 32;

/// What is to be done for one person.
type Queue = mpsc::Sender<(Person, Vec<Do>)>;

/// One bot.
#[derive(Debug)]
struct Bot {
    server: Arc<Server>,
    client: Client,
    machine: Mutex<Machine>,
    /// How much one person says.
    turns: Turns,
    /// What is to be done for each person, in order.
    queues: Mutex<HashMap<i64, Queue>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Listens and answers until `stop`. Where no bot is configured, or nobody may talk to it, there is
/// none.
pub async fn talk(server: Arc<Server>, stop: CancellationToken) {
    let Some(settings) = server.app.config().telegram_bot.clone() else {
        return stop.cancelled().await;
    };
    if server.allowed().len() == 0 {
        let hint = "name them in [telegram_bot] allow";
        tracing::warn!(target: "backup", "telegram bot: nobody may talk to it, so there is none: {hint}");
        return stop.cancelled().await;
    }
    server.bot.want();
    let started = SystemClock.now().timestamp();
    let mut trouble = Trouble::default();
    let client = tokio::select! {
        client = connected(&server, &settings, &mut trouble) => client,
        () = stop.cancelled() => return,
    };
    let bot = Arc::new(Bot {
        server,
        client,
        machine: Mutex::default(),
        turns: Turns::default(),
        queues: Mutex::default(),
        tasks: TaskTracker::new(),
        stop,
    });
    let listening = AssertUnwindSafe(bot.listen(started, trouble)).catch_unwind();
    if listening.await.is_err() {
        // No backup depends on it.
        bot.server.bot.set_up(false);
        tracing::error!(target: "backup", "telegram bot: it died; the server goes on without it");
        bot.stop.cancelled().await;
    }
    bot.tasks.close();
    if tokio::time::timeout(GRACE, bot.tasks.wait()).await.is_err() {
        tracing::warn!(target: "backup", "telegram bot: not everything could be told in time");
    }
}

/// A client, as soon as its token can be read. Backups do not wait for that.
async fn connected(
    server: &Arc<Server>,
    settings: &TelegramBotConfig,
    trouble: &mut Trouble,
) -> Client {
    loop {
        let (app, place) = (Arc::clone(&server.app), settings.token.clone());
        // A program that tells it may take its time.
        let reading = tokio::task::spawn_blocking(move || place.resolve(app.environment()));
        let problem = match reading.await {
            Ok(Ok(token)) => match Client::new(&settings.base_url, token) {
                Ok(client) => return client,
                Err(error) => error.to_string(),
            },
            Ok(Err(error)) => backup_core::error::chain(&error),
            Err(_) => "its token could not be read".to_owned(),
        };
        tokio::time::sleep(trouble.note(&problem, None)).await;
    }
}

/// What was heard last.
struct Ears {
    /// The next update.
    from: Option<i64>,
    /// Whether what waits may have been said before we were there.
    is_catching_up: bool,
    is_known: bool,
    started: i64,
    strangers: Strangers,
}

impl Ears {
    /// Whether this was said before we were there: nobody expects an answer any more.
    fn is_old(&self, update: &Update) -> bool {
        match &update.kind {
            UpdateKind::Message(message) => self.is_catching_up && message.date < self.started,
            // Its button is not known, so it is told to have expired.
            UpdateKind::Callback(_) | UpdateKind::Other(_) => false,
        }
    }
}

impl Bot {
    /// Hears what people say until the server is to stop. An API that is out of reach is asked again
    /// and again, less and less often.
    async fn listen(self: &Arc<Self>, started: i64, mut trouble: Trouble) {
        let mut ears = Ears {
            from: None,
            is_catching_up: true,
            is_known: false,
            started,
            strangers: Strangers::default(),
        };
        loop {
            let began = Instant::now();
            let heard = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                heard = self.hear(&mut ears) => heard,
            };
            let pause = match heard {
                Ok(0) => PACE.saturating_sub(began.elapsed()),
                Ok(_) => Duration::ZERO,
                Err(error) => {
                    self.server.bot.set_up(false);
                    let pause = trouble.note(&error.to_string(), Some(&error));
                    if self.mend(&error).await { PACE } else { pause }
                }
            };
            if self.server.bot.is_up() {
                trouble.is_over();
            }
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.server.bot.set_up(false);
        if let Some(from) = ears.from {
            let patience = Duration::ZERO;
            let from = Some(from);
            let confirming = self.client.updates(Waiting { from, patience });
            // What is not forgotten there is known to be old after the next start.
            let _ = tokio::time::timeout(CONFIRM_LIMIT, confirming).await;
        }
    }

    /// Asks once for what was said, and has it done; how much it was.
    async fn hear(self: &Arc<Self>, ears: &mut Ears) -> Result<usize, ApiError> {
        if !ears.is_known {
            self.greet().await?;
            ears.is_known = true;
        }
        let patience = if ears.is_catching_up {
            Duration::ZERO
        } else {
            PATIENCE
        };
        let from = ears.from;
        let updates = self.client.updates(Waiting { from, patience }).await?;
        self.server.bot.set_up(true);
        if updates.is_empty() {
            // All that was said is forgotten there, and numbers may begin anew.
            (ears.from, ears.is_catching_up) = (None, false);
            return Ok(0);
        }
        let count = updates.len();
        for update in updates {
            if ears.from.is_some_and(|from| update.id < from) {
                continue;
            }
            ears.from = Some(update.id.saturating_add(1));
            if ears.is_old(&update) {
                self.server.bot.ignore();
                continue;
            }
            match self.server.allowed().admit(update) {
                Ok((person, input)) => self.understand(person, input),
                Err(ignored) => self.ignore(&ignored, &mut ears.strangers),
            }
        }
        Ok(count)
    }

    fn understand(self: &Arc<Self>, person: Person, input: gate::Input) {
        let now = Instant::now();
        if self.turns.order(&person.caller.0.name, now) {
            self.server.bot.ignore();
            return;
        }
        self.server.bot.hear();
        let known = Known(&self.server);
        let todo = self.machine().receive(&person, input, &known, now);
        self.enqueue(person, todo);
    }

    /// Counts what is not answered; of strangers, the log tells the number by which they can be let
    /// in.
    fn ignore(&self, ignored: &Ignored, strangers: &mut Strangers) {
        self.server.bot.ignore();
        match ignored {
            Ignored::Stranger(id) => strangers.note(*id, Instant::now()),
            ignored => tracing::debug!(target: "backup", "telegram bot: not answered: {ignored:?}"),
        }
    }

    /// Sees whether the bot is known there, and says what it can do.
    async fn greet(&self) -> Result<(), ApiError> {
        self.client.me().await?;
        for (index, w) in Words::all().into_iter().enumerate() {
            let commands = [
                ("start", w.bot_cmd_start),
                ("status", w.bot_cmd_status),
                ("cancel", w.bot_cmd_cancel),
                ("help", w.bot_cmd_help),
            ];
            // The first one is for all others.
            let language = (index > 0).then_some(w.code);
            self.client.set_commands(&commands, language).await?;
        }
        let people = self.server.allowed().len();
        tracing::info!(target: "backup", people, "telegram bot: listening");
        Ok(())
    }

    /// Has what is said kept for us, if it is sent somewhere where nobody of us listens; whether that
    /// was it.
    async fn mend(&self, error: &ApiError) -> bool {
        let is_sent =
            matches!(error, ApiError::Conflict(text) if text.to_lowercase().contains("webhook"));
        let is_mended = is_sent && self.client.delete_webhook().await.is_ok();
        if is_mended {
            tracing::warn!(target: "backup", "telegram bot: it had a webhook, which is removed");
        }
        is_mended
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
