//! Which step of logging in failed.

use std::io;

use crate::doctor::AROUND_POOLER;
use crate::error::sqlstate;
use crate::{ConnectionConfig, quote_ident};

/// Its name, and what to do about it.
pub(crate) fn step(
    error: &sqlx::Error,
    config: &ConnectionConfig,
    database: &str,
) -> (&'static str, String) {
    match error {
        sqlx::Error::Io(error) if !is_of_tls(error) => unreached(error, config),
        sqlx::Error::Tls(_) | sqlx::Error::Io(_) => (
            "server-tls",
            "the server's certificate, or whether it has one, does not fit sslmode: set \
             sslrootcert to the authority that signed it, or choose another sslmode"
                .to_owned(),
        ),
        error => match sqlstate(error) {
            Some(state) => refused(&state, error, config, database),
            None => (
                "server-talks-otherwise",
                format!("is it PostgreSQL that listens at {}?", config.server()),
            ),
        },
    }
}

/// Whether it is about a certificate: the driver says that as an error of reading.
fn is_of_tls(error: &io::Error) -> bool {
    error.to_string().contains("peer certificate")
}

/// Not even the server was reached.
fn unreached(error: &io::Error, config: &ConnectionConfig) -> (&'static str, String) {
    let server = config.server();
    if config.host.starts_with('/') {
        let remedy = format!(
            "no server listens on a socket in {}: is it running, on port {}, and is that its \
             unix_socket_directories?",
            config.host, config.port
        );
        return ("server-socket", remedy);
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => (
            "server-port-closed",
            format!(
                "no server listens at {server}: is it running, is the port right, and does \
                 listen_addresses name that address?"
            ),
        ),
        _ if error.to_string().contains("lookup address") => (
            "server-name-unknown",
            format!(
                "the name {} leads nowhere: correct host, or the name service of this machine",
                config.host
            ),
        ),
        _ => (
            "server-unreachable",
            format!("check the network between this machine and {server}"),
        ),
    }
}

/// The server answered, and said no.
fn refused(
    state: &str,
    error: &sqlx::Error,
    config: &ConnectionConfig,
    database: &str,
) -> (&'static str, String) {
    let role = quote_ident(&config.user);
    match state {
        "28P01" => (
            "server-password",
            match config.password_for(database) {
                Ok(None) => format!(
                    "no password is given for role {role}: say it as password of the server, in \
                     PGPASSWORD or in ~/.pgpass"
                ),
                _ => format!(
                    "give the password of role {role} (password of the server, PGPASSWORD or \
                     ~/.pgpass), or set a new one: ALTER ROLE {role} PASSWORD '…'"
                ),
            },
        ),
        "28000" => (
            "server-login-refused",
            format!(
                "allow role {role} to log in from here: a line in pg_hba.conf, and \
                 ALTER ROLE {role} LOGIN, or CREATE ROLE where there is none"
            ),
        ),
        "3D000" if database == config.maintenance_database => (
            "database-missing",
            format!(
                "there is no database {database:?}: name one that is there as \
                 maintenance_database of the server"
            ),
        ),
        "3D000" => (
            "database-missing",
            format!("there is no database {database:?}: correct its name"),
        ),
        "42501" => (
            "database-closed",
            format!(
                "GRANT CONNECT ON DATABASE {} TO {role};",
                quote_ident(database)
            ),
        ),
        "53300" => (
            "server-full",
            "all connections are taken: raise max_connections, or use fewer elsewhere".to_owned(),
        ),
        "57P03" => (
            "server-not-ready",
            "the server starts, stops or recovers: try again when it is ready".to_owned(),
        ),
        _ if error.to_string().contains("startup parameter") => {
            ("pooler", AROUND_POOLER.to_owned())
        }
        _ => ("server-refused", "see the log of the server".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ConnectionConfig {
        ConnectionConfig::new("db.internal", "Back up")
    }

    #[test]
    fn each_step_has_a_name_and_a_remedy() {
        let io = |kind: io::ErrorKind, text: &str| sqlx::Error::Io(io::Error::new(kind, text));
        for (error, id, words) in [
            (
                io(io::ErrorKind::ConnectionRefused, "refused"),
                "server-port-closed",
                "db.internal:5432",
            ),
            (
                io(
                    io::ErrorKind::Other,
                    "failed to lookup address information: x",
                ),
                "server-name-unknown",
                "db.internal",
            ),
            (
                io(io::ErrorKind::HostUnreachable, "no route"),
                "server-unreachable",
                "network",
            ),
            (
                sqlx::Error::Tls("no certificate".into()),
                "server-tls",
                "sslrootcert",
            ),
            (
                io(
                    io::ErrorKind::InvalidData,
                    "invalid peer certificate: UnknownIssuer",
                ),
                "server-tls",
                "sslrootcert",
            ),
            (
                sqlx::Error::Protocol("HTTP/1.1".to_owned()),
                "server-talks-otherwise",
                "PostgreSQL",
            ),
        ] {
            let (found, remedy) = step(&error, &config(), "shop");
            assert_eq!(found, id);
            assert!(remedy.contains(words), "{id}: {remedy}");
        }
    }

    #[test]
    fn what_a_server_refuses_is_told_by_its_state() {
        let error = sqlx::Error::PoolClosed;
        let mut config = config();
        let (_, remedy) = refused("28P01", &error, &config, "shop");
        assert!(remedy.starts_with("no password is given"), "{remedy}");
        config.password = Some("wrong".into());
        for (state, id, words) in [
            (
                "28P01",
                "server-password",
                "ALTER ROLE \"Back up\" PASSWORD",
            ),
            ("28000", "server-login-refused", "pg_hba.conf"),
            ("3D000", "database-missing", "\"shop\""),
            (
                "42501",
                "database-closed",
                "GRANT CONNECT ON DATABASE \"shop\"",
            ),
            ("53300", "server-full", "max_connections"),
            ("57P03", "server-not-ready", "again"),
            ("XX000", "server-refused", "log"),
        ] {
            let (found, remedy) = refused(state, &error, &config, "shop");
            assert_eq!(found, id);
            assert!(remedy.contains(words), "{id}: {remedy}");
        }
    }
}
