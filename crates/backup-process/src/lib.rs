//! What every adapter over somebody else's programs needs: children that end when we do, whose
//! output ends without an error only if they succeeded, and private directories that a killed
//! owner leaves to the next.
//!
//! Nothing here knows any program. What a program's last words mean is for the adapter to say.

pub mod child;
mod env;
mod error;
pub mod held_dir;

pub use env::ToolEnv;
pub use error::Error;
