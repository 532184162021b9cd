//! Names that begin with a time: those of backups and of runs. They sort by age as text, and
//! differ in how many hex digits come after the time.

use chrono::{DateTime, NaiveDateTime, Utc};

const TIME_FORMAT: &str = "%Y%m%dT%H%M%SZ";
const TIME_LEN: usize = 16;

/// The time with which a name begins.
pub(crate) fn stamp(at: DateTime<Utc>) -> String {
    at.format(TIME_FORMAT).to_string()
}

/// The time with which a name begins that [`is_stamped`].
pub(crate) fn stamped_at(name: &str) -> DateTime<Utc> {
    let time = name.get(..TIME_LEN).unwrap_or_default();
    NaiveDateTime::parse_from_str(time, TIME_FORMAT)
        .map(|naive| naive.and_utc())
        .unwrap_or_default()
}

/// Whether this is a time, a dash, and so many hex digits, in the one form that we write.
pub(crate) fn is_stamped(text: &str, digits: usize) -> bool {
    let Some((time, suffix)) = text.split_once('-') else {
        return false;
    };
    let is_time = time.len() == TIME_LEN
        && NaiveDateTime::parse_from_str(time, TIME_FORMAT)
            .is_ok_and(|naive| naive.format(TIME_FORMAT).to_string() == time);
    let is_suffix = suffix.len() == digits
        && suffix
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    is_time && is_suffix
}

/// Everything about a type over such a name but how a new one is made: text and back, the time.
///
/// `$error` is a tuple struct over the beginning of the refused text.
macro_rules! stamped_name {
    ($name:ident, $error:ident, $digits:expr) => {
        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// When it began, to the second.
            #[must_use]
            pub fn started_at(&self) -> ::chrono::DateTime<::chrono::Utc> {
                $crate::stamped::stamped_at(&self.0)
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                if $crate::stamped::is_stamped(text, $digits) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err($error(text.chars().take(64).collect()))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

pub(crate) use stamped_name;
