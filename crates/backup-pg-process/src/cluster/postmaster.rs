//! `initdb`, `postgres`, and the end of it.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use backup_core::error::{ErrorKind, PortError};
use backup_process::child::{ToolChild, ToolCommand, ToolExit, run_briefly};
use backup_process::{Error as ProcessError, ToolEnv};
use nix::sys::signal::Signal;
use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;

use super::host::{Host, processes_in};
use crate::session::execute;
use crate::{ConnectionConfig, Error, SslMode, quote_ident, quote_literal};

const INITDB_LIMIT: Duration = Duration::from_mins(2);
const START_LIMIT: Duration = Duration::from_mins(1);
/// After SIGQUIT the server gives its processes five seconds before it kills them.
const STOP_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(25);

/// Connections beside those of the restore's jobs.
const SPARE_CONNECTIONS: usize = 20;
/// Each job can have a program and a connection of ours.
const CONNECTIONS_PER_JOB: usize = 4;

/// What the server is started with. Nothing of it survives a crash, nobody waits for the disk, and
/// no library of the installation's is loaded.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
    ("password_encryption", "scram-sha-256"),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("synchronous_commit", "off"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("max_replication_slots", "0"),
    ("archive_mode", "off"),
    ("autovacuum", "off"),
    ("max_prepared_transactions", "0"),
    ("shared_preload_libraries", ""),
    ("session_preload_libraries", ""),
    ("local_preload_libraries", ""),
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("log_min_messages", "fatal"),
    ("lc_messages", "C"),
    ("max_locks_per_transaction", "256"),
    // Containers often have little of the other kind.
    ("dynamic_shared_memory_type", "mmap"),
];

/// The roles of one cluster. Their names are new each time: a backup may name any others.
#[derive(Debug)]
pub(super) struct Roles {
    pub(super) admin: String,
    pub(super) login: String,
    /// See [`Rehearsal::helper`](crate::Rehearsal).
    pub(super) helper: String,
    admin_password: SecretString,
    login_password: SecretString,
}

impl Roles {
    pub(super) fn new() -> Self {
        let name = |what: &str| format!("drill_{what}_{:016x}", rand::random::<u64>());
        let password = || {
            let words: Vec<String> = (0..4)
                .map(|_| format!("{:016x}", rand::random::<u64>()))
                .collect();
            SecretString::from(words.concat())
        };
        Self {
            admin: name("admin"),
            login: name("login"),
            helper: name("helper"),
            admin_password: password(),
            login_password: password(),
        }
    }
}

/// A running server.
#[derive(Debug)]
pub(super) struct Postmaster {
    child: ToolChild,
    host: Host,
    has_network: bool,
}

impl Postmaster {
    /// Makes a cluster and starts its server. Nothing is left after an error.
    pub(super) async fn start(
        host: Host,
        bin_dir: &Path,
        (roles, jobs): (&Roles, usize),
        cancel: &CancellationToken,
    ) -> Result<Self, PortError> {
        init(&host, bin_dir, roles, cancel).await?;
        let mut server = Self::spawn(host, bin_dir, jobs)?;
        match server.make_roles(roles, cancel).await {
            Ok(()) => {
                server.has_network = server.sees_our_network();
                Ok(server)
            }
            Err(error) => {
                // The first failure counts; what is left is swept by the next drill.
                let _ = server.stop().await;
                Err(error)
            }
        }
    }

    fn spawn(host: Host, bin_dir: &Path, jobs: usize) -> Result<Self, PortError> {
        let mut command = ToolCommand::new(bin_dir.join("postgres"), environment())
            .args(["-D".into(), host.data().into_os_string()])
            .with_account(host.account());
        command.without_network = true;
        // SIGTERM would wait for sessions to end.
        command.death_signal = Signal::SIGQUIT;
        let connections = (SPARE_CONNECTIONS + CONNECTIONS_PER_JOB * jobs).to_string();
        let socket = format!("\"{}\"", host.socket_directory().display());
        let ours = [
            ("max_connections", connections.as_str()),
            ("unix_socket_directories", &socket),
        ];
        for (name, value) in SETTINGS.iter().chain(&ours) {
            command = command.args(["-c".to_owned(), format!("{name}={value}")]);
        }
        let mut child = ToolChild::spawn(&command)?;
        // It says nothing there, and what nobody reads must not fill up.
        drop(child.take_stdout());
        Ok(Self {
            child,
            host,
            has_network: true,
        })
    }

    /// Waits until it answers, and makes the login that restores.
    async fn make_roles(
        &mut self,
        roles: &Roles,
        cancel: &CancellationToken,
    ) -> Result<(), PortError> {
        let config = self.admin(roles);
        let deadline = Instant::now() + START_LIMIT;
        let mut admin = loop {
            let failure = match config.connect("postgres").await {
                Ok(connection) => break connection,
                Err(error) => error,
            };
            if Instant::now() > deadline {
                return Err(failure.into());
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                exit = self.child.wait() => return Err(ended(exit)),
                () = cancel.cancelled() => return Err(PortError::cancelled()),
            }
        };
        let (login, helper) = (quote_ident(&roles.login), quote_ident(&roles.helper));
        // BYPASSRLS: what is compared is every row.
        let sql = format!(
            "CREATE ROLE {helper} NOLOGIN;
             CREATE ROLE {login} LOGIN CREATEDB BYPASSRLS PASSWORD {} IN ROLE {helper}",
            quote_literal(roles.login_password.expose_secret())
        );
        Ok(execute(&mut admin, sql, "make the login that restores").await?)
    }

    /// The superuser of the cluster.
    pub(super) fn admin(&self, roles: &Roles) -> ConnectionConfig {
        self.connection(&roles.admin, &roles.admin_password)
    }

    /// The login that restores.
    pub(super) fn login(&self, roles: &Roles) -> ConnectionConfig {
        self.connection(&roles.login, &roles.login_password)
    }

    fn connection(&self, user: &str, password: &SecretString) -> ConnectionConfig {
        let host = self.host.socket_directory().display().to_string();
        let mut connection = ConnectionConfig::new(host, user);
        connection.password = Some(password.clone());
        connection.ssl_mode = SslMode::Disable;
        connection
    }

    /// A directory that only we can enter.
    pub(super) fn private_directory(&self) -> &Path {
        self.host.path()
    }

    /// Whether the server can reach a network.
    pub(super) fn has_network(&self) -> bool {
        self.has_network
    }

    fn sees_our_network(&self) -> bool {
        let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
        let id = self.child.id().map(|id| id.to_string());
        let its_own = id.and_then(|id| namespace(&id));
        match (its_own, namespace("self")) {
            (Some(its_own), Some(ours)) => its_own == ours,
            _ => true,
        }
    }

    /// Ends the server at once, and removes everything of it.
    pub(super) async fn stop(mut self) -> Result<(), PortError> {
        self.child.stop(Signal::SIGQUIT, STOP_LIMIT).await;
        // Its processes have sessions of their own and may outlive it for a moment.
        let data = self.host.data();
        let deadline = Instant::now() + STOP_LIMIT;
        while !processes_in(&data).is_empty() && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
        let removed = tokio::task::spawn_blocking(move || self.host.remove()).await;
        removed.unwrap_or_else(|e| {
            Err(PortError::new(ErrorKind::Internal, "the removal died").with_source(e))
        })
    }
}

fn ended(exit: Result<ToolExit, ProcessError>) -> PortError {
    let failure = match exit.and_then(ToolExit::into_result) {
        Ok(_) => ProcessError::ToolMisbehaved {
            tool: "postgres".to_owned(),
            problem: "ended at once".to_owned(),
        },
        Err(error) => error,
    };
    failure.into()
}

/// The programs read nothing of ours.
fn environment() -> ToolEnv {
    ToolEnv::default()
        .set("LC_ALL", "C")
        .set("TZ", "UTC")
        .set("PATH", "/usr/bin:/bin")
}

async fn init(
    host: &Host,
    bin_dir: &Path,
    roles: &Roles,
    cancel: &CancellationToken,
) -> Result<(), PortError> {
    let passwords = host.path().join("password");
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&passwords)
        .and_then(|mut file| writeln!(file, "{}", roles.admin_password.expose_secret()));
    written.map_err(|source| Error::PrivateFile { source })?;
    host.give(&passwords)?;
    // Each database says for itself how it is encoded and sorted.
    let command = ToolCommand::new(bin_dir.join("initdb"), environment())
        .args([
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ])
        .args([
            "--no-instructions".to_owned(),
            format!("--username={}", roles.admin),
        ])
        .args(["--pgdata".into(), host.data().into_os_string()])
        .args(["--pwfile".into(), passwords.clone().into_os_string()])
        .with_account(host.account());
    let done = run_briefly(&command, INITDB_LIMIT, cancel).await;
    std::fs::remove_file(&passwords).map_err(|source| Error::PrivateFile { source })?;
    done?.exit.into_result()?;
    Ok(())
}
