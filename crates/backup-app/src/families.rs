//! Sources that stand for several databases, and what a name means then.

use backup_config::SourceConfig;
use backup_core::backup::SourceName;
use backup_core::catalog::{Catalog, Selector};
use backup_core::databases::DatabaseFinder as _;
use backup_pg_process::PgDatabases;
use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use crate::compose::App;
use crate::database_name::refuse_password;
use crate::error::AppError;

/// Whether what is said for a name is said for a source: its own, or that of the source which stands for
/// several databases. Names of configured sources have no slash.
pub(crate) fn is_about(name: &str, source: &str) -> bool {
    let rest = source.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// That a database is one of those for which a source stands.
#[derive(Debug)]
pub(crate) struct Membership {
    family: SourceName,
    database: String,
    finder: PgDatabases,
}

impl Membership {
    /// When the newest good backup of any of them was taken, if the server has this one no more. None if
    /// it is there, or nobody can tell.
    ///
    /// # Cancellation
    /// `cancel` ends waiting for the server.
    pub(crate) async fn witness(
        &self,
        catalog: &Catalog<'_>,
        cancel: &CancellationToken,
    ) -> Option<DateTime<Utc>> {
        let found = self.finder.databases(cancel).await.ok()?;
        if found.iter().any(|found| found.name == self.database) {
            return None;
        }
        let stored = catalog.sources().await.ok()?;
        let mut newest = None;
        for member in stored {
            if is_about(self.family.as_str(), member.as_str()) {
                // One without a good backup tells nothing.
                let latest = catalog.find(&Selector::Latest, Some(&member)).await;
                newest = newest.max(latest.ok().map(|backup| backup.started_at));
            }
        }
        newest
    }
}

impl App {
    /// Whether a name stands for several databases.
    #[must_use]
    pub fn is_family(&self, source: &SourceName) -> bool {
        let settings = self.config().source.get(source.as_str());
        settings.is_some_and(SourceConfig::is_family)
    }

    /// The sources in a store that a name means: the source of that name, or every database of one
    /// that stands for several. The name itself where nothing is found.
    ///
    /// # Errors
    /// When it is no name, or the store does not answer.
    pub async fn sources_named(
        &self,
        name: &str,
        catalog: &Catalog<'_>,
    ) -> Result<Vec<SourceName>, AppError> {
        refuse_password("SOURCE", name)?;
        let named = SourceName::new(name).map_err(|e| AppError::usage(e.to_string()))?;
        let configured = self.config().source.get(name);
        if name.contains('/') || configured.is_some_and(|settings| !settings.is_family()) {
            return Ok(vec![named]);
        }
        Ok(self.members(&named, &catalog.sources().await?))
    }

    /// Of which source a database is one that stands for several, and who tells whether its server has
    /// it still.
    pub(crate) fn membership(&self, member: &SourceName) -> Option<Membership> {
        let (family, database) = member.as_str().split_once('/')?;
        let settings = self.config().source.get(family)?;
        let is_family = settings.is_family();
        Some(Membership {
            family: SourceName::new(family).ok().filter(|_| is_family)?,
            database: database.to_owned(),
            finder: self.database_finder(settings).ok()?,
        })
    }

    /// Whether a configured name means a source: its own, or that which stands for it.
    #[must_use]
    pub fn means(&self, name: &SourceName, source: &SourceName) -> bool {
        name == source || (self.is_family(name) && is_about(name.as_str(), source.as_str()))
    }

    /// Of `stored`, those that a name means.
    pub(crate) fn members(&self, name: &SourceName, stored: &[SourceName]) -> Vec<SourceName> {
        let is_exact = stored.contains(name);
        let configured = self.config().source.get(name.as_str());
        if configured.map_or(is_exact, |settings| !settings.is_family()) {
            return vec![name.clone()];
        }
        let is_meant = |s: &&SourceName| is_about(name.as_str(), s.as_str());
        let members: Vec<_> = stored.iter().filter(is_meant).cloned().collect();
        if members.is_empty() {
            return vec![name.clone()];
        }
        members
    }
}
