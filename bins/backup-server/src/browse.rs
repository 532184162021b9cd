//! The description of the interface as a page: one document without script and without anything
//! from elsewhere, made of the same description that programs read.

use std::fmt::Write as _;

use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse as _, Response};
use serde_json::Value;

use crate::openapi;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;\
padding:0 1rem;color:#1b1b1b;background:#fff}code,pre{font:14px/1.4 ui-monospace,monospace}\
pre{background:#f3f3f3;padding:.75rem;overflow-x:auto}section{border-top:1px solid #bbb;\
margin-top:2rem}h2 code{font-size:1.1rem}.method{display:inline-block;min-width:4.5rem;\
font-weight:700}table{border-collapse:collapse}td,th{text-align:left;padding:.2rem 1rem .2rem 0;\
vertical-align:top}@media(prefers-color-scheme:dark){body{color:#eee;background:#16181c}\
pre{background:#24272e}a{color:#8ab4f8}}";

/// Nothing but its own style.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// The page.
pub(crate) async fn page() -> Response {
    let Ok(document) = serde_json::to_value(openapi::document()) else {
        return crate::problem::Problem::not_found().into_response();
    };
    let mut response = Html(render(&document)).into_response();
    let policy = HeaderValue::from_static(POLICY);
    response
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

fn render(document: &Value) -> String {
    let mut list = String::new();
    let mut body = String::new();
    let paths = document["paths"].as_object().into_iter().flatten();
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let method = method.to_uppercase();
            let id = anchor(&method, path);
            let what = escape(operation["summary"].as_str().unwrap_or_default());
            let (shown, id) = (escape(path), escape(&id));
            let _ = write!(
                list,
                "<tr><td class=method>{method}</td><td><a href=\"#{id}\"><code>{shown}</code></a>\
                 </td><td>{what}</td></tr>"
            );
            let _ = write!(
                body,
                "<section id=\"{id}\"><h2><span class=method>{method}</span> <code>{shown}</code>\
                 </h2><p>{what}</p>{}{}{}<pre>{}</pre></section>",
                parameters(operation),
                request(document, operation),
                responses(operation),
                escape(&curl(document, &method, path, operation)),
            );
        }
    }
    let title = escape(document["info"]["title"].as_str().unwrap_or_default());
    let about = escape(document["info"]["description"].as_str().unwrap_or_default());
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width\"><title>{title}</title>\
         <style>{STYLE}</style><h1>{title}</h1><p>{about}</p>\
         <p>For programs: <a href=\"/api/openapi.json\">openapi.json</a></p>\
         <table>{list}</table>{body}</html>"
    )
}

fn anchor(method: &str, path: &str) -> String {
    let plain = path
        .chars()
        .map(|c| if c.is_alphanumeric() { c } else { '-' });
    format!("{}{}", method.to_lowercase(), plain.collect::<String>())
}

fn parameters(operation: &Value) -> String {
    let mut rows = String::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let text = |key: &str| escape(parameter[key].as_str().unwrap_or_default());
        let _ = write!(
            rows,
            "<tr><td><code>{}</code></td><td>{}</td><td>{}</td></tr>",
            text("name"),
            text("in"),
            text("description")
        );
    }
    if rows.is_empty() {
        return rows;
    }
    format!("<h3>Parameters</h3><table>{rows}</table>")
}

fn request(document: &Value, operation: &Value) -> String {
    let Some(example) = example(document, operation) else {
        return String::new();
    };
    format!("<h3>Body</h3><pre>{}</pre>", escape(&example))
}

fn responses(operation: &Value) -> String {
    let mut rows = String::new();
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let what = response["description"].as_str().unwrap_or_default();
        let kinds = response["content"].as_object().into_iter().flatten();
        let kinds: Vec<_> = kinds
            .map(|(kind, content)| match schema_name(&content["schema"]) {
                Some(name) => format!("{kind}: {name}"),
                None => kind.clone(),
            })
            .collect();
        let _ = write!(
            rows,
            "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(status),
            escape(what),
            escape(&kinds.join(", "))
        );
    }
    format!("<h3>Answers</h3><table>{rows}</table>")
}

fn schema_name(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.rsplit('/').next()
}

/// A body that has every field, with what stands for its type.
fn example(document: &Value, operation: &Value) -> Option<String> {
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    let properties = match schema_name(schema) {
        Some(name) => &document["components"]["schemas"][name]["properties"],
        None => &schema["properties"],
    };
    if schema.is_null() {
        return None;
    }
    let fields = properties.as_object().into_iter().flatten();
    let fields = fields.map(|(name, field)| {
        let field = match schema_name(field) {
            Some(name) => &document["components"]["schemas"][name],
            None => field,
        };
        let value = match (&field["enum"][0], field["type"].as_str()) {
            (Value::Null, Some("array")) => Value::Array(Vec::new()),
            (Value::Null, _) => Value::Null,
            (first, _) => first.clone(),
        };
        (name.clone(), value)
    });
    let fields: serde_json::Map<_, _> = fields.collect();
    Some(Value::Object(fields).to_string())
}

fn curl(document: &Value, method: &str, path: &str, operation: &Value) -> String {
    let mut text = format!("curl -X {method} -H \"Authorization: Bearer $TOKEN\"");
    if let Some(example) = example(document, operation) {
        let _ = write!(
            text,
            " \\\n  -H 'Content-Type: application/json' -d '{example}'"
        );
    }
    let _ = write!(text, " \\\n  \"$SERVER{path}\"");
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_its_example_and_nothing_runs() {
        let document = serde_json::to_value(openapi::document()).unwrap();
        let page = render(&document);
        for (path, methods) in document["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                let method = method.to_uppercase();
                let id = anchor(&method, path);
                assert_eq!(page.matches(&format!("<section id=\"{id}\">")).count(), 1);
                assert!(page.contains(&format!("curl -X {method} ")), "{path}");
            }
        }
        assert!(
            page.contains("{&quot;schemas&quot;:[],&quot;tables&quot;:[],"),
            "{page}"
        );
        for never in ["<script", "http://", "https://", "javascript:", " on"] {
            let tags = page.split('<').filter_map(|tag| tag.split('>').next());
            assert!(!tags.into_iter().any(|tag| tag.contains(never)), "{never}");
        }
        assert_eq!(
            escape("<a href=\"x\">&"),
            "&lt;a href=&quot;x&quot;&gt;&amp;"
        );
    }
}
