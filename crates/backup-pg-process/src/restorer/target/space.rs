//! Whether there is room for a database, where that can be seen.

use std::path::{Path, PathBuf};

use backup_core::facts::Facts;
use sqlx::postgres::PgConnection;

use crate::restorer::error::RestoreError;
use crate::{ConnectionConfig, DatabaseDetails, Error};

/// What even an empty database takes, and the log of its making.
const AT_LEAST: u64 = 64 << 20;

/// Bytes that can be written below a directory, if it is there to be asked.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    Some(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// Where the new database will be, if the server runs on this machine and says it. Through a
/// forwarded port a server looks as if it were near; one in a container knows itself by another
/// address, so that most of those are told apart.
pub(crate) async fn directory(
    connection: &mut PgConnection,
    config: &ConnectionConfig,
    details: &DatabaseDetails,
) -> Result<Option<PathBuf>, Error> {
    let failed = || Error::query("ask where the server keeps its data");
    if !config.host.starts_with('/') {
        let near: Option<bool> = sqlx::query_scalar(
            "SELECT inet_server_addr() <<= '127.0.0.0/8' OR inet_server_addr() = '::1'",
        )
        .fetch_one(&mut *connection)
        .await
        .map_err(failed())?;
        if near != Some(true) {
            return Ok(None);
        }
    }
    // Not everybody is told where the data are; a location outside of them is no secret.
    let directory: Option<String> = sqlx::query_scalar(
        "SELECT coalesce(
           (SELECT nullif(pg_tablespace_location(oid), '') FROM pg_tablespace WHERE spcname = $1),
           (SELECT setting FROM pg_settings WHERE name = 'data_directory'))",
    )
    .bind(details.tablespace.as_deref())
    .fetch_one(connection)
    .await
    .map_err(failed())?;
    Ok(directory.map(PathBuf::from))
}

/// What the content takes on disk: rows are wider there than as text, and have indexes.
pub(crate) fn needed(content: &Facts) -> u64 {
    let tables = content.tables();
    let rows: u64 = tables.values().map(|facts| facts.fingerprint.bytes).sum();
    let objects = content.large_objects().map_or(0, |objects| objects.bytes);
    let raw = rows.saturating_add(objects);
    raw.saturating_add(raw / 2).saturating_add(AT_LEAST)
}

/// Refuses what does not fit.
pub(crate) fn check(directory: PathBuf, needed: u64, free: u64) -> Result<(), RestoreError> {
    if needed <= free {
        return Ok(());
    }
    Err(RestoreError::NoSpace {
        needed,
        free,
        directory,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_both_numbers() {
        let data = || PathBuf::from("/data");
        assert!(check(data(), 100, 100).is_ok());
        let error = check(data(), 3 << 30, 5 << 20).unwrap_err();
        assert_eq!(
            error.to_string(),
            "about 3072 MiB are needed and 5 MiB are free in /data"
        );
        assert!(free_bytes(Path::new("/")).is_some());
        assert_eq!(free_bytes(Path::new("/no/such/directory")), None);
    }
}
