//! Large objects.

use backup_core::facts::{ContentHash, LargeObjectFacts};
use backup_pg_archive::LargeObjectHasher;
use sqlx::postgres::PgConnection;

use crate::Error;

/// Objects in one query, and bytes of each: at most 16 MiB in memory.
const OBJECTS: i64 = 64;
const CHUNK: i32 = 256 << 10;

/// Reads all of them, by content: `lo_get` gives holes as zeros, as `pg_dump` reads them.
///
/// <https://www.postgresql.org/docs/current/lo-funcs.html>
pub(super) async fn read(connection: &mut PgConnection) -> Result<LargeObjectFacts, Error> {
    let failed = || Error::query("read the large objects");
    let mut hasher = LargeObjectHasher::default();
    let mut after = -1_i64;
    loop {
        let objects: Vec<(i64, Vec<u8>)> = sqlx::query_as(
            "SELECT oid::int8, lo_get(oid, 0, $2) FROM pg_largeobject_metadata
             WHERE oid::int8 > $1 ORDER BY oid LIMIT $3",
        )
        .bind(after)
        .bind(CHUNK)
        .bind(OBJECTS)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed())?;
        let Some((last, _)) = objects.last() else {
            break;
        };
        after = *last;
        for (oid, first) in objects {
            hasher.push(&first);
            let mut chunk = first.len();
            let mut offset = i64::from(CHUNK);
            while i32::try_from(chunk).is_ok_and(|length| length == CHUNK) {
                let next: Vec<u8> = sqlx::query_scalar("SELECT lo_get($1::int8::oid, $2, $3)")
                    .bind(oid)
                    .bind(offset)
                    .bind(CHUNK)
                    .fetch_one(&mut *connection)
                    .await
                    .map_err(failed())?;
                hasher.push(&next);
                chunk = next.len();
                offset += i64::from(CHUNK);
            }
            hasher.end_object(u32::try_from(oid).unwrap_or_default());
        }
    }
    let found = hasher.finish();
    Ok(LargeObjectFacts {
        count: found.count,
        bytes: found.bytes,
        hash: ContentHash(found.hash),
    })
}
