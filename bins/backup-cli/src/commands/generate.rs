//! `generate`: files by which others run backups.

use std::fs::{OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use backup_app::generate::{Artifact, Generated, Orchestrator};
use backup_app::{AppError, Installation};
use serde_json::json;

use super::{Context, Outcome};
use crate::args::{GenerateArgs, OrchestratorArg};
use crate::{exit_code, render};

pub(super) fn run(context: &Context, arguments: &GenerateArgs) -> Outcome {
    let orchestrator = match arguments.orchestrator {
        OrchestratorArg::Cron => Orchestrator::Cron,
        OrchestratorArg::Systemd => Orchestrator::Systemd,
        OrchestratorArg::Teamcity => Orchestrator::Teamcity,
        OrchestratorArg::Airflow => Orchestrator::Airflow,
        OrchestratorArg::Kubernetes => Orchestrator::Kubernetes,
        OrchestratorArg::Compose => Orchestrator::Compose,
        OrchestratorArg::Makefile => Orchestrator::Makefile,
    };
    let installation = Installation {
        program: arguments.program.clone(),
        image: arguments.image.clone(),
        config: context.config.clone(),
    };
    let made = context.app.generate(orchestrator, &installation)?;
    match &arguments.output {
        Some(output) => write(context, arguments, output, &made)?,
        None => print(context, &made),
    }
    for note in &made.notes {
        render::warn(&render::name(note));
    }
    Ok(if made.notes.is_empty() {
        exit_code::DONE
    } else {
        exit_code::WARNINGS
    })
}

fn print(context: &Context, made: &Generated) {
    if context.json {
        let files = made.files.iter();
        let files = files.map(|file| json!({ "name": file.name, "text": file.text }));
        let files: Vec<_> = files.collect();
        render::json(&json!({ "files": files, "warnings": made.notes }));
        return;
    }
    for file in &made.files {
        if made.files.len() > 1 {
            // What all of these formats take for a comment.
            render::line(&format!("# ---- {}", file.name));
        }
        render::line(file.text.trim_end_matches('\n'));
    }
}

/// Writes all files, or none where one of them is there already.
fn write(
    context: &Context,
    arguments: &GenerateArgs,
    output: &Path,
    made: &Generated,
) -> Result<(), AppError> {
    let places = places(output, made)?;
    for (path, _) in &places {
        if !arguments.force && path.symlink_metadata().is_ok() {
            return Err(AppError::usage_hint(
                format!(
                    "{} is there already, and nothing was written",
                    path.display()
                ),
                "name another place, or say --force",
            ));
        }
    }
    for (path, file) in &places {
        create(path, file, arguments.force).map_err(|source| AppError::File {
            operation: format!("write {}", path.display()),
            source,
        })?;
    }
    let paths: Vec<_> = places
        .iter()
        .map(|(path, _)| path.display().to_string())
        .collect();
    if context.json {
        render::json(&json!({ "written": paths, "warnings": made.notes }));
    } else {
        for path in paths {
            render::line(&render::name(&path));
        }
    }
    Ok(())
}

/// Where each file goes: several into a directory, one also under a name of its own.
fn places<'a>(
    output: &Path,
    made: &'a Generated,
) -> Result<Vec<(PathBuf, &'a Artifact)>, AppError> {
    if let [file] = made.files.as_slice()
        && !output.is_dir()
        && !output.as_os_str().as_encoded_bytes().ends_with(b"/")
    {
        return Ok(vec![(output.to_owned(), file)]);
    }
    std::fs::create_dir_all(output).map_err(|source| AppError::File {
        operation: format!("make {}", output.display()),
        source,
    })?;
    let files = made.files.iter();
    Ok(files.map(|file| (output.join(&file.name), file)).collect())
}

/// Nothing in it is secret, and others have to read it.
fn create(path: &Path, file: &Artifact, force: bool) -> std::io::Result<()> {
    let mode = if file.is_program { 0o755 } else { 0o644 };
    let mut options = OpenOptions::new();
    options.write(true).mode(mode);
    if force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let mut written = options.open(path)?;
    written.write_all(file.text.as_bytes())?;
    // Our umask lets nobody else in.
    written.set_permissions(Permissions::from_mode(mode))?;
    written.sync_all()
}
