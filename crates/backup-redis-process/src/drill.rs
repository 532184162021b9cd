//! [`RedisDrill`]: a throw-away server that loads a snapshot, writes it again, and goes.

mod home;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::drill::{
    Answer, Assertion, DrillServer, DrillSession, ServerFacts, StructureReport,
};
use backup_core::error::{ErrorKind, PortError};
use backup_core::facts::Scope;
use backup_core::manifest::{Manifest, PartFormat};
use backup_core::restorer::{
    LoadReport, PartReader, ReadBack, RestoreRequest, RestoreSession, Restorer,
};
use backup_process::ToolEnv;
use backup_process::child::{ToolChild, ToolCommand, run_briefly};
use futures::StreamExt as _;
use nix::sys::signal::Signal;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Mutex;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;

use crate::ask::{ANSWER, ask};
use crate::error::judged;
use crate::inspector::inspected;
use crate::{RedisConnection, RedisTools};
use home::Home;

const POLL: Duration = Duration::from_millis(50);
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// A drill has a time limit of its own; this one is only no limit.
const AS_LONG_AS_IT_TAKES: Duration = Duration::from_hours(24);
/// Since this version a server can look at every value that it loads.
const SANITIZES: (u32, u32) = (6, 2);

/// Where and as whom servers run.
#[derive(Debug, Clone, Default)]
pub struct RedisDrillConfig {
    /// Where the programs are.
    pub tools: RedisTools,
    /// Where its directory is made, which will hold the whole snapshot; among temporary files if
    /// absent.
    pub directory: Option<PathBuf>,
}

/// Makes a server for each drill.
#[derive(Debug, Clone)]
pub struct RedisDrill {
    config: RedisDrillConfig,
}

impl RedisDrill {
    /// Servers as `config` says; nothing is made before the first drill.
    #[must_use]
    pub fn new(config: RedisDrillConfig) -> Self {
        Self { config }
    }
}

#[async_trait]
impl DrillServer for RedisDrill {
    async fn start(
        &self,
        _backup: &Manifest,
        _jobs: usize,
        cancel: &CancellationToken,
    ) -> Result<Box<dyn DrillSession>, PortError> {
        let program = self.config.tools.server()?;
        let client = self.config.tools.client()?;
        let version = version(&program, cancel).await?;
        let parent = self.config.directory.clone();
        let home = tokio::task::spawn_blocking(move || Home::make(parent.as_deref()));
        let home = home.await.map_err(|e| {
            PortError::new(ErrorKind::Internal, "the preparation died").with_source(e)
        })??;
        let facts = ServerFacts {
            kind: "a throw-away Redis server".to_owned(),
            server_version: version.clone(),
            tool_version: version.clone(),
            account: home.account_name(),
            network: None,
        };
        let throw_away = ThrowAway {
            program,
            client,
            sanitizes: numbers(&version) >= SANITIZES,
            home,
            child: Mutex::new(None),
        };
        Ok(Box::new(Session {
            facts,
            server: Loader(Arc::new(throw_away)),
        }))
    }
}

fn numbers(version: &str) -> (u32, u32) {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Of `Redis server v=7.0.15 sha=…`.
async fn version(program: &Path, cancel: &CancellationToken) -> Result<String, PortError> {
    let env = ToolEnv::default().set("LC_ALL", "C");
    let command = ToolCommand::new(program, env).args(["--version"]);
    let output = run_briefly(&command, ANSWER, cancel)
        .await
        .map_err(judged)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = text.split_whitespace();
    let version = words.find_map(|word| word.strip_prefix("v="));
    Ok(version.unwrap_or_default().to_owned())
}

#[derive(Debug)]
struct Session {
    facts: ServerFacts,
    server: Loader,
}

#[async_trait]
impl DrillSession for Session {
    fn facts(&self) -> &ServerFacts {
        &self.facts
    }

    fn database(&self) -> &'static str {
        "redis"
    }

    fn restorer(&self) -> &dyn Restorer {
        &self.server
    }

    fn left_out(&self) -> Vec<String> {
        Vec::new()
    }

    async fn check(&self, _cancel: &CancellationToken) -> Result<StructureReport, PortError> {
        Ok(StructureReport {
            unavailable: Some(
                "Redis has no structure beside its keys, which were compared".to_owned(),
            ),
            ..StructureReport::default()
        })
    }

    async fn ask(
        &self,
        _assertion: &Assertion,
        _cancel: &CancellationToken,
    ) -> Result<Answer, PortError> {
        Ok(Answer::Fails("Redis answers no SQL".to_owned()))
    }

    async fn stop(&self) -> Result<(), PortError> {
        self.server.0.stop().await
    }
}

/// One server and its directory.
#[derive(Debug)]
struct ThrowAway {
    program: PathBuf,
    client: PathBuf,
    sanitizes: bool,
    home: Home,
    child: Mutex<Option<ToolChild>>,
}

impl ThrowAway {
    fn command(&self) -> ToolCommand {
        let env = ToolEnv::default()
            .set("LC_ALL", "C")
            .set("PATH", "/usr/bin:/bin");
        let mut command = ToolCommand::new(&self.program, env)
            .args(["--port", "0", "--daemonize", "no", "--unixsocketperm", "700"])
            .args(["--save", "", "--appendonly", "no", "--dbfilename", home::DUMP])
            // A master would drop keys whose time is over when it loads them, and they would be
            // missing. A replica leaves that to its master, who is not there.
            .args(["--replicaof", "127.0.0.1", "1"])
            .args(["--unixsocket".into(), self.home.socket().into_os_string()])
            .args(["--dir".into(), self.home.data().into_os_string()])
            .args(["--logfile".into(), self.home.log().into_os_string()])
            .with_account(self.home.account());
        if self.sanitizes {
            command = command.args(["--sanitize-dump-payload", "yes"]);
        }
        command.without_network = true;
        command.death_signal = Signal::SIGKILL;
        command
    }

    fn connection(&self) -> RedisConnection {
        RedisConnection::socket(self.home.socket())
    }

    /// Starts the server over the snapshot that lies there, and waits until it has loaded it.
    async fn load(&self, cancel: &CancellationToken) -> Result<(), PortError> {
        let mut child = ToolChild::spawn(&self.command())?;
        drop(child.take_stdout());
        let connection = self.connection();
        let loaded = loop {
            let answer = ask((&self.client, &connection), &["PING"], ANSWER, cancel).await;
            match answer {
                Ok(answer) if answer.trim() == "PONG" => break Ok(()),
                Err(error) if error.kind() == ErrorKind::Cancelled => break Err(error),
                _ => {}
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                exit = child.wait() => break Err(self.ended(exit.map(|exit| exit.status_words()))),
                () = cancel.cancelled() => break Err(PortError::cancelled()),
            }
        };
        *self.child.lock().await = Some(child);
        loaded
    }

    fn ended(&self, status: Result<String, backup_process::Error>) -> PortError {
        let status = status.unwrap_or_else(|error| error.to_string());
        let words = self.home.last_words();
        let message = format!("redis-server {status}: {words}");
        PortError::new(ErrorKind::ToolFailed, message.trim_end_matches([':', ' ']))
    }

    /// Lets the server write what it has.
    async fn saved(&self, cancel: &CancellationToken) -> Result<ReadBack, PortError> {
        let dump = self.home.dump();
        let failed = |e| {
            PortError::new(ErrorKind::Internal, "cannot read what the server has").with_source(e)
        };
        // What it loaded from must not be taken for what it saves.
        tokio::fs::remove_file(&dump).await.map_err(failed)?;
        let connection = self.connection();
        let of = (self.client.as_path(), &connection);
        let answer = ask(of, &["SAVE"], AS_LONG_AS_IT_TAKES, cancel).await?;
        if answer.trim() != "OK" {
            let message = "the throw-away server cannot write what it has";
            return Err(PortError::new(ErrorKind::ToolFailed, message).with_source(
                std::io::Error::other(answer.trim().chars().take(200).collect::<String>()),
            ));
        }
        let file = tokio::fs::File::open(&dump).await.map_err(failed)?;
        let mut passing = inspected(ReaderStream::with_capacity(file, 256 << 10).boxed());
        while let Some(chunk) = passing.body.next().await {
            chunk.map_err(|e| PortError::from_io(e, ErrorKind::Internal, "cannot be read"))?;
            if cancel.is_cancelled() {
                return Err(PortError::cancelled());
            }
        }
        let report = passing.report.await?;
        let tables = report.facts.tables.into_iter();
        Ok(ReadBack {
            tables: tables
                .map(|found| (found.table, Ok(found.fingerprint)))
                .collect(),
            ..ReadBack::default()
        })
    }

    async fn stop(&self) -> Result<(), PortError> {
        if let Some(mut child) = self.child.lock().await.take() {
            child.stop(Signal::SIGKILL, STOP_LIMIT).await;
        }
        self.home.remove()
    }
}

/// Loads snapshots into one server.
#[derive(Debug, Clone)]
struct Loader(Arc<ThrowAway>);

#[async_trait]
impl Restorer for Loader {
    async fn create(
        &self,
        _request: &RestoreRequest,
        parts: Arc<dyn PartReader>,
        _cancel: &CancellationToken,
    ) -> Result<Box<dyn RestoreSession>, PortError> {
        Ok(Box::new(Loading {
            server: Arc::clone(&self.0),
            parts,
        }))
    }
}

#[derive(Debug)]
struct Loading {
    server: Arc<ThrowAway>,
    parts: Arc<dyn PartReader>,
}

impl Loading {
    async fn fetch(&self) -> Result<(), PortError> {
        let record = self.parts.manifest().parts.iter();
        let mut snapshots = record.filter(|part| part.format == PartFormat::Rdb);
        let Some(part) = snapshots.next() else {
            let message = "the backup has no snapshot of Redis";
            return Err(PortError::new(ErrorKind::InvalidInput, message));
        };
        let mut body = self.parts.open(&part.name).await?;
        let failed =
            |e| PortError::new(ErrorKind::Unavailable, "cannot write the snapshot").with_source(e);
        let file = self.server.home.new_dump().map_err(failed)?;
        let mut file = tokio::fs::File::from_std(file);
        while let Some(chunk) = body.next().await {
            let chunk = chunk
                .map_err(|e| PortError::from_io(e, ErrorKind::Unavailable, "cannot be read"))?;
            file.write_all(&chunk).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)
    }
}

#[async_trait]
impl RestoreSession for Loading {
    fn scope(&self) -> Scope {
        Scope::Everything
    }

    async fn load(&self, cancel: &CancellationToken) -> Result<LoadReport, PortError> {
        tokio::select! {
            fetched = self.fetch() => fetched?,
            () = cancel.cancelled() => return Err(PortError::cancelled()),
        }
        self.server.load(cancel).await?;
        Ok(LoadReport::default())
    }

    async fn read_back(&self, cancel: &CancellationToken) -> Result<ReadBack, PortError> {
        if self.parts.facts().tables().is_empty() {
            let message = "its keys could not be counted when it was taken: it loads, and nothing \
                           more can be said";
            return Err(PortError::new(ErrorKind::Unsuitable, message));
        }
        self.server.saved(cancel).await
    }

    async fn discard(&self) -> Result<(), PortError> {
        Ok(())
    }
}
