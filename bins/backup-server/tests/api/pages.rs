//! The pages over a directory with backups, as people with different tokens and languages read
//! them, and what a browser is made to promise.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use backup_app::{App, Role, who};
use backup_core::backup::SourceName;
use backup_core::run_record::{Operation, RunResult};
use backup_server::{Server, read_once};
use tokio_util::sync::CancellationToken;

use crate::bench::{Answer, back_up, let_in, load, send, writer};

const HOSTILE: &str = "x<script>alert(1)</script>\u{202e}";
const HOSTILE_PATH: &str = "/sources/x%3Cscript%3Ealert%281%29%3C%2Fscript%3E%E2%80%AE";

/// Backups of `shop` and of a source with a hostile name.
struct Bench {
    server: Arc<Server>,
    tokens: Vec<(Role, &'static str, String)>,
    /// A backup of `shop`.
    id: String,
    _dir: tempfile::TempDir,
}

/// Somebody with a browser.
struct Visitor<'a> {
    bench: &'a Bench,
    cookie: String,
    language: &'static str,
}

impl Bench {
    async fn new(filled: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut toml = format!(
            "[encryption]\nmode = 'none'\n[destination.near]\nurl = 'file://{}'\n",
            dir.path().join("store").display()
        );
        if filled {
            toml.push_str(
                "[source.shop]\ndestinations = ['near']\nschedule = '0 3 * * *'\n\
                 timezone = 'Europe/Moscow'\n",
            );
        }
        let mut tokens = Vec::new();
        for role in Role::ALL {
            for source in ["*", "shop"] {
                let name = format!("{}-{source}-<b>", role.as_str());
                tokens.push((role, source, let_in(&mut toml, &name, role, source)));
            }
        }
        let app = Arc::new(load(dir.path(), &toml));
        let id = if filled {
            fill(&app).await
        } else {
            String::new()
        };
        let server = Arc::new(Server::new(&app));
        read_once(app, &server).await.unwrap();
        Self {
            server,
            tokens,
            id,
            _dir: dir,
        }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        send(&self.server, request).await
    }

    async fn sign_in(&self, token: &str) -> Answer {
        let body = format!("token={token}&next=%2Fstorage");
        let request = Request::post("/sign-in")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("sec-fetch-site", "same-origin");
        self.send(request.body(Body::from(body)).unwrap()).await
    }

    async fn visitor(&self, role: Role, source: &str) -> Visitor<'_> {
        let mut tokens = self.tokens.iter();
        let found = tokens.find(|(r, s, _)| *r == role && *s == source);
        let answer = self.sign_in(&found.unwrap().2).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER);
        let cookie = answer.header("set-cookie").split(';').next().unwrap();
        Visitor {
            bench: self,
            cookie: cookie.to_owned(),
            language: "en",
        }
    }
}

impl Visitor<'_> {
    async fn get(&self, path: &str) -> Answer {
        let request = Request::get(path)
            .header("cookie", &self.cookie)
            .header("accept-language", self.language);
        self.bench.send(request.body(Body::empty()).unwrap()).await
    }

    async fn read(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        answer.text
    }

    async fn post(&self, path: &str, body: &str, from: (&'static str, &str)) -> Answer {
        let request = Request::post(path)
            .header("cookie", &self.cookie)
            .header("content-type", "application/x-www-form-urlencoded")
            .header(from.0, from.1);
        let request = request.body(Body::from(body.to_owned())).unwrap();
        self.bench.send(request).await
    }

    /// What his forms say again.
    async fn form_key(&self) -> String {
        let text = self.read("/").await;
        let (_, rest) = text.split_once("name=\"form_key\" value=\"").unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    }
}

/// Takes backups, a day after each other; the id of one of `shop`.
async fn fill(app: &App) -> String {
    let (engine, clock) = writer(app);
    let stop = CancellationToken::new();
    let mut id = String::new();
    for name in ["shop", HOSTILE, "shop"] {
        let taken = back_up(&engine, name).await;
        if name == "shop" {
            id = taken;
        }
        clock.advance(Duration::from_hours(24));
    }
    let mut run = engine.history().begin(Operation::Drill, who());
    run.source = Some(SourceName::new("shop").unwrap());
    run.result = RunResult::Failed;
    run.error = Some("<img src=x onerror=alert(1)>".to_owned());
    engine.history().record(&mut run, &stop).await.unwrap();
    id
}

#[tokio::test]
async fn names_and_errors_are_text_and_nothing_else() {
    let bench = Bench::new(true).await;
    let visitor = bench.visitor(Role::Admin, "*").await;
    for path in [
        "/",
        HOSTILE_PATH,
        "/runs",
        "/drills",
        "/storage",
        "/restore",
    ] {
        let text = visitor.read(path).await;
        // What a form sends back is the name itself.
        let sent = HOSTILE.replace('<', "&#60;").replace('>', "&#62;");
        let text = text.replace(&format!("value=\"{sent}\""), "");
        for tag in [
            "<script>",
            "<img src=x",
            "<b>",
            "\u{202e}",
            " style=",
            "onerror=\"",
        ] {
            assert!(!text.contains(tag), "{path}: {tag}: {text}");
        }
    }
    let text = visitor.read("/").await;
    assert!(
        text.contains("x&#60;script&#62;alert(1)&#60;/script&#62;\\u{202e}"),
        "{text}"
    );
    assert!(text.contains(&format!("href=\"{HOSTILE_PATH}\"")), "{text}");
    assert!(text.contains("admin-*-&#60;b&#62;"), "{text}");
    let text = visitor.read("/drills").await;
    assert!(text.contains("failed"), "{text}");
}

#[tokio::test]
async fn everybody_sees_his_own_sources_and_what_he_may_do() {
    let bench = Bench::new(true).await;
    let backup = format!("/backups/{}", bench.id);
    for role in Role::ALL {
        let visitor = bench.visitor(role, "shop").await;
        let text = visitor.read("/").await;
        assert!(
            text.contains("/sources/shop\"") && !text.contains("alert(1)"),
            "{text}"
        );
        assert_eq!(
            visitor.get(HOSTILE_PATH).await.status,
            StatusCode::NOT_FOUND
        );
        for path in ["/runs", "/storage", "/drills"] {
            assert!(!visitor.read(path).await.contains("x&#60;script"), "{path}");
        }
        let text = visitor.read(&backup).await;
        let has = |what: &str| text.contains(what);
        assert_eq!(has("id=\"restore\""), role >= Role::Restorer, "{role:?}");
        assert_eq!(has("/drill\""), role >= Role::Operator, "{role:?}");
        assert_eq!(has("/verify\""), role >= Role::Operator, "{role:?}");
        assert_eq!(
            has("href=\"/sandboxes\""),
            role >= Role::Restorer,
            "{role:?}"
        );
        let form_key = visitor.form_key().await;
        let body = format!("form_key={form_key}&source=shop");
        let own = ("sec-fetch-site", "same-origin");
        let answer = visitor.post(&format!("{backup}/verify"), &body, own).await;
        let expected = if role >= Role::Operator {
            StatusCode::SEE_OTHER
        } else {
            StatusCode::FORBIDDEN
        };
        assert_eq!(answer.status, expected, "{role:?}: {}", answer.text);
        let other = format!(
            "form_key={form_key}&source={}",
            &HOSTILE_PATH["/sources/".len()..]
        );
        let answer = visitor.post(&format!("{backup}/verify"), &other, own).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{role:?}");
    }
}

#[tokio::test]
async fn a_backup_is_shown_of_the_source_that_is_meant() {
    let bench = Bench::new(true).await;
    let visitor = bench.visitor(Role::Admin, "*").await;
    let backup = format!("/backups/{}", bench.id);
    let text = visitor.read(&format!("{backup}?source=shop")).await;
    assert!(text.contains("/sources/shop\""), "{text}");
    let answer = visitor.get(&format!("{backup}?source=other")).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let text = visitor.read("/sources/shop").await;
    assert!(text.contains(&format!("{backup}?source=shop\"")), "{text}");
}

#[tokio::test]
async fn both_languages_say_everything() {
    let bench = Bench::new(true).await;
    let mut visitor = bench.visitor(Role::Admin, "*").await;
    let backup = format!("/backups/{}", bench.id);
    for (language, path, expected) in [
        ("en", "/", &["Overview", "Next run", "MSK", "critical"][..]),
        (
            "ru",
            "/",
            &[
                "Обзор",
                "Следующий запуск",
                "MSK",
                "авария",
                "Нет свежей копии",
            ],
        ),
        (
            "en",
            "/sources/shop",
            &["Calendar", "There is no recent backup"],
        ),
        (
            "ru",
            "/sources/shop",
            &["Календарь", "Размер копий", "7 февраля 2026, 06:00 MSK"],
        ),
        (
            "en",
            &backup,
            &["What is in it", "not encrypted", "Restore into a sandbox"],
        ),
        (
            "ru",
            &backup,
            &["Что внутри", "не зашифрована", "Восстановить в песочницу"],
        ),
        ("ru", "/runs?operation=drill", &["учение", "ошибка"]),
        ("en", "/storage", &["not enough data", "3 backups"]),
        ("ru", "/storage", &["данных недостаточно", "3 копии"]),
        ("ru", "/restore?source=shop", &["Выберите копию"]),
        (
            "en",
            "/sandboxes",
            &["No server for sandboxes is configured"],
        ),
    ] {
        visitor.language = language;
        let text = visitor.read(path).await.replace('\u{a0}', " ");
        assert!(
            text.contains(&format!("<html lang=\"{language}\">")),
            "{text}"
        );
        for words in expected {
            assert!(text.contains(words), "{language} {path}: {words}: {text}");
        }
    }
}

#[tokio::test]
async fn without_anything_it_says_what_to_do() {
    let bench = Bench::new(false).await;
    let visitor = bench.visitor(Role::Viewer, "*").await;
    let text = visitor.read("/").await;
    assert!(
        text.contains("Nothing is backed up yet") && text.contains("[source.shop]"),
        "{text}"
    );
    let visitor = bench.visitor(Role::Viewer, "shop").await;
    let text = visitor.read("/").await;
    assert!(text.contains("You may see no source"), "{text}");
    assert!(
        visitor
            .read("/drills")
            .await
            .contains("No drill was run yet")
    );
}

#[tokio::test]
async fn only_a_right_token_opens_a_session() {
    let bench = Bench::new(true).await;
    let nobody = Visitor {
        bench: &bench,
        cookie: "session=00".to_owned(),
        language: "en",
    };
    for path in ["/", "/runs?days=7", "/backups/x", "/sandboxes"] {
        let answer = nobody.get(path).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{path}");
        assert!(
            answer.header("location").starts_with("/sign-in?next=%2F"),
            "{path}"
        );
    }
    // What takes a form alone is no page to come back to.
    let own = ("sec-fetch-site", "same-origin");
    let answer = nobody.post("/backups/x/drill", "", own).await;
    assert_eq!(answer.header("location"), "/sign-in?next=%2F");
    // A session is for pages alone.
    let visitor = bench.visitor(Role::Admin, "*").await;
    let api = visitor.get("/api/v1/sources").await;
    assert_eq!(api.status, StatusCode::UNAUTHORIZED);
    let answer = bench.sign_in(&bench.tokens[0].2).await;
    assert_eq!(answer.header("location"), "/storage");
    let cookie = answer.header("set-cookie");
    assert!(cookie.contains("HttpOnly; SameSite=Strict"), "{cookie}");
    // The request to the API was the first that was wrong.
    for number in 1..12 {
        let answer = bench.sign_in("wrong").await;
        let expected = if number < 10 { 401 } else { 429 };
        assert_eq!(answer.status, expected, "{number}");
        assert!(answer.headers.get("set-cookie").is_none());
    }
    // Whoever signs out is out everywhere that the cookie is.
    let body = format!("form_key={}", visitor.form_key().await);
    let own = ("sec-fetch-site", "same-origin");
    let answer = visitor.post("/sign-out", &body, own).await;
    assert!(answer.header("set-cookie").contains("Max-Age=0"));
    assert_eq!(visitor.get("/").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn no_other_site_makes_somebody_do_something() {
    let bench = Bench::new(true).await;
    let visitor = bench.visitor(Role::Admin, "*").await;
    let stranger = bench.visitor(Role::Operator, "*").await;
    let (own_key, other_key) = (visitor.form_key().await, stranger.form_key().await);
    for (key, from) in [
        (own_key.as_str(), ("sec-fetch-site", "cross-site")),
        (&own_key, ("sec-fetch-site", "same-site")),
        (&own_key, ("origin", "https://evil.example")),
        (&own_key, ("x-nothing", "said")),
        (&other_key, ("sec-fetch-site", "same-origin")),
        ("", ("sec-fetch-site", "same-origin")),
    ] {
        for path in ["/sign-out", "/sources/shop/backup", "/restore"] {
            let body = format!("form_key={key}&source=shop&backup={}", bench.id);
            let answer = visitor.post(path, &body, from).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path} {from:?}");
            assert!(answer.text.contains("Nothing was done"), "{}", answer.text);
        }
    }
    assert_eq!(visitor.get("/").await.status, StatusCode::OK);
    let answer = visitor.get("/").await;
    let policy = answer.header("content-security-policy");
    for part in [
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
}

#[tokio::test]
async fn assets_are_kept_by_the_name_of_their_content() {
    let bench = Bench::new(true).await;
    let visitor = bench.visitor(Role::Viewer, "*").await;
    let text = visitor.read("/").await;
    let (_, rest) = text.split_once("rel=\"stylesheet\" href=\"").unwrap();
    let path = rest.split_once('"').unwrap().0;
    let answer = bench
        .send(Request::get(path).body(Body::empty()).unwrap())
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), "text/css; charset=utf-8");
    assert!(answer.header("cache-control").contains("immutable"));
    let answer = visitor.get("/assets/0-style.css").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}
