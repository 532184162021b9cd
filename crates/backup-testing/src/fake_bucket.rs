//! A server that speaks as much of S3, and of what Google made of it, as the store uses, and
//! breaks where it is told to. No signatures are checked: real servers do that.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::lock;

/// How many entries one page of a listing has.
const PAGE: usize = 1000;

/// What came in.
#[derive(Debug, Clone, Default)]
pub struct HttpRequest {
    /// The method.
    pub method: String,
    /// The object's key; empty for the bucket itself.
    pub key: String,
    /// What stands behind the question mark.
    pub query: String,
    /// The headers, by names in small letters.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

impl HttpRequest {
    /// A part of an upload.
    #[must_use]
    pub fn is_part(&self) -> bool {
        self.method == "PUT" && self.query.contains("partNumber=")
    }

    /// The end of an upload.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.method == "POST" && self.query.starts_with("uploadId=")
    }

    /// The removal of an upload.
    #[must_use]
    pub fn is_abort(&self) -> bool {
        self.method == "DELETE" && self.query.starts_with("uploadId=")
    }

    /// Whether it has a header.
    #[must_use]
    pub fn has(&self, header: &str) -> bool {
        self.headers.contains_key(header)
    }

    /// A read or a listing.
    #[must_use]
    pub fn is_get(&self) -> bool {
        self.method == "GET"
    }

    fn is_google(&self) -> bool {
        let given = self.headers.get("authorization");
        !given.is_some_and(|value| value.starts_with("AWS4"))
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
pub enum HttpFault {
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

/// An error document.
#[must_use]
pub fn error_document(code: &str) -> String {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>Words.</Message></Error>")
}

#[derive(Debug)]
struct Rule {
    matches: fn(&HttpRequest) -> bool,
    skip: usize,
    times: usize,
    fault: HttpFault,
}

/// What is stored under a key.
#[derive(Debug, Clone)]
struct Object {
    content: Vec<u8>,
    /// The lengths of the parts that it came in; none of one that came in one piece.
    parts: Vec<usize>,
    /// Counts all writes, as Google's generations do.
    generation: usize,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Object>,
    headers: BTreeMap<String, HashMap<String, String>>,
    token: Option<String>,
    uploads: BTreeMap<String, BTreeMap<u32, Vec<u8>>>,
    parts_asked: usize,
    parts_received: usize,
    requests: usize,
    rules: Vec<Rule>,
    writes: usize,
    unheeded: Vec<&'static str>,
}

/// The server; it ends with its runtime.
#[derive(Debug, Clone)]
pub struct FakeBucket {
    /// Where it listens.
    pub endpoint: String,
    state: Arc<Mutex<State>>,
}

impl FakeBucket {
    /// Starts one with an empty bucket.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start() -> Self {
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
    pub fn fault(
        &self,
        matches: fn(&HttpRequest) -> bool,
        skip: usize,
        times: usize,
        fault: HttpFault,
    ) {
        self.state().rules.push(Rule {
            matches,
            skip,
            times,
            fault,
        });
    }

    /// From now on, puts are carried out as if they had not this header.
    pub fn passes_over(&self, header: &'static str) {
        self.state().unheeded.push(header);
    }

    /// An object's bytes.
    #[must_use]
    pub fn object(&self, key: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.objects.get(key).map(|object| object.content.clone())
    }

    /// Stores an object, over an older one.
    pub fn set_object(&self, key: &str, content: &[u8]) {
        self.state().store(key, content.to_vec(), Vec::new());
    }

    /// How many uploads were neither completed nor removed.
    #[must_use]
    pub fn open_uploads(&self) -> usize {
        self.state().uploads.len()
    }

    /// How many parts were to be taken, whatever becomes of them.
    #[must_use]
    pub fn parts_asked(&self) -> usize {
        self.state().parts_asked
    }

    /// How many parts came, one that was sent again as often as it was.
    #[must_use]
    pub fn parts_received(&self) -> usize {
        self.state().parts_received
    }

    /// The lengths of the parts that an object is made of, in their order.
    #[must_use]
    pub fn parts_of(&self, key: &str) -> Vec<usize> {
        let state = self.state();
        let object = state.objects.get(key);
        object.map_or_else(Vec::new, |object| object.parts.clone())
    }

    /// All keys, in order.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    /// The headers of the request that wrote an object, or that began its upload.
    #[must_use]
    pub fn headers(&self, key: &str) -> HashMap<String, String> {
        self.state().headers.get(key).cloned().unwrap_or_default()
    }

    /// From now on only requests are served whose header `Authorization` begins with this.
    pub fn demand(&self, authorization: &str) {
        self.state().token = Some(authorization.to_owned());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn next_fault(&self, request: &HttpRequest) -> Option<HttpFault> {
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
            {
                let mut state = self.state();
                state.requests += 1;
                state.parts_asked += usize::from(request.is_part());
            }
            let length = request.headers.get("content-length");
            let length = length.map_or(0, |text| text.parse().unwrap_or(0));
            let fault = self.next_fault(&request);
            if let Some(HttpFault::ResetAfter(bytes)) = fault {
                request.body.resize(length.min(bytes), 0);
                stream.read_exact(&mut request.body).await?;
                // Unread data in the buffer turns the close into a reset.
                tokio::time::sleep(Duration::from_millis(20)).await;
                return Ok(());
            }
            request.body.resize(length, 0);
            stream.read_exact(&mut request.body).await?;
            let answer = match fault {
                Some(HttpFault::Answer(status, body)) => reply(status, "", body.into_bytes()),
                Some(HttpFault::Stall) => std::future::pending().await,
                Some(HttpFault::LoseAnswer) => {
                    let _ = self.handle(&request);
                    return Ok(());
                }
                Some(HttpFault::CutAnswer(bytes)) => {
                    let (head, body) = self.handle(&request);
                    stream.write_all(head.as_bytes()).await?;
                    stream.write_all(&body[..bytes.min(body.len())]).await?;
                    return Ok(());
                }
                Some(HttpFault::ResetAfter(_)) | None => self.handle(&request),
            };
            stream.write_all(answer.0.as_bytes()).await?;
            if request.method != "HEAD" {
                stream.write_all(&answer.1).await?;
            }
        }
    }

    fn handle(&self, request: &HttpRequest) -> (String, Vec<u8>) {
        let mut state = self.state();
        let given = request.headers.get("authorization");
        let demanded = state.token.as_deref().unwrap_or_default();
        if !given.map_or("", String::as_str).starts_with(demanded) {
            return reply(401, "", error_document("AuthenticationRequired").into());
        }
        match request.method.as_str() {
            "PUT" => put(&mut state, request),
            "POST" => post(&mut state, request),
            "GET" if request.key.is_empty() => list(&state, request),
            "GET" | "HEAD" => get(&state, request),
            "DELETE" if request.is_abort() => {
                match state.uploads.remove(request.parameter("uploadId")) {
                    Some(_) => reply(204, "", Vec::new()),
                    None => reply(404, "", error_document("NoSuchUpload").into()),
                }
            }
            "DELETE" => match state.objects.remove(&request.key) {
                // Google says so, Amazon does not.
                None if request.is_google() => reply(404, "", error_document("NoSuchKey").into()),
                _ => reply(204, "", Vec::new()),
            },
            _ => reply(405, "", Vec::new()),
        }
    }
}

impl State {
    fn store(&mut self, key: &str, content: Vec<u8>, parts: Vec<usize>) -> String {
        self.writes += 1;
        let object = Object {
            content,
            parts,
            generation: self.writes,
        };
        let headers = headers_of(&object);
        self.objects.insert(key.to_owned(), object);
        headers
    }
}

fn tag_of(object: &Object) -> String {
    format!("\"e{}-{}\"", object.content.len(), object.generation)
}

fn headers_of(object: &Object) -> String {
    let (tag, generation) = (tag_of(object), object.generation);
    format!("etag: {tag}\r\nx-goog-generation: {generation}\r\n")
}

fn put(state: &mut State, request: &HttpRequest) -> (String, Vec<u8>) {
    if request.is_part() {
        let number = request.parameter("partNumber").parse().unwrap_or(0);
        let Some(upload) = state.uploads.get_mut(request.parameter("uploadId")) else {
            return reply(404, "", error_document("NoSuchUpload").into());
        };
        upload.insert(number, request.body.clone());
        state.parts_received += 1;
        return reply(200, &format!("etag: \"part{number}\"\r\n"), Vec::new());
    }
    let found = state.objects.get(&request.key);
    let header = |name| {
        let heeded = !state.unheeded.contains(&name);
        request.headers.get(name).filter(|_| heeded)
    };
    let tag = found.map(tag_of);
    let changed = header("if-match").is_some_and(|wanted| Some(wanted) != tag.as_ref());
    let taken = changed || found.is_some() && header("if-none-match").is_some();
    let generation = found.map_or(0, |object| object.generation).to_string();
    let wanted = request.headers.get("x-goog-if-generation-match");
    if taken || wanted.is_some_and(|wanted| *wanted != generation) {
        return reply(412, "", error_document("PreconditionFailed").into());
    }
    state
        .headers
        .insert(request.key.clone(), request.headers.clone());
    let headers = state.store(&request.key, request.body.clone(), Vec::new());
    reply(200, &headers, Vec::new())
}

fn post(state: &mut State, request: &HttpRequest) -> (String, Vec<u8>) {
    if request.query.starts_with("uploads") {
        let id = format!("upload{}", state.requests);
        state.uploads.insert(id.clone(), BTreeMap::new());
        state
            .headers
            .insert(request.key.clone(), request.headers.clone());
        let body = format!(
            "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
        );
        return reply(200, "", body.into());
    }
    let Some(parts) = state.uploads.remove(request.parameter("uploadId")) else {
        return reply(404, "", error_document("NoSuchUpload").into());
    };
    let lengths = parts.values().map(Vec::len).collect();
    let content = parts.into_values().flatten().collect();
    let headers = state.store(&request.key, content, lengths);
    let body = "<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>";
    reply(200, &headers, body.into())
}

/// One page, after the key that the one before ended with.
fn list(state: &State, request: &HttpRequest) -> (String, Vec<u8>) {
    let prefix = decoded(request.parameter("prefix"));
    let after = decoded(request.parameter("continuation-token"));
    let by_folder = !request.parameter("delimiter").is_empty();
    let (mut entries, mut folders) = (String::new(), BTreeSet::new());
    let (mut count, mut last) = (0, None);
    for (key, object) in &state.objects {
        let Some(rest) = key.strip_prefix(&prefix) else {
            continue;
        };
        let folder = rest.split_once('/').filter(|_| by_folder);
        let folder = folder.map(|(first, _)| format!("{prefix}{first}/"));
        let entry = folder.as_ref().unwrap_or(key);
        if *entry <= after || folders.contains(entry) {
            continue;
        }
        if count == PAGE {
            let token = last.unwrap_or_default();
            let _ = write!(
                entries,
                "<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
            );
            break;
        }
        count += 1;
        last = Some(entry.clone());
        if let Some(folder) = folder {
            let _ = write!(
                entries,
                "<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"
            );
            folders.insert(folder);
        } else {
            let (size, generation) = (object.content.len(), object.generation);
            let _ = write!(
                entries,
                "<Contents><Key>{key}</Key><LastModified>2026-02-05T03:00:00.000Z</LastModified>\
                 <ETag>\"e{size}-{generation}\"</ETag><Size>{size}</Size></Contents>"
            );
        }
    }
    let body = format!("<ListBucketResult>{entries}</ListBucketResult>");
    reply(200, "", body.into())
}

fn get(state: &State, request: &HttpRequest) -> (String, Vec<u8>) {
    let Some(object) = state.objects.get(&request.key) else {
        return reply(404, "", error_document("NoSuchKey").into());
    };
    let content = &object.content;
    let tag = tag_of(object);
    if request
        .headers
        .get("if-match")
        .is_some_and(|wanted| *wanted != tag)
    {
        return reply(412, "", error_document("PreconditionFailed").into());
    }
    let mut headers = headers_of(object);
    headers.push_str("last-modified: Thu, 05 Feb 2026 03:00:00 GMT\r\n");
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

/// A part of a URL without its escapes.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let (b'%', Some(escaped)) = (byte, escaped) {
            bytes.push(escaped);
            rest = &tail[2..];
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn reply(status: u16, headers: &str, body: Vec<u8>) -> (String, Vec<u8>) {
    let length = body.len();
    (
        format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{headers}\r\n"),
        body,
    )
}

async fn read_head(stream: &mut BufReader<TcpStream>) -> io::Result<Option<HttpRequest>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = HttpRequest {
        method,
        key: decoded(
            path.strip_prefix("/bucket")
                .unwrap_or(path)
                .trim_start_matches('/'),
        ),
        query: query.to_owned(),
        ..HttpRequest::default()
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
