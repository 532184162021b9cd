//! Archives of our own, read by ourselves; `pg_restore.rs` has them read by the real one.

use backup_pg_archive::{ArchiveError, ArchiveWriter, CreatedAt, LineHasher, TableDataSpec};
use proptest::prelude::*;
use rstest::rstest;

use crate::inspect;

pub(crate) fn spec<'a>() -> TableDataSpec<'a> {
    TableDataSpec {
        database: "shop",
        server_version: "17.11",
        dump_version: "17.11",
        encoding: "UTF8",
        created: CreatedAt {
            year: 2026,
            month: 2,
            day: 5,
            hour: 3,
            minute: 0,
            second: 0,
        },
        namespace: "Odd \"schema\".",
        table: "Таблица \".\\ with\nnewline",
        table_oid: 16_385,
        owner: "postgres",
        columns: &["select", "a,b", "c\"d", "юни код"],
    }
}

pub(crate) fn write(spec: &TableDataSpec<'_>, pieces: &[&[u8]]) -> Result<Vec<u8>, ArchiveError> {
    let mut archive = Vec::new();
    let mut writer = ArchiveWriter::start(spec, &mut archive)?;
    for piece in pieces {
        writer.rows(piece, &mut archive);
    }
    writer.end(&mut archive).map(|()| archive)
}

#[test]
fn spec_comes_back() {
    let report = inspect(&write(&spec(), &[b"1\ta\tb\tc\n"]).unwrap()).unwrap();
    let table = report.table(spec().namespace, spec().table).unwrap();
    assert_eq!(table.columns, spec().columns);
    assert_eq!(report.encoding(), Some("UTF8"));
    assert_eq!(report.header.created, spec().created);
    let kinds: Vec<_> = report.entries.iter().map(|e| e.desc.to_string()).collect();
    assert_eq!(
        kinds,
        ["ENCODING", "STDSTRINGS", "SEARCHPATH", "TABLE DATA"]
    );
    assert_eq!(report.entries[3].oid, 16_385);
}

#[test]
fn a_table_without_columns_has_no_list() {
    let empty = TableDataSpec {
        columns: &[],
        ..spec()
    };
    let report = inspect(&write(&empty, &[b"\n\n", b"", b"\n"]).unwrap()).unwrap();
    assert_eq!(report.tables[0].fingerprint.rows, 3);
    assert_eq!(report.tables[0].columns.len(), 0);
}

#[test]
fn long_input_is_cut_into_chunks() {
    let rows = "x".repeat(99).into_bytes();
    let rows = [&rows[..], b"\n"].concat().repeat(30_000);
    let report = inspect(&write(&spec(), &[&rows]).unwrap()).unwrap();
    assert_eq!(report.tables[0].fingerprint.rows, 30_000);
}

#[test]
fn a_cut_row_is_refused() {
    let error = write(&spec(), &[b"1\ta\n", b"2\t"]).unwrap_err();
    assert_eq!(error, ArchiveError::Truncated { place: "last row" });
}

#[rstest]
#[case::encoding(TableDataSpec { encoding: "UTF8'; DROP", ..spec() })]
#[case::no_encoding(TableDataSpec { encoding: "", ..spec() })]
#[case::zero(TableDataSpec { table: "a\0b", ..spec() })]
#[case::zero_column(TableDataSpec { columns: &["a\0b"], ..spec() })]
#[case::no_table(TableDataSpec { table: "", ..spec() })]
#[case::no_column(TableDataSpec { columns: &["a", ""], ..spec() })]
fn impossible_specs_are_refused(#[case] spec: TableDataSpec<'_>) {
    let mut out = Vec::new();
    let error = ArchiveWriter::start(&spec, &mut out).unwrap_err();
    assert!(matches!(error, ArchiveError::InvalidSpec { .. }));
    assert!(out.is_empty());
}

proptest! {
    #[test]
    fn rows_come_back(
        rows in "([a\\\\.\\t]{0,9}\\n){0,20}",
        cut in any::<prop::sample::Index>(),
        table in "[^\\x00]{1,20}",
        column in "[^\\x00]{1,20}",
    ) {
        // A line `\.` is no row.
        prop_assume!(!rows.lines().any(|line| line == "\\."));
        let (first, second) = rows.as_bytes().split_at(cut.index(rows.len() + 1));
        let columns = [column.as_str()];
        let spec = TableDataSpec { table: &table, columns: &columns, ..spec() };
        let report = inspect(&write(&spec, &[first, second]).unwrap()).unwrap();
        let mut hasher = LineHasher::default();
        hasher.push(rows.as_bytes());
        prop_assert_eq!(report.tables[0].fingerprint, hasher.finish());
        prop_assert_eq!(&report.tables[0].name, table.as_str());
        prop_assert_eq!(&report.tables[0].columns[0], column.as_str());
    }
}
