//! `list`: committed backups, newest first, over all places.

use std::collections::{BTreeMap, BTreeSet};

use backup_app::{AppError, DestinationView, Place, SystemClock};
use backup_core::backup::{BackupId, SourceName};
use backup_core::catalog::ListRequest;
use backup_core::clock::Clock as _;
use backup_core::engine::{Engine, JudgedBackup};
use backup_core::error::{Error as CoreError, chain};
use backup_core::history::Proofs;
use backup_core::manifest::Manifest;

use super::listing::Gathered;
use super::{Context, Outcome, days_ago, history};
use crate::args::ListArgs;
use crate::render;
use crate::report::{self, ListView};

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
        let oldest = listing.backups.last().map(|oldest| oldest.started_at);
        let proofs = match oldest {
            Some(oldest) => history::proofs(&lister.engine, &place.name, oldest).await,
            None => Proofs::default(),
        };
        let kept = kept(context, &place, &lister.engine, &listing.backups).await?;
        for manifest in &listing.backups {
            let key = (manifest.id.to_string(), manifest.source.to_string());
            let view = match all.found.remove(&key) {
                Some(view) => view.also_at(&place.name),
                None => ListView::new(manifest, &place.name),
            };
            let lost = listing.lacking(manifest);
            if let Some(lost) = lost {
                let what = report::lacking(lost);
                all.damage(&place.name, &format!("backup {}: {what}", manifest.id));
            }
            let view = view.lacking(lost);
            let view = view.proved(proofs.newest(manifest));
            let view = view.drilled(proofs.newest_drill(manifest));
            all.found.insert(key, kept.show(manifest, view));
        }
        lister.remember();
        all.damaged(&place.name, &listing.damaged);
    }
    Ok(all.show(context, arguments.limit, print))
}

/// What keeps backups at one place.
#[derive(Default)]
struct Kept {
    judged: BTreeMap<(SourceName, BackupId), JudgedBackup>,
    pinned: BTreeSet<(SourceName, BackupId)>,
}

impl Kept {
    fn show(&self, manifest: &Manifest, view: ListView) -> ListView {
        let of = (manifest.source.clone(), manifest.id.clone());
        let view = view.pinned(self.pinned.contains(&of));
        match self.judged.get(&of) {
            Some(judged) => view.kept(judged),
            None => view,
        }
    }
}

/// Pins, and where somebody chose a policy what it says. A listing is worth having without.
async fn kept(
    context: &Context,
    place: &Place,
    engine: &Engine,
    backups: &[Manifest],
) -> Result<Kept, AppError> {
    let sources: BTreeSet<_> = backups.iter().map(|backup| &backup.source).collect();
    let now = SystemClock.now();
    let mut kept = Kept::default();
    let warn = |what: &str, error: &CoreError| {
        let why = render::name(&chain(error));
        render::warn(&format!("{}: {what} are not known: {why}", place.name));
    };
    for source in sources {
        match engine.pins().list(source).await {
            Ok(pins) => {
                let holding = pins.into_iter().filter(|(_, pin)| pin.holds(now));
                let of_source = holding.map(|(id, _)| (source.clone(), id));
                kept.pinned.extend(of_source);
            }
            Err(error) => warn("pins", &error),
        }
        let Some(rules) = context.app.expiry_rules(source, place)? else {
            continue;
        };
        // Slots depend on all backups, not only on those that are listed.
        match engine.judged(source, &rules).await {
            Ok(judged) => {
                let of =
                    |judged: JudgedBackup| ((source.clone(), judged.manifest.id.clone()), judged);
                kept.judged.extend(judged.into_iter().map(of));
            }
            Err(error) => warn("retention slots", &error),
        }
    }
    Ok(kept)
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

/// A place, and whether the backup can be counted on there.
fn at(place: &DestinationView) -> String {
    let lost = place.error.as_ref().map(|_| " (incomplete)");
    format!("{}{}", place.name, lost.unwrap_or_default())
}

/// Why it stays, in few words.
fn kept_as(view: &ListView) -> String {
    let pin = view.pinned.then_some("pinned");
    let words = pin.into_iter().chain(view.tiers.iter().map(String::as_str));
    words.collect::<Vec<_>>().join(" ")
}
