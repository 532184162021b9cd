//! Whole archives: hand-made, of real servers, and mutilated.

mod build;
mod handmade;
mod mutilated;
mod pg_restore;
mod real_dumps;
mod rows;
mod writer;

use backup_pg_archive::{ArchiveError, ArchiveReport, Inspector};

/// Inspects `archive` in pieces of `piece` bytes.
fn inspect_in(archive: &[u8], piece: usize) -> Result<ArchiveReport, ArchiveError> {
    let mut inspector = Inspector::new();
    for bytes in archive.chunks(piece) {
        inspector.push(bytes)?;
    }
    inspector.finish()
}

fn inspect(archive: &[u8]) -> Result<ArchiveReport, ArchiveError> {
    inspect_in(archive, usize::MAX)
}

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}
