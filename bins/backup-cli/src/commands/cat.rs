//! `cat`: rows of one table, without a restore.

use backup_app::{AnyInspector, AppError, Keys, Reading, refuse_unless_database};
use backup_core::body::BodyStream;
use backup_core::error::{Error as CoreError, ErrorKind, PortError};
use backup_core::facts::find_table;
use backup_core::inspector::{Inspector as _, RowFormat};
use backup_core::manifest::PartName;
use backup_core::restorer::PartReader as _;
use backup_core::run_record::Operation;
use futures::StreamExt as _;
use tokio::io::AsyncWriteExt as _;

use super::{Context, Found, Outcome};
use crate::args::{CatArgs, RowFormatArg};
use crate::exit_code;

pub(super) async fn run(context: &Context, arguments: &CatArgs) -> Outcome {
    let found = context
        .find_quietly(
            &arguments.backup,
            arguments.source.as_deref(),
            Keys::Identities,
        )
        .await?;
    let what = Reading {
        engine: &found.engine,
        place: &found.place.name,
        backup: &found.manifest,
        operation: Operation::Other("cat".to_owned()),
    };
    match (&arguments.what.table, &arguments.what.part) {
        (Some(table), _) => {
            let work = Box::pin(rows(&found, table, arguments.format));
            context.reading(&what, work).await?
        }
        (None, Some(part)) => {
            let work = Box::pin(whole_part(&found, part));
            context.reading(&what, work).await?
        }
        (None, None) => Ok(exit_code::USAGE),
    }
}

/// A part as it was dumped. What is damaged shows at its end, by the exit code.
async fn whole_part(found: &Found, part: &str) -> Outcome {
    let part = PartName::new(part).map_err(|e| AppError::usage(e.to_string()))?;
    if found.manifest.part(&part).is_none() {
        let what = format!("part {part}");
        return Err(CoreError::NotFound { what }.into());
    }
    let reader = found.engine.open(found.manifest.clone()).await?;
    let body = reader.open(&part).await;
    let body = body.map_err(|e| read_failure(part.as_str(), e))?;
    let mut out = tokio::io::stdout();
    match print(body, &part, &mut out).await? {
        Ok(()) => match out.flush().await {
            Ok(()) => Ok(exit_code::DONE),
            Err(error) => ended(error),
        },
        Err(error) => ended(error),
    }
}

/// The inner error is one of our own output.
async fn print(
    mut body: BodyStream,
    part: &PartName,
    out: &mut tokio::io::Stdout,
) -> Result<std::io::Result<()>, AppError> {
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|e| {
            let error = PortError::from_io(e, ErrorKind::Corrupt, "cannot be read");
            read_failure(part.as_str(), error)
        })?;
        if let Err(error) = out.write_all(&chunk).await {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

async fn rows(found: &Found, table: &str, format: RowFormatArg) -> Outcome {
    refuse_unless_database(&found.manifest)?;
    let reader = found.engine.open(found.manifest.clone()).await?;
    let tables = reader.facts().tables().into_keys();
    let table = find_table(tables, table).map_err(CoreError::from)?;
    let mut format = match format {
        RowFormatArg::Copy => RowFormat::Copy,
        RowFormatArg::Csv => RowFormat::Csv,
    };
    let mut out = tokio::io::stdout();
    for part in reader.facts().parts_of(&table) {
        let body = reader
            .open(&part)
            .await
            .map_err(|e| read_failure(&part.to_string(), e))?;
        let rows = AnyInspector.rows(&table, format, body);
        if let Err(error) = print(rows, &part, &mut out).await? {
            return ended(error);
        }
        // A table in several pieces has one header line.
        if format == RowFormat::Csv {
            format = RowFormat::CsvRows;
        }
    }
    match out.flush().await {
        Ok(()) => Ok(exit_code::DONE),
        Err(error) => ended(error),
    }
}

/// A reader that has seen enough (`| head`) is no failure.
fn ended(source: std::io::Error) -> Outcome {
    if source.kind() == std::io::ErrorKind::BrokenPipe {
        return Ok(exit_code::DONE);
    }
    Err(AppError::File {
        operation: "write rows".to_owned(),
        source,
    })
}

fn read_failure(part: &str, error: PortError) -> AppError {
    let operation = format!("read part {part}");
    AppError::Engine(match error.kind() {
        ErrorKind::Corrupt | ErrorKind::NotFound => CoreError::Corrupt {
            what: operation,
            source: Some(error),
        },
        _ => CoreError::Store {
            operation,
            source: error,
        },
    })
}
