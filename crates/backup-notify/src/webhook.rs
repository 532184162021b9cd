//! JSON to an address, signed if there is a secret for that.

use std::fmt::Write as _;

use async_trait::async_trait;
use backup_core::error::PortError;
use backup_core::notifier::{Notice, Notifier, Receipt};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::header::CONTENT_TYPE;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;

use crate::http::{Http, HttpSettings};
use crate::shapes::Shape;

/// When the request was signed, in seconds since 1970.
const TIMESTAMP: &str = "X-Backup-Timestamp";

/// `sha256=` and the HMAC of the timestamp, a point and the body, in hexadecimal.
const SIGNATURE: &str = "X-Backup-Signature";

/// What it is about, for whoever does not want to read the body first.
const EVENT: &str = "X-Backup-Event";

/// An address that takes JSON.
pub struct Webhook {
    http: Http,
    shape: Shape,
    secret: Option<SecretString>,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Webhook");
        debug.field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl Webhook {
    /// Posts to `url` in a form that its service knows.
    ///
    /// # Errors
    /// `InvalidInput` when it is no address that can be asked.
    pub fn new(
        url: &SecretString,
        shape: Shape,
        secret: Option<SecretString>,
        settings: HttpSettings,
    ) -> Result<Self, PortError> {
        let hidden = secret
            .iter()
            .map(|secret| secret.expose_secret().to_owned());
        let http = Http::new(url.expose_secret(), hidden, settings)?;
        Ok(Self {
            http,
            shape,
            secret,
        })
    }
}

/// What the receiver must come to as well.
fn signature(secret: &SecretString, timestamp: i64, body: &[u8]) -> Option<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).ok()?;
    mac.update(timestamp.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    let mut text = "sha256=".to_owned();
    for byte in mac.finalize().into_bytes() {
        let _ = write!(text, "{byte:02x}");
    }
    Some(text)
}

#[async_trait]
impl Notifier for Webhook {
    async fn notify(&self, notice: &Notice) -> Result<Receipt, PortError> {
        let body = self.shape.body(notice).to_string().into_bytes();
        let request = |client: &reqwest::Client| {
            let mut request = client
                .post(self.http.url().clone())
                .header(CONTENT_TYPE, "application/json")
                .header(EVENT, notice.event.as_str());
            // Each try is signed anew: the receiver refuses what is old.
            let now = self.http.clock().now().timestamp();
            let signed = self.secret.as_ref();
            if let Some(signature) = signed.and_then(|secret| signature(secret, now, &body)) {
                request = request.header(TIMESTAMP, now).header(SIGNATURE, signature);
            }
            request.body(body.clone())
        };
        let answer = self.http.ask(request).await?;
        Ok(Receipt {
            said: format!("the answer is {}", answer.status),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `printf '7.{}' | openssl dgst -sha256 -hmac key` has it.
    #[test]
    fn the_signature_is_what_other_tools_make() {
        let expected = "sha256=77bc83bd1f40422311e47918b203449aecf84b02c1568bb1b570ac2a474cc2d8";
        assert_eq!(signature(&"key".into(), 7, b"{}").unwrap(), expected);
    }
}
