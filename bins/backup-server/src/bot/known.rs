//! What the bot knows: what was last read of the places, as everybody else is told it.

use backup_app::{JobView, SystemClock};
use backup_core::clock::Clock as _;
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use super::machine::{BackupLine, Knows, SourceLine};
use crate::access::Caller;
use crate::pages::show::parse;
use crate::state::Server;

pub(super) struct Known<'a>(pub(super) &'a Server);

impl Knows for Known<'_> {
    fn now(&self) -> DateTime<Utc> {
        SystemClock.now()
    }

    fn sources(&self, caller: &Caller) -> Option<Vec<SourceLine>> {
        let overview = self.0.overview()?;
        let seen = overview.sources.iter();
        let seen = seen.filter(|source| caller.0.sees(Some(&source.name)));
        let lines = seen.map(|source| SourceLine {
            name: source.name.clone(),
            status: source.status,
            backups: source.backups,
            latest: source
                .latest
                .as_ref()
                .and_then(|latest| parse(&latest.started_at)),
        });
        Some(lines.collect())
    }

    fn backups(&self, caller: &Caller, source: &str) -> Vec<BackupLine> {
        let Some(overview) = self.0.overview().filter(|_| caller.0.sees(Some(source))) else {
            return Vec::new();
        };
        let own = overview.backups.iter();
        let own = own.filter(|backup| backup.view.source == source && backup.view.is_database());
        let lines = own.filter_map(|backup| {
            Some(BackupLine {
                id: backup.view.id.clone(),
                at: parse(&backup.view.started_at)?,
                bytes: backup.view.raw_bytes,
                is_good: backup.is_whole && backup.view.status == "success",
            })
        });
        lines.collect()
    }

    fn jobs(&self, caller: &Caller) -> Vec<JobView> {
        let mut all = self.0.jobs.all();
        all.retain(|job| job.by == caller.0.name && caller.0.sees(job.source.as_deref()));
        all
    }

    fn zone_of(&self, source: &str) -> Tz {
        let overview = self.0.overview();
        overview.map_or(self.0.zone, |overview| self.0.zone_of(&overview, source))
    }

    fn lasts(&self) -> TimeDelta {
        let ttl = self.0.app.config().sandbox.ttl;
        TimeDelta::from_std(ttl).unwrap_or_default()
    }
}
