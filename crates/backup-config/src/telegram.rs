//! `[telegram_bot]`: people who look into backups by way of a bot.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::http::Role;
use crate::secret::SecretRef;

/// Telegram's own server.
pub const TELEGRAM_API: &str = "https://api.telegram.org";

/// `[telegram_bot]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TelegramBotConfig {
    /// The bot's token, which `@BotFather` gives.
    pub token: SecretRef,
    /// Another bot API server than Telegram's own; `http` only on this machine.
    #[serde(default = "api")]
    pub base_url: String,
    /// Who may talk to it. Nobody else gets an answer; with nobody in it there is no bot.
    #[serde(default)]
    pub allow: Vec<TelegramUserConfig>,
}

/// One of `[telegram_bot] allow`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TelegramUserConfig {
    /// His number at Telegram. A name is no substitute: anybody can take one that became free.
    #[schemars(range(min = 1))]
    pub user_id: i64,
    /// What he may do.
    pub role: Role,
    /// Names of sources, with `*` for any characters.
    pub sources: Vec<String>,
    /// What the bot speaks to him, instead of what his Telegram does.
    pub language: Option<TelegramLanguage>,
}

/// A language of the bot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TelegramLanguage {
    /// English.
    En,
    /// Russian.
    Ru,
}

impl TelegramLanguage {
    /// Its tag.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Ru => "ru",
        }
    }
}

fn api() -> String {
    TELEGRAM_API.to_owned()
}

impl TelegramBotConfig {
    /// Refuses entries that would let in nobody, or whoever is in a group.
    pub(crate) fn check(&self) -> Result<(), (usize, &'static str, &'static str)> {
        let mut known = BTreeSet::new();
        for (index, user) in self.allow.iter().enumerate() {
            let wrong = if user.user_id < 0 {
                (
                    "user_id",
                    "is the number of a group; the bot answers persons alone",
                )
            } else if user.user_id == 0 {
                ("user_id", "must be the number of a person")
            } else if !known.insert(user.user_id) {
                ("user_id", "must be another one than before")
            } else if user.sources.is_empty() {
                ("sources", "must name a source, or be [\"*\"] for all")
            } else {
                continue;
            };
            return Err((index, wrong.0, wrong.1));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::environment::Environment;
    use crate::file::Config;

    use super::*;

    fn load(text: &str) -> Result<Config, crate::Error> {
        let text = format!("[telegram_bot]\ntoken = {{ file = '/token' }}\n{text}");
        Config::from_toml(&text, &Environment::default())
    }

    #[test]
    fn nobody_is_let_in_unless_he_is_named_by_number() {
        let bot = load("").unwrap().telegram_bot.unwrap();
        assert_eq!(bot.base_url, "https://api.telegram.org");
        assert!(bot.allow.is_empty());
        let allowed =
            "allow = [{ user_id = 12345, role = 'restorer', sources = ['shop'], language = 'ru' }]";
        let config = load(allowed).unwrap();
        let again = Config::from_toml(&config.to_toml().unwrap(), &Environment::default());
        // A secret is shown by where it is, so what is printed is no file.
        assert!(again.is_err());
        let user = &config.telegram_bot.unwrap().allow[0];
        assert_eq!((user.user_id, user.role), (12345, Role::Restorer));
        assert_eq!(user.language, Some(TelegramLanguage::Ru));
        for (allowed, words) in [
            (
                "{ user_id = -100, role = 'viewer', sources = ['*'] }",
                "group",
            ),
            (
                "{ user_id = 0, role = 'viewer', sources = ['*'] }",
                "a person",
            ),
            (
                "{ user_id = 1, role = 'viewer', sources = [] }",
                "must name a source",
            ),
            (
                "{ user_id = 1, role = 'viewer', sources = ['*'] }, \
                 { user_id = 1, role = 'admin', sources = ['*'] }",
                "another one",
            ),
            (
                "{ user_id = '@olga', role = 'viewer', sources = ['*'] }",
                "user_id",
            ),
            ("{ user_id = 1, role = 'owner', sources = ['*'] }", "role"),
            (
                "{ user_id = 1, role = 'viewer', sources = ['*'], language = 'de' }",
                "language",
            ),
            (
                "{ name = '@olga', role = 'viewer', sources = ['*'] }",
                "name",
            ),
        ] {
            let error = load(&format!("allow = [{allowed}]")).unwrap_err();
            let text = backup_core::error::chain(&error);
            assert!(text.contains(words), "{allowed}: {text}");
        }
    }
}
