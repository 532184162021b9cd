//! Tells [notices](backup_core::notifier) to people and programs: by mail, by webhooks in the forms of
//! the usual chats, and by pings for services that wait for them.
//!
//! Nothing here decides what is told. Addresses of webhooks and tokens of bots are secrets: whoever has
//! one can write there. So no error names them, nor the words of a server that repeats them.

mod http;
mod mail;
mod patience;
mod ping;
mod redact;
mod shapes;
mod text;
mod webhook;

pub use http::HttpSettings;
pub use mail::{Login, Mail, MailSettings, Security};
pub use patience::{Failure, Patience};
pub use ping::Ping;
pub use shapes::Shape;
pub use text::plain_text;
pub use webhook::Webhook;
