//! The acceptance checks: what a release must survive. Each test of a check is named after its
//! number (`check_07_…`), and says at its end what it saw ([`backup_e2e::evidence`]); from that
//! `scripts/reliability` writes `docs/RELIABILITY.md`.

mod lies;
mod limits;
mod listings;
mod locked;
mod storing;
mod years;
