//! Loading a backup into an empty database: what the plan says, as much at once as there are jobs.

use std::sync::Arc;
use std::time::Instant;

use backup_core::body::BodyStream;
use backup_core::facts::Scope;
use backup_core::manifest::PartName;
use backup_core::restorer::{Ownership, PartReader};
use backup_pg_archive::encode_contents;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::analyze::vacuum;
use super::error::RestoreError;
use super::excerpt;
use super::extensions::{Early, Extensions};
use super::pg_restore::PgRestore;
use super::rehearsal::Backstage;
use super::roles::Roles;
use super::schedule::Schedule;
use super::target::Target;
use super::toc_list::{DataPart, LoadPlan, Work};
use super::workspace::Workspace;

/// Everything that a running step needs.
#[derive(Debug)]
pub(crate) struct Loader {
    /// Gives the data parts.
    pub(crate) reader: Arc<dyn PartReader>,
    /// Holds the schema part.
    pub(crate) workspace: Workspace,
    /// The new database.
    pub(crate) target: Target,
    /// Runs on the target.
    pub(crate) pg_restore: PgRestore,
    /// The data parts.
    pub(crate) parts: Vec<DataPart>,
    /// What of them is wanted.
    pub(crate) scope: Scope,
    /// Who owns it.
    pub(crate) ownership: Ownership,
    /// What somebody else has to create.
    pub(crate) extensions: Extensions,
    /// What a superuser does once the schemas are there, in a rehearsal.
    pub(crate) backstage: Option<Backstage>,
}

type Outcome = (Vec<usize>, Result<Vec<String>, RestoreError>);

impl Loader {
    /// Loads everything. Returns what is worth a warning. After the first failure nothing new
    /// starts, what runs is ended, and all of it is gone when this returns.
    pub(crate) async fn load(
        self: &Arc<Self>,
        plan: LoadPlan,
        jobs: usize,
        cancel: &CancellationToken,
    ) -> Result<Vec<String>, RestoreError> {
        let LoadPlan {
            pre_data,
            steps,
            work,
            ..
        } = plan;
        let started = Instant::now();
        let mut warnings = self.pre_data(pre_data, cancel).await?;
        tracing::debug!(elapsed = ?started.elapsed(), "pre-data restored");

        let schedule = Schedule::new(steps, jobs).map_err(|cycle| RestoreError::Internal {
            what: format!("cannot order the archive's entries: {cycle}"),
        })?;
        let mut run = Run {
            loader: Arc::clone(self),
            work: work.into(),
            schedule,
            running: JoinSet::new(),
            stop: cancel.child_token(),
        };
        let result = run.all(jobs.max(1), &mut warnings).await;
        run.end().await;
        result.map(|()| warnings)
    }

    async fn pre_data(
        &self,
        dump_ids: Vec<u32>,
        cancel: &CancellationToken,
    ) -> Result<Vec<String>, RestoreError> {
        let mut warnings = Vec::new();
        if let Some(backstage) = &self.backstage {
            let (schemas, others) = backstage.split(dump_ids);
            warnings.extend(self.entries(&schemas, cancel).await?);
            backstage.prepare(&self.target.name).await?;
            warnings.extend(self.entries(&others, cancel).await?);
            return Ok(warnings);
        }
        for step in &self.extensions.early {
            match (step, &self.extensions.admin) {
                (Early::Entries(ids), _) => warnings.extend(self.entries(ids, cancel).await?),
                (Early::ByAdmin(extension, schema), Some(admin)) => {
                    admin.create(extension, schema).await?;
                }
                (Early::ByAdmin(..), None) => {}
            }
        }
        let early = self.extensions.restored();
        let others = dump_ids.into_iter().filter(|id| !early.contains(id));
        let others: Vec<u32> = others.collect();
        warnings.extend(self.entries(&others, cancel).await?);
        Ok(warnings)
    }

    /// Restores entries of the schema part.
    pub(crate) async fn entries(
        &self,
        dump_ids: &[u32],
        cancel: &CancellationToken,
    ) -> Result<Vec<String>, RestoreError> {
        if dump_ids.is_empty() {
            return Ok(Vec::new());
        }
        let list = self.workspace.list(dump_ids)?;
        let archive = self.workspace.archive();
        self.pg_restore.entries(&archive, &list, cancel).await
    }

    async fn part(
        &self,
        part: &DataPart,
        cancel: &CancellationToken,
    ) -> Result<Vec<String>, RestoreError> {
        let name = &part.name;
        let failed = |source| RestoreError::Part {
            part: name.clone(),
            source,
        };
        let body = self.reader.open(name).await.map_err(failed)?;
        let body = self.with_roles(name, body, cancel).await?;
        if !part.has_others {
            return self.pg_restore.part(name, body, None, cancel).await;
        }
        let (contents, body) = excerpt::contents(name, body, cancel).await?;
        let wanted = excerpt::wanted(part, &contents, &self.scope)?;
        let list = self.workspace.list(&wanted)?;
        self.pg_restore.part(name, body, Some(&list), cancel).await
    }

    /// The body with the roles of the target: since 17, large objects come with their owners and
    /// grants. Nothing else in a data part has any that counts.
    async fn with_roles(
        &self,
        name: &PartName,
        body: BodyStream,
        cancel: &CancellationToken,
    ) -> Result<BodyStream, RestoreError> {
        let roles = Roles(&self.ownership);
        let facts = self.reader.facts().parts.get(name);
        if !roles.are_changed() || facts.is_none_or(|part| part.large_objects.is_none()) {
            return Ok(body);
        }
        let (mut contents, body) = excerpt::contents(name, body, cancel).await?;
        if (contents.header.int_size, contents.header.off_size) != (4, 8) {
            return Err(RestoreError::bad_backup(format!(
                "part {name} has numbers of unusual sizes, so its roles cannot be changed"
            )));
        }
        let length = encode_contents(&contents.header, &contents.entries).len();
        for entry in &mut contents.entries {
            roles.changed(entry);
        }
        let changed = encode_contents(&contents.header, &contents.entries);
        Ok(excerpt::with_other_beginning(body, length, changed))
    }

    /// Runs what the schedule gave at once: one data part, one table, or some entries.
    async fn run(
        &self,
        work: &[Work],
        batch: &[usize],
        cancel: &CancellationToken,
    ) -> Result<Vec<String>, RestoreError> {
        let started = Instant::now();
        let mut dump_ids = Vec::with_capacity(batch.len());
        for &step in batch {
            match work[step] {
                Work::Load(part) => {
                    let part = &self.parts[part];
                    let done = self.part(part, cancel).await;
                    tracing::debug!(elapsed = ?started.elapsed(), part = %part.name, "part loaded");
                    return done;
                }
                Work::Vacuum(ref table) => {
                    let done = vacuum(&self.target, table, cancel).await;
                    tracing::debug!(elapsed = ?started.elapsed(), table, "table vacuumed");
                    return done;
                }
                Work::Restore(dump_id) => dump_ids.push(dump_id),
            }
        }
        let done = self.entries(&dump_ids, cancel).await;
        let entries = dump_ids.len();
        tracing::debug!(elapsed = ?started.elapsed(), entries, "entries restored");
        done
    }
}

struct Run {
    loader: Arc<Loader>,
    work: Arc<[Work]>,
    schedule: Schedule,
    running: JoinSet<Outcome>,
    stop: CancellationToken,
}

impl Run {
    async fn all(&mut self, jobs: usize, warnings: &mut Vec<String>) -> Result<(), RestoreError> {
        loop {
            while self.running.len() < jobs
                && let Some(batch) = self.schedule.next()
            {
                self.start(batch);
            }
            let Some(joined) = self.running.join_next().await else {
                break;
            };
            let (batch, done) = joined.map_err(|error| RestoreError::Internal {
                what: format!("a step of the load died: {error}"),
            })?;
            warnings.extend(done?);
            self.schedule.finish(&batch);
        }
        if self.schedule.is_finished() {
            Ok(())
        } else {
            Err(RestoreError::Internal {
                what: "the load stopped although steps are left".to_owned(),
            })
        }
    }

    fn start(&mut self, batch: Vec<usize>) {
        let (loader, work) = (Arc::clone(&self.loader), Arc::clone(&self.work));
        let stop = self.stop.clone();
        self.running.spawn(async move {
            let done = loader.run(&work, &batch, &stop).await;
            (batch, done)
        });
    }

    /// Ends what is still running. Its results no longer matter: either there are none, or a
    /// failure came before.
    async fn end(&mut self) {
        self.stop.cancel();
        while self.running.join_next().await.is_some() {}
    }
}
