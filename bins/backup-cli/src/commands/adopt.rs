//! `adopt`: dumps of other tools become backups.

use std::sync::Arc;

use backup_app::{Adoption, AppError};
use backup_core::error::Error as CoreError;
use backup_core::observer::Observer;

use super::{Context, Outcome, backup};
use crate::args::AdoptArgs;
use crate::progress::Progress;
use crate::{exit_code, render};

/// One after another: what cannot be adopted keeps no other from it.
pub(super) async fn run(context: &Context, arguments: &AdoptArgs) -> Outcome {
    if arguments.at.is_some() && arguments.files.len() > 1 {
        return Err(AppError::usage("--at is about one file"));
    }
    let mut codes = Vec::new();
    for file in &arguments.files {
        let adoption = Adoption {
            file,
            source: &arguments.source,
            at: arguments.at,
        };
        let job = context.stoppable(context.app.adopt_job(&adoption)).await;
        let job = match job {
            Ok(job) => job,
            Err(error @ AppError::Engine(CoreError::Cancelled)) => return Err(error),
            Err(error) if arguments.files.len() == 1 => return Err(error),
            Err(error) => {
                let file = render::name(&file.to_string_lossy());
                render::note(&format!("{file}:"));
                render::error(&error, context.json);
                codes.push(exit_code::of(&error));
                continue;
            }
        };
        let progress = Arc::new(Progress::new("adopt", context.quiet));
        let observer: Arc<dyn Observer> = Arc::<Progress>::clone(&progress);
        let stop = context.interrupt.token();
        let work = context
            .app
            .run_backup(&job, &context.journal, observer, stop);
        let run = Box::pin(work).await;
        progress.finish();
        codes.push(backup::finished(
            context,
            (&job.source, &job.database),
            run,
        )?);
    }
    Ok(exit_code::of_several(&codes))
}
