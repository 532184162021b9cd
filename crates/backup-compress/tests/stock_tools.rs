//! What this crate writes is read by stock `zstd` and `gzip`, and the other way round.

use std::io::{self, Seek, Write};
use std::process::{Command, Stdio};

use backup_compress::Compression;
use backup_core::body::{body_of, collect};
use backup_core::error::BoxError;
use bytes::Bytes;

const LIMIT: usize = 64 << 20;

fn content() -> Bytes {
    (0_u64..300_000)
        .flat_map(|n| format!("{n}\trow {}\t\\N\n", n * 7919 % 1000).into_bytes())
        .collect()
}

/// Runs `tool` with `input` as its standard input and returns what it writes.
fn run(tool: &str, arguments: &[&str], input: &[u8]) -> io::Result<Vec<u8>> {
    let mut file = tempfile::tempfile()?;
    file.write_all(input)?;
    file.rewind()?;
    let child = Command::new(tool)
        .args(arguments)
        .stdin(file)
        .stdout(Stdio::piped())
        .spawn()?;
    let finished = child.wait_with_output()?;
    assert!(
        finished.status.success(),
        "{tool} {arguments:?}: {}",
        finished.status
    );
    Ok(finished.stdout)
}

async fn both_ways(compression: &str, workers: u32, tool: &str) -> Result<(), BoxError> {
    let compression = Compression::parse(compression)?;
    let compressor = compression.compressor(workers);

    let ours = compressor.compress(body_of(content()), compression.level());
    let ours = collect(ours, LIMIT).await?;
    assert!(run(tool, &["-q", "-t"], &ours)?.is_empty());
    assert!(run(tool, &["-d", "-c"], &ours)? == content());

    let theirs = run(tool, &["-c"], &content())?;
    let twice = [&theirs[..], &theirs[..]].concat();
    let again = collect(compressor.decompress(body_of(twice)), LIMIT).await?;
    assert!(again == [&content()[..], &content()[..]].concat());
    Ok(())
}

#[tokio::test]
#[ignore = "needs the zstd command"]
async fn stock_zstd() {
    for (compression, workers) in [("zstd:-7", 0), ("zstd:3", 0), ("zstd:3", 2), ("zstd:19", 0)] {
        both_ways(compression, workers, "zstd").await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs the gzip command"]
async fn stock_gzip() {
    for compression in ["gzip:1", "gzip:6", "gzip:9"] {
        both_ways(compression, 0, "gzip").await.unwrap();
    }
}
