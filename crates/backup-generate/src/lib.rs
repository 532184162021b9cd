//! Files by which others run backups: what they need to know goes in, text comes out.
//!
//! No secret is in here or comes out of here. What is generated says where secrets are, in the words of
//! whoever runs it: credentials, Secrets, Connections, variables.
//!
//! Names of sources are whatever somebody called them. Each format has its own quoting (`quote.rs`), and a
//! name that a format has no words for is left out with a note, never changed.

mod airflow;
mod calendar;
mod compose;
mod cron;
mod kubernetes;
mod makefile;
pub mod quote;
mod systemd;
mod teamcity;

use std::fmt::{self, Write as _};

pub use calendar::Calendar;

/// Who is to run the backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orchestrator {
    /// A crontab.
    Cron,
    /// Units and timers.
    Systemd,
    /// A script for a build step.
    Teamcity,
    /// A file of DAGs.
    Airflow,
    /// Manifests.
    Kubernetes,
    /// A Compose file.
    Compose,
    /// A Makefile.
    Makefile,
}

/// What is to be run, and where everything is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The command line program.
    pub program: String,
    /// The configuration file, if there is one.
    pub config: Option<String>,
    /// The image with both programs.
    pub image: String,
    /// What is backed up.
    pub sources: Vec<PlannedSource>,
    /// What is run for all sources.
    pub upkeep: Vec<PlannedUpkeep>,
    /// Where the configuration says that secrets are.
    pub secrets: Vec<Secret>,
    /// Destinations in directories: their names and paths.
    pub directories: Vec<(String, String)>,
    /// Whether the server may be reached from elsewhere: it has a certificate, or a proxy has.
    pub is_reachable: bool,
}

/// A source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlannedSource {
    /// Its name.
    pub name: String,
    /// When it is backed up by itself.
    pub when: Option<When>,
    /// How long a backup of it may take, in seconds.
    pub timeout_seconds: u64,
}

/// What is run for all sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedUpkeep {
    /// `drill`, `verify` or `prune`.
    pub operation: String,
    /// When.
    pub when: When,
}

/// A schedule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct When {
    /// As it was written.
    pub expression: String,
    /// Where its clock hangs.
    pub zone: String,
    /// Whether a run that was missed is made up for.
    pub catches_up: bool,
    /// By how much it may be later, in seconds.
    pub jitter_seconds: u64,
}

/// Where a secret is, and what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// What it opens.
    pub opens: Opens,
    /// Where it is.
    pub place: SecretPlace,
}

/// What a secret opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opens {
    /// A configured server: its role's password.
    Server(String),
    /// A destination: the public half of a key.
    DestinationId(String),
    /// A destination: the private half.
    DestinationKey(String),
    /// Backups that are stored, or a server as its superuser: restores want it.
    Restores,
    /// What only the server does.
    Serving,
    /// Anything else.
    Other,
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretPlace {
    /// A file.
    File(String),
    /// A variable.
    Variable(String),
    /// A credential of systemd.
    Credential(String),
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub text: String,
    /// Whether it is a program.
    pub is_program: bool,
}

impl Artifact {
    fn new(name: impl Into<String>, text: String) -> Self {
        Self {
            name: name.into(),
            text,
            is_program: false,
        }
    }
}

/// What was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Generated {
    /// The files.
    pub files: Vec<Artifact>,
    /// What could not be said, and what to look after.
    pub notes: Vec<String>,
}

/// Makes the files for one orchestrator.
#[must_use]
pub fn generate(orchestrator: Orchestrator, plan: &Plan) -> Generated {
    match orchestrator {
        Orchestrator::Cron => cron::crontab(plan),
        Orchestrator::Systemd => systemd::units(plan),
        Orchestrator::Teamcity => teamcity::script(plan),
        Orchestrator::Airflow => airflow::dags(plan),
        Orchestrator::Kubernetes => kubernetes::manifests(plan),
        Orchestrator::Compose => compose::file(plan),
        Orchestrator::Makefile => makefile::makefile(plan),
    }
}

/// What is to be known where a server runs that others cannot reach.
const UNREACHABLE: &str = "the server refuses to listen to others: say tls_cert and tls_key, or \
                           behind_tls_proxy = true, under [server_http]";

impl Plan {
    /// That the server would not be reached, if that is so.
    fn unreachable(&self) -> Option<String> {
        (!self.is_reachable).then(|| UNREACHABLE.to_owned())
    }

    /// The same with no more secrets than such a command wants: who takes backups need not be able to
    /// read them.
    fn wanted_by(&self, arguments: &[&str]) -> Self {
        let restores = arguments.first() == Some(&"drill");
        let is_wanted = |secret: &&Secret| match secret.opens {
            Opens::Serving => false,
            Opens::Restores => restores,
            _ => true,
        };
        let secrets = self.secrets.iter().filter(is_wanted).cloned();
        Self {
            secrets: secrets.collect(),
            ..self.clone()
        }
    }

    /// The program and the configuration file, as words of a command line.
    fn command(&self) -> Vec<&str> {
        let mut words = vec![self.program.as_str()];
        if let Some(config) = &self.config {
            words.extend(["--config", config]);
        }
        words
    }

    /// The same for a POSIX shell.
    fn shell_command(&self) -> String {
        let words: Vec<_> = self.command().into_iter().map(quote::shell).collect();
        words.join(" ")
    }

    /// The sources that run by themselves.
    fn scheduled(&self) -> impl Iterator<Item = (&PlannedSource, &When)> {
        let sources = self.sources.iter();
        sources.filter_map(|source| Some((source, source.when.as_ref()?)))
    }

    /// The names of variables that hold secrets, each once.
    fn variables(&self) -> Vec<(&str, &Opens)> {
        let mut found: Vec<(&str, &Opens)> = Vec::new();
        for secret in &self.secrets {
            if let SecretPlace::Variable(name) = &secret.place
                && !found.iter().any(|(known, _)| known == name)
            {
                found.push((name, &secret.opens));
            }
        }
        found
    }

    /// The files that hold secrets, each once.
    fn files(&self) -> Vec<&str> {
        let files = self
            .secrets
            .iter()
            .filter_map(|secret| match &secret.place {
                SecretPlace::File(path) => Some(path.as_str()),
                _ => None,
            });
        let mut files: Vec<_> = files.collect();
        files.sort_unstable();
        files.dedup();
        files
    }

    /// The credentials of systemd, each once.
    fn credentials(&self) -> Vec<&str> {
        let names = self
            .secrets
            .iter()
            .filter_map(|secret| match &secret.place {
                SecretPlace::Credential(name) => Some(name.as_str()),
                _ => None,
            });
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// What each operation that is run for all sources is called on the command line.
fn upkeep_arguments(operation: &str) -> &'static [&'static str] {
    match operation {
        "prune" => &["prune", "--yes"],
        "verify" => &["verify", "--sample", "2"],
        _ => &["drill", "--all"],
    }
}

/// Adds to a text, which takes whatever is written to it.
fn put(text: &mut String, more: fmt::Arguments<'_>) {
    let _ = text.write_fmt(more);
}

/// A template with a value for each `@NAME@` that is known. Values are not read again.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('@') {
        filled += before;
        let found = after.split_once('@').and_then(|(name, behind)| {
            let (_, value) = values.iter().find(|(known, _)| *known == name)?;
            Some((value, behind))
        });
        rest = if let Some((value, behind)) = found {
            filled += value;
            behind
        } else {
            filled.push('@');
            after
        };
    }
    filled + rest
}

/// What is said of a schedule that a format has no words for.
fn unsayable(what: &str, when: &When, format: &str) -> String {
    format!(
        "{what} is left out: its schedule {:?} cannot be said to {format}",
        when.expression
    )
}

/// A text within a comment of one line.
fn in_comment(text: &str) -> String {
    let shown = |c: char| {
        if c.is_control() || is_turning(c) {
            '?'
        } else {
            c
        }
    };
    text.chars().map(shown).collect()
}

/// Whether a character breaks or turns a line around.
fn is_turning(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{61c}')
}

#[cfg(test)]
mod tests;
