//! COPY text as CSV.

use crate::DumpText;

/// Turns COPY text into CSV as `COPY … TO … (FORMAT csv)` writes it.
///
/// NULL is an empty field, an empty string `""`; quotes stand only where they must. Lines end with
/// `\n`. Input may be cut anywhere; what is kept is at most one field. The text must be in an
/// encoding in which a backslash is always a backslash, so not in SJIS, BIG5, GBK, GB18030, UHC or
/// JOHAB, which no database has, only a client that asked for one.
///
/// ```
/// use backup_pg_archive::copy_text_to_csv;
///
/// let columns = ["id".into(), "note".into()];
/// let csv = copy_text_to_csv(b"1\t\\N\n2\tsays \"a\\tb\"\n3\t\n", Some(&columns));
/// assert_eq!(csv, b"id,note\n1,\n2,\"says \"\"a\tb\"\"\"\n3,\"\"\n");
/// ```
/// <https://www.postgresql.org/docs/current/sql-copy.html>
#[derive(Debug)]
pub struct CsvConverter {
    columns: usize,
    /// The current field, decoded.
    field: Vec<u8>,
    fields_before: usize,
    escape: Escape,
    /// The field so far is `\N` and nothing else.
    is_null: bool,
    line_begun: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    No,
    Begun,
    Octal { value: u8, digits: u8 },
    Hex { value: u8, digits: u8 },
}

impl CsvConverter {
    /// For rows of so many columns. Their number matters only where it is 1.
    #[must_use]
    pub fn new(columns: usize) -> Self {
        Self {
            columns,
            field: Vec::new(),
            fields_before: 0,
            escape: Escape::No,
            is_null: false,
            line_begun: false,
        }
    }

    /// Writes a line of column names to `out`. Call it before any row.
    pub fn header(&self, names: &[DumpText], out: &mut Vec<u8>) {
        for (index, name) in names.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_field(name.as_bytes(), names.len() == 1, out);
        }
        out.push(b'\n');
    }

    /// Takes the next bytes of COPY text and appends what is complete to `out`.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while let Some(&first) = bytes.first() {
            self.line_begun = true;
            if self.escape != Escape::No {
                bytes = &bytes[usize::from(self.escaped(first))..];
                continue;
            }
            let plain = memchr::memchr3(b'\t', b'\n', b'\\', bytes).unwrap_or(bytes.len());
            self.append(&bytes[..plain]);
            bytes = &bytes[plain..];
            if let Some((&special, rest)) = bytes.split_first() {
                self.special(special, out);
                bytes = rest;
            }
        }
    }

    /// Ends the input; a last line without newline is completed.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        if self.line_begun {
            self.close_escape();
            self.special(b'\n', out);
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.is_null && !bytes.is_empty() {
            // `\N` is NULL only as a whole field; in a longer one it is the letter.
            self.is_null = false;
            self.field.push(b'N');
        }
        self.field.extend_from_slice(bytes);
    }

    fn special(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            b'\\' => self.escape = Escape::Begun,
            b'\t' => self.end_field(out),
            _ => {
                self.end_field(out);
                out.push(b'\n');
                self.fields_before = 0;
                self.line_begun = false;
            }
        }
    }

    fn end_field(&mut self, out: &mut Vec<u8>) {
        if self.fields_before > 0 {
            out.push(b',');
        }
        // A table without columns has rows without fields.
        if !self.is_null && self.columns > 0 {
            write_field(&self.field, self.columns == 1, out);
        }
        self.field.clear();
        self.is_null = false;
        self.fields_before += 1;
    }

    /// Takes a byte inside an escape. False if the byte ended the escape and is not part of it.
    fn escaped(&mut self, byte: u8) -> bool {
        match self.escape {
            Escape::Octal { value, digits } if digits < 3 && is_octal(byte) => {
                self.escape = Escape::Octal {
                    // Three digits can exceed a byte; PostgreSQL keeps the low eight bits.
                    value: value << 3 | (byte - b'0'),
                    digits: digits + 1,
                };
                true
            }
            Escape::Hex { value, digits } if digits < 2 && byte.is_ascii_hexdigit() => {
                self.escape = Escape::Hex {
                    value: value << 4 | hex_digit(byte),
                    digits: digits + 1,
                };
                true
            }
            Escape::Begun => {
                self.begin_escape(byte);
                true
            }
            _ => {
                self.close_escape();
                false
            }
        }
    }

    fn begin_escape(&mut self, byte: u8) {
        self.escape = Escape::No;
        match byte {
            b'0'..=b'7' => {
                self.escape = Escape::Octal {
                    value: byte - b'0',
                    digits: 1,
                }
            }
            b'x' => {
                self.escape = Escape::Hex {
                    value: 0,
                    digits: 0,
                }
            }
            b'N' if self.field.is_empty() && !self.is_null => self.is_null = true,
            b'b' => self.append(b"\x08"),
            b'f' => self.append(b"\x0c"),
            b'n' => self.append(b"\n"),
            b'r' => self.append(b"\r"),
            b't' => self.append(b"\t"),
            b'v' => self.append(b"\x0b"),
            other => self.append(&[other]),
        }
    }

    fn close_escape(&mut self) {
        match std::mem::replace(&mut self.escape, Escape::No) {
            Escape::Hex { digits: 0, .. } => self.append(b"x"),
            Escape::Octal { value, .. } | Escape::Hex { value, .. } => self.append(&[value]),
            Escape::Begun => self.append(b"\\"),
            Escape::No => {}
        }
    }
}

fn is_octal(byte: u8) -> bool {
    matches!(byte, b'0'..=b'7')
}

fn hex_digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        _ => byte.to_ascii_lowercase() - b'a' + 10,
    }
}

/// `alone` is whether it is the only field of its line: then `\.` would end the data.
fn write_field(field: &[u8], alone: bool, out: &mut Vec<u8>) {
    let special = |byte: &u8| matches!(byte, b',' | b'"' | b'\n' | b'\r');
    let quote = field.is_empty() || (alone && field == b"\\.") || field.iter().any(special);
    if !quote {
        out.extend_from_slice(field);
        return;
    }
    out.push(b'"');
    for piece in field.split_inclusive(|&byte| byte == b'"') {
        out.extend_from_slice(piece);
        if piece.ends_with(b"\"") {
            out.push(b'"');
        }
    }
    out.push(b'"');
}

/// Turns whole COPY text into CSV at once; with a header line if `header` names the columns.
///
/// Without a header the number of columns is taken from the first line. For text that does not fit
/// in memory use [`CsvConverter`].
#[must_use]
pub fn copy_text_to_csv(copy_text: &[u8], header: Option<&[DumpText]>) -> Vec<u8> {
    let first_line = copy_text.split(|&byte| byte == b'\n').next();
    let tabs = first_line.map_or(0, |line| memchr::memchr_iter(b'\t', line).count());
    let mut converter = CsvConverter::new(header.map_or(tabs + 1, <[_]>::len));
    let mut out = Vec::with_capacity(copy_text.len() + 64);
    if let Some(names) = header {
        converter.header(names, &mut out);
    }
    converter.push(copy_text, &mut out);
    converter.finish(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case::plain("a\tb\n", "a,b\n")]
    #[case::null("\\N\t\\N\n", ",\n")]
    #[case::empty("\t\n", "\"\",\"\"\n")]
    #[case::only_null("\\N\n", "\n")]
    #[case::not_null("\\Nx\t\\N\\N\tx\\N\t\\\\N\n", "Nx,NN,xN,\\N\n")]
    #[case::quotes("a\"b\t,\t\"\"\n", "\"a\"\"b\",\",\",\"\"\"\"\"\"\n")]
    #[case::line_ends("a\\nb\tc\\rd\n", "\"a\nb\",\"c\rd\"\n")]
    #[case::controls("\\b\\f\\v\\t\t.\n", "\x08\x0c\x0b\t,.\n")]
    #[case::octal("\\101\\1018\\0x\\7\t\n", "AA8\0x\x07,\"\"\n")]
    #[case::hex("\\x41\\x4G\\x\\xg\t\\x414\n", "A\x04Gxxg,A4\n")]
    #[case::other_escapes("\\q\\\\\\.\t1\n", "q\\.,1\n")]
    #[case::end_mark_alone("\\\\.\n", "\"\\.\"\n")]
    #[case::end_mark_not_alone("\\\\.\t1\n", "\\.,1\n")]
    #[case::space("  a \t b\n", "  a , b\n")]
    #[case::last_line_open("a\tb\nc\td", "a,b\nc,d\n")]
    #[case::nothing("", "")]
    fn lines(#[case] text: &str, #[case] csv: &str) {
        let columns = 1 + text.lines().next().unwrap_or("").matches('\t').count();
        assert_eq!(convert(columns, &[text.as_bytes()]), csv.as_bytes());
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(convert(columns, &bytes), csv.as_bytes(), "bytewise");
        assert_eq!(copy_text_to_csv(text.as_bytes(), None), csv.as_bytes());
    }

    fn convert(columns: usize, pieces: &[&[u8]]) -> Vec<u8> {
        let (mut converter, mut out) = (CsvConverter::new(columns), Vec::new());
        for piece in pieces {
            converter.push(piece, &mut out);
        }
        converter.finish(&mut out);
        out
    }

    #[test]
    fn rows_without_columns_are_empty_lines() {
        assert_eq!(copy_text_to_csv(b"\n\n", Some(&[])), b"\n\n\n");
    }

    #[test]
    fn header_is_quoted_like_a_row() {
        let names = ["a,b".into(), "c\"d".into(), "e".into()];
        assert_eq!(
            copy_text_to_csv(b"", Some(&names)),
            b"\"a,b\",\"c\"\"d\",e\n"
        );
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(text in "[a\\\\N\\t\\n\"0x17,.]{0,60}", at: prop::sample::Index) {
            let (first, second) = text.as_bytes().split_at(at.index(text.len() + 1));
            prop_assert_eq!(convert(2, &[first, second]), convert(2, &[text.as_bytes()]));
        }
    }
}
