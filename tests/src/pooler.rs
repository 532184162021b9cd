//! `PgBouncer` before a cluster.

use std::fs::{self, File};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use crate::child::{self, Server};
use crate::pg::Cluster;
use crate::scratch::Scratch;
use crate::{ports, servers};

/// How long it may take to listen.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A running pooler; it ends on drop.
#[derive(Debug)]
pub struct Pooler {
    _server: Server,
    _scratch: Scratch,
    port: u16,
}

impl Pooler {
    /// Starts one that hands out sessions of `cluster` in this `pool_mode`, and passes over these
    /// parameters of clients.
    ///
    /// # Errors
    ///
    /// When it is not there or does not come up.
    pub fn start(cluster: &Cluster, pool_mode: &str, ignored: &str) -> Result<Self> {
        let program = servers::path("PGB_TEST_PGBOUNCER")?;
        let libraries = program.parent().context("a folder")?;
        let libraries = libraries.join("../lib/x86_64-linux-gnu");
        let (scratch, port) = (Scratch::new()?, ports::free(&[])?);
        let folder = scratch.path();
        let config = format!(
            "[databases]\n* = host={} port={}\n\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {}\n\
             pool_mode = {pool_mode}\nignore_startup_parameters = {ignored}\n",
            cluster.host(),
            cluster.port(),
            folder.join("users").display(),
        );
        fs::write(folder.join("users"), "\"postgres\" \"\"\n\"backup\" \"\"\n")?;
        fs::write(folder.join("pgbouncer.ini"), config)?;
        let mut command = child::command_unprivileged(program, Signal::SIGKILL);
        command.arg(folder.join("pgbouncer.ini"));
        command.env("LD_LIBRARY_PATH", libraries);
        let log = folder.join("log");
        command.stdin(File::open("/dev/null")?);
        command.stdout(File::create(&log)?);
        command.stderr(File::options().append(true).open(&log)?);
        let mut server = Server::spawn(command, Signal::SIGTERM)?;
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = server.exited()?;
            let said = fs::read_to_string(&log)?;
            ensure!(ended.is_none(), "PgBouncer ended: {said}");
            ensure!(
                Instant::now() < deadline,
                "PgBouncer does not listen: {said}"
            );
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Self {
            _server: server,
            _scratch: scratch,
            port,
        })
    }

    /// Where it listens, on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}
