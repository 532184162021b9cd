//! What every adapter of a port must do, as functions that panic when it does not.
//!
//! Each property is a function of its own, so that an adapter's test can run them one by
//! one; `all` runs those that need nothing special.
#![expect(
    clippy::missing_panics_doc,
    reason = "a panic is how a contract function says no"
)]

pub mod cipher;
mod codec;
pub mod compressor;
pub mod store;
