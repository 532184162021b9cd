//! One backup into several stores at once.
//!
//! A [`FanOut`] is a store that writes everything to all of its members while it passes. The
//! slowest sets the pace. A member that fails, or that takes nothing for too long, is given up for
//! the rest of the run and never spoils the others: writing fails only when it fails everywhere.
//! [`Store::settle`] in the end removes what is left where the backup is not, and
//! [`FanOut::outcomes`] tells who has it. Reading goes to the first member that was not given up.

mod member;
mod spread;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::future::join_all;
use futures::stream::{self, BoxStream, StreamExt as _};
use tokio_util::sync::CancellationToken;

use crate::body::BodyStream;
use crate::error::{Error, ErrorKind, PortError};
use crate::store::{Depth, Entry, ObjectMeta, PutOptions, Store, StoreError, StoreKey};
pub(crate) use member::Member;

/// Several stores that get the same.
#[derive(Debug)]
pub struct FanOut {
    members: Vec<Member>,
    stall: Duration,
}

/// How a run ended for one member.
#[derive(Debug)]
pub struct MemberOutcome {
    /// The member's name.
    pub name: String,
    /// Why it has not got everything, if so.
    pub failure: Option<PortError>,
    /// What could not be removed there.
    pub warnings: Vec<String>,
}

impl FanOut {
    /// A fan-out to these stores, by the names that outcomes have. A member that takes no bytes
    /// for `stall` is given up.
    #[must_use]
    pub fn new(
        stores: impl IntoIterator<Item = (String, Arc<dyn Store>)>,
        stall: Duration,
    ) -> Self {
        let members = stores.into_iter();
        Self {
            members: members
                .map(|(name, store)| Member::new(name, store))
                .collect(),
            stall,
        }
    }

    /// Makes members that are empty repositories of the id that the others have, and returns the
    /// ids of all. A member that cannot be used is given up.
    ///
    /// # Errors
    /// That of the first member when none can be used.
    pub async fn prepare(&self, now: DateTime<Utc>) -> Result<Vec<String>, Error> {
        let found = join_all(self.members.iter().map(Member::repository)).await;
        let mut known = found.iter().filter_map(|found| found.as_ref().ok());
        let mut like = known.find_map(Clone::clone);
        let (mut ids, mut failure) = (Vec::new(), None);
        for (member, found) in self.members.iter().zip(found) {
            let joined = match found {
                Ok(_) => member.join_repository(now, like.as_deref()).await,
                Err(error) => Err(error),
            };
            match joined {
                Ok(id) => {
                    like.get_or_insert_with(|| id.clone());
                    if !ids.contains(&id) {
                        ids.push(id);
                    }
                }
                Err(error) => {
                    member.give_up(PortError::new(error.kind(), crate::error::chain(&error)));
                    failure.get_or_insert(error);
                }
            }
        }
        match failure {
            Some(error) if ids.is_empty() => Err(error),
            _ => Ok(ids),
        }
    }

    /// How it went everywhere, when all is over.
    pub fn outcomes(&self) -> Vec<MemberOutcome> {
        self.members.iter().map(Member::outcome).collect()
    }

    fn active(&self) -> Vec<&Member> {
        let members = self.members.iter();
        members.filter(|member| member.is_active()).collect()
    }

    fn first(&self) -> Result<&Member, PortError> {
        let mut members = self.members.iter();
        members
            .find(|member| member.is_active())
            .ok_or_else(nobody_left)
    }
}

fn nobody_left() -> PortError {
    PortError::new(ErrorKind::Unavailable, "no destination is left")
}

/// Keeps those members for which it went well, if there is one; else all, and the worst failure.
fn outcome<T>(results: Vec<(&Member, Result<T, PortError>)>) -> Result<T, PortError> {
    let (mut done, mut failed) = (None, Vec::new());
    for (member, result) in results {
        match result {
            Ok(value) => {
                done.get_or_insert(value);
            }
            Err(error) => failed.push((member, error)),
        }
    }
    let Some(done) = done else {
        // What may still turn up must not be taken for something that failed.
        failed.sort_by_key(|(member, _)| !member.is_uncertain());
        let mut failed = failed.into_iter();
        return Err(failed.next().map_or_else(nobody_left, |(_, error)| error));
    };
    for (member, error) in failed {
        member.give_up(error);
    }
    Ok(done)
}

#[async_trait]
impl Store for FanOut {
    fn describe(&self) -> String {
        let members = self.members.iter();
        let places: Vec<String> = members.map(|member| member.store().describe()).collect();
        places.join(", ")
    }

    fn capacity(&self, options: &PutOptions) -> u64 {
        let members = self.members.iter();
        let smallest = members.map(|member| member.store().capacity(options)).min();
        smallest.unwrap_or(u64::MAX)
    }

    async fn put(
        &self,
        key: &StoreKey,
        body: BodyStream,
        options: &PutOptions,
        cancel: &CancellationToken,
    ) -> Result<u64, StoreError> {
        let spread = spread::Spread {
            key,
            options,
            stall: self.stall,
        };
        outcome(spread.put(self.active(), body, cancel).await?)
    }

    async fn create(&self, key: &StoreKey, content: Bytes) -> Result<(), StoreError> {
        let active = self.active();
        let created = join_all(active.iter().map(|m| m.create(key, &content))).await;
        outcome(active.into_iter().zip(created).collect())
    }

    fn members(&self) -> Vec<Arc<dyn Store>> {
        let active = self.active().into_iter();
        active.map(Member::shared_store).collect()
    }

    fn exclude(&self, member: &Arc<dyn Store>, reason: PortError) {
        let is_it = |own: &&Member| Arc::ptr_eq(&own.shared_store(), member);
        if let Some(own) = self.members.iter().find(is_it) {
            own.give_up(reason);
        }
    }

    async fn settle(&self) {
        join_all(self.members.iter().map(Member::settle)).await;
    }

    async fn read(
        &self,
        key: &StoreKey,
        range: Option<Range<u64>>,
    ) -> Result<BodyStream, StoreError> {
        self.first()?.store().read(key, range).await
    }

    async fn head(&self, key: &StoreKey) -> Result<ObjectMeta, StoreError> {
        self.first()?.store().head(key).await
    }

    fn list(
        &self,
        prefix: Option<&StoreKey>,
        depth: Depth,
    ) -> BoxStream<'_, Result<Entry, StoreError>> {
        match self.first() {
            Ok(member) => member.store().list(prefix, depth),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        let members = self.members.iter().filter(|member| !member.is_uncertain());
        let deleted =
            join_all(members.map(|m| async move { (m, m.store().delete(key).await) })).await;
        // One that was given up is tried, and may well be the one that cannot.
        let failed = deleted
            .into_iter()
            .find_map(|(member, deleted)| deleted.err().filter(|_| member.is_active()));
        failed.map_or(Ok(()), Err)
    }
}
