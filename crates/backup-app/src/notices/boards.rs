//! What was told, over all places of a source. Any of them may be away, be it the very reason of what
//! is to be told: what the newest that answers says counts, and without any, rather twice than never.

use std::collections::BTreeMap;
use std::time::Duration;

use backup_core::backup::SourceName;
use backup_core::error::{ErrorKind, PortError};
use backup_core::notifier::board::{Board, Delivery};
use backup_core::notifier::told::Told;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::future::join_all;

use crate::compose::App;
use crate::error::AppError;
use crate::place::Place;

/// How long a place may take for one answer.
const LIMIT: Duration = Duration::from_secs(5);

/// How often something is changed that others change at the same time.
const TRIES: usize = 4;

/// The boards of places that were used.
#[derive(Debug, Default)]
pub(super) struct Boards(BTreeMap<String, Board>);

/// What was told, and where it is written.
pub(super) struct State {
    pub(super) told: Told,
    copies: Vec<(Board, Option<Bytes>)>,
}

/// What came of a claim.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Claimed {
    /// Nobody else tells it.
    Yes,
    /// Somebody else changed what was told.
    Lost,
    /// No place takes it.
    Nowhere,
}

impl App {
    /// What was told at a place.
    pub(crate) fn board(&self, place: &Place) -> Result<Board, AppError> {
        place.check_readable(self.environment())?;
        Ok(Board::new(place.open(self.environment())?))
    }
}

fn is_contended(error: &PortError) -> bool {
    matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::Conflict)
}

/// What a place answers in time.
async fn in_time<T, E>(work: impl Future<Output = Result<T, E>>) -> Option<Result<T, E>> {
    tokio::time::timeout(LIMIT, work).await.ok()
}

impl Boards {
    fn of(&mut self, app: &App, places: &[Place]) -> Vec<Board> {
        let mut boards = Vec::new();
        for place in places {
            if let Some(board) = self.0.get(&place.name) {
                boards.push(board.clone());
            } else if let Ok(board) = app.board(place) {
                self.0.insert(place.name.clone(), board.clone());
                boards.push(board);
            }
        }
        boards
    }

    /// What was told, by the places that answer, and by `known`.
    pub(super) async fn read(
        &mut self,
        app: &App,
        (notifier, source): (&str, &SourceName),
        places: &[Place],
        known: Option<&Told>,
    ) -> State {
        let boards = self.of(app, places);
        let reading = boards.into_iter().map(|board| async move {
            let seen = in_time(board.told(notifier, source)).await?.ok()?;
            // Nothing is written where there is no repository.
            let is_there = seen.bytes.is_some() || in_time(board.is_there()).await?.ok()?;
            is_there.then_some((board, seen))
        });
        let mut told = known.cloned().unwrap_or_default();
        let mut copies = Vec::new();
        for (board, seen) in join_all(reading).await.into_iter().flatten() {
            let age = |told: &Told| (told.changed_at, told.revision);
            if age(&seen.value) > age(&told) {
                told = seen.value;
            }
            copies.push((board, seen.bytes));
        }
        State { told, copies }
    }

    /// Notes whether a notifier can be reached, at every place that answers. Where nothing changes,
    /// nothing is written.
    pub(super) async fn delivered(
        &mut self,
        app: &App,
        notifier: &str,
        places: &[Place],
        (now, failure): (DateTime<Utc>, Option<&str>),
    ) {
        let noting = self.of(app, places).into_iter().map(|board| async move {
            for _ in 0..TRIES {
                let seen = in_time(board.delivery(notifier)).await?.ok()?;
                if failure.is_none() && seen.value.failing.is_none() {
                    return None;
                }
                if seen.bytes.is_none() && !in_time(board.is_there()).await?.ok()? {
                    return None;
                }
                let next: Delivery = seen.value.after(now, failure);
                let written = board.deliver(notifier, seen.bytes.as_ref(), &next);
                match in_time(written).await? {
                    Err(error) if is_contended(&error) => {}
                    _ => return Some(()),
                }
            }
            None
        });
        join_all(noting).await;
    }
}

impl State {
    /// Writes down at the first place that takes it that I tell now.
    pub(super) async fn claim(
        &mut self,
        (notifier, source): (&str, &SourceName),
        claimed: &Told,
    ) -> Claimed {
        for (board, seen) in &mut self.copies {
            let writing = board.tell((notifier, source), seen.as_ref(), claimed);
            match in_time(writing).await {
                Some(Ok(bytes)) => {
                    *seen = Some(bytes);
                    return Claimed::Yes;
                }
                Some(Err(error)) if is_contended(&error) => return Claimed::Lost,
                _ => {}
            }
        }
        Claimed::Nowhere
    }

    /// Writes at all places what was told. What others changed meanwhile stays: `again` makes the
    /// change to what they wrote.
    pub(super) async fn write(
        self,
        (notifier, source): (&str, &SourceName),
        told: &Told,
        again: impl Fn(&Told) -> Told,
    ) {
        let again = &again;
        let writing = self.copies.into_iter().map(|(board, mut seen)| async move {
            let mut told = told.clone();
            for _ in 0..TRIES {
                let writing = board.tell((notifier, source), seen.as_ref(), &told);
                match in_time(writing).await? {
                    Err(error) if is_contended(&error) => {}
                    _ => return Some(()),
                }
                let found = in_time(board.told(notifier, source)).await?.ok()?;
                told = again(&found.value);
                seen = found.bytes;
            }
            None
        });
        join_all(writing).await;
    }
}
