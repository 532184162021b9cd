//! The time of day, handed in from the edge.

use std::fmt;

use chrono::{DateTime, Utc};

/// Tells the time of day. Only the edge has one that reads the system's.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Now.
    fn now(&self) -> DateTime<Utc>;
}
