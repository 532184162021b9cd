//! Running `pg_restore` into one database.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backup_core::body::BodyStream;
use backup_core::manifest::PartName;
use backup_process::ToolEnv;
use backup_process::child::{ToolChild, ToolCommand, ToolExit};
use futures::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::process::ChildStdin;
use tokio_util::sync::CancellationToken;

use super::complaints::{Complaint, Complaints, Names, Verdict};
use super::error::{RestoreError, Words};
use crate::{Error, conninfo_value};

/// How long a failed load looks at the rest of its part for a better reason.
const LOOK_FOR_DAMAGE: Duration = Duration::from_secs(5);

/// How to start `pg_restore` for one target.
#[derive(Debug, Clone)]
pub(crate) struct PgRestore {
    program: PathBuf,
    env: ToolEnv,
    options: Vec<OsString>,
    /// What the entries of the schema part are called.
    names: Arc<Names>,
}

impl PgRestore {
    /// `program` on `database`, which `env` leads to.
    pub(crate) fn new(program: PathBuf, env: ToolEnv, database: &str) -> Self {
        // The name as a connection string: as an argument by itself, a database called
        // `host=elsewhere` would lead elsewhere, and pg_restore has no other way to say where.
        // <https://www.postgresql.org/docs/current/app-pgrestore.html>
        let target = format!("dbname={}", conninfo_value(database));
        let options = ["--format=custom", "--no-password", "--dbname", &target];
        Self {
            program,
            env,
            options: options.into_iter().map(OsString::from).collect(),
            names: Arc::default(),
        }
    }

    /// Adds an option to every run.
    pub(crate) fn with_option(mut self, option: &str) -> Self {
        self.options.push(option.into());
        self
    }

    /// Names entries in errors.
    pub(crate) fn with_names(mut self, names: Names) -> Self {
        self.names = Arc::new(names);
        self
    }

    /// Restores the entries that `list` names out of `archive`. Returns what is worth a warning.
    pub(crate) async fn entries(
        &self,
        archive: &Path,
        list: &Path,
        cancel: &CancellationToken,
    ) -> Result<Vec<String>, RestoreError> {
        let command =
            self.command()
                .args([OsString::from("--use-list"), list.into(), archive.into()]);
        let mut child = ToolChild::spawn(&command)?;
        let exit = child.wait_or_cancel(cancel).await?;
        self.judge(&exit, "the schema")
    }

    /// Restores the archive that is `body`, or of it the entries that `list` names. Returns what is
    /// worth a warning.
    ///
    /// An error of the body ends `pg_restore` and is the result. Nothing that is wrong with the
    /// body goes unnoticed, whatever `pg_restore` thinks of it: it succeeds only with a body that
    /// was read to its clean end.
    pub(crate) async fn part(
        &self,
        part: &PartName,
        body: BodyStream,
        list: Option<&Path>,
        cancel: &CancellationToken,
    ) -> Result<Vec<String>, RestoreError> {
        // One that somebody else dumped has its definitions too, which came before.
        let mut command = self.command().args(["--section=data"]).with_stdin();
        if let Some(list) = list {
            command = command.args([OsString::from("--use-list"), list.into()]);
        }
        let mut child = ToolChild::spawn(&command)?;
        let stdin = child.take_stdin().ok_or_else(|| RestoreError::Internal {
            what: "pg_restore has no standard input".to_owned(),
        })?;
        widen(&stdin);
        let feeding = feed(body, stdin);
        tokio::pin!(feeding);
        let (fed, exit) = tokio::select! {
            fed = &mut feeding => (Some(fed), None),
            exit = child.wait() => (None, Some(exit?)),
            () = cancel.cancelled() => {
                child.terminate().await;
                return Err(Error::Cancelled.into());
            }
        };
        let fed = match (fed, &exit) {
            (Some(fed), _) => fed,
            // It failed before it had read everything. The body may know why, but not for long.
            (None, Some(exit)) if !exit.success() => {
                match tokio::time::timeout(LOOK_FOR_DAMAGE, feeding).await {
                    Ok(fed) => fed,
                    Err(_) => Fed::All,
                }
            }
            (None, _) => feeding.await,
        };
        self.ended(part, &mut child, (fed, exit), cancel).await
    }

    async fn ended(
        &self,
        part: &PartName,
        child: &mut ToolChild,
        (fed, exit): (Fed, Option<ToolExit>),
        cancel: &CancellationToken,
    ) -> Result<Vec<String>, RestoreError> {
        let damaged = |error| RestoreError::reading(part, error);
        let rest = match fed {
            Fed::All => None,
            Fed::ReaderGone(rest) => Some(rest),
            Fed::Failed(error, stdin) => {
                // Ended before its input ends: an end of file would make a cut archive look whole.
                child.terminate().await;
                drop(stdin);
                return Err(damaged(error));
            }
        };
        let exit = match exit {
            Some(exit) => exit,
            None => child.wait_or_cancel(cancel).await?,
        };
        match rest {
            // It has what it wants; whether the rest is as it was written is still open.
            Some(rest) if exit.success() => drain(rest, cancel).await?.map_err(damaged)?,
            Some(rest) => {
                let looked = tokio::time::timeout(LOOK_FOR_DAMAGE, drain(rest, cancel)).await;
                if let Ok(drained) = looked {
                    drained?.map_err(damaged)?;
                }
            }
            None => {}
        }
        self.judge(&exit, &format!("part {part}"))
    }

    fn command(&self) -> ToolCommand {
        ToolCommand::new(&self.program, self.env.clone()).args(self.options.iter().cloned())
    }

    /// What the exit status and the messages mean together.
    fn judge(&self, exit: &ToolExit, what: &str) -> Result<Vec<String>, RestoreError> {
        let text = exit.stderr.text();
        let said = Complaints::parse(&text);
        if exit.success() {
            return Ok(said.warnings);
        }
        let verdict = if exit.code() == Some(1) {
            said.verdict()
        } else {
            Verdict::Unclear
        };
        match verdict {
            Verdict::Harmless(warnings) => Ok(warnings),
            Verdict::Failed(complaint) => Err(self.failure(&complaint, what)),
            Verdict::Unclear => {
                let words = format!(
                    "pg_restore {}: {}",
                    exit.status_words(),
                    exit.stderr.last_words()
                );
                Err(RestoreError::Entry {
                    what: what.to_owned(),
                    words: Words(words.trim_end_matches([':', ' ']).to_owned()),
                })
            }
        }
    }

    fn failure(&self, complaint: &Complaint, what: &str) -> RestoreError {
        let name = complaint.entry_name(&self.names);
        let what = name.unwrap_or_else(|| what.to_owned());
        let words = Words(complaint.to_string());
        match complaint.unqualified(&self.names) {
            Some(broken) => RestoreError::SearchPath {
                what,
                function: broken.function,
                uses: broken.uses,
                words,
            },
            None => RestoreError::Entry { what, words },
        }
    }
}

/// How far a body went into a program.
enum Fed {
    /// To its clean end.
    All,
    /// The program reads no more; what is left of the body.
    ReaderGone(BodyStream),
    /// The body failed; the pipe is still open.
    Failed(io::Error, ChildStdin),
}

/// Writes the body, and closes the pipe if it ended cleanly.
async fn feed(mut body: BodyStream, mut stdin: ChildStdin) -> Fed {
    while let Some(chunk) = body.next().await {
        match chunk {
            Ok(chunk) => {
                if stdin.write_all(&chunk).await.is_err() {
                    return Fed::ReaderGone(body);
                }
            }
            Err(error) => return Fed::Failed(error, stdin),
        }
    }
    match stdin.shutdown().await {
        Ok(()) => Fed::All,
        Err(_) => Fed::ReaderGone(body),
    }
}

/// Reads what is left of a body; its own error is inside.
async fn drain(
    mut body: BodyStream,
    cancel: &CancellationToken,
) -> Result<io::Result<()>, RestoreError> {
    loop {
        let chunk = tokio::select! {
            chunk = body.next() => chunk,
            () = cancel.cancelled() => return Err(Error::Cancelled.into()),
        };
        match chunk {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Ok(Err(error)),
            None => return Ok(Ok(())),
        }
    }
}

/// Gives the pipe 1 MiB: fewer switches between us and the child. The kernel may refuse.
fn widen(pipe: &ChildStdin) {
    #[cfg(target_os = "linux")]
    {
        let _ = nix::fcntl::fcntl(pipe, nix::fcntl::FcntlArg::F_SETPIPE_SZ(1 << 20));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = pipe;
}

#[cfg(test)]
mod tests;
