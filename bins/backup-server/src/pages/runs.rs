//! What was done: the history, one run, and drills with the time that they took.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use backup_app::text::shown;
use backup_app::{RunView, text};
use backup_core::run_record::CompareFacts;
use chrono::TimeDelta;
use serde::Deserialize;

use super::charts::{Chart, Labels, Points, chart};
use super::job;
use super::show::{Chip, When, in_path, number, parse};
use super::source::{days, moment};
use super::words::Words;
use super::{Frame, Said, Visit, render};

const LISTED: usize = 50;
const OPERATIONS: [&str; 10] = [
    "backup", "adopt", "verify", "drill", "restore", "copy", "prune", "pin", "unpin", "rekey",
];
const RESULTS: [&str; 5] = ["success", "warnings", "failed", "interrupted", "cancelled"];

/// A run in a list.
pub(super) struct Row {
    pub(super) id: String,
    pub(super) operation: String,
    pub(super) source: Option<(String, String)>,
    pub(super) at: Option<When>,
    pub(super) took: String,
    pub(super) chip: Chip,
    pub(super) who: String,
    pub(super) place: String,
    /// What came of it, in a few words.
    pub(super) detail: String,
}

/// Which runs somebody wants to see.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    source: String,
    operation: String,
    result: String,
    days: String,
    after: String,
}

#[derive(Template)]
#[template(path = "runs.html")]
struct History {
    frame: Frame,
    w: &'static Words,
    wanted: Wanted,
    /// Values, what is shown of them, and whether they are chosen.
    sources: Vec<(String, String, bool)>,
    operations: Vec<(String, String, bool)>,
    results: Vec<(String, String, bool)>,
    /// What waits or runs right now.
    under_way: Vec<UnderWay>,
    rows: Vec<Row>,
    older: Option<String>,
}

struct UnderWay {
    id: String,
    operation: String,
    source: Option<(String, String)>,
    chip: Chip,
    by: String,
}

pub(super) async fn page(visit: Visit, Said(wanted): Said<Wanted>) -> Response {
    let w = visit.w;
    let since = wanted.days.parse().ok().and_then(TimeDelta::try_days);
    let since = since.and_then(|span| visit.now.checked_sub_signed(span));
    let since = since.map(text::time);
    let is = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
    let all = visit.overview.runs.iter().filter(|run| {
        visit.sees(run.source.as_deref())
            && is(&wanted.source, run.source.as_deref().unwrap_or_default())
            && is(&wanted.operation, &run.operation)
            && is(&wanted.result, run.result)
            && since.as_ref().is_none_or(|since| run.started_at >= *since)
            && (wanted.after.is_empty() || run.id < wanted.after)
    });
    let mut runs: Vec<_> = all.take(LISTED + 1).collect();
    let more = runs.len() > LISTED;
    runs.truncate(LISTED);
    let older = runs.last().filter(|_| more).map(|last| {
        let said = [
            ("source", wanted.source.as_str()),
            ("operation", &wanted.operation),
            ("result", &wanted.result),
            ("days", &wanted.days),
            ("after", &last.id),
        ];
        let said = said.map(|(name, value)| format!("{name}={}", in_path(value)));
        format!("/runs?{}", said.join("&"))
    });
    let sources = visit.overview.sources.iter();
    let sources = sources.filter(|source| visit.sees(Some(&source.name)));
    let option = |value: &str, text: &str, chosen: &str| {
        (value.to_owned(), text.to_owned(), value == chosen)
    };
    let page = History {
        frame: visit.frame("runs", w.history),
        w,
        sources: sources
            .map(|one| option(&one.name, &shown(&one.name), &wanted.source))
            .collect(),
        operations: OPERATIONS
            .map(|one| option(one, w.operation(one), &wanted.operation))
            .into(),
        results: RESULTS
            .map(|one| option(one, &w.chip(one).word, &wanted.result))
            .into(),
        under_way: under_way(&visit),
        rows: runs.into_iter().map(|run| row(&visit, run)).collect(),
        older,
        wanted,
    };
    render(StatusCode::OK, &page)
}

fn under_way(visit: &Visit) -> Vec<UnderWay> {
    let w = visit.w;
    let jobs = visit.server.jobs.all().into_iter();
    let seen = jobs.filter(|job| !job.is_over() && visit.sees(job.source.as_deref()));
    let view = seen.map(|job| UnderWay {
        id: in_path(&job.id),
        operation: shown(w.operation(&job.operation)),
        source: job
            .source
            .as_deref()
            .map(|source| (shown(source), in_path(source))),
        chip: w.chip(job.state),
        by: shown(&job.by),
    });
    view.collect()
}

/// A run in a list.
pub(super) fn row(visit: &Visit, run: &RunView) -> Row {
    let w = visit.w;
    let source = run.source.as_deref();
    let zone = source.map_or(visit.server.zone, |source| visit.zone_of(source));
    Row {
        id: in_path(&run.id),
        operation: shown(w.operation(&run.operation)),
        source: source.map(|source| (shown(source), in_path(source))),
        at: visit.when_text(&run.started_at, zone),
        took: w.duration(run.duration_seconds),
        chip: w.chip(run.result),
        who: shown(&run.who.to_string()),
        place: shown(&run.destination),
        detail: detail(w, run),
    }
}

/// What came of a run, in a few words.
fn detail(w: &'static Words, run: &RunView) -> String {
    let mut parts = Vec::new();
    if let Some(error) = &run.error {
        parts.push(shown(error));
    }
    if let Some(compare) = run.compare {
        parts.push(compared(w, compare));
    }
    if let Some(milliseconds) = run.drill.and_then(|drill| drill.restore_ms) {
        let took = w.duration(number(milliseconds) / 1000.0);
        parts.push(format!("{}: {took}", w.rto));
    }
    if let (Some(bytes), true) = (run.stored_bytes, run.operation == "backup") {
        parts.push(w.size(bytes));
    }
    if let Some(prune) = &run.prune {
        let gone = w.counted(prune.deleted, w.n_backups);
        parts.push(format!("−{gone}, {}", w.size(prune.freed_bytes)));
    }
    parts.join(" · ")
}

fn compared(w: &'static Words, compare: CompareFacts) -> String {
    let (equal, all) = (w.count(compare.equal), w.count(compare.tables));
    let rows = w.counted(compare.rows, w.n_rows);
    format!("{}: {equal} {} {all}, {rows}", w.equal_tables, w.done_of)
}

#[derive(Template)]
#[template(path = "run.html")]
struct One {
    frame: Frame,
    w: &'static Words,
    id: String,
    row: Row,
    backup: Option<String>,
    target: Option<String>,
}

pub(super) async fn one(visit: Visit, Path(id): Path<String>) -> Response {
    if let Some(job) = visit.job(&id) {
        return job::page(&visit, &job);
    }
    let mut all = visit.overview.runs.iter();
    let found = all.find(|run| run.id == id && visit.sees(run.source.as_deref()));
    let Some(run) = found else {
        return visit.not_found();
    };
    let w = visit.w;
    let row = row(&visit, run);
    let page = One {
        frame: visit.frame("runs", &row.operation),
        w,
        id: shown(&run.id),
        row,
        backup: run.backup.as_deref().map(in_path),
        target: run.target_database.as_deref().map(shown),
    };
    render(StatusCode::OK, &page)
}

#[derive(Template)]
#[template(path = "drills.html")]
struct Drills {
    frame: Frame,
    w: &'static Words,
    chart: Option<Chart>,
    rows: Vec<Drill>,
}

struct Drill {
    row: Row,
    rto: String,
    level: String,
    compared: String,
    assertions: String,
}

pub(super) async fn drills(visit: Visit) -> Response {
    let w = visit.w;
    let all = visit.overview.runs.iter();
    let seen = all.filter(|run| run.operation == "drill" && visit.sees(run.source.as_deref()));
    let runs: Vec<_> = seen.take(200).collect();
    let rto = |run: &RunView| Some(number(run.drill?.restore_ms?) / 1000.0);
    let points = runs.iter().rev().filter_map(|run| {
        let at = parse(&run.started_at)?;
        Some((days(at), rto(run)?))
    });
    let points: Vec<_> = points.collect();
    let longest = points.iter().map(|(_, took)| *took).fold(0.0, f64::max);
    let unit = if longest >= 120.0 {
        (60.0, w.minutes)
    } else {
        (1.0, w.seconds)
    };
    let zone = visit.server.zone;
    let labels = Labels {
        title: w.rto_over_time,
        date: &|day| w.short_date(moment(day), zone),
        value: &|seconds| w.duration(seconds),
        unit,
    };
    let points = Points {
        days: &points,
        forecast: None,
    };
    let rows = runs.iter().map(|run| {
        let facts = run.drill;
        let held = facts.filter(|facts| facts.assertions > 0).map(|facts| {
            let good = facts.assertions.saturating_sub(facts.assertions_failed);
            format!(
                "{} {} {}",
                w.count(good),
                w.done_of,
                w.count(facts.assertions)
            )
        });
        let level = facts.and_then(|facts| facts.level);
        Drill {
            row: row(&visit, run),
            rto: rto(run).map_or_else(|| "–".to_owned(), |took| w.duration(took)),
            level: level.map_or_else(
                || "–".to_owned(),
                |level| w.drill_level(level.as_str()).to_owned(),
            ),
            compared: run
                .compare
                .map_or_else(|| w.not_compared.to_owned(), |one| compared(w, one)),
            assertions: held.unwrap_or_else(|| "–".to_owned()),
        }
    });
    let page = Drills {
        frame: visit.frame("drills", w.drills),
        w,
        chart: chart(w, &points, &labels),
        rows: rows.collect(),
    };
    render(StatusCode::OK, &page)
}
