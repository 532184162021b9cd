//! `[notify.NAME]`: who is told how runs end.

use std::path::PathBuf;

use backup_core::notifier::NoticeEvent;
use backup_core::run_record::Operation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::secret::SecretRef;

/// `[notify.NAME]`. Keys of other kinds are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotifyConfig {
    /// By what.
    pub kind: NotifyKind,
    /// What is told; failure, stale and recovered if absent, and of pings started, success and failure,
    /// which are all that there are.
    #[serde(default)]
    pub on: Option<Vec<NotifyEvent>>,
    /// Names of sources, with `*` for any characters.
    #[serde(default = "all")]
    pub sources: Vec<String>,
    /// Of which work; of all if absent, and of pings of backups.
    #[serde(default)]
    pub operations: Option<Vec<NotifyOperation>>,
    /// Whether a connection without TLS is meant.
    #[serde(default)]
    pub allow_plain: bool,
    /// Certificates of the authorities to believe, beside those of the system.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Mail: the server.
    #[serde(default)]
    pub host: Option<String>,
    /// Mail: its port; 587, 465 or 25 if absent, as tls says.
    #[serde(default)]
    pub port: Option<u16>,
    /// Mail: how TLS begins; `starttls` if absent.
    #[serde(default)]
    pub tls: Option<MailTls>,
    /// Mail: who sends, if the server wants to know.
    #[serde(default)]
    pub user: Option<String>,
    /// Mail: his password.
    #[serde(default)]
    pub password: Option<SecretRef>,
    /// Mail: from whom, `Backups <backup@example.com>`.
    #[serde(default)]
    pub from: Option<String>,
    /// Mail: to whom.
    #[serde(default)]
    pub to: Vec<String>,
    /// Webhook and ping: the address, which is a secret.
    #[serde(default)]
    pub url: Option<SecretRef>,
    /// Webhook: whose form of JSON; `generic`, our own, if absent.
    #[serde(default)]
    pub shape: Option<WebhookShape>,
    /// Webhook: what requests are signed with.
    #[serde(default)]
    pub secret: Option<SecretRef>,
    /// Telegram: the token of the bot.
    #[serde(default)]
    pub token: Option<SecretRef>,
    /// Telegram: the chat.
    #[serde(default)]
    pub chat_id: Option<i64>,
    /// Telegram: another server than the service's own.
    #[serde(default)]
    pub base_url: Option<String>,
}

/// By what somebody is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NotifyKind {
    /// Mail.
    Mail,
    /// JSON to an address, also of chats.
    Webhook,
    /// Requests that a service waits for.
    Ping,
    /// A message of a bot of Telegram.
    Telegram,
}

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NotifyEvent {
    /// A run begins.
    Started,
    /// A run did what it was to do.
    Success,
    /// A run failed, or did not do all.
    Failure,
    /// What `check` finds.
    Stale,
    /// Either of these is over.
    Recovered,
}

/// Work that is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "they are the names of operations")]
pub enum NotifyOperation {
    Backup,
    Restore,
    Undo,
    Verify,
    Drill,
    Copy,
    Prune,
    Rekey,
}

/// How TLS begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// After a word in the clear; without it, nothing is sent.
    Starttls,
    /// With the first byte.
    Implicit,
    /// Not at all; `allow_plain` must be said too.
    None,
}

/// Whose form of JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "they are the names of services")]
pub enum WebhookShape {
    Generic,
    Slack,
    Discord,
    Mattermost,
    Teams,
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

/// A longer name makes keys that not every store takes.
const MAX_NAME: usize = 50;

impl NotifyKind {
    /// The name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mail => "mail",
            Self::Webhook => "webhook",
            Self::Ping => "ping",
            Self::Telegram => "telegram",
        }
    }
}

impl From<NotifyEvent> for NoticeEvent {
    fn from(event: NotifyEvent) -> Self {
        match event {
            NotifyEvent::Started => Self::Started,
            NotifyEvent::Success => Self::Success,
            NotifyEvent::Failure => Self::Failure,
            NotifyEvent::Stale => Self::Stale,
            NotifyEvent::Recovered => Self::Recovered,
        }
    }
}

impl From<NotifyOperation> for Operation {
    fn from(operation: NotifyOperation) -> Self {
        match operation {
            NotifyOperation::Backup => Self::Backup,
            NotifyOperation::Restore => Self::Restore,
            NotifyOperation::Undo => Self::Undo,
            NotifyOperation::Verify => Self::Verify,
            NotifyOperation::Drill => Self::Drill,
            NotifyOperation::Copy => Self::Copy,
            NotifyOperation::Prune => Self::Prune,
            NotifyOperation::Rekey => Self::Rekey,
        }
    }
}

impl NotifyConfig {
    /// What is told.
    #[must_use]
    pub fn events(&self) -> Vec<NoticeEvent> {
        use NotifyEvent::{Failure, Recovered, Stale, Started, Success};
        let usual: &[_] = match self.kind {
            NotifyKind::Ping => &[Started, Success, Failure],
            _ => &[Failure, Stale, Recovered],
        };
        let said = self.on.as_deref().unwrap_or(usual);
        said.iter().map(|event| (*event).into()).collect()
    }

    /// Whether it is told of this work.
    #[must_use]
    pub fn is_about(&self, operation: &Operation) -> bool {
        match (&self.operations, self.kind) {
            (Some(said), _) => said.iter().any(|one| Operation::from(*one) == *operation),
            // A service that waits for backups must not take a prune for one.
            (None, NotifyKind::Ping) => *operation == Operation::Backup,
            (None, _) => !matches!(
                operation,
                Operation::Pin | Operation::Unpin | Operation::Other(_)
            ),
        }
    }

    /// Which key is wrong, and why. `is_configured` says of a source whether it is there.
    pub(crate) fn check(
        &self,
        name: &str,
        is_configured: impl Fn(&str) -> bool,
    ) -> Result<(), (&'static str, String)> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if name.len() > MAX_NAME || !name.chars().all(plain) {
            let message = "the name may have 50 letters, digits, - and _";
            return Err(("kind", message.to_owned()));
        }
        let kind = self.kind.as_str();
        for (key, is_said, kinds, needed) in self.keys() {
            let is_its = kinds.contains(&self.kind);
            if is_said && !is_its {
                let message = format!("a notifier of the kind {kind:?} has no such key");
                return Err((key, message));
            }
            if is_its && needed && !is_said {
                let message = format!("a notifier of the kind {kind:?} needs it");
                return Err((key, message));
            }
        }
        self.check_values()?;
        let unknown = self
            .sources
            .iter()
            .find(|name| !name.contains('*') && !is_configured(name));
        match unknown {
            Some(name) => Err(("sources", format!("source {name:?} is not configured"))),
            None => Ok(()),
        }
    }

    /// Values that contradict each other, or tell nobody.
    fn check_values(&self) -> Result<(), (&'static str, String)> {
        use NotifyEvent::{Failure, Recovered, Stale};
        let wrong = if self.sources.is_empty() {
            ("sources", "must name a source, or be [\"*\"] for all")
        } else if self.on.as_ref().is_some_and(Vec::is_empty) {
            ("on", "must name an event")
        } else if self.says(Recovered) && !self.says(Failure) && !self.says(Stale) {
            (
                "on",
                "recovered needs failure or stale, of which it tells the end",
            )
        } else if self.kind == NotifyKind::Ping && (self.says(Stale) || self.says(Recovered)) {
            (
                "on",
                "a ping tells of runs: started, success and failure; that none comes is for its service to notice",
            )
        } else if self.operations.as_ref().is_some_and(Vec::is_empty) {
            ("operations", "must name an operation")
        } else if self.tls == Some(MailTls::None) && !self.allow_plain {
            (
                "tls",
                "without TLS others can read mail and password: say allow_plain = true if that is meant",
            )
        } else if self.user.is_some() != self.password.is_some() {
            ("password", "user and password belong together")
        } else {
            return Ok(());
        };
        Err((wrong.0, wrong.1.to_owned()))
    }

    fn says(&self, event: NotifyEvent) -> bool {
        self.on.as_ref().is_some_and(|said| said.contains(&event))
    }

    /// Each key of a kind: whether it is said, whose it is, and whether these need it.
    fn keys(&self) -> [(&'static str, bool, &'static [NotifyKind], bool); 15] {
        use NotifyKind::{Mail, Ping, Telegram, Webhook};
        [
            ("host", self.host.is_some(), &[Mail], true),
            ("port", self.port.is_some(), &[Mail], false),
            ("tls", self.tls.is_some(), &[Mail], false),
            ("user", self.user.is_some(), &[Mail], false),
            ("password", self.password.is_some(), &[Mail], false),
            ("from", self.from.is_some(), &[Mail], true),
            ("to", !self.to.is_empty(), &[Mail], true),
            ("url", self.url.is_some(), &[Webhook, Ping], true),
            ("shape", self.shape.is_some(), &[Webhook], false),
            ("secret", self.secret.is_some(), &[Webhook], false),
            ("token", self.token.is_some(), &[Telegram], true),
            ("chat_id", self.chat_id.is_some(), &[Telegram], true),
            ("base_url", self.base_url.is_some(), &[Telegram], false),
            (
                "ca_file",
                self.ca_file.is_some(),
                &[Mail, Webhook, Ping],
                false,
            ),
            (
                "allow_plain",
                self.allow_plain,
                &[Mail, Webhook, Ping],
                false,
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use crate::environment::Environment;
    use crate::file::Config;

    const MAIL: &str = "kind = 'mail'\nhost = 'mail'\nfrom = 'a@b.c'\nto = ['d@e.f']\n";

    /// The message, or nothing if it loads.
    fn said(toml: &str) -> String {
        let toml = format!("[source.shop]\n[notify.noc]\n{toml}");
        match Config::from_toml(&toml, &Environment::default()) {
            Ok(_) => String::new(),
            Err(error) => format!("{error} {}", error.hint().unwrap_or_default()),
        }
    }

    #[test]
    fn each_kind_has_its_own_keys() {
        for (toml, expected) in [
            (MAIL.to_owned(), ""),
            (format!("{MAIL}sources = ['shop', 's*']"), ""),
            (
                format!("{MAIL}sources = ['ship']"),
                "\"ship\" is not configured",
            ),
            (format!("{MAIL}sources = []"), "must name a source"),
            (format!("{MAIL}on = []"), "must name an event"),
            (
                format!("{MAIL}on = ['success', 'recovered']"),
                "needs failure",
            ),
            (format!("{MAIL}on = ['stale', 'recovered']"), ""),
            (
                "kind = 'ping'\nurl = { env = 'U' }\non = ['stale']".to_owned(),
                "a ping tells of runs",
            ),
            (format!("{MAIL}chat_id = 5"), "notify.noc.chat_id"),
            (format!("{MAIL}hosts = 'x'"), "did you mean \"host\"?"),
            (format!("{MAIL}tls = 'none'"), "allow_plain = true"),
            (format!("{MAIL}tls = 'none'\nallow_plain = true"), ""),
            (format!("{MAIL}user = 'x'"), "belong together"),
            (format!("{MAIL}password = 'canary'"), "notify.noc.password"),
            ("kind = 'mail'".to_owned(), "\"mail\" needs it"),
            ("kind = 'pigeon'".to_owned(), "notify.noc.kind"),
            ("on = ['failure']".to_owned(), "kind"),
            (
                "kind = 'webhook'\nurl = { env = 'U' }\nshape = 'slack'".to_owned(),
                "",
            ),
            (
                "kind = 'webhook'\nurl = 'https://canary'".to_owned(),
                "notify.noc.url",
            ),
            (
                "kind = 'ping'\nurl = { env = 'U' }\nshape = 'slack'".to_owned(),
                "notify.noc.shape",
            ),
            (
                "kind = 'telegram'\ntoken = { env = 'T' }\nchat_id = -100".to_owned(),
                "",
            ),
            (
                "kind = 'telegram'\ntoken = { env = 'T' }".to_owned(),
                "notify.noc.chat_id",
            ),
        ] {
            let said = said(&toml);
            assert!(said.contains(expected), "{toml}: {said}");
            assert_eq!(said.is_empty(), expected.is_empty(), "{toml}: {said}");
            assert!(!said.contains("canary"), "{said}");
        }
        let toml = format!("[notify.'a/b']\n{MAIL}");
        let error = Config::from_toml(&toml, &Environment::default()).unwrap_err();
        assert!(error.to_string().contains("50 letters"), "{error}");
    }
}
