//! Taking backups.

use std::sync::Arc;
use std::time::Duration;

use backup_core::catalog::ListRequest;
use backup_core::error::{Error, ErrorKind};
use backup_core::manifest::Manifest;
use backup_core::store::Store;
use backup_testing::{Failure, Fault, FaultyStore, MemoryStore, Op, ScriptedDumper};
use tokio_util::sync::CancellationToken;

use super::{Bench, big_part, dumper, request, small_part};

#[tokio::test]
async fn a_backup_is_its_parts_and_a_manifest_that_says_what_is_there() {
    let bench = Bench::new();
    let outcome = bench.backup(&dumper()).await.unwrap();
    let manifest = &outcome.manifest;
    let folder = format!("backups/app/{}", manifest.id);
    assert!(manifest.id.as_str().starts_with("20260205T030000Z-"));
    let stored = bench
        .memory
        .bytes(&format!("{folder}/manifest.json"))
        .unwrap();
    assert_eq!(Manifest::decode(&stored).unwrap(), *manifest);
    for object in manifest.parts.iter().flat_map(|part| &part.objects) {
        let key = format!("{folder}/{}", object.name);
        assert_eq!(bench.memory.bytes(&key).unwrap().len() as u64, object.bytes);
    }
    assert_eq!(bench.memory.keys(), keys_of(manifest));
    assert_eq!((manifest.totals.tables, manifest.totals.rows), (2, 30));
    assert_eq!(bench.memory.open_uploads(), 0);
}

/// All that a store has in which there is one backup of `app`, sorted.
fn keys_of(manifest: &Manifest) -> Vec<String> {
    let objects = manifest.parts.iter().flat_map(|part| &part.objects);
    let mut names: Vec<_> = objects.map(|object| object.name.as_str()).collect();
    names.extend(["manifest.json", &manifest.encryption.as_ref().unwrap().key]);
    let folder = format!("backups/app/{}", manifest.id);
    let mut keys: Vec<_> = names
        .iter()
        .map(|name| format!("{folder}/{name}"))
        .collect();
    keys.push("repository.json".to_owned());
    keys.sort();
    keys
}

#[tokio::test]
async fn the_clear_manifest_names_no_table() {
    let bench = Bench::new();
    let manifest = bench.backup(&dumper()).await.unwrap().manifest;
    let text = String::from_utf8(manifest.encode().unwrap()).unwrap();
    assert!(
        !text.contains("orders") && !text.contains("lines"),
        "{text}"
    );
}

#[tokio::test]
async fn a_long_part_continues_in_further_objects() {
    let bench = Bench::over(MemoryStore::with_capacity(100_000), |memory| memory);
    let manifest = bench.backup(&dumper()).await.unwrap().manifest;
    let long = manifest
        .parts
        .iter()
        .find(|part| part.name.as_str() == "data-rest")
        .unwrap();
    let sizes: Vec<_> = long.objects.iter().map(|object| object.bytes).collect();
    assert_eq!(sizes[..3], [100_000; 3]);
    assert!(sizes.len() == 4 && sizes[3] < 100_000, "{sizes:?}");
    assert!(
        long.objects[3].name.ends_with(".004"),
        "{:?}",
        long.objects[3].name
    );
    let reader = bench.engine.open(manifest.clone()).await.unwrap();
    let body = backup_core::restorer::PartReader::open(reader.as_ref(), &long.name)
        .await
        .unwrap();
    let (content, error) = backup_testing::bodies::drain(body).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(content, backup_testing::bodies::random(300_000, 7));
}

#[tokio::test]
async fn no_more_parts_at_once_than_jobs() {
    let bench = Bench::new();
    let mut dumper = ScriptedDumper::new();
    for n in 0..12 {
        dumper = dumper.part(backup_testing::ScriptedPart::new(
            &format!("data-{n:04}"),
            backup_testing::bodies::random(200_000, n),
        ));
    }
    let mut request = request("app");
    request.jobs = 3;
    bench
        .engine
        .backup(&dumper, &request, &CancellationToken::new())
        .await
        .unwrap();
    let most = dumper.log().most_bodies();
    assert!((2..=3).contains(&most), "{most}");
}

/// Every way a dump can fail, at every try.
#[tokio::test]
async fn a_dump_that_fails_publishes_nothing() {
    let full = 300_000;
    for failure in [
        Failure::Refuse(ErrorKind::ToolFailed),
        Failure::After(0, ErrorKind::ToolFailed),
        Failure::After(150_000, ErrorKind::ToolFailed),
        Failure::After(full, ErrorKind::ToolFailed),
        Failure::After(full, ErrorKind::Corrupt),
        Failure::HangAfter(1000),
        Failure::PanicAfter(1000),
        Failure::Report(ErrorKind::ToolFailed),
    ] {
        let bench = Bench::new();
        let before = bench.good().await.manifest;
        let kept = bench.memory.keys();
        let dumper = ScriptedDumper::new()
            .part(small_part())
            .part(big_part().always_fails(failure));
        let error = match failure {
            Failure::HangAfter(_) => bench.impatient_backup(&dumper).await,
            _ => bench.backup(&dumper).await,
        };
        let error = error.unwrap_err();
        assert!(
            matches!(error, Error::Dump { .. } | Error::Stalled { .. }),
            "{failure:?}: {error:?}"
        );
        assert_eq!(bench.memory.keys(), kept, "{failure:?}");
        assert_eq!(bench.memory.open_uploads(), 0, "{failure:?}");
        settle(&dumper).await;
        assert_eq!(dumper.log().open_sessions(), 0, "{failure:?}");
        let listing = bench
            .engine
            .catalog()
            .list(&ListRequest::default())
            .await
            .unwrap();
        assert_eq!(listing.backups, [before], "{failure:?}");
    }
}

/// Bodies are dropped by tasks that were told to end; give them the moment that takes.
async fn settle(dumper: &ScriptedDumper) {
    for _ in 0..100 {
        if dumper.log().running_bodies() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("a dump still runs");
}

#[tokio::test]
async fn a_part_that_fails_once_is_dumped_again() {
    let bench = Bench::new();
    let dumper = ScriptedDumper::new()
        .part(small_part())
        .part(big_part().fails(1, Failure::After(200_000, ErrorKind::ToolFailed)));
    let manifest = bench.backup(&dumper).await.unwrap().manifest;
    assert_eq!(dumper.log().tries("data-rest"), 2);
    assert_eq!(bench.observer.retried(), ["data-rest"]);
    let part = manifest
        .parts
        .iter()
        .find(|part| part.name.as_str() == "data-rest")
        .unwrap();
    assert_eq!(part.raw_bytes, 300_000);
    assert_eq!(part.objects[0].name, "data-rest.r2.dump.fake.crypt");
}

#[tokio::test]
async fn a_plan_without_parts_or_with_two_of_one_name_is_no_backup() {
    let bench = Bench::new();
    let before = bench.good().await.manifest;
    let kept = bench.memory.keys();
    for dumper in [
        ScriptedDumper::new(),
        ScriptedDumper::new().part(small_part()).part(small_part()),
    ] {
        let error = bench.backup(&dumper).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert_eq!(bench.memory.keys(), kept);
    }
    assert!(bench.engine.open(before).await.is_ok());
}

#[tokio::test]
async fn the_first_failure_is_the_one_reported() {
    let bench = Bench::new();
    let dumper = ScriptedDumper::new()
        .part(small_part().always_fails(Failure::HangAfter(10)))
        .part(big_part().always_fails(Failure::After(5, ErrorKind::PermissionDenied)));
    let error = bench.backup(&dumper).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert_eq!(error.to_string(), "dump part data-rest");
}

#[tokio::test]
async fn an_empty_dump_is_no_backup() {
    let bench = Bench::new();
    let dumper = ScriptedDumper::new().part(backup_testing::ScriptedPart::new("data-0001", ""));
    let error = bench.backup(&dumper).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ToolFailed);
    assert_eq!(bench.memory.keys(), ["repository.json"]);
}

#[tokio::test]
async fn a_source_that_could_not_be_held_is_no_backup() {
    let bench = Bench::new();
    let dumper = dumper().fails_to_finish(ErrorKind::Unavailable);
    let error = bench.backup(&dumper).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(bench.memory.keys(), ["repository.json"]);
}

/// What happens, how, and whether the backup is committed nevertheless.
fn store_faults() -> Vec<(&'static str, Fault, bool)> {
    vec![
        ("part refused", Fault::on(Op::Put).key("data-rest"), false),
        (
            "part cut",
            Fault::on(Op::Put).key("data-rest").fails_after(100_000),
            false,
        ),
        (
            "part stalls",
            Fault::on(Op::Put).key("data-rest").stalls_after(1000),
            false,
        ),
        (
            "part stored, answer lost once",
            Fault::on(Op::Put)
                .key("data-rest")
                .nth(1)
                .loses_the_answer(),
            true,
        ),
        (
            "part stored, answer always lost",
            Fault::on(Op::Put).key("data-rest").loses_the_answer(),
            false,
        ),
        ("one refusal", Fault::on(Op::Put).nth(2), true),
        ("facts refused", Fault::on(Op::Put).key("facts"), false),
        ("key refused", Fault::on(Op::Create).key("key."), false),
        (
            "key written, answer lost",
            Fault::on(Op::Create).key("key.").loses_the_answer(),
            true,
        ),
        (
            "manifest refused",
            Fault::on(Op::Create)
                .key("manifest")
                .rejects(ErrorKind::PermissionDenied),
            false,
        ),
        (
            "manifest written, answer lost",
            Fault::on(Op::Create).key("manifest").loses_the_answer(),
            true,
        ),
        (
            "repository refused",
            Fault::on(Op::Create).key("repository"),
            false,
        ),
        (
            "repository written, answer lost",
            Fault::on(Op::Create).key("repository").loses_the_answer(),
            true,
        ),
        (
            "cannot be asked",
            Fault::on(Op::Head).key("data-rest"),
            false,
        ),
    ]
}

/// Whatever the store does wrong while a backup runs: it is committed whole, or not at all.
#[tokio::test]
async fn a_store_that_fails_leaves_a_whole_backup_or_none() {
    for (what, fault, succeeds) in store_faults() {
        let mut faulty = None;
        let bench = Bench::over(MemoryStore::new(), |memory| {
            let store = Arc::new(FaultyStore::new(memory));
            store.inject(fault);
            faulty = Some(Arc::clone(&store));
            store as Arc<dyn Store>
        });
        let dumper = dumper();
        let result = match what {
            "part stalls" => bench.impatient_backup(&dumper).await,
            _ => bench.backup(&dumper).await,
        };
        assert_eq!(result.is_ok(), succeeds, "{what}: {result:?}");
        assert!(
            faulty.unwrap().hits() > 0,
            "{what}: the fault was never met"
        );
        assert_eq!(bench.memory.open_uploads(), 0, "{what}");
        assert_eq!(dumper.log().open_sessions(), 0, "{what}");
        let listing = bench
            .engine
            .catalog()
            .list(&ListRequest::default())
            .await
            .unwrap();
        assert_eq!(listing.backups.len(), usize::from(succeeds), "{what}");
        if let Ok(outcome) = result {
            // Nothing of a first try is left either.
            assert_eq!(bench.memory.keys(), keys_of(&outcome.manifest), "{what}");
        } else {
            let left = bench.memory.keys();
            assert!(
                left.iter().all(|key| key == "repository.json"),
                "{what}: {left:?}"
            );
        }
    }
}

/// A store that takes nothing any more, and is slow to abort: the source is let go when the stall is
/// noticed, and not dumped once more.
#[tokio::test]
async fn a_stall_lets_go_of_the_source_at_once() {
    let stalls = Fault::on(Op::Put).key("data-rest").stalls_after(1000);
    let bench = Bench::over(MemoryStore::new(), |memory| {
        let store = Arc::new(FaultyStore::new(memory));
        store.inject(stalls);
        store as Arc<dyn Store>
    });
    let dumper = dumper();
    let log = dumper.log();
    let error = bench.impatient_backup(&dumper).await.unwrap_err();
    assert!(matches!(error, Error::Stalled { .. }), "{error:?}");
    assert_eq!(log.tries("data-rest"), 1);
    assert_eq!((log.open_sessions(), log.finished()), (0, 1));
}

#[tokio::test]
async fn cancelling_leaves_nothing() {
    for after in [0, 1, 20, 60] {
        let bench = Bench::new();
        let cancel = CancellationToken::new();
        let dumper = ScriptedDumper::new()
            .part(small_part())
            .part(big_part().always_fails(Failure::HangAfter(100_000)));
        let request = request("app");
        let later = cancel.clone();
        let timer = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(after)).await;
            later.cancel();
        });
        let error = bench
            .engine
            .backup(&dumper, &request, &cancel)
            .await
            .unwrap_err();
        timer.await.unwrap();
        assert!(matches!(error, Error::Cancelled), "{after}: {error:?}");
        assert!(
            bench
                .memory
                .keys()
                .iter()
                .all(|key| key == "repository.json"),
            "{after}"
        );
        assert_eq!(bench.memory.open_uploads(), 0);
        assert_eq!(dumper.log().open_sessions(), 0);
    }
}

/// A part is stored and the answer gets lost: it is stored again, and of the first try nothing
/// is left.
#[tokio::test]
async fn a_first_try_whose_answer_got_lost_is_removed() {
    let mut faulty = None;
    let bench = Bench::over(MemoryStore::new(), |memory| {
        let store = Arc::new(FaultyStore::new(memory));
        store.inject(
            Fault::on(Op::Put)
                .key("data-rest")
                .nth(1)
                .loses_the_answer(),
        );
        faulty = Some(Arc::clone(&store));
        store as Arc<dyn Store>
    });
    let manifest = bench.backup(&dumper()).await.unwrap().manifest;
    assert_eq!(faulty.unwrap().hits(), 1);
    assert_eq!(bench.observer.retried(), ["data-rest"]);
    let keys = bench.memory.keys();
    let parts: Vec<_> = keys
        .iter()
        .filter_map(|key| key.rsplit('/').next())
        .filter(|name| name.starts_with("data-rest"))
        .collect();
    assert_eq!(parts, ["data-rest.r2.dump.fake.crypt"]);
    assert_eq!(keys, keys_of(&manifest));
}

/// What was on its way when the run was stopped is carried out after it was removed.
#[tokio::test]
async fn what_a_store_carries_out_late_is_removed_too() {
    for fault in [
        Fault::on(Op::Create).key("key."),
        Fault::on(Op::Put).key("data-0001"),
        Fault::on(Op::Put).key("facts"),
    ] {
        let what = format!("{fault:?}");
        let mut faulty = None;
        let bench = Bench::over(MemoryStore::new(), |memory| {
            let store = Arc::new(FaultyStore::new(memory));
            store.inject(fault.comes_late());
            faulty = Some(Arc::clone(&store));
            store as Arc<dyn Store>
        });
        let store = faulty.unwrap();
        let request = request("app");
        let cancel = CancellationToken::new();
        let sent = async {
            while store.on_their_way() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            cancel.cancel();
        };
        let dumper = dumper();
        let (result, ()) = tokio::join!(bench.engine.backup(&dumper, &request, &cancel), sent);
        assert!(
            matches!(result, Err(Error::Cancelled)),
            "{what}: {result:?}"
        );
        assert_eq!(store.on_their_way(), 0, "{what}: it never came");
        assert_eq!(bench.memory.keys(), ["repository.json"], "{what}");
    }
}

#[tokio::test]
async fn without_recipients_encryption_is_refused_before_any_work() {
    let bench = Bench::new();
    let plain = backup_core::engine::Engine::new(
        Arc::clone(&bench.memory) as Arc<dyn Store>,
        Arc::new(bench.clock.clone()),
    )
    .with_compressor(Arc::new(backup_testing::FakeCompressor));
    let dumper = dumper();
    let error = plain
        .backup(&dumper, &request("app"), &CancellationToken::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(dumper.log().finished() + dumper.log().dropped(), 0);
    assert!(bench.memory.keys().is_empty());
}

#[tokio::test]
async fn warnings_of_source_and_tools_come_out() {
    let bench = Bench::new();
    let dumper = ScriptedDumper::new()
        .source(|source| {
            source
                .warnings
                .push("a subscription is not dumped".to_owned());
        })
        .part(small_part().warns("tool said so"));
    let outcome = bench.backup(&dumper).await.unwrap();
    assert_eq!(
        outcome.warnings,
        ["a subscription is not dumped", "tool said so"]
    );
    assert_eq!(outcome.manifest.warnings, 2);
}

/// The store does not say whether it has the manifest: should it have it, or get it late, the
/// backup must be whole.
#[tokio::test]
async fn a_commit_of_unknown_outcome_keeps_its_parts() {
    for (arrived, fault) in [
        (false, Fault::on(Op::Create).key("manifest")),
        (
            true,
            Fault::on(Op::Create).key("manifest").loses_the_answer(),
        ),
    ] {
        let mut faulty = None;
        let bench = Bench::over(MemoryStore::new(), |memory| {
            let store = Arc::new(FaultyStore::new(memory));
            store.inject(fault);
            store.inject(Fault::on(Op::Read).key("manifest"));
            faulty = Some(Arc::clone(&store));
            store as Arc<dyn Store>
        });
        let error = bench.backup(&dumper()).await.unwrap_err();
        assert!(matches!(error, Error::Store { .. }), "{error:?}");
        let warned = bench.observer.warnings();
        assert!(warned[0].contains("not known whether"), "{warned:?}");
        faulty.unwrap().heal();
        let listing = bench.engine.catalog().list(&ListRequest::default()).await;
        let backups = listing.unwrap().backups;
        assert_eq!(backups.len(), usize::from(arrived));
        for manifest in backups {
            bench.engine.open(manifest.clone()).await.unwrap();
            for object in manifest.parts.iter().flat_map(|part| &part.objects) {
                let key = format!("backups/app/{}/{}", manifest.id, object.name);
                assert!(bench.memory.bytes(&key).is_some(), "{key}");
            }
        }
    }
}
