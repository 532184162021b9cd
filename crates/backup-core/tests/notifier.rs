//! What was told, in a store that several change at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::backup::SourceName;
use backup_core::error::ErrorKind;
use backup_core::notifier::board::Board;
use backup_core::notifier::told::{Situation, Telling};
use backup_testing::MemoryStore;
use chrono::{DateTime, TimeDelta, Utc};

fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000)
}

fn failed() -> Situation {
    Situation {
        topic: "backup".to_owned(),
        kinds: BTreeSet::from(["timeout".to_owned()]),
        since: now(),
    }
}

#[tokio::test]
async fn of_two_that_saw_the_same_one_tells() {
    let board = Board::new(Arc::new(MemoryStore::new()));
    let source = SourceName::new("shop/a b\n").unwrap();
    let of = ("noc", &source);
    let seen = board.told("noc", &source).await.unwrap();
    assert_eq!(seen.value.judge(now(), &failed()), Some(Telling::New));
    let mine = seen.value.claimed(now(), "backup", "me");
    let yours = seen.value.claimed(now(), "backup", "you");
    let written = board.tell(of, None, &mine).await.unwrap();
    let lost = board.tell(of, None, &yours).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::AlreadyExists);
    let seen = board.told("noc", &source).await.unwrap();
    assert!(seen.value.is_claimed(now(), "backup", "you"));
    let told = mine.after(now(), &failed(), true);
    board.tell(of, Some(&written), &told).await.unwrap();
    let lost = board.tell(of, Some(&written), &yours).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Conflict);
    let seen = board.told("noc", &source).await.unwrap();
    assert_eq!(seen.value, told);
    assert_eq!(seen.value.judge(now(), &failed()), None);
    // Another source, and another notifier, were told nothing.
    let other = SourceName::new("shop").unwrap();
    assert_eq!(board.told("noc", &other).await.unwrap().bytes, None);
    assert_eq!(board.told("ops", &source).await.unwrap().bytes, None);
}

#[tokio::test]
async fn whether_a_notifier_can_be_reached_is_known_with_its_beginning() {
    let board = Board::new(Arc::new(MemoryStore::new()));
    let seen = board.delivery("noc").await.unwrap();
    let lost = seen.value.after(now(), Some("refused"));
    let written = board.deliver("noc", None, &lost).await.unwrap();
    let later = now() + TimeDelta::hours(1);
    let again = lost.after(later, Some("timeout"));
    let written = board.deliver("noc", Some(&written), &again).await.unwrap();
    let failing = board.delivery("noc").await.unwrap().value.failing.unwrap();
    assert_eq!((failing.since, failing.last), (now(), later));
    assert_eq!(failing.why, "timeout");
    let well = again.after(later, None);
    board.deliver("noc", Some(&written), &well).await.unwrap();
    assert_eq!(board.delivery("noc").await.unwrap().value.failing, None);
}

#[tokio::test]
async fn what_cannot_be_read_was_not_told() {
    let store = Arc::new(MemoryStore::new());
    let board = Board::new(Arc::clone(&store) as _);
    let source = SourceName::new("shop").unwrap();
    store.set("_notify/noc/told/shop.json", "{\"format\":9}");
    let seen = board.told("noc", &source).await.unwrap();
    assert!(seen.bytes.is_some());
    assert_eq!(seen.value.judge(now(), &failed()), Some(Telling::New));
}
