//! Reads the places in the background.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_app::{App, AppError, Watcher};
use tokio_util::sync::CancellationToken;

use crate::state::Server;

/// How soon after one look the next one begins.
const PAUSE: Duration = Duration::from_secs(5);

/// And how many times as long as the look took: what others do on this machine goes first, and a slow
/// store is not always busy with us.
const SHARE: u32 = 20;

/// Nobody waits longer than this, or than twice the time of a look, for what others did.
const LONGEST: Duration = Duration::from_mins(1);
const LONGEST_SHARE: u32 = 2;

/// Reads all places again and again.
pub async fn refresh(server: Arc<Server>, mut watcher: Watcher, stop: CancellationToken) {
    let mut told = Vec::new();
    let mut ends = server.jobs.ends();
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
        let own = async {
            // What was asked for here is seen sooner.
            tokio::time::sleep(began.elapsed() * LONGEST_SHARE).await;
            if ends.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause_after(began.elapsed())) => {}
            () = own => {}
            () = stop.cancelled() => return,
        }
    }
}

fn pause_after(look: Duration) -> Duration {
    let longest = LONGEST.max(look * LONGEST_SHARE);
    PAUSE.max(look * SHARE).min(longest)
}

/// Reads all places once.
///
/// # Errors
/// When the configuration makes no sense.
pub async fn read_once(app: Arc<App>, server: &Server) -> Result<(), AppError> {
    server.show(Watcher::new(app)?.look().await?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_leave_room_and_come_in_time() {
        for (look, pause) in [
            (10, 5_000),
            (1_000, 20_000),
            (9_000, 60_000),
            (70_000, 140_000),
        ] {
            let pause = Duration::from_millis(pause);
            assert_eq!(pause_after(Duration::from_millis(look)), pause);
        }
    }
}
