//! Private folders that do not pile up.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use nix::unistd::Uid;

use crate::servers;

/// The unprivileged user that servers run as when the tests run as root.
pub(crate) const NOBODY: u32 = 65_534;

/// A folder that is removed on drop.
///
/// Statics are never dropped and a killed process drops nothing, so the name carries the owner's
/// process id, and the first fixture of each later process removes what dead owners left.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes an empty folder, owned by the user that servers run as.
    ///
    /// The path is short: a Unix socket inside it must fit into 107 bytes.
    pub(crate) fn new() -> Result<Self> {
        static SWEEP: Once = Once::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);

        let base = servers::scratch_base().join(format!("pgb-{}", Uid::effective()));
        fs::create_dir_all(&base).with_context(|| format!("create {}", base.display()))?;
        fs::set_permissions(&base, fs::Permissions::from_mode(0o755))?;
        SWEEP.call_once(|| sweep(&base));

        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("{}-{number}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        let scratch = Self { path };
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755))?;
        if Uid::effective().is_root() {
            chown(scratch.path(), Some(NOBODY), Some(NOBODY))?;
        }
        Ok(scratch)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A server's last writes may race with the removal: the second attempt finds none.
        if fs::remove_dir_all(&self.path).is_err() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.split('-').next());
        let Some(owner) = owner.and_then(|owner| owner.parse::<u32>().ok()) else {
            continue;
        };
        if !Path::new("/proc").join(owner.to_string()).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_folder_goes_with_its_owner() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().to_owned();
        fs::write(path.join("file"), "x").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn only_the_folders_of_dead_owners_are_swept() {
        let base = Scratch::new().unwrap();
        // Process ids end at 2^22, so this one is nobody's.
        let dead = base.path().join("4194999-0");
        let alive = base.path().join(format!("{}-0", std::process::id()));
        let foreign = base.path().join("notes");
        for path in [&dead, &alive, &foreign] {
            fs::create_dir(path).unwrap();
        }
        sweep(base.path());
        assert!(!dead.exists());
        assert!(alive.exists() && foreign.exists());
    }
}
