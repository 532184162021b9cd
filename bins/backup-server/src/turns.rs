//! How much one person may ask for, so that nobody takes the server from the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many orders of one person within [`WINDOW`].
const ORDERS: u32 = 120;
const WINDOW: Duration = Duration::from_mins(1);

/// So many streams of one person at the same time.
const STREAMS: usize = 8;

/// What people ask for. Their number is that of the configuration, and so bounded.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    orders: Mutex<HashMap<String, (Instant, u32)>>,
    streams: Arc<Mutex<HashMap<String, usize>>>,
}

impl Turns {
    /// Counts an order; whether it is one too many.
    pub(crate) fn order(&self, person: &str, now: Instant) -> bool {
        let mut known = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, count) = known.entry(person.to_owned()).or_insert((now, 0));
        if now.saturating_duration_since(*began) >= WINDOW {
            (*began, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count > ORDERS
    }

    /// Counts a stream until the turn is dropped; none if it is one too many.
    pub(crate) fn stream(&self, person: &str) -> Option<Turn> {
        let mut open = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(person.to_owned()).or_default();
        if *count >= STREAMS {
            return None;
        }
        *count += 1;
        Some(Turn {
            streams: Arc::clone(&self.streams),
            person: person.to_owned(),
        })
    }
}

/// One stream.
#[derive(Debug)]
pub(crate) struct Turn {
    streams: Arc<Mutex<HashMap<String, usize>>>,
    person: String,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut open = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.person) {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_person_takes_nothing_from_another() {
        let turns = Turns::default();
        let start = Instant::now();
        for _ in 0..ORDERS {
            assert!(!turns.order("anna", start));
        }
        assert!(turns.order("anna", start));
        assert!(!turns.order("boris", start));
        assert!(!turns.order("anna", start + WINDOW));

        let mut open: Vec<_> = (0..STREAMS)
            .map(|_| turns.stream("anna").unwrap())
            .collect();
        assert!(turns.stream("anna").is_none());
        assert!(turns.stream("boris").is_some());
        open.pop();
        assert!(turns.stream("anna").is_some());
    }
}
