//! Says in the store what is being read, so that nobody removes it meanwhile.

use std::time::Duration;

use backup_core::engine::Engine;
use backup_core::error::chain;
use backup_core::lease::{Lease, Work};
use backup_core::manifest::Manifest;
use backup_core::run_record::Operation;

use super::Context;
use crate::render;

/// How long a store may take to note it. The work itself may well go on without.
const LIMIT: Duration = Duration::from_secs(10);

impl Context {
    /// Does `work`, which reads `backup`, while the store says so.
    pub(super) async fn reading<T>(
        &self,
        engine: &Engine,
        place: &str,
        (backup, operation): (&Manifest, Operation),
        work: impl Future<Output = T>,
    ) -> T {
        let work_to_do = Work {
            operation,
            backup: Some(backup.id.clone()),
        };
        let lease = self.reader_lease(engine, place, backup, &work_to_do).await;
        let result = work.await;
        if let Some(lease) = lease
            && let Err(error) = lease.release().await
        {
            let why = render::name(&chain(&error));
            render::warn(&format!("{place}: the note that it is read stays: {why}"));
        }
        result
    }

    /// None where the login may only read, or the store does not answer: that is said once, and
    /// is no reason not to read.
    async fn reader_lease(
        &self,
        engine: &Engine,
        place: &str,
        backup: &Manifest,
        work: &Work,
    ) -> Option<Lease> {
        let leases = engine.leases()?;
        let stop = self.interrupt.token();
        let taking = leases.reading(&backup.source, work, stop);
        let taken = tokio::select! {
            taken = tokio::time::timeout(LIMIT, taking) => taken,
            () = stop.cancelled() => return None,
        };
        let why = match taken {
            Ok(Ok(lease)) => return Some(lease),
            Ok(Err(error)) => chain(&error),
            Err(_) => "the store did not answer in time".to_owned(),
        };
        let first = self
            .unprotected
            .lock()
            .is_ok_and(|mut places| places.insert(place.to_owned()));
        if first {
            let why = render::name(&why);
            let what = "others cannot see what is being read here, and could remove it";
            render::note(&format!("{place}: {what}: {why}"));
        }
        None
    }
}
