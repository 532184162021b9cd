//! Where a throw-away server lives, and as whom it runs.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use backup_core::error::{ErrorKind, PortError};
use backup_process::child::Account;
use backup_process::held_dir::{HeldDir, Kind};
use nix::unistd::{Uid, User};

pub(super) const DUMP: &str = "dump.rdb";

const KIND: Kind = Kind {
    prefix: "backup-redis-",
    file: "owner",
};
const MARK: &str = "a drill of backup-manager; removed by the next one when this one is dead\n";
/// Accounts to run as when we are root: what is loaded may hold code.
const ACCOUNTS: [&str; 2] = ["redis", "nobody"];
/// What a socket's path may have, without its final null.
/// <https://man7.org/linux/man-pages/man7/unix.7.html>
const SOCKET_PATH: usize = 107;
/// How much of a log is looked at.
const LAST: u64 = 4 << 10;
const LINES: usize = 3;

/// A directory of ours, with one in it that is the server's.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    /// Until it is removed.
    held: Mutex<Option<HeldDir>>,
    account: Option<Account>,
}

impl Home {
    /// Makes it, after removing those of dead drills, whose servers died with them.
    pub(super) fn make(parent: Option<&Path>) -> Result<Self, PortError> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        KIND.sweep(&parent, |_| true);
        let account = account()?;
        let failed = |e| {
            let what = format!("cannot make a place for the drill in {}", parent.display());
            PortError::new(ErrorKind::InvalidInput, what)
                .with_source(e)
                .with_hint("name another directory in [drill]")
        };
        let held = HeldDir::create(&KIND, &parent, MARK).map_err(failed)?;
        let home = Self {
            path: held.path().to_owned(),
            held: Mutex::new(Some(held)),
            account,
        };
        if home.socket().as_os_str().len() > SOCKET_PATH {
            let long = io::Error::other("a socket's path there would be too long");
            return Err(failed(long));
        }
        home.furnish().map_err(failed)?;
        Ok(home)
    }

    fn furnish(&self) -> io::Result<()> {
        std::fs::create_dir(self.data())?;
        std::fs::set_permissions(self.data(), Permissions::from_mode(0o700))?;
        if let Some(account) = &self.account {
            chown(&self.path, None, Some(account.group.as_raw()))?;
            std::fs::set_permissions(&self.path, Permissions::from_mode(0o710))?;
        }
        self.give(&self.data())
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        match &self.account {
            Some(account) => {
                let (user, group) = (account.user.as_raw(), account.group.as_raw());
                chown(path, Some(user), Some(group))
            }
            None => Ok(()),
        }
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.data().join("socket")
    }

    pub(super) fn dump(&self) -> PathBuf {
        self.data().join(DUMP)
    }

    pub(super) fn log(&self) -> PathBuf {
        self.data().join("log")
    }

    /// An empty file for the snapshot, for the server alone.
    pub(super) fn new_dump(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(self.dump())?;
        self.give(&self.dump())?;
        Ok(file)
    }

    /// The last lines of the server's log.
    pub(super) fn last_words(&self) -> String {
        let mut text = Vec::new();
        if let Ok(mut log) = File::open(self.log()) {
            let length = log.metadata().map_or(0, |meta| meta.len());
            let _ = log.seek(SeekFrom::Start(length.saturating_sub(LAST)));
            let _ = log.take(LAST).read_to_end(&mut text);
        }
        let text = String::from_utf8_lossy(&text).replace('\r', "");
        let lines: Vec<&str> = text.lines().rev().take(LINES).collect();
        let lines: Vec<&str> = lines.into_iter().rev().collect();
        lines.join("; ").replace(char::is_control, " ")
    }

    pub(super) fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }

    pub(super) fn account_name(&self) -> Option<String> {
        match &self.account {
            Some(account) => Some(account.name.clone()),
            None => Some(User::from_uid(Uid::effective()).ok()??.name),
        }
    }

    pub(super) fn remove(&self) -> Result<(), PortError> {
        let held = self
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(held) = held else {
            return Ok(());
        };
        held.remove().map_err(|e| {
            let what = format!("cannot remove {}", self.path.display());
            PortError::new(ErrorKind::Internal, what).with_source(e)
        })
    }
}

fn account() -> Result<Option<Account>, PortError> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let named = |name: &str| {
        let user = User::from_name(name).ok()??;
        Some(Account {
            name: user.name,
            user: user.uid,
            group: user.gid,
        })
    };
    match ACCOUNTS.into_iter().find_map(named) {
        Some(account) => Ok(Some(account)),
        None => Err(PortError::new(
            ErrorKind::InvalidInput,
            "there is no account redis or nobody to run the drill's server as",
        )),
    }
}
