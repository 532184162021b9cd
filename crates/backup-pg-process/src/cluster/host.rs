//! Where a cluster lives on this machine, and as whom.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backup_core::error::{ErrorKind, PortError};
use backup_process::child::Account;
use backup_process::held_dir::{HeldDir, Kind};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};

const KIND: Kind = Kind {
    prefix: "backup-drill-",
    file: "owner",
};
const MARK: &str = "a drill of backup-manager; removed by the next one when this one is dead\n";

/// Accounts to run as when we are root, which PostgreSQL refuses.
const ACCOUNTS: [&str; 2] = ["postgres", "nobody"];

/// The name of the socket within its directory.
const SOCKET: &str = ".s.PGSQL.5432";
/// What a socket's path may have, without its final null.
/// <https://man7.org/linux/man-pages/man7/unix.7.html>
const SOCKET_PATH: usize = 107;
/// Where a socket goes whose path would be too long elsewhere.
const SHORT_PARENT: &str = "/tmp";

/// How long the processes of a dead drill may take to obey.
const SWEEP_LIMIT: Duration = Duration::from_secs(5);

/// The directories of one cluster.
#[derive(Debug)]
pub(super) struct Host {
    /// Ours; the server's account can pass through it and nothing more.
    directory: HeldDir,
    /// Another one for the socket, where the path would be too long.
    short: Option<HeldDir>,
    account: Option<Account>,
}

impl Host {
    /// Makes the directories, after removing those of dead drills.
    pub(super) fn prepare(
        parent: Option<&Path>,
        account: Option<&str>,
        content_bytes: u64,
    ) -> Result<Self, PortError> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let account = account_for(account)?;
        for parent in [&parent, Path::new(SHORT_PARENT)] {
            KIND.sweep(parent, end_processes);
        }
        if let Some(account) = &account {
            check_enterable(&parent, account)?;
        }
        check_room(&parent, content_bytes)?;
        let directory = Self::directory(&parent, account.as_ref())?;
        let mut host = Self {
            directory,
            short: None,
            account,
        };
        if !is_good_for_a_socket(&host.socket_directory()) {
            host.short = Some(Self::directory(
                Path::new(SHORT_PARENT),
                host.account.as_ref(),
            )?);
        }
        host.sub_directory(&host.data())?;
        host.sub_directory(&host.socket_directory())?;
        Ok(host)
    }

    fn directory(parent: &Path, account: Option<&Account>) -> Result<HeldDir, PortError> {
        let failed = |e| not_made(parent, e);
        let directory = HeldDir::create(&KIND, parent, MARK).map_err(failed)?;
        if let Some(account) = account {
            let path = directory.path();
            chown(path, None, Some(account.group.as_raw())).map_err(failed)?;
            let mode = std::fs::Permissions::from_mode(0o710);
            std::fs::set_permissions(path, mode).map_err(failed)?;
        }
        Ok(directory)
    }

    fn sub_directory(&self, path: &Path) -> Result<(), PortError> {
        let failed = |e| not_made(path, e);
        std::fs::create_dir(path).map_err(failed)?;
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(path, mode).map_err(failed)?;
        self.give(path)
    }

    /// Gives a file to the server's account.
    pub(super) fn give(&self, path: &Path) -> Result<(), PortError> {
        let Some(account) = &self.account else {
            return Ok(());
        };
        let (user, group) = (account.user.as_raw(), account.group.as_raw());
        chown(path, Some(user), Some(group)).map_err(|e| not_made(path, e))
    }

    /// The directory that holds everything.
    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// The directory of the socket.
    pub(super) fn socket_directory(&self) -> PathBuf {
        let directory = self.short.as_ref().unwrap_or(&self.directory);
        directory.path().join("socket")
    }

    pub(super) fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }

    /// The account that the server runs as.
    pub(super) fn account_name(&self) -> Option<String> {
        match &self.account {
            Some(account) => Some(account.name.clone()),
            None => Some(User::from_uid(Uid::effective()).ok()??.name),
        }
    }

    /// Waits shortly for the last processes, and removes everything.
    pub(super) fn remove(self) -> Result<(), PortError> {
        let path = self.path().to_owned();
        let left = |e| {
            let what = format!("cannot remove {}", path.display());
            PortError::new(ErrorKind::Internal, what).with_source(e)
        };
        if let Some(short) = self.short {
            short.remove().map_err(left)?;
        }
        self.directory.remove().map_err(left)
    }
}

fn not_made(path: &Path, error: std::io::Error) -> PortError {
    let what = format!("cannot make a place for the drill in {}", path.display());
    let kind = match error.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::NotFound => {
            ErrorKind::InvalidInput
        }
        _ => ErrorKind::Unavailable,
    };
    PortError::new(kind, what)
        .with_source(error)
        .with_hint("name another directory in [drill]")
}

/// Whom to run as: PostgreSQL refuses root, and nobody else can become somebody else.
fn account_for(wanted: Option<&str>) -> Result<Option<Account>, PortError> {
    let refused = |what: String| Err(PortError::new(ErrorKind::InvalidInput, what));
    let named = |name: &str| -> Option<Account> {
        let user = User::from_name(name).ok()??;
        Some(Account {
            name: user.name,
            user: user.uid,
            group: user.gid,
        })
    };
    let me = Uid::effective();
    if !me.is_root() {
        let same = |name| named(name).is_some_and(|account| account.user == me);
        return match wanted {
            Some(name) if !same(name) => {
                refused(format!("only root can run the drill's server as {name}"))
            }
            _ => Ok(None),
        };
    }
    let found = match wanted {
        Some(name) => named(name),
        None => ACCOUNTS.into_iter().find_map(named),
    };
    match found {
        Some(account) if account.user.is_root() => {
            refused("PostgreSQL does not run as root; name another user in [drill]".to_owned())
        }
        Some(account) => Ok(Some(account)),
        None => refused(format!(
            "there is no account {} to run the drill's server as",
            wanted.unwrap_or("postgres or nobody")
        )),
    }
}

/// Says so before `initdb` does, which does not say why.
fn check_enterable(parent: &Path, account: &Account) -> Result<(), PortError> {
    for directory in parent.ancestors() {
        let Ok(meta) = directory.metadata() else {
            continue;
        };
        let bit = if meta.uid() == account.user.as_raw() {
            0o100
        } else if meta.gid() == account.group.as_raw() {
            0o010
        } else {
            0o001
        };
        if meta.mode() & bit == 0 {
            let (directory, name) = (directory.display(), &account.name);
            let what = format!("{name}, who runs the drill's server, may not enter {directory}");
            return Err(PortError::new(ErrorKind::InvalidInput, what)
                .with_hint("name another directory in [drill]"));
        }
    }
    Ok(())
}

/// A database takes at least what its rows take as text, and mostly more.
fn check_room(parent: &Path, content_bytes: u64) -> Result<(), PortError> {
    let Ok(stat) = nix::sys::statvfs::statvfs(parent) else {
        return Ok(());
    };
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    if free >= content_bytes {
        return Ok(());
    }
    let (free, content) = (free >> 20, content_bytes >> 20);
    let what = format!(
        "{} has {free} MiB left, and the database has {content} MiB without its indexes",
        parent.display()
    );
    Err(PortError::new(ErrorKind::Unsuitable, what)
        .with_hint("name a directory with more room in [drill]"))
}

/// Short enough, and without what libpq or the server would take for a separator.
fn is_good_for_a_socket(directory: &Path) -> bool {
    let bytes = directory.as_os_str().as_encoded_bytes();
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    bytes.len() + 1 + SOCKET.len() <= SOCKET_PATH && bytes.iter().all(is_plain)
}

/// Ends what still works in the data directory of a dead drill; whether nothing does any more.
///
/// The server dies with its owner, but not in the same moment. Where that does not work, its
/// processes are known by the directory that they stand in, which nobody else could give them.
fn end_processes(directory: &Path) -> bool {
    let data = directory.join("data");
    let deadline = Instant::now() + SWEEP_LIMIT;
    let mut signal = Signal::SIGQUIT;
    loop {
        let left = processes_in(&data);
        if left.is_empty() {
            return true;
        }
        if Instant::now() > deadline {
            if signal == Signal::SIGKILL {
                let path = directory.display();
                tracing::warn!(target: "backup", %path, "a server of a dead drill does not end");
                return false;
            }
            signal = Signal::SIGKILL;
        }
        for process in left {
            // ESRCH: it is gone, which is what is wanted.
            let _ = kill(process, signal);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The processes whose working directory this is, as that of every process of a server is.
pub(super) fn processes_in(data: &Path) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let number: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stands_in = std::fs::read_link(entry.path().join("cwd")).ok()?;
            (stands_in == data).then(|| Pid::from_raw(number))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_need_short_and_plain_paths() {
        for (path, good) in [
            ("/tmp/backup-drill-abc123/socket", true),
            ("/tmp/a,b/socket", false),
            ("/tmp/a b/socket", false),
            (&format!("/{}", "x".repeat(92)), true),
            (&format!("/{}", "x".repeat(93)), false),
        ] {
            assert_eq!(is_good_for_a_socket(Path::new(path)), good, "{path}");
        }
    }

    #[test]
    fn a_long_parent_gets_its_socket_elsewhere_and_all_of_it_goes() {
        let parent = tempfile::tempdir().unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(parent.path(), mode.clone()).unwrap();
        let long = parent.path().join("x".repeat(100));
        std::fs::create_dir(&long).unwrap();
        std::fs::set_permissions(&long, mode).unwrap();
        let host = Host::prepare(Some(&long), None, 0).unwrap();
        let (data, socket) = (host.data(), host.socket_directory());
        assert!(data.starts_with(&long) && socket.starts_with("/tmp"));
        assert!(is_good_for_a_socket(&socket));
        let mode = data.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        host.remove().unwrap();
        assert!(!data.exists() && !socket.parent().unwrap().exists());
    }

    #[test]
    fn a_disk_that_is_too_small_is_told_before() {
        let parent = tempfile::tempdir().unwrap();
        check_room(parent.path(), 1 << 20).unwrap();
        let error = check_room(parent.path(), u64::MAX).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsuitable);
    }

    #[test]
    fn the_account_must_exist_and_not_be_root() {
        assert!(account_for(Some("no such account")).is_err());
        if Uid::effective().is_root() {
            assert!(account_for(Some("root")).is_err());
            assert!(!account_for(None).unwrap().unwrap().user.is_root());
        }
    }
}
