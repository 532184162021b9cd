//! Telegram's [bot API](https://core.telegram.org/bots/api), as far as it is needed here: being
//! asked by long polling, saying something, changing what was said, buttons.
//!
//! The token is a part of every address, so no error, log line or `Debug` of this crate has an
//! address in it. Texts are sent without a format of their own: what looks like a tag is only text.

#[cfg(feature = "client")]
mod client;
mod error;
mod received;
#[cfg(feature = "client")]
mod said;

#[cfg(feature = "client")]
pub use client::{Client, Waiting, check_base_url};
pub use error::ApiError;
pub use received::{CallbackQuery, Chat, Message, Update, UpdateKind, User};
#[cfg(feature = "client")]
pub use said::{Button, Say};
