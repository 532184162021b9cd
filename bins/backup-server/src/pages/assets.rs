//! The style sheet, the script and the icon. Each has the hash of its content in its name, so
//! that browsers may keep it for good.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};

struct Asset {
    name: &'static str,
    kind: &'static str,
    content: &'static str,
}

const ASSETS: [Asset; 3] = [
    Asset {
        name: "style.css",
        kind: "text/css; charset=utf-8",
        content: include_str!("../../assets/style.css"),
    },
    Asset {
        name: "script.js",
        kind: "text/javascript; charset=utf-8",
        content: include_str!("../../assets/script.js"),
    },
    Asset {
        name: "icon.svg",
        kind: "image/svg+xml",
        content: include_str!("../../assets/icon.svg"),
    },
];

static NAMES: LazyLock<[String; 3]> = LazyLock::new(|| {
    ASSETS.map(|asset| {
        let hash = xxhash_rust::xxh3::xxh3_64(asset.content.as_bytes());
        format!("{hash:016x}-{}", asset.name)
    })
});

/// Where the style sheet, the script and the icon are.
pub(crate) fn paths() -> [String; 3] {
    NAMES.each_ref().map(|name| format!("/assets/{name}"))
}

/// One of them.
pub(crate) async fn asset(Path(name): Path<String>) -> Response {
    let mut known = NAMES.iter().zip(&ASSETS);
    let Some((_, asset)) = known.find(|(known, _)| **known == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, asset.kind),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    (headers, asset.content).into_response()
}
