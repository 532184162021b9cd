//! What `pg_restore` says on standard error, and which of it means that something is missing.
//!
//! `pg_restore` goes on after an error and exits with 1, whether a comment or a table's rows were
//! lost. Here each error is looked at by itself: a short list of harmless ones becomes warnings,
//! and everything else, known or not, is a failed restore. With `LC_ALL=C` the texts are fixed.
//!
//! Only `pg_restore` 14 and older say which entry they were working on, unless they are told to be
//! verbose, which would drown the errors of a large archive. All print the statement that failed, so
//! that is what decides and what the entry is found by.

mod search_path;

use std::collections::HashMap;
use std::fmt;

use backup_pg_archive::TocEntry;

use super::toc_list::describe;

/// One error, as `pg_restore` reported it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// The entry that it was working on, where `pg_restore` says so.
    entry: Option<Entry>,
    /// The first line of what went wrong, mostly the server's words.
    pub(crate) message: String,
    /// The lines after it, such as DETAIL and CONTEXT.
    details: Vec<String>,
    /// The first line of the statement.
    command: Option<String>,
}

/// How much of a statement goes into a message.
const COMMAND_CHARS: usize = 200;

/// An entry of the table of contents, as `pg_restore` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// Its dump id.
    dump_id: u32,
    /// Kind, name and owner.
    text: String,
}

/// The names of an archive's entries, to be found by what `pg_restore` says.
#[derive(Debug, Default)]
pub(crate) struct Names {
    by_id: HashMap<u32, String>,
    by_command: HashMap<String, String>,
    /// Tables by their bare names, and functions by theirs without arguments.
    tables: HashMap<String, Vec<String>>,
    functions: HashMap<String, Vec<String>>,
}

impl Names {
    /// Those of these entries.
    pub(crate) fn of(entries: &[TocEntry]) -> Self {
        let mut names = Self::default();
        for entry in entries {
            let name = describe(entry);
            if let Some(definition) = &entry.defn {
                let command = first_line(&definition.to_str_lossy()).to_owned();
                names.by_command.insert(command, name.clone());
            }
            names.by_id.insert(entry.dump_id, name);
            let tag = entry.tag.to_string();
            let qualified = match &entry.namespace {
                Some(namespace) => format!("{namespace}.{tag}"),
                None => tag.clone(),
            };
            match entry.desc.as_bytes() {
                b"TABLE" => names.tables.entry(tag).or_default().push(qualified),
                b"FUNCTION" | b"PROCEDURE" => {
                    let bare = tag.split('(').next().unwrap_or_default().to_owned();
                    names.functions.entry(bare).or_default().push(qualified);
                }
                _ => {}
            }
        }
        names
    }

    /// A table by its name in full, if only one is called so.
    fn table(&self, bare: &str) -> String {
        only(&self.tables, bare)
    }

    /// A function by its name in full, if only one is called so.
    fn function(&self, bare: &str) -> String {
        only(&self.functions, bare)
    }
}

fn only(names: &HashMap<String, Vec<String>>, bare: &str) -> String {
    match names.get(bare).map(Vec::as_slice) {
        Some([only]) => only.clone(),
        _ => bare.to_owned(),
    }
}

fn first_line(definition: &str) -> &str {
    definition.trim_start().lines().next().unwrap_or_default()
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let telling = |line: &&String| {
            ["DETAIL:", "HINT:", "CONTEXT:"]
                .iter()
                .any(|start| line.starts_with(start))
        };
        for line in self.details.iter().filter(telling).take(3) {
            write!(f, "; {line}")?;
        }
        if let Some(command) = &self.command {
            let shown: String = command.chars().take(COMMAND_CHARS).collect();
            write!(f, "; statement: {shown}")?;
        }
        Ok(())
    }
}

/// Everything that one run of `pg_restore` said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Complaints {
    /// The errors, in their order.
    pub(crate) errors: Vec<Complaint>,
    /// The warnings.
    pub(crate) warnings: Vec<String>,
    /// How many errors it says that it ignored; absent when it gave up.
    ignored: Option<usize>,
}

/// What an exit status of 1 means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing is missing. What was said, for the user.
    Harmless(Vec<String>),
    /// The first error that counts.
    Failed(Box<Complaint>),
    /// It cannot be told, because the messages are not complete.
    Unclear,
}

impl Complaints {
    /// Takes the text apart.
    pub(crate) fn parse(stderr: &str) -> Self {
        let mut found = Self::default();
        let mut entry = None;
        for line in stderr.lines() {
            match line.strip_prefix("pg_restore: ") {
                Some(said) => found.start(said, &mut entry),
                None => found.go_on(line),
            }
        }
        found
    }

    fn start(&mut self, said: &str, entry: &mut Option<Entry>) {
        if let Some(text) = said.strip_prefix("from TOC entry ") {
            *entry = Entry::parse(text);
        } else if let Some(message) = said.strip_prefix("error: ") {
            self.errors.push(Complaint {
                entry: entry.clone(),
                message: message.to_owned(),
                ..Complaint::default()
            });
        } else if let Some(warning) = said.strip_prefix("warning: ") {
            match warning.strip_prefix("errors ignored on restore: ") {
                Some(count) => self.ignored = count.trim().parse().ok(),
                None => self.warnings.push(warning.to_owned()),
            }
        } else if let Some(detail) = said
            .strip_prefix("detail: ")
            .or_else(|| said.strip_prefix("hint: "))
        {
            self.go_on(&format!("DETAIL:  {detail}"));
        }
    }

    fn go_on(&mut self, line: &str) {
        let Some(error) = self.errors.last_mut() else {
            return;
        };
        if let Some(command) = line.strip_prefix("Command was: ") {
            error.command = Some(command.to_owned());
        } else if error.command.is_none() && !line.trim().is_empty() {
            error.details.push(line.to_owned());
        }
    }

    /// What it means that `pg_restore` exited with 1 after saying this.
    pub(crate) fn verdict(self) -> Verdict {
        if let Some(error) = self.errors.iter().find(|error| !error.is_harmless()) {
            return Verdict::Failed(Box::new(error.clone()));
        }
        // A server may have said so much that the middle was not kept, and an error that ends
        // everything is not counted.
        if self.errors.is_empty() || self.ignored != Some(self.errors.len()) {
            return Verdict::Unclear;
        }
        // pg_restore's own settings are nobody's loss.
        let told = self
            .errors
            .iter()
            .filter(|error| !error.is_about_a_setting());
        Verdict::Harmless(told.map(ToString::to_string).chain(self.warnings).collect())
    }
}

impl Entry {
    /// From `3012; 2606 16390 CONSTRAINT t t_pkey owner`.
    fn parse(text: &str) -> Option<Self> {
        let (dump_id, rest) = text.split_once("; ")?;
        let mut words = rest.splitn(3, ' ');
        let (_, _, name) = (words.next()?, words.next()?, words.next()?);
        Some(Self {
            dump_id: dump_id.parse().ok()?,
            text: name.to_owned(),
        })
    }
}

impl Complaint {
    /// What could not be restored, as far as it can be told.
    pub(crate) fn entry_name(&self, names: &Names) -> Option<String> {
        if let Some(name) = self
            .command
            .as_deref()
            .and_then(|c| names.by_command.get(c.trim_end()))
        {
            return Some(name.clone());
        }
        // Data parts have dump ids of their own, and newer versions do not say which.
        let copied = self.message.strip_prefix("COPY failed for table \"");
        if let Some((table, _)) = copied.and_then(|rest| rest.split_once("\": ")) {
            return Some(format!("table {}", names.table(table)));
        }
        let entry = self.entry.as_ref()?;
        let kind = |text: &str| text.split(' ').next().map(str::to_owned);
        let known = names.by_id.get(&entry.dump_id);
        let known = known.filter(|name| kind(name) == kind(&entry.text));
        Some(known.unwrap_or(&entry.text).clone())
    }

    fn server_words(&self) -> Option<&str> {
        self.message
            .strip_prefix("could not execute query: ERROR:  ")
    }

    /// A newer `pg_restore` sets a timeout that an older server does not have.
    fn is_about_a_setting(&self) -> bool {
        let unknown = "unrecognized configuration parameter \"transaction_timeout\"";
        self.server_words() == Some(unknown)
            && self.command.as_deref() == Some("SET transaction_timeout = 0;")
    }

    /// Whether the restored database lacks nothing because of it.
    fn is_harmless(&self) -> bool {
        let (Some(server), Some(command)) = (self.server_words(), self.command.as_deref()) else {
            return false;
        };
        let on_public = [
            "ALTER SCHEMA public OWNER TO ",
            "COMMENT ON SCHEMA public IS ",
        ]
        .iter()
        .any(|start| command.starts_with(start))
            || ["GRANT ", "REVOKE "]
                .iter()
                .any(|start| command.starts_with(start))
                && command.contains(" ON SCHEMA public ");
        self.is_about_a_setting()
            || (command.starts_with("COMMENT ON EXTENSION ")
                && server.starts_with("must be owner of extension "))
            || (command.starts_with("CREATE EXTENSION ")
                && server.starts_with("extension \"")
                && server.ends_with("\" already exists"))
            || (command == "CREATE SCHEMA public;" && server == "schema \"public\" already exists")
            || (on_public && server == "must be owner of schema public")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const DUPLICATE: &str = "\
pg_restore: while PROCESSING TOC:
pg_restore: from TOC entry 3012; 2606 16390 CONSTRAINT t t_pkey postgres
pg_restore: error: could not execute query: ERROR:  could not create unique index \"t_pkey\"
DETAIL:  Key (id)=(1) is duplicated.
Command was: ALTER TABLE ONLY public.t
    ADD CONSTRAINT t_pkey PRIMARY KEY (id);


pg_restore: warning: errors ignored on restore: 1
";

    fn said(message: &str, command: &str) -> String {
        format!(
            "pg_restore: error: could not execute query: ERROR:  {message}\n\
             Command was: {command}\n\n\n"
        )
    }

    fn ended(text: &str, ignored: usize) -> Verdict {
        let text = format!("{text}pg_restore: warning: errors ignored on restore: {ignored}\n");
        Complaints::parse(&text).verdict()
    }

    #[test]
    fn an_error_names_the_entry_and_the_servers_words() {
        let Verdict::Failed(error) = Complaints::parse(DUPLICATE).verdict() else {
            panic!("not failed");
        };
        assert_eq!(
            error.entry_name(&Names::default()).unwrap(),
            "CONSTRAINT t t_pkey postgres"
        );
        assert_eq!(
            error.to_string(),
            "could not execute query: ERROR:  could not create unique index \"t_pkey\"; \
             DETAIL:  Key (id)=(1) is duplicated.; statement: ALTER TABLE ONLY public.t"
        );
    }

    #[test]
    fn an_entry_is_found_by_its_statement() {
        let mut index = TocEntry::default();
        index.dump_id = 7;
        index.desc = "INDEX".into();
        index.tag = "t_idx".into();
        index.namespace = Some("app".into());
        index.defn = Some("CREATE INDEX t_idx ON app.t USING btree (a);\n".into());
        let names = Names::of(&[index]);
        let text = said(
            "out of memory",
            "CREATE INDEX t_idx ON app.t USING btree (a);",
        );
        let Verdict::Failed(error) = ended(&text, 1) else {
            panic!("not failed");
        };
        assert_eq!(error.entry_name(&names).unwrap(), "INDEX app.t_idx");
        assert_eq!(error.entry_name(&Names::default()), None);
        let old = "pg_restore: from TOC entry 7; 1259 1 INDEX t_idx me\npg_restore: error: x\n";
        let Verdict::Failed(error) = ended(old, 1) else {
            panic!("not failed");
        };
        assert_eq!(error.entry_name(&names).unwrap(), "INDEX app.t_idx");
    }

    #[test]
    fn a_failed_copy_is_a_failure() {
        let text = "pg_restore: while PROCESSING TOC:\n\
             pg_restore: from TOC entry 3011; 0 16385 TABLE DATA t postgres\n\
             pg_restore: error: COPY failed for table \"t\": ERROR:  invalid input syntax\n\
             CONTEXT:  COPY t, line 1, column id\n";
        let Verdict::Failed(error) = ended(text, 1) else {
            panic!("not failed");
        };
        assert!(
            error
                .to_string()
                .ends_with("CONTEXT:  COPY t, line 1, column id")
        );
        let table = |dump_id: u32, schema: &str, name: &str| {
            let mut entry = TocEntry::default();
            entry.dump_id = dump_id;
            entry.desc = "TABLE".into();
            entry.namespace = Some(schema.into());
            entry.tag = name.into();
            entry
        };
        // The number is that of another archive.
        let names = Names::of(&[table(3011, "app", "other"), table(1, "app", "t")]);
        assert_eq!(error.entry_name(&names).unwrap(), "table app.t");
        let names = Names::of(&[table(1, "app", "t"), table(2, "shop", "t")]);
        assert_eq!(error.entry_name(&names).unwrap(), "table t");
    }

    #[rstest]
    #[case(
        "must be owner of extension plpgsql",
        "COMMENT ON EXTENSION plpgsql IS 'x';"
    )]
    #[case(
        "extension \"a\" already exists",
        "CREATE EXTENSION a WITH SCHEMA public;"
    )]
    #[case("schema \"public\" already exists", "CREATE SCHEMA public;")]
    #[case("must be owner of schema public", "GRANT ALL ON SCHEMA public TO me;")]
    #[case("must be owner of schema public", "ALTER SCHEMA public OWNER TO me;")]
    fn harmless_errors_become_warnings(#[case] message: &str, #[case] command: &str) {
        let Verdict::Harmless(warnings) = ended(&said(message, command), 1) else {
            panic!("not harmless");
        };
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains(message));
    }

    #[test]
    fn a_setting_that_an_old_server_lacks_is_not_worth_a_word() {
        let text = said(
            "unrecognized configuration parameter \"transaction_timeout\"",
            "SET transaction_timeout = 0;",
        );
        assert_eq!(ended(&text, 1), Verdict::Harmless(Vec::new()));
    }

    #[rstest]
    #[case("must be owner of table t", "COMMENT ON TABLE t IS 'x';")]
    #[case("must be owner of extension x", "ALTER TABLE public.t OWNER TO me;")]
    #[case("schema \"app\" already exists", "CREATE SCHEMA app;")]
    #[case("extension \"x\" is not available", "CREATE EXTENSION x;")]
    #[case("relation \"t\" already exists", "CREATE TABLE public.t (")]
    #[case("unrecognized configuration parameter \"x\"", "SET x = 0;")]
    #[case("whatever", "SOMETHING NEW;")]
    fn everything_else_fails(#[case] message: &str, #[case] command: &str) {
        let failed = ended(&said(message, command), 1);
        assert!(matches!(failed, Verdict::Failed(_)), "{failed:?}");
    }

    const COMMENT: (&str, &str) = (
        "must be owner of extension x",
        "COMMENT ON EXTENSION x IS 'x';",
    );

    #[test]
    fn one_failure_among_harmless_ones_is_found() {
        let text = format!("{}{DUPLICATE}", said(COMMENT.0, COMMENT.1));
        assert!(matches!(
            Complaints::parse(&text).verdict(),
            Verdict::Failed(_)
        ));
    }

    #[test]
    fn missing_messages_are_no_reason_to_believe() {
        let comment = said(COMMENT.0, COMMENT.1);
        assert_eq!(ended(&comment, 2), Verdict::Unclear);
        assert_eq!(Complaints::parse(&comment).verdict(), Verdict::Unclear);
        assert_eq!(Complaints::parse("").verdict(), Verdict::Unclear);
    }

    #[test]
    fn the_end_of_the_connection_is_a_failure() {
        let text = "pg_restore: error: connection to server at \"h\" failed: FATAL:  no\n";
        assert!(matches!(
            Complaints::parse(text).verdict(),
            Verdict::Failed(_)
        ));
    }
}
