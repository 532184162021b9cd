//! Mail: text and HTML that say the same.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use askama::Template;
use async_trait::async_trait;
use backup_core::clock::Clock;
use backup_core::error::{ErrorKind, PortError, chain};
use backup_core::notifier::{Fact, Notice, NoticeEvent, Notifier, Receipt, Tone};
use backup_core::text::{Line, shown};
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::{Error as SmtpError, response::Response};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use secrecy::{ExposeSecret as _, SecretString};

use crate::patience::{Failure, Patience};
use crate::redact::Redactor;
use crate::text::{body, colour};

/// How long the server may take for one answer.
const ANSWER: Duration = Duration::from_secs(8);

/// A longer subject is cut: clients show less.
const SUBJECT: usize = 200;

/// How the connection is kept from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// It begins in the clear and goes on only with TLS.
    StartTls,
    /// TLS from the first byte.
    Tls,
    /// Not at all.
    Plain,
}

impl Security {
    fn port(self) -> u16 {
        match self {
            Self::StartTls => 587,
            Self::Tls => 465,
            Self::Plain => 25,
        }
    }
}

/// Who sends.
#[derive(Debug, Clone)]
pub struct Login {
    /// The account.
    pub user: String,
    /// Its password.
    pub password: SecretString,
}

/// One or more mailboxes, and the server that takes mail for them.
#[derive(Debug, Clone)]
pub struct MailSettings {
    /// The server.
    pub host: String,
    /// Its port; the usual one if absent.
    pub port: Option<u16>,
    /// How the connection is kept from others.
    pub security: Security,
    /// Certificates of more authorities to believe, as PEM.
    pub ca: Option<Vec<u8>>,
    /// Who sends, if the server wants to know.
    pub login: Option<Login>,
    /// `Backups <backup@example.com>`.
    pub from: String,
    /// To whom.
    pub to: Vec<String>,
    /// Tells the time that mails carry.
    pub clock: Arc<dyn Clock>,
    /// How long it may take.
    pub patience: Patience,
}

/// Sends mail.
pub struct Mail {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    server: String,
    from: Mailbox,
    to: Vec<Mailbox>,
    clock: Arc<dyn Clock>,
    patience: Patience,
    redactor: Redactor,
}

impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Mail");
        debug.field("server", &self.server).finish_non_exhaustive()
    }
}

/// The page of a mail.
#[derive(Template)]
#[template(path = "mail.html")]
struct Page<'a> {
    title: &'a Line,
    label: &'a str,
    colour: &'a str,
    at: String,
    host: &'a str,
    remarks: &'a [Line],
    error: Option<&'a Line>,
    hint: Option<&'a Line>,
    facts: &'a [Fact],
}

fn wrong(message: impl Into<String>) -> PortError {
    PortError::new(ErrorKind::InvalidInput, message)
}

impl Mail {
    /// Sends as these settings say.
    ///
    /// # Errors
    /// `InvalidInput` when an address is none, and when a password would cross the network in the
    /// clear without anybody having said so.
    pub fn new(settings: MailSettings) -> Result<Self, PortError> {
        let mailbox = |text: &str| -> Result<Mailbox, PortError> {
            let read = text.parse();
            read.map_err(|_| wrong(format!("{:?} is no mail address", shown(text))))
        };
        let to: Vec<_> = settings
            .to
            .iter()
            .map(|text| mailbox(text))
            .collect::<Result<_, _>>()?;
        if to.is_empty() {
            return Err(wrong("there is nobody to write to"));
        }
        let port = settings.port.unwrap_or_else(|| settings.security.port());
        let host = settings.host.as_str();
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
            .port(port)
            .timeout(Some(ANSWER))
            .tls(tls(&settings)?);
        let mut secrets = Vec::new();
        if let Some(login) = &settings.login {
            let password = login.password.expose_secret().to_owned();
            secrets.push(password.clone());
            builder = builder.credentials(Credentials::new(login.user.clone(), password));
        }
        Ok(Self {
            transport: builder.build(),
            server: format!("{host}:{port}"),
            from: mailbox(&settings.from)?,
            to,
            clock: settings.clock,
            patience: settings.patience,
            redactor: Redactor::new(secrets),
        })
    }

    fn message(&self, notice: &Notice) -> Result<Message, PortError> {
        let subject = format!("[{}] {}", label(notice), notice.title);
        let mut message = Message::builder()
            .from(self.from.clone())
            .subject(crate::text::cut(&subject, SUBJECT))
            .date(SystemTime::from(self.clock.now()))
            .message_id(None)
            // Nobody's holiday is of interest here.
            .raw_header(header("Auto-Submitted", "auto-generated"));
        if notice.tone == Tone::Bad {
            message = message.raw_header(header("X-Priority", "1"));
        }
        for to in &self.to {
            message = message.to(to.clone());
        }
        let page = html(notice)?;
        let text = format!("{}\n\n{}", notice.title, body(notice));
        let parts = MultiPart::alternative_plain_html(text, page);
        message
            .multipart(parts)
            .map_err(|error| wrong("the mail cannot be made").with_source(error))
    }

    /// What went wrong, without what must not be read.
    fn failure(&self, error: &SmtpError) -> Failure {
        let code = error.status().map(u16::from);
        let (kind, hint) = match code {
            Some(530 | 534 | 535) => (
                ErrorKind::PermissionDenied,
                Some("look at user and password of the notifier"),
            ),
            Some(500..=599) => (ErrorKind::InvalidInput, None),
            _ if error.is_timeout() => (ErrorKind::Timeout, None),
            // What is wrong with a certificate does not pass.
            _ if error.is_tls() => (
                ErrorKind::PermissionDenied,
                Some("look at tls and ca_file of the notifier"),
            ),
            _ if error.is_client() => (ErrorKind::InvalidInput, None),
            _ => (ErrorKind::Unavailable, None),
        };
        let said = self.redactor.clean(&shown(&chain(error)));
        let text = format!("the mail server {}: {said}", self.server);
        let mut port = PortError::new(kind, text);
        if let Some(hint) = hint {
            port = port.with_hint(hint);
        }
        if kind.is_retryable() {
            Failure::passing(port)
        } else {
            Failure::lasting(port)
        }
    }
}

/// How the connection begins.
fn tls(settings: &MailSettings) -> Result<Tls, PortError> {
    if settings.security == Security::Plain {
        return Ok(Tls::None);
    }
    let mut parameters = TlsParameters::builder(settings.host.clone());
    if let Some(pem) = &settings.ca {
        let read = Certificate::from_pem(pem);
        let read = read.map_err(|_| wrong("the file of authorities has no certificates"))?;
        parameters = parameters.add_root_certificate(read);
    }
    let parameters = parameters.build().map_err(|error| {
        PortError::new(ErrorKind::Internal, "TLS cannot be set up").with_source(error)
    })?;
    Ok(match settings.security {
        Security::Tls => Tls::Wrapper(parameters),
        _ => Tls::Required(parameters),
    })
}

/// A header of ours, whose text is ours too.
fn header(name: &'static str, value: &str) -> HeaderValue {
    let name = HeaderName::new_from_ascii_str(name);
    HeaderValue::new(name, value.to_owned())
}

/// The event in a word.
fn label(notice: &Notice) -> &'static str {
    match (notice.event, notice.tone) {
        (NoticeEvent::Started, _) => "BEGUN",
        (NoticeEvent::Success, _) => "OK",
        (NoticeEvent::Failure, Tone::Warning) => "WARNING",
        (NoticeEvent::Failure, _) => "FAILED",
        (NoticeEvent::Stale, Tone::Warning) => "CHECK",
        (NoticeEvent::Stale, _) => "STALE",
        (NoticeEvent::Recovered, _) => "RECOVERED",
        (NoticeEvent::Test, _) => "TEST",
    }
}

/// The notice as a page without script, style sheet or picture: mail clients drop them.
fn html(notice: &Notice) -> Result<String, PortError> {
    let page = Page {
        title: &notice.title,
        label: label(notice),
        colour: colour(notice.tone),
        at: notice.at.format("%Y-%m-%d %H:%M:%S UTC").to_string(),
        host: notice.host.as_str(),
        remarks: &notice.remarks,
        error: notice.error.as_ref(),
        hint: notice.hint.as_ref(),
        facts: &notice.facts,
    };
    page.render().map_err(|error| {
        PortError::new(ErrorKind::Internal, "the mail cannot be made").with_source(error)
    })
}

fn said(server: &str, response: &Response) -> Receipt {
    let words: Vec<_> = response.message().map(shown).collect();
    Receipt {
        said: format!("{server} took it: {} {}", response.code(), words.join(" ")),
    }
}

#[async_trait]
impl Notifier for Mail {
    async fn notify(&self, notice: &Notice) -> Result<Receipt, PortError> {
        // Each try has the same name, so that a mail that arrives twice is seen as one.
        let message = self.message(notice)?;
        let send = || async {
            let sent = self.transport.send(message.clone()).await;
            sent.map_err(|error| self.failure(&error))
        };
        let response = self.patience.tried(send).await;
        response.map(|response| said(&self.server, &response))
    }
}

#[cfg(test)]
mod tests {
    use backup_testing::FixedClock;

    use super::*;
    use crate::text::tests::{HOSTILE, failure};

    fn settings() -> MailSettings {
        MailSettings {
            host: "127.0.0.1".to_owned(),
            port: Some(1),
            security: Security::Plain,
            ca: None,
            login: Some(Login {
                user: "backup".to_owned(),
                password: "canary-password".into(),
            }),
            from: "Backups <backup@example.com>".to_owned(),
            to: vec![
                "noc@example.com".to_owned(),
                "Ops <ops@example.com>".to_owned(),
            ],
            clock: Arc::new(FixedClock::default()),
            patience: Patience {
                limit: Duration::from_millis(300),
                ..Patience::default()
            },
        }
    }

    fn formatted(notice: &Notice) -> String {
        let mail = Mail::new(settings()).unwrap();
        String::from_utf8(mail.message(notice).unwrap().formatted()).unwrap()
    }

    #[test]
    fn a_mail_has_both_forms_and_says_who_wrote_it() {
        let mail = formatted(&failure("shop"));
        let (headers, content) = mail.split_once("\r\n\r\n").unwrap();
        for header in [
            "From: Backups <backup@example.com>",
            "To: noc@example.com, Ops <ops@example.com>",
            "Subject: [FAILED] Backup of shop failed",
            "Auto-Submitted: auto-generated",
            "X-Priority: 1",
        ] {
            assert!(headers.contains(header), "{headers}");
        }
        assert!(headers.contains("multipart/alternative"), "{headers}");
        assert!(content.contains("text/plain") && content.contains("text/html"));
        assert!(content.contains("Error: dump shop: connection refused"));
        assert!(content.contains("#b42318"), "{content}");
    }

    #[test]
    fn a_name_adds_no_header_and_no_markup() {
        let mail = formatted(&failure(HOSTILE));
        let (headers, _) = mail.split_once("\r\n\r\n").unwrap();
        let names: Vec<_> = headers
            .lines()
            .filter(|line| !line.starts_with([' ', '\t']))
            .filter_map(|line| line.split_once(':'))
            .map(|(name, _)| name)
            .collect();
        assert!(!names.contains(&"Bcc"), "{headers}");
        let plain = formatted(&failure("a"));
        let (plain, _) = plain.split_once("\r\n\r\n").unwrap();
        let unfolded = plain.lines().filter(|line| !line.starts_with([' ', '\t']));
        assert_eq!(names.len(), unfolded.count(), "{headers}");
        let page = html(&failure(HOSTILE)).unwrap();
        assert!(!page.contains("<img"), "{page}");
        assert!(page.contains("sh\\r\\nBcc: eve@x\\n"), "{page}");
    }

    #[test]
    fn addresses_that_are_none_are_refused() {
        for to in [
            vec![],
            vec!["nobody".to_owned()],
            vec!["a@b\r\nBcc: c@d".to_owned()],
        ] {
            let error = Mail::new(MailSettings { to, ..settings() }).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert_eq!(error.to_string().lines().count(), 1);
        }
    }

    #[tokio::test]
    async fn the_password_is_in_no_error() {
        let mail = Mail::new(settings()).unwrap();
        let error = mail.notify(&failure("shop")).await.unwrap_err();
        let text = format!("{} {error:?} {mail:?} {:?}", chain(&error), settings());
        assert!(text.contains("127.0.0.1:1"), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }
}
