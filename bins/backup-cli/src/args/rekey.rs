//! What `rekey` can be told.

use backup_app::Overrides;
use clap::Args;

use super::FromArgs;

/// `rekey`
#[derive(Debug, Args)]
pub(crate) struct RekeyArgs {
    /// Ids, beginnings of them, latest, latest-verified or oldest
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(crate) backups: Vec<String>,
    /// Every backup
    #[arg(long)]
    pub(crate) all: bool,
    /// The public key of somebody who can open them from now on; may be repeated [default: those of
    /// the configuration]
    #[arg(long, value_name = "age1…")]
    recipient: Vec<String>,
    /// Only this source
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    #[command(flatten)]
    from: FromArgs,
}

impl RekeyArgs {
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            recipients: self.recipient.clone(),
            ..self.from.overrides()
        }
    }
}
