//! Orders that are sent twice because an answer got lost are carried out once. What was answered is
//! kept in memory alone, so a restart forgets it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::OnceCell;

use crate::access::Caller;
use crate::body::read;
use crate::problem::Problem;
use crate::state::Server;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Longer keys are refused.
const KEY_LENGTH: usize = 255;
/// How long an answer is kept.
const KEPT: Duration = Duration::from_hours(24);
/// And how many; then the oldest goes first.
const MOST: usize = 10_000;

/// An answer that is given again.
#[derive(Debug, Clone)]
struct Kept {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// What was asked under a key.
#[derive(Debug, Clone)]
struct Asked {
    digest: u128,
    at: Instant,
    /// Empty while the first of them is under way, and when that was refused.
    answer: Arc<OnceCell<Kept>>,
}

/// The answers to orders that came with a key.
#[derive(Debug, Default)]
pub(crate) struct Idempotency(Mutex<HashMap<(String, String), Asked>>);

impl Idempotency {
    /// The place of an answer; none when the key stands for another order.
    fn place(&self, of: (String, String), digest: u128, now: Instant) -> Option<Asked> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |asked: &Asked| now.saturating_duration_since(asked.at) >= KEPT;
        if let Some(asked) = known.get(&of).filter(|asked| !over(asked)) {
            return (asked.digest == digest).then(|| asked.clone());
        }
        if known.len() >= MOST {
            known.retain(|_, asked| !over(asked));
            let oldest = known.iter().min_by_key(|(_, asked)| asked.at);
            if let Some(oldest) = oldest.map(|(of, _)| of.clone())
                && known.len() >= MOST
            {
                known.remove(&oldest);
            }
        }
        let asked = Asked {
            digest,
            at: now,
            answer: Arc::default(),
        };
        known.insert(of, asked.clone());
        Some(asked)
    }

    /// Forgets an order that was refused: it may be asked in another way.
    fn forget(&self, of: &(String, String)) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known
            .get(of)
            .is_some_and(|asked| asked.answer.get().is_none())
        {
            known.remove(of);
        }
    }
}

/// Gives an order with a key the answer that it was given before. Only what was accepted is kept.
pub(crate) async fn once(
    State(server): State<Arc<Server>>,
    caller: Caller,
    request: Request,
    next: Next,
) -> Response {
    let Some(key) = request.headers().get(KEY).cloned() else {
        return next.run(request).await;
    };
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let key = match key.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= KEY_LENGTH => key.to_owned(),
        _ => {
            let detail = "an Idempotency-Key has 1 to 255 characters of ASCII";
            return Problem::bad_request(detail).into_response();
        }
    };
    let (parts, body) = request.into_parts();
    let body = match read(body).await {
        Ok(body) => body,
        Err(problem) => return problem.into_response(),
    };
    let mut asked = parts.uri.to_string().into_bytes();
    asked.push(0);
    asked.extend_from_slice(&body);
    let digest = xxhash_rust::xxh3::xxh3_128(&asked);
    let of = (caller.0.name.clone(), key);
    let Some(asked) = server.idempotency.place(of.clone(), digest, Instant::now()) else {
        let detail = "this Idempotency-Key was sent with another request";
        return Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).into_response();
    };
    let first = async move {
        let request = Request::from_parts(parts, Body::from(body));
        accepted(next.run(request).await).await
    };
    // Whoever hangs up asks again: what was begun for him is ended, and its answer kept.
    let answer = tokio::spawn(async move {
        match asked.answer.get_or_try_init(|| first).await {
            Ok(kept) => {
                let mut response = (kept.status, kept.body.clone()).into_response();
                *response.headers_mut() = kept.headers.clone();
                response
            }
            Err(refused) => {
                server.idempotency.forget(&of);
                *refused
            }
        }
    });
    let answer = answer.await;
    answer.unwrap_or_else(|_| Problem::broken().into_response())
}

/// What is kept of an answer; the answer itself if nothing is.
async fn accepted(response: Response) -> Result<Kept, Box<Response>> {
    if !response.status().is_success() {
        return Err(Box::new(response));
    }
    let (parts, body) = response.into_parts();
    let body = read(body)
        .await
        .map_err(|problem| Box::new(problem.into_response()))?;
    let mut headers = parts.headers;
    headers.remove(header::CONTENT_LENGTH);
    Ok(Kept {
        status: parts.status,
        headers,
        body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(key: &str) -> (String, String) {
        ("anna".to_owned(), key.to_owned())
    }

    #[test]
    fn a_key_stands_for_one_order_for_a_day() {
        let known = Idempotency::default();
        let now = Instant::now();
        let first = known.place(of("a"), 1, now).unwrap();
        let again = known.place(of("a"), 1, now).unwrap();
        assert!(Arc::ptr_eq(&first.answer, &again.answer));
        assert!(known.place(of("a"), 2, now).is_none());
        let other = ("boris".to_owned(), "a".to_owned());
        assert!(known.place(other, 2, now).is_some());
        assert!(known.place(of("a"), 2, now + KEPT).is_some());
        // What was refused may be asked in another way.
        known.place(of("b"), 1, now).unwrap();
        known.forget(&of("b"));
        assert!(known.place(of("b"), 2, now).is_some());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let known = Idempotency::default();
        let now = Instant::now();
        for number in 0..MOST as u64 + 10 {
            let at = now + Duration::from_millis(number);
            known.place(of(&number.to_string()), 1, at).unwrap();
        }
        let all = known.0.lock().unwrap();
        assert_eq!(all.len(), MOST);
        assert!(!all.contains_key(&of("9")) && all.contains_key(&of("10")));
    }
}
