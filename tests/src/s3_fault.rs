//! An HTTP proxy on loopback in front of a real S3 server, that misbehaves as such servers do.
//!
//! Where [`crate::fault::Proxy`] knows bytes, this one knows requests: it can refuse the third part
//! of an upload, carry a request out and lie about it, or answer a read as before the last write.
//! What no rule strikes passes unchanged to the byte, `Host` included, because signatures cover it.

mod rules;
mod wire;

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::Result;
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

pub use rules::{Act, Hits, Rule};
pub use wire::Request;

use wire::{Answer, Pour, Stream};

/// A longer answer is not remembered for [`Act::Stale`].
const MEMORY: usize = 1 << 20;

/// A running proxy; its connections end when it is dropped.
#[derive(Debug)]
pub struct S3Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    shutdown: CancellationToken,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    seen: Vec<Request>,
    equal_parts: bool,
    /// The lengths of parts, by upload and number.
    parts: BTreeMap<String, BTreeMap<u32, u64>>,
    memory: Memory,
}

/// What reads were answered, and what they were before the object was written last.
#[derive(Debug, Default)]
struct Memory {
    now: HashMap<String, Vec<u8>>,
    before: HashMap<String, HashMap<String, Vec<u8>>>,
}

impl Memory {
    fn learn(&mut self, request: &Request, answer: Vec<u8>) {
        self.now.insert(request.question(), answer);
    }

    /// The object is about to be another one.
    fn forget(&mut self, request: &Request) {
        let about = |question: &String| question.contains(&format!(" {} ", request.path));
        let known = self.now.iter().filter(|(question, _)| about(question));
        let known = known.map(|(question, answer)| (question.clone(), answer.clone()));
        let known = known.collect();
        self.now.retain(|question, _| !about(question));
        self.before.insert(request.path.clone(), known);
    }

    /// The answer to the same question before the last write; `None` where nobody had asked.
    fn before(&self, request: &Request) -> Option<Vec<u8>> {
        if request.is_list() {
            return self.now.get(&request.question()).cloned();
        }
        let before = self.before.get(&request.path)?;
        before.get(&request.question()).cloned()
    }
}

impl S3Proxy {
    /// Starts a proxy on a free loopback port, in front of `upstream`'s loopback port.
    ///
    /// # Errors
    ///
    /// When no port or thread is to be had.
    pub fn start(upstream: u16) -> Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let shared = Arc::new(Shared {
            upstream: (Ipv4Addr::LOCALHOST, upstream).into(),
            shutdown: CancellationToken::new(),
            state: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        let serve = move || {
            runtime.block_on(async move {
                let shutdown = serving.shutdown.clone();
                let _ = shutdown
                    .run_until_cancelled(accept(listener, serving))
                    .await;
            });
        };
        let thread = thread::Builder::new()
            .name("s3-fault-proxy".into())
            .spawn(serve)?;
        Ok(Self {
            shared,
            address,
            thread: Some(thread),
        })
    }

    /// The port where clients connect.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The URL where clients connect.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a rule after those that are there: of several that match a request, the first one
    /// that has strikes left is used. The result counts its strikes.
    #[expect(
        clippy::must_use_candidate,
        reason = "the rule is what it is called for"
    )]
    pub fn add(&self, rule: Rule) -> Hits {
        let hits = rule.hits();
        self.shared.state().rules.push(rule);
        hits
    }

    /// Takes all rules and demands away.
    pub fn clear(&self) {
        let mut state = self.shared.state();
        state.rules.clear();
        state.equal_parts = false;
    }

    /// An upload is completed only if all its parts but the last are equal and the last is not
    /// longer, as R2 has it.
    pub fn demand_equal_parts(&self) {
        self.shared.state().equal_parts = true;
    }

    /// Parts with a higher number are refused in the words of S3, which says so at 10,000.
    #[must_use]
    pub fn limit_parts(&self, most: u32) -> Hits {
        let beyond = move |request: &Request| request.part_number().is_some_and(|n| n > most);
        let words = format!("Part number must be an integer between 1 and {most}, inclusive");
        let refusal = Act::Answer(400, "InvalidArgument".to_owned(), words);
        self.add(Rule::new(beyond, refusal))
    }

    /// Uploads without a checksum are refused, as by a bucket with Object Lock.
    #[must_use]
    pub fn demand_checksums(&self) -> Hits {
        let words = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object \
                     requests with Object Lock parameters";
        let refusal = Act::Answer(400, "InvalidRequest".to_owned(), words.to_owned());
        let bare = |request: &Request| request.method == "PUT" && !request.has_checksum();
        self.add(Rule::new(bare, refusal))
    }

    /// The heads of all requests so far, those that were struck too.
    #[must_use]
    pub fn seen(&self) -> Vec<Request> {
        self.shared.state().seen.clone()
    }

    /// How many requests so far are like this.
    #[must_use]
    pub fn count(&self, like: impl Fn(&Request) -> bool) -> usize {
        self.shared.state().seen.iter().filter(|r| like(r)).count()
    }

    /// The lengths of the parts of each upload, in the order of their numbers.
    #[must_use]
    pub fn part_sizes(&self) -> Vec<Vec<u64>> {
        let state = self.shared.state();
        let sizes = state.parts.values();
        sizes
            .map(|parts| parts.values().copied().collect())
            .collect()
    }
}

impl Drop for S3Proxy {
    fn drop(&mut self) {
        self.shared.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request and says what to do with it.
    fn judge(&self, request: &Request) -> Act {
        let mut state = self.state();
        state.seen.push(request.clone());
        if let (Some(number), Some(upload)) = (request.part_number(), request.upload_id()) {
            let parts = state.parts.entry(upload.to_owned()).or_default();
            parts.insert(number, request.length);
        }
        let struck = state.rules.iter_mut().find_map(|rule| rule.strike(request));
        let act = struck.unwrap_or(Act::Forward);
        if act == Act::Forward && state.equal_parts && request.is_complete() {
            let upload = request.upload_id().unwrap_or_default();
            let sizes: Vec<u64> = match state.parts.get(upload) {
                Some(parts) => parts.values().copied().collect(),
                None => Vec::new(),
            };
            if !are_equal_but_the_last(&sizes) {
                let words = "All non-trailing parts must have the same length";
                return Act::Answer(400, "InvalidPart".to_owned(), words.to_owned());
            }
        }
        if act.is_carried_out() && request.is_write() {
            state.memory.forget(request);
        }
        act
    }

    fn stale(&self, request: &Request) -> Vec<u8> {
        let before = self.state().memory.before(request);
        let unknown =
            || wire::error_answer(404, "NoSuchKey", "The specified key does not exist", "");
        let mut answer = before.unwrap_or_else(unknown);
        if request.method == "HEAD" {
            wire::drop_body(&mut answer);
        }
        answer
    }
}

fn are_equal_but_the_last(sizes: &[u64]) -> bool {
    let Some((last, others)) = sizes.split_last() else {
        return true;
    };
    others.iter().all(|size| *size == others[0]) && others.first().is_none_or(|o| last <= o)
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).expect("the listener does not block");
    loop {
        if let Ok((client, _)) = listener.accept().await {
            tokio::spawn(Link::carry(client, Arc::clone(&shared)));
        }
    }
}

/// How a connection goes on after one request.
#[derive(Debug, PartialEq, Eq)]
enum Then {
    Go,
    Close,
    Reset,
}

/// One connection of a client, and that to the server which stands for it.
struct Link {
    client: Stream,
    server: Stream,
    shared: Arc<Shared>,
}

impl Link {
    async fn carry(client: TcpStream, shared: Arc<Shared>) {
        let Ok(server) = TcpStream::connect(shared.upstream).await else {
            return wire::reset(BufReader::new(client));
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let mut link = Self {
            client: BufReader::new(client),
            server: BufReader::new(server),
            shared,
        };
        loop {
            // An error of a connection is passed on as one.
            match link.exchange().await.unwrap_or(Then::Reset) {
                Then::Go => {}
                Then::Close => return,
                Then::Reset => {
                    wire::reset(link.client);
                    return wire::reset(link.server);
                }
            }
        }
    }

    /// One request and its answer.
    async fn exchange(&mut self) -> std::io::Result<Then> {
        let Some((head, request)) = wire::read_request(&mut self.client).await? else {
            return Ok(Then::Close);
        };
        match self.shared.judge(&request) {
            Act::Forward => self.forward(&head, &request, Pour::all()).await,
            Act::CutAnswer(bytes) => self.forward(&head, &request, Pour::only(bytes)).await,
            Act::Answer(status, code, words) => {
                self.swallow(&request).await?;
                self.say(&request, wire::error_answer(status, &code, &words, ""))
                    .await
            }
            Act::AnswerAfter(status, code, words) => {
                self.pass_on(&head, &request).await?;
                self.say(&request, wire::error_answer(status, &code, &words, ""))
                    .await
            }
            Act::LoseAnswer => {
                self.pass_on(&head, &request).await?;
                Ok(Then::Reset)
            }
            Act::Skewed(by) => {
                self.swallow(&request).await?;
                self.say(&request, rules::skewed(by)).await
            }
            Act::ResetAfter(bytes) => {
                let bytes = bytes.min(request.length);
                self.server.write_all(&head).await?;
                wire::copy(&mut self.client, Some(&mut self.server), bytes).await?;
                Ok(Then::Reset)
            }
            Act::Stale => {
                self.swallow(&request).await?;
                let answer = self.shared.stale(&request);
                self.client.write_all(&answer).await?;
                Ok(Then::Go)
            }
            Act::Silence => std::future::pending().await,
        }
    }

    async fn swallow(&mut self, request: &Request) -> std::io::Result<()> {
        self.invite(request).await?;
        wire::copy(&mut self.client, None, request.length).await
    }

    /// Some clients wait for a word before they send the body.
    async fn invite(&mut self, request: &Request) -> std::io::Result<()> {
        if request.header("expect").is_some() {
            let word = b"HTTP/1.1 100 Continue\r\n\r\n";
            self.client.write_all(word).await?;
        }
        Ok(())
    }

    async fn say(&mut self, request: &Request, mut answer: Vec<u8>) -> std::io::Result<Then> {
        if request.method == "HEAD" {
            wire::drop_body(&mut answer);
        }
        self.client.write_all(&answer).await?;
        Ok(Then::Go)
    }

    async fn send(&mut self, head: &[u8], request: &Request) -> std::io::Result<()> {
        self.invite(request).await?;
        self.server.write_all(head).await?;
        wire::copy(&mut self.client, Some(&mut self.server), request.length).await
    }

    /// Has the server carry it out, and keeps what it says.
    async fn pass_on(&mut self, head: &[u8], request: &Request) -> std::io::Result<()> {
        self.send(head, request).await?;
        let answer = Answer::read_head(&mut self.server, request).await?;
        answer.pour(&mut self.server, None, Pour::all()).await?;
        Ok(())
    }

    async fn forward(
        &mut self,
        head: &[u8],
        request: &Request,
        pour: Pour,
    ) -> std::io::Result<Then> {
        self.send(head, request).await?;
        let answer = Answer::read_head(&mut self.server, request).await?;
        let closes = answer.closes;
        let whole = answer
            .pour(&mut self.server, Some(&mut self.client), pour)
            .await?;
        let Some(whole) = whole else {
            return Ok(Then::Reset);
        };
        if request.is_read() && !whole.is_empty() {
            self.shared.state().memory.learn(request, whole);
        }
        Ok(if closes { Then::Close } else { Then::Go })
    }
}

#[cfg(test)]
mod tests;
