//! `keygen`: a key pair.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use backup_app::{AppError, SystemClock, generate_identity};
use backup_core::clock::Clock as _;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::Outcome;
use crate::args::KeygenArgs;
use crate::{exit_code, render};

pub(super) fn run(arguments: &KeygenArgs, as_json: bool) -> Outcome {
    let identity = generate_identity(SystemClock.now());
    let recipient = &identity.recipient;
    match &arguments.output {
        None => render::try_line(identity.identity_file.expose_secret().trim_end()).map_err(
            |source| AppError::File {
                operation: "write the private key".to_owned(),
                source,
            },
        )?,
        Some(path) => {
            let failure = |source| AppError::File {
                operation: format!("write {}", path.display()),
                source,
            };
            write_private(path, identity.identity_file.expose_secret()).map_err(failure)?;
            if as_json {
                render::json(&json!({ "recipient": recipient, "identity_file": path }));
                return Ok(exit_code::DONE);
            }
        }
    }
    render::note(&format!("public key: {recipient}"));
    if let Some(path) = &arguments.output {
        render::note(&format!(
            "keep {} somewhere else than the backups: without it they cannot be read",
            path.display()
        ));
    }
    Ok(exit_code::DONE)
}

/// Writes a new file that nobody else can read.
pub(super) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
}
