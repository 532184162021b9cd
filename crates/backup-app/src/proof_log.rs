//! The log of proofs: one line of JSON for each verification and drill, in a file of its own, for
//! those who collect files and read no store.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use backup_core::run_record::{Operation, RunRecord};

use crate::listing::RunView;

/// Appends to the file.
#[derive(Debug, Clone)]
pub(crate) struct ProofLog(PathBuf);

impl ProofLog {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// What it is called in messages.
    pub(crate) fn name(&self) -> String {
        self.0.display().to_string()
    }

    /// Whether a run belongs there.
    pub(crate) fn takes(run: &RunRecord) -> bool {
        matches!(run.operation, Operation::Verify | Operation::Drill)
    }

    /// Appends how a run ended, as `runs --json` tells it. Each line is one write, so that those of
    /// several processes do not mix.
    pub(crate) fn append(&self, run: &RunRecord, place: &str) -> io::Result<()> {
        let mut line = serde_json::to_vec(&RunView::new(run, place))?;
        line.push(b'\n');
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(&self.0)?;
        file.write_all(&line)
    }
}
