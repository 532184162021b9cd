//! The routes and pages over a directory with backups, as people with different tokens see them.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod access;
mod bench;
mod orders;
mod pages;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use backup_app::access::Action;
use backup_app::{Role, SystemClock, who};
use backup_core::backup::SourceName;
use backup_core::engine::Engine;
use backup_core::run_record::{Operation, RunResult};
use backup_server::{Server, document};
use bench::{Answer, Bench, load};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Every route that tells something of backups.
fn paths(bench: &Bench) -> Vec<(String, Option<&'static str>)> {
    let [shop, other, _, _, member] = bench.ids.as_slice() else {
        panic!("there are five backups");
    };
    vec![
        ("/api/v1/sources".to_owned(), None),
        ("/api/v1/runs".to_owned(), None),
        ("/api/v1/drills".to_owned(), None),
        ("/api/v1/sources/shop".to_owned(), Some("shop")),
        ("/api/v1/sources/shop/backups".to_owned(), Some("shop")),
        (
            "/api/v1/sources/shop/backups/latest".to_owned(),
            Some("shop"),
        ),
        (format!("/api/v1/backups/{shop}"), Some("shop")),
        ("/api/v1/sources/other".to_owned(), Some("other")),
        ("/api/v1/sources/other/backups".to_owned(), Some("other")),
        (
            "/api/v1/sources/other/backups/latest".to_owned(),
            Some("other"),
        ),
        (format!("/api/v1/backups/{other}"), Some("other")),
        (
            "/api/v1/sources/everything%2Fshop".to_owned(),
            Some("everything/shop"),
        ),
        (
            "/api/v1/sources/everything%2Fshop/backups".to_owned(),
            Some("everything/shop"),
        ),
        (
            "/api/v1/sources/everything%2Fshop/backups/latest".to_owned(),
            Some("everything/shop"),
        ),
        (format!("/api/v1/backups/{member}"), Some("everything/shop")),
        ("/api/v1/sources/absent".to_owned(), Some("absent")),
        ("/api/v1/backups/absent".to_owned(), Some("absent")),
    ]
}

#[tokio::test]
async fn every_role_sees_its_own_sources_and_learns_nothing_of_others() {
    let bench = Bench::new("").await;
    assert_eq!(Action::View.least_role(), Role::Viewer);
    for (role, sources, token) in &bench.tokens {
        for (path, source) in paths(&bench) {
            let answer = bench.get(&path, token).await;
            let seen = match (*sources, source) {
                (_, None) => true,
                (_, Some("absent")) => false,
                ("everything/*", Some(source)) => source.starts_with("everything/"),
                (own, Some(source)) => own == "*" || own == source,
            };
            let expected = if seen {
                StatusCode::OK
            } else {
                StatusCode::NOT_FOUND
            };
            assert_eq!(answer.status, expected, "{role:?} {sources} {path}");
            let allowed: BTreeSet<&str> = match *sources {
                "*" => ["shop", "other"].into(),
                own => [own].into(),
            };
            for name in ["shop", "other"] {
                let says = answer.text.contains(&format!("\"{name}\""));
                assert!(
                    !says || allowed.contains(name),
                    "{sources} {path}: {}",
                    answer.text
                );
            }
            if !seen {
                // What is hidden and what is not there look the same.
                let absent = bench.get("/api/v1/sources/absent", token).await;
                assert_eq!(answer.text, absent.text, "{path}");
                assert_eq!(answer.header("content-type"), "application/problem+json");
            }
        }
    }
    let prunes = |answer: &Answer| answer.text.contains("\"operation\":\"prune\"");
    // What is of all sources is for those who may see all.
    assert!(prunes(&bench.view("/api/v1/runs").await));
    let own = bench
        .get("/api/v1/runs", bench.token(Role::Admin, "shop"))
        .await;
    assert!(!prunes(&own), "{}", own.text);
}

#[tokio::test]
async fn nobody_comes_in_without_a_token() {
    let bench = Bench::new("").await;
    let good = bench.token(Role::Viewer, "*").to_owned();
    let mut paths = paths(&bench);
    paths.push(("/api/v1/no-such-thing".to_owned(), None));
    for (path, _) in &paths {
        let headers = [
            None,
            Some("Bearer".to_owned()),
            Some("Bearer ".to_owned()),
            Some(format!("Basic {good}")),
            Some(good.clone()),
            Some(format!("Bearer {}", &good[..good.len() - 1])),
            Some(format!("Bearer {good}x")),
        ];
        for header in headers {
            let mut request = Request::get(path);
            if let Some(header) = &header {
                request = request.header("Authorization", header);
            }
            let answer = bench.send(request.body(Body::empty()).unwrap()).await;
            let refused = [StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS];
            assert!(refused.contains(&answer.status), "{path} {header:?}");
            assert_eq!(answer.header("content-type"), "application/problem+json");
            assert!(!answer.text.contains("shop"), "{}", answer.text);
        }
    }
    // Whoever fails too often is told so, and whoever has a token is let in all the same.
    let answer = bench.get("/api/v1/sources", "wrong").await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.header("retry-after"), "60");
    bench.view("/api/v1/sources").await;
}

/// What a client says of itself before the proxy adds its address counts for nothing.
#[tokio::test]
async fn behind_a_proxy_each_address_has_its_own_count() {
    let ask = async |bench: &Bench, from: &str| {
        let request = Request::get("/api/v1/sources")
            .header("Authorization", "Bearer wrong")
            .header("X-Forwarded-For", from);
        bench
            .send(request.body(Body::empty()).unwrap())
            .await
            .status
    };
    let bench = Bench::new("[server_http]\nbehind_tls_proxy = true\n").await;
    for number in 0..10 {
        let from = format!("198.51.100.{number}, 192.0.2.1");
        assert_eq!(ask(&bench, &from).await, StatusCode::UNAUTHORIZED);
    }
    let many = StatusCode::TOO_MANY_REQUESTS;
    assert_eq!(ask(&bench, "198.51.100.99, 192.0.2.1").await, many);
    assert_eq!(ask(&bench, "192.0.2.2").await, StatusCode::UNAUTHORIZED);
    // Without a proxy, nobody is believed.
    let bench = Bench::new("").await;
    for number in 0..10 {
        let from = format!("192.0.2.{number}");
        assert_eq!(ask(&bench, &from).await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(ask(&bench, "192.0.2.99").await, many);
}

#[tokio::test]
async fn the_first_wrong_tokens_are_told_what_is_wanted() {
    let bench = Bench::new("").await;
    let answer = bench.get("/api/v1/sources", "wrong").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer.header("www-authenticate"), "Bearer");
    assert_eq!(answer.json()["status"], 401);
    assert_eq!(answer.json()["title"], "Unauthorized");
}

#[tokio::test]
async fn sources_tell_how_they_stand() {
    let bench = Bench::new("").await;
    let page = bench.view("/api/v1/sources").await.json();
    assert_eq!(page["incomplete"], json!([]));
    let [member, other, shop] = page["items"].as_array().unwrap().as_slice() else {
        panic!("there are three sources: {page}");
    };
    assert_eq!(
        (&member["name"], &member["configured"]),
        (&json!("everything/shop"), &json!(true))
    );
    assert_eq!(
        (&other["name"], &other["configured"]),
        (&json!("other"), &json!(false))
    );
    assert_eq!(
        (&shop["name"], &shop["configured"]),
        (&json!("shop"), &json!(true))
    );
    assert_eq!(shop["backups"], 3);
    assert_eq!(shop["latest"]["id"], bench.ids[3].as_str());
    // It is from years ago.
    assert_eq!(shop["status"], "critical");
    assert_eq!(shop["places"][0]["destination"], "near");
    assert_eq!(shop["schedule"]["schedule"], "0 3 * * *");
    assert_eq!(shop["schedule"]["next"].as_array().unwrap().len(), 3);
    assert_eq!(bench.view("/api/v1/sources/shop").await.json(), *shop);
}

#[tokio::test]
async fn backups_come_newest_first_in_pages() {
    let bench = Bench::new("").await;
    let [first, _, second, third, _] = bench.ids.as_slice() else {
        panic!("there are five backups");
    };
    let base = "/api/v1/sources/shop/backups";
    let ids = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap().iter();
        items
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = bench.view(base).await.json();
    assert_eq!(ids(&all), [third.clone(), second.clone(), first.clone()]);
    assert_eq!(all["next"], Value::Null);
    assert_eq!(all["items"][0]["status"], "success");
    let page = bench.view(&format!("{base}?limit=2")).await.json();
    assert_eq!(ids(&page), [third.clone(), second.clone()]);
    let next = page["next"].as_str().unwrap();
    let rest = bench
        .view(&format!("{base}?limit=2&after={next}"))
        .await
        .json();
    assert_eq!(
        (ids(&rest), &rest["next"]),
        (vec![first.clone()], &Value::Null)
    );
    let lately = bench.view(&format!("{base}?days=1")).await.json();
    assert_eq!(ids(&lately), Vec::<String>::new());
    let years = bench.view(&format!("{base}?days=40000")).await.json();
    assert_eq!(ids(&years).len(), 3);
    for wrong in ["limit=0", "limit=1001", "limit=x", "days=-1"] {
        let token = bench.token(Role::Viewer, "*");
        let answer = bench.get(&format!("{base}?{wrong}"), token).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    let latest = bench.view(&format!("{base}/latest")).await.json();
    assert_eq!(latest["id"], third.as_str());
    assert_eq!(latest["parts"][0]["name"], "data-rest");
    assert_eq!(
        bench.view(&format!("/api/v1/backups/{third}")).await.json(),
        latest
    );
}

#[tokio::test]
async fn a_backup_that_was_found_damaged_is_no_success() {
    let bench = Bench::new("").await;
    let place = bench.app.place("near").unwrap();
    let store = place.open(bench.app.environment()).unwrap();
    let engine = Engine::new(store, Arc::new(SystemClock));
    for (operation, damaged) in [(Operation::Drill, false), (Operation::Verify, true)] {
        let mut run = engine.history().begin(operation, who());
        run.source = Some(SourceName::new("shop").unwrap());
        run.backup = Some(bench.ids[3].parse().unwrap());
        run.result = if damaged {
            RunResult::Failed
        } else {
            RunResult::Success
        };
        run.damaged = damaged;
        let stop = CancellationToken::new();
        engine.history().record(&mut run, &stop).await.unwrap();
    }
    bench.read().await;
    let all = bench.view("/api/v1/sources/shop/backups").await.json();
    assert_eq!(all["items"][0]["status"], "failed", "{all}");
    let place = &all["items"][0]["destinations"][0];
    assert_eq!(
        (&place["status"], &place["error"]),
        (&json!("failed"), &json!("found damaged by a verification"))
    );
    assert_eq!(all["items"][1]["status"], "success", "{all}");
}

#[tokio::test]
async fn runs_are_found_by_operation_and_source() {
    let bench = Bench::new("").await;
    let operations = |answer: &Answer| -> Vec<String> {
        let page = answer.json();
        let items = page["items"].as_array().unwrap().iter();
        items
            .map(|item| item["operation"].as_str().unwrap().to_owned())
            .collect()
    };
    for (query, expected) in [
        ("runs", &["prune", "backup", "drill"][..]),
        ("runs?operation=backup", &["backup"]),
        ("runs?source=shop", &["drill"]),
        ("runs?days=1", &[]),
        ("drills", &["drill"]),
        ("drills?source=shop", &["drill"]),
        ("drills?source=other", &[]),
    ] {
        let answer = bench.view(&format!("/api/v1/{query}")).await;
        assert_eq!(operations(&answer), expected, "{query}");
    }
}

#[tokio::test]
async fn what_did_not_change_is_not_sent_again() {
    let bench = Bench::new("").await;
    let path = "/api/v1/sources/shop/backups";
    let first = bench.view(path).await;
    let tag = first.header("etag");
    assert!(first.header("backup-as-of").ends_with('Z'));
    let again = |tag: String| {
        let token = bench.token(Role::Viewer, "*");
        let request = Request::get(path)
            .header("Authorization", format!("Bearer {token}"))
            .header("If-None-Match", tag);
        bench.send(request.body(Body::empty()).unwrap())
    };
    for same in [tag.to_owned(), format!("W/{tag}"), format!("\"x\", {tag}")] {
        let answer = again(same).await;
        assert_eq!(answer.status, StatusCode::NOT_MODIFIED);
        assert_eq!((answer.text.as_str(), answer.header("etag")), ("", tag));
    }
    assert_eq!(again("\"other\"".to_owned()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn answers_have_a_number_and_are_nothing_that_a_browser_runs() {
    let bench = Bench::new("").await;
    let mut ids = BTreeSet::new();
    for path in [
        "/api/v1/sources",
        "/healthz",
        "/nothing",
        "/api/v1/backups/..%2F..%2Fetc",
    ] {
        let answer = bench.get(path, bench.token(Role::Viewer, "*")).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert!(
            answer
                .header("content-security-policy")
                .starts_with("default-src 'none'")
        );
        assert_eq!(answer.header("cache-control"), "private, no-cache");
        ids.insert(answer.header("x-request-id").to_owned());
    }
    assert_eq!(ids.len(), 4);
    for method in ["POST", "PUT", "DELETE"] {
        let request = Request::builder().method(method).uri("/api/v1/sources");
        let token = bench.token(Role::Admin, "*");
        let request = request.header("Authorization", format!("Bearer {token}"));
        let answer = bench.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
    }
}

#[tokio::test]
async fn health_is_for_everybody_and_metrics_where_somebody_said_so() {
    let open = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    let bench = Bench::new("").await;
    assert_eq!(bench.send(open("/healthz")).await.text, "ok\n");
    assert_eq!(bench.send(open("/readyz")).await.text, "ready\n");
    let metrics = bench.send(open("/metrics")).await;
    assert_eq!(metrics.status, StatusCode::NOT_FOUND);

    let bench = Bench::new("[server_http]\nmetrics = true").await;
    let metrics = bench.send(open("/metrics")).await;
    assert_eq!(metrics.status, StatusCode::OK);
    let line = "backup_last_success_timestamp_seconds{source=\"shop\",destination=\"near\"} ";
    assert!(metrics.text.contains(line), "{}", metrics.text);

    let dir = tempfile::tempdir().unwrap();
    let toml = "[destination.near]\nurl = 'file:///nowhere/at/all'";
    let app = Arc::new(load(dir.path(), toml));
    let unread = Bench {
        server: Arc::new(Server::new(&app)),
        ..bench
    };
    assert_eq!(unread.send(open("/healthz")).await.status, StatusCode::OK);
    let ready = unread.send(open("/readyz")).await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_place_that_cannot_be_read_is_said_and_hides_no_other() {
    let bench = Bench::new("[destination.far]\nurl = 'file:///nowhere/at/all'").await;
    let page = bench.view("/api/v1/sources/shop/backups").await.json();
    assert_eq!(page["items"].as_array().unwrap().len(), 3);
    let [said] = page["incomplete"].as_array().unwrap().as_slice() else {
        panic!("one place is missing: {page}");
    };
    assert!(
        said.as_str().unwrap().starts_with("far: not known: "),
        "{said}"
    );
    let own = bench.token(Role::Viewer, "shop");
    let page = bench.get("/api/v1/sources/shop/backups", own).await.json();
    assert_eq!(page["incomplete"], json!([]));
}

#[test]
fn the_description_is_the_one_that_is_published() {
    let published = include_str!("../../../../docs/openapi.json");
    let mut document = document().to_pretty_json().unwrap();
    document.push('\n');
    assert!(
        published == document,
        "run: cargo run -p backup-server -- openapi > docs/openapi.json"
    );
    let known: Vec<_> = Operation::KNOWN.iter().map(Operation::as_str).collect();
    let pattern = format!("\"^({})$\"", known.join("|"));
    assert!(published.contains(&pattern), "{pattern}");
}
