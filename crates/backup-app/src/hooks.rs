//! Programs of the operator that run around a backup: to quiesce an application, to tell somebody.
//!
//! They are children like any other (`backup_process::child`): no shell, a session of their own,
//! bounded output, ended with everything they started. Of our environment they get only what finds
//! programs and speaks a language; our secrets are in none of it.

use std::sync::Arc;
use std::time::Duration;

use backup_config::{Environment, HooksConfig, SourceSettings, names};
use backup_core::backup::SourceName;
use backup_core::error::{Error as CoreError, ErrorKind, PortError};
use backup_core::observer::{Event, Observer};
use backup_core::run_record::RunId;
use backup_process::ToolEnv;
use backup_process::child::{ToolCommand, ToolOutput, run_briefly};
use tokio_util::sync::CancellationToken;

use crate::backup_run::{BackupRun, is_anothers};
use crate::error::AppError;
use crate::text::shown;

/// How long each hook may take that runs after a signal: somebody waits for our end.
const HURRIED: Duration = Duration::from_secs(10);
/// How many lines of what a hook prints are logged.
const LINES: usize = 50;

/// The hooks of one run of one job.
pub(crate) struct Hooks<'a> {
    settings: &'a HooksConfig,
    observer: Arc<dyn Observer>,
    facts: ToolEnv,
}

impl<'a> Hooks<'a> {
    /// Those of a source, for one of its databases.
    pub(crate) fn new(
        (source, database): (&SourceName, &str),
        settings: &'a SourceSettings,
        environment: &Environment,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let mut facts = ToolEnv::default();
        for &name in names::HOOKS {
            if let Some(value) = environment.get(name) {
                facts = facts.set(name, value);
            }
        }
        let facts = facts
            .set("BACKUP_SOURCE", source.as_str())
            .set("BACKUP_DATABASE", database)
            .set(
                "BACKUP_ATTEMPTS",
                settings.values.retry.attempts.to_string(),
            );
        Self {
            settings: &settings.hooks,
            observer,
            facts,
        }
    }

    /// The same for one attempt.
    pub(crate) fn of_attempt(&self, run: &RunId, attempt: u32) -> Self {
        let facts = self.facts.clone();
        Self {
            settings: self.settings,
            observer: Arc::clone(&self.observer),
            facts: facts
                .set("BACKUP_RUN_ID", run.to_string())
                .set("BACKUP_ATTEMPT", attempt.to_string()),
        }
    }

    /// Whether any run around a backup.
    pub(crate) fn surround(&self) -> bool {
        let HooksConfig {
            before_backup,
            after_backup,
            ..
        } = self.settings;
        !(before_backup.is_empty() && after_backup.is_empty())
    }

    /// Runs those before the backup, up to the first that fails.
    ///
    /// # Errors
    /// What became of that one.
    pub(crate) async fn before(&self, cancel: &CancellationToken) -> Result<(), AppError> {
        for argv in &self.settings.before_backup {
            let facts = self.facts.clone().set("BACKUP_HOOK", "before_backup");
            self.run(argv, facts, self.settings.timeout, cancel).await?;
        }
        Ok(())
    }

    /// Runs all of those after an attempt, whatever came of it. One that fails spoils nothing that
    /// is there, and is a warning.
    pub(crate) async fn after(&self, done: &mut BackupRun, cancel: &CancellationToken) {
        let after = &self.settings.after_backup;
        let failures = self.run_all("after_backup", after, done, cancel).await;
        match &mut done.result {
            Ok(outcome) => outcome.warnings.extend(failures),
            Err(_) => self.warn(failures),
        }
    }

    /// Runs all of those for a run without a backup.
    pub(crate) async fn failed(&self, done: &BackupRun, cancel: &CancellationToken) {
        self.warn(self.failures(done, cancel).await);
    }

    /// The same, and which of them failed. A run that another one keeps out has not failed: that
    /// one has hooks of its own.
    pub(crate) async fn failures(
        &self,
        done: &BackupRun,
        cancel: &CancellationToken,
    ) -> Vec<String> {
        if done.result.is_ok() || is_anothers(done) {
            return Vec::new();
        }
        let attempt = done.attempts.to_string();
        let last = Self {
            settings: self.settings,
            observer: Arc::clone(&self.observer),
            facts: self.facts.clone().set("BACKUP_ATTEMPT", attempt),
        };
        let on_failure = &self.settings.on_failure;
        last.run_all("on_failure", on_failure, done, cancel).await
    }

    fn warn(&self, failures: Vec<String>) {
        for failure in failures {
            self.observer.event(&Event::Warning(failure));
        }
    }

    /// What is not as it should be. A signal that ends the backup does not end what undoes a
    /// quiesce; it only has less time.
    async fn run_all(
        &self,
        hook: &str,
        hooks: &[Vec<String>],
        done: &BackupRun,
        cancel: &CancellationToken,
    ) -> Vec<String> {
        let facts = with_outcome(self.facts.clone().set("BACKUP_HOOK", hook), done);
        let mut failures = Vec::new();
        for argv in hooks {
            let ran = self.run_out(argv, facts.clone(), cancel).await;
            failures.extend(ran.err().map(|error| shown(&error.line())));
        }
        failures
    }

    /// One that a signal hurries and does not end, whether it comes before or meanwhile.
    async fn run_out(
        &self,
        argv: &[String],
        facts: ToolEnv,
        cancel: &CancellationToken,
    ) -> Result<(), AppError> {
        let enough = CancellationToken::new();
        let running = self.run(argv, facts, self.settings.timeout, &enough);
        tokio::pin!(running);
        tokio::select! {
            ran = &mut running => return ran,
            () = async {
                cancel.cancelled().await;
                tokio::time::sleep(HURRIED).await;
            } => enough.cancel(),
        }
        match running.await {
            Err(AppError::Engine(CoreError::Cancelled)) => Err(AppError::Hook {
                program: argv.first().cloned().unwrap_or_default(),
                source: PortError::new(
                    ErrorKind::ToolFailed,
                    format!("did not end within {} s of a signal", HURRIED.as_secs()),
                ),
            }),
            ran => ran,
        }
    }

    async fn run(
        &self,
        argv: &[String],
        facts: ToolEnv,
        limit: Duration,
        cancel: &CancellationToken,
    ) -> Result<(), AppError> {
        let [program, arguments @ ..] = argv else {
            return Ok(());
        };
        let failed = |error: backup_process::Error| match PortError::from(error) {
            error if error.kind() == ErrorKind::Cancelled => CoreError::Cancelled.into(),
            source => AppError::Hook {
                program: program.clone(),
                source,
            },
        };
        let command = ToolCommand::new(program, facts).args(arguments);
        let output = run_briefly(&command, limit, cancel).await.map_err(failed)?;
        log(program, &output);
        output.exit.into_result().map(drop).map_err(failed)
    }
}

/// What a hook said, for whoever looks for the reason later.
fn log(program: &str, output: &ToolOutput) {
    let printed = String::from_utf8_lossy(&output.stdout);
    let complained = output.exit.stderr.text();
    for line in printed.lines().chain(complained.lines()).take(LINES) {
        tracing::info!(target: "backup", hook = program, "{}", shown(line));
    }
}

/// What came of the run, as far as it is known.
fn with_outcome(mut facts: ToolEnv, done: &BackupRun) -> ToolEnv {
    if let Some(run) = &done.run {
        facts = facts.set("BACKUP_RUN_ID", run.to_string());
    }
    match &done.result {
        Ok(outcome) => {
            let manifest = &outcome.manifest;
            let whole = done.destinations.iter().all(|place| place.error.is_none());
            let elapsed = manifest.finished_at - manifest.started_at;
            facts
                .set("BACKUP_STATUS", if whole { "success" } else { "partial" })
                .set("BACKUP_ID", manifest.id.to_string())
                .set("BACKUP_RAW_BYTES", manifest.totals.raw_bytes.to_string())
                .set(
                    "BACKUP_STORED_BYTES",
                    manifest.totals.stored_bytes.to_string(),
                )
                .set("BACKUP_DURATION_SECONDS", elapsed.num_seconds().to_string())
                .set("BACKUP_WARNINGS", outcome.warnings.len().to_string())
        }
        Err(error) => {
            let status = if done.is_cancelled() {
                "cancelled"
            } else {
                "failed"
            };
            facts
                .set("BACKUP_STATUS", status)
                .set("BACKUP_ERROR_KIND", error.kind().as_str())
                .set("BACKUP_ERROR", shown(&error.line()))
        }
    }
}
