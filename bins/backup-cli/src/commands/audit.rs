//! `runs --audit`: who changed what, and whether that list is what was written.

use std::cmp::Reverse;
use std::sync::Arc;

use backup_app::{AppError, Keys, text::time};
use backup_core::audit::{AuditReport, AuditRequest, Audited};
use backup_core::engine::Engine;
use backup_core::observer::NoopObserver;

use super::{Context, Outcome, days_ago};
use crate::args::{AuditMode, RunsArgs};
use crate::report::{AuditView, AuditedView};
use crate::{exit_code, render};

pub(super) async fn run(context: &Context, arguments: &RunsArgs) -> Outcome {
    match arguments.audit.mode {
        Some(AuditMode::Verify) => verify(context, arguments).await,
        Some(AuditMode::List) | None => list(context, arguments).await,
    }
}

/// Every place, and an engine over it.
fn places(context: &Context) -> Result<Vec<(String, Engine)>, AppError> {
    let places = context.app.places()?.into_iter().map(|place| {
        let observer = Arc::new(NoopObserver);
        let engine = context.app.engine(&place, Keys::None, observer)?;
        Ok((place.name, engine))
    });
    places.collect()
}

async fn list(context: &Context, arguments: &RunsArgs) -> Outcome {
    if arguments.audit.expect_head.is_some() {
        let message = "--expect-head belongs to --audit verify";
        return Err(AppError::usage(message));
    }
    let request = AuditRequest {
        since: arguments.days.map(days_ago),
        limit: arguments.limit,
    };
    let mut found: Vec<(String, Audited)> = Vec::new();
    for (place, engine) in places(context)? {
        let listed = engine.audit().list(&request).await?;
        found.extend(listed.into_iter().map(|audited| (place.clone(), audited)));
    }
    found.sort_by_key(|(_, audited)| Reverse(audited.record.time));
    found.truncate(arguments.limit.unwrap_or(usize::MAX));
    let views = found.iter();
    let views: Vec<_> = views
        .map(|(place, audited)| AuditedView::new(audited, place))
        .collect();
    if context.json {
        render::json(&views);
    } else {
        print(&found);
    }
    Ok(exit_code::DONE)
}

fn print(found: &[(String, Audited)]) {
    if found.is_empty() {
        render::note("nothing was written down");
        return;
    }
    let header = [
        "time", "number", "who", "action", "outcome", "source", "what", "place",
    ];
    let mut table = render::table(&header, &[1]);
    for (place, Audited { record, .. }) in found {
        let entry = &record.entry;
        let who = match &entry.person {
            Some(person) => format!("{person} by {}", entry.who),
            None => entry.who.to_string(),
        };
        let what = match (entry.backups.as_slice(), &entry.database, entry.count) {
            ([backup], Some(database), _) => format!("{backup} as {database}"),
            ([backup], None, _) => backup.to_string(),
            ([], Some(database), _) => database.clone(),
            ([], None, Some(count)) => format!("{count} times"),
            (backups, _, _) => render::counted(backups.len() as u64, "backup"),
        };
        let source = entry.source.as_ref().map(ToString::to_string);
        table.add_row([
            time(record.time),
            record.number.to_string(),
            render::name(&who),
            render::name(entry.action.as_str()),
            render::name(entry.outcome.as_str()),
            render::name(&source.unwrap_or_default()),
            render::name(&what),
            place.clone(),
        ]);
    }
    render::print(&table);
}

async fn verify(context: &Context, arguments: &RunsArgs) -> Outcome {
    let expected = arguments.audit.expect_head.as_deref();
    let mut reports = Vec::new();
    for (place, engine) in places(context)? {
        reports.push((place, engine.audit().verify(expected).await?));
    }
    // It was noted of one place; the others never had it.
    if reports.iter().any(|(_, report)| report.lost.is_none()) {
        for (_, report) in &mut reports {
            report.lost = None;
        }
    }
    if context.json {
        let views = reports.iter();
        let views: Vec<_> = views
            .map(|(place, report)| AuditView::new(report, place))
            .collect();
        render::json(&views);
    } else {
        for (place, report) in &reports {
            tell(&render::name(place), report);
        }
    }
    Ok(if reports.iter().all(|(_, report)| report.is_whole()) {
        exit_code::DONE
    } else {
        exit_code::INTEGRITY
    })
}

fn tell(place: &str, report: &AuditReport) {
    if report.chains.is_empty() {
        render::line(&format!("{place}: nothing was written down"));
    }
    for chain in &report.chains {
        let name = &chain.chain;
        let (records, head) = (chain.head.number, &chain.head.sha256);
        let records = render::counted(records, "record");
        match &chain.broken {
            None => render::line(&format!("{place}: {name}: {records}, head {head}")),
            Some(broken) => {
                let broken = render::name(&broken.to_string());
                render::line(&format!("{place}: {name}: {broken}"));
                render::line(&format!("{place}: {name}: before, {records}, head {head}"));
            }
        }
    }
    for stranger in &report.strangers {
        render::line(&format!(
            "{place}: {stranger} was put there by somebody else"
        ));
    }
    if let Some(lost) = &report.lost {
        let what =
            "no record has the expected hash: the newest ones are gone, or were written anew";
        render::line(&format!("{place}: {what}: {lost}"));
    }
}
