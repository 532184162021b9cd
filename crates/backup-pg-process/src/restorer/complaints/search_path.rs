//! Functions that work only under the `search_path` of those who usually call them.
//!
//! `pg_restore` sets an empty one, so that nothing is taken for something else. A function that
//! calls another without its schema then fails wherever it is called while a table is filled: in a
//! generated column, a constraint, an index, a materialized view. The server's words name a function
//! that everybody sees in the source, so they are explained.
//! <https://www.postgresql.org/docs/current/sql-createfunction.html#SQL-CREATEFUNCTION-SECURITY>

use super::{Complaint, Names};

/// What a function uses without saying where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unqualified {
    /// The function.
    pub(crate) function: String,
    /// Kind and name of what it uses.
    pub(crate) uses: String,
}

/// Kinds whose names the server puts into quotes.
const QUOTED: [&str; 5] = [
    "relation",
    "type",
    "collation",
    "text search configuration",
    "text search dictionary",
];

impl Complaint {
    /// The function that broke and what it did not find, if that is what happened.
    pub(crate) fn unqualified(&self, names: &Names) -> Option<Unqualified> {
        let (_, said) = self.message.split_once("ERROR:  ")?;
        let uses = missing(said)?;
        // The first frame is the innermost.
        let function = self.details.iter().find_map(|line| function_of(line))?;
        Some(Unqualified {
            function: names.function(function),
            uses,
        })
    }
}

/// What the server did not find, unless its schema was said.
fn missing(said: &str) -> Option<String> {
    if let Some(operator) = said.strip_prefix("operator does not exist: ") {
        let qualified = operator.contains("OPERATOR(");
        return (!qualified).then(|| format!("operator {operator}"));
    }
    let what = said.strip_suffix(" does not exist")?;
    for kind in ["function", "procedure"] {
        if let Some(signature) = what.strip_prefix(&format!("{kind} ")) {
            let (name, _) = signature.split_once('(')?;
            return (!name.contains('.')).then(|| what.to_owned());
        }
    }
    QUOTED.iter().find_map(|kind| {
        let name = what.strip_prefix(kind)?.strip_prefix(" \"")?;
        let name = name.strip_suffix('"')?;
        (!name.contains('.')).then(|| format!("{kind} {name}"))
    })
}

/// The function that a line of context is about.
fn function_of(line: &str) -> Option<&str> {
    let line = line.strip_prefix("CONTEXT:  ").unwrap_or(line);
    for start in ["SQL function \"", "compilation of PL/pgSQL function \""] {
        if let Some(rest) = line.strip_prefix(start) {
            return rest.split_once('"').map(|(name, _)| name);
        }
    }
    // A language's own name, whichever it is: `PL/pgSQL function app.f(text) line 1 at RETURN`.
    let (language, rest) = line.split_once(" function ")?;
    let ends = [") line ", ") during ", ") while "];
    let end = ends.iter().find_map(|end| rest.find(end))?;
    language.starts_with("PL/").then(|| &rest[..=end])
}

#[cfg(test)]
mod tests {
    use backup_pg_archive::TocEntry;
    use rstest::rstest;

    use super::*;
    use crate::restorer::complaints::{Complaints, Verdict};

    fn names() -> Names {
        let entries = ["fs(text)", "twice(text)", "twice(integer)"].map(|tag| {
            let mut entry = TocEntry::default();
            entry.desc = "FUNCTION".into();
            entry.namespace = Some("app".into());
            entry.tag = tag.into();
            entry
        });
        Names::of(&entries)
    }

    fn explained(error: &str) -> Option<(String, String)> {
        let text = format!(
            "pg_restore: error: {error}\npg_restore: warning: errors ignored on restore: 1\n"
        );
        let Verdict::Failed(complaint) = Complaints::parse(&text).verdict() else {
            panic!("not failed");
        };
        let found = complaint.unqualified(&names())?;
        Some((found.function, found.uses))
    }

    #[rstest]
    #[case::at_run_time(
        "COPY failed for table \"t\": ERROR:  function helper(text) does not exist\n\
         LINE 1: helper($1)\n        ^\n\
         HINT:  No function matches the given name and argument types.\n\
         QUERY:  helper($1)\n\
         CONTEXT:  PL/pgSQL function public.fp(text) line 1 at RETURN\n\
         COPY t, line 1: \"x\"",
        "public.fp(text)",
        "function helper(text)"
    )]
    #[case::inlined(
        "could not execute query: ERROR:  function helper(text) does not exist\n\
         CONTEXT:  SQL function \"fs\" during inlining\n\
         Command was: CREATE TABLE public.t (",
        "app.fs(text)",
        "function helper(text)"
    )]
    #[case::table(
        "COPY failed for table \"t\": ERROR:  relation \"look\" does not exist\n\
         QUERY:  (select t from look limit 1)\n\
         CONTEXT:  PL/pgSQL function public.ft(text) line 1 at RETURN",
        "public.ft(text)",
        "relation look"
    )]
    #[case::type_when_compiled(
        "COPY failed for table \"t\": ERROR:  type \"mood\" does not exist\n\
         CONTEXT:  compilation of PL/pgSQL function \"unknown\" near line 1",
        "unknown",
        "type mood"
    )]
    #[case::several_of_the_name(
        "COPY failed for table \"t\": ERROR:  operator does not exist: text === text\n\
         CONTEXT:  SQL function \"twice\" during startup",
        "twice",
        "operator text === text"
    )]
    fn broken_functions_are_named(#[case] error: &str, #[case] function: &str, #[case] uses: &str) {
        let found = explained(error).unwrap();
        assert_eq!((found.0.as_str(), found.1.as_str()), (function, uses));
    }

    #[rstest]
    #[case::qualified(
        "COPY failed for table \"t\": ERROR:  function app.gone(text) does not exist\n\
         CONTEXT:  PL/pgSQL function public.fp(text) line 1 at RETURN"
    )]
    #[case::no_function_involved(
        "could not execute query: ERROR:  function helper(text) does not exist\n\
         Command was: ALTER FUNCTION helper(text) OWNER TO me;"
    )]
    #[case::something_else(
        "COPY failed for table \"t\": ERROR:  division by zero\n\
         CONTEXT:  PL/pgSQL function public.fp(text) line 1 at RETURN"
    )]
    #[case::raised_by_itself(
        "COPY failed for table \"t\": ERROR:  customer 7 does not exist\n\
         CONTEXT:  PL/pgSQL function public.fp(text) line 1 at RAISE"
    )]
    fn nothing_else_is_explained_so(#[case] error: &str) {
        assert_eq!(explained(error), None);
    }
}
