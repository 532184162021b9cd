//! Data blocks that `pg_dump` compressed. Each block, and each large object, is a stream of its own,
//! which has a checksum where it is gzip's.

use std::fmt;

use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{Decoder, InBuffer, Operation as _, OutBuffer};

use crate::{ArchiveError, Compression, Contents};

/// Clear bytes at a time.
const PIECE: usize = 64 << 10;

/// What makes clear bytes of the blocks of one archive.
#[derive(Default)]
pub(crate) enum Unpack {
    /// They are clear.
    #[default]
    Nothing,
    Gzip(Box<Stream<Decompress>>),
    Zstd(Box<Stream<Decoder<'static>>>),
}

pub(crate) struct Stream<D> {
    decoder: D,
    clear: Vec<u8>,
    progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// An empty block may have no stream at all.
    NotBegun,
    Begun,
    Ended,
}

impl fmt::Debug for Unpack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Gzip(_) => "Gzip",
            Self::Zstd(_) => "Zstd",
        })
    }
}

impl Unpack {
    /// What the blocks of this archive need.
    pub(crate) fn of(contents: &Contents) -> Result<Self, ArchiveError> {
        let compression = contents.header.compression;
        if !contents.entries.iter().any(|entry| entry.had_dumper) {
            return Ok(Self::Nothing);
        }
        match compression {
            Compression::None => Ok(Self::Nothing),
            Compression::Gzip => Ok(Self::Gzip(Box::new(Stream::new(Decompress::new(true))))),
            Compression::Zstd => match Decoder::new() {
                Ok(decoder) => Ok(Self::Zstd(Box::new(Stream::new(decoder)))),
                Err(_) => Err(ArchiveError::Compressed { compression }),
            },
            Compression::Lz4 | Compression::Unknown(_) => {
                Err(ArchiveError::Compressed { compression })
            }
        }
    }

    /// The next bytes of a block; what they are is given to `sink` in pieces.
    #[inline]
    pub(crate) fn push(
        &mut self,
        bytes: &[u8],
        mut sink: impl FnMut(&[u8]) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        match self {
            Self::Nothing => sink(bytes),
            Self::Gzip(stream) => stream.inflate(bytes, &mut sink),
            Self::Zstd(stream) => stream.decode(bytes, &mut sink),
        }
    }

    /// The block is complete; so must be its stream.
    pub(crate) fn end(&mut self) -> Result<(), ArchiveError> {
        let (progress, compression) = match self {
            Self::Nothing => return Ok(()),
            Self::Gzip(stream) => {
                stream.decoder.reset(true);
                (&mut stream.progress, Compression::Gzip)
            }
            Self::Zstd(stream) => {
                let reset = stream.decoder.reinit();
                reset.map_err(|_| wrong(Compression::Zstd))?;
                (&mut stream.progress, Compression::Zstd)
            }
        };
        match std::mem::replace(progress, Progress::NotBegun) {
            Progress::Begun => Err(wrong(compression)),
            Progress::NotBegun | Progress::Ended => Ok(()),
        }
    }
}

fn wrong(compression: Compression) -> ArchiveError {
    ArchiveError::BadCompression { compression }
}

impl<D> Stream<D> {
    fn new(decoder: D) -> Self {
        Self {
            decoder,
            clear: vec![0; PIECE],
            progress: Progress::NotBegun,
        }
    }

    /// Nothing may come after the end of a stream.
    fn begin(&mut self, bytes: &[u8], compression: Compression) -> Result<(), ArchiveError> {
        if self.progress == Progress::Ended && !bytes.is_empty() {
            return Err(wrong(compression));
        }
        self.progress = Progress::Begun;
        Ok(())
    }
}

impl Stream<Decompress> {
    fn inflate(
        &mut self,
        mut bytes: &[u8],
        sink: &mut impl FnMut(&[u8]) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        const GZIP: Compression = Compression::Gzip;
        self.begin(bytes, GZIP)?;
        loop {
            let (read, written) = (self.decoder.total_in(), self.decoder.total_out());
            let status = self
                .decoder
                .decompress(bytes, &mut self.clear, FlushDecompress::None)
                .map_err(|_| wrong(GZIP))?;
            let length = |now: u64, before| usize::try_from(now - before).unwrap_or(usize::MAX);
            let read = length(self.decoder.total_in(), read);
            let written = length(self.decoder.total_out(), written);
            bytes = bytes.get(read..).unwrap_or_default();
            if written > 0 {
                sink(&self.clear[..written])?;
            }
            if status == Status::StreamEnd {
                self.progress = Progress::Ended;
                return if bytes.is_empty() {
                    Ok(())
                } else {
                    Err(wrong(GZIP))
                };
            }
            if read == 0 && written == 0 {
                return if bytes.is_empty() {
                    Ok(())
                } else {
                    Err(wrong(GZIP))
                };
            }
        }
    }
}

impl Stream<Decoder<'static>> {
    fn decode(
        &mut self,
        bytes: &[u8],
        sink: &mut impl FnMut(&[u8]) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        const ZSTD: Compression = Compression::Zstd;
        self.begin(bytes, ZSTD)?;
        let mut input = InBuffer::around(bytes);
        loop {
            let before = input.pos();
            let mut output = OutBuffer::around(&mut self.clear[..]);
            let left = self.decoder.run(&mut input, &mut output);
            let left = left.map_err(|_| wrong(ZSTD))?;
            let written = output.pos();
            if written > 0 {
                sink(&self.clear[..written])?;
            }
            if left == 0 {
                self.progress = Progress::Ended;
                let over = input.pos() == bytes.len();
                return if over { Ok(()) } else { Err(wrong(ZSTD)) };
            }
            if input.pos() == before && written == 0 {
                return if input.pos() == bytes.len() {
                    Ok(())
                } else {
                    Err(wrong(ZSTD))
                };
            }
        }
    }
}
