//! The only thing of a backup that touches a disk of ours: its definitions, in a private directory.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use backup_core::body::BodyStream;
use backup_core::manifest::PartName;
use backup_pg_archive::{ArchiveReport, Inspector};
use backup_process::held_dir::{HeldDir, Kind};
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::error::RestoreError;
use super::toc_list::list_file;
use crate::Error;

const KIND: Kind = Kind {
    prefix: "backup-pg-",
    file: "restore",
};

/// A directory that nobody else can enter, removed on drop. Where its owner was killed, the next one removes it.
#[derive(Debug)]
pub(crate) struct Workspace {
    directory: HeldDir,
    lists: AtomicU64,
}

impl Workspace {
    /// Makes it within `parent`, or where temporary files go.
    pub(crate) fn create(parent: Option<&Path>) -> Result<Self, RestoreError> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        KIND.sweep(&parent, |_| true);
        let directory = HeldDir::create(&KIND, &parent, "held while it runs\n");
        Ok(Self {
            directory: directory.map_err(|source| RestoreError::PrivateFile { source })?,
            lists: AtomicU64::new(0),
        })
    }

    /// Where [`keep_archive`](Self::keep_archive) put the archive.
    pub(crate) fn archive(&self) -> PathBuf {
        self.directory.path().join("schema.dump")
    }

    /// Writes the schema part down, and reads its table of contents on the way.
    pub(crate) async fn keep_archive(
        &self,
        part: &PartName,
        mut body: BodyStream,
        cancel: &CancellationToken,
    ) -> Result<ArchiveReport, RestoreError> {
        let bad = |error| RestoreError::no_archive(part, error);
        let failed = |source| RestoreError::PrivateFile { source };
        let mut file = private_file(&self.archive()).map_err(failed)?;
        let mut inspector = Inspector::new();
        loop {
            let chunk = tokio::select! {
                chunk = body.next() => chunk,
                () = cancel.cancelled() => return Err(Error::Cancelled.into()),
            };
            let Some(chunk) = chunk else { break };
            let chunk = chunk.map_err(|error| RestoreError::reading(part, error))?;
            inspector.push(&chunk).map_err(bad)?;
            // Some MiB into the page cache: not worth a thread.
            file.write_all(&chunk).map_err(failed)?;
        }
        inspector.finish().map_err(bad)
    }

    /// Puts another archive in its place.
    pub(crate) fn replace_archive(&self, archive: &[u8]) -> Result<(), RestoreError> {
        let path = self.archive();
        std::fs::remove_file(&path)
            .and_then(|()| private_file(&path)?.write_all(archive))
            .map_err(|source| RestoreError::PrivateFile { source })
    }

    /// A file for `pg_restore --use-list`.
    pub(crate) fn list(&self, dump_ids: &[u32]) -> Result<PathBuf, RestoreError> {
        let number = self.lists.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.path().join(format!("list-{number}"));
        private_file(&path)
            .and_then(|mut file| file.write_all(list_file(dump_ids).as_bytes()))
            .map_err(|source| RestoreError::PrivateFile { source })?;
        Ok(path)
    }

    /// Removes everything, and says if that fails.
    pub(crate) fn remove(self) -> Result<(), RestoreError> {
        let removed = self.directory.remove();
        removed.map_err(|source| RestoreError::PrivateFile { source })
    }
}

fn private_file(path: &Path) -> std::io::Result<std::fs::File> {
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_a_killed_restore_left_goes_with_the_next() {
        let parent = tempfile::tempdir().unwrap();
        let left = parent.path().join("backup-pg-killed");
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join(KIND.file), "held while it runs\n").unwrap();
        std::fs::write(left.join("schema.dump"), "CREATE TABLE").unwrap();
        let other = Workspace::create(Some(parent.path())).unwrap();
        assert!(!left.exists());
        let next = Workspace::create(Some(parent.path())).unwrap();
        assert!(other.directory.path().exists(), "its owner lives");
        next.remove().unwrap();
        other.remove().unwrap();
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn nobody_else_can_read_it() {
        let workspace = Workspace::create(None).unwrap();
        let list = workspace.list(&[3, 1]).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(workspace.directory.path()), 0o700);
        assert_eq!(mode(&list), 0o600);
        assert_eq!(std::fs::read_to_string(&list).unwrap(), "3;\n1;\n");
        assert_ne!(workspace.list(&[]).unwrap(), list);
        workspace.remove().unwrap();
        assert!(!list.exists());
    }
}
