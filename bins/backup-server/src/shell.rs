//! What goes around every request: a number, a log line, a time limit, headers.

use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::access::Caller;
use crate::problem::Problem;

/// How long a request may take; all answers lie ready in memory.
const LIMIT: Duration = Duration::from_secs(30);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Answers carry data, and what a browser could make of them is nothing. Pages say for themselves
/// what is different with them.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    // Whoever keeps an answer has to ask whether it still holds.
    (header::CACHE_CONTROL, "private, no-cache"),
];

/// Numbers, limits and logs a request. What was asked and with which token is not logged: paths
/// are, as the routes name them.
pub(crate) async fn shell(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = format!("{:016x}", rand::random::<u64>());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or_else(|| "-".to_owned(), |route| route.as_str().to_owned());
    let answered = tokio::time::timeout(LIMIT, next.run(request)).await;
    let mut response = answered.unwrap_or_else(|_| {
        Problem::new(StatusCode::GATEWAY_TIMEOUT, "the answer took too long").into_response()
    });
    let who = response.extensions().get::<Caller>();
    tracing::info!(
        target: "backup",
        request = id,
        %method,
        route,
        status = response.status().as_u16(),
        milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        who = who.map(|caller| caller.0.name.as_str()),
        "answered"
    );
    decorate(response.headers_mut(), &id);
    response
}

fn decorate(headers: &mut HeaderMap, id: &str) {
    for (name, value) in HEADERS {
        // What a route says of itself is stricter, or known to be harmless.
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
}
