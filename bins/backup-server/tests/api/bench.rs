//! A server over a directory with backups.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use backup_app::token::new_token;
use backup_app::{App, Environment, Overrides, Role, who};
use backup_core::backup::SourceName;
use backup_core::engine::{BackupRequest, Engine};
use backup_core::run_record::{Operation, RunResult};
use backup_server::{Server, read_once, router};
use backup_testing::{FakeCompressor, FixedClock, ScriptedDumper, ScriptedPart};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// A place with three backups of `shop`, one of `other` and one of `everything/shop`, a drill and
/// a prune.
pub(crate) struct Bench {
    pub(crate) server: Arc<Server>,
    /// Tokens by role and sources.
    pub(crate) tokens: Vec<(Role, &'static str, String)>,
    /// Backups, the oldest first: of `shop`, `other`, `shop`, `shop`, `everything/shop`.
    pub(crate) ids: Vec<String>,
    pub(crate) app: Arc<App>,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }
}

/// What a server answers.
pub(crate) async fn send(server: &Arc<Server>, request: Request<Body>) -> Answer {
    let response = router(Arc::clone(server)).oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    Answer {
        status: parts.status,
        headers: parts.headers,
        text: String::from_utf8(body.to_vec()).unwrap(),
    }
}

/// Lets somebody in of that name; his token.
pub(crate) fn let_in(toml: &mut String, name: &str, role: Role, source: &str) -> String {
    let (new, role) = (new_token(), role.as_str());
    let hash = new.sha256;
    let _ = write!(
        toml,
        "[[access]]\nname = '{name}'\ntoken_sha256 = '{hash}'\nrole = '{role}'\n\
         sources = ['{source}']\n"
    );
    new.token.expose_secret().to_owned()
}

impl Bench {
    pub(crate) async fn new(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut toml = format!(
            "[encryption]\nmode = 'none'\n[destination.near]\nurl = 'file://{}'\n\
             [source.shop]\ndestinations = ['near']\nschedule = '0 3 * * *'\n\
             [source.everything]\ndatabases = ['*']\ndestinations = ['near']\n{more}\n",
            dir.path().join("store").display()
        );
        let mut tokens = Vec::new();
        for role in Role::ALL {
            for source in ["*", "shop", "nothing", "everything/*"] {
                let name = format!("{}-{source}", role.as_str());
                tokens.push((role, source, let_in(&mut toml, &name, role, source)));
            }
        }
        let app = Arc::new(load(dir.path(), &toml));
        let ids = fill(&app).await;
        let server = Arc::new(Server::new(&app));
        let bench = Self {
            server,
            tokens,
            ids,
            app,
            dir,
        };
        bench.read().await;
        bench
    }

    /// Reads the places once more.
    pub(crate) async fn read(&self) {
        let app = Arc::clone(&self.app);
        read_once(app, &self.server).await.unwrap();
    }

    pub(crate) fn token(&self, role: Role, source: &str) -> &str {
        let found = self
            .tokens
            .iter()
            .find(|(r, s, _)| *r == role && *s == source);
        &found.unwrap().2
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        send(&self.server, request).await
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Answer {
        let request = Request::get(path).header("Authorization", format!("Bearer {token}"));
        self.send(request.body(Body::empty()).unwrap()).await
    }

    /// Asks with a body, which is said to be JSON.
    pub(crate) async fn ask(&self, method: &str, path: &str, token: &str, body: &str) -> Answer {
        let request = Request::builder().method(method).uri(path);
        let request = request
            .header("Authorization", format!("Bearer {token}"))
            .header("Content-Type", "application/json");
        self.send(request.body(Body::from(body.to_owned())).unwrap())
            .await
    }

    /// Orders work and waits until it is over; its state.
    pub(crate) async fn done(&self, path: &str, body: &str) -> Value {
        let token = self.token(Role::Admin, "*");
        let answer = self.ask("POST", path, token, body).await;
        assert_eq!(
            answer.status,
            StatusCode::ACCEPTED,
            "{path}: {}",
            answer.text
        );
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        // The stream ends with the run.
        self.view(&format!("/api/v1/runs/{id}/events")).await;
        self.view(&format!("/api/v1/runs/{id}")).await.json()
    }

    /// As somebody who may see all.
    pub(crate) async fn view(&self, path: &str) -> Answer {
        let answer = self.get(path, self.token(Role::Viewer, "*")).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        answer
    }
}

pub(crate) fn load(dir: &Path, toml: &str) -> App {
    let path = dir.join("backup.toml");
    std::fs::write(&path, toml).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::create_dir_all(dir.join("store")).unwrap();
    App::load(Some(&path), Environment::default(), Overrides::default()).unwrap()
}

/// What writes into the place, and the clock that it looks at.
pub(crate) fn writer(app: &App) -> (Engine, FixedClock) {
    let place = app.place("near").unwrap();
    let store = place.open(app.environment()).unwrap();
    let clock = FixedClock::new("2026-02-05T03:00:00Z".parse().unwrap());
    let engine = Engine::new(store, Arc::new(clock.clone()));
    (engine.with_compressor(Arc::new(FakeCompressor)), clock)
}

/// Takes a backup; its id.
pub(crate) async fn back_up(engine: &Engine, name: &str) -> String {
    back_up_of(engine, name, ScriptedPart::new("data-rest", "rows")).await
}

/// The same, of one part.
pub(crate) async fn back_up_of(engine: &Engine, name: &str, part: ScriptedPart) -> String {
    let dumper = ScriptedDumper::new().part(part);
    let request = BackupRequest {
        compression: "fake".to_owned(),
        encrypt: false,
        ..BackupRequest::new(SourceName::new(name).unwrap())
    };
    let stop = CancellationToken::new();
    let taken = engine.backup(&dumper, &request, &stop).await.unwrap();
    taken.manifest.id.to_string()
}

/// Takes backups, a minute after each other, and leaves records; the ids of the backups.
async fn fill(app: &App) -> Vec<String> {
    let (engine, clock) = writer(app);
    let stop = CancellationToken::new();
    let mut ids = Vec::new();
    for name in ["shop", "other", "shop", "shop", "everything/shop"] {
        ids.push(back_up(&engine, name).await);
        clock.advance(Duration::from_mins(1));
    }
    for (operation, source) in [
        (Operation::Drill, Some("shop")),
        (Operation::Backup, Some("other")),
        (Operation::Prune, None),
    ] {
        let mut run = engine.history().begin(operation, who());
        run.source = source.map(|name| SourceName::new(name).unwrap());
        run.result = RunResult::Success;
        engine.history().record(&mut run, &stop).await.unwrap();
        clock.advance(Duration::from_mins(1));
    }
    ids
}
