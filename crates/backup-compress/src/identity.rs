//! No compression.

use backup_core::body::BodyStream;
use backup_core::compressor::Compressor;

/// Passes bytes as they are, for content that is compressed already.
#[derive(Debug, Clone, Copy, Default)]
pub struct Identity;

impl Identity {
    /// The only one there is.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Compressor for Identity {
    fn name(&self) -> &'static str {
        "none"
    }

    fn extension(&self) -> &'static str {
        ""
    }

    fn default_level(&self) -> Option<i32> {
        None
    }

    fn compress(&self, body: BodyStream, _level: Option<i32>) -> BodyStream {
        body
    }

    fn decompress(&self, body: BodyStream) -> BodyStream {
        body
    }
}
