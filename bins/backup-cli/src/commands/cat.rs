//! `cat`: rows of one table, without a restore.

use backup_app::{AppError, Keys, PgInspector, Reading};
use backup_core::error::{Error as CoreError, ErrorKind, PortError};
use backup_core::facts::find_table;
use backup_core::inspector::{Inspector as _, RowFormat};
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
    let work = Box::pin(rows(&found, arguments));
    context.reading(&what, work).await?
}

async fn rows(found: &Found, arguments: &CatArgs) -> Outcome {
    let reader = found.engine.open(found.manifest.clone()).await?;
    let tables = reader.facts().tables().into_keys();
    let table = find_table(tables, &arguments.table).map_err(CoreError::from)?;
    let mut format = match arguments.format {
        RowFormatArg::Copy => RowFormat::Copy,
        RowFormatArg::Csv => RowFormat::Csv,
    };
    let mut out = tokio::io::stdout();
    for part in reader.facts().parts_of(&table) {
        let body = reader
            .open(&part)
            .await
            .map_err(|e| read_failure(&part.to_string(), e))?;
        let mut rows = PgInspector.rows(&table, format, body);
        while let Some(chunk) = rows.next().await {
            let chunk = chunk.map_err(|e| {
                let error = PortError::from_io(e, ErrorKind::Corrupt, "cannot be read");
                read_failure(&part.to_string(), error)
            })?;
            if let Err(error) = out.write_all(&chunk).await {
                return ended(error);
            }
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
