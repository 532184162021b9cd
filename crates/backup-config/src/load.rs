//! Reading the file and what overrides it.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_core::databases::Pattern;
use figment::error::Kind;

use crate::defaults::DefaultsConfig;
use crate::environment::{Environment, names};
use crate::error::Error;
use crate::file::{Config, EncryptionConfig, EncryptionMode, ServerConfig, SourceConfig};
use crate::hooks::HooksConfig;
use crate::http::check_access;
use crate::origin::{Layers, Origin, Setting, dotted, origin};
use crate::sandbox::SANDBOX_TTL;
use crate::schedule::{CATCH_UP, JITTER, TOLERANCE};
use crate::secret::read_private;
use crate::telegram::TelegramBotConfig;

/// Where the file is looked for when none is named; later ones override earlier ones.
const SYSTEM_FILE: &str = "/etc/backup/backup.toml";
const USER_FILE: &str = "backup/backup.toml";

/// A shorter lease is lost to one slow answer, a longer one keeps a source for nobody.
const LEASE: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_hours(1);

/// How different a name may be to be suggested.
const MAX_DISTANCE: usize = 3;

/// Less than that ends every run before it has begun.
const MIN_TIME: Duration = Duration::from_secs(1);

impl Config {
    /// Loads `file`, or what `BACKUP_CONFIG` names, or the files at the usual places if they
    /// exist; then `BACKUP_SECTION__KEY` variables.
    ///
    /// # Errors
    /// When a named file does not exist, others can read it, or its content is wrong.
    pub fn load(file: Option<&Path>, environment: &Environment) -> Result<Self, Error> {
        finish(&layers(file, environment)?)
    }

    /// Every value that [`Config::load`] would give, with where it comes from.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn explain(file: Option<&Path>, environment: &Environment) -> Result<Vec<Setting>, Error> {
        let layers = layers(file, environment)?;
        let effective = toml::Value::try_from(finish(&layers)?);
        let effective = effective.map_err(|e| Error::Invalid {
            message: e.to_string(),
            suggestion: None,
        })?;
        Ok(layers.settings(effective))
    }

    /// The error for a value of [`Config::load`] that is well formed and cannot be used: it says
    /// where the value comes from.
    #[must_use]
    pub fn refuse(
        file: Option<&Path>,
        environment: &Environment,
        path: &[String],
        message: &str,
    ) -> Error {
        match layers(file, environment) {
            Ok(layers) => refused(&layers, path, message),
            Err(error) => error,
        }
    }

    /// Reads a configuration from text.
    ///
    /// # Errors
    /// When the content is wrong.
    pub fn from_toml(text: &str, environment: &Environment) -> Result<Self, Error> {
        finish(&Layers::default().text(text).variables(environment))
    }

    /// The source of that name.
    ///
    /// # Errors
    /// `Undefined`.
    pub fn source(&self, name: &str) -> Result<&SourceConfig, Error> {
        self.source
            .get(name)
            .ok_or_else(|| Error::undefined("source", name, self.source.keys()))
    }

    /// What is configured for a source: under its own name, or, of one of several databases, under
    /// that of the source which stands for them all.
    #[must_use]
    pub fn settings_of(&self, name: &str) -> Option<&SourceConfig> {
        self.source.get(name).or_else(|| {
            let (family, _) = name.split_once('/')?;
            let settings = self.source.get(family)?;
            settings.is_family().then_some(settings)
        })
    }

    fn check(&self) -> Result<(), Problem> {
        check_values(&["defaults"], &self.defaults)?;
        self.check_concurrency()?;
        check_hooks(&["hooks"], &self.hooks)?;
        for (name, server) in &self.server {
            check_url(name, server)?;
        }
        for (name, source) in &self.source {
            source
                .check_kind()
                .map_err(|(key, message)| Problem::new(&["source", name, key], message))?;
            check_databases(name, source)?;
            if let Some(server) = &source.server {
                self.check_server(&["source", name, "server"], server)?;
            }
            for place in &source.destinations {
                if !self.destination.contains_key(place) {
                    let message = format!("destination {place:?} is not configured");
                    return Err(Problem::new(&["source", name, "destinations"], message));
                }
            }
            let settings = self.resolved(source);
            check_values(&["source", name], &settings.values)?;
            self.check_tiers(name, source)?;
            check_hooks(&["source", name, "hooks"], &settings.hooks)?;
            if let Some(own) = &source.encryption {
                check_encryption(&["source", name, "encryption"], own.mode, &own.recipients)?;
            }
        }
        self.check_retention()?;
        self.check_schedules()?;
        let server = self.server_http.check();
        server.map_err(|(key, message)| Problem::new(&["server_http", key], message))?;
        check_access(&self.access).map_err(|(index, key, message)| {
            Problem::new(&["access", &index.to_string(), key], message)
        })?;
        self.check_telegram()?;
        if let Some(server) = &self.drill.server {
            self.check_server(&["drill", "server"], server)?;
        }
        self.check_sandbox()?;
        for (name, notify) in &self.notify {
            let checked = notify.check(name, |source| self.settings_of(source).is_some());
            checked.map_err(|(key, message)| Problem::new(&["notify", name, key], message))?;
        }
        let EncryptionConfig {
            mode, recipients, ..
        } = &self.encryption;
        check_encryption(&["encryption"], *mode, recipients)
    }

    /// Limits under which a backup can run at all.
    fn check_concurrency(&self) -> Result<(), Problem> {
        let mut limits = vec![(vec!["defaults"], Some(self.defaults.concurrent_backups))];
        for (name, server) in &self.server {
            limits.push((vec!["server", name], server.concurrent_backups));
        }
        match limits.into_iter().find(|(_, limit)| *limit == Some(0)) {
            Some((mut path, _)) => {
                path.push("concurrent_backups");
                Err(Problem::new(&path, "must be at least 1"))
            }
            None => Ok(()),
        }
    }

    /// A backup that no place takes would be none.
    fn check_tiers(&self, name: &str, source: &SourceConfig) -> Result<(), Problem> {
        let is_its =
            |place: &&String| source.destinations.is_empty() || source.destinations.contains(place);
        let mut places = self.destination.keys().filter(is_its).peekable();
        let is_tiered = |place: &String| !self.destination[place].tiers.is_empty();
        if places.peek().is_none() || !places.all(is_tiered) {
            return Ok(());
        }
        let message = "one without tiers is needed, which gets every backup";
        Err(Problem::new(&["source", name, "destinations"], message))
    }

    /// Times that a scheduler can keep.
    fn check_schedules(&self) -> Result<(), Problem> {
        let limits = [
            ("tolerance", TOLERANCE, "must be between 1m and 1d"),
            ("catch_up", CATCH_UP, "must be at most 31d"),
            ("jitter", JITTER, "must be at most 1d"),
        ];
        let defaults = &self.defaults;
        let defaults = [defaults.tolerance, defaults.catch_up, defaults.jitter];
        let mut said = vec![(vec!["defaults"], defaults.map(Some))];
        for (name, source) in &self.source {
            let times = [source.tolerance, source.catch_up, source.jitter];
            said.push((vec!["source", name], times));
        }
        for (path, times) in said {
            for (time, (key, allowed, message)) in times.iter().zip(&limits) {
                if time.is_some_and(|time| !allowed.contains(&time)) {
                    return Err(Problem::new(&[&path[..], &[key]].concat(), *message));
                }
            }
        }
        Ok(())
    }

    /// A server that code out of backups may run on, and limits that let something through.
    fn check_sandbox(&self) -> Result<(), Problem> {
        let sandbox = &self.sandbox;
        let wrong = if sandbox.per_person == 0 {
            ("per_person", "must be at least 1")
        } else if sandbox.total == 0 {
            ("total", "must be at least 1")
        } else if !SANDBOX_TTL.contains(&sandbox.ttl) {
            ("ttl", "must be between 5m and 31d")
        } else {
            let Some(name) = &sandbox.server else {
                return Ok(());
            };
            self.check_server(&["sandbox", "server"], name)?;
            match self.server.get(name) {
                Some(server) if server.production => (
                    "server",
                    "it is marked as production: name a server that nobody depends on",
                ),
                Some(server) if server.admin.is_none() => (
                    "server",
                    "that server has no admin, who makes the logins of sandboxes: say admin = \
                     { user = \"…\" } there",
                ),
                _ => return Ok(()),
            }
        };
        let (key, message) = wrong;
        Err(Problem::new(&["sandbox", key], message))
    }

    fn check_telegram(&self) -> Result<(), Problem> {
        let bot = self.telegram_bot.as_ref();
        let checked = bot.map_or(Ok(()), TelegramBotConfig::check);
        checked.map_err(|(index, key, message)| {
            Problem::new(&["telegram_bot", "allow", &index.to_string(), key], message)
        })
    }

    fn check_server(&self, path: &[&str], name: &str) -> Result<(), Problem> {
        if self.server.contains_key(name) {
            return Ok(());
        }
        let message = format!("server {name:?} is not configured");
        Err(Problem::new(path, message))
    }

    /// Policies that make sense, under names that are there.
    fn check_retention(&self) -> Result<(), Problem> {
        for (name, policy) in &self.retention {
            policy
                .check()
                .map_err(|message| Problem::new(&["retention", name], message))?;
        }
        let sources = self.source.iter();
        let sources = sources.map(|(name, source)| (["source", name], &source.retention));
        let destinations = self.destination.iter();
        let destinations =
            destinations.map(|(name, place)| (["destination", name], &place.retention));
        let defaults = self.defaults.retention.as_ref();
        let named = sources.chain(destinations);
        let named = named.filter_map(|(path, name)| Some((path.to_vec(), name.as_ref()?)));
        for (mut path, name) in named.chain(defaults.map(|name| (vec!["defaults"], name))) {
            if !self.retention.contains_key(name) {
                path.push("retention");
                let message = format!("retention {name:?} is not configured");
                return Err(Problem::new(&path, message));
            }
        }
        Ok(())
    }
}

/// Values of `[defaults]`, or of a source over them; the former are checked first, so that what is
/// wrong with the latter was said by the source.
fn check_values(section: &[&str], values: &DefaultsConfig) -> Result<(), Problem> {
    let at_least_one = "must be at least 1";
    let wrong = if values.jobs == 0 {
        (&["jobs"][..], at_least_one)
    } else if !LEASE.contains(&values.lease) {
        (&["lease"][..], "must be between 5s and 1h")
    } else if values.retry.attempts == 0 {
        (&["retry", "attempts"][..], at_least_one)
    } else if values.timeout < MIN_TIME {
        (&["timeout"][..], "must be at least 1s")
    } else if values.stall_timeout < MIN_TIME {
        (&["stall_timeout"][..], "must be at least 1s")
    } else if values.warn_used_percent > 100 {
        (&["warn_used_percent"][..], "must be at most 100")
    } else {
        return Ok(());
    };
    let (key, message) = wrong;
    Err(Problem::new(&[section, key].concat(), message))
}

/// The service is looked for where it is used: its file is another one on every machine.
fn check_url(name: &str, server: &ServerConfig) -> Result<(), Problem> {
    let alone = ServerConfig {
        service: None,
        ..server.clone()
    };
    let expanded = alone.expanded(&Environment::default());
    expanded
        .map(drop)
        .map_err(|wrong| Problem::new(&["server", name, wrong.key], wrong.message))
}

fn check_hooks(section: &[&str], hooks: &HooksConfig) -> Result<(), Problem> {
    hooks.check().map_err(|(key, message)| {
        let key: Vec<_> = key.iter().map(String::as_str).collect();
        Problem::new(&[section, &key].concat(), message)
    })
}

fn check_encryption(
    path: &[&str],
    mode: EncryptionMode,
    recipients: &[String],
) -> Result<(), Problem> {
    if mode == EncryptionMode::None && !recipients.is_empty() {
        let message = "it has recipients and mode \"none\": one contradicts the other";
        return Err(Problem::new(path, message));
    }
    Ok(())
}

/// Stores that are directories have names of 255 bytes: this leaves room for that of a database.
const MAX_FAMILY_NAME: usize = 50;

/// A name that can be told from `NAME/DATABASE`, and databases that can be meant.
fn check_databases(name: &str, source: &SourceConfig) -> Result<(), Problem> {
    if name.contains('/') {
        let message = "a slash is not allowed: NAME/DATABASE is one of several databases";
        return Err(Problem::new(&["source", name], message));
    }
    let problem = |key: &str, message: String| Err(Problem::new(&["source", name, key], message));
    if !source.is_family() {
        return match source.exclude.as_slice() {
            [] => Ok(()),
            _ => problem(
                "exclude",
                "there are no databases to leave it out of".to_owned(),
            ),
        };
    }
    if source.database.is_some() {
        return problem(
            "databases",
            "database and databases exclude each other".to_owned(),
        );
    }
    let written = |byte: u8| if byte.is_ascii_alphanumeric() { 1 } else { 3 };
    if name.bytes().map(written).sum::<usize>() > MAX_FAMILY_NAME {
        let message = "the name is too long to stand before those of databases";
        return Err(Problem::new(&["source", name], message));
    }
    for (key, patterns) in [
        ("databases", &source.databases),
        ("exclude", &source.exclude),
    ] {
        if patterns.iter().any(String::is_empty) {
            return problem(key, "a name or pattern is empty".to_owned());
        }
    }
    let exclude: Vec<_> = source
        .exclude
        .iter()
        .map(|text| Pattern::new(text))
        .collect();
    let named = source.databases.iter().map(|text| Pattern::new(text));
    let mut named = named.filter_map(|pattern| pattern.name().map(str::to_owned));
    match named.find(|name| exclude.iter().any(|pattern| pattern.matches(name))) {
        Some(both) => problem(
            "exclude",
            format!("it leaves out {both:?}, which databases names"),
        ),
        None => Ok(()),
    }
}

/// What is wrong with values that are well formed, each for itself.
struct Problem {
    path: Vec<String>,
    message: String,
}

impl Problem {
    fn new(path: &[&str], message: impl Into<String>) -> Self {
        Self {
            path: path.iter().map(|&key| key.to_owned()).collect(),
            message: message.into(),
        }
    }
}

/// The files, and the variables over them.
fn layers(file: Option<&Path>, environment: &Environment) -> Result<Layers, Error> {
    let named = file.or_else(|| environment.get(names::CONFIG).map(Path::new));
    let mut layers = Layers::default();
    match named {
        Some(path) => layers = layers.file(path, &read_private(path)?),
        None => {
            for path in usual_files(environment) {
                match read_private(&path) {
                    Ok(text) => layers = layers.file(&path, &text),
                    Err(Error::Read { source, .. })
                        if source.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(layers.variables(environment))
}

impl Config {
    /// The file that is read where none is named: what `BACKUP_CONFIG` says, or the first of those at the usual
    /// places that is there.
    #[must_use]
    pub fn file_in_use(environment: &Environment) -> Option<PathBuf> {
        let named = environment.get(names::CONFIG).map(PathBuf::from);
        named.or_else(|| {
            usual_files(environment)
                .into_iter()
                .find(|path| path.exists())
        })
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

fn finish(layers: &Layers) -> Result<Config, Error> {
    let config: Config = layers
        .figment()
        .extract()
        .map_err(|error| invalid(layers, &error))?;
    let checked = config.check();
    checked.map_err(|problem| refused(layers, &problem.path, &problem.message))?;
    Ok(config)
}

fn refused(layers: &Layers, path: &[String], message: &str) -> Error {
    // Of what nobody said, whoever said the table around it.
    let around = (1..=path.len())
        .rev()
        .map(|length| layers.origins(&path[..length]));
    let mut said = around.filter(|origins| !origins.is_empty());
    let origins = said.next().unwrap_or_default();
    Error::Invalid {
        message: format!("{}{}: {message}", prefix(&origins), dotted(path)),
        suggestion: None,
    }
}

/// The files and variables to look at.
fn prefix(origins: &BTreeSet<Origin>) -> String {
    let names: Vec<_> = origins.iter().map(Origin::to_string).collect();
    match names.as_slice() {
        [] => String::new(),
        names => format!("{}: ", names.join(" and ")),
    }
}

fn invalid(layers: &Layers, error: &figment::Error) -> Error {
    let mut origins = layers.origins(&error.path);
    if error.path.is_empty() || origins.is_empty() {
        origins.extend(error.metadata.as_ref().and_then(origin));
    }
    // figment's path ends with the unknown key itself.
    let known = match &error.kind {
        Kind::UnknownField(..) => error.path.len().saturating_sub(1),
        _ => error.path.len(),
    };
    let place = dotted(&error.path[..known]);
    let suggestion = match &error.kind {
        Kind::UnknownField(name, expected) => nearest(name, expected),
        _ => None,
    };
    let message = match &error.kind {
        Kind::UnknownField(name, expected) => {
            let place = match place.as_str() {
                "" => String::new(),
                place => format!(" in {place}"),
            };
            let allowed = match &suggestion {
                None => format!("; expected one of {}", expected.join(", ")),
                Some(_) => String::new(),
            };
            format!("unknown key {name:?}{place}{allowed}")
        }
        kind if place.is_empty() => without_values(kind),
        kind => format!("{place}: {}", without_values(kind)),
    };
    Error::Invalid {
        message: format!("{}{message}", prefix(&origins)),
        suggestion,
    }
}

/// What is wrong, without what stands there: in the wrong place, that may well be a secret.
fn without_values(kind: &Kind) -> String {
    match kind {
        Kind::InvalidType(_, expected)
        | Kind::InvalidValue(_, expected)
        | Kind::InvalidLength(_, expected) => format!("expected {}", in_words(expected)),
        Kind::ISizeOutOfRange(_) | Kind::USizeOutOfRange(_) => "the number is too large".to_owned(),
        Kind::UnknownVariant(_, expected) => format!("expected one of {}", expected.join(", ")),
        Kind::MissingField(name) => format!("{name} is missing"),
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

/// What the parser expects, as people who write TOML call it.
fn in_words(expected: &str) -> &str {
    match expected {
        "a boolean" => "true or false",
        "a duration" => "a duration such as \"90s\", \"6h\" or \"30d\"",
        "a sequence" => "an array",
        "path string" => "a path in quotes",
        "a string" => "text in quotes",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "usize" | "a nonzero usize" => "a whole number from 1",
        "struct Said" => crate::secret::FORMS,
        text if text.starts_with("struct ") || text == "a map" => "a table",
        text => text,
    }
}

/// In a short name, one letter is much.
fn nearest(name: &str, known: &[&str]) -> Option<String> {
    let allowed = (name.chars().count() / 3).clamp(1, MAX_DISTANCE);
    known
        .iter()
        .map(|candidate| (strsim::osa_distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
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
    fn sandboxes_need_somebody_who_makes_their_logins() {
        let wrong = load("[sandbox]\nserver = 'x'\n[server.x]", &[]).unwrap_err();
        let message = "sandbox.server: that server has no admin, who makes the logins";
        assert!(wrong.to_string().starts_with(message), "{wrong}");
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
            (
                "[defaults]\njobs = 0",
                "defaults.jobs: must be at least 1",
                None,
            ),
            (
                "[sandbox]\nttl = '1m'",
                "sandbox.ttl: must be between 5m and 31d",
                None,
            ),
            (
                "[sandbox]\nserver = 'x'\n[server.x]\nproduction = true",
                "sandbox.server: it is marked as production: name a server that nobody depends on",
                None,
            ),
            (
                "[defaults]\nlease = '4s'",
                "defaults.lease: must be between 5s and 1h",
                None,
            ),
            (
                "[defaults]\nlease = '61m'",
                "defaults.lease: must be between 5s and 1h",
                None,
            ),
            (
                "[encryption]\nmode = 'none'\nrecipients = ['age1x']",
                "encryption: it has recipients and mode \"none\": one contradicts the other",
                None,
            ),
            (
                "[drill]\nserver = 'x'",
                "drill.server: server \"x\" is not configured",
                None,
            ),
            (
                "[drill]\nassertions = [{ source = 'a', query = 'b' }]",
                "unknown key \"query\" in drill.assertions.0; expected one of source, sql",
                None,
            ),
            (
                "[source.a]\nserver = 'x'",
                "source.a.server: server \"x\" is not configured",
                None,
            ),
            (
                "[source.a]\ndestinations = ['x']",
                "source.a.destinations: destination \"x\" is not configured",
                None,
            ),
        ] {
            let error = load(toml, &[]).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert_eq!(error.hint().as_deref(), hint, "{toml}");
        }
    }

    #[test]
    fn databases_that_cannot_be_meant_are_named() {
        for (toml, message) in [
            (
                "[source.'a/b']",
                "source.\"a/b\": a slash is not allowed: NAME/DATABASE is one of several databases",
            ),
            (
                "[source.a]\ndatabase = 'x'\ndatabases = ['*']",
                "source.a.databases: database and databases exclude each other",
            ),
            (
                "[source.a]\nexclude = ['x']",
                "source.a.exclude: there are no databases to leave it out of",
            ),
            (
                "[source.a]\ndatabases = ['x', '']",
                "source.a.databases: a name or pattern is empty",
            ),
            (
                "[source.a]\ndatabases = ['*', 'scratch_1']\nexclude = ['scratch_*']",
                "source.a.exclude: it leaves out \"scratch_1\", which databases names",
            ),
            (
                "[source.nameoffiftybytesandonemorenameoffiftybytesandonemor]\ndatabases = ['*']",
                "source.nameoffiftybytesandonemorenameoffiftybytesandonemor: the name is too long \
                 to stand before those of databases",
            ),
        ] {
            assert_eq!(load(toml, &[]).unwrap_err().to_string(), message);
        }
        let config = load("[source.a]\ndatabases = ['*']\n[source.b]", &[]).unwrap();
        let found = |name| config.settings_of(name).map(SourceConfig::is_family);
        assert_eq!(found("a/x/y"), Some(true));
        assert_eq!(found("b"), Some(false));
        assert_eq!((found("b/x"), found("c/x")), (None, None));
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
                "[server.main]\npassword = { command = 'vault hunter2 $(41172)' }",
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
