//! As much of HTTP/1.1 as it takes to tell where a message ends.

use std::io;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::MEMORY;

pub(super) type Stream = BufReader<TcpStream>;

/// Bytes passed on at once.
const CHUNK: usize = 64 << 10;

/// No head is longer.
const MAX_HEAD: usize = 64 << 10;

/// The head of a request, and how long its body is.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path as it was sent, bucket first.
    pub path: String,
    /// What stands behind the question mark, as it was sent.
    pub query: String,
    /// Names in small letters, and values.
    pub headers: Vec<(String, String)>,
    /// How many bytes follow.
    pub length: u64,
}

impl Request {
    /// A header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }

    /// A parameter of the query, as it was sent.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let mut pairs = self.query.split('&').map(|pair| {
            let (own, value) = pair.split_once('=').unwrap_or((pair, ""));
            (own, value)
        });
        pairs.find(|(own, _)| *own == name).map(|(_, value)| value)
    }

    /// Whether it names an object, and not the bucket alone.
    #[must_use]
    pub fn is_of_object(&self) -> bool {
        let inside = self.path.trim_start_matches('/').split_once('/');
        inside.is_some_and(|(_, key)| !key.is_empty())
    }

    /// The upload that it belongs to.
    #[must_use]
    pub fn upload_id(&self) -> Option<&str> {
        self.parameter("uploadId")
    }

    /// Which part of an upload it is.
    #[must_use]
    pub fn part_number(&self) -> Option<u32> {
        let number = self.parameter("partNumber")?.parse().ok()?;
        (self.method == "PUT").then_some(number)
    }

    /// The beginning of an upload.
    #[must_use]
    pub fn is_begin(&self) -> bool {
        self.method == "POST" && self.parameter("uploads").is_some()
    }

    /// A part of an upload.
    #[must_use]
    pub fn is_part(&self) -> bool {
        self.part_number().is_some()
    }

    /// The end of an upload.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.method == "POST" && self.upload_id().is_some()
    }

    /// The removal of an upload.
    #[must_use]
    pub fn is_abort(&self) -> bool {
        self.method == "DELETE" && self.upload_id().is_some()
    }

    /// The removal of an object.
    #[must_use]
    pub fn is_delete(&self) -> bool {
        self.method == "DELETE" && self.upload_id().is_none()
    }

    /// An object in one piece.
    #[must_use]
    pub fn is_put(&self) -> bool {
        self.method == "PUT" && self.is_of_object() && !self.is_part()
    }

    /// The manifest of a backup in one piece: the commit.
    #[must_use]
    pub fn is_commit(&self) -> bool {
        self.is_put() && self.path.ends_with("/manifest.json")
    }

    /// What changes an object.
    #[must_use]
    pub fn is_write(&self) -> bool {
        self.is_put() || self.is_complete() || self.is_delete()
    }

    /// A read of an object.
    #[must_use]
    pub fn is_get(&self) -> bool {
        self.method == "GET" && self.is_of_object()
    }

    /// A listing.
    #[must_use]
    pub fn is_list(&self) -> bool {
        self.method == "GET" && !self.is_of_object()
    }

    /// A read of any kind.
    #[must_use]
    pub fn is_read(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD")
    }

    /// Whether the server can tell that the body is what was sent.
    #[must_use]
    pub fn has_checksum(&self) -> bool {
        let is_sum = |name: &str| name == "content-md5" || name.starts_with("x-amz-checksum-");
        self.headers.iter().any(|(name, _)| is_sum(name))
    }

    /// What is asked, for comparison with other reads.
    pub(super) fn question(&self) -> String {
        let range = self.header("range").unwrap_or_default();
        format!("{} {} {} {range}", self.method, self.path, self.query)
    }
}

/// Reads to the empty line; `None` when the other side has finished.
async fn read_head(stream: &mut Stream) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    loop {
        let before = head.len();
        if stream.read_until(b'\n', &mut head).await? == 0 {
            let whole = head.is_empty();
            return whole
                .then_some(None)
                .ok_or(io::ErrorKind::UnexpectedEof.into());
        }
        if matches!(&head[before..], b"\r\n" | b"\n") {
            return Ok(Some(head));
        }
        if head.len() > MAX_HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

fn headers_of(head: &str) -> Vec<(String, String)> {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect()
}

/// The next request of a connection: its head to the byte, and what it says.
pub(super) async fn read_request(client: &mut Stream) -> io::Result<Option<(Vec<u8>, Request)>> {
    let Some(head) = read_head(client).await? else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut words = text.lines().next().unwrap_or_default().split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers: headers_of(&text),
        length: 0,
    };
    if request.header("transfer-encoding").is_some() {
        // No client of these tests does so, and silence would be a riddle.
        return Err(io::Error::other("a request of unknown length"));
    }
    let length = request.header("content-length").unwrap_or("0");
    request.length = length.parse().map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(Some((head, request)))
}

/// Passes so many bytes on, or throws them away.
pub(super) async fn copy(
    from: &mut Stream,
    mut to: Option<&mut Stream>,
    length: u64,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut left = length;
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let read = from.read(&mut buffer[..wanted]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(to) = to.as_deref_mut() {
            to.write_all(&buffer[..read]).await?;
        }
        left -= read as u64;
    }
    Ok(())
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunks,
    /// With the connection.
    End,
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Answer {
    head: Vec<u8>,
    framing: Framing,
    /// Whether nothing comes after it.
    pub(super) closes: bool,
}

/// How much of an answer's body passes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pour {
    left: Option<u64>,
}

impl Pour {
    pub(super) fn all() -> Self {
        Self { left: None }
    }

    pub(super) fn only(bytes: u64) -> Self {
        Self { left: Some(bytes) }
    }
}

impl Answer {
    pub(super) async fn read_head(server: &mut Stream, request: &Request) -> io::Result<Self> {
        loop {
            let head = read_head(server).await?;
            let head = head.ok_or(io::ErrorKind::UnexpectedEof)?;
            let text = String::from_utf8_lossy(&head).into_owned();
            let status = text.split(' ').nth(1).unwrap_or_default().to_owned();
            if status.starts_with('1') {
                continue;
            }
            let headers = headers_of(&text);
            let header = |name: &str| {
                let found = headers.iter().find(|(own, _)| own == name);
                found.map(|(_, value)| value.as_str())
            };
            let bare = request.method == "HEAD" || status == "204" || status == "304";
            let framing = match (header("transfer-encoding"), header("content-length")) {
                _ if bare => Framing::Length(0),
                (Some(_), _) => Framing::Chunks,
                (None, Some(length)) => {
                    Framing::Length(length.parse().map_err(|_| io::ErrorKind::InvalidData)?)
                }
                (None, None) => Framing::End,
            };
            let says_so = header("connection").is_some_and(|value| value == "close");
            return Ok(Self {
                head,
                framing,
                closes: says_so || framing == Framing::End,
            });
        }
    }

    /// Passes the answer on. The result is the answer itself where it is short enough to remember,
    /// empty where it is not, and `None` if it was cut off.
    pub(super) async fn pour(
        self,
        server: &mut Stream,
        client: Option<&mut Stream>,
        pour: Pour,
    ) -> io::Result<Option<Vec<u8>>> {
        let mut spout = Spout {
            client,
            left: pour.left,
            kept: Vec::new(),
            too_long: false,
        };
        spout.write_head(&self.head).await?;
        let whole = match self.framing {
            Framing::Length(length) => spout.pass(server, Some(length)).await?,
            Framing::End => spout.pass(server, None).await?,
            Framing::Chunks => spout.pass_chunks(server).await?,
        };
        let kept = if spout.too_long {
            Vec::new()
        } else {
            spout.kept
        };
        Ok(whole.then_some(kept))
    }
}

/// Where an answer goes.
struct Spout<'a> {
    client: Option<&'a mut Stream>,
    left: Option<u64>,
    kept: Vec<u8>,
    too_long: bool,
}

impl Spout<'_> {
    async fn write_head(&mut self, head: &[u8]) -> io::Result<()> {
        self.kept.extend_from_slice(head);
        match self.client.as_deref_mut() {
            Some(client) => client.write_all(head).await,
            None => Ok(()),
        }
    }

    /// Whether all of it went.
    async fn write(&mut self, bytes: &[u8]) -> io::Result<bool> {
        self.too_long |= self.kept.len() + bytes.len() > MEMORY;
        if !self.too_long {
            self.kept.extend_from_slice(bytes);
        }
        let room = self.left.unwrap_or(u64::MAX);
        let passing = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        if let Some(client) = self.client.as_deref_mut() {
            client.write_all(&bytes[..passing]).await?;
        }
        self.left = self.left.map(|left| left - passing as u64);
        Ok(passing == bytes.len())
    }

    async fn pass(&mut self, server: &mut Stream, length: Option<u64>) -> io::Result<bool> {
        let mut buffer = vec![0; CHUNK];
        let mut left = length.unwrap_or(u64::MAX);
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let read = server.read(&mut buffer[..wanted]).await?;
            match (read, length) {
                (0, None) => return Ok(true),
                (0, Some(_)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => {}
            }
            if !self.write(&buffer[..read]).await? {
                return Ok(false);
            }
            left -= read as u64;
        }
        Ok(true)
    }

    async fn pass_chunks(&mut self, server: &mut Stream) -> io::Result<bool> {
        loop {
            let mut line = Vec::new();
            server.read_until(b'\n', &mut line).await?;
            let text = String::from_utf8_lossy(&line).into_owned();
            let size = text.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
            if !self.write(&line).await? {
                return Ok(false);
            }
            if size == 0 {
                break;
            }
            if !self.pass(server, Some(size + 2)).await? {
                return Ok(false);
            }
        }
        // What comes after the last chunk.
        loop {
            let mut line = Vec::new();
            server.read_until(b'\n', &mut line).await?;
            let last = matches!(line.as_slice(), b"\r\n" | b"\n" | b"");
            if !self.write(&line).await? {
                return Ok(false);
            }
            if last {
                return Ok(true);
            }
        }
    }
}

/// An answer with an error document, in which `more` follows the words.
pub(super) fn error_answer(status: u16, code: &str, words: &str, more: &str) -> Vec<u8> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
         <Message>{words}</Message>{more}<RequestId>4442587FB7D0A2F9</RequestId></Error>"
    );
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\n\r\n"
    );
    [head, body].concat().into_bytes()
}

/// The same answer with one more header.
pub(super) fn with_header(mut answer: Vec<u8>, header: &str) -> Vec<u8> {
    let line_end = answer.iter().position(|byte| *byte == b'\n');
    let at = line_end.map_or(0, |end| end + 1);
    answer.splice(at..at, format!("{header}\r\n").into_bytes());
    answer
}

/// The head alone, as it answers HEAD.
pub(super) fn drop_body(answer: &mut Vec<u8>) {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    if let Some(end) = end {
        answer.truncate(end + 4);
    }
}

/// Ends a connection without a word.
pub(super) fn reset(stream: Stream) {
    let stream = stream.into_inner();
    let _ = stream.set_zero_linger();
    drop(stream);
}
