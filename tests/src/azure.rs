//! Azurite, Azure's own emulator of its blob storage, and a client to look into its containers.

mod client;

use std::fs::{self, File};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use crate::child::{self, Server as Process};
use crate::scratch::Scratch;
use crate::{canary, ports, servers};

use client::Client;

/// How long it may take until it answers.
const START_LIMIT: Duration = Duration::from_mins(1);

/// Attempts at ports before giving up: another process may take one first.
const PORT_ATTEMPTS: usize = 5;

/// The account and the key that the emulator has by itself, known to everybody.
const ACCOUNT: &str = "devstoreaccount1";
const ACCESS_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A running Azurite with an empty account; stopped and removed on drop. All methods block.
#[derive(Debug)]
pub struct Azurite {
    // Order matters: the server ends before its files go.
    _process: Process,
    _scratch: Scratch,
    port: u16,
    client: Client,
}

impl Azurite {
    /// The server that all tests of this process share. Make a container of your own in it.
    ///
    /// # Errors
    ///
    /// When it is not where `scripts/test-servers` puts it, or does not come up.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Azurite, String>> = OnceLock::new();
        let start = || Self::start().map_err(|error| format!("{error:#}"));
        let shared = SHARED.get_or_init(start).as_ref();
        shared.map_err(|message| anyhow::anyhow!("{message}"))
    }

    fn start() -> Result<Self> {
        canary::keep(ACCESS_KEY);
        for _ in 0..PORT_ATTEMPTS {
            let scratch = Scratch::new()?;
            let port = ports::free(&[0])?;
            let Some(process) = launch(&scratch, port)? else {
                continue;
            };
            let client = Client::new(port);
            return Ok(Self {
                _process: process,
                _scratch: scratch,
                port,
                client,
            });
        }
        bail!("Azurite found no port")
    }

    /// The URL of the account.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/{ACCOUNT}", self.port)
    }

    /// The port of [`Azurite::endpoint`], for a [`crate::fault::Proxy`] in front of it.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The account's name.
    #[must_use]
    pub fn account(&self) -> &'static str {
        ACCOUNT
    }

    /// The account's key.
    #[must_use]
    pub fn access_key(&self) -> &'static str {
        ACCESS_KEY
    }

    /// A signature with these permissions (`rwdlac` is all of them), good for an hour.
    ///
    /// # Errors
    ///
    /// Never, as the key is a good one.
    pub fn sas_token(&self, permissions: &str) -> Result<String> {
        let token = client::sas_token(permissions)?;
        let signature = token.rsplit_once("sig=").map_or("", |(_, rest)| rest);
        canary::keep(signature);
        Ok(token)
    }

    /// Creates a container.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub fn create_container(&self, container: &str) -> Result<()> {
        self.client.create_container(container)
    }

    /// All blobs of a container, in order.
    ///
    /// # Errors
    ///
    /// When there is no such container.
    pub fn list(&self, container: &str) -> Result<Vec<String>> {
        self.client.list(container, "")
    }

    /// As [`Azurite::list`], with those of which only blocks were sent. Nothing but time removes
    /// such blocks.
    ///
    /// # Errors
    ///
    /// When there is no such container.
    pub fn list_with_uncommitted(&self, container: &str) -> Result<Vec<String>> {
        self.client.list(container, "uncommittedblobs")
    }

    /// Stores a blob, over an older one.
    ///
    /// # Errors
    ///
    /// When there is no such container.
    pub fn put(&self, container: &str, blob: &str, bytes: &[u8]) -> Result<()> {
        self.client.put(container, blob, bytes)
    }

    /// A blob's bytes.
    ///
    /// # Errors
    ///
    /// When there is no such blob.
    pub fn get(&self, container: &str, blob: &str) -> Result<Vec<u8>> {
        self.client.get(container, blob)
    }

    /// A header of a blob, such as `x-ms-access-tier`.
    ///
    /// # Errors
    ///
    /// When there is no such blob.
    pub fn header(&self, container: &str, blob: &str, name: &str) -> Result<Option<String>> {
        self.client.header(container, blob, name)
    }
}

/// Starts the process and waits until it answers; `None` if the port is taken.
fn launch(scratch: &Scratch, port: u16) -> Result<Option<Process>> {
    let main = servers::path("PGB_TEST_AZURITE")?;
    let folder = scratch.path();
    let mut command: Command = child::command_as_self("node", Signal::SIGKILL);
    command.arg(main).args(["--silent", "--disableTelemetry"]);
    // It is asked in words of the service that are newer than itself.
    command.args(["--skipApiVersionCheck", "--blobHost", "127.0.0.1"]);
    command.arg("--blobPort").arg(port.to_string());
    command.arg("--location").arg(folder.join("data"));
    let log = folder.join("log");
    command.current_dir(folder).env("HOME", folder);
    command.stdin(File::open("/dev/null")?);
    command.stdout(File::create(&log)?);
    command.stderr(File::options().append(true).open(&log)?);
    let mut process = Process::spawn(command, Signal::SIGKILL)?;
    let (client, deadline) = (Client::new(port), Instant::now() + START_LIMIT);
    loop {
        if let Some(status) = process.exited()? {
            let log = fs::read_to_string(&log)?;
            if log.contains("EADDRINUSE") {
                return Ok(None);
            }
            bail!("Azurite ended with {status}: {log}");
        }
        let Err(error) = client.create_container("probe") else {
            return Ok(Some(process));
        };
        if Instant::now() > deadline {
            bail!("Azurite stores nothing: {error:#}");
        }
        thread::sleep(Duration::from_millis(100));
    }
}
