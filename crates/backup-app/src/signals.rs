//! Signals as a cancellation, and what a process sets once at its start.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::resource::Resource;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels its token at SIGINT, SIGTERM or SIGHUP, and remembers which it was.
#[derive(Debug, Clone)]
pub struct Interrupt {
    token: CancellationToken,
    signal: Arc<AtomicI32>,
    /// When the first signal came.
    asked: Arc<OnceLock<Instant>>,
}

/// Signals nearer to each other than this are one.
const AGAIN: Duration = Duration::from_millis(500);

impl Interrupt {
    fn new() -> Self {
        Self {
            token: CancellationToken::new(),
            signal: Arc::new(AtomicI32::new(0)),
            asked: Arc::default(),
        }
    }

    /// Starts listening. Must be called within the runtime.
    ///
    /// # Errors
    /// When the system does not let us listen.
    pub fn listen() -> std::io::Result<Self> {
        Self::listen_to(&[
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ])
    }

    /// The same for a process that has no terminal, where SIGHUP asks it to read its configuration
    /// again.
    ///
    /// # Errors
    /// When the system does not let us listen.
    pub fn listen_with_hangups() -> std::io::Result<(Self, Hangups)> {
        let interrupt = Self::listen_to(&[SignalKind::interrupt(), SignalKind::terminate()])?;
        Ok((interrupt, Hangups(signal(SignalKind::hangup())?)))
    }

    fn listen_to(kinds: &[SignalKind]) -> std::io::Result<Self> {
        let interrupt = Self::new();
        for &kind in kinds {
            // `nohup`, and shells that put a job into the background, want it ignored.
            if is_ignored(kind.as_raw_value()) {
                continue;
            }
            let mut signals = signal(kind)?;
            let listener = interrupt.clone();
            tokio::spawn(async move {
                let number = kind.as_raw_value();
                while signals.recv().await.is_some() {
                    listener.received(number);
                }
            });
        }
        Ok(interrupt)
    }

    /// The first signal stops in good order; with the next one, somebody wants it at once. The
    /// tools die with us, and what the run stored is no backup without its manifest.
    ///
    /// A closed terminal sends SIGHUP more than once, and `timeout` each signal twice at the same
    /// moment: that is nobody who asks again.
    #[expect(
        clippy::disallowed_methods,
        reason = "whoever asks twice does not want to wait for main to return"
    )]
    fn received(&self, number: i32) {
        let first = self
            .signal
            .compare_exchange(0, number, Ordering::SeqCst, Ordering::SeqCst);
        if first.is_err() {
            if self.asks_again(number, Instant::now()) {
                tracing::warn!(target: "backup", signal = number, "ended without cleaning up");
                std::process::exit(128 + number);
            }
            return;
        }
        let _ = self.asked.set(Instant::now());
        tracing::warn!(target: "backup", signal = number, "stopping; once more to end at once");
        self.token.cancel();
    }

    /// Whether a signal after the first is somebody who does not want to wait.
    fn asks_again(&self, number: i32, now: Instant) -> bool {
        let since = |at: &Instant| now.saturating_duration_since(*at);
        let apart = self.asked.get().is_some_and(|at| since(at) >= AGAIN);
        apart && number != SignalKind::hangup().as_raw_value()
    }

    /// Cancelled by the first signal.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// The signal that came, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        match self.signal.load(Ordering::SeqCst) {
            0 => None,
            number => Some(number),
        }
    }
}

/// Each SIGHUP that comes.
#[derive(Debug)]
pub struct Hangups(Signal);

impl Hangups {
    /// Waits for the next one.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Whether this process was started with a signal ignored.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

/// Lets nobody else read what this process creates, and keeps its memory, which holds keys, out
/// of core files. Called first thing in `main`.
pub fn keep_private() {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    if let Err(error) = nix::sys::resource::setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        tracing::warn!(target: "backup", %error, "core files cannot be turned off");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_asks_again_later_does_not_want_to_wait() {
        let number = |kind: SignalKind| kind.as_raw_value();
        let (hangup, interrupt, terminate) = (
            number(SignalKind::hangup()),
            number(SignalKind::interrupt()),
            number(SignalKind::terminate()),
        );
        let asked = Interrupt::new();
        assert!(!asked.asks_again(interrupt, Instant::now()));
        asked.received(terminate);
        assert!(asked.token().is_cancelled());
        let at = *asked.asked.get().unwrap();
        for (signal, after, again) in [
            (interrupt, Duration::ZERO, false),
            (terminate, AGAIN / 2, false),
            (terminate, AGAIN, true),
            (interrupt, 2 * AGAIN, true),
            // A terminal that is closed says so more than once.
            (hangup, AGAIN, false),
            (hangup, 100 * AGAIN, false),
        ] {
            assert_eq!(
                asked.asks_again(signal, at + after),
                again,
                "{signal} after {after:?}"
            );
        }
        assert_eq!(asked.signal(), Some(terminate));
    }
}
