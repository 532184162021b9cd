//! What `PgInspector` finds in archives that real servers' `pg_dump` wrote.
#![expect(
    clippy::unwrap_used,
    reason = "clippy takes helpers of tests for no tests"
)]

use std::path::Path;

use backup_core::body::{BodyStream, collect};
use backup_core::error::{ErrorKind, PortError};
use backup_core::facts::TableName;
use backup_core::inspector::{Inspector as _, RowFormat};
use backup_core::manifest::PartFormat;
use backup_pg_process::PgInspector;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use rstest::rstest;

fn archive(name: &str) -> Vec<u8> {
    let fixtures =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../backup-pg-archive/tests/fixtures");
    std::fs::read(fixtures.join(name)).unwrap()
}

/// In pieces, as a store would give it.
fn body(content: &[u8]) -> BodyStream {
    let pieces: Vec<_> = content
        .chunks(1000)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    stream::iter(pieces).boxed()
}

fn table(schema: &str, name: &str) -> TableName {
    TableName {
        schema: schema.to_owned(),
        name: name.to_owned(),
    }
}

async fn rows(name: &str, table: &TableName, format: RowFormat) -> Result<String, PortError> {
    let rows = PgInspector.rows(table, format, body(&archive(name)));
    let rows = collect(rows, 1 << 24).await?;
    Ok(String::from_utf8(rows.to_vec()).unwrap())
}

#[rstest]
#[case("pg14.dump")]
#[case("pg15.dump")]
#[case("pg16.dump")]
#[case("pg17.dump")]
#[case("pg18.dump")]
#[tokio::test]
async fn a_whole_archive_passes_and_is_reported(#[case] name: &str) {
    let content = archive(name);
    let passed = PgInspector.inspect(PartFormat::Custom, body(&content));
    assert_eq!(collect(passed.body, 1 << 24).await.unwrap(), content);
    let facts = passed.report.await.unwrap().facts;
    let invoices = table("app", "invoice");
    let invoice = facts.tables.iter().find(|facts| facts.table == invoices);
    assert_eq!(invoice.unwrap().fingerprint.rows, 40);
    // They are counted in the schema part, which this archive, having rows, is not.
    assert!(facts.objects.is_empty());
    assert!(!facts.sequences.is_empty());
}

#[tokio::test]
async fn every_cut_is_noticed() {
    let content = archive("pg17.dump");
    for length in (0..content.len()).step_by(997) {
        let cut = PgInspector.inspect(PartFormat::Custom, body(&content[..length]));
        let error = collect(cut.body, 1 << 24).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{length}");
        assert!(cut.report.await.is_err());
    }
}

#[tokio::test]
async fn rows_come_out_as_text_and_as_csv() {
    let invoices = table("app", "invoice");
    let text = rows("pg18.dump", &invoices, RowFormat::Copy).await.unwrap();
    assert_eq!(text.lines().count(), 40);
    let csv = rows("pg18.dump", &invoices, RowFormat::Csv).await.unwrap();
    assert_eq!(csv.lines().count(), 41);
    let more = rows("pg18.dump", &invoices, RowFormat::CsvRows)
        .await
        .unwrap();
    assert!(csv.ends_with(&more));
    assert_eq!(more.lines().count(), 40);
}

#[tokio::test]
async fn an_unknown_table_is_not_found() {
    let error = rows("pg18.dump", &table("app", "nothing"), RowFormat::Csv).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::NotFound);
}
