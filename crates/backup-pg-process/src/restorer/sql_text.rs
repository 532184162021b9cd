//! The SQL of an archive, cut into words. Nothing here understands SQL; it only knows where names
//! and strings begin and end, in any encoding that a server can have.

use std::ops::Range;

/// Where the words, quoted strings and signs of a text are.
pub(super) fn tokens(text: &[u8]) -> Vec<Range<usize>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        if byte.is_ascii_whitespace() {
            at += 1;
            continue;
        }
        let end = at + token_length(&text[at..]);
        tokens.push(at..end);
        at = end;
    }
    tokens
}

fn token_length(text: &[u8]) -> usize {
    let first = text[0];
    match first {
        b'\'' | b'"' => quoted_length(text, first, false),
        b'E' if text.get(1) == Some(&b'\'') => 1 + quoted_length(&text[1..], b'\'', true),
        b'$' => dollar_quoted_length(text).unwrap_or(1),
        b':' if text.starts_with(b"::") => 2,
        _ if is_word(first) => text.iter().take_while(|byte| is_word(**byte)).count(),
        _ => 1,
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

/// The length of a string or quoted name; a doubled quote is one of its characters.
fn quoted_length(text: &[u8], quote: u8, escapes: bool) -> usize {
    let mut at = 1;
    while let Some(&byte) = text.get(at) {
        at += 1;
        if escapes && byte == b'\\' {
            at += 1;
        } else if byte == quote {
            if text.get(at) != Some(&quote) {
                return at;
            }
            at += 1;
        }
    }
    text.len()
}

/// The length of `$tag$ … $tag$`, if that is what the text begins with.
fn dollar_quoted_length(text: &[u8]) -> Option<usize> {
    let tag = 1 + text[1..].iter().take_while(|byte| is_word(**byte)).count();
    if text.get(tag) != Some(&b'$') {
        return None;
    }
    let (tag, body) = text.split_at(tag + 1);
    let end = body.windows(tag.len()).position(|window| window == tag)?;
    Some(tag.len() + end + tag.len())
}

/// The name that a word is, quoted or not.
pub(super) fn unquoted(word: &[u8]) -> Vec<u8> {
    let inner = word
        .strip_prefix(b"\"")
        .and_then(|word| word.strip_suffix(b"\""));
    let Some(inner) = inner else {
        return word.to_vec();
    };
    let mut name = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        name.push(byte);
        if byte == b'"' {
            // The second of two.
            bytes.next();
        }
    }
    name
}

/// A name as a word that is always quoted.
pub(super) fn quoted(name: &[u8]) -> Vec<u8> {
    let mut word = vec![b'"'];
    for &byte in name {
        word.push(byte);
        if byte == b'"' {
            word.push(byte);
        }
    }
    word.push(b'"');
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        let ranges = tokens(text.as_bytes()).into_iter();
        ranges.map(|range| &text[range]).collect()
    }

    #[test]
    fn words_strings_and_signs() {
        assert_eq!(
            words("GRANT a ON \"b c\".d TO \"e\"\"f\", g;"),
            [
                "GRANT",
                "a",
                "ON",
                "\"b c\"",
                ".",
                "d",
                "TO",
                "\"e\"\"f\"",
                ",",
                "g",
                ";"
            ]
        );
        assert_eq!(
            words("E'\\'a' 'b''c'::text"),
            ["E'\\'a'", "'b''c'", "::", "text"]
        );
        assert_eq!(
            words("AS $_$ a $$ b $_$;$1"),
            ["AS", "$_$ a $$ b $_$", ";", "$", "1"]
        );
    }

    #[test]
    fn no_text_is_too_odd() {
        for text in ["", " ", "$", "$1", "'", "\"", "E'\\", "::", "$a$", "é"] {
            let end = tokens(text.as_bytes()).last().map_or(0, |last| last.end);
            assert!(end <= text.len(), "{text}");
        }
    }

    #[test]
    fn names_survive_quoting() {
        for name in ["a", "A b", "a\"b", "\"", ""] {
            assert_eq!(unquoted(&quoted(name.as_bytes())), name.as_bytes());
        }
        assert_eq!(unquoted(b"plain"), b"plain");
    }
}
