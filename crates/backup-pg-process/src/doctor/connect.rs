//! What a login that fails is told as.

use backup_core::doctor::Finding;
use backup_core::error::PortError;

use crate::error::sqlstate;
use crate::{ConnectionConfig, Error};

/// What keeps us out, and what to do about it.
pub(super) fn finding(error: Error, config: &ConnectionConfig) -> Finding {
    let (id, remedy) = match &error {
        Error::Connect { step, .. } => {
            let id = *step;
            return Finding::failure(id, &PortError::from(error));
        }
        Error::ConnectTimeout { .. } => (
            "server-silent",
            format!(
                "nothing answers at {}: check the address, and the firewalls between (a closed \
                 port would have said so)",
                config.server()
            ),
        ),
        _ => (
            "connection-settings",
            "correct the settings of the server, or the variables and flags".to_owned(),
        ),
    };
    let failed = Finding::failure(id, &PortError::from(error));
    match &failed.remedy {
        Some(hint) if !remedy.contains(hint) => {
            let both = format!("{hint}; {remedy}");
            failed.remedy(both)
        }
        _ => failed.remedy(remedy),
    }
}

/// Whether a server would not say that: its sessions keep what they were told, and have
/// transactions.
pub(super) fn is_of_pooler(error: &Error) -> bool {
    let Error::Query { source, .. } = error else {
        return false;
    };
    // A prepared statement is there that we did not make, or is not there that we made.
    let state = sqlstate(source);
    let shared = matches!(state.as_deref(), Some("42P05" | "26000"));
    shared || source.to_string().contains("statement pooling mode")
}
