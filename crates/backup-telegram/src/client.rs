//! The calls.

use std::fmt;
use std::time::Duration;

use backup_core::error::chain;
use reqwest::header::CONTENT_TYPE;
use reqwest::redirect::Policy;
use reqwest::{Response, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::received::{Message, Update, User};
use crate::said::{Say, answer};

/// How long connecting may take, and a whole call beside what it waits for on purpose.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const CALL_LIMIT: Duration = Duration::from_secs(20);

/// No answer is longer: it would be one of somebody else.
const MOST_BYTES: usize = 4 << 20;

/// How many updates come at once.
const UPDATES: usize = 50;

/// How often a call waits when it is told to, and how long at most. Who asks for more is told so.
const WAITS: u32 = 3;
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// How much of the words of a server is told.
const WORDS: usize = 200;

/// What is asked for when asking for updates. Nothing else is sent then.
const KINDS: [&str; 2] = ["message", "callback_query"];

/// Asks the bot API as one bot.
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: SecretString,
    waits: u32,
}

/// Which updates are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The number of the first. With it, all before are forgotten by the server.
    pub from: Option<i64>,
    /// How long the server waits for one if there is none.
    pub patience: Duration,
}

#[derive(Deserialize)]
struct Answer {
    ok: bool,
    #[serde(default)]
    result: Value,
    error_code: Option<u16>,
    description: Option<String>,
    parameters: Option<Parameters>,
}

#[derive(Deserialize)]
struct Parameters {
    retry_after: Option<u64>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = &self.base;
        f.debug_struct("Client")
            .field("base", base)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the bot that has this token, at `base_url`: `https://api.telegram.org`, or a bot
    /// API server of one's own.
    ///
    /// # Errors
    /// When the token has not the form of one, or would cross the network in the clear.
    pub fn new(base_url: &str, token: SecretString) -> Result<Self, ApiError> {
        let of_token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let is_token = token
            .expose_secret()
            .split_once(':')
            .is_some_and(|(id, secret)| {
                let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
                is_id && !secret.is_empty() && secret.bytes().all(of_token)
            });
        if !is_token {
            return Err(ApiError::WrongToken);
        }
        check_base_url(base_url)?;
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .redirect(Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| ApiError::Unavailable(chain(&error.without_url())))?;
        Ok(Self {
            http,
            base: base_url.trim_end_matches('/').to_owned(),
            token,
            waits: WAITS,
        })
    }

    /// For who decides himself what to do when the server asks for time.
    #[must_use]
    pub fn without_waiting(self) -> Self {
        Self { waits: 0, ..self }
    }

    /// Who the bot is.
    ///
    /// # Errors
    /// As every call: the server does not know the token, is out of reach, or refuses.
    pub async fn me(&self) -> Result<User, ApiError> {
        self.read("getMe", &json!({})).await
    }

    /// Has updates kept for whoever asks, instead of sent somewhere.
    ///
    /// # Errors
    /// As every call.
    pub async fn delete_webhook(&self) -> Result<(), ApiError> {
        self.call("deleteWebhook", &json!({})).await.map(drop)
    }

    /// What happened, once something did or the time is over.
    ///
    /// # Errors
    /// As every call; `Conflict` when somebody else asks for the same.
    pub async fn updates(&self, waiting: Waiting) -> Result<Vec<Update>, ApiError> {
        let mut fields = json!({
            "timeout": waiting.patience.as_secs(),
            "limit": UPDATES,
            "allowed_updates": KINDS,
        });
        if let Some(from) = waiting.from {
            fields["offset"] = json!(from);
        }
        let limit = CALL_LIMIT + waiting.patience;
        match self.once("getUpdates", &fields, limit).await? {
            Value::Array(updates) => Ok(updates.into_iter().filter_map(Update::read).collect()),
            _ => Err(ApiError::Senseless("no list of updates".to_owned())),
        }
    }

    /// Says something in a chat; the number of the message.
    ///
    /// # Errors
    /// As every call. A person who never wrote to the bot cannot be told anything.
    pub async fn send(&self, chat_id: i64, say: &Say) -> Result<i64, ApiError> {
        let mut fields = say.fields();
        fields["chat_id"] = json!(chat_id);
        let sent: Message = self.read("sendMessage", &fields).await?;
        Ok(sent.id)
    }

    /// Says something else in the place of a message. That it says the same already is fine.
    ///
    /// # Errors
    /// As every call.
    pub async fn edit(&self, chat_id: i64, message_id: i64, say: &Say) -> Result<(), ApiError> {
        let mut fields = say.fields();
        fields["chat_id"] = json!(chat_id);
        fields["message_id"] = json!(message_id);
        match self.call("editMessageText", &fields).await {
            Err(ApiError::Refused { text, .. }) if text.contains("message is not modified") => {
                Ok(())
            }
            done => done.map(drop),
        }
    }

    /// Takes a message back.
    ///
    /// # Errors
    /// As every call.
    pub async fn delete(&self, chat_id: i64, message_id: i64) -> Result<(), ApiError> {
        let fields = json!({ "chat_id": chat_id, "message_id": message_id });
        self.call("deleteMessage", &fields).await.map(drop)
    }

    /// Tells somebody that his button was understood, with a text if there is one.
    ///
    /// # Errors
    /// As every call.
    pub async fn answer(&self, callback_id: &str, text: Option<&str>) -> Result<(), ApiError> {
        let mut fields = json!({ "callback_query_id": callback_id });
        if let Some(text) = text {
            fields["text"] = json!(answer(text));
        }
        self.call("answerCallbackQuery", &fields).await.map(drop)
    }

    /// What is offered to who types a slash: names and descriptions, to those of one language, or to
    /// all others.
    ///
    /// # Errors
    /// As every call.
    pub async fn set_commands(
        &self,
        commands: &[(&str, &str)],
        language: Option<&str>,
    ) -> Result<(), ApiError> {
        let commands: Vec<_> = commands
            .iter()
            .map(|(name, text)| json!({ "command": name, "description": text }))
            .collect();
        let mut fields = json!({
            "commands": commands,
            "scope": { "type": "all_private_chats" },
        });
        if let Some(language) = language {
            fields["language_code"] = json!(language);
        }
        self.call("setMyCommands", &fields).await.map(drop)
    }

    async fn read<T: for<'de> Deserialize<'de>>(
        &self,
        method: &str,
        fields: &Value,
    ) -> Result<T, ApiError> {
        let result = self.call(method, fields).await?;
        let read = serde_json::from_value(result);
        read.map_err(|_| ApiError::Senseless(format!("not what {method} gives")))
    }

    /// Calls, and waits as often and as long as is sensible when the server wants that.
    async fn call(&self, method: &str, fields: &Value) -> Result<Value, ApiError> {
        let mut waits = 0;
        loop {
            match self.once(method, fields, CALL_LIMIT).await {
                Err(ApiError::TooMany(wait)) if waits < self.waits && wait <= LONGEST_WAIT => {
                    waits += 1;
                    tokio::time::sleep(wait).await;
                }
                done => return done,
            }
        }
    }

    async fn once(&self, method: &str, fields: &Value, limit: Duration) -> Result<Value, ApiError> {
        let url = format!("{}/bot{}/{method}", self.base, self.token.expose_secret());
        let request = self.http.post(url).timeout(limit);
        let request = request.header(CONTENT_TYPE, "application/json");
        let sent = request.body(fields.to_string()).send().await;
        let mut response = sent.map_err(|error| self.unreachable(error))?;
        let status = response.status().as_u16();
        let body = self.body(&mut response).await?;
        match serde_json::from_slice::<Answer>(&body) {
            Ok(answer) if answer.ok => Ok(answer.result),
            Ok(answer) => Err(self.failure(status, answer)),
            // Something between us and the server speaks for itself.
            Err(_) if status >= 500 => Err(ApiError::Unavailable(format!("status {status}"))),
            Err(_) => Err(ApiError::Senseless(format!("status {status} and no JSON"))),
        }
    }

    async fn body(&self, response: &mut Response) -> Result<Vec<u8>, ApiError> {
        let mut body = Vec::new();
        loop {
            let chunk = response.chunk().await;
            let Some(chunk) = chunk.map_err(|error| self.unreachable(error))? else {
                return Ok(body);
            };
            if body.len() + chunk.len() > MOST_BYTES {
                return Err(ApiError::Senseless("it is too long".to_owned()));
            }
            body.extend_from_slice(&chunk);
        }
    }

    fn failure(&self, status: u16, answer: Answer) -> ApiError {
        let code = answer.error_code.unwrap_or(status);
        let text = self.clean(answer.description.as_deref().unwrap_or("no reason given"));
        let wait = answer.parameters.and_then(|known| known.retry_after);
        match (code, wait) {
            (429, wait) => ApiError::TooMany(Duration::from_secs(wait.unwrap_or(1).max(1))),
            (401 | 404, _) => ApiError::UnknownToken(format!("{code} {text}")),
            (409, _) => ApiError::Conflict(text),
            (500.., _) => ApiError::Unavailable(format!("{code} {text}")),
            _ => ApiError::Refused { code, text },
        }
    }

    fn unreachable(&self, error: reqwest::Error) -> ApiError {
        ApiError::Unavailable(self.clean(&chain(&error.without_url())))
    }

    /// Somebody else's words: short, on one line, and without the token, should they repeat it.
    fn clean(&self, text: &str) -> String {
        let token = self.token.expose_secret();
        let secret = token.split_once(':').map_or(token, |(_, secret)| secret);
        let text = text.replace(secret, "…");
        let text = text.chars().take(WORDS);
        text.map(|c| if c.is_control() { ' ' } else { c }).collect()
    }
}

/// Whether a token may be sent there.
///
/// # Errors
/// `WrongAddress`.
pub fn check_base_url(base_url: &str) -> Result<(), ApiError> {
    let url = Url::parse(base_url).map_err(|_| ApiError::WrongAddress)?;
    let is_here = match url.host_str() {
        Some("localhost" | "[::1]") => true,
        Some(host) => host
            .parse::<std::net::Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback()),
        None => return Err(ApiError::WrongAddress),
    };
    let is_plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    match url.scheme() {
        "https" if is_plain => Ok(()),
        "http" if is_plain && is_here => Ok(()),
        _ => Err(ApiError::WrongAddress),
    }
}

#[cfg(test)]
mod tests;
