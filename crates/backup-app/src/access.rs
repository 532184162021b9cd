//! Who may do what to which source: the one layer for every frontend that answers others. Pure.

use backup_config::{AccessConfig, Role, TELEGRAM, TelegramUserConfig};

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Action {
    /// See backups, runs and drills.
    View,
    /// Restore a backup under a name that the server chooses.
    Restore,
    /// Take a backup.
    Backup,
    /// Rehearse a restore.
    Drill,
    /// Prove a stored backup.
    Verify,
    /// Say that a backup stays.
    Pin,
    /// Stop a run.
    Cancel,
    /// Let a backup that was kept go.
    Unpin,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::View,
        Self::Restore,
        Self::Backup,
        Self::Drill,
        Self::Verify,
        Self::Pin,
        Self::Cancel,
        Self::Unpin,
    ];

    /// The least role that may.
    #[must_use]
    pub fn least_role(self) -> Role {
        match self {
            Self::View => Role::Viewer,
            Self::Restore => Role::Restorer,
            Self::Backup | Self::Drill | Self::Verify | Self::Pin | Self::Cancel => Role::Operator,
            Self::Unpin => Role::Admin,
        }
    }
}

/// Whether something may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Allowed,
    /// He may not, though he may know of the source.
    Forbidden,
    /// He must not learn whether there is such a source.
    Hidden,
}

/// Somebody who was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Who, in logs and records.
    pub name: String,
    /// What he may do.
    pub role: Role,
    /// Names of sources, with `*` for any characters.
    pub sources: Vec<String>,
}

impl From<&AccessConfig> for Principal {
    fn from(entry: &AccessConfig) -> Self {
        Self {
            name: entry.name.clone(),
            role: entry.role,
            sources: entry.sources.clone(),
        }
    }
}

impl From<&TelegramUserConfig> for Principal {
    fn from(entry: &TelegramUserConfig) -> Self {
        Self {
            name: format!("{TELEGRAM}{}", entry.user_id),
            role: entry.role,
            sources: entry.sources.clone(),
        }
    }
}

impl Principal {
    /// Whether he may do it. What is about no source is about all of them.
    #[must_use]
    pub fn decide(&self, action: Action, source: Option<&str>) -> Decision {
        let his = match source {
            Some(source) => self.sources.iter().any(|own| matches(own, source)),
            None => self.sources.iter().any(|own| own == "*"),
        };
        match (his, self.role >= action.least_role()) {
            (false, _) => Decision::Hidden,
            (true, false) => Decision::Forbidden,
            (true, true) => Decision::Allowed,
        }
    }

    /// Whether he may see what is of a source.
    #[must_use]
    pub fn sees(&self, source: Option<&str>) -> bool {
        self.decide(Action::View, source) == Decision::Allowed
    }
}

/// Whether a name is one of a pattern, in which `*` stands for any characters.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut name) = name.strip_prefix(first) else {
        return false;
    };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    // The earliest place for each piece leaves the most for those after it.
    for piece in pieces {
        match name.find(piece) {
            Some(at) => name = &name[at + piece.len()..],
            None => return false,
        }
    }
    name.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(role: Role, sources: &[&str]) -> Principal {
        Principal {
            name: "somebody".to_owned(),
            role,
            sources: sources.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    /// What each role may do, written out: a change of the code must be one of this table too.
    const MAY: [(Role, &[Action]); 4] = [
        (Role::Viewer, &[Action::View]),
        (Role::Restorer, &[Action::View, Action::Restore]),
        (
            Role::Operator,
            &[
                Action::View,
                Action::Restore,
                Action::Backup,
                Action::Drill,
                Action::Verify,
                Action::Pin,
                Action::Cancel,
            ],
        ),
        (Role::Admin, &Action::ALL),
    ];

    #[test]
    fn every_role_may_what_it_may_to_its_own_sources_and_knows_of_no_other() {
        for (role, may) in MAY {
            for action in Action::ALL {
                let own = if may.contains(&action) {
                    Decision::Allowed
                } else {
                    Decision::Forbidden
                };
                let one = principal(role, &["shop", "app-*"]);
                let all = principal(role, &["*"]);
                let nobody = principal(role, &[]);
                for (who, source, expected) in [
                    (&one, Some("shop"), own),
                    (&one, Some("app-1"), own),
                    (&one, Some("other"), Decision::Hidden),
                    (&one, Some("shop2"), Decision::Hidden),
                    (&one, Some("*"), Decision::Hidden),
                    (&one, Some(""), Decision::Hidden),
                    (&one, None, Decision::Hidden),
                    (&all, Some("shop"), own),
                    (&all, Some("other"), own),
                    (&all, None, own),
                    (&nobody, Some("shop"), Decision::Hidden),
                    (&nobody, None, Decision::Hidden),
                ] {
                    let found = who.decide(action, source);
                    assert_eq!(found, expected, "{role:?} {action:?} {source:?}");
                }
            }
        }
        let listed: Vec<_> = MAY.iter().map(|(role, _)| *role).collect();
        assert_eq!(listed, Role::ALL);
    }

    #[test]
    fn a_star_stands_for_any_characters_and_nothing_else_does() {
        for (pattern, name, expected) in [
            ("*", "shop", true),
            ("*", "", true),
            ("shop", "shop", true),
            ("shop", "Shop", false),
            ("shop*", "shop", true),
            ("shop*", "myshop", false),
            ("*shop", "myshop", true),
            ("*shop", "shops", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("*ab*ab", "ab", false),
            ("*ab*ab", "abab", true),
            ("s?op", "shop", false),
            ("é*", "étoile", true),
            ("**", "x", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
