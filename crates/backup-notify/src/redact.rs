//! Errors without what must not be read in them.

use std::fmt;

/// Texts that are never shown.
#[derive(Clone, Default)]
pub(crate) struct Redactor(Vec<String>);

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor")
    }
}

/// What stands in their place.
const HIDDEN: &str = "***";

/// A shorter text is in too many words by chance.
const SHORTEST: usize = 4;

impl Redactor {
    /// Hides these, the longest first: one may be a part of another.
    pub(crate) fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let mut secrets: Vec<_> = secrets.into_iter().collect();
        secrets.retain(|secret| secret.len() >= SHORTEST);
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(secrets)
    }

    /// The text without them.
    pub(crate) fn clean(&self, text: &str) -> String {
        let hide = |text: String, secret: &String| text.replace(secret, HIDDEN);
        self.0.iter().fold(text.to_owned(), hide)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_hidden_and_words_are_not() {
        let redactor = Redactor::new(["abcd/efgh".to_owned(), "abcd".to_owned(), "a".to_owned()]);
        let text = redactor.clean("failed at abcd/efgh: abcd is bad");
        assert_eq!(text, "failed at ***: *** is bad");
        assert_eq!(format!("{redactor:?}"), "Redactor");
    }
}
