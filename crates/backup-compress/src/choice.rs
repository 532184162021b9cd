//! Which compression to use, as users write it: `zstd:3`, `gzip`, `none`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use backup_core::compressor::Compressor;

use crate::{Error, Gzip, Identity, Zstd};

/// The algorithms that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Algorithm {
    /// Zstandard, RFC 8878.
    #[default]
    Zstd,
    /// gzip, RFC 1952.
    Gzip,
    /// Bytes as they are.
    None,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Gzip, Self::None];

    /// The name in manifests and options.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::None => "none",
        }
    }

    /// The compressor, with so many threads of its own where it can have any.
    #[must_use]
    pub fn compressor(self, workers: u32) -> Arc<dyn Compressor> {
        match self {
            Self::Zstd => Arc::new(Zstd::new().with_workers(workers)),
            Self::Gzip => Arc::new(Gzip::new()),
            Self::None => Arc::new(Identity::new()),
        }
    }

    fn default_level(self) -> Option<i32> {
        match self {
            Self::Zstd => Some(Zstd::DEFAULT_LEVEL),
            Self::Gzip => Some(Gzip::DEFAULT_LEVEL),
            Self::None => None,
        }
    }

    fn allowed(self) -> &'static str {
        match self {
            Self::Zstd => "1 to 19, or -7 to -1 for more speed",
            Self::Gzip => "1 to 9",
            Self::None => "no level",
        }
    }

    fn allows(self, level: i32) -> bool {
        match self {
            // To zstd, 0 means "the default": a second name for it would only confuse.
            Self::Zstd => Zstd::LEVELS.contains(&level) && level != 0,
            Self::Gzip => Gzip::LEVELS.contains(&level),
            Self::None => false,
        }
    }
}

impl FromStr for Algorithm {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
            .ok_or_else(|| Error::UnknownAlgorithm {
                name: name.to_owned(),
            })
    }
}

/// The compressor called `name` in a manifest, working in the calling task.
///
/// # Errors
/// [`Error::UnknownAlgorithm`], for instance for a backup of a newer version.
pub fn by_name(name: &str) -> Result<Arc<dyn Compressor>, Error> {
    Ok(name.parse::<Algorithm>()?.compressor(0))
}

/// An algorithm with its level. The default is zstd at [`Zstd::DEFAULT_LEVEL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Compression {
    algorithm: Algorithm,
    level: Option<i32>,
}

impl Compression {
    /// `algorithm` at `level`, or at its default level.
    ///
    /// # Errors
    /// [`Error::Level`] with the levels that the algorithm has.
    pub fn new(algorithm: Algorithm, level: Option<i32>) -> Result<Self, Error> {
        match level {
            Some(level) if !algorithm.allows(level) => Err(no_such_level(algorithm, level)),
            Some(_) => Ok(Self { algorithm, level }),
            None => Ok(Self {
                algorithm,
                level: algorithm.default_level(),
            }),
        }
    }

    /// Reads `zstd`, `zstd:3`, `gzip:6` or `none`; the same as [`FromStr`].
    ///
    /// # Errors
    /// [`Error::UnknownAlgorithm`] and [`Error::Level`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level)),
            None => (text, None),
        };
        let algorithm: Algorithm = name.parse()?;
        let level = level
            .map(|level| level.parse().map_err(|_| no_such_level(algorithm, level)))
            .transpose()?;
        Self::new(algorithm, level)
    }

    /// The algorithm.
    #[must_use]
    pub fn algorithm(self) -> Algorithm {
        self.algorithm
    }

    /// The level, the algorithm's default if none was said; `None` where there are no levels.
    #[must_use]
    pub fn level(self) -> Option<i32> {
        self.level
    }

    /// The compressor. `workers` threads of its own per stream if it is zstd; with 0 it
    /// works in the calling task.
    #[must_use]
    pub fn compressor(self, workers: u32) -> Arc<dyn Compressor> {
        self.algorithm.compressor(workers)
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::Zstd,
            level: Some(Zstd::DEFAULT_LEVEL),
        }
    }
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

/// Writes what [`Compression::parse`] reads, always with the level.
impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm.name())?;
        match self.level {
            Some(level) => write!(f, ":{level}"),
            None => Ok(()),
        }
    }
}

fn no_such_level(algorithm: Algorithm, level: impl fmt::Display) -> Error {
    Error::Level {
        algorithm: algorithm.name(),
        level: level.to_string(),
        allowed: algorithm.allowed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (text, display) in [
            ("zstd", "zstd:2"),
            ("zstd:1", "zstd:1"),
            ("zstd:-7", "zstd:-7"),
            ("zstd:19", "zstd:19"),
            ("gzip", "gzip:6"),
            ("gzip:9", "gzip:9"),
            ("none", "none"),
        ] {
            let compression = Compression::parse(text).unwrap();
            assert_eq!(compression.to_string(), display);
            assert_eq!(Compression::parse(display).unwrap(), compression);
        }
        assert_eq!(Compression::parse("zstd").unwrap(), Compression::default());
    }

    #[test]
    fn what_cannot_be_says_what_can() {
        for (text, error) in [
            (
                "zstd:20",
                "level `20` is not possible for zstd, allowed is 1 to 19, or -7 to -1 for more speed",
            ),
            (
                "zstd:0",
                "level `0` is not possible for zstd, allowed is 1 to 19, or -7 to -1 for more speed",
            ),
            (
                "zstd:",
                "level `` is not possible for zstd, allowed is 1 to 19, or -7 to -1 for more speed",
            ),
            (
                "zstd:3:4",
                "level `3:4` is not possible for zstd, allowed is 1 to 19, or -7 to -1 for more speed",
            ),
            (
                "gzip:10",
                "level `10` is not possible for gzip, allowed is 1 to 9",
            ),
            (
                "gzip:x",
                "level `x` is not possible for gzip, allowed is 1 to 9",
            ),
            (
                "none:1",
                "level `1` is not possible for none, allowed is no level",
            ),
            (
                "lz4",
                "unknown compression `lz4`, known are zstd, gzip and none",
            ),
            ("", "unknown compression ``, known are zstd, gzip and none"),
        ] {
            assert_eq!(Compression::parse(text).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn names_lead_to_compressors_and_back() {
        for algorithm in Algorithm::ALL {
            let compressor = by_name(algorithm.name()).unwrap();
            assert_eq!(compressor.name(), algorithm.name());
            assert_eq!(compressor.default_level(), algorithm.default_level());
        }
        assert!(by_name("ZSTD").is_err());
    }
}
