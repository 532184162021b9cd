//! What can be asked, for programs.

use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi as Document, Ref, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use crate::problem::Problem;
use crate::routes;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "backup-server",
        description = "Backups of PostgreSQL: what there is, whether it is good, and work on it. \
                       Work answers 202 and says in Location where to look. An Idempotency-Key \
                       with a POST makes a repetition harmless for a day, as long as the server is \
                       not restarted."
    ),
    paths(
        routes::sources,
        routes::source,
        routes::backups,
        routes::latest,
        routes::backup,
        routes::runs,
        routes::drills,
        routes::orders::backup,
        routes::orders::restore,
        routes::orders::drill,
        routes::orders::verify,
        routes::pins::pin,
        routes::pins::unpin,
        routes::runs::run,
        routes::runs::cancel,
        routes::runs::events,
        routes::runs::access,
        routes::sandboxes::sandboxes,
        routes::sandboxes::remove,
        routes::pg_dump::latest,
        routes::pg_dump::list,
        routes::pg_dump::test_restore,
        routes::pg_dump::restore_history
    ),
    components(schemas(Problem)),
    security(("token" = [])),
    modifiers(&Tokens, &Refusals)
)]
struct Api;

/// Tokens, as the description calls them.
struct Tokens;

impl Modify for Tokens {
    fn modify(&self, document: &mut Document) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", scheme);
    }
}

/// What any request may be answered with instead, in one form.
struct Refusals;

/// Those of every route; of those that do something; and of those that take a body.
const ALL: [(&str, &str); 6] = [
    ("400", "the request has not the form that it should have"),
    ("401", "no token, or none that is known here"),
    (
        "404",
        "there is no such thing, or none that this token may see",
    ),
    (
        "429",
        "too many requests; Retry-After says when to come again",
    ),
    (
        "500",
        "something went wrong; the log of the server knows more",
    ),
    (
        "503",
        "the places of the backups were not read yet, or the server is about to stop",
    ),
];
const DOING: [(&str, &str); 3] = [
    ("403", "this token may not do that"),
    (
        "409",
        "it cannot be done now; Location names a run that does the same",
    ),
    (
        "502",
        "a server or a store did not do its part; the log knows more",
    ),
];
const TAKING: [(&str, &str); 3] = [
    ("413", "the body is too long"),
    ("415", "the body is not said to be JSON"),
    ("422", "the Idempotency-Key was sent with another request"),
];

impl Modify for Refusals {
    fn modify(&self, document: &mut Document) {
        for (path, item) in &mut document.paths.paths {
            let doing = [&mut item.post, &mut item.put, &mut item.delete];
            for operation in doing.into_iter().flatten() {
                refuse(operation, &DOING);
                if operation.request_body.is_some() {
                    refuse(operation, &TAKING);
                }
                refuse(operation, &ALL);
            }
            if let Some(operation) = &mut item.get {
                refuse(operation, &ALL);
                if path.ends_with("/access") {
                    refuse(operation, &DOING);
                    refuse(operation, &[("410", "it was told already")]);
                } else if path.ends_with("/sandboxes") {
                    refuse(
                        operation,
                        &[("502", "the server of these databases does not answer")],
                    );
                }
            }
        }
    }
}

fn refuse(operation: &mut Operation, refusals: &[(&str, &str)]) {
    for (status, description) in refusals {
        let problem = Ref::from_schema_name("Problem");
        let content = ContentBuilder::new().schema(Some(problem)).build();
        let response = ResponseBuilder::new()
            .description(*description)
            .content("application/problem+json", content);
        let all = &mut operation.responses.responses;
        all.insert((*status).to_owned(), response.build().into());
    }
}

/// The description of everything below `/api/v1`.
#[must_use]
pub fn document() -> Document {
    Api::openapi()
}
