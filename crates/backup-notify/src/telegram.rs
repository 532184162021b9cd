//! Messages to one chat of Telegram.

use async_trait::async_trait;
use backup_core::error::{ErrorKind, PortError};
use backup_core::notifier::{Notice, Notifier, Receipt};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use crate::http::{Http, HttpSettings};
use crate::text::whole;

/// What one message may hold. Telegram counts in UTF-16, where a character
/// has two units at most.
const MAX_MESSAGE: usize = 4096 / 2;

/// A chat.
#[derive(Debug)]
pub struct Telegram {
    http: Http,
    chat_id: i64,
}

/// Plain text: nothing in it means more than what it says.
#[derive(Serialize)]
struct Message<'a> {
    chat_id: i64,
    text: &'a str,
    link_preview_options: Preview,
}

#[derive(Serialize)]
struct Preview {
    is_disabled: bool,
}

impl Telegram {
    /// Writes as the bot with `token` into the chat `chat_id`, by the service at `base_url`.
    ///
    /// # Errors
    /// `InvalidInput` when that is no address that can be asked, or no token.
    pub fn new(
        base_url: &str,
        token: &SecretString,
        chat_id: i64,
        settings: HttpSettings,
    ) -> Result<Self, PortError> {
        let token = token.expose_secret();
        let plain = |c: char| c.is_ascii_alphanumeric() || ":_-".contains(c);
        if token.is_empty() || !token.chars().all(plain) {
            let message = "the token is not one of a bot";
            return Err(PortError::new(ErrorKind::InvalidInput, message));
        }
        let base = base_url.trim_end_matches('/');
        let url = format!("{base}/bot{token}/sendMessage");
        let secret = token.split_once(':').map(|(_, secret)| secret.to_owned());
        let secrets = secret.into_iter().chain([token.to_owned()]);
        let http = Http::new(&url, secrets, settings)?;
        Ok(Self { http, chat_id })
    }
}

#[async_trait]
impl Notifier for Telegram {
    async fn notify(&self, notice: &Notice) -> Result<Receipt, PortError> {
        let text = whole(notice, MAX_MESSAGE);
        let message = Message {
            chat_id: self.chat_id,
            text: &text,
            link_preview_options: Preview { is_disabled: true },
        };
        let url = self.http.url();
        let answer = self
            .http
            .ask(|client| client.post(url.clone()).json(&message))
            .await?;
        Ok(Receipt {
            said: format!("the answer is {}", answer.status),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use backup_core::error::chain;
    use backup_testing::FixedClock;

    use super::*;
    use crate::text::tests::failure;

    #[tokio::test]
    async fn the_token_is_in_no_error() {
        let mut settings = HttpSettings::new(Arc::new(FixedClock::default()));
        settings.allow_plain = true;
        settings.patience.limit = Duration::from_millis(300);
        let token = "123456:canary-canary".into();
        let chat = Telegram::new("http://127.0.0.1:1", &token, 7, settings.clone()).unwrap();
        let error = chat.notify(&failure("shop")).await.unwrap_err();
        let text = format!("{} {error:?} {chat:?}", chain(&error));
        assert!(!text.contains("canary"), "{text}");
        assert!(!text.contains("123456"), "{text}");
        let wrong = "123:canary/../x".into();
        let error = Telegram::new("http://127.0.0.1:1", &wrong, 7, settings).unwrap_err();
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    }
}
