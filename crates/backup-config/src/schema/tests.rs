use std::collections::BTreeSet;
use std::path::Path;

use figment::Figment;
use figment::providers::{Format as _, Serialized, Toml};
use serde_json::json;

use super::*;
use crate::environment::Environment;
use crate::starter::starter;

/// Never a key, nor near to one.
const UNKNOWN: &str = "zzzzzzzzzzzzzzzz";

/// The TOML text as JSON, as a validator sees it.
fn json_of(toml: &str) -> Value {
    let values = Figment::from(Toml::string(toml)).extract();
    values.unwrap_or_else(|error| panic!("{toml}\n{error}"))
}

fn mistakes(toml: &str) -> Vec<String> {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let instance = json_of(toml);
    let errors = validator.iter_errors(&instance);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

/// The tables of the file: the path of each, with the keys that it may have.
struct Tables<'a> {
    root: &'a Value,
    found: Vec<(Vec<String>, BTreeSet<String>)>,
}

impl Tables<'_> {
    fn walk(&mut self, schema: &Value, path: &[&str]) {
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let target = self.root.pointer(reference.trim_start_matches('#'));
            self.walk(&target.unwrap().clone(), path);
        }
        let mut keys = BTreeSet::new();
        let forms = schema.get("anyOf").and_then(Value::as_array);
        for form in forms.into_iter().flatten().chain([schema]) {
            let properties = form.get("properties").and_then(Value::as_object);
            for (key, inner) in properties.into_iter().flatten() {
                keys.insert(key.clone());
                self.walk(inner, &[path, &[key]].concat());
            }
            if properties.is_some() {
                assert_eq!(form["additionalProperties"], false, "{path:?}");
            }
        }
        if !keys.is_empty() {
            let path = path.iter().map(|&key| key.to_owned()).collect();
            self.found.push((path, keys));
        }
        for (inner, key) in [("additionalProperties", "x"), ("items", "0")] {
            match schema.get(inner) {
                Some(inner) if inner.is_object() => self.walk(inner, &[path, &[key]].concat()),
                _ => {}
            }
        }
    }
}

/// The keys that the file may have in the table at `path`, as its reader says.
fn accepted(path: &[String]) -> BTreeSet<String> {
    let table = path.iter().rfold(json!({ UNKNOWN: 1 }), |inner, key| {
        if key == "0" {
            json!([inner])
        } else {
            json!({ key: inner })
        }
    });
    let read = Figment::from(Serialized::defaults(table)).extract::<Config>();
    let error = read.unwrap_err();
    match error.kind {
        figment::error::Kind::UnknownField(_, keys) => {
            keys.iter().map(|&key| key.to_owned()).collect()
        }
        kind => panic!("{path:?}: {kind:?}"),
    }
}

#[test]
fn it_has_the_keys_that_are_read_and_no_others() {
    let schema = schema();
    let mut tables = Tables {
        root: &schema,
        found: Vec::new(),
    };
    tables.walk(&schema, &[]);
    let paths: Vec<_> = tables
        .found
        .iter()
        .map(|(path, _)| path.join("."))
        .collect();
    for path in [
        "",
        "defaults",
        "source.x",
        "drill.assertions.0",
        "server.x.admin.password",
        "notify.x.url",
    ] {
        assert!(paths.iter().any(|found| found == path), "{path}: {paths:?}");
    }
    for (path, keys) in tables.found {
        assert_eq!(keys, accepted(&path), "{path:?}");
    }
}

#[test]
fn every_key_is_described_and_none_may_be_null() {
    fn undescribed(schema: &Value, path: &str, found: &mut Vec<String>) {
        let properties = schema.get("properties").and_then(Value::as_object);
        for (key, inner) in properties.into_iter().flatten() {
            if inner.get("description").is_none() {
                found.push(format!("{path}.{key}"));
            }
        }
        for (key, inner) in schema.as_object().into_iter().flatten() {
            undescribed(inner, &format!("{path}.{key}"), found);
        }
    }
    let schema = schema();
    let mut found = Vec::new();
    undescribed(&schema, "", &mut found);
    assert_eq!(found, Vec::<String>::new());
    assert!(!schema.to_string().contains("null"), "{schema:#}");
}

#[test]
fn the_first_configuration_is_valid_with_and_without_its_comments() {
    let text = starter("age1abc", Path::new("/keys/identity.txt"));
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(code) if !code.starts_with(' ') => code,
        _ => line,
    });
    let uncommented = lines.collect::<Vec<_>>().join("\n");
    for text in [text.as_str(), &uncommented] {
        assert_eq!(mistakes(text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn every_example_of_the_readme_is_valid() {
    let readme = include_str!("../../../../README.md");
    let examples: Vec<_> = readme
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(examples.len() > 5, "{}", examples.len());
    for example in examples {
        assert_eq!(mistakes(example), Vec::<String>::new(), "{example}");
    }
}

/// Whether the reader takes a value, and whether the schema does.
fn taken(toml: &str) -> (bool, bool) {
    let read = Config::from_toml(toml, &Environment::default());
    (read.is_ok(), mistakes(toml).is_empty())
}

#[test]
fn a_value_is_taken_by_the_schema_if_it_is_by_the_reader() {
    for (toml, good) in [
        ("[defaults]\ntimeout = '6h'", true),
        ("[defaults]\ntimeout = '1h 30m 5s'", true),
        ("[defaults]\ntimeout = '1.5h'", true),
        ("[defaults]\ntimeout = '2months'", true),
        ("[defaults]\nlock_wait_timeout = '0'", true),
        ("[defaults]\ntimeout = '6'", false),
        ("[defaults]\ntimeout = '6 apples'", false),
        ("[defaults]\ntimeout = 6", false),
        ("[defaults]\nmin_free_space = '10GB'", true),
        ("[defaults]\nmin_free_space = '1.5 GiB'", true),
        ("[defaults]\nmin_free_space = '500mb'", true),
        ("[defaults]\nmin_free_space = '10g'", true),
        ("[defaults]\nmin_free_space = '10'", false),
        ("[defaults]\nmin_free_space = 10", false),
        ("[defaults]\nmin_free_space = '10 apples'", false),
        (
            "[defaults]\nretry = { attempts = 3, delays = ['30s'] }",
            true,
        ),
        ("[defaults]\nretry = { attempts = 0 }", false),
        ("[defaults]\nretry = { delays = ['30'] }", false),
        ("[source.a]\nretry = { delays = [] }", true),
        ("[source.a]\nencryption = { mode = 'none' }", true),
        ("[source.a]\nencryption = { mode = 'gpg' }", false),
        ("[defaults]\njobs = 0", false),
        ("[defaults]\njobs = 1", true),
        ("[defaults]\nzzzzzz = 1", false),
        ("[retention.a]\ndaily = 0", false),
        ("[retention.a]\ndaily = 'unlimited'", true),
        ("[retention.a]\ndaily = 'all'", false),
        ("[alerts]\nmin_size_ratio = 0.1", true),
        ("[alerts]\nmin_size_ratio = 1", true),
        ("[alerts]\nmin_size_ratio = 1.1", false),
        ("[encryption]\nmode = 'none'", true),
        ("[encryption]\nmode = 'gpg'", false),
        ("[server.a]\npassword = { file = '/p' }", true),
        ("[server.a]\npassword = { command = ['a', 'b'] }", true),
        ("[server.a]\npassword = { command = 'pass show a/b' }", true),
        ("[server.a]\npassword = { command = 'pass show $A' }", false),
        ("[server.a]\npassword = { command = 'pass  show' }", false),
        ("[server.a]\npassword = { command = '' }", false),
        ("[server.a]\npassword = { file = '/p', env = 'P' }", false),
        ("[server.a]\npassword = 'hunter2'", false),
        ("[server.a]\nport = 99999", false),
        (
            "[notify.a]\nkind = 'ping'\nurl = { env = 'U' }\non = ['failure']",
            true,
        ),
        (
            "[notify.a]\nkind = 'ping'\nurl = { env = 'U' }\non = ['birth']",
            false,
        ),
        ("[notify.a]\nkind = 'pigeon'", false),
        ("[notify.a]\nurl = { env = 'U' }", false),
    ] {
        assert_eq!(taken(toml), (good, good), "{toml}");
    }
}
