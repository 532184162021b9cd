//! Compressors of backup parts: [`Zstd`], [`Gzip`] and [`Identity`].
//!
//! The codecs of `async-compression` are driven directly, not through its readers: its
//! `bufread` encoders flush the codec whenever an output buffer fills or the input is
//! not ready, which cuts blocks short and makes zstd's workers wait for each other.
//! Here input chunks go into the codec as they are, output leaves in chunks of 256 KiB,
//! and nothing is flushed before the body has ended without an error. All work is done
//! inside `poll`, so a pipeline belongs in a task of its own
//! ([`backup_core::body::in_own_task`]).
//!
//! ```
//! use backup_compress::Compression;
//! use backup_core::body::{body_of, collect};
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let wanted: Compression = "zstd:3".parse()?;
//! let compressor = wanted.compressor(0);
//! let stored = compressor.compress(body_of("some rows"), wanted.level());
//! let content = collect(compressor.decompress(stored), 1024).await?;
//! assert_eq!(content, "some rows");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod choice;
mod error;
mod gzip;
mod identity;
mod pump;
mod zstd;

pub use choice::{Algorithm, Compression, by_name};
pub use error::Error;
pub use gzip::Gzip;
pub use identity::Identity;
pub use zstd::Zstd;
