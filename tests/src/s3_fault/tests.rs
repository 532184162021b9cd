use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, SystemTime};

use backup_testing::FakeBucket;
use chrono::{DateTime, TimeDelta, Utc};
use ureq::http;

use super::*;
use crate::scene::wait_for_silence;

const DOCUMENT: &str = "<CompleteMultipartUpload></CompleteMultipartUpload>";

/// A tiny server, the proxy before it, and a client.
struct Stage {
    server: FakeBucket,
    proxy: S3Proxy,
    agent: ureq::Agent,
}

impl Stage {
    async fn new() -> Self {
        let server = FakeBucket::start().await;
        let port = server.endpoint.rsplit(':').next().unwrap();
        let proxy = S3Proxy::start(port.parse().unwrap()).unwrap();
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(5)));
        let agent = config.build().into();
        Self {
            server,
            proxy,
            agent,
        }
    }

    /// Sends a request and returns status, headers and body.
    fn ask(&self, what: &str, body: &str) -> Result<(u16, http::HeaderMap, String), ureq::Error> {
        let (method, target) = what.split_once(' ').unwrap();
        let (target, headers) = target.split_once(' ').unwrap_or((target, ""));
        let url = format!("{}/bucket/{target}", self.proxy.endpoint());
        let mut request = http::Request::builder().method(method).uri(url);
        for header in headers.split_whitespace() {
            let (name, value) = header.split_once('=').unwrap();
            request = request.header(name, value);
        }
        let mut answer = match method {
            "PUT" | "POST" => self.agent.run(request.body(body).unwrap())?,
            _ => self.agent.run(request.body(()).unwrap())?,
        };
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.body_mut().read_to_string()?;
        Ok((status, headers, text))
    }

    fn status(&self, what: &str, body: &str) -> u16 {
        self.ask(what, body).unwrap().0
    }

    /// Begins an upload; its id.
    fn begin(&self) -> String {
        let (_, _, text) = self.ask("POST object?uploads", "").unwrap();
        let (_, rest) = text.split_once("<UploadId>").unwrap();
        rest.split_once('<').unwrap().0.to_owned()
    }

    fn part(&self, upload: &str, number: u32, length: usize) -> u16 {
        let what = format!("PUT object?partNumber={number}&uploadId={upload}");
        self.status(&what, &"x".repeat(length))
    }

    fn complete(&self, upload: &str) -> (u16, String) {
        let what = format!("POST object?uploadId={upload}");
        let (status, _, text) = self.ask(&what, DOCUMENT).unwrap();
        (status, text)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_rules_everything_passes() {
    let stage = Stage::new().await;
    let long = "0123456789".repeat(300_000);
    assert_eq!(stage.status("PUT object", &long), 200);
    assert_eq!(stage.ask("GET object", "").unwrap().2, long);
    assert_eq!(
        stage.ask("GET object Range=bytes=3-5", "").unwrap().2,
        "345"
    );
    assert_eq!(stage.status("HEAD object", ""), 200);
    assert_eq!(stage.status("GET nothing", ""), 404);
    assert_eq!(stage.status("DELETE object", ""), 204);
    assert_eq!(stage.server.keys(), Vec::<String>::new());
    assert_eq!(stage.proxy.seen().len(), 6);
    assert_eq!(stage.proxy.count(Request::is_get), 3);
}

/// Signatures cover the head, so that not even the order or the case of headers may change; and
/// bodies of unknown length end where they end.
#[test]
fn not_a_byte_is_changed() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let request = "PUT /b/a%20b?x-id=PutObject&a=%2F HTTP/1.1\r\nhOsT: elsewhere.example:81\r\n\
                   X-Amz-Date:  20260205T030000Z \r\nContent-Length: 5\r\nauthorization: AWS4 a, b\r\n\r\nhello";
    let answers = [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nWiki\r\n3\r\ned.\r\n0\r\nEnd: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nETag: \"a\"\r\ncontent-length: 3\r\n\r\nabc",
        "HTTP/1.0 200 OK\r\n\r\nto the end",
    ];
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for answer in answers {
            let mut found = vec![0; request.len()];
            stream.read_exact(&mut found).unwrap();
            assert_eq!(String::from_utf8_lossy(&found), request);
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let proxy = S3Proxy::start(port).unwrap();
    let mut client = TcpStream::connect(proxy.address).unwrap();
    for answer in answers {
        client.write_all(request.as_bytes()).unwrap();
        let mut found = vec![0; answer.len()];
        client.read_exact(&mut found).unwrap();
        assert_eq!(String::from_utf8_lossy(&found), answer);
    }
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "closed as by the server");
    server.join().unwrap();
    let seen = &proxy.seen()[0];
    assert_eq!((seen.path.as_str(), seen.length), ("/b/a%20b", 5));
    assert_eq!(seen.parameter("a"), Some("%2F"));
    assert_eq!(seen.header("host"), Some("elsewhere.example:81"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_count_what_they_strike() {
    let stage = Stage::new().await;
    let slow = Act::error(503, "SlowDown");
    let hits = stage
        .proxy
        .add(Rule::new(Request::is_put, slow).skip(1).every(2).times(2));
    let found: Vec<_> = (0..8).map(|_| stage.status("PUT object", "x")).collect();
    assert_eq!(found, [200, 200, 503, 200, 503, 200, 200, 200]);
    assert_eq!(hits.count(), 2);
    stage.proxy.add(Rule::new(
        Request::is_delete,
        Act::error(403, "AccessDenied"),
    ));
    let (status, _, text) = stage.ask("DELETE object", "").unwrap();
    assert_eq!(status, 403);
    assert!(
        text.contains("<Code>AccessDenied</Code><Message>Access Denied"),
        "{text}"
    );
    assert_eq!(stage.server.keys(), ["object"], "nobody told the server");
    stage.proxy.clear();
    assert_eq!(stage.status("DELETE object", ""), 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lie_is_told_before_or_after_the_deed() {
    for (act, is_done) in [
        (Act::error(200, "InternalError"), false),
        (Act::error_after(200, "InternalError"), true),
    ] {
        let stage = Stage::new().await;
        stage
            .proxy
            .add(Rule::new(Request::is_complete, act).times(1));
        let upload = stage.begin();
        assert_eq!(stage.part(&upload, 1, 9), 200);
        let (status, text) = stage.complete(&upload);
        assert_eq!(status, 200);
        assert!(text.contains("<Error><Code>InternalError</Code>"), "{text}");
        assert_eq!(stage.server.object("object").is_some(), is_done);
        let again = if is_done { 404 } else { 200 };
        assert_eq!(stage.complete(&upload).0, again);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_and_bodies_are_cut() {
    let stage = Stage::new().await;
    stage
        .proxy
        .add(Rule::new(Request::is_put, Act::LoseAnswer).times(1));
    assert!(stage.ask("PUT object", "0123456789").is_err());
    assert!(
        stage.server.object("object").is_some(),
        "it was carried out"
    );

    stage
        .proxy
        .add(Rule::new(Request::is_put, Act::ResetAfter(4)).times(1));
    assert!(stage.ask("PUT other", "0123456789").is_err());
    assert_eq!(stage.server.keys(), ["object"]);

    stage
        .proxy
        .add(Rule::new(Request::is_get, Act::CutAnswer(4)).times(1));
    assert!(stage.ask("GET object", "").is_err());
    assert_eq!(stage.ask("GET object", "").unwrap().2, "0123456789");
}

#[test]
fn silence_is_no_end() {
    let proxy = S3Proxy::start(
        TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port(),
    );
    // Nobody listens there any more: the connection is reset.
    let proxy = proxy.unwrap();
    let mut client = TcpStream::connect(proxy.address).unwrap();
    let _ = client.write_all(b"GET / HTTP/1.1\r\n\r\n");
    assert!(!matches!(client.read(&mut [0]), Ok(1..)));

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let proxy = S3Proxy::start(listener.local_addr().unwrap().port()).unwrap();
    let hits = proxy.add(Rule::new(|_| true, Act::Silence));
    let mut client = TcpStream::connect(proxy.address).unwrap();
    client
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    let limit = Duration::from_mins(1);
    wait_for_silence(limit, || {
        Ok((hits.count() != 1).then(|| format!("{} requests", hits.count())))
    })
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_reads_are_as_before_the_write() {
    let stage = Stage::new().await;
    stage.status("PUT old", "first");
    stage.ask("GET old", "").unwrap();
    let (_, _, listed) = stage.ask("GET ?list-type=2", "").unwrap();
    stage.status("PUT old", "second");
    stage.status("PUT new", "x");
    stage
        .proxy
        .add(Rule::new(Request::is_read, Act::Stale).times(5));
    assert_eq!(stage.ask("GET old", "").unwrap().2, "first");
    let (status, _, text) = stage.ask("GET new", "").unwrap();
    assert_eq!(status, 404);
    assert!(text.contains("NoSuchKey"), "{text}");
    assert_eq!(stage.status("HEAD new", ""), 404);
    assert_eq!(stage.ask("GET ?list-type=2", "").unwrap().2, listed);
    assert_eq!(stage.ask("GET old", "").unwrap().2, "first");
    assert_eq!(stage.ask("GET old", "").unwrap().2, "second");
    assert_eq!(stage.ask("GET new", "").unwrap().2, "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_limited_and_equal_where_it_is_demanded() {
    let stage = Stage::new().await;
    stage.proxy.demand_equal_parts();
    let beyond = stage.proxy.limit_parts(3);
    for (sizes, status) in [
        (&[5, 5, 3][..], 200),
        (&[5, 5, 5], 200),
        (&[7], 200),
        (&[5, 4, 3], 400),
        (&[5, 5, 6], 400),
        (&[5, 6], 400),
    ] {
        let upload = stage.begin();
        for (number, size) in (1..).zip(sizes) {
            assert_eq!(stage.part(&upload, number, *size), 200);
        }
        let (found, text) = stage.complete(&upload);
        assert_eq!(found, status, "{sizes:?}: {text}");
        assert_eq!(text.contains("non-trailing parts"), status == 400);
    }
    assert_eq!(stage.proxy.part_sizes().len(), 6);
    let upload = stage.begin();
    assert_eq!(beyond.count(), 0);
    assert_eq!(stage.part(&upload, 4, 5), 400);
    assert_eq!(beyond.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn checksums_and_the_time_are_asked_for() {
    let stage = Stage::new().await;
    let bare = stage.proxy.demand_checksums();
    let (status, _, text) = stage.ask("PUT object", "x").unwrap();
    assert_eq!(status, 400);
    assert!(text.contains("Content-MD5 OR x-amz-checksum-"), "{text}");
    assert_eq!(
        stage.status("PUT object x-amz-checksum-sha256=abc", "x"),
        200
    );
    assert_eq!(stage.status("PUT object content-md5=abc", "x"), 200);
    assert_eq!(bare.count(), 1);

    let ahead = Act::Skewed(TimeDelta::minutes(20));
    stage.proxy.add(Rule::new(Request::is_get, ahead));
    let (status, headers, text) = stage.ask("GET object", "").unwrap();
    assert_eq!(status, 403);
    assert!(text.contains("<Code>RequestTimeTooSkewed</Code>"), "{text}");
    let date = headers["date"].to_str().unwrap();
    let date = DateTime::parse_from_rfc2822(date).unwrap();
    let ahead = date.to_utc() - DateTime::<Utc>::from(SystemTime::now());
    assert!((19..=20).contains(&ahead.num_minutes()), "{ahead}");
}
