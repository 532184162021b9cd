//! Extensions that only a superuser may create, for a login that is none.
//!
//! A second connection creates those that the operator has listed, into the new database, before
//! anything else of the backup is in it but schemas. It runs nothing that comes out of the backup.

use std::collections::HashSet;

use super::error::RestoreError;
use super::superuser;
use super::target::Server;
use crate::inspector::text_of;
use crate::{ConnectionConfig, DatabaseDetails};
use backup_pg_archive::TocEntry;

/// A step before everything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Early {
    /// Entries that the login restores.
    Entries(Vec<u32>),
    /// An extension, and the schema that it goes to.
    ByAdmin(String, String),
}

/// Who creates what.
#[derive(Debug)]
pub(crate) struct Admin {
    connection: ConnectionConfig,
    database: String,
}

impl Admin {
    /// Creates an extension.
    pub(crate) async fn create(&self, extension: &str, schema: &str) -> Result<(), RestoreError> {
        let mut connection = superuser::session(&self.connection, &self.database).await?;
        superuser::check_empty(&mut connection, extension).await?;
        superuser::make_extension(&mut connection, extension, schema)
            .await
            .map_err(|e| superuser::not_made(extension, e))
    }
}

/// What is to be created before everything else, and by whom; empty where the login may create all.
#[derive(Debug, Default)]
pub(crate) struct Extensions {
    /// In their order.
    pub(crate) early: Vec<Early>,
    /// Who does the admin's part.
    pub(crate) admin: Option<Admin>,
}

impl Extensions {
    /// Plans the extensions among the `entries` that are restored.
    pub(crate) fn new<'a>(
        entries: impl Iterator<Item = &'a TocEntry> + Clone,
        details: &DatabaseDetails,
        server: &Server,
        database: &str,
        (admin, listed): (Option<&ConnectionConfig>, &[String]),
    ) -> Result<Self, RestoreError> {
        let extensions = entries.clone().filter(|entry| entry.desc == "EXTENSION");
        let name = |entry: &TocEntry| text_of(entry.tag.as_bytes());
        let foreign: HashSet<String> = extensions
            .clone()
            .map(name)
            .filter(|extension| !server.may_create(extension))
            .collect();
        if foreign.is_empty() {
            return Ok(Self::default());
        }
        let mut refused: Vec<&String> = foreign
            .iter()
            .filter(|extension| admin.is_none() || !listed.contains(*extension))
            .collect();
        refused.sort();
        let (Some(admin), []) = (admin, refused.as_slice()) else {
            return Err(RestoreError::SuperuserExtensions {
                login: server.login.clone(),
                extensions: refused.into_iter().cloned().collect(),
            });
        };
        let schema_of = |extension: &str| {
            let known = details
                .extensions
                .iter()
                .find(|known| known.name == extension);
            known.map_or_else(|| "public".to_owned(), |known| known.schema.clone())
        };
        let schemas: HashSet<String> = extensions.clone().map(|e| schema_of(&name(e))).collect();
        let first = entries.filter(|e| e.desc == "SCHEMA" && schemas.contains(&name(e)));
        let mut early = vec![Early::Entries(first.map(|entry| entry.dump_id).collect())];
        // In the archive's order: an extension may need another.
        early.extend(extensions.map(|entry| {
            let extension = name(entry);
            if foreign.contains(&extension) {
                let schema = schema_of(&extension);
                Early::ByAdmin(extension, schema)
            } else {
                Early::Entries(vec![entry.dump_id])
            }
        }));
        Ok(Self {
            early,
            admin: Some(Admin {
                connection: admin.clone(),
                database: database.to_owned(),
            }),
        })
    }

    /// What is restored early and must not be again.
    pub(crate) fn restored(&self) -> HashSet<u32> {
        let ids = self.early.iter().flat_map(|step| match step {
            Early::Entries(ids) => ids.as_slice(),
            Early::ByAdmin(..) => &[],
        });
        ids.copied().collect()
    }
}
