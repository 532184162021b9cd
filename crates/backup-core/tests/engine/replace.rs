//! Replacing: only by a whole backup that is proved equal, and nothing is left when it fails.

use std::sync::Arc;

use backup_core::catalog::ListRequest;
use backup_core::engine::{RestoreOptions, RestoreOutcome, undo};
use backup_core::error::{Error, ErrorKind};
use backup_core::replacer::{ReplaceRequest, Replaceable};
use backup_core::restorer::{Ownership, Purpose, RestoreRequest, Selection};
use backup_core::run_record::{Operation, RunId, RunRecord, RunResult, Who};
use backup_testing::{ScriptedReplacer, ScriptedRestorer};
use chrono::{TimeZone, Utc};
use tokio_util::sync::CancellationToken;

use super::{Bench, dumper};

fn run() -> RunId {
    RunId::new(Utc.with_ymd_and_hms(2026, 2, 6, 3, 0, 0).unwrap(), 7)
}

/// Restores the bench's one backup over `shop`, with `change` made to what is asked for.
async fn restore_over(
    bench: &Bench,
    (restorer, replacer): (&ScriptedRestorer, &ScriptedReplacer),
    change: impl FnOnce(&mut RestoreOptions),
) -> Result<RestoreOutcome, Error> {
    let cancel = CancellationToken::new();
    let listing = bench.engine.catalog().list(&ListRequest::default()).await?;
    let backup = listing.backups[0].clone();
    let request = ReplaceRequest {
        database: "shop".to_owned(),
        replaceable: Replaceable::Any,
        run: run(),
        backup: backup.id.clone(),
        source: backup.source.clone(),
    };
    let claim = bench.engine.claim(replacer, &request, &cancel).await?;
    let mut options = RestoreOptions {
        target: RestoreRequest {
            target_database: "not looked at".to_owned(),
            purpose: Purpose::Plain,
            jobs: 2,
            ownership: Ownership::Keep,
            selection: Selection::default(),
        },
        compare: true,
        keep_failed: false,
        replace: Some(claim),
    };
    change(&mut options);
    bench
        .engine
        .restore(restorer, backup, &options, &cancel)
        .await
}

#[tokio::test]
async fn what_is_equal_takes_the_place() {
    let bench = Bench::new();
    bench.good().await;
    let restorer = ScriptedRestorer::new();
    let replacer = ScriptedReplacer::new().warns("a subscription stays behind");
    let outcome = restore_over(&bench, (&restorer, &replacer), |_| {})
        .await
        .unwrap();
    assert_eq!(restorer.databases(), ["shop new"]);
    let done = replacer.replaced();
    assert_eq!(outcome.replaced.as_ref(), done.first());
    assert_eq!(done[0].backup.as_ref(), Some(&outcome.manifest.id));
    assert_eq!(outcome.warnings, ["a subscription stays behind"]);

    let who = Who::default();
    let mut record = RunRecord::begin(Operation::Restore, who.clone(), outcome.started_at);
    record.restored(&outcome);
    assert_eq!(record.target_database.as_deref(), Some("shop"));
    assert_eq!(record.kept_as.as_deref(), Some("shop before"));
    assert_eq!(record.result, RunResult::Warnings);
    assert_eq!(
        RunRecord::decode(&record.encode().unwrap()).unwrap(),
        record
    );

    // What a killed run did is no proof: nobody knows any more what it compared.
    let killed = RunRecord::of_killed(&done[0], who);
    assert_eq!(
        (&killed.id, &killed.operation),
        (&run(), &Operation::Restore)
    );
    assert_eq!((killed.compare, killed.result), (None, RunResult::Warnings));
    assert_eq!(killed.kept_as.as_deref(), Some("shop before"));
}

#[tokio::test]
async fn what_differs_or_cannot_be_put_there_goes_and_changes_nothing() {
    let differs = ScriptedRestorer::new().reads_back(|found| found.tables.clear());
    let fails = ScriptedRestorer::new().fails_to_load("data-0001", ErrorKind::ToolFailed);
    let fine = ScriptedReplacer::new();
    let busy = ScriptedReplacer::new().fails_to_replace(ErrorKind::Unavailable);
    let of_another_kind = ScriptedReplacer::new().refuses_newcomers(ErrorKind::Unsuitable);
    for (restorer, replacer, kind) in [
        (differs, fine.clone(), ErrorKind::Corrupt),
        (fails, fine, ErrorKind::ToolFailed),
        (
            ScriptedRestorer::new(),
            of_another_kind,
            ErrorKind::Unsuitable,
        ),
        (ScriptedRestorer::new(), busy, ErrorKind::Unavailable),
    ] {
        let bench = Bench::new();
        bench.good().await;
        let error = restore_over(&bench, (&restorer, &replacer), |_| {})
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert_eq!(replacer.replaced(), []);
        assert_eq!(restorer.databases(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn nothing_less_than_a_whole_comparison_replaces() {
    let bench = Bench::new();
    bench.good().await;
    let changes: [fn(&mut RestoreOptions); 4] = [
        |options| options.target.ownership = Ownership::Login,
        |options| options.compare = false,
        |options| options.target.selection.definitions_only = true,
        |options| options.target.selection.tables.push("orders".to_owned()),
    ];
    for change in changes {
        let (restorer, replacer) = (ScriptedRestorer::new(), ScriptedReplacer::new());
        let error = restore_over(&bench, (&restorer, &replacer), change)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        assert_eq!(
            (restorer.databases().len(), replacer.replaced().len()),
            (0, 0)
        );
    }
    let filtered = Bench::new();
    let dumper = dumper().source(|source| source.filtered = true);
    filtered.backup(&dumper).await.unwrap();
    let (restorer, replacer) = (ScriptedRestorer::new(), ScriptedReplacer::new());
    let error = restore_over(&filtered, (&restorer, &replacer), |_| {})
        .await
        .unwrap_err();
    assert!(error.to_string().contains("filtered"), "{error}");
}

#[tokio::test]
async fn who_cannot_claim_or_undo_is_told_why() {
    let bench = Bench::new();
    bench.good().await;
    for kind in [ErrorKind::Conflict, ErrorKind::Refused, ErrorKind::NotFound] {
        let replacer = ScriptedReplacer::new().fails_to_claim(kind);
        let restorer = ScriptedRestorer::new();
        let claimed = restore_over(&bench, (&restorer, &replacer), |_| {}).await;
        let cancel = CancellationToken::new();
        let undone = undo(&replacer, &run(), &run(), &cancel).await;
        for error in [claimed.unwrap_err(), undone.map(drop).unwrap_err()] {
            assert_eq!(error.kind(), kind);
            let expected = match kind {
                ErrorKind::NotFound => matches!(error, Error::NotFound { .. }),
                _ => matches!(error, Error::Replace { .. }),
            };
            assert!(expected, "{error:?}");
        }
        assert_eq!(restorer.databases(), Vec::<String>::new());
    }
    let replacer: Arc<ScriptedReplacer> = Arc::default();
    let (done, _) = undo(replacer.as_ref(), &run(), &run(), &CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(done.database, format!("what {} replaced", run()));
}
