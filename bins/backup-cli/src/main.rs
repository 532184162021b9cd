//! `backup-cli`: backups of PostgreSQL that are proved to restore.

mod args;
mod commands;
mod exit_code;
mod progress;
mod render;
mod report;
mod teamcity;

use std::process::ExitCode;

fn main() -> ExitCode {
    backup_app::keep_private();
    let cli = match args::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(commands::run(cli));
            // What still blocks in the background must not keep a finished command alive.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            render::complain(&format!("start the runtime: {error}"));
            ExitCode::FAILURE
        }
    }
}
