//! What a server does by itself.

use std::sync::Arc;
use std::time::Duration;

use backup_app::{App, AppError, HURRIED_LIMIT, Scheduler, SystemClock};
use tokio_util::sync::CancellationToken;

use crate::state::Server;

/// How often it is looked for what others left: sandboxes, and runs whose process is gone.
const SWEEP: Duration = Duration::from_mins(1);

/// How long the look at sandboxes may take, and the writing of what was counted of requests: whoever
/// does not answer keeps nothing else from being done.
const SWEEP_LIMIT: Duration = Duration::from_mins(5);
const FLUSH_LIMIT: Duration = Duration::from_secs(15);

/// How often it is looked whether everything was read once.
const SOON: Duration = Duration::from_millis(200);

/// How long jobs may take to end once the server is to stop. They are children of this process, so
/// none lives on.
const GRACE: Duration = Duration::from_secs(45);

/// Has jobs begun as schedules say, unless somebody else does that, and drops what has ended, until `stop`; then stops all jobs and
/// says what became of them.
///
/// # Errors
/// When a schedule makes no sense.
pub async fn upkeep(
    app: Arc<App>,
    server: Arc<Server>,
    with_schedules: bool,
    stop: CancellationToken,
) -> Result<(), AppError> {
    let scheduler = Scheduler::new(Arc::clone(&app), server.jobs.clone(), Arc::new(SystemClock))?;
    server.watch_missed(scheduler.missed());
    let scheduling = async {
        if !with_schedules {
            return;
        }
        // What is read first is not made to wait for what runs.
        while server.overview().is_none() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(SOON) => {}
            }
        }
        scheduler.run(stop.clone()).await;
    };
    tokio::join!(scheduling, sweep(&app, &server, &stop), async {
        stop.cancelled().await;
        stop_jobs(&server).await;
    });
    Ok(())
}

async fn sweep(app: &App, server: &Server, stop: &CancellationToken) {
    let mut told = None;
    loop {
        flush(server, false).await;
        let noted = app.note_interrupted(stop).await;
        if let Some(notices) = server.jobs.notices() {
            for run in &noted {
                notices.ended(run, None);
            }
            // What was told is not told twice.
            if let Some(overview) = server.overview() {
                notices.found(&overview.check);
            }
        }
        let swept = tokio::select! {
            swept = tokio::time::timeout(SWEEP_LIMIT, app.sweep_sandboxes()) => swept,
            () = stop.cancelled() => return,
        };
        let problem = match swept {
            Ok(swept) => swept.err().map(|error| error.render()),
            Err(_) => Some("their server does not answer in time".to_owned()),
        };
        // Once, and not every minute.
        if let Some(problem) = problem.as_ref().filter(|_| problem != told) {
            tracing::warn!(target: "backup", "sandboxes cannot be looked at: {problem}");
        }
        told = problem;
        tokio::select! {
            () = tokio::time::sleep(SWEEP) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Writes down what was counted of requests. Where that takes too long the log alone says so.
async fn flush(server: &Server, all: bool) {
    let flushed = server.audit.flush(&server.app, all);
    if tokio::time::timeout(FLUSH_LIMIT, flushed).await.is_err() {
        tracing::warn!(target: "backup", "who was not let in cannot be written down in time");
    }
}

async fn stop_jobs(server: &Server) {
    let under_way = server.jobs.all();
    let under_way: Vec<_> = under_way.iter().filter(|job| !job.is_over()).collect();
    let in_time = tokio::time::timeout(GRACE, server.jobs.stop()).await;
    for job in under_way {
        let source = job.source.as_deref().unwrap_or("all sources");
        let state = server.jobs.get(&job.id).map_or("gone", |job| job.state);
        let what = format!("{} of {source}", job.operation);
        tracing::info!(target: "backup", job = job.id, "{what}: {state}");
    }
    flush(server, true).await;
    if let Some(notices) = server.jobs.notices() {
        notices.flush(HURRIED_LIMIT).await;
    }
    if in_time.is_err() {
        tracing::warn!(target: "backup", "not all jobs ended in time");
    }
}
