//! What a check found, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use chrono::{DateTime, Utc};

use super::{CheckReport, SourceCheck};
use crate::jobs::JobView;
use crate::scheduler::MissedSlots;

/// One metric with all its series.
struct Metric {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
    series: Vec<(String, String)>,
}

impl Metric {
    fn new(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            kind: "gauge",
            series: Vec::new(),
        }
    }

    fn counter(name: &'static str, help: &'static str) -> Self {
        Self {
            kind: "counter",
            ..Self::new(name, help)
        }
    }

    fn add(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<_> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        self.series.push((labels.join(","), format!("{value}")));
    }

    fn write(&self, text: &mut String) {
        if self.series.is_empty() {
            return;
        }
        let name = self.name;
        let _ = writeln!(text, "# HELP {name} {}", self.help);
        let _ = writeln!(text, "# TYPE {name} {}", self.kind);
        for (labels, value) in &self.series {
            let _ = match labels.as_str() {
                "" => writeln!(text, "{name} {value}"),
                labels => writeln!(text, "{name}{{{labels}}} {value}"),
            };
        }
    }
}

/// The whole file. Of a place that could not be asked there are no figures: old ones would look
/// like new ones. What never happened is a 0, so that an alarm on its age goes off.
pub(super) fn text(report: &CheckReport) -> String {
    let mut metrics = vec![checked_at(report)];
    metrics.extend(of_copies(report));
    metrics.extend(of_sources(report));
    metrics.extend(of_places(report));
    metrics.push(of_runs(report));
    written(&metrics)
}

/// What a server does and did not do, in the same form.
#[must_use]
pub fn of_work(jobs: &[JobView], missed: &MissedSlots) -> String {
    let mut running = Metric::new(
        "backup_run_in_progress",
        "Jobs of this server that are running.",
    );
    for operation in ["backup", "verify", "drill", "restore", "prune"] {
        let busy = |job: &&JobView| job.operation == operation && job.state == "running";
        let count = jobs.iter().filter(busy).count();
        running.add(&[("operation", operation)], count);
    }
    let mut slots = Metric::counter(
        "backup_schedule_missed_total",
        "Moments of a schedule at which nothing ran, since this server began.",
    );
    for ((operation, source), count) in missed {
        let source = source.as_deref().unwrap_or("");
        slots.add(&[("operation", operation), ("source", source)], count);
    }
    written(&[running, slots])
}

/// How a server's bot is: whether it hears people, and how much it answered and did not.
#[must_use]
pub fn of_bot(is_up: bool, heard: u64, ignored: u64) -> String {
    let mut up = Metric::new("backup_telegram_bot_up", "Whether the bot is heard.");
    up.add(&[], u8::from(is_up));
    let mut updates = Metric::counter(
        "backup_telegram_updates_total",
        "What people said to the bot since this server began.",
    );
    updates.add(&[("result", "answered")], heard);
    updates.add(&[("result", "ignored")], ignored);
    written(&[up, updates])
}

fn of_runs(report: &CheckReport) -> Metric {
    let mut runs = Metric::counter(
        "backup_runs_total",
        "Runs that left a record, as far back as records are looked at.",
    );
    for ((operation, result), count) in &report.runs {
        runs.add(&[("operation", operation), ("result", result)], count);
    }
    runs
}

fn written(metrics: &[Metric]) -> String {
    let mut text = String::new();
    for metric in metrics {
        metric.write(&mut text);
    }
    text
}

fn checked_at(report: &CheckReport) -> Metric {
    let mut at = Metric::new(
        "backup_check_timestamp_seconds",
        "When backups were last checked.",
    );
    at.add(&[], report.checked_at.timestamp());
    at
}

fn of_copies(report: &CheckReport) -> [Metric; 3] {
    let mut status = Metric::new(
        "backup_check_status",
        "What a check found: 0 ok, 1 warning, 2 critical, 3 unknown.",
    );
    let mut success = Metric::new(
        "backup_last_success_timestamp_seconds",
        "End of the newest good backup; 0 if there is none.",
    );
    let mut verified = Metric::new(
        "backup_last_verified_timestamp_seconds",
        "When every byte of a backup was last found good; 0 if never.",
    );
    for check in &report.sources {
        let labels = [
            ("source", check.source.as_str()),
            ("destination", check.destination.as_str()),
        ];
        status.add(&labels, check.status.code());
        if check.reached {
            success.add(&labels, seconds(check.last_success));
            verified.add(&labels, seconds(check.last_verified));
        }
    }
    [status, success, verified]
}

fn of_sources(report: &CheckReport) -> [Metric; 4] {
    let mut drill = Metric::new(
        "backup_last_drill_timestamp_seconds",
        "When a drill last succeeded; 0 if never.",
    );
    let mut duration = Metric::new(
        "backup_duration_seconds",
        "How long the newest backup took.",
    );
    let mut size = Metric::new("backup_size_bytes", "Size of the newest backup.");
    let mut rows = Metric::new("backup_rows", "Rows in the newest backup.");
    // Of several copies, the newest.
    let mut newest: BTreeMap<&str, &SourceCheck> = BTreeMap::new();
    for check in report.sources.iter().filter(|check| check.reached) {
        let known = newest.entry(&check.source).or_insert(check);
        if check.last_success > known.last_success {
            *known = check;
        }
    }
    for (source, check) in newest {
        let of = [("source", source)];
        drill.add(&of, seconds(check.last_drill));
        for (metric, value) in [
            (&mut duration, check.duration_seconds.map(|s| s.to_string())),
            (&mut rows, check.rows.map(|rows| rows.to_string())),
        ] {
            if let Some(value) = value {
                metric.add(&of, value);
            }
        }
        for (kind, bytes) in [("raw", check.raw_bytes), ("stored", check.stored_bytes)] {
            if let Some(bytes) = bytes {
                size.add(&[("source", source), ("kind", kind)], bytes);
            }
        }
    }
    [drill, duration, size, rows]
}

fn of_places(report: &CheckReport) -> [Metric; 3] {
    let mut stored = Metric::new(
        "backup_repository_bytes",
        "Stored bytes of all committed backups at a destination.",
    );
    let mut free = Metric::new(
        "backup_destination_free_bytes",
        "Free bytes of a local destination.",
    );
    let mut used = Metric::new(
        "backup_destination_used_bytes",
        "Bytes of a local destination that are taken, by whatever.",
    );
    for place in &report.destinations {
        let at = [("destination", place.name.as_str())];
        for (metric, bytes) in [
            (&mut stored, place.repository_bytes),
            (&mut free, place.free_bytes),
            (&mut used, place.used_bytes),
        ] {
            if let Some(bytes) = bytes {
                metric.add(&at, bytes);
            }
        }
    }
    [stored, free, used]
}

fn seconds(at: Option<DateTime<Utc>>) -> i64 {
    at.map_or(0, |at| at.timestamp())
}

/// A label's value, as the format wants it.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_of_every_kind_has_a_figure() {
        let of = ("backup".to_owned(), Some("shop".to_owned()));
        let text = of_work(&[], &MissedSlots::from([(of, 2)]));
        assert!(text.contains("backup_run_in_progress{operation=\"drill\"} 0\n"));
        let missed = "# TYPE backup_schedule_missed_total counter\n\
                      backup_schedule_missed_total{operation=\"backup\",source=\"shop\"} 2\n";
        assert!(text.ends_with(missed), "{text}");
    }

    #[test]
    fn names_cannot_end_their_label() {
        let mut metric = Metric::new("m", "Help.");
        metric.add(&[("source", "a\"} 1\nb\\"), ("kind", "raw")], 7);
        metric.add(&[], 1.5);
        let mut text = String::new();
        metric.write(&mut text);
        let expected = "# HELP m Help.\n# TYPE m gauge\n\
                        m{source=\"a\\\"} 1\\nb\\\\\",kind=\"raw\"} 7\nm 1.5\n";
        assert_eq!(text, expected);
    }
}
