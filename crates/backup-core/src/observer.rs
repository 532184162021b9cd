//! Being told what happens, without a terminal or a log in the library.

use std::fmt;
use std::time::Duration;

use crate::manifest::PartName;

/// Something worth showing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The plan stands: how much there is to do.
    Planned {
        /// Parts.
        parts: usize,
        /// Raw bytes as the source estimates them.
        estimated_bytes: u64,
    },
    /// A part began.
    PartStarted {
        /// Which.
        part: PartName,
    },
    /// A part failed and is tried again.
    PartRetried {
        /// Which.
        part: PartName,
        /// Why.
        reason: String,
    },
    /// A part is stored or loaded.
    PartFinished {
        /// Which.
        part: PartName,
        /// How long it took.
        elapsed: Duration,
    },
    /// Raw bytes that passed since the last such event.
    RawBytes(u64),
    /// Stored bytes that passed since the last such event.
    StoredBytes(u64),
    /// A step of a longer operation began (`create database`, `compare`, …).
    Step(String),
    /// Something worth knowing that is as it should be.
    Note(String),
    /// Something is not as it should be, and the operation goes on.
    Warning(String),
}

/// Receives events. Called often and from many tasks: must be quick and must not block.
pub trait Observer: fmt::Debug + Send + Sync {
    /// Takes one event.
    fn event(&self, event: &Event);
}

/// Looks away.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoopObserver;

impl Observer for NoopObserver {
    fn event(&self, _event: &Event) {}
}
