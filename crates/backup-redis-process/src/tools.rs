//! Where the programs are.

use std::path::{Path, PathBuf};

use backup_core::error::{ErrorKind, PortError};

/// Where distributions put them.
const SYSTEM_DIRS: [&str; 4] = [
    "/usr/bin",
    "/usr/local/bin",
    "/usr/sbin",
    "/opt/homebrew/bin",
];

/// Finds `redis-cli` and `redis-server`, or those of Valkey.
#[derive(Debug, Clone, Default)]
pub struct RedisTools {
    /// A directory that the user configured; it wins.
    pub bin_dir: Option<PathBuf>,
    /// The directories of `PATH`, given by whoever may read the environment.
    pub search_path: Vec<PathBuf>,
}

impl RedisTools {
    /// The program that asks servers.
    pub(crate) fn client(&self) -> Result<PathBuf, PortError> {
        self.find(&["redis-cli", "valkey-cli"], "redis-tools")
    }

    /// The server.
    pub(crate) fn server(&self) -> Result<PathBuf, PortError> {
        self.find(&["redis-server", "valkey-server"], "redis-server")
    }

    fn find(&self, names: &[&str], package: &str) -> Result<PathBuf, PortError> {
        let configured = self.bin_dir.iter().map(PathBuf::as_path);
        let on_path = self.search_path.iter().map(PathBuf::as_path);
        let system = SYSTEM_DIRS.iter().map(Path::new);
        let directories = configured.chain(on_path).chain(system);
        let programs = directories.flat_map(|dir| names.iter().map(|name| dir.join(name)));
        let mut found = programs.filter(|program| program.is_absolute() && program.is_file());
        found.next().ok_or_else(|| {
            let message = format!("there is no {}", names.join(" or "));
            PortError::new(ErrorKind::ToolMissing, message).with_hint(format!(
                "install it (package {package} on Debian) or name its directory in bin_dir"
            ))
        })
    }
}
