//! One request at a time over HTTP, whose address is nobody's business.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backup_core::clock::Clock;
use backup_core::error::{ErrorKind, PortError, chain};
use backup_core::text::shown;
use chrono::DateTime;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Certificate, Client, RequestBuilder, Url};

use crate::patience::{Failure, Patience};
use crate::redact::Redactor;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(8);

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(10);

/// How much of an answer is read.
const MAX_ANSWER: usize = 64 << 10;

/// How much of it is shown.
const SHOWN: usize = 200;

/// How requests are made.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Tells the time that signatures carry.
    pub clock: Arc<dyn Clock>,
    /// Certificates of more authorities to believe, as PEM.
    pub ca: Option<Vec<u8>>,
    /// Whether an address without TLS is meant.
    pub allow_plain: bool,
    /// How long it may take.
    pub patience: Patience,
}

impl HttpSettings {
    /// With TLS alone, and the authorities of the system.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            ca: None,
            allow_plain: false,
            patience: Patience::default(),
        }
    }
}

/// An address that is a secret, and how it is asked.
pub(crate) struct Http {
    client: Client,
    url: Url,
    settings: HttpSettings,
    redactor: Redactor,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

/// What the other side said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Http {
    /// Asks at `url`; `secrets` are never shown, beside the address itself.
    pub(crate) fn new(
        url: &str,
        secrets: impl IntoIterator<Item = String>,
        settings: HttpSettings,
    ) -> Result<Self, PortError> {
        let wrong = |message: &str| PortError::new(ErrorKind::InvalidInput, message);
        let url = Url::parse(url.trim()).map_err(|_| wrong("the url is none"))?;
        match url.scheme() {
            "https" => {}
            "http" if settings.allow_plain => {}
            "http" => {
                let error = wrong("the url is one without TLS, so others could read it");
                return Err(error.with_hint("say https, or allow_plain = true if that is meant"));
            }
            _ => return Err(wrong("the url is neither https nor http")),
        }
        let mut builder = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .timeout(REQUEST)
            .user_agent(concat!("backup/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = &settings.ca {
            let read = Certificate::from_pem_bundle(pem);
            let read = read.map_err(|_| wrong("the file of authorities has no certificates"))?;
            builder = builder.tls_certs_merge(read);
        }
        let client = builder.build().map_err(|error| {
            let message = "the client for HTTP cannot be made";
            PortError::new(ErrorKind::Internal, message).with_source(error.without_url())
        })?;
        let redactor = Redactor::new(parts(&url).into_iter().chain(secrets));
        Ok(Self {
            client,
            url,
            settings,
            redactor,
        })
    }

    /// The address, for whoever makes others of it.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// Tells the time.
    pub(crate) fn clock(&self) -> &dyn Clock {
        self.settings.clock.as_ref()
    }

    /// Makes a request until it goes or the patience is over. `request` makes it anew for each try.
    pub(crate) async fn ask(
        &self,
        request: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Answer, PortError> {
        let once = || self.once(request(&self.client));
        self.settings.patience.tried(once).await
    }

    async fn once(&self, request: RequestBuilder) -> Result<Answer, Failure> {
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(self.unreached(error)),
        };
        let status = response.status();
        let after = self.after(response.headers());
        let mut body = Vec::new();
        while body.len() < MAX_ANSWER {
            // Who took it has taken it, whatever becomes of his answer.
            match response.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) | Err(_) => break,
            }
        }
        let text = String::from_utf8_lossy(&body);
        let answer = Answer {
            status: status.as_u16(),
            text: self.shown(&text),
        };
        if status.is_success() {
            return Ok(answer);
        }
        let said = match answer.text.as_str() {
            "" => String::new(),
            text => format!(": {text}"),
        };
        let message = format!("the answer is {}{said}", answer.status);
        let (kind, hint) = match answer.status {
            300..=399 => (
                ErrorKind::InvalidInput,
                Some("redirects are not followed: configure where it leads to"),
            ),
            401 | 403 | 404 | 410 => (
                ErrorKind::PermissionDenied,
                Some("the address, or what is secret in it, is not valid any more"),
            ),
            408 | 429 | 500..=599 => (ErrorKind::Unavailable, None),
            _ => (ErrorKind::InvalidInput, None),
        };
        let mut error = PortError::new(kind, message);
        if let Some(hint) = hint {
            error = error.with_hint(hint);
        }
        Err(Failure {
            error,
            passes: kind == ErrorKind::Unavailable,
            after,
        })
    }

    fn unreached(&self, error: reqwest::Error) -> Failure {
        let (timeout, builder) = (error.is_timeout(), error.is_builder());
        let kind = match (timeout, builder) {
            (true, _) => ErrorKind::Timeout,
            (_, true) => ErrorKind::InvalidInput,
            _ => ErrorKind::Unavailable,
        };
        let text = self.redactor.clean(&shown(&chain(&error.without_url())));
        Failure {
            error: PortError::new(kind, text),
            passes: !builder,
            after: None,
        }
    }

    /// How long the other side wants to be left alone: seconds, or a date.
    fn after(&self, headers: &HeaderMap) -> Option<Duration> {
        let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let then = DateTime::parse_from_rfc2822(text).ok()?;
        let left = then.to_utc() - self.clock().now();
        Some(left.to_std().unwrap_or(Duration::ZERO))
    }

    fn shown(&self, text: &str) -> String {
        let text = self.redactor.clean(&shown(text.trim()));
        match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }
}

/// The pieces of an address that others must not see: all of it, and what comes after the host.
fn parts(url: &Url) -> Vec<String> {
    let mut parts = vec![url.to_string(), url.path().to_owned()];
    parts.extend(url.query().map(str::to_owned));
    parts.extend(url.password().map(str::to_owned));
    let pieces = url.path().split('/').filter(|piece| piece.len() > 7);
    parts.extend(pieces.map(str::to_owned));
    parts.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
    parts
}

#[cfg(test)]
mod tests {
    use backup_testing::FixedClock;

    use super::*;

    fn http(url: &str) -> Result<Http, PortError> {
        let mut settings = HttpSettings::new(Arc::new(FixedClock::default()));
        settings.allow_plain = true;
        Http::new(url, [], settings)
    }

    #[test]
    fn an_address_without_tls_must_be_meant() {
        let clock = Arc::new(FixedClock::default());
        let plain = HttpSettings::new(clock);
        let error = Http::new("http://127.0.0.1/canary", [], plain.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        assert!(Http::new("https://127.0.0.1/", [], plain.clone()).is_ok());
        for wrong in ["canary", "file:///canary", "ftp://canary/"] {
            let error = Http::new(wrong, [], plain.clone()).unwrap_err();
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
        assert!(http("http://127.0.0.1/").is_ok());
    }

    #[tokio::test]
    async fn an_address_that_nobody_answers_is_not_named() {
        // Nobody listens at port 1 of loopback.
        let mut http = http("http://u:canary-pw@127.0.0.1:1/canary-path?t=canary-query").unwrap();
        http.settings.patience.limit = Duration::from_millis(300);
        let url = http.url().clone();
        let error = http
            .ask(|client| client.get(url.clone()))
            .await
            .unwrap_err();
        let text = format!("{} {error:?} {http:?}", chain(&error));
        assert!(text.contains("refused"), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }

    #[test]
    fn when_to_come_back_is_a_number_or_a_date() {
        let http = http("http://127.0.0.1/").unwrap();
        let after = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            http.after(&headers)
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("soon"), None);
        let now = http.clock().now();
        let then = now + chrono::TimeDelta::seconds(90);
        let date = then.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let waited = after(&date).unwrap();
        assert!((89..=90).contains(&waited.as_secs()), "{waited:?}");
    }

    #[test]
    fn an_answer_that_repeats_the_address_is_cleaned() {
        let http = http("https://hooks.example/services/T0000/B0000/canarycanary").unwrap();
        let said = http.shown("no such hook: /services/T0000/B0000/canarycanary\n<b>");
        assert_eq!(said, "no such hook: ***\\n<b>");
        assert_eq!(http.shown("canarycanary is unknown"), "*** is unknown");
        assert_eq!(http.shown(&"x".repeat(500)).chars().count(), 201);
    }
}
