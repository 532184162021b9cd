//! Telegram's bot API as a bot sees it, on loopback, with people whom a test moves.
//!
//! It speaks the real wire form: paths with the token, `ok`, `result`, `description`, `error_code`
//! and `parameters`, long polling with offsets, and the refusals that matter. Updates are delivered
//! whatever kinds are asked for, since real ones may have been made before somebody asked.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::canary::{self, Canaries, Kind};

/// How long a test waits for the bot.
const LIMIT: Duration = Duration::from_mins(1);

/// The API with one bot.
#[derive(Debug)]
pub struct BotApi {
    shared: Arc<Shared>,
    address: SocketAddr,
}

#[derive(Debug)]
struct Shared {
    token: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Value>,
    last_update: i64,
    last_message: i64,
    last_press: i64,
    poll: u64,
    calls: Vec<(String, Value)>,
    messages: BTreeMap<i64, Sent>,
    pressed: BTreeSet<String>,
    people: BTreeSet<i64>,
    faults: Vec<Fault>,
    transcript: Vec<String>,
    is_over: bool,
}

/// What stands on buttons, and what they say when they are pressed.
pub type Buttons = Vec<(String, String)>;

/// A message of the bot.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    /// Its number.
    pub id: i64,
    /// The chat.
    pub chat: i64,
    /// What it says now.
    pub text: String,
    /// Its buttons.
    pub buttons: Buttons,
    /// How often it was changed.
    pub edits: usize,
    /// Whether the bot took it back.
    pub is_deleted: bool,
}

impl Sent {
    /// What the button says that has these words on it.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn button(&self, words: &str) -> Result<&str> {
        let found = self.buttons.iter().find(|(text, _)| text.contains(words));
        let (_, data) = found.with_context(|| format!("no button {words:?}: {self:?}"))?;
        Ok(data)
    }
}

/// An answer instead of the right one.
#[derive(Debug, Clone)]
struct Fault {
    method: String,
    status: u16,
    body: Value,
    times: usize,
}

impl BotApi {
    /// Starts it, with a bot of this token.
    ///
    /// # Errors
    ///
    /// When no port is to be had.
    pub fn start(token: &str) -> Result<Self> {
        canary::keep(token);
        canary::keep(token.split_once(':').map_or(token, |(_, secret)| secret));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            token: token.to_owned(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.state().is_over {
                    return;
                }
                let serving = Arc::clone(&serving);
                // A connection that breaks is the client's business.
                thread::spawn(move || serving.talk(stream));
            }
        });
        Ok(Self { shared, address })
    }

    /// Its address, for `base_url`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Somebody writes to the bot.
    pub fn says(&self, person: i64, text: &str) {
        let message = self.message_of(person, text);
        self.note(format!("> {text}"));
        self.push("message", &message);
    }

    /// A message of somebody who is alone with the bot.
    #[must_use]
    pub fn message_of(&self, person: i64, text: &str) -> Value {
        let mut state = self.shared.state();
        state.people.insert(person);
        state.last_message += 1;
        json!({
            "message_id": state.last_message, "date": now(), "text": text,
            "from": { "id": person, "is_bot": false, "first_name": "Somebody", "username": "olga" },
            "chat": { "id": person, "type": "private", "first_name": "Somebody" },
        })
    }

    /// Somebody presses a button of a message that stands in a chat.
    pub fn presses(&self, person: i64, sent: &Sent, data: &str) {
        let label = sent.buttons.iter().find(|(_, own)| own == data);
        let label = label.map_or("(an old button)", |(label, _)| label);
        self.note(format!("> [{label}]"));
        let press = self.press_of(person, (sent.chat, sent.id), data);
        self.push("callback_query", &press);
    }

    /// A press on a button below a message of the bot.
    #[must_use]
    pub fn press_of(&self, person: i64, (chat, message): (i64, i64), data: &str) -> Value {
        let mut state = self.shared.state();
        state.last_press += 1;
        let id = state.last_press.to_string();
        state.pressed.insert(id.clone());
        json!({
            "id": id, "data": data, "chat_instance": "1",
            "from": { "id": person, "is_bot": false, "first_name": "Somebody" },
            "message": { "message_id": message, "date": now(), "text": "…",
                "from": { "id": 1, "is_bot": true, "first_name": "Bot" },
                "chat": { "id": chat, "type": if chat > 0 { "private" } else { "supergroup" } } },
        })
    }

    /// Something happens.
    pub fn push(&self, kind: &str, content: &Value) {
        let mut state = self.shared.state();
        state.last_update += 1;
        let id = state.last_update;
        state
            .waiting
            .push(json!({ "update_id": id, kind: content }));
        self.shared.changed.notify_all();
    }

    /// The next calls of a method are answered like this.
    pub fn fail(&self, method: &str, status: u16, body: Value, times: usize) {
        self.shared.state().faults.push(Fault {
            method: method.to_owned(),
            status,
            body,
            times,
        });
    }

    /// Everything is as it should be again.
    pub fn heal(&self) {
        self.shared.state().faults.clear();
    }

    /// Waits until the bot has confirmed all that happened.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub fn wait_until_heard(&self) -> Result<()> {
        self.wait("everything to be heard", |state| {
            state.waiting.is_empty().then_some(())
        })
    }

    /// Waits for a message in a chat that has these words now.
    ///
    /// # Errors
    ///
    /// When there is none for a long time.
    pub fn wait_for(&self, chat: i64, words: &str) -> Result<Sent> {
        self.wait(words, |state| {
            let mut all = state.messages.values().rev();
            all.find(|sent| sent.chat == chat && sent.text.contains(words))
                .cloned()
        })
    }

    /// Waits until a message has these words.
    ///
    /// # Errors
    ///
    /// When it does not get them for a long time.
    pub fn wait_for_change(&self, sent: &Sent, words: &str) -> Result<Sent> {
        self.wait(words, |state| {
            let now = state.messages.get(&sent.id);
            now.filter(|now| now.text.contains(words)).cloned()
        })
    }

    /// Waits until a method was called so often.
    ///
    /// # Errors
    ///
    /// When it is not for a long time.
    pub fn wait_for_calls(&self, method: &str, count: usize) -> Result<Vec<Value>> {
        self.wait(method, |state| {
            let calls = state.calls.iter().filter(|(name, _)| name == method);
            let calls: Vec<_> = calls.map(|(_, body)| body.clone()).collect();
            (calls.len() >= count).then_some(calls)
        })
    }

    /// What a method was called with until now.
    #[must_use]
    pub fn calls(&self, method: &str) -> Vec<Value> {
        let state = self.shared.state();
        let calls = state.calls.iter().filter(|(name, _)| name == method);
        calls.map(|(_, body)| body.clone()).collect()
    }

    /// All messages of the bot, in order.
    #[must_use]
    pub fn messages(&self) -> Vec<Sent> {
        self.shared.state().messages.values().cloned().collect()
    }

    /// What both sides said, in order.
    #[must_use]
    pub fn transcript(&self) -> String {
        self.shared.state().transcript.join("\n")
    }

    fn note(&self, line: String) {
        self.shared.state().transcript.push(line);
    }

    fn wait<T>(&self, what: &str, done: impl Fn(&State) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + LIMIT;
        let mut state = self.shared.state();
        loop {
            Canaries::ours().settle()?;
            if let Some(done) = done(&state) {
                return Ok(done);
            }
            let left = deadline.checked_duration_since(Instant::now());
            let left = left.with_context(|| {
                format!(
                    "waiting for {what}; so far:\n{}",
                    state.transcript.join("\n")
                )
            })?;
            state = self
                .shared
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Drop for BotApi {
    fn drop(&mut self) {
        self.shared.state().is_over = true;
        self.shared.changed.notify_all();
        // It listens for whoever comes last.
        let _ = TcpStream::connect(self.address);
        canary::complain();
    }
}

/// Now, as the API tells it.
#[must_use]
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// A refusal, as the API writes it.
fn refusal(code: u16, text: &str) -> (u16, Value) {
    (
        code,
        json!({ "ok": false, "error_code": code, "description": text }),
    )
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers the requests of one connection.
    fn talk(&self, stream: TcpStream) -> Option<()> {
        let mut writer = stream.try_clone().ok()?;
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
            let path = line.split(' ').nth(1)?.to_owned();
            let mut length = 0;
            loop {
                let mut header = String::new();
                reader.read_line(&mut header).ok()?;
                let Some((name, value)) = header.trim().split_once(':') else {
                    break;
                };
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.trim().parse().ok()?;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let (status, answer) = self.answer(&path, &body);
            let answer = answer.to_string();
            let length = answer.len();
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\n\r\n"
            );
            writer
                .write_all(format!("{head}{answer}").as_bytes())
                .ok()?;
        }
    }

    fn answer(&self, path: &str, body: &Value) -> (u16, Value) {
        let path = path
            .strip_prefix("/bot")
            .and_then(|rest| rest.split_once('/'));
        let Some((token, method)) = path else {
            return refusal(404, "Not Found");
        };
        if token != self.token {
            return refusal(401, "Unauthorized");
        }
        // Whoever asks what was called is told.
        let _ = canary::look(Kind::Message, method, body.to_string());
        if body["protect_content"] == true {
            // What opens a sandbox is told once.
            canary::keep_if_any(body["text"].as_str().unwrap_or_default());
        }
        let mut state = self.state();
        state.calls.push((method.to_owned(), body.clone()));
        self.changed.notify_all();
        let fault = state.faults.iter().position(|fault| fault.method == method);
        if let Some(index) = fault {
            let fault = state.faults[index].clone();
            state.faults[index].times -= 1;
            if state.faults[index].times == 0 {
                state.faults.remove(index);
            }
            return (fault.status, fault.body);
        }
        if method == "getUpdates" {
            return self.updates(state, body);
        }
        let answer = state.perform(method, body);
        drop(state);
        self.changed.notify_all();
        match answer {
            Ok(result) => (200, json!({ "ok": true, "result": result })),
            Err(text) => refusal(400, text),
        }
    }

    /// Waits for updates as long as is asked. Another one who asks ends that.
    fn updates(&self, mut state: MutexGuard<'_, State>, body: &Value) -> (u16, Value) {
        state.poll += 1;
        let own = state.poll;
        if let Some(offset) = body["offset"].as_i64() {
            state
                .waiting
                .retain(|one| one["update_id"].as_i64() >= Some(offset));
        }
        self.changed.notify_all();
        let patience = Duration::from_secs(body["timeout"].as_u64().unwrap_or(0));
        let deadline = Instant::now() + patience;
        loop {
            if state.poll != own {
                let text = "Conflict: terminated by other getUpdates request; make sure that only \
                            one bot instance is running";
                return refusal(409, text);
            }
            let left = deadline.checked_duration_since(Instant::now());
            let limit = body["limit"].as_u64().unwrap_or(100);
            let limit = usize::try_from(limit).unwrap_or(100);
            match left {
                Some(left) if state.waiting.is_empty() && !state.is_over => {
                    let waited = self.changed.wait_timeout(state, left);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                _ => {
                    let updates: Vec<_> = state.waiting.iter().take(limit).cloned().collect();
                    return (200, json!({ "ok": true, "result": updates }));
                }
            }
        }
    }
}

impl State {
    fn perform(&mut self, method: &str, body: &Value) -> Result<Value, &'static str> {
        let chat = body["chat_id"].as_i64().unwrap_or_default();
        let number = body["message_id"].as_i64().unwrap_or_default();
        match method {
            "getMe" => Ok(json!({ "id": 1, "is_bot": true, "first_name": "Bot" })),
            "setMyCommands" | "deleteWebhook" => Ok(json!(true)),
            "sendMessage" => {
                if !self.people.contains(&chat) {
                    return Err("Bad Request: chat not found");
                }
                let (text, buttons) = said(body)?;
                self.last_message += 1;
                let id = self.last_message;
                self.tell("", &text, &buttons);
                let sent = Sent {
                    id,
                    chat,
                    text,
                    buttons,
                    ..Sent::default()
                };
                let result = shown(&sent);
                self.messages.insert(id, sent);
                Ok(result)
            }
            "editMessageText" => {
                let (text, buttons) = said(body)?;
                let known = self.messages.get_mut(&number);
                let known = known.filter(|sent| sent.chat == chat && !sent.is_deleted);
                let sent = known.ok_or("Bad Request: message to edit not found")?;
                if (&sent.text, &sent.buttons) == (&text, &buttons) {
                    return Err(
                        "Bad Request: message is not modified: specified new message \
                                content and reply markup are exactly the same",
                    );
                }
                sent.edits += 1;
                sent.text.clone_from(&text);
                sent.buttons.clone_from(&buttons);
                let result = shown(sent);
                self.tell("(changed) ", &text, &buttons);
                Ok(result)
            }
            "deleteMessage" => {
                let known = self.messages.get_mut(&number);
                let known = known.filter(|sent| sent.chat == chat && !sent.is_deleted);
                let sent = known.ok_or("Bad Request: message to delete not found")?;
                sent.is_deleted = true;
                self.transcript.push("(a message is taken back)".to_owned());
                Ok(json!(true))
            }
            "answerCallbackQuery" => {
                let id = body["callback_query_id"].as_str().unwrap_or_default();
                if !self.pressed.remove(id) {
                    return Err(
                        "Bad Request: query is too old and response timeout expired or \
                                query ID is invalid",
                    );
                }
                if let Some(text) = body["text"].as_str() {
                    self.transcript.push(format!("(at the button) {text}"));
                }
                Ok(json!(true))
            }
            _ => Err("Bad Request: no such method in this API"),
        }
    }

    fn tell(&mut self, how: &str, text: &str, buttons: &[(String, String)]) {
        self.transcript.push(format!("{how}{text}"));
        if !buttons.is_empty() {
            let labels = buttons.iter().map(|(label, _)| format!("[{label}]"));
            self.transcript.push(labels.collect::<Vec<_>>().join(" "));
        }
    }
}

fn shown(sent: &Sent) -> Value {
    json!({
        "message_id": sent.id, "date": now(), "text": sent.text,
        "from": { "id": 1, "is_bot": true, "first_name": "Bot" },
        "chat": { "id": sent.chat, "type": "private" },
    })
}

/// What is to be said, if the API takes it.
fn said(body: &Value) -> Result<(String, Buttons), &'static str> {
    let text = body["text"].as_str().unwrap_or_default();
    if text.is_empty() {
        return Err("Bad Request: message text is empty");
    }
    if text.encode_utf16().count() > 4096 {
        return Err("Bad Request: message is too long");
    }
    let rows = body["reply_markup"]["inline_keyboard"].as_array();
    let mut buttons = Vec::new();
    for button in rows
        .into_iter()
        .flatten()
        .filter_map(Value::as_array)
        .flatten()
    {
        let text = |name: &str| button[name].as_str().unwrap_or_default().to_owned();
        let (label, data) = (text("text"), text("callback_data"));
        if label.is_empty() || data.is_empty() || data.len() > 64 {
            return Err("Bad Request: BUTTON_DATA_INVALID");
        }
        buttons.push((label, data));
    }
    Ok((text.to_owned(), buttons))
}
