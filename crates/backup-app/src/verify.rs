//! One verification from its backup to its record, the same for every frontend.

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::backup::SourceName;
use backup_core::engine::{VerifyReport, VerifyRequest};
use backup_core::error::Error as CoreError;
use backup_core::manifest::Manifest;
use backup_core::run_record::{Operation, RunId};
use tokio_util::sync::CancellationToken;

use crate::error::AppError;
use crate::found::Found;
use crate::inspector::AnyInspector;
use crate::journal::{Journal, Mark, Reading};

/// A backup to verify.
#[derive(Debug)]
pub struct VerifyTask<'a> {
    /// Which.
    pub found: &'a Found,
    /// How.
    pub request: VerifyRequest,
    /// What belongs into its record.
    pub mark: Mark,
}

/// What came of it.
#[derive(Debug)]
pub struct VerifyRun {
    /// What was found, or why nothing was.
    pub result: Result<VerifyReport, AppError>,
    /// The record, if it is there.
    pub run: Option<RunId>,
}

impl VerifyTask<'_> {
    /// Verifies it while the store says so, and leaves a record of it.
    ///
    /// # Cancellation
    /// It is recorded as cancelled.
    pub async fn run(&self, journal: &Journal, cancel: &CancellationToken) -> VerifyRun {
        if cancel.is_cancelled() {
            let result = Err(CoreError::Cancelled.into());
            return VerifyRun { result, run: None };
        }
        let (engine, manifest) = (&self.found.engine, &self.found.manifest);
        let place = &self.found.place.name;
        let mut run = self.mark.begin(Operation::Verify);
        run.source = Some(manifest.source.clone());
        run.backup = Some(manifest.id.clone());
        journal.began(&run);
        let work = engine.verify(manifest, self.request, Arc::new(AnyInspector), cancel);
        let what = Reading {
            engine,
            place,
            backup: manifest,
            operation: Operation::Verify,
        };
        let reading = journal.reading(&what, Box::pin(work), cancel);
        let result = reading.await.flatten();
        match &result {
            Ok(report) => run.verified(report),
            Err(error) => run.failed(error),
        }
        VerifyRun {
            run: journal.record(engine, place, run, cancel).await,
            result: result.map_err(AppError::from),
        }
    }
}

/// Keeps so many of each source, newest first: the newest and random others.
pub fn sample_each(backups: &mut Vec<Manifest>, count: usize) {
    let mut by_source: BTreeMap<SourceName, Vec<Manifest>> = BTreeMap::new();
    for backup in backups.drain(..) {
        by_source
            .entry(backup.source.clone())
            .or_default()
            .push(backup);
    }
    for mut own in by_source.into_values() {
        sample(&mut own, count);
        backups.extend(own);
    }
}

/// Keeps the newest and random others.
pub(crate) fn sample<T>(newest_first: &mut Vec<T>, count: usize) {
    while newest_first.len() > count.max(1) {
        let others = newest_first.len() - 1;
        newest_first.remove(1 + rand::random_range(0..others));
    }
    newest_first.truncate(count);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_holds_the_newest() {
        for (count, expected) in [(0, 0), (1, 1), (3, 3), (9, 5)] {
            let mut backups = vec![5, 4, 3, 2, 1];
            sample(&mut backups, count);
            assert_eq!(backups.len(), expected);
            assert!(backups.first().is_none_or(|first| *first == 5));
            assert!(backups.is_sorted_by(|a, b| a > b));
        }
    }
}
