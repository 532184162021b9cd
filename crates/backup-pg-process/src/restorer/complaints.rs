//! What `pg_restore` says on standard error, and which of it means that something is missing.
//!
//! `pg_restore` goes on after an error and exits with 1, whether a comment or a table's rows were
//! lost. Here each error is looked at by itself: a short list of harmless ones becomes warnings,
//! and everything else, known or not, is a failed restore. With `LC_ALL=C` the texts are fixed.

use std::fmt;

/// One error, as `pg_restore` reported it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// The entry that it was working on.
    pub(crate) entry: Option<Entry>,
    /// The first line of what went wrong, mostly the server's words.
    pub(crate) message: String,
    /// The lines after it, such as DETAIL and CONTEXT.
    details: Vec<String>,
    /// The first line of the statement.
    command: Option<String>,
}

/// An entry of the table of contents, as `pg_restore` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its dump id.
    pub(crate) dump_id: u32,
    /// Kind, name and owner.
    pub(crate) text: String,
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
        let said = |error: &Complaint| match &error.entry {
            Some(entry) => format!("{}: {error}", entry.text),
            None => error.to_string(),
        };
        // pg_restore's own settings are nobody's loss.
        let told = self.errors.iter().filter(|error| error.entry.is_some());
        Verdict::Harmless(told.map(said).chain(self.warnings).collect())
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
    /// Whether the restored database lacks nothing because of it.
    fn is_harmless(&self) -> bool {
        let Some(server) = self
            .message
            .strip_prefix("could not execute query: ERROR:  ")
        else {
            return false;
        };
        let Some(entry) = &self.entry else {
            // A newer pg_restore sets a timeout that an older server does not have.
            let command = self.command.as_deref().unwrap_or_default();
            return server
                .starts_with("unrecognized configuration parameter \"transaction_timeout\"")
                && command.starts_with("SET transaction_timeout = 0");
        };
        let kind = entry.text.as_str();
        (kind.starts_with("COMMENT EXTENSION ")
            && server.starts_with("must be owner of extension "))
            || (kind.starts_with("EXTENSION ")
                && server.starts_with("extension \"")
                && server.ends_with("\" already exists"))
            || (kind.starts_with("SCHEMA public ") && server == "schema \"public\" already exists")
            || ([
                "COMMENT SCHEMA public ",
                "ACL SCHEMA public ",
                "SCHEMA public ",
            ]
            .iter()
            .any(|start| kind.starts_with(start))
                && server == "must be owner of schema public")
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

    fn harmless(entry: &str, message: &str, command: &str) -> String {
        format!(
            "pg_restore: from TOC entry {entry}\n\
             pg_restore: error: could not execute query: ERROR:  {message}\n\
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
        let entry = error.entry.as_ref().unwrap();
        assert_eq!(entry.dump_id, 3012);
        assert_eq!(entry.text, "CONSTRAINT t t_pkey postgres");
        assert_eq!(
            error.to_string(),
            "could not execute query: ERROR:  could not create unique index \"t_pkey\"; \
             DETAIL:  Key (id)=(1) is duplicated."
        );
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
    }

    #[rstest]
    #[case::comment(
        "9; 0 0 COMMENT EXTENSION plpgsql ",
        "must be owner of extension plpgsql",
        1
    )]
    #[case::extension(
        "9; 3079 1 EXTENSION pg_trgm ",
        "extension \"pg_trgm\" already exists",
        1
    )]
    #[case::schema("9; 2615 2200 SCHEMA public pg", "schema \"public\" already exists", 1)]
    #[case::owner("9; 0 0 ACL SCHEMA public pg", "must be owner of schema public", 1)]
    fn harmless_errors_become_warnings(
        #[case] entry: &str,
        #[case] message: &str,
        #[case] warnings: usize,
    ) {
        let Verdict::Harmless(said) = ended(&harmless(entry, message, "…"), 1) else {
            panic!("not harmless");
        };
        assert_eq!(said.len(), warnings);
        assert!(said[0].contains(message));
    }

    #[test]
    fn a_setting_that_an_old_server_lacks_is_not_worth_a_word() {
        let text = "pg_restore: error: could not execute query: ERROR:  unrecognized \
                    configuration parameter \"transaction_timeout\"\n\
                    Command was: SET transaction_timeout = 0;\n";
        assert_eq!(ended(text, 1), Verdict::Harmless(Vec::new()));
    }

    #[rstest]
    #[case::other_comment("9; 0 0 COMMENT TABLE t pg", "must be owner of table t")]
    #[case::other_schema("9; 2615 1 SCHEMA app pg", "schema \"app\" already exists")]
    #[case::missing_extension("9; 3079 1 EXTENSION x ", "extension \"x\" is not available")]
    #[case::table("9; 1259 1 TABLE t pg", "relation \"t\" already exists")]
    #[case::unknown("9; 0 0 SOMETHING NEW pg", "whatever")]
    fn everything_else_fails(#[case] entry: &str, #[case] message: &str) {
        let failed = ended(&harmless(entry, message, "…"), 1);
        assert!(matches!(failed, Verdict::Failed(_)), "{failed:?}");
    }

    #[test]
    fn one_failure_among_harmless_ones_is_found() {
        let comment = harmless(
            "9; 0 0 COMMENT EXTENSION x ",
            "must be owner of extension x",
            "…",
        );
        let text = format!("{comment}{DUPLICATE}");
        assert!(matches!(
            Complaints::parse(&text).verdict(),
            Verdict::Failed(_)
        ));
    }

    #[test]
    fn missing_messages_are_no_reason_to_believe() {
        let comment = harmless(
            "9; 0 0 COMMENT EXTENSION x ",
            "must be owner of extension x",
            "…",
        );
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
