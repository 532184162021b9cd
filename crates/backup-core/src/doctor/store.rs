//! Trying a store: everything that backups, restores and prunes ask of one, with objects of our own
//! that no listing of backups shows.

use std::io;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::{Finding, compare_clocks, on_purpose};
use crate::body::{BodyStream, collect};
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::error::{ErrorKind, PortError, chain};
use crate::layout;
use crate::store::{Depth, Entry, PutOptions, Store, StoreKey};

/// Longer than one part of an upload, whatever the store makes of that.
const LARGE: usize = 9 << 20;
/// What a body is handed over in.
const PIECE: usize = 256 << 10;

/// What was learned of a store besides the findings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreTrial {
    /// The id of its repository; none while it is empty.
    pub repository: Option<String>,
}

/// Tries a store. What was found is in `findings` also when the caller gives up waiting.
///
/// Whatever is written is removed again; what cannot be removed is named.
pub async fn examine_store(
    store: &dyn Store,
    clock: &dyn Clock,
    findings: &mut Vec<Finding>,
    cancel: &CancellationToken,
) -> StoreTrial {
    let mut trial = StoreTrial::default();
    if !look(store, &mut trial, findings).await {
        return trial;
    }
    let mut probe = Probe {
        store,
        key: layout::probe_key(rand::random()),
        cancel,
        removable: true,
    };
    let before = clock.now();
    if let Err(error) = probe.write(Bytes::from_static(b"probe")).await {
        findings.push(cannot_write(&error));
        return trial;
    }
    let after = clock.now();
    findings.push(Finding::ok("writes", "objects can be written"));
    probe.read(findings).await;
    probe.list(findings).await;
    probe.tell_time((before, after), findings).await;
    conditions(store, findings).await;
    probe.remove(findings).await;
    probe.large(findings).await;
    trial
}

/// What reading alone tells: whether it is there, and what it holds. Whether to go on.
async fn look(store: &dyn Store, trial: &mut StoreTrial, findings: &mut Vec<Finding>) -> bool {
    // A list first: a bucket that does not exist says so, where some servers would make it.
    let prefix = layout::backups_prefix();
    let first = store.list(Some(&prefix), Depth::Children).next().await;
    if let Some(Err(error)) = first {
        findings.push(unreachable(&error));
        return false;
    }
    let catalog = Catalog::new(store);
    match catalog.existing_repository().await {
        Ok(Some(id)) => {
            findings.push(Finding::ok("reachable", format!("holds repository {id}")));
            trial.repository = Some(id);
        }
        Ok(None) if first.is_some() => findings.push(
            Finding::problem(
                "no-repository-record",
                "there are backups, but no repository.json, so nothing is written there",
            )
            .remedy("check that this is the right place; restore repository.json from a copy"),
        ),
        Ok(None) => findings.push(Finding::ok(
            "reachable",
            "reachable and empty: the first backup makes the repository",
        )),
        Err(error) => {
            let finding = Finding::problem("repository-unreadable", chain(&error));
            let remedy = error.hint().unwrap_or("see what stands in repository.json");
            findings.push(finding.remedy(remedy));
        }
    }
    true
}

fn unreachable(error: &PortError) -> Finding {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            let finding = Finding::problem("cannot-list", chain(error));
            finding.remedy(error.hint().unwrap_or(
                "check the credentials, and give them the right to list the bucket \
                 (s3:ListBucket)",
            ))
        }
        ErrorKind::NotFound => {
            let finding = Finding::problem("not-there", chain(error));
            finding.remedy(error.hint().unwrap_or(
                "make the bucket or the directory, or correct the url of the destination",
            ))
        }
        _ => {
            let finding = Finding::problem("unreachable", chain(error));
            finding.remedy(error.hint().unwrap_or(
                "check url and endpoint of the destination, the name, the port and the network \
                 between",
            ))
        }
    }
}

fn cannot_write(error: &PortError) -> Finding {
    let finding = Finding::problem("cannot-write", chain(error));
    match (error.kind(), error.hint()) {
        (_, Some(hint)) => finding.remedy(hint),
        (ErrorKind::PermissionDenied, None) => finding.remedy(
            "give the credentials the right to write (s3:PutObject), or use others for backups",
        ),
        _ => finding,
    }
}

/// Whether runs that meet can be kept apart.
async fn conditions(store: &dyn Store, findings: &mut Vec<Finding>) {
    findings.push(match store.check_conditions().await {
        Ok(()) => Finding::ok(
            "conditional-writes",
            "heeds conditions on writing, so runs that meet are kept apart",
        ),
        Err(error) if error.kind() == ErrorKind::Unsuitable => {
            Finding::failure("no-conditional-writes", &error)
        }
        Err(error) => Finding::failure("conditional-writes-failed", &error),
    });
}

/// An object of ours.
struct Probe<'a> {
    store: &'a dyn Store,
    key: StoreKey,
    cancel: &'a CancellationToken,
    removable: bool,
}

impl Probe<'_> {
    /// Writes it. An answer that got lost is resolved by reading back.
    async fn write(&self, content: Bytes) -> Result<(), PortError> {
        let Err(error) = self.store.create(&self.key, content.clone()).await else {
            return Ok(());
        };
        match self.content(content.len()).await {
            Ok(found) if found == content => Ok(()),
            _ => Err(error),
        }
    }

    async fn content(&self, limit: usize) -> Result<Bytes, PortError> {
        collect(self.store.read(&self.key, None).await?, limit).await
    }

    async fn read(&self, findings: &mut Vec<Finding>) {
        let whole = self.content(64).await;
        let part = match self.store.read(&self.key, Some(1..4)).await {
            Ok(body) => collect(body, 64).await,
            Err(error) => Err(error),
        };
        findings.push(match (whole, part) {
            (Ok(whole), Ok(part)) if whole == "probe" && part == "rob" => {
                Finding::ok("reads", "objects can be read, also in ranges")
            }
            (Ok(_), Ok(_)) => Finding::problem(
                "reads-differ",
                "what was just written is read back differently",
            )
            .remedy("do not keep backups there: the store, or a proxy before it, changes them"),
            (Err(error), _) if error.kind() == ErrorKind::PermissionDenied => {
                let finding = Finding::warning("cannot-read", chain(&error));
                finding.remedy(
                    "a backup reads back what it is not sure of: give the credentials the right \
                     to read (s3:GetObject)",
                )
            }
            (Err(error), _) | (_, Err(error)) => Finding::failure("cannot-read", &error),
        });
    }

    /// Whether a listing shows at once what was written.
    async fn list(&self, findings: &mut Vec<Finding>) {
        let prefix = layout::probes_prefix();
        let mut entries = self.store.list(Some(&prefix), Depth::Children);
        let mut seen = false;
        while let Some(entry) = entries.next().await {
            match entry {
                Ok(Entry::Object(meta)) => seen |= meta.key == self.key,
                Ok(Entry::Prefix(_)) => {}
                Err(error) => {
                    findings.push(Finding::failure("cannot-list", &error));
                    return;
                }
            }
        }
        findings.push(if seen {
            Finding::ok("lists", "a listing shows at once what was written")
        } else {
            Finding::problem(
                "listing-late",
                "a listing does not show what was just written, so new backups would be missed",
            )
            .remedy("use a store that is strongly consistent, and no cache before it")
        });
    }

    /// Compares the store's clock with ours, which said these times around the writing.
    async fn tell_time(
        &self,
        (before, after): (DateTime<Utc>, DateTime<Utc>),
        findings: &mut Vec<Finding>,
    ) {
        let Ok(meta) = self.store.head(&self.key).await else {
            return;
        };
        // A store tells whole seconds only.
        let around = (
            before - TimeDelta::seconds(1),
            after + TimeDelta::seconds(1),
        );
        let ids = ("store-clock", "store-clock-differs");
        findings.push(compare_clocks(ids, meta.modified, around));
    }

    async fn remove(&mut self, findings: &mut Vec<Finding>) {
        match self.store.delete(&self.key).await {
            Ok(()) => findings.push(Finding::ok("deletes", "objects can be deleted")),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                self.removable = false;
                let left = format!(
                    "the login may not delete, which is a good way to keep backups from thieves; \
                     prune with another one. {} had to be left: it is small, and anybody may \
                     remove it",
                    self.key
                );
                findings.push(Finding::note("cannot-delete", left));
            }
            Err(error) => {
                self.removable = false;
                let finding = Finding::warning("delete-failed", chain(&error));
                findings.push(finding.remedy(format!("delete {} by hand", self.key)));
            }
        }
    }

    /// Uploads something in parts. Where nothing can be deleted, the upload is given up at its end.
    async fn large(&mut self, findings: &mut Vec<Finding>) {
        self.key = layout::probe_key(rand::random());
        let options = PutOptions {
            expected_bytes: Some(LARGE as u64),
        };
        let body = large_body(self.removable);
        let put = self.store.put(&self.key, body, &options, self.cancel);
        let good = match put.await {
            Ok(bytes) => self.removable && bytes == LARGE as u64,
            Err(error) if !self.removable && chain(&error).contains(&on_purpose().to_string()) => {
                true
            }
            Err(error) => {
                let finding = Finding::failure("cannot-upload-parts", &error);
                findings.push(match finding.remedy {
                    Some(_) => finding,
                    None => finding.remedy(
                        "large backups go up in parts: allow that (s3:PutObject, \
                         s3:AbortMultipartUpload), and that much in one request where a proxy is \
                         before the store",
                    ),
                });
                return;
            }
        };
        if good && self.removable {
            let length = self.store.head(&self.key).await.map(|meta| meta.bytes);
            if length.is_ok_and(|bytes| bytes == LARGE as u64) {
                findings.push(Finding::ok("uploads", "large objects go up in parts"));
            } else {
                let text = "an upload in parts was confirmed, and is not there as it was sent";
                let finding = Finding::problem("upload-lost", text);
                findings.push(finding.remedy("do not keep backups there"));
            }
            if let Err(error) = self.store.delete(&self.key).await {
                let finding = Finding::warning("delete-failed", chain(&error));
                findings.push(finding.remedy(format!("delete {} by hand", self.key)));
            }
        } else if good {
            let text = "large objects go up in parts (tried but for the end, which would stay)";
            findings.push(Finding::ok("uploads", text));
        } else {
            let text = "a large object arrived with another length than was sent";
            findings.push(Finding::problem("upload-lost", text));
        }
    }
}

/// `LARGE` bytes, then the end, or else an error by which the upload is given up.
fn large_body(ends_well: bool) -> BodyStream {
    let piece = Bytes::from(vec![0x5a_u8; PIECE]);
    let pieces = (0..LARGE / PIECE).map(move |_| Ok(piece.clone()));
    let end = (!ends_well).then(|| Err(io::Error::other(on_purpose())));
    stream::iter(pieces.chain(end)).boxed()
}
