//! The acceptance checks: what a release must survive. Each test of a check is named after its
//! number (`check_07_…`), and says at its end what it saw ([`backup_e2e::evidence`]); from that
//! `scripts/reliability` writes `docs/RELIABILITY.md`.

mod access;
mod aging;
mod bare_machine;
mod bot;
mod calendar;
mod damage;
mod disk;
mod drill;
mod failing_tools;
mod golden;
mod hostile;
mod killed;
mod lease;
mod lies;
mod limits;
mod listings;
mod locked;
mod locks;
mod names;
mod random;
mod replace;
mod rights;
mod secrets;
mod signals;
mod slow_store;
mod storing;
mod versions;
