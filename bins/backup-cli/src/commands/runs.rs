//! `runs`: what was done, newest first, over all places.

use backup_app::RunView;
use backup_core::history::HistoryRequest;
use backup_core::run_record::Operation;

use super::listing::Gathered;
use super::{Context, Outcome, days_ago};
use crate::args::{OperationArg, RunsArgs};
use crate::render;

pub(super) async fn run(context: &Context, arguments: &RunsArgs) -> Outcome {
    let request = HistoryRequest {
        since: arguments.days.map(days_ago),
        operation: arguments.operation.map(|operation| match operation {
            OperationArg::Backup => Operation::Backup,
            OperationArg::Adopt => Operation::Adopt,
            OperationArg::Restore => Operation::Restore,
            OperationArg::Verify => Operation::Verify,
            OperationArg::Undo => Operation::Undo,
            OperationArg::Drill => Operation::Drill,
            OperationArg::Prune => Operation::Prune,
            OperationArg::Pin => Operation::Pin,
            OperationArg::Unpin => Operation::Unpin,
            OperationArg::Copy => Operation::Copy,
            OperationArg::Rekey => Operation::Rekey,
        }),
        limit: arguments.limit,
    };
    context.note_interrupted().await;
    // By id, which sorts by age; a copied place has the same records.
    let mut all = Gathered::new();
    for place in context.app.places()? {
        let lister = context.app.lister(&place).await?;
        let listing = lister.engine.history().list(&request).await?;
        lister.remember();
        for run in &listing.runs {
            let view = || RunView::new(run, &place.name);
            all.found.entry(run.id.clone()).or_insert_with(view);
        }
        all.damaged(&place.name, &listing.damaged);
    }
    Ok(all.show(context, arguments.limit, print))
}

fn print(views: &[RunView]) {
    if views.is_empty() {
        render::note("no runs");
        return;
    }
    let header = [
        "run",
        "operation",
        "source",
        "backup",
        "result",
        "duration",
        "who",
    ];
    let mut table = render::table(&header, &[5]);
    for view in views {
        let text = |field: &Option<String>| field.as_deref().map_or_else(String::new, render::name);
        table.add_row([
            view.id.clone(),
            render::name(&view.operation),
            text(&view.source),
            text(&view.backup),
            view.result.to_owned(),
            render::duration(view.duration_seconds),
            render::name(&view.who.to_string()),
        ]);
    }
    render::print(&table);
}
