//! Who did what stays to be seen, in real places: what the program writes down, that several writers
//! make one chain, and that whoever changes the objects is found out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use backup_compress::Algorithm;
use backup_core::audit::{Audit, AuditAction, AuditEntry, AuditOutcome};
use backup_core::backup::SourceName;
use backup_core::engine::{BackupRequest, Engine};
use backup_core::run_record::Who;
use backup_core::store::Store;
use backup_e2e::cli::{Cli, Run};
use backup_e2e::s3::{Kind, Server};
use backup_e2e::scene::{Place, unique};
use backup_store::{StoreConfig, StoreOptions};
use backup_testing::{FixedClock, ScriptedDumper, ScriptedPart, bodies};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

const WRITERS: usize = 4;
const RECORDS: usize = 15;

struct Book {
    cli: Cli,
    url: String,
    place: Place,
    store: Arc<dyn Store>,
}

impl Book {
    fn local() -> Result<Self> {
        let cli = Cli::without_server()?;
        let (place, url) = (Place::Local(cli.local_root()), cli.local_store());
        let store = backup_store::open(&StoreConfig::parse(&url, &StoreOptions::default())?)?;
        Ok(Self {
            cli,
            url,
            place,
            store,
        })
    }

    fn in_bucket(name: &str) -> Result<Self> {
        let server = Server::shared(Kind::SeaweedFs)?;
        let bucket = unique(name).replace('_', "-");
        server.create_bucket(&bucket)?;
        let options = StoreOptions {
            allow_http: true,
            ..server.options()
        };
        let url = format!("s3://{bucket}");
        let store = backup_store::open(&StoreConfig::parse(&url, &options)?)?;
        Ok(Self {
            cli: Cli::without_server()?.with_s3(server),
            url,
            place: Place::Bucket { server, bucket },
            store,
        })
    }

    /// Backups of so many days, the newest first; their ids.
    async fn backups(&self, count: i64) -> Result<Vec<String>> {
        let clock = FixedClock::default();
        let mut engine = Engine::new(Arc::clone(&self.store), Arc::new(clock.clone()));
        for algorithm in Algorithm::ALL {
            engine = engine.with_compressor(algorithm.compressor(0));
        }
        let dumper =
            ScriptedDumper::new().part(ScriptedPart::new("data-rest", bodies::random(1000, 7)));
        let request = BackupRequest {
            encrypt: false,
            ..BackupRequest::new(SourceName::new("shop")?)
        };
        let now: DateTime<Utc> = SystemTime::now().into();
        let mut ids = Vec::new();
        for age in 0..count {
            clock.set(now - TimeDelta::days(age) - TimeDelta::hours(1));
            let never = CancellationToken::new();
            let taken = engine.backup(&dumper, &request, &never).await?;
            ids.push(taken.manifest.id.to_string());
        }
        Ok(ids)
    }

    fn run(&self, said: &str) -> Result<Run> {
        let said = said.split_whitespace();
        self.cli.run(said.chain(["--from", &self.url]))
    }

    fn records(&self) -> Result<Vec<Value>> {
        let listed = self.run("runs --audit --json")?.exits(0)?.json()?;
        Ok(listed.as_array().context("an array")?.clone())
    }

    /// What following the chain says, and the exit code that it must have.
    fn verified(&self, more: &str, code: i32) -> Result<Value> {
        let said = format!("runs --audit verify --json {more}");
        let mut views = self.run(&said)?.exits(code)?.json()?;
        Ok(views[0].take())
    }

    fn keys(&self) -> Result<Vec<String>> {
        let mut keys = self.place.keys()?;
        keys.retain(|key| key.starts_with("_audit/"));
        Ok(keys)
    }
}

fn told(record: &Value) -> (&str, &str) {
    let text = |name: &str| record[name].as_str().unwrap_or_default();
    (text("action"), text("outcome"))
}

async fn what_the_program_changes_is_written_down(book: &Book) -> Result<()> {
    let ids = book.backups(6).await?;
    let prune = "prune shop --keep-last 2 --keep-daily none --keep-weekly none \
                 --keep-monthly none --keep-yearly none --min-keep 1";
    book.run(&format!("{prune} --dry-run"))?.exits(0)?;
    book.run("list")?.exits(0)?;
    ensure!(book.keys()?.is_empty(), "looking was written down");
    let pinned = book.run(&format!("pin {} --reason kept", ids[3]))?;
    let pinned = pinned.exits(0)?;
    ensure!(pinned.stderr.contains("sha256="), "{}", pinned.text());
    let kept = book.run(&format!("{prune} --yes --json"))?.exits(0)?;
    let deleted = kept.json()?["deleted"].clone();
    assert_eq!(deleted.as_array().map(Vec::len), Some(3));
    book.run(&format!("unpin {}", ids[3]))?.exits(0)?;
    book.run(&format!("{prune} --yes"))?.exits(0)?;
    // There is nothing that it could change.
    book.run(&format!("{prune} --yes"))?.exits(0)?;

    let mut records = book.records()?;
    records.reverse();
    let story: Vec<_> = records.iter().map(told).collect();
    assert_eq!(
        story,
        [
            ("pin", "started"),
            ("pin", "done"),
            ("prune", "started"),
            ("prune", "done"),
            ("unpin", "started"),
            ("unpin", "done"),
            ("prune", "started"),
            ("prune", "done"),
        ]
    );
    assert_eq!(records[3]["backups"], deleted);
    assert_eq!(records[7]["backups"], serde_json::json!([ids[3]]));
    for (index, record) in records.iter().enumerate() {
        assert_eq!(record["number"], index + 1);
        assert_eq!(record["source"], "shop");
        ensure!(
            record["who"]["user"]
                .as_str()
                .is_some_and(|user| !user.is_empty())
        );
    }
    let report = book.verified("", 0)?;
    assert_eq!(report["status"], "whole");
    assert_eq!(report["chains"][0]["records"], 8);
    assert_eq!(report["chains"][0]["head"], records[7]["sha256"]);
    book.run("verify --all")?.exits(0)?;
    Ok(())
}

/// Changes the objects in every way that somebody might, one after the other.
async fn changes_show(book: &Book) -> Result<()> {
    let ids = book.backups(1).await?;
    for _ in 0..2 {
        book.run(&format!("pin {}", ids[0]))?.exits(0)?;
        book.run(&format!("unpin {}", ids[0]))?.exits(0)?;
    }
    let keys = book.keys()?;
    assert_eq!(keys.len(), 8);
    let texts: Vec<_> = keys.iter().map(|key| book.place.get(key)).collect();
    let texts = texts.into_iter().collect::<Result<Vec<_>>>()?;
    let restore = || -> Result<()> {
        for (key, text) in keys.iter().zip(&texts) {
            book.place.put(key, text)?;
        }
        book.verified("", 0).map(drop)
    };
    let broken = |number: u64, kind: &str| -> Result<()> {
        let report = book.verified("", 6)?;
        assert_eq!(report["status"], "broken");
        let broken = &report["chains"][0]["broken"];
        assert_eq!(
            (&broken["number"], &broken["kind"]),
            (&number.into(), &kind.into())
        );
        assert_eq!(report["chains"][0]["records"], number - 1);
        Ok(())
    };
    let head = book.verified("", 0)?["chains"][0]["head"].clone();
    let head = head.as_str().context("a head")?;

    let changed = String::from_utf8(texts[3].clone())?.replace("unpin", "pin");
    book.place.put(&keys[3], changed.as_bytes())?;
    broken(5, "unlinked")?;
    restore()?;
    book.place.delete(&keys[2])?;
    broken(3, "missing")?;
    restore()?;
    book.place.put(&keys[4], &texts[5])?;
    book.place.put(&keys[5], &texts[4])?;
    broken(5, "misplaced")?;
    restore()?;
    // One record more in the middle, and all after it moved on.
    for index in (4..8).rev() {
        let key = format!("_audit/main/000000000/{:012}.json", index + 2);
        book.place.put(&key, &texts[index])?;
    }
    broken(6, "misplaced")?;
    book.place
        .delete("_audit/main/000000000/000000000009.json")?;
    restore()?;
    book.place.put(&keys[7], b"{}")?;
    broken(8, "unreadable")?;
    restore()?;
    // Nobody can see from the rest that the end is gone.
    book.place.delete(&keys[7])?;
    book.verified("", 0)?;
    let lost = book.verified(&format!("--expect-head {head}"), 6)?;
    assert_eq!(lost["lost_head"], head);
    restore()?;
    book.verified(&format!("--expect-head {head}"), 0)?;
    // A head that was noted earlier is still there when others came after it.
    book.run(&format!("pin {}", ids[0]))?.exits(0)?;
    book.verified(&format!("--expect-head {head}"), 0)?;
    let text = book.run("runs --audit verify")?.exits(0)?.text();
    ensure!(text.contains("10 records, head "), "{text}");
    book.run("runs --audit verify --expect-head 12")?.exits(2)?;
    book.run("runs --audit --operation pin")?.exits(2)?;
    Ok(())
}

/// As of servers and people on several machines, each with a connection of its own.
async fn writers_make_one_chain(book: &Book) -> Result<()> {
    book.backups(1).await?;
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let clock = Arc::new(FixedClock::default());
        let audit = Audit::new(Arc::clone(&book.store), clock);
        writers.push(tokio::spawn(async move {
            for index in 0..RECORDS {
                let who = Who::default();
                let action = AuditAction::DropSandbox;
                let entry = AuditEntry {
                    database: Some(format!("{writer}-{index}")),
                    ..AuditEntry::new(action, AuditOutcome::Allowed, who)
                };
                audit.append(&entry).await?;
            }
            anyhow::Ok(())
        }));
    }
    for writer in writers {
        writer.await??;
    }
    let report = book.verified("", 0)?;
    assert_eq!(report["chains"].as_array().map(Vec::len), Some(1));
    assert_eq!(report["chains"][0]["records"], WRITERS * RECORDS);
    let records = book.records()?;
    let names: BTreeSet<_> = records
        .iter()
        .map(|record| record["database"].as_str())
        .collect();
    assert_eq!(names.len(), WRITERS * RECORDS);
    let few = book
        .run("runs --audit --limit 3 --json")?
        .exits(0)?
        .json()?;
    assert_eq!(few.as_array().map(Vec::len), Some(3));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_changed_in_a_folder_is_written_down() -> Result<()> {
    what_the_program_changes_is_written_down(&Book::local()?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: run ./scripts/test"]
async fn what_is_changed_in_a_bucket_is_written_down() -> Result<()> {
    what_the_program_changes_is_written_down(&Book::in_bucket("audit_story")?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_changes_the_files_is_found_out() -> Result<()> {
    changes_show(&Book::local()?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: run ./scripts/test"]
async fn whoever_changes_the_objects_is_found_out() -> Result<()> {
    changes_show(&Book::in_bucket("audit_changes")?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_a_folder_make_one_chain() -> Result<()> {
    writers_make_one_chain(&Book::local()?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: run ./scripts/test"]
async fn writers_of_a_bucket_make_one_chain() -> Result<()> {
    writers_make_one_chain(&Book::in_bucket("audit_writers")?).await
}
