//! Somebody else's text on one line.

use std::fmt;

use serde::Serialize;

/// Somebody else's text: what does not show, or turns the text around it, is escaped. A page
/// escapes what HTML would take for its own.
#[must_use]
pub fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}');
        if c.is_control() || turns {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// One line that can stand anywhere, also in the header of a mail: whatever it was made of, it has no
/// line end and nothing that does not show.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Line(String);

impl Line {
    /// The text as [`shown`] has it.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(shown(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Line {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Line {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_show_is_made_to() {
        assert_eq!(shown("a\u{202e}b\nc<d>"), "a\\u{202e}b\\nc<d>");
        let line = Line::new("shop\r\nBcc: eve@example.com\u{2028}x");
        assert_eq!(line.as_str(), "shop\\r\\nBcc: eve@example.com\\u{2028}x");
        assert_eq!(line.as_str().lines().count(), 1);
    }
}
