//! The primitives of an archive, decoded from input that may end inside any of them.

use crate::{ArchiveError, DumpText, Limits};

/// The bytes of one push that are not used up yet, and where they stand in the archive.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    rest: &'a [u8],
    end: u64,
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8], start: u64) -> Self {
        Self {
            rest: bytes,
            end: start + bytes.len() as u64,
        }
    }

    /// Bytes from the start of the archive.
    pub(crate) fn position(&self) -> u64 {
        self.end - self.rest.len() as u64
    }

    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Up to `count` bytes.
    #[inline]
    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    pub(crate) fn malformed(&self, problem: &'static str) -> ArchiveError {
        ArchiveError::Malformed {
            offset: self.position(),
            problem,
        }
    }
}

/// Most bytes that a fixed-size primitive has: the 11 of the archive's first part.
const SCRATCH: usize = 16;

/// Holds one primitive that is not complete. Each method returns `None` when `input` is used up, and
/// goes on where it was when called again in the same way.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    scratch: [u8; SCRATCH],
    filled: usize,
    string: Option<PartialString>,
}

#[derive(Debug)]
struct PartialString {
    missing: u64,
    bytes: Vec<u8>,
}

impl Decoder {
    /// Whether the input so far ends between two primitives.
    pub(crate) fn is_empty(&self) -> bool {
        self.filled == 0 && self.string.is_none()
    }

    /// The next `N` bytes.
    pub(crate) fn bytes<const N: usize>(&mut self, input: &mut Input<'_>) -> Option<[u8; N]> {
        self.fill(input, N)?.first_chunk().copied()
    }

    pub(crate) fn byte(&mut self, input: &mut Input<'_>) -> Option<u8> {
        self.bytes::<1>(input).map(|[byte]| byte)
    }

    fn fill(&mut self, input: &mut Input<'_>, need: usize) -> Option<&[u8; SCRATCH]> {
        let bytes = input.take(need - self.filled);
        self.scratch[self.filled..][..bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
        if self.filled < need {
            return None;
        }
        self.filled = 0;
        Some(&self.scratch)
    }

    /// An integer: a sign byte, then `size` bytes, least significant first.
    pub(crate) fn int(
        &mut self,
        input: &mut Input<'_>,
        size: u8,
    ) -> Result<Option<i64>, ArchiveError> {
        let Some(scratch) = self.fill(input, 1 + usize::from(size)) else {
            return Ok(None);
        };
        let magnitude = i64::try_from(little_endian(&scratch[1..], size))
            .map_err(|_| input.malformed("integer out of range"))?;
        match scratch[0] {
            0 => Ok(Some(magnitude)),
            1 => Ok(Some(-magnitude)),
            _ => Err(input.malformed("integer with an impossible sign")),
        }
    }

    /// A file offset: a flag, then `size` bytes.
    pub(crate) fn offset(&mut self, input: &mut Input<'_>, size: u8) -> Option<(u8, u64)> {
        let scratch = self.fill(input, 1 + usize::from(size))?;
        Some((scratch[0], little_endian(&scratch[1..], size)))
    }

    /// A string: its length as an integer, -1 for a null pointer, then its bytes.
    #[expect(
        clippy::option_option,
        reason = "the input may be used up, or the pointer null"
    )]
    pub(crate) fn string(
        &mut self,
        input: &mut Input<'_>,
        int_size: u8,
        limits: &Limits,
    ) -> Result<Option<Option<DumpText>>, ArchiveError> {
        let mut string = match self.string.take() {
            Some(string) => string,
            None => match self.int(input, int_size)? {
                None => return Ok(None),
                Some(length) if length < 0 => return Ok(Some(None)),
                Some(length) => PartialString::of_length(length.unsigned_abs(), limits)?,
            },
        };
        string.extend(input);
        if string.missing == 0 {
            return Ok(Some(Some(string.bytes.into())));
        }
        self.string = Some(string);
        Ok(None)
    }
}

impl PartialString {
    fn of_length(length: u64, limits: &Limits) -> Result<Self, ArchiveError> {
        if length > limits.string_bytes {
            return Err(ArchiveError::LimitExceeded {
                what: "length of a string",
                limit: limits.string_bytes,
            });
        }
        Ok(Self {
            missing: length,
            bytes: Vec::new(),
        })
    }

    /// Grows with what arrives, never with what the length claims.
    fn extend(&mut self, input: &mut Input<'_>) {
        let bytes = input.take(usize::try_from(self.missing).unwrap_or(usize::MAX));
        self.bytes.extend_from_slice(bytes);
        self.missing -= bytes.len() as u64;
    }
}

fn little_endian(bytes: &[u8], size: u8) -> u64 {
    let mut whole = [0; 8];
    let size = usize::from(size);
    whole[..size].copy_from_slice(&bytes[..size]);
    u64::from_le_bytes(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(&[0, 5, 0, 0, 0], 5)]
    #[case(&[1, 1, 0, 0, 0], -1)]
    #[case(&[0, 0xff, 0xff, 0xff, 0xff], 0xffff_ffff)]
    #[case(&[1, 0, 0, 0, 0x80], -0x8000_0000)]
    fn integers(#[case] bytes: &[u8], #[case] expected: i64) {
        let mut decoder = Decoder::default();
        let (last, rest) = bytes.split_last().unwrap();
        for &byte in rest {
            assert_eq!(decoder.int(&mut Input::new(&[byte], 0), 4), Ok(None));
            assert!(!decoder.is_empty());
        }
        let value = decoder.int(&mut Input::new(&[*last], 0), 4);
        assert_eq!(value, Ok(Some(expected)));
        assert!(decoder.is_empty());
    }

    #[test]
    fn impossible_integers_are_refused() {
        let mut input = Input::new(&[2, 0, 0, 0, 0], 0);
        assert!(Decoder::default().int(&mut input, 4).is_err());
        let mut input = Input::new(&[0xff; 9], 0);
        assert!(Decoder::default().int(&mut input, 8).is_err());
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        let mut decoder = Decoder::default();
        let limits = Limits::default();
        let mut input = Input::new(&[0, 0, 0, 0, 0x0f, b'a'], 0);
        assert_eq!(decoder.string(&mut input, 4, &limits), Ok(None));
        assert!(decoder.string.is_some_and(|s| s.bytes.capacity() < 64));
    }

    #[test]
    fn strings_over_the_limit_are_refused() {
        let limits = Limits {
            string_bytes: 3,
            ..Limits::default()
        };
        let mut input = Input::new(&[0, 4, 0, 0, 0], 0);
        let error = Decoder::default().string(&mut input, 4, &limits);
        assert!(matches!(error, Err(ArchiveError::LimitExceeded { .. })));
    }
}
