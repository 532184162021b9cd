//! How many of something to keep, in words that cannot be mistaken.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How many to keep. That there is no limit is a word, and so is that none are wanted: a zero is
/// as likely a slip as either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// None, said as `none`.
    None,
    /// So many, the newest.
    Newest(NonZeroU32),
    /// All, said as `unlimited`.
    Unlimited,
}

impl Count {
    /// So many; `None` for zero.
    #[must_use]
    pub const fn of(number: u32) -> Self {
        match NonZeroU32::new(number) {
            Some(number) => Self::Newest(number),
            None => Self::None,
        }
    }

    /// The largest number that it allows.
    #[must_use]
    pub fn limit(self) -> usize {
        match self {
            Self::None => 0,
            Self::Newest(number) => usize::try_from(number.get()).unwrap_or(usize::MAX),
            Self::Unlimited => usize::MAX,
        }
    }
}

/// The text is no count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a number from 1, \"none\" or \"unlimited\"")]
pub struct ParseCountError;

impl FromStr for Count {
    type Err = ParseCountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            "unlimited" => Ok(Self::Unlimited),
            number => number
                .parse()
                .map(Self::Newest)
                .map_err(|_| ParseCountError),
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Newest(number) => write!(f, "{number}"),
            Self::Unlimited => f.write_str("unlimited"),
        }
    }
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Newest(number) => serializer.serialize_u32(number.get()),
            word => serializer.collect_str(word),
        }
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountVisitor)
    }
}

struct CountVisitor;

impl Visitor<'_> for CountVisitor {
    type Value = Count;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number from 1, \"none\" or \"unlimited\"")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Count, E> {
        let number = u32::try_from(number).ok().and_then(NonZeroU32::new);
        number
            .map(Count::Newest)
            .ok_or_else(|| E::custom(ParseCountError))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Count, E> {
        u64::try_from(number)
            .map_err(|_| E::custom(ParseCountError))
            .and_then(|number| self.visit_u64(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Count, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_is_neither_none_nor_all() {
        for (text, expected) in [
            ("\"none\"", Some(Count::None)),
            ("\"unlimited\"", Some(Count::Unlimited)),
            ("7", Some(Count::of(7))),
            ("\"7\"", Some(Count::of(7))),
            ("0", None),
            ("-1", None),
            ("\"0\"", None),
            ("\"all\"", None),
            ("1.5", None),
            ("4294967296", None),
        ] {
            let read: Result<Count, _> = serde_json::from_str(text);
            assert_eq!(read.as_ref().ok(), expected.as_ref(), "{text}: {read:?}");
            if let Ok(count) = read {
                let again = serde_json::to_string(&count).unwrap();
                assert_eq!(serde_json::from_str::<Count>(&again).unwrap(), count);
                assert_eq!(count.to_string().parse(), Ok(count));
            }
        }
    }
}
