//! Telling people, and programs that watch, how runs end and what is not as it should be.
//!
//! A [`Notice`] is content, not text of one form: a title, plain facts with the words and the values,
//! and what failed. What a mail, a chat or a program makes of it is for the [`Notifier`]. Which
//! notices are worth telling is decided in [`told`], which is pure, and what was told already lies in
//! the store ([`board`]), so that all who work on one bucket tell once together.

pub mod board;
pub mod told;

use std::fmt;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::backup::SourceName;
use crate::error::PortError;
use crate::run_record::Operation;
use crate::text::Line;

/// What a notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoticeEvent {
    /// A run begins.
    Started,
    /// A run did what it was to do.
    Success,
    /// A run failed, or did not do all that it was to do.
    Failure,
    /// What lies in the places is too old, or not as it should be.
    Stale,
    /// What was told as a failure or as stale is over.
    Recovered,
    /// Somebody wants to see whether notices arrive.
    Test,
}

impl NoticeEvent {
    /// The name used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Stale => "stale",
            Self::Recovered => "recovered",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for NoticeEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How bad a notice is: its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tone {
    /// Nothing is to be done.
    Good,
    /// Neither good nor bad.
    Neutral,
    /// Somebody should look at it.
    Warning,
    /// Somebody must.
    Bad,
}

/// One thing that is known.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fact {
    /// For programs: `raw_bytes`.
    pub name: &'static str,
    /// For people: `Raw size`.
    pub label: &'static str,
    /// What people read.
    pub text: Line,
    /// What programs read.
    pub value: serde_json::Value,
}

impl Fact {
    /// A fact whose words are also its value.
    pub fn new(name: &'static str, label: &'static str, text: impl Into<Line>) -> Self {
        let text = text.into();
        let value = text.as_str().into();
        Self {
            name,
            label,
            text,
            value,
        }
    }

    /// The same with a value that programs can count with.
    #[must_use]
    pub fn with_value(mut self, value: impl Into<serde_json::Value>) -> Self {
        self.value = value.into();
        self
    }
}

/// What is to be told. Every text in it is one line that can stand anywhere; a notifier escapes only
/// what its own form would take for more than text.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// What it is about.
    pub event: NoticeEvent,
    /// How bad it is.
    pub tone: Tone,
    /// What was done, if it is about a run.
    pub operation: Option<Operation>,
    /// To which source.
    pub source: Option<SourceName>,
    /// When it was found out.
    pub at: DateTime<Utc>,
    /// The machine that found it out.
    pub host: Line,
    /// All of it in a few words: a subject.
    pub title: Line,
    /// What goes beyond the title, in a sentence each.
    pub remarks: Vec<Line>,
    /// Why it failed.
    pub error: Option<Line>,
    /// What to do about it.
    pub hint: Option<Line>,
    /// What is known.
    pub facts: Vec<Fact>,
}

impl Notice {
    /// A notice without facts.
    pub fn new(event: NoticeEvent, tone: Tone, at: DateTime<Utc>, title: impl Into<Line>) -> Self {
        Self {
            event,
            tone,
            operation: None,
            source: None,
            at,
            host: Line::default(),
            title: title.into(),
            remarks: Vec::new(),
            error: None,
            hint: None,
            facts: Vec::new(),
        }
    }
}

/// What is known of a notice that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Who took it and what he said: `mail.example.com: 250 queued`.
    pub said: String,
}

/// Tells notices to somebody. An implementation is one address: a mailbox, a chat, a URL.
#[async_trait]
pub trait Notifier: fmt::Debug + Send + Sync {
    /// Tells one notice. What may pass is tried again, with growing pauses, or when the other side says
    /// when; after a few tries, or when the time that it was made with is over, it gives up. So it may
    /// be called once for each notice and returns in bounded time.
    ///
    /// # Errors
    /// When it is not known that the other side took it; it may have. No error names a secret, and
    /// addresses that are secrets themselves are not named either.
    ///
    /// # Cancellation
    /// Dropping the future gives up; the notice may have arrived.
    async fn notify(&self, notice: &Notice) -> Result<Receipt, PortError>;
}
