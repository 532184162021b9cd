//! Staging files that a killed process left behind.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A staging file that nobody has written to for so long has no writer.
pub(super) const STALE: Duration = Duration::from_hours(24);

/// Removes staging files below `dir` that were last written more than `age` ago. What cannot
/// be looked at or removed is left: this is housekeeping, not part of the caller's work.
pub(super) fn remove_stale(dir: &Path, age: Duration) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            remove_stale(&entry.path(), age);
        } else if kind.is_file() && is_staging(&entry.file_name().to_string_lossy()) {
            let modified = entry.metadata().and_then(|meta| meta.modified());
            let is_stale = modified.is_ok_and(|modified| {
                let unchanged = SystemTime::now().duration_since(modified);
                unchanged.is_ok_and(|unchanged| unchanged > age)
            });
            if is_stale && fs::remove_file(entry.path()).is_ok() {
                tracing::info!(file = %entry.path().display(), "removed what a dead run left");
            }
        }
    }
}

/// Whether this is a name that `object_store` gives to a file it has not finished: that of a
/// key, `#`, digits.
pub(super) fn is_staging(name: &str) -> bool {
    name.split_once('#').is_some_and(|(key, number)| {
        backup_core::store::StoreKey::new(key).is_ok()
            && !number.is_empty()
            && number.bytes().all(|b| b.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_staging_files_go() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        let old = SystemTime::now() - Duration::from_hours(2);
        for (name, age) in [
            ("object#1", Some(old)),
            ("object#22", None),
            ("object", Some(old)),
            ("foreign #1", Some(old)),
            ("object#x", Some(old)),
            ("object#", Some(old)),
        ] {
            let file = fs::File::create(deep.join(name)).unwrap();
            if let Some(modified) = age {
                file.set_modified(modified).unwrap();
            }
        }
        remove_stale(dir.path(), Duration::from_hours(1));
        let mut left: Vec<_> = fs::read_dir(&deep)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(
            left,
            ["foreign #1", "object", "object#", "object#22", "object#x"]
        );
    }
}
