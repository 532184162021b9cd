//! A script for a build step of `TeamCity`.

use crate::{Artifact, Generated, Plan, fill};

const SCRIPT: &str = include_str!("../templates/backup_restore.sh");

pub(crate) fn script(plan: &Plan) -> Generated {
    let command = plan.shell_command();
    let backup = if plan.sources.is_empty() {
        ALONE
    } else {
        "cli backup --all"
    };
    let text = fill(SCRIPT, &[("COMMAND", &command), ("BACKUP", backup)]);
    let mut script = Artifact::new("backup_restore.sh", text);
    script.is_program = true;
    Generated {
        files: vec![script],
        notes: Vec::new(),
    }
}

/// Without a configured source, variables say which database and where to.
const ALONE: &str = "cli backup ${BACKUP_RECIPIENT:+--recipient \"$BACKUP_RECIPIENT\"}";
