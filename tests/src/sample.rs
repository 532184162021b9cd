//! SQL for databases that exercise what a dump has to carry.

/// SQL, for [`crate::pg::Cluster::psql`], that fills an empty database with at least one object of
/// nearly every kind that PostgreSQL `major` has, and with some thousands of rows whose values are
/// the same in every run.
///
/// It needs a superuser, and a superuser can restore it. The cluster gets four roles, whose names
/// start with `sample_`; running it again in another database of the same cluster is fine.
/// Subscriptions are left out, because a database that has one cannot be dropped.
#[must_use]
pub fn everything_sql(major: u16) -> String {
    let mut sql = String::from(include_str!("sample/roles.sql"));
    sql += include_str!("sample/types.sql");
    sql += include_str!("sample/tables.sql");
    sql += include_str!("sample/code.sql");
    sql += include_str!("sample/rows.sql");
    let additions = [
        (15, include_str!("sample/since_15.sql")),
        (16, include_str!("sample/since_16.sql")),
        (17, include_str!("sample/since_17.sql")),
        (18, include_str!("sample/since_18.sql")),
    ];
    for (_, addition) in additions.iter().filter(|(since, _)| major >= *since) {
        sql += addition;
    }
    sql
}

/// SQL that adds a table `schema.name` of about `megabytes` MiB: an integer key, a timestamp, and
/// text that compresses to about a third, as real rows do.
#[must_use]
pub fn bulk_sql(schema: &str, name: &str, megabytes: u32) -> String {
    let schema = crate::pg::quote_identifier(schema);
    let name = crate::pg::quote_identifier(name);
    // A row takes some 256 bytes.
    let rows = u64::from(megabytes) * 4096;
    format!(
        "CREATE SCHEMA IF NOT EXISTS {schema};
         CREATE TABLE {schema}.{name} (id bigint PRIMARY KEY, at timestamptz NOT NULL, note text);
         INSERT INTO {schema}.{name}
         SELECT i, timestamptz '2026-01-01 00:00:00Z' + i * interval '1 second',
                md5(i::text) || repeat(' lorem ipsum ' || i % 97, 6) || md5((i * 7)::text)
         FROM generate_series(1, {rows}) AS i;
         ANALYZE {schema}.{name};
         "
    )
}
