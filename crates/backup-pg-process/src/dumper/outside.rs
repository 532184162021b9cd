//! What the selected schemas need from outside of themselves. `pg_dump` leaves that out without a
//! word, and only a restore would find it missing.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::DumpFilter;

/// How many are named.
const NAMED: usize = 10;

/// What a filtered dump needs beside it.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Extensions that are dumped with it, because it needs them.
    pub(super) extensions: Vec<String>,
    /// What it needs and does not hold.
    pub(super) warnings: Vec<String>,
}

/// $1 and $2 are regular expressions for the names of schemas. Members of extensions are no objects
/// of their own; plpgsql is in every database. An array is its element.
const QUERY: &str = "
WITH schemas AS (
  SELECT oid, nspname,
    (cardinality($1::text[]) = 0 OR nspname ~ ANY ($1::text[])) AND NOT nspname ~ ANY ($2::text[])
      AS is_inside
  FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'),
members AS (
  SELECT d.classid, d.objid, e.extname, coalesce(s.is_inside OR s.nspname = 'public', true) AS is_here
  FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
  LEFT JOIN schemas s ON s.oid = e.extnamespace
  WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass AND e.oid >= 16384),
named AS (
  SELECT 'pg_class'::regclass::oid AS classid, oid AS objid, relnamespace AS schema, relname AS name,
    relkind IN ('i', 'I') AS is_index FROM pg_class
  UNION ALL SELECT 'pg_proc'::regclass, oid, pronamespace, proname, false FROM pg_proc
  UNION ALL SELECT 'pg_type'::regclass, oid, typnamespace, typname, false FROM pg_type),
objects AS (
  SELECT n.classid, n.objid, n.is_index, s.is_inside, format('%I.%I', s.nspname, n.name) AS name
  FROM named n JOIN schemas s ON s.oid = n.schema
  WHERE NOT EXISTS (SELECT FROM members m WHERE (m.classid, m.objid) = (n.classid, n.objid))),
relations AS (
  SELECT objid, name FROM objects WHERE is_inside AND classid = 'pg_class'::regclass),
needy AS (
  SELECT classid, objid, name FROM objects WHERE is_inside
  UNION ALL SELECT 'pg_attrdef'::regclass, a.oid, r.name
    FROM pg_attrdef a JOIN relations r ON r.objid = a.adrelid
  UNION ALL SELECT 'pg_constraint'::regclass, c.oid, r.name
    FROM pg_constraint c JOIN relations r ON r.objid = c.conrelid
  UNION ALL SELECT 'pg_rewrite'::regclass, w.oid, r.name
    FROM pg_rewrite w JOIN relations r ON r.objid = w.ev_class
  UNION ALL SELECT 'pg_trigger'::regclass, t.oid, r.name
    FROM pg_trigger t JOIN relations r ON r.objid = t.tgrelid WHERE NOT t.tgisinternal
  UNION ALL SELECT 'pg_policy'::regclass, p.oid, r.name
    FROM pg_policy p JOIN relations r ON r.objid = p.polrelid),
needed AS (
  SELECT n.name, d.refclassid, coalesce(nullif(t.typelem, 0), d.refobjid) AS refobjid
  FROM needy n JOIN pg_depend d ON (d.classid, d.objid) = (n.classid, n.objid)
  LEFT JOIN pg_type t
    ON d.refclassid = 'pg_type'::regclass AND t.oid = d.refobjid AND t.typcategory = 'A'
  WHERE d.deptype IN ('n', 'a'))
SELECT DISTINCT n.name, m.extname::text, coalesce(m.is_here, false), o.name
FROM needed n
LEFT JOIN members m ON (m.classid, m.objid) = (n.refclassid, n.refobjid)
LEFT JOIN objects o ON (o.classid, o.objid) = (n.refclassid, n.refobjid)
  AND NOT o.is_inside AND NOT o.is_index
WHERE m.extname IS NOT NULL OR o.name IS NOT NULL
ORDER BY 1, 2, 4";

/// Looks it up, where schemas alone are selected. What cannot be looked up is a warning.
pub(super) async fn needs(connection: &mut PgConnection, filter: &DumpFilter) -> Needs {
    let by_table = !filter.tables.is_empty() || !filter.exclude_tables.is_empty();
    if by_table || filter.is_empty() {
        return Needs::default();
    }
    let read = |patterns: &[String]| patterns.iter().map(|text| regex(text)).collect();
    let (include, exclude): (Option<Vec<_>>, Option<Vec<_>>) =
        (read(&filter.schemas), read(&filter.exclude_schemas));
    let (Some(include), Some(exclude)) = (include, exclude) else {
        return Needs::default();
    };
    // Without a selection, pg_dump takes all extensions by itself.
    let selects = !include.is_empty();
    let found = sqlx::query(QUERY)
        .bind(include)
        .bind(exclude)
        .fetch_all(connection)
        .await
        .and_then(|rows| rows.iter().map(need).collect::<Result<Vec<_>, _>>());
    match found {
        Ok(found) => sorted(found, selects),
        Err(error) => Needs {
            extensions: Vec::new(),
            warnings: vec![format!(
                "whether the schemas need anything outside of them is not known: {error}"
            )],
        },
    }
}

/// One thing that needs another.
struct Need {
    name: String,
    extension: Option<String>,
    /// Whether the extension can be made where the schemas are.
    is_here: bool,
    outside: Option<String>,
}

fn need(row: &sqlx::postgres::PgRow) -> Result<Need, sqlx::Error> {
    Ok(Need {
        name: row.try_get(0)?,
        extension: row.try_get(1)?,
        is_here: row.try_get(2)?,
        outside: row.try_get(3)?,
    })
}

fn sorted(found: Vec<Need>, selects: bool) -> Needs {
    let mut needs = Needs::default();
    let mut missing = Vec::new();
    for need in found {
        match (need.extension, need.outside) {
            (Some(_), _) if !selects => {}
            (Some(extension), _) if need.is_here => {
                if !needs.extensions.contains(&extension) {
                    needs.extensions.push(extension);
                }
            }
            (Some(extension), _) => {
                missing.push(format!("{} needs extension {extension}", need.name));
            }
            (None, Some(outside)) => missing.push(format!("{} needs {outside}", need.name)),
            (None, None) => {}
        }
    }
    missing.dedup();
    let more = missing.len().saturating_sub(NAMED);
    needs
        .warnings
        .extend(missing.into_iter().take(NAMED).map(|what| {
            format!(
                "{what}, which the filter leaves out: all together cannot be restored without it"
            )
        }));
    if more > 0 {
        needs
            .warnings
            .push(format!("and {more} more need what the filter leaves out"));
    }
    needs
}

/// A pattern for schemas as a regular expression for whole names, as `pg_dump` makes it. `None` for
/// one that names a database too.
/// <https://www.postgresql.org/docs/current/app-psql.html#APP-PSQL-PATTERNS>
fn regex(pattern: &str) -> Option<String> {
    let mut regex = String::from("^(");
    let mut quoted = false;
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => regex.push('"'),
            '"' => quoted = !quoted,
            '.' if !quoted => return None,
            '*' if !quoted => regex.push_str(".*"),
            '?' if !quoted => regex.push('.'),
            '$' => regex.push_str("\\$"),
            c if quoted && "|*+?()[]{}.^\\".contains(c) => {
                regex.push('\\');
                regex.push(c);
            }
            c if quoted => regex.push(c),
            c => regex.extend(c.to_lowercase()),
        }
    }
    regex.push_str(")$");
    Some(regex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_pg_dump() {
        for (pattern, expected) in [
            ("shop", Some("^(shop)$")),
            ("Shop*", Some("^(shop.*)$")),
            ("s?", Some("^(s.)$")),
            ("\"Shop*\"", Some("^(Shop\\*)$")),
            ("\"a.b\"\"c\"", Some("^(a\\.b\"c)$")),
            ("a$b", Some("^(a\\$b)$")),
            ("a|b", Some("^(a|b)$")),
            ("db.shop", None),
        ] {
            assert_eq!(regex(pattern).as_deref(), expected, "{pattern}");
        }
    }
}
