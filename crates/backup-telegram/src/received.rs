//! What comes in. Whatever is not known here is left alone: the API grows by itself.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// How long the name of a kind of update may be to be told.
const KIND_LENGTH: usize = 40;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// Its number. Those above are asked for next.
    pub id: i64,
    /// What.
    pub kind: UpdateKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateKind {
    /// Somebody wrote something.
    Message(Box<Message>),
    /// Somebody pressed a button.
    Callback(Box<CallbackQuery>),
    /// Something else, by the API's name for it.
    Other(String),
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "RawMessage")]
pub struct Message {
    /// Its number in its chat.
    pub id: i64,
    /// When it was sent, in seconds since 1970; 0 if that is not told.
    pub date: i64,
    /// Where it stands.
    pub chat: Chat,
    /// Who sent it; nobody in a channel.
    pub from: Option<User>,
    /// What it says, if it is text.
    pub text: Option<String>,
    /// Whether somebody else said it first.
    pub is_forwarded: bool,
    /// Whether a chat said it, and no person who can be known.
    pub is_of_chat: bool,
    /// Whether another bot wrote it for the person.
    pub is_via_bot: bool,
}

/// Where somebody talks. Its name is not read: anybody can choose one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Chat {
    /// Its number. A private one has that of the person.
    pub id: i64,
    /// `private`, `group`, `supergroup` or `channel`.
    #[serde(rename = "type", default)]
    pub kind: String,
}

/// Somebody. His names are not read: anybody can choose one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct User {
    /// His number, which stays.
    pub id: i64,
    /// Whether it is a program.
    #[serde(default)]
    pub is_bot: bool,
    /// What his Telegram speaks, as `en` or `pt-br`.
    #[serde(default)]
    pub language_code: Option<String>,
}

/// A button was pressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallbackQuery {
    /// What an answer is sent to.
    pub id: String,
    /// Who pressed it.
    pub from: User,
    /// What it stands below.
    pub message: Option<Message>,
    /// What we said of it when we made it.
    pub data: Option<String>,
}

#[derive(Deserialize)]
struct RawMessage {
    message_id: i64,
    #[serde(default)]
    date: i64,
    chat: Chat,
    from: Option<User>,
    text: Option<String>,
    forward_origin: Option<IgnoredAny>,
    // How older servers say it.
    forward_from: Option<IgnoredAny>,
    forward_from_chat: Option<IgnoredAny>,
    forward_sender_name: Option<IgnoredAny>,
    forward_date: Option<IgnoredAny>,
    is_automatic_forward: Option<bool>,
    sender_chat: Option<IgnoredAny>,
    via_bot: Option<IgnoredAny>,
}

impl From<RawMessage> for Message {
    fn from(raw: RawMessage) -> Self {
        let marks = [
            raw.forward_origin,
            raw.forward_from,
            raw.forward_from_chat,
            raw.forward_sender_name,
            raw.forward_date,
        ];
        Self {
            id: raw.message_id,
            date: raw.date,
            chat: raw.chat,
            from: raw.from,
            text: raw.text,
            is_forwarded: marks.iter().any(Option::is_some)
                || raw.is_automatic_forward == Some(true),
            is_of_chat: raw.sender_chat.is_some(),
            is_via_bot: raw.via_bot.is_some(),
        }
    }
}

#[derive(Deserialize)]
struct RawCallback {
    id: String,
    from: User,
    message: Option<Message>,
    data: Option<String>,
}

impl Update {
    /// What an update says; nothing, if it has no number. What is not as expected in it makes it one
    /// of another kind, and spoils none of those beside it.
    #[must_use]
    pub fn read(value: Value) -> Option<Self> {
        let Value::Object(mut fields) = value else {
            return None;
        };
        let id = fields.remove("update_id")?.as_i64()?;
        let message = fields.remove("message");
        let callback = fields.remove("callback_query");
        let other = |name: &str| UpdateKind::Other(name.to_owned());
        let kind = match (message, callback) {
            (Some(message), None) => serde_json::from_value(message)
                .map_or_else(|_| other("message"), |m| UpdateKind::Message(Box::new(m))),
            (None, Some(callback)) => serde_json::from_value(callback).map_or_else(
                |_| other("callback_query"),
                |raw: RawCallback| {
                    UpdateKind::Callback(Box::new(CallbackQuery {
                        id: raw.id,
                        from: raw.from,
                        message: raw.message,
                        data: raw.data,
                    }))
                },
            ),
            (Some(_), Some(_)) => other("several"),
            (None, None) => {
                let plain = |name: &&String| {
                    let of_names = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
                    name.len() <= KIND_LENGTH && name.bytes().all(of_names)
                };
                let name = fields.keys().find(plain);
                other(name.map_or("unknown", String::as_str))
            }
        };
        Some(Self { id, kind })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_known_is_left_alone_and_spoils_nothing() {
        let message = json!({ "update_id": 7, "message": {
            "message_id": 3, "date": 1_700_000_000, "text": "/start", "novelty": { "a": [1] },
            "from": { "id": 12, "is_bot": false, "first_name": "A", "language_code": "ru" },
            "chat": { "id": 12, "type": "private", "first_name": "A" } } });
        let update = Update::read(message).unwrap();
        assert_eq!(update.id, 7);
        let UpdateKind::Message(message) = update.kind else {
            panic!("it is a message");
        };
        assert_eq!(message.text.as_deref(), Some("/start"));
        assert_eq!(message.chat.kind, "private");
        let from = message.from.clone().unwrap();
        assert_eq!((from.id, from.language_code.as_deref()), (12, Some("ru")));
        assert!(!message.is_forwarded && !message.is_of_chat && !message.is_via_bot);

        let pressed = json!({ "update_id": 8, "callback_query": {
            "id": "99", "from": { "id": 12, "is_bot": false }, "chat_instance": "1",
            "message": { "message_id": 4, "date": 0, "chat": { "id": 12, "type": "private" } },
            "data": "abc:1" } });
        let UpdateKind::Callback(pressed) = Update::read(pressed).unwrap().kind else {
            panic!("a button was pressed");
        };
        assert_eq!(pressed.data.as_deref(), Some("abc:1"));
        assert_eq!(pressed.message.unwrap().id, 4);

        for (update, kind) in [
            (json!({ "update_id": 1, "message": "text" }), "message"),
            (
                json!({ "update_id": 1, "edited_message": {} }),
                "edited_message",
            ),
            (json!({ "update_id": 1, "Evil\n": {} }), "unknown"),
            (
                json!({ "update_id": 1, "message": {}, "callback_query": {} }),
                "several",
            ),
            (json!({ "update_id": 1 }), "unknown"),
        ] {
            let read = Update::read(update.clone()).unwrap();
            assert_eq!(read.kind, UpdateKind::Other(kind.to_owned()), "{update}");
        }
        for update in [json!({}), json!([]), json!({ "update_id": "1" })] {
            assert_eq!(Update::read(update), None);
        }
    }

    #[test]
    fn what_somebody_else_said_first_is_known_in_all_its_forms() {
        for mark in [
            json!({ "forward_origin": { "type": "hidden_user" } }),
            json!({ "forward_from": { "id": 1 } }),
            json!({ "forward_from_chat": { "id": 1 } }),
            json!({ "forward_sender_name": "x" }),
            json!({ "forward_date": 1 }),
            json!({ "is_automatic_forward": true }),
        ] {
            let mut message = json!({ "message_id": 1, "chat": { "id": 1, "type": "private" } });
            let fields = mark.as_object().unwrap().clone();
            message.as_object_mut().unwrap().extend(fields);
            let read: Message = serde_json::from_value(message).unwrap();
            assert!(read.is_forwarded, "{mark}");
        }
    }
}
