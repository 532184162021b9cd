//! What runs by itself, and when.

use std::time::Duration;

use backup_config::{Config, SourceConfig};
use backup_core::run_record::Operation;
use backup_schedule::{Job, Schedule, ScheduleError, Tz, jitter_of};
use chrono::{DateTime, FixedOffset, TimeDelta, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::App;
use crate::error::AppError;
use crate::values::WrongValue;

/// Something that runs by a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    /// What is run.
    pub operation: Operation,
    /// The configured source that is backed up; everything else is run for all sources.
    pub source: Option<String>,
    /// When.
    pub job: Job,
}

/// A schedule as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ScheduleReport {
    /// What is run.
    #[schema(value_type = String)]
    pub operation: Operation,
    /// The source, if it is for one.
    pub source: Option<String>,
    /// As it was written.
    pub schedule: String,
    /// In words.
    pub description: String,
    /// Where its clock hangs.
    pub timezone: &'static str,
    /// How much later than the schedule says it always runs.
    pub jitter_seconds: i64,
    /// How late it is on time.
    pub tolerance_seconds: i64,
    /// How late it is made up for.
    pub catch_up_seconds: i64,
    /// The next runs, jitter included.
    pub next: Vec<NextRun>,
}

/// When something runs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct NextRun {
    /// In the zone of the schedule.
    #[schema(value_type = String)]
    pub local: DateTime<FixedOffset>,
    /// The same moment.
    #[schema(value_type = String)]
    pub utc: DateTime<Utc>,
}

impl Scheduled {
    /// What it is and when it runs the next times after a moment.
    #[must_use]
    pub fn report(&self, now: DateTime<Utc>, count: usize) -> ScheduleReport {
        let Job {
            schedule,
            jitter,
            tolerance,
            catch_up,
        } = &self.job;
        let slots = schedule.slots(now - *jitter, DateTime::<Utc>::MAX_UTC);
        let next = slots.take(count).map(|slot| slot + *jitter);
        ScheduleReport {
            operation: self.operation.clone(),
            source: self.source.clone(),
            schedule: schedule.to_string(),
            description: schedule.describe(),
            timezone: schedule.zone().name(),
            jitter_seconds: jitter.num_seconds(),
            tolerance_seconds: tolerance.num_seconds(),
            catch_up_seconds: catch_up.num_seconds(),
            next: next
                .map(|utc| NextRun {
                    local: utc.with_timezone(&schedule.zone()).fixed_offset(),
                    utc,
                })
                .collect(),
        }
    }
}

impl App {
    /// Everything that has a schedule: sources by name, then what is run for all.
    ///
    /// # Errors
    /// None: loading the configuration has found them all.
    pub fn schedules(&self) -> Result<Vec<Scheduled>, AppError> {
        schedules(self.config()).map_err(|wrong| AppError::usage(wrong.message))
    }
}

/// All schedules of a configuration.
pub(crate) fn schedules(config: &Config) -> Result<Vec<Scheduled>, WrongValue> {
    let defaults = &config.defaults;
    let zone = zone(&["defaults", "timezone"], Some(&defaults.timezone))?.unwrap_or(Tz::UTC);
    let reader = Reader { config, zone };
    let mut found = Vec::new();
    for (name, source) in &config.source {
        let said = Said {
            path: &["source", name],
            schedule: source.schedule.as_ref(),
            timezone: source.timezone.as_ref(),
        };
        let operation = Operation::Backup;
        found.extend(reader.scheduled(operation, &said, Some((name, source)))?);
    }
    let drill = &config.drill;
    let (verify, prune) = (&config.verify, &config.prune);
    for (operation, section, schedule, timezone) in [
        (Operation::Drill, "drill", &drill.schedule, &drill.timezone),
        (
            Operation::Verify,
            "verify",
            &verify.schedule,
            &verify.timezone,
        ),
        (Operation::Prune, "prune", &prune.schedule, &prune.timezone),
    ] {
        let said = Said {
            path: &[section],
            schedule: schedule.as_ref(),
            timezone: timezone.as_ref(),
        };
        found.extend(reader.scheduled(operation, &said, None)?);
    }
    Ok(found)
}

/// What a section says.
struct Said<'a> {
    path: &'a [&'a str],
    schedule: Option<&'a String>,
    timezone: Option<&'a String>,
}

struct Reader<'a> {
    config: &'a Config,
    zone: Tz,
}

impl Reader<'_> {
    fn scheduled(
        &self,
        operation: Operation,
        said: &Said<'_>,
        source: Option<(&String, &SourceConfig)>,
    ) -> Result<Option<Scheduled>, WrongValue> {
        let key = |key| [said.path, &[key]].concat();
        let zone = zone(&key("timezone"), said.timezone)?.unwrap_or(self.zone);
        let Some(text) = said.schedule else {
            return Ok(None);
        };
        let schedule = Schedule::new(text, zone)
            .map_err(|error| WrongValue::new(&key("schedule"), error.to_string()))?;
        let values = match source {
            Some((_, source)) => self.config.resolved(source).values,
            None => self.config.defaults.clone(),
        };
        Ok(Some(Scheduled {
            operation,
            source: source.map(|(name, _)| name.clone()),
            job: Job {
                schedule,
                jitter: jitter_of(&said.path.join("."), time(values.jitter)),
                tolerance: time(values.tolerance),
                catch_up: time(values.catch_up),
            },
        }))
    }
}

/// The configuration allows weeks at most.
fn time(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::zero())
}

/// The time zone that a value names.
pub(crate) fn zone(path: &[&str], name: Option<&String>) -> Result<Option<Tz>, WrongValue> {
    let zone = name.map(|name| name.parse()).transpose();
    zone.map_err(|_| WrongValue::new(path, ScheduleError::Zone.to_string()))
}

#[cfg(test)]
mod tests {
    use backup_config::Environment;

    use super::*;

    fn reports(toml: &str, now: &str) -> Vec<ScheduleReport> {
        let config = Config::from_toml(toml, &Environment::default()).unwrap();
        let all = schedules(&config).map_err(|wrong| wrong.message).unwrap();
        let now = now.parse().unwrap();
        all.iter().map(|one| one.report(now, 2)).collect()
    }

    #[test]
    fn what_a_source_does_not_say_the_defaults_do() {
        let toml = "
            [defaults]
            timezone = 'Europe/Berlin'
            catch_up = '3h'
            [source.a]
            schedule = '30 2 * * *'
            [source.b]
            schedule = '@daily'
            timezone = 'UTC'
            tolerance = '1m'
            catch_up = '0s'
            [source.c]
            [prune]
            schedule = '0 12 * * *'
            timezone = 'Asia/Kathmandu'";
        let reports = reports(toml, "2026-03-28T12:00:00Z");
        let shown: Vec<_> = reports
            .iter()
            .map(|one| {
                let name = one.source.as_deref().unwrap_or("-");
                let times = [
                    one.tolerance_seconds,
                    one.catch_up_seconds,
                    one.jitter_seconds,
                ];
                let next: Vec<_> = one.next.iter().map(|run| run.local.to_rfc3339()).collect();
                (one.operation.as_str(), name, times, next.join(" "))
            })
            .collect();
        let next = [
            // The clocks are put on.
            "2026-03-29T03:00:00+02:00 2026-03-30T02:30:00+02:00",
            "2026-03-29T00:00:00+00:00 2026-03-30T00:00:00+00:00",
            "2026-03-29T12:00:00+05:45 2026-03-30T12:00:00+05:45",
        ];
        let expected = [
            ("backup", "a", [300, 10_800, 0], next[0].to_owned()),
            ("backup", "b", [60, 0, 0], next[1].to_owned()),
            ("prune", "-", [300, 10_800, 0], next[2].to_owned()),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn jitter_is_in_what_is_shown() {
        let toml = "
            [defaults]
            jitter = '1h'
            [source.a]
            schedule = '0 3 * * *'
            [source.b]
            schedule = '0 3 * * *'";
        let reports = reports(toml, "2026-03-28T12:00:00Z");
        let delay = |one: &ScheduleReport| one.jitter_seconds;
        assert_ne!(delay(&reports[0]), delay(&reports[1]));
        for one in &reports {
            let slot: DateTime<Utc> = "2026-03-29T03:00:00Z".parse().unwrap();
            assert_eq!(
                one.next[0].utc,
                slot + TimeDelta::seconds(one.jitter_seconds)
            );
            assert!((0..3600).contains(&one.jitter_seconds));
        }
    }
}
