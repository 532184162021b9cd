//! How long it takes to judge a very large repository.

use std::hint::black_box;

use backup_core::backup::BackupId;
use backup_core::retention::{Candidate, Count, Guards, plan};
use backup_retention::{AnyOf, Gfs, KeepLast, KeepWithin, Tz};
use chrono::{DateTime, TimeDelta, Utc};
use criterion::Criterion;

const BACKUPS: u16 = 50_000;

/// Twice that many, one every hour, newest first as a catalog lists them.
fn candidates(now: DateTime<Utc>) -> Vec<Candidate> {
    let hours = 0..i64::from(BACKUPS) * 2;
    let one = |hour: i64| Candidate::new(BackupId::new(now - TimeDelta::hours(hour), 7));
    hours.map(one).collect()
}

fn planning(criterion: &mut Criterion) {
    let now = DateTime::from_timestamp(1_770_000_000, 0).expect("a moment");
    let candidates = candidates(now);
    for (name, zone) in [("UTC", Tz::UTC), ("Europe/Berlin", Tz::Europe__Berlin)] {
        let gfs = Gfs {
            daily: Count::of(7),
            weekly: Count::of(4),
            monthly: Count::of(12),
            yearly: Count::of(999),
            zone,
        };
        let policy = AnyOf::new(vec![
            Box::new(gfs),
            Box::new(KeepLast(Count::of(10))),
            Box::new(KeepWithin(TimeDelta::days(30))),
        ]);
        criterion.bench_function(&format!("plan 100,000 backups, {name}"), |bencher| {
            bencher.iter(|| {
                let guards = Guards::default();
                plan(&policy, black_box(&candidates), &guards, now).expect("a good clock")
            });
        });
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    planning(&mut criterion);
    criterion.final_summary();
}
