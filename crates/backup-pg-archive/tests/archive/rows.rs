//! Rows of one table, out of real dumps.

use backup_pg_archive::{ArchiveError, DumpText, LineHasher, RowExtractor, copy_text_to_csv};
use rstest::rstest;

use crate::build::{Archive, table_data};
use crate::{fixture, inspect};

fn extract(
    archive: &[u8],
    namespace: &DumpText,
    table: &DumpText,
    piece: usize,
) -> Result<Vec<u8>, ArchiveError> {
    let mut extractor = RowExtractor::new(namespace.clone(), table.clone());
    let mut rows = Vec::new();
    for bytes in archive.chunks(piece) {
        extractor.push(bytes, |found| rows.extend_from_slice(found))?;
        if extractor.is_done() {
            break;
        }
    }
    extractor.finish().map(|()| rows)
}

#[rstest]
#[case("pg14.dump")]
#[case("pg15.dump")]
#[case("pg16.dump")]
#[case("pg17.dump")]
#[case("pg18.dump")]
#[case("pg18-latin1.dump")]
fn rows_are_what_was_inspected(#[case] name: &str) {
    let archive = fixture(name);
    for table in inspect(&archive).unwrap().tables {
        for piece in [1, 13, 1000, usize::MAX] {
            let rows = extract(&archive, &table.namespace, &table.name, piece).unwrap();
            let mut hasher = LineHasher::default();
            hasher.push(&rows);
            assert_eq!(hasher.finish(), table.fingerprint, "{} {piece}", table.name);
        }
    }
}

#[rstest]
#[case("customer", "app", "customer")]
#[case("invoice", "app", "invoice")]
#[case("no_columns", "app", "no_columns")]
#[case("one_text", "app", "one_text")]
#[case("odd", "Odd \"schema\".", "Таблица \".\\ with\nnewline")]
fn csv_is_what_the_server_writes(#[case] csv: &str, #[case] namespace: &str, #[case] table: &str) {
    let archive = fixture("pg18.dump");
    let report = inspect(&archive).unwrap();
    let columns = &report.table(namespace, table).unwrap().columns;
    let rows = extract(&archive, &namespace.into(), &table.into(), 4096).unwrap();
    let converted = copy_text_to_csv(&rows, Some(columns));
    let expected = fixture(&format!("csv/{csv}.csv"));
    assert_eq!(
        String::from_utf8(converted).unwrap(),
        String::from_utf8(expected).unwrap()
    );
}

#[test]
fn an_absent_table_is_known_from_the_contents() {
    let archive = fixture("pg18.dump");
    for (namespace, table) in [("app", "nothing"), ("public", "customer"), ("app", "event")] {
        let error = extract(&archive, &namespace.into(), &table.into(), 64).unwrap_err();
        assert!(
            matches!(error, ArchiveError::TableNotFound { .. }),
            "{error}"
        );
    }
}

#[test]
fn a_cut_table_is_an_error_but_a_cut_archive_is_not() {
    let archive = fixture("pg18.dump");
    let mut extractor = RowExtractor::new("app", "invoice");
    let mut done = None;
    for (at, byte) in archive.chunks(1).enumerate() {
        extractor.push(byte, |_| ()).unwrap();
        if extractor.is_done() {
            done = Some(at + 1);
            break;
        }
    }
    let (namespace, table) = ("app".into(), "invoice".into());
    let needed = done.unwrap();
    assert!(needed < archive.len() - 1000);
    let rows = extract(&archive[..needed], &namespace, &table, 100).unwrap();
    assert_eq!(memchr::memchr_iter(b'\n', &rows).count(), 40);
    let error = extract(&archive[..needed - 1], &namespace, &table, 100).unwrap_err();
    assert!(matches!(error, ArchiveError::Truncated { .. }), "{error}");
}

#[test]
fn entry_tells_the_columns() {
    let mut extractor = RowExtractor::new("app", "t");
    assert_eq!(extractor.entry(), None);
    let archive = Archive::new(14, vec![table_data(5, "t")], vec![]).bytes();
    extractor.push(&archive, |_| ()).unwrap();
    let columns = extractor.entry().unwrap().copy_columns().unwrap();
    assert_eq!(columns, ["a", "b"]);
    assert!(!extractor.is_done());
    assert!(extractor.finish().is_err());
}
