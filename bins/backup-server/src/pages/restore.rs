//! From the wish to look into a backup to the order for it, in steps that need no script.

use std::collections::HashMap;

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use backup_app::access::Action;
use backup_app::text::shown;

use super::show::When;
use super::words::Words;
use super::{Frame, Said, Visit, render};

/// How many backups can be chosen from; older ones have a page of their own.
const OFFERED: usize = 200;

#[derive(Template)]
#[template(path = "restore.html")]
struct Page {
    frame: Frame,
    w: &'static Words,
    has_server: bool,
    /// Values, what is shown of them, and whether they are chosen.
    sources: Vec<(String, String, bool)>,
    source: Option<(String, String)>,
    backups: Vec<(String, String, bool)>,
    chosen: Option<Chosen>,
}

struct Chosen {
    id: String,
    at: Option<When>,
    size: String,
    content: String,
}

pub(super) async fn page(visit: Visit, Said(query): Said<HashMap<String, String>>) -> Response {
    let w = visit.w;
    if visit.caller.0.role < Action::Restore.least_role() {
        return visit.note(StatusCode::FORBIDDEN, w.forbidden, w.forbidden_text);
    }
    let said = |name: &str| query.get(name).map_or("", String::as_str);
    let (source, id) = (said("source"), said("backup"));
    let seen = visit.overview.sources.iter();
    let seen = seen.filter(|one| one.backups > 0 && visit.may(Action::Restore, &one.name));
    let sources: Vec<_> = seen
        .map(|one| (one.name.clone(), shown(&one.name), one.name == source))
        .collect();
    let known = sources.iter().any(|(_, _, chosen)| *chosen);
    let zone = visit.zone_of(source);
    let own = visit.overview.backups.iter();
    let own: Vec<_> = own
        .filter(|one| known && one.view.source == source && one.view.is_database())
        .collect();
    let offered = own.iter().take(OFFERED).map(|one| {
        let at = visit.when_text(&one.view.started_at, zone);
        let at = at.map_or_else(|| one.view.id.clone(), |at| at.text);
        let text = format!("{at} · {}", w.size(one.view.raw_bytes));
        (one.view.id.clone(), text, one.view.id == id)
    });
    let chosen = own.iter().find(|one| one.view.id == id);
    let chosen = chosen.and_then(|one| {
        let details = one.details()?;
        let tables = w.counted(details.tables, w.n_tables);
        Some(Chosen {
            id: id.to_owned(),
            at: visit.when_text(&one.view.started_at, zone),
            size: w.size(one.view.raw_bytes),
            content: format!("{tables}, {}", w.counted(details.rows, w.n_rows)),
        })
    });
    let page = Page {
        frame: visit.frame("restore", w.restore),
        w,
        has_server: visit.server.app.config().sandbox.server.is_some(),
        source: known.then(|| (source.to_owned(), shown(source))),
        backups: offered.collect(),
        sources,
        chosen,
    };
    render(StatusCode::OK, &page)
}
