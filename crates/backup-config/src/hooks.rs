//! `[hooks]`: programs of the operator that run before and after backups.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::DurationText;

/// One program with its arguments; no shell reads it.
pub type Argv = Vec<String>;

/// `[hooks]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HooksConfig {
    /// Run one after another before a backup; when one fails, there is none.
    pub before_backup: Vec<Argv>,
    /// Run after each attempt, whatever came of it; when one fails, that is a warning.
    pub after_backup: Vec<Argv>,
    /// Run when there is no backup in the end.
    pub on_failure: Vec<Argv>,
    /// How long each may take.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub timeout: Duration,
}

impl Default for HooksConfig {
    fn default() -> Self {
        Self {
            before_backup: Vec::new(),
            after_backup: Vec::new(),
            on_failure: Vec::new(),
            timeout: Duration::from_mins(1),
        }
    }
}

/// `[source.NAME.hooks]`: each key that is said goes before that of `[hooks]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SourceHooks {
    /// Run one after another before a backup; when one fails, there is none.
    pub before_backup: Option<Vec<Argv>>,
    /// Run after each attempt, whatever came of it; when one fails, that is a warning.
    pub after_backup: Option<Vec<Argv>>,
    /// Run when there is no backup in the end.
    pub on_failure: Option<Vec<Argv>>,
    /// How long each may take.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<DurationText>")]
    pub timeout: Option<Duration>,
}

impl HooksConfig {
    /// These hooks, with what the source says otherwise.
    pub(crate) fn overridden_by(&self, source: &SourceHooks) -> Self {
        let or = |said: &Option<Vec<Argv>>, default: &Vec<Argv>| {
            said.as_ref().unwrap_or(default).clone()
        };
        Self {
            before_backup: or(&source.before_backup, &self.before_backup),
            after_backup: or(&source.after_backup, &self.after_backup),
            on_failure: or(&source.on_failure, &self.on_failure),
            timeout: source.timeout.unwrap_or(self.timeout),
        }
    }

    /// Refuses what cannot be started; the key and the number of the wrong one, and why.
    pub(crate) fn check(&self) -> Result<(), (Vec<String>, &'static str)> {
        let lists = [
            ("before_backup", &self.before_backup),
            ("after_backup", &self.after_backup),
            ("on_failure", &self.on_failure),
        ];
        for (key, hooks) in lists {
            for (index, argv) in hooks.iter().enumerate() {
                let path = || vec![key.to_owned(), index.to_string()];
                let absolute = argv.first().is_some_and(|program| program.starts_with('/'));
                if !absolute {
                    return Err((path(), "must begin with the absolute path of a program"));
                }
                if argv.iter().any(|word| word.contains('\0')) {
                    return Err((path(), "holds a NUL, which no argument can"));
                }
            }
        }
        if self.timeout.is_zero() {
            let path = vec!["timeout".to_owned()];
            return Err((path, "must be longer than nothing"));
        }
        Ok(())
    }
}
