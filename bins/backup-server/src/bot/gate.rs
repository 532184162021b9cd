//! Who is listened to. Everything that comes in passes here, whatever kind it is of, before anything
//! else looks at it.

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_app::access::Principal;
use backup_app::{TelegramBotConfig, TelegramLanguage};
use backup_telegram::{Chat, Update, UpdateKind, User};

use crate::access::Caller;
use crate::pages::words::Words;

/// The only kind of chat in which somebody is alone with the bot.
const PRIVATE: &str = "private";

/// The people who may talk to the bot, by their numbers at Telegram.
#[derive(Debug, Default)]
pub(crate) struct Allowed(BTreeMap<i64, Member>);

#[derive(Debug)]
struct Member {
    caller: Caller,
    language: Option<&'static str>,
}

/// Somebody who is listened to, in the chat that only he is in.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    /// The chat, whose number is that of the person.
    pub(crate) chat: i64,
    pub(crate) caller: Caller,
    pub(crate) w: &'static Words,
}

/// What he did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// Wrote something; nothing if it was no text.
    Text(String),
    /// Pressed a button.
    Press {
        callback: String,
        message: i64,
        data: String,
    },
}

/// Why something is not answered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ignored {
    /// It is nothing that people say to a bot.
    Kind(String),
    /// Others would read the answer.
    NotPrivate,
    /// Nobody said it, or a program.
    NoPerson,
    /// Somebody else said it first.
    Forwarded,
    /// He is not on the list.
    Stranger(i64),
}

impl Allowed {
    pub(crate) fn new(settings: Option<&TelegramBotConfig>) -> Self {
        let users = settings.map_or(&[][..], |settings| &settings.allow);
        let members = users.iter().map(|user| {
            let member = Member {
                caller: Caller(Arc::new(Principal::from(user))),
                language: user.language.map(TelegramLanguage::as_str),
            };
            (user.user_id, member)
        });
        Self(members.collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether somebody may still do what he may.
    pub(crate) fn has(&self, person: &Person) -> bool {
        let member = self.0.get(&person.chat);
        member.is_some_and(|member| member.caller.0 == person.caller.0)
    }

    /// Lets through what a person of the list said or pressed, alone with the bot.
    pub(crate) fn admit(&self, update: Update) -> Result<(Person, Input), Ignored> {
        let (chat, from, input) = match update.kind {
            UpdateKind::Message(message) => {
                if message.is_forwarded || message.is_via_bot {
                    return Err(Ignored::Forwarded);
                }
                if message.is_of_chat {
                    return Err(Ignored::NoPerson);
                }
                let input = Input::Text(message.text.unwrap_or_default());
                (message.chat, message.from, input)
            }
            UpdateKind::Callback(pressed) => {
                let message = pressed.message.ok_or(Ignored::NotPrivate)?;
                let input = Input::Press {
                    callback: pressed.id,
                    message: message.id,
                    data: pressed.data.unwrap_or_default(),
                };
                (message.chat, Some(pressed.from), input)
            }
            UpdateKind::Other(kind) => return Err(Ignored::Kind(kind)),
        };
        Ok((self.person(&chat, from)?, input))
    }

    fn person(&self, chat: &Chat, from: Option<User>) -> Result<Person, Ignored> {
        let from = from.filter(|from| !from.is_bot).ok_or(Ignored::NoPerson)?;
        if chat.kind != PRIVATE || chat.id != from.id {
            return Err(Ignored::NotPrivate);
        }
        let member = self.0.get(&from.id).ok_or(Ignored::Stranger(from.id))?;
        let language = member.language.or(from.language_code.as_deref());
        Ok(Person {
            chat: chat.id,
            caller: member.caller.clone(),
            w: Words::accepted(language.unwrap_or_default()),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const OWNER: i64 = 12;
    const STRANGER: i64 = 66;

    fn allowed() -> Allowed {
        let settings = json!({
            "token": { "file": "/token" },
            "allow": [
                { "user_id": OWNER, "role": "restorer", "sources": ["shop"] },
                { "user_id": 13, "role": "viewer", "sources": ["*"], "language": "ru" },
            ],
        });
        Allowed::new(Some(&serde_json::from_value(settings).unwrap()))
    }

    fn update(kind: &str, content: &Value) -> Update {
        Update::read(json!({ "update_id": 1, kind: content })).unwrap()
    }

    /// A message of somebody in a chat, with what makes it special.
    fn message(from: i64, chat: (i64, &str), special: &Value) -> Value {
        let mut message = json!({
            "message_id": 1, "date": 1, "text": "/start",
            "from": { "id": from, "is_bot": false },
            "chat": { "id": chat.0, "type": chat.1 },
        });
        let fields = special.as_object().unwrap().clone();
        message.as_object_mut().unwrap().extend(fields);
        message
    }

    fn press(from: i64, below: &Value) -> Value {
        json!({ "id": "9", "from": { "id": from, "is_bot": false }, "data": "x:0", "message": below })
    }

    #[test]
    fn only_a_person_of_the_list_who_is_alone_with_the_bot_is_listened_to() {
        let none = json!({});
        let own = message(OWNER, (OWNER, "private"), &none);
        let (person, input) = allowed().admit(update("message", &own)).unwrap();
        assert_eq!(input, Input::Text("/start".to_owned()));
        assert_eq!((person.chat, person.w.code), (OWNER, "en"));
        assert_eq!(person.caller.0.name, "telegram:12");
        let (person, input) = allowed()
            .admit(update("callback_query", &press(OWNER, &own)))
            .unwrap();
        assert_eq!(person.chat, OWNER);
        assert!(matches!(input, Input::Press { message: 1, .. }));
    }

    #[test]
    fn nobody_else_and_nowhere_else_is_listened_to() {
        let alone = (OWNER, "private");
        let said = |from, chat, special: Value| message(from, chat, &special);
        for (what, said, expected) in [
            (
                "stranger",
                said(STRANGER, (STRANGER, "private"), json!({})),
                Ignored::Stranger(STRANGER),
            ),
            (
                "stranger in the owner's chat",
                said(STRANGER, alone, json!({})),
                Ignored::NotPrivate,
            ),
            (
                "owner in a stranger's chat",
                said(OWNER, (STRANGER, "private"), json!({})),
                Ignored::NotPrivate,
            ),
            (
                "group",
                said(OWNER, (-100, "group"), json!({})),
                Ignored::NotPrivate,
            ),
            (
                "group with his number",
                said(OWNER, (OWNER, "group"), json!({})),
                Ignored::NotPrivate,
            ),
            (
                "no kind of chat",
                said(OWNER, (OWNER, ""), json!({})),
                Ignored::NotPrivate,
            ),
            (
                "anonymous",
                said(OWNER, alone, json!({ "sender_chat": { "id": -1 } })),
                Ignored::NoPerson,
            ),
            (
                "nobody",
                said(OWNER, alone, json!({ "from": null })),
                Ignored::NoPerson,
            ),
            (
                "bot",
                said(
                    OWNER,
                    alone,
                    json!({ "from": { "id": OWNER, "is_bot": true } }),
                ),
                Ignored::NoPerson,
            ),
            (
                "forwarded",
                said(OWNER, alone, json!({ "forward_origin": {} })),
                Ignored::Forwarded,
            ),
            (
                "via a bot",
                said(OWNER, alone, json!({ "via_bot": { "id": 1 } })),
                Ignored::Forwarded,
            ),
        ] {
            let admitted = allowed().admit(update("message", &said));
            assert_eq!(admitted.err(), Some(expected), "{what}");
        }
    }

    #[test]
    fn a_button_is_pressed_by_whom_it_was_shown_to() {
        let own = message(OWNER, (OWNER, "private"), &json!({}));
        let group = message(OWNER, (-100, "supergroup"), &json!({}));
        for (what, press) in [
            ("a stranger", press(STRANGER, &own)),
            ("in a group", press(OWNER, &group)),
            ("below nothing", press(OWNER, &json!(null))),
        ] {
            let admitted = allowed().admit(update("callback_query", &press));
            assert_eq!(admitted.err(), Some(Ignored::NotPrivate), "{what}");
        }
    }

    /// All kinds that the bot API has beside the two that people use, as if the owner had made them.
    #[test]
    fn no_other_kind_of_update_is_listened_to() {
        for kind in [
            "edited_message",
            "channel_post",
            "edited_channel_post",
            "business_connection",
            "business_message",
            "edited_business_message",
            "deleted_business_messages",
            "message_reaction",
            "message_reaction_count",
            "inline_query",
            "chosen_inline_result",
            "shipping_query",
            "pre_checkout_query",
            "purchased_paid_media",
            "poll",
            "poll_answer",
            "my_chat_member",
            "chat_member",
            "chat_join_request",
            "chat_boost",
            "removed_chat_boost",
            "something_new",
        ] {
            let own = message(OWNER, (OWNER, "private"), &json!({}));
            let admitted = allowed().admit(update(kind, &own));
            assert_eq!(admitted.err(), Some(Ignored::Kind(kind.to_owned())));
        }
    }

    #[test]
    fn an_empty_list_is_nobody() {
        let own = || update("message", &message(OWNER, (OWNER, "private"), &json!({})));
        for nobody in [Allowed::new(None), Allowed::default()] {
            assert_eq!(nobody.len(), 0);
            assert_eq!(nobody.admit(own()).err(), Some(Ignored::Stranger(OWNER)));
        }
    }

    #[test]
    fn the_list_says_the_language_before_telegram_does() {
        let of = |id: i64, language: Value| {
            let from = json!({ "from": { "id": id, "language_code": language } });
            let said = update("message", &message(id, (id, "private"), &from));
            allowed().admit(said).unwrap().0.w.code
        };
        assert_eq!(of(OWNER, json!("ru")), "ru");
        assert_eq!(of(OWNER, json!("pt-br")), "en");
        assert_eq!(of(OWNER, json!(null)), "en");
        assert_eq!(of(13, json!("en")), "ru");
    }
}
