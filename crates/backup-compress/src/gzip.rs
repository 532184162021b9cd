//! gzip, for consumers that have nothing newer.

use std::ops::RangeInclusive;

use async_compression::codecs::{GzipDecoder, GzipEncoder};
use backup_core::body::BodyStream;
use backup_core::compressor::Compressor;

use crate::pump;

/// [gzip](https://www.rfc-editor.org/rfc/rfc1952): one thread, several times slower than
/// [`Zstd`](crate::Zstd) at a larger size. CRC-32 of the content is part of the format.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gzip;

impl Gzip {
    /// The levels accepted.
    pub const LEVELS: RangeInclusive<i32> = 1..=9;

    /// The level used when none is said.
    pub const DEFAULT_LEVEL: i32 = 6;

    /// The only one there is.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Compressor for Gzip {
    fn name(&self) -> &'static str {
        "gzip"
    }

    fn extension(&self) -> &'static str {
        ".gz"
    }

    fn default_level(&self) -> Option<i32> {
        Some(Self::DEFAULT_LEVEL)
    }

    /// Levels outside [`Gzip::LEVELS`] become the nearest inside.
    fn compress(&self, body: BodyStream, level: Option<i32>) -> BodyStream {
        let level = level
            .unwrap_or(Self::DEFAULT_LEVEL)
            .clamp(*Self::LEVELS.start(), *Self::LEVELS.end());
        let level = flate2::Compression::new(level.unsigned_abs());
        pump::encode(body, "gzip", GzipEncoder::new(level.into()))
    }

    /// Several members one after the other are one content, as for `gunzip`.
    fn decompress(&self, body: BodyStream) -> BodyStream {
        pump::decode(body, "gzip", GzipDecoder::new())
    }
}
