use super::*;

const STRICT: Allowances = Allowances {
    owners: Owners::AsDumped,
    no_superuser: false,
};

fn entry(dump_id: u32, kind: &str, name: &str, text: &str) -> TocEntry {
    let mut entry = TocEntry::default();
    entry.dump_id = dump_id;
    entry.desc = kind.into();
    entry.tag = name.into();
    entry.namespace = Some("app".into());
    entry.owner = Some("me".into());
    entry.defn = Some(text.into());
    entry
}

/// Written by a `pg_dump` of this version, of a server of this version.
fn compared(
    (tool, server): (&str, &str),
    dumped: &[TocEntry],
    found: &[TocEntry],
    allowances: Allowances,
) -> Definitions {
    let versions = Versions {
        tool: "18.6".to_owned(),
        server: "18.6".to_owned(),
    };
    let found_by = Versions {
        tool: tool.to_owned(),
        server: server.to_owned(),
    };
    let entries = keyed(dumped.iter(), allowances);
    let expected = Expected {
        count: entries.values().map(Vec::len).sum(),
        entries,
        versions,
        allowances,
    };
    expected.compare_with(&found_by, found, &[])
}

const SAME: (&str, &str) = ("18.6", "18.6");

#[test]
fn entries_of_one_name_are_told_apart_by_their_text() {
    let text = |kind: &str| format!("CREATE OPERATOR =~= (LEFTARG = {kind});");
    let of = |kinds: &[&str]| -> Vec<TocEntry> {
        let entries = kinds.iter().enumerate();
        entries
            .map(|(id, kind)| entry(u32::try_from(id).unwrap(), "OPERATOR", "=~=", &text(kind)))
            .collect()
    };
    let dumped = of(&["int", "text"]);
    let report = compared(SAME, &dumped, &of(&["text", "int"]), STRICT);
    assert_eq!((report.equal, report.is_equal()), (2, true));
    let report = compared(SAME, &dumped, &of(&["text"]), STRICT);
    assert_eq!(report.missing, ["OPERATOR app.=~="]);
    let report = compared(SAME, &dumped, &of(&["text", "int", "int"]), STRICT);
    assert_eq!(report.extra, ["OPERATOR app.=~="]);
    let report = compared(SAME, &dumped, &of(&["text", "date"]), STRICT);
    assert_eq!(report.different, ["OPERATOR app.=~="]);
}

#[test]
fn other_releases_may_write_other_texts() {
    let dumped = [entry(1, "VIEW", "v", "CREATE VIEW v AS SELECT 1;")];
    let found = [entry(1, "VIEW", "v", "CREATE VIEW v AS SELECT 2;")];
    for (versions, different, unclear, texts_compared) in [
        (SAME, 1, 0, true),
        (("18.7", "18.6"), 0, 1, true),
        (("18.6", "18.7"), 0, 1, true),
        (("19.0", "18.6"), 0, 0, false),
        (("18.6", "17.1"), 0, 0, false),
    ] {
        let report = compared(versions, &dumped, &found, STRICT);
        let lengths = (report.different.len(), report.unclear.len());
        assert_eq!(lengths, (different, unclear), "{versions:?}");
        assert_eq!(report.texts_compared, texts_compared, "{versions:?}");
        let gone = compared(versions, &dumped, &[], STRICT);
        assert_eq!(gone.missing, ["VIEW app.v"], "{versions:?}");
    }
}

#[test]
fn between_majors_only_what_both_write_is_looked_for() {
    let dumped = [
        entry(1, "TABLE", "t", "CREATE TABLE t ();"),
        entry(2, "BLOB", "16400", ""),
    ];
    let found = [
        entry(1, "TABLE", "t", "CREATE TABLE t ( );"),
        entry(2, "BLOB METADATA", "16400", ""),
    ];
    let report = compared(("19.1", "19.1"), &dumped, &found, STRICT);
    assert_eq!((report.expected, report.equal), (1, 1));
    assert!(report.is_equal(), "{report:?}");
}

#[test]
fn owners_count_where_they_are_kept() {
    let dumped = [entry(1, "TABLE", "t", ""), entry(2, "INDEX", "i", "")];
    let mut found = dumped.clone();
    for entry in &mut found {
        entry.owner = Some("you".into());
    }
    let report = compared(SAME, &dumped, &found, STRICT);
    assert_eq!(report.different, ["TABLE app.t (owner)"]);
    let login = Allowances {
        owners: Owners::Login,
        ..STRICT
    };
    assert!(compared(SAME, &dumped, &found, login).is_equal());
}

#[test]
fn an_invalid_index_is_not_called_missing() {
    let index = TableName {
        schema: "app".to_owned(),
        name: "i".to_owned(),
    };
    let mut missing = vec!["INDEX app.i".to_owned(), "INDEX app.j".to_owned()];
    let named = name_invalid(&[index], &mut missing);
    assert_eq!(named, ["INDEX app.i (not valid)"]);
    assert_eq!(missing, ["INDEX app.j"]);
}
