//! A tar archive as it passes: whether its members are whole and its end is there.
//!
//! The layout is that of POSIX: a header of 512 bytes, the content filled up to 512, and at the end
//! two blocks of nothing. `pg_dump` writes `toc.dat` first and `restore.sql` last.

const BLOCK: u64 = 512;
const NAME: std::ops::Range<usize> = 0..100;
const SIZE: std::ops::Range<usize> = 124..136;
const SUM: std::ops::Range<usize> = 148..156;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct TarWalk {
    header: Vec<u8>,
    /// Of the member that passes, with what fills it up.
    left: u64,
    empty_blocks: u32,
    members: u64,
    last: String,
}

impl TarWalk {
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let passed = usize::try_from(self.left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                self.left -= passed as u64;
                bytes = &bytes[passed..];
                continue;
            }
            let missing = (512 - self.header.len()).min(bytes.len());
            self.header.extend_from_slice(&bytes[..missing]);
            bytes = &bytes[missing..];
            if self.header.len() == 512 {
                let header = std::mem::take(&mut self.header);
                self.member(&header)?;
            }
        }
        Ok(())
    }

    fn member(&mut self, header: &[u8]) -> Result<(), &'static str> {
        if header.iter().all(|byte| *byte == 0) {
            self.empty_blocks += 1;
            return Ok(());
        }
        if self.empty_blocks > 0 {
            return Err("tar archive goes on after its end");
        }
        let blank = |index: usize| SUM.contains(&index);
        let sum: u64 = header
            .iter()
            .enumerate()
            .map(|(index, byte)| u64::from(if blank(index) { b' ' } else { *byte }))
            .sum();
        if octal(&header[SUM]) != Some(sum) {
            return Err("tar archive has a damaged header");
        }
        let size = size(&header[SIZE]).ok_or("tar archive has a member of no known size")?;
        self.left = size.div_ceil(BLOCK) * BLOCK;
        self.members += 1;
        let name = header[NAME].split(|byte| *byte == 0).next();
        self.last = String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
        if self.members == 1 && self.last != "toc.dat" {
            return Err("tar archive is none of pg_dump: it does not begin with toc.dat");
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<(), &'static str> {
        if self.left > 0 || !self.header.is_empty() {
            return Err("tar archive ends early, inside a member");
        }
        if self.empty_blocks < 2 {
            return Err("tar archive ends early: its end mark is missing");
        }
        if self.last != "restore.sql" {
            return Err("tar archive is not complete: pg_dump writes restore.sql last");
        }
        Ok(())
    }
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    let text = text.trim_matches(['\0', ' ']);
    u64::from_str_radix(text, 8).ok()
}

/// Octal, or for what is too large for that the number itself.
fn size(field: &[u8]) -> Option<u64> {
    match field.split_first() {
        Some((first, rest)) if first & 0x80 != 0 => {
            let last = rest.last_chunk::<8>()?;
            Some(u64::from_be_bytes(*last))
        }
        _ => octal(field),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, content: &[u8]) -> Vec<u8> {
        let mut header = vec![0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        let size = format!("{:011o}\0", content.len());
        header[SIZE].copy_from_slice(size.as_bytes());
        header[SUM].fill(b' ');
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        header[SUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header.extend(content);
        header.resize(header.len().div_ceil(512) * 512, 0);
        header
    }

    fn walk(bytes: &[u8], piece: usize) -> Result<(), &'static str> {
        let mut walk = TarWalk::default();
        for piece in bytes.chunks(piece) {
            walk.push(piece)?;
        }
        walk.finish()
    }

    #[test]
    fn only_a_whole_archive_passes() {
        let parts = [
            member("toc.dat", &[7; 700]),
            member("3.dat", b"1\tx\n\\.\n"),
            member("restore.sql", b"--"),
            vec![0; 1024],
        ];
        let whole = parts.concat();
        for piece in [1, 100, 512, 5000] {
            assert_eq!(walk(&whole, piece), Ok(()));
        }
        for cut in (0..whole.len()).step_by(37) {
            assert!(walk(&whole[..cut], 512).is_err(), "{cut}");
        }
        let without_last = [&parts[0][..], &parts[1], &parts[3]].concat();
        assert!(walk(&without_last, 512).is_err());
    }
}
