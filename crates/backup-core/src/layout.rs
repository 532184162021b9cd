//! The only code that builds or parses store keys.
//!
//! ```text
//! repository.json
//! backups/<source>/<id>/manifest.json
//! backups/<source>/<id>/key[.r<number>].age
//! backups/<source>/<id>/<part><.format><.compression><.cipher>[.002…]
//! _runs/<YYYY>/<MM>/<run id>.json
//! _pins/<source>/<id>.json
//! _leases/<kind>/<source>.json
//! _leases/readers/<source>/<nonce>.json
//! _leases/probe/<nonce>.json
//! _audit/<chain>/<thousands>/<number>.json
//! _notify/<notifier>/delivery.json
//! _notify/<notifier>/told/<source>.json
//! ```
//! A source's name is any text; in keys every byte outside `A-Z a-z 0-9 _ -` is written
//! as `~` and two hex digits.

use chrono::{DateTime, Utc};

use crate::audit::ChainName;
use crate::backup::{BackupId, SourceName};
use crate::error::PortError;
use crate::lease::LeaseKind;
use crate::manifest::{PartFormat, PartName};
use crate::run_record::RunId;
use crate::store::StoreKey;

const BACKUPS: &str = "backups";
pub(crate) const MANIFEST: &str = "manifest.json";
const RUNS: &str = "_runs";
const RUN: &str = ".json";
const PINS: &str = "_pins";
const PIN: &str = ".json";
const LEASES: &str = "_leases";
const LEASE: &str = ".json";
const AUDIT: &str = "_audit";
const AUDITED: &str = ".json";
const NOTIFY: &str = "_notify";
/// How many audit records share a folder, so that the newest are found without listing all.
const AUDITED_TOGETHER: u64 = 1000;

/// The object that names the repository.
#[must_use]
pub fn repository_key() -> StoreKey {
    key("repository.json".to_owned())
}

/// The prefix of all backups.
#[must_use]
pub fn backups_prefix() -> StoreKey {
    key(BACKUPS.to_owned())
}

/// The prefix of a source's backups.
#[must_use]
pub fn source_prefix(source: &SourceName) -> StoreKey {
    key(format!("{BACKUPS}/{}", encode(source.as_str())))
}

/// The prefix of one backup.
#[must_use]
pub fn backup_prefix(source: &SourceName, id: &BackupId) -> StoreKey {
    key(format!("{}/{id}", source_prefix(source)))
}

/// The manifest, whose existence is the commit.
#[must_use]
pub fn manifest_key(source: &SourceName, id: &BackupId) -> StoreKey {
    key(format!("{}/{MANIFEST}", backup_prefix(source, id)))
}

/// An object of a backup by the file name that its manifest gives.
///
/// # Errors
/// `InvalidInput` when the name, which comes from a manifest that anybody may have edited,
/// is not one plain file name.
pub fn object_key(
    source: &SourceName,
    id: &BackupId,
    file_name: &str,
) -> Result<StoreKey, PortError> {
    let bad = file_name.contains('/') || file_name == MANIFEST;
    let name = if bad { "" } else { file_name };
    StoreKey::new(format!("{}/{name}", backup_prefix(source, id)))
}

/// The file name of the `index`-th object of a part; `extensions` are those of format,
/// compression and cipher, joined.
#[must_use]
pub fn object_name(part: &PartName, extensions: &str, index: usize) -> String {
    match index {
        0 => format!("{part}{extensions}"),
        n => format!("{part}{extensions}.{:03}", n + 1),
    }
}

/// Whether these are the names of all objects of a part, in their order.
#[must_use]
pub fn are_objects_of<'a>(part: &PartName, names: impl IntoIterator<Item = &'a str>) -> bool {
    let mut names = names.into_iter();
    let extensions = names.next().and_then(|n| n.strip_prefix(part.as_str()));
    let Some(extensions) = extensions.filter(|extensions| extensions.starts_with('.')) else {
        return false;
    };
    let mut rest = names.enumerate();
    rest.all(|(index, name)| name == object_name(part, extensions, index + 1))
}

/// What comes before the extensions when a part was not stored at the first attempt: `.r2`.
#[must_use]
pub fn attempt_extension(attempt: usize) -> String {
    match attempt {
        0 | 1 => String::new(),
        again => format!(".r{again}"),
    }
}

/// The file name of a wrapped key of a backup: the first one's `number` is 1, that of each rekey is
/// random; `extension` is the cipher's.
#[must_use]
pub fn wrapped_key_name(extension: &str, number: u32) -> String {
    match number {
        0 | 1 => format!("key{extension}"),
        again => format!("key.r{again}{extension}"),
    }
}

/// The number of a wrapped key by its file name, if it is one.
#[must_use]
pub fn wrapped_key_number(name: &str, extension: &str) -> Option<u32> {
    let middle = name.strip_prefix("key")?.strip_suffix(extension)?;
    let number = match middle.strip_prefix(".r") {
        Some(digits) => digits.parse().ok()?,
        None => 1,
    };
    (wrapped_key_name(extension, number) == name).then_some(number)
}

/// Whether a file name beside a manifest is of the form that ours have: of a part in any format,
/// codec, attempt and number, or of a wrapped key. The manifest is none of them.
#[must_use]
pub fn is_object_name(name: &str) -> bool {
    let mut pieces: Vec<&str> = name.split('.').collect();
    let is_part = PartName::new(pieces.remove(0)).is_ok();
    if !is_part || name == MANIFEST {
        return false;
    }
    let is_extension =
        |text: &&str| (1..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase());
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if name.starts_with("key.") {
        let is_again = |text: &str| text.strip_prefix('r').is_some_and(is_number);
        return match pieces.as_slice() {
            [cipher] => is_extension(cipher),
            [again, cipher] => is_again(again) && is_extension(cipher),
            _ => false,
        };
    }
    if pieces
        .last()
        .is_some_and(|last| last.len() >= 3 && is_number(last))
    {
        pieces.pop();
    }
    let attempt = pieces.first().and_then(|first| first.strip_prefix('r'));
    if attempt.is_some_and(is_number) {
        pieces.remove(0);
    }
    match pieces.as_slice() {
        [format, codecs @ ..] => {
            PartFormat::ALL
                .iter()
                .any(|known| known.extension()[1..] == **format)
                && codecs.len() <= 2
                && codecs.iter().all(is_extension)
        }
        [] => false,
    }
}

/// The source whose prefix this is, if it is one.
#[must_use]
pub fn parse_source_prefix(prefix: &StoreKey) -> Option<SourceName> {
    let encoded = prefix.as_str().strip_prefix(BACKUPS)?.strip_prefix('/')?;
    let source = SourceName::new(decode(encoded)?).ok()?;
    (encode(source.as_str()) == encoded).then_some(source)
}

/// The backup whose prefix this is, if it is one of `source`.
#[must_use]
pub fn parse_backup_prefix(source: &SourceName, prefix: &StoreKey) -> Option<BackupId> {
    prefix
        .as_str()
        .strip_prefix(source_prefix(source).as_str())?
        .strip_prefix('/')?
        .parse()
        .ok()
}

/// The backup of `source` that has this object, if it is below one, and the object's name there.
#[must_use]
pub fn parse_object_key<'a>(
    source: &SourceName,
    found: &'a StoreKey,
) -> Option<(BackupId, &'a str)> {
    let rest = found
        .as_str()
        .strip_prefix(source_prefix(source).as_str())?
        .strip_prefix('/')?;
    let (id, name) = rest.split_once('/')?;
    Some((id.parse().ok()?, name))
}

/// The backup whose manifest this is, if it is one and in its place.
#[must_use]
pub fn parse_manifest_key(found: &StoreKey) -> Option<(SourceName, BackupId)> {
    let (prefix, name) = found.as_str().rsplit_once('/')?;
    let (of_source, _) = prefix.rsplit_once('/')?;
    if name != MANIFEST {
        return None;
    }
    let source = parse_source_prefix(&StoreKey::new(of_source).ok()?)?;
    let id = parse_backup_prefix(&source, &StoreKey::new(prefix).ok()?)?;
    Some((source, id))
}

/// The prefix of all run records.
#[must_use]
pub fn runs_prefix() -> StoreKey {
    key(RUNS.to_owned())
}

/// The prefix of the records of runs that began in the year of `at`.
#[must_use]
pub fn runs_of_year(at: DateTime<Utc>) -> StoreKey {
    key(format!("{RUNS}/{}", at.format("%Y")))
}

/// The prefix of the records of runs that began in the month of `at`.
#[must_use]
pub fn runs_of_month(at: DateTime<Utc>) -> StoreKey {
    key(format!("{RUNS}/{}", at.format("%Y/%m")))
}

/// The record of a run.
#[must_use]
pub fn run_key(id: &RunId) -> StoreKey {
    key(format!("{}/{id}{RUN}", runs_of_month(id.started_at())))
}

/// The run whose record this is, if it is one and in its place.
#[must_use]
pub fn parse_run_key(found: &StoreKey) -> Option<RunId> {
    let (_, name) = found.as_str().rsplit_once('/')?;
    let id: RunId = name.strip_suffix(RUN)?.parse().ok()?;
    (run_key(&id) == *found).then_some(id)
}

/// The prefix of the pins of a source's backups.
#[must_use]
pub fn pins_prefix(source: &SourceName) -> StoreKey {
    key(format!("{PINS}/{}", encode(source.as_str())))
}

/// The pin of one backup.
#[must_use]
pub fn pin_key(source: &SourceName, id: &BackupId) -> StoreKey {
    key(format!("{}/{id}{PIN}", pins_prefix(source)))
}

/// The backup whose pin this is, if it is a pin of one of `source`.
#[must_use]
pub fn parse_pin_key(source: &SourceName, found: &StoreKey) -> Option<BackupId> {
    let (_, name) = found.as_str().rsplit_once('/')?;
    let id: BackupId = name.strip_suffix(PIN)?.parse().ok()?;
    (pin_key(source, &id) == *found).then_some(id)
}

/// The lease of a kind of work on a source.
#[must_use]
pub fn lease_key(kind: LeaseKind, source: &SourceName) -> StoreKey {
    let source = encode(source.as_str());
    key(format!("{LEASES}/{kind}/{source}{LEASE}"))
}

/// The prefix of the leases of a kind of work, on whatever source.
#[must_use]
pub fn leases_prefix(kind: LeaseKind) -> StoreKey {
    key(format!("{LEASES}/{kind}"))
}

/// The source that a lease is about, if the key is that of one.
#[must_use]
pub fn parse_lease_key(kind: LeaseKind, key: &StoreKey) -> Option<SourceName> {
    let name = key.as_str().strip_prefix(&format!("{LEASES}/{kind}/"))?;
    SourceName::new(decode(name.strip_suffix(LEASE)?)?).ok()
}

/// The prefix of the leases of those who read a source's backups.
#[must_use]
pub fn readers_prefix(source: &SourceName) -> StoreKey {
    key(format!("{LEASES}/readers/{}", encode(source.as_str())))
}

/// The lease of one reader; `nonce` is random.
#[must_use]
pub fn reader_key(source: &SourceName, nonce: u128) -> StoreKey {
    key(format!("{}/{nonce:032x}{LEASE}", readers_prefix(source)))
}

/// The prefix of the objects by which a store is tried.
#[must_use]
pub fn probes_prefix() -> StoreKey {
    key(format!("{LEASES}/probe"))
}

/// An object by which a store is tried; `nonce` is random. It is there for a moment.
#[must_use]
pub fn probe_key(nonce: u128) -> StoreKey {
    key(format!("{}/{nonce:032x}{LEASE}", probes_prefix()))
}

/// The prefix of all chains of audit records.
#[must_use]
pub fn audit_prefix() -> StoreKey {
    key(AUDIT.to_owned())
}

/// The prefix of one chain.
#[must_use]
pub fn chain_prefix(chain: &ChainName) -> StoreKey {
    key(format!("{AUDIT}/{chain}"))
}

/// The chain whose prefix this is, if it is one.
#[must_use]
pub fn parse_chain_prefix(prefix: &StoreKey) -> Option<ChainName> {
    let name = prefix.as_str().strip_prefix(AUDIT)?.strip_prefix('/')?;
    name.parse().ok()
}

/// The audit record of that number; the first is 1.
#[must_use]
pub fn audit_key(chain: &ChainName, number: u64) -> StoreKey {
    let folder = number / AUDITED_TOGETHER;
    key(format!("{AUDIT}/{chain}/{folder:09}/{number:012}{AUDITED}"))
}

/// The number of the audit record whose key this is, if it is one of `chain` and in its place.
#[must_use]
pub fn parse_audit_key(chain: &ChainName, found: &StoreKey) -> Option<u64> {
    let (_, name) = found.as_str().rsplit_once('/')?;
    let number = name.strip_suffix(AUDITED)?.parse().ok()?;
    (number > 0 && audit_key(chain, number) == *found).then_some(number)
}

/// What a notifier was told of a source.
#[must_use]
pub fn told_key(notifier: &str, source: &SourceName) -> StoreKey {
    let (notifier, source) = (encode(notifier), encode(source.as_str()));
    key(format!("{NOTIFY}/{notifier}/told/{source}.json"))
}

/// Whether a notifier can be reached.
#[must_use]
pub fn delivery_key(notifier: &str) -> StoreKey {
    key(format!("{NOTIFY}/{}/delivery.json", encode(notifier)))
}

fn encode(name: &str) -> String {
    use std::fmt::Write as _;
    name.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "~{byte:02x}");
        }
        text
    })
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'~' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn key(text: String) -> StoreKey {
    StoreKey::new(text).expect("every caller builds from encoded segments")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str) -> SourceName {
        SourceName::new(name).unwrap()
    }

    #[test]
    fn any_source_name_survives_the_way_through_a_key() {
        for name in [
            "app",
            "app-x",
            "my-app",
            "..",
            ".",
            "a/b",
            "../up",
            "a b",
            "~41",
            "-Fp",
            "имя",
            "new\nline",
            "dbname=other",
            "postgresql://x",
            "%41",
            "A",
            "*",
        ] {
            let source = source(name);
            let prefix = source_prefix(&source);
            assert_eq!(parse_source_prefix(&prefix), Some(source), "{name:?}");
            assert_eq!(prefix.as_str().split('/').count(), 2, "{name:?}");
        }
    }

    #[test]
    fn different_names_have_different_keys() {
        assert_ne!(
            source_prefix(&source("a.b")),
            source_prefix(&source("a~2eb"))
        );
    }

    #[test]
    fn neighbours_are_told_apart() {
        let id: BackupId = "20260205T030000Z-7f3a".parse().unwrap();
        let prefix = backup_prefix(&source("app-x"), &id);
        assert_eq!(parse_backup_prefix(&source("app"), &prefix), None);
        assert_eq!(
            parse_backup_prefix(&source("app-x"), &prefix),
            Some(id.clone())
        );
        let object = object_key(&source("app-x"), &id, "facts.json").unwrap();
        assert_eq!(parse_object_key(&source("app"), &object), None);
        let found = parse_object_key(&source("app-x"), &object);
        assert_eq!(found, Some((id, "facts.json")));
        assert_eq!(parse_object_key(&source("app-x"), &prefix), None);
    }

    #[test]
    fn manifests_are_known_by_their_place() {
        let id: BackupId = "20260205T030000Z-7f3a".parse().unwrap();
        for name in ["app", "app-x", "a b/c"] {
            let key = manifest_key(&source(name), &id);
            assert_eq!(parse_manifest_key(&key), Some((source(name), id.clone())));
        }
        for foreign in [
            "manifest.json",
            "backups/manifest.json",
            "backups/app/manifest.json",
            "backups/app/20260205T030000Z-7f3a-9/manifest.json",
            "backups/app/20260205T030000Z-7f3a/manifest.json.1",
            "backups/app/20260205T030000Z-7f3a/x/manifest.json",
            "other/app/20260205T030000Z-7f3a/manifest.json",
        ] {
            let key = StoreKey::new(foreign).unwrap();
            assert_eq!(parse_manifest_key(&key), None, "{foreign}");
        }
    }

    #[test]
    fn foreign_prefixes_are_no_sources() {
        for text in [
            "backups/a~zz",
            "backups/a.b",
            "backups/a~2F",
            "other/a",
            "backups",
        ] {
            assert_eq!(
                parse_source_prefix(&StoreKey::new(text).unwrap()),
                None,
                "{text}"
            );
        }
    }

    #[test]
    fn a_manifest_cannot_point_outside_its_backup() {
        let id: BackupId = "20260205T030000Z-7f3a".parse().unwrap();
        for name in ["", "..", "../x", "a/b", "manifest.json", "/etc/passwd"] {
            assert!(object_key(&source("app"), &id, name).is_err(), "{name}");
        }
    }

    #[test]
    fn runs_lie_below_the_month_in_which_they_began() {
        let id: RunId = "20260205T030000Z-7f3a09c2".parse().unwrap();
        let place = "_runs/2026/02/20260205T030000Z-7f3a09c2.json";
        assert_eq!(run_key(&id).as_str(), place);
        assert_eq!(parse_run_key(&run_key(&id)), Some(id));
        for foreign in [
            "_runs/2026/03/20260205T030000Z-7f3a09c2.json",
            "_runs/2026/02/20260205T030000Z-7f3a09c2",
            "_runs/2026/02/20260205T030000Z-7f3a.json",
            "_runs/20260205T030000Z-7f3a09c2.json",
            "_runs/2026/02/note.json",
        ] {
            assert_eq!(
                parse_run_key(&StoreKey::new(foreign).unwrap()),
                None,
                "{foreign}"
            );
        }
    }

    #[test]
    fn audit_records_are_known_by_their_place() {
        let chain = ChainName::default();
        let last = audit_key(&chain, 1999);
        assert_eq!(last.as_str(), "_audit/main/000000001/000000001999.json");
        assert_eq!(parse_audit_key(&chain, &last), Some(1999));
        assert_eq!(
            parse_chain_prefix(&chain_prefix(&chain)),
            Some(chain.clone())
        );
        for foreign in [
            "_audit/main/000000000/000000001999.json",
            "_audit/main/000000000/000000000000.json",
            "_audit/main/000000001/1999.json",
            "_audit/main/000000001/note.json",
            "_audit/other/000000001/000000001999.json",
        ] {
            let key = StoreKey::new(foreign).unwrap();
            assert_eq!(parse_audit_key(&chain, &key), None, "{foreign}");
        }
    }

    #[test]
    fn pins_lie_beside_the_backups_by_source() {
        let id: BackupId = "20260205T030000Z-7f3a".parse().unwrap();
        let key = pin_key(&source("my app"), &id);
        assert_eq!(key.as_str(), "_pins/my~20app/20260205T030000Z-7f3a.json");
        assert_eq!(parse_pin_key(&source("my app"), &key), Some(id));
        assert_eq!(parse_pin_key(&source("my"), &key), None);
        let foreign = StoreKey::new("_pins/my~20app/note.json").unwrap();
        assert_eq!(parse_pin_key(&source("my app"), &foreign), None);
    }

    #[test]
    fn wrapped_keys_are_counted() {
        for (number, name) in [(1, "key.age"), (2, "key.r2.age"), (17, "key.r17.age")] {
            assert_eq!(wrapped_key_name(".age", number), name);
            assert_eq!(wrapped_key_number(name, ".age"), Some(number));
        }
        for foreign in [
            "key",
            "key.r1.age",
            "key.r02.age",
            "key.x.age",
            "keys.age",
            "key.r2.gpg",
        ] {
            assert_eq!(wrapped_key_number(foreign, ".age"), None, "{foreign}");
        }
    }

    #[test]
    fn our_objects_are_known_by_name() {
        for ours in [
            "schema.dump",
            "schema.dump.zst.age",
            "globals.sql.gz",
            "data-0001.r2.dump.zst.age.002",
            "facts.json.zst.age",
            "notes.bin.fake.crypt",
            "key.age",
            "key.r2.age",
            "data-0001.dump.1000",
        ] {
            assert!(is_object_name(ours), "{ours}");
        }
        for foreign in [
            "manifest.json",
            "README.txt",
            "notes.txt",
            "schema",
            "schema.dump~",
            "Schema.dump",
            "schema.dump.zst.age.old.1",
            "schema.dump.BAK",
            "key",
            "key.age.old",
            "key.age.002",
            ".dump",
            "data-0001.r2",
            "data-0001.002",
            "",
        ] {
            assert!(!is_object_name(foreign), "{foreign}");
        }
    }

    #[test]
    fn no_source_has_the_lease_of_another_or_of_readers() {
        let backup = |name: &str| lease_key(LeaseKind::Backup, &source(name)).to_string();
        let odd = source("my shop/ö");
        let key = lease_key(LeaseKind::Backup, &odd);
        assert_eq!(parse_lease_key(LeaseKind::Backup, &key), Some(odd));
        assert_eq!(parse_lease_key(LeaseKind::Prune, &key), None);
        assert_eq!(backup("app"), "_leases/backup/app.json");
        assert_eq!(backup("readers/app"), "_leases/backup/readers~2fapp.json");
        assert_ne!(
            backup("app"),
            lease_key(LeaseKind::Prune, &source("app")).to_string()
        );
        assert_eq!(
            reader_key(&source("a b"), 10).as_str(),
            "_leases/readers/a~20b/0000000000000000000000000000000a.json"
        );
    }

    #[test]
    fn long_parts_continue_under_numbered_names() {
        let part = PartName::new("data-0001").unwrap();
        assert_eq!(
            object_name(&part, ".dump.zst.age", 0),
            "data-0001.dump.zst.age"
        );
        assert_eq!(
            object_name(&part, ".dump.zst.age", 1),
            "data-0001.dump.zst.age.002"
        );
        let (first, second) = ("data-0001.dump", "data-0001.dump.002");
        for (names, fit) in [
            (&[first, second][..], true),
            (&[first], true),
            (&["data-0001.r2.dump", "data-0001.r2.dump.002"], true),
            (&[second, first], false),
            (&[first, "data-0001.dump.003"], false),
            (&["data-0002.dump"], false),
            (&["data-00012.dump"], false),
            (&["data-0001"], false),
            (&[], false),
        ] {
            let names = names.iter().copied();
            assert_eq!(are_objects_of(&part, names.clone()), fit, "{names:?}");
        }
    }
}
