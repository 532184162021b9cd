//! Who asked this process for what: the audit records of those who answer others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backup_core::audit::{Audit, AuditAction, AuditEntry, Head};
use backup_core::error::{Error as CoreError, chain};
use futures::future::join_all;

use crate::clock::SystemClock;
use crate::compose::App;
use crate::error::AppError;
use crate::place::Place;

/// How often what is alike and denied is written down; between, it is counted.
const QUIET: Duration = Duration::from_mins(1);
/// How many different requests are counted apart.
const MAX_COUNTED: usize = 1000;

/// Tells where a chain ends now, so that it is known somewhere else too.
pub(crate) fn tell_head(place: &str, head: &Head) {
    let (record, sha256) = (head.number, head.sha256.as_str());
    tracing::info!(place, record, sha256, "audited");
}

impl App {
    /// The audit records of a place.
    ///
    /// # Errors
    /// When the place cannot be used.
    pub fn audit(&self, place: &Place) -> Result<Audit, AppError> {
        place.check_readable(self.environment())?;
        let store = place.open(self.environment())?;
        Ok(Audit::new(store, Arc::new(SystemClock)))
    }
}

/// Writes down what others ask a server for. There is one in a process.
#[derive(Debug, Default)]
pub struct AuditDesk {
    audits: Mutex<BTreeMap<String, Arc<Audit>>>,
    denied: Mutex<Tally>,
}

impl AuditDesk {
    /// Writes down a request that is let through, in every place of its source. Call it before the
    /// work begins.
    ///
    /// # Errors
    /// When no place takes the record of something by which others may lose something: it must not be
    /// done then. Of everything else that is a warning in the log.
    pub async fn allowed(&self, app: &App, entry: &AuditEntry) -> Result<(), AppError> {
        match self.write(app, entry).await {
            Err(error) if entry.action.is_destructive() => Err(error),
            Err(_) | Ok(()) => Ok(()),
        }
    }

    /// Writes down a request that is not let through, or, if one like it was a moment ago, counts it.
    pub async fn denied(&self, app: &App, entry: AuditEntry) {
        let due = self.tally(|tally| tally.note(entry, Instant::now()));
        if let Some(entry) = due {
            // It is logged.
            let _ = self.write(app, &entry).await;
        }
    }

    /// Writes what was counted and is due; all of it when the process ends. Call it every minute.
    pub async fn flush(&self, app: &App, is_last: bool) {
        let due = self.tally(|tally| tally.due(Instant::now(), is_last));
        for entry in due {
            let _ = self.write(app, &entry).await;
        }
    }

    /// Adds a record in every place that the entry is about; fails when none takes it.
    async fn write(&self, app: &App, entry: &AuditEntry) -> Result<(), AppError> {
        let places = match &entry.source {
            Some(source) => app.places_of_source(source)?,
            None => app.places()?,
        };
        let writing = places.iter().map(|place| self.write_at(app, place, entry));
        let written = join_all(writing).await;
        let (mut is_there, mut failure) = (false, None);
        for (place, written) in places.iter().zip(written) {
            match written {
                Ok(head) => {
                    is_there = true;
                    tell_head(&place.name, &head);
                }
                Err(error) => {
                    let (place, error_text) = (place.name.as_str(), chain(&error));
                    let action = entry.action.as_str();
                    tracing::warn!(place, action, error = error_text, "not in the audit");
                    failure = Some(error);
                }
            }
        }
        match failure {
            Some(error) if !is_there => Err(error),
            None if !is_there => Err(CoreError::NotFound {
                what: "place for audit records".to_owned(),
            }
            .into()),
            _ => Ok(()),
        }
    }

    async fn write_at(
        &self,
        app: &App,
        place: &Place,
        entry: &AuditEntry,
    ) -> Result<Head, AppError> {
        Ok(self.audit(app, place)?.append(entry).await?)
    }

    /// One for each place: it knows where the next record goes.
    fn audit(&self, app: &App, place: &Place) -> Result<Arc<Audit>, AppError> {
        let mut audits = self.audits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(audit) = audits.get(&place.name) {
            return Ok(Arc::clone(audit));
        }
        let audit = Arc::new(app.audit(place)?);
        audits.insert(place.name.clone(), Arc::clone(&audit));
        Ok(audit)
    }

    fn tally<T>(&self, act: impl FnOnce(&mut Tally) -> T) -> T {
        let mut tally = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut tally)
    }
}

/// Counts what is alike, so that whoever is denied a thousand times fills no store.
#[derive(Debug, Default)]
struct Tally(BTreeMap<AuditEntry, Counted>);

#[derive(Debug)]
struct Counted {
    written: Instant,
    since: u64,
}

impl Tally {
    /// The entry, if it is to be written now; else it is counted.
    fn note(&mut self, mut entry: AuditEntry, now: Instant) -> Option<AuditEntry> {
        if self.0.len() >= MAX_COUNTED && !self.0.contains_key(&entry) {
            // Whoever asks for ever new names.
            let who = entry.who.clone();
            let outcome = entry.outcome.clone();
            let others = AuditAction::Other("several".to_owned());
            entry = AuditEntry::new(others, outcome, who);
        }
        let Some(counted) = self.0.get_mut(&entry) else {
            let counted = Counted {
                written: now,
                since: 0,
            };
            self.0.insert(entry.clone(), counted);
            return Some(entry);
        };
        counted.since += 1;
        if now.duration_since(counted.written) < QUIET {
            return None;
        }
        entry.count = Some(counted.since);
        *counted = Counted {
            written: now,
            since: 0,
        };
        Some(entry)
    }

    /// What was counted for a minute, or at all; what came no more is forgotten.
    fn due(&mut self, now: Instant, all: bool) -> Vec<AuditEntry> {
        let mut due = Vec::new();
        self.0.retain(|entry, counted| {
            if !all && now.duration_since(counted.written) < QUIET {
                return true;
            }
            let since = std::mem::take(&mut counted.since);
            counted.written = now;
            if since > 0 {
                due.push(AuditEntry {
                    count: Some(since),
                    ..entry.clone()
                });
            }
            since > 0
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use backup_core::audit::AuditOutcome;
    use backup_core::run_record::Who;

    use super::*;

    fn denied(person: &str) -> AuditEntry {
        let action = AuditAction::Restore;
        AuditEntry {
            person: Some(person.to_owned()),
            ..AuditEntry::new(action, AuditOutcome::Denied, Who::default())
        }
    }

    #[test]
    fn what_is_alike_is_written_once_a_minute_with_its_number() {
        let mut tally = Tally::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(tally.note(denied("a"), at(0)), Some(denied("a")));
        for second in 1..50 {
            assert_eq!(tally.note(denied("a"), at(second)), None);
        }
        assert_eq!(tally.note(denied("b"), at(50)), Some(denied("b")));
        let counted = |person, count| AuditEntry {
            count: Some(count),
            ..denied(person)
        };
        assert_eq!(tally.note(denied("a"), at(60)), Some(counted("a", 50)));
        assert_eq!(tally.note(denied("a"), at(61)), None);
        assert_eq!(tally.due(at(100), false), []);
        assert_eq!(tally.due(at(121), false), [counted("a", 1)]);
        assert_eq!(tally.0.len(), 1, "what came no more is forgotten");
        assert_eq!(tally.note(denied("a"), at(122)), None);
        assert_eq!(tally.due(at(123), true), [counted("a", 1)]);
    }

    #[test]
    fn ever_new_names_are_counted_as_one() {
        let mut tally = Tally::default();
        let now = Instant::now();
        let mut written = 0;
        for number in 0..MAX_COUNTED * 3 {
            written += usize::from(tally.note(denied(&number.to_string()), now).is_some());
        }
        assert_eq!(written, MAX_COUNTED + 1);
        assert_eq!(tally.0.len(), MAX_COUNTED + 1);
        let due = tally.due(now, true);
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].action.as_str(), "several");
        assert_eq!(due[0].count, Some((MAX_COUNTED * 2 - 1) as u64));
    }
}
