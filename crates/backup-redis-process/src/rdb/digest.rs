//! What is made of a value: the same whatever order or packing a server chose for it.

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::input::Text;

/// Several things that belong together, in this order.
pub(super) fn together(what: &[u8], parts: &[u128]) -> u128 {
    let mut bytes = what.to_vec();
    for part in parts {
        bytes.extend(part.to_le_bytes());
    }
    xxh3_128(&bytes)
}

/// A value while its elements pass.
#[derive(Default)]
pub(super) struct Value {
    pub(super) bytes: u64,
    sum: u128,
    line: Option<Box<Xxh3>>,
}

impl Value {
    /// A value that is one string.
    pub(super) fn text(text: Text) -> Self {
        Self {
            bytes: text.bytes,
            sum: text.hash,
            line: None,
        }
    }

    /// An element whose place does not matter.
    pub(super) fn anywhere(&mut self, what: &[u8], parts: &[Text]) {
        let hashes: Vec<u128> = parts.iter().map(|part| part.hash).collect();
        self.sum = self.sum.wrapping_add(together(what, &hashes));
        self.bytes += parts.iter().map(|part| part.bytes).sum::<u64>();
    }

    /// An element that comes after those before.
    pub(super) fn next(&mut self, text: Text) {
        self.bytes += text.bytes;
        self.number(text.hash);
    }

    /// A number that comes after what was before.
    pub(super) fn number(&mut self, number: u128) {
        let line = self.line.get_or_insert_default();
        line.update(&number.to_le_bytes());
    }

    pub(super) fn hash(&self) -> u128 {
        match &self.line {
            Some(line) => line.digest128(),
            None => self.sum,
        }
    }
}

/// A score, as a part of an element.
pub(super) fn score(score: f64) -> Text {
    // Minus nothing is nothing.
    let score = if score == 0.0 { 0.0 } else { score };
    Text {
        hash: u128::from(score.to_bits()),
        bytes: 8,
    }
}
