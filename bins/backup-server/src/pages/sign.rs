//! Signing in by a token, and out again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use askama::Template;
use axum::extract::{Form, FromRequest as _, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};

use super::words::Words;
use super::{Frame, Posted, Said, accepted, render};
use crate::access::address;
use crate::session::is_from_here;
use crate::state::Server;

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignIn {
    frame: Frame,
    w: &'static Words,
    next: String,
    error: &'static str,
}

fn form(status: StatusCode, w: &'static Words, next: &str, error: &'static str) -> Response {
    let page = SignIn {
        frame: Frame::of(w, w.sign_in),
        w,
        next: own_path(next).to_owned(),
        error,
    };
    render(status, &page)
}

pub(super) async fn page(
    headers: HeaderMap,
    Said(query): Said<HashMap<String, String>>,
) -> Response {
    let next = query.get("next");
    form(
        StatusCode::OK,
        accepted(&headers),
        next.map_or("/", String::as_str),
        "",
    )
}

pub(super) async fn enter(State(server): State<Arc<Server>>, request: Request) -> Response {
    let from = address(&server, &request);
    let w = accepted(request.headers());
    let own = is_from_here(request.headers());
    let fields = Form::<HashMap<String, String>>::from_request(request, &server).await;
    let fields = fields.map(|Form(fields)| fields).unwrap_or_default();
    let field = |name: &str| fields.get(name).map_or("", |text| text.trim());
    let next = field("next");
    if !own {
        return form(StatusCode::FORBIDDEN, w, next, w.foreign_form);
    }
    let Some(owner) = server.tokens().owner(field("token")) else {
        return if server.failures.count(from, Instant::now()) {
            form(StatusCode::TOO_MANY_REQUESTS, w, next, w.too_many)
        } else {
            form(StatusCode::UNAUTHORIZED, w, next, w.wrong_token)
        };
    };
    tracing::info!(target: "backup", who = owner.name, "signed in");
    let cookie = server.sessions.begin(owner, Instant::now());
    let cookie = cookie.map(|cookie| [(header::SET_COOKIE, cookie)]);
    (cookie, Redirect::to(own_path(next))).into_response()
}

pub(super) async fn leave(headers: HeaderMap, posted: Posted) -> Response {
    let cookie = posted.visit.server.sessions.end(&headers);
    let cookie = cookie.map(|cookie| [(header::SET_COOKIE, cookie)]);
    (cookie, Redirect::to("/sign-in")).into_response()
}

/// A path of this server; anything else would lead whoever signs in to others.
fn own_path(next: &str) -> &str {
    let mut letters = next.chars();
    let own = letters.next() == Some('/')
        && !matches!(letters.next(), Some('/' | '\\'))
        && !next.contains(|c: char| c.is_control());
    if own { next } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_led_elsewhere() {
        for (next, expected) in [
            ("/", "/"),
            ("/runs?days=7", "/runs?days=7"),
            ("", "/"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("/\t/evil.example", "/"),
            ("https://evil.example", "/"),
            ("runs", "/"),
        ] {
            assert_eq!(own_path(next), expected, "{next:?}");
        }
    }
}
