//! `init`: a configuration to fill in, and a key pair.

use std::path::Path;

use backup_app::generate::quote;
use backup_app::{AppError, SystemClock, generate_identity, starter};
use backup_core::clock::Clock as _;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::{Outcome, keygen::write_private};
use crate::args::InitArgs;
use crate::{exit_code, render};

pub(super) fn run(arguments: &InitArgs, as_json: bool) -> Outcome {
    let failure = |path: &Path| {
        let operation = format!("write {}", path.display());
        move |source| AppError::File { operation, source }
    };
    let directory = std::path::absolute(&arguments.dir).map_err(failure(&arguments.dir))?;
    let config = directory.join("backup.toml");
    let identity = directory.join("identity.txt");
    for path in [&config, &identity] {
        if path.symlink_metadata().is_ok() {
            return Err(AppError::usage_hint(
                format!(
                    "{} is there already, and nothing was written",
                    path.display()
                ),
                "name another directory",
            ));
        }
    }
    std::fs::create_dir_all(&directory).map_err(failure(&directory))?;
    let new = generate_identity(SystemClock.now());
    // Nothing may be encrypted to a key that was not written, so it comes first.
    let key = new.identity_file.expose_secret();
    write_private(&identity, key).map_err(failure(&identity))?;
    let text = starter(&new.recipient, &identity);
    if let Err(source) = write_private(&config, &text) {
        // Nothing knows this key yet; left there, it would only be in the way of the next try.
        let _ = std::fs::remove_file(&identity);
        return Err(failure(&config)(source));
    }
    if as_json {
        render::json(&json!({
            "config": config,
            "identity_file": identity,
            "recipient": new.recipient,
        }));
    } else {
        explain(&config, &identity, &new.recipient);
    }
    Ok(exit_code::DONE)
}

fn explain(config: &Path, identity: &Path, recipient: &str) {
    let command = format!("backup-cli --config {}", quoted(config));
    render::line(&format!(
        "configuration: {config}\n\
         private key:   {identity}\n\
         public key:    {recipient}\n\n\
         Backups are encrypted to the public key; the private key alone reads them. Keep a copy of\n\
         it elsewhere, neither on this host nor with the backups. Whoever loses it has lost every\n\
         backup: nobody can restore them without it.\n\n\
         Say in the configuration which server, which database and where to. Then:\n  \
         {command} config check\n  \
         {command} doctor\n  \
         {command} backup --all\n  \
         {command} drill --all -i {key}",
        config = config.display(),
        identity = identity.display(),
        key = quoted(identity),
    ));
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    quote::shell(&path.to_string_lossy())
}
