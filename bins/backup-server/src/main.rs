//! `backup-server`: tells over HTTP what backups there are and whether they are good.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use backup_app::{
    App, AppError, Environment, Hangups, Interrupt, LogFormat, LogLevel, Overrides, Watcher,
    init_logging,
};
use backup_core::error::ErrorKind;
use backup_server::{Listening, Server, document, refresh, serve, talk, upkeep};
use clap::{Parser, Subcommand, ValueEnum};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// HTTP server of the backup manager
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Configuration file
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Form of log lines, which go to stderr
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: LogFormatArg,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer until SIGTERM or SIGINT
    Serve {
        /// Address and port, instead of what [`server_http`] says
        #[arg(long, value_name = "ADDR")]
        listen: Option<SocketAddr>,
        /// Run no schedule, because somebody else does
        #[arg(long)]
        no_schedules: bool,
    },
    /// Print the description of the interface as `OpenAPI`
    Openapi,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum LogFormatArg {
    #[default]
    Text,
    Json,
}

fn main() -> ExitCode {
    backup_app::keep_private();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(run(cli));
            runtime.shutdown_background();
            ended
        }
        Err(source) => Err(AppError::File {
            operation: "start the runtime".to_owned(),
            source,
        }),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {}", error.render());
            ExitCode::from(match error.kind() {
                ErrorKind::InvalidInput => 2,
                _ => 1,
            })
        }
    }
}

async fn run(cli: Cli) -> Result<(), AppError> {
    let Command::Serve {
        listen,
        no_schedules,
    } = cli.command
    else {
        return print_description();
    };
    let environment = Environment::from_process();
    let format = match cli.log_format {
        LogFormatArg::Text => LogFormat::Text,
        LogFormatArg::Json => LogFormat::Json,
    };
    init_logging(format, LogLevel::Normal, &environment);
    let listening = Interrupt::listen_with_hangups();
    let (interrupt, hangups) = listening.map_err(|source| AppError::File {
        operation: "listen to signals".to_owned(),
        source,
    })?;
    let app = App::load(cli.config.as_deref(), environment, Overrides::default())?;
    let app = Arc::new(app);
    let mut settings = app.config().server_http.clone();
    settings.listen = listen.unwrap_or(settings.listen);
    let watcher = Watcher::new(Arc::clone(&app))?;
    let listening = Listening::new(&settings, app.environment()).await?;
    if app.config().access.is_empty() {
        let hint = "make one with `backup-cli token`";
        tracing::warn!(target: "backup", "there is no [[access]], so nobody is let in: {hint}");
    }
    let server = Arc::new(Server::new(&app));
    let stop = interrupt.token();
    let reading = tokio::spawn(refresh(Arc::clone(&server), watcher, stop.clone()));
    let admitting = tokio::spawn(admit(Arc::clone(&server), cli.config, hangups));
    let working = tokio::spawn(upkeep(
        Arc::clone(&app),
        Arc::clone(&server),
        !no_schedules,
        stop.clone(),
    ));
    let talking = tokio::spawn(talk(Arc::clone(&server), stop.clone()));
    let serving = serve(listening, &app, server, stop);
    let ended = until_end(serving, working, [reading, talking], stop).await;
    admitting.abort();
    ended
}

/// Waits until the server ends. One of which a part is gone tells what is true no more: it ends as
/// a whole, and whoever looks after it starts it again.
async fn until_end(
    serving: impl Future<Output = Result<(), AppError>>,
    mut working: JoinHandle<Result<(), AppError>>,
    [mut reading, mut talking]: [JoinHandle<()>; 2],
    stop: &CancellationToken,
) -> Result<(), AppError> {
    let mut serving = std::pin::pin!(serving);
    let (mut served, mut worked, mut read, mut talked) = (None, None, None, None);
    tokio::select! {
        biased;
        ended = &mut serving => served = Some(ended),
        ended = &mut working => worked = Some(ended),
        ended = &mut reading => read = Some(ended),
        ended = &mut talking => talked = Some(ended),
    }
    let is_early = served.is_none() && !stop.is_cancelled();
    if is_early {
        tracing::error!(target: "backup", "a part of the server has ended, so all of it does");
    }
    // However it ended, nothing goes on without somebody who can be asked for it.
    stop.cancel();
    let served = match served {
        Some(served) => served,
        None => serving.await,
    };
    let worked = match worked {
        Some(worked) => worked,
        None => working.await,
    };
    let talked = match talked {
        Some(talked) => talked,
        None => talking.await,
    };
    // What it reads may take long, and nobody waits for it any more.
    reading.abort();
    let gone = |operation: &str, source| AppError::File {
        operation: operation.to_owned(),
        source,
    };
    served?;
    worked.map_err(|error| gone("run jobs", error.into()))??;
    if let Some(read) = read {
        read.map_err(|error| gone("read the places", error.into()))?;
    }
    talked.map_err(|error| gone("run the bot", error.into()))?;
    if is_early {
        let why = std::io::Error::other("a part of the server has ended before its time");
        return Err(gone("go on", why));
    }
    Ok(())
}

/// Reads at each SIGHUP who may come in. A file that is no good changes nothing.
async fn admit(server: Arc<Server>, config: Option<PathBuf>, mut hangups: Hangups) {
    loop {
        hangups.next().await;
        let environment = Environment::from_process();
        match App::load(config.as_deref(), environment, Overrides::default()) {
            Ok(app) => {
                server.admit(app.config());
                tracing::info!(target: "backup", "read who may come in; the rest of the \
                               configuration holds from the next start on");
            }
            Err(error) => {
                let error = error.render();
                tracing::error!(target: "backup", "the configuration stays as it was: {error}");
            }
        }
    }
}

fn print_description() -> Result<(), AppError> {
    let failure = |source| AppError::File {
        operation: "write the description".to_owned(),
        source,
    };
    let text = document().to_pretty_json().map_err(|e| failure(e.into()))?;
    writeln!(std::io::stdout(), "{text}").map_err(failure)
}
