//! The conversation: what is said to what somebody wrote or pressed. Pure, but for the buttons that it
//! remembers; what it asks for is done by others.

use std::time::Instant;

use backup_app::JobView;
use backup_app::access::{Action, Decision};
use backup_app::text::shown;
use backup_telegram::{Button, Say};
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use super::cards::Cards;
use super::gate::{Input, Person};
use super::speech;
use crate::access::Caller;

/// How many sources or backups are offered at once.
const OFFERED: usize = 8;

/// How long what stands on a button may be. A name that is longer is cut.
const LABEL: usize = 60;

/// A source, as far as the bot tells of it.
#[derive(Debug, Clone)]
pub(super) struct SourceLine {
    pub(super) name: String,
    pub(super) status: &'static str,
    pub(super) backups: usize,
    pub(super) latest: Option<DateTime<Utc>>,
}

/// A backup, as far as the bot tells of it.
#[derive(Debug, Clone)]
pub(super) struct BackupLine {
    pub(super) id: String,
    pub(super) at: DateTime<Utc>,
    pub(super) bytes: u64,
    pub(super) is_good: bool,
}

/// What is known, as far as somebody may know it.
pub(super) trait Knows {
    fn now(&self) -> DateTime<Utc>;

    /// The sources; none as long as the places were not read.
    fn sources(&self, caller: &Caller) -> Option<Vec<SourceLine>>;

    /// The backups of one, newest first.
    fn backups(&self, caller: &Caller, source: &str) -> Vec<BackupLine>;

    /// What he asked for himself.
    fn jobs(&self, caller: &Caller) -> Vec<JobView>;

    /// On which clock a source lives.
    fn zone_of(&self, source: &str) -> Tz;

    /// How long a sandbox lasts.
    fn lasts(&self) -> TimeDelta;
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Do {
    /// Says something, whose buttons are those of a card.
    Say { say: Say, card: Option<String> },
    /// Says it in the place of a message.
    Change {
        message: i64,
        say: Say,
        card: Option<String>,
    },
    /// Tells that a button was understood.
    Answer {
        callback: String,
        text: Option<&'static str>,
    },
    /// Has a backup restored, and tells below that message how it goes.
    Order {
        message: i64,
        source: String,
        backup: String,
    },
    /// Stops what he asked for.
    Stop { job: String },
}

/// What stands behind a button.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    Sources { page: usize },
    Backups { source: String, page: usize },
    Confirm { source: String, backup: String },
    Restore { source: String, backup: String },
    Dismiss,
}

/// Buttons beside each other: what stands on them, and behind.
type Row = Vec<(String, Choice)>;

/// Something to say, before its buttons have names.
#[derive(Debug, Default)]
struct Draft {
    text: String,
    rows: Vec<Row>,
}

/// All conversations.
#[derive(Debug, Default)]
pub(super) struct Machine {
    cards: Cards<Choice>,
}

impl Machine {
    /// What is to be done when a person of the list did something.
    pub(super) fn receive(
        &mut self,
        person: &Person,
        input: Input,
        knows: &dyn Knows,
        now: Instant,
    ) -> Vec<Do> {
        match input {
            Input::Text(text) => self.text(person, &text, knows, now),
            Input::Press {
                callback,
                message,
                data,
            } => {
                let w = person.w;
                let choice = self.cards.take((person.chat, message), &data, now);
                let text = choice.is_none().then_some(w.bot_expired);
                let mut todo = vec![Do::Answer { callback, text }];
                if let Some(choice) = choice {
                    todo.extend(self.chosen(person, (message, choice), knows, now));
                }
                todo
            }
        }
    }

    /// The buttons of a card stand below this message.
    pub(super) fn bind(&mut self, card: &str, message: i64) {
        self.cards.bind(card, message);
    }

    fn text(&mut self, person: &Person, text: &str, knows: &dyn Knows, now: Instant) -> Vec<Do> {
        let w = person.w;
        let first = text.split_whitespace().next().unwrap_or_default();
        // In its menu, Telegram may say for which bot a command is.
        let command = first.split('@').next().unwrap_or_default();
        let say = |text: &str| {
            vec![Do::Say {
                say: Say::text(text),
                card: None,
            }]
        };
        match command {
            "/start" => {
                let (say, card) = self.lay(person, sources(person, knows, 0), now);
                vec![Do::Say { say, card }]
            }
            "/help" => say(w.bot_help),
            "/status" => say(&speech::status(person, knows)),
            "/cancel" => {
                self.cards.fold(person.chat);
                let jobs = knows.jobs(&person.caller);
                let running = jobs.into_iter().filter(|job| !job.is_over());
                let mut todo: Vec<_> = running.map(|job| Do::Stop { job: job.id }).collect();
                let text = if todo.is_empty() {
                    w.bot_idle
                } else {
                    w.bot_stopping
                };
                todo.extend(say(text));
                todo
            }
            _ => say(w.bot_unclear),
        }
    }

    fn chosen(
        &mut self,
        person: &Person,
        (message, choice): (i64, Choice),
        knows: &dyn Knows,
        now: Instant,
    ) -> Vec<Do> {
        let w = person.w;
        let draft = match choice {
            Choice::Sources { page } => sources(person, knows, page),
            Choice::Backups { source, page } => backups(person, knows, &source, page),
            Choice::Confirm { source, backup } => confirm(person, knows, source, backup),
            Choice::Dismiss => Draft::of(w.bot_dismissed),
            Choice::Restore { source, backup } => {
                let say = Say::text(w.bot_ordered);
                let change = Do::Change {
                    message,
                    say,
                    card: None,
                };
                let order = Do::Order {
                    message,
                    source,
                    backup,
                };
                return vec![change, order];
            }
        };
        let (say, card) = self.lay(person, draft, now);
        vec![Do::Change { message, say, card }]
    }

    /// Gives the buttons of a draft names under which they are known once.
    fn lay(&mut self, person: &Person, draft: Draft, now: Instant) -> (Say, Option<String>) {
        let Draft { text, rows } = draft;
        let mut say = Say::text(text);
        if rows.is_empty() {
            return (say, None);
        }
        let choices = rows.iter().flatten().map(|(_, choice)| choice.clone());
        let (card, data) = self.cards.lay(person.chat, choices.collect(), now);
        let mut data = data.into_iter();
        for row in rows {
            // As many as there are choices.
            let buttons = row.into_iter().zip(data.by_ref());
            let buttons = buttons.map(|((text, _), callback_data)| Button {
                text,
                callback_data,
            });
            say.buttons.push(buttons.collect());
        }
        (say, Some(card))
    }
}

impl Draft {
    fn of(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            rows: Vec::new(),
        }
    }
}

fn sources(person: &Person, knows: &dyn Knows, page: usize) -> Draft {
    let w = person.w;
    let Some(mut all) = knows.sources(&person.caller) else {
        return Draft::of(w.bot_not_ready);
    };
    all.retain(|source| source.backups > 0);
    if all.is_empty() {
        return Draft::of(w.bot_nothing_there);
    }
    let now = knows.now();
    let (part, turn) = part_of(&all, page, |page| Choice::Sources { page });
    let mut rows: Vec<_> = part
        .iter()
        .map(|source| {
            let symbol = w.chip(source.status).symbol;
            let ago = source.latest.map(|at| format!(" · {}", w.ago(at, now)));
            let name = label(&source.name);
            let text = format!("{symbol} {name}{}", ago.unwrap_or_default());
            let choice = Choice::Backups {
                source: source.name.clone(),
                page: 0,
            };
            vec![(text, choice)]
        })
        .collect();
    rows.extend(turn);
    rows.push(vec![(w.cancel.to_owned(), Choice::Dismiss)]);
    Draft {
        text: w.choose_source.to_owned(),
        rows,
    }
}

fn backups(person: &Person, knows: &dyn Knows, source: &str, page: usize) -> Draft {
    let w = person.w;
    let all = knows.backups(&person.caller, source);
    if all.is_empty() {
        return Draft::of(w.bot_nothing_there);
    }
    let turned = |page| Choice::Backups {
        source: source.to_owned(),
        page,
    };
    let (part, turn) = part_of(&all, page, turned);
    let zone = knows.zone_of(source);
    let line = |backup: &BackupLine| {
        let at = w.when(backup.at, zone, knows.now()).text;
        let damaged = if backup.is_good { "" } else { w.bot_damaged };
        let dot = if backup.is_good { "" } else { " · ✗ " };
        format!("{at} · {}{dot}{damaged}", w.size(backup.bytes))
    };
    let restores = person.caller.0.decide(Action::Restore, Some(source)) == Decision::Allowed;
    let (mut text, mut rows) = (shown(source), Vec::new());
    if restores {
        text = format!("{text}\n{}", w.choose_backup);
        rows.extend(part.iter().map(|backup| {
            let choice = Choice::Confirm {
                source: source.to_owned(),
                backup: backup.id.clone(),
            };
            vec![(line(backup), choice)]
        }));
    } else {
        let lines: Vec<_> = part.iter().map(line).collect();
        text = format!("{text}\n\n{}", lines.join("\n"));
    }
    rows.extend(turn);
    rows.push(vec![
        (format!("↩ {}", w.sources), Choice::Sources { page: 0 }),
        (w.cancel.to_owned(), Choice::Dismiss),
    ]);
    Draft { text, rows }
}

fn confirm(person: &Person, knows: &dyn Knows, source: String, backup: String) -> Draft {
    let w = person.w;
    let all = knows.backups(&person.caller, &source);
    let Some(found) = all.into_iter().find(|one| one.id == backup) else {
        return Draft::of(w.bot_nothing_there);
    };
    let at = w.when(found.at, knows.zone_of(&source), knows.now());
    let ends = w.ago(knows.now() + knows.lasts(), knows.now());
    let mut lines = vec![
        w.bot_confirm.to_owned(),
        String::new(),
        format!("{}: {}", w.source, shown(&source)),
        format!("{}: {} ({})", w.backup, at.text, at.ago),
        format!("{}: {}", w.size, w.size(found.bytes)),
    ];
    if !found.is_good {
        lines.push(format!("✗ {}", w.bot_damaged));
    }
    lines.push(String::new());
    lines.push(w.restore_intro.to_owned());
    lines.push(format!("{} {ends}.", w.bot_lasts));
    let yes = Choice::Restore { source, backup };
    Draft {
        text: lines.join("\n"),
        rows: vec![vec![
            (w.bot_yes.to_owned(), yes),
            (w.cancel.to_owned(), Choice::Dismiss),
        ]],
    }
}

/// One page of a list, and the buttons that lead to those beside it.
fn part_of<T>(all: &[T], page: usize, turned: impl Fn(usize) -> Choice) -> (&[T], Option<Row>) {
    let pages = all.len().div_ceil(OFFERED);
    // The list may have become shorter.
    let page = page.min(pages.saturating_sub(1));
    let part = all.chunks(OFFERED).nth(page).unwrap_or_default();
    let mut turns = Vec::new();
    if page > 0 {
        turns.push(("◀".to_owned(), turned(page - 1)));
    }
    if page + 1 < pages {
        turns.push((format!("▶ {}/{pages}", page + 2), turned(page + 1)));
    }
    (part, (!turns.is_empty()).then_some(turns))
}

/// A name as it stands on a button.
fn label(name: &str) -> String {
    let name = shown(name);
    if name.chars().count() <= LABEL {
        return name;
    }
    let cut: String = name.chars().take(LABEL - 1).collect();
    format!("{cut}…")
}

#[cfg(test)]
mod tests;
