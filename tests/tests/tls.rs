//! Servers that are reached through TLS alone, and those that only pretend to be them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use backup_e2e::cli::Running;
use backup_e2e::pg::{Cluster, ClusterOptions, SUPERUSER};
use backup_e2e::vault::{Vault, id_of};
use serde_json::json;

const ROLE: &str = "certified";

/// A server that takes nothing without TLS, and of [`ROLE`] nothing but its certificate.
struct Secured {
    cluster: Cluster,
    vault: Vault,
}

impl Secured {
    fn new() -> Result<Self> {
        let cluster = Cluster::start(17, &ClusterOptions::default())?;
        let vault = Vault::local(&cluster)?;
        let secured = Self { cluster, vault };
        secured.authority("ca")?;
        secured.certificate("server", "localhost", "ca")?;
        secured.certificate("client", ROLE, "ca")?;
        secured.authority("other")?;
        let data = secured.cluster.data_dir();
        for name in ["server.pem", "server.key", "ca.pem"] {
            let to = data.join(name);
            fs::copy(secured.path(name), &to)?;
            fs::set_permissions(&to, Permissions::from_mode(0o600))?;
            let owner = fs::metadata(&data)?;
            chown(&to, Some(owner.uid()), Some(owner.gid()))?;
        }
        let sql = format!(
            "CREATE ROLE {ROLE} LOGIN SUPERUSER;
             ALTER SYSTEM SET ssl = on; ALTER SYSTEM SET ssl_cert_file = 'server.pem';
             ALTER SYSTEM SET ssl_key_file = 'server.key'; ALTER SYSTEM SET ssl_ca_file = 'ca.pem'"
        );
        for one in sql.split(';') {
            secured.cluster.psql("postgres", one)?;
        }
        let hba = format!(
            "local all all trust\nhostssl all {ROLE} 127.0.0.1/32 cert\n\
             hostnossl all {ROLE} all reject\nhost all {SUPERUSER} 127.0.0.1/32 trust\n"
        );
        fs::write(data.join("pg_hba.conf"), hba)?;
        secured
            .cluster
            .psql("postgres", "SELECT pg_reload_conf()")?;
        Ok(secured)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.vault.cli.folder().join(name)
    }

    /// A key and a certificate of it.
    fn certify(&self, name: &str, subject: &str, more: &[&str]) -> Result<()> {
        let (key, pem) = (format!("{name}.key"), format!("{name}.pem"));
        let subject = format!("/CN={subject}");
        let mut program = Command::new("openssl");
        program
            .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1".split(' '))
            .args("-nodes -days 2".split(' '))
            .args(["-subj", &subject, "-keyout", &key, "-out", &pem])
            .args(more)
            .current_dir(self.vault.cli.folder());
        let made = Running::start(program)?.wait()?;
        ensure!(made.code == Some(0), "openssl: {}", made.stderr);
        fs::set_permissions(self.path(&key), Permissions::from_mode(0o600))?;
        Ok(())
    }

    fn authority(&self, name: &str) -> Result<()> {
        self.certify(name, name, &[])
    }

    fn certificate(&self, name: &str, common: &str, authority: &str) -> Result<()> {
        let (ca, ca_key) = (format!("{authority}.pem"), format!("{authority}.key"));
        let names = format!("subjectAltName=DNS:{common}");
        let leaf = "basicConstraints=critical,CA:FALSE";
        let more = [
            "-addext", &names, "-addext", leaf, "-CA", &ca, "-CAkey", &ca_key,
        ];
        self.certify(name, common, &more)
    }

    /// A configuration whose server is reached as these lines say.
    fn config(&self, lines: &[String]) -> Result<String> {
        let port = self.cluster.port();
        let lines = lines.join("\n");
        let recipient = &self.vault.keys.recipient;
        let url = &self.vault.url;
        let text = format!(
            "[defaults]\n\
             retry = {{ attempts = 1, delays = ['1s'] }}\n[encryption]\nrecipients = ['{recipient}']\n\
             [server.main]\nport = {port}\nuser = '{ROLE}'\n{lines}\n\
             [source.shop]\nserver = 'main'\ndatabase = 'shop'\ndestinations = ['near']\n\
             [destination.near]\nurl = '{url}'\n"
        );
        self.vault.cli.private_file("tls.toml", &text)
    }

    fn file(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn with_certificate(&self, host: &str, mode: &str, authority: &str) -> Vec<String> {
        vec![
            format!("host = '{host}'"),
            format!("sslmode = '{mode}'"),
            format!("sslrootcert = '{}'", self.file(authority)),
            format!("sslcert = '{}'", self.file("client.pem")),
            format!("sslkey = '{}'", self.file("client.key")),
        ]
    }
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn only_the_server_that_is_meant_is_talked_to() -> Result<()> {
    let secured = Secured::new()?;
    secured.cluster.create_db("shop")?;
    let rows = "CREATE TABLE t AS SELECT generate_series(1, 1000) AS a";
    secured.cluster.psql("shop", rows)?;
    let back_up = |lines: &[String]| {
        let config = secured.config(lines)?;
        let words = ["--config", &config, "backup", "shop", "--json"];
        secured.vault.cli.run(words)
    };
    // What libpq's modes promise, each to a server whose name and authority are right or not.
    for (host, mode, authority, expected) in [
        ("localhost", "verify-full", "ca.pem", None),
        ("127.0.0.1", "verify-ca", "ca.pem", None),
        (
            "127.0.0.1",
            "verify-full",
            "ca.pem",
            Some("a name that is in"),
        ),
        ("localhost", "verify-full", "other.pem", Some("sslrootcert")),
        ("localhost", "verify-ca", "other.pem", Some("sslrootcert")),
        ("localhost", "disable", "ca.pem", Some("pg_hba.conf")),
    ] {
        let run = back_up(&secured.with_certificate(host, mode, authority))?;
        let case = format!("{host} {mode} {authority}: {} {}", run.text(), run.stderr);
        match expected {
            None => {
                ensure!(run.code == Some(0), "{case}");
                let text = run.text();
                ensure!(text.contains("\"rows\":1000"), "{case}");
            }
            Some(words) => {
                ensure!(run.code == Some(9), "{case}");
                let error = &run.json()?["error"];
                ensure!(error.to_string().contains(words), "{case}");
            }
        }
    }
    // A login whose certificate is missing is refused by the server, in its words.
    let without = &secured.with_certificate("localhost", "verify-full", "ca.pem")[..3];
    let run = back_up(without)?.exits(9)?;
    ensure!(run.text().contains("certificate"), "{}", run.text());
    // Nothing was written by those that failed.
    let config = secured.config(&secured.with_certificate("localhost", "verify-full", "ca.pem"))?;
    let listed = secured
        .vault
        .cli
        .run(["--config", &config, "list", "--json"])?;
    let backups = listed.exits(0)?.json()?;
    assert_eq!(backups.as_array().map(Vec::len), Some(2), "{backups:#}");
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_restore_goes_the_same_way() -> Result<()> {
    let secured = Secured::new()?;
    secured.cluster.create_db("shop")?;
    let rows = "CREATE TABLE t AS SELECT generate_series(1, 1000) AS a";
    secured.cluster.psql("shop", rows)?;
    let lines = secured.with_certificate("localhost", "verify-full", "ca.pem");
    let config = secured.config(&lines)?;
    let run = |words: &[&str]| {
        let all = ["--config", &config]
            .into_iter()
            .chain(words.iter().copied());
        secured.vault.cli.run(all)?.exits(0)?.json()
    };
    let backup = run(&["backup", "shop", "--json"])?;
    let id = id_of(&backup)?;
    let identity = &secured.vault.keys.identity;
    let words = [
        "restore",
        id,
        "--target-server",
        "main",
        "--target-db",
        "restored",
        "-i",
        identity,
        "--json",
    ];
    let view = run(&words)?;
    assert_eq!(view["compare"]["different"], json!([]), "{view:#}");
    let sum = "SELECT count(*), sum(a) FROM t";
    assert_eq!(secured.cluster.query("restored", sum)?, "1000|500500");
    Ok(())
}
