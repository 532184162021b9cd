//! Values of the configuration whose form only an adapter knows.

use backup_compress::Compression;
use backup_config::Config;
use backup_core::error::{PortError, chain};
use backup_crypt::parse_recipients;
use backup_store::Scheme;

use crate::database_name::has_password;
use crate::place::without_login;
use crate::{redis, schedules};

/// A value that cannot be used, and where it stands.
pub(crate) struct WrongValue {
    pub(crate) path: Vec<String>,
    /// What is wrong and what is allowed; no secret is in it.
    pub(crate) message: String,
}

impl WrongValue {
    pub(crate) fn new(path: &[&str], message: impl Into<String>) -> Self {
        Self {
            path: path.iter().map(|&key| key.to_owned()).collect(),
            message: message.into(),
        }
    }
}

/// Refuses what cannot be used, before anything is done: what only a backup would find at night
/// is found when the file is written, and what may be a secret is never shown.
pub(crate) fn check(config: &Config) -> Result<(), WrongValue> {
    compression(&["defaults", "compression"], &config.defaults.compression)?;
    for (name, source) in &config.source {
        if source.database.as_deref().is_some_and(has_password) {
            let path = ["source", name, "database"];
            let message = "a connection string with a password; allowed is the name of a database";
            return Err(WrongValue::new(&path, message));
        }
        if let Some(text) = &source.compression {
            compression(&["source", name, "compression"], text)?;
        }
        if let Some(own) = &source.encryption {
            recipients(
                &["source", name, "encryption", "recipients"],
                &own.recipients,
            )?;
        }
    }
    recipients(&["encryption", "recipients"], &config.encryption.recipients)?;
    for (name, place) in &config.destination {
        url(&["destination", name, "url"], &place.url)?;
        if let Some(endpoint) = &place.endpoint {
            without_secret(&["destination", name, "endpoint"], endpoint)?;
        }
    }
    for (name, policy) in &config.retention {
        let path = ["retention", name, "timezone"];
        schedules::zone(&path, policy.timezone.as_ref())?;
    }
    if let Some(bot) = &config.telegram_bot {
        let checked = backup_telegram::check_base_url(&bot.base_url);
        let path = ["telegram_bot", "base_url"];
        checked.map_err(|error| WrongValue::new(&path, error.to_string()))?;
    }
    schedules::schedules(config)?;
    redis::check(config)
}

fn compression(path: &[&str], text: &str) -> Result<(), WrongValue> {
    match text.parse::<Compression>() {
        Ok(_) => Ok(()),
        Err(error) => Err(WrongValue::new(path, chain(&error))),
    }
}

fn recipients(path: &[&str], keys: &[String]) -> Result<(), WrongValue> {
    match parse_recipients(keys) {
        Ok(_) => Ok(()),
        Err(error) => Err(WrongValue::new(path, chain(&error))),
    }
}

fn url(path: &[&str], url: &str) -> Result<(), WrongValue> {
    without_secret(path, url)?;
    let said = |error: PortError| match error.hint() {
        Some(hint) => format!("{}; {hint}", chain(&error)),
        None => chain(&error),
    };
    match Scheme::of(url) {
        Ok(_) => Ok(()),
        Err(error) => Err(WrongValue::new(path, said(error))),
    }
}

/// The configuration is shown, and a URL with it.
fn without_secret(path: &[&str], url: &str) -> Result<(), WrongValue> {
    if without_login(url) == url {
        return Ok(());
    }
    let message = "a URL holds no login; say access_key_id and secret_access_key beside it";
    Err(WrongValue::new(path, message))
}
