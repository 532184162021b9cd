//! Redis.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use crate::child::{self, Server};
use crate::scratch::Scratch;
use crate::{ports, servers};

/// How long it may take to answer.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running server; it ends on drop.
#[derive(Debug)]
pub struct Redis {
    server: Server,
    scratch: Scratch,
    port: u16,
    login: Vec<String>,
}

/// Where the programs are.
///
/// # Errors
///
/// When they are not there.
pub fn bin_dir() -> Result<PathBuf> {
    servers::path("PGB_TEST_REDIS")
}

impl Redis {
    /// Starts one with these options besides its port and its directory, in which `prepare` may put
    /// something first. `login` is what `redis-cli` needs to get in.
    ///
    /// # Errors
    ///
    /// When it is not there or does not come up.
    pub fn start(
        options: &[&str],
        login: &[&str],
        prepare: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let scratch = Scratch::new()?;
        let port = ports::free(&[])?;
        prepare(scratch.path())?;
        let mut command = child::command_as_self(bin_dir()?.join("redis-server"), Signal::SIGKILL);
        let folder = scratch.path().display().to_string();
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
        ]);
        command.args(["--dir", &folder, "--repl-diskless-sync-delay", "0"]);
        let port_text = port.to_string();
        command.args(
            options
                .iter()
                .map(|word| word.replace("{port}", &port_text)),
        );
        let log = scratch.path().join("log");
        command.stdin(File::open("/dev/null")?);
        command.stdout(File::create(&log)?);
        command.stderr(File::options().append(true).open(&log)?);
        let mut server = Server::spawn(command, Signal::SIGKILL)?;
        let login: Vec<String> = login.iter().map(|&word| word.to_owned()).collect();
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let ended = server.exited()?;
            let said = fs::read_to_string(&log)?;
            ensure!(ended.is_none(), "Redis ended: {said}");
            if ask(port, &login, &["PING"]).is_ok_and(|answer| answer.trim() == "PONG") {
                break;
            }
            ensure!(Instant::now() < deadline, "Redis does not answer: {said}");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Self {
            server,
            scratch,
            port,
            login,
        })
    }

    /// Where it listens, on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its directory.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// What `redis-cli` answers.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn ask(&self, question: &[&str]) -> Result<String> {
        ask(self.port, &self.login, question)
    }

    /// Kills it and everything that it started.
    ///
    /// # Errors
    ///
    /// When it is gone already.
    pub fn kill(&self) -> Result<()> {
        self.server.signal_group(Signal::SIGKILL)
    }
}

fn ask(port: u16, login: &[String], question: &[&str]) -> Result<String> {
    let mut command = child::command_as_self(bin_dir()?.join("redis-cli"), Signal::SIGKILL);
    command
        .args(["-p", &port.to_string()])
        .args(login)
        .args(question);
    child::run(command)
}
