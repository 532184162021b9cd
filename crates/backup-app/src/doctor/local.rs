//! This machine: directories, keys, programs, limits.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use backup_core::doctor::Finding;
use backup_core::error::PortError;
use backup_crypt::parse_recipients;
use backup_pg_process::Tools;
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{AccessFlags, access};

use crate::text::size;

/// A restore keeps the definitions of a database here, and lists.
const TEMPORARY_BYTES: u64 = 256 << 20;
/// Each part of a backup has files and connections.
const OPEN_FILES: u64 = 1024;

/// A directory where backups go. Whether there is more to look at.
pub(super) fn directory(root: &Path, used_limit: u8, findings: &mut Vec<Finding>) -> bool {
    let shown = root.display();
    if !root.is_dir() {
        findings.push(if root.parent().is_some_and(Path::is_dir) {
            Finding::warning(
                "directory-missing",
                format!(
                    "there is no directory {shown}: the first backup makes it, also where a disk \
                     should be mounted and is not"
                ),
            )
            .remedy(format!("mount the disk, or mkdir -m 700 {shown}"))
        } else {
            Finding::problem(
                "directory-missing",
                format!("there is no directory {shown}, nor one above it"),
            )
            .remedy(format!("mount the disk, or mkdir -p -m 700 {shown}"))
        });
        return false;
    }
    findings.extend(permissions(root));
    if let Ok(space) = backup_store::space(root) {
        let used = space.used_percent();
        let text = format!("{} free, {used} % used", size(space.free));
        findings.push(if used > u64::from(used_limit) {
            let text = format!("{text}, which is more than {used_limit} %");
            let finding = Finding::warning("disk-full", text);
            finding.remedy("make room, let old backups go (prune), or use a larger disk")
        } else {
            Finding::ok("disk", text)
        });
    }
    true
}

fn permissions(root: &Path) -> Option<Finding> {
    let mode = fs::metadata(root).ok()?.permissions().mode() & 0o777;
    let shown = root.display();
    let remedy = format!("chmod 700 {shown}");
    if mode & 0o022 != 0 {
        let text = format!(
            "others may write to {shown} (mode {mode:o}), and so remove backups or put others there"
        );
        return Some(Finding::warning("directory-writable-by-others", text).remedy(remedy));
    }
    (mode & 0o055 != 0).then(|| {
        let text = format!("others may look into {shown} (mode {mode:o}); what is in it is closed");
        Finding::note("directory-open-to-others", text).remedy(remedy)
    })
}

/// Whether backups are encrypted, and the keys to which.
pub(super) fn encryption(off: bool, keys: &[String]) -> (Vec<Finding>, Vec<String>) {
    if off {
        let text = "backups are not encrypted: whoever can read the store reads the data";
        let remedy = "backup-cli keygen -o identity.txt, and name the public key under \
                      [encryption] recipients";
        return (
            vec![Finding::note("encryption-off", text).remedy(remedy)],
            Vec::new(),
        );
    }
    match parse_recipients(keys) {
        Ok(parsed) => {
            let texts = parsed.to_texts();
            (vec![recipients(&texts)], texts)
        }
        Err(error) => {
            let error = PortError::from(error);
            (
                vec![Finding::failure("recipients-unreadable", &error)],
                Vec::new(),
            )
        }
    }
}

/// The public keys that new backups are encrypted to.
pub(super) fn recipients(recipients: &[String]) -> Finding {
    match recipients {
        [] => Finding::problem(
            "no-recipients",
            "backups are to be encrypted, and no public key is given, so none is taken",
        )
        .remedy("backup-cli keygen -o identity.txt, and name the public key under [encryption] \
                 recipients or with --recipient"),
        [_] => Finding::note(
            "one-recipient",
            "backups are encrypted to one key: if its private half is lost, so are they all",
        )
        .remedy("keep a copy of it elsewhere, or add a second recipient whose private half lies in a safe"),
        several => Finding::ok(
            "recipients",
            format!("backups are encrypted to {} keys", several.len()),
        ),
    }
}

/// The private keys that are configured here; `own` are their public halves.
pub(super) fn identities(own: &[String], recipients: &[String], off: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let strangers: Vec<&String> = own.iter().filter(|own| !recipients.contains(own)).collect();
    if !off && !strangers.is_empty() {
        let all = if strangers.len() == own.len() {
            "none of the private keys here reads new backups: "
        } else {
            "not all of the private keys here read new backups: "
        };
        let names = strangers.iter().map(|name| name.as_str());
        let names = names.collect::<Vec<_>>().join(", ");
        let text = format!("{all}{names} is not among the recipients");
        let remedy = "add it under [encryption] recipients, then backup-cli rekey --all; or take \
                      it out of identities if it is for old backups only";
        findings.push(Finding::warning("identity-not-recipient", text).remedy(remedy));
    }
    if !own.is_empty() {
        findings.push(
            Finding::note(
                "private-key-here",
                "a private key lies on this machine: whoever takes it over reads the backups",
            )
            .remedy("if only backups run here, keep identities where restores and drills run"),
        );
    }
    findings
}

/// The client programs that are installed.
pub(super) fn programs(installed: &[Tools]) -> Finding {
    if installed.is_empty() {
        let finding = Finding::warning("no-client-programs", "no pg_dump was found");
        return finding.remedy(
            "install the client programs of the server's version (postgresql-client-17 on Debian, \
             postgresql17 on Red Hat), or name their directory in bin_dir",
        );
    }
    let mut versions: Vec<_> = installed.iter().map(|tools| tools.version).collect();
    versions.sort();
    versions.dedup();
    let versions: Vec<String> = versions.iter().map(ToString::to_string).collect();
    let text = format!("pg_dump of {}", versions.join(", "));
    Finding::ok("programs", text)
}

/// The directory for what only lasts as long as a run.
pub(super) fn temporary_directory() -> Option<Finding> {
    let directory = std::env::temp_dir();
    let free = backup_store::space(&directory).ok()?.free;
    let text = format!("{} free in {}", size(free), directory.display());
    Some(if free < TEMPORARY_BYTES {
        let text = format!("{text}, where restores keep definitions while they run");
        Finding::warning("temporary-directory-full", text)
            .remedy("make room there, or set TMPDIR to a directory with more")
    } else {
        Finding::ok("temporary-directory", text)
    })
}

/// A program that runs around backups, if it cannot be started; `path` is where those without a folder
/// are looked for.
pub(super) fn hook(program: &str, path: &str, is_needed: bool) -> Option<Finding> {
    let candidates: Vec<PathBuf> = if program.contains('/') {
        vec![program.into()]
    } else {
        std::env::split_paths(path)
            .map(|folder| folder.join(program))
            .collect()
    };
    let is_started = |file: &PathBuf| file.is_file() && access(file, AccessFlags::X_OK).is_ok();
    if candidates.iter().any(is_started) {
        return None;
    }
    let there = candidates.iter().find(|file| file.exists());
    let (text, remedy) = match there {
        Some(file) => {
            let file = file.display();
            let text = format!("hook {file} is no program that this account may start");
            (
                text,
                format!("chmod +x {file}, and see who may look into its folder"),
            )
        }
        None => (
            format!("hook {program} is not there"),
            "install it, or correct [hooks]".to_owned(),
        ),
    };
    Some(if is_needed {
        let text = format!("{text}: without it there is no backup");
        Finding::problem("hook-missing", text).remedy(remedy)
    } else {
        Finding::warning("hook-missing", text).remedy(remedy)
    })
}

/// How many files a process may have open.
pub(super) fn open_files() -> Option<Finding> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    Some(if soft < OPEN_FILES {
        let text = format!("a process may open {soft} files and connections only");
        Finding::warning("few-open-files", text).remedy(format!(
            "ulimit -n {OPEN_FILES}, or LimitNOFILE={OPEN_FILES} in the unit"
        ))
    } else {
        Finding::ok("open-files", format!("a process may open {soft} files"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::doctor::Level;

    fn texts(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn keys_are_compared() {
        for (count, id, level) in [
            (0, "no-recipients", Level::Problem),
            (1, "one-recipient", Level::Note),
            (2, "recipients", Level::Ok),
        ] {
            let found = recipients(&texts(&["age1a", "age1b"])[..count]);
            assert_eq!((found.id, found.level), (id, level));
        }
        let ids = |own: &[&str], off| {
            let found = identities(&texts(own), &texts(&["age1a", "age1b"]), off);
            found.iter().map(|f| f.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(&[], false), [""; 0]);
        assert_eq!(ids(&["age1b"], false), ["private-key-here"]);
        let both = ["identity-not-recipient", "private-key-here"];
        assert_eq!(ids(&["age1b", "age1x"], false), both);
        assert_eq!(ids(&["age1x"], true), ["private-key-here"]);
    }

    #[test]
    fn directories_are_looked_at_before_they_are_written_to() {
        let parent = tempfile::tempdir().unwrap();
        let look = |root: &Path, limit| {
            let mut findings = Vec::new();
            let goes_on = directory(root, limit, &mut findings);
            let ids: Vec<_> = findings.iter().map(|f| (f.id, f.level)).collect();
            (goes_on, ids)
        };
        let root = parent.path().join("store");
        let missing = |level| (false, vec![("directory-missing", level)]);
        assert_eq!(look(&root, 100), missing(Level::Warning));
        assert_eq!(look(&root.join("below"), 100), missing(Level::Problem));
        fs::create_dir(&root).unwrap();
        for (mode, limit, expected) in [
            (0o700, 100, vec![("disk", Level::Ok)]),
            (0o700, 0, vec![("disk-full", Level::Warning)]),
            (
                0o755,
                100,
                vec![
                    ("directory-open-to-others", Level::Note),
                    ("disk", Level::Ok),
                ],
            ),
            (
                0o777,
                100,
                vec![
                    ("directory-writable-by-others", Level::Warning),
                    ("disk", Level::Ok),
                ],
            ),
        ] {
            fs::set_permissions(&root, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(look(&root, limit), (true, expected), "{mode:o}");
        }
    }

    #[test]
    fn hooks_are_looked_for_as_they_are_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("quiesce");
        let (full, path) = (file.to_str().unwrap(), folder.path().to_str().unwrap());
        let path = format!("/nowhere:{path}");
        let level = |program: &str, is_needed| {
            let found = hook(program, &path, is_needed)?;
            assert_eq!(found.id, "hook-missing");
            Some((found.level, found.message.contains("not there")))
        };
        assert_eq!(level(full, true), Some((Level::Problem, true)));
        assert_eq!(level("quiesce", false), Some((Level::Warning, true)));
        fs::write(&file, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(level(full, true), Some((Level::Problem, false)));
        assert_eq!(level("quiesce", true), Some((Level::Problem, false)));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o700)).unwrap();
        for program in [full, "quiesce"] {
            assert_eq!(level(program, true), None, "{program}");
        }
        assert_eq!(level("./quiesce", true), Some((Level::Problem, true)));
    }

    #[test]
    fn a_machine_without_programs_is_told_which() {
        let found = programs(&[]);
        assert_eq!(found.level, Level::Warning);
        assert!(found.remedy.unwrap().contains("postgresql-client-"));
    }
}
