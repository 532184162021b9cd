//! Work that is asked for: taken, refused, told of, and done once.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use backup_app::Role;
use backup_core::manifest::{PartFormat, PartKind};
use backup_testing::ScriptedPart;
use serde_json::{Value, json};

use crate::bench::{Answer, Bench, back_up_of, load, writer};

const STORED: &str = r#"{"level":"stored"}"#;

fn verifications(bench: &Bench, number: usize) -> String {
    format!("/api/v1/backups/{}/verifications", bench.ids[number])
}

impl Bench {
    async fn with_key(&self, path: &str, body: &str, key: &str, role: Role) -> Answer {
        let token = self.token(role, "*");
        let request = Request::post(path)
            .header("Authorization", format!("Bearer {token}"))
            .header("Content-Type", "application/json")
            .header("Idempotency-Key", key);
        self.send(request.body(Body::from(body.to_owned())).unwrap())
            .await
    }
}

#[tokio::test]
async fn work_is_done_and_told_of_until_its_end() {
    let bench = Bench::new("").await;
    let token = bench.token(Role::Operator, "shop");
    let path = verifications(&bench, 3);
    let answer = bench.ask("POST", &path, token, STORED).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    let job = answer.json();
    assert_eq!(
        (
            &job["operation"],
            &job["source"],
            &job["backup"],
            &job["by"]
        ),
        (
            &json!("verify"),
            &json!("shop"),
            &json!(bench.ids[3]),
            &json!("operator-shop")
        )
    );
    let run = answer.header("location").to_owned();
    let events = bench.get(&format!("{run}/events"), token).await;
    assert_eq!(events.header("content-type"), "text/event-stream");
    // The last event says how it ended, and then there are no more.
    let last = events.text.trim_end().rsplit("\n\n").next().unwrap();
    let (name, data) = last.split_once('\n').unwrap();
    assert_eq!(name, "event: success", "{}", events.text);
    let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(data["id"], job["id"]);
    assert!(data["finished_at"].is_string(), "{data}");
    // Its record is the same run, also when the job is not remembered any more.
    bench.read().await;
    let told = bench.get(&run, token).await.json();
    assert_eq!(told["record"]["id"], job["id"], "{told}");
    assert_eq!(
        (&told["state"], &told["record"]["result"]),
        (&json!("success"), &json!("success"))
    );
    let lists = bench.view("/api/v1/runs?operation=verify").await.json();
    assert_eq!(lists["items"][0]["id"], job["id"]);
}

#[tokio::test]
async fn an_order_that_is_sent_twice_is_carried_out_once() {
    let bench = Bench::new("").await;
    let path = verifications(&bench, 3);
    let send = || bench.with_key(&path, STORED, "a", Role::Operator);
    let answers = tokio::join!(send(), send(), send(), send(), send());
    let answers = [answers.0, answers.1, answers.2, answers.3, answers.4];
    for answer in &answers {
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
        assert_eq!(answer.text, answers[0].text);
        assert_eq!(answer.header("location"), answers[0].header("location"));
    }
    bench
        .view(&format!("{}/events", answers[0].header("location")))
        .await;
    // Long after it was done, too.
    assert_eq!(send().await.text, answers[0].text);
    bench.read().await;
    let runs = bench.view("/api/v1/runs?operation=verify").await.json();
    assert_eq!(runs["items"].as_array().unwrap().len(), 1, "{runs}");
    // The same key is nothing else: not of another body, not for another route.
    let other = bench
        .with_key(&path, r#"{"level":"hashed"}"#, "a", Role::Operator)
        .await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    let route = verifications(&bench, 0);
    let other = bench.with_key(&route, STORED, "a", Role::Operator).await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    // And of somebody else it is another one.
    let other = bench.with_key(&path, STORED, "a", Role::Admin).await;
    assert_eq!(other.status, StatusCode::ACCEPTED);
    assert_ne!(other.text, answers[0].text);
    // What was refused may be asked in another way, and a key has a form.
    let wrong = bench.with_key(&path, "{}", "b", Role::Operator).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    let path = verifications(&bench, 1);
    let right = bench.with_key(&path, STORED, "b", Role::Operator).await;
    assert_eq!(right.status, StatusCode::ACCEPTED);
    for key in ["", &"k".repeat(256)] {
        let answer = bench.with_key(&path, STORED, key, Role::Operator).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn a_body_is_json_and_says_so_and_names_nothing_that_is_not_asked() {
    let bench = Bench::new("").await;
    let token = bench.token(Role::Admin, "*");
    let path = format!("/api/v1/backups/{}/restores", bench.ids[3]);
    for kind in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
    ] {
        let mut request = Request::post(&path).header("Authorization", format!("Bearer {token}"));
        if let Some(kind) = kind {
            request = request.header("Content-Type", kind);
        }
        let request = request.body(Body::from(r#"{"target":"archive"}"#)).unwrap();
        let answer = bench.send(request).await;
        assert_eq!(
            answer.status,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "{kind:?}"
        );
    }
    for body in [
        "",
        "{}",
        "[]",
        "{",
        "\0",
        r#"{"target":"production"}"#,
        r#"{"target":"archive","target_database":"shop"}"#,
        r#"{"target":"archive","database":"shop"}"#,
        r#"{"target":"archive","ttl":"99d"}"#,
        r#"{"target":"archive","person":"boris"}"#,
        r#"{"target":"archive","schemas":"x"}"#,
        r#"{"target":"archive","schemas":[""]}"#,
        r#"{"target":"archive","tables":["a\nb"]}"#,
    ] {
        let answer = bench.ask("POST", &path, token, body).await;
        assert_eq!(
            answer.status,
            StatusCode::BAD_REQUEST,
            "{body}: {}",
            answer.text
        );
    }
    let long = format!(
        "{{\"target\":\"archive\",\"schemas\":[\"{}\"]}}",
        "x".repeat(70_000)
    );
    let answer = bench.ask("POST", &path, token, &long).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    // Without a server for it, nothing is restored anywhere.
    let answer = bench
        .ask("POST", &path, token, r#"{"target":"archive"}"#)
        .await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text);
    assert!(answer.text.contains("[sandbox]"), "{}", answer.text);
}

#[tokio::test]
async fn a_thousand_orders_meet_a_limit_and_nobody_else_does() {
    let box_toml = "[server.box]\nhost = '127.0.0.1'\nport = 1\nuser = 'x'\n[server.box.admin]\nuser = 'y'\n[sandbox]\nserver = 'box'";
    let bench = Bench::new(box_toml).await;
    let path = format!("/api/v1/backups/{}/restores", bench.ids[3]);
    let token = bench.token(Role::Restorer, "*");
    let mut statuses = BTreeMap::new();
    for _ in 0..1000 {
        let answer = bench
            .ask("POST", &path, token, r#"{"target":"archive"}"#)
            .await;
        match answer.status {
            StatusCode::TOO_MANY_REQUESTS => assert!(answer.headers.contains_key("retry-after")),
            StatusCode::CONFLICT | StatusCode::ACCEPTED => {
                assert!(answer.header("location").starts_with("/api/v1/runs/"));
            }
            _ => {}
        }
        *statuses.entry(answer.status.as_u16()).or_insert(0) += 1;
    }
    assert!(
        statuses
            .keys()
            .all(|status| [202, 409, 429].contains(status)),
        "{statuses:?}"
    );
    assert!(statuses[&429] >= 800, "{statuses:?}");
    let (path, token) = (
        verifications(&bench, 3),
        bench.token(Role::Operator, "shop"),
    );
    let other = bench.ask("POST", &path, token, STORED).await;
    assert_eq!(other.status, StatusCode::ACCEPTED, "{}", other.text);
    bench.view("/api/v1/sources").await;
}

#[tokio::test]
async fn a_backup_is_pinned_with_a_reason_and_an_end() {
    let bench = Bench::new("").await;
    let path = format!("/api/v1/backups/{}/pin", bench.ids[0]);
    let operator = bench.token(Role::Operator, "shop");
    let body = r#"{"reason":"the court asked","until":"2999-01-01T00:00:00Z"}"#;
    let answer = bench.ask("PUT", &path, operator, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(
        answer.json(),
        json!({
            "id": bench.ids[0], "source": "shop", "pinned": true, "reason": "the court asked",
            "until": "2999-01-01T00:00:00Z", "destinations": ["near"],
        })
    );
    let pinned = async || {
        bench.read().await;
        let all = bench.view("/api/v1/sources/shop/backups").await.json();
        let all = all["items"].as_array().unwrap().clone();
        all.iter()
            .map(|item| item["pinned"].as_bool().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(pinned().await, [false, false, true]);
    let runs = bench.view("/api/v1/runs?operation=pin").await.json();
    assert_eq!(runs["items"][0]["who"]["user"], "operator-shop");
    for wrong in [
        r#"{"until":"2001-01-01T00:00:00Z"}"#.to_owned(),
        r#"{"until":"tomorrow"}"#.to_owned(),
        format!("{{\"reason\":\"{}\"}}", "x".repeat(2000)),
    ] {
        let answer = bench.ask("PUT", &path, operator, &wrong).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    let answer = bench.ask("DELETE", &path, operator, "").await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    let answer = bench
        .ask("DELETE", &path, bench.token(Role::Admin, "shop"), "")
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(pinned().await, [false, false, false]);
    // There is none any more.
    let answer = bench
        .ask("DELETE", &path, bench.token(Role::Admin, "shop"), "")
        .await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_pin_is_shortened_only_by_whom_may_take_it_away() {
    let bench = Bench::new("").await;
    let path = format!("/api/v1/backups/{}/pin", bench.ids[0]);
    let operator = bench.token(Role::Operator, "shop");
    let admin = bench.token(Role::Admin, "shop");
    let until = |year: u32| format!(r#"{{"until":"{year}-01-01T00:00:00Z"}}"#);
    let for_ever = "{}".to_owned();
    for (token, body, expected) in [
        (operator, until(2900), StatusCode::OK),
        (operator, until(2800), StatusCode::FORBIDDEN),
        (operator, until(2900), StatusCode::OK),
        (operator, until(2950), StatusCode::OK),
        (operator, for_ever.clone(), StatusCode::OK),
        (operator, until(2950), StatusCode::FORBIDDEN),
        (operator, for_ever, StatusCode::OK),
        (admin, until(2700), StatusCode::OK),
        (operator, until(2701), StatusCode::OK),
    ] {
        let answer = bench.ask("PUT", &path, token, &body).await;
        assert_eq!(answer.status, expected, "{body}: {}", answer.text);
    }
    // What nobody can read holds for ever.
    let pins = bench.dir.path().join("store");
    let id = bench.ids[0].as_str();
    let mut files = Vec::new();
    let mut dirs = vec![pins];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let text = path.to_string_lossy().into_owned();
            if path.is_dir() {
                dirs.push(path);
            } else if text.contains("pin") && text.contains(id) {
                files.push(path);
            }
        }
    }
    assert_eq!(files.len(), 1, "{files:?}");
    std::fs::write(&files[0], "{").unwrap();
    let answer = bench.ask("PUT", &path, operator, &until(2999)).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text);
}

#[tokio::test]
async fn older_set_ups_find_their_paths_and_fields() {
    let bench = Bench::new("").await;
    let shop = bench.token(Role::Operator, "shop");
    let base = "/api/v1/backups/pg-dump";
    let latest = bench.get(&format!("{base}/latest"), shop).await.json();
    assert_eq!(
        (
            &latest["filename"],
            &latest["source"],
            &latest["backup_type"],
            &latest["status"]
        ),
        (
            &json!(bench.ids[3]),
            &json!("shop"),
            &json!("pg_dump"),
            &json!("success")
        )
    );
    assert!(latest["file_size_bytes"].as_u64().unwrap() > 0, "{latest}");
    let all = bench.get(&format!("{base}/list"), shop).await.json();
    assert_eq!((all.as_array().unwrap().len(), &all[0]), (3, &latest));
    let lately = bench.get(&format!("{base}/list?days=30"), shop).await;
    assert_eq!(lately.json(), json!([]));
    let history = bench
        .get(&format!("{base}/restore-history"), shop)
        .await
        .json();
    assert_eq!(history[0]["restore_test_status"], "success", "{history}");
    // As such set-ups send it: without saying that it is JSON.
    let request = Request::post(format!("{base}/test-restore"))
        .header("Authorization", format!("Bearer {shop}"))
        .header("Content-Type", "application/x-www-form-urlencoded");
    let body = json!({ "backup_filename": bench.ids[0] }).to_string();
    let answer = bench.send(request.body(Body::from(body)).unwrap()).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    assert_eq!(answer.json()["operation"], "drill");
    assert_eq!(answer.json()["backup"], bench.ids[0].as_str());
    // Who sees several sources has to say which.
    let all = bench.token(Role::Operator, "*");
    let answer = bench.get(&format!("{base}/latest"), all).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text.contains("?source="), "{}", answer.text);
    let member = bench
        .get(&format!("{base}/latest?source=everything%2Fshop"), all)
        .await;
    assert_eq!(member.json()["filename"], bench.ids[4].as_str());
    let nothing = bench.token(Role::Operator, "nothing");
    let answer = bench.get(&format!("{base}/latest"), nothing).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_member_of_a_family_is_a_source_like_any_other() {
    let bench = Bench::new("").await;
    let token = bench.token(Role::Operator, "everything/*");
    let path = verifications(&bench, 4);
    let answer = bench.ask("POST", &path, token, STORED).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    assert_eq!(answer.json()["source"], "everything/shop");
    // The family itself is more than its members.
    let family = "/api/v1/sources/everything/backups";
    let answer = bench.ask("POST", family, token, "{}").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.text);
    let answer = bench
        .ask("POST", &verifications(&bench, 3), token, STORED)
        .await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn other_tokens_come_in_without_a_restart() {
    let bench = Bench::new("").await;
    let token = bench.token(Role::Viewer, "*").to_owned();
    let answer = bench.get("/api/v1/sources", &token).await;
    assert_eq!(answer.status, StatusCode::OK);
    let toml = std::fs::read_to_string(bench.dir.path().join("backup.toml")).unwrap();
    let (without, _) = toml.split_once("[[access]]").unwrap();
    let dir = tempfile::tempdir().unwrap();
    bench.server.admit(load(dir.path(), without).config());
    let answer = bench.get("/api/v1/sources", &token).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    bench.server.admit(load(dir.path(), &toml).config());
    bench.view("/api/v1/sources").await;
}

#[tokio::test]
async fn the_page_about_the_interface_runs_nothing() {
    let bench = Bench::new("").await;
    let answer = bench
        .send(Request::get("/api/docs").body(Body::empty()).unwrap())
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    let policy = answer.header("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'; style-src 'unsafe-inline';"),
        "{policy}"
    );
    assert!(!policy.contains("script"), "{policy}");
    assert!(answer.header("content-type").starts_with("text/html"));
    assert!(
        answer
            .text
            .contains("POST</span> <code>/api/v1/backups/{id}/restores</code>")
    );
}

/// Whoever asks for one all the same must not find it damaged.
#[tokio::test]
async fn what_is_no_database_is_kept_and_never_restored_into_one() {
    let bench =
        Bench::new("[sandbox]\nserver = 'looks'\n[server.looks]\nadmin = { user = 'postgres' }\n")
            .await;
    let (engine, _) = writer(&bench.app);
    let part = ScriptedPart::new("redis", "snapshot").kind(PartKind::Data, PartFormat::Rdb);
    let id = back_up_of(&engine, "shop", part).await;
    bench.read().await;
    let token = bench.token(Role::Admin, "*");
    let path = format!("/api/v1/backups/{id}/restores?source=shop");
    let answer = bench
        .ask("POST", &path, token, r#"{"target":"archive"}"#)
        .await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text);
    assert!(answer.text.contains("no database"), "{}", answer.text);
    let listed = bench.view("/api/v1/sources/shop/backups").await.json();
    assert!(listed.to_string().contains(&id), "{listed:#}");
}
