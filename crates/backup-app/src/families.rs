//! Sources that stand for several databases, and what a name means then.

use backup_config::SourceConfig;
use backup_core::backup::SourceName;
use backup_core::catalog::Catalog;

use crate::compose::App;
use crate::error::AppError;

/// Whether what is said for a name is said for a source: its own, or that of the source which stands for
/// several databases. Names of configured sources have no slash.
pub(crate) fn is_about(name: &str, source: &str) -> bool {
    let rest = source.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
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
        let named = SourceName::new(name).map_err(|e| AppError::usage(e.to_string()))?;
        let configured = self.config().source.get(name);
        if name.contains('/') || configured.is_some_and(|settings| !settings.is_family()) {
            return Ok(vec![named]);
        }
        Ok(self.members(&named, &catalog.sources().await?))
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
