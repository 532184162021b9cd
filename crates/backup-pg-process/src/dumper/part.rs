//! Parts that `pg_dump` makes.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use backup_core::dumper::PartStream;
use backup_core::facts::TableName;
use backup_pg_archive::Contents;
use backup_process::ToolEnv;
use backup_process::child::{ToolCommand, stdout_body};
use tokio_util::sync::CancellationToken;

use super::DumpFilter;
use crate::error::{Error, judged};
use crate::inspector::{Archive, inspected, table_name};
use crate::{exact_pattern, quote_ident};

/// What every `pg_dump` of a session has in common.
#[derive(Debug, Clone)]
pub(super) struct PgDump {
    pub(super) program: PathBuf,
    pub(super) env: ToolEnv,
    pub(super) database: String,
    pub(super) snapshot: String,
    pub(super) lock_wait: Duration,
    pub(super) filter: DumpFilter,
    /// Extensions to dump although schemas are selected.
    pub(super) extensions: Vec<String>,
}

/// Names of a table as they are.
pub(super) type Names = (String, String);

/// What one `pg_dump` writes.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// Definitions. Both sections in one archive, so that its table of contents has the complete
    /// graph of dependencies.
    Schema,
    /// Rows of these tables.
    Tables(Vec<Names>),
    /// Rows of everything but `apart`, sequences and large objects.
    Rest {
        apart: Vec<Names>,
        /// Tables whose rows must be there, if that is known.
        expected: BTreeSet<TableName>,
    },
}

impl PgDump {
    /// Starts `pg_dump` for one part.
    pub(super) fn start(
        &self,
        content: Content,
        cancel: &CancellationToken,
    ) -> Result<PartStream, Error> {
        let command = ToolCommand::new(&self.program, self.env.clone()).args(self.args(&content));
        let (body, stderr) = stdout_body(&command, judged, cancel)?;
        let database = self.database.clone();
        let check = move |contents: &Contents| {
            check_database(contents, &database)?;
            check_tables(contents, &content)
        };
        Ok(inspected(body, Archive::new(check), Some(stderr)))
    }

    /// The database is named by the environment only: as an argument, a name such as
    /// `dbname=other` would be read as a connection string.
    /// <https://www.postgresql.org/docs/current/app-pgdump.html>
    ///
    /// `--enable-row-security` must never be here: with it rows are left out without a word.
    fn args(&self, content: &Content) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec![
            "--format=custom".into(),
            "--compress=0".into(),
            "--no-password".into(),
            format!("--snapshot={}", self.snapshot).into(),
            format!("--lock-wait-timeout={}", self.lock_wait.as_millis().max(1)).into(),
        ];
        // Where they are no part of the dump, a login that may not read them would be warned of them.
        if !matches!(content, Content::Schema) || self.filter.names_all() {
            args.push("--no-subscriptions".into());
        }
        match content {
            Content::Schema => {
                args.extend(["--section=pre-data".into(), "--section=post-data".into()]);
                args.extend(self.filter_args());
                let extensions = self.extensions.iter();
                args.extend(
                    extensions.map(|name| format!("--extension={}", quote_ident(name)).into()),
                );
            }
            Content::Tables(tables) => {
                args.push("--section=data".into());
                args.extend(tables.iter().map(|names| pattern_arg("--table", names)));
            }
            Content::Rest { apart, .. } => {
                args.push("--section=data".into());
                args.extend(self.filter_args());
                let excluded = apart.iter();
                args.extend(excluded.map(|names| pattern_arg("--exclude-table-data", names)));
            }
        }
        args
    }

    /// What is named and not there would otherwise be left out without a word, as long as anything
    /// else is there.
    fn filter_args(&self) -> Vec<OsString> {
        let filter = &self.filter;
        let strict = (!filter.is_empty()).then(|| OsString::from("--strict-names"));
        let patterns = [
            ("--schema", &filter.schemas),
            ("--exclude-schema", &filter.exclude_schemas),
            ("--table", &filter.tables),
            ("--exclude-table", &filter.exclude_tables),
        ]
        .into_iter()
        .flat_map(|(option, patterns)| {
            patterns
                .iter()
                .map(move |pattern| OsString::from(format!("{option}={pattern}")))
        });
        strict.into_iter().chain(patterns).collect()
    }
}

fn pattern_arg(option: &str, (schema, name): &Names) -> OsString {
    format!("{option}={}", exact_pattern(schema, name)).into()
}

/// The archive says which database it is of: the last defence against a name that means another.
pub(super) fn check_database(contents: &Contents, database: &str) -> Result<(), Error> {
    match &contents.header.database {
        Some(name) if name == database => Ok(()),
        other => Err(Error::corrupt(format!(
            "pg_dump dumped database {:?} instead of {database:?}",
            other.as_ref().map_or_else(String::new, ToString::to_string)
        ))),
    }
}

/// A pattern that matches too little loses rows, one that matches too much doubles them.
fn check_tables(contents: &Contents, content: &Content) -> Result<(), Error> {
    let found: BTreeSet<TableName> = contents
        .entries
        .iter()
        .filter(|entry| entry.desc == "TABLE DATA" && entry.had_dumper)
        .map(|entry| {
            let schema = entry
                .namespace
                .as_ref()
                .map_or(&b""[..], |name| name.as_bytes());
            table_name(schema, entry.tag.as_bytes())
        })
        .collect();
    let (missing, surplus) = match content {
        Content::Schema => (None, found.first().cloned()),
        Content::Tables(tables) => {
            let wanted = names_of(tables);
            (
                wanted.difference(&found).next().cloned(),
                found.difference(&wanted).next().cloned(),
            )
        }
        Content::Rest { apart, expected } => (
            expected.difference(&found).next().cloned(),
            found.intersection(&names_of(apart)).next().cloned(),
        ),
    };
    match (missing, surplus) {
        (Some(table), _) => Err(Error::corrupt(format!("pg_dump left out table {table}"))),
        (None, Some(table)) => Err(Error::corrupt(format!(
            "pg_dump dumped rows of table {table}, which belong elsewhere"
        ))),
        (None, None) => Ok(()),
    }
}

fn names_of(tables: &[Names]) -> BTreeSet<TableName> {
    tables
        .iter()
        .map(|(schema, name)| TableName {
            schema: schema.clone(),
            name: name.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pg_dump() -> PgDump {
        PgDump {
            program: "/bin/pg_dump".into(),
            env: ToolEnv::default(),
            database: "dbname=other".to_owned(),
            snapshot: "00000003-0000001B-1".to_owned(),
            lock_wait: Duration::from_mins(1),
            filter: DumpFilter::default(),
            extensions: Vec::new(),
        }
    }

    #[test]
    fn arguments_name_no_database_and_filter_no_rows() {
        let names = ("a\"b".to_owned(), "C.d".to_owned());
        for content in [
            Content::Schema,
            Content::Tables(vec![names.clone()]),
            Content::Rest {
                apart: vec![names],
                expected: BTreeSet::new(),
            },
        ] {
            let args = pg_dump().args(&content);
            let text = format!("{args:?}");
            assert!(!text.contains("other"), "{text}");
            assert!(!text.contains("enable-row-security"), "{text}");
            assert!(args.contains(&"--snapshot=00000003-0000001B-1".into()));
            assert!(args.contains(&"--lock-wait-timeout=60000".into()));
        }
    }

    #[test]
    fn what_is_named_must_be_there() {
        let mut pg_dump = pg_dump();
        let rest = || Content::Rest {
            apart: Vec::new(),
            expected: BTreeSet::new(),
        };
        let strict = OsString::from("--strict-names");
        assert!(!pg_dump.args(&Content::Schema).contains(&strict));
        pg_dump.filter.schemas = vec!["crew".to_owned()];
        for content in [Content::Schema, rest()] {
            let args = pg_dump.args(&content);
            assert!(args.contains(&strict), "{args:?}");
            assert!(args.contains(&"--schema=crew".into()), "{args:?}");
        }
    }

    #[test]
    fn subscriptions_stand_in_the_schema_of_a_whole_dump_alone() {
        let mut pg_dump = pg_dump();
        let rest = || Content::Rest {
            apart: Vec::new(),
            expected: BTreeSet::new(),
        };
        let without = OsString::from("--no-subscriptions");
        assert!(!pg_dump.args(&Content::Schema).contains(&without));
        assert!(pg_dump.args(&rest()).contains(&without));
        pg_dump.filter.exclude_schemas = vec!["old".to_owned()];
        assert!(!pg_dump.args(&Content::Schema).contains(&without));
        pg_dump.filter.schemas = vec!["crew".to_owned()];
        assert!(pg_dump.args(&Content::Schema).contains(&without));
    }

    #[test]
    fn tables_are_named_exactly() {
        let names = ("a\"b".to_owned(), "C.d*".to_owned());
        let args = pg_dump().args(&Content::Tables(vec![names]));
        assert_eq!(args.last().unwrap(), "--table=\"a\"\"b\".\"C.d*\"");
    }
}
