//! Private directories that do not outlive their owner for long: one that was killed and could
//! not remove its own leaves that to the next.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use tempfile::TempDir;

/// What tells directories of one use from all others.
#[derive(Debug)]
pub struct Kind {
    /// How their names begin.
    pub prefix: &'static str,
    /// The file in each that is locked as long as its owner lives.
    pub file: &'static str,
}

/// A directory of ours, removed on drop.
#[derive(Debug)]
pub struct HeldDir {
    directory: TempDir,
    _locked: File,
}

impl HeldDir {
    /// Makes it within `parent`, for nobody else, with `content` in its file.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(kind: &Kind, parent: &Path, content: &str) -> io::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix(kind.prefix)
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir_in(parent)?;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(directory.path().join(kind.file))?;
        // Nothing is in it before it is locked: only what is full and not locked is a left one.
        file.lock()?;
        file.write_all(content.as_bytes())?;
        Ok(Self {
            directory,
            _locked: file,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Removes it, and says if that fails.
    ///
    /// # Errors
    /// When something of it is left.
    pub fn remove(self) -> io::Result<()> {
        self.directory.close()
    }
}

impl Kind {
    /// Removes the directories of owners that are no more, if `may_go` says so of each. `parent`
    /// may be open to everybody: what is not ours is not touched, and nothing is opened that could
    /// make us wait.
    pub fn sweep(&self, parent: &Path, may_go: impl Fn(&Path) -> bool) {
        let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
        for entry in entries {
            let path = entry.path();
            let name = entry.file_name();
            let named = name.as_encoded_bytes().starts_with(self.prefix.as_bytes());
            let is_ours = |meta: std::fs::Metadata| meta.is_dir() && is_ours(&meta);
            if !named || !entry.metadata().is_ok_and(is_ours) {
                continue;
            }
            // Held until all is removed, so that of two sweepers one does it.
            let Some(_held) = left(&path.join(self.file)) else {
                continue;
            };
            if !may_go(&path) {
                continue;
            }
            if let Err(error) = std::fs::remove_dir_all(&path) {
                tracing::warn!(
                    target: "backup",
                    path = %path.display(),
                    %error,
                    "a private directory is left behind"
                );
            }
        }
    }
}

/// Of a directory entry: links are not followed.
fn is_ours(meta: &std::fs::Metadata) -> bool {
    meta.uid() == nix::unistd::geteuid().as_raw()
}

/// The file, locked, if it is one of ours that nobody holds any more.
fn left(path: &Path) -> Option<File> {
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .ok()?;
    let full = |meta: std::fs::Metadata| meta.is_file() && meta.len() > 0 && is_ours(&meta);
    let is_left = file.metadata().is_ok_and(full) && file.try_lock().is_ok();
    is_left.then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind {
        prefix: "held-",
        file: "owner",
    };

    #[test]
    fn only_what_nobody_holds_is_swept() {
        let parent = tempfile::tempdir().unwrap();
        let path = |name: &str| parent.path().join(name);
        let held = HeldDir::create(&KIND, parent.path(), "me").unwrap();
        for (name, content) in [("held-left", "x"), ("held-new", ""), ("other", "x")] {
            std::fs::create_dir(path(name)).unwrap();
            std::fs::write(path(name).join(KIND.file), content).unwrap();
        }
        std::fs::create_dir(path("held-pipe")).unwrap();
        // Whoever opens it waits for a writer.
        let pipe = path("held-pipe").join(KIND.file);
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        KIND.sweep(parent.path(), |_| false);
        assert!(path("held-left").exists());
        KIND.sweep(parent.path(), |_| true);
        assert!(!path("held-left").exists());
        for name in ["held-new", "other", "held-pipe"] {
            assert!(path(name).exists(), "{name}");
        }
        assert!(held.path().exists());
        let left = held.path().to_owned();
        held.remove().unwrap();
        assert!(!left.exists());
    }
}
