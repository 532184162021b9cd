//! Putting a backup back, always into something new.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::body::BodyStream;
use crate::error::PortError;
use crate::facts::{Facts, Fingerprint, LargeObjectFacts, Scope, SequenceFacts, TableName};
use crate::manifest::{Manifest, PartName};
use crate::run_record::RunId;
use crate::sandbox::Tenancy;

/// Who owns what is restored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Ownership {
    /// As in the source; the roles must exist.
    #[default]
    Keep,
    /// The login that restores; grants are left out too.
    Login,
    /// This role, which the login must be a member of; grants are left out too.
    Role(String),
    /// As in the source, where some roles are called otherwise: new names by old ones.
    Renamed(BTreeMap<String, String>),
}

/// What of a backup to restore; by default everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Schemas with all that is in them.
    pub schemas: Vec<String>,
    /// Tables, as [`find_table`](crate::facts::find_table) takes them. The facts name only tables
    /// with rows of their own, so the restorer, which knows the definitions, finds them.
    pub tables: Vec<String>,
    /// Definitions only: no rows, no sequence values, no large objects.
    pub definitions_only: bool,
    /// The other half, into what a restore of the definitions only has made of the same backup.
    pub content_only: bool,
}

impl Selection {
    /// Whether only some schemas or tables are wanted.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        !(self.schemas.is_empty() && self.tables.is_empty())
    }

    /// Whether a restore of it is less than the whole backup.
    #[must_use]
    pub fn leaves_out(&self) -> bool {
        self.is_partial() || self.definitions_only || self.content_only
    }
}

/// What a restored database is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Whatever somebody wants to do with it.
    #[default]
    Plain,
    /// To be looked at until the next takes its place.
    Archive,
    /// To be looked into by somebody, until its time is over.
    Sandbox(Tenancy),
    /// To take the place of another.
    Replace {
        /// The other's name.
        database: String,
        /// The run that does it.
        run: RunId,
    },
}

/// Where and how to restore.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The database to make. It must not exist, unless only content is restored.
    pub target_database: String,
    /// What it is for; whoever finds it can tell by that.
    pub purpose: Purpose,
    /// How many parts to load at once.
    pub jobs: usize,
    /// Who owns the objects.
    pub ownership: Ownership,
    /// What to restore.
    pub selection: Selection,
}

/// Gives the raw bytes of a backup's parts.
#[async_trait]
pub trait PartReader: fmt::Debug + Send + Sync {
    /// The backup's record.
    fn manifest(&self) -> &Manifest;

    /// What it holds.
    fn facts(&self) -> &Facts;

    /// A part's raw bytes: fetched, checked, decrypted, decompressed. Ends with an error when
    /// anything is not what was written, possibly after most of it has passed.
    ///
    /// # Errors
    /// `NotFound` for an unknown part or a missing object.
    async fn open(&self, part: &PartName) -> Result<BodyStream, PortError>;
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// What went wrong without making the result incomplete.
    pub warnings: Vec<String>,
}

/// What the target holds after a load.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadBack {
    /// Tables as they are now; what is absent is missing in the target.
    pub tables: BTreeMap<TableName, Result<Fingerprint, String>>,
    /// Large objects, when they were asked for.
    pub large_objects: Option<LargeObjectFacts>,
    /// Sequences as they are now.
    pub sequences: Vec<SequenceFacts>,
    /// The definitions; absent when they could not be compared, which a load says in a warning.
    pub definitions: Option<Definitions>,
    /// Rows of the materialized views that were filled again, where they could be counted.
    pub materialized_views: BTreeMap<TableName, Option<u64>>,
}

/// How the definitions in the target relate to those that were to be restored. Entries are named
/// by kind, schema and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Definitions {
    /// How many were looked for.
    pub expected: usize,
    /// Of these, as they were dumped.
    pub equal: usize,
    /// Whether their texts were compared too, or only that they exist: a server prints what an
    /// older one would print otherwise.
    pub texts_compared: bool,
    /// What is not there.
    pub missing: Vec<String>,
    /// What is there, and in which way otherwise.
    pub different: Vec<String>,
    /// Texts that differ between minor releases, which may be the releases' own doing.
    pub unclear: Vec<String>,
    /// What was not dumped.
    pub extra: Vec<String>,
}

impl Definitions {
    /// Whether all are there and nothing contradicts that they are what was dumped.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.missing.is_empty() && self.different.is_empty() && self.extra.is_empty()
    }
}

/// Restores backups of one kind into one server.
#[async_trait]
pub trait Restorer: fmt::Debug + Send + Sync {
    /// Checks that the backup can go there and makes the empty target; or, where only content is
    /// wanted, finds one that an earlier restore made and nobody has filled.
    ///
    /// # Errors
    /// `AlreadyExists` when the target exists, `Refused` when it is no such empty one,
    /// `ToolMissing` or `Unsuitable` when versions do
    /// not fit or roles are missing, `NotFound` when the backup does not have what was selected,
    /// whose name alone is then the message; nothing was made after an error.
    async fn create(
        &self,
        request: &RestoreRequest,
        parts: Arc<dyn PartReader>,
        cancel: &CancellationToken,
    ) -> Result<Box<dyn RestoreSession>, PortError>;
}

/// One target that this run made.
#[async_trait]
pub trait RestoreSession: fmt::Debug + Send + Sync {
    /// What content [`load`](Self::load) brings: what was selected, and what belongs to it, such
    /// as partitions. Nothing else is compared, so a restorer that leaves out what was asked for
    /// must fail or say so in a warning.
    fn scope(&self) -> Scope;

    /// What somebody should know before the load, without anything being wrong.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Loads what was selected.
    ///
    /// # Errors
    /// Names the object that failed. The target then holds a part of the backup.
    async fn load(&self, cancel: &CancellationToken) -> Result<LoadReport, PortError>;

    /// Reads the target back: its content, as far as it is within the [`scope`](Self::scope), and
    /// its definitions.
    ///
    /// # Errors
    /// When the target cannot be read; a single table that cannot is in the result.
    async fn read_back(&self, cancel: &CancellationToken) -> Result<ReadBack, PortError>;

    /// Removes the target, or of one that was there before what this run loaded.
    ///
    /// # Errors
    /// When it cannot be removed; it then still exists under its name, with what was loaded.
    async fn discard(&self) -> Result<(), PortError>;
}
