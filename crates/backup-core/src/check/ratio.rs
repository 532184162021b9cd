//! A share of something.

use serde::{Deserialize, Serialize};

const WHOLE: u32 = 1_000_000;

/// A share from 0, which nothing is below, to 1. Kept in millionths, so that it can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Ratio(u32);

/// The number is no share.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{0} is not between 0 and 1")]
pub struct ParseRatioError(f64);

impl Ratio {
    /// So many percent, at most 100.
    #[must_use]
    pub const fn percent(percent: u8) -> Self {
        let percent = if percent > 100 { 100 } else { percent };
        Self(percent as u32 * (WHOLE / 100))
    }

    /// Whether `part` is less than this share of `whole`.
    #[must_use]
    pub fn is_undercut(self, part: u64, whole: u64) -> bool {
        u128::from(part) * u128::from(WHOLE) < u128::from(whole) * u128::from(self.0)
    }
}

impl TryFrom<f64> for Ratio {
    type Error = ParseRatioError;

    fn try_from(number: f64) -> Result<Self, Self::Error> {
        if !(0.0..=1.0).contains(&number) {
            return Err(ParseRatioError(number));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is between 0 and a million"
        )]
        let millionths = (number * f64::from(WHOLE)).round() as u32;
        Ok(Self(millionths))
    }
}

impl From<Ratio> for f64 {
    fn from(ratio: Ratio) -> Self {
        Self::from(ratio.0) / Self::from(WHOLE)
    }
}
