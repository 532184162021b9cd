//! Restoring: equal, or an error and no target.

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::engine::{RestoreOptions, RestoreOutcome};
use backup_core::error::{Error, ErrorKind};
use backup_core::facts::{Scope, TableName};
use backup_core::manifest::PartName;
use backup_core::restorer::{Definitions, Ownership, Purpose, RestoreRequest, Selection};
use backup_core::run_record::{Operation, RunResult, Who};
use backup_testing::{
    FakeCipher, FakeCompressor, Fault, FaultyStore, MemoryStore, Op, ScriptedRestorer,
};
use tokio_util::sync::CancellationToken;

use super::{Bench, dumper, source};

fn options() -> RestoreOptions {
    RestoreOptions {
        target: RestoreRequest {
            target_database: "copy".to_owned(),
            purpose: Purpose::Plain,
            jobs: 2,
            ownership: Ownership::Keep,
            selection: Selection::default(),
        },
        compare: true,
        keep_failed: false,
        replace: None,
    }
}

async fn restore(
    bench: &Bench,
    restorer: &ScriptedRestorer,
    options: &RestoreOptions,
) -> Result<RestoreOutcome, Error> {
    let catalog = bench.engine.catalog();
    let newest = catalog
        .find(
            &backup_core::catalog::Selector::Latest,
            Some(&source("app")),
        )
        .await?;
    bench
        .engine
        .restore(restorer, newest, options, &CancellationToken::new())
        .await
}

#[tokio::test]
async fn what_was_dumped_arrives_and_is_compared() {
    let bench = Bench::new();
    bench.good().await;
    let restorer = ScriptedRestorer::new();
    let dumped = bench.observer.raw_bytes();
    let outcome = restore(&bench, &restorer, &options()).await.unwrap();
    // Whoever looks on sees it move.
    assert!(bench.observer.raw_bytes() - dumped > 300_000);
    let compare = outcome.compare.unwrap();
    assert_eq!((compare.tables, compare.equal, compare.rows), (2, 2, 30));
    assert_eq!(
        restorer.loaded("copy", "data-rest").unwrap(),
        backup_testing::bodies::random(300_000, 7)
    );
    assert!(outcome.bytes_read > 300_000);
}

/// `public.orders`, which is all that the part `data-0001` has.
fn orders() -> Scope {
    Scope::Only {
        relations: BTreeSet::from([TableName {
            schema: "public".to_owned(),
            name: "orders".to_owned(),
        }]),
        parts: BTreeSet::from([PartName::new("data-0001").unwrap()]),
    }
}

fn selected(selection: Selection) -> RestoreOptions {
    let mut options = options();
    options.target.selection = selection;
    options
}

fn orders_only() -> RestoreOptions {
    selected(Selection {
        tables: vec!["orders".to_owned()],
        ..Selection::default()
    })
}

#[tokio::test]
async fn what_was_selected_is_compared_and_nothing_else() {
    let bench = Bench::new();
    bench.good().await;
    let restorer = ScriptedRestorer::new().restores_only(orders());
    let outcome = restore(&bench, &restorer, &orders_only()).await.unwrap();
    let compare = outcome.compare.unwrap();
    assert_eq!((compare.tables, compare.equal, compare.rows), (1, 1, 10));
    assert!(restorer.loaded("copy", "data-0001").is_some());
    assert_eq!(restorer.loaded("copy", "data-rest"), None);
    assert!(outcome.bytes_read < 300_000, "{}", outcome.bytes_read);

    let empty = ScriptedRestorer::new()
        .restores_only(orders())
        .reads_back(|found| found.tables.clear());
    let error = restore(&bench, &empty, &orders_only()).await.unwrap_err();
    let Error::Differs(report) = error else {
        panic!("{error:?}");
    };
    assert_eq!((report.tables, report.missing.len()), (1, 1));
}

#[tokio::test]
async fn of_definitions_no_content_is_claimed() {
    let bench = Bench::new();
    bench.good().await;
    let nothing = Scope::Only {
        relations: BTreeSet::new(),
        parts: BTreeSet::new(),
    };
    let restorer = ScriptedRestorer::new()
        .restores_only(nothing)
        .reads_back(|found| {
            found.definitions = Some(Definitions {
                expected: 3,
                equal: 3,
                texts_compared: true,
                ..Definitions::default()
            });
        });
    let options = selected(Selection {
        definitions_only: true,
        ..Selection::default()
    });
    let outcome = restore(&bench, &restorer, &options).await.unwrap();
    let compare = outcome.compare.unwrap();
    assert_eq!((compare.tables, compare.definitions.unwrap().equal), (0, 3));
    // Or it would be taken for a proof of a backup without tables.
    assert!(outcome.partial);
    assert_eq!(restorer.loaded("copy", "data-0001"), None);
}

/// A proof of all of a backup must not be read out of the record of a part.
#[tokio::test]
async fn the_record_says_what_was_restored() {
    let bench = Bench::new();
    let tables = |outcome: &RestoreOutcome| outcome.compare.as_ref().map(|c| c.tables as u64);
    bench.good().await;
    for (scope, options, partial) in [
        (Scope::Everything, options(), false),
        (orders(), orders_only(), true),
    ] {
        let restorer = ScriptedRestorer::new().restores_only(scope);
        let outcome = restore(&bench, &restorer, &options).await.unwrap();
        let mut run = bench
            .engine
            .history()
            .begin(Operation::Restore, Who::default());
        run.restored(&outcome);
        assert_eq!(run.result, RunResult::Success);
        assert_eq!(run.partial, partial);
        assert_eq!(run.compare.map(|c| c.tables), tables(&outcome));
        assert_eq!(run.bytes_read, Some(outcome.bytes_read));
    }
}

#[tokio::test]
async fn what_the_backup_does_not_have_is_not_found() {
    let bench = Bench::new();
    bench.good().await;
    let restorer = ScriptedRestorer::new().fails_to_create(ErrorKind::NotFound);
    let error = restore(&bench, &restorer, &orders_only())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    let error = restore(&bench, &restorer, &options()).await.unwrap_err();
    assert!(
        matches!(error, Error::Restore { .. }),
        "nothing was asked for"
    );
}

#[tokio::test]
async fn a_target_that_differs_is_an_error_and_goes() {
    for keep_failed in [false, true] {
        let bench = Bench::new();
        bench.good().await;
        let restorer = ScriptedRestorer::new().reads_back(|found| {
            let first = found.tables.values_mut().next().unwrap();
            first.as_mut().unwrap().rows -= 1;
        });
        let options = RestoreOptions {
            keep_failed,
            ..options()
        };
        let error = restore(&bench, &restorer, &options).await.unwrap_err();
        let Error::Differs(report) = error else {
            panic!("{error:?}");
        };
        assert_eq!((report.equal, report.different.len()), (1, 1));
        assert_eq!(restorer.databases().len(), usize::from(keep_failed));
    }
}

#[tokio::test]
async fn a_table_that_is_missing_or_unreadable_is_not_equal() {
    let bench = Bench::new();
    bench.good().await;
    let restorer = ScriptedRestorer::new().reads_back(|found| {
        let first = found.tables.keys().next().unwrap().clone();
        found.tables.remove(&first);
        *found.tables.values_mut().next().unwrap() = Err("permission denied".to_owned());
    });
    let Error::Differs(report) = restore(&bench, &restorer, &options()).await.unwrap_err() else {
        panic!("must differ");
    };
    assert_eq!((report.missing.len(), report.not_comparable.len()), (1, 1));
    assert!(restorer.databases().is_empty());
}

#[tokio::test]
async fn definitions_that_differ_are_an_error_and_unclear_ones_a_warning() {
    type Change = fn(&mut Definitions, String);
    let rows: [(Change, &str); 3] = [
        (|found, name| found.missing.push(name), "is missing"),
        (|found, name| found.different.push(name), "is not as dumped"),
        (|found, name| found.extra.push(name), "was not dumped"),
    ];
    for (change, words) in rows {
        let bench = Bench::new();
        bench.good().await;
        let restorer = ScriptedRestorer::new().reads_back(move |found| {
            let definitions = found.definitions.get_or_insert_default();
            change(definitions, "TRIGGER app.t stamp".to_owned());
        });
        let error = restore(&bench, &restorer, &options()).await.unwrap_err();
        let text = error.to_string();
        let expected = format!("2 of 2 tables equal, TRIGGER app.t stamp {words}");
        assert!(text.ends_with(&expected), "{text}");
        assert!(restorer.databases().is_empty());
    }

    let bench = Bench::new();
    bench.good().await;
    let restorer = ScriptedRestorer::new().reads_back(|found| {
        let definitions = found.definitions.get_or_insert_default();
        definitions.unclear.push("VIEW app.v".to_owned());
    });
    let outcome = restore(&bench, &restorer, &options()).await.unwrap();
    assert!(outcome.compare.unwrap().is_equal());
    let warned = outcome
        .warnings
        .iter()
        .filter(|text| text.starts_with("VIEW app.v reads otherwise"));
    assert_eq!(warned.count(), 1, "{:?}", outcome.warnings);
}

#[tokio::test]
async fn an_existing_database_is_never_touched() {
    let bench = Bench::new();
    bench.good().await;
    let restorer = ScriptedRestorer::new().existing("copy");
    let error = restore(&bench, &restorer, &options()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(restorer.databases(), ["copy"]);
}

/// Every mutilation of a stored backup: refused with the part's name, nothing left behind.
#[tokio::test]
async fn a_damaged_backup_is_refused_with_the_name_of_what_is_damaged() {
    type Mutilate = fn(&backup_testing::MemoryStore, &str);
    let rows: [(&str, &str, Mutilate); 7] = [
        ("bit flip", "data-rest", |m, k| m.flip(k, 5000)),
        ("first byte", "data-0001", |m, k| m.flip(k, 0)),
        ("cut", "data-rest", |m, k| m.truncate(k, 100_000)),
        ("emptied", "data-0001", |m, k| m.truncate(k, 0)),
        ("longer", "data-0001", |m, k| {
            m.mutate(k, |bytes| bytes.extend([0]));
        }),
        ("missing", "data-rest", |m, k| assert!(m.remove(k))),
        ("facts flipped", "facts", |m, k| m.flip(k, 10)),
    ];
    for (what, part, mutilate) in rows {
        let bench = Bench::new();
        let manifest = bench.good().await.manifest;
        let record = manifest
            .parts
            .iter()
            .find(|p| p.name.as_str() == part)
            .unwrap();
        let key = format!("backups/app/{}/{}", manifest.id, record.objects[0].name);
        mutilate(&bench.memory, &key);
        let restorer = ScriptedRestorer::new().existing("production");
        let error = restore(&bench, &restorer, &options()).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{what}: {error:?}");
        let text = backup_core::error::chain(&error);
        assert!(text.contains(part), "{what}: {text}");
        assert_eq!(restorer.databases(), ["production"], "{what}");
    }
}

#[tokio::test]
async fn objects_swapped_between_backups_are_noticed() {
    let bench = Bench::new();
    let old = bench.good().await.manifest;
    let new = bench.good().await.manifest;
    // A whole older backup replayed under the newer name, manifest edited to fit.
    for part in &old.parts {
        for object in &part.objects {
            let bytes = bench
                .memory
                .bytes(&format!("backups/app/{}/{}", old.id, object.name))
                .unwrap();
            bench
                .memory
                .set(&format!("backups/app/{}/{}", new.id, object.name), bytes);
        }
    }
    let key = &old.encryption.as_ref().unwrap().key;
    let wrapped = bench
        .memory
        .bytes(&format!("backups/app/{}/{key}", old.id))
        .unwrap();
    bench
        .memory
        .set(&format!("backups/app/{}/{key}", new.id), wrapped);
    let forged = backup_core::manifest::Manifest {
        id: new.id.clone(),
        ..old
    };
    bench.memory.set(
        &format!("backups/app/{}/manifest.json", new.id),
        forged.encode().unwrap(),
    );
    let error = restore(&bench, &ScriptedRestorer::new(), &options())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    assert!(
        error
            .to_string()
            .starts_with("part facts belongs to backup"),
        "{error}"
    );
}

#[tokio::test]
async fn a_wrong_or_missing_key_is_told_apart_from_damage() {
    let bench = Bench::new();
    bench.good().await;
    for cipher in [Some(FakeCipher::new(&["bob"], &["bob"])), None] {
        let mut engine = backup_core::engine::Engine::new(
            Arc::clone(&bench.memory) as _,
            Arc::new(bench.clock.clone()),
        )
        .with_compressor(Arc::new(FakeCompressor));
        if let Some(cipher) = cipher {
            engine = engine.with_cipher(Arc::new(cipher));
        }
        let other = Bench {
            memory: Arc::clone(&bench.memory),
            engine,
            observer: bench.observer.clone(),
            clock: bench.clock.clone(),
        };
        let restorer = ScriptedRestorer::new();
        let error = restore(&other, &restorer, &options()).await.unwrap_err();
        assert!(matches!(error, Error::Key { .. }), "{error:?}");
        assert!(restorer.databases().is_empty());
    }
}

#[tokio::test]
async fn a_key_that_should_open_and_does_not_is_damage() {
    let bench = Bench::new();
    let manifest = bench.good().await.manifest;
    let name = &manifest.encryption.as_ref().unwrap().key;
    bench.memory.set(
        &format!("backups/app/{}/{name}", manifest.id),
        b"fake key 1 for somebody".to_vec(),
    );
    let restorer = ScriptedRestorer::new();
    let error = restore(&bench, &restorer, &options()).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().starts_with("key"), "{error}");
    assert!(restorer.databases().is_empty());
}

#[tokio::test]
async fn a_store_that_fails_midway_is_not_taken_for_the_database() {
    let mut faulty = None;
    let bench = Bench::over(MemoryStore::new(), |memory| {
        let store = Arc::new(FaultyStore::new(memory));
        faulty = Some(Arc::clone(&store));
        store
    });
    bench.good().await;
    faulty
        .unwrap()
        .inject(Fault::on(Op::Read).key("data-rest").fails_after(10));
    let restorer = ScriptedRestorer::new();
    let error = restore(&bench, &restorer, &options()).await.unwrap_err();
    assert!(matches!(error, Error::Store { .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(restorer.databases().is_empty());
}

#[tokio::test]
async fn a_load_that_fails_or_is_cancelled_leaves_no_target() {
    let bench = Bench::new();
    bench.good().await;
    let restorer = ScriptedRestorer::new().fails_to_load("data-rest", ErrorKind::ToolFailed);
    let error = restore(&bench, &restorer, &options()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ToolFailed);
    assert!(restorer.databases().is_empty());

    let restorer = ScriptedRestorer::new().hangs();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let newest = bench
        .engine
        .catalog()
        .find(&backup_core::catalog::Selector::Latest, None)
        .await
        .unwrap();
    let error = bench
        .engine
        .restore(&restorer, newest, &options(), &cancel)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error:?}");
    assert!(restorer.databases().is_empty());
}

#[tokio::test]
async fn a_target_that_cannot_be_removed_is_named() {
    let bench = Bench::new();
    bench.good().await;
    let restorer = ScriptedRestorer::new()
        .fails_to_load("data-rest", ErrorKind::ToolFailed)
        .fails_to_discard(ErrorKind::Unavailable);
    restore(&bench, &restorer, &options()).await.unwrap_err();
    assert!(
        bench
            .observer
            .warnings()
            .iter()
            .any(|text| text.starts_with("copy is left behind"))
    );
    assert_eq!(dumper().log().open_sessions(), 0);
}
