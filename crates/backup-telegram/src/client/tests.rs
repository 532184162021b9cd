use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::received::UpdateKind;
use crate::said::Button;

const TOKEN: &str = "123456:canary-Secret_token";

/// Gives these answers, one after the other, and keeps what was asked.
struct Api {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Api {
    async fn new(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let keeping = Arc::clone(&asked);
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = read(&mut stream).await;
                keeping.lock().unwrap().push(request);
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, asked }
    }

    fn client(&self) -> Client {
        Client::new(&self.url, TOKEN.into()).unwrap()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn read(stream: &mut tokio::net::TcpStream) -> String {
    let mut text = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.unwrap();
        text.extend_from_slice(&chunk[..count]);
        let said = String::from_utf8_lossy(&text);
        if let Some((head, body)) = said.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                let is_it = name.eq_ignore_ascii_case("content-length");
                is_it.then(|| value.parse::<usize>().unwrap())
            });
            if body.len() >= length.unwrap_or(0) || count == 0 {
                return said.into_owned();
            }
        }
    }
}

fn answer(status: u16, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

#[tokio::test]
async fn what_goes_over_the_wire_is_what_the_api_describes() {
    let sent =
        r#"{"ok":true,"result":{"message_id":5,"date":1,"chat":{"id":12,"type":"private"}}}"#;
    let updates = r#"{"ok":true,"result":[{"update_id":9,"poll":{}},{"update_id":10,
        "message":{"message_id":1,"date":2,"text":"hi","chat":{"id":12,"type":"private"}}}]}"#;
    let truth = r#"{"ok":true,"result":true}"#;
    let same =
        r#"{"ok":false,"error_code":400,"description":"Bad Request: message is not modified"}"#;
    let api = Api::new(vec![
        answer(200, sent),
        answer(200, updates),
        answer(200, truth),
        answer(400, same),
    ])
    .await;
    let client = api.client();
    let say = Say {
        buttons: vec![vec![Button {
            text: "YES".to_owned(),
            callback_data: "a:1".to_owned(),
        }]],
        ..Say::text("sure?")
    };
    assert_eq!(client.send(12, &say).await, Ok(5));
    let waiting = Waiting {
        from: Some(9),
        patience: Duration::from_secs(30),
    };
    let updates = client.updates(waiting).await.unwrap();
    assert_eq!(updates[0].kind, UpdateKind::Other("poll".to_owned()));
    assert_eq!(updates[1].id, 10);
    client.answer("77", None).await.unwrap();
    client.edit(12, 5, &say).await.unwrap();

    let asked = api.asked();
    for (request, method, body) in [
        (0, "sendMessage", r#""callback_data":"a:1""#),
        (0, "sendMessage", r#""chat_id":12"#),
        (1, "getUpdates", r#""offset":9"#),
        (
            1,
            "getUpdates",
            r#""allowed_updates":["message","callback_query"]"#,
        ),
        (2, "answerCallbackQuery", r#""callback_query_id":"77""#),
        (3, "editMessageText", r#""message_id":5"#),
    ] {
        let request = &asked[request];
        let line = format!("POST /bot{TOKEN}/{method} HTTP/1.1\r\n");
        assert!(request.starts_with(&line), "{request}");
        assert!(request.contains(body), "{request}");
    }
}

#[tokio::test]
async fn no_error_has_the_token_in_it_whoever_sent_the_words() {
    let refused = |code: u16, text: &str| {
        let body = json!({ "ok": false, "error_code": code, "description": text });
        answer(code, &body.to_string())
    };
    let api = Api::new(vec![
        refused(401, &format!("Unauthorized {TOKEN}")),
        refused(404, &format!("no /bot{TOKEN}/getMe\nhere")),
        refused(409, "Conflict: terminated by other getUpdates request"),
        refused(403, "Forbidden: bot was blocked by the user"),
        refused(502, &format!("{TOKEN} bad gateway")),
        answer(502, &format!("<html>{TOKEN}</html>")),
        answer(200, &format!("<html>{TOKEN}</html>")),
        answer(302, ""),
        "HTTP/1.1 200 X\r\nContent-Length: 99\r\n\r\n{".to_owned(),
    ])
    .await;
    let client = api.client();
    let mut errors = Vec::new();
    for _ in 0..9 {
        errors.push(client.me().await.unwrap_err());
    }
    // Nobody listens there any more.
    drop(api);
    let gone = Client::new("http://127.0.0.1:9", TOKEN.into()).unwrap();
    errors.push(gone.me().await.unwrap_err());
    let told: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert!(matches!(errors[0], ApiError::UnknownToken(_)), "{told:?}");
    assert!(matches!(errors[1], ApiError::UnknownToken(_)), "{told:?}");
    assert!(matches!(errors[2], ApiError::Conflict(_)), "{told:?}");
    assert!(
        told[3].ends_with("403 Forbidden: bot was blocked by the user"),
        "{told:?}"
    );
    for error in [4, 5, 8, 9] {
        assert!(
            matches!(errors[error], ApiError::Unavailable(_)),
            "{told:?}"
        );
    }
    for error in [6, 7] {
        assert!(matches!(errors[error], ApiError::Senseless(_)), "{told:?}");
    }
    for (error, text) in errors.into_iter().zip(told) {
        let port = backup_core::error::PortError::from(error.clone());
        for text in [
            text,
            format!("{error:?}"),
            chain(&port),
            format!("{port:?}"),
        ] {
            assert!(!text.contains("canary"), "{text}");
            assert!(!text.contains('\n'), "{text}");
        }
    }
    assert!(!format!("{client:?}").contains("canary"));
}

#[tokio::test]
async fn who_is_told_to_wait_waits_and_not_for_ever() {
    let wait = |seconds: u64| {
        let parameters = json!({ "retry_after": seconds });
        let body = json!({ "ok": false, "error_code": 429, "description": "Too Many Requests",
            "parameters": parameters });
        answer(429, &body.to_string())
    };
    let truth = answer(200, r#"{"ok":true,"result":true}"#);
    let api = Api::new(vec![wait(1), truth, wait(3600)]).await;
    let client = api.client();
    let began = std::time::Instant::now();
    client.delete_webhook().await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
    let error = client.delete_webhook().await.unwrap_err();
    assert_eq!(error, ApiError::TooMany(Duration::from_hours(1)));
}

#[tokio::test]
async fn an_answer_that_does_not_end_is_given_up() {
    let long = format!(
        "HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n{}",
        MOST_BYTES * 2,
        "x".repeat(MOST_BYTES + 1)
    );
    let api = Api::new(vec![long]).await;
    let error = api.client().me().await.unwrap_err();
    assert_eq!(error, ApiError::Senseless("it is too long".to_owned()));
}

#[test]
fn a_token_is_sent_nowhere_in_the_clear_and_only_if_it_is_one() {
    let made = |url: &str, token: &str| Client::new(url, token.into()).map(drop);
    for url in [
        "https://api.telegram.org",
        "https://bots.internal/api/",
        "http://127.0.0.1:8081",
        "http://localhost:8081",
        "http://[::1]:8081",
    ] {
        assert_eq!(made(url, TOKEN), Ok(()), "{url}");
    }
    for url in [
        "http://api.telegram.org",
        "http://localhost.evil.org",
        "http://10.0.0.1",
        "ftp://api.telegram.org",
        "https://user:word@api.telegram.org",
        "https://api.telegram.org/?a=b",
        "api.telegram.org",
        "",
    ] {
        assert_eq!(made(url, TOKEN), Err(ApiError::WrongAddress), "{url}");
    }
    for token in [
        "", ":", "1:", ":a", "x:a", "1:a/../b", "1:a b", "1:a\n", "1a",
    ] {
        let made = made("https://api.telegram.org", token);
        assert_eq!(made, Err(ApiError::WrongToken), "{token:?}");
    }
}
