//! Child programs: started without a shell and with an environment of our making, drained while
//! they run, and ended with everything they started.
//!
//! [`ToolChild`] is the process; [`stdout_body`] makes its standard output a `BodyStream` that
//! ends cleanly only if the program exited with 0.

mod body;
mod stderr;

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Gid, Pid, Uid};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_util::sync::CancellationToken;

use crate::{Error, ToolEnv};

pub use body::stdout_body;
use stderr::StderrDrain;
pub use stderr::StderrLog;

/// How long a program may take to obey SIGTERM.
const GRACE: Duration = Duration::from_secs(3);
/// How long its standard error may stay open after its end: a grandchild could hold it for ever.
const STDERR_AFTER_EXIT: Duration = Duration::from_secs(1);

/// What to start.
#[derive(Debug, Clone)]
pub struct ToolCommand {
    /// Absolute path.
    pub program: PathBuf,
    /// Arguments. No name of a database and no secret belongs here.
    pub args: Vec<OsString>,
    /// The whole environment.
    pub env: ToolEnv,
    /// Whether we write to its standard input; otherwise that is `/dev/null`.
    pub pipe_stdin: bool,
    /// Whom it runs as, if not as ourselves.
    pub account: Option<Account>,
    /// Whether to keep it away from every network, where the system lets us.
    pub without_network: bool,
    /// What it gets when we die without being able to end it.
    pub death_signal: Signal,
}

/// An account of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name, for messages.
    pub name: String,
    /// Its user.
    pub user: Uid,
    /// Its group; it gets no other.
    pub group: Gid,
}

impl ToolCommand {
    /// `program` without arguments and standard input.
    pub fn new(program: impl Into<PathBuf>, env: ToolEnv) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env,
            pipe_stdin: false,
            account: None,
            without_network: false,
            death_signal: Signal::SIGTERM,
        }
    }

    /// Runs it as somebody else, which only root can.
    #[must_use]
    pub fn with_account(mut self, account: Option<&Account>) -> Self {
        self.account = account.cloned();
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Opens a pipe to its standard input.
    #[must_use]
    pub fn with_stdin(mut self) -> Self {
        self.pipe_stdin = true;
        self
    }

    /// The program's file name, for messages.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.program.file_name().unwrap_or(self.program.as_os_str());
        name.to_string_lossy().into_owned()
    }
}

/// A program's end.
#[derive(Debug, Clone)]
pub struct ToolExit {
    tool: String,
    status: ExitStatus,
    /// What it wrote to standard error.
    pub stderr: StderrLog,
}

impl ToolExit {
    /// Whether it exited with 0. Death by a signal is no success.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// The exit code; `None` after a signal.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// `exited with 1`, `was killed by signal 9 (SIGKILL)`.
    #[must_use]
    pub fn status_words(&self) -> String {
        status_words(self.status)
    }

    /// What it wrote to standard error, or the failure.
    ///
    /// # Errors
    /// `ToolFailed`, or the kind that its last words suggest, unless it exited with 0.
    pub fn into_result(self) -> Result<StderrLog, Error> {
        if self.success() {
            return Ok(self.stderr);
        }
        Err(Error::ToolFailed {
            status: self.status_words(),
            words: self.stderr.last_words(),
            tool: self.tool,
        })
    }
}

fn status_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("was killed by signal {number} ({signal})"),
            Err(_) => format!("was killed by signal {number}"),
        },
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

/// A running program. Dropping it kills its whole process group at once; [`terminate`] asks first.
///
/// Must be started on a thread that outlives it, as the runtime's workers do: the kernel ends the
/// child when that thread ends.
///
/// [`terminate`]: Self::terminate
#[derive(Debug)]
pub struct ToolChild {
    name: String,
    process: Child,
    /// The group to signal; `None` once the process was reaped and the rest of its group killed.
    group: Option<Pid>,
    status: Option<ExitStatus>,
    stderr: StderrDrain,
    /// Keeps the password file until the end.
    _env: ToolEnv,
}

impl ToolChild {
    /// Starts the program in a session of its own, so that it has no terminal to ask at.
    ///
    /// # Errors
    /// `ToolFailed` when it cannot be started.
    pub fn spawn(tool: &ToolCommand) -> Result<Self, Error> {
        let name = tool.name();
        let failed = |source| Error::SpawnTool {
            tool: tool.program.display().to_string(),
            source,
        };
        let mut command = Command::new(&tool.program);
        command
            .args(&tool.args)
            .env_clear()
            .envs(tool.env.vars())
            .current_dir("/")
            .stdin(if tool.pipe_stdin {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        own_session(&mut command, tool);
        let mut process = command.spawn().map_err(failed)?;
        let group = process
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .map(Pid::from_raw);
        let stderr = StderrDrain::start(process.stderr.take());
        if let Some(stdout) = &process.stdout {
            widen(stdout);
        }
        Ok(Self {
            name,
            process,
            group,
            status: None,
            stderr,
            _env: tool.env.clone(),
        })
    }

    /// The program's name, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pipe to its standard input, once.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.process.stdin.take()
    }

    /// The pipe from its standard output, once. A program whose output nobody takes can block.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.process.stdout.take()
    }

    /// Waits for its end and kills what it left running in its group.
    ///
    /// # Errors
    /// When it cannot be waited for; its exit status is in the result.
    ///
    /// # Cancellation
    /// Dropping the future leaves the program running and may be repeated.
    pub async fn wait(&mut self) -> Result<ToolExit, Error> {
        let status = self.wait_status().await?;
        self.kill_group();
        Ok(ToolExit {
            tool: self.name.clone(),
            status,
            stderr: self.stderr.finish(STDERR_AFTER_EXIT).await,
        })
    }

    /// Waits for its end only.
    async fn wait_status(&mut self) -> Result<ExitStatus, Error> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let status = self.process.wait().await.map_err(|source| Error::ToolIo {
            tool: self.name.clone(),
            source,
        })?;
        self.status = Some(status);
        Ok(status)
    }

    /// Waits for its end, or ends it when `cancel` says so.
    ///
    /// # Errors
    /// `Cancelled`; the program is gone then.
    pub async fn wait_or_cancel(&mut self, cancel: &CancellationToken) -> Result<ToolExit, Error> {
        tokio::select! {
            exit = self.wait() => return exit,
            () = cancel.cancelled() => {}
        }
        self.terminate().await;
        Err(Error::Cancelled)
    }

    /// SIGTERM to the group, SIGKILL when it has not gone after a grace of 3 s, and waits for it.
    pub async fn terminate(&mut self) {
        self.stop(Signal::SIGTERM, GRACE).await;
    }

    /// The signal to the group, SIGKILL when it has not gone after `grace`, and waits for it.
    pub async fn stop(&mut self, signal: Signal, grace: Duration) {
        self.signal(signal);
        if tokio::time::timeout(grace, self.wait_status())
            .await
            .is_err()
        {
            self.signal(Signal::SIGKILL);
            // Only a process in uninterruptible sleep outlives this, and no wait helps there.
            let _ = tokio::time::timeout(GRACE, self.wait_status()).await;
        }
        self.kill_group();
    }

    /// Its process id, until it was waited for.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // ESRCH: nobody is left, which is what is wanted.
            let _ = killpg(group, signal);
        }
    }

    /// Kills whatever is left of the group. Right after the leader was reaped its number cannot
    /// have been given to somebody else while members remain, and is not reused at once otherwise.
    fn kill_group(&mut self) {
        self.signal(Signal::SIGKILL);
        self.group = None;
    }
}

impl Drop for ToolChild {
    fn drop(&mut self) {
        self.kill_group();
    }
}

/// What a short program printed.
#[derive(Debug)]
pub struct ToolOutput {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Its end.
    pub exit: ToolExit,
}

/// Runs a program that answers briefly: at most 1 MiB within `limit`.
///
/// # Errors
/// `Cancelled`, or `ToolFailed` when it cannot be started, takes longer or prints more. How it
/// exited is in the result.
pub async fn run_briefly(
    command: &ToolCommand,
    limit: Duration,
    cancel: &CancellationToken,
) -> Result<ToolOutput, Error> {
    use tokio::io::AsyncReadExt as _;
    const MOST: u64 = 1 << 20;
    let mut child = ToolChild::spawn(command)?;
    let mut stdout = Vec::new();
    let pipe = child.take_stdout();
    let tool = command.name();
    let work = async {
        if let Some(pipe) = pipe {
            let read = pipe.take(MOST + 1).read_to_end(&mut stdout).await;
            read.map_err(|source| Error::ToolIo {
                tool: tool.clone(),
                source,
            })?;
        }
        if stdout.len() as u64 > MOST {
            return Err(misbehaved(&tool, "prints without end"));
        }
        child.wait().await
    };
    let result = tokio::select! {
        done = tokio::time::timeout(limit, work) => match done {
            Ok(exit) => exit,
            Err(_) => Err(misbehaved(&tool, &format!("did not end within {} s", limit.as_secs()))),
        },
        () = cancel.cancelled() => Err(Error::Cancelled),
    };
    if result.is_err() {
        child.terminate().await;
    }
    Ok(ToolOutput {
        exit: result?,
        stdout,
    })
}

fn misbehaved(tool: &str, problem: &str) -> Error {
    Error::ToolMisbehaved {
        tool: tool.to_owned(),
        problem: problem.to_owned(),
    }
}

/// Makes the child leader of a session and group of its own, and asks the kernel to end it when we
/// die without being able to: an orphaned `pg_dump` keeps its locks.
#[expect(
    unsafe_code,
    reason = "what happens between fork and exec can only be given by an unsafe call"
)]
fn own_session(command: &mut Command, tool: &ToolCommand) {
    let parent = nix::unistd::getpid();
    let ids = tool.account.as_ref().map(|who| (who.user, who.group));
    let (death_signal, without_network) = (tool.death_signal, tool.without_network);
    let in_child = move || {
        nix::unistd::setsid()?;
        if without_network {
            leave_networks();
        }
        if let Some((user, group)) = ids {
            become_account(user, group)?;
        }
        // After the change of the account, which takes the request back.
        #[cfg(target_os = "linux")]
        nix::sys::prctl::set_pdeathsig(death_signal)?;
        #[cfg(not(target_os = "linux"))]
        let _ = death_signal;
        // The parent may have died before the signal was asked for.
        if nix::unistd::getppid() != parent {
            return Err(nix::errno::Errno::ESRCH.into());
        }
        Ok(())
    };
    // SAFETY: setsid, unshare, setgroups, setgid, setuid, prctl and getppid are plain system calls
    // in a process of one thread, nothing allocates, and the closure captures plain numbers.
    unsafe {
        command.pre_exec(in_child);
    }
}

/// A network namespace of its own has no way out. Only root may make one, and not everywhere:
/// whoever asked looks whether it worked.
fn leave_networks() {
    #[cfg(target_os = "linux")]
    let _ = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET);
}

fn become_account(user: Uid, group: Gid) -> nix::Result<()> {
    #[cfg(target_os = "linux")]
    nix::unistd::setgroups(&[])?;
    nix::unistd::setgid(group)?;
    nix::unistd::setuid(user)
}

/// Gives the pipe 1 MiB: fewer switches between the child and us. The kernel may refuse.
fn widen(pipe: &ChildStdout) {
    #[cfg(target_os = "linux")]
    {
        let _ = nix::fcntl::fcntl(pipe, nix::fcntl::FcntlArg::F_SETPIPE_SZ(1 << 20));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = pipe;
}
