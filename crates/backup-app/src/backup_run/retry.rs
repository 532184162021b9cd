//! What is worth another try.

use std::time::Duration;

use backup_core::error::Error as CoreError;

use super::BackupRun;
use crate::compose::BackupJob;
use crate::error::AppError;

/// How long to wait for the next attempt, and why there is one: the job has attempts and time
/// `left`, and the last one failed for a reason that may pass.
pub(super) fn delay(
    job: &BackupJob,
    done: &BackupRun,
    left: Duration,
) -> Option<(Duration, String)> {
    let error = done.result.as_ref().err().filter(|e| may_pass(e))?;
    let delay = job.settings.values.retry.delay_after(done.attempts)?;
    (delay < left).then(|| (delay, error.line()))
}

/// Whether the same backup may work later. A source that another backup has, or has taken over, is
/// being backed up; a limit that the operator set is his word.
fn may_pass(error: &AppError) -> bool {
    match error {
        AppError::Engine(CoreError::Held { holder, .. }) => holder.is_tidying(),
        AppError::Engine(CoreError::LeaseLost { .. }) => false,
        AppError::Engine(error) => error.kind().is_retryable(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::backup::BackupId;
    use backup_core::error::{ErrorKind, PortError};
    use backup_core::lease::Holder;
    use backup_core::run_record::{Operation, Who};
    use chrono::DateTime;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let store = |kind| {
            AppError::Engine(CoreError::Store {
                operation: "write".to_owned(),
                source: PortError::new(kind, "no"),
            })
        };
        for (kind, again) in [
            (ErrorKind::Unavailable, true),
            (ErrorKind::Timeout, true),
            (ErrorKind::ToolFailed, true),
            (ErrorKind::Conflict, true),
            (ErrorKind::PermissionDenied, false),
            (ErrorKind::NoRoom, false),
            (ErrorKind::Refused, false),
            (ErrorKind::Corrupt, false),
            (ErrorKind::Unsuitable, false),
            (ErrorKind::ToolMissing, false),
            (ErrorKind::NotFound, false),
        ] {
            assert_eq!(may_pass(&store(kind)), again, "{kind}");
        }
        let held = |backup| {
            let who = Who {
                user: "postgres".to_owned(),
                host: "here".to_owned(),
            };
            let holder = Box::new(Holder {
                who,
                pid: 1,
                operation: Operation::Prune,
                backup,
                since: DateTime::UNIX_EPOCH,
                until: DateTime::UNIX_EPOCH,
            });
            let what = "the lease of a".to_owned();
            AppError::Engine(CoreError::Held { what, holder })
        };
        assert!(may_pass(&held(None)), "nobody takes a backup");
        let backup = BackupId::new(DateTime::UNIX_EPOCH, 1);
        assert!(!may_pass(&held(Some(backup))));
        let lost = CoreError::LeaseLost {
            what: "the lease of a".to_owned(),
            by: None,
        };
        for error in [
            AppError::Engine(lost),
            AppError::Engine(CoreError::Cancelled),
            AppError::Timeout(Duration::from_secs(1)),
            AppError::usage("no"),
        ] {
            assert!(!may_pass(&error), "{error}");
        }
    }
}
