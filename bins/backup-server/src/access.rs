//! Who asks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use backup_app::access::{Action, Decision, Principal};

use crate::problem::Problem;
use crate::state::Server;

/// What proxies add to.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Who asks: every handler that tells something takes one.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(crate) Arc<Principal>);

impl Caller {
    /// Refuses what he may not, in the words that he may hear.
    pub(crate) fn may(&self, action: Action, source: Option<&str>) -> Result<(), Problem> {
        match self.0.decide(action, source) {
            Decision::Allowed => Ok(()),
            Decision::Forbidden => {
                let detail = "this token may not do that";
                Err(Problem::new(StatusCode::FORBIDDEN, detail))
            }
            Decision::Hidden => Err(Problem::not_found()),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(unauthorised)
    }
}

fn unauthorised() -> Problem {
    let detail = "say Authorization: Bearer and a token that is known here";
    Problem::new(StatusCode::UNAUTHORIZED, detail)
}

/// Lets in who has a token.
pub(crate) async fn authenticate(
    State(server): State<Arc<Server>>,
    mut request: Request,
    next: Next,
) -> Response {
    let owner = bearer(&request).and_then(|token| server.tokens().owner(token));
    let Some(owner) = owner else {
        let too_many = server
            .failures
            .count(address(&server, &request), Instant::now());
        let problem = if too_many {
            let detail = "too many wrong tokens; wait a minute";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, detail)
        } else {
            unauthorised()
        };
        return problem.into_response();
    };
    let caller = Caller(owner);
    request.extensions_mut().insert(caller.clone());
    let mut response = next.run(request).await;
    response.extensions_mut().insert(caller);
    response
}

/// The token of a request.
fn bearer(request: &Request) -> Option<&str> {
    let said = request
        .headers()
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?;
    let (scheme, token) = said.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Where a request comes from. Of a proxy that is said to be in front, we believe what it added: the
/// last address, and nothing that was there before.
pub(crate) fn address(server: &Server, request: &Request) -> IpAddr {
    let behind_proxy = server.app.config().server_http.behind_tls_proxy;
    let forwarded = request.headers().get_all(FORWARDED_FOR).iter().next_back();
    let last = forwarded
        .filter(|_| behind_proxy)
        .and_then(|said| said.to_str().ok()?.rsplit(',').next()?.trim().parse().ok());
    last.unwrap_or_else(|| {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.0.ip())
    })
}
