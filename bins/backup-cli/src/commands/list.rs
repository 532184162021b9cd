//! `list`: committed backups, newest first, over all places.

use backup_app::AppError;
use backup_core::catalog::ListRequest;
use backup_core::history::Proofs;

use super::listing::Gathered;
use super::{Context, Outcome, days_ago, history, source_name};
use crate::args::ListArgs;
use crate::render;
use crate::report::ListView;

pub(super) async fn run(context: &Context, arguments: &ListArgs) -> Outcome {
    let request = ListRequest {
        source: arguments.source.as_deref().map(source_name).transpose()?,
        since: arguments.days.map(days_ago),
        limit: arguments.limit,
    };
    let mut all = Gathered::<(String, String), ListView>::new();
    for place in context.app.places()? {
        let lister = context.app.lister(&place).await?;
        let listing = lister
            .engine
            .catalog()
            .list(&request)
            .await
            .map_err(AppError::from)?;
        let oldest = listing.backups.last().map(|oldest| oldest.started_at);
        let proofs = match oldest {
            Some(oldest) => history::proofs(&lister.engine, &place.name, oldest).await,
            None => Proofs::default(),
        };
        for manifest in &listing.backups {
            let key = (manifest.id.to_string(), manifest.source.to_string());
            let view = match all.found.remove(&key) {
                Some(view) => view.also_at(&place.name),
                None => ListView::new(manifest, &place.name),
            };
            let view = view.proved(proofs.newest(manifest));
            all.found
                .insert(key, view.drilled(proofs.newest_drill(manifest)));
        }
        lister.remember();
        all.damaged(&place.name, &listing.damaged);
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
            "id", "source", "started", "raw", "stored", "verified", "drilled", "where",
        ],
        &[3, 4],
    );
    for view in views {
        let places: Vec<_> = view.destinations.iter().map(|d| d.name.as_str()).collect();
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
                _ => "never".to_owned(),
            },
            match (&view.drilled_at, &view.drill_status) {
                (Some(at), Some(status)) => format!("{at} {status}"),
                _ => "never".to_owned(),
            },
            places.join(", "),
        ]);
    }
    render::print(&table);
}
