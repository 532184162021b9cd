//! How fresh and how healthy backups are, from their places alone, in the form that JSON, metrics
//! and text share.

mod metrics;
mod notifiers;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use backup_config::SourceConfig;
use backup_core::backup::SourceName;
use backup_core::catalog::ListRequest;
use backup_core::check::{self, Copies, Finding, Limits, Status};
use backup_core::clock::Clock as _;
use backup_core::error::chain;
use backup_core::history::HistoryRequest;
use backup_core::layout;
use backup_core::retention::Tier;
use backup_core::run_record::Operation;
use backup_retention::Placement;
use backup_store::Space;
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

pub use metrics::{of_bot, of_work};
pub(crate) use notifiers::Lost;
pub use notifiers::NotifierCheck;

use crate::clock::SystemClock;
use crate::compose::{App, Lister};
use crate::error::AppError;
use crate::listing::Held;
use crate::place::Place;
use crate::text::{as_time, as_word};
use crate::whole_file::{self, Readers};

/// How far back failures matter where there is no backup to tell.
const REMEMBERED: TimeDelta = TimeDelta::days(35);

/// Everything that was looked at.
#[derive(Debug, Serialize)]
pub struct CheckReport {
    /// The worst of all.
    #[serde(serialize_with = "as_word")]
    pub status: Status,
    /// When.
    #[serde(serialize_with = "as_time")]
    pub checked_at: DateTime<Utc>,
    /// Each source at each of its places.
    pub sources: Vec<SourceCheck>,
    /// The places themselves.
    pub destinations: Vec<DestinationCheck>,
    /// Who is to be told, if anybody is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notifiers: Vec<NotifierCheck>,
    /// How many records there are of each operation and result.
    #[serde(skip)]
    runs: RunCounts,
}

/// How often each operation had each result.
type RunCounts = BTreeMap<(String, &'static str), u64>;

/// Records of several places may be of the same run.
fn counted_runs(looked: &[Looked]) -> RunCounts {
    let held = looked.iter().filter_map(|looked| looked.held.as_ref().ok());
    let runs = held.flat_map(|held| &held.runs);
    let runs: BTreeMap<_, _> = runs.map(|run| (&run.id, run)).collect();
    let mut counts = RunCounts::new();
    for run in runs.values() {
        let of = (run.operation.to_string(), run.result.as_str());
        *counts.entry(of).or_default() += 1;
    }
    counts
}

/// One source at one place. Of what could not be asked, nothing is known.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the names are those of the documented JSON")]
pub struct SourceCheck {
    pub source: String,
    pub destination: String,
    #[serde(serialize_with = "as_word")]
    #[schema(value_type = String)]
    pub status: Status,
    #[serde(skip)]
    pub reached: bool,
    pub backup: Option<String>,
    #[serde(serialize_with = "maybe_moment")]
    #[schema(value_type = Option<String>)]
    pub last_success: Option<DateTime<Utc>>,
    pub age_seconds: Option<i64>,
    #[serde(serialize_with = "maybe_moment")]
    #[schema(value_type = Option<String>)]
    pub last_verified: Option<DateTime<Utc>>,
    #[serde(serialize_with = "maybe_moment")]
    #[schema(value_type = Option<String>)]
    pub last_drill: Option<DateTime<Utc>>,
    pub duration_seconds: Option<f64>,
    pub raw_bytes: Option<u64>,
    pub stored_bytes: Option<u64>,
    pub rows: Option<u64>,
    pub findings: Vec<FindingView>,
}

/// One place.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of the documented JSON")]
pub struct DestinationCheck {
    pub name: String,
    #[serde(serialize_with = "as_word")]
    pub status: Status,
    pub repository_bytes: Option<u64>,
    pub free_bytes: Option<u64>,
    pub used_bytes: Option<u64>,
    pub findings: Vec<FindingView>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the names are those of the documented JSON")]
pub struct FindingView {
    #[serde(serialize_with = "as_word")]
    #[schema(value_type = String)]
    pub severity: Status,
    pub kind: &'static str,
    pub message: String,
}

impl From<Finding> for FindingView {
    fn from(finding: Finding) -> Self {
        Self {
            severity: finding.severity,
            kind: finding.kind,
            message: finding.message,
        }
    }
}

#[expect(clippy::ref_option, reason = "serde gives references")]
fn maybe_moment<S: Serializer>(
    at: &Option<DateTime<Utc>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => as_time(at, serializer),
        None => serializer.serialize_none(),
    }
}

impl CheckReport {
    /// All findings with where they are, the worst first.
    #[must_use]
    pub fn findings(&self) -> Vec<(String, &FindingView)> {
        let of_places = self.destinations.iter().flat_map(|place| {
            let at = |finding| (place.name.clone(), finding);
            place.findings.iter().map(at)
        });
        let of_sources = self.sources.iter().flat_map(|source| {
            let name = format!("{} at {}", source.source, source.destination);
            let at = move |finding| (name.clone(), finding);
            source.findings.iter().map(at)
        });
        let of_notifiers = self.notifiers.iter().flat_map(|notifier| {
            let name = format!("notifier {}", notifier.name);
            let at = move |finding| (name.clone(), finding);
            notifier.findings.iter().map(at)
        });
        let of_places = of_places.chain(of_notifiers);
        let mut all: Vec<_> = of_sources.chain(of_places).collect();
        all.sort_by_key(|(_, finding)| std::cmp::Reverse(finding.severity));
        all
    }

    /// The metrics, in Prometheus' text format.
    #[must_use]
    pub fn metrics(&self) -> String {
        metrics::text(self)
    }

    /// The metrics, as a file that Prometheus' node exporter reads. It is replaced as a whole, and
    /// everybody may read it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_metrics(&self, path: &Path) -> Result<(), AppError> {
        let written = whole_file::write(path, &self.metrics(), Readers::All);
        written.map_err(|source| AppError::File {
            operation: format!("write metrics {}", path.display()),
            source,
        })
    }
}

/// One place, and what it has if it could be asked.
pub(crate) struct Looked {
    pub(crate) place: Place,
    space: Option<Space>,
    pub(crate) held: Result<Arc<Held>, Arc<AppError>>,
}

impl App {
    /// Looks at the backups of these sources, else of those that are configured, else of all that
    /// the places have. A place that cannot be asked is a finding, and the others are judged.
    ///
    /// # Errors
    /// When names or settings make no sense.
    pub async fn check(&self, asked: &[String]) -> Result<CheckReport, AppError> {
        let now = SystemClock.now();
        let named = if asked.is_empty() {
            self.sources()
        } else {
            asked.to_vec()
        };
        let wanted: BTreeSet<SourceName> = named
            .into_iter()
            .map(|name| SourceName::new(name).map_err(|e| AppError::usage(e.to_string())))
            .collect::<Result<_, _>>()?;
        let places = self.places_of_all(&wanted)?;
        let looked = join_all(places.into_iter().map(|place| self.look(place, now))).await;
        self.judge(&wanted, &looked, now)
    }

    /// What was found, of these sources or else of all that places have.
    pub(crate) fn judge(
        &self,
        wanted: &BTreeSet<SourceName>,
        looked: &[Looked],
        now: DateTime<Utc>,
    ) -> Result<CheckReport, AppError> {
        let known: Vec<_> = found(looked).into_iter().collect();
        let sources: BTreeSet<_> = if wanted.is_empty() {
            known.into_iter().collect()
        } else {
            let failing = self.failing_members(looked, now);
            let known: Vec<_> = known.into_iter().chain(failing).collect();
            let members = wanted.iter().flat_map(|name| self.members(name, &known));
            members.collect()
        };
        let mut checks = Vec::new();
        for source in &sources {
            checks.extend(self.check_source(source, looked, now)?);
        }
        let nothing = sources.is_empty();
        let destinations: Vec<_> = looked
            .iter()
            .map(|looked| self.check_place(looked, nothing))
            .collect();
        let of_sources = checks.iter().map(|check| check.status);
        let of_places = destinations.iter().map(|check| check.status);
        let notifiers = self.check_notifiers(looked);
        let of_notifiers = notifiers.iter().map(|check| check.status);
        let of_places = of_places.chain(of_notifiers);
        Ok(CheckReport {
            status: of_sources.chain(of_places).max().unwrap_or(Status::Ok),
            checked_at: now,
            sources: checks,
            destinations,
            notifiers,
            runs: counted_runs(looked),
        })
    }

    /// Sources that stand for several, and databases of them, whose backup failed of late: it may
    /// have been the first. One that stands for several fails by itself when its server does not
    /// tell its databases, and that is over when any of them has a backup since.
    fn failing_members(&self, looked: &[Looked], now: DateTime<Utc>) -> BTreeSet<SourceName> {
        let held = looked.iter().filter_map(|looked| looked.held.as_ref().ok());
        let runs: Vec<_> = held
            .flat_map(|held| &held.runs)
            .filter(|run| run.operation == Operation::Backup)
            .collect();
        let made_up_for = |family: &SourceName, failed: DateTime<Utc>| {
            let prefix = format!("{family}/");
            runs.iter().any(|run| {
                let source = run.source.as_ref().map_or("", SourceName::as_str);
                run.is_success() && source.starts_with(&prefix) && run.finished_at > failed
            })
        };
        let failed = runs.iter().filter(|run| !run.is_success());
        let late = failed.filter_map(|run| {
            let source = run.source.as_ref()?;
            let is_late = now - run.finished_at <= self.limits(source).max_age;
            let counts = if self.is_family(source) {
                !made_up_for(source, run.finished_at)
            } else {
                self.is_configured(source) && source.as_str().contains('/')
            };
            (is_late && counts).then(|| source.clone())
        });
        late.collect()
    }

    fn places_of_all(&self, sources: &BTreeSet<SourceName>) -> Result<Vec<Place>, AppError> {
        if sources.is_empty() {
            return self.places();
        }
        let mut places: BTreeMap<String, Place> = BTreeMap::new();
        for source in sources {
            let of_source = self.places_of_source(source)?.into_iter();
            places.extend(of_source.map(|place| (place.name.clone(), place)));
        }
        Ok(places.into_values().collect())
    }

    async fn look(&self, place: Place, now: DateTime<Utc>) -> Looked {
        let held = match self.lister(&place).await {
            Ok(lister) => self.held(&lister, now).await,
            Err(error) => Err(error),
        };
        self.looked(place, held.map(Arc::new))
    }

    /// A place and what came of asking it.
    pub(crate) fn looked(&self, place: Place, held: Result<Arc<Held>, AppError>) -> Looked {
        Looked {
            space: place.space(self.environment()),
            place,
            held: held.map_err(Arc::new),
        }
    }

    /// Everything that a check wants to know of a place.
    pub(crate) async fn held(&self, lister: &Lister, now: DateTime<Utc>) -> Result<Held, AppError> {
        let request = ListRequest::default();
        let listing = lister.engine.catalog().list(&request).await?;
        let oldest = listing.backups.last().map(|oldest| oldest.started_at);
        let drills = self
            .config()
            .alerts
            .undrilled_after
            .map_or(REMEMBERED, span);
        let remembered = now.checked_sub_signed(drills.max(REMEMBERED));
        let request = HistoryRequest {
            since: oldest.into_iter().chain(remembered).min(),
            ..HistoryRequest::default()
        };
        let history = lister.engine.history().list(&request).await?;
        lister.remember();
        Ok(Held {
            listing,
            runs: history.runs,
            damaged_records: history.damaged,
            lost_notices: self.lost_notices(&lister.engine).await,
        })
    }

    /// One source at all of its places.
    fn check_source(
        &self,
        source: &SourceName,
        looked: &[Looked],
        now: DateTime<Utc>,
    ) -> Result<Vec<SourceCheck>, AppError> {
        let settings = self.config().settings_of(source.as_str());
        let partly = settings.is_some_and(SourceConfig::is_partial);
        let limits = self.limits(source);
        let places = self.places_of_source(source)?;
        let is_its = |looked: &&Looked| places.iter().any(|p| p.name == looked.place.name);
        let copies: Vec<(&Looked, Option<Copies>)> = looked
            .iter()
            .filter(is_its)
            .map(|looked| {
                let held = looked.held.as_ref().ok();
                let copies =
                    held.map(|held| Copies::new(source, &held.listing, &held.runs).partly(partly));
                (looked, copies)
            })
            .collect();
        let runs = looked.iter().filter_map(|looked| looked.held.as_ref().ok());
        let drilled = check::last_drill(source, runs.flat_map(|held| &held.runs));
        // Where its databases have backups, one that stands for several lacks none of its own.
        let prefix = format!("{source}/");
        let stands_for_others = self.is_family(source)
            && found(looked)
                .iter()
                .any(|name| name.as_str().starts_with(&prefix));
        let checks = copies.iter().map(|(looked, own)| {
            let place = &looked.place.name;
            let Some(own) = own else {
                return Ok(unknown(source, looked));
            };
            let others = copies
                .iter()
                .filter(|(other, _)| other.place.name != *place);
            let others = others.filter_map(|(_, copies)| copies.clone()).collect();
            let placement = self.placement(source, &looked.place)?;
            let (others, limits) = of_tiers(placement.as_ref(), own, others, limits);
            let others: Vec<_> = others.iter().collect();
            let mut findings = check::judge(own, &others, drilled, &limits, now);
            if stands_for_others {
                findings.retain(|finding| finding.kind == "failed");
            }
            let newest = own.newest(now);
            Ok(SourceCheck {
                status: worst(&findings),
                reached: true,
                backup: newest.map(|newest| newest.id.to_string()),
                last_success: newest.map(|newest| newest.finished_at),
                age_seconds: newest.map(|newest| (now - newest.finished_at).num_seconds()),
                last_verified: own.verified_at(),
                last_drill: drilled,
                duration_seconds: newest
                    .map(|newest| (newest.finished_at - newest.started_at).as_seconds_f64()),
                raw_bytes: newest.map(|newest| newest.totals.raw_bytes),
                stored_bytes: newest.map(|newest| newest.totals.stored_bytes),
                rows: newest.map(|newest| newest.totals.rows),
                findings: findings.into_iter().map(FindingView::from).collect(),
                ..unknown(source, looked)
            })
        });
        checks.collect()
    }

    fn limits(&self, source: &SourceName) -> Limits {
        let alerts = &self.config().alerts;
        let settings = self.config().settings_of(source.as_str());
        let own = settings.and_then(|settings| settings.max_age);
        Limits {
            max_age: span(own.unwrap_or(alerts.max_age)),
            min_size_ratio: alerts.min_size_ratio,
            max_duration: alerts.max_duration.map(span),
            undrilled_after: alerts.undrilled_after.map(span),
        }
    }

    /// The place itself; `nothing` is whether no source was found anywhere.
    fn check_place(&self, looked: &Looked, nothing: bool) -> DestinationCheck {
        let mut findings = Vec::new();
        let mut repository_bytes = None;
        match &looked.held {
            Ok(held) => {
                let damaged = held.damaged_records.iter();
                findings.extend(damaged.map(|(key, reason)| {
                    Finding::warning("damaged-record", format!("{key}: {reason}: remove it"))
                }));
                let stored = held.listing.backups.iter();
                repository_bytes = Some(stored.map(|b| b.totals.stored_bytes).sum());
                if nothing {
                    let message = "there is no backup: take one, or look at another place";
                    findings.push(Finding::critical("no-backup", message));
                }
            }
            Err(error) => findings.push(unreachable(error)),
        }
        let limit = u64::from(self.config().defaults.warn_used_percent);
        let used = looked.space.map(Space::used_percent);
        if let Some(used) = used.filter(|used| *used > limit) {
            let message = format!("{used} % of the disk are used, more than {limit} %: make room");
            findings.push(Finding::warning("space", message));
        }
        DestinationCheck {
            name: looked.place.name.clone(),
            status: worst(&findings),
            repository_bytes,
            free_bytes: looked.space.map(|space| space.free),
            used_bytes: looked.space.map(|space| space.used),
            findings: findings.into_iter().map(FindingView::from).collect(),
        }
    }
}

/// What a place that is for some tiers only is judged by: it lacks nothing that does not belong
/// there, and its newest backup is older.
fn of_tiers(
    placement: Option<&Placement>,
    own: &Copies,
    others: Vec<Copies>,
    limits: Limits,
) -> (Vec<Copies>, Limits) {
    let Some(placement) = placement else {
        return (others, limits);
    };
    let offered: Vec<_> = others.iter().flat_map(Copies::candidates).collect();
    let lacking = placement.lacking(&offered, &own.candidates()).into_iter();
    let lacking = lacking.map(|index| offered[index].id.clone()).collect();
    let days = match placement.shortest() {
        None | Some(Tier::Daily) => 1,
        Some(Tier::Weekly) => 7,
        Some(Tier::Monthly) => 31,
        Some(Tier::Yearly) => 366,
    };
    let max_age = limits.max_age.checked_add(&TimeDelta::days(days));
    let limits = Limits {
        max_age: max_age.unwrap_or(TimeDelta::MAX),
        ..limits
    };
    (
        others.iter().map(|copies| copies.only(&lacking)).collect(),
        limits,
    )
}

/// A source at a place that could not be asked.
fn unknown(source: &SourceName, looked: &Looked) -> SourceCheck {
    let finding = looked.held.as_ref().err().map(|error| unreachable(error));
    SourceCheck {
        source: source.to_string(),
        destination: looked.place.name.clone(),
        status: Status::Unknown,
        reached: false,
        backup: None,
        last_success: None,
        age_seconds: None,
        last_verified: None,
        last_drill: None,
        duration_seconds: None,
        raw_bytes: None,
        stored_bytes: None,
        rows: None,
        findings: finding.into_iter().map(FindingView::from).collect(),
    }
}

fn unreachable(error: &AppError) -> Finding {
    let hint = error
        .hint()
        .map_or_else(String::new, |hint| format!(": {hint}"));
    Finding::unknown("unreachable", format!("{}{hint}", chain(error)))
}

/// Every source of which a place has at least a manifest.
fn found(looked: &[Looked]) -> BTreeSet<SourceName> {
    let held = looked.iter().filter_map(|looked| looked.held.as_ref().ok());
    held.flat_map(|held| {
        let unreadable = held.listing.damaged.iter();
        let unreadable = unreadable.filter_map(|(key, _)| layout::parse_manifest_key(key));
        let backups = held.listing.backups.iter();
        let readable = backups.map(|backup| backup.source.clone());
        readable.chain(unreadable.map(|(source, _)| source))
    })
    .collect()
}

fn worst(findings: &[Finding]) -> Status {
    let severities = findings.iter().map(|finding| finding.severity);
    severities.max().unwrap_or(Status::Ok)
}

fn span(duration: std::time::Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}
