//! `config`: is it right, and what is in force.

use std::path::Path;

use backup_app::{AppError, Config, ScheduleReport, SystemClock, config_schema};
use backup_core::clock::Clock as _;
use chrono::SecondsFormat;
use serde_json::json;

use super::{Context, Outcome};
use crate::args::ConfigCommand;
use crate::{exit_code, render};

/// How many runs of each schedule are shown.
const SHOWN: usize = 3;

pub(super) fn run(context: &Context, command: &ConfigCommand) -> Outcome {
    match command {
        ConfigCommand::Check => check(context),
        ConfigCommand::Schema => Ok(schema()),
        ConfigCommand::Show { origin: false } => show(context),
        ConfigCommand::Show { origin: true } => explain(context, context.config.as_deref()),
    }
}

/// The file was read and its names resolved when the command began; what is left are the
/// things that only taking a backup would find: keys, URLs, compression, secrets.
fn check(context: &Context) -> Outcome {
    let config = context.app.config();
    let no_file =
        context.config.is_none() && Config::file_in_use(context.app.environment()).is_none();
    if no_file && config.source.is_empty() && context.app.places().is_err() {
        return Err(AppError::usage_hint(
            "nothing is configured",
            "say --config FILE, where it is not /etc/backup/backup.toml or \
             ~/.config/backup/backup.toml; `init` writes one to fill in",
        ));
    }
    for name in config.source.keys() {
        context.app.check_backup(Some(name))?;
    }
    context.app.check_notify()?;
    let schedules = context.app.schedules()?;
    let without = config.source.iter();
    let without = without.filter(|(_, source)| source.schedule.is_none());
    let unscheduled: Vec<_> = without.map(|(name, _)| name.as_str()).collect();
    let now = SystemClock.now();
    let schedules: Vec<_> = schedules.iter().map(|one| one.report(now, SHOWN)).collect();
    if context.json {
        render::json(&json!({
            "status": "ok",
            "sources": config.source.len() as u64,
            "servers": config.server.len() as u64,
            "destinations": config.destination.len() as u64,
            "schedules": schedules,
            "unscheduled": unscheduled,
        }));
    } else {
        render::line(&format!(
            "ok: {}, {}, {}",
            render::counted(config.source.len() as u64, "source"),
            render::counted(config.server.len() as u64, "server"),
            render::counted(config.destination.len() as u64, "destination"),
        ));
        if !schedules.is_empty() {
            show_schedules(&schedules, &unscheduled);
        }
    }
    Ok(exit_code::DONE)
}

/// When things run next, on the clocks that they run by and in UTC.
fn show_schedules(schedules: &[ScheduleReport], unscheduled: &[&str]) {
    let header = [
        "run",
        "source",
        "schedule",
        "time zone",
        "next there",
        "next in UTC",
    ];
    let mut table = render::table(&header, &[]);
    for one in schedules {
        let source = one
            .source
            .as_deref()
            .map_or_else(|| "-".to_owned(), render::name);
        for (index, run) in one.next.iter().enumerate() {
            let mut row = match index {
                0 => vec![
                    one.operation.as_str().to_owned(),
                    source.clone(),
                    one.schedule.clone(),
                    one.timezone.to_owned(),
                ],
                _ => vec![String::new(); 4],
            };
            row.push(run.local.to_rfc3339_opts(SecondsFormat::Secs, false));
            row.push(render::time(run.utc));
            table.add_row(row);
        }
    }
    render::line("");
    render::print(&table);
    if !unscheduled.is_empty() {
        let names: Vec<_> = unscheduled.iter().map(|name| render::name(name)).collect();
        render::line(&format!("\nwithout a schedule: {}", names.join(", ")));
    }
}

/// The same with and without `--json`.
pub(super) fn schema() -> u8 {
    render::pretty_json(&config_schema());
    exit_code::DONE
}

fn show(context: &Context) -> Outcome {
    let config = context.app.config();
    if context.json {
        render::pretty_json(config);
    } else {
        render::line(config.to_toml()?.trim_end());
    }
    Ok(exit_code::DONE)
}

fn explain(context: &Context, file: Option<&Path>) -> Outcome {
    let settings = Config::explain(file, context.app.environment())?;
    if context.json {
        render::pretty_json(&settings);
    } else {
        for setting in &settings {
            render::line(&setting.to_string());
        }
    }
    Ok(exit_code::DONE)
}
