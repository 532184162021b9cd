//! What we did with a database, in the first line of its comment. The server keeps it with the
//! database itself and changes both in one transaction, so it is the journal of an exchange: no
//! file of ours can be older or newer than what happened.
//!
//! The owner of a database can write what he likes there. So a mark that could make us rename or
//! drop something counts only on a database that has the name which we gave it, and the id: an
//! owner can do neither without the right to create databases.

use backup_core::backup::{BackupId, SourceName};
use backup_core::run_record::RunId;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{quote_ident, quote_literal};

const MADE: &str = "made by backup-manager: ";
const ARCHIVE: &str = "made by backup-manager as an archive: ";
const SANDBOX: &str = "made by backup-manager as a sandbox: ";
const NEWCOMER: &str = "made by backup-manager to replace ";
const ASIDE: &str = "set aside by backup-manager: ";
/// How what is said of a restore ends until everything is loaded.
const UNFINISHED: &str = ", not finished";

/// Longer names are cut by the server: `NAMEDATALEN` less one.
/// <https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS>
const MAX_NAME_BYTES: usize = 63;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A restore made it, as the text says.
    Made(String),
    /// The same, to be looked at until the next takes its place.
    Archive(String),
    /// A restore made it, or is making it, for somebody to look into for a time.
    Sandbox(SandboxMark),
    /// A restore made it, or is making it, to replace a database.
    Newcomer {
        /// On the way to what.
        way: Way,
        /// What restored it.
        made: String,
    },
    /// It was replaced.
    Aside(Aside),
}

/// Whose a sandbox is, until when, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SandboxMark {
    /// Who asked for it.
    pub(crate) person: String,
    /// When it may be dropped.
    pub(crate) until: DateTime<Utc>,
    /// Of which source.
    pub(crate) source: SourceName,
    /// Which backup.
    pub(crate) backup: BackupId,
}

/// Which database is going to be replaced by which run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Way {
    /// The database.
    pub(crate) database: String,
    /// The run.
    pub(crate) run: RunId,
}

/// How a database came to be set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Aside {
    /// The name it had.
    pub(crate) database: String,
    /// The run that replaced it.
    pub(crate) run: RunId,
    /// Its own id, which a dump does not bring to another server.
    pub(crate) oid: u32,
    /// Replaced by this backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) backup: Option<BackupId>,
    /// Of this source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<SourceName>,
    /// Whether the record of that run is written.
    #[serde(default)]
    pub(crate) recorded: bool,
    /// Whether the next replacement may drop it.
    #[serde(default)]
    pub(crate) disposable: bool,
}

/// The connection limit of a database that was made and not yet marked, which nobody would choose: both
/// come with the database itself, while a comment comes after it. Nobody can have been in it.
pub(crate) const UNMARKED_LIMIT: i32 = 1_983_472_605;

/// The name of a database that is restored to replace `database`.
pub(crate) fn newcomer_name(database: &str, run: &RunId) -> String {
    generated_name(database, "new", run)
}

/// The name under which `database` is kept when it is replaced.
pub(crate) fn kept_name(database: &str, run: &RunId) -> String {
    generated_name(database, "before", run)
}

/// As much of the database's own name as fits, and what tells it from every other.
fn generated_name(database: &str, what: &str, run: &RunId) -> String {
    let suffix = format!("__{what}_{run}");
    let room = MAX_NAME_BYTES.saturating_sub(suffix.len());
    let room = database.floor_char_boundary(room);
    format!("{}{suffix}", &database[..room])
}

/// A database's comment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Comment {
    /// Our line, if there is one.
    pub(crate) mark: Option<Mark>,
    /// Everybody else's.
    pub(crate) rest: Option<String>,
}

impl Mark {
    fn parse(line: &str) -> Option<Self> {
        if let Some(made) = line.strip_prefix(MADE) {
            return Some(Self::Made(made.to_owned()));
        }
        if let Some(made) = line.strip_prefix(ARCHIVE) {
            return Some(Self::Archive(made.to_owned()));
        }
        if let Some(text) = line.strip_prefix(SANDBOX) {
            return serde_json::from_str(text).ok().map(Self::Sandbox);
        }
        if let Some(text) = line.strip_prefix(ASIDE) {
            return serde_json::from_str(text).ok().map(Self::Aside);
        }
        // Names are written as JSON, which has no line breaks whatever they have.
        let text = line.strip_prefix(NEWCOMER)?;
        let mut ways = serde_json::Deserializer::from_str(text).into_iter::<Way>();
        let way = ways.next()?.ok()?;
        let made = text.get(ways.byte_offset()..)?.strip_prefix(": ")?;
        Some(Self::Newcomer {
            way,
            made: made.to_owned(),
        })
    }

    /// The same until everything is loaded. What is for us to sweep has no need of it.
    pub(crate) fn unfinished(&self) -> Self {
        match self {
            Self::Made(made) => Self::Made(format!("{made}{UNFINISHED}")),
            Self::Archive(made) => Self::Archive(format!("{made}{UNFINISHED}")),
            other => other.clone(),
        }
    }

    /// What is being restored into it, or was when that ended.
    pub(crate) fn unfinished_restore(&self) -> Option<&str> {
        match self {
            Self::Made(made) | Self::Archive(made) => made.strip_suffix(UNFINISHED),
            _ => None,
        }
    }

    /// The line.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Made(made) => format!("{MADE}{made}"),
            Self::Archive(made) => format!("{ARCHIVE}{made}"),
            Self::Sandbox(sandbox) => format!("{SANDBOX}{}", serde_json::json!(sandbox)),
            Self::Newcomer { way, made } => {
                format!("{NEWCOMER}{}: {made}", serde_json::json!(way))
            }
            Self::Aside(aside) => format!("{ASIDE}{}", serde_json::json!(aside)),
        }
    }
}

impl Comment {
    /// Takes a comment apart.
    pub(crate) fn parse(text: Option<&str>) -> Self {
        let Some(text) = text else {
            return Self::default();
        };
        let (first, rest) = match text.split_once('\n') {
            Some((first, rest)) => (first, Some(rest)),
            None => (text, None),
        };
        match Mark::parse(first) {
            Some(mark) => Self {
                mark: Some(mark),
                rest: rest.map(str::to_owned),
            },
            None => Self {
                mark: None,
                rest: Some(text.to_owned()),
            },
        }
    }

    /// The text, if there is any.
    pub(crate) fn text(&self) -> Option<String> {
        match (&self.mark, &self.rest) {
            (Some(mark), Some(rest)) => Some(format!("{}\n{rest}", mark.line())),
            (Some(mark), None) => Some(mark.line()),
            (None, rest) => rest.clone(),
        }
    }

    /// The statement that gives it to a database.
    pub(crate) fn statement(&self, database: &str) -> String {
        let text = self.text();
        let text = text.map_or_else(|| "NULL".to_owned(), |text| quote_literal(&text));
        format!("COMMENT ON DATABASE {} IS {text}", quote_ident(database))
    }

    /// This comment below one more line of ours.
    pub(crate) fn below(self, mark: Mark) -> Self {
        Self {
            mark: Some(mark),
            rest: self.text(),
        }
    }

    /// What was below our line; itself without one.
    pub(crate) fn without_mark(self) -> Self {
        match self.mark {
            Some(_) => Self::parse(self.rest.as_deref()),
            None => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aside() -> Aside {
        Aside {
            database: "shop\n\"one\"".to_owned(),
            run: "20260205T030000Z-7f3a09c2".parse().unwrap(),
            oid: 16384,
            backup: Some("20260204T030000Z-7f3a".parse().unwrap()),
            source: Some(SourceName::new("shop").unwrap()),
            recorded: false,
            disposable: true,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let made = "restore of shop, run 1".to_owned();
        for mark in [
            Mark::Made(made.clone()),
            Mark::Archive(made.clone()),
            Mark::Sandbox(SandboxMark {
                person: "anna\n\"accounts\"".to_owned(),
                until: "2026-02-06T03:00:00Z".parse().unwrap(),
                source: SourceName::new("shop").unwrap(),
                backup: "20260204T030000Z-7f3a".parse().unwrap(),
            }),
            Mark::Newcomer {
                way: Way {
                    database: "a \"b\": c\nd".to_owned(),
                    run: aside().run,
                },
                made,
            },
            Mark::Aside(aside()),
        ] {
            for rest in [None, Some("theirs\nand more".to_owned())] {
                let comment = Comment {
                    mark: Some(mark.clone()),
                    rest,
                };
                let text = comment.text().unwrap();
                assert_eq!(Comment::parse(Some(&text)), comment, "{text}");
                assert!(!mark.line().contains('\n'), "{text}");
            }
        }
    }

    #[test]
    fn what_is_not_finished_says_so() {
        let made = Mark::Made("restore of shop, run 1".to_owned());
        assert_eq!(made.unfinished_restore(), None);
        let unfinished = Mark::parse(&made.unfinished().line()).unwrap();
        assert_eq!(
            unfinished.unfinished_restore(),
            Some("restore of shop, run 1")
        );
        let aside = Mark::Aside(aside());
        assert_eq!(aside.unfinished(), aside);
    }

    #[test]
    fn the_comments_of_others_stay() {
        for text in [
            "",
            "the shop",
            "the shop\nmade by backup-manager: not in the first line",
            "set aside by backup-manager: {\"no\": \"mark\"}",
            "made by backup-manager to replace shop: no name",
        ] {
            let comment = Comment::parse(Some(text));
            assert_eq!(comment.mark, None, "{text}");
            assert_eq!(comment.text().as_deref(), Some(text));
        }
        assert_eq!(Comment::parse(None).text(), None);
    }

    #[test]
    fn setting_aside_can_be_taken_back() {
        for text in [None, Some("the shop"), Some("made by backup-manager: x\ny")] {
            let before = Comment::parse(text);
            let after = before.clone().below(Mark::Aside(aside()));
            assert_eq!(after.mark, Some(Mark::Aside(aside())));
            let again = Comment::parse(after.text().as_deref());
            assert_eq!(again.without_mark(), before, "{text:?}");
        }
    }

    #[test]
    fn names_fit() {
        let run = aside().run;
        let short = kept_name("shop", &run);
        assert_eq!(short, "shop__before_20260205T030000Z-7f3a09c2");
        for name in ["x".repeat(63), "ы".repeat(31)] {
            for long in [kept_name(&name, &run), newcomer_name(&name, &run)] {
                assert!(long.len() <= MAX_NAME_BYTES && long.len() > 61, "{long}");
                assert!(long.ends_with("_20260205T030000Z-7f3a09c2"), "{long}");
            }
        }
    }
}
