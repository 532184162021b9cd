//! `[defaults]`, and what sources say otherwise.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::file::{Config, EncryptionConfig, EncryptionMode, SourceConfig};
use crate::hooks::HooksConfig;
use crate::schema::DurationText;
use crate::size::Size;

/// `[defaults]`: what every source does, unless it says otherwise under the same key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DefaultsConfig {
    /// `zstd:3`, `gzip:6`, `none`.
    pub compression: String,
    /// Parts at the same time.
    #[schemars(range(min = 1))]
    pub jobs: usize,
    /// How long a whole backup may take, with all its attempts.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub timeout: Duration,
    /// How long nothing may move.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub stall_timeout: Duration,
    /// How long a lock may be waited for.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub lock_wait_timeout: Duration,
    /// Name of a retention, for sources and destinations that name none.
    pub retention: Option<String>,
    /// How long a run that died keeps others from the same source. It is to be longer than the
    /// store may be out of reach: a run that cannot renew its lease for so long ends.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub lease: Duration,
    /// What is done when a backup failed for a reason that may pass.
    pub retry: RetryConfig,
    /// Backups at the same time, of all sources.
    #[schemars(range(min = 1))]
    pub concurrent_backups: usize,
    /// A local destination with less room gets no backup; without it, there is no limit.
    pub min_free_space: Option<Size>,
    /// How full, in percent, the file system of a local destination may be. It is about places,
    /// and no source says otherwise.
    #[schemars(range(max = 100))]
    pub warn_used_percent: u8,
    /// Where the clock of the schedules hangs.
    pub timezone: String,
    /// How late a scheduled run is still on time.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub tolerance: Duration,
    /// How late one that was missed is made up for, once.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub catch_up: Duration,
    /// Over how long the runs that have one schedule are spread.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "DurationText")]
    pub jitter: Duration,
}

impl Default for DefaultsConfig {
    fn default() -> Self {
        Self {
            compression: "zstd:2".to_owned(),
            jobs: 4,
            timeout: Duration::from_hours(6),
            stall_timeout: Duration::from_mins(30),
            lock_wait_timeout: Duration::from_mins(1),
            retention: None,
            lease: Duration::from_mins(1),
            retry: RetryConfig::default(),
            concurrent_backups: 1,
            min_free_space: None,
            warn_used_percent: 80,
            timezone: "UTC".to_owned(),
            tolerance: Duration::from_mins(5),
            catch_up: Duration::from_hours(2),
            jitter: Duration::ZERO,
        }
    }
}

/// `retry`: how often, and how long to wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// How often a backup is tried altogether; 1 is once.
    #[schemars(range(min = 1))]
    pub attempts: u32,
    /// How long to wait before the second attempt, the third and so on; the last goes for the rest.
    #[serde(with = "durations")]
    #[schemars(with = "Vec<DurationText>")]
    pub delays: Vec<Duration>,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts: 3,
            delays: [30, 60, 120].map(Duration::from_secs).to_vec(),
        }
    }
}

impl RetryConfig {
    /// Nothing is tried again.
    #[must_use]
    pub fn never() -> Self {
        Self {
            attempts: 1,
            delays: Vec::new(),
        }
    }

    /// How long to wait after so many attempts have failed; nothing if they were the last.
    #[must_use]
    pub fn delay_after(&self, attempts: u32) -> Option<Duration> {
        if attempts >= self.attempts {
            return None;
        }
        let index = usize::try_from(attempts.saturating_sub(1)).ok()?;
        let delay = self.delays.get(index).or(self.delays.last());
        Some(delay.copied().unwrap_or_default())
    }
}

/// What a backup of one source goes by, all of it decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSettings {
    /// The source's own values over those of `[defaults]`.
    pub values: DefaultsConfig,
    /// Who can read its backups.
    pub recipients: Vec<String>,
    /// Whether they are encrypted.
    pub mode: EncryptionMode,
    /// What runs before and after them.
    pub hooks: HooksConfig,
}

impl DefaultsConfig {
    /// These values, with what the source says otherwise. Every key is named, so that the compiler
    /// finds the one that somebody adds and forgets here.
    fn overridden_by(&self, source: &SourceConfig) -> Self {
        fn or<T: Clone>(said: Option<&T>, default: &T) -> T {
            said.unwrap_or(default).clone()
        }
        Self {
            compression: or(source.compression.as_ref(), &self.compression),
            jobs: or(source.jobs.as_ref(), &self.jobs),
            timeout: or(source.timeout.as_ref(), &self.timeout),
            stall_timeout: or(source.stall_timeout.as_ref(), &self.stall_timeout),
            lock_wait_timeout: or(source.lock_wait_timeout.as_ref(), &self.lock_wait_timeout),
            retention: source.retention.clone().or(self.retention.clone()),
            lease: or(source.lease.as_ref(), &self.lease),
            retry: or(source.retry.as_ref(), &self.retry),
            concurrent_backups: self.concurrent_backups,
            min_free_space: source.min_free_space.or(self.min_free_space),
            warn_used_percent: self.warn_used_percent,
            timezone: or(source.timezone.as_ref(), &self.timezone),
            tolerance: or(source.tolerance.as_ref(), &self.tolerance),
            catch_up: or(source.catch_up.as_ref(), &self.catch_up),
            jitter: or(source.jitter.as_ref(), &self.jitter),
        }
    }
}

impl Config {
    /// What goes for a source: what it says itself, else `[defaults]` and `[encryption]`.
    #[must_use]
    pub fn resolved(&self, source: &SourceConfig) -> SourceSettings {
        let EncryptionConfig {
            recipients, mode, ..
        } = &self.encryption;
        let (recipients, mode) = match &source.encryption {
            None => (recipients, *mode),
            Some(own) if own.recipients.is_empty() => (recipients, own.mode),
            Some(own) => (&own.recipients, own.mode),
        };
        SourceSettings {
            values: self.defaults.overridden_by(source),
            recipients: recipients.clone(),
            mode,
            hooks: self.hooks.overridden_by(&source.hooks),
        }
    }
}

/// Several durations, as `humantime` writes one.
mod durations {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        durations: &[Duration],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(durations.iter().copied().map(humantime_serde::Serde::from))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Duration>, D::Error> {
        let durations = Vec::<humantime_serde::Serde<Duration>>::deserialize(deserializer)?;
        Ok(durations
            .into_iter()
            .map(humantime_serde::Serde::into_inner)
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;

    fn load(toml: &str) -> Config {
        Config::from_toml(toml, &Environment::default()).unwrap()
    }

    #[test]
    fn a_source_says_otherwise_key_by_key() {
        let config = load(
            "[defaults]\njobs = 2\ntimeout = '1h'\nmin_free_space = '10GB'\n\
             [encryption]\nrecipients = ['age1all']\n\
             [source.plain]\n\
             [source.own]\ncompression = 'none'\njobs = 1\ntimeout = '2h'\nstall_timeout = '3m'\n\
             lock_wait_timeout = '4s'\nlease = '50s'\nmin_free_space = '0B'\nretention = 'r'\n\
             timezone = 'Asia/Tokyo'\ntolerance = '6m'\ncatch_up = '7h'\njitter = '8s'\n\
             retry = { attempts = 9, delays = ['1s'] }\nencryption = { recipients = ['age1own'] }\n\
             [source.clear]\nencryption = { mode = 'none' }\n[retention.r]\n",
        );
        let of = |name: &str| config.resolved(&config.source[name]);
        assert_eq!(of("plain").values, config.defaults);
        assert_eq!(of("plain").recipients, ["age1all"]);
        let own = of("own");
        let expected = DefaultsConfig {
            compression: "none".to_owned(),
            jobs: 1,
            timeout: Duration::from_hours(2),
            stall_timeout: Duration::from_mins(3),
            lock_wait_timeout: Duration::from_secs(4),
            retention: Some("r".to_owned()),
            lease: Duration::from_secs(50),
            retry: RetryConfig {
                attempts: 9,
                delays: vec![Duration::from_secs(1)],
            },
            concurrent_backups: 1,
            min_free_space: Some(Size::from_bytes(0)),
            warn_used_percent: 80,
            timezone: "Asia/Tokyo".to_owned(),
            tolerance: Duration::from_mins(6),
            catch_up: Duration::from_hours(7),
            jitter: Duration::from_secs(8),
        };
        assert_eq!(own.values, expected);
        assert_eq!(
            (own.recipients, own.mode),
            (vec!["age1own".to_owned()], EncryptionMode::Age)
        );
        assert_eq!(of("clear").mode, EncryptionMode::None);
        // And all of it can be shown.
        assert_eq!(load(&config.to_toml().unwrap()), config);
    }

    #[test]
    fn every_default_but_those_of_places_can_be_said_of_a_source() {
        let schema = crate::schema();
        let keys = |name: &str| {
            let properties = &schema["$defs"][name]["properties"];
            let keys = properties.as_object().unwrap().keys().cloned();
            keys.collect::<std::collections::BTreeSet<_>>()
        };
        let missing: Vec<_> = keys("DefaultsConfig")
            .difference(&keys("SourceConfig"))
            .cloned()
            .collect();
        assert_eq!(missing, ["concurrent_backups", "warn_used_percent"]);
    }

    #[test]
    fn the_last_delay_goes_for_the_rest() {
        let retry = load("[defaults]\nretry = { attempts = 5, delays = ['1s', '2s'] }");
        let retry = retry.defaults.retry;
        let delays: Vec<_> = (1..6).map(|n| retry.delay_after(n)).collect();
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(
            delays,
            [seconds(1), seconds(2), seconds(2), seconds(2), None]
        );
        assert_eq!(RetryConfig::never().delay_after(1), None);
        let default = load("[source.a]\nretry = { attempts = 2 }");
        let own = default.source["a"].retry.clone().unwrap();
        assert_eq!(
            (own.delay_after(1), own.delay_after(2)),
            (seconds(30), None)
        );
    }
}
