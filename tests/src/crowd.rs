//! Thousands of backups that nobody took: what a store holds after years, in the core's own form.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;

use anyhow::{Context as _, Result};
use backup_core::backup::{BackupId, SourceName};
use backup_core::engine::VerifyLevel;
use backup_core::layout;
use backup_core::manifest::{
    EncryptionRecord, FORMAT, Manifest, PartFormat, PartKind, PartName, PartRecord, StoredObject,
    Totals,
};
use backup_core::run_record::{Operation, RunRecord, RunResult, VerifyFacts, Who};
use chrono::{DateTime, TimeDelta, Utc};

use crate::s3::Server;

/// The sources, whose names begin and end alike.
pub const SOURCES: [&str; 3] = ["app", "app-x", "my-app"];

/// The oldest backup starts here, and each next one two hours later.
const BEGIN: &str = "2023-01-01T00:00:00Z";

/// One in so many backups has been verified.
pub const VERIFIED_EACH: usize = 7;

/// What every part is.
const PART: &[u8] = b"part";

const REPOSITORY: &str = "00112233445566778899aabbccddeeff";

/// One backup, and the objects that belong to it.
#[derive(Debug, Clone)]
pub struct Member {
    /// Of which source.
    pub source: &'static str,
    /// Its id.
    pub id: String,
    /// Whether a run proved it.
    pub verified: bool,
    /// Keys and contents, records of runs among them.
    pub objects: Vec<(String, Vec<u8>)>,
}

/// `count` backups, the oldest first; the sources take turns.
///
/// # Errors
///
/// Never, as the core encodes what it defines.
pub fn members(count: usize) -> Result<Vec<Member>> {
    members_of(&SOURCES, count)
}

/// The same of other sources.
///
/// # Errors
///
/// When one of them is no name.
pub fn members_of(sources: &[&'static str], count: usize) -> Result<Vec<Member>> {
    (0..count).map(|number| member(sources, number)).collect()
}

/// The object that makes a place a repository.
#[must_use]
pub fn repository() -> (String, Vec<u8>) {
    let text =
        format!(r#"{{"format":{FORMAT},"repository":"{REPOSITORY}","created_at":"{BEGIN}"}}"#);
    (layout::repository_key().to_string(), text.into_bytes())
}

fn member(sources: &[&'static str], number: usize) -> Result<Member> {
    let name = sources[number % sources.len()];
    let source = SourceName::new(name)?;
    let begin: DateTime<Utc> = BEGIN.parse()?;
    let started_at = begin + TimeDelta::hours(2 * i64::try_from(number)?);
    let id = BackupId::new(started_at, u16::try_from(number % 65_536)?);
    let manifest = manifest(&source, &id, started_at)?;
    let mut objects = Vec::new();
    for object in manifest.parts.iter().flat_map(|part| &part.objects) {
        let key = layout::object_key(&source, &id, &object.name)?;
        objects.push((key.to_string(), PART.to_vec()));
    }
    let wrapped = layout::object_key(&source, &id, "key.age")?;
    objects.push((wrapped.to_string(), b"key".to_vec()));
    let key = layout::manifest_key(&source, &id);
    objects.push((key.to_string(), manifest.encode()?));

    let mut record = |operation, result: fn(&mut RunRecord)| -> Result<()> {
        let who = Who {
            user: "backup".to_owned(),
            host: "db1.internal".to_owned(),
        };
        let mut run = RunRecord::begin(operation, who, started_at);
        run.source = Some(source.clone());
        run.backup = Some(id.clone());
        run.result = RunResult::Success;
        run.finished_at = manifest.finished_at;
        result(&mut run);
        objects.push((layout::run_key(&run.id).to_string(), run.encode()?));
        Ok(())
    };
    record(Operation::Backup, |run| run.raw_bytes = Some(1 << 30))?;
    let verified = number.is_multiple_of(VERIFIED_EACH);
    if verified {
        record(Operation::Verify, |run| {
            run.verify = Some(VerifyFacts {
                level: VerifyLevel::Hashed,
                problems: 0,
            });
        })?;
    }
    Ok(Member {
        source: name,
        id: id.to_string(),
        verified,
        objects,
    })
}

fn manifest(source: &SourceName, id: &BackupId, started_at: DateTime<Utc>) -> Result<Manifest> {
    let kinds = [
        ("globals", PartKind::Globals, PartFormat::Sql),
        ("schema", PartKind::Schema, PartFormat::Custom),
        ("data-rest", PartKind::Data, PartFormat::Custom),
        ("facts", PartKind::Facts, PartFormat::Json),
    ];
    let parts: Result<Vec<_>> = kinds.into_iter().map(part).collect();
    let counts = [("indexes", 120), ("sequences", 40), ("triggers", 7)];
    Ok(Manifest {
        format: FORMAT,
        id: id.clone(),
        source: source.clone(),
        database: source.as_str().to_owned(),
        repository: REPOSITORY.to_owned(),
        started_at,
        finished_at: started_at + TimeDelta::seconds(95),
        server_version: "17.11".to_owned(),
        tool_version: "pg_dump (PostgreSQL) 17.11".to_owned(),
        filtered: false,
        as_configured: false,
        adopted: false,
        compression: "zstd:2".to_owned(),
        encryption: Some(EncryptionRecord {
            cipher: "age".to_owned(),
            key: "key.age".to_owned(),
            key_sha256: "5a".repeat(32),
            recipients: vec![format!("age1{}", "q".repeat(58))],
        }),
        parts: parts?,
        totals: Totals {
            tables: 86,
            rows: 12_345_678,
            large_objects: 0,
            objects: BTreeMap::from(counts.map(|(name, count)| (name.to_owned(), count))),
            raw_bytes: 4 << 30,
            stored_bytes: 4 << 27,
        },
        warnings: 0,
        copies: Vec::new(),
    })
}

fn part((name, kind, format): (&str, PartKind, PartFormat)) -> Result<PartRecord> {
    let name = PartName::new(name)?;
    let extensions = format!("{}.zst.age", format.extension());
    Ok(PartRecord {
        objects: vec![StoredObject {
            name: layout::object_name(&name, &extensions, 0),
            bytes: PART.len() as u64,
            sha256: "0f".repeat(32),
            crc32: "0123abcd".to_owned(),
        }],
        name,
        kind,
        format,
        raw_bytes: 1 << 30,
        raw_xxh3: "7c".repeat(16),
    })
}

/// Writes backups as files below a directory that exists.
///
/// # Errors
///
/// When a file cannot be written.
pub fn into_directory(root: &Path, members: &[Member]) -> Result<()> {
    let (key, text) = repository();
    fs::write(root.join(key), text)?;
    for (key, content) in members.iter().flat_map(|member| &member.objects) {
        let file = root.join(key);
        fs::create_dir_all(file.parent().context("a folder")?)?;
        fs::write(file, content)?;
    }
    Ok(())
}

/// Writes backups below a prefix of a bucket that exists.
///
/// # Errors
///
/// When the server refuses.
pub fn into_bucket(server: &Server, bucket: &str, prefix: &str, members: &[Member]) -> Result<()> {
    let (key, text) = repository();
    server.put_object(bucket, &format!("{prefix}/{key}"), &text)?;
    thread::scope(|scope| {
        let writing = members.chunks(members.len().div_ceil(8)).map(|some| {
            let objects = some.iter().flat_map(|member| &member.objects);
            scope.spawn(move || {
                let mut objects = objects;
                objects.try_for_each(|(key, content)| {
                    server.put_object(bucket, &format!("{prefix}/{key}"), content)
                })
            })
        });
        let writing: Vec<_> = writing.collect();
        let mut ended = writing.into_iter().map(thread::ScopedJoinHandle::join);
        ended.try_for_each(|end| end.map_err(|_| anyhow::anyhow!("a writer panicked"))?)
    })
}
