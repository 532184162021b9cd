//! The program against Google's protocol, as far as a fake goes that demands a signed token.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Result, ensure};
use backup_e2e::cli::{Cli, Running};
use backup_e2e::pg::Cluster;
use backup_e2e::vault::Vault;
use backup_testing::FakeBucket;
use serde_json::json;
use tokio::runtime::Runtime;

use super::{MAJOR, there_and_back};

/// The JSON key of a service account with a key pair of its own.
fn service_account() -> Result<String> {
    let mut program = Command::new("openssl");
    program.args(["genpkey", "-quiet", "-algorithm", "RSA"]);
    let made = Running::start(program)?.wait()?;
    ensure!(made.code == Some(0), "openssl: {}", made.stderr);
    let account = json!({
        "type": "service_account",
        "client_email": "backup@example.org",
        "private_key_id": "key-1",
        "private_key": String::from_utf8(made.stdout)?,
    });
    Ok(account.to_string())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn google_backups_restore() -> Result<()> {
    let cluster = Cluster::shared(MAJOR)?;
    let runtime = Runtime::new()?;
    let server = runtime.block_on(FakeBucket::start());
    // Whoever has no token that the account's key signed is turned away.
    server.demand("Bearer eyJ");
    let cli = Cli::new(cluster)?;
    let file = cli.private_file("account.json", &service_account()?)?;
    let cli = cli
        .with_env("GOOGLE_BASE_URL", &server.endpoint)
        .with_env("GOOGLE_APPLICATION_CREDENTIALS", &file);
    let vault = Vault::at(cli, "gs://bucket/some/prefix")?;
    there_and_back(cluster, &vault)?;
    let keys = server.keys();
    let ours = keys.iter().all(|key| key.starts_with("some/prefix/"));
    assert!(ours && keys.len() > 5, "{keys:?}");
    assert!(server.parts_received() > 1, "one went up in parts");
    assert_eq!(server.open_uploads(), 0);
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn google_refuses_a_key_file_that_others_can_read() -> Result<()> {
    let cli = Cli::without_server()?;
    let file = cli.private_file("account.json", &service_account()?)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
    let cli = cli.with_env("GOOGLE_APPLICATION_CREDENTIALS", &file);
    let run = cli.run(["list", "--from", "gs://bucket"])?.exits(2)?;
    assert!(run.stderr.contains("account.json"), "{}", run.stderr);
    assert!(!run.stderr.contains("PRIVATE KEY"), "{}", run.stderr);
    Ok(())
}
