//! `config`: is it right, and what is in force.

use std::path::Path;

use backup_app::{Config, config_schema};
use serde_json::json;

use super::{Context, Outcome};
use crate::args::ConfigCommand;
use crate::{exit_code, render};

pub(super) fn run(context: &Context, command: &ConfigCommand, file: Option<&Path>) -> Outcome {
    match command {
        ConfigCommand::Check => check(context),
        ConfigCommand::Schema => Ok(schema()),
        ConfigCommand::Show { origin: false } => show(context),
        ConfigCommand::Show { origin: true } => explain(context, file),
    }
}

/// The file was read and its names resolved when the command began; what is left are the
/// things that only taking a backup would find: keys, URLs, compression, secrets.
fn check(context: &Context) -> Outcome {
    let config = context.app.config();
    for name in config.source.keys() {
        let job = context.app.backup_job(Some(name))?;
        for place in &job.places {
            place.open(context.app.environment())?;
        }
    }
    if context.json {
        render::json(&json!({
            "status": "ok",
            "sources": config.source.len() as u64,
            "servers": config.server.len() as u64,
            "destinations": config.destination.len() as u64,
        }));
    } else {
        render::line(&format!(
            "ok: {}, {}, {}",
            render::counted(config.source.len() as u64, "source"),
            render::counted(config.server.len() as u64, "server"),
            render::counted(config.destination.len() as u64, "destination"),
        ));
    }
    Ok(exit_code::DONE)
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
