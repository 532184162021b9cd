//! Where a secret is.

use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use secrecy::SecretString;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::environment::{Environment, names};
use crate::error::Error;

/// No secret is longer.
const MAX_SECRET_BYTES: u64 = 1 << 20;
/// A secret manager that wants to be asked by hand or has no network must not hang a backup.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// Says where a secret is; the file never holds the secret itself.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Said")]
pub enum SecretRef {
    /// A file that nobody else can read.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// What a program prints: the client of a secret manager.
    Command(Vec<String>),
    /// A systemd credential (<https://systemd.io/CREDENTIALS/>).
    Credential(String),
}

/// What is allowed, for messages.
pub(crate) const FORMS: &str =
    "{ file = \"…\" }, { env = \"…\" }, { command = [\"…\"] } or { credential = \"…\" }";

/// As it is written. An enum would take one of several places and forget the others, which a file
/// and a variable over it may well name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    file: Option<PathBuf>,
    env: Option<String>,
    command: Option<Argv>,
    credential: Option<String>,
}

/// A program and its arguments: as an array, or as words with a space between.
struct Argv(Vec<String>);

/// What a shell would make nothing else of. There is no shell here, so what is not of these would not
/// do what it looks like.
fn is_word(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    !text.is_empty() && text.chars().all(plain)
}

impl<'de> Deserialize<'de> for Argv {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;

        impl<'de> Visitor<'de> for Words {
            type Value = Argv;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of a program and its arguments")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Argv, E> {
                let words = text.split(' ');
                if !words.clone().all(is_word) {
                    let message = "expected an array, such as [\"pass\", \"show\", \"a b\"]: \
                                   there is no shell that would read quotes and the like";
                    return Err(E::custom(message));
                }
                Ok(Argv(words.map(str::to_owned).collect()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Argv, A::Error> {
                let mut argv = Vec::new();
                while let Some(item) = items.next_element()? {
                    argv.push(item);
                }
                Ok(Argv(argv))
            }
        }

        deserializer.deserialize_any(Words)
    }
}

impl TryFrom<Said> for SecretRef {
    type Error = String;

    fn try_from(said: Said) -> Result<Self, String> {
        let places = [
            said.file.map(Self::File),
            said.env.map(Self::Env),
            said.command.map(|Argv(argv)| Self::Command(argv)),
            said.credential.map(Self::Credential),
        ];
        let mut places = places.into_iter().flatten();
        match (places.next(), places.next()) {
            (Some(place), None) => Ok(place),
            _ => Err(format!("expected one place: {FORMS}")),
        }
    }
}

impl SecretRef {
    /// Fetches the secret; one line end at its end is dropped.
    ///
    /// # Errors
    /// When it is not there, empty, or in a file that others can read.
    pub fn resolve(&self, environment: &Environment) -> Result<SecretString, Error> {
        let text = match self {
            Self::File(path) => read_private(path)?,
            Self::Env(name) => environment
                .get(name)
                .ok_or_else(|| self.failure("the variable is not set or empty"))?
                .to_owned(),
            Self::Command(argv) => self.run(argv, COMMAND_TIMEOUT)?,
            Self::Credential(name) => {
                let directory = environment
                    .get(names::CREDENTIALS_DIRECTORY)
                    .ok_or_else(|| self.failure("systemd passed no credentials"))?;
                if name.contains('/') || name.starts_with('.') {
                    return Err(self.failure("a credential's name is one file name"));
                }
                read_private(&Path::new(directory).join(name))?
            }
        };
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err(self.failure("it is empty"));
        }
        Ok(SecretString::from(text))
    }

    /// What a command prints that is done, and whose output is closed, within `limit`.
    fn run(&self, argv: &[String], limit: Duration) -> Result<String, Error> {
        let (program, arguments) = argv
            .split_first()
            .ok_or_else(|| self.failure("the command is empty"))?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| self.failure(&format!("cannot be started: {e}")))?;
        let output = child
            .stdout
            .take()
            .ok_or_else(|| self.failure("it has no output"))?;
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            let read = output.take(MAX_SECRET_BYTES).read_to_string(&mut text);
            // Nobody listens when the time was up.
            let _ = sender.send(read.map(|_| text));
        });
        let deadline = Instant::now() + limit;
        let read = receiver.recv_timeout(limit);
        let status = loop {
            let ended = child
                .try_wait()
                .map_err(|e| self.failure(&format!("cannot be awaited: {e}")))?;
            match ended {
                Some(status) => break Some(status),
                None if read.is_err() || Instant::now() > deadline => break None,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        match (read, status) {
            (_, Some(status)) if !status.success() => {
                Err(self.failure(&format!("ended with {status}")))
            }
            (Ok(Ok(text)), Some(_)) => Ok(text),
            (Ok(Err(_)), Some(_)) => Err(self.failure("its output is not text")),
            (_, status) => {
                if status.is_none() {
                    let _ = child.kill();
                    let _ = child.wait();
                }
                Err(self.failure(&format!("not done within {limit:?}")))
            }
        }
    }

    fn failure(&self, reason: &str) -> Error {
        Error::Secret {
            origin: self.to_string(),
            reason: reason.to_owned(),
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "variable {name}"),
            // Its arguments may be secret themselves.
            Self::Command(argv) => {
                write!(f, "command {}", argv.first().map_or("", String::as_str))
            }
            Self::Credential(name) => write!(f, "credential {name}"),
        }
    }
}

/// Written as where the secret is, for people; the arguments of a command stay out.
impl Serialize for SecretRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretRef({self})")
    }
}

/// Reads a file that only its owner (and group) may read.
pub(crate) fn read_private(path: &Path) -> Result<String, Error> {
    let failure = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = std::fs::File::open(path).map_err(failure)?;
    // The opened file is asked, not the path: it cannot be exchanged in between.
    let mode = file.metadata().map_err(failure)?.mode() & 0o777;
    if mode & 0o027 != 0 {
        return Err(Error::Permissions {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = String::new();
    (&mut file)
        .take(MAX_SECRET_BYTES)
        .read_to_string(&mut text)
        .map_err(failure)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt as _;

    fn file(content: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn secrets_come_from_files_variables_and_commands() {
        let (_dir, path) = file("from file\n", 0o600);
        let environment: Environment = [("PW", "from env")].into_iter().collect();
        let command = vec![
            "printf".to_owned(),
            "from %s".to_owned(),
            "command".to_owned(),
        ];
        for (reference, expected) in [
            (SecretRef::File(path), "from file"),
            (SecretRef::Env("PW".to_owned()), "from env"),
            (SecretRef::Command(command), "from command"),
        ] {
            let secret = reference.resolve(&environment).unwrap();
            assert_eq!(secret.expose_secret(), expected);
        }
    }

    #[test]
    fn a_command_of_plain_words_may_be_one_text() {
        let said: BTreeMap<String, SecretRef> =
            toml::from_str("a = { command = 'pass show db/main' }").unwrap();
        let argv = ["pass", "show", "db/main"].map(str::to_owned).to_vec();
        assert_eq!(said["a"], SecretRef::Command(argv));
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let (_dir, path) = file("x", 0o644);
        let error = SecretRef::File(path).resolve(&Environment::default());
        assert!(error.unwrap_err().hint().unwrap().starts_with("chmod 600"));
    }

    #[test]
    fn what_is_empty_or_fails_is_no_secret() {
        let (_dir, path) = file("\n", 0o600);
        let environment: Environment = [("EMPTY", "")].into_iter().collect();
        for reference in [
            SecretRef::File(path),
            SecretRef::File("/nonexistent".into()),
            SecretRef::Env("EMPTY".to_owned()),
            SecretRef::Env("UNSET".to_owned()),
            SecretRef::Command(vec!["false".to_owned()]),
            SecretRef::Command(vec![]),
            SecretRef::Credential("x".to_owned()),
        ] {
            assert!(reference.resolve(&environment).is_err(), "{reference}");
        }
    }

    /// Runs a shell command that may take a second, and says why it brought no secret.
    fn stopped(script: &str) -> String {
        let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        let reference = SecretRef::Command(argv.clone());
        let result = reference.run(&argv, Duration::from_secs(1));
        result.unwrap_err().to_string()
    }

    fn is_alive(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    }

    #[test]
    fn a_command_that_does_not_end_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        for script in [
            "exec sleep 60",
            // Its output is complete, and it goes on.
            "echo secret; exec sleep 60 >&-",
        ] {
            let script = format!("echo $$ > {}; {script}", pid.display());
            let error = stopped(&script);
            assert!(error.contains("not done within 1s"), "{script}: {error}");
            // A machine that is busy may not even have started it.
            let pid = std::fs::read_to_string(&pid).unwrap_or_default();
            let pid = pid.trim();
            assert!(pid.is_empty() || !is_alive(pid), "{script}: {pid}");
        }
    }

    #[test]
    fn a_command_whose_child_keeps_the_output_open_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("echo secret; sleep 60 & echo $! > {}", pid.display());
        let error = stopped(&script);
        assert!(error.contains("not done within 1s"), "{error}");
        let pid = std::fs::read_to_string(&pid).unwrap_or_default();
        let status = Command::new("kill").arg(pid.trim()).status();
        assert!(pid.is_empty() || status.unwrap().success());
    }
}
