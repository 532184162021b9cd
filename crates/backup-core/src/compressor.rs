//! Making bytes fewer.

use std::fmt;

use crate::body::BodyStream;

/// One compression algorithm. Bodies in, bodies out; an error that comes in goes out.
pub trait Compressor: fmt::Debug + Send + Sync {
    /// The name in manifests and options: `zstd`, `gzip`, `none`.
    fn name(&self) -> &'static str;

    /// What an object's name ends with: `.zst`, `.gz`, or nothing.
    fn extension(&self) -> &'static str;

    /// The level used when none is said; `None` where there are no levels.
    fn default_level(&self) -> Option<i32>;

    /// Compresses `body` at `level` (clamped by the caller with [`Compressor::default_level`]'s
    /// algorithm). The output carries a checksum of the content where the format has one.
    fn compress(&self, body: BodyStream, level: Option<i32>) -> BodyStream;

    /// The content again. A cut or damaged stream ends with a `Corrupt` error.
    fn decompress(&self, body: BodyStream) -> BodyStream;
}
