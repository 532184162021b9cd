//! `undo`, and how it is said of a swap.

use std::path::Path;

use backup_app::Overrides;
use backup_app::generate::quote;
use backup_core::run_record::RunId;
use clap::Args;

use super::{FromArgs, RestoreArgs, ServerArgs};

/// `undo`
#[derive(Debug, Args)]
pub(crate) struct UndoArgs {
    /// The run of the restore, as it was printed and as `runs` lists it
    pub(crate) run: RunId,
    /// The configured server [default: that of the restore]
    #[arg(long, value_name = "NAME")]
    pub(crate) target_server: Option<String>,
    #[command(flatten)]
    pub(crate) from: FromArgs,
    #[command(flatten)]
    server: ServerArgs,
    /// Nothing is asked; accepted so that scripts can say it
    #[arg(long, hide = true)]
    yes: bool,
}

impl UndoArgs {
    /// The command that swaps back what `run`, which this one is, swapped.
    pub(crate) fn undo_command(&self, config: Option<&Path>, run: &RunId) -> String {
        let server = (self.target_server.as_deref(), &self.server);
        undo_command(config, run, &self.from, server)
    }

    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            server: self.server.overrides(),
            ..self.from.overrides()
        }
    }
}

impl RestoreArgs {
    /// The command that swaps back what `run` replaced.
    pub(crate) fn undo_command(&self, config: Option<&Path>, run: &RunId) -> String {
        let server = (self.target_server.as_deref(), &self.server);
        undo_command(config, run, &self.from, server)
    }
}

/// All that decides which server and which place are meant has to be said again.
fn undo_command(
    config: Option<&Path>,
    run: &RunId,
    from: &FromArgs,
    (target_server, server): (Option<&str>, &ServerArgs),
) -> String {
    let port = server.port.map(|port| port.to_string());
    let config = config.map(Path::to_string_lossy);
    let options = [
        ("--config", config.as_deref()),
        ("--from", from.place.from.as_deref()),
        ("--target-server", target_server),
        ("-h", server.host.as_deref()),
        ("-p", port.as_deref()),
        ("-U", server.username.as_deref()),
    ];
    let mut command = format!("backup-cli undo {run}");
    for (option, value) in options {
        if let Some(value) = value {
            command.push_str(&format!(" {option} {}", quote::shell(value)));
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn the_command_reaches_what_the_restore_reached() {
        let said = [
            "backup-cli",
            "--config",
            "/etc/my backup.toml",
            "restore",
            "latest",
            "--from",
            "file:///a b",
            "--target-db",
            "shop",
            "--swap",
            "--target-server",
            "main",
            "-h",
            "db",
            "-p",
            "6432",
            "-U",
            "o'neil",
            "-i",
            "/key",
        ];
        let cli = Cli::try_parse_from(said).unwrap();
        let Command::Restore(restore) = &cli.command else {
            panic!("{cli:?}");
        };
        let run: RunId = "20260205T030000Z-7f3a09c2".parse().unwrap();
        let expected = r"backup-cli undo 20260205T030000Z-7f3a09c2 --config '/etc/my backup.toml' \
            --from 'file:///a b' --target-server main -h db -p 6432 -U 'o'\''neil'";
        let expected = expected.replace("\\\n            ", "");
        assert_eq!(restore.undo_command(cli.config.as_deref(), &run), expected);

        // It is a command of ours, and says the same once more.
        let words = [
            "backup-cli",
            "undo",
            run.as_str(),
            "--config",
            "/etc/my backup.toml",
            "--from",
            "file:///a b",
            "--target-server",
            "main",
            "-h",
            "db",
            "-p",
            "6432",
            "-U",
            "o'neil",
        ];
        let cli = Cli::try_parse_from(words).unwrap();
        let Command::Undo(undo) = &cli.command else {
            panic!("{cli:?}");
        };
        assert_eq!(undo.undo_command(cli.config.as_deref(), &run), expected);
        let plain = Cli::try_parse_from(["backup-cli", "undo", run.as_str()]).unwrap();
        let Command::Undo(undo) = &plain.command else {
            panic!("{plain:?}");
        };
        let plain = "backup-cli undo 20260205T030000Z-7f3a09c2";
        assert_eq!(undo.undo_command(None, &run), plain);
    }
}
