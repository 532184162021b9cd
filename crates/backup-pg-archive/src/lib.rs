//! Reads archives of `pg_dump --format=custom` as they stream past, best those of `--compress=0`.
//!
//! A backup that only stores what `pg_dump` prints knows nothing about it: not whether it is
//! complete, not how many rows a table has, not whether a restore brought the same rows back. This
//! crate looks at the bytes on their way to the store and answers that without a second read of the
//! server: the table of contents, and for each table rows, bytes and an order-independent hash. The
//! hash can be taken again from the restored database by `COPY … TO STDOUT` and compared.
//!
//! # Shape
//! Everything is push-based and without I/O: the caller owns the stream, be it async or not, and
//! pushes pieces cut anywhere. Memory is constant apart from the table of contents, which is bounded
//! by [`Limits`]. A [`Walker`] knows the layout and tells a [`Visitor`] what it meets; [`Inspector`]
//! and [`RowExtractor`] are two visitors. `pg_dump` writes nearly every row as a chunk of its own,
//! so the path from chunk to hash copies and allocates nothing: more than 1 GB/s on one core.
//!
//! An archive has neither checksum nor end mark. What this crate does find is everything that makes
//! it incomplete: it accepts an archive only if each block that the table of contents promises came,
//! whole and once, and each table's data end as COPY text ends. Damage inside a row is invisible
//! here; whoever stores the bytes must hash them.
//!
//! # Example
//! ```
//! use backup_pg_archive::Inspector;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/pg18.dump");
//! let archive = std::fs::read(path)?;
//! let mut inspector = Inspector::new();
//! for piece in archive.chunks(4096) {
//!     inspector.push(piece)?;
//! }
//! let report = inspector.finish()?;
//!
//! let invoices = report.table("app", "invoice").ok_or("no such table")?;
//! assert_eq!(invoices.fingerprint.rows, 40);
//! assert_eq!(report.summary().triggers, 1);
//! # Ok(())
//! # }
//! ```

mod contents_decoder;
mod contents_encoder;
mod copy;
mod csv;
mod decode;
mod error;
mod fingerprint;
mod header;
mod inspector;
mod large_objects;
mod limits;
mod rows;
mod summary;
mod text;
mod toc;
mod unpack;
mod walker;
mod writer;

pub use contents_encoder::encode_contents;
pub use csv::{CsvConverter, copy_text_to_csv};
pub use error::ArchiveError;
pub use fingerprint::{Fingerprint, LineHasher, format_hash, parse_hash};
pub use header::{ArchiveVersion, Compression, CreatedAt, Header};
pub use inspector::{ArchiveReport, Inspector, TableData};
pub use large_objects::{LargeObjectHasher, LargeObjects};
pub use limits::Limits;
pub use rows::RowExtractor;
pub use summary::Summary;
pub use text::DumpText;
pub use toc::{Contents, DataState, Section, TocEntry};
pub use walker::{Visitor, Walker};
pub use writer::{ArchiveWriter, TableDataSpec};
