//! The id of a backup that is about to be taken, and the lease that makes it ours alone.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt as _;
use futures::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{BackupRequest, Engine, unless};
use crate::backup::{BackupId, SourceName};
use crate::catalog::{Catalog, ListRequest};
use crate::error::{Error, ErrorKind, PortError, chain};
use crate::layout;
use crate::lease::{Lease, LeaseKind, SlotMark, Work};
use crate::manifest::Manifest;
use crate::observer::Event;
use crate::run_record::Operation;
use crate::store::{Depth, Store};

/// How often an id is drawn. Two runs of one source draw the same one only when they begin in the
/// same second, and then one time in 65536.
const DRAWS: usize = 4;

/// By how much the clocks of hosts may differ.
const APART: TimeDelta = TimeDelta::minutes(10);

/// How long whoever only sees to what a dead run left is waited for; longer than a lease of the usual
/// length lasts that is not renewed, as when he dies at it.
const TIDYING: Duration = Duration::from_mins(2);

/// Between two looks whether he is done.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// What a run may write under, and until when.
pub(super) struct Turn {
    pub(super) id: BackupId,
    /// One in each store.
    leases: Vec<(Arc<dyn Store>, Lease)>,
    token: CancellationToken,
}

impl Engine {
    /// Looks whether another run takes backups of the source now, for a caller who does something
    /// to the source before he asks for one. It holds nothing: whoever comes right after is seen
    /// only by the backup itself. So is a store that does not answer.
    ///
    /// # Errors
    /// [`Error::Held`].
    ///
    /// # Cancellation
    /// `Cancelled`.
    pub async fn check_turn(
        &self,
        source: &SourceName,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        for store in self.turn_stores() {
            let Some(leases) = self.clone().over(store).leases() else {
                continue;
            };
            let mut tidying = Tidying::new();
            while let Err(held @ Error::Held { .. }) =
                unless(cancel, leases.check_free(source)).await?
            {
                tidying.outlasts(held, cancel).await?;
            }
        }
        Ok(())
    }

    /// The newest backup of the source that began at or after a moment, in any of the places. One that a filter
    /// of its own makes smaller does not count, nor one whose clock was ahead, nor what was adopted.
    ///
    /// # Errors
    /// What the places report.
    pub async fn taken_since(
        &self,
        source: &SourceName,
        since: DateTime<Utc>,
        cancel: &CancellationToken,
    ) -> Result<Option<BackupId>, Error> {
        let latest = self.clock.now() + APART;
        let counts = |manifest: &Manifest| {
            let is_whole = !manifest.filtered || manifest.as_configured;
            let is_own = is_whole && !manifest.adopted;
            is_own && (since..=latest).contains(&manifest.started_at)
        };
        // One place that does not answer hides nothing that another has.
        let mut unread = None;
        for store in self.turn_stores() {
            let request = ListRequest {
                source: Some(source.clone()),
                since: Some(since),
                limit: None,
            };
            match unless(cancel, Catalog::new(store.as_ref()).list(&request)).await? {
                Ok(listing) => {
                    if let Some(manifest) = listing.backups.into_iter().find(counts) {
                        return Ok(Some(manifest.id));
                    }
                }
                Err(error) => unread = Some(error),
            }
        }
        unread.map_or(Ok(None), Err)
    }

    /// Whether the backup that was asked for is one that nobody has taken. To be asked under the lease.
    pub(super) async fn check_wanted(
        &self,
        request: &BackupRequest,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let Some(since) = request.unless_since else {
            return Ok(());
        };
        match self.taken_since(&request.source, since, cancel).await {
            Ok(None) => Ok(()),
            Ok(Some(backup)) => Err(Error::Taken {
                source_name: request.source.clone(),
                backup,
            }),
            // A place that is away is given up, as it is by a backup that is not shared.
            Err(error) if !self.store.members().is_empty() && error.kind().is_outage() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Holds a lease that is not about one backup. None where the engine was not told how to.
    ///
    /// # Errors
    /// [`Error::Held`] when another run has it.
    pub async fn hold(
        &self,
        kind: LeaseKind,
        source: &SourceName,
        operation: Operation,
        cancel: &CancellationToken,
    ) -> Result<Option<Lease>, Error> {
        let work = Work {
            operation,
            backup: None,
            slot: None,
        };
        self.hold_for(kind, source, &work, cancel).await
    }

    /// Holds the turn to do what a schedule asks for at its slot. None where the engine was not told
    /// how to.
    ///
    /// # Errors
    /// [`Error::Held`] when another run has it.
    pub async fn hold_slot(
        &self,
        schedule: &SourceName,
        operation: Operation,
        slot: DateTime<Utc>,
        cancel: &CancellationToken,
    ) -> Result<Option<Lease>, Error> {
        let work = Work {
            operation,
            backup: None,
            slot: Some(slot),
        };
        let kind = LeaseKind::Schedule;
        self.hold_for(kind, schedule, &work, cancel).await
    }

    async fn hold_for(
        &self,
        kind: LeaseKind,
        source: &SourceName,
        work: &Work,
        cancel: &CancellationToken,
    ) -> Result<Option<Lease>, Error> {
        let Some(leases) = self.leases() else {
            return Ok(None);
        };
        let taking = leases.exclusive(kind, source, work, cancel);
        Ok(Some(unless(cancel, taking).await??))
    }

    /// How far a schedule is.
    ///
    /// # Errors
    /// What the store reports.
    pub async fn slot(&self, schedule: &SourceName) -> Result<Option<SlotMark>, Error> {
        match self.leases() {
            Some(leases) => leases.slot(schedule).await,
            None => Ok(None),
        }
    }

    /// Each store has leases of its own.
    fn turn_stores(&self) -> Vec<Arc<dyn Store>> {
        let members = self.store.members();
        if members.is_empty() {
            vec![Arc::clone(&self.store)]
        } else {
            members
        }
    }

    /// Draws an id that nothing is stored under, and holds the source for it.
    pub(super) async fn take_turn(
        &self,
        source: &SourceName,
        started_at: DateTime<Utc>,
        cancel: &CancellationToken,
    ) -> Result<Turn, Error> {
        let stores = self.turn_stores();
        for _ in 0..DRAWS {
            let mut turn = Turn {
                id: BackupId::new(started_at, rand::random()),
                leases: Vec::new(),
                token: cancel.clone(),
            };
            if self.leases().is_none() {
                return Ok(turn);
            }
            let mut unused = true;
            for store in &stores {
                match unless(cancel, self.enter(store, source, &mut turn)).await {
                    Ok(Ok(is_unused)) => unused &= is_unused,
                    // What happens to one store is no harm to the others, except that somebody
                    // else is at it.
                    Ok(Err(error)) if stores.len() > 1 && error.kind().is_outage() => {
                        let why = crate::error::chain(&error);
                        let text = format!("no lease in {}: {why}", store.describe());
                        self.observer.event(&Event::Warning(text));
                    }
                    Ok(Err(error)) | Err(error) => {
                        self.end_turn(turn).await;
                        return Err(error);
                    }
                }
            }
            if unused {
                return Ok(turn);
            }
            self.end_turn(turn).await;
        }
        let taken = PortError::new(ErrorKind::Conflict, "every id that was drawn is taken");
        Err(Error::store(format!("name a backup of {source}"), taken))
    }

    /// Takes the lease of one store; whether nothing lies there under the id.
    async fn enter(
        &self,
        store: &Arc<dyn Store>,
        source: &SourceName,
        turn: &mut Turn,
    ) -> Result<bool, Error> {
        let engine = self.clone().over(Arc::clone(store));
        let Some(leases) = engine.leases() else {
            return Ok(true);
        };
        // Whoever had it before may have left nothing but this, which goes now.
        let left = leases.left_of(source).await.ok().flatten();
        let work = Work {
            operation: Operation::Backup,
            backup: Some(turn.id.clone()),
            slot: None,
        };
        let mut tidying = Tidying::new();
        let lease = loop {
            let (kind, token) = (LeaseKind::Backup, &turn.token);
            match leases.exclusive(kind, source, &work, token).await {
                Ok(lease) => break lease,
                Err(error) => tidying.outlasts(error, token).await.map_err(|error| {
                    // That of another store may have been lost meanwhile, which ends the wait too.
                    let loss = turn.leases.iter().find_map(|(_, lease)| lease.loss());
                    loss.unwrap_or(error)
                })?,
            }
        };
        // Whichever is lost ends the run: each token is a child of the one before.
        turn.token = lease.token().clone();
        turn.leases.push((Arc::clone(store), lease));
        if let Some(dead) = left
            && let Err(error) = engine.note_dead(&dead, &turn.token).await
            // Where there is no repository yet, no records are.
            && error.kind() != ErrorKind::NotFound
        {
            let why = chain(&error);
            let text = format!("the run that wrote {} is not recorded: {why}", dead.backup);
            self.observer.event(&Event::Warning(text));
        }
        // Nobody else writes below the source now: what is not there will not come.
        let prefix = layout::backup_prefix(source, &turn.id);
        match store.list(Some(&prefix), Depth::Children).next().await {
            None => Ok(true),
            Some(Ok(_)) => Ok(false),
            Some(Err(e)) => Err(Error::store(format!("list {prefix}"), e)),
        }
    }

    /// Lets others take backups of the source again. That it cannot is no failure of the run.
    pub(super) async fn end_turn(&self, turn: Turn) {
        for released in join_all(turn.leases.into_iter().map(|(_, lease)| lease.release())).await {
            if let Err(error) = released {
                let why = crate::error::chain(&error);
                let text = format!("the lease ends by itself only, in its own time: {why}");
                self.observer.event(&Event::Warning(text));
            }
        }
    }
}

/// Waits for whoever has the lease of backups and takes none; he is soon done.
struct Tidying {
    until: Instant,
    pause: Duration,
}

impl Tidying {
    fn new() -> Self {
        Self {
            until: Instant::now() + TIDYING,
            pause: FIRST_PAUSE,
        }
    }

    /// Whether to try again, after a while: otherwise the error stands.
    async fn outlasts(&mut self, error: Error, cancel: &CancellationToken) -> Result<(), Error> {
        let is_tidying = matches!(&error, Error::Held { holder, .. } if holder.is_tidying());
        if !is_tidying || Instant::now() >= self.until {
            return Err(error);
        }
        unless(cancel, tokio::time::sleep(self.pause)).await?;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
        Ok(())
    }
}

/// Whether the place still is what it was, with all objects of a backup that is to be committed.
async fn check_whole(store: &dyn Store, manifest: &Manifest) -> Result<(), Error> {
    let catalog = Catalog::new(store);
    let gone = |what: String| {
        let place = store.describe();
        let text = format!("{what} from {place}: somebody removed it meanwhile");
        Error::store(
            "commit the backup",
            PortError::new(ErrorKind::Conflict, text),
        )
    };
    if catalog.existing_repository().await?.is_none() {
        return Err(gone("repository.json is gone".to_owned()));
    }
    match catalog.lacking(manifest).await?.first() {
        Some(object) => Err(gone(format!("object {object} is gone"))),
        None => Ok(()),
    }
}

impl Turn {
    /// Cancelled with the run, and when a lease is lost.
    pub(super) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Sees that it is still our turn, and that all objects of the backup are there: somebody may
    /// have emptied the place meanwhile. To be asked right before the commit. A store where that
    /// does not hold is excluded from it, unless there is no other.
    pub(super) async fn confirm(
        &self,
        store: &dyn Store,
        manifest: &Manifest,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let members = store.members();
        let takes_part = |store: &Arc<dyn Store>| {
            members.is_empty() || members.iter().any(|member| Arc::ptr_eq(member, store))
        };
        let leases = self.leases.iter().filter(|(store, _)| takes_part(store));
        let leases: Vec<_> = leases.collect();
        let confirmed = join_all(leases.iter().map(|(store, lease)| async move {
            lease.confirm().await?;
            check_whole(store.as_ref(), manifest).await
        }));
        let mut failed = Vec::new();
        let confirmed = unless(cancel, confirmed).await?;
        for ((store, _), confirmed) in leases.iter().zip(confirmed) {
            match confirmed {
                Err(lost @ Error::LeaseLost { .. }) => return Err(lost),
                Err(error) => failed.push((store, error)),
                Ok(()) => {}
            }
        }
        if failed.len() == leases.len() {
            let first = failed.into_iter().next();
            return first.map_or(Ok(()), |(_, error)| Err(error));
        }
        for (member, error) in failed {
            store.exclude(member, PortError::new(error.kind(), chain(&error)));
        }
        Ok(())
    }

    /// What a run ends with: whoever was stopped because he lost his lease says so. Any other
    /// error is that of the run itself, which may not even know whether it has committed.
    pub(super) async fn judge<T>(
        &self,
        result: Result<T, Error>,
        cancel: &CancellationToken,
    ) -> Result<T, Error> {
        let Err(error) = &result else {
            return result;
        };
        if let Error::LeaseLost { by: None, .. } = error {
            for (_, lease) in &self.leases {
                let lost = lease.taken_over().await;
                if matches!(lost, Error::LeaseLost { by: Some(_), .. }) {
                    return Err(lost);
                }
            }
            return result;
        }
        let stopped = error.kind() == ErrorKind::Cancelled && !cancel.is_cancelled();
        match self.leases.iter().find_map(|(_, lease)| lease.loss()) {
            Some(lost) if stopped => Err(lost),
            _ => result,
        }
    }
}
