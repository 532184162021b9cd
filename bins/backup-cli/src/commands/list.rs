//! `list`: committed backups, newest first, over all places.

use backup_app::{DAMAGED, DestinationView, ListView};
use backup_core::catalog::ListRequest;

use super::listing::Gathered;
use super::{Context, Outcome, days_ago};
use crate::args::ListArgs;
use crate::render;

pub(super) async fn run(context: &Context, arguments: &ListArgs) -> Outcome {
    let request = ListRequest {
        source: None,
        since: arguments.days.map(days_ago),
        limit: arguments.limit,
    };
    let mut all = Gathered::<(String, String), ListView>::new();
    for place in context.app.places()? {
        let lister = context.app.lister(&place).await?;
        let catalog = lister.engine.catalog();
        let listing = context
            .listed(&catalog, arguments.source.as_deref(), &request)
            .await?;
        let found = context.app.place_listing(&place, &lister, listing).await?;
        for text in &found.warnings {
            render::warn(text);
        }
        for text in found.damage().iter().chain(&found.found_damaged()) {
            all.damage(text);
        }
        found.add_to(&mut all.found);
    }
    if let Some(name) = &arguments.source
        && arguments.days.is_none()
        && arguments.limit.is_none()
        && all.is_empty()
    {
        context.app.refuse_unknown(name)?;
    }
    Ok(all.show(context, arguments.limit, print))
}

fn print(views: &[ListView]) {
    if views.is_empty() {
        render::note("no backups");
        return;
    }
    let mut table = render::table(
        &[
            "id", "source", "started", "raw", "stored", "verified", "drilled", "kept", "where",
        ],
        &[3, 4],
    );
    for view in views {
        let places: Vec<_> = view.destinations.iter().map(at).collect();
        let mut source = render::name(&view.source);
        if view.filtered {
            source.push_str(" (filtered)");
        }
        table.add_row([
            view.id.clone(),
            source,
            view.started_at.clone(),
            render::size(view.raw_bytes),
            render::size(view.stored_bytes),
            match (&view.verified_at, view.verified_level) {
                (Some(at), Some(level)) => format!("{at} {level}"),
                _ if view.destinations.iter().any(is_damaged) => "damaged".to_owned(),
                _ => "never".to_owned(),
            },
            match (&view.drilled_at, &view.drill_status) {
                (Some(at), Some(status)) => format!("{at} {status}"),
                _ => "never".to_owned(),
            },
            kept_as(view),
            places.join(", "),
        ]);
    }
    render::print(&table);
}

fn is_damaged(place: &DestinationView) -> bool {
    place.error.as_deref() == Some(DAMAGED)
}

/// A place, and whether the backup can be counted on there.
fn at(place: &DestinationView) -> String {
    let lost = match &place.error {
        Some(_) if is_damaged(place) => " (damaged)",
        Some(_) => " (incomplete)",
        None => "",
    };
    format!("{}{lost}", place.name)
}

/// Why it stays, in few words.
fn kept_as(view: &ListView) -> String {
    let pin = view.pinned.then_some("pinned");
    let words = pin.into_iter().chain(view.tiers.iter().map(String::as_str));
    words.collect::<Vec<_>>().join(" ")
}
