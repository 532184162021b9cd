//! Which places take a backup, before anything is done for it.

use crate::backup_run::DestinationView;
use crate::compose::{App, BackupJob};
use crate::error::AppError;
use crate::place::Place;

/// What is known of the places of a job before it begins.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Those that take the backup, in the job's order.
    pub(crate) places: Vec<Place>,
    /// Those that cannot, and why.
    pub(crate) refused: Vec<(String, AppError)>,
}

impl Admission {
    /// What is to be said of the places that do not take the backup: warnings, and what came of them.
    pub(crate) fn left_out(&self) -> (Vec<String>, Vec<DestinationView>) {
        let refused = self.refused.iter();
        refused
            .map(|(name, error)| {
                let text = error.line();
                let view = DestinationView::failed(name, text.clone());
                (format!("{name} has not got the backup: {text}"), view)
            })
            .unzip()
    }
}

impl App {
    /// Looks at every place of a job: whether there is room.
    ///
    /// # Errors
    /// The first refusal, when no place is left.
    pub(crate) fn admit(&self, job: &BackupJob) -> Result<Admission, AppError> {
        let wanted = job.settings.values.min_free_space;
        let (mut places, mut refused) = (Vec::new(), Vec::new());
        for place in &job.places {
            match place.check_room(self.environment(), wanted) {
                Ok(()) => places.push(place.clone()),
                Err(error) => refused.push((place.name.clone(), error)),
            }
        }
        if places.is_empty() {
            let first = refused.into_iter().next();
            return Err(first.map_or_else(no_place, |(_, error)| error));
        }
        Ok(Admission { places, refused })
    }
}

fn no_place() -> AppError {
    AppError::usage("no place for backups")
}
