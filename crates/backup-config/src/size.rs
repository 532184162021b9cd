//! Sizes as people write them.

use std::fmt;
use std::str::FromStr;

use bytesize::{ByteSize, Unit};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes, written as `10GB` or `500 MiB`. Shown as it can be written again, to the byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

/// Units by which a size is shown, the largest first.
const SHOWN: [(&str, u64); 12] = [
    ("EiB", 1 << 60),
    ("EB", 1_000_000_000_000_000_000),
    ("PiB", 1 << 50),
    ("PB", 1_000_000_000_000_000),
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
];

impl Size {
    /// So many bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// The text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a size such as \"500MB\", \"10GB\" or \"10GiB\"")]
pub struct ParseSizeError;

impl FromStr for Size {
    type Err = ParseSizeError;

    /// A number without a unit is refused: whether bytes were meant, nobody can tell.
    fn from_str(text: &str) -> Result<Self, ParseSizeError> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.');
        let unit = text[digits.ok_or(ParseSizeError)?..].trim_start();
        unit.parse::<Unit>().map_err(|_| ParseSizeError)?;
        let size: ByteSize = text.parse().map_err(|_| ParseSizeError)?;
        // What is too large is not said, but cut.
        match size.as_u64() {
            u64::MAX => Err(ParseSizeError),
            bytes => Ok(Self(bytes)),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |unit: &&(&str, u64)| self.0 != 0 && self.0.is_multiple_of(unit.1);
        match SHOWN.iter().find(fits) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(SizeVisitor)
    }
}

struct SizeVisitor;

impl de::Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"500MB\", \"10GB\" or \"10GiB\"")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown_to_the_byte() {
        for (text, bytes, shown) in [
            ("10GB", 10_000_000_000, "10GB"),
            ("10 GiB", 10 << 30, "10GiB"),
            ("500MB", 500_000_000, "500MB"),
            ("1.5gb", 1_500_000_000, "1500MB"),
            ("1k", 1000, "1kB"),
            ("0B", 0, "0B"),
            ("12345 B", 12345, "12345B"),
            ("9EB", 9_000_000_000_000_000_000, "9EB"),
            (" 1TB ", 1_000_000_000_000, "1TB"),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!(size.bytes(), bytes, "{text}");
            assert_eq!(size.to_string(), shown, "{text}");
            assert_eq!(shown.parse(), Ok(size), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "10",
            "GB",
            "-1GB",
            "10 apples",
            "1.2.3GB",
            "99999999999PB",
            "1e3GB",
            "10G B",
            ".GB",
        ] {
            assert_eq!(text.parse::<Size>(), Err(ParseSizeError), "{text}");
        }
    }
}
