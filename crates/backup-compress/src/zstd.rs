//! Zstandard.

use std::ops::RangeInclusive;

use async_compression::codecs::{ZstdDecoder, ZstdEncoder};
use async_compression::zstd::{CParameter, DParameter};
use backup_core::body::BodyStream;
use backup_core::compressor::Compressor;

use crate::pump;

/// [Zstandard](https://www.rfc-editor.org/rfc/rfc8878) with a checksum of the content.
///
/// Without workers it compresses in the calling task. With `n` workers it starts `n`
/// threads per stream and the calling task only copies, but blocks when it is ahead of
/// them; each worker works on jobs of [`Zstd::JOB_BYTES`], and dropping the body waits for
/// the jobs that run. Memory a stream: 3 to 5 MiB at level 2 or 3, 11 MiB with one worker,
/// 16 MiB with two; at level 9 16 MiB, at level 19 90 MiB and twice that with two workers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Zstd {
    workers: u32,
}

impl Zstd {
    /// The levels accepted, except 0. Above 19 the window alone needs up to 128 MiB on both sides.
    pub const LEVELS: RangeInclusive<i32> = -7..=19;

    /// The level used when none is said: on rows of COPY text it is half again to twice as
    /// fast as 3, and as small or smaller except for prose.
    pub const DEFAULT_LEVEL: i32 = 2;

    /// What one worker takes at a time, unless the level's window asks for more.
    pub const JOB_BYTES: u32 = 2 << 20;

    /// More threads than this per stream are of no use.
    const MAX_WORKERS: u32 = 64;

    /// 128 MiB: what stock `zstd -d` accepts without being asked to take more.
    const MAX_WINDOW_LOG: u32 = 27;

    /// A compressor that works in the calling task.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with `workers` threads of its own per stream; 0 for none.
    #[must_use]
    pub fn with_workers(self, workers: u32) -> Self {
        Self {
            workers: workers.min(Self::MAX_WORKERS),
        }
    }

    fn encoder(self, level: i32) -> ZstdEncoder {
        let mut parameters = vec![CParameter::checksum_flag(true)];
        if self.workers > 0 {
            parameters.push(CParameter::nb_workers(self.workers));
            // zstd's own choice is four windows a job, and it buffers several jobs.
            parameters.push(CParameter::job_size(Self::JOB_BYTES));
        }
        ZstdEncoder::new_with_params(level, &parameters)
    }
}

impl Compressor for Zstd {
    fn name(&self) -> &'static str {
        "zstd"
    }

    fn extension(&self) -> &'static str {
        ".zst"
    }

    fn default_level(&self) -> Option<i32> {
        Some(Self::DEFAULT_LEVEL)
    }

    /// Levels outside [`Zstd::LEVELS`] become the nearest inside.
    fn compress(&self, body: BodyStream, level: Option<i32>) -> BodyStream {
        let level = level
            .unwrap_or(Self::DEFAULT_LEVEL)
            .clamp(*Self::LEVELS.start(), *Self::LEVELS.end());
        pump::encode(body, "zstd", self.encoder(level))
    }

    /// Several frames one after the other are one content, as for `zstd -d`. A frame that
    /// asks for a window of more than 128 MiB is refused.
    fn decompress(&self, body: BodyStream) -> BodyStream {
        let parameters = [DParameter::window_log_max(Self::MAX_WINDOW_LOG)];
        pump::decode(body, "zstd", ZstdDecoder::new_with_params(&parameters))
    }
}
