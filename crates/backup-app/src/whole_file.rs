//! Files that others read: each is there whole or not at all.

use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Whoever our umask lets, which is us alone.
    Us,
    /// Everybody.
    All,
}

/// Writes a file beside its place and moves it there.
pub(crate) fn write(path: &Path, text: &str, readers: Readers) -> io::Result<()> {
    let mut file = tempfile::Builder::new()
        .prefix(".backup-")
        .tempfile_in(parent(path))?;
    file.write_all(text.as_bytes())?;
    if readers == Readers::All {
        let everybody = Permissions::from_mode(0o644);
        file.as_file().set_permissions(everybody)?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|e| e.error)
}

/// The directory that a file is in.
pub(crate) fn parent(path: &Path) -> &Path {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}
