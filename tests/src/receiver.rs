//! A web server on loopback that keeps what it is asked, and answers as it was told to.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::canary::{self, Kind};

/// How long one request may take to arrive.
const LIMIT: Duration = Duration::from_secs(20);

/// The server. Its thread ends with the test process.
#[derive(Debug)]
pub struct Receiver {
    port: u16,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    kept: Vec<KeptRequest>,
    answers: VecDeque<(u16, String)>,
}

/// A request that it was sent.
#[derive(Clone, Debug)]
pub struct KeptRequest {
    /// `POST`
    pub method: String,
    /// What comes after the host.
    pub path: String,
    /// By their names in small letters.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl KeptRequest {
    /// A header; empty if it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let mut headers = self.headers.iter();
        let found = headers.find(|(header, _)| header == name);
        found.map_or("", |(_, value)| value)
    }

    /// The body as JSON.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| self.body.clone())
    }
}

impl Receiver {
    /// Starts one, which answers everything with 200.
    ///
    /// # Errors
    ///
    /// When there is no port.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let own = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&own);
                // Whoever hangs up has no answer.
                thread::spawn(move || answer(&stream, &shared));
            }
        });
        Ok(Self { port, shared })
    }

    /// The address of something there.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The next requests get these answers: a status, and headers and body as they are sent.
    pub fn answer_next(&self, answers: &[(u16, &str)]) {
        let answers = answers.iter();
        let answers = answers.map(|(status, rest)| (*status, (*rest).to_owned()));
        self.shared().answers.extend(answers);
    }

    /// What it was asked, and forgets it. Only its address may have a secret in it.
    ///
    /// # Panics
    ///
    /// When there was another one.
    #[must_use]
    pub fn take(&self) -> Vec<KeptRequest> {
        canary::complain();
        std::mem::take(&mut self.shared().kept)
    }

    fn shared(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer(stream: &TcpStream, shared: &Mutex<Shared>) -> Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut words = first.split_whitespace();
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(Ok(0), |(_, value)| value.parse())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let request = KeptRequest {
        method: method.to_owned(),
        path: path.to_owned(),
        headers,
        body: String::from_utf8(body)?,
    };
    let said = format!("{:?}\n{}", request.headers, request.body);
    // Whoever takes the requests is told.
    let _ = canary::look(Kind::Message, "a web request", said);
    let next = {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.kept.push(request);
        shared.answers.pop_front()
    };
    let (status, rest) = next.unwrap_or((200, "\r\nOK".to_owned()));
    let text = format!("HTTP/1.1 {status} said\r\nConnection: close\r\n{rest}");
    (&*stream).write_all(text.as_bytes())?;
    Ok(())
}
