//! Which client programs to use: those of the server's own major version, or the next newer ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use backup_process::child::{ToolCommand, run_briefly};
use backup_process::{Error as ProcessError, ToolEnv};
use futures::future::try_join_all;
use tokio_util::sync::CancellationToken;

use crate::Error;

/// How long `pg_dump --version` may take, on a machine that is busy.
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// Where distributions put each major; `*` stands for one directory name.
const SYSTEM_DIRS: [&str; 6] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/libexec/postgresql*",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/usr/local/pgsql/bin",
];

/// Finds client programs.
///
/// Asks every `pg_dump` it finds for its version until it tells one, and again when the file changes.
#[derive(Debug, Clone)]
pub struct ToolLocator {
    /// Directories that the user configured; they win among equal versions.
    pub bin_dirs: Vec<PathBuf>,
    /// The directories of `PATH`, given by whoever may read the environment.
    pub search_path: Vec<PathBuf>,
    /// Whether to look where distributions put the programs.
    pub system_dirs: bool,
    known: Arc<Mutex<KnownVersions>>,
}

/// What tells one file from its replacement: time and length.
type Stamp = (Option<SystemTime>, u64);
type KnownVersions = BTreeMap<PathBuf, (Stamp, ToolVersion)>;

impl Default for ToolLocator {
    /// Looks only where distributions put the programs.
    fn default() -> Self {
        Self {
            bin_dirs: Vec::new(),
            search_path: Vec::new(),
            system_dirs: true,
            known: Arc::default(),
        }
    }
}

/// A version such as 17.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ToolVersion {
    /// Major.
    pub major: u32,
    /// Minor.
    pub minor: u32,
}

impl ToolVersion {
    /// From `server_version_num`, such as 170002.
    #[must_use]
    pub fn from_num(version_num: u32) -> Self {
        Self {
            major: version_num / 10_000,
            minor: version_num % 10_000,
        }
    }

    /// From `pg_dump (PostgreSQL) 17.2 (Debian 17.2-1)` or `18beta1`.
    fn parse(output: &str) -> Option<Self> {
        let (_, rest) = output.lines().next()?.split_once("(PostgreSQL) ")?;
        let digits = |text: &str| {
            text.chars()
                .take_while(char::is_ascii_digit)
                .collect::<String>()
        };
        let major = digits(rest);
        let minor = rest[major.len()..].strip_prefix('.').map(digits);
        Some(Self {
            major: major.parse().ok()?,
            minor: minor.and_then(|minor| minor.parse().ok()).unwrap_or(0),
        })
    }
}

impl fmt::Display for ToolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Client programs of one version, by absolute path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// `pg_dump`.
    pub pg_dump: PathBuf,
    /// `pg_restore`.
    pub pg_restore: PathBuf,
    /// `pg_dumpall`.
    pub pg_dumpall: PathBuf,
    /// Their version.
    pub version: ToolVersion,
}

impl Tools {
    fn in_dir(directory: &Path, version: ToolVersion) -> Self {
        Self {
            pg_dump: directory.join("pg_dump"),
            pg_restore: directory.join("pg_restore"),
            pg_dumpall: directory.join("pg_dumpall"),
            version,
        }
    }
}

impl ToolLocator {
    /// Looks in these directories and nowhere else.
    #[must_use]
    pub fn only_in(bin_dirs: impl IntoIterator<Item = PathBuf>) -> Self {
        Self {
            bin_dirs: bin_dirs.into_iter().collect(),
            system_dirs: false,
            ..Self::default()
        }
    }

    /// The same with the directories of `PATH`.
    #[must_use]
    pub fn with_search_path(mut self, directories: impl IntoIterator<Item = PathBuf>) -> Self {
        self.search_path = directories.into_iter().collect();
        self
    }

    /// The tools for a server: of its own major if there are any, else the lowest newer ones, since
    /// an older `pg_dump` refuses a newer server and a newer one writes what an older server cannot
    /// always read. <https://www.postgresql.org/docs/current/app-pgdump.html#PG-DUMP-NOTES>
    ///
    /// # Errors
    /// `ToolMissing`, naming the server's version and the newest that was found.
    pub async fn locate(
        &self,
        server_version_num: u32,
        cancel: &CancellationToken,
    ) -> Result<Tools, Error> {
        let server = ToolVersion::from_num(server_version_num);
        let found = self.installed(cancel).await?;
        choose(&found, server.major).cloned().ok_or_else(|| {
            let newest = found.iter().max_by_key(|tools| tools.version);
            Error::ToolMissing {
                server: server.to_string(),
                major: server.major,
                found: newest.map_or_else(
                    || "none found".to_owned(),
                    |tools| {
                        let place = tools.pg_dump.display();
                        format!("newest pg_dump found is {} at {place}", tools.version)
                    },
                ),
            }
        })
    }

    /// Every version that is installed, for a diagnosis.
    ///
    /// # Errors
    /// `Cancelled` only.
    pub async fn installed(&self, cancel: &CancellationToken) -> Result<Vec<Tools>, Error> {
        // At the same time: one that hangs keeps nobody waiting for longer than several do.
        let asked = self.directories().into_iter().map(|directory| async move {
            let version = self.version_in(&directory, cancel).await?;
            Ok::<_, Error>(version.map(|version| Tools::in_dir(&directory, version)))
        });
        let found = try_join_all(asked).await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The tools of the installed server that fits a server of `major`, by the rule of
    /// [`locate`](Self::locate), with the directory that has its programs.
    ///
    /// # Errors
    /// `Cancelled` only; `None` when there is no server.
    pub async fn locate_server(
        &self,
        major: u32,
        cancel: &CancellationToken,
    ) -> Result<Option<(PathBuf, Tools)>, Error> {
        let mut found = self.installed(cancel).await?;
        found.retain(|tools| {
            let beside = |program| tools.pg_dump.with_file_name(program).is_file();
            beside("initdb") && beside("postgres")
        });
        let chosen = choose(&found, major);
        Ok(chosen.and_then(|tools| Some((tools.pg_dump.parent()?.to_owned(), tools.clone()))))
    }

    fn directories(&self) -> Vec<PathBuf> {
        let system = self
            .system_dirs
            .then(|| SYSTEM_DIRS.iter().flat_map(|p| expand(p)));
        let mut seen = BTreeSet::new();
        self.bin_dirs
            .iter()
            .chain(&self.search_path)
            .cloned()
            .chain(system.into_iter().flatten())
            .filter(|directory| directory.is_absolute() && has_programs(directory))
            .filter(|directory| seen.insert(directory.clone()))
            .collect()
    }

    async fn version_in(
        &self,
        directory: &Path,
        cancel: &CancellationToken,
    ) -> Result<Option<ToolVersion>, Error> {
        let program = directory.join("pg_dump");
        let stamp = program
            .metadata()
            .map_or((None, 0), |meta| (meta.modified().ok(), meta.len()));
        if let Some((seen, version)) = self.known().get(&program)
            && *seen == stamp
        {
            return Ok(Some(*version));
        }
        let version = ask_version(&program, cancel).await?;
        // One that gave no answer may only have been too busy.
        if let Some(version) = version {
            self.known().insert(program, (stamp, version));
        }
        Ok(version)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, KnownVersions> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A program that does not answer as `pg_dump` does is no candidate, and no reason to fail.
async fn ask_version(
    program: &Path,
    cancel: &CancellationToken,
) -> Result<Option<ToolVersion>, Error> {
    let env = ToolEnv::default()
        .set("LC_ALL", "C")
        .set("PATH", "/usr/bin:/bin");
    let command = ToolCommand::new(program, env).args(["--version"]);
    match run_briefly(&command, VERSION_LIMIT, cancel).await {
        Ok(output) if output.exit.success() => {
            Ok(ToolVersion::parse(&String::from_utf8_lossy(&output.stdout)))
        }
        Err(ProcessError::Cancelled) => Err(Error::Cancelled),
        Ok(_) | Err(_) => Ok(None),
    }
}

fn has_programs(directory: &Path) -> bool {
    let real = std::fs::canonicalize(directory.join("pg_dump"));
    // Debian's /usr/bin/pg_dump is a script that chooses a version by its own rules.
    real.is_ok_and(|path| path.file_name().is_some_and(|name| name != "pg_wrapper"))
}

/// Directories that match a pattern with at most one `*` in one component, newest name first.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![PathBuf::from(pattern)];
    };
    let Some((parent, prefix)) = before.rsplit_once('/') else {
        return Vec::new();
    };
    let mut matches: Vec<PathBuf> = std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path().join(after.trim_start_matches('/')))
        .collect();
    matches.sort();
    matches.reverse();
    matches
}

/// The same major with the highest minor, else the lowest newer major; the first among equals.
fn choose(found: &[Tools], major: u32) -> Option<&Tools> {
    found
        .iter()
        .enumerate()
        .filter(|(_, tools)| tools.version.major >= major)
        .min_by_key(|(position, tools)| {
            let version = tools.version;
            (version.major, std::cmp::Reverse(version.minor), *position)
        })
        .map(|(_, tools)| tools)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("pg_dump (PostgreSQL) 17.2\n", Some((17, 2)))]
    #[case("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some((15, 18)))]
    #[case("pg_dump (PostgreSQL) 18beta1", Some((18, 0)))]
    #[case("pg_dump (EnterpriseDB) 17.2", None)]
    #[case("", None)]
    fn versions(#[case] output: &str, #[case] expected: Option<(u32, u32)>) {
        let expected = expected.map(|(major, minor)| ToolVersion { major, minor });
        assert_eq!(ToolVersion::parse(output), expected);
    }

    #[rstest]
    #[case::own_major(&["14.1", "15.2", "16.3"], 15, Some("15.2"))]
    #[case::highest_minor(&["15.2", "15.9", "15.3"], 15, Some("15.9"))]
    #[case::lowest_newer(&["18.1", "16.3", "17.2"], 15, Some("16.3"))]
    #[case::only_older(&["14.1"], 15, None)]
    #[case::nothing(&[], 15, None)]
    fn choice(#[case] installed: &[&str], #[case] server: u32, #[case] expected: Option<&str>) {
        let found: Vec<Tools> = installed
            .iter()
            .map(|version| {
                let line = format!("pg_dump (PostgreSQL) {version}");
                Tools::in_dir(Path::new(version), ToolVersion::parse(&line).unwrap())
            })
            .collect();
        let chosen = choose(&found, server).map(|tools| tools.version.to_string());
        assert_eq!(chosen.as_deref(), expected);
    }

    #[test]
    fn server_versions() {
        assert_eq!(ToolVersion::from_num(170_002).to_string(), "17.2");
    }
}
