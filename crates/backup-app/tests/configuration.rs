//! Whatever stands in a configuration file: it is used, or refused with what is wrong. Never does
//! the program fall over it, and never is a value repeated that may be a secret.
#![expect(
    clippy::unwrap_used,
    reason = "clippy takes helpers of tests for no tests"
)]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use backup_app::{App, AppError, Environment, Overrides, starter};
use proptest::prelude::*;

/// A public key whose private one nobody has.
const RECIPIENT: &str = "age1gpcqw74kuchl96ud6c6cudg29crqxuh0vy43n00qttw8ghsz64tsxft0w0";

/// Must not be in any message.
const CANARY: &str = "hunter2canary";

/// What may stand where something else is expected.
const VALUES: &[&str] = &[
    "''",
    "\"\\u0000\"",
    "0",
    "-1",
    "1",
    "3",
    "99999999999999999999",
    "9223372036854775807",
    "1.5",
    "nan",
    "-inf",
    "true",
    "[]",
    "{}",
    "[[]]",
    "[['']]",
    "[['/bin/true']]",
    "['']",
    "['x']",
    "'x'",
    "'6h'",
    "'0s'",
    "'1ns'",
    "'584542046090y'",
    "'18446744073709551615s'",
    "'10GB'",
    "'16EiB'",
    "'99999PB'",
    "'unlimited'",
    "'none'",
    "'zstd:3'",
    "'zstd:-1'",
    "'age1x'",
    "'s3://'",
    "'s3://b/../x'",
    "'file://'",
    "'file:relative'",
    "'http://[::1'",
    "'az://a/b'",
    "'Europe/Berlin'",
    "'daily'",
    "{ file = '/x' }",
    "{ env = 'X' }",
    "{ command = [] }",
    "{ credential = '../x' }",
    "{ attempts = 0 }",
    "{ delays = ['1s', 3] }",
    "{ mode = 'none' }",
    "1979-05-27T07:32:00Z",
    "'hunter2canary'",
    "'*'",
    "['*']",
    "\"é\u{202e}\"",
];

/// Keys of all tables, so that each may come to stand in every other.
const KEYS: &[&str] = &[
    "jobs",
    "compression",
    "timeout",
    "stall_timeout",
    "lock_wait_timeout",
    "lease",
    "retry",
    "min_free_space",
    "warn_used_percent",
    "retention",
    "recipients",
    "identities",
    "mode",
    "encryption",
    "hooks",
    "before_backup",
    "after_backup",
    "on_failure",
    "server",
    "database",
    "destinations",
    "schemas",
    "tables",
    "url",
    "endpoint",
    "tiers",
    "retry_timeout",
    "daily",
    "keep_within",
    "min_keep",
    "timezone",
    "max_age",
    "min_size_ratio",
    "password",
    "port",
    "admin",
    "assertions",
    "extensions",
    "backup_age",
    "attempts",
    "delays",
];

const TABLES: &[&str] = &[
    "defaults",
    "encryption",
    "hooks",
    "alerts",
    "drill",
    "restore",
    "server.main",
    "source.shop",
    "source.shop.hooks",
    "source.''",
    "source.\"a/b\"",
    "destination.local",
    "destination.s3",
    "retention.standard",
    "retention.x",
];

/// One thing that is done to the text.
#[derive(Debug, Clone)]
enum Mutation {
    /// Another value behind the key of this line.
    Value(usize, usize),
    /// This line once more.
    Double(usize),
    /// Without this line.
    Drop(usize),
    /// Any key with any value after this line.
    Key(usize, usize, usize),
    /// A table at the end, with one key.
    Table(usize, usize, usize),
    /// Any character at this place.
    Character(usize, char),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let any = || any::<usize>();
    prop_oneof![
        4 => (any(), any()).prop_map(|(line, value)| Mutation::Value(line, value)),
        1 => any().prop_map(Mutation::Double),
        1 => any().prop_map(Mutation::Drop),
        2 => (any(), any(), any()).prop_map(|(line, k, v)| Mutation::Key(line, k, v)),
        4 => (any(), any(), any()).prop_map(|(t, k, v)| Mutation::Table(t, k, v)),
        1 => (any(), prop::char::any()).prop_map(|(at, c)| Mutation::Character(at, c)),
    ]
}

fn of<'a>(list: &[&'a str], index: usize) -> &'a str {
    list[index % list.len()]
}

fn apply(text: &str, mutation: &Mutation) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let count = lines.len().max(1);
    match mutation {
        Mutation::Value(line, value) => {
            if let Some(line) = lines.get_mut(line % count)
                && let Some((key, _)) = line.split_once('=')
            {
                *line = format!("{key}= {}", of(VALUES, *value));
            }
        }
        Mutation::Double(line) => {
            if let Some(again) = lines.get(line % count).cloned() {
                lines.insert(line % count, again);
            }
        }
        Mutation::Drop(line) => {
            if !lines.is_empty() {
                lines.remove(line % count);
            }
        }
        Mutation::Key(line, key, value) => {
            let text = format!("{} = {}", of(KEYS, *key), of(VALUES, *value));
            lines.insert(line % count, text);
        }
        Mutation::Table(table, key, value) => {
            lines.push(format!("[{}]", of(TABLES, *table)));
            lines.push(format!("{} = {}", of(KEYS, *key), of(VALUES, *value)));
        }
        Mutation::Character(at, character) => {
            let mut characters: Vec<char> = text.chars().collect();
            characters.insert(at % (characters.len() + 1), *character);
            return characters.into_iter().collect();
        }
    }
    lines.join("\n")
}

/// The first configuration with all that it has in comments.
fn whole() -> String {
    let identity = Path::new("/keys/identity.txt");
    let text = starter(RECIPIENT, identity);
    // The secrets that would be looked for; a login needs its own.
    let text = text.replace("#password = ", "# password = ");
    let (servers, notifiers) = text.split_once("#[notify.noc]").unwrap();
    let notifiers = notifiers.replacen("#user = ", "# user = ", 1);
    let text = format!("{servers}#[notify.noc]{notifiers}");
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(code) if !code.starts_with(' ') => code,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn load(file: &Path, text: &str) -> Result<App, AppError> {
    std::fs::write(file, text).unwrap();
    std::fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
    let nothing = Environment::default();
    App::load(Some(file), nothing, Overrides::default())
}

#[test]
fn the_first_configuration_can_be_used_with_all_that_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let app = load(&folder.path().join("backup.toml"), &whole()).unwrap();
    app.backup_job(Some("shop")).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn no_file_is_the_end_of_it(mutations in prop::collection::vec(mutation(), 1..6)) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("backup.toml");
        let text = mutations.iter().fold(whole(), |text, mutation| apply(&text, mutation));
        match load(&file, &text) {
            Ok(app) => {
                // What can be loaded can be shown, and loaded again.
                let shown = app.config().to_toml().unwrap();
                prop_assert!(!shown.is_empty());
                for source in app.sources() {
                    let _ = app.backup_job(Some(&source));
                }
            }
            Err(error) => {
                let report = error.render();
                let says = report.contains("backup.toml") || report.contains("TOML");
                prop_assert!(says, "{report}\n{text}");
                let secret = report.contains(CANARY) && !is_in_a_name(&report);
                prop_assert!(!secret, "{report}\n{text}");
            }
        }
    }
}

/// A name that is referred to and is not there is said, and so is a wrong time zone.
fn is_in_a_name(report: &str) -> bool {
    [
        "is not configured",
        "there is no time zone",
        "compression",
        "destination",
        "the store is",
    ]
    .iter()
    .any(|words| report.contains(words))
}
