//! Redis for the backup manager: [`RedisDumper`], [`RedisInspector`] and [`RedisDrill`] over the
//! server's own programs.
//!
//! A dump is what `redis-cli --rdb` gets from a server: the snapshot that it would send to a replica.
//! It counts only if the program succeeded, and what passed ends as a snapshot does and has the
//! checksum of its content. Every key is counted and hashed while it passes, in a way that does not
//! depend on how a server packed it; so a drill can let a throw-away server load the snapshot and
//! write it again, and compare.
//!
//! The password reaches `redis-cli` by its environment, never as an argument.
//!
//! ```
//! use backup_redis_process::{RedisConnection, RedisDumper, RedisTools};
//!
//! let connection = RedisConnection::parse("redis://127.0.0.1:6379").unwrap();
//! let _dumper = RedisDumper::new(connection, RedisTools::default());
//! ```

mod ask;
mod connection;
mod drill;
mod dumper;
mod error;
mod inspector;
mod rdb;
mod tools;

pub use ask::probe;
pub use connection::{RedisConnection, RedisTls};
pub use drill::{RedisDrill, RedisDrillConfig};
pub use dumper::RedisDumper;
pub use inspector::RedisInspector;
pub use tools::RedisTools;
