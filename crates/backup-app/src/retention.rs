//! Which rules backups expire by.

use std::sync::Arc;
use std::time::Duration;

use backup_config::RetentionConfig;
use backup_core::backup::SourceName;
use backup_core::engine::ExpiryRules;
use backup_core::retention::{Count, RetentionPolicy};
use backup_retention::{AnyOf, Gfs, KeepLast, KeepWithin, SimulatedYear, Tz, simulate};
use chrono::{DateTime, TimeDelta, Utc};

use crate::App;
use crate::error::AppError;
use crate::place::Place;

/// No orphan is younger.
const LEAST_GRACE: TimeDelta = TimeDelta::days(1);

/// The policy that settings describe; `name` is what they are called in errors.
fn policy(name: &str, settings: &RetentionConfig) -> Result<Box<dyn RetentionPolicy>, AppError> {
    let checked = settings.check();
    checked.map_err(|reason| AppError::usage(format!("{name}: {reason}")))?;
    let zone = match &settings.timezone {
        Some(zone) => zone.parse::<Tz>().map_err(|_| {
            AppError::usage_hint(
                format!("{name}: there is no time zone {zone:?}"),
                "say one like UTC or Europe/Berlin",
            )
        })?,
        None => Tz::UTC,
    };
    let tiers = settings.tiers();
    let mut policies: Vec<Box<dyn RetentionPolicy>> = vec![Box::new(Gfs {
        daily: tiers.daily,
        weekly: tiers.weekly,
        monthly: tiers.monthly,
        yearly: tiers.yearly,
        zone,
    })];
    if let Some(count) = settings.keep_last {
        policies.push(Box::new(KeepLast(count)));
    }
    if let Some(within) = settings.keep_within {
        let within = TimeDelta::from_std(within).unwrap_or(TimeDelta::MAX);
        policies.push(Box::new(KeepWithin(within)));
    }
    Ok(Box::new(AnyOf::new(policies)))
}

impl App {
    /// The rules for the backups of a source at a place: those of the command line, else those of
    /// the source and of the destination, else the default ones. Where both source and destination
    /// have some, what either keeps stays. `None` when nobody chose any.
    ///
    /// # Errors
    /// When what was chosen makes no sense.
    pub fn expiry_rules(
        &self,
        source: &SourceName,
        place: &Place,
    ) -> Result<Option<ExpiryRules>, AppError> {
        if let Some(given) = self.given_retention()? {
            return Ok(Some(self.rules(&[("the policy", given)])?));
        }
        let config = self.config();
        let of_source = config.settings_of(source.as_str());
        let of_source = of_source.and_then(|source| source.retention.as_ref());
        let mut names: Vec<_> = of_source.into_iter().collect();
        names.extend(&place.settings.retention);
        if names.is_empty() {
            names.extend(&config.defaults.retention);
        }
        names.dedup();
        let chosen: Vec<_> = names
            .into_iter()
            .filter_map(|name| Some((name.as_str(), config.retention.get(name)?)))
            .collect();
        if chosen.is_empty() {
            return Ok(None);
        }
        self.rules(&chosen).map(Some)
    }

    /// What a policy would keep of one backup a day from `start`, at the end of each year. It is
    /// the named one, or that of the command line.
    ///
    /// # Errors
    /// When there is no such policy, or none is given.
    pub fn simulate(
        &self,
        name: Option<&str>,
        start: DateTime<Utc>,
        years: u32,
    ) -> Result<Vec<SimulatedYear>, AppError> {
        let named = match name {
            Some(name) => Some(self.config().retention.get(name).ok_or_else(|| {
                backup_config::Error::undefined("retention", name, self.config().retention.keys())
            })?),
            None => self.given_retention()?,
        };
        let Some(settings) = named else {
            return Err(AppError::usage_hint(
                "no policy is given",
                "say --retention NAME, or what to keep, such as --keep-daily 7",
            ));
        };
        let rules = self.rules(&[(name.unwrap_or("the policy"), settings)])?;
        Ok(simulate(&*rules.policy, &rules.guards, start, years)?)
    }

    /// What the command line says, if it says what to keep.
    fn given_retention(&self) -> Result<Option<&RetentionConfig>, AppError> {
        let given = &self.overrides().retention;
        if given.has_rules() {
            return Ok(Some(given));
        }
        if *given != RetentionConfig::default() {
            return Err(AppError::usage_hint(
                "what is to be kept is not said",
                "say it too, such as --keep-daily 7",
            ));
        }
        Ok(None)
    }

    fn rules(&self, chosen: &[(&str, &RetentionConfig)]) -> Result<ExpiryRules, AppError> {
        let mut policies = Vec::new();
        for (name, settings) in chosen {
            policies.push(policy(name, settings)?);
        }
        let mut rules = ExpiryRules::new(Arc::new(AnyOf::new(policies)));
        let guards = chosen.iter().map(|(_, settings)| settings.guards());
        if let Some(strictest) = guards.max_by_key(|guards| guards.min_keep) {
            rules.guards = strictest;
        }
        let limits = chosen
            .iter()
            .filter_map(|(_, settings)| settings.max_deletions);
        if let Some(least) = limits.min_by_key(|count: &Count| count.limit()) {
            rules.max_deletions = least;
        }
        // A run that may take longer than a day has older objects.
        let config = self.config();
        let sources = config.source.values().filter_map(|source| source.timeout);
        let longest = sources.fold(config.defaults.timeout, Duration::max);
        let timeout = TimeDelta::from_std(longest);
        let twice = timeout.ok().and_then(|timeout| timeout.checked_mul(2));
        rules.orphan_grace = twice.unwrap_or(TimeDelta::MAX).max(LEAST_GRACE);
        Ok(rules)
    }
}
