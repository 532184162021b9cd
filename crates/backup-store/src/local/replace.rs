//! Replacing a file on a condition. The kernel's lock of one file makes reading, comparing and
//! renaming one step, also between hosts where the file system carries locks between them, as NFS
//! does. Whoever dies releases it.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use backup_core::error::{ErrorKind, PortError};

use super::local_error;

/// Stays beside what was replaced. Its name is no key, and not that of a staging file.
const LOCK: &str = "#lock";

/// Nobody holds the lock for longer than a write takes, unless it is stopped in the middle.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

/// Locks all replacing in `folder` until the file is dropped.
fn lock(folder: &Path) -> io::Result<fs::File> {
    // A lock of a folder would do on most file systems, but NFS has only those of files.
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(folder.join(LOCK))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if begun.elapsed() < PATIENCE => sleep(PAUSE),
            Err(fs::TryLockError::WouldBlock) => return Err(io::ErrorKind::TimedOut.into()),
            Err(fs::TryLockError::Error(e)) => return Err(e),
        }
    }
}

/// Whether `folder` has locks at all. Leaves nothing there.
pub(super) fn check(folder: &Path) -> io::Result<()> {
    let locked = lock(folder).map(drop);
    // Others that try it at the same time have it open, and need the name no more.
    let _ = fs::remove_file(folder.join(LOCK));
    locked
}

/// Puts `content` in the place of `seen`; says no when something else is there.
pub(super) fn replace(file: &Path, seen: &[u8], content: &[u8]) -> io::Result<bool> {
    let folder = file.parent().unwrap_or(file);
    match replace_in(folder, file, seen, content) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        result => result,
    }
}

/// Removes a folder in which nothing is but the lock. Whoever holds that has seen an object which is
/// gone, and no content returns.
pub(super) fn remove_folder(folder: &Path) -> io::Result<()> {
    let names = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name()));
    let names = names.collect::<io::Result<Vec<_>>>()?;
    if matches!(names.as_slice(), [name] if name == LOCK) {
        fs::remove_file(folder.join(LOCK))?;
    }
    fs::remove_dir(folder)
}

fn replace_in(folder: &Path, file: &Path, seen: &[u8], content: &[u8]) -> io::Result<bool> {
    let _alone = lock(folder)?;
    if fs::read(file)? != seen {
        return Ok(false);
    }
    // One name is enough for those who hold the lock, and the sweep knows it.
    let mut staging = file.as_os_str().to_owned();
    staging.push("#0");
    let mut written = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&staging)?;
    written.write_all(content)?;
    written.sync_all()?;
    fs::rename(&staging, file)?;
    fs::File::open(folder)?.sync_all()?;
    Ok(true)
}

/// What a failure to lock or to replace is in the words of the port.
pub(super) fn error(root: &Path, at: &Path, error: io::Error) -> PortError {
    // The second is what NFS says without its lock daemon.
    let lockless = error.kind() == io::ErrorKind::Unsupported
        || error.raw_os_error() == Some(nix::libc::ENOLCK);
    if !lockless {
        return local_error("lock or replace", at, error);
    }
    let message = format!("the file system of {} knows no locks", root.display());
    PortError::new(ErrorKind::Unsuitable, message)
        .with_source(error)
        .with_hint("keep the backups on a file system with locks: a local one, or NFS with them")
}
