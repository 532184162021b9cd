//! The forms in which servers pack small values: their elements, as the strings that they are.

use super::input::Fault;

const WRONG: Fault = Fault::Malformed("a packed value contradicts itself");

/// What is left of one packed value.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(WRONG)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        Ok(self.take(1)?[0])
    }

    /// A number of up to eight bytes, the lowest first, with its sign.
    fn number(&mut self, bytes: usize) -> Result<i64, Fault> {
        let taken = self.take(bytes)?;
        let negative = taken.last().is_some_and(|last| last & 0x80 != 0);
        let mut full = if negative { [0xff; 8] } else { [0; 8] };
        full[..bytes].copy_from_slice(taken);
        Ok(i64::from_le_bytes(full))
    }

    fn size(&mut self) -> Result<usize, Fault> {
        let taken = self.take(4)?.try_into().map_err(|_| WRONG)?;
        usize::try_from(u32::from_le_bytes(taken)).map_err(|_| WRONG)
    }
}

/// What each element is given to.
pub(super) type Sink<'a> = dyn FnMut(&[u8]) -> Result<(), Fault> + 'a;

fn give(number: i64, sink: &mut Sink<'_>) -> Result<(), Fault> {
    sink(number.to_string().as_bytes())
}

/// A listpack, since Redis 7 (and 5 within streams).
pub(super) fn listpack(packed: &[u8], sink: &mut Sink<'_>) -> Result<(), Fault> {
    let mut rest = Rest(packed);
    if rest.size()? != packed.len() {
        return Err(WRONG);
    }
    rest.take(2)?;
    loop {
        let before = rest.0.len();
        let first = rest.byte()?;
        let low = |mask: u8| usize::from(first & mask);
        match first {
            0xff if rest.0.is_empty() => return Ok(()),
            0x00..=0x7f => give(i64::from(first), sink)?,
            0x80..=0xbf => sink(rest.take(low(0x3f))?)?,
            0xc0..=0xdf => {
                let number = (i64::from(first & 0x1f) << 8) | i64::from(rest.byte()?);
                let sign = if number >= 1 << 12 { 1 << 13 } else { 0 };
                give(number - sign, sink)?;
            }
            0xe0..=0xef => {
                let length = (low(0x0f) << 8) | usize::from(rest.byte()?);
                sink(rest.take(length)?)?;
            }
            0xf0 => {
                let length = rest.size()?;
                sink(rest.take(length)?)?;
            }
            0xf1 => give(rest.number(2)?, sink)?,
            0xf2 => give(rest.number(3)?, sink)?,
            0xf3 => give(rest.number(4)?, sink)?,
            0xf4 => give(rest.number(8)?, sink)?,
            _ => return Err(WRONG),
        }
        // Each entry says once more how long it is, for those who come from the end.
        let entry = before - rest.0.len();
        rest.take(match entry {
            0..=127 => 1,
            128..16_383 => 2,
            16_383..2_097_151 => 3,
            2_097_151..268_435_455 => 4,
            _ => 5,
        })?;
    }
}

/// A ziplist, before Redis 7.
pub(super) fn ziplist(packed: &[u8], sink: &mut Sink<'_>) -> Result<(), Fault> {
    let mut rest = Rest(packed);
    if rest.size()? != packed.len() {
        return Err(WRONG);
    }
    rest.take(6)?;
    loop {
        match rest.byte()? {
            0xff if rest.0.is_empty() => return Ok(()),
            0xfe => drop(rest.take(4)?),
            0xff => return Err(WRONG),
            _ => {}
        }
        let first = rest.byte()?;
        let low = usize::from(first & 0x3f);
        match first {
            0x00..=0x3f => sink(rest.take(low)?)?,
            0x40..=0x7f => {
                let length = (low << 8) | usize::from(rest.byte()?);
                sink(rest.take(length)?)?;
            }
            0x80..=0xbf => {
                let length = rest.take(4)?.try_into().map_err(|_| WRONG)?;
                let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| WRONG)?;
                sink(rest.take(length)?)?;
            }
            0xc0 => give(rest.number(2)?, sink)?,
            0xd0 => give(rest.number(4)?, sink)?,
            0xe0 => give(rest.number(8)?, sink)?,
            0xf0 => give(rest.number(3)?, sink)?,
            0xfe => give(rest.number(1)?, sink)?,
            0xf1..=0xfd => give(i64::from(first & 0x0f) - 1, sink)?,
            _ => return Err(WRONG),
        }
    }
}

/// A set of numbers.
pub(super) fn intset(packed: &[u8], sink: &mut Sink<'_>) -> Result<(), Fault> {
    let mut rest = Rest(packed);
    let (width, count) = (rest.size()?, rest.size()?);
    if !matches!(width, 2 | 4 | 8) || rest.0.len() != width.saturating_mul(count) {
        return Err(WRONG);
    }
    for _ in 0..count {
        give(rest.number(width)?, sink)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(
        unpack: fn(&[u8], &mut Sink<'_>) -> Result<(), Fault>,
        packed: &[u8],
    ) -> Result<Vec<String>, Fault> {
        let mut found = Vec::new();
        unpack(packed, &mut |element| {
            found.push(String::from_utf8_lossy(element).into_owned());
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn elements_come_out_as_strings() {
        // Out of DUMP of Redis 7: a hash with a = 1, b = -3000.
        let entries = [
            &b"\x81a\x02"[..],
            b"\x01\x01",
            b"\x81b\x02",
            b"\xd4\x48\x02",
            b"\xff",
        ];
        let content = entries.concat();
        let mut packed = u32::try_from(content.len() + 6)
            .unwrap()
            .to_le_bytes()
            .to_vec();
        packed.extend([4, 0]);
        packed.extend(content);
        assert_eq!(
            strings(listpack, &packed).unwrap(),
            ["a", "1", "b", "-3000"]
        );
        for cut in 0..packed.len() {
            assert!(strings(listpack, &packed[..cut]).is_err());
        }
        let ints = b"\x02\0\0\0\x03\0\0\0\xff\xff\x01\x00\x2c\x01";
        assert_eq!(strings(intset, ints).unwrap(), ["-1", "1", "300"]);
        let content = b"\x00\x02hi\x04\xfe\xfe\x03\xf1\x02\xc0\x2c\x01\xff";
        let mut packed = u32::try_from(content.len() + 10)
            .unwrap()
            .to_le_bytes()
            .to_vec();
        packed.extend([0, 0, 0, 0, 4, 0]);
        packed.extend(content);
        assert_eq!(strings(ziplist, &packed).unwrap(), ["hi", "-2", "0", "300"]);
    }
}
