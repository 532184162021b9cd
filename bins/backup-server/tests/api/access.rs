//! Every route, asked by everybody, about everything.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode};
use backup_app::Role;
use backup_server::document;

use crate::bench::{Answer, Bench};

/// What a route answers: to each role about what is its own, and to everybody about what is not.
struct Row {
    method: &'static str,
    path: &'static str,
    body: &'static str,
    /// Viewer, restorer, operator, admin.
    own: [u16; 4],
    /// Where the path or the parameters name something.
    foreign: Option<u16>,
}

const fn row(
    method: &'static str,
    path: &'static str,
    body: &'static str,
    own: [u16; 4],
    foreign: Option<u16>,
) -> Row {
    Row {
        method,
        path,
        body,
        own,
        foreign,
    }
}

const READ: [u16; 4] = [200, 200, 200, 200];

/// Written out, and not asked of the code: a change of the code must be one of this table too.
/// Runs are ones that are over, which nobody can stop any more; no restore is among them.
const TABLE: &[Row] = &[
    row("GET", "/api/v1/sources", "", READ, None),
    row("GET", "/api/v1/sources/{source}", "", READ, Some(404)),
    row(
        "GET",
        "/api/v1/sources/{source}/backups",
        "",
        READ,
        Some(404),
    ),
    row(
        "POST",
        "/api/v1/sources/{source}/backups",
        "{}",
        [403, 403, 202, 202],
        Some(404),
    ),
    row(
        "GET",
        "/api/v1/sources/{source}/backups/latest",
        "",
        READ,
        Some(404),
    ),
    row("GET", "/api/v1/backups/{id}", "", READ, Some(404)),
    row(
        "POST",
        "/api/v1/backups/{id}/restores",
        r#"{"target":"archive"}"#,
        [403, 202, 202, 202],
        Some(404),
    ),
    row(
        "POST",
        "/api/v1/backups/{id}/drills",
        "{}",
        [403, 403, 202, 202],
        Some(404),
    ),
    row(
        "POST",
        "/api/v1/backups/{id}/verifications",
        r#"{"level":"stored"}"#,
        [403, 403, 202, 202],
        Some(404),
    ),
    row(
        "PUT",
        "/api/v1/backups/{id}/pin",
        r#"{"reason":"law"}"#,
        [403, 403, 200, 200],
        Some(404),
    ),
    row(
        "DELETE",
        "/api/v1/backups/{id}/pin",
        "",
        [403, 403, 403, 200],
        Some(404),
    ),
    row("GET", "/api/v1/backups/pg-dump/latest", "", READ, Some(404)),
    row("GET", "/api/v1/backups/pg-dump/list", "", READ, Some(404)),
    row(
        "POST",
        "/api/v1/backups/pg-dump/test-restore",
        "{}",
        [403, 403, 202, 202],
        Some(404),
    ),
    row(
        "GET",
        "/api/v1/backups/pg-dump/restore-history",
        "",
        READ,
        Some(404),
    ),
    row("GET", "/api/v1/runs", "", READ, None),
    row("GET", "/api/v1/runs/{run}", "", READ, Some(404)),
    row(
        "DELETE",
        "/api/v1/runs/{run}",
        "",
        [403, 403, 409, 409],
        Some(404),
    ),
    row("GET", "/api/v1/runs/{run}/events", "", READ, Some(404)),
    row(
        "GET",
        "/api/v1/runs/{run}/access",
        "",
        [403, 403, 403, 403],
        Some(404),
    ),
    row("GET", "/api/v1/drills", "", READ, None),
    row("GET", "/api/v1/sandboxes", "", READ, None),
    row(
        "DELETE",
        "/api/v1/sandboxes/{name}",
        "",
        [404, 404, 404, 404],
        Some(404),
    ),
];

/// With a server for sandboxes that nobody reaches: orders are taken.
const SANDBOXES: &str = "[server.box]\nhost = '127.0.0.1'\nport = 1\nuser = 'x'\n\
                         [server.box.admin]\nuser = 'y'\n[sandbox]\nserver = 'box'\n";

/// What stands in a path for something that is none, and for somebody who tries.
const WRONG: [&str; 12] = [
    "absent",
    "..%2F..%2Fetc%2Fpasswd",
    "%2e%2e",
    "%2Fetc%2Fpasswd",
    "x'%20OR%201=1--",
    "%22%3B%20DROP%20DATABASE%20shop%3B--",
    "%3Cscript%3Ealert(1)%3C%2Fscript%3E",
    "%00",
    "%FF%FE",
    "*",
    "a%0D%0ASet-Cookie:%20x=y",
    "20260205T030000Z-",
];

/// A place with runs that are over, of both sources.
struct Stage {
    bench: Bench,
    own_run: String,
    foreign_run: String,
}

impl Stage {
    async fn new(more: &str) -> Self {
        let bench = Bench::new(more).await;
        let mut runs = Vec::new();
        for id in [&bench.ids[0], &bench.ids[1]] {
            let path = format!("/api/v1/backups/{id}/verifications");
            let run = bench.done(&path, r#"{"level":"stored"}"#).await;
            assert_eq!(run["state"], "success", "{run}");
            runs.push(run["id"].as_str().unwrap().to_owned());
        }
        Self {
            foreign_run: runs.pop().unwrap(),
            own_run: runs.pop().unwrap(),
            bench,
        }
    }

    fn own(&self, row: &Row) -> String {
        let path = fill(row.path, "shop", &self.bench.ids[2], &self.own_run);
        with_source(path, "shop")
    }

    fn foreign(&self, row: &Row) -> String {
        let path = fill(row.path, "other", &self.bench.ids[1], &self.foreign_run);
        with_source(path, "other")
    }

    async fn ask(&self, row: &Row, path: &str, token: Option<&str>) -> Answer {
        let request = Request::builder().method(row.method).uri(path);
        let mut request = request.header("Content-Type", "application/json");
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let mut request = request.body(Body::from(row.body)).unwrap();
        // From everywhere, so that wrong tokens are told so.
        let from: [u8; 4] = rand::random();
        let from = ConnectInfo(SocketAddr::from((from, 4711)));
        request.extensions_mut().insert(from);
        self.bench.send(request).await
    }
}

fn fill(path: &str, source: &str, id: &str, run: &str) -> String {
    path.replace("{source}", source)
        .replace("{id}", id)
        .replace("{run}", run)
        .replace("{name}", "restore_shop_20260205_0000beef")
}

fn with_source(path: String, source: &str) -> String {
    if path.contains("/pg-dump/") {
        format!("{path}?source={source}")
    } else {
        path
    }
}

fn is_refused(answer: &Answer, status: u16, what: &str) {
    assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.text);
    if status >= 400 {
        assert_eq!(
            answer.header("content-type"),
            "application/problem+json",
            "{what}"
        );
        assert_eq!(answer.json()["status"], status, "{what}");
    }
}

#[tokio::test]
async fn every_route_answers_every_role_as_the_table_says() {
    for (index, role) in Role::ALL.into_iter().enumerate() {
        let quiet = Stage::new("").await;
        for row in TABLE {
            // Orders wait for each other; each has a place of its own.
            let own = match row.own[index] {
                202 => &Stage::new(SANDBOXES).await,
                _ => &quiet,
            };
            let token = own.bench.token(role, "shop");
            let path = own.own(row);
            let what = format!("{role:?} {} {path}", row.method);
            let answer = own.ask(row, &path, Some(token)).await;
            is_refused(&answer, row.own[index], &what);
            if answer.status == StatusCode::ACCEPTED {
                let id = answer.json()["id"].as_str().unwrap().to_owned();
                assert_eq!(
                    answer.header("location"),
                    format!("/api/v1/runs/{id}"),
                    "{what}"
                );
            }
            let Some(foreign) = row.foreign else { continue };
            let path = quiet.foreign(row);
            let token = quiet.bench.token(role, "shop");
            let answer = quiet.ask(row, &path, Some(token)).await;
            is_refused(&answer, foreign, &format!("{role:?} {} {path}", row.method));
            assert!(!answer.text.contains("other"), "{}", answer.text);
        }
    }
}

#[tokio::test]
async fn no_route_answers_without_a_token() {
    let stage = Stage::new("").await;
    let good = stage.bench.token(Role::Admin, "*").to_owned();
    for row in TABLE {
        for path in [stage.own(row), stage.foreign(row)] {
            for token in [None, Some("wrong"), Some(&good[1..])] {
                let answer = stage.ask(row, &path, token).await;
                is_refused(&answer, 401, &format!("{} {path} {token:?}", row.method));
            }
        }
    }
    // Nothing was done: the only runs are those of before.
    let runs = stage.bench.view("/api/v1/runs?operation=backup").await;
    assert_eq!(runs.json()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_no_name_names_nothing() {
    let stage = Stage::new("").await;
    for (index, role) in Role::ALL.into_iter().enumerate() {
        for row in TABLE.iter().filter(|row| row.path.contains('{')) {
            for wrong in WRONG.iter().copied().chain([&*"x".repeat(5000)]) {
                let (start, rest) = row.path.split_once('{').unwrap();
                let (_, end) = rest.split_once('}').unwrap();
                let path = format!("{start}{wrong}{end}");
                for sources in ["shop", "*"] {
                    let token = stage.bench.token(role, sources);
                    let answer = stage.ask(row, &path, Some(token)).await;
                    let what = format!("{role:?} {sources} {} {path}", row.method);
                    let status = answer.status.as_u16();
                    // Who may see all is told what he may not do with any.
                    let allowed = [404, if sources == "*" { row.own[index] } else { 404 }];
                    assert!(
                        status == 404 || status == 403 && allowed.contains(&403),
                        "{what}: {status}"
                    );
                    is_refused(&answer, status, &what);
                    for said in ["passwd", "script", "DROP", "panick"] {
                        assert!(!answer.text.contains(said), "{what}: {}", answer.text);
                    }
                    assert!(answer.headers.get("set-cookie").is_none(), "{what}");
                }
            }
        }
    }
    assert_eq!(
        stage.bench.view("/api/v1/sources").await.json()["items"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

#[test]
fn the_table_has_every_route_that_is_described() {
    let described = serde_json::to_value(document()).unwrap();
    let described: BTreeSet<_> = described["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(|method| {
                (
                    method.to_uppercase(),
                    path.replace("/runs/{id}", "/runs/{run}"),
                )
            })
        })
        .collect();
    let tested: BTreeSet<_> = TABLE
        .iter()
        .map(|row| (row.method.to_owned(), row.path.to_owned()))
        .collect();
    assert_eq!(described, tested);
}

#[test]
fn the_page_about_access_says_the_same() {
    let mut table = String::from(
        "| route | viewer | restorer | operator | admin | of another source |\n|---|---|---|---|---|---|\n",
    );
    for row in TABLE {
        let path = row.path.replace("/runs/{run}", "/runs/{id}");
        let path = path.trim_start_matches("/api/v1");
        let [viewer, restorer, operator, admin] = row.own;
        let foreign = row
            .foreign
            .map_or_else(|| "left out".to_owned(), |status| status.to_string());
        let _ = writeln!(
            table,
            "| `{} {path}` | {viewer} | {restorer} | {operator} | {admin} | {foreign} |",
            row.method
        );
    }
    let page = include_str!("../../../../docs/ACCESS.md");
    assert!(
        page.contains(&table),
        "docs/ACCESS.md should have:\n{table}"
    );
}

#[tokio::test]
async fn who_sees_a_run_reads_why_it_failed_and_nobody_else_does() {
    let bench = Bench::new("[defaults]\nretry = { attempts = 1 }").await;
    // There is no server.
    let run = bench.done("/api/v1/sources/shop/backups", "{}").await;
    assert_eq!(run["state"], "failed", "{run}");
    let path = format!("/api/v1/runs/{}", run["id"].as_str().unwrap());
    for role in Role::ALL {
        let told = bench.get(&path, bench.token(role, "shop")).await.json();
        assert_eq!(told["error"], run["error"], "{role:?}");
        let hidden = bench.get(&path, bench.token(role, "nothing")).await;
        assert_eq!(hidden.status, StatusCode::NOT_FOUND, "{role:?}");
    }
    assert_eq!(run["error"]["kind"], "unavailable", "{run}");
}
