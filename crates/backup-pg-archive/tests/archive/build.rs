//! Builds archives by hand, good and bad, of any version, without the crate's own writer.

#[derive(Clone)]
pub(crate) struct Archive {
    pub(crate) minor: u8,
    pub(crate) int_size: u8,
    pub(crate) off_size: u8,
    pub(crate) format: u8,
    /// zlib's level up to 1.14, the method's number since.
    pub(crate) compression: u8,
    pub(crate) entries: Vec<Entry>,
    /// What follows the table of contents.
    pub(crate) blocks: Vec<u8>,
}

#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) id: i64,
    pub(crate) desc: &'static str,
    pub(crate) tag: &'static [u8],
    pub(crate) copy: Option<&'static str>,
    pub(crate) had_dumper: bool,
    pub(crate) section: i64,
    pub(crate) oid: &'static str,
    pub(crate) dependencies: Vec<&'static str>,
    pub(crate) data_state: u8,
}

pub(crate) const ROWS: &[u8] = b"1\tone\n2\ttwo\n";
pub(crate) const END: &[u8] = b"\\.\n\n\n";

pub(crate) fn table_data(id: i64, tag: &'static str) -> Entry {
    Entry {
        id,
        desc: "TABLE DATA",
        tag: tag.as_bytes(),
        copy: Some("COPY app.t (a, b) FROM stdin;\n"),
        had_dumper: true,
        section: 3,
        oid: "16385",
        dependencies: vec!["9", "10"],
        data_state: 1,
    }
}

pub(crate) fn large_objects(id: i64) -> Entry {
    Entry {
        desc: "BLOBS",
        copy: None,
        ..table_data(id, "BLOBS")
    }
}

pub(crate) fn plain(id: i64, desc: &'static str) -> Entry {
    Entry {
        desc,
        copy: None,
        had_dumper: false,
        section: 2,
        data_state: 3,
        ..table_data(id, "thing")
    }
}

impl Archive {
    pub(crate) fn new(minor: u8, entries: Vec<Entry>, blocks: Vec<u8>) -> Self {
        Self {
            minor,
            int_size: 4,
            off_size: 8,
            format: 1,
            compression: 0,
            entries,
            blocks,
        }
    }

    /// One table, two rows.
    pub(crate) fn small(minor: u8) -> Self {
        let blocks = data_block(5, &[b"1\tone\n", b"2\ttwo\n", END]);
        Self::new(minor, vec![plain(4, "TABLE"), table_data(5, "t")], blocks)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"PGDMP".to_vec();
        out.extend([1, self.minor, 0, self.int_size, self.off_size, self.format]);
        if self.minor >= 15 {
            out.push(self.compression);
        } else {
            self.int(self.compression.into(), &mut out);
        }
        for number in [1, 2, 3, 4, 5, 126, 0] {
            self.int(number, &mut out);
        }
        for text in ["shop", "16.15", "16.15"] {
            self.text(Some(text.as_bytes()), &mut out);
        }
        self.int(
            self.entries.len().try_into().expect("a small number"),
            &mut out,
        );
        for entry in &self.entries {
            self.entry(entry, &mut out);
        }
        out.extend(&self.blocks);
        out
    }

    fn entry(&self, entry: &Entry, out: &mut Vec<u8>) {
        self.int(entry.id, out);
        self.int(entry.had_dumper.into(), out);
        for text in [
            b"1259",
            entry.oid.as_bytes(),
            entry.tag,
            entry.desc.as_bytes(),
        ] {
            self.text(Some(text), out);
        }
        self.int(entry.section, out);
        self.text(Some(b"SELECT 'x'"), out);
        self.text(None, out);
        self.text(entry.copy.map(str::as_bytes), out);
        self.text(Some(b"app"), out);
        self.text(Some(b""), out);
        if self.minor >= 14 {
            self.text(Some(b"heap"), out);
        }
        if self.minor >= 16 {
            self.int(i64::from(b'r'), out);
        }
        self.text(Some(b"owner"), out);
        self.text(Some(b"false"), out);
        for id in &entry.dependencies {
            self.text(Some(id.as_bytes()), out);
        }
        self.text(None, out);
        out.push(entry.data_state);
        out.extend(vec![7; self.off_size.into()]);
    }

    fn int(&self, number: i64, out: &mut Vec<u8>) {
        int(number, self.int_size, out);
    }

    fn text(&self, text: Option<&[u8]>, out: &mut Vec<u8>) {
        match text {
            None => self.int(-1, out),
            Some(text) => {
                self.int(text.len().try_into().expect("a small number"), out);
                out.extend(text);
            }
        }
    }
}

pub(crate) fn int(number: i64, size: u8, out: &mut Vec<u8>) {
    out.push(number.is_negative().into());
    out.extend(&number.unsigned_abs().to_le_bytes()[..size.into()]);
}

fn chunks(chunks: &[&[u8]], out: &mut Vec<u8>) {
    for chunk in chunks {
        int(chunk.len().try_into().expect("a small number"), 4, out);
        out.extend(*chunk);
    }
    int(0, 4, out);
}

pub(crate) fn data_block(id: i64, data: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![1];
    int(id, 4, &mut out);
    chunks(data, &mut out);
    out
}

pub(crate) fn object_block(id: i64, objects: &[(i64, &[&[u8]])]) -> Vec<u8> {
    let mut out = vec![3];
    int(id, 4, &mut out);
    for (oid, data) in objects {
        int(*oid, 4, &mut out);
        chunks(data, &mut out);
    }
    int(0, 4, &mut out);
    out
}
