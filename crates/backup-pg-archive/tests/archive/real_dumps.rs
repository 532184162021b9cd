//! Dumps of real servers, against fingerprints that psql and another XXH3 computed.
//!
//! `tests/fixtures/make-fixtures` made them; no server is needed to run this.

use backup_pg_archive::{
    ArchiveReport, Compression, DataState, DumpText, Inspector, encode_contents, format_hash,
};
use rstest::rstest;

use crate::{fixture, inspect, inspect_in};

/// What `pgNN.expected` says, in its own form.
fn in_expected_form(report: &ArchiveReport, name: fn(&DumpText) -> String) -> String {
    let escape = |text: &DumpText| name(text).replace('\\', "\\\\").replace('\n', "\\n");
    let mut tables: Vec<_> = report.tables.iter().collect();
    tables.sort_by_key(|table| (&table.namespace, &table.name));
    let mut lines = String::new();
    for table in tables {
        let print = table.fingerprint;
        let (schema, name) = (escape(&table.namespace), escape(&table.name));
        let (rows, bytes, hash) = (print.rows, print.bytes, format_hash(print.hash));
        let line = [
            "table",
            &schema,
            &name,
            &rows.to_string(),
            &bytes.to_string(),
            &hash,
        ]
        .join("\t");
        lines.push_str(&line);
        lines.push('\n');
    }
    let objects = report.large_objects;
    let (count, bytes, hash) = (objects.count, objects.bytes, format_hash(objects.hash));
    lines + &format!("large_objects\t{count}\t{bytes}\t{hash}\n")
}

fn utf8(text: &DumpText) -> String {
    text.as_str().expect("UTF-8").to_owned()
}

fn latin1(text: &DumpText) -> String {
    text.as_bytes().iter().copied().map(char::from).collect()
}

#[rstest]
#[case("pg14", 14)]
#[case("pg15", 14)]
#[case("pg16", 15)]
#[case("pg17", 16)]
#[case("pg18", 16)]
fn fingerprints_are_those_of_the_server(#[case] name: &str, #[case] minor: u8) {
    let archive = fixture(&format!("{name}.dump"));
    let expected = String::from_utf8(fixture(&format!("{name}.expected"))).unwrap();
    let report = inspect(&archive).unwrap();
    assert_eq!(in_expected_form(&report, utf8), expected);
    assert_eq!(report.header.version.minor, minor);
    assert_eq!(report.header.compression, Compression::None);
    assert_eq!(report.encoding(), Some("UTF8"));
    let server = report.header.server_version.as_ref().map(utf8).unwrap();
    assert!(server.starts_with(&name[2..]), "{server}");
    for piece in [1, 2, 3, 7, 100, 4096] {
        assert_eq!(inspect_in(&archive, piece).unwrap(), report, "{piece}");
    }
}

#[rstest]
#[case("pg14")]
#[case("pg15")]
#[case("pg16")]
#[case("pg17")]
#[case("pg18")]
fn summary_is_that_of_the_schema(#[case] name: &str) {
    let report = inspect(&fixture(&format!("{name}.dump"))).unwrap();
    let summary = report.summary();
    assert_eq!((summary.tables, summary.table_data), (9, 8));
    assert_eq!((summary.indexes, summary.key_constraints), (3, 3));
    assert_eq!((summary.foreign_keys, summary.triggers), (1, 1));
    assert_eq!((summary.sequences, summary.functions), (3, 3));
    assert_eq!((summary.views, summary.materialized_views), (1, 1));
    assert_eq!(summary.extensions, ["pgcrypto".into()].into());
    assert_eq!(summary.owners, ["postgres".into()].into());
    assert!(summary.schemas.contains(&"Odd \"schema\".".into()));
}

#[test]
fn entries_are_complete() {
    let report = inspect(&fixture("pg18.dump")).unwrap();
    let customer = report.table("app", "customer").unwrap();
    assert_eq!(customer.columns, ["id", "name", "note", "photo", "created"]);
    let entry = |desc: &str, tag: &str| {
        let mut entries = report.entries.iter();
        entries.find(|e| e.desc == desc && e.tag == tag).unwrap()
    };
    assert_eq!(entry("TABLE", "customer").relkind, Some('r'));
    assert_eq!(entry("TABLE", "event").relkind, Some('p'));
    assert_eq!(
        entry("TABLE", "customer").table_am.as_ref().unwrap(),
        "heap"
    );
    let data = entry("TABLE DATA", "invoice");
    assert_eq!(data.data_state, DataState::NotSet);
    assert_eq!(data.dependencies, [entry("TABLE", "invoice").dump_id]);
    assert_eq!(
        entry("TABLE DATA", "no_columns").copy_columns(),
        Some(vec![])
    );
    let odd = entry("TABLE DATA", "Таблица \".\\ with\nnewline");
    let columns = ["select", "a,b", "c\"d", "юни код"].map(DumpText::from);
    assert_eq!(odd.copy_columns().unwrap(), columns);
}

#[test]
fn names_need_not_be_utf8() {
    let report = inspect(&fixture("pg18-latin1.dump")).unwrap();
    let expected = String::from_utf8(fixture("pg18-latin1.expected")).unwrap();
    assert_eq!(in_expected_form(&report, latin1), expected);
    assert_eq!(report.encoding(), Some("LATIN1"));
    let table = &report.tables[0];
    assert_eq!(table.name.as_str(), None);
    assert_eq!(table.name.as_bytes(), b"gr\xf6\xdfe");
    assert_eq!(table.columns[0].as_bytes(), b"l\xe4nge");
}

#[rstest]
fn contents_are_written_as_they_were_read(
    #[values("pg14", "pg15", "pg16", "pg17", "pg18", "pg18-latin1")] name: &str,
) {
    let archive = fixture(&format!("{name}.dump"));
    let mut inspector = Inspector::new();
    inspector.push(&archive).unwrap();
    let contents = inspector.contents().unwrap();
    let written = encode_contents(&contents.header, &contents.entries);
    assert!(contents.entries.len() > 5);
    assert!(archive.starts_with(&written), "{name}");
    // And the contents are all of it: the first block of data comes next.
    assert!(matches!(archive[written.len()], 1 | 3), "{name}");
}
