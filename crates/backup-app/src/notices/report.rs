//! What a run, or a look at the places, has to tell; and the notices that come of it.

mod facts;

use std::collections::{BTreeMap, BTreeSet};

use backup_core::backup::{BackupId, SourceName};
use backup_core::check::Status;
use backup_core::clock::Clock as _;
use backup_core::error::Error as CoreError;
use backup_core::notifier::told::{Situation, Telling};
use backup_core::notifier::{Fact, Notice, NoticeEvent, Tone};
use backup_core::run_record::{Operation, RunRecord, RunResult};
use chrono::{DateTime, Utc};
use tokio::sync::OnceCell;

use super::background::Background;
use super::{kind_of, words};
use crate::backup_run::BackupRun;
use crate::check::{CheckReport, SourceCheck};
use crate::clock::SystemClock;
use crate::compose::App;
use crate::error::AppError;
use crate::place::Place;
use crate::text::{counted, shown};
use crate::who::who;

/// What is found by looking at the places.
const STALE: &str = "stale";

/// A finding that is told when it happens.
const FAILED: &str = "failed";

/// What there is to tell of one source.
#[derive(Debug)]
pub(super) struct Report {
    /// What the work was; none of what was found by looking.
    pub(super) operation: Option<Operation>,
    pub(super) source: SourceName,
    pub(super) places: Vec<Place>,
    /// The backup and the place that it was about.
    backup: Option<String>,
    place: Option<String>,
    /// What is not fine; nothing if all is.
    kinds: BTreeSet<String>,
    /// Whether it only begins.
    pub(super) begins: bool,
    /// When it was over.
    at: DateTime<Utc>,
    /// How bad it is that it is not fine.
    tone: Tone,
    title: String,
    remarks: Vec<String>,
    error: Option<String>,
    hint: Option<String>,
    facts: Vec<Fact>,
    /// A backup that is new.
    taken: Option<BackupId>,
    background: OnceCell<Background>,
}

impl Report {
    fn new(app: &App, operation: Option<Operation>, source: &SourceName) -> Self {
        Self {
            operation,
            source: source.clone(),
            places: app.places_of_source(source).unwrap_or_default(),
            backup: None,
            place: None,
            kinds: BTreeSet::new(),
            begins: false,
            at: SystemClock.now(),
            tone: Tone::Bad,
            title: String::new(),
            remarks: Vec::new(),
            error: None,
            hint: None,
            facts: Vec::new(),
            taken: None,
            background: OnceCell::new(),
        }
    }

    /// A run begins.
    pub(super) fn begun(app: &App, operation: &Operation, source: &SourceName) -> Self {
        let (what, of) = (words::named(operation), shown(source.as_str()));
        Self {
            begins: true,
            title: format!("{what} of {of} begins"),
            facts: facts::who(&who()),
            ..Self::new(app, Some(operation.clone()), source)
        }
    }

    /// A backup, after all its attempts. None if somebody stopped it.
    pub(super) fn of_backup(
        app: &App,
        (source, database): (&SourceName, &str),
        run: &BackupRun,
        begun: DateTime<Utc>,
    ) -> Option<Self> {
        // The record knows what of an error may be read by everybody.
        let mut record = RunRecord::begin(Operation::Backup, who(), begun);
        match &run.result {
            Ok(outcome) => record.backed_up(outcome),
            Err(AppError::Engine(CoreError::Cancelled)) => return None,
            Err(AppError::Engine(error)) => record.failed(error),
            Err(error) => {
                record.ended_with(error, error.kind());
                record.hint = error.hint();
            }
        }
        record.source = Some(source.clone());
        record.finished_at = SystemClock.now();
        let mut report = Self::of_run(app, &record, None)?;
        let away = run
            .destinations
            .iter()
            .filter(|place| place.error.is_some());
        if let Ok(outcome) = &run.result {
            report.taken = Some(outcome.manifest.id.clone());
            if away.count() > 0 {
                report.kinds = BTreeSet::from(["partial".to_owned()]);
                report.tone = Tone::Warning;
                report.entitle();
            }
            report.facts = facts::of_backup(&outcome.manifest, run);
        } else {
            report.facts = facts::of_failed_backup(database, &record, run);
        }
        Some(report)
    }

    /// Any other run. None if somebody stopped it, and of work that nobody is told of.
    pub(super) fn of_run(app: &App, run: &RunRecord, place: Option<&str>) -> Option<Self> {
        let kind = match run.result {
            RunResult::Success => None,
            RunResult::Warnings => Some("warnings".to_owned()),
            RunResult::Failed if run.damaged => Some("damaged".to_owned()),
            RunResult::Failed => Some(kind_of(run.kind)),
            RunResult::Interrupted => Some("interrupted".to_owned()),
            RunResult::Cancelled => return None,
        };
        let mut report = Self::new(app, Some(run.operation.clone()), run.source.as_ref()?);
        report.tone = match run.result {
            RunResult::Warnings => Tone::Warning,
            _ => Tone::Bad,
        };
        report.kinds = kind.into_iter().collect();
        report.backup = run.backup.as_ref().map(ToString::to_string);
        report.place = place.map(str::to_owned);
        report.error.clone_from(&run.error);
        report.hint.clone_from(&run.hint);
        if run.warnings > 0 && run.result == RunResult::Warnings {
            let warnings = counted(run.warnings, "warning");
            let what = format!("It gave {warnings}; the output or the log of the run has them.");
            report.remarks.push(what);
        }
        report.facts = facts::of_run(run);
        report.entitle();
        Some(report)
    }

    /// What was found of each source that could be asked, at all its places.
    pub(super) fn of_check(app: &App, check: &CheckReport) -> Vec<Self> {
        let mut sources: BTreeMap<&str, Vec<&SourceCheck>> = BTreeMap::new();
        for one in &check.sources {
            sources.entry(&one.source).or_default().push(one);
        }
        let mut reports = Vec::new();
        for (name, checks) in sources {
            let Ok(source) = SourceName::new(name) else {
                continue;
            };
            let mut report = Self::new(app, None, &source);
            for one in &checks {
                let told = one.findings.iter();
                for finding in told.filter(|found| is_told(found.severity, found.kind)) {
                    report.kinds.insert(finding.kind.to_owned());
                    let (place, what) = (&one.destination, &finding.message);
                    report.remarks.push(format!("{place}: {what}"));
                }
            }
            // A place that does not answer may be the one where something is wrong.
            let all_answer = checks.iter().all(|one| one.reached);
            if report.kinds.is_empty() && !all_answer {
                continue;
            }
            let worst = checks.iter().map(|one| one.status).max();
            report.tone = match worst {
                Some(Status::Critical) => Tone::Bad,
                _ => Tone::Warning,
            };
            report.facts = vec![words::fact("source", "Source", name)];
            report.entitle();
            reports.push(report);
        }
        reports
    }

    fn entitle(&mut self) {
        let of = shown(self.source.as_str());
        let is_fine = self.kinds.is_empty();
        self.title = match &self.operation {
            Some(operation) if is_fine => format!("{} of {of} succeeded", words::named(operation)),
            Some(operation) => {
                let ended = words::ended(&self.kinds);
                format!("{} of {of} {ended}", words::named(operation))
            }
            None if is_fine => format!("{of} is as it should be"),
            None => format!("{of} {}", words::found(&self.kinds)),
        };
    }

    /// What it is about, as it is remembered.
    pub(super) fn topic(&self) -> String {
        match &self.operation {
            Some(operation) => {
                let of = (self.backup.as_deref(), self.place.as_deref());
                topic_of(operation, of)
            }
            None => STALE.to_owned(),
        }
    }

    pub(super) fn situation(&self) -> Situation {
        Situation {
            topic: self.topic(),
            kinds: self.kinds.clone(),
            since: self.at,
        }
    }

    pub(super) fn is_fine(&self) -> bool {
        self.kinds.is_empty()
    }

    /// The event of a trouble.
    pub(super) fn trouble(&self) -> NoticeEvent {
        match self.operation {
            Some(_) => NoticeEvent::Failure,
            None => NoticeEvent::Stale,
        }
    }

    /// The notice of an event; `telling` is what made it worth telling, if it is not told each time.
    pub(super) async fn notice(
        &self,
        app: &App,
        event: NoticeEvent,
        telling: Option<Telling>,
    ) -> Notice {
        let mut remarks = self.remarks.clone();
        let mut title = self.title.clone();
        match telling {
            Some(Telling::Recovered { since }) => {
                let (when, long) = (words::when(since), words::lasting(self.at - since));
                title = match &self.operation {
                    Some(operation) => {
                        let (what, of) = (words::named(operation), shown(self.source.as_str()));
                        format!("{what} of {of} works again")
                    }
                    None => format!("{title} again"),
                };
                remarks.insert(0, format!("It was not fine since {when}, for {long}."));
            }
            Some(Telling::Reminder { since }) => {
                title = format!("Still: {title}");
                remarks.insert(0, since_then(since, self.at));
            }
            Some(Telling::Changed { since }) => remarks.insert(0, since_then(since, self.at)),
            Some(Telling::New) | None => {}
        }
        let tone = match event {
            NoticeEvent::Failure | NoticeEvent::Stale => self.tone,
            NoticeEvent::Started => Tone::Neutral,
            _ => Tone::Good,
        };
        let mut facts = self.facts.clone();
        if !self.begins {
            let reading = || Background::read(app, &self.source, self.taken.as_ref());
            let known = self.background.get_or_init(reading).await;
            facts.extend(facts::of_background(known, self.taken.is_some()));
        }
        Notice {
            operation: self.operation.clone(),
            source: Some(self.source.clone()),
            host: words::host(),
            remarks: remarks.iter().map(|text| text.as_str().into()).collect(),
            error: self.error.as_deref().map(Into::into),
            hint: self.hint.as_deref().map(Into::into),
            facts,
            ..Notice::new(event, tone, self.at, title)
        }
    }
}

/// What is not known is not told as if it were; what failed was told when it did.
fn is_told(severity: Status, kind: &str) -> bool {
    matches!(severity, Status::Warning | Status::Critical) && kind != FAILED
}

fn since_then(since: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let (when, long) = (words::when(since), words::lasting(now - since));
    format!("It is not fine since {when}, for {long}.")
}

/// That one backup, or one place, is fine says nothing of another.
fn topic_of(operation: &Operation, (backup, place): (Option<&str>, Option<&str>)) -> String {
    let of = match operation {
        Operation::Verify => [backup, place],
        Operation::Prune | Operation::Copy | Operation::Rekey => [None, place],
        _ => [None, None],
    };
    let mut topic = operation.to_string();
    for part in of.into_iter().flatten() {
        topic.push(' ');
        topic.push_str(part);
    }
    topic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fine_ends_no_trouble_of_another() {
        let of = |operation, backup, place| topic_of(&operation, (Some(backup), Some(place)));
        let damaged = of(Operation::Verify, "a", "near");
        assert_ne!(of(Operation::Verify, "b", "near"), damaged);
        assert_ne!(of(Operation::Verify, "a", "far"), damaged);
        assert_eq!(of(Operation::Verify, "a", "near"), damaged);
        assert_ne!(
            of(Operation::Prune, "a", "near"),
            of(Operation::Prune, "a", "far")
        );
        assert_eq!(
            of(Operation::Prune, "a", "near"),
            of(Operation::Prune, "b", "near")
        );
        assert_eq!(
            of(Operation::Backup, "a", "near"),
            of(Operation::Backup, "b", "far")
        );
    }
}
