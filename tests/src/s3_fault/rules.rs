//! Which requests are struck, and how.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use chrono::{DateTime, TimeDelta, Utc};

use super::wire::{self, Request};

/// What is done to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing bad.
    Forward,
    /// This status with an error document of this code and these words; the server hears nothing.
    /// With 200 it is the lie that S3 tells of a completion which failed half-way.
    Answer(u16, String, String),
    /// The same, after the server has carried the request out.
    AnswerAfter(u16, String, String),
    /// The server carries it out, and the connection is reset instead of an answer.
    LoseAnswer,
    /// Both connections are reset when so many bytes of the request's body have passed.
    ResetAfter(u64),
    /// The client's connection is reset when so many bytes of the answer's body have passed.
    CutAnswer(u64),
    /// A read is answered as before the last write of the object: as it was asked then, and as
    /// `NoSuchKey` where nobody had asked. A listing is answered as it was asked last.
    Stale,
    /// The request's time is refused; `Date` and the words say that the server's clock is ahead
    /// by this much.
    Skewed(TimeDelta),
    /// No answer, and the connection stays open.
    Silence,
}

impl Act {
    /// An answer in the words that S3 has for the code.
    #[must_use]
    pub fn error(status: u16, code: &str) -> Self {
        Self::Answer(status, code.to_owned(), words_of(code).to_owned())
    }

    /// The same, after the server has carried the request out.
    #[must_use]
    pub fn error_after(status: u16, code: &str) -> Self {
        Self::AnswerAfter(status, code.to_owned(), words_of(code).to_owned())
    }

    /// Whether the server does what it is asked.
    pub(super) fn is_carried_out(&self) -> bool {
        matches!(
            self,
            Self::Forward | Self::AnswerAfter(..) | Self::LoseAnswer | Self::CutAnswer(_)
        )
    }
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>
fn words_of(code: &str) -> &'static str {
    match code {
        "SlowDown" => "Please reduce your request rate.",
        "TooManyRequests" => "Too many requests.",
        "InternalError" => "We encountered an internal error. Please try again.",
        "AccessDenied" => "Access Denied",
        "ExpiredToken" => "The provided token has expired.",
        _ => "The request was refused.",
    }
}

/// S3 allows a quarter of an hour.
const ALLOWED_MILLISECONDS: u32 = 900_000;

pub(super) fn skewed(by: TimeDelta) -> Vec<u8> {
    let here: DateTime<Utc> = SystemTime::now().into();
    let there = here + by;
    let date = there.format("%a, %d %b %Y %H:%M:%S GMT");
    let more = format!(
        "<RequestTime>{}</RequestTime><ServerTime>{}</ServerTime>\
         <MaxAllowedSkewMilliseconds>{ALLOWED_MILLISECONDS}</MaxAllowedSkewMilliseconds>",
        here.format("%Y%m%dT%H%M%SZ"),
        there.format("%Y-%m-%dT%H:%M:%SZ"),
    );
    let words = "The difference between the request time and the current time is too large.";
    let answer = wire::error_answer(403, "RequestTimeTooSkewed", words, &more);
    wire::with_header(answer, &format!("Date: {date}"))
}

type Matches = Arc<dyn Fn(&Request) -> bool + Send + Sync>;

/// Which requests are struck: of those that match, after the first few, each n-th, so many times.
#[derive(Clone)]
pub struct Rule {
    matches: Matches,
    act: Act,
    skip: u32,
    every: u32,
    times: u32,
    matched: u32,
    hits: Hits,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rule").field(&self.act).finish()
    }
}

/// Counts the strikes of a rule, also when the proxy has it no more.
#[derive(Clone, Debug, Default)]
pub struct Hits(Arc<AtomicU32>);

impl Hits {
    /// How many so far.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Rule {
    /// Each request that `matches`.
    #[must_use]
    pub fn new(matches: impl Fn(&Request) -> bool + Send + Sync + 'static, act: Act) -> Self {
        Self {
            matches: Arc::new(matches),
            act,
            skip: 0,
            every: 1,
            times: u32::MAX,
            matched: 0,
            hits: Hits::default(),
        }
    }

    /// Not the first `count` that match.
    #[must_use]
    pub fn skip(mut self, count: u32) -> Self {
        self.skip = count;
        self
    }

    /// Only each `count`-th that matches.
    #[must_use]
    pub fn every(mut self, count: u32) -> Self {
        self.every = count.max(1);
        self
    }

    /// At most `count`.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.times = count;
        self
    }

    pub(super) fn hits(&self) -> Hits {
        self.hits.clone()
    }

    pub(super) fn strike(&mut self, request: &Request) -> Option<Act> {
        if !(self.matches)(request) {
            return None;
        }
        self.matched += 1;
        let turn = self.matched.checked_sub(self.skip + 1)? % self.every;
        if turn != self.every - 1 || self.hits.count() >= self.times {
            return None;
        }
        self.hits.0.fetch_add(1, Ordering::Relaxed);
        Some(self.act.clone())
    }
}
