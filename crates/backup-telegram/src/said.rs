//! What goes out.

use serde::Serialize;
use serde_json::{Value, json};

/// How long a message may be, in the units that the API counts: those of UTF-16.
const TEXT_LENGTH: usize = 4096;

/// And the text of an answer to a button.
const ANSWER_LENGTH: usize = 200;

/// What is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Say {
    /// The text. What is too long is cut off at its end.
    pub text: String,
    /// Rows of buttons below it.
    pub buttons: Vec<Vec<Button>>,
    /// Whether it is copied as a whole by a touch, and cannot be passed on.
    pub is_secret: bool,
}

/// A button.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Button {
    /// What stands on it.
    pub text: String,
    /// What comes back when it is pressed: 1 to 64 bytes.
    pub callback_data: String,
}

impl Say {
    /// Only text.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    /// The fields of a request that says it. Nothing is fetched for a preview of what looks like an
    /// address.
    pub(crate) fn fields(&self) -> Value {
        let text = fit(&self.text, TEXT_LENGTH);
        let mut fields = json!({
            "text": text,
            "link_preview_options": { "is_disabled": true },
            "reply_markup": { "inline_keyboard": self.buttons },
        });
        if self.is_secret {
            let length = text.encode_utf16().count();
            fields["entities"] = json!([{ "type": "code", "offset": 0, "length": length }]);
            fields["protect_content"] = json!(true);
        }
        fields
    }
}

/// The text of an answer to a button, as long as it may be.
pub(crate) fn answer(text: &str) -> String {
    fit(text, ANSWER_LENGTH)
}

/// The text, cut off where it is too long.
fn fit(text: &str, length: usize) -> String {
    if text.encode_utf16().count() <= length {
        return text.to_owned();
    }
    let mut left = length - 1;
    let fits = |c: &char| {
        let is_room = c.len_utf16() <= left;
        left -= c.len_utf16().min(left);
        is_room
    };
    let mut cut: String = text.chars().take_while(fits).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        let counted = |text: &str| text.encode_utf16().count();
        for text in ["x".repeat(5000), "😀".repeat(3000), "ж".repeat(4097)] {
            let cut = fit(&text, TEXT_LENGTH);
            let length = counted(&cut);
            assert!(
                (TEXT_LENGTH - 1..=TEXT_LENGTH).contains(&length),
                "{length}"
            );
            assert!(cut.ends_with('…'));
            assert!(text.starts_with(cut.trim_end_matches('…')));
        }
        let whole = "😀".repeat(TEXT_LENGTH / 2);
        assert_eq!(fit(&whole, TEXT_LENGTH), whole);
    }

    #[test]
    fn text_is_only_text_and_a_secret_stays_where_it_is() {
        let fields = Say::text("<b>*x*</b>").fields();
        assert_eq!(fields["text"], "<b>*x*</b>");
        assert_eq!(fields["link_preview_options"]["is_disabled"], true);
        assert!(fields.get("parse_mode").is_none());
        assert!(fields.get("protect_content").is_none());
        let secret = Say {
            is_secret: true,
            ..Say::text("пароль")
        };
        let fields = secret.fields();
        assert_eq!(fields["protect_content"], true);
        assert_eq!(fields["entities"][0]["length"], 6);
    }
}
