//! Reading the file and what overrides it.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::error::Kind;
use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Value};

use crate::environment::{Environment, names};
use crate::error::Error;
use crate::file::{Config, EncryptionMode, SourceConfig};
use crate::secret::read_private;

/// Where the file is looked for when none is named; later ones override earlier ones.
const SYSTEM_FILE: &str = "/etc/backup/backup.toml";
const USER_FILE: &str = "backup/backup.toml";

/// A shorter lease is lost to one slow answer, a longer one keeps a source for nobody.
const LEASE: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_hours(1);

/// How different a name may be to be suggested.
const MAX_DISTANCE: usize = 3;

impl Config {
    /// Loads `file`, or what `BACKUP_CONFIG` names, or the files at the usual places if they
    /// exist; then `BACKUP_SECTION__KEY` variables.
    ///
    /// # Errors
    /// When a named file does not exist, others can read it, or its content is wrong.
    pub fn load(file: Option<&Path>, environment: &Environment) -> Result<Self, Error> {
        let named = file.or_else(|| environment.get(names::CONFIG).map(Path::new));
        let mut figment = Figment::new();
        match named {
            Some(path) => figment = figment.merge(Toml::string(&read_private(path)?)),
            None => {
                for path in usual_files(environment) {
                    match read_private(&path) {
                        Ok(text) => figment = figment.merge(Toml::string(&text)),
                        Err(Error::Read { source, .. })
                            if source.kind() == std::io::ErrorKind::NotFound => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        finish(figment, environment)
    }

    /// Reads a configuration from text.
    ///
    /// # Errors
    /// When the content is wrong.
    pub fn from_toml(text: &str, environment: &Environment) -> Result<Self, Error> {
        finish(Figment::new().merge(Toml::string(text)), environment)
    }

    /// The source of that name.
    ///
    /// # Errors
    /// `Undefined`.
    pub fn source(&self, name: &str) -> Result<&SourceConfig, Error> {
        self.source.get(name).ok_or_else(|| Error::Undefined {
            section: "source",
            name: name.to_owned(),
        })
    }

    fn check(&self) -> Result<(), Error> {
        for source in self.source.values() {
            let server = source.server.iter().map(|name| ("server", name));
            let destinations = source.destinations.iter().map(|name| ("destination", name));
            for (section, name) in server.chain(destinations) {
                let known = match section {
                    "server" => self.server.contains_key(name),
                    _ => self.destination.contains_key(name),
                };
                if !known {
                    return Err(Error::Undefined {
                        section,
                        name: name.clone(),
                    });
                }
            }
        }
        self.check_retention()?;
        if let Some(name) = &self.drill.server
            && !self.server.contains_key(name)
        {
            return Err(Error::Undefined {
                section: "server",
                name: name.clone(),
            });
        }
        if self.encryption.mode == EncryptionMode::None && !self.encryption.recipients.is_empty() {
            return Err(Error::Invalid {
                message: "encryption has recipients and mode \"none\": one contradicts the other"
                    .to_owned(),
                suggestion: None,
            });
        }
        if !LEASE.contains(&self.defaults.lease) {
            return Err(Error::Invalid {
                message: "defaults.lease must be between 5s and 1h".to_owned(),
                suggestion: None,
            });
        }
        let jobs = std::iter::once(self.defaults.jobs)
            .chain(self.source.values().filter_map(|source| source.jobs));
        if jobs.into_iter().any(|jobs| jobs == 0) {
            return Err(Error::Invalid {
                message: "jobs must be at least 1".to_owned(),
                suggestion: None,
            });
        }
        Ok(())
    }
}

impl Config {
    /// Policies that make sense, under names that are there.
    fn check_retention(&self) -> Result<(), Error> {
        for (name, policy) in &self.retention {
            policy.check(&format!("retention.{name}"))?;
        }
        let sources = self.source.iter();
        let sources = sources.map(|(name, source)| (format!("source.{name}"), &source.retention));
        let destinations = self.destination.iter();
        let destinations =
            destinations.map(|(name, place)| (format!("destination.{name}"), &place.retention));
        let defaults = std::iter::once(("defaults".to_owned(), &self.defaults.retention));
        for (section, name) in sources.chain(destinations).chain(defaults) {
            if let Some(name) = name
                && !self.retention.contains_key(name)
            {
                return Err(Error::Invalid {
                    message: format!("retention {name:?} of {section} is not configured"),
                    suggestion: None,
                });
            }
        }
        Ok(())
    }
}

fn usual_files(environment: &Environment) -> Vec<PathBuf> {
    let user = match environment.get(names::XDG_CONFIG_HOME) {
        Some(directory) => Some(PathBuf::from(directory)),
        None => environment
            .get(names::HOME)
            .map(|home| Path::new(home).join(".config")),
    };
    let mut files = vec![PathBuf::from(SYSTEM_FILE)];
    files.extend(user.map(|directory| directory.join(USER_FILE)));
    files
}

fn finish(figment: Figment, environment: &Environment) -> Result<Config, Error> {
    let figment = figment.merge(Serialized::defaults(overrides(environment)));
    let config: Config = figment.extract().map_err(|e| invalid(&e))?;
    config.check()?;
    Ok(config)
}

/// `BACKUP_DEFAULTS__JOBS=2` as `{defaults: {jobs: 2}}`.
fn overrides(environment: &Environment) -> Dict {
    let mut root = Dict::new();
    for (name, value) in environment.iter() {
        let Some(path) = name.strip_prefix(names::PREFIX) else {
            continue;
        };
        if !path.contains("__") {
            continue;
        }
        let keys: Vec<String> = path.split("__").map(str::to_lowercase).collect();
        insert(&mut root, &keys, value);
    }
    root
}

fn insert(dict: &mut Dict, keys: &[String], text: &str) {
    match keys {
        [] => {}
        [last] => {
            let value = text
                .parse::<Value>()
                .unwrap_or_else(|_| Value::from(text.to_owned()));
            dict.insert(last.clone(), value);
        }
        [first, rest @ ..] => {
            let entry = dict
                .entry(first.clone())
                .or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, inner) = entry {
                insert(inner, rest, text);
            }
        }
    }
}

fn invalid(error: &figment::Error) -> Error {
    // figment's path ends with the unknown key itself.
    let known = match &error.kind {
        Kind::UnknownField(..) => error.path.len().saturating_sub(1),
        _ => error.path.len(),
    };
    let place = error.path[..known].join(".");
    let suggestion = match &error.kind {
        Kind::UnknownField(name, expected) => nearest(name, expected),
        _ => None,
    };
    let message = match &error.kind {
        Kind::UnknownField(name, _) if place.is_empty() => format!("unknown key {name:?}"),
        Kind::UnknownField(name, _) => format!("unknown key {name:?} in {place}"),
        kind if place.is_empty() => format!("configuration: {}", without_values(kind)),
        kind => format!("{place}: {}", without_values(kind)),
    };
    Error::Invalid {
        message,
        suggestion,
    }
}

/// What is wrong, without what stands there: in the wrong place, that may well be a secret.
fn without_values(kind: &Kind) -> String {
    match kind {
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => {
            format!("expected {expected}")
        }
        Kind::UnknownVariant(_, expected) => format!("expected one of {}", expected.join(", ")),
        // The parser shows the line of the file, between bars.
        Kind::Message(text) => {
            let is_source = |line: &&str| {
                let line = line
                    .trim_start()
                    .trim_start_matches(|c: char| c.is_ascii_digit());
                line.trim_start().starts_with('|')
            };
            let lines: Vec<_> = text.lines().filter(|line| !is_source(line)).collect();
            lines.join(": ")
        }
        kind => kind.to_string(),
    }
}

fn nearest(name: &str, known: &[&str]) -> Option<String> {
    known
        .iter()
        .map(|candidate| (strsim::levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= MAX_DISTANCE)
        .min()
        .map(|(_, candidate)| (*candidate).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(toml: &str, variables: &[(&str, &str)]) -> Result<Config, Error> {
        Config::from_toml(toml, &variables.iter().copied().collect())
    }

    #[test]
    fn variables_override_the_file_and_the_file_overrides_defaults() {
        let toml = "[defaults]\njobs = 2\ntimeout = '90m'";
        let config = load(
            toml,
            &[("BACKUP_DEFAULTS__JOBS", "7"), ("BACKUP_CONFIG", "x")],
        )
        .unwrap();
        assert_eq!(config.defaults.jobs, 7);
        assert_eq!(config.defaults.timeout, Duration::from_mins(90));
        assert_eq!(config.defaults.compression, "zstd:2");
    }

    #[test]
    fn mistakes_are_named_with_what_was_meant() {
        for (toml, message, hint) in [
            (
                "[defaults]\ncompresion = 'none'",
                "unknown key \"compresion\" in defaults",
                Some("did you mean \"compression\"?"),
            ),
            (
                "[defauts]\n",
                "unknown key \"defauts\"",
                Some("did you mean \"defaults\"?"),
            ),
            ("[defaults]\njobs = 0", "jobs must be at least 1", None),
            (
                "[defaults]\nlease = '4s'",
                "defaults.lease must be between 5s and 1h",
                None,
            ),
            (
                "[defaults]\nlease = '61m'",
                "defaults.lease must be between 5s and 1h",
                None,
            ),
            (
                "[encryption]\nmode = 'none'\nrecipients = ['age1x']",
                "encryption has recipients and mode \"none\": one contradicts the other",
                None,
            ),
            (
                "[drill]\nserver = 'x'",
                "server \"x\" is not configured",
                None,
            ),
            (
                "[drill]\nassertions = [{ source = 'a', query = 'b' }]",
                "unknown key \"query\" in drill.assertions.0",
                None,
            ),
            (
                "[source.a]\nserver = 'x'",
                "server \"x\" is not configured",
                None,
            ),
            (
                "[source.a]\ndestinations = ['x']",
                "destination \"x\" is not configured",
                None,
            ),
        ] {
            let error = load(toml, &[]).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert_eq!(error.hint().as_deref(), hint, "{toml}");
        }
    }

    #[test]
    fn a_wrong_type_names_its_place() {
        let error = load("[defaults]\njobs = 'many'", &[]).unwrap_err();
        assert!(error.to_string().starts_with("defaults.jobs: "), "{error}");
    }

    #[test]
    fn a_named_file_must_exist() {
        let missing = Config::load(
            Some(Path::new("/nonexistent.toml")),
            &Environment::default(),
        );
        assert!(matches!(missing, Err(Error::Read { .. })));
    }

    #[test]
    fn what_may_be_a_secret_is_not_repeated() {
        for (toml, says) in [
            (
                "[server.main]\npassword = 'hunter2'",
                "server.main.password",
            ),
            ("[server.main]\npassword = 41172", "server.main.password"),
            ("[server.main]\npassword = hunter2", "line 2"),
            ("[server.main]\npassword = 'it's hunter2'", "line 2"),
            (
                "[server.main]\npassword = { command = 'vault hunter2 41172' }",
                "server.main.password",
            ),
            (
                "[destination.s3]\nurl = 's3://b'\nsecret_access_key = 'hunter2'",
                "destination.s3.secret_access_key",
            ),
        ] {
            let error = load(toml, &[]).unwrap_err();
            let text = format!("{error:?} {}", backup_core::error::chain(&error));
            assert!(text.contains(says), "{text}");
            assert!(
                !text.contains("hunter2") && !text.contains("41172"),
                "{text}"
            );
        }
    }
}
