//! Fakes and contract suites for tests; never shipped.
//!
//! A fake here does what the port's documentation promises, can be told to break in one
//! place, and can be asked what happened. A contract suite is the documentation of a port as
//! code: every adapter runs the same one.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use backup_core::store::{PutOptions, Store, StoreKey};
//! use backup_testing::{Fault, FaultyStore, MemoryStore, Op, bodies};
//! use std::sync::Arc;
//!
//! let memory = Arc::new(MemoryStore::new());
//! let store = FaultyStore::new(memory.clone());
//! store.inject(Fault::on(Op::Put).key("data").nth(1).fails_after(3));
//!
//! let key = StoreKey::new("data").unwrap();
//! let body = bodies::chunked("content", 2);
//! let put = store.put(&key, body, &PutOptions::default(), &Default::default()).await;
//! assert!(put.is_err());
//! assert_eq!(memory.keys(), Vec::<String>::new());
//! # }
//! ```
pub mod bodies;
pub mod contract;
mod fake_bucket;
mod fakes;
mod faulty_store;
mod framed;
mod memory_store;
mod programs;
mod recording_store;
mod scripted_drill_server;
mod scripted_dumper;
mod scripted_inspector;
mod scripted_replacer;
mod scripted_restorer;

pub use fake_bucket::{FakeBucket, HttpFault, HttpRequest, error_document};
pub use fakes::{FakeCipher, FakeCompressor, FakeProcesses, FixedClock, TestObserver};
pub use faulty_store::{Fault, FaultyStore, Op};
pub use memory_store::MemoryStore;
pub use programs::write_program;
pub use recording_store::{Call, RecordingStore};
pub use scripted_drill_server::ScriptedDrillServer;
pub use scripted_dumper::{DumpLog, Failure, ScriptedDumper, ScriptedPart};
pub use scripted_inspector::ScriptedInspector;
pub use scripted_replacer::ScriptedReplacer;
pub use scripted_restorer::ScriptedRestorer;

/// Locks a mutex of test bookkeeping, whatever panicked while it was held.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
