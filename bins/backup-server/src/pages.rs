//! Pages for people. Everything can be read without a script; a browser is let in by a session.

mod assets;
mod backup;
mod calendar;
mod charts;
mod job;
mod orders;
mod overview;
mod restore;
mod runs;
mod sandboxes;
pub(crate) mod show;
mod sign;
mod source;
mod storage;
pub(crate) mod words;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use askama::Template;
use axum::Router;
use axum::extract::{Form, FromRequest, FromRequestParts, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use backup_app::Overview;
use backup_app::Role;
use backup_app::SystemClock;
use backup_app::access::{Action, Decision};
use backup_app::text::shown;
use backup_core::clock::Clock as _;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::de::DeserializeOwned;

use crate::access::Caller;
use crate::audit::denials;
use crate::problem::Problem;
use crate::session::{Session, is_from_here};
use crate::state::Server;
use show::{When, in_path};
use words::Words;

/// What a browser may do with a page. Forms would say `null` as their origin without a referrer.
const HEADERS: [(HeaderName, &str); 2] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; \
         connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    (header::REFERRER_POLICY, "same-origin"),
];

/// All pages.
pub(crate) fn router(server: &Arc<Server>) -> Router<Arc<Server>> {
    Router::new()
        .route("/", get(overview::page))
        .route("/sources/{source}", get(source::page))
        .route("/backups/{id}", get(backup::page))
        .route("/runs", get(runs::page))
        .route("/runs/{id}", get(runs::one))
        .route("/drills", get(runs::drills))
        .route("/storage", get(storage::page))
        .route("/restore", get(restore::page).post(orders::restore))
        .route("/sandboxes", get(sandboxes::page))
        .route("/sandboxes/{name}/drop", post(sandboxes::remove))
        .route("/sources/{source}/backup", post(orders::backup))
        .route("/backups/{id}/verify", post(orders::verify))
        .route("/backups/{id}/drill", post(orders::drill))
        .route("/backups/{id}/pin", post(orders::pin))
        .route("/backups/{id}/unpin", post(orders::unpin))
        .route("/runs/{id}/progress", get(job::progress))
        .route("/runs/{id}/cancel", post(orders::cancel))
        .route("/runs/{id}/access", post(job::access))
        .route("/sign-out", post(sign::leave))
        .route("/sign-in", get(sign::page).post(sign::enter))
        .layer(from_fn_with_state(Arc::clone(server), recognise))
        .layer(from_fn_with_state(Arc::clone(server), denials))
        .route("/assets/{name}", get(assets::asset))
}

/// Sees who is signed in, and says what a browser may do with the answer.
async fn recognise(
    State(server): State<Arc<Server>>,
    mut request: Request,
    next: Next,
) -> Response {
    let session = server.sessions.find(request.headers(), Instant::now());
    if let Some(session) = &session {
        request.extensions_mut().insert(session.clone());
    }
    let mut response = next.run(request).await;
    if let Some(session) = session {
        response.extensions_mut().insert(Caller(session.who));
    }
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(
        header::VARY,
        HeaderValue::from_static("Accept-Language, Cookie"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Who looks at a page, in which language, and at what.
pub(crate) struct Visit {
    pub(crate) caller: Caller,
    pub(crate) w: &'static Words,
    pub(crate) now: DateTime<Utc>,
    pub(crate) overview: Arc<Overview>,
    pub(crate) server: Arc<Server>,
    session: Session,
}

impl FromRequestParts<Arc<Server>> for Visit {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, server: &Arc<Server>) -> Result<Self, Response> {
        let Some(session) = parts.extensions.get::<Session>().cloned() else {
            let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
            // What is sent with a form may have no page of its own.
            let path = if parts.method.is_safe() { path } else { "/" };
            let to = format!("/sign-in?next={}", in_path(path));
            return Err(Redirect::to(&to).into_response());
        };
        let w = accepted(&parts.headers);
        let Some(overview) = server.overview() else {
            let frame = Frame {
                wait: true,
                ..Frame::of(w, w.not_ready)
            };
            let (title, text) = (w.not_ready, w.not_ready_text);
            let note = Note {
                frame,
                w,
                title,
                text,
                link: None,
            };
            return Err(render(StatusCode::SERVICE_UNAVAILABLE, &note));
        };
        Ok(Self {
            caller: Caller(Arc::clone(&session.who)),
            w,
            now: SystemClock.now(),
            overview,
            server: Arc::clone(server),
            session,
        })
    }
}

/// What stands after the `?`; nothing, if it makes no sense.
pub(crate) struct Said<T>(pub(crate) T);

impl<T: DeserializeOwned + Default, S: Sync> FromRequestParts<S> for Said<T> {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let said = Query::try_from_uri(&parts.uri);
        Ok(Self(said.map(|Query(said)| said).unwrap_or_default()))
    }
}

/// A form that somebody sent from one of his own pages.
pub(crate) struct Posted {
    pub(crate) visit: Visit,
    pub(crate) fields: HashMap<String, String>,
}

impl FromRequest<Arc<Server>> for Posted {
    type Rejection = Response;

    async fn from_request(request: Request, server: &Arc<Server>) -> Result<Self, Response> {
        let own = is_from_here(request.headers());
        let (mut parts, body) = request.into_parts();
        let visit = Visit::from_request_parts(&mut parts, server).await?;
        let request = Request::from_parts(parts, body);
        let form = Form::<HashMap<String, String>>::from_request(request, server).await;
        let fields = form.map(|Form(fields)| fields).unwrap_or_default();
        let form_key = fields.get("form_key").map_or("", String::as_str);
        if !own || !visit.session.owns(form_key) {
            let w = visit.w;
            return Err(visit.note(StatusCode::FORBIDDEN, w.refused, w.foreign_form));
        }
        Ok(Self { visit, fields })
    }
}

/// What is around the content of every page.
#[derive(Debug)]
pub(crate) struct Frame {
    title: String,
    /// The entry of the menu that the page belongs to.
    current: &'static str,
    person: Option<Person>,
    /// What could not be read.
    incomplete: Vec<String>,
    as_of: Option<When>,
    assets: [String; 3],
    /// Whether the browser is to ask again by itself.
    wait: bool,
}

#[derive(Debug)]
struct Person {
    name: String,
    role: &'static str,
    restores: bool,
    form_key: String,
}

impl Frame {
    /// Of a page for nobody in particular.
    pub(crate) fn of(_: &'static Words, title: &str) -> Self {
        Self {
            title: shown(title),
            current: "",
            person: None,
            incomplete: Vec::new(),
            as_of: None,
            assets: assets::paths(),
            wait: false,
        }
    }

    /// What forms say again.
    fn form_key(&self) -> &str {
        self.person.as_ref().map_or("", |person| &person.form_key)
    }
}

/// A page that says one thing.
#[derive(Template)]
#[template(path = "note.html")]
struct Note {
    frame: Frame,
    w: &'static Words,
    title: &'static str,
    text: &'static str,
    /// Where there is more, and what stands there.
    link: Option<(String, &'static str)>,
}

impl Visit {
    /// What is around a page that he looks at.
    pub(crate) fn frame(&self, current: &'static str, title: &str) -> Frame {
        let who = &self.caller.0;
        let w = self.w;
        let role = match who.role {
            Role::Viewer => w.role_viewer,
            Role::Restorer => w.role_restorer,
            Role::Operator => w.role_operator,
            Role::Admin => w.role_admin,
        };
        let incomplete = if who.sees(None) {
            self.overview
                .incomplete
                .iter()
                .map(|text| shown(text))
                .collect()
        } else {
            Vec::new()
        };
        Frame {
            current,
            person: Some(Person {
                name: shown(&who.name),
                role,
                restores: who.role >= Action::Restore.least_role(),
                form_key: self.session.form_key.clone(),
            }),
            incomplete,
            as_of: Some(self.when(self.overview.taken_at, self.server.zone)),
            ..Frame::of(w, title)
        }
    }

    pub(crate) fn when(&self, at: DateTime<Utc>, zone: Tz) -> When {
        self.w.when(at, zone, self.now)
    }

    /// A moment in the form of all JSON.
    pub(crate) fn when_text(&self, time: &str, zone: Tz) -> Option<When> {
        show::parse(time).map(|at| self.when(at, zone))
    }

    /// On which clock a source lives.
    pub(crate) fn zone_of(&self, source: &str) -> Tz {
        self.server.zone_of(&self.overview, source)
    }

    /// Whether he may do it to a source.
    pub(crate) fn may(&self, action: Action, source: &str) -> bool {
        self.caller.0.decide(action, Some(source)) == Decision::Allowed
    }

    pub(crate) fn sees(&self, source: Option<&str>) -> bool {
        self.caller.0.sees(source)
    }

    /// What a program would be told, as a page.
    pub(crate) fn problem(&self, problem: &Problem) -> Response {
        let w = self.w;
        let status = StatusCode::from_u16(problem.status).unwrap_or_default();
        let (title, text) = w.problem(status);
        self.note(status, title, text)
    }

    pub(crate) fn not_found(&self) -> Response {
        let w = self.w;
        self.note(StatusCode::NOT_FOUND, w.not_found, w.not_found_text)
    }

    /// A page that says one thing.
    pub(crate) fn note(
        &self,
        status: StatusCode,
        title: &'static str,
        text: &'static str,
    ) -> Response {
        self.note_about(status, (title, text), None)
    }

    /// The same, with a link to where there is more.
    pub(crate) fn note_about(
        &self,
        status: StatusCode,
        (title, text): (&'static str, &'static str),
        link: Option<(String, &'static str)>,
    ) -> Response {
        let frame = self.frame("", title);
        let w = self.w;
        render(
            status,
            &Note {
                frame,
                w,
                title,
                text,
                link,
            },
        )
    }
}

fn accepted(headers: &HeaderMap) -> &'static Words {
    let said = headers.get(header::ACCEPT_LANGUAGE);
    Words::accepted(
        said.and_then(|value| value.to_str().ok())
            .unwrap_or_default(),
    )
}

/// A page.
pub(crate) fn render(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => {
            tracing::error!(target: "backup", "render a page: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
