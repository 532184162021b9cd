//! Password files: how a password reaches a child without an argument list or an environment.

use std::fmt;
use std::path::{Path, PathBuf};

use backup_process::held_dir::{HeldDir, Kind};
use secrecy::{ExposeSecret as _, SecretString};

use crate::Error;

const KIND: Kind = Kind {
    prefix: "backup-pg-",
    file: "passfile",
};

/// A password file in a private directory, removed on drop.
///
/// The file is locked as long as its owner lives. Where that owner was killed and could not
/// remove it, the next one does.
///
/// <https://www.postgresql.org/docs/current/libpq-pgpass.html>
pub struct PassFile {
    path: PathBuf,
    _directory: HeldDir,
}

impl fmt::Debug for PassFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PassFile").finish_non_exhaustive()
    }
}

/// Whether it is one that the format cannot hold, and that nobody meant.
pub(crate) fn is_unsafe(password: &SecretString) -> bool {
    password.expose_secret().contains(['\n', '\r', '\0'])
}

impl PassFile {
    /// Writes a file that gives `password` for every server, database and user.
    ///
    /// # Errors
    /// `InvalidInput` when the password has a line break, which the format cannot hold;
    /// `Internal` when the file cannot be written.
    pub fn create(password: &SecretString) -> Result<Self, Error> {
        let secret = password.expose_secret();
        if is_unsafe(password) {
            return Err(Error::UnsafePassword);
        }
        let parent = std::env::temp_dir();
        KIND.sweep(&parent, |_| true);
        let directory = HeldDir::create(&KIND, &parent, &entry(secret))
            .map_err(|source| Error::PrivateFile { source })?;
        Ok(Self {
            path: directory.path().join(KIND.file),
            _directory: directory,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn entry(password: &str) -> String {
    let escaped = password.replace('\\', "\\\\").replace(':', "\\:");
    format!("*:*:*:*:{escaped}\n")
}

/// Who asks a password file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lookup<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) database: &'a str,
    pub(crate) user: &'a str,
}

/// The password that a user's own file has for a connection, found as libpq finds it: the first
/// line whose fields all match or are `*`.
pub(crate) fn find_password(content: &str, wanted: Lookup<'_>) -> Option<SecretString> {
    let port = wanted.port.to_string();
    // libpq looks sockets in the default directory up as `localhost`; others by their path.
    let host = match wanted.host {
        "/tmp" | "/var/run/postgresql" | "/run/postgresql" => "localhost",
        other => other,
    };
    let matches = |field: &str, value: &str| field == "*" || field == value;
    content
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(split_fields)
        .find(|fields| match fields.as_slice() {
            [field_host, field_port, database, user, ..] => {
                (matches(field_host, host) || field_host == wanted.host)
                    && matches(field_port, &port)
                    && matches(database, wanted.database)
                    && matches(user, wanted.user)
                    && fields.len() == 5
            }
            _ => false,
        })
        .and_then(|mut fields| fields.pop())
        .map(SecretString::from)
}

fn split_fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => fields
                .last_mut()
                .into_iter()
                .for_each(|f| f.extend(chars.next())),
            ':' if fields.len() < 5 => fields.push(String::new()),
            c => fields.last_mut().into_iter().for_each(|f| f.push(c)),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use rstest::rstest;

    const WANTED: Lookup<'_> = Lookup {
        host: "db.example",
        port: 5432,
        database: "shop",
        user: "backup",
    };

    #[rstest]
    #[case("db.example:5432:shop:backup:secret\n", Some("secret"))]
    #[case("*:*:*:*:a:b\\:c\\\\\n", Some("a:b:c\\"))]
    #[case(
        "# *:*:*:*:no\nother:*:*:*:no\n*:*:*:backup:yes\n*:*:*:*:later",
        Some("yes")
    )]
    #[case("*:5433:*:*:no", None)]
    #[case("*:*:*:backup", None)]
    #[case("", None)]
    fn finds_as_libpq_does(#[case] content: &str, #[case] expected: Option<&str>) {
        let found = find_password(content, WANTED);
        assert_eq!(
            found.as_ref().map(secrecy::ExposeSecret::expose_secret),
            expected
        );
    }

    #[rstest]
    #[case("plain")]
    #[case("with:colon\\and backslash")]
    #[case("пароль \"'$*")]
    fn what_is_written_is_found(#[case] password: &str) {
        let file = PassFile::create(&SecretString::from(password)).unwrap();
        let content = std::fs::read_to_string(file.path()).unwrap();
        let found = find_password(&content, WANTED).unwrap();
        assert_eq!(found.expose_secret(), password);
    }

    #[test]
    fn is_private_and_goes_away() {
        let file = PassFile::create(&SecretString::from("x")).unwrap();
        let path = file.path().to_owned();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn line_breaks_are_refused() {
        for password in ["a\nb", "a\r", "a\0"] {
            let refused = PassFile::create(&SecretString::from(password));
            assert!(
                matches!(refused, Err(Error::UnsafePassword)),
                "{password:?}"
            );
        }
    }
}
