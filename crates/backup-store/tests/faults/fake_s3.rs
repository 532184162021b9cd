//! A server that speaks as much S3 as the store uses, and breaks where it is told to. No
//! signatures are checked: real servers do that.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What came in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) key: String,
    pub(crate) query: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn is_part(&self) -> bool {
        self.method == "PUT" && self.query.contains("partNumber=")
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.method == "POST" && self.query.starts_with("uploadId=")
    }

    pub(crate) fn is_abort(&self) -> bool {
        self.method == "DELETE" && self.query.starts_with("uploadId=")
    }

    pub(crate) fn is_get(&self) -> bool {
        self.method == "GET"
    }

    fn parameter(&self, name: &str) -> &str {
        let pairs = self
            .query
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        pairs
            .filter(|(n, _)| *n == name)
            .map(|(_, value)| value)
            .next()
            .unwrap_or_default()
    }
}

/// What goes wrong.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// This status and body instead of doing anything.
    Answer(u16, String),
    /// The connection is reset when this much of the request's body has come.
    ResetAfter(usize),
    /// No answer, and the connection stays open.
    Stall,
    /// The work is done and the connection closed without an answer.
    LoseAnswer,
    /// The answer's body ends after so many bytes.
    CutAnswer(usize),
}

/// An S3 error document.
pub(crate) fn error_document(code: &str) -> String {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>Words.</Message></Error>")
}

struct Rule {
    matches: fn(&Request) -> bool,
    skip: usize,
    times: usize,
    fault: Fault,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    uploads: BTreeMap<String, BTreeMap<u32, Vec<u8>>>,
    part_sizes: Vec<usize>,
    requests: usize,
    rules: Vec<Rule>,
    writes: usize,
}

/// The server; it ends with its runtime.
#[derive(Clone)]
pub(crate) struct FakeS3 {
    pub(crate) endpoint: String,
    state: Arc<Mutex<State>>,
}

impl FakeS3 {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let server = Self {
            endpoint: format!("http://{address}"),
            state: Arc::default(),
        };
        let shared = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                tokio::spawn(async move {
                    let _ = shared.serve(stream).await;
                });
            }
        });
        server
    }

    /// From now on, `times` requests that match get this fault, after the first `skip`.
    pub(crate) fn fault(
        &self,
        matches: fn(&Request) -> bool,
        skip: usize,
        times: usize,
        fault: Fault,
    ) {
        self.state().rules.push(Rule {
            matches,
            skip,
            times,
            fault,
        });
    }

    pub(crate) fn object(&self, key: &str) -> Option<Vec<u8>> {
        self.state().objects.get(key).cloned()
    }

    pub(crate) fn set_object(&self, key: &str, content: &[u8]) {
        let mut state = self.state();
        state.writes += 1;
        state.objects.insert(key.to_owned(), content.to_vec());
    }

    pub(crate) fn open_uploads(&self) -> usize {
        self.state().uploads.len()
    }

    pub(crate) fn part_sizes(&self) -> Vec<usize> {
        self.state().part_sizes.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no test panics while it holds this")
    }

    fn next_fault(&self, request: &Request) -> Option<Fault> {
        let mut state = self.state();
        for rule in &mut state.rules {
            if !(rule.matches)(request) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if rule.times > 0 {
                rule.times -= 1;
                return Some(rule.fault.clone());
            }
        }
        None
    }

    async fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let Some(mut request) = read_head(&mut stream).await? else {
                return Ok(());
            };
            self.state().requests += 1;
            let length = request.headers.get("content-length");
            let length = length.map_or(0, |text| text.parse().unwrap_or(0));
            let fault = self.next_fault(&request);
            if let Some(Fault::ResetAfter(bytes)) = fault {
                request.body.resize(length.min(bytes), 0);
                stream.read_exact(&mut request.body).await?;
                // Unread data in the buffer turns the close into a reset.
                tokio::time::sleep(Duration::from_millis(20)).await;
                return Ok(());
            }
            request.body.resize(length, 0);
            stream.read_exact(&mut request.body).await?;
            let answer = match fault {
                Some(Fault::Answer(status, body)) => reply(status, "", body.into_bytes()),
                Some(Fault::Stall) => std::future::pending().await,
                Some(Fault::LoseAnswer) => {
                    let _ = self.handle(&request);
                    return Ok(());
                }
                Some(Fault::CutAnswer(bytes)) => {
                    let (head, body) = self.handle(&request);
                    stream.write_all(head.as_bytes()).await?;
                    stream.write_all(&body[..bytes.min(body.len())]).await?;
                    return Ok(());
                }
                Some(Fault::ResetAfter(_)) | None => self.handle(&request),
            };
            stream.write_all(answer.0.as_bytes()).await?;
            if request.method != "HEAD" {
                stream.write_all(&answer.1).await?;
            }
        }
    }

    fn handle(&self, request: &Request) -> (String, Vec<u8>) {
        let mut state = self.state();
        match request.method.as_str() {
            "PUT" => put(&mut state, request),
            "POST" => post(&mut state, request),
            "GET" | "HEAD" => get(&state, request),
            "DELETE" if request.is_abort() => {
                match state.uploads.remove(request.parameter("uploadId")) {
                    Some(_) => reply(204, "", Vec::new()),
                    None => reply(404, "", error_document("NoSuchUpload").into()),
                }
            }
            "DELETE" => {
                state.objects.remove(&request.key);
                reply(204, "", Vec::new())
            }
            _ => reply(405, "", Vec::new()),
        }
    }
}

fn put(state: &mut State, request: &Request) -> (String, Vec<u8>) {
    if request.is_part() {
        let number = request.parameter("partNumber").parse().unwrap_or(0);
        let Some(upload) = state.uploads.get_mut(request.parameter("uploadId")) else {
            return reply(404, "", error_document("NoSuchUpload").into());
        };
        upload.insert(number, request.body.clone());
        state.part_sizes.push(request.body.len());
        return reply(200, &format!("etag: \"part{number}\"\r\n"), Vec::new());
    }
    let exists = state.objects.contains_key(&request.key);
    if exists && request.headers.contains_key("if-none-match") {
        return reply(412, "", error_document("PreconditionFailed").into());
    }
    state.writes += 1;
    state
        .objects
        .insert(request.key.clone(), request.body.clone());
    reply(200, "etag: \"e\"\r\n", Vec::new())
}

fn post(state: &mut State, request: &Request) -> (String, Vec<u8>) {
    if request.query.starts_with("uploads") {
        let id = format!("upload{}", state.requests);
        state.uploads.insert(id.clone(), BTreeMap::new());
        let body = format!(
            "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
        );
        return reply(200, "", body.into());
    }
    let Some(parts) = state.uploads.remove(request.parameter("uploadId")) else {
        return reply(404, "", error_document("NoSuchUpload").into());
    };
    let content = parts.into_values().flatten().collect();
    state.writes += 1;
    state.objects.insert(request.key.clone(), content);
    let body = "<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>";
    reply(200, "", body.into())
}

fn get(state: &State, request: &Request) -> (String, Vec<u8>) {
    let Some(content) = state.objects.get(&request.key) else {
        return reply(404, "", error_document("NoSuchKey").into());
    };
    let tag = format!("\"e{}-{}\"", content.len(), state.writes);
    if request
        .headers
        .get("if-match")
        .is_some_and(|wanted| *wanted != tag)
    {
        return reply(412, "", error_document("PreconditionFailed").into());
    }
    let mut headers = format!("etag: {tag}\r\nlast-modified: Thu, 05 Feb 2026 03:00:00 GMT\r\n");
    let Some(range) = request.headers.get("range") else {
        return reply(200, &headers, content.clone());
    };
    let (start, end) = range
        .trim_start_matches("bytes=")
        .split_once('-')
        .unwrap_or_default();
    let start: usize = start.parse().unwrap_or(0);
    let end = end
        .parse::<usize>()
        .map_or(content.len(), |end| (end + 1).min(content.len()));
    if start >= end {
        return reply(416, "", error_document("InvalidRange").into());
    }
    let _ = write!(
        headers,
        "content-range: bytes {start}-{}/{}\r\n",
        end - 1,
        content.len()
    );
    reply(206, &headers, content[start..end].to_vec())
}

fn reply(status: u16, headers: &str, body: Vec<u8>) -> (String, Vec<u8>) {
    let length = body.len();
    (
        format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{headers}\r\n"),
        body,
    )
}

async fn read_head(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method,
        key: path.trim_start_matches("/bucket/").to_owned(),
        query: query.to_owned(),
        ..Request::default()
    };
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                let name = name.to_ascii_lowercase();
                request.headers.insert(name, value.trim().to_owned());
            }
            None => return Ok(Some(request)),
        }
    }
}
