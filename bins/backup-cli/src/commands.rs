//! One command a file; what they share is here.

mod adopt;
mod audit;
mod backup;
mod cat;
mod check;
mod config;
mod confirm;
mod copy;
mod doctor;
mod drill;
mod extract;
mod generate;
mod history;
mod init;
mod keygen;
mod list;
mod listing;
mod notify;
mod pin;
mod prune;
mod recovery_sheet;
mod rekey;
mod replace;
mod restore;
mod runs;
mod show;
mod simulate;
mod token;
mod undo;
mod verify;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use backup_app::{
    App, AppError, Environment, Found, HURRIED_LIMIT, Interrupt, Journal, Keys, LogFormat,
    LogLevel, NOTICES_LIMIT, Notice, Overrides, Reading, SystemClock, Wanted, init_logging,
    refuse_password,
};
use backup_core::backup::SourceName;
use backup_core::catalog::{ParseSelectorError, Selector};
use backup_core::clock::Clock as _;
use backup_core::engine::Engine;
use backup_core::error::Error as CoreError;
use backup_core::observer::{NoopObserver, Observer};
use backup_core::run_record::{RunId, RunRecord};
use chrono::{DateTime, TimeDelta, Utc};

use crate::args::{self, Cli, Command, LogFormatArg};
use crate::{exit_code, render, teamcity};

/// What every command has at hand.
struct Context {
    app: Arc<App>,
    interrupt: Interrupt,
    json: bool,
    quiet: bool,
    /// The configuration file that was named.
    config: Option<PathBuf>,
    journal: Journal,
}

/// How a command ended without an error of its own.
type Outcome = Result<u8, AppError>;

/// Runs a command and says how to end.
pub(crate) async fn run(cli: Cli) -> ExitCode {
    let json = cli.json;
    // A stopped backup has its own result, which says of which source.
    let tells_itself = matches!(cli.command, Command::Backup(_) | Command::Adopt(_));
    let stopped = match cli.command {
        Command::Restore(_) | Command::Undo(_) => "stopped by a signal; nothing was changed",
        _ => "stopped by a signal",
    };
    let is_check = matches!(cli.command, Command::Check(_));
    let interrupt = match Interrupt::listen() {
        Ok(interrupt) => interrupt,
        Err(error) => {
            render::complain(&format!("listen to signals: {error}"));
            return ExitCode::from(if is_check {
                exit_code::UNKNOWN
            } else {
                exit_code::FAILED
            });
        }
    };
    let outcome = Box::pin(dispatch(cli, interrupt.clone())).await;
    let code = match (outcome, interrupt.signal()) {
        (Ok(_), _) if is_check && render::result_is_lost() => exit_code::UNKNOWN,
        (Ok(exit_code::DONE), _) if render::result_is_lost() => exit_code::FAILED,
        (Ok(code), _) => code,
        (Err(AppError::Engine(CoreError::Cancelled)), Some(signal)) => {
            match (tells_itself, json) {
                (true, _) => {}
                (_, true) => render::error(&CoreError::Cancelled.into(), json),
                (_, false) => render::complain(stopped),
            }
            exit_code::of_signal(signal)
        }
        (Err(error), _) if is_check => check::unknown(&error, json),
        (Err(error), _) => {
            render::error(&error, json);
            exit_code::of(&error)
        }
    };
    teamcity::ended(code);
    ExitCode::from(code)
}

/// Begins to log as the command line says.
fn log(cli: &Cli, environment: &Environment) {
    let format = match cli.log_format {
        LogFormatArg::Text | LogFormatArg::Teamcity => LogFormat::Text,
        LogFormatArg::Json => LogFormat::Json,
    };
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => LogLevel::Quiet,
        (_, true) => LogLevel::Verbose,
        _ => LogLevel::Normal,
    };
    init_logging(format, level, environment);
}

fn tell(notice: &Notice) {
    match notice {
        Notice::Warning(text) => render::warn(text),
        Notice::Note(text) => render::note(text),
    }
}

async fn dispatch(cli: Cli, interrupt: Interrupt) -> Outcome {
    let environment = Environment::from_process();
    log(&cli, &environment);
    if matches!(cli.log_format, LogFormatArg::Teamcity) {
        if cli.json {
            return Err(AppError::usage(
                "service messages among JSON would be neither: say one of --json and --log-format teamcity",
            ));
        }
        teamcity::speak();
    }
    if let Some(outcome) = without_configuration(&cli) {
        return outcome;
    }
    let overrides = overrides(&cli.command);
    let app = Arc::new(App::load(cli.config.as_deref(), environment, overrides)?);
    let journal = Journal::new(tell);
    let context = Context {
        journal: journal.telling(&app),
        app,
        interrupt,
        json: cli.json,
        quiet: cli.quiet || cli.json,
        config: cli.config.clone(),
    };
    let outcome = Box::pin(work(&context, &cli)).await;
    context.flush().await;
    outcome
}

/// Does what was asked for.
async fn work(context: &Context, cli: &Cli) -> Outcome {
    match &cli.command {
        Command::Backup(arguments) => backup::run(context, arguments).await,
        Command::Adopt(arguments) => adopt::run(context, arguments).await,
        Command::List(arguments) => context.stoppable(list::run(context, arguments)).await,
        Command::Show(arguments) => context.stoppable(show::run(context, arguments)).await,
        Command::Restore(arguments) => restore::run(context, arguments).await,
        Command::Undo(arguments) => undo::run(context, arguments).await,
        Command::Verify(arguments) => verify::run(context, arguments).await,
        Command::Drill(arguments) => drill::run(context, arguments).await,
        Command::Runs(arguments) => match arguments.audit.mode {
            None => context.stoppable(runs::run(context, arguments)).await,
            Some(_) => context.stoppable(audit::run(context, arguments)).await,
        },
        Command::Check(arguments) => context.stoppable(check::run(context, arguments)).await,
        Command::Doctor(arguments) => context.stoppable(doctor::run(context, arguments)).await,
        Command::Rekey(arguments) => rekey::run(context, arguments).await,
        Command::RecoverySheet(_) => context.stoppable(recovery_sheet::run(context)).await,
        Command::Copy(arguments) => copy::run(context, arguments).await,
        Command::Cat(arguments) => context.stoppable(cat::run(context, arguments)).await,
        Command::Prune(arguments) => prune::run(context, arguments).await,
        Command::Simulate(arguments) => simulate::run(context, arguments),
        Command::Pin(arguments) => pin::pin(context, arguments).await,
        Command::Unpin(arguments) => pin::unpin(context, arguments).await,
        Command::Config(arguments) => config::run(context, &arguments.command),
        Command::Notify(arguments) => {
            let testing = notify::run(context, &arguments.command);
            context.stoppable(testing).await
        }
        Command::Generate(arguments) => generate::run(context, arguments),
        Command::Completions { .. }
        | Command::Man { .. }
        | Command::Init(_)
        | Command::Keygen(_)
        | Command::Token(_) => Ok(exit_code::DONE),
    }
}

/// What needs no configuration is done at once.
fn without_configuration(cli: &Cli) -> Option<Outcome> {
    Some(match &cli.command {
        Command::Completions { shell } => Ok(completions(*shell)),
        Command::Man { dir } => man(dir),
        Command::Init(arguments) => init::run(arguments, cli.json),
        Command::Keygen(arguments) => keygen::run(arguments, cli.json),
        Command::Config(arguments) if arguments.needs_no_file() => Ok(config::schema()),
        Command::Token(arguments) => token::run(arguments, cli.json),
        _ => return None,
    })
}

/// What the command line says over the configuration.
fn overrides(command: &Command) -> Overrides {
    match command {
        Command::Backup(arguments) => arguments.overrides(),
        Command::Adopt(arguments) => arguments.overrides(),
        Command::Restore(arguments) => arguments.overrides(),
        Command::Undo(arguments) => arguments.overrides(),
        Command::Show(arguments) => arguments.from.overrides(),
        Command::Verify(arguments) => arguments.from.overrides(),
        Command::Drill(arguments) => arguments.overrides(),
        Command::Cat(arguments) => arguments.from.overrides(),
        Command::List(arguments) => arguments.place.overrides(),
        Command::Runs(arguments) => arguments.place.overrides(),
        Command::Check(arguments) => arguments.place.overrides(),
        Command::Doctor(arguments) => arguments.overrides(),
        Command::Rekey(arguments) => arguments.overrides(),
        Command::RecoverySheet(arguments) => arguments.overrides(),
        Command::Prune(arguments) => arguments.overrides(),
        Command::Simulate(arguments) => arguments.overrides(),
        Command::Pin(arguments) => arguments.place.overrides(),
        Command::Unpin(arguments) => arguments.place.overrides(),
        Command::Completions { .. }
        | Command::Man { .. }
        | Command::Init(_)
        | Command::Keygen(_)
        | Command::Token(_)
        | Command::Copy(_)
        | Command::Config(_)
        | Command::Generate(_)
        | Command::Notify(_) => Overrides::default(),
    }
}

fn completions(shell: clap_complete::Shell) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::command(), "backup-cli", &mut script);
    render::line(String::from_utf8_lossy(&script).trim_end());
    exit_code::DONE
}

fn man(directory: &std::path::Path) -> Outcome {
    let failure = |source| AppError::File {
        operation: format!("write man pages to {}", directory.display()),
        source,
    };
    std::fs::create_dir_all(directory).map_err(failure)?;
    clap_mangen::generate_to(args::command(), directory).map_err(failure)?;
    // Our umask is for secrets; these are for everybody.
    for page in std::fs::read_dir(directory).map_err(failure)? {
        let path = page.map_err(failure)?.path();
        if path.extension().is_some_and(|extension| extension == "1") {
            std::fs::set_permissions(&path, Permissions::from_mode(0o644)).map_err(failure)?;
        }
    }
    Ok(exit_code::DONE)
}

impl Context {
    /// What leaves nothing behind wherever it is dropped: a signal ends it.
    async fn stoppable<T>(
        &self,
        work: impl Future<Output = Result<T, AppError>>,
    ) -> Result<T, AppError> {
        tokio::select! {
            done = work => done,
            () = self.interrupt.token().cancelled() => Err(CoreError::Cancelled.into()),
        }
    }

    /// Waits until everybody is told who is to be, and not for long.
    async fn flush(&self) {
        let Some(notices) = self.journal.notices() else {
            return;
        };
        let stop = self.interrupt.token();
        let hurried = async {
            stop.cancelled().await;
            tokio::time::sleep(HURRIED_LIMIT).await;
        };
        tokio::select! {
            () = notices.flush(NOTICES_LIMIT) => {}
            () = hurried => render::warn("not everybody is told: there was no time"),
        }
    }

    /// Writes the records that interrupted backups owe, and has it told.
    async fn note_interrupted(&self) {
        let noted = self.app.note_interrupted(self.interrupt.token()).await;
        if let Some(notices) = self.journal.notices() {
            for run in &noted {
                notices.ended(run, None);
            }
        }
    }

    /// Writes the record of a run that has ended; its id, if it is there.
    async fn record(&self, engine: &Engine, place: &str, run: RunRecord) -> Option<RunId> {
        let stop = self.interrupt.token();
        self.journal.record(engine, place, run, stop).await
    }

    /// Writes down for the audit that a run begins now that changes or removes something.
    async fn announce(&self, engine: &Engine, place: &str, run: &RunRecord) {
        let stop = self.interrupt.token();
        self.journal.announce(engine, place, run, stop).await;
    }

    /// Does `work`, which reads a backup, while the store says so.
    async fn reading<T>(
        &self,
        reading: &Reading<'_>,
        work: impl Future<Output = T>,
    ) -> Result<T, CoreError> {
        let stop = self.interrupt.token();
        self.journal.reading(reading, work, stop).await
    }

    /// Finds one backup in the first place that has it.
    async fn find(
        &self,
        backup: &str,
        source: Option<&str>,
        keys: Keys,
        observer: Arc<dyn Observer>,
    ) -> Result<Found, AppError> {
        let wanted = Wanted::new(selector(backup)?, source, keys);
        self.app.find(&wanted, observer).await
    }

    /// Finds one backup without showing progress.
    async fn find_quietly(
        &self,
        backup: &str,
        source: Option<&str>,
        keys: Keys,
    ) -> Result<Found, AppError> {
        self.find(backup, source, keys, Arc::new(NoopObserver))
            .await
    }
}

/// The moment so many days ago.
fn days_ago(days: u32) -> DateTime<Utc> {
    let span = TimeDelta::days(i64::from(days));
    let then = SystemClock.now().checked_sub_signed(span);
    then.unwrap_or(DateTime::<Utc>::MIN_UTC)
}

fn selector(text: &str) -> Result<Selector, AppError> {
    let selector = text.parse();
    selector.map_err(|e: ParseSelectorError| AppError::usage(e.to_string()))
}

fn source_name(text: &str) -> Result<SourceName, AppError> {
    refuse_password("SOURCE", text)?;
    SourceName::new(text).map_err(|e| AppError::usage(e.to_string()))
}
