//! Notices in one chat of Telegram, by the client that the bot has too.

use async_trait::async_trait;
use backup_core::error::PortError;
use backup_core::notifier::{Notice, Notifier, Receipt};
use backup_notify::{Failure, Patience, plain_text};
use backup_telegram::{ApiError, Client, Say};

/// A chat.
#[derive(Debug)]
pub(super) struct Chat {
    client: Client,
    id: i64,
}

impl Chat {
    pub(super) fn new(client: Client, id: i64) -> Self {
        // A notice is given up in time, and says why.
        let client = client.without_waiting();
        Self { client, id }
    }
}

#[async_trait]
impl Notifier for Chat {
    async fn notify(&self, notice: &Notice) -> Result<Receipt, PortError> {
        let say = Say::text(plain_text(notice));
        let sending = || async { self.client.send(self.id, &say).await.map_err(failure) };
        let message = Patience::default().tried(sending).await?;
        Ok(Receipt {
            said: format!("it is message {message} of the chat"),
        })
    }
}

fn failure(error: ApiError) -> Failure {
    Failure {
        passes: error.may_pass(),
        after: match error {
            ApiError::TooMany(wait) => Some(wait),
            _ => None,
        },
        error: error.into(),
    }
}
