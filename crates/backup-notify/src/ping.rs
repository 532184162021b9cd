//! Pings for services that wait for them, and raise an alarm when none comes: healthchecks.io and its
//! like.

use async_trait::async_trait;
use backup_core::error::{ErrorKind, PortError};
use backup_core::notifier::{Notice, NoticeEvent, Notifier, Receipt};
use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretString};

use crate::http::{Http, HttpSettings};
use crate::text::{cut, plain_text};

/// What such services keep at least.
const MAX_BODY: usize = 10_000;

/// One check of such a service.
#[derive(Debug)]
pub struct Ping {
    http: Http,
}

impl Ping {
    /// Pings `url`; its begin goes to `url/start`, a failure to `url/fail`.
    ///
    /// # Errors
    /// `InvalidInput` when it is no address that can be asked.
    pub fn new(url: &SecretString, settings: HttpSettings) -> Result<Self, PortError> {
        let http = Http::new(url.expose_secret(), [], settings)?;
        Ok(Self { http })
    }

    fn url(&self, event: NoticeEvent) -> Result<Url, PortError> {
        let below = match event {
            NoticeEvent::Started => Some("start"),
            NoticeEvent::Failure | NoticeEvent::Stale => Some("fail"),
            // What a test says must not pass for a backup.
            NoticeEvent::Test => Some("log"),
            NoticeEvent::Success | NoticeEvent::Recovered => None,
        };
        let mut url = self.http.url().clone();
        if let Some(below) = below {
            let wrong =
                |()| PortError::new(ErrorKind::InvalidInput, "nothing can be below the url");
            let mut path = url.path_segments_mut().map_err(wrong)?;
            path.pop_if_empty().push(below);
        }
        Ok(url)
    }
}

#[async_trait]
impl Notifier for Ping {
    async fn notify(&self, notice: &Notice) -> Result<Receipt, PortError> {
        let (url, body) = (self.url(notice.event)?, cut(&plain_text(notice), MAX_BODY));
        let request = |client: &reqwest::Client| client.post(url.clone()).body(body.clone());
        let answer = self.http.ask(request).await?;
        Ok(Receipt {
            said: format!("the answer is {} {}", answer.status, answer.text),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use backup_testing::FixedClock;

    use super::*;

    #[test]
    fn begin_and_failure_have_addresses_of_their_own() {
        for base in ["https://hc.example/a-b", "https://hc.example/a-b/"] {
            let settings = HttpSettings::new(Arc::new(FixedClock::default()));
            let ping = Ping::new(&base.into(), settings).unwrap();
            let url = |event| ping.url(event).unwrap().to_string();
            assert_eq!(url(NoticeEvent::Started), "https://hc.example/a-b/start");
            assert_eq!(url(NoticeEvent::Failure), "https://hc.example/a-b/fail");
            assert_eq!(url(NoticeEvent::Success), base);
            assert_eq!(url(NoticeEvent::Recovered), base);
            assert_eq!(url(NoticeEvent::Test), "https://hc.example/a-b/log");
        }
    }
}
