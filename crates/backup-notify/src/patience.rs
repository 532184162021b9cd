//! How often something is tried.

use std::time::Duration;

use backup_core::error::{ErrorKind, PortError};
use tokio::time::Instant;

/// How long a notice may take, and how long the first pause between two tries is. Each further pause
/// is twice as long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For all tries together.
    pub limit: Duration,
    /// Before the second try.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            limit: Duration::from_secs(20),
            pause: Duration::from_secs(1),
        }
    }
}

/// Why one try failed.
#[derive(Debug)]
pub struct Failure {
    /// What it was.
    pub error: PortError,
    /// Whether it may pass.
    pub passes: bool,
    /// How long the other side wants to be left alone.
    pub after: Option<Duration>,
}

impl Failure {
    /// One that will not pass by itself.
    pub(crate) fn lasting(error: PortError) -> Self {
        Self {
            error,
            passes: false,
            after: None,
        }
    }

    /// One that may.
    pub(crate) fn passing(error: PortError) -> Self {
        Self {
            error,
            passes: true,
            after: None,
        }
    }
}

impl Patience {
    /// Tries until it goes, cannot go, or the time is up. The last failure is the one that is told.
    ///
    /// # Errors
    /// That failure, or `Timeout`.
    pub async fn tried<T, F>(self, attempt: impl Fn() -> F) -> Result<T, PortError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let deadline = Instant::now() + self.limit;
        let mut pause = self.pause;
        let mut last: Option<PortError> = None;
        loop {
            let Ok(tried) = tokio::time::timeout_at(deadline, attempt()).await else {
                let limit = self.limit.as_secs();
                let late = || {
                    let message = format!("no answer within {limit} s");
                    PortError::new(ErrorKind::Timeout, message)
                };
                return Err(last.unwrap_or_else(late));
            };
            let failure = match tried {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            let wait = failure.after.map_or(pause, |after| after.max(pause));
            let left = deadline.saturating_duration_since(Instant::now());
            if !failure.passes || wait >= left {
                return Err(failure.error);
            }
            last = Some(failure.error);
            tokio::time::sleep(wait).await;
            pause *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// How often it is tried, how long that takes, and how it ends.
    async fn run(failures: u32, after: Option<u64>, passes: bool) -> (u32, u64, bool) {
        let tries = AtomicU32::new(0);
        let begun = Instant::now();
        let ended = Patience::default().tried(|| async {
            if tries.fetch_add(1, Ordering::Relaxed) >= failures {
                return Ok(());
            }
            let error = PortError::new(ErrorKind::Unavailable, "no");
            let after = after.map(Duration::from_secs);
            Err(Failure {
                error,
                passes,
                after,
            })
        });
        let good = ended.await.is_ok();
        (tries.into_inner(), begun.elapsed().as_secs(), good)
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_tried_with_growing_pauses() {
        assert_eq!(run(0, None, true).await, (1, 0, true));
        assert_eq!(run(2, None, true).await, (3, 3, true));
        assert_eq!(run(99, None, true).await, (5, 15, false));
        assert_eq!(run(99, None, false).await, (1, 0, false));
    }

    #[tokio::test(start_paused = true)]
    async fn the_other_side_says_when_it_wants_to_be_asked() {
        assert_eq!(run(1, Some(7), true).await, (2, 7, true));
        assert_eq!(run(1, Some(0), true).await, (2, 1, true));
        assert_eq!(run(1, Some(3600), true).await, (1, 0, false));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_never_answers_is_given_up() {
        let tried = Patience::default().tried(|| async {
            std::future::pending::<()>().await;
            Ok(())
        });
        let error = tried.await.unwrap_err();
        assert_eq!(error.to_string(), "no answer within 20 s");
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }
}
