//! What lies over what, and where each value comes from.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Tag, Value};
use figment::{Figment, Metadata, Profile, Provider, Source};
use serde::Serialize;

use crate::environment::{Environment, names};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "kind", content = "name", rename_all = "lowercase")]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A configuration file.
    File(PathBuf),
    /// A variable that overrides the file.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// One value that is in force.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    /// Its key, as it may stand in the file.
    pub key: String,
    /// The value; a secret is shown by where it is.
    pub value: toml::Value,
    /// Where it comes from.
    pub origin: Origin,
}

/// A line of a TOML file that would have the same effect.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}    # {}", self.key, self.value, self.origin)
    }
}

/// The files and variables, later ones over earlier ones.
#[derive(Default)]
pub(crate) struct Layers(Figment);

impl Layers {
    /// Lays a file's text over what is there.
    pub(crate) fn file(self, path: &Path, text: &str) -> Self {
        self.over(Metadata::from("file", path), Toml::string(text).data())
    }

    /// Lays text over what is there that is in no file.
    pub(crate) fn text(self, text: &str) -> Self {
        self.over(Metadata::named("text"), Toml::string(text).data())
    }

    /// Lays `BACKUP_DEFAULTS__JOBS=2` as `{defaults: {jobs: 2}}` over what is there.
    pub(crate) fn variables(mut self, environment: &Environment) -> Self {
        for (name, text) in environment.iter() {
            let path = name.strip_prefix(names::PREFIX);
            let Some(path) = path.filter(|path| path.contains("__")) else {
                continue;
            };
            let value = text.parse::<Value>();
            let value = value.unwrap_or_else(|_| Value::from(text.to_owned()));
            let value = path.rsplit("__").fold(value, |value, key| {
                Value::from(Dict::from([(key.to_lowercase(), value)]))
            });
            if let Value::Dict(_, root) = value {
                let metadata = Metadata::from("variable", name);
                self = self.over(metadata, Ok(Profile::Default.collect(root)));
            }
        }
        self
    }

    fn over(self, metadata: Metadata, data: Result<Map<Profile, Dict>, figment::Error>) -> Self {
        Self(self.0.merge(Layer { metadata, data }))
    }

    pub(crate) fn figment(&self) -> &Figment {
        &self.0
    }

    /// Who said the value at this path, or what is below it; nobody if it is a default.
    pub(crate) fn origins(&self, path: &[impl AsRef<str>]) -> BTreeSet<Origin> {
        let mut origins = BTreeSet::new();
        let Ok(mut data) = self.0.data() else {
            return origins;
        };
        let root = data.remove(&Profile::Default).unwrap_or_default();
        let mut value = &Value::from(root);
        for key in path {
            let inner = match value {
                Value::Dict(_, inner) => inner.get(key.as_ref()),
                Value::Array(_, inner) => {
                    let index = key.as_ref().parse::<usize>();
                    index.ok().and_then(|index| inner.get(index))
                }
                _ => None,
            };
            match inner {
                Some(inner) => value = inner,
                None => return origins,
            }
        }
        let mut tags = Vec::new();
        tags_below(value, &mut tags);
        let known = tags.iter().filter_map(|tag| self.0.get_metadata(*tag));
        origins.extend(known.filter_map(origin));
        origins
    }

    /// The leaves of the configuration in force, `effective`, with where each comes from.
    pub(crate) fn settings(&self, effective: toml::Value) -> Vec<Setting> {
        let mut settings = Vec::new();
        self.walk(&mut Vec::new(), effective, &mut settings);
        settings
    }

    fn walk(&self, path: &mut Vec<String>, value: toml::Value, settings: &mut Vec<Setting>) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    path.push(key);
                    self.walk(path, value, settings);
                    path.pop();
                }
            }
            value => settings.push(Setting {
                key: dotted(path),
                value,
                // A leaf was said as a whole, in one place.
                origin: self.origins(path).pop_last().unwrap_or(Origin::Default),
            }),
        }
    }
}

/// What a metadata says of itself; text that is in no file has no name.
pub(crate) fn origin(metadata: &Metadata) -> Option<Origin> {
    match metadata.source.as_ref()? {
        Source::File(path) => Some(Origin::File(path.clone())),
        Source::Custom(name) => Some(Origin::Variable(name.clone())),
        _ => None,
    }
}

/// Tables are merged and keep the mark of the last layer; what stands in them has its own.
fn tags_below(value: &Value, tags: &mut Vec<Tag>) {
    match value {
        Value::Dict(_, inner) if !inner.is_empty() => {
            for value in inner.values() {
                tags_below(value, tags);
            }
        }
        value => tags.push(value.tag()),
    }
}

/// A path as a TOML key.
pub(crate) fn dotted(path: &[impl AsRef<str>]) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let quoted = |key: &str| match key {
        "" => "\"\"".to_owned(),
        key if key.chars().all(is_bare) => key.to_owned(),
        key => toml::Value::from(key).to_string(),
    };
    let keys: Vec<_> = path.iter().map(|key| quoted(key.as_ref())).collect();
    keys.join(".")
}

/// What one file or variable says.
struct Layer {
    metadata: Metadata,
    data: Result<Map<Profile, Dict>, figment::Error>,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        self.data.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::Config;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn each_value_says_where_it_comes_from() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".config/backup");
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("backup.toml");
        let toml = "[defaults]\njobs = 2\ntimeout = '1h'\n[server.\"a b\"]\nhost = 'x'\n\
                    [server.m]\npassword = { file = '/p' }\n[drill]\nextensions = ['postgis']\n";
        std::fs::write(&file, toml).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let environment = [
            ("HOME", home.path().to_str().unwrap()),
            ("BACKUP_DEFAULTS__JOBS", "7"),
            ("BACKUP_SERVER__M__USER", "u"),
        ];
        let settings = Config::explain(None, &environment.into_iter().collect()).unwrap();
        let lines: Vec<_> = settings.iter().map(Setting::to_string).collect();
        let file = file.display();
        for line in [
            "defaults.jobs = 7    # BACKUP_DEFAULTS__JOBS".to_owned(),
            format!("defaults.timeout = \"1h\"    # {file}"),
            "defaults.compression = \"zstd:2\"    # default".to_owned(),
            format!("server.\"a b\".host = \"x\"    # {file}"),
            format!("server.m.password = \"file /p\"    # {file}"),
            "server.m.user = \"u\"    # BACKUP_SERVER__M__USER".to_owned(),
            format!("drill.extensions = [\"postgis\"]    # {file}"),
        ] {
            assert!(lines.contains(&line), "{line}: {lines:#?}");
        }
    }
}
