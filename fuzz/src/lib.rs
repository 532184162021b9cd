//! What each target does with its bytes: whatever they are, it ends, does not panic, and keeps what
//! the reader promises. `scripts/fuzz` gives these to libFuzzer; `tests/tests/corpora.rs` compiles the
//! same file and gives them what lies in `corpus` and `regressions`, without any engine.

use std::sync::Arc;

use backup_config::{Config, Environment};
use backup_core::body::{BodyStream, body_of, collect};
use backup_core::cipher::Cipher as _;
use backup_core::dumper::PartReport;
use backup_core::inspector::Inspector as _;
use backup_core::manifest::{Manifest, PartFormat};
use backup_crypt::{AgeCipher, Identities, Recipients, load_identities, parse_recipients};
use backup_pg_archive::{ArchiveReport, CsvConverter, Inspector, RowExtractor};
use backup_redis_process::RedisInspector;
use backup_schedule::{Job, Schedule, State, decide};
use backup_telegram::{Update, UpdateKind};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::runtime::{Builder, Runtime};

/// Gives bytes to a reader.
pub type Target = fn(&[u8]);

/// All targets, under the names of their folders in `corpus` and `regressions`.
pub const TARGETS: [(&str, Target); 9] = [
    ("archive", archive),
    ("config", config),
    ("copy_to_csv", copy_to_csv),
    ("cron", cron),
    ("keys", keys),
    ("manifest", manifest),
    ("redis", redis),
    ("telegram", telegram),
    ("wrapped_key", wrapped_key),
];

/// A manifest is written again as it was read.
///
/// # Panics
/// When it is not.
pub fn manifest(text: &[u8]) {
    let Ok(read) = Manifest::decode(text) else {
        return;
    };
    let written = read.encode().expect("what was read can be written");
    let again = Manifest::decode(&written).expect("what was written can be read");
    assert_eq!(again, read);
    assert_eq!(again.encode().expect("and written again"), written);
    assert!(read.is_same_backup(&again));
    let _ = (read.content(), read.is_whole());
    for part in &read.parts {
        assert!(read.part(&part.name).is_some());
        let _ = part.stored_bytes();
    }
}

/// An archive in any pieces gets the same verdict, and none that lacks its end is taken for whole.
///
/// # Panics
/// When one is.
pub fn archive(archive: &[u8]) {
    let whole = inspected([archive].into_iter());
    assert_eq!(inspected(archive.chunks(archive.len() % 251 + 1)), whole);
    let Some(report) = whole else { return };
    if let Some((_, cut)) = archive.split_last() {
        assert_eq!(inspected([cut].into_iter()), None);
    }
    for table in report.tables {
        let mut extractor = RowExtractor::new(table.namespace, table.name);
        // Two entries may name one table; then the first is found.
        let found = extractor.push(archive, |_| ());
        found.expect("the inspector read it");
        extractor.finish().expect("the inspector read it");
    }
}

fn inspected<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Option<ArchiveReport> {
    let mut inspector = Inspector::new();
    for piece in pieces {
        inspector.push(piece).ok()?;
    }
    inspector.finish().ok()
}

/// Rows in any pieces give the same CSV.
///
/// # Panics
/// When they do not.
pub fn copy_to_csv(data: &[u8]) {
    let [columns, at, text @ ..] = data else {
        return;
    };
    let convert = |pieces: &[&[u8]]| {
        let mut converter = CsvConverter::new(usize::from(*columns));
        let mut out = Vec::new();
        for piece in pieces {
            converter.push(piece, &mut out);
        }
        converter.finish(&mut out);
        out
    };
    let (first, second) = text.split_at(usize::from(*at).min(text.len()));
    assert_eq!(convert(&[first, second]), convert(&[text]));
}

/// Key files and recipients: what is refused is refused without a word of a secret.
///
/// # Panics
/// When a message has one.
pub fn keys(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else {
        return;
    };
    match load_identities(text) {
        Ok(identities) => {
            assert!(!identities.is_empty());
            let shown = format!("{identities:?}");
            assert!(!shown.contains("SECRET"), "{shown}");
            reads_back(&identities.recipients());
        }
        Err(error) => tells_no_key(&format!("{error} {error:?}")),
    }
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    match parse_recipients(&lines) {
        Ok(recipients) => reads_back(&recipients),
        Err(error) => tells_no_key(&format!("{error} {error:?}")),
    }
}

fn reads_back(recipients: &Recipients) {
    let again = parse_recipients(&recipients.to_texts()).expect("what was read can be read again");
    // One that came several times comes once.
    assert_eq!(again.to_texts().first(), recipients.to_texts().first());
}

fn tells_no_key(message: &str) {
    let found = message.to_ascii_uppercase().contains("AGE-SECRET-KEY-");
    assert!(!found, "{message}");
}

/// The wrapped key of a backup, and what is encrypted to it, as a store gives them back.
///
/// # Panics
/// When reading panics.
pub fn wrapped_key(wrapped: &[u8]) {
    // Made for tests and known to everybody.
    let identity = include_str!("../../tests/golden/v1/TEST-KEY-NOT-A-SECRET.txt");
    let identities = load_identities(identity).expect("a key");
    let cipher = AgeCipher::new(identities.recipients(), identities);
    let Ok(key) = cipher.open(wrapped) else {
        return;
    };
    let body = key.decrypt(body_of(wrapped.to_vec()));
    let _ = runtime().block_on(collect(body, 1 << 20));
    let _ = AgeCipher::new(Recipients::default(), Identities::default()).open(wrapped);
}

/// What a secret must not be in: any message about a configuration that has it in its place, instead
/// of where it is to be found.
const CANARY: &str = "c4nary-s3cret";

/// The keys under which secrets are expected.
const SECRETS: [&str; 10] = [
    "password",
    "identities",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "service_account",
    "access_key",
    "sas_token",
    "secret",
    "token",
];

/// A configuration that was read can be shown, and a message never tells a secret that somebody
/// wrote into it.
///
/// # Panics
/// When one does.
pub fn config(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else {
        return;
    };
    let nothing = Environment::default();
    if let Ok(read) = Config::from_toml(text, &nothing) {
        let written = read.to_toml().expect("what was read can be written");
        assert!(written.parse::<toml::Table>().is_ok(), "{written}");
    }
    if text.contains(CANARY) {
        return;
    }
    let Ok(mut table) = text.parse::<toml::Table>() else {
        return;
    };
    if plant(&mut table) {
        let planted = table.to_string();
        let Err(error) = Config::from_toml(&planted, &nothing) else {
            return;
        };
        let told = format!("{error} {error:?} {:?}", error.hint());
        assert!(!told.contains(CANARY), "{told}");
    }
}

/// Puts the secret itself wherever one belongs; whether there is such a place.
fn plant(table: &mut toml::Table) -> bool {
    let mut planted = false;
    for (key, value) in table {
        if SECRETS.contains(&key.as_str()) {
            *value = toml::Value::from(CANARY);
            planted = true;
        } else if let toml::Value::Table(inner) = value {
            planted |= plant(inner);
        }
    }
    planted
}

/// An expression, a zone and a moment in seconds, each on a line: slots come one after the other, and
/// what is due is one of them.
///
/// # Panics
/// When they do not.
pub fn cron(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else {
        return;
    };
    let mut lines = text.split('\n');
    let (Some(expression), Some(zone)) = (lines.next(), lines.next()) else {
        return;
    };
    let moment = lines.next().and_then(|seconds| seconds.parse().ok());
    let Some(moment) = DateTime::<Utc>::from_timestamp(moment.unwrap_or(1_700_000_000), 0) else {
        return;
    };
    let schedule = match Schedule::parse(expression, zone) {
        Ok(schedule) => schedule,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert!(!schedule.describe().is_empty());
    let mut before = moment;
    for slot in schedule.slots(moment, DateTime::<Utc>::MAX_UTC).take(5) {
        assert!(slot > before, "{slot} after {before}");
        before = slot;
    }
    is_due(schedule, moment);
}

fn is_due(schedule: Schedule, moment: DateTime<Utc>) {
    // As far as a clock can be wrong.
    let years = DateTime::UNIX_EPOCH..DateTime::<Utc>::MAX_UTC - TimeDelta::days(366_000);
    if !years.contains(&moment) {
        return;
    }
    let job = Job {
        schedule,
        jitter: TimeDelta::minutes(7),
        tolerance: TimeDelta::minutes(5),
        catch_up: TimeDelta::hours(6),
    };
    let due = decide(&job, &State::new(moment - TimeDelta::days(2)), moment);
    if let Some(run) = due.run {
        let shown = moment - job.jitter;
        assert!(run.slot <= shown && shown - run.slot <= job.catch_up);
    }
    assert!(due.missed.is_sorted_by_key(|missed| missed.slot));
    assert!(due.next.is_none_or(|next| next > moment));
}

/// Answers of the bot API: each update is one, whatever is in it, and what kind it is can be written to
/// a log.
///
/// # Panics
/// When it cannot.
pub fn telegram(text: &[u8]) {
    let Ok(updates) = serde_json::from_slice::<Vec<serde_json::Value>>(text) else {
        return;
    };
    for update in updates {
        let read = Update::read(update.clone());
        assert_eq!(read, Update::read(update));
        let Some(Update {
            kind: UpdateKind::Other(kind),
            ..
        }) = read
        else {
            continue;
        };
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        assert!(kind.len() <= 40 && kind.bytes().all(plain), "{kind:?}");
    }
}

/// A snapshot in any pieces holds the same keys. It is read as it is, and as one of a server that was
/// told to compute no sum, or nearly every change would be refused for that alone.
///
/// # Panics
/// When it does not.
pub fn redis(snapshot: &[u8]) {
    const SUM: usize = 8;
    let _ = passed(snapshot, usize::MAX);
    let Some(content) = snapshot.len().checked_sub(SUM) else {
        return;
    };
    let unsummed = [&snapshot[..content], &[0; SUM]].concat();
    let whole = passed(&unsummed, usize::MAX);
    assert_eq!(passed(&unsummed, 1 + content % 61), whole);
}

/// What an inspector says of a snapshot in pieces of a length; nothing, if it refuses.
fn passed(snapshot: &[u8], piece: usize) -> Option<PartReport> {
    let pieces = snapshot.chunks(piece.min(snapshot.len().max(1)));
    let pieces: Vec<_> = pieces
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    let body: BodyStream = stream::iter(pieces).boxed();
    runtime().block_on(async {
        let part = RedisInspector.inspect(PartFormat::Rdb, body);
        let passed: Vec<Bytes> = part.body.try_collect().await.ok()?;
        // Of a server without a disk, a mark of its own comes after the snapshot and is left out.
        let passed = passed.concat();
        let left_out = snapshot.strip_prefix(&*passed).map(<[u8]>::len);
        assert!(matches!(left_out, Some(0 | 40)), "{left_out:?}");
        Some(part.report.await.expect("what passed was read"))
    })
}

fn runtime() -> Arc<Runtime> {
    thread_local! {
        static RUNTIME: Arc<Runtime> =
            Arc::new(Builder::new_current_thread().build().expect("a runtime"));
    }
    RUNTIME.with(Arc::clone)
}
