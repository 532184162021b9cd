//! A manifest that somebody edited is not believed: the facts say what the backup is.

use backup_core::backup::BackupId;
use backup_core::error::Error;
use backup_core::manifest::{Manifest, PartKind, PartName};
use chrono::TimeDelta;

use super::{Bench, source};

/// What is done to a manifest whose parts are `data-0001`, `data-rest` and `facts`.
type Edit = fn(&mut Manifest);

const EDITS: [(&str, Edit, &str); 12] = [
    (
        "another database",
        |m| "other".clone_into(&mut m.database),
        "the manifest names another database or extent than part facts",
    ),
    (
        "a filtered backup that passes for a full one, or the reverse",
        |m| m.filtered = !m.filtered,
        "the manifest names another database or extent than part facts",
    ),
    (
        "another digest",
        |m| m.parts[0].objects[0].sha256 = "0".repeat(64),
        "data-0001.dump.fake.crypt is not the object that was backed up",
    ),
    (
        "another object",
        |m| "data-0009.dump.fake.crypt".clone_into(&mut m.parts[0].objects[0].name),
        "data-0009.dump.fake.crypt is not the object that was backed up",
    ),
    (
        "one object in two parts",
        |m| m.parts[1].objects = m.parts[0].objects.clone(),
        "data-0001.dump.fake.crypt is not the object that was backed up",
    ),
    (
        "a part less",
        |m| drop(m.parts.remove(0)),
        "the manifest lacks objects of the backup",
    ),
    (
        "a part without its objects",
        |m| m.parts[0].objects.clear(),
        "the manifest lacks objects of the backup",
    ),
    (
        "a part of another name",
        |m| m.parts[0].name = PartName::new("data-0009").unwrap(),
        "the manifest names other parts than the facts",
    ),
    (
        "an empty part more",
        |m| {
            let mut part = m.parts[0].clone();
            part.name = PartName::new("data-0009").unwrap();
            part.objects.clear();
            m.parts.insert(0, part);
        },
        "the manifest names other parts than the facts",
    ),
    (
        "an empty part of a name that is there",
        |m| {
            let mut part = m.parts[0].clone();
            part.objects.clear();
            m.parts.insert(0, part);
        },
        "the manifest names other parts than the facts",
    ),
    (
        "two parts with each other's objects",
        |m| {
            let (first, rest) = m.parts.split_at_mut(1);
            std::mem::swap(&mut first[0].objects, &mut rest[0].objects);
        },
        "the manifest gives part data-0001 objects of others",
    ),
    (
        "rows that pass for definitions",
        |m| m.parts[0].kind = PartKind::Schema,
        "the manifest takes part data-0001 for something else",
    ),
];

#[tokio::test]
async fn an_edited_manifest_does_not_open() {
    let bench = Bench::new();
    let manifest = bench.good().await.manifest;
    bench.engine.open(manifest.clone()).await.unwrap();
    for (what, edit, expected) in EDITS {
        let mut edited = manifest.clone();
        edit(&mut edited);
        let result = bench.engine.open(edited).await.map(drop);
        let Err(error @ Error::Corrupt { .. }) = result else {
            panic!("{what}: {result:?}");
        };
        assert!(error.to_string().contains(expected), "{what}: {error}");
    }
}

/// Everything of a backup under another name, with a manifest to fit: the facts know better.
#[tokio::test]
async fn a_backup_under_another_name_does_not_open() {
    let bench = Bench::new();
    let manifest = bench.good().await.manifest;
    let renamed: [Edit; 2] = [
        |m| m.id = BackupId::new(m.started_at + TimeDelta::days(1), 7),
        |m| m.source = source("other"),
    ];
    for edit in renamed {
        let mut edited = manifest.clone();
        edit(&mut edited);
        let folder = |m: &Manifest| format!("backups/{}/{}/", m.source, m.id);
        for key in bench.memory.keys() {
            if let Some(name) = key.strip_prefix(&folder(&manifest)) {
                let bytes = bench.memory.bytes(&key).unwrap();
                bench.memory.set(&(folder(&edited) + name), bytes);
            }
        }
        let result = bench.engine.open(edited).await.map(drop);
        let Err(error @ Error::Corrupt { .. }) = result else {
            panic!("{result:?}");
        };
        let expected = format!("part facts belongs to backup {} of \"app\"", manifest.id);
        assert_eq!(error.to_string(), expected);
    }
}
