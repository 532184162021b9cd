//! COPY statements and the way an archive ends COPY text.

use crate::{ArchiveError, DumpText};

/// What `pg_dump` writes after the last row. In a script the first line ends the COPY and the
/// others are for looks; `pg_restore` sends all of it.
/// <https://www.postgresql.org/docs/current/sql-copy.html> ("Text Format")
pub(crate) const END_MARK: &[u8; 5] = b"\\.\n\n\n";

/// Column names of `COPY schema.table (a, "b") FROM stdin;`; empty if there is no list.
pub(crate) fn parse_columns(statement: &[u8]) -> Option<Vec<DumpText>> {
    let mut rest = statement.strip_prefix(b"COPY ")?;
    loop {
        (_, rest) = identifier(rest)?;
        match rest.strip_prefix(b".") {
            Some(after) => rest = after,
            None => break,
        }
    }
    let rest = rest.trim_ascii_start();
    match rest.strip_prefix(b"(") {
        Some(list) => column_list(list),
        None if rest.starts_with(b"FROM ") => Some(Vec::new()),
        None => None,
    }
}

fn column_list(mut rest: &[u8]) -> Option<Vec<DumpText>> {
    let mut columns = Vec::new();
    loop {
        let (name, after) = identifier(rest)?;
        columns.push(name);
        match after.strip_prefix(b", ") {
            Some(next) => rest = next,
            None => return after.starts_with(b") FROM ").then_some(columns),
        }
    }
}

/// One identifier, unquoted, and what follows it.
fn identifier(text: &[u8]) -> Option<(DumpText, &[u8])> {
    if let Some(quoted) = text.strip_prefix(b"\"") {
        return quoted_identifier(quoted);
    }
    let end = text.iter().position(|byte| b" .,()\"".contains(byte))?;
    let (name, rest) = text.split_at(end);
    (!name.is_empty()).then(|| (name.into(), rest))
}

fn quoted_identifier(mut text: &[u8]) -> Option<(DumpText, &[u8])> {
    let mut name = Vec::new();
    loop {
        let end = memchr::memchr(b'"', text)?;
        name.extend_from_slice(&text[..end]);
        text = &text[end + 1..];
        match text.strip_prefix(b"\"") {
            Some(after) => {
                name.push(b'"');
                text = after;
            }
            None => return Some((name.into(), text)),
        }
    }
}

/// Takes the data of one table apart into rows and end mark.
///
/// The mark is the last thing of the block, so it is enough to hold back whatever the bytes so far
/// end with that could be its beginning: at most five bytes, and none at all after an ordinary row.
#[derive(Debug)]
pub(crate) struct CopyBody {
    at_line_start: bool,
    /// How many bytes of [`END_MARK`] are held back.
    held: usize,
}

impl Default for CopyBody {
    fn default() -> Self {
        Self {
            at_line_start: true,
            held: 0,
        }
    }
}

/// The data go on after the mark, or end without it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadEndMark;

impl BadEndMark {
    pub(crate) fn of(self, table: DumpText) -> ArchiveError {
        let Self = self;
        ArchiveError::BadEndMark { table }
    }
}

impl CopyBody {
    /// Hands the rows of `chunk` to `rows`, in at most two slices.
    #[inline]
    pub(crate) fn push(
        &mut self,
        chunk: &[u8],
        mut rows: impl FnMut(&[u8]),
    ) -> Result<(), BadEndMark> {
        if self.held > 0 && self.release(chunk, &mut rows)? {
            return Ok(());
        }
        self.held = mark_prefix_at_end(chunk, self.at_line_start);
        let body = &chunk[..chunk.len() - self.held];
        if let Some(&last) = body.last() {
            self.at_line_start = last == b'\n';
            rows(body);
        }
        Ok(())
    }

    /// Compares what follows the held bytes with the rest of the mark. True if `chunk` is used up.
    #[cold]
    fn release(&mut self, chunk: &[u8], rows: &mut impl FnMut(&[u8])) -> Result<bool, BadEndMark> {
        let wanted = &END_MARK[self.held..];
        let matched = wanted.iter().zip(chunk).take_while(|(a, b)| a == b).count();
        if matched == chunk.len() {
            self.held += matched;
            return Ok(true);
        }
        // A whole line `\.` is the mark whatever follows: no row looks like that.
        if self.held + matched >= 3 {
            return Err(BadEndMark);
        }
        rows(&END_MARK[..self.held]);
        self.at_line_start = false;
        Ok(false)
    }

    /// Ends the block, which must have ended with the mark.
    pub(crate) fn finish(self) -> Result<(), BadEndMark> {
        if self.held == END_MARK.len() {
            Ok(())
        } else {
            Err(BadEndMark)
        }
    }
}

/// Length of the longest beginning of the mark that `chunk` ends with, if it starts a line.
#[inline]
fn mark_prefix_at_end(chunk: &[u8], at_line_start: bool) -> usize {
    match chunk {
        // Nearly every chunk is a row, and nearly every row ends so.
        [.., before, b'\n'] if *before != b'.' && *before != b'\n' => 0,
        [.., b'\n' | b'.' | b'\\'] => search_mark_prefix(chunk, at_line_start),
        _ => 0,
    }
}

#[cold]
fn search_mark_prefix(chunk: &[u8], at_line_start: bool) -> usize {
    let starts_line = |at: usize| {
        at.checked_sub(1)
            .map_or(at_line_start, |before| chunk[before] == b'\n')
    };
    (1..=END_MARK.len().min(chunk.len()))
        .rev()
        .find(|&len| chunk.ends_with(&END_MARK[..len]) && starts_line(chunk.len() - len))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("COPY app.t (a, b) FROM stdin;\n", Some(vec!["a", "b"]))]
    #[case("COPY app.t  FROM stdin;\n", Some(vec![]))]
    #[case("COPY app.t FROM stdin;\n", Some(vec![]))]
    #[case(r#"COPY "a.""b"".".t ("x, y", "c""d", e) FROM stdin;"#, Some(vec!["x, y", "c\"d", "e"]))]
    #[case(r#"COPY t (") FROM ", b) FROM stdin;"#, Some(vec![") FROM ", "b"]))]
    #[case("COPY t (a FROM stdin;", None)]
    #[case(r#"COPY t ("a FROM stdin;"#, None)]
    #[case("INSERT INTO t", None)]
    #[case("COPY ", None)]
    fn columns(#[case] statement: &str, #[case] expected: Option<Vec<&str>>) {
        let expected = expected.map(|names| names.into_iter().map(DumpText::from).collect());
        assert_eq!(parse_columns(statement.as_bytes()), expected);
    }

    fn split(chunks: &[&[u8]]) -> Result<Vec<u8>, BadEndMark> {
        let (mut body, mut rows) = (CopyBody::default(), Vec::new());
        for chunk in chunks {
            body.push(chunk, |bytes| rows.extend_from_slice(bytes))?;
        }
        body.finish().map(|()| rows)
    }

    #[rstest]
    #[case::no_rows(b"", true)]
    #[case::row(b"1\ta\n", true)]
    #[case::empty_rows(b"\n\n\n", true)]
    #[case::escaped_mark(b"\\\\.\n", true)]
    #[case::row_ends_with_mark(b"a\\.\n", true)]
    #[case::null_rows(b"\\N\n\\N\n.\n..\n", true)]
    #[case::row_without_newline(b"abc", false)]
    #[case::mark_inside(b"a\n\\.\nb\n", false)]
    fn end_mark_is_cut_off_however_it_is_split(#[case] rows: &[u8], #[case] good: bool) {
        let data = [rows, END_MARK].concat();
        for first in 0..=data.len() {
            for second in first..=data.len() {
                let chunks = [&data[..first], &data[first..second], &data[second..]];
                // A mark inside that no chunk border touches goes unnoticed: it cannot be told from
                // damage to any other byte, which only a checksum of the archive finds.
                match split(&chunks) {
                    Ok(found) => assert_eq!(found, rows, "{first} {second}"),
                    Err(BadEndMark) => assert!(!good, "{first} {second}"),
                }
            }
        }
    }

    #[rstest]
    #[case(b"a\n")]
    #[case(b"a\n\\.\n\n")]
    #[case(b"a\n\\.\n\n\nb\n")]
    #[case(b"a\n\\.\n\n\n\n")]
    #[case(b"a\\.\n\n\n")]
    #[case(b"")]
    fn other_ends_are_refused(#[case] data: &[u8]) {
        assert_eq!(split(&[data]), Err(BadEndMark));
        let bytes: Vec<&[u8]> = data.chunks(1).collect();
        assert_eq!(split(&bytes), Err(BadEndMark));
    }
}
