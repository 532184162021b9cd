//! A restorer into databases that are maps.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_core::error::{ErrorKind, PortError};
use backup_core::facts::Scope;
use backup_core::manifest::{PartKind, PartName};
use backup_core::restorer::{
    LoadReport, PartReader, ReadBack, RestoreRequest, RestoreSession, Restorer,
};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::bodies::SCRIPTED;
use crate::lock;

type Database = BTreeMap<String, Vec<u8>>;
type Alter = Arc<dyn Fn(&mut ReadBack) + Send + Sync>;

/// Restores into memory. Clones share their databases.
#[derive(Clone, Default)]
pub struct ScriptedRestorer {
    databases: Arc<Mutex<BTreeMap<String, Database>>>,
    alter: Option<Alter>,
    warnings: Vec<String>,
    create_error: Option<ErrorKind>,
    load_error: Option<(String, ErrorKind)>,
    load_hangs: bool,
    read_back_error: Option<ErrorKind>,
    discard_error: Option<ErrorKind>,
    scope: Scope,
}

impl fmt::Debug for ScriptedRestorer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedRestorer").finish_non_exhaustive()
    }
}

impl ScriptedRestorer {
    /// A server without databases.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A database that is already there, empty.
    #[must_use]
    pub fn existing(self, database: &str) -> Self {
        lock(&self.databases).insert(database.to_owned(), Database::new());
        self
    }

    /// Changes what is read back.
    #[must_use]
    pub fn reads_back(mut self, alter: impl Fn(&mut ReadBack) + Send + Sync + 'static) -> Self {
        self.alter = Some(Arc::new(alter));
        self
    }

    /// Makes a selection mean this.
    #[must_use]
    pub fn restores_only(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Something a load says although it succeeds.
    #[must_use]
    pub fn warns(mut self, text: &str) -> Self {
        self.warnings.push(text.to_owned());
        self
    }

    /// Makes `create` fail.
    #[must_use]
    pub fn fails_to_create(mut self, kind: ErrorKind) -> Self {
        self.create_error = Some(kind);
        self
    }

    /// Makes the server refuse this part when it has taken its first chunk.
    #[must_use]
    pub fn fails_to_load(mut self, part: &str, kind: ErrorKind) -> Self {
        self.load_error = Some((part.to_owned(), kind));
        self
    }

    /// Makes `load` do nothing until its token is cancelled.
    #[must_use]
    pub fn hangs(mut self) -> Self {
        self.load_hangs = true;
        self
    }

    /// Makes `read_back` fail.
    #[must_use]
    pub fn fails_to_read_back(mut self, kind: ErrorKind) -> Self {
        self.read_back_error = Some(kind);
        self
    }

    /// Makes `discard` fail; the database stays.
    #[must_use]
    pub fn fails_to_discard(mut self, kind: ErrorKind) -> Self {
        self.discard_error = Some(kind);
        self
    }

    /// The names of the databases.
    #[must_use]
    pub fn databases(&self) -> Vec<String> {
        lock(&self.databases).keys().cloned().collect()
    }

    /// The bytes that were loaded as `part` into `database`.
    #[must_use]
    pub fn loaded(&self, database: &str, part: &str) -> Option<Vec<u8>> {
        lock(&self.databases).get(database)?.get(part).cloned()
    }
}

fn fail(error: Option<ErrorKind>) -> Result<(), PortError> {
    error.map_or(Ok(()), |kind| Err(PortError::new(kind, SCRIPTED)))
}

#[async_trait]
impl Restorer for ScriptedRestorer {
    async fn create(
        &self,
        request: &RestoreRequest,
        parts: Arc<dyn PartReader>,
        cancel: &CancellationToken,
    ) -> Result<Box<dyn RestoreSession>, PortError> {
        if cancel.is_cancelled() {
            return Err(PortError::cancelled());
        }
        fail(self.create_error)?;
        let mut databases = lock(&self.databases);
        if databases.contains_key(&request.target_database) {
            return Err(PortError::new(
                ErrorKind::AlreadyExists,
                format!("database {:?} exists", request.target_database),
            ));
        }
        databases.insert(request.target_database.clone(), Database::new());
        Ok(Box::new(Session {
            server: self.clone(),
            database: request.target_database.clone(),
            parts,
        }))
    }
}

#[derive(Debug)]
struct Session {
    server: ScriptedRestorer,
    database: String,
    parts: Arc<dyn PartReader>,
}

impl Session {
    fn loads(&self, kind: PartKind, part: &PartName) -> bool {
        match &self.server.scope {
            Scope::Only { parts, .. } if kind == PartKind::Data => parts.contains(part),
            _ => kind != PartKind::Facts,
        }
    }

    async fn load_all(&self) -> Result<(), PortError> {
        for record in &self.parts.manifest().parts {
            if !self.loads(record.kind, &record.name) {
                continue;
            }
            let mut body = self.parts.open(&record.name).await?;
            let mut content = Vec::new();
            while let Some(chunk) = body.next().await {
                let chunk = chunk
                    .map_err(|e| PortError::from_io(e, ErrorKind::Unavailable, "read part"))?;
                content.extend_from_slice(&chunk);
                if let Some((part, kind)) = &self.server.load_error
                    && part == record.name.as_str()
                {
                    return Err(PortError::new(*kind, SCRIPTED));
                }
            }
            let mut databases = lock(&self.server.databases);
            let database = databases.entry(self.database.clone()).or_default();
            database.insert(record.name.to_string(), content);
        }
        Ok(())
    }
}

#[async_trait]
impl RestoreSession for Session {
    fn scope(&self) -> Scope {
        self.server.scope.clone()
    }

    async fn load(&self, cancel: &CancellationToken) -> Result<LoadReport, PortError> {
        let work = async {
            if self.server.load_hangs {
                std::future::pending::<()>().await;
            }
            self.load_all().await
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(PortError::cancelled()),
            done = work => done?,
        }
        Ok(LoadReport {
            warnings: self.server.warnings.clone(),
        })
    }

    async fn read_back(&self, cancel: &CancellationToken) -> Result<ReadBack, PortError> {
        if cancel.is_cancelled() {
            return Err(PortError::cancelled());
        }
        fail(self.server.read_back_error)?;
        let facts = self.parts.facts().within(&self.server.scope);
        let mut found = ReadBack {
            large_objects: facts.large_objects(),
            ..ReadBack::default()
        };
        let loaded = lock(&self.server.databases)
            .get(&self.database)
            .cloned()
            .unwrap_or_default();
        for (name, part) in &facts.parts {
            if !loaded.contains_key(name.as_str()) {
                continue;
            }
            found.sequences.extend(part.sequences.iter().cloned());
            for table in &part.tables {
                let entry = found.tables.entry(table.table.clone());
                if let Ok(sum) =
                    entry.or_insert_with(|| Ok(backup_core::facts::Fingerprint::default()))
                {
                    *sum += table.fingerprint;
                }
            }
        }
        if let Some(alter) = &self.server.alter {
            alter(&mut found);
        }
        Ok(found)
    }

    async fn discard(&self) -> Result<(), PortError> {
        fail(self.server.discard_error)?;
        lock(&self.server.databases).remove(&self.database);
        Ok(())
    }
}
