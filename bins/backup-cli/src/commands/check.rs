//! `check`: whether backups are fresh and healthy, in the form and with the exit codes that
//! monitoring knows.

use backup_app::AppError;
use backup_app::check::CheckReport;
use backup_core::check::{Status, span};
use chrono::TimeDelta;

use super::{Context, Outcome};
use crate::args::CheckArgs;
use crate::{exit_code, render};

pub(super) async fn run(context: &Context, arguments: &CheckArgs) -> Outcome {
    context.note_interrupted().await;
    let report = context.app.check(&arguments.sources).await?;
    if arguments.notify {
        let notices = context.journal.notices();
        let nobody = || AppError::usage_hint("nobody is to be told", "configure a [notify.NAME]");
        notices.ok_or_else(nobody)?.found(&report);
    }
    let written = match &arguments.prometheus {
        Some(path) => report.write_metrics(path),
        None => Ok(()),
    };
    if context.json {
        render::json(&report);
    } else {
        print(&report);
    }
    let Err(error) = written else {
        return Ok(report.status.code());
    };
    // What watches the file sees old figures now. The result is on stdout already.
    render::error(&error, false);
    Ok(report.status.max(Status::Unknown).code())
}

/// Says why it cannot be told; the first line on stdout is what monitoring shows.
pub(super) fn unknown(error: &AppError, as_json: bool) -> u8 {
    if !as_json {
        let text = error.render();
        let first = text.lines().next().unwrap_or_default();
        render::line(&format!("{} - {first}", title(Status::Unknown)));
    }
    render::error(error, as_json);
    exit_code::UNKNOWN
}

fn print(report: &CheckReport) {
    let findings = report.findings();
    let title = title(report.status);
    let Some((worst, others)) = findings.split_first() else {
        render::line(&format!("{title} - {}", all_good(report)));
        return;
    };
    let (name, kind) = (render::name(&worst.0), worst.1.kind);
    let more = match others.len() {
        0 => String::new(),
        count => format!(", and {count} more"),
    };
    render::line(&format!("{title} - {name}: {kind}{more}"));
    for (name, finding) in &findings {
        let severity = self::title(finding.severity);
        let (name, message) = (render::name(name), render::name(&finding.message));
        render::line(&format!("{severity} {name}: {message}"));
    }
}

fn all_good(report: &CheckReport) -> String {
    let copies = render::counted(report.sources.len() as u64, "newest backup");
    let oldest = report
        .sources
        .iter()
        .filter_map(|check| check.age_seconds)
        .max();
    let age = TimeDelta::seconds(oldest.unwrap_or_default().max(0));
    format!("{copies} looked at, at most {} old", span(age))
}

fn title(status: Status) -> &'static str {
    match status {
        Status::Ok => "OK",
        Status::Warning => "WARNING",
        Status::Unknown => "UNKNOWN",
        Status::Critical => "CRITICAL",
    }
}
