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
    let given = options.iter();
    let given =
        given.filter_map(|(option, value)| Some([option, &*quote::shell((*value)?)].join(" ")));
    let words = [format!("backup-cli undo {run}")].into_iter().chain(given);
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    /// What decides which server and which place are meant.
    const REACH: &str = "--config|/etc/my backup.toml|--from|file:///a b|--target-server|main|\
                         -h|db|-p|6432|-U|o'neil";

    fn parsed(words: &str) -> Cli {
        Cli::try_parse_from(words.split('|')).unwrap()
    }

    #[test]
    fn the_command_reaches_what_the_restore_reached() {
        let run: RunId = "20260205T030000Z-7f3a09c2".parse().unwrap();
        let undo = format!("backup-cli|undo|{run}");
        let expected = format!(
            r"backup-cli undo {run} --config '/etc/my backup.toml' --from 'file:///a b' {}",
            r"--target-server main -h db -p 6432 -U 'o'\''neil'"
        );
        let restore = "backup-cli|restore|latest|--target-db|shop|--swap|-i|/key";
        // It is a command of ours, and says the same once more.
        for (words, expected) in [
            (format!("{restore}|{REACH}"), &*expected),
            (format!("{undo}|{REACH}"), &expected),
            (undo.clone(), &undo.replace('|', " ")),
        ] {
            let cli = parsed(&words);
            let config = cli.config.as_deref();
            let said = match &cli.command {
                Command::Restore(restore) => restore.undo_command(config, &run),
                Command::Undo(undo) => undo.undo_command(config, &run),
                other => panic!("{other:?}"),
            };
            assert_eq!(said, expected);
        }
    }
}
