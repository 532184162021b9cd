//! The buttons that are good now. What stands on one is known here alone: what comes back when it is
//! pressed is a number that nobody can guess, and counts once.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// How long buttons are good.
const GOOD: Duration = Duration::from_mins(10);

/// How many messages with buttons one chat has; older ones are no longer good.
const MOST: usize = 8;

/// All buttons that are good, by the message that they stand below.
#[derive(Debug)]
pub(super) struct Cards<C> {
    open: HashMap<String, Card<C>>,
    laid: u64,
}

#[derive(Debug)]
struct Card<C> {
    chat: i64,
    /// Known once it was sent.
    message: Option<i64>,
    choices: Vec<C>,
    until: Instant,
    number: u64,
}

impl<C> Default for Cards<C> {
    fn default() -> Self {
        Self {
            open: HashMap::new(),
            laid: 0,
        }
    }
}

impl<C> Cards<C> {
    /// Makes buttons for these choices: the name of the card, and what each of them says when it is
    /// pressed.
    pub(super) fn lay(
        &mut self,
        chat: i64,
        choices: Vec<C>,
        now: Instant,
    ) -> (String, Vec<String>) {
        self.open.retain(|_, card| card.until > now);
        let own = self.open.iter().filter(|(_, card)| card.chat == chat);
        if own.clone().count() >= MOST {
            let oldest = own.min_by_key(|(_, card)| card.number);
            if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                self.open.remove(&name);
            }
        }
        self.laid += 1;
        let mut name = String::new();
        for byte in rand::random::<[u8; 12]>() {
            let _ = write!(name, "{byte:02x}");
        }
        let data = (0..choices.len()).map(|index| format!("{name}:{index}"));
        let data = data.collect();
        let card = Card {
            chat,
            message: None,
            choices,
            until: now + GOOD,
            number: self.laid,
        };
        self.open.insert(name.clone(), card);
        (name, data)
    }

    /// The buttons stand below this message and no other.
    pub(super) fn bind(&mut self, name: &str, message: i64) {
        if let Some(card) = self.open.get_mut(name) {
            card.message = Some(message);
        }
    }

    /// What was chosen, if the button is good, is this chat's and stands there. None of the card is
    /// good any more.
    pub(super) fn take(
        &mut self,
        (chat, message): (i64, i64),
        data: &str,
        now: Instant,
    ) -> Option<C> {
        let (name, index) = data.split_once(':')?;
        let index: usize = index.parse().ok()?;
        let card = self.open.get(name)?;
        let is_there = card.message.is_none_or(|own| own == message);
        if card.chat != chat || !is_there || card.until <= now || index >= card.choices.len() {
            return None;
        }
        let mut card = self.open.remove(name)?;
        Some(card.choices.swap_remove(index))
    }

    /// No button of this chat is good any more.
    pub(super) fn fold(&mut self, chat: i64) {
        self.open.retain(|_, card| card.chat != chat);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_button_counts_once_and_only_where_it_stands() {
        let now = Instant::now();
        let mut cards = Cards::default();
        let (name, data) = cards.lay(1, vec!["yes", "no"], now);
        cards.bind(&name, 7);
        assert!(data.iter().all(|text| text.len() <= 64 && text.is_ascii()));
        for (place, pressed) in [
            ((2, 7), data[0].clone()),
            ((1, 8), data[0].clone()),
            ((1, 7), format!("{name}:2")),
            ((1, 7), format!("{name}:-1")),
            ((1, 7), name.clone()),
            ((1, 7), String::new()),
            ((1, 7), "🔥:0".to_owned()),
        ] {
            assert_eq!(
                cards.take(place, &pressed, now),
                None,
                "{place:?} {pressed}"
            );
        }
        assert_eq!(cards.take((1, 7), &data[0], now), Some("yes"));
        // Pressed twice, or another one of the same message.
        assert_eq!(cards.take((1, 7), &data[0], now), None);
        assert_eq!(cards.take((1, 7), &data[1], now), None);
    }

    #[test]
    fn buttons_expire_and_do_not_pile_up() {
        let now = Instant::now();
        let mut cards = Cards::default();
        let (_, old) = cards.lay(1, vec!["old"], now);
        assert_eq!(cards.take((1, 7), &old[0], now + GOOD), None);
        let others: Vec<_> = (0..100)
            .map(|_| cards.lay(1, vec!["new"], now).1.remove(0))
            .collect();
        assert_eq!(cards.open.len(), MOST);
        assert_eq!(cards.take((1, 7), &others[99 - MOST], now), None);
        assert_eq!(cards.take((1, 7), &others[100 - MOST], now), Some("new"));
        let (_, of_another) = cards.lay(2, vec!["his"], now);
        cards.fold(1);
        assert_eq!(cards.take((1, 7), &others[99], now), None);
        assert_eq!(cards.take((2, 7), &of_another[0], now), Some("his"));
        // What has expired goes when the next is laid.
        cards.lay(1, vec!["later"], now + GOOD);
        assert_eq!(cards.open.len(), 1);
    }
}
