//! `[retention.NAME]`: what to keep.

use std::num::NonZeroUsize;
use std::time::Duration;

use backup_core::retention::{Count, Guards};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{CountText, DurationText};

/// `[retention.NAME]`. Of the four tiers, those that are not said have their defaults, unless a
/// number or an age is all that is said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    /// How many days keep their first backup.
    #[schemars(with = "Option<CountText>")]
    pub daily: Option<Count>,
    /// How many weeks do.
    #[schemars(with = "Option<CountText>")]
    pub weekly: Option<Count>,
    /// How many months do.
    #[schemars(with = "Option<CountText>")]
    pub monthly: Option<Count>,
    /// How many years do.
    #[schemars(with = "Option<CountText>")]
    pub yearly: Option<Count>,
    /// How many of the newest are kept.
    #[schemars(with = "Option<CountText>")]
    pub keep_last: Option<Count>,
    /// For how long each is kept.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<DurationText>")]
    pub keep_within: Option<Duration>,
    /// How many of the newest good ones, and of the proved ones, stay whatever the rest says.
    pub min_keep: Option<NonZeroUsize>,
    /// Where midnight is.
    pub timezone: Option<String>,
    /// How many one run may delete.
    #[schemars(with = "Option<CountText>")]
    pub max_deletions: Option<Count>,
}

/// How many of each tier are kept, all of them resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiers {
    /// Days.
    pub daily: Count,
    /// Weeks.
    pub weekly: Count,
    /// Months.
    pub monthly: Count,
    /// Years.
    pub yearly: Count,
}

impl RetentionConfig {
    /// What is kept of each tier: nothing of any, where the policy is a number or an age alone.
    #[must_use]
    pub fn tiers(&self) -> Tiers {
        let said = [self.daily, self.weekly, self.monthly, self.yearly];
        let others = self.keep_last.is_some() || self.keep_within.is_some();
        let only_others = others && said.iter().all(Option::is_none);
        let or = |count: Option<Count>, default: u32| {
            let default = if only_others { 0 } else { default };
            count.unwrap_or(Count::of(default))
        };
        Tiers {
            daily: or(self.daily, 4),
            weekly: or(self.weekly, 4),
            monthly: or(self.monthly, 4),
            yearly: or(self.yearly, 999),
        }
    }

    /// Whether it says what to keep, and not only details.
    #[must_use]
    pub fn has_rules(&self) -> bool {
        let counts = [
            self.daily,
            self.weekly,
            self.monthly,
            self.yearly,
            self.keep_last,
        ];
        counts.iter().any(Option::is_some) || self.keep_within.is_some()
    }

    /// What no rule goes below.
    #[must_use]
    pub fn guards(&self) -> Guards {
        let default = Guards::default();
        Guards {
            min_keep: self.min_keep.unwrap_or(default.min_keep),
            ..default
        }
    }

    /// Refuses what would keep nothing.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn check(&self) -> Result<(), &'static str> {
        let tiers = self.tiers();
        let counts = [
            tiers.daily,
            tiers.weekly,
            tiers.monthly,
            tiers.yearly,
            self.keep_last.unwrap_or(Count::None),
        ];
        if self.keep_within.is_some_and(|within| within.is_zero()) {
            return Err("keep_within is no time at all");
        }
        if counts.iter().all(|count| *count == Count::None) && self.keep_within.is_none() {
            return Err("it keeps nothing");
        }
        if self.max_deletions == Some(Count::None) {
            return Err("max_deletions must be a number from 1, or \"unlimited\"");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::error::Error;
    use crate::{Config, Environment};

    fn load(toml: &str) -> Result<Config, Error> {
        Config::from_toml(toml, &Environment::default())
    }

    fn tiers(toml: &str) -> [String; 4] {
        let config = load(&format!("[retention.r]\n{toml}")).unwrap();
        let tiers = config.retention["r"].tiers();
        [tiers.daily, tiers.weekly, tiers.monthly, tiers.yearly].map(|count| count.to_string())
    }

    #[test]
    fn tiers_that_are_not_said_have_their_defaults() {
        assert_eq!(tiers(""), ["4", "4", "4", "999"]);
        assert_eq!(tiers("weekly = 10"), ["4", "10", "4", "999"]);
        assert_eq!(
            tiers("yearly = 'unlimited'\nmonthly = 'none'\nkeep_last = 3"),
            ["4", "4", "none", "unlimited"]
        );
        assert_eq!(tiers("min_keep = 7"), ["4", "4", "4", "999"]);
        // Each of these says all.
        assert_eq!(tiers("keep_within = '2555d'"), ["none"; 4]);
        assert_eq!(tiers("keep_last = 3"), ["none"; 4]);
    }

    #[test]
    fn what_would_keep_nothing_is_refused_with_its_name() {
        let nothing = "daily = 'none'\nweekly = 'none'\nmonthly = 'none'\nyearly = 'none'";
        for (toml, says) in [
            (nothing, "retention.r: it keeps nothing"),
            ("keep_last = 'none'", "retention.r: it keeps nothing"),
            ("keep_within = '0s'", "keep_within is no time at all"),
            ("daily = 0", "retention.r.daily: expected a number from 1"),
            ("daily = -1", "retention.r.daily: expected a number from 1"),
            ("weekly = 'all'", "retention.r.weekly"),
            ("min_keep = 0", "retention.r.min_keep"),
            ("max_deletions = 'none'", "max_deletions"),
            ("dayly = 3", "unknown key \"dayly\" in retention.r"),
        ] {
            let error = load(&format!("[retention.r]\n{toml}")).unwrap_err();
            assert!(error.to_string().contains(says), "{toml}: {error}");
        }
    }

    #[test]
    fn a_name_that_is_not_defined_is_an_error_wherever_it_stands() {
        for section in ["source.a", "destination.a", "defaults"] {
            let error = load(&format!("[{section}]\nretention = 'x'")).unwrap_err();
            let text = format!("{section}.retention: retention \"x\" is not configured");
            assert_eq!(error.to_string(), text);
            let toml = format!("[{section}]\nretention = 'x'\n[retention.x]\ndaily = 3");
            load(&toml).unwrap();
        }
    }

    #[test]
    fn it_survives_being_shown() {
        let toml = "[retention.r]\ndaily = 3\nyearly = 'unlimited'\nkeep_within = '30d'\n\
                    timezone = 'Europe/Berlin'\nmin_keep = 2\nmax_deletions = 10";
        let config = load(toml).unwrap();
        assert_eq!(load(&config.to_toml().unwrap()).unwrap(), config);
    }
}
