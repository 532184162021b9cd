//! By hand a backup is two `age` commands, in both directions.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use backup_core::body::{body_of, collect};
use backup_core::cipher::Cipher;
use backup_core::error::BoxError;
use backup_crypt::{AgeCipher, Identities, Recipients};
use backup_crypt::{generate, load_identities, parse_recipients};
use chrono::DateTime;
use secrecy::ExposeSecret;

const LIMIT: usize = 64 << 20;

/// Runs `tool` in `directory`, with its output into `output` there.
fn run(directory: &Path, command: &[&str], output: &str) -> Result<(), BoxError> {
    let status = Command::new(command[0])
        .args(&command[1..])
        .current_dir(directory)
        .stdout(Stdio::from(fs::File::create(directory.join(output))?))
        .status()?;
    assert!(status.success(), "{command:?}: {status}");
    Ok(())
}

fn content() -> Vec<u8> {
    (0..200_000)
        .flat_map(|n| format!("{n}\trow\n").into_bytes())
        .collect()
}

#[tokio::test]
#[ignore = "needs the age command"]
async fn stock_age_reads_what_we_write() -> Result<(), BoxError> {
    let directory = tempfile::tempdir()?;
    let here = directory.path();
    let (first, second) = (
        generate(DateTime::UNIX_EPOCH),
        generate(DateTime::UNIX_EPOCH),
    );
    fs::write(
        here.join("identity.txt"),
        second.identity_file.expose_secret(),
    )?;
    run(here, &["age-keygen", "-y", "identity.txt"], "public")?;
    assert_eq!(
        fs::read_to_string(here.join("public"))?.trim(),
        second.recipient
    );

    let recipients = parse_recipients(&[first.recipient, second.recipient])?;
    let sealed = AgeCipher::new(recipients, Identities::default()).seal()?;
    fs::write(here.join("key.age"), &sealed.wrapped)?;
    run(
        here,
        &["age", "-d", "-i", "identity.txt", "key.age"],
        "backup.key",
    )?;
    for content in [content(), Vec::new(), vec![7; 128 << 10]] {
        let stored = collect(sealed.key.encrypt(body_of(content.clone())), LIMIT).await?;
        fs::write(here.join("data.age"), &stored)?;
        run(here, &["age", "-d", "-i", "backup.key", "data.age"], "data")?;
        assert!(fs::read(here.join("data"))? == content);
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs the age command"]
async fn we_read_what_stock_age_writes() -> Result<(), BoxError> {
    let directory = tempfile::tempdir()?;
    let here = directory.path();
    run(here, &["age-keygen"], "identity.txt")?;
    run(here, &["age-keygen"], "backup.key")?;
    let identities = load_identities(&fs::read_to_string(here.join("identity.txt"))?)?;
    let own = load_identities(&fs::read_to_string(here.join("backup.key"))?)?;
    let (recipient, own) = (
        identities.recipients().to_texts(),
        own.recipients().to_texts(),
    );
    fs::write(here.join("data"), content())?;
    run(here, &["age", "-r", &recipient[0], "backup.key"], "key.age")?;
    run(
        here,
        &["age", "-a", "-r", &recipient[0], "backup.key"],
        "armored.age",
    )?;
    run(here, &["age", "-r", &own[0], "data"], "data.age")?;

    let cipher = AgeCipher::new(Recipients::default(), identities);
    for key in ["key.age", "armored.age"] {
        let key = cipher.open(&fs::read(here.join(key))?)?;
        let stored = fs::read(here.join("data.age"))?;
        let again = collect(key.decrypt(body_of(stored)), LIMIT).await?;
        assert!(again == content());
    }
    Ok(())
}
