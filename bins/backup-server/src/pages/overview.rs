//! Every source at a glance.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use backup_app::SourceView;
use backup_app::text::shown;
use backup_core::check::Status;

use super::charts::{Spark, spark};
use super::show::{Chip, When, in_path};
use super::words::Words;
use super::{Frame, Visit, render};

/// How many backups a trend line has.
const TREND: usize = 20;

#[derive(Template)]
#[template(path = "overview.html")]
struct Page {
    frame: Frame,
    w: &'static Words,
    /// How many sources stand how.
    totals: Vec<(Chip, String)>,
    cards: Vec<Card>,
    sees_all: bool,
}

struct Card {
    name: String,
    path: String,
    chip: Chip,
    configured: bool,
    latest: Option<When>,
    proved: Option<(When, &'static str)>,
    next: Option<When>,
    size: Option<String>,
    trend: Option<Spark>,
    places: Vec<(String, Chip)>,
    findings: Vec<&'static str>,
}

pub(super) async fn page(visit: Visit) -> Response {
    let w = visit.w;
    let all = visit.overview.sources.iter();
    let mut seen: Vec<_> = all
        .filter(|source| visit.sees(Some(&source.name)))
        .collect();
    // The worst first; they come by name.
    seen.sort_by_key(|source| std::cmp::Reverse(severity(source)));
    let totals = ["critical", "unknown", "warning", "ok"]
        .into_iter()
        .filter_map(|status| {
            let count = seen.iter().filter(|source| source.status == status).count();
            (count > 0).then(|| (w.chip(status), w.counted(count as u64, w.n_sources)))
        });
    let page = Page {
        frame: visit.frame("overview", w.overview),
        w,
        totals: totals.collect(),
        cards: seen.iter().map(|source| card(&visit, source)).collect(),
        sees_all: visit.sees(None),
    };
    render(StatusCode::OK, &page)
}

fn severity(source: &SourceView) -> Status {
    let all = source.places.iter().map(|place| place.status);
    all.max().unwrap_or(Status::Unknown)
}

fn card(visit: &Visit, source: &SourceView) -> Card {
    let w = visit.w;
    let zone = visit.zone_of(&source.name);
    let own = visit.overview.backups.iter();
    let own = own.filter(|backup| backup.view.source == source.name && backup.is_whole);
    let mut sizes: Vec<_> = own.take(TREND).map(|one| one.view.stored_bytes).collect();
    sizes.reverse();
    let latest = source.latest.as_ref();
    let kinds = source.places.iter().flat_map(|place| &place.findings);
    let mut findings: Vec<_> = kinds.map(|finding| w.finding(finding.kind)).collect();
    findings.dedup();
    let next = source
        .schedule
        .as_ref()
        .and_then(|schedule| schedule.next.first());
    Card {
        name: shown(&source.name),
        path: in_path(&source.name),
        chip: w.chip(source.status),
        configured: source.configured,
        latest: latest.and_then(|latest| visit.when_text(&latest.started_at, zone)),
        proved: proved(visit, source),
        next: next.map(|next| visit.when(next.utc, zone)),
        size: latest.map(|latest| w.size(latest.stored_bytes)),
        trend: spark(&sizes),
        places: places(w, source),
        findings,
    }
}

/// The newest proof of any backup, and of what kind it was.
pub(super) fn proved(visit: &Visit, source: &SourceView) -> Option<(When, &'static str)> {
    let w = visit.w;
    let of_places = source.places.iter();
    let verified = of_places
        .clone()
        .filter_map(|place| place.last_verified)
        .max();
    let drilled = of_places.filter_map(|place| place.last_drill).max();
    let proofs = [(verified, w.op_verify), (drilled, w.op_drill)];
    let proofs = proofs
        .into_iter()
        .filter_map(|(at, what)| at.map(|at| (at, what)));
    let (at, what) = proofs.max_by_key(|(at, _)| *at)?;
    Some((visit.when(at, visit.zone_of(&source.name)), what))
}

/// How it stands at each of its places.
pub(super) fn places(w: &'static Words, source: &SourceView) -> Vec<(String, Chip)> {
    let places = source.places.iter();
    let place = places.map(|place| {
        let chip = w.chip(place.status.as_str());
        (shown(&place.destination), chip)
    });
    place.collect()
}
