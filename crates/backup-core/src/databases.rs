//! The databases of a server, and which of them are meant by names and patterns.

use std::collections::BTreeSet;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::error::PortError;

/// Why a database cannot be backed up as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Others are made of it. It can be backed up, but hardly anybody wants to.
    Template,
    /// Nobody may connect to it; somebody decided so.
    Closed,
    /// A `DROP DATABASE` or a move of it was interrupted; it can only be dropped.
    Invalid,
    /// The login may not connect to it.
    NoConnectRight,
    /// Its name is no text, which nobody can configure or connect to.
    UnreadableName,
}

impl Obstacle {
    /// What to say of it.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Template => "it is a template",
            Self::Closed => "it allows no connections",
            Self::Invalid => "it is invalid: dropping it was interrupted, and can only be repeated",
            Self::NoConnectRight => "the login has no right to connect to it",
            Self::UnreadableName => "its name is not UTF-8: rename it",
        }
    }

    /// Whether it is meant to be so; otherwise somebody may miss the database.
    #[must_use]
    pub fn is_by_design(self) -> bool {
        matches!(self, Self::Template | Self::Closed)
    }
}

/// One database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundDatabase {
    /// Its name, as far as it is text.
    pub name: String,
    /// What stands in the way, if anything.
    pub obstacle: Option<Obstacle>,
}

/// Tells which databases a server has.
#[async_trait]
pub trait DatabaseFinder: std::fmt::Debug + Send + Sync {
    /// All of them, templates too.
    ///
    /// # Errors
    /// As those of connecting to the server.
    ///
    /// # Cancellation
    /// `cancel` ends waiting for the server, with `Cancelled`.
    async fn databases(&self, cancel: &CancellationToken) -> Result<Vec<FoundDatabase>, PortError>;
}

/// One sign of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// Itself.
    Char(char),
    /// `?`
    One,
    /// `*`
    Any,
}

/// A name, or a pattern: `*` is any text, `?` any character, and `\` takes away the meaning of
/// the character after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    signs: Vec<Sign>,
    /// What is meant if it is a name.
    name: Option<String>,
}

impl Pattern {
    /// Reads a name or a pattern.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut signs = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            signs.push(match c {
                '*' => Sign::Any,
                '?' => Sign::One,
                '\\' => Sign::Char(chars.next().unwrap_or('\\')),
                c => Sign::Char(c),
            });
        }
        let literal = |sign: &Sign| match sign {
            Sign::Char(c) => Some(*c),
            Sign::One | Sign::Any => None,
        };
        let name = signs.iter().map(literal).collect();
        Self { signs, name }
    }

    /// The name, if it is no pattern.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether a name matches as a whole.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        // Which beginnings of the signs match what was read so far.
        let mut states = vec![false; self.signs.len() + 1];
        states[0] = true;
        self.skip(&mut states);
        for c in name {
            let mut next = vec![false; states.len()];
            for (index, sign) in self.signs.iter().enumerate() {
                if !states[index] {
                    continue;
                }
                match sign {
                    Sign::Any => next[index] = true,
                    Sign::One => next[index + 1] = true,
                    Sign::Char(wanted) => next[index + 1] |= *wanted == c,
                }
            }
            states = next;
            self.skip(&mut states);
        }
        states.last().copied().unwrap_or_default()
    }

    /// `*` may stand for nothing.
    fn skip(&self, states: &mut [bool]) {
        for (index, sign) in self.signs.iter().enumerate() {
            if states[index] && *sign == Sign::Any {
                states[index + 1] = true;
            }
        }
    }
}

/// Why these names and patterns do not mean a database, if they do not, whatever the server has.
#[must_use]
pub fn stranger(databases: &[String], exclude: &[String], name: &str) -> Option<String> {
    let matching = |patterns: &[String]| {
        let mut patterns = patterns.iter();
        patterns
            .find(|text| Pattern::new(text).matches(name))
            .cloned()
    };
    if let Some(excluded) = matching(exclude) {
        return Some(format!("{excluded:?} under exclude leaves it out"));
    }
    match matching(databases) {
        Some(_) => None,
        None => Some("nothing under databases names it".to_owned()),
    }
}

/// What names and patterns mean on a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChosenDatabases {
    /// To be backed up, sorted.
    pub take: BTreeSet<String>,
    /// Left out though a pattern matches, sorted.
    pub skip: Vec<(String, Obstacle)>,
    /// Named, and of no use; why.
    pub refuse: Vec<(String, String)>,
    /// Patterns that match nothing that can be backed up.
    pub unmatched: Vec<String>,
}

/// Looks up names and patterns. A template is taken only by its name.
#[must_use]
pub fn choose(
    databases: &[String],
    exclude: &[String],
    found: &[FoundDatabase],
) -> ChosenDatabases {
    let exclude: Vec<_> = exclude.iter().map(|text| Pattern::new(text)).collect();
    let is_meant = |name: &str| !exclude.iter().any(|pattern| pattern.matches(name));
    let mut sorted: Vec<_> = found.iter().filter(|found| is_meant(&found.name)).collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut chosen = ChosenDatabases::default();
    let mut skip = Vec::new();
    for text in databases {
        let pattern = Pattern::new(text);
        if let Some(name) = pattern.name() {
            let known = sorted.iter().find(|found| found.name == name);
            match known.map(|found| found.obstacle) {
                Some(None | Some(Obstacle::Template)) => drop(chosen.take.insert(name.to_owned())),
                Some(Some(obstacle)) => {
                    let refused = (name.to_owned(), obstacle.reason().to_owned());
                    chosen.refuse.push(refused);
                }
                None => chosen
                    .refuse
                    .push((name.to_owned(), "it is not there".to_owned())),
            }
            continue;
        }
        let mut matched = false;
        for found in sorted.iter().filter(|found| pattern.matches(&found.name)) {
            match found.obstacle {
                None => {
                    matched = true;
                    chosen.take.insert(found.name.clone());
                }
                Some(obstacle) => skip.push((found.name.clone(), obstacle)),
            }
        }
        if !matched {
            chosen.unmatched.push(text.clone());
        }
    }
    let told: BTreeSet<String> = chosen.refuse.iter().map(|(name, _)| name.clone()).collect();
    for (name, obstacle) in skip {
        let known = |(other, _): &(String, Obstacle)| *other == name;
        if !chosen.take.contains(&name) && !told.contains(&name) && !chosen.skip.iter().any(known) {
            chosen.skip.push((name, obstacle));
        }
    }
    chosen.skip.sort_by(|a, b| a.0.cmp(&b.0));
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("shop", "shop", true),
            ("shop", "Shop", false),
            ("shop", "shop2", false),
            ("*", "", true),
            ("*", "a/b c", true),
            ("sc*_*", "scratch_1", true),
            ("sc*_*", "scratch", false),
            ("*a*a*", "banana", true),
            ("*a", "banan", false),
            ("?", "\u{44f}", true),
            ("?", "ab", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("a\\\\b", "a\\b", true),
            ("a\\", "a\\", true),
            ("[ab]", "a", false),
            ("a%", "ab", false),
        ] {
            assert_eq!(
                Pattern::new(pattern).matches(name),
                expected,
                "{pattern} {name}"
            );
        }
        assert_eq!(Pattern::new("a\\*b").name(), Some("a*b"));
        assert_eq!(Pattern::new("a*b").name(), None);
    }

    fn found(name: &str, obstacle: Option<Obstacle>) -> FoundDatabase {
        FoundDatabase {
            name: name.to_owned(),
            obstacle,
        }
    }

    fn server() -> Vec<FoundDatabase> {
        vec![
            found("shop", None),
            found("scratch_1", None),
            found("template1", Some(Obstacle::Template)),
            found("template0", Some(Obstacle::Closed)),
            found("broken", Some(Obstacle::Invalid)),
            found("secret", Some(Obstacle::NoConnectRight)),
            found("crm", None),
        ]
    }

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_pattern_takes_what_can_be_taken_and_tells_what_not() {
        let chosen = choose(&strings(&["*"]), &strings(&["scratch_*"]), &server());
        let expected = ChosenDatabases {
            take: ["crm", "shop"].map(str::to_owned).into(),
            skip: vec![
                ("broken".to_owned(), Obstacle::Invalid),
                ("secret".to_owned(), Obstacle::NoConnectRight),
                ("template0".to_owned(), Obstacle::Closed),
                ("template1".to_owned(), Obstacle::Template),
            ],
            ..ChosenDatabases::default()
        };
        assert_eq!(chosen, expected);
        let by_design: Vec<_> = chosen.skip.iter().map(|(_, o)| o.is_by_design()).collect();
        assert_eq!(by_design, [false, false, true, true]);
    }

    #[test]
    fn what_is_not_meant_is_a_stranger() {
        let (databases, exclude) = (strings(&["s*", "crm"]), strings(&["scratch_*"]));
        for (name, why) in [
            ("shop", None),
            ("crm", None),
            ("crm2", Some("nothing under databases names it")),
            (
                "scratch_1",
                Some("\"scratch_*\" under exclude leaves it out"),
            ),
        ] {
            let found = stranger(&databases, &exclude, name);
            assert_eq!(found.as_deref(), why, "{name}");
        }
    }

    #[test]
    fn what_is_named_is_taken_or_refused_and_never_passed_over() {
        let named = ["template1", "secret", "gone", "shop", "s*"];
        let chosen = choose(&strings(&named), &[], &server());
        assert_eq!(
            chosen.take.iter().collect::<Vec<_>>(),
            ["scratch_1", "shop", "template1"]
        );
        let refused: Vec<_> = chosen.refuse.iter().map(|(name, _)| name).collect();
        assert_eq!(refused, ["secret", "gone"]);
        assert!(chosen.skip.is_empty() && chosen.unmatched.is_empty());
    }

    #[test]
    fn a_pattern_that_finds_nothing_to_take_is_told() {
        let chosen = choose(
            &strings(&["x*", "template*", "scr*"]),
            &strings(&["scr*"]),
            &server(),
        );
        assert_eq!(chosen.unmatched, ["x*", "template*", "scr*"]);
        assert_eq!(chosen.skip.len(), 2);
        assert!(chosen.take.is_empty());
    }
}
