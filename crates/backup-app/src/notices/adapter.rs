//! Notifiers of the configuration, with their secrets.

use std::sync::Arc;

use backup_config::{
    Environment, MailTls, NotifyConfig, NotifyKind, SecretRef, TELEGRAM_API, WebhookShape,
};
use backup_core::error::{ErrorKind, PortError};
use backup_core::notifier::Notifier;
use backup_notify::{
    HttpSettings, Login, Mail, MailSettings, Patience, Ping, Security, Shape, Webhook,
};
use backup_telegram::Client;
use secrecy::SecretString;

use super::telegram::Chat;
use crate::clock::SystemClock;
use crate::error::AppError;

/// The notifier of that name. Secrets are fetched, which may take a while.
pub(super) fn adapter(
    name: &str,
    config: &NotifyConfig,
    environment: &Environment,
) -> Result<Arc<dyn Notifier>, AppError> {
    let setup = |error| AppError::setup(format!("set up notifier {name}"), error);
    let http = HttpSettings {
        ca: authorities(config)?,
        allow_plain: config.allow_plain,
        ..HttpSettings::new(Arc::new(SystemClock))
    };
    let secret = |key: &str, reference: &Option<SecretRef>| -> Result<SecretString, AppError> {
        match reference {
            Some(reference) => Ok(reference.resolve(environment)?),
            None => Err(setup(missing(key))),
        }
    };
    Ok(match config.kind {
        NotifyKind::Mail => Arc::new(mail(config, environment, http.ca).map_err(|e| e.or(setup))?),
        NotifyKind::Webhook => {
            let url = secret("url", &config.url)?;
            let key = config.secret.as_ref();
            let key = key.map(|key| key.resolve(environment)).transpose()?;
            let shape = shape(config.shape);
            Arc::new(Webhook::new(&url, shape, key, http).map_err(setup)?)
        }
        NotifyKind::Ping => {
            let url = secret("url", &config.url)?;
            Arc::new(Ping::new(&url, http).map_err(setup)?)
        }
        NotifyKind::Telegram => {
            let token = secret("token", &config.token)?;
            let base = config.base_url.as_deref().unwrap_or(TELEGRAM_API);
            let client = Client::new(base, token).map_err(|error| setup(error.into()))?;
            Arc::new(Chat::new(client, config.chat_id.unwrap_or_default()))
        }
    })
}

/// Either of two layers' errors.
enum Wrong {
    Port(PortError),
    App(AppError),
}

impl Wrong {
    fn or(self, setup: impl FnOnce(PortError) -> AppError) -> AppError {
        match self {
            Self::Port(error) => setup(error),
            Self::App(error) => error,
        }
    }
}

/// Loading the configuration has found that.
fn missing(key: &str) -> PortError {
    PortError::new(ErrorKind::InvalidInput, format!("{key} is missing"))
}

fn authorities(config: &NotifyConfig) -> Result<Option<Vec<u8>>, AppError> {
    let Some(path) = &config.ca_file else {
        return Ok(None);
    };
    let read = std::fs::read(path).map_err(|source| AppError::File {
        operation: format!("read {}", path.display()),
        source,
    });
    read.map(Some)
}

fn mail(
    config: &NotifyConfig,
    environment: &Environment,
    ca: Option<Vec<u8>>,
) -> Result<Mail, Wrong> {
    let login = match (&config.user, &config.password) {
        (Some(user), Some(password)) => Some(Login {
            user: user.clone(),
            password: password
                .resolve(environment)
                .map_err(|error| Wrong::App(error.into()))?,
        }),
        _ => None,
    };
    Mail::new(MailSettings {
        host: config.host.clone().unwrap_or_default(),
        port: config.port,
        security: match config.tls {
            None | Some(MailTls::Starttls) => Security::StartTls,
            Some(MailTls::Implicit) => Security::Tls,
            Some(MailTls::None) => Security::Plain,
        },
        ca,
        login,
        from: config.from.clone().unwrap_or_default(),
        to: config.to.clone(),
        clock: Arc::new(SystemClock),
        patience: Patience::default(),
    })
    .map_err(Wrong::Port)
}

fn shape(shape: Option<WebhookShape>) -> Shape {
    match shape {
        None | Some(WebhookShape::Generic) => Shape::Generic,
        Some(WebhookShape::Slack) => Shape::Slack,
        Some(WebhookShape::Discord) => Shape::Discord,
        Some(WebhookShape::Mattermost) => Shape::Mattermost,
        Some(WebhookShape::Teams) => Shape::Teams,
    }
}
