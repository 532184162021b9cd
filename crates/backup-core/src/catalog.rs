//! Committed backups: the manifests that the store holds, and nothing else.

mod completeness;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::backup::{BackupId, SourceName};
use crate::body::collect;
use crate::error::{Error, ErrorKind, PortError, chain};
use crate::history::{HistoryRequest, Proofs, Records};
use crate::layout;
use crate::manifest::{FORMAT, MAX_MANIFEST_BYTES, Manifest};
use crate::store::{Depth, Entry, Store, StoreKey};
use crate::versioned;
use completeness::Objects;

/// How many manifests are read at the same time.
const READERS: usize = 32;

/// How many sources are listed at the same time.
const LISTERS: usize = 8;

/// How many backups are looked at first where the newest that fits is wanted, and how many times
/// as many then.
const FIRST_LOOK: usize = 32;
const NEXT_LOOK: usize = 4;

/// What names a repository, in errors.
const REPOSITORY: &str = "repository.json";

/// Which backup is meant: an id, the beginning of one, or a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The newest of a source.
    Latest,
    /// The oldest of a source.
    Oldest,
    /// The newest of a source of which every byte was found good, by the records of runs: by a
    /// verification of its hashes or deeper, or by a whole restore.
    LatestVerified,
    /// An id or the beginning of one that only one backup has.
    Prefix(String),
}

/// The text selects nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is neither a backup id, nor the beginning of one, nor latest, latest-verified or oldest"
)]
pub struct ParseSelectorError(String);

impl FromStr for Selector {
    type Err = ParseSelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_prefix = text.starts_with(|c: char| c.is_ascii_digit())
            && text.len() <= 21
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        match text {
            "latest" => Ok(Self::Latest),
            "oldest" => Ok(Self::Oldest),
            "latest-verified" => Ok(Self::LatestVerified),
            _ if is_prefix => Ok(Self::Prefix(text.to_owned())),
            _ => Err(ParseSelectorError(text.chars().take(64).collect())),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Oldest => f.write_str("oldest"),
            Self::LatestVerified => f.write_str("latest-verified"),
            Self::Prefix(text) => f.write_str(text),
        }
    }
}

/// What a listing should bring.
#[derive(Debug, Clone, Default)]
pub struct ListRequest {
    /// Only this source.
    pub source: Option<SourceName>,
    /// Only backups that started at or after this moment.
    pub since: Option<DateTime<Utc>>,
    /// At most so many, the newest.
    pub limit: Option<usize>,
}

/// Committed backups, newest first.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Their records.
    pub backups: Vec<Manifest>,
    /// Manifests that exist and cannot be read, with the reason.
    pub damaged: Vec<(StoreKey, String)>,
    /// Names of backups without a manifest, among those that were looked at: a run that still goes
    /// on, what is left of one, or nothing at all any more.
    pub uncommitted: Vec<(SourceName, BackupId)>,
    /// Committed backups, also among the others, of which objects are gone or are of another
    /// length. Nothing is known of that when a bound was asked for.
    pub incomplete: Vec<Incomplete>,
}

impl Listing {
    /// Both as one; they must be of different sources.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.backups.extend(other.backups);
        self.backups
            .sort_by(|a, b| b.id.cmp(&a.id).then_with(|| a.source.cmp(&b.source)));
        self.damaged.extend(other.damaged);
        self.uncommitted.extend(other.uncommitted);
        self.incomplete.extend(other.incomplete);
        self
    }

    /// Whether objects of this backup are known to be gone.
    #[must_use]
    pub fn lacks(&self, backup: &Manifest) -> bool {
        self.lacking(backup).is_some()
    }

    /// What this backup is known to lack.
    #[must_use]
    pub fn lacking(&self, backup: &Manifest) -> Option<&Incomplete> {
        let is_it = |found: &&Incomplete| found.id == backup.id && found.source == backup.source;
        self.incomplete.iter().find(is_it)
    }
}

/// A backup that cannot be restored as a whole any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incomplete {
    /// The source.
    pub source: SourceName,
    /// The backup.
    pub id: BackupId,
    /// The names of its objects that are not as the manifest says.
    pub objects: Vec<String>,
}

/// A folder of a backup, committed or not.
#[derive(Debug)]
struct Found {
    source: SourceName,
    id: BackupId,
    /// What lies in it, if that was listed.
    objects: Option<Objects>,
}

/// Names a repository, so that a replaced or emptied bucket is noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RepositoryRecord {
    format: u32,
    repository: String,
    created_at: DateTime<Utc>,
}

/// Finds committed backups in one store.
#[derive(Debug, Clone, Copy)]
pub struct Catalog<'a> {
    store: &'a dyn Store,
}

impl<'a> Catalog<'a> {
    /// The catalog of `store`.
    #[must_use]
    pub fn new(store: &'a dyn Store) -> Self {
        Self { store }
    }

    /// The repository's id, made if the store is empty.
    ///
    /// # Errors
    /// `Refused` when there are backups but no record: somebody else's or a damaged place.
    pub async fn repository(&self, now: DateTime<Utc>) -> Result<String, Error> {
        self.join_repository(now, None).await
    }

    /// The repository's id; an empty store gets that of another one, if given, since it is going to
    /// have the same backups.
    ///
    /// # Errors
    /// As [`Self::repository`].
    pub async fn join_repository(
        &self,
        now: DateTime<Utc>,
        like: Option<&str>,
    ) -> Result<String, Error> {
        if let Some(id) = self.existing_repository().await? {
            return Ok(id);
        }
        // A bucket that does not exist fails here, before anything is written: some servers would
        // make it.
        if !self.sources().await?.is_empty() {
            let place = self.store.describe();
            let source = PortError::new(
                ErrorKind::Refused,
                "there are backups but no repository.json",
            )
            .with_hint("check that this is the right place; restore the file from a copy");
            return Err(Error::store(format!("open repository {place}"), source));
        }
        let new = || format!("{:032x}", rand::random::<u128>());
        let record = RepositoryRecord {
            format: FORMAT,
            repository: like.map_or_else(new, str::to_owned),
            created_at: now,
        };
        let text = versioned::encode(&record, REPOSITORY)
            .map_err(|e| Error::store("write repository.json", e))?;
        let created = self
            .store
            .create(&layout::repository_key(), Bytes::from(text))
            .await;
        // Another run may have been first, or our own answer may be lost: what counts is
        // what is there now.
        match (self.existing_repository().await?, created) {
            (Some(id), _) => Ok(id),
            (None, Err(e)) => Err(Error::store("write repository.json", e)),
            (None, Ok(())) => Err(Error::corrupt(
                "repository.json was written but cannot be read back",
            )),
        }
    }

    /// The repository's id, unless the store is empty.
    ///
    /// # Errors
    /// `Corrupt` when its record is damaged, `InvalidInput` when a later release wrote it.
    pub async fn existing_repository(&self) -> Result<Option<String>, Error> {
        let key = layout::repository_key();
        let Some(text) = read_small(self.store, &key, MAX_MANIFEST_BYTES).await? else {
            return Ok(None);
        };
        match versioned::decode::<RepositoryRecord>(&text, FORMAT, REPOSITORY) {
            Ok(record) => Ok(Some(record.repository)),
            Err(e) => {
                let what = format!("open repository {}", self.store.describe());
                Err(match e.kind() {
                    ErrorKind::Corrupt => Error::Corrupt {
                        what,
                        source: Some(e),
                    },
                    _ => Error::store(what, e),
                })
            }
        }
    }

    /// Every source that has objects here, sorted.
    ///
    /// # Errors
    /// What the store reports.
    pub async fn sources(&self) -> Result<Vec<SourceName>, Error> {
        let prefix = layout::backups_prefix();
        let mut sources: Vec<_> = self
            .store
            .list(Some(&prefix), Depth::Children)
            .try_filter_map(|entry| async move {
                Ok(match entry {
                    Entry::Prefix(prefix) => layout::parse_source_prefix(&prefix),
                    Entry::Object(_) => None,
                })
            })
            .try_collect()
            .await
            .map_err(|e| Error::store("list sources", e))?;
        sources.sort();
        Ok(sources)
    }

    /// Committed backups, newest first.
    ///
    /// What the request leaves out is not read. Without a bound, the objects are listed and not
    /// only the folders: so a store that remembers what it read can tell from the listing that
    /// it is still the same, and backups that lost objects are found.
    ///
    /// # Errors
    /// What the store reports; a damaged manifest is in the result instead.
    pub async fn list(&self, request: &ListRequest) -> Result<Listing, Error> {
        let bounded = request.limit.is_some() || request.since.is_some();
        let depth = if bounded {
            Depth::Children
        } else {
            Depth::Recursive
        };
        let mut found = self.candidates(request, depth).await?;
        found.sort_by(|a, b| b.id.cmp(&a.id).then_with(|| a.source.cmp(&b.source)));
        let limit = request.limit.unwrap_or(usize::MAX);
        let mut listing = Listing::default();
        let mut found = found.into_iter();
        // Those that turn out to be none are made up for; more than that is not read.
        while listing.backups.len() < limit {
            let wanted = found.by_ref().take(limit - listing.backups.len());
            let wanted: Vec<_> = wanted.collect();
            if wanted.is_empty() {
                break;
            }
            let mut read = stream::iter(wanted)
                .map(|found| async move {
                    let read = self.read_found(&found).await;
                    (found, read)
                })
                .buffered(READERS);
            while let Some((found, item)) = read.next().await {
                match item {
                    Ok(Some((manifest, lacking))) => {
                        listing.incomplete.extend(lacking);
                        listing.backups.push(manifest);
                    }
                    Ok(None) => listing.uncommitted.push((found.source, found.id)),
                    Err(Unreadable::Damaged(key, reason)) => listing.damaged.push((key, reason)),
                    Err(Unreadable::Store(error)) => return Err(error),
                }
            }
        }
        Ok(listing)
    }

    /// What looks like a backup, committed or not: by the name of its folder, or by an object in it.
    async fn candidates(&self, request: &ListRequest, depth: Depth) -> Result<Vec<Found>, Error> {
        let sources = match &request.source {
            Some(source) => vec![source.clone()],
            None => self.sources().await?,
        };
        let found: Vec<Vec<_>> = stream::iter(sources)
            .map(|source| self.candidates_of(source, request.since, depth))
            .buffer_unordered(LISTERS)
            .try_collect()
            .await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn candidates_of(
        &self,
        source: SourceName,
        since: Option<DateTime<Utc>>,
        depth: Depth,
    ) -> Result<Vec<Found>, Error> {
        let prefix = layout::source_prefix(&source);
        let mut entries = self.store.list(Some(&prefix), depth);
        let mut found: BTreeMap<BackupId, Option<Objects>> = BTreeMap::new();
        let wanted = |id: &BackupId| since.is_none_or(|since| id.started_at() >= since);
        while let Some(entry) = entries.next().await {
            let entry = entry.map_err(|e| Error::store(format!("list {source}"), e))?;
            match entry {
                Entry::Prefix(prefix) => {
                    let id = layout::parse_backup_prefix(&source, &prefix);
                    found.extend(id.filter(wanted).map(|id| (id, None)));
                }
                Entry::Object(meta) => {
                    let Some((id, name)) = layout::parse_object_key(&source, &meta.key) else {
                        continue;
                    };
                    if wanted(&id) {
                        let objects = found.entry(id).or_default().get_or_insert_default();
                        objects.add(name, meta.bytes);
                    }
                }
            }
        }
        let named = found.into_iter().map(|(id, objects)| Found {
            source: source.clone(),
            id,
            objects,
        });
        Ok(named.collect())
    }

    /// Ids of a source that will never be backups, and since when: whoever was to commit them has
    /// lost his lease. What lies beside such a bar are orphans. The bar itself must stay as long as
    /// that run may be alive, however long it stood still.
    ///
    /// # Errors
    /// What the store reports.
    pub async fn barred(
        &self,
        source: &SourceName,
    ) -> Result<Vec<(BackupId, DateTime<Utc>)>, Error> {
        let request = ListRequest {
            source: Some(source.clone()),
            ..ListRequest::default()
        };
        let found = self.candidates(&request, Depth::Children).await?;
        stream::iter(found)
            .map(|found| async move {
                let key = layout::manifest_key(&found.source, &found.id);
                let text = read_small(self.store, &key, MAX_MANIFEST_BYTES).await?;
                Ok(text
                    .and_then(|text| Manifest::barred_at(&text))
                    .map(|at| (found.id, at)))
            })
            .buffered(READERS)
            .try_filter_map(|bar| std::future::ready(Ok(bar)))
            .try_collect()
            .await
    }

    /// Whether what stands in the place of this backup's manifest keeps it from being one.
    pub(crate) async fn is_barred(
        &self,
        source: &SourceName,
        id: &BackupId,
    ) -> Result<bool, Error> {
        let key = layout::manifest_key(source, id);
        let text = read_small(self.store, &key, MAX_MANIFEST_BYTES).await?;
        Ok(text.is_some_and(|text| Manifest::barred_at(&text).is_some()))
    }

    async fn read(
        &self,
        source: &SourceName,
        id: &BackupId,
    ) -> Result<Option<Manifest>, Unreadable> {
        let key = layout::manifest_key(source, id);
        let read = read_small(self.store, &key, MAX_MANIFEST_BYTES).await;
        let Some(text) = read.map_err(Unreadable::Store)? else {
            return Ok(None);
        };
        match Manifest::decode(&text) {
            Ok(manifest) if manifest.id == *id && manifest.source == *source => Ok(Some(manifest)),
            Ok(_) => Err(Unreadable::Damaged(
                key,
                "manifest belongs to another backup".to_owned(),
            )),
            Err(_) if Manifest::barred_at(&text).is_some() => Ok(None),
            Err(e) => Err(Unreadable::Damaged(key, chain(&e))),
        }
    }

    /// Whether a backup that was found before is certainly no more.
    pub async fn is_gone(&self, backup: &Manifest) -> bool {
        let key = layout::manifest_key(&backup.source, &backup.id);
        let there = self.store.head(&key).await;
        there.is_err_and(|e| e.kind() == ErrorKind::NotFound)
    }

    /// One backup. Without a source, `latest` and `oldest` need the store to hold only one; a backup
    /// that lacks what its source was meant to have is neither.
    ///
    /// # Errors
    /// `NotFound`, or `InvalidInput` when more than one backup is meant.
    pub async fn find(
        &self,
        selector: &Selector,
        source: Option<&SourceName>,
    ) -> Result<Manifest, Error> {
        match selector {
            Selector::Prefix(text) => self.find_prefix(text, source).await,
            Selector::Latest | Selector::Oldest => self.find_end(selector, source).await,
            Selector::LatestVerified => self.find_verified(source).await,
        }
    }

    /// One that is damaged now, though it was found good once, is passed over: it is said so when
    /// somebody asks for it.
    async fn find_verified(&self, source: Option<&SourceName>) -> Result<Manifest, Error> {
        let source = match source {
            Some(source) => source.clone(),
            None => self.only_source().await?,
        };
        let mut limit = FIRST_LOOK;
        loop {
            let request = ListRequest {
                source: Some(source.clone()),
                limit: Some(limit),
                ..ListRequest::default()
            };
            let found = self.list(&request).await?.backups;
            let are_all = found.len() < limit;
            let history = HistoryRequest {
                since: found.last().map(|oldest| oldest.started_at),
                ..HistoryRequest::default()
            };
            let proofs = Proofs::new(Records(self.store).list(&history).await?.runs);
            let mut found = found.into_iter();
            let verified = found.find(|backup| backup.is_whole() && proofs.is_verified(backup));
            match verified {
                Some(backup) => return Ok(backup),
                None if are_all => {
                    let what = format!("verified backup of source {:?}", source.as_str());
                    return Err(Error::NotFound { what });
                }
                None => limit = limit.saturating_mul(NEXT_LOOK),
            }
        }
    }

    async fn find_end(
        &self,
        selector: &Selector,
        source: Option<&SourceName>,
    ) -> Result<Manifest, Error> {
        let source = match source {
            Some(source) => source.clone(),
            None => self.only_source().await?,
        };
        let request = ListRequest {
            source: Some(source.clone()),
            ..ListRequest::default()
        };
        let mut found = self.candidates(&request, Depth::Children).await?;
        found.sort_by(|a, b| a.id.cmp(&b.id));
        if *selector == Selector::Latest {
            found.reverse();
        }
        for Found { source, id, .. } in found {
            match self.read(&source, &id).await {
                // One that lacks something never stands for a full one.
                Ok(Some(manifest)) if manifest.is_whole() => return Ok(manifest),
                Ok(_) => {}
                Err(Unreadable::Store(error)) => return Err(error),
                Err(Unreadable::Damaged(key, reason)) => {
                    let what = format!("{selector} is meant to be {id}, but {key}: {reason}");
                    return Err(Error::corrupt(what));
                }
            }
        }
        Err(Error::NotFound {
            what: format!("complete backup of source {:?}", source.as_str()),
        })
    }

    async fn only_source(&self) -> Result<SourceName, Error> {
        let mut sources = self.sources().await?;
        match sources.len() {
            0 => Err(Error::NotFound {
                what: format!("backup in {}", self.store.describe()),
            }),
            1 => Ok(sources.remove(0)),
            count => Err(Error::InvalidInput {
                message: format!("{count} sources are stored here; say which with --source"),
            }),
        }
    }

    async fn find_prefix(
        &self,
        text: &str,
        source: Option<&SourceName>,
    ) -> Result<Manifest, Error> {
        let request = ListRequest {
            source: source.cloned(),
            ..ListRequest::default()
        };
        let mut found = self.candidates(&request, Depth::Children).await?;
        found.retain(|found| found.id.as_str().starts_with(text));
        let mut matches = Vec::new();
        for Found { source, id, .. } in found {
            match self.read(&source, &id).await {
                Ok(manifest) => matches.extend(manifest),
                Err(Unreadable::Store(error)) => return Err(error),
                Err(Unreadable::Damaged(key, reason)) => {
                    return Err(Error::corrupt(format!("{key}: {reason}")));
                }
            }
        }
        match matches.len() {
            0 => Err(Error::NotFound {
                what: format!("backup {text}"),
            }),
            1 => Ok(matches.remove(0)),
            count => Err(Error::InvalidInput {
                message: format!("{count} backups begin with {text}"),
            }),
        }
    }
}

/// A small object, or `None` when it is not there.
pub(crate) async fn read_small(
    store: &dyn Store,
    key: &StoreKey,
    limit: usize,
) -> Result<Option<Bytes>, Error> {
    let read = match store.read(key, None).await {
        Ok(body) => collect(body, limit).await,
        Err(e) => Err(e),
    };
    match read {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::store(format!("read {key}"), e)),
    }
}

/// Why a small object is of no use.
pub(crate) enum Unreadable {
    /// It is there, and not what it should be.
    Damaged(StoreKey, String),
    /// The store does not say.
    Store(Error),
}
