//! How many backups run at the same time.

use std::collections::BTreeMap;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use crate::compose::{App, BackupJob};
use crate::error::AppError;

/// Lets jobs begin in the order in which they ask: so many altogether, and so many of one server.
#[derive(Debug)]
pub struct BackupQueue {
    together: Semaphore,
    servers: BTreeMap<String, Semaphore>,
}

/// The right to run, until it is dropped.
#[derive(Debug)]
#[expect(
    dead_code,
    reason = "they are held, and given back when they are dropped"
)]
pub struct Turn<'a> {
    server: Option<SemaphorePermit<'a>>,
    one: SemaphorePermit<'a>,
}

impl BackupQueue {
    fn new(together: usize, servers: impl IntoIterator<Item = (String, usize)>) -> Self {
        let servers = servers.into_iter();
        Self {
            together: Semaphore::new(together),
            servers: servers.map(|(name, n)| (name, Semaphore::new(n))).collect(),
        }
    }

    /// Waits until a job of `server` may begin.
    ///
    /// # Cancellation
    /// `None`: it must not begin any more.
    pub async fn turn(&self, server: Option<&str>, cancel: &CancellationToken) -> Option<Turn<'_>> {
        let limit = server.and_then(|name| self.servers.get(name));
        let waiting = async {
            // In this order, what waits for its server keeps no other from beginning.
            let server = match limit {
                Some(limit) => Some(limit.acquire().await.ok()?),
                None => None,
            };
            let one = self.together.acquire().await.ok()?;
            Some(Turn { server, one })
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => None,
            turn = waiting => turn,
        }
    }
}

impl App {
    /// The limits of the configuration, or of the command line.
    ///
    /// # Errors
    /// When no backup at all could run.
    pub fn backup_queue(&self) -> Result<BackupQueue, AppError> {
        let config = self.config();
        let given = self.overrides().concurrent;
        let together = given.unwrap_or(config.defaults.concurrent_backups);
        if together == 0 {
            return Err(AppError::usage("at least one backup at a time is needed"));
        }
        let servers = config.server.iter();
        let limited = servers.filter_map(|(n, s)| Some((n.clone(), s.concurrent_backups?)));
        Ok(BackupQueue::new(
            together.min(Semaphore::MAX_PERMITS),
            limited,
        ))
    }
}

impl BackupJob {
    /// The configured server that it asks, for [`BackupQueue::turn`].
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_server_at_its_limit_keeps_no_other_from_beginning() {
        let queue = BackupQueue::new(2, [("slow".to_owned(), 1)]);
        let go = CancellationToken::new();
        let turn = |server| queue.turn(server, &go).now_or_never().flatten();
        let first = turn(Some("slow")).unwrap();
        assert!(turn(Some("slow")).is_none());
        let second = turn(Some("other")).unwrap();
        assert!(turn(None).is_none());
        drop(first);
        let third = turn(Some("slow")).unwrap();
        assert!(turn(Some("other")).is_none());
        drop((second, third));
        assert!(turn(None).is_some());
        go.cancel();
        assert!(turn(None).is_none());
    }
}
