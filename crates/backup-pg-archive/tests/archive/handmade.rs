//! Hand-made archives: one case for each thing that can be right or wrong.

use backup_pg_archive::{
    ArchiveError, Compression, DataState, Inspector, LargeObjectHasher, Limits, LineHasher, Section,
};
use rstest::rstest;

use crate::build::{
    Archive, END, Entry, ROWS, data_block, int, large_objects, object_block, plain, table_data,
};
use crate::{inspect, inspect_in};

fn fingerprint_of(rows: &[u8]) -> backup_pg_archive::Fingerprint {
    let mut hasher = LineHasher::default();
    hasher.push(rows);
    hasher.finish()
}

#[rstest]
#[case(12)]
#[case(13)]
#[case(14)]
#[case(15)]
#[case(16)]
fn every_known_version_is_read(#[case] minor: u8) {
    let bytes = Archive::small(minor).bytes();
    let report = inspect(&bytes).unwrap();
    assert_eq!(report.header.version.minor, minor);
    assert_eq!(report.header.database.as_ref().unwrap(), "shop");
    assert_eq!(report.header.created.to_string(), "2026-06-04 03:02:01");
    assert_eq!(report.raw_bytes, bytes.len() as u64);

    let [table, data] = &report.entries[..] else {
        panic!("{:?}", report.entries)
    };
    assert_eq!((table.dump_id, table.section), (4, Section::PreData));
    assert_eq!(table.data_state, DataState::NoData);
    assert_eq!((data.table_oid, data.oid), (1259, 16385));
    assert_eq!(data.dependencies, [9, 10]);
    assert_eq!(data.data_state, DataState::NotSet);
    assert_eq!(data.drop_stmt, None);
    assert_eq!(data.table_am.is_some(), minor >= 14);
    assert_eq!(data.relkind, (minor >= 16).then_some('r'));
    assert_eq!(data.owner.as_ref().unwrap(), "owner");

    let found = report.table("app", "t").unwrap();
    assert_eq!(found.columns, ["a", "b"]);
    assert_eq!(found.fingerprint, fingerprint_of(ROWS));
}

#[test]
fn wide_integers_and_narrow_offsets_are_read() {
    let mut archive = Archive::small(14);
    archive.int_size = 8;
    archive.off_size = 4;
    archive.entries.pop();
    archive.blocks.clear();
    assert_eq!(inspect_in(&archive.bytes(), 1).unwrap().entries.len(), 1);

    archive.entries.push(table_data(5, "t"));
    let mut block = vec![1];
    int(5, 8, &mut block);
    int(17, 8, &mut block);
    block.extend([ROWS, END].concat());
    int(0, 8, &mut block);
    archive.blocks = block;
    let report = inspect(&archive.bytes()).unwrap();
    assert_eq!(report.tables[0].fingerprint, fingerprint_of(ROWS));
}

#[rstest]
#[case::row_by_row(&[b"1\tone\n", b"2\ttwo\n", END])]
#[case::all_at_once(&[&b"1\tone\n2\ttwo\n\\.\n\n\n"[..]])]
#[case::cut_in_a_row(&[&b"1\to"[..], b"ne\n2\ttwo", b"\n", END])]
#[case::cut_in_the_mark(&[ROWS, b"\\", b".\n", b"\n\n"])]
#[case::mark_with_a_row(&[&b"1\tone\n"[..], b"2\ttwo\n\\.\n", b"\n\n"])]
fn chunks_may_be_cut_anywhere(#[case] chunks: &[&[u8]]) {
    let archive = Archive::new(16, vec![table_data(5, "t")], data_block(5, chunks));
    let report = inspect(&archive.bytes()).unwrap();
    assert_eq!(report.tables[0].fingerprint, fingerprint_of(ROWS));
    assert_eq!(inspect_in(&archive.bytes(), 1).unwrap(), report);
}

#[test]
fn large_objects_are_hashed_with_their_oids() {
    let high = i64::from(3_000_000_000_u32.cast_signed());
    let first = object_block(7, &[(16_400, &[b"he", b"llo"]), (high, &[])]);
    let second = object_block(8, &[(16_401, &[b"\\.\n\n\n"])]);
    let entries = vec![large_objects(7), large_objects(8)];
    let archive = Archive::new(16, entries, [first, second].concat());

    let mut expected = LargeObjectHasher::default();
    expected.push(b"\\.\n\n\n");
    expected.end_object(16_401);
    expected.push(b"hello");
    expected.end_object(16_400);
    expected.end_object(3_000_000_000);
    let report = inspect(&archive.bytes()).unwrap();
    assert_eq!(report.large_objects, expected.finish());
    assert_eq!(report.large_objects.bytes, 10);
    assert_eq!(inspect_in(&archive.bytes(), 1).unwrap(), report);
}

#[test]
fn blocks_may_come_in_any_order() {
    let entries = vec![table_data(5, "a"), table_data(6, "b")];
    let blocks = [data_block(6, &[END]), data_block(5, &[ROWS, END])].concat();
    let report = inspect(&Archive::new(14, entries, blocks).bytes()).unwrap();
    let names: Vec<_> = report.tables.iter().map(|t| t.name.to_string()).collect();
    assert_eq!(names, ["b", "a"]);
}

#[test]
fn an_archive_without_data_may_be_compressed() {
    let mut archive = Archive::new(15, vec![plain(1, "TABLE")], vec![]);
    archive.compression = 3;
    let report = inspect(&archive.bytes()).unwrap();
    assert_eq!(report.header.compression, Compression::Zstd);
}

fn change(archive: fn(&mut Archive)) -> Result<(), ArchiveError> {
    let mut changed = Archive::small(16);
    archive(&mut changed);
    let whole = inspect(&changed.bytes()).map(drop);
    assert_eq!(inspect_in(&changed.bytes(), 1).map(drop), whole);
    whole
}

fn change_data(entry: fn(&mut Entry)) -> Result<(), ArchiveError> {
    let mut changed = Archive::small(16);
    entry(&mut changed.entries[1]);
    inspect(&changed.bytes()).map(drop)
}

#[rstest]
#[case::newer(|a: &mut Archive| a.minor = 17, "archive version 1.17-0 is not supported")]
#[case::older(|a: &mut Archive| a.minor = 11, "archive version 1.11-0 is not supported")]
#[case::tar(|a: &mut Archive| a.format = 3, "archive format 3 is not the custom format")]
#[case::int_size(|a: &mut Archive| a.int_size = 2, "integers of 2 and offsets of 8 bytes are not supported")]
#[case::off_size(|a: &mut Archive| a.off_size = 0, "integers of 4 and offsets of 0 bytes are not supported")]
#[case::gzip(|a: &mut Archive| a.compression = 1, "a data block cannot be unpacked with gzip")]
#[case::unknown(|a: &mut Archive| a.compression = 9, "data blocks are compressed with unknown method 9")]
#[case::no_blocks(|a: &mut Archive| a.blocks.clear(), "archive ends without the data of 1 entries, first t")]
#[case::second_block(|a: &mut Archive| a.blocks.extend(data_block(5, &[END])), "block of no entry, or its second")]
#[case::unknown_block(|a: &mut Archive| a.blocks = data_block(99, &[END]), "block of no entry, or its second")]
#[case::negative_block(|a: &mut Archive| a.blocks = data_block(-5, &[END]), "block of no entry, or its second")]
#[case::block_of_a_definition(|a: &mut Archive| a.blocks = data_block(4, &[END]), "block of no entry, or its second")]
#[case::objects_of_a_table(|a: &mut Archive| a.blocks = object_block(5, &[]), "block of the wrong type")]
#[case::trailing_zero(|a: &mut Archive| a.blocks.push(0), "archive ends early, inside its second table of contents")]
#[case::trailing_text(|a: &mut Archive| a.blocks.extend(b"more"), "no such type of block")]
#[case::trailing_one(|a: &mut Archive| a.blocks.push(1), "archive ends early, inside its table data")]
#[case::no_end_mark(|a: &mut Archive| a.blocks = data_block(5, &[ROWS]), "data of table t is not ended as COPY text is")]
#[case::empty_block(|a: &mut Archive| a.blocks = data_block(5, &[]), "data of table t is not ended as COPY text is")]
#[case::after_the_mark(|a: &mut Archive| a.blocks = data_block(5, &[END, ROWS]), "data of table t is not ended as COPY text is")]
#[case::same_id_twice(|a: &mut Archive| a.entries[0].id = 5, "two entries with one dump id")]
#[case::id_of_zero(|a: &mut Archive| a.entries[0].id = 0, "impossible dump id")]
fn wrong_archives_are_refused(#[case] archive: fn(&mut Archive), #[case] message: &str) {
    let error = change(archive).unwrap_err().to_string();
    assert!(error.ends_with(message), "{error}");
}

#[rstest]
#[case::section(|e: &mut Entry| e.section = 5, "impossible section")]
#[case::oid(|e: &mut Entry| e.oid = "-1", "impossible oid")]
#[case::dependency(|e: &mut Entry| e.dependencies = vec!["x"], "impossible dependency")]
#[case::data_state(|e: &mut Entry| e.data_state = 4, "impossible data state")]
#[case::no_data(|e: &mut Entry| e.data_state = 3, "entry contradicts itself on whether it has data")]
#[case::no_dumper(|e: &mut Entry| e.had_dumper = false, "entry contradicts itself on whether it has data")]
#[case::inserts(|e: &mut Entry| e.copy = None, "data of table t is not COPY text")]
#[case::odd_copy(|e: &mut Entry| e.copy = Some("COPY t FROM"), "data of table t is not COPY text")]
fn wrong_entries_are_refused(#[case] entry: fn(&mut Entry), #[case] message: &str) {
    let error = change_data(entry).unwrap_err().to_string();
    assert!(error.ends_with(message), "{error}");
}

#[test]
fn what_is_no_archive_is_refused() {
    for text in [
        &b"--\n-- PostgreSQL database dump\n--\n"[..],
        &[0; 64],
        b"\x1f\x8b\x08 gzip gzip",
    ] {
        assert_eq!(inspect(text), Err(ArchiveError::NotAnArchive));
    }
    let place = "header or table of contents";
    assert_eq!(inspect(b""), Err(ArchiveError::Truncated { place }));
}

#[test]
fn nothing_is_accepted_after_an_error() {
    let mut inspector = Inspector::new();
    assert_eq!(inspector.push(&[0; 64]), Err(ArchiveError::NotAnArchive));
    let archive = Archive::small(16).bytes();
    assert_eq!(inspector.push(&archive), Err(ArchiveError::Refused));
    assert_eq!(inspector.finish(), Err(ArchiveError::Refused));
}

#[rstest]
#[case(Limits { string_bytes: 10, ..Limits::default() }, "length of a string exceeds the limit of 10")]
#[case(Limits { entries: 1, ..Limits::default() }, "number of entries exceeds the limit of 1")]
#[case(Limits { contents_bytes: 99, ..Limits::default() }, "table of contents exceeds the limit of 99")]
fn limits_are_kept(#[case] limits: Limits, #[case] message: &str) {
    let mut inspector = Inspector::with_limits(limits);
    let error = inspector.push(&Archive::small(16).bytes()).unwrap_err();
    assert_eq!(error.to_string(), message);
}

#[test]
fn claimed_sizes_are_not_believed() {
    // As many entries as the limit allows, of which none comes.
    let mut bytes = Archive::new(16, vec![], vec![]).bytes();
    bytes.truncate(bytes.len() - 5);
    int(10_000_000, 4, &mut bytes);
    assert!(matches!(
        inspect(&bytes),
        Err(ArchiveError::Truncated { .. })
    ));
    // A chunk of 4 GiB.
    let mut archive = Archive::small(16);
    archive.blocks = vec![1, 0, 5, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, b'a'];
    let place = "table data";
    assert_eq!(
        inspect(&archive.bytes()),
        Err(ArchiveError::Truncated { place })
    );
}

#[test]
fn summary_counts_by_kind() {
    let kinds = [
        "TABLE",
        "TABLE",
        "INDEX",
        "FK CONSTRAINT",
        "TRIGGER",
        "SEQUENCE",
        "VIEW",
        "MATERIALIZED VIEW",
        "FUNCTION",
        "PROCEDURE",
        "EXTENSION",
        "SCHEMA",
        "CONSTRAINT",
    ];
    let entries = (1..).zip(kinds).map(|(id, kind)| plain(id, kind)).collect();
    let summary = inspect(&Archive::new(16, entries, vec![]).bytes())
        .unwrap()
        .summary();
    assert_eq!(
        (summary.tables, summary.indexes, summary.foreign_keys),
        (2, 1, 1)
    );
    assert_eq!(
        (summary.triggers, summary.sequences, summary.views),
        (1, 1, 1)
    );
    assert_eq!((summary.materialized_views, summary.functions), (1, 2));
    // Its definition makes no index: a not-null constraint of PostgreSQL 18.
    assert_eq!(summary.key_constraints, 0);
    assert!(summary.extensions.contains(&"thing".into()));
    assert!(summary.schemas.contains(&"thing".into()));
    assert!(summary.owners.contains(&"owner".into()));
}
