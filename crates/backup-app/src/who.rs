//! Who runs this process, for the records of runs.

use backup_core::run_record::Who;
use nix::unistd::{User, geteuid, gethostname};

/// The account and the machine; what has no name is told by its number, or not at all.
#[must_use]
pub fn who() -> Who {
    let id = geteuid();
    let user = match User::from_uid(id) {
        Ok(Some(user)) => user.name,
        _ => format!("uid {id}"),
    };
    let host = gethostname().map_or_else(
        |_| "unknown".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    );
    Who { user, host }
}
