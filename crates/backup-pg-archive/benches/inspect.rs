//! How fast archives are inspected: synthesised, in pushes of 256 KiB as a pipe is read.

use std::hint::black_box;

use backup_pg_archive::{ArchiveWriter, CreatedAt, Inspector, TableDataSpec};
use criterion::{BenchmarkId, Criterion, Throughput};

const PUSH_BYTES: usize = 256 << 10;
const ARCHIVE_BYTES: usize = 64 << 20;

/// Rows of `shortest..=longest` bytes, each a chunk, as `pg_dump` writes them.
fn archive(shortest: usize, longest: usize) -> Vec<u8> {
    let spec = TableDataSpec {
        database: "bench",
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
        namespace: "public",
        table: "orders",
        table_oid: 16_385,
        owner: "bench",
        columns: &["id", "customer", "amount", "created", "note"],
    };
    let mut archive = Vec::with_capacity(ARCHIVE_BYTES + (1 << 20));
    let mut writer = ArchiveWriter::start(&spec, &mut archive).expect("a good spec");
    let mut id = 0_usize;
    while archive.len() < ARCHIVE_BYTES {
        id += 1;
        // Lengths vary without a pattern that a branch predictor could learn.
        let length = shortest + id.wrapping_mul(2_654_435_761) % (longest - shortest + 1);
        writer.rows(row(id, length).as_bytes(), &mut archive);
    }
    writer.end(&mut archive).expect("whole rows");
    archive
}

fn row(id: usize, length: usize) -> String {
    let mut row = format!(
        "{id}\t{}\t{}.{:02}\t",
        id * 7919 % 100_003,
        id % 9973,
        id % 100
    );
    if length > 60 {
        row += "2026-02-05 03:00:00.123456+00\t";
    }
    while row.len() + 1 < length {
        row += "some words of a note, then ";
    }
    row.truncate(length - 1);
    row + "\n"
}

fn inspect(archive: &[u8]) -> u128 {
    let mut inspector = Inspector::new();
    for piece in archive.chunks(PUSH_BYTES) {
        inspector.push(piece).expect("a good archive");
    }
    let report = inspector.finish().expect("a whole archive");
    report.tables[0].fingerprint.hash
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("inspect");
    for (shortest, longest) in [(30, 50), (100, 270), (270, 270), (1000, 3000)] {
        let archive = archive(shortest, longest);
        let rows = format!("rows of {shortest}-{longest} B");
        group.throughput(Throughput::Bytes(archive.len() as u64));
        group.bench_with_input(
            BenchmarkId::from_parameter(rows),
            &archive,
            |bencher, archive| {
                bencher.iter(|| inspect(black_box(archive)));
            },
        );
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    benches(&mut criterion);
    criterion.final_summary();
}
