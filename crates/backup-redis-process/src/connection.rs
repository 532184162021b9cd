//! How to reach a server.

use std::ffi::OsString;
use std::path::PathBuf;

use backup_process::ToolEnv;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

const PORT: u16 = 6379;

/// A server and a login.
#[derive(Debug, Clone)]
pub struct RedisConnection {
    place: Place,
    /// An ACL user; the default one if absent.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<SecretString>,
    /// How it is encrypted, if it is.
    pub tls: Option<RedisTls>,
}

/// Certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedisTls {
    /// The authorities to believe; those of the system if absent.
    pub ca_file: Option<PathBuf>,
    /// What we show the server.
    pub cert_file: Option<PathBuf>,
    /// The key of that.
    pub key_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Tcp { host: String, port: u16 },
    Socket(PathBuf),
}

impl RedisConnection {
    /// Reads `redis://[USER@]HOST[:PORT]`, `rediss://…` for TLS, or `unix:///path/to/socket`.
    ///
    /// # Errors
    /// When it is of another form, in words that do not repeat it: a password that somebody wrote into
    /// it must not be shown.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        const FORM: &str =
            "expected redis://HOST:PORT, rediss://HOST:PORT or unix:///path/to/socket";
        let url = Url::parse(url).map_err(|_| FORM)?;
        if url.password().is_some() {
            return Err("a password does not belong into the URL: say password = { file = \"…\" }");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(FORM);
        }
        let path = url.path();
        let (place, tls) = match url.scheme() {
            "unix" if path.len() > 1 && url.host_str().is_none_or(str::is_empty) => {
                (Place::Socket(PathBuf::from(path)), None)
            }
            scheme @ ("redis" | "rediss") => {
                if !matches!(path, "" | "/") {
                    return Err("a snapshot is of all databases: the URL must not name one");
                }
                let host = url.host_str().filter(|host| !host.is_empty()).ok_or(FORM)?;
                let host = host
                    .trim_start_matches('[')
                    .trim_end_matches(']')
                    .to_owned();
                let port = url.port().unwrap_or(PORT);
                let tls = (scheme == "rediss").then(RedisTls::default);
                (Place::Tcp { host, port }, tls)
            }
            _ => return Err(FORM),
        };
        let user = Some(url.username()).filter(|user| !user.is_empty());
        Ok(Self {
            place,
            user: user.map(str::to_owned),
            password: None,
            tls,
        })
    }

    /// A server that listens at a socket.
    pub(crate) fn socket(path: PathBuf) -> Self {
        Self {
            place: Place::Socket(path),
            user: None,
            password: None,
            tls: None,
        }
    }

    /// The server, in words.
    #[must_use]
    pub fn server(&self) -> String {
        match &self.place {
            Place::Tcp { host, port } => format!("{host}:{port}"),
            Place::Socket(path) => path.display().to_string(),
        }
    }

    /// What `redis-cli` is told; no secret is among it.
    pub(crate) fn args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = match &self.place {
            Place::Tcp { host, port } => {
                vec![
                    "-h".into(),
                    host.into(),
                    "-p".into(),
                    port.to_string().into(),
                ]
            }
            Place::Socket(path) => vec!["-s".into(), path.into()],
        };
        if let Some(user) = &self.user {
            args.extend(["--user".into(), user.into()]);
        }
        if let Some(tls) = &self.tls {
            args.push("--tls".into());
            let files = [
                ("--cacert", &tls.ca_file),
                ("--cert", &tls.cert_file),
                ("--key", &tls.key_file),
            ];
            for (name, file) in files {
                if let Some(file) = file {
                    args.extend([name.into(), file.into()]);
                }
            }
            if let Place::Tcp { host, .. } = &self.place {
                args.extend(["--sni".into(), host.into()]);
            }
        }
        args
    }

    /// What its environment is; the password is there and nowhere else.
    pub(crate) fn env(&self) -> ToolEnv {
        let env = ToolEnv::default()
            .set("LC_ALL", "C")
            .set("PATH", "/usr/bin:/bin");
        match &self.password {
            Some(password) => env.set("REDISCLI_AUTH", password.expose_secret()),
            None => env,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(url: &str) -> Vec<String> {
        let args = RedisConnection::parse(url).unwrap().args().into_iter();
        args.map(|arg| arg.into_string().unwrap()).collect()
    }

    #[test]
    fn urls_become_arguments() {
        assert_eq!(args("redis://cache"), ["-h", "cache", "-p", "6379"]);
        assert_eq!(args("redis://[::1]:7000/"), ["-h", "::1", "-p", "7000"]);
        let expected = [
            "-h", "c", "-p", "1", "--user", "backup", "--tls", "--sni", "c",
        ];
        assert_eq!(args("rediss://backup@c:1"), expected);
        assert_eq!(args("unix:///run/redis.sock"), ["-s", "/run/redis.sock"]);
    }

    #[test]
    fn other_urls_are_refused_and_not_repeated() {
        let wrong = [
            "redis://:canary@h",
            "http://canary",
            "canary",
            "redis://h/canary",
            "redis://h?canary",
        ];
        for url in wrong {
            let message = RedisConnection::parse(url).unwrap_err();
            assert!(!message.contains("canary"), "{message}");
        }
    }

    #[test]
    fn the_password_is_in_the_environment_alone() {
        let mut connection = RedisConnection::parse("redis://h").unwrap();
        connection.password = Some(SecretString::from("canary"));
        assert!(!format!("{:?} {:?}", connection.args(), connection).contains("canary"));
        let env = connection.env();
        assert!(!format!("{env:?}").contains("canary"));
        let mut vars = env.vars();
        assert!(vars.any(|var| var == ("REDISCLI_AUTH".as_ref(), "canary".as_ref())));
    }
}
