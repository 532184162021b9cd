//! Verification levels, and what each finds.

use std::sync::Arc;

use backup_core::engine::{VerifyLevel, VerifyReport, VerifyRequest};
use backup_core::error::ErrorKind;
use backup_core::manifest::Manifest;
use backup_testing::{Fault, FaultyStore, MemoryStore, Op, ScriptedInspector};
use tokio_util::sync::CancellationToken;

use super::{Bench, dumper};

async fn verify(bench: &Bench, manifest: &Manifest, level: VerifyLevel) -> VerifyReport {
    let request = VerifyRequest { level, jobs: 2 };
    let inspector = Arc::new(ScriptedInspector::of(&dumper()));
    bench
        .engine
        .verify(manifest, request, inspector, &CancellationToken::new())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_good_backup_passes_every_level() {
    let bench = Bench::new();
    let manifest = bench.good().await.manifest;
    for (level, reads) in [
        (VerifyLevel::Stored, false),
        (VerifyLevel::Hashed, true),
        (VerifyLevel::Decoded, true),
    ] {
        let report = verify(&bench, &manifest, level).await;
        assert_eq!(report.problems, [], "{level:?}");
        assert_eq!(report.parts, 3);
        assert_eq!(
            report.bytes_read == manifest.totals.stored_bytes,
            reads,
            "{level:?}"
        );
    }
}

#[tokio::test]
async fn each_level_finds_what_the_one_before_cannot() {
    type Mutilate = fn(&MemoryStore, &str);
    let rows: [(&str, Mutilate, [bool; 3]); 3] = [
        ("cut", |m, k| m.truncate(k, 100), [true, true, true]),
        ("flipped", |m, k| m.flip(k, 100), [false, true, true]),
        ("missing", |m, k| assert!(m.remove(k)), [true, true, true]),
    ];
    for (what, mutilate, found) in rows {
        let bench = Bench::new();
        let manifest = bench.good().await.manifest;
        let name = &manifest.parts[1].objects[0].name;
        mutilate(
            &bench.memory,
            &format!("backups/app/{}/{name}", manifest.id),
        );
        let levels = [
            VerifyLevel::Stored,
            VerifyLevel::Hashed,
            VerifyLevel::Decoded,
        ];
        for (level, found) in levels.into_iter().zip(found) {
            let report = verify(&bench, &manifest, level).await;
            let parts: Vec<_> = report.problems.iter().map(|p| p.part.as_str()).collect();
            assert_eq!(
                parts,
                ["data-rest"].get(..usize::from(found)).unwrap(),
                "{what} {level:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_damaged_key_is_found_at_every_level() {
    let bench = Bench::new();
    let manifest = bench.good().await.manifest;
    let name = &manifest.encryption.as_ref().unwrap().key;
    bench
        .memory
        .flip(&format!("backups/app/{}/{name}", manifest.id), 3);
    for level in [
        VerifyLevel::Stored,
        VerifyLevel::Hashed,
        VerifyLevel::Decoded,
    ] {
        let report = verify(&bench, &manifest, level).await;
        assert_eq!(report.problems.len(), 1, "{level:?}: {report:?}");
        assert_eq!(report.problems[0].part.as_str(), "key");
        assert!(report.problems[0].problem.starts_with("key"), "{report:?}");
    }
}

#[tokio::test]
async fn content_that_is_not_what_was_fingerprinted_is_found_by_decoding() {
    let bench = Bench::new();
    let manifest = bench.good().await.manifest;
    let lying = backup_testing::ScriptedDumper::new()
        .part(super::small_part())
        .part(
            backup_testing::ScriptedPart::new(
                "data-rest",
                backup_testing::bodies::random(300_000, 7),
            )
            .facts(super::table("lines", 21)),
        );
    let request = VerifyRequest {
        level: VerifyLevel::Decoded,
        jobs: 1,
    };
    let inspector = Arc::new(ScriptedInspector::of(&lying));
    let report = bench
        .engine
        .verify(&manifest, request, inspector, &CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(report.problems.len(), 1, "{report:?}");
    assert!(
        report.problems[0].problem.contains("fingerprinted"),
        "{report:?}"
    );
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_proves_nothing() {
    let mut faulty = None;
    let bench = Bench::over(MemoryStore::new(), |memory| {
        let store = Arc::new(FaultyStore::new(memory));
        faulty = Some(Arc::clone(&store));
        store
    });
    let manifest = bench.good().await.manifest;
    faulty.unwrap().inject(Fault::on(Op::Read).key("data-rest"));
    let request = VerifyRequest {
        level: VerifyLevel::Hashed,
        jobs: 2,
    };
    let inspector = Arc::new(ScriptedInspector::of(&dumper()));
    let error = bench
        .engine
        .verify(&manifest, request, inspector, &CancellationToken::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_backup_without_its_key_is_not_good_at_any_level() {
    for level in [
        VerifyLevel::Stored,
        VerifyLevel::Hashed,
        VerifyLevel::Decoded,
    ] {
        let bench = Bench::new();
        let manifest = bench.good().await.manifest;
        let key = &manifest.encryption.as_ref().unwrap().key;
        assert!(
            bench
                .memory
                .remove(&format!("backups/app/{}/{key}", manifest.id))
        );
        let report = verify(&bench, &manifest, level).await;
        assert_eq!(report.problems[0].part.as_str(), "key", "{level:?}");
    }
}

/// Whoever copies a single backup into another repository may mean to; it is said all the same.
#[tokio::test]
async fn a_backup_from_another_repository_is_told_from_our_own() {
    let (bench, other) = (Bench::new(), Bench::new());
    let own = other.good().await.manifest;
    let stranger = bench.good().await.manifest;
    for key in bench.memory.keys() {
        if key != "repository.json" {
            other.memory.set(&key, bench.memory.bytes(&key).unwrap());
        }
    }
    let levels = [
        VerifyLevel::Stored,
        VerifyLevel::Hashed,
        VerifyLevel::Decoded,
    ];
    for level in levels {
        assert_eq!(verify(&other, &own, level).await.problems, []);
        assert_eq!(verify(&other, &stranger, level).await.problems, []);
    }
    other.engine.open(stranger.clone()).await.unwrap();
    let told = other.observer.warnings();
    let expected = format!(
        "backup {} was written to another repository than the one it lies in",
        stranger.id
    );
    assert_eq!(told, vec![expected; levels.len() + 1]);
    // A copy without the record, or with a damaged one, can be read and says nothing.
    other.memory.truncate("repository.json", 10);
    other.engine.open(stranger.clone()).await.unwrap();
    assert!(other.memory.remove("repository.json"));
    other.engine.open(stranger).await.unwrap();
    assert_eq!(other.observer.warnings(), told);
}
