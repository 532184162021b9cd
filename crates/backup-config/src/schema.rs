//! The form of the file as JSON Schema, for editors and for checks before a file is rolled out.
//!
//! The schema is derived from the structs that the file is read into. What is written in a form of
//! its own (durations, sizes, secrets) says here which.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use crate::file::Config;
use crate::secret::SecretRef;
use crate::size::Size;

#[cfg(test)]
mod tests;

/// The JSON Schema (draft 2020-12) of the whole configuration file.
#[must_use]
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with_transform(RecursiveTransform(without_null));
    let mut schema = settings.into_generator().into_root_schema_for::<Config>();
    schema.insert("title".to_owned(), "backup.toml".into());
    schema.to_value()
}

/// TOML has no null: what may be absent is absent.
fn without_null(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(forms)) = schema.get_mut("anyOf") {
        forms.retain(|form| form.get("type").is_none_or(|name| name != "null"));
        if let [Value::Object(only)] = forms.as_slice() {
            let only = only.clone();
            schema.remove("anyOf");
            for (key, value) in only {
                schema.insert(key, value);
            }
        }
    }
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
    if let Some(default) = schema.get_mut("default") {
        drop_nulls(default);
    }
}

fn drop_nulls(value: &mut Value) {
    if let Value::Object(table) = value {
        table.retain(|_, value| !value.is_null());
        table.values_mut().for_each(drop_nulls);
    }
}

/// A type that stands for one whose form serde does not know.
macro_rules! form {
    ($(#[$doc:meta])* $name:ident as $title:literal = $schema:tt) => {
        $(#[$doc])*
        pub(crate) struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                $title.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

form! {
    /// What `humantime` reads.
    DurationText as "Duration" = {
        "description": "A duration: 90s, 6h, 1h 30m, 30d.",
        "type": "string",
        "pattern": concat!(
            r"^\s*(0|([0-9]+(\.[0-9]+)?\s*(nanos|nsec|ns|usec|us|µs|millis|msec|ms|seconds|second",
            r"|secs|sec|s|minutes|minute|mins|min|m|hours|hour|hrs|hr|h|days|day|d",
            r"|weeks|week|wks|wk|w|months|month|M|years|year|yrs|yr|y)\s*)+)$"
        ),
        "examples": ["90s", "6h", "30d"]
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A size: 500MB, 10GB (powers of 1000), 10GiB (powers of 1024).",
            "type": "string",
            "pattern": r"^\s*([0-9]+(\.[0-9]*)?|\.[0-9]+)\s*([bB]|[kKmMgGtTpPeE][iI]?[bB]?)\s*$",
            "examples": ["500MB", "10GB", "10GiB"]
        })
    }
}

form! {
    /// How many of something are kept.
    CountText as "Count" = {
        "description": "How many: a number from 1, none or unlimited.",
        "anyOf": [
            { "type": "integer", "minimum": 1, "maximum": u32::MAX },
            { "enum": ["none", "unlimited"] }
        ]
    }
}

form! {
    /// A share.
    RatioNumber as "Ratio" = {
        "description": "A share from 0 to 1.",
        "type": "number",
        "minimum": 0,
        "maximum": 1
    }
}

impl JsonSchema for SecretRef {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let text = || json_schema!({ "type": "string" });
        let words = "^[A-Za-z0-9_@%+=:,./-]+( [A-Za-z0-9_@%+=:,./-]+)*$";
        let argv = json_schema!({ "anyOf": [
            { "type": "array", "items": { "type": "string" } },
            { "type": "string", "pattern": words }
        ] });
        let places = [
            ("file", text(), "A file that nobody else can read."),
            ("env", text(), "An environment variable."),
            (
                "command",
                argv,
                "What a program prints; program and arguments.",
            ),
            ("credential", text(), "A systemd credential."),
        ];
        let forms = places.map(|(name, mut form, description)| {
            form.insert("description".to_owned(), description.into());
            json_schema!({
                "type": "object",
                "properties": { name: form },
                "required": [name],
                "additionalProperties": false
            })
        });
        json_schema!({
            "description": "Where a secret is; the secret itself is never in this file.",
            "anyOf": forms
        })
    }
}
