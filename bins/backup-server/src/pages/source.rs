//! One source: how it stands, what it has, and how that went over time.

use std::collections::HashMap;

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use backup_app::access::Action;
use backup_app::text::shown;
use backup_app::{BackupEntry, ListView, SourceView};
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use super::calendar::{Month, months};
use super::charts::{Chart, Labels, Points, chart};
use super::overview::{places, proved};
use super::show::{Chip, When, in_path, number, parse};
use super::words::Words;
use super::{Frame, Said, Visit, render};

/// How many backups are listed at once, and how many a chart has.
const LISTED: usize = 30;
const CHARTED: usize = 90;
const MONTHS: u32 = 3;

#[derive(Template)]
#[template(path = "source.html")]
struct Page {
    frame: Frame,
    w: &'static Words,
    name: String,
    /// What takes a backup of it, if its name can be typed as it is shown.
    command: Option<String>,
    path: String,
    chip: Chip,
    configured: bool,
    latest: Option<When>,
    proved: Option<(When, &'static str)>,
    next: Option<When>,
    schedule: Option<String>,
    size: Option<String>,
    places: Vec<(String, Chip)>,
    findings: Vec<Finding>,
    charts: Vec<Chart>,
    months: Vec<Month>,
    rows: Vec<Row>,
    older: Option<String>,
    is_first: bool,
    may_backup: bool,
}

struct Finding {
    tone: &'static str,
    symbol: &'static str,
    title: &'static str,
    place: String,
    message: String,
}

/// A backup in a list.
pub(super) struct Row {
    pub(super) id: String,
    pub(super) at: Option<When>,
    pub(super) size: String,
    pub(super) ratio: String,
    pub(super) tiers: String,
    pub(super) pinned: bool,
    pub(super) filtered: bool,
    pub(super) proof: String,
    pub(super) chip: Option<Chip>,
    pub(super) places: Vec<(String, Chip)>,
}

pub(super) async fn page(
    visit: Visit,
    Path(name): Path<String>,
    Said(query): Said<HashMap<String, String>>,
) -> Response {
    let mut all = visit.overview.sources.iter();
    let found = all.find(|source| source.name == name && visit.sees(Some(&name)));
    let Some(source) = found else {
        return visit.not_found();
    };
    let w = visit.w;
    let zone = visit.zone_of(&name);
    let own = || {
        let all = visit.overview.backups.iter();
        all.filter(|backup| backup.view.source == name)
    };
    let after = query.get("after");
    let rest = own().map(|backup| &backup.view);
    let rest = rest.skip_while(|view| after.is_some_and(|after| view.id >= *after));
    let mut listed: Vec<_> = rest.take(LISTED + 1).collect();
    let more = listed.len() > LISTED;
    listed.truncate(LISTED);
    let schedule = source.schedule.as_ref();
    let next = schedule.and_then(|schedule| schedule.next.first());
    let latest = source.latest.as_ref();
    let charted: Vec<_> = own().filter(|one| one.is_whole).take(CHARTED).collect();
    let page = Page {
        frame: visit.frame("overview", &name),
        w,
        name: shown(&name),
        command: command(&name),
        path: in_path(&name),
        chip: w.chip(source.status),
        configured: source.configured,
        latest: latest.and_then(|latest| visit.when_text(&latest.started_at, zone)),
        proved: proved(&visit, source),
        next: next.map(|next| visit.when(next.utc, zone)),
        schedule: schedule.map(|one| format!("{} ({})", one.schedule, one.timezone)),
        size: latest.map(|latest| w.size(latest.stored_bytes)),
        places: places(w, source),
        findings: findings(w, source),
        charts: charts(w, &charted, zone),
        months: months(w, own().map(|one| &one.view), (visit.now, zone), MONTHS),
        older: listed.last().filter(|_| more).map(|view| in_path(&view.id)),
        rows: listed.iter().map(|view| row(&visit, view, zone)).collect(),
        is_first: after.is_none(),
        may_backup: source.configured && visit.may(Action::Backup, &name),
    };
    render(StatusCode::OK, &page)
}

/// What takes a backup of a source, to be pasted: a name that a shell would read is quoted, and one
/// that is not shown as it is, is not offered.
fn command(name: &str) -> Option<String> {
    if shown(name) != name || name.starts_with('-') {
        return None;
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
    let is_plain = !name.is_empty() && name.chars().all(plain);
    let word = if is_plain {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', "'\\''"))
    };
    Some(format!("backup-cli backup {word}"))
}

fn findings(w: &'static Words, source: &SourceView) -> Vec<Finding> {
    let places = source.places.iter();
    let all = places.flat_map(|place| place.findings.iter().map(move |one| (place, one)));
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|(_, finding)| std::cmp::Reverse(finding.severity));
    let view = all.into_iter().map(|(place, finding)| {
        let chip = w.chip(finding.severity.as_str());
        Finding {
            tone: chip.tone,
            symbol: chip.symbol,
            title: w.finding(finding.kind),
            place: shown(&place.destination),
            message: shown(&finding.message),
        }
    });
    view.collect()
}

/// Sizes and durations, of backups that come newest first.
fn charts(w: &'static Words, backups: &[&BackupEntry], zone: Tz) -> Vec<Chart> {
    let details = backups.iter().rev().filter_map(|backup| {
        let at = parse(&backup.view.started_at)?;
        let took = backup.details()?.duration_seconds;
        Some((days(at), backup.view.stored_bytes, took))
    });
    let details: Vec<_> = details.collect();
    let sizes: Vec<_> = details
        .iter()
        .map(|(day, size, _)| (*day, number(*size)))
        .collect();
    let durations: Vec<_> = details.iter().map(|(day, _, took)| (*day, *took)).collect();
    let largest = details.iter().map(|(_, size, _)| *size).max().unwrap_or(0);
    let longest = durations.iter().map(|(_, took)| *took).fold(0.0, f64::max);
    let unit = if longest >= 120.0 {
        (60.0, w.minutes)
    } else {
        (1.0, w.seconds)
    };
    let date = |day: f64| w.short_date(moment(day), zone);
    let size = Labels {
        title: w.size_over_time,
        date: &date,
        value: &|bytes| w.size(bytes_of(bytes)),
        unit: w.unit(largest),
    };
    let duration = Labels {
        title: w.duration_over_time,
        date: &date,
        value: &|seconds| w.duration(seconds),
        unit,
    };
    let both = [(sizes, size), (durations, duration)];
    let drawn = both.iter().filter_map(|(days, labels)| {
        let points = Points {
            days,
            forecast: None,
        };
        chart(w, &points, labels)
    });
    drawn.collect()
}

/// A moment as a number of days.
pub(super) fn days(at: DateTime<Utc>) -> f64 {
    (at - DateTime::<Utc>::UNIX_EPOCH).as_seconds_f64() / 86_400.0
}

/// And back.
#[expect(
    clippy::cast_possible_truncation,
    reason = "days of charts are near to now"
)]
pub(super) fn moment(day: f64) -> DateTime<Utc> {
    let seconds = (day * 86_400.0).round() as i64;
    let since = TimeDelta::try_seconds(seconds).unwrap_or_default();
    let at = DateTime::<Utc>::UNIX_EPOCH.checked_add_signed(since);
    at.unwrap_or_default()
}

/// A number of bytes that went through a chart.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast stops at the ends"
)]
pub(super) fn bytes_of(value: f64) -> u64 {
    value.round() as u64
}

/// A backup in a list.
pub(super) fn row(visit: &Visit, view: &ListView, zone: Tz) -> Row {
    let w = visit.w;
    let tiers: Vec<_> = view.tiers.iter().map(|tier| w.tier(tier)).collect();
    let places = view.destinations.iter().map(|place| {
        let state = if place.error.is_some() {
            "failed"
        } else {
            "complete"
        };
        (shown(&place.name), w.chip(state))
    });
    Row {
        id: view.id.clone(),
        at: visit.when_text(&view.started_at, zone).map(When::plain),
        size: w.size(view.stored_bytes),
        ratio: ratio(w, view),
        tiers: tiers.join(", "),
        pinned: view.pinned,
        filtered: view.filtered,
        proof: proof(w, view),
        chip: (view.status != "success").then(|| w.chip(view.status)),
        places: places.collect(),
    }
}

/// How many times smaller a backup is than what is in it.
pub(super) fn ratio(w: &Words, view: &ListView) -> String {
    if view.stored_bytes == 0 {
        return "–".to_owned();
    }
    let times = number(view.raw_bytes) / number(view.stored_bytes);
    format!("{}×", w.decimal(times, 1))
}

/// The newest that is known of whether it can be restored. What is damaged or lost by now was not
/// proved by a drill of before.
pub(super) fn proof(w: &Words, view: &ListView) -> String {
    let drilled = view.drilled_at.as_ref();
    let newer = view
        .verified_at
        .as_ref()
        .is_none_or(|verified| drilled.is_some_and(|drilled| drilled >= verified));
    let drill = view.drill_status.as_deref().filter(|_| newer);
    match (drill, view.status, view.verified_level) {
        (Some("success" | "warnings"), "success", _) => w.drilled.to_owned(),
        (None | Some("success" | "warnings"), "success" | "partial", Some(level)) => {
            w.level(level).to_owned()
        }
        (None | Some("success" | "warnings"), _, _) => w.not_proved.to_owned(),
        (Some(_), _, _) => w.drill_failed.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_does_nothing_but_take_a_backup() {
        for (name, expected) in [
            ("shop-1.a/b_c", Some("backup-cli backup shop-1.a/b_c")),
            ("a; rm -rf ~", Some("backup-cli backup 'a; rm -rf ~'")),
            ("a'$(x)'", Some(r"backup-cli backup 'a'\''$(x)'\'''")),
            ("a\nb", None),
            ("--help", None),
            ("a\u{202e}b", None),
        ] {
            assert_eq!(command(name).as_deref(), expected, "{name}");
        }
    }
}
