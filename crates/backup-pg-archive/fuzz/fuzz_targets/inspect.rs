//! Any bytes, in any pieces: no panic, the same verdict, and no incomplete archive accepted.
//!
//! `cargo +nightly fuzz run inspect fuzz/corpus/inspect tests/fixtures` starts from the real dumps;
//! new findings go to the first directory.
#![no_main]

use backup_pg_archive::{ArchiveReport, Inspector, RowExtractor};
use libfuzzer_sys::fuzz_target;

fn inspect(pieces: impl Iterator<Item = impl AsRef<[u8]>>) -> Option<ArchiveReport> {
    let mut inspector = Inspector::new();
    for piece in pieces {
        inspector.push(piece.as_ref()).ok()?;
    }
    inspector.finish().ok()
}

fuzz_target!(|archive: &[u8]| {
    let whole = inspect([archive].into_iter());
    assert_eq!(inspect(archive.chunks(archive.len() % 251 + 1)), whole);
    let Some(report) = whole else { return };
    if !archive.is_empty() {
        assert_eq!(inspect([&archive[..archive.len() - 1]].into_iter()), None);
    }
    for table in report.tables {
        let mut extractor = RowExtractor::new(table.namespace, table.name);
        // Two entries may name one table; then the first is found.
        extractor
            .push(archive, |_| ())
            .expect("the inspector read it");
        extractor.finish().expect("the inspector read it");
    }
});
