//! The primitives of a snapshot, pulled out of chunks as they come.

use bytes::Bytes;
use tokio::sync::mpsc;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Most bytes that one packed value is taken to have. Servers pack small values only.
const PACKED: u64 = 512 << 20;
/// How far back LZF copies from.
const WINDOW: usize = 8 << 10;

/// Why a snapshot cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// The bytes end before it does.
    #[error("it ends early")]
    Ended,
    /// It contradicts itself.
    #[error("{0}")]
    Malformed(&'static str),
    /// A newer server or a module wrote something that this release does not know.
    #[error("it holds a value of a type ({0}) that this release does not know")]
    Unknown(u8),
}

/// What a length can turn out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Plain(u64),
    /// How a string is written otherwise.
    Special(u8),
}

/// A string that passed: what matters of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) hash: u128,
    pub(super) bytes: u64,
}

impl Text {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self {
            hash: xxh3_128(bytes),
            bytes: bytes.len() as u64,
        }
    }
}

/// The chunks of one snapshot. Blocks until the next one is there.
#[derive(Debug)]
pub(crate) struct Input {
    chunks: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Input {
    pub(crate) fn new(chunks: mpsc::Receiver<Bytes>) -> Self {
        Self {
            chunks,
            current: Bytes::new(),
        }
    }

    /// Up to `most` bytes, at least one.
    fn some(&mut self, most: u64) -> Result<Bytes, Fault> {
        while self.current.is_empty() {
            self.current = self.chunks.blocking_recv().ok_or(Fault::Ended)?;
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Ok(self.current.split_to(most.min(self.current.len())))
    }

    /// Whether nothing comes any more.
    pub(super) fn is_over(&mut self) -> bool {
        self.some(1).is_err()
    }

    pub(super) fn byte(&mut self) -> Result<u8, Fault> {
        Ok(self.some(1)?[0])
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut array = [0; N];
        let mut filled = 0;
        while filled < N {
            let piece = self.some((N - filled) as u64)?;
            array[filled..filled + piece.len()].copy_from_slice(&piece);
            filled += piece.len();
        }
        Ok(array)
    }

    fn raw(&mut self, mut bytes: u64, sink: &mut impl FnMut(&[u8])) -> Result<(), Fault> {
        while bytes > 0 {
            let piece = self.some(bytes)?;
            bytes -= piece.len() as u64;
            sink(&piece);
        }
        Ok(())
    }

    pub(super) fn length(&mut self) -> Result<Length, Fault> {
        let first = self.byte()?;
        Ok(match first {
            0x80 => Length::Plain(u64::from(u32::from_be_bytes(self.array()?))),
            0x81 => Length::Plain(u64::from_be_bytes(self.array()?)),
            _ => match first >> 6 {
                0 => Length::Plain(u64::from(first)),
                1 => Length::Plain((u64::from(first & 0x3f) << 8) | u64::from(self.byte()?)),
                3 => Length::Special(first & 0x3f),
                _ => return Err(Fault::Malformed("a length is written in no known way")),
            },
        })
    }

    /// A length that is none of a string.
    pub(super) fn count(&mut self) -> Result<u64, Fault> {
        match self.length()? {
            Length::Plain(count) => Ok(count),
            Length::Special(_) => Err(Fault::Malformed("a count is written as a string")),
        }
    }

    /// A string of any form, whatever its length.
    pub(super) fn text(&mut self) -> Result<Text, Fault> {
        let length = self.length()?;
        if let Length::Plain(bytes) = length
            && bytes <= self.current.len() as u64
        {
            return Ok(Text::of(&self.some_or_none(bytes)?));
        }
        let mut hash = Xxh3::new();
        let mut bytes = 0;
        self.spell(length, &mut |piece| {
            hash.update(piece);
            bytes += piece.len() as u64;
        })?;
        let hash = hash.digest128();
        Ok(Text { hash, bytes })
    }

    fn some_or_none(&mut self, bytes: u64) -> Result<Bytes, Fault> {
        if bytes == 0 {
            return Ok(Bytes::new());
        }
        self.some(bytes)
    }

    /// A string that is a packed value.
    pub(super) fn packed(&mut self) -> Result<Vec<u8>, Fault> {
        let length = self.length()?;
        let mut packed = Vec::new();
        let mut too_long = false;
        self.spell(length, &mut |piece| {
            too_long |= (packed.len() + piece.len()) as u64 > PACKED;
            if !too_long {
                packed.extend_from_slice(piece);
            }
        })?;
        if too_long {
            return Err(Fault::Malformed("a packed value is too long to be one"));
        }
        Ok(packed)
    }

    fn spell(&mut self, length: Length, sink: &mut impl FnMut(&[u8])) -> Result<(), Fault> {
        match length {
            Length::Plain(bytes) => return self.raw(bytes, sink),
            Length::Special(0) => {
                let number = i8::from_le_bytes(self.array()?);
                sink(number.to_string().as_bytes());
            }
            Length::Special(1) => {
                let number = i16::from_le_bytes(self.array()?);
                sink(number.to_string().as_bytes());
            }
            Length::Special(2) => {
                let number = i32::from_le_bytes(self.array()?);
                sink(number.to_string().as_bytes());
            }
            Length::Special(3) => {
                let (packed, clear) = (self.count()?, self.count()?);
                return self.lzf(packed, clear, sink);
            }
            Length::Special(_) => {
                return Err(Fault::Malformed("a string is written in no known way"));
            }
        }
        Ok(())
    }

    /// Unpacks as it goes: a value may be larger than our memory.
    fn lzf(
        &mut self,
        mut packed: u64,
        clear: u64,
        sink: &mut impl FnMut(&[u8]),
    ) -> Result<(), Fault> {
        const WRONG: Fault = Fault::Malformed("a compressed string cannot be unpacked");
        let mut out: Vec<u8> = Vec::with_capacity(8 * WINDOW);
        let mut done = 0_u64;
        let mut take = |input: &mut Self, bytes: u64| -> Result<u8, Fault> {
            packed = packed.checked_sub(bytes).ok_or(WRONG)?;
            if bytes == 1 { input.byte() } else { Ok(0) }
        };
        while done + (out.len() as u64) < clear {
            let control = usize::from(take(self, 1)?);
            if control < 32 {
                let run = control as u64 + 1;
                if run > 1 {
                    take(self, run)?;
                    self.raw(run, &mut |piece| out.extend_from_slice(piece))?;
                } else {
                    out.push(take(self, 1)?);
                }
            } else {
                let mut run = control >> 5;
                if run == 7 {
                    run += usize::from(take(self, 1)?);
                }
                let back = ((control & 0x1f) << 8) + usize::from(take(self, 1)?) + 1;
                let start = out.len().checked_sub(back).ok_or(WRONG)?;
                for index in start..start + run + 2 {
                    out.push(out[index]);
                }
            }
            if out.len() > 4 * WINDOW {
                let gone = out.len() - WINDOW;
                sink(&out[..gone]);
                out.drain(..gone);
                done += gone as u64;
            }
        }
        sink(&out);
        if packed == 0 && done + out.len() as u64 == clear {
            Ok(())
        } else {
            Err(WRONG)
        }
    }
}
