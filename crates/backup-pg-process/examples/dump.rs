//! Dumps one database into a directory, one file a part, and prints what each part holds.
//!
//! ```sh
//! cargo run --example dump -- HOST PORT USER DATABASE JOBS DIRECTORY [BIN_DIR]...
//! ```
//! Every `.dump` file can be loaded by stock `pg_restore`.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::error::Error;
use std::path::{Path, PathBuf};

use backup_core::dumper::{DumpRequest, DumpSession, Dumper, PartPlan};
use backup_pg_process::{ConnectionConfig, PgDumper, PgDumperConfig, ToolLocator};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, user, database, jobs, directory, bin_dirs @ ..] = args.as_slice() else {
        return Err("usage: dump HOST PORT USER DATABASE JOBS DIRECTORY [BIN_DIR]...".into());
    };
    let mut connection = ConnectionConfig::new(host, user);
    connection.port = port.parse()?;
    let tools = match bin_dirs {
        [] => ToolLocator::default(),
        dirs => ToolLocator::only_in(dirs.iter().map(PathBuf::from)),
    };
    let dumper = PgDumper::new(PgDumperConfig::new(connection, database, tools));
    let jobs = jobs.parse()?;
    let cancel = CancellationToken::new();
    let session = dumper.open(&DumpRequest { jobs }, &cancel).await?;
    let source = session.source();
    println!("{} by {}", source.server_version, source.tool_version);
    println!("{}", source.details);
    for warning in &source.warnings {
        println!("warning: {warning}");
    }
    tokio::fs::create_dir_all(directory).await?;
    let parts = session.parts().to_vec();
    futures::stream::iter(parts.iter().map(Ok::<_, Box<dyn Error>>))
        .try_for_each_concurrent(jobs, |part| {
            save(session.as_ref(), part, Path::new(directory), &cancel)
        })
        .await?;
    session.finish().await?;
    Ok(())
}

async fn save(
    session: &dyn DumpSession,
    part: &PartPlan,
    directory: &Path,
    cancel: &CancellationToken,
) -> Result<()> {
    let mut stream = session.part(part, cancel).await?;
    let path = directory.join(format!("{}{}", part.name, part.format.extension()));
    let mut file = tokio::fs::File::create(path).await?;
    let mut bytes = 0;
    while let Some(chunk) = stream.body.next().await {
        let chunk = chunk?;
        bytes += chunk.len();
        file.write_all(&chunk).await?;
    }
    file.flush().await?;
    let report = stream.report.await?;
    println!(
        "{}: {bytes} bytes, {} planned",
        part.name, part.estimated_bytes
    );
    println!("  {}", serde_json::to_string(&report.facts)?);
    for warning in report.warnings {
        println!("  warning: {warning}");
    }
    Ok(())
}
