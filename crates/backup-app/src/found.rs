//! One backup, and where it is read from.

use std::sync::Arc;

use backup_core::catalog::Selector;
use backup_core::engine::Engine;
use backup_core::error::Error as CoreError;
use backup_core::manifest::Manifest;
use backup_core::observer::Observer;

use crate::compose::App;
use crate::error::AppError;
use crate::keys::Keys;
use crate::place::Place;

/// A backup and where it was found.
#[derive(Debug)]
pub struct Found {
    /// What it is.
    pub manifest: Manifest,
    /// Where.
    pub place: Place,
    /// Reads it there.
    pub engine: Engine,
}

/// Which backup is meant, and with which keys it will be read.
#[derive(Debug)]
pub struct Wanted<'a> {
    selector: Selector,
    source: Option<&'a str>,
    keys: Keys,
}

impl<'a> Wanted<'a> {
    /// Of one source, or of whichever has it.
    #[must_use]
    pub fn new(selector: Selector, source: Option<&'a str>, keys: Keys) -> Self {
        Self {
            selector,
            source,
            keys,
        }
    }
}

impl App {
    /// Finds one backup in the first place that has it.
    ///
    /// # Errors
    /// `NotFound` when no place has it; what a place reports that cannot be asked.
    pub async fn find(
        &self,
        wanted: &Wanted<'_>,
        observer: Arc<dyn Observer>,
    ) -> Result<Found, AppError> {
        let mut found: Vec<Found> = Vec::new();
        let mut failure = None;
        for place in self.places()? {
            let engine = self.engine(&place, wanted.keys, Arc::clone(&observer))?;
            let at = (&place, &engine);
            let finding = self.find_at(at, &wanted.selector, wanted.source);
            let (here, missing) = finding.await?;
            found.extend(here);
            failure = failure.or(missing);
        }
        choose_found(&wanted.selector, found)?.ok_or_else(|| {
            failure.map_or_else(|| AppError::usage("no place for backups"), AppError::from)
        })
    }

    /// What one place has of what is meant, of each source that the name means; and why it lacks
    /// some.
    ///
    /// # Errors
    /// What the place reports.
    pub async fn find_at(
        &self,
        (place, engine): (&Place, &Engine),
        selector: &Selector,
        source: Option<&str>,
    ) -> Result<(Vec<Found>, Option<CoreError>), AppError> {
        let catalog = engine.catalog();
        let sources = match source {
            Some(name) => {
                let sources = self.sources_named(name, &catalog).await?;
                sources.into_iter().map(Some).collect()
            }
            None => vec![None],
        };
        let (mut found, mut failure) = (Vec::new(), None);
        for source in sources {
            match catalog.find(selector, source.as_ref()).await {
                Ok(manifest) => found.push(Found {
                    manifest,
                    place: place.clone(),
                    engine: engine.clone(),
                }),
                Err(error @ CoreError::NotFound { .. }) => {
                    failure.get_or_insert(error);
                }
                // Whether this place has what is meant cannot be known without it.
                Err(error) => return Err(error.into()),
            }
        }
        Ok((found, failure))
    }
}

/// Of what several places have: the newest, the oldest, or the only one that is meant.
///
/// # Errors
/// When it is not clear which is meant.
pub fn choose_found(selector: &Selector, mut found: Vec<Found>) -> Result<Option<Found>, AppError> {
    let by_age = !matches!(selector, Selector::Prefix(_));
    if by_age
        && let Some(first) = found.first()
        && let Some(other) = found
            .iter()
            .find(|f| f.manifest.source != first.manifest.source)
    {
        let (one, two) = (&first.manifest.source, &other.manifest.source);
        return Err(AppError::usage_hint(
            format!("there are backups of {one} and of {two}"),
            "say which with --source",
        ));
    }
    // The sort is stable: among copies, the first place counts.
    found.sort_by(|a, b| a.manifest.id.cmp(&b.manifest.id));
    if matches!(selector, Selector::Latest | Selector::LatestVerified) {
        let newest = found.last().map(|last| last.manifest.id.clone());
        found.retain(|candidate| Some(&candidate.manifest.id) == newest.as_ref());
    }
    if let (Selector::Prefix(text), Some(first)) = (selector, found.first())
        && found
            .iter()
            .any(|other| other.manifest.id != first.manifest.id)
    {
        return Err(AppError::usage(format!(
            "several backups begin with {text}"
        )));
    }
    Ok(found.into_iter().next())
}
