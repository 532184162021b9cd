//! Which form of dump a file has.

use backup_core::body::BodyStream;
use backup_core::error::{ErrorKind, PortError};
use futures::StreamExt as _;

/// What is enough to tell.
const BEGINNING: usize = 4 << 10;
/// Where an archive says which of `pg_dump`'s formats it has, and tar says what it is.
const FORMAT: usize = 10;
const TAR: std::ops::Range<usize> = 257..262;

/// A form that can be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Custom,
    Tar,
    Sql,
}

/// The first bytes of a body, as many as tell its form or as there are.
pub(super) async fn beginning(body: &mut BodyStream) -> Result<Vec<u8>, PortError> {
    let mut begin = Vec::new();
    while begin.len() < BEGINNING
        && let Some(chunk) = body.next().await
    {
        begin.extend_from_slice(&chunk.map_err(super::unreadable)?);
    }
    Ok(begin)
}

impl Form {
    pub(super) fn of(begin: &[u8]) -> Result<Self, PortError> {
        let no = |what: &str, hint: &str| {
            Err(PortError::new(ErrorKind::InvalidInput, what).with_hint(hint))
        };
        if begin.starts_with(b"PGDMP") {
            return match begin.get(FORMAT) {
                Some(1) => Ok(Self::Custom),
                _ => no(
                    "this is the table of contents of a dump in directory form, and not the dump",
                    "restore it, or dump anew with pg_dump -Fc: a directory cannot be adopted",
                ),
            };
        }
        if begin.get(TAR) == Some(b"ustar") {
            return if begin.starts_with(b"toc.dat\0") {
                Ok(Self::Tar)
            } else {
                no(
                    "this is a tar archive, and none that pg_dump -Ft wrote",
                    "a dump in directory form that was packed can be restored after unpacking it",
                )
            };
        }
        if String::from_utf8_lossy(begin).contains("-- PostgreSQL database") {
            return Ok(Self::Sql);
        }
        no(
            "this is no dump that pg_dump wrote",
            "what can be adopted: pg_dump -Fc, -Ft and plain SQL, also packed by gzip or zstd",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_told_by_their_first_bytes() {
        assert_eq!(
            Form::of(b"PGDMP\x01\x0e\x00\x04\x08\x01").unwrap(),
            Form::Custom
        );
        let directory = Form::of(b"PGDMP\x01\x0e\x00\x04\x08\x05").unwrap_err();
        assert!(directory.to_string().contains("directory"));
        let mut tar = b"toc.dat\0".to_vec();
        tar.resize(257, 0);
        tar.extend(b"ustar");
        assert_eq!(Form::of(&tar).unwrap(), Form::Tar);
        tar[0] = b'x';
        assert!(Form::of(&tar).is_err());
        assert_eq!(
            Form::of(b"--\n-- PostgreSQL database dump\n--\n").unwrap(),
            Form::Sql
        );
        assert!(Form::of(b"").is_err());
    }
}
