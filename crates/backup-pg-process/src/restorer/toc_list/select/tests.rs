//! The entries and their dependencies are as `pg_dump` writes them.

use super::*;
use backup_core::error::{ErrorKind, PortError};

fn entry(dump_id: u32, desc: &str, tag: &str, dependencies: &[u32]) -> TocEntry {
    within("app", dump_id, desc, tag, dependencies)
}

fn within(schema: &str, dump_id: u32, desc: &str, tag: &str, dependencies: &[u32]) -> TocEntry {
    let mut entry = TocEntry::default();
    entry.dump_id = dump_id;
    entry.desc = desc.into();
    entry.tag = tag.into();
    entry.namespace = (!schema.is_empty()).then(|| schema.into());
    entry.dependencies = dependencies.to_vec();
    entry
}

fn defined(mut entry: TocEntry, definition: &str) -> TocEntry {
    entry.defn = Some(definition.into());
    entry
}

fn tables(names: &[&str]) -> Selection {
    Selection {
        tables: names.iter().map(|&name| name.to_owned()).collect(),
        ..Selection::default()
    }
}

fn schema(name: &str) -> Selection {
    Selection {
        schemas: vec![name.to_owned()],
        ..Selection::default()
    }
}

/// Dump ids, names with content, warnings.
fn selected(entries: &[TocEntry], selection: &Selection) -> (Vec<u32>, Vec<String>, Vec<String>) {
    let selected = select(entries, selection).unwrap();
    let mut ids: Vec<u32> = selected.dump_ids.into_iter().collect();
    ids.sort_unstable();
    let content = selected.content.iter().map(ToString::to_string).collect();
    (ids, content, selected.warnings)
}

const NONE: [&str; 0] = [];

#[test]
fn a_table_comes_with_what_belongs_to_it_and_what_it_needs() {
    let entries = [
        within("", 1, "SCHEMA", "app", &[]),
        within("", 2, "SCHEMA", "lib", &[]),
        within("", 3, "EXTENSION", "citext", &[]),
        within("lib", 10, "TYPE", "mood", &[2]),
        within("lib", 11, "FUNCTION", "touch()", &[2, 10]),
        within("lib", 12, "FUNCTION", "other()", &[2]),
        entry(13, "DOMAIN", "code", &[1]),
        entry(14, "CHECK CONSTRAINT", "code valid", &[13]),
        entry(20, "TABLE", "a", &[1, 10, 3, 13]),
        entry(21, "TABLE", "b", &[1]),
        entry(30, "INDEX", "a_idx", &[20, 20]),
        entry(31, "CONSTRAINT", "a a_pkey", &[20]),
        entry(32, "TRIGGER", "a touch", &[11, 20]),
        entry(33, "POLICY", "a own", &[20]),
        entry(34, "ROW SECURITY", "a", &[20]),
        entry(35, "STATISTICS", "a_stats", &[20]),
        entry(36, "RULE", "a no_delete", &[20]),
        entry(37, "INDEX", "b_idx", &[21]),
        entry(40, "COMMENT", "TABLE a", &[20]),
        entry(41, "ACL", "TABLE a", &[20]),
        entry(42, "SECURITY LABEL", "TABLE a", &[20]),
        entry(43, "COMMENT", "TRIGGER touch ON a", &[32]),
        entry(44, "ACL", "COLUMN a.id", &[20, 41]),
        entry(45, "COMMENT", "TABLE b", &[21]),
        within("", 46, "ACL", "SCHEMA app", &[1]),
        within("", 47, "COMMENT", "EXTENSION citext", &[3]),
        within("", 48, "PUBLICATION", "all", &[]),
        entry(49, "PUBLICATION TABLE", "all a", &[20, 48]),
        within("", 50, "EVENT TRIGGER", "watch", &[11]),
    ];
    let (ids, content, warnings) = selected(&entries, &tables(&["app.a"]));
    let expected = [
        1, 2, 3, 10, 11, 13, 14, 20, 30, 31, 32, 33, 34, 35, 36, 40, 41, 42, 43, 44, 46, 47,
    ];
    assert_eq!(ids, expected);
    assert_eq!(content, ["app.a"]);
    let whole = "is left out: it is for the whole database";
    assert_eq!(
        warnings,
        [
            format!("PUBLICATION TABLE app.all a {whole}"),
            format!("EVENT TRIGGER watch {whole}"),
        ]
    );
    assert_eq!(selected(&entries, &tables(&["a"])).0, expected, "bare name");
}

#[test]
fn what_is_in_no_schema_comes_with_what_it_joins() {
    let entries = [
        within("", 1, "SCHEMA", "app", &[]),
        within("", 2, "SCHEMA", "lib", &[]),
        within("", 3, "EXTENSION", "pg_trgm", &[1]),
        within("", 4, "EXTENSION", "citext", &[2]),
        entry(10, "TYPE", "eur", &[1]),
        entry(11, "FUNCTION", "cents(eur)", &[1, 10]),
        within("lib", 12, "TYPE", "usd", &[2]),
        within("", 13, "CAST", "CAST (app.eur AS integer)", &[10, 11]),
        within("", 14, "CAST", "CAST (app.eur AS lib.usd)", &[10, 12]),
        within("", 15, "SERVER", "there", &[]),
        within("", 16, "SERVER", "elsewhere", &[]),
        within("", 17, "USER MAPPING", "USER MAPPING a SERVER there", &[]),
        within(
            "",
            18,
            "USER MAPPING",
            "USER MAPPING a SERVER elsewhere",
            &[],
        ),
        entry(20, "FOREIGN TABLE", "far", &[1, 15]),
    ];
    let selection = Selection {
        schemas: vec!["app".to_owned()],
        ..Selection::default()
    };
    let (ids, _, warnings) = selected(&entries, &selection);
    assert_eq!(ids, [1, 3, 10, 11, 13, 15, 17, 20]);
    assert_eq!(warnings, NONE);
}

#[test]
fn serial_and_identity_sequences_come_with_their_table() {
    let identity = "ALTER TABLE app.b ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (";
    let entries = [
        entry(20, "TABLE", "a", &[]),
        entry(21, "TABLE", "b", &[]),
        // Its default is a sequence of its own and the one of `a`.
        entry(22, "TABLE", "c", &[33, 30]),
        defined(
            entry(30, "SEQUENCE", "a_id_seq", &[20]),
            "CREATE SEQUENCE app.a_id_seq",
        ),
        entry(31, "SEQUENCE OWNED BY", "a_id_seq", &[30]),
        defined(entry(32, "SEQUENCE", "b_id_seq", &[21]), identity),
        defined(
            entry(33, "SEQUENCE", "counter", &[]),
            "CREATE SEQUENCE app.counter",
        ),
        entry(34, "DEFAULT", "a id", &[30, 20, 20]),
    ];
    let (ids, content, warnings) = selected(&entries, &tables(&["app.a"]));
    assert_eq!(ids, [20, 30, 31, 34]);
    assert_eq!(content, ["app.a", "app.a_id_seq"]);
    assert_eq!(warnings, NONE);
    let (ids, content, _) = selected(&entries, &tables(&["app.b"]));
    assert_eq!(ids, [21, 32]);
    assert_eq!(content, ["app.b", "app.b_id_seq"]);
    let (ids, content, warnings) = selected(&entries, &tables(&["app.c"]));
    assert_eq!(ids, [22, 30, 33], "a sequence does not need who owns it");
    assert_eq!(content, ["app.a_id_seq", "app.c", "app.counter"]);
    assert_eq!(warnings, NONE);
    let (ids, _, warnings) = selected(&entries, &tables(&["app.b_id_seq"]));
    assert_eq!(ids, [0_u32; 0]);
    assert_eq!(
        warnings,
        ["SEQUENCE app.b_id_seq is left out: it needs TABLE app.b, which was not selected"]
    );
}

#[test]
fn a_foreign_key_to_another_table_is_left_out_and_named() {
    let entries = [
        entry(20, "TABLE", "customer", &[]),
        entry(21, "TABLE", "invoice", &[]),
        entry(30, "CONSTRAINT", "customer customer_pkey", &[20]),
        entry(
            31,
            "FK CONSTRAINT",
            "invoice invoice_customer_fkey",
            &[30, 21, 20],
        ),
        entry(
            32,
            "COMMENT",
            "CONSTRAINT invoice_customer_fkey ON invoice",
            &[31],
        ),
    ];
    let (ids, _, warnings) = selected(&entries, &tables(&["app.invoice"]));
    assert_eq!(ids, [21]);
    assert_eq!(
        warnings,
        [
            "FK CONSTRAINT app.invoice invoice_customer_fkey is left out: \
          it needs TABLE app.customer, which was not selected"
        ]
    );
    let (ids, _, warnings) = selected(&entries, &tables(&["app.customer"]));
    assert_eq!(ids, [20, 30]);
    assert_eq!(warnings, NONE, "it is not the key of this table");
    let (ids, _, warnings) = selected(&entries, &tables(&["invoice", "customer"]));
    assert_eq!(ids, [20, 21, 30, 31, 32]);
    assert_eq!(warnings, NONE);
}

#[test]
fn an_exclusion_constraint_comes_with_operator_classes() {
    let constraint =
        "ALTER TABLE ONLY app.booking\n    ADD CONSTRAINT x EXCLUDE USING gist (room WITH =);";
    let entries = [
        within("", 1, "EXTENSION", "btree_gist", &[]),
        within("lib", 2, "OPERATOR CLASS", "backwards", &[3]),
        within("lib", 3, "OPERATOR FAMILY", "backwards", &[]),
        entry(20, "TABLE", "booking", &[]),
        entry(21, "TABLE", "other", &[]),
        defined(entry(30, "CONSTRAINT", "booking x", &[20]), constraint),
    ];
    let (ids, _, warnings) = selected(&entries, &tables(&["app.booking"]));
    assert_eq!(ids, [1, 2, 3, 20, 30]);
    assert_eq!(warnings, NONE);
    assert_eq!(selected(&entries, &tables(&["app.other"])).0, [21]);
}

fn partitioned() -> [TocEntry; 12] {
    [
        entry(20, "TABLE", "p", &[]),
        entry(21, "TABLE", "p1", &[20]),
        entry(22, "TABLE", "p2", &[20]),
        entry(23, "TABLE", "p2a", &[22]),
        entry(24, "TABLE ATTACH", "p1", &[21, 20]),
        entry(25, "TABLE ATTACH", "p2", &[22, 20]),
        entry(26, "TABLE ATTACH", "p2a", &[23, 22]),
        entry(30, "CONSTRAINT", "p p_pkey", &[20]),
        entry(31, "CONSTRAINT", "p1 p1_pkey", &[21, 30]),
        entry(32, "INDEX ATTACH", "p1_pkey", &[30, 31, 21, 20]),
        entry(33, "INDEX", "p_note", &[20]),
        entry(34, "TABLE", "other", &[]),
    ]
}

#[test]
fn a_partitioned_table_brings_its_partitions() {
    let (ids, content, warnings) = selected(&partitioned(), &tables(&["app.p"]));
    assert_eq!(ids, [20, 21, 22, 23, 24, 25, 26, 30, 31, 32, 33]);
    assert_eq!(content, ["app.p", "app.p1", "app.p2", "app.p2a"]);
    assert_eq!(warnings, NONE);
}

#[test]
fn a_partition_brings_its_parents_definition_only() {
    let (ids, content, warnings) = selected(&partitioned(), &tables(&["app.p1"]));
    assert_eq!(ids, [20, 21, 24, 30, 31, 32]);
    assert_eq!(content, ["app.p1"]);
    assert_eq!(
        warnings,
        [
            "TABLE app.p was not selected, and only its definition is restored: \
          TABLE app.p1 needs it"
        ]
    );
    let (ids, content, warnings) = selected(&partitioned(), &tables(&["app.p2a"]));
    assert_eq!(ids, [20, 22, 23, 25, 26]);
    assert_eq!(content, ["app.p2a"]);
    assert_eq!(warnings.len(), 2);
}

#[test]
fn hash_partitions_are_restored_together() {
    let mut entries = partitioned();
    entries[0].defn = Some("CREATE TABLE app.p (id int) PARTITION BY HASH (id);".into());
    let (ids, content, warnings) = selected(&entries, &tables(&["app.p1"]));
    assert_eq!(ids, [20, 21, 22, 23, 24, 25, 26, 30, 31, 32, 33]);
    assert_eq!(content, ["app.p", "app.p1", "app.p2", "app.p2a"]);
    assert_eq!(
        warnings,
        ["TABLE app.p is restored with all its partitions: rows can move between them"]
    );
}

#[test]
fn heirs_come_with_their_parent_and_parents_without_rows() {
    let cat = "CREATE TABLE app.cat (\n    lives integer\n)\nINHERITS (app.animal);";
    let entries = [
        entry(20, "TABLE", "animal", &[]),
        defined(entry(21, "TABLE", "cat", &[20]), cat),
        // A column of the row type of `animal`.
        entry(22, "TABLE", "zoo", &[20]),
    ];
    let (ids, content, warnings) = selected(&entries, &tables(&["app.animal"]));
    assert_eq!(ids, [20, 21]);
    assert_eq!(content, ["app.animal", "app.cat"]);
    assert_eq!(warnings, NONE);
    let (ids, content, warnings) = selected(&entries, &tables(&["app.zoo"]));
    assert_eq!(ids, [20, 22]);
    assert_eq!(content, ["app.zoo"]);
    assert_eq!(warnings.len(), 1);
}

#[test]
fn of_a_schema_comes_everything_that_needs_no_other_table() {
    let entries = [
        within("", 1, "SCHEMA", "app", &[]),
        within("", 2, "SCHEMA", "other", &[]),
        within("", 3, "COMMENT", "SCHEMA app", &[1]),
        entry(10, "FUNCTION", "unused()", &[1]),
        entry(11, "FUNCTION", "reads()", &[1, 21]),
        entry(12, "AGGREGATE", "total(integer)", &[1]),
        entry(20, "TABLE", "a", &[1]),
        within("other", 21, "TABLE", "b", &[2]),
        entry(22, "VIEW", "own", &[20, 1]),
        entry(23, "VIEW", "foreign", &[20, 21, 1]),
        entry(24, "VIEW", "above", &[23, 1]),
        entry(25, "MATERIALIZED VIEW", "summary", &[22, 1]),
        // A view in two steps, by what its query needs.
        entry(26, "VIEW", "grouped", &[1]),
        entry(27, "RULE", "grouped _RETURN", &[26, 21]),
        entry(28, "COMMENT", "VIEW foreign", &[23]),
        entry(30, "INDEX", "summary_key", &[25]),
        entry(31, "MATERIALIZED VIEW DATA", "summary", &[25]),
        entry(32, "DEFAULT ACL", "DEFAULT PRIVILEGES FOR TABLES", &[1]),
        within("other", 33, "FK CONSTRAINT", "b b_fkey", &[20, 21]),
    ];
    let (ids, content, warnings) = selected(&entries, &schema("app"));
    assert_eq!(ids, [1, 3, 10, 12, 20, 22, 25, 30, 31, 32]);
    assert_eq!(content, ["app.a"]);
    let left_out = [
        "FUNCTION app.reads()",
        "VIEW app.foreign",
        "VIEW app.above",
        "VIEW app.grouped",
    ];
    for name in left_out {
        let expected =
            format!("{name} is left out: it needs TABLE other.b, which was not selected");
        assert!(warnings.contains(&expected), "{expected}: {warnings:?}");
    }
    assert_eq!(warnings.len(), left_out.len(), "{warnings:?}");
}

#[test]
fn the_schema_public_may_have_no_entry() {
    let entries = [
        within("public", 20, "TABLE", "a", &[]),
        within("", 21, "ACL", "SCHEMA public", &[5]),
        within("", 22, "ACL", "SCHEMA app", &[6]),
    ];
    assert_eq!(selected(&entries, &schema("public")).0, [20, 21]);
    assert_eq!(selected(&entries, &tables(&["public.a"])).0, [20, 21]);
}

#[test]
fn unknown_names_are_not_found() {
    let entries = [
        within("", 1, "SCHEMA", "empty", &[]),
        entry(20, "TABLE", "a", &[]),
        within("other", 21, "TABLE", "a", &[]),
    ];
    assert_eq!(selected(&entries, &schema("empty")).0, [1]);
    let selection = Selection {
        schemas: vec!["nope".to_owned(), "app".to_owned()],
        ..tables(&["app.b", "app.a"])
    };
    let error = PortError::from(select(&entries, &selection).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.to_string(), "schema nope, table app.b");
    let error = PortError::from(select(&entries, &tables(&["a"])).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}
