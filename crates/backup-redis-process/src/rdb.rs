//! Redis' snapshot file, the RDB: whether it is whole, and what it holds.
//!
//! Two looks at the same bytes. [`Tail`] needs no understanding of the content: magic, version, the
//! end mark and the CRC-64 over everything. [`mod@walk`] reads every key, and what it makes of a key does
//! not depend on how a server packed it, so a copy that another server wrote again is equal.

mod crc64;
mod digest;
mod input;
mod packed;
mod tail;
mod walk;

pub(crate) use input::{Fault, Input};
pub(crate) use tail::Tail;
pub(crate) use walk::{Content, Keys, walk};
