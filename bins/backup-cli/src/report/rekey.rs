//! `rekey --json`

use backup_app::{AppError, ErrorReport};
use backup_core::engine::RekeyOutcome;
use backup_core::manifest::Manifest;
use serde::Serialize;

/// One backup at one place.
#[derive(Debug, Serialize)]
pub(crate) struct RekeyView {
    id: String,
    source: String,
    destination: String,
    status: &'static str,
    recipients: Vec<String>,
    warnings: Vec<String>,
    error: Option<ErrorReport>,
}

impl RekeyView {
    /// What came of it.
    pub(crate) fn new(outcome: &RekeyOutcome, place: &str) -> Self {
        let left = outcome.left.iter();
        Self {
            warnings: left
                .map(|(key, why)| format!("{key} stays: {why}"))
                .collect(),
            ..Self::of(&outcome.manifest, place)
        }
    }

    /// One of several that opens as before, as far as is known.
    pub(crate) fn failed(backup: &Manifest, place: &str, error: &AppError) -> Self {
        Self {
            status: "failed",
            error: Some(error.report()),
            ..Self::of(backup, place)
        }
    }

    fn of(backup: &Manifest, place: &str) -> Self {
        let recipients = backup.encryption.iter().flat_map(|e| &e.recipients);
        Self {
            id: backup.id.to_string(),
            source: backup.source.to_string(),
            destination: place.to_owned(),
            status: "success",
            recipients: recipients.cloned().collect(),
            warnings: Vec::new(),
            error: None,
        }
    }
}
