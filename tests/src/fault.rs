//! A TCP proxy on loopback that misbehaves on request.
//!
//! Put it between a client and a server, and change what it does while they talk. It runs on a
//! thread of its own, so that it serves blocking and async tests alike.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Bytes forwarded at once; small, so that limits and rates are met closely.
const CHUNK: usize = 16 * 1024;

/// A [`Trigger::hits`] for every connection.
pub const ALWAYS: u32 = u32::MAX;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server: requests and uploads.
    ToServer,
    /// From the server to the client: answers and downloads.
    ToClient,
}

/// What happens to a connection that reached its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Both ends get a TCP reset.
    Reset,
    /// Nothing is forwarded any more, either way, and the connection stays open.
    Blackhole,
    /// Both ends see the other one close in good order: a truncated stream without an error.
    Close,
}

/// A fault that waits for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// What to do.
    pub action: Action,
    /// Whose bytes count.
    pub direction: Direction,
    /// How many bytes of one connection pass before.
    pub after_bytes: u64,
    /// How many connections it may strike; [`ALWAYS`] for each. With 1, a retry succeeds.
    pub hits: u32,
}

/// What the proxy does; the default is to forward faithfully.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Added before each forwarded chunk, each way.
    pub latency: Duration,
    /// Bytes per second that each connection may carry each way; unlimited if `None`.
    pub bytes_per_second: Option<u64>,
    /// The fault that waits for bytes, if any.
    pub trigger: Option<Trigger>,
    /// New connections are reset at once.
    pub refuse: bool,
}

impl Faults {
    /// Only this one, after so many bytes of a connection, on so many connections.
    #[must_use]
    pub fn after(action: Action, direction: Direction, after_bytes: u64, hits: u32) -> Self {
        Self {
            trigger: Some(Trigger {
                action,
                direction,
                after_bytes,
                hits,
            }),
            ..Self::default()
        }
    }
}

/// A running proxy; its connections are cut when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    faults: Mutex<Faults>,
    /// Strikes that the current trigger has left.
    hits_left: AtomicU32,
    /// Counts up at each [`Proxy::cut`].
    cuts: watch::Sender<u64>,
    shutdown: CancellationToken,
    connections: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
    struck: AtomicU64,
}

impl Proxy {
    /// Starts a proxy on a free loopback port, in front of `upstream`'s loopback port.
    ///
    /// # Errors
    ///
    /// When no port or thread is to be had.
    pub fn start(upstream: u16) -> Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let shared = Arc::new(Shared {
            upstream: (Ipv4Addr::LOCALHOST, upstream).into(),
            faults: Mutex::default(),
            hits_left: AtomicU32::new(0),
            cuts: watch::Sender::new(0),
            shutdown: CancellationToken::new(),
            connections: AtomicU64::new(0),
            to_server: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
            struck: AtomicU64::new(0),
        });
        let serving = Arc::clone(&shared);
        let serve = move || {
            runtime.block_on(async move {
                let shutdown = serving.shutdown.clone();
                let _ = shutdown
                    .run_until_cancelled(accept(listener, serving))
                    .await;
            });
        };
        let thread = thread::Builder::new()
            .name("fault-proxy".into())
            .spawn(serve)?;
        Ok(Self {
            shared,
            address,
            thread: Some(thread),
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port of [`Proxy::address`].
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Changes what the proxy does, for open connections as well. A trigger starts with all its
    /// hits, and counts the bytes that an open connection has already carried.
    pub fn set(&self, faults: Faults) {
        let hits = faults.trigger.map_or(0, |trigger| trigger.hits);
        *self.shared.faults() = faults;
        self.shared.hits_left.store(hits, Ordering::Relaxed);
    }

    /// Forwards faithfully again; a black hole that a connection fell into stays one.
    pub fn heal(&self) {
        self.set(Faults::default());
    }

    /// Resets all open connections, black holes too.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// How many connections there have been.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// How many connections the triggers have struck.
    #[must_use]
    pub fn struck(&self) -> u64 {
        self.shared.struck.load(Ordering::Relaxed)
    }

    /// How many bytes have gone `direction`, over all connections.
    #[must_use]
    pub fn forwarded(&self, direction: Direction) -> u64 {
        self.shared.counter(direction).load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.shared.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counter(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }

    /// The trigger's action, if these bytes set it off, with the bytes that may still pass.
    fn strike(&self, direction: Direction, carried: u64, next: u64) -> Option<(Action, u64)> {
        let trigger = self
            .faults()
            .trigger
            .filter(|trigger| trigger.direction == direction)?;
        if carried + next <= trigger.after_bytes {
            return None;
        }
        let spend = |left: u32| match left {
            0 => None,
            ALWAYS => Some(ALWAYS),
            some => Some(some - 1),
        };
        self.hits_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend)
            .ok()?;
        self.struck.fetch_add(1, Ordering::Relaxed);
        Some((trigger.action, trigger.after_bytes.saturating_sub(carried)))
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).expect("the listener does not block");
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        shared.connections.fetch_add(1, Ordering::Relaxed);
        if shared.faults().refuse {
            reset(client);
            continue;
        }
        tokio::spawn(serve(client, Arc::clone(&shared)));
    }
}

/// Carries one connection to its end.
async fn serve(mut client: TcpStream, shared: Arc<Shared>) {
    let mut cuts = shared.cuts.subscribe();
    let Ok(mut server) = TcpStream::connect(shared.upstream).await else {
        return reset(client);
    };
    let end = {
        // Borrowed halves: owned ones say goodbye when dropped, which comes before the reset.
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        let up = Pipe {
            from: client_read,
            to: server_write,
            direction: Direction::ToServer,
            shared: &shared,
        };
        let down = Pipe {
            from: server_read,
            to: client_write,
            direction: Direction::ToClient,
            shared: &shared,
        };
        tokio::select! {
            end = both(up.carry(), down.carry()) => end,
            _ = cuts.changed() => Some(Action::Reset),
        }
    };
    if end == Some(Action::Blackhole) {
        // Keep both sockets open until somebody cuts.
        let _ = cuts.changed().await;
    }
    if matches!(end, Some(Action::Reset | Action::Blackhole)) {
        reset(client);
        reset(server);
    }
}

/// Runs both directions until both have ended or a fault struck one.
async fn both(
    up: impl Future<Output = Option<Action>>,
    down: impl Future<Output = Option<Action>>,
) -> Option<Action> {
    tokio::pin!(up, down);
    tokio::select! {
        end = &mut up => match end {
            None => down.await,
            struck => struck,
        },
        end = &mut down => match end {
            None => up.await,
            struck => struck,
        },
    }
}

struct Pipe<'a> {
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    direction: Direction,
    shared: &'a Shared,
}

impl Pipe<'_> {
    /// Forwards until the sender has finished (`None`) or a fault strikes.
    async fn carry(mut self) -> Option<Action> {
        let mut buffer = vec![0; CHUNK];
        let mut carried = 0;
        loop {
            let Ok(read) = self.from.read(&mut buffer).await else {
                return Some(Action::Reset);
            };
            if read == 0 {
                let _ = self.to.shutdown().await;
                return None;
            }
            let strike = self.shared.strike(self.direction, carried, read as u64);
            let passing = strike.map_or(read, |(_, rest)| usize::try_from(rest).unwrap_or(read));
            if self.forward(&buffer[..passing]).await.is_err() {
                return Some(Action::Reset);
            }
            if let Some((action, _)) = strike {
                return Some(action);
            }
            carried += read as u64;
        }
    }

    async fn forward(&mut self, bytes: &[u8]) -> Result<()> {
        let (latency, rate) = {
            let faults = self.shared.faults();
            (faults.latency, faults.bytes_per_second)
        };
        let pause = rate.map_or(Duration::ZERO, |rate| {
            Duration::from_micros(1_000_000 * bytes.len() as u64 / rate.max(1))
        });
        tokio::time::sleep(latency + pause).await;
        self.to.write_all(bytes).await.context("forward")?;
        self.shared
            .counter(self.direction)
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger();
    drop(stream);
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::TcpStream;
    use std::time::Instant;

    use super::*;

    /// A server that sends back what it gets.
    fn echo() -> u16 {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut writer = stream.try_clone().unwrap();
                    let _ = std::io::copy(&mut &stream, &mut writer);
                });
            }
        });
        port
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.address()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_mins(1)))
            .unwrap();
        stream
    }

    fn exchange(stream: &mut TcpStream, bytes: usize) -> std::io::Result<usize> {
        stream.write_all(&vec![7; bytes])?;
        let mut answer = vec![0; bytes];
        let mut got = 0;
        while got < bytes {
            match stream.read(&mut answer[got..])? {
                0 => break,
                more => got += more,
            }
        }
        Ok(got)
    }

    fn trigger(action: Action, hits: u32) -> Faults {
        Faults::after(action, Direction::ToClient, 1000, hits)
    }

    #[test]
    fn without_faults_everything_passes() {
        let proxy = Proxy::start(echo()).unwrap();
        assert_eq!(exchange(&mut connect(&proxy), 100_000).unwrap(), 100_000);
        assert_eq!(proxy.forwarded(Direction::ToServer), 100_000);
        assert_eq!(proxy.connections(), 1);
    }

    #[test]
    fn a_reset_strikes_as_often_as_it_may() {
        let proxy = Proxy::start(echo()).unwrap();
        proxy.set(trigger(Action::Reset, 1));
        let error = exchange(&mut connect(&proxy), 5000).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(exchange(&mut connect(&proxy), 5000).unwrap(), 5000);
        assert_eq!(proxy.struck(), 1);
    }

    #[test]
    fn a_close_truncates_without_an_error() {
        let proxy = Proxy::start(echo()).unwrap();
        proxy.set(trigger(Action::Close, ALWAYS));
        assert_eq!(exchange(&mut connect(&proxy), 5000).unwrap(), 1000);
    }

    #[test]
    fn a_black_hole_is_silent_until_it_is_cut() {
        let proxy = Proxy::start(echo()).unwrap();
        proxy.set(trigger(Action::Blackhole, ALWAYS));
        let mut stream = connect(&proxy);
        let brief = Duration::from_millis(500);
        stream.set_read_timeout(Some(brief)).unwrap();
        assert_eq!(
            exchange(&mut stream, 5000).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
        proxy.cut();
        let long = Duration::from_mins(1);
        stream.set_read_timeout(Some(long)).unwrap();
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn refusing_and_healing() {
        let proxy = Proxy::start(echo()).unwrap();
        proxy.set(Faults {
            refuse: true,
            ..Faults::default()
        });
        assert!(exchange(&mut connect(&proxy), 10).is_err());
        proxy.heal();
        assert_eq!(exchange(&mut connect(&proxy), 10).unwrap(), 10);
    }

    #[test]
    fn a_rate_slows_down() {
        let proxy = Proxy::start(echo()).unwrap();
        proxy.set(Faults {
            bytes_per_second: Some(200_000),
            ..Faults::default()
        });
        let started = Instant::now();
        exchange(&mut connect(&proxy), 40_000).unwrap();
        assert!(
            started.elapsed() >= Duration::from_millis(200),
            "{:?}",
            started.elapsed()
        );
    }
}
