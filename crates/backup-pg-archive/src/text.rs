//! Text of an archive.

use std::borrow::Cow;
use std::fmt;

/// A string of an archive: bytes in the archive's encoding, which need not be UTF-8.
///
/// `pg_dump` writes names and definitions in the client encoding, by default the database's own. So
/// this type keeps the bytes, compares and orders by them, and offers `&str` for the usual case.
/// `Display` replaces what is not UTF-8; do not use it to build a name that is looked up again.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DumpText(Box<[u8]>);

impl DumpText {
    /// The bytes as they are in the archive.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text, if it is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The text, with replacement characters for what is not UTF-8.
    #[must_use]
    pub fn to_str_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// Whether there is not one byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for DumpText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_str_lossy())
    }
}

impl fmt::Debug for DumpText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl AsRef<[u8]> for DumpText {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for DumpText {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into_boxed_slice())
    }
}

impl From<&[u8]> for DumpText {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl From<&str> for DumpText {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().into())
    }
}

impl PartialEq<str> for DumpText {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other.as_bytes()
    }
}

impl PartialEq<&str> for DumpText {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_not_utf8() {
        let text = DumpText::from(&b"gr\xf6\xdfe"[..]);
        assert_eq!(text.as_bytes(), b"gr\xf6\xdfe");
        assert_eq!(text.as_str(), None);
        assert_eq!(text.to_string(), "gr\u{fffd}\u{fffd}e");
        assert_eq!(format!("{text:?}"), r#""gr\xf6\xdfe""#);
    }

    #[test]
    fn compares_with_str() {
        assert_eq!(DumpText::from("größe"), "größe");
        assert_ne!(DumpText::from("a"), DumpText::from("b"));
    }
}
