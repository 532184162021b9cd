//! How much is stored at each place, how that went, and where it leads.

use std::collections::BTreeMap;

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use backup_app::Overview;
use backup_app::text::shown;
use chrono::{DateTime, TimeDelta, Utc};

use super::charts::{Chart, Labels, Points, chart};
use super::show::{Chip, number, parse};
use super::source::{bytes_of, days, moment};
use super::words::Words;
use super::{Frame, Visit, render};

/// How far back the chart goes, and how far back the forecast looks.
const SHOWN: f64 = 180.0;
const LOOKS_BACK: f64 = 30.0;
const LOOKS_AHEAD: f64 = 30.0;

/// Fewer days than these, or fewer backups, say nothing of the days to come.
const LEAST_DAYS: f64 = 7.0;
const LEAST_CHANGES: usize = 4;

#[derive(Template)]
#[template(path = "storage.html")]
struct Page {
    frame: Frame,
    w: &'static Words,
    places: Vec<Place>,
}

struct Place {
    name: String,
    chip: Option<Chip>,
    now: String,
    backups: String,
    free: Option<String>,
    growth: String,
    forecast: String,
    full: Option<String>,
    chart: Option<Chart>,
}

/// Something that changed how much is stored.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Change {
    day: f64,
    bytes: f64,
}

pub(super) async fn page(visit: Visit) -> Response {
    let w = visit.w;
    let overview = &visit.overview;
    let sees = |source: Option<&str>| visit.sees(source);
    let mut changes = changes(overview, &sees);
    // Those who may see all learn of places that have nothing yet.
    if visit.sees(None) {
        for place in &overview.check.destinations {
            changes.entry(place.name.clone()).or_default();
        }
    }
    let places = changes.into_iter().map(|(name, changes)| {
        let own = overview.backups.iter().filter(|backup| {
            let mut at = backup.view.destinations.iter();
            visit.sees(Some(&backup.view.source)) && at.any(|place| place.name == name)
        });
        place(&visit, &name, own.count(), &changes)
    });
    let page = Page {
        frame: visit.frame("storage", w.storage),
        w,
        places: places.collect(),
    };
    render(StatusCode::OK, &page)
}

fn place(visit: &Visit, name: &str, backups: usize, changes: &[Change]) -> Place {
    let w = visit.w;
    let zone = visit.server.zone;
    let today = days(visit.now);
    let line = course(changes, today);
    let now = line.last().map_or(0.0, |point| point.1);
    let trend = trend(changes, today);
    let end = trend.map(|per_day| (now + per_day * LOOKS_AHEAD).max(0.0));
    let ends = end.map(|end| [(today, now), (today + LOOKS_AHEAD, end)]);
    let largest = line
        .iter()
        .map(|point| point.1)
        .chain(end)
        .fold(0.0, f64::max);
    let labels = Labels {
        title: w.storage_over_time,
        date: &|day| w.short_date(moment(day), zone),
        value: &|bytes| w.size(bytes_of(bytes)),
        unit: w.unit(bytes_of(largest)),
    };
    let points = Points {
        days: &line,
        forecast: ends,
    };
    let mut known = visit.overview.check.destinations.iter();
    let known = known
        .find(|place| place.name == name)
        .filter(|_| visit.sees(None));
    let free = known.and_then(|place| place.free_bytes);
    let full = free.zip(trend).and_then(|(free, per_day)| {
        let left = number(free) / per_day;
        let near = per_day > 0.0 && left < 3650.0;
        near.then(|| TimeDelta::seconds(i64::try_from(bytes_of(left * 86_400.0)).unwrap_or(0)))
    });
    let sign = |per_day: f64| if per_day < 0.0 { "−" } else { "+" };
    let unsure = || w.not_enough.to_owned();
    Place {
        name: shown(name),
        chip: known.map(|place| w.chip(place.status.as_str())),
        now: w.size(bytes_of(now)),
        backups: w.counted(backups as u64, w.n_backups),
        free: free.map(|bytes| w.size(bytes)),
        growth: trend.map_or_else(unsure, |per_day| {
            let bytes = w.size(bytes_of(per_day.abs()));
            format!("{}{bytes}", sign(per_day))
        }),
        forecast: end.map_or_else(unsure, |end| {
            format!("{} {}", w.size(bytes_of(end)), w.in_30_days)
        }),
        full: full.map(|span| format!("{} {}", w.full_in, w.span(span))),
        chart: chart(w, &points, &labels),
    }
}

/// What came and went at each place, in order. Backups that are there say when they came; of those
/// that were deleted, the records of runs do, as far as they go back.
fn changes(
    overview: &Overview,
    sees: &impl Fn(Option<&str>) -> bool,
) -> BTreeMap<String, Vec<Change>> {
    let mut found: BTreeMap<String, Vec<Change>> = BTreeMap::new();
    for backup in &overview.backups {
        let view = &backup.view;
        let Some(at) = parse(&view.started_at).filter(|_| sees(Some(&view.source))) else {
            continue;
        };
        for place in &view.destinations {
            found.entry(place.name.clone()).or_default().push(Change {
                day: days(at),
                bytes: number(view.stored_bytes),
            });
        }
    }
    let taken = overview.runs.iter().filter(|run| run.operation == "backup");
    let taken = taken.filter(|run| sees(run.source.as_deref()));
    let taken: BTreeMap<&str, (DateTime<Utc>, u64)> = taken
        .filter_map(|run| {
            let at = parse(&run.started_at)?;
            Some((run.backup.as_deref()?, (at, run.stored_bytes?)))
        })
        .collect();
    for run in &overview.runs {
        let (Some(prune), Some(gone)) = (&run.prune, parse(&run.finished_at)) else {
            continue;
        };
        for id in &prune.backups {
            if let Some((came, bytes)) = taken.get(id.to_string().as_str()) {
                let bytes = number(*bytes);
                let own = found.entry(run.destination.clone()).or_default();
                own.push(Change {
                    day: days(*came),
                    bytes,
                });
                own.push(Change {
                    day: days(gone),
                    bytes: -bytes,
                });
            }
        }
    }
    for changes in found.values_mut() {
        changes.sort_by(|a, b| a.day.total_cmp(&b.day));
    }
    found
}

/// How much was stored at the end of each day until now.
fn course(changes: &[Change], today: f64) -> Vec<(f64, f64)> {
    let Some(first) = changes.first() else {
        return Vec::new();
    };
    let begin = first.day.max(today - SHOWN);
    let mut line = Vec::new();
    let mut day = begin;
    while day < today {
        line.push((day, stored(changes, day)));
        day += 1.0;
    }
    line.push((today, stored(changes, today)));
    line
}

fn stored(changes: &[Change], day: f64) -> f64 {
    let until = changes.iter().take_while(|change| change.day <= day);
    until.map(|change| change.bytes).sum()
}

/// By how much the straight line that is nearest to the last days rises each day, if there are
/// enough of them.
fn trend(changes: &[Change], today: f64) -> Option<f64> {
    let first = changes.first()?;
    let begin = first.day.max(today - LOOKS_BACK);
    let lately = changes.iter().filter(|change| change.day >= begin).count();
    if today - begin < LEAST_DAYS || lately < LEAST_CHANGES {
        return None;
    }
    let mut line = course(changes, today);
    line.retain(|point| point.0 >= begin);
    let count = number(line.len() as u64);
    let mean = |of: fn(&(f64, f64)) -> f64| line.iter().map(of).sum::<f64>() / count;
    let (mean_day, mean_bytes) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = line.iter().map(|point| (point.0 - mean_day).powi(2)).sum();
    let along: f64 = line
        .iter()
        .map(|point| (point.0 - mean_day) * (point.1 - mean_bytes))
        .sum();
    let per_day = along / spread;
    per_day.is_finite().then_some(per_day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daily(count: u32) -> Vec<Change> {
        let change = |day| Change {
            day: f64::from(day),
            bytes: 100.0,
        };
        (0..count).map(change).collect()
    }

    #[test]
    fn a_straight_line_is_found_again() {
        let per_day = trend(&daily(31), 30.0).unwrap();
        assert!((per_day - 100.0).abs() < 1e-6, "{per_day}");
    }

    #[test]
    fn a_few_days_or_backups_say_nothing_of_those_to_come() {
        assert_eq!(trend(&[], 30.0), None);
        assert_eq!(trend(&daily(6), 5.5), None);
        assert_eq!(trend(&daily(2), 30.0), None);
        // Old ones do not count.
        assert_eq!(trend(&daily(10), 100.0), None);
    }

    #[test]
    fn what_went_away_was_there_before() {
        let mut changes = daily(3);
        changes.push(Change {
            day: 2.5,
            bytes: -100.0,
        });
        let line = course(&changes, 3.0);
        assert_eq!(
            line,
            [(0.0, 100.0), (1.0, 200.0), (2.0, 300.0), (3.0, 200.0)]
        );
        assert!(course(&[], 3.0).is_empty());
    }
}
