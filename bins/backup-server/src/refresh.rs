//! Reads the places in the background.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_app::{App, AppError, Watcher};
use tokio_util::sync::CancellationToken;

use crate::state::Server;

/// How soon after one look the next one begins.
const PAUSE: Duration = Duration::from_secs(5);

/// And how many times as long as the look took, so that a slow store is not always busy with us.
const SHARE: u32 = 5;

/// Reads all places again and again.
pub async fn refresh(server: Arc<Server>, mut watcher: Watcher, stop: CancellationToken) {
    let mut told = Vec::new();
    loop {
        let began = Instant::now();
        let looked = tokio::select! {
            looked = watcher.look() => looked,
            () = stop.cancelled() => return,
        };
        match looked {
            Ok(overview) => {
                // Once, and not every few seconds.
                for text in &overview.incomplete {
                    if !told.contains(text) {
                        tracing::warn!(target: "backup", "{text}");
                    }
                }
                told.clone_from(&overview.incomplete);
                server.show(overview);
            }
            Err(error) => {
                tracing::error!(target: "backup", "read the places: {}", error.render());
            }
        }
        let pause = PAUSE.max(began.elapsed() * SHARE);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Reads all places once.
///
/// # Errors
/// When the configuration makes no sense.
pub async fn read_once(app: Arc<App>, server: &Server) -> Result<(), AppError> {
    server.show(Watcher::new(app)?.look().await?);
    Ok(())
}
