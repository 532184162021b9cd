//! A full rehearsal: restore into a server that is thrown away, compare, look at the structure,
//! ask the questions that matter to its owner.

mod levels;
mod watch;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::verify::VerifyRequest;
use super::{CompareReport, Engine, RestoreOptions, VerifyLevel, unless};
use crate::drill::{Answer, Assertion, DrillServer, DrillSession, ServerFacts, StructureReport};
use crate::error::{Error, ErrorKind};
use crate::inspector::Inspector;
use crate::manifest::{Manifest, PartKind};
use crate::observer::Event;
use crate::restorer::{PartReader as _, Purpose, RestoreRequest, Selection};

use levels::Proved;
pub use levels::{DrillLevel, LevelResult, LevelState};
use watch::Watch;
pub use watch::{TableResult, TableState};

/// How to rehearse.
#[derive(Debug, Clone)]
pub struct DrillOptions {
    /// Parts at the same time.
    pub jobs: usize,
    /// What must hold in it.
    pub assertions: Vec<Assertion>,
    /// Looks into the parts of a backup that could not be restored: are they what was dumped?
    pub inspector: Arc<dyn Inspector>,
}

/// How long one step took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillStep {
    /// In words.
    pub name: &'static str,
    /// How long.
    pub took: TimeDelta,
}

/// What came of a rehearsal, good or bad.
#[derive(Debug)]
pub struct DrillOutcome {
    /// What was rehearsed.
    pub manifest: Manifest,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When everything was removed again.
    pub finished_at: DateTime<Utc>,
    /// The server, if it started.
    pub server: Option<ServerFacts>,
    /// From opening the backup to the end of the comparison: what a real restore would take.
    pub restore_time: Option<TimeDelta>,
    /// The load alone.
    pub load_time: Option<TimeDelta>,
    /// The steps, in their order.
    pub steps: Vec<DrillStep>,
    /// Stored bytes that were fetched for the restore; known when it succeeded.
    pub bytes_read: Option<u64>,
    /// Table by table, once the backup was opened.
    pub tables: Vec<TableResult>,
    /// The comparison, if it came to that.
    pub compare: Option<CompareReport>,
    /// The look at tables and indexes, if it came to that.
    pub structure: Option<StructureReport>,
    /// The assertions that were tried, with what came of them.
    pub assertions: Vec<(Assertion, Answer)>,
    /// What went wrong without making the result incomplete.
    pub warnings: Vec<String>,
    /// What was left out because this is a rehearsal.
    pub left_out: Vec<String>,
    /// What was proved.
    pub levels: Vec<LevelResult>,
    /// Why it failed, if it did.
    pub error: Option<Error>,
}

impl DrillOutcome {
    /// The deepest level up to which everything passed.
    #[must_use]
    pub fn level(&self) -> Option<DrillLevel> {
        let passed = self
            .levels
            .iter()
            .take_while(|l| l.state == LevelState::Passed);
        passed.last().map(|found| found.level)
    }

    /// How many assertions do not hold.
    #[must_use]
    pub fn assertions_failed(&self) -> usize {
        let failed = |(_, answer): &&(Assertion, Answer)| *answer != Answer::Holds;
        self.assertions.iter().filter(failed).count()
    }

    /// Whether the restore worked and everything holds.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.error.is_none()
    }

    fn begin(manifest: Manifest, now: DateTime<Utc>) -> Self {
        Self {
            manifest,
            started_at: now,
            finished_at: now,
            server: None,
            restore_time: None,
            load_time: None,
            steps: Vec::new(),
            bytes_read: None,
            tables: Vec::new(),
            compare: None,
            structure: None,
            assertions: Vec::new(),
            warnings: Vec::new(),
            left_out: Vec::new(),
            levels: Vec::new(),
            error: None,
        }
    }

    /// What is wrong although the content is equal.
    fn unsound(&self) -> Option<Error> {
        let mut words = Vec::new();
        if let Some(found) = &self.structure
            && let Some(first) = found.problems.first()
        {
            let count = found.problems.len();
            words.push(format!(
                "{count} damaged tables or indexes, first {}",
                first.object
            ));
        }
        let failed = self.assertions_failed();
        if failed > 0 {
            let all = self.assertions.len();
            words.push(format!("{failed} of {all} assertions do not hold"));
        }
        (!words.is_empty()).then(|| Error::Unsound {
            what: words.join(", "),
        })
    }
}

impl Engine {
    /// Rehearses the restore of a backup on a server that `server` gives, and removes all of it.
    ///
    /// Whatever happens is in the outcome, with what was found until then.
    ///
    /// # Cancellation
    /// The token ends the tools and the server; the error is then [`Error::Cancelled`].
    pub async fn drill(
        &self,
        server: &dyn DrillServer,
        backup: Manifest,
        options: &DrillOptions,
        cancel: &CancellationToken,
    ) -> DrillOutcome {
        let mut outcome = DrillOutcome::begin(backup, self.clock.now());
        let mut proved = Proved::default();
        let done = self
            .rehearse(server, options, (&mut outcome, &mut proved), cancel)
            .await;
        outcome.error = done.err().or_else(|| outcome.unsound());
        if let Some(error) = &outcome.error
            && outcome.server.is_some()
            && !proved.restored
            && error.kind() != ErrorKind::Cancelled
        {
            self.diagnose(&outcome.manifest, options, &mut proved, cancel)
                .await;
        }
        outcome.levels = levels::levels(&proved, &outcome);
        outcome.finished_at = self.clock.now();
        outcome
    }

    async fn rehearse(
        &self,
        server: &dyn DrillServer,
        options: &DrillOptions,
        (outcome, proved): (&mut DrillOutcome, &mut Proved),
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        self.step("start a server".to_owned());
        let begun = self.clock.now();
        let session = server
            .start(&outcome.manifest, options.jobs, cancel)
            .await
            .map_err(|e| Error::restore("start a server for the drill", e))?;
        self.took(outcome, "start the server", begun);
        outcome.server = Some(session.facts().clone());
        let done = self
            .within(session.as_ref(), options, (outcome, proved), cancel)
            .await;
        outcome.left_out = session.left_out();
        self.step("remove the server".to_owned());
        let begun = self.clock.now();
        if let Err(error) = session.stop().await {
            let text = format!("something of the drill is left behind: {error}");
            self.observer.event(&Event::Warning(text.clone()));
            outcome.warnings.push(text);
        }
        self.took(outcome, "remove the server", begun);
        done
    }

    async fn within(
        &self,
        session: &dyn DrillSession,
        options: &DrillOptions,
        (outcome, proved): (&mut DrillOutcome, &mut Proved),
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let begun = self.clock.now();
        let watch = Watch::new(session.restorer(), Arc::clone(&self.clock));
        let restore = RestoreOptions {
            replace: None,
            target: RestoreRequest {
                purpose: Purpose::Plain,
                target_database: session.database().to_owned(),
                jobs: options.jobs,
                ownership: session.ownership(),
                selection: Selection::default(),
            },
            compare: true,
            // The server goes with everything in it.
            keep_failed: true,
        };
        let result = self
            .restore(&watch, outcome.manifest.clone(), &restore, cancel)
            .await;
        let finished = self.clock.now();
        let seen = watch.into_seen();
        outcome.load_time = seen.load;
        outcome.steps.extend(seen.steps(begun, finished));
        proved.restored = seen.loaded;
        let differs = match result {
            Ok(done) => {
                outcome.bytes_read = Some(done.bytes_read);
                outcome.warnings.extend(done.warnings);
                outcome.compare = done.compare;
                None
            }
            Err(Error::Differs(report)) => {
                outcome.compare = Some(report.as_ref().clone());
                Some(Error::Differs(report))
            }
            Err(error) => {
                outcome.tables = watch::tables(&seen.tables, None);
                return Err(error);
            }
        };
        outcome.tables = watch::tables(&seen.tables, outcome.compare.as_ref());
        outcome.restore_time = Some(finished - begun);
        self.read_others(&outcome.manifest, cancel).await?;
        proved.read = true;
        self.look_inside(session, options, outcome, cancel).await?;
        differs.map_or(Ok(()), Err)
    }

    /// Reads what a restore does not need, such as the roles: it is a part of the backup too.
    async fn read_others(
        &self,
        backup: &Manifest,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let reader = unless(cancel, self.open(backup.clone())).await??;
        let others = |kind| !matches!(kind, PartKind::Schema | PartKind::Data | PartKind::Facts);
        for part in backup.parts.iter().filter(|part| others(part.kind)) {
            let name = &part.name;
            let operation = || format!("read part {name}");
            let drain = async {
                let mut body = reader.open(name).await?;
                while let Some(chunk) = body.next().await {
                    let failed =
                        |e| crate::error::PortError::from_io(e, ErrorKind::Unavailable, "read");
                    chunk.map_err(failed)?;
                }
                Ok(())
            };
            unless(cancel, drain)
                .await?
                .map_err(|e| super::reader::read_error(operation(), e))?;
        }
        Ok(())
    }

    /// Structure and assertions.
    async fn look_inside(
        &self,
        session: &dyn DrillSession,
        options: &DrillOptions,
        outcome: &mut DrillOutcome,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        self.step("check tables and indexes".to_owned());
        let begun = self.clock.now();
        let found = session
            .check(cancel)
            .await
            .map_err(|e| Error::restore("check tables and indexes", e))?;
        outcome.structure = Some(found);
        self.took(outcome, "check tables and indexes", begun);
        if options.assertions.is_empty() {
            return Ok(());
        }
        self.step("try the assertions".to_owned());
        let begun = self.clock.now();
        for assertion in &options.assertions {
            let answer = session
                .ask(assertion, cancel)
                .await
                .map_err(|e| Error::restore("try an assertion", e))?;
            outcome.assertions.push((assertion.clone(), answer));
        }
        self.took(outcome, "try the assertions", begun);
        Ok(())
    }

    /// A restore failed: is it the stored bytes, or what was dumped?
    async fn diagnose(
        &self,
        backup: &Manifest,
        options: &DrillOptions,
        proved: &mut Proved,
        cancel: &CancellationToken,
    ) {
        self.step("look at the stored bytes".to_owned());
        for level in [
            VerifyLevel::Stored,
            VerifyLevel::Hashed,
            VerifyLevel::Decoded,
        ] {
            let request = VerifyRequest {
                level,
                jobs: options.jobs,
            };
            let inspector = Arc::clone(&options.inspector);
            match self.verify(backup, request, inspector, cancel).await {
                Ok(report) => {
                    let good = report.problems.is_empty();
                    proved.verified.push((level, good));
                    if !good {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }

    fn took(&self, outcome: &mut DrillOutcome, name: &'static str, begun: DateTime<Utc>) {
        let took = self.clock.now() - begun;
        outcome.steps.push(DrillStep { name, took });
    }
}
