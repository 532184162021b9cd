//! Answers: pages of lists, and what did not change since.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use backup_app::Overview;
use backup_app::text::time;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::access::Caller;
use crate::problem::Problem;
use crate::state::Server;

/// When the places were read that an answer comes from.
const AS_OF: HeaderName = HeaderName::from_static("backup-as-of");

const DEFAULT_LIMIT: usize = 100;
const MOST: usize = 1000;

/// Which part of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// At most so many, 100 if not said, never more than 1000.
    pub(crate) limit: Option<usize>,
    /// What the page before gave as `next`.
    pub(crate) after: Option<String>,
}

/// Part of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    /// Newest first.
    pub(crate) items: Vec<T>,
    /// What to say as `after` for the rest, if there is more.
    pub(crate) next: Option<String>,
    /// Names of places that could not be read, and why nothing new is known of them. Only for
    /// those who may see all sources.
    pub(crate) incomplete: Vec<String>,
}

impl PageQuery {
    /// A page of a list whose items have keys that do not come twice. An item that is gone ends
    /// nothing: keys sort like the list, newest first.
    pub(crate) fn page<T: Clone>(
        &self,
        items: impl Iterator<Item = T>,
        key: impl Fn(&T) -> String,
        incomplete: Vec<String>,
    ) -> Result<Page<T>, Problem> {
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        if limit == 0 || limit > MOST {
            return Err(Problem::bad_request("limit must be between 1 and 1000"));
        }
        let rest = items.skip_while(|item| {
            let after = self.after.as_ref();
            after.is_some_and(|after| key(item) >= *after)
        });
        let mut items: Vec<T> = rest.take(limit + 1).collect();
        let more = items.len() > limit;
        items.truncate(limit);
        Ok(Page {
            next: items.last().filter(|_| more).map(key),
            items,
            incomplete,
        })
    }
}

/// Who asks, what he has already, and what answers come from.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) caller: Caller,
    pub(crate) overview: Arc<Overview>,
    asked: HeaderMap,
}

impl FromRequestParts<Arc<Server>> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, server: &Arc<Server>) -> Result<Self, Problem> {
        Ok(Self {
            caller: Caller::from_request_parts(parts, server).await?,
            overview: server.overview().ok_or_else(Problem::not_ready)?,
            asked: parts.headers.clone(),
        })
    }
}

impl Reader {
    /// What is wrong with places, for those who may see all that is there.
    pub(crate) fn incomplete(&self) -> Vec<String> {
        if self.caller.0.sees(None) {
            self.overview.incomplete.clone()
        } else {
            Vec::new()
        }
    }

    /// An answer.
    pub(crate) fn json(&self, value: &impl Serialize) -> Response {
        json(&self.asked, &self.overview, value)
    }
}

/// What stands after the `?`.
#[derive(Debug)]
pub(crate) struct Asked<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let asked = Query::try_from_uri(&parts.uri);
        let detail = "a parameter has not the form that it should have";
        asked
            .map(|Query(asked)| Self(asked))
            .map_err(|_| Problem::bad_request(detail))
    }
}

/// An answer as JSON; nothing but a word if the asker has it already.
fn json(asked: &HeaderMap, overview: &Overview, value: &impl Serialize) -> Response {
    let Ok(body) = serde_json::to_vec(value) else {
        let detail = "the answer cannot be written";
        return Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail).into_response();
    };
    let tag = format!("\"{:032x}\"", xxhash_rust::xxh3::xxh3_128(&body));
    let known = asked
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|value| value.trim().trim_start_matches("W/"))
        .any(|value| value == tag || value == "*");
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let json = [(header::CONTENT_TYPE, "application/json")];
        (json, body).into_response()
    };
    for (name, value) in [(header::ETAG, tag), (AS_OF, time(overview.taken_at))] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_and_lose_nothing() {
        let items = ["e", "d", "c", "b", "a"];
        let page = |limit, after: Option<&str>| {
            let query = PageQuery {
                limit,
                after: after.map(str::to_owned),
            };
            query.page(items.into_iter(), |item| (*item).to_owned(), Vec::new())
        };
        let first = page(Some(2), None).unwrap();
        assert_eq!(
            (first.items, first.next.as_deref()),
            (vec!["e", "d"], Some("d"))
        );
        let second = page(Some(2), Some("d")).unwrap();
        assert_eq!(
            (second.items, second.next.as_deref()),
            (vec!["c", "b"], Some("b"))
        );
        let last = page(Some(2), Some("b")).unwrap();
        assert_eq!((last.items, last.next), (vec!["a"], None));
        let all = page(Some(5), None).unwrap();
        assert_eq!((all.items.len(), all.next), (5, None));
        // Between two that are there.
        assert_eq!(page(None, Some("cc")).unwrap().items, ["c", "b", "a"]);
        for wrong in [0, MOST + 1] {
            assert!(page(Some(wrong), None).is_err());
        }
    }
}
