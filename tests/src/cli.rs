//! `backup-cli` as a user runs it: the real binary, an environment that holds nothing but what the
//! test said, and everything that comes out of it.
//!
//! ```no_run
//! use backup_e2e::{cli::Cli, pg::Cluster};
//!
//! # fn main() -> anyhow::Result<()> {
//! let cluster = Cluster::shared(18)?;
//! let cli = Cli::new(cluster)?;
//! let (keys, store) = (cli.keys()?, cli.local_store());
//! let backup = cli
//!     .run(["backup", "-d", "shop", "--to", &store, "--recipient", &keys.recipient, "--json"])?
//!     .exits(0)?
//!     .json()?;
//! assert_eq!(backup["status"], "success");
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use chrono::{DateTime, Utc};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::azure::Azurite;
use crate::canary::Watched;
use crate::pg::Cluster;
use crate::s3::Server;
use crate::scratch::Scratch;
use crate::{binary, canary, child};

/// Says how full a disk may be.
pub const WARN_USED_PERCENT: &str = "BACKUP_DEFAULTS__WARN_USED_PERCENT";

/// Ours; a script that calls one of them has its name, too.
const PROGRAMS: [&str; 2] = ["backup-cli", "backup-server"];

/// Where the system's own programs are: `setpriv`, `age`, `zstd`.
const SYSTEM_PATH: &str = "/usr/bin:/bin";

/// The program with an environment of its own, and a private folder that is its home and its
/// working directory. The folder goes on drop.
#[derive(Debug)]
pub struct Cli {
    env: BTreeMap<String, String>,
    folder: Scratch,
}

/// A key pair made by `backup-cli keygen`.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The public key, for `--recipient`.
    pub recipient: String,
    /// The file with the private key, for `--identity`.
    pub identity: String,
}

/// How often a backup is tried: once, where a test is about how it fails.
pub const ATTEMPTS: &str = "BACKUP_DEFAULTS__RETRY__ATTEMPTS";

impl Cli {
    /// The program set to reach `cluster` as the superuser, with its major's client programs.
    ///
    /// # Errors
    ///
    /// When no folder can be made.
    pub fn new(cluster: &Cluster) -> Result<Self> {
        let mut cli = Self::without_server()?;
        for (name, value) in cluster.env("") {
            // Which database is the command line's business.
            if name != "PGDATABASE" {
                cli.env.insert(name.to_owned(), value);
            }
        }
        let path = format!("{}:{SYSTEM_PATH}", cluster.bin_dir().display());
        Ok(cli.with_env("PATH", &path))
    }

    /// The program set to reach no server at all.
    ///
    /// # Errors
    ///
    /// When no folder can be made.
    pub fn without_server() -> Result<Self> {
        let folder = Scratch::new()?;
        let home = folder.path().display().to_string();
        let env = BTreeMap::new();
        let cli = Self { env, folder };
        let cli = cli.with_env("PATH", SYSTEM_PATH).with_env("HOME", &home);
        Ok(cli.with_env(ATTEMPTS, "1"))
    }

    /// Adds what leads to `server`'s buckets.
    #[must_use]
    pub fn with_s3(self, server: &Server) -> Self {
        self.with_env("AWS_ENDPOINT_URL", &server.endpoint())
            .with_env("AWS_ACCESS_KEY_ID", server.access_key())
            .with_env("AWS_SECRET_ACCESS_KEY", server.secret_key())
            .with_env("AWS_REGION", server.region())
    }

    /// Adds what leads to `server`'s containers.
    #[must_use]
    pub fn with_azure(self, server: &Azurite) -> Self {
        self.with_env("AZURE_STORAGE_ENDPOINT", &server.endpoint())
            .with_env("AZURE_STORAGE_ACCOUNT_NAME", server.account())
            .with_env("AZURE_STORAGE_ACCOUNT_KEY", server.access_key())
    }

    /// Sets a variable.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Removes a variable.
    #[must_use]
    pub fn without_env(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    /// The variables, for other programs that are to see the same.
    #[must_use]
    pub fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    /// The private folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The directory of [`Cli::local_store`].
    #[must_use]
    pub fn local_root(&self) -> PathBuf {
        self.folder().join("store")
    }

    /// The URL of a store in the private folder.
    #[must_use]
    pub fn local_store(&self) -> String {
        format!("file://{}", self.local_root().display())
    }

    /// Writes a file into the private folder that only this user can read; returns its path. One line
    /// in a file without an extension is a secret.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn private_file(&self, name: &str, text: &str) -> Result<String> {
        canary::keep_file(name, text);
        let path = self.folder().join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path.display().to_string())
    }

    /// Makes a key pair; each call makes another.
    ///
    /// # Errors
    ///
    /// When `keygen` fails.
    pub fn keys(&self) -> Result<Keys> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = self.folder().join(format!("identity-{number}.txt"));
        let identity = path.display().to_string();
        let made = self.run(["keygen", "-o", &identity, "--json"])?.exits(0)?;
        let recipient = made.json()?["recipient"].as_str().map(str::to_owned);
        Ok(Keys {
            recipient: recipient.context("keygen prints the recipient")?,
            identity,
        })
    }

    /// The command, for whoever wants to change it before it starts. It is killed when the test
    /// process dies.
    ///
    /// # Errors
    ///
    /// When the program has not been built.
    pub fn command<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Command> {
        self.command_of("backup-cli", arguments)
    }

    /// The same of another of our programs.
    ///
    /// # Errors
    ///
    /// When the program has not been built.
    pub fn command_of<A: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Command> {
        let mut command = child::command_as_self(binary(program)?, Signal::SIGKILL);
        command.args(arguments).env_clear().envs(&self.env);
        command.current_dir(self.folder()).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs the program to its end.
    ///
    /// # Errors
    ///
    /// When it cannot be started; how it ends is in the result.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Run> {
        self.start(arguments)?.wait()
    }

    /// Runs it to its end on a day of our own by its wall clock. What it measures durations with is
    /// left alone.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run_at<A: AsRef<OsStr>>(
        &self,
        moment: DateTime<Utc>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Run> {
        let offset = moment.timestamp() - DateTime::<Utc>::from(SystemTime::now()).timestamp();
        let mut command = self.command(arguments)?;
        command
            .env("LD_PRELOAD", self.clock()?)
            .env("TEST_CLOCK_OFFSET", offset.to_string());
        Running::start(command)?.wait()
    }

    /// The library that moves the wall clock of a program. It is ours because the usual one crashes
    /// one program in a thousand while that ends.
    fn clock(&self) -> Result<PathBuf> {
        let library = self.folder().join("clock.so");
        if !library.exists() {
            let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/clock.c");
            let mut compiler = Command::new("cc");
            compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]);
            compiler.arg(&library).arg(source);
            Running::start(compiler)?.wait()?.exits(0)?;
        }
        Ok(library)
    }

    /// Starts the program.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Running> {
        Running::start(self.command(arguments)?)
    }
}

impl Drop for Cli {
    fn drop(&mut self) {
        canary::folder(&self.local_root());
        canary::complain();
    }
}

/// The program while it runs. It is killed on drop.
#[derive(Debug)]
pub struct Running {
    child: Child,
    words: String,
    started: Instant,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    watched: Option<Watched>,
}

impl Running {
    /// Starts a command of [`Cli::command`]. What it prints is collected meanwhile.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(mut command: Command) -> Result<Self> {
        let words: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
        // What comes before is the wrapper that ends the program together with us.
        let own = words.iter().position(|word| word == "--").unwrap_or(0);
        let words = words[own..].join(" ");
        // Other programs may show what a test gives them.
        let is_ours = PROGRAMS.iter().any(|program| words.contains(program));
        if is_ours {
            keep_variables(&command);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {words}"))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        Ok(Self {
            watched: is_ours.then(|| Watched::new(child.id())),
            child,
            words,
            started: Instant::now(),
            stdout: stdout.map(collect),
            stderr: stderr.map(collect),
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, signal).with_context(|| format!("send {signal} to {}", self.words))
    }

    /// Whether it has ended.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub fn wait(mut self) -> Result<Run> {
        let status = self.child.wait()?;
        self.finish(status)
    }

    /// Waits for its end, at most `limit`; after that it is killed.
    ///
    /// # Errors
    ///
    /// When it took longer.
    pub fn wait_at_most(mut self, limit: Duration) -> Result<Run> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return self.finish(status);
            }
            if Instant::now() > deadline {
                bail!("{} still runs after {limit:?}", self.words);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn finish(&mut self, status: ExitStatus) -> Result<Run> {
        let text = |reader: Option<JoinHandle<Vec<u8>>>| {
            let reader = reader.context("output is collected once")?;
            reader
                .join()
                .map_err(|_| anyhow::anyhow!("the reader panicked"))
        };
        let elapsed = self.started.elapsed();
        let (stdout, stderr) = (text(self.stdout.take())?, text(self.stderr.take())?);
        if self.watched.take().is_some() {
            canary::run(&self.words, &stdout, &stderr)?;
        }
        Ok(Run {
            words: std::mem::take(&mut self.words),
            code: status.code(),
            signal: status.signal(),
            elapsed,
            stdout,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        // Nobody waited for it, or for long enough; what it said until then counts.
        if self.watched.take().is_some() {
            let said = |reader: Option<JoinHandle<Vec<u8>>>| {
                let said = reader.filter(JoinHandle::is_finished).map(JoinHandle::join);
                said.and_then(Result::ok).unwrap_or_default()
            };
            let (stdout, stderr) = (said(self.stdout.take()), said(self.stderr.take()));
            let _ = canary::run(&self.words, &stdout, &stderr);
            canary::complain();
        }
    }
}

/// Looks for the secrets that a command gets in variables.
fn keep_variables(command: &Command) {
    for (name, value) in command.get_envs() {
        if let (Some(name), Some(value)) = (name.to_str(), value.and_then(OsStr::to_str)) {
            canary::keep_variable(name, value);
        }
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is what there is to look at.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

/// How the program ended.
#[derive(Clone, Debug)]
pub struct Run {
    /// The command line.
    pub words: String,
    /// The exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// From start to end.
    pub elapsed: Duration,
    /// What it printed, as bytes: rows may be anything.
    pub stdout: Vec<u8>,
    /// What it said.
    pub stderr: String,
}

impl Run {
    /// The same, if it ended with `code`.
    ///
    /// # Errors
    ///
    /// When it ended otherwise; the error carries all that it printed.
    pub fn exits(self, code: i32) -> Result<Self> {
        ensure!(
            self.code == Some(code),
            "{} ended with code {:?}, signal {:?} instead of {code}\n{}\n{}",
            self.words,
            self.code,
            self.signal,
            clipped(&self.text()),
            clipped(&self.stderr),
        );
        Ok(self)
    }

    /// What it printed, as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// What it printed, as one JSON value.
    ///
    /// # Errors
    ///
    /// When it is none, or more than one.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.stdout)
            .with_context(|| format!("{} printed {:?}", self.words, clipped(&self.text())))
    }
}

fn clipped(text: &str) -> String {
    const MOST: usize = 4000;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST).chain("…".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Run {
        let mut command = child::command_as_self("sh", Signal::SIGKILL);
        command.args(["-c", script]);
        Running::start(command).unwrap().wait().unwrap()
    }

    #[test]
    fn everything_that_comes_out_is_kept() {
        let run = shell("echo '{\"a\": 1}'; echo said >&2; exit 3");
        assert_eq!((run.code, run.signal), (Some(3), None));
        assert_eq!(run.json().unwrap()["a"], 1);
        assert_eq!(run.stderr, "said\n");
        let error = run.exits(0).unwrap_err().to_string();
        assert!(
            error.contains("instead of 0") && error.contains("said"),
            "{error}"
        );
    }

    #[test]
    fn a_signal_is_no_exit_code() {
        let run = shell("kill -9 $$");
        assert_eq!((run.code, run.signal), (None, Some(9)));
        assert!(run.exits(0).is_err());
    }

    #[test]
    fn nothing_outlasts_its_limit() {
        let mut command = child::command_as_self("sleep", Signal::SIGKILL);
        command.arg("60");
        let running = Running::start(command).unwrap();
        let process = PathBuf::from(format!("/proc/{}", running.pid()));
        assert!(running.wait_at_most(Duration::from_millis(50)).is_err());
        assert!(!process.exists());
    }
}
