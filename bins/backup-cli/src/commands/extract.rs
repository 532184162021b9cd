//! `restore --target-dir`: a backup as files.

use std::path::Path;

use backup_app::{Extraction, Reading, begin};
use backup_core::run_record::Operation;
use serde_json::json;

use super::{Context, Found, Outcome};
use crate::{exit_code, render};

pub(super) async fn run(context: &Context, found: &Found, directory: &Path) -> Outcome {
    let (engine, manifest) = (&found.engine, &found.manifest);
    let place = &found.place.name;
    let mut run = begin(engine, Operation::Restore);
    run.source = Some(manifest.source.clone());
    run.backup = Some(manifest.id.clone());
    let extraction = Extraction {
        engine,
        manifest,
        directory,
    };
    let what = Reading {
        engine,
        place,
        backup: manifest,
        operation: Operation::Restore,
    };
    let cancel = context.interrupt.token().child_token();
    let work = Box::pin(extraction.run(&cancel));
    let result = context.reading(&what, work).await?;
    match &result {
        Ok((outcome, _)) => run.restored(outcome),
        Err(backup_app::AppError::Engine(error)) => run.failed(error),
        Err(error) => run.ended_with(error, error.kind()),
    }
    let recorded = context.record(engine, place, run).await;
    let (outcome, files) = result?;
    if context.json {
        let files = files.iter().map(|file| {
            json!({ "part": file.part, "path": file.path.to_string_lossy(), "bytes": file.bytes })
        });
        render::json(&json!({
            "run_id": recorded.map(|run| run.to_string()),
            "backup": manifest.id.to_string(),
            "target_directory": directory.to_string_lossy(),
            "status": "success",
            "duration_seconds": (outcome.finished_at - outcome.started_at).as_seconds_f64(),
            "bytes_read": outcome.bytes_read,
            "files": files.collect::<Vec<_>>(),
            "warnings": outcome.warnings,
        }));
    } else {
        for file in &files {
            render::line(&format!(
                "{}  {}",
                render::name(&file.path.to_string_lossy()),
                render::size(file.bytes)
            ));
        }
        render::line(&format!(
            "wrote {} as it was dumped, checked byte by byte",
            manifest.id
        ));
    }
    Ok(exit_code::DONE)
}
