//! Servers that are named by a URL or by libpq's connection service file, as in
//! <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS> and
//! <https://www.postgresql.org/docs/current/libpq-pgservice.html>.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::environment::{Environment, names};
use crate::file::ServerConfig;

/// The file below the home directory, and that of the machine.
const USER_FILE: &str = ".pg_service.conf";
const SYSTEM_DIRECTORY: &str = "/etc/postgresql-common";
const SYSTEM_FILE: &str = "pg_service.conf";

/// What is wrong with `url` or `service`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongAddress {
    /// The key.
    pub key: &'static str,
    /// What about it.
    pub message: String,
}

type Pairs = Vec<(String, String)>;

impl ServerConfig {
    /// The same with what its URL and its service say; what stands beside them counts more, and the
    /// URL more than the service.
    ///
    /// # Errors
    /// When one of them cannot be read, or says what is not known here.
    pub fn expanded(&self, environment: &Environment) -> Result<Self, WrongAddress> {
        let mut server = self.clone();
        if let Some(url) = &self.url {
            let pairs = of_url(url).and_then(|pairs| server.fill(pairs));
            let key = "url";
            pairs.map_err(|message| WrongAddress { key, message })?;
        }
        if let Some(service) = &self.service {
            let pairs = of_service(service, environment).and_then(|pairs| server.fill(pairs));
            let key = "service";
            pairs.map_err(|message| WrongAddress { key, message })?;
        }
        Ok(server)
    }

    fn fill(&mut self, pairs: Pairs) -> Result<(), String> {
        fn set<T>(field: &mut Option<T>, value: T) {
            field.get_or_insert(value);
        }
        for (key, value) in pairs {
            let path = || PathBuf::from(&value);
            let number = || {
                let number = value.parse().ok();
                number.ok_or_else(|| format!("{key} is not a number from 0 to 65535"))
            };
            match key.as_str() {
                "host" if value.contains(',') => {
                    return Err("several hosts are not supported: name one".to_owned());
                }
                "host" => set(&mut self.host, value),
                "port" => set(&mut self.port, number()?),
                "user" => set(&mut self.user, value),
                "dbname" => set(&mut self.maintenance_database, value),
                "sslmode" => set(&mut self.sslmode, value),
                "sslrootcert" => set(&mut self.sslrootcert, path()),
                "sslcert" => set(&mut self.sslcert, path()),
                "sslkey" => set(&mut self.sslkey, path()),
                "passfile" => set(&mut self.passfile, path()),
                "connect_timeout" => {
                    let seconds = u64::from(number()?);
                    set(&mut self.connect_timeout, Duration::from_secs(seconds));
                }
                "application_name" | "fallback_application_name" => {}
                "password" => {
                    let instead = "password = { file = \"…\" } or ~/.pgpass";
                    return Err(format!("it has a password: say {instead} instead"));
                }
                _ => return Err(format!("{key:?} is not known here")),
            }
        }
        Ok(())
    }
}

/// Never repeats the text: it may have a password.
fn of_url(text: &str) -> Result<Pairs, String> {
    let form = "expected postgresql://USER@HOST:PORT/DATABASE";
    let url = Url::parse(text).map_err(|_| form.to_owned())?;
    if !matches!(url.scheme(), "postgresql" | "postgres") || url.cannot_be_a_base() {
        return Err(form.to_owned());
    }
    let decoded = |text: &str| {
        let text = percent_decode_str(text).decode_utf8();
        let text = text.map_err(|_| "it is not UTF-8".to_owned())?;
        Ok::<_, String>(text.into_owned())
    };
    let mut pairs = Pairs::new();
    let mut add = |key: &str, value: String| {
        if !value.is_empty() {
            pairs.push((key.to_owned(), value));
        }
    };
    add("host", decoded(url.host_str().unwrap_or_default())?);
    add(
        "port",
        url.port().map(|port| port.to_string()).unwrap_or_default(),
    );
    add("user", decoded(url.username())?);
    add("password", url.password().unwrap_or_default().to_owned());
    add("dbname", decoded(url.path().trim_start_matches('/'))?);
    for (key, value) in url.query_pairs() {
        add(&key, value.into_owned());
    }
    // `[::1]` in a URL, `::1` elsewhere.
    for (key, value) in &mut pairs {
        if key == "host" && value.starts_with('[') && value.ends_with(']') {
            *value = value[1..value.len() - 1].to_owned();
        }
    }
    Ok(pairs)
}

fn of_service(name: &str, environment: &Environment) -> Result<Pairs, String> {
    let files = service_files(environment);
    for file in &files {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(format!("{}: {e}", file.display())),
        };
        let found = section(&text, name).map_err(|e| format!("{}: {e}", file.display()))?;
        if let Some(pairs) = found {
            return Ok(pairs);
        }
    }
    let files: Vec<_> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    Err(format!(
        "there is no such service in {}",
        files.join(" or ")
    ))
}

fn service_files(environment: &Environment) -> Vec<PathBuf> {
    let own = environment.get(names::PG_SERVICE_FILE).map(PathBuf::from);
    let home = || Some(Path::new(environment.get(names::HOME)?).join(USER_FILE));
    let directory = environment.get(names::PG_SYSCONFDIR);
    let directory = Path::new(directory.unwrap_or(SYSTEM_DIRECTORY));
    let system = directory.join(SYSTEM_FILE);
    own.or_else(home).into_iter().chain([system]).collect()
}

/// What a file says of one service, if it knows it.
fn section(text: &str, name: &str) -> Result<Option<Pairs>, String> {
    let mut found: Option<Pairs> = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(title) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            let is_it = title.strip_suffix(']') == Some(name);
            found = is_it.then(Pairs::new);
            continue;
        }
        let Some(pairs) = &mut found else {
            continue;
        };
        let pair = line.split_once('=');
        let (key, value) = pair.ok_or_else(|| format!("line {} is no KEY=VALUE", number + 1))?;
        pairs.push((key.trim().to_owned(), value.trim().to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Result<ServerConfig, String> {
        let server = ServerConfig {
            url: Some(url.to_owned()),
            ..ServerConfig::default()
        };
        let expanded = server.expanded(&Environment::default());
        expanded.map_err(|wrong| format!("{}: {}", wrong.key, wrong.message))
    }

    #[test]
    fn urls_say_what_libpq_reads_in_them() {
        for (url, host, port, user, database) in [
            ("postgresql://", None, None, None, None),
            (
                "postgres://db.internal",
                Some("db.internal"),
                None,
                None,
                None,
            ),
            (
                "postgresql://b%40ck@[::1]:5433/post%20gres",
                Some("::1"),
                Some(5433),
                Some("b@ck"),
                Some("post gres"),
            ),
            (
                "postgresql:///?host=/var/run/postgresql&user=backup",
                Some("/var/run/postgresql"),
                None,
                Some("backup"),
                None,
            ),
            (
                "postgresql://%2Fvar%2Frun/x",
                Some("/var/run"),
                None,
                None,
                Some("x"),
            ),
        ] {
            let server = of(url).unwrap();
            let found = (
                server.host.as_deref(),
                server.port,
                server.user.as_deref(),
                server.maintenance_database.as_deref(),
            );
            assert_eq!(found, (host, port, user, database), "{url}");
        }
        let secure = of("postgresql://h/?sslmode=verify-full&sslrootcert=/a.pem&connect_timeout=9");
        let secure = secure.unwrap();
        assert_eq!(secure.sslmode.as_deref(), Some("verify-full"));
        assert_eq!(secure.sslrootcert, Some(PathBuf::from("/a.pem")));
        assert_eq!(secure.connect_timeout, Some(Duration::from_secs(9)));
    }

    #[test]
    fn what_is_no_url_for_us_is_refused_without_being_repeated() {
        for (url, message) in [
            ("db.internal", "url: expected postgresql://"),
            ("mysql://db", "url: expected postgresql://"),
            ("postgresql://u:hunter2@db", "url: it has a password"),
            (
                "postgresql://db/?password=hunter2",
                "url: it has a password",
            ),
            (
                "postgresql://db/?ptions=x",
                "url: \"ptions\" is not known here",
            ),
            ("postgresql://db/?host=a,b", ""),
            ("postgresql://h/?port=x", "url: port is not a number"),
        ] {
            match of(url) {
                Err(error) => assert!(
                    error.starts_with(message) && !error.contains("hunter2"),
                    "{url}: {error}"
                ),
                // The host of the URL comes first, and what else is said of it is not read.
                Ok(server) => assert_eq!((message, server.host.as_deref()), ("", Some("db"))),
            }
        }
    }

    #[test]
    fn a_service_is_found_in_the_users_file_and_then_in_the_machines() {
        let home = tempfile::tempdir().unwrap();
        let system = tempfile::tempdir().unwrap();
        let path = |directory: &tempfile::TempDir| directory.path().display().to_string();
        fs::write(
            home.path().join(USER_FILE),
            "# ours\n[shop]\nhost = db1\nport=5433\n[other]\nhost=db2\npassword=hunter2\n",
        )
        .unwrap();
        fs::write(system.path().join(SYSTEM_FILE), "[all]\nuser=backup\n").unwrap();
        let (home, system) = (path(&home), path(&system));
        let environment: Environment = [("HOME", &*home), ("PGSYSCONFDIR", &*system)]
            .into_iter()
            .collect();
        let of = |service: &str| {
            let server = ServerConfig {
                service: Some(service.to_owned()),
                port: Some(7),
                ..ServerConfig::default()
            };
            server.expanded(&environment)
        };
        let shop = of("shop").unwrap();
        assert_eq!((shop.host.as_deref(), shop.port), (Some("db1"), Some(7)));
        assert_eq!(of("all").unwrap().user.as_deref(), Some("backup"));
        let wrong = of("other").unwrap_err();
        assert!(wrong.message.contains("it has a password"), "{wrong:?}");
        assert!(!wrong.message.contains("hunter2"), "{wrong:?}");
        let wrong = of("none").unwrap_err();
        assert!(wrong.message.contains(".pg_service.conf or "), "{wrong:?}");
    }
}
