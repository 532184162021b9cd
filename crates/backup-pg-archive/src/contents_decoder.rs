//! Header and table of contents, decoded as their bytes arrive.
//!
//! The layout is that of `ReadHead` and `ReadToc` in PostgreSQL's
//! `src/bin/pg_dump/pg_backup_archiver.c`.

use crate::decode::{Decoder, Input};
use crate::{
    ArchiveError, ArchiveVersion, Compression, Contents, CreatedAt, DataState, DumpText, Header,
    Limits, Section, TocEntry,
};

/// The number of the custom format in the header; tar is 3, directory 5.
const CUSTOM_FORMAT: u8 = 1;

#[derive(Debug)]
pub(crate) struct ContentsDecoder {
    limits: Limits,
    step: Step,
    header: Header,
    tm: [i32; 6],
    entries: Vec<TocEntry>,
    entry: TocEntry,
    entry_count: u64,
    /// Where it begins in the archive.
    start: u64,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Prelude,
    Compression,
    CompressionLevel,
    /// One of the seven numbers of C's `struct tm`.
    Created(usize),
    Database,
    ServerVersion,
    DumpVersion,
    EntryCount,
    Entry(Field),
    Done,
}

/// A field of an entry, in the order of the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    DumpId,
    HadDumper,
    TableOid,
    Oid,
    Tag,
    Desc,
    Section,
    Defn,
    DropStmt,
    CopyStmt,
    Namespace,
    Tablespace,
    TableAm,
    Relkind,
    Owner,
    WithOids,
    Dependency,
    DataState,
}

impl Field {
    fn next(self, version: ArchiveVersion) -> Option<Self> {
        let next = match self {
            Self::DumpId => Self::HadDumper,
            Self::HadDumper => Self::TableOid,
            Self::TableOid => Self::Oid,
            Self::Oid => Self::Tag,
            Self::Tag => Self::Desc,
            Self::Desc => Self::Section,
            Self::Section => Self::Defn,
            Self::Defn => Self::DropStmt,
            Self::DropStmt => Self::CopyStmt,
            Self::CopyStmt => Self::Namespace,
            Self::Namespace => Self::Tablespace,
            Self::Tablespace if version.minor < 14 => Self::Owner,
            Self::Tablespace => Self::TableAm,
            Self::TableAm if version.minor < 16 => Self::Owner,
            Self::TableAm => Self::Relkind,
            Self::Relkind => Self::Owner,
            Self::Owner => Self::WithOids,
            Self::WithOids => Self::Dependency,
            Self::Dependency => Self::DataState,
            Self::DataState => return None,
        };
        Some(next)
    }
}

impl ContentsDecoder {
    pub(crate) fn new(limits: Limits) -> Self {
        let nothing = CreatedAt::from_tm([0; 6]);
        Self {
            limits,
            step: Step::Prelude,
            header: Header {
                version: ArchiveVersion {
                    major: 0,
                    minor: 0,
                    revision: 0,
                },
                int_size: 4,
                off_size: 8,
                compression: Compression::None,
                created: nothing,
                database: None,
                server_version: None,
                dump_version: None,
            },
            tm: [0; 6],
            entries: Vec::new(),
            entry: TocEntry::default(),
            entry_count: 0,
            start: 0,
        }
    }

    /// Expects only the entries once more, at `start`, of an archive with this header.
    pub(crate) fn again(limits: Limits, header: Header, start: u64) -> Self {
        Self {
            step: Step::EntryCount,
            header,
            start,
            ..Self::new(limits)
        }
    }

    /// Reads on. `None` when `input` is used up first.
    pub(crate) fn push(
        &mut self,
        decoder: &mut Decoder,
        input: &mut Input<'_>,
    ) -> Result<Option<Contents>, ArchiveError> {
        loop {
            let Some(next) = self.step(decoder, input)? else {
                self.check_size(input)?;
                return Ok(None);
            };
            self.step = next;
            if matches!(next, Step::Done) {
                self.check_size(input)?;
                return Ok(Some(self.take()));
            }
        }
    }

    fn take(&mut self) -> Contents {
        let fresh = Self::new(self.limits);
        let decoded = std::mem::replace(self, fresh);
        Contents {
            header: decoded.header,
            entries: decoded.entries,
        }
    }

    fn check_size(&self, input: &Input<'_>) -> Result<(), ArchiveError> {
        let limit = self.limits.contents_bytes;
        if input.position() - self.start <= limit {
            return Ok(());
        }
        Err(ArchiveError::LimitExceeded {
            what: "table of contents",
            limit,
        })
    }

    /// Reads one thing and names the step after it. `None` when `input` is used up first.
    fn step(
        &mut self,
        decoder: &mut Decoder,
        input: &mut Input<'_>,
    ) -> Result<Option<Step>, ArchiveError> {
        match self.step {
            Step::Prelude => self.prelude(decoder, input),
            Step::Compression => Ok(decoder.byte(input).map(|number| {
                self.header.compression = number.into();
                Step::Created(0)
            })),
            Step::CompressionLevel => self.compression_level(decoder, input),
            Step::Created(index) => self.created(index, decoder, input),
            Step::Database => self.text(decoder, input, |decoder, text| {
                decoder.header.database = text;
                Step::ServerVersion
            }),
            Step::ServerVersion => self.text(decoder, input, |decoder, text| {
                decoder.header.server_version = text;
                Step::DumpVersion
            }),
            Step::DumpVersion => self.text(decoder, input, |decoder, text| {
                decoder.header.dump_version = text;
                Step::EntryCount
            }),
            Step::EntryCount => self.count(decoder, input),
            Step::Entry(field) => self.field(field, decoder, input),
            Step::Done => Ok(None),
        }
    }

    fn prelude(
        &mut self,
        decoder: &mut Decoder,
        input: &mut Input<'_>,
    ) -> Result<Option<Step>, ArchiveError> {
        let Some(bytes) = decoder.bytes::<11>(input) else {
            return Ok(None);
        };
        let [
            magic @ ..,
            major,
            minor,
            revision,
            int_size,
            off_size,
            format,
        ] = bytes;
        if magic != *b"PGDMP" {
            return Err(ArchiveError::NotAnArchive);
        }
        let version = ArchiveVersion {
            major,
            minor,
            revision,
        };
        if !version.is_known() {
            return Err(ArchiveError::UnsupportedVersion { version });
        }
        if !matches!((int_size, off_size), (4 | 8, 4 | 8)) {
            return Err(ArchiveError::UnsupportedSizes { int_size, off_size });
        }
        if format != CUSTOM_FORMAT {
            return Err(ArchiveError::NotCustomFormat { format });
        }
        self.header.version = version;
        self.header.int_size = int_size;
        self.header.off_size = off_size;
        Ok(Some(if minor >= 15 {
            Step::Compression
        } else {
            Step::CompressionLevel
        }))
    }

    /// Before 1.15 the header has zlib's level: 0 is none, -1 the default.
    fn compression_level(
        &mut self,
        decoder: &mut Decoder,
        input: &mut Input<'_>,
    ) -> Result<Option<Step>, ArchiveError> {
        let level = self.int(decoder, input)?;
        Ok(level.map(|level| {
            self.header.compression = match level {
                0 => Compression::None,
                _ => Compression::Gzip,
            };
            Step::Created(0)
        }))
    }

    fn created(
        &mut self,
        index: usize,
        decoder: &mut Decoder,
        input: &mut Input<'_>,
    ) -> Result<Option<Step>, ArchiveError> {
        let Some(number) = self.int(decoder, input)? else {
            return Ok(None);
        };
        // The seventh says whether it is daylight saving time.
        let Some(slot) = self.tm.get_mut(index) else {
            self.header.created = CreatedAt::from_tm(self.tm);
            return Ok(Some(Step::Database));
        };
        *slot = i32::try_from(number).map_err(|_| input.malformed("date out of range"))?;
        Ok(Some(Step::Created(index + 1)))
    }

    fn count(
        &mut self,
        decoder: &mut Decoder,
        input: &mut Input<'_>,
    ) -> Result<Option<Step>, ArchiveError> {
        let Some(count) = self.int(decoder, input)? else {
            return Ok(None);
        };
        let count = u64::try_from(count).map_err(|_| input.malformed("negative entry count"))?;
        if count > self.limits.entries {
            return Err(ArchiveError::LimitExceeded {
                what: "number of entries",
                limit: self.limits.entries,
            });
        }
        self.entry_count = count;
        Ok(Some(self.next_entry()))
    }

    fn next_entry(&self) -> Step {
        if (self.entries.len() as u64) < self.entry_count {
            Step::Entry(Field::DumpId)
        } else {
            Step::Done
        }
    }

    fn field(
        &mut self,
        field: Field,
        decoder: &mut Decoder,
        input: &mut Input<'_>,
    ) -> Result<Option<Step>, ArchiveError> {
        let complete = match field {
            Field::DumpId | Field::HadDumper | Field::Section | Field::Relkind => {
                let number = self.int(decoder, input)?;
                number.map(|number| self.set_number(field, number))
            }
            Field::DataState => {
                let offset = decoder.offset(input, self.header.off_size);
                offset.map(|(flag, offset)| self.set_data_state(flag, offset))
            }
            _ => {
                let text = decoder.string(input, self.header.int_size, &self.limits)?;
                text.map(|text| self.set_text(field, text))
            }
        };
        match complete {
            None => Ok(None),
            Some(Err(problem)) => Err(input.malformed(problem)),
            Some(Ok(next)) => Ok(Some(next)),
        }
    }

    fn set_number(&mut self, field: Field, number: i64) -> Result<Step, &'static str> {
        let entry = &mut self.entry;
        match field {
            Field::DumpId => entry.dump_id = positive(number).ok_or("impossible dump id")?,
            Field::HadDumper => entry.had_dumper = number != 0,
            Field::Section => {
                entry.section = Section::from_number(number).ok_or("impossible section")?;
            }
            _ => entry.relkind = relkind(number)?,
        }
        Ok(self.after(field))
    }

    fn set_text(&mut self, field: Field, text: Option<DumpText>) -> Result<Step, &'static str> {
        let entry = &mut self.entry;
        match field {
            Field::TableOid => entry.table_oid = oid(text.as_ref())?,
            Field::Oid => entry.oid = oid(text.as_ref())?,
            Field::Tag => entry.tag = text.unwrap_or_default(),
            Field::Desc => entry.desc = text.unwrap_or_default(),
            Field::Defn => entry.defn = text,
            Field::DropStmt => entry.drop_stmt = text,
            Field::CopyStmt => entry.copy_stmt = text,
            Field::Namespace => entry.namespace = text,
            Field::Tablespace => entry.tablespace = text,
            Field::TableAm => entry.table_am = text,
            Field::Owner => entry.owner = text,
            Field::Dependency => return self.set_dependency(text.as_ref()),
            // WITH OIDS, gone since 12: always "false".
            _ => {}
        }
        Ok(self.after(field))
    }

    /// The list ends with a null string.
    fn set_dependency(&mut self, text: Option<&DumpText>) -> Result<Step, &'static str> {
        let Some(text) = text else {
            self.entry.dependencies.shrink_to_fit();
            return Ok(self.after(Field::Dependency));
        };
        let id = decimal(text).ok_or("impossible dependency")?;
        self.entry.dependencies.push(id);
        Ok(Step::Entry(Field::Dependency))
    }

    fn set_data_state(&mut self, flag: u8, offset: u64) -> Result<Step, &'static str> {
        self.entry.data_state =
            DataState::from_parts(flag, offset).ok_or("impossible data state")?;
        let entry = std::mem::take(&mut self.entry);
        if entry.had_dumper == (entry.data_state == DataState::NoData) {
            return Err("entry contradicts itself on whether it has data");
        }
        self.entries.push(entry);
        Ok(self.next_entry())
    }

    fn after(&self, field: Field) -> Step {
        let next = field.next(self.header.version);
        next.map_or_else(|| self.next_entry(), Step::Entry)
    }

    fn int(
        &self,
        decoder: &mut Decoder,
        input: &mut Input<'_>,
    ) -> Result<Option<i64>, ArchiveError> {
        decoder.int(input, self.header.int_size)
    }

    fn text(
        &mut self,
        decoder: &mut Decoder,
        input: &mut Input<'_>,
        set: impl FnOnce(&mut Self, Option<DumpText>) -> Step,
    ) -> Result<Option<Step>, ArchiveError> {
        let text = decoder.string(input, self.header.int_size, &self.limits)?;
        Ok(text.map(|text| set(self, text)))
    }
}

fn positive(number: i64) -> Option<u32> {
    u32::try_from(number).ok().filter(|&number| number > 0)
}

fn relkind(number: i64) -> Result<Option<char>, &'static str> {
    match u8::try_from(number) {
        Ok(0) => Ok(None),
        Ok(byte) if byte.is_ascii_alphabetic() => Ok(Some(char::from(byte))),
        _ => Err("impossible relkind"),
    }
}

/// OIDs and dependencies are decimal strings.
fn decimal(text: &DumpText) -> Option<u32> {
    text.as_str()?.parse().ok()
}

fn oid(text: Option<&DumpText>) -> Result<u32, &'static str> {
    text.and_then(decimal).ok_or("impossible oid")
}
