//! Whatever a backup holds, looked into by the adapter that knows its form.

use backup_core::body::BodyStream;
use backup_core::dumper::PartStream;
use backup_core::facts::TableName;
use backup_core::inspector::{Inspector, RowFormat};
use backup_core::manifest::PartFormat;
use backup_pg_process::PgInspector;
use backup_redis_process::RedisInspector;

/// Looks into parts of any kind of source.
#[derive(Debug, Clone, Copy, Default)]
pub struct AnyInspector;

impl Inspector for AnyInspector {
    fn inspect(&self, format: PartFormat, body: BodyStream) -> PartStream {
        match format {
            PartFormat::Rdb => RedisInspector.inspect(format, body),
            _ => PgInspector.inspect(format, body),
        }
    }

    /// Only backups of databases have rows that can be printed; the others say so of themselves
    /// before anything is read ([`Content`](backup_core::manifest::Content)).
    fn rows(&self, table: &TableName, format: RowFormat, body: BodyStream) -> BodyStream {
        PgInspector.rows(table, format, body)
    }
}
