//! A job as its worker sees it.

use std::sync::Arc;

use backup_core::backup::BackupId;
use backup_core::clock::Clock as _;
use backup_core::observer::Observer;
use backup_core::run_record::RunId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Order;
use super::progress::Progress;
use super::view::{JobError, JobView, SandboxView, State, is_final};
use crate::clock::SystemClock;
use crate::journal::Mark;
use crate::text::time;

/// A job that was taken.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) id: RunId,
    pub(super) order: Order,
    pub(super) cancel: CancellationToken,
    view: Arc<watch::Sender<JobView>>,
}

impl Running {
    pub(super) fn new(
        id: RunId,
        order: Order,
        cancel: CancellationToken,
        view: Arc<watch::Sender<JobView>>,
    ) -> Self {
        Self {
            id,
            order,
            cancel,
            view,
        }
    }

    /// What belongs into the first record.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            id: Some(self.id.clone()),
            slot: self.order.slot,
            by: Some(self.order.by.clone()),
        }
    }

    /// It does not wait any more.
    pub(super) fn begun(&self) {
        self.change(|view| {
            if view.state == State::Queued.as_str() {
                view.state = State::Running.as_str();
                view.started_at = Some(time(SystemClock.now()));
            }
        });
    }

    /// Shows how far one part of the work is; `about` stands before what it says.
    pub(super) fn observer(&self, about: &str) -> Arc<dyn Observer> {
        Arc::new(Progress::new(Arc::clone(&self.view), about))
    }

    /// A record was left.
    pub(super) fn recorded(&self, runs: &[RunId]) {
        let runs = runs.iter().map(ToString::to_string);
        self.change(|view| view.runs.extend(runs));
    }

    /// Whether it left a record.
    pub(super) fn has_recorded(&self) -> bool {
        !self.view.borrow().runs.is_empty()
    }

    /// It took this backup.
    pub(super) fn took(&self, backup: &BackupId) {
        self.change(|view| view.backup = Some(backup.to_string()));
    }

    /// It is over.
    pub(super) fn ended(
        &self,
        state: State,
        error: Option<JobError>,
        sandbox: Option<SandboxView>,
    ) {
        self.change(|view| {
            view.state = state.as_str();
            view.finished_at = Some(time(SystemClock.now()));
            view.phase = None;
            view.error = error;
            view.sandbox = sandbox;
        });
    }

    fn change(&self, change: impl FnOnce(&mut JobView)) {
        self.view.send_if_modified(|view| {
            let goes_on = !is_final(view.state);
            if goes_on {
                change(view);
            }
            goes_on
        });
    }
}
