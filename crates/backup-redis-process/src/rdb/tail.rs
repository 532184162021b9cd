//! Whether a snapshot is whole, without looking at what is in it.

use bytes::Bytes;

use super::crc64;
use super::input::Fault;

/// What a server without a disk writes after the snapshot, and `redis-cli` passes on: 40 hex digits.
const MARK: usize = 40;
const SUM: usize = 8;
const HELD: usize = MARK + SUM;
const END: u8 = 0xff;
const HEADER: usize = 9;
/// The first version with a sum at its end.
const OLDEST: u32 = 5;

/// How a snapshot ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// The last bytes of the snapshot itself.
    pub(crate) rest: Bytes,
    /// Whether its sum was there to compare: servers can be told not to compute any.
    pub(crate) summed: bool,
}

/// Lets bytes pass, holding back as many as could be no part of the snapshot.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    header: Vec<u8>,
    held: Vec<u8>,
    /// Over all that was let go.
    sum: u64,
    /// The last byte that was let go.
    last: u8,
}

impl Tail {
    /// Takes the next bytes and gives those that are certain to belong to the snapshot.
    pub(crate) fn push(&mut self, chunk: &Bytes) -> Result<[Bytes; 2], Fault> {
        if self.header.len() < HEADER {
            let missing = (HEADER - self.header.len()).min(chunk.len());
            self.header.extend_from_slice(&chunk[..missing]);
            if self.header.len() == HEADER {
                check_header(&self.header)?;
            }
        }
        let surplus = (self.held.len() + chunk.len()).saturating_sub(HELD);
        let of_held = surplus.min(self.held.len());
        let first: Vec<u8> = self.held.drain(..of_held).collect();
        let (second, kept) = (surplus - of_held, surplus - of_held);
        let second = chunk.slice(..second);
        self.held.extend_from_slice(&chunk[kept..]);
        let pieces = [Bytes::from(first), second];
        for piece in &pieces {
            self.sum = crc64::update(self.sum, piece);
            self.last = piece.last().copied().unwrap_or(self.last);
        }
        Ok(pieces)
    }

    /// Says whether all of it came.
    pub(crate) fn finish(self) -> Result<Ended, Fault> {
        if self.header.len() < HEADER {
            return Err(Fault::Ended);
        }
        let held = &self.held;
        let is_mark = |bytes: &[u8]| {
            let hex = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
            bytes.len() == MARK && bytes.iter().all(hex)
        };
        let without_mark = held.len().saturating_sub(MARK);
        let mut ends = vec![held.len()];
        if is_mark(&held[without_mark..]) {
            ends.insert(0, without_mark);
        }
        let mut reason = "it does not end as a snapshot does: something is missing";
        for end in ends {
            match self.ends_at(end) {
                Ending::Good { summed } => {
                    let rest = Bytes::copy_from_slice(&self.held[..end]);
                    return Ok(Ended { rest, summed });
                }
                Ending::WrongSum => reason = "its checksum is not that of its content",
                Ending::No => {}
            }
        }
        Err(Fault::Malformed(reason))
    }

    fn ends_at(&self, end: usize) -> Ending {
        let Some(before) = end.checked_sub(SUM) else {
            return Ending::No;
        };
        let content = &self.held[..before];
        if content.last().copied().unwrap_or(self.last) != END {
            return Ending::No;
        }
        let stored = self.held[before..end].try_into().map(u64::from_le_bytes);
        match stored {
            Ok(0) => Ending::Good { summed: false },
            Ok(sum) if sum == crc64::update(self.sum, content) => Ending::Good { summed: true },
            _ => Ending::WrongSum,
        }
    }
}

enum Ending {
    Good { summed: bool },
    WrongSum,
    No,
}

fn check_header(header: &[u8]) -> Result<(), Fault> {
    // Valkey counts its versions anew, in three digits.
    let digits = header
        .strip_prefix(b"REDIS")
        .or_else(|| header.strip_prefix(b"VALKEY"));
    let version = digits
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse::<u32>().ok());
    match version {
        None => Err(Fault::Malformed(
            "it does not begin as a snapshot of Redis does",
        )),
        Some(old) if old < OLDEST => Err(Fault::Malformed("its version is older than Redis 2.6")),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(summed: bool) -> Vec<u8> {
        let mut bytes = b"REDIS0010\xfe\x00\xfb\x01\x00\x00\x01a\x05hello\xff".to_vec();
        let sum = if summed { crc64::update(0, &bytes) } else { 0 };
        bytes.extend(sum.to_le_bytes());
        bytes
    }

    fn pass(bytes: &[u8], size: usize) -> Result<(Vec<u8>, bool), Fault> {
        let mut tail = Tail::default();
        let mut out = Vec::new();
        for chunk in bytes.chunks(size) {
            for piece in tail.push(&Bytes::copy_from_slice(chunk))? {
                out.extend_from_slice(&piece);
            }
        }
        let ended = tail.finish()?;
        out.extend_from_slice(&ended.rest);
        Ok((out, ended.summed))
    }

    #[test]
    fn a_whole_snapshot_passes_and_the_mark_after_it_does_not() {
        for size in [1, 3, 40, 48, 49, 1000] {
            for summed in [true, false] {
                let whole = snapshot(summed);
                assert_eq!(pass(&whole, size).unwrap(), (whole.clone(), summed));
                let mut marked = whole.clone();
                marked.extend(b"0123456789abcdef0123456789abcdef01234567");
                assert_eq!(pass(&marked, size).unwrap(), (whole, summed));
            }
        }
    }

    #[test]
    fn nothing_shorter_or_changed_passes() {
        let whole = snapshot(true);
        for cut in 0..whole.len() {
            assert!(pass(&whole[..cut], 7).is_err(), "{cut}");
        }
        for index in 9..whole.len() {
            let mut changed = whole.clone();
            changed[index] ^= 0x20;
            assert!(pass(&changed, 7).is_err(), "{index}");
        }
        assert!(pass(b"PGDMP\x01\x0e\x00\x04\x08\x01", 100).is_err());
    }
}
