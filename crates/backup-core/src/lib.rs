//! Domain, ports and engine of a backup manager: what a backup is, where its bytes go, and
//! in which order things must happen so that it is either complete or not there.
//!
//! A host gives the engine a [`store::Store`], codecs and a [`dumper::Dumper`]; what comes
//! out is one committed backup: parts, then a manifest whose existence is the commit.
//! Nothing here starts a process, opens a socket, reads the environment or the clock, or
//! prints; all of that is behind the ports, so the engine can be embedded and tested whole.
//!
//! | port | for |
//! |---|---|
//! | [`dumper::Dumper`] | taking a dump as a plan of parts, each a byte stream |
//! | [`restorer::Restorer`] | putting parts into a new target and reading it back |
//! | [`drill::DrillServer`] | a server for one rehearsal of a restore |
//! | [`inspector::Inspector`] | looking into parts without a server |
//! | [`store::Store`] | objects |
//! | [`compressor::Compressor`], [`cipher::Cipher`] | codecs |
//! | [`retention::RetentionPolicy`] | what to keep, and why |
//! | [`observer::Observer`], [`clock::Clock`] | progress out, time in |
//! | [`notifier::Notifier`] | telling people how runs end |
//! | [`lease::Processes`] | whether a holder of a lease on this machine is still alive |
//!
//! `examples/embed.rs` backs up through a dumper of its own into memory.

pub mod audit;
pub mod backup;
pub mod body;
pub mod catalog;
pub mod check;
pub mod cipher;
pub mod clock;
pub mod compressor;
pub mod databases;
pub mod doctor;
pub mod drill;
pub mod dumper;
pub mod engine;
pub mod error;
pub mod facts;
pub mod fan_out;
pub mod history;
pub mod inspector;
pub mod layout;
pub mod lease;
pub mod manifest;
pub mod notifier;
pub mod observer;
pub mod pin;
mod removal;
pub mod replacer;
pub mod restorer;
pub mod retention;
pub mod run_record;
pub mod sandbox;
mod stamped;
pub mod store;
pub mod text;
mod versioned;
