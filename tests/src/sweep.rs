//! What `prune` does days later: to a server that checks the time of each request, a program whose clock
//! was moved is somebody to be refused, so the engine runs here, with a clock of its own.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use backup_core::backup::SourceName;
use backup_core::engine::{Engine, ExpireOutcome, ExpiryRules};
use backup_core::lease::{GivenUp, LeaseSettings};
use backup_core::retention::{Candidate, Count, KeepReason, RetentionPolicy, Verdict};
use backup_core::run_record::Who;
use backup_store::StoreConfig;
use backup_testing::{FakeProcesses, FixedClock};
use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use crate::s3::Server;

/// Longer than what dead runs leave is spared.
pub const LATER: Duration = Duration::from_hours(72);

/// Keeps all there is.
#[derive(Debug)]
struct All;

impl RetentionPolicy for All {
    fn evaluate(&self, candidates: &[Candidate], _now: DateTime<Utc>) -> Vec<Verdict> {
        let keep = |candidate: &Candidate| Verdict {
            id: candidate.id.clone(),
            keep: vec![KeepReason::Recent(Count::of(1000))],
        };
        candidates.iter().map(keep).collect()
    }
}

/// Removes what dead runs have left of a source at `url` in a bucket of `server`, as any prune does that keeps
/// all backups.
///
/// # Errors
/// When something was to go and is still there.
pub fn sweep(server: &Server, url: &str, source: &str) -> Result<ExpireOutcome> {
    let clock = FixedClock::new((SystemTime::now() + LATER).into());
    // Of the processes that there were, this one knows nothing.
    let leases = LeaseSettings {
        who: Who {
            user: "test".to_owned(),
            host: "another".to_owned(),
        },
        processes: Arc::new(FakeProcesses::new(1)),
        ttl: Duration::from_mins(1),
        given_up: GivenUp::default(),
    };
    let mut rules = ExpiryRules::new(Arc::new(All));
    rules.guards.clock_is_right = true;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome: Result<_> = runtime.block_on(async {
        let store = backup_store::open(&StoreConfig::parse(url, &server.options())?)?;
        let engine = Engine::new(store, Arc::new(clock)).with_leases(leases);
        let (source, never) = (SourceName::new(source)?, CancellationToken::new());
        let plan = engine.plan_expiry(&source, &rules, &never).await?;
        Ok(engine.expire(&plan, &never).await)
    });
    let outcome = outcome?;
    ensure!(outcome.deleted.is_empty(), "{:?}", outcome.deleted);
    ensure!(outcome.warnings.is_empty(), "{:?}", outcome.warnings);
    Ok(outcome)
}
