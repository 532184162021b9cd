//! Looking into parts again, without the source they came from.

use std::fmt;

use crate::body::BodyStream;
use crate::dumper::PartStream;
use crate::facts::TableName;
use crate::manifest::PartFormat;

/// How `rows` come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RowFormat {
    /// Lines as `COPY … TO STDOUT` writes them.
    #[default]
    Copy,
    /// CSV with a header line.
    Csv,
    /// CSV without one: the further pieces of a table.
    CsvRows,
}

/// Reads what a dumper wrote.
pub trait Inspector: fmt::Debug + Send + Sync {
    /// Lets the raw bytes of a part pass and reports what they hold, exactly as the dumper
    /// reported when it wrote them. Malformed bytes end the body with a `Corrupt` error.
    fn inspect(&self, format: PartFormat, body: BodyStream) -> PartStream;

    /// The rows of one table out of a part.
    fn rows(&self, table: &TableName, format: RowFormat, body: BodyStream) -> BodyStream;
}
