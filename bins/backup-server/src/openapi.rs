//! What can be asked, for programs.

use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::routes;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "backup-server",
        description = "Backups of PostgreSQL: what there is, and whether it is good"
    ),
    paths(
        routes::sources,
        routes::source,
        routes::backups,
        routes::latest,
        routes::backup,
        routes::runs,
        routes::drills
    ),
    security(("token" = [])),
    modifiers(&Tokens)
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

/// The description of everything below `/api/v1`.
#[must_use]
pub fn document() -> Document {
    Api::openapi()
}
