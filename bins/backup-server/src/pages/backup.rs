//! One backup: what is in it, where it is, and what proves that it can be restored.

use askama::Template;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::response::Response;
use backup_app::access::Action;
use backup_app::text::shown;
use backup_app::{BackupView, ListView};
use serde::Deserialize;

use super::runs::{Row, row};
use super::show::{Chip, When, in_path};
use super::source::{proof, ratio};
use super::words::Words;
use super::{Frame, Visit, render};

/// What shows something of whether a backup can be restored.
const PROOFS: [&str; 4] = ["verify", "restore", "drill", "sandbox"];

#[derive(Template)]
#[template(path = "backup.html")]
struct Page {
    frame: Frame,
    w: &'static Words,
    id: String,
    source: String,
    /// As forms say it again.
    raw_source: String,
    source_path: String,
    title: String,
    at: Option<When>,
    chip: Chip,
    proof: String,
    pinned: bool,
    filtered: bool,
    facts: Vec<(&'static str, String)>,
    places: Vec<Place>,
    runs: Vec<Row>,
    may: May,
}

/// What he may do with it.
struct May {
    restore: bool,
    /// Verify and drill, which go together.
    prove: bool,
    pin: bool,
}

struct Place {
    name: String,
    chip: Chip,
    problem: String,
}

/// Which source, since two may have a backup of the same second and name.
#[derive(Deserialize)]
pub(super) struct Which {
    source: Option<String>,
}

pub(super) async fn page(
    visit: Visit,
    Path(id): Path<String>,
    Query(which): Query<Which>,
) -> Response {
    let w = visit.w;
    let all = visit.overview.backups.iter();
    let is_meant = |source: &String| which.source.as_ref().is_none_or(|meant| meant == source);
    let mut own = all.filter(|one| {
        one.view.id == id && is_meant(&one.view.source) && visit.sees(Some(&one.view.source))
    });
    let Some((entry, details)) = own.next().and_then(|one| Some((one, one.details()?))) else {
        return visit.not_found();
    };
    if own.next().is_some() {
        return visit.note(StatusCode::BAD_REQUEST, w.refused, w.several_sources);
    }
    let view = &entry.view;
    let zone = visit.zone_of(&view.source);
    let at = visit.when_text(&view.started_at, zone);
    let places = view.destinations.iter().map(|place| Place {
        name: shown(&place.name),
        chip: w.chip(if place.error.is_some() {
            "failed"
        } else {
            "complete"
        }),
        problem: place.error.as_deref().map(shown).unwrap_or_default(),
    });
    let proofs = visit.overview.runs.iter().filter(|run| {
        run.backup.as_deref() == Some(id.as_str())
            && run.source.as_deref() == Some(view.source.as_str())
            && PROOFS.contains(&run.operation.as_str())
    });
    let pinning = if view.pinned {
        Action::Unpin
    } else {
        Action::Pin
    };
    let title = at.as_ref().map_or_else(|| id.clone(), |at| at.text.clone());
    let page = Page {
        frame: visit.frame("overview", &format!("{} · {title}", view.source)),
        w,
        source: shown(&view.source),
        source_path: in_path(&view.source),
        title,
        at,
        chip: w.chip(view.status),
        proof: proof(w, view),
        pinned: view.pinned,
        filtered: view.filtered,
        facts: facts(&visit, view, &details),
        places: places.collect(),
        may: May {
            restore: view.is_database() && visit.may(Action::Restore, &view.source),
            prove: visit.may(Action::Verify, &view.source)
                && visit.may(Action::Drill, &view.source),
            pin: visit.may(pinning, &view.source),
        },
        raw_source: view.source.clone(),
        runs: proofs.map(|run| row(&visit, run)).collect(),
        id,
    };
    render(StatusCode::OK, &page)
}

/// What its manifest says, in the order of reading.
fn facts(visit: &Visit, view: &ListView, details: &BackupView) -> Vec<(&'static str, String)> {
    let w = visit.w;
    let zone = visit.zone_of(&view.source);
    let until = match &view.retention_until {
        Some(until) => visit.when_text(until, zone).map(|at| at.text),
        None => None,
    };
    let encryption = if view.encrypted {
        w.encrypted
    } else {
        w.not_encrypted
    };
    let tiers: Vec<_> = view.tiers.iter().map(|tier| w.tier(tier)).collect();
    let facts = [
        (w.database, Some(shown(&view.database))),
        (w.tables, Some(w.count(details.tables))),
        (w.rows, Some(w.count(details.rows))),
        (w.indexes, Some(w.count(details.indexes))),
        (w.triggers, Some(w.count(details.triggers))),
        (w.sequences, Some(w.count(details.sequences))),
        (w.raw_size, Some(w.size(view.raw_bytes))),
        (w.stored_size, Some(w.size(view.stored_bytes))),
        (w.ratio, Some(ratio(w, view))),
        (w.took, Some(w.duration(details.duration_seconds))),
        (w.encryption, Some(encryption.to_owned())),
        (
            w.server_version,
            details.server_version.as_deref().map(shown),
        ),
        (w.kept_as, (!tiers.is_empty()).then(|| tiers.join(", "))),
        (
            w.kept_until,
            Some(until.unwrap_or_else(|| kept(w, view).to_owned())),
        ),
    ];
    let known = facts.into_iter();
    known
        .filter_map(|(what, value)| Some((what, value?)))
        .collect()
}

/// What keeps it, where nobody can say how long.
fn kept(w: &'static Words, view: &ListView) -> &'static str {
    match view.is_kept {
        _ if view.pinned => w.kept_pinned,
        Some(true) => w.kept_by_rule,
        Some(false) => w.kept_by_none,
        None => w.kept_unruled,
    }
}
