//! Child processes that end with the test process, however it ends.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, Uid};

use crate::scratch::NOBODY;

/// Makes a command for `program` that gets `death_signal` when the test process dies.
pub(crate) fn command_as_self(program: impl AsRef<OsStr>, death_signal: Signal) -> Command {
    let mut command = dying_with_us(death_signal);
    // Whoever runs the tests in the background may have these ignored, and that is inherited.
    command.args(["--", "env", "--default-signal=HUP,INT"]);
    command.arg(program);
    command
}

/// As [`command_as_self`], but as an unprivileged user when the tests run as root: PostgreSQL
/// refuses root.
pub(crate) fn command_unprivileged(program: impl AsRef<OsStr>, death_signal: Signal) -> Command {
    let mut command = dying_with_us(death_signal);
    if Uid::effective().is_root() {
        command
            .arg(format!("--reuid={NOBODY}"))
            .arg(format!("--regid={NOBODY}"))
            .arg("--clear-groups");
    }
    command.arg("--").arg(program);
    command
}

fn dying_with_us(signal: Signal) -> Command {
    let mut command = Command::new("setpriv");
    command
        .arg("--pdeathsig")
        .arg(signal.as_str().trim_start_matches("SIG"));
    command.env("LC_ALL", "C.UTF-8");
    command
}

/// Runs a short command to its end and returns what it printed.
///
/// # Errors
///
/// When it cannot be started or does not exit with 0; the error carries what it said on stderr.
pub(crate) fn run(mut command: Command) -> Result<String> {
    let program = describe(&command);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {program}"))?;
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output()?;
    if !status.success() {
        let stderr = String::from_utf8_lossy(&stderr);
        bail!("{program} ended with {status}: {}", stderr.trim_end());
    }
    String::from_utf8(stdout).with_context(|| format!("{program} printed bytes that are not UTF-8"))
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// A running server, ended on drop.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    stop_signal: Signal,
}

impl Server {
    /// Starts `command`; it will be asked to stop by `stop_signal`.
    pub(crate) fn spawn(mut command: Command, stop_signal: Signal) -> Result<Self> {
        let program = describe(&command);
        command.process_group(0);
        let child = spawn_on_lasting_thread(command).with_context(|| format!("start {program}"))?;
        Ok(Self { child, stop_signal })
    }

    /// How the server ended, if it did.
    pub(crate) fn exited(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Sends `signal` to the server itself.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).with_context(|| format!("send {signal}"))
    }

    /// Sends `signal` to the server's whole process group.
    pub(crate) fn signal_group(&self, signal: Signal) -> Result<()> {
        killpg(self.pid(), signal).with_context(|| format!("send {signal}"))
    }

    /// Waits until the server has ended, at most `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.exited()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("process {} still runs after {limit:?}", self.pid());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The server's process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("process ids fit into i32"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !matches!(self.exited(), Ok(None)) {
            return;
        }
        // A stopped process would keep the signal pending.
        let _ = self.signal_group(Signal::SIGCONT);
        let _ = self.signal(self.stop_signal);
        if self.wait(Duration::from_secs(10)).is_err() {
            let _ = self.signal_group(Signal::SIGKILL);
            let _ = self.wait(Duration::from_secs(10));
        }
    }
}

/// Sends `signal` to a process and to its children: for servers whose children leave the group.
pub(crate) fn signal_family(parent: Pid, signal: Signal) -> Result<()> {
    kill(parent, signal).with_context(|| format!("send {signal} to {parent}"))?;
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if parent_of(pid) == Some(parent) {
            // It may have ended by itself in the meantime.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
    Ok(())
}

fn parent_of(pid: i32) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // "pid (name) state parent …", where the name may contain anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace()
        .nth(1)?
        .parse()
        .ok()
        .map(Pid::from_raw)
}

type Request = (Command, Sender<io::Result<Child>>);

/// Spawns on a thread that lasts as long as the process.
///
/// The parent-death signal comes when the *thread* that forked ends, and a test's thread ends with
/// the test, while a shared server is there for the tests after it.
fn spawn_on_lasting_thread(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Request>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, incoming) = channel::<Request>();
        thread::spawn(move || {
            for (mut command, answer) in incoming {
                let _ = answer.send(command.spawn());
            }
        });
        requests
    });
    let (answer, answers) = channel();
    spawner.send((command, answer)).map_err(io::Error::other)?;
    answers.recv().map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_says_why() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo why >&2; exit 3"]);
        let error = run(command).unwrap_err().to_string();
        assert!(
            error.contains("exit status: 3") && error.ends_with("why"),
            "{error}"
        );
    }

    #[test]
    fn a_server_outlives_the_thread_that_started_it_but_not_its_guard() {
        let start = || {
            let mut command = command_as_self("sleep", Signal::SIGKILL);
            command.arg("60");
            Server::spawn(command, Signal::SIGTERM).unwrap()
        };
        let mut server = thread::spawn(start).join().unwrap();
        thread::sleep(Duration::from_millis(200));
        assert!(server.exited().unwrap().is_none());
        let proc = std::path::PathBuf::from(format!("/proc/{}", server.pid()));
        assert!(proc.exists());
        drop(server);
        assert!(!proc.exists());
    }

    #[test]
    fn a_stopped_server_is_ended_too() {
        let mut command = command_as_self("sleep", Signal::SIGKILL);
        command.arg("600");
        let server = Server::spawn(command, Signal::SIGTERM).unwrap();
        server.signal_group(Signal::SIGSTOP).unwrap();
        let started = Instant::now();
        drop(server);
        assert!(started.elapsed() < Duration::from_mins(2));
    }
}
