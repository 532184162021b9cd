//! Order-independent hashes of COPY text.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

use memchr::{memchr, memchr_iter};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Rows, bytes and a hash of some rows, whatever their order.
///
/// The hash is the sum, modulo 2^128, of the XXH3-128 (seed 0) of each line of COPY text without its
/// newline. A sum, so that fingerprints of parts of a table add up to the table's, and so that equal
/// rows count, which they would not in an exclusive or. It finds accidents, not forgery: whoever can
/// choose the rows can choose the sum.
///
/// Two fingerprints are comparable if their rows were printed with the same columns, encoding and
/// output settings (`DateStyle`, `extra_float_digits` and so on).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Fingerprint {
    /// Lines of COPY text.
    pub rows: u64,
    /// Their bytes, newlines included.
    pub bytes: u64,
    /// Sum of their hashes.
    pub hash: u128,
}

impl Fingerprint {
    #[inline]
    fn add_line(&mut self, hash: u128) {
        self.rows += 1;
        self.hash = self.hash.wrapping_add(hash);
    }
}

impl Add for Fingerprint {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            bytes: self.bytes + other.bytes,
            hash: self.hash.wrapping_add(other.hash),
        }
    }
}

impl AddAssign for Fingerprint {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Fingerprint {
    fn sum<I: Iterator<Item = Self>>(fingerprints: I) -> Self {
        fingerprints.fold(Self::default(), Add::add)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, bytes, hash } = self;
        write!(f, "{rows} rows, {bytes} bytes, {hash:032x}")
    }
}

/// A hash as it is written down: 32 lower-case hexadecimal digits.
///
/// ```
/// # use backup_pg_archive::{format_hash, parse_hash};
/// assert_eq!(format_hash(255), "000000000000000000000000000000ff");
/// assert_eq!(parse_hash(&format_hash(255)), Some(255));
/// ```
#[must_use]
pub fn format_hash(hash: u128) -> String {
    format!("{hash:032x}")
}

/// Reads [`format_hash`]'s form back, and nothing else.
#[must_use]
pub fn parse_hash(text: &str) -> Option<u128> {
    let digits = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    u128::from_str_radix(text, 16).ok().filter(|_| digits)
}

/// Makes a [`Fingerprint`] of COPY text that arrives in pieces.
///
/// Feed it what `COPY … TO STDOUT` sends, cut anywhere. Memory is constant, also for a row of a
/// gigabyte. A slice that is exactly one line, as PostgreSQL sends them, takes the shortest path.
///
/// ```
/// use backup_pg_archive::LineHasher;
///
/// let mut whole = LineHasher::default();
/// whole.push(b"1\tann\n2\tbob\n");
/// let mut pieces = LineHasher::default();
/// for piece in [&b"2\tb"[..], b"ob\n1\tann", b"\n"] {
///     pieces.push(piece);
/// }
/// assert_eq!(whole.finish(), pieces.finish());
/// ```
#[derive(Clone, Default)]
pub struct LineHasher {
    total: Fingerprint,
    /// The line that has begun and not ended, if any.
    open: Option<Box<Xxh3>>,
}

impl fmt::Debug for LineHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineHasher")
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

impl LineHasher {
    /// Takes the next bytes, cut anywhere.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        self.total.bytes += bytes.len() as u64;
        match bytes.split_last() {
            Some((b'\n', line)) if self.open.is_none() && memchr(b'\n', line).is_none() => {
                self.total.add_line(xxh3_128(line));
            }
            _ => self.push_any(bytes),
        }
    }

    #[inline(never)]
    fn push_any(&mut self, bytes: &[u8]) {
        let mut start = 0;
        for end in memchr_iter(b'\n', bytes) {
            let line = &bytes[start..end];
            let hash = match self.open.take() {
                None => xxh3_128(line),
                Some(mut open) => {
                    open.update(line);
                    open.digest128()
                }
            };
            self.total.add_line(hash);
            start = end + 1;
        }
        let rest = &bytes[start..];
        if !rest.is_empty() {
            self.open.get_or_insert_default().update(rest);
        }
    }

    /// The fingerprint of everything pushed. A last line without newline counts as a row.
    #[must_use]
    pub fn finish(mut self) -> Fingerprint {
        if let Some(open) = self.open {
            self.total.add_line(open.digest128());
        }
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn fingerprint(text: &[u8]) -> Fingerprint {
        let mut hasher = LineHasher::default();
        hasher.push(text);
        hasher.finish()
    }

    #[rstest]
    #[case(b"", 0, "00000000000000000000000000000000")]
    // XXH3-128 of nothing, as the reference implementation gives it.
    #[case(b"\n", 1, "99aa06d3014798d86001c324468d497f")]
    #[case(b"\n\n", 2, "33540da6028f31b0c0038648 8d1a92fe")]
    fn known_values(#[case] text: &[u8], #[case] rows: u64, #[case] hash: &str) {
        let found = fingerprint(text);
        assert_eq!((found.rows, found.bytes), (rows, text.len() as u64));
        assert_eq!(format_hash(found.hash), hash.replace(' ', ""));
    }

    #[test]
    fn equal_rows_do_not_cancel_out() {
        assert_ne!(fingerprint(b"5\n5\n7\n"), fingerprint(b"7\n"));
        assert_ne!(fingerprint(b"5\n5\n").hash, fingerprint(b"").hash);
    }

    #[rstest]
    #[case("")]
    #[case("ff")]
    #[case("000000000000000000000000000000FF")]
    #[case("+00000000000000000000000000000ff")]
    #[case("0000000000000000000000000000000000")]
    fn other_forms_of_a_hash_are_refused(#[case] text: &str) {
        assert_eq!(parse_hash(text), None);
    }

    proptest! {
        #[test]
        fn hash_text_round_trips(hash: u128) {
            prop_assert_eq!(parse_hash(&format_hash(hash)), Some(hash));
        }

        #[test]
        fn neither_order_nor_cuts_nor_parts_matter(
            mut lines in prop::collection::vec("[a\\t]{0,300}", 0..20),
            cuts in prop::collection::vec(1_usize..400, 1..20),
            at: prop::sample::Index,
        ) {
            let text = |lines: &[String]| lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect::<String>();
            let whole = fingerprint(text(&lines).as_bytes());
            prop_assert_eq!(whole.rows, lines.len() as u64);

            let (first, second) = lines.split_at(at.index(lines.len() + 1));
            prop_assert_eq!(fingerprint(text(first).as_bytes()) + fingerprint(text(second).as_bytes()), whole);

            lines.reverse();
            let reversed = text(&lines);
            let (mut rest, mut hasher) = (reversed.as_bytes(), LineHasher::default());
            for cut in cuts.into_iter().cycle() {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                hasher.push(piece);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(hasher.finish(), whole);
        }
    }
}
