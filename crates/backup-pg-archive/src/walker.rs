//! Walks through an archive and reports what it meets.
//!
//! After the table of contents come the blocks: a type byte, a dump id, then chunks, each a length
//! and that many bytes, ended by a length of 0. A block of large objects holds for each object its
//! OID and such chunks, ended by an OID of 0. No mark ends the archive: what must be there is known
//! from the table of contents. The layout is that of PostgreSQL's
//! `src/bin/pg_dump/pg_backup_custom.c`.

use std::collections::HashMap;

use crate::contents_decoder::ContentsDecoder;
use crate::decode::{Decoder, Input};
use crate::{ArchiveError, Contents, Limits, TocEntry};

/// What a [`Walker`] calls as it passes. All methods do nothing by default.
///
/// An error from any of them ends the walk. The data methods are called once for each chunk, for a
/// table that is nearly always one row, or more often where a chunk is split over two pushes.
pub trait Visitor {
    /// The table of contents is complete.
    ///
    /// # Errors
    /// Whatever ends the walk.
    fn contents(&mut self, contents: &Contents) -> Result<(), ArchiveError> {
        let _ = contents;
        Ok(())
    }

    /// A block of COPY text begins; `entry` says of which table.
    ///
    /// # Errors
    /// Whatever ends the walk.
    fn data_start(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        let _ = entry;
        Ok(())
    }

    /// The next bytes of the block, its end mark included.
    ///
    /// # Errors
    /// Whatever ends the walk.
    fn data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        let _ = bytes;
        Ok(())
    }

    /// The block is complete.
    ///
    /// # Errors
    /// Whatever ends the walk.
    fn data_end(&mut self) -> Result<(), ArchiveError> {
        Ok(())
    }

    /// A large object begins.
    ///
    /// # Errors
    /// Whatever ends the walk.
    fn large_object_start(&mut self, oid: u32) -> Result<(), ArchiveError> {
        let _ = oid;
        Ok(())
    }

    /// The next bytes of the large object.
    ///
    /// # Errors
    /// Whatever ends the walk.
    fn large_object_data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        let _ = bytes;
        Ok(())
    }

    /// The large object is complete.
    ///
    /// # Errors
    /// Whatever ends the walk.
    fn large_object_end(&mut self) -> Result<(), ArchiveError> {
        Ok(())
    }
}

/// A push-based parser of an archive: the structure, not the rows.
///
/// It accepts compressed archives too, whose chunks then are compressed bytes. Pass the same visitor
/// to every push.
///
/// Whatever follows the last block is refused, but for what `pg_dump` since 16 makes of
/// `pg_dump -Fc > file`: it finds its output seekable and goes back to fill in the positions of the
/// blocks, but as the file is open for appending, a second table of contents lands at the end. It
/// must be whole and of the same entries. Archives from a pipe or of `pg_dump -f file` have none.
#[derive(Debug)]
pub struct Walker {
    decoder: Decoder,
    contents_decoder: ContentsDecoder,
    limits: Limits,
    contents: Option<Contents>,
    /// Entries whose block has not come yet: dump id to index.
    awaited: HashMap<u32, usize>,
    phase: Phase,
    position: u64,
    refused: bool,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Contents,
    BlockType,
    BlockId(Block),
    ObjectOid,
    ChunkLength(Block),
    Chunk(Block, u64),
    ContentsAgain,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Data,
    LargeObjects,
}

impl Walker {
    /// Expects the first byte of an archive.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            decoder: Decoder::default(),
            contents_decoder: ContentsDecoder::new(limits),
            limits,
            contents: None,
            awaited: HashMap::new(),
            phase: Phase::Contents,
            position: 0,
            refused: false,
        }
    }

    /// Bytes received so far.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Header and table of contents, as soon as they are complete.
    #[must_use]
    pub fn contents(&self) -> Option<&Contents> {
        self.contents.as_ref()
    }

    /// Reads on. `bytes` may end anywhere.
    ///
    /// # Errors
    /// What contradicts the format, or what the visitor returned.
    pub fn push<V: Visitor + ?Sized>(
        &mut self,
        bytes: &[u8],
        visitor: &mut V,
    ) -> Result<(), ArchiveError> {
        if self.refused {
            return Err(ArchiveError::Refused);
        }
        let mut input = Input::new(bytes, self.position);
        let outcome = self.walk(&mut input, visitor);
        self.position += bytes.len() as u64;
        self.refused = outcome.is_err();
        outcome
    }

    /// Ends the archive and hands out its contents.
    ///
    /// # Errors
    /// [`Truncated`](ArchiveError::Truncated) or [`MissingData`](ArchiveError::MissingData) if
    /// anything is missing, [`Refused`](ArchiveError::Refused) after an earlier error.
    pub fn finish(self) -> Result<Contents, ArchiveError> {
        if self.refused {
            return Err(ArchiveError::Refused);
        }
        let place = match self.phase {
            Phase::Contents => "header or table of contents",
            Phase::BlockType => "table of contents",
            Phase::BlockId(_) | Phase::ChunkLength(Block::Data) | Phase::Chunk(Block::Data, _) => {
                "table data"
            }
            Phase::ObjectOid
            | Phase::ChunkLength(Block::LargeObjects)
            | Phase::Chunk(Block::LargeObjects, _) => "large objects",
            Phase::ContentsAgain | Phase::Over => "second table of contents",
        };
        match (self.phase, self.contents) {
            (Phase::BlockType | Phase::Over, Some(contents)) if self.decoder.is_empty() => {
                require_all(&contents, &self.awaited)?;
                Ok(contents)
            }
            _ => Err(ArchiveError::Truncated { place }),
        }
    }

    fn walk<V: Visitor + ?Sized>(
        &mut self,
        input: &mut Input<'_>,
        visitor: &mut V,
    ) -> Result<(), ArchiveError> {
        while !input.rest().is_empty() {
            let next = match self.phase {
                Phase::Contents => self.read_contents(input, visitor)?,
                Phase::BlockType => self.block_type(input)?,
                Phase::BlockId(block) => self.block_id(block, input, visitor)?,
                Phase::ObjectOid => self.object_oid(input, visitor)?,
                Phase::ChunkLength(block) => self.chunk_length(block, input, visitor)?,
                Phase::Chunk(block, left) => Some(chunk(block, left, input, visitor)?),
                Phase::ContentsAgain => self.read_again(input)?,
                Phase::Over => return Err(input.malformed("something comes after the end")),
            };
            if let Some(next) = next {
                self.phase = next;
            }
        }
        Ok(())
    }

    fn read_contents<V: Visitor + ?Sized>(
        &mut self,
        input: &mut Input<'_>,
        visitor: &mut V,
    ) -> Result<Option<Phase>, ArchiveError> {
        let Some(contents) = self.contents_decoder.push(&mut self.decoder, input)? else {
            return Ok(None);
        };
        self.awaited = await_data(&contents).map_err(|problem| input.malformed(problem))?;
        visitor.contents(&contents)?;
        self.contents = Some(contents);
        Ok(Some(Phase::BlockType))
    }

    /// No position would have been filled in.
    fn is_without_data(&self) -> bool {
        let entries = self.contents.iter().flat_map(|c| &c.entries);
        !entries.into_iter().any(|entry| entry.had_dumper)
    }

    /// What is read here has no header of its own.
    fn begin_again(&mut self, first: u8, input: &Input<'_>) -> Result<Phase, ArchiveError> {
        let start = input.position() - 1;
        let Some(header) = self.contents.as_ref().map(|c| c.header.clone()) else {
            return Err(input.malformed("no such type of block"));
        };
        self.contents_decoder = ContentsDecoder::again(self.limits, header, start);
        let begin = [first];
        let mut one = Input::new(&begin, start);
        self.contents_decoder.push(&mut self.decoder, &mut one)?;
        Ok(Phase::ContentsAgain)
    }

    fn read_again(&mut self, input: &mut Input<'_>) -> Result<Option<Phase>, ArchiveError> {
        let Some(again) = self.contents_decoder.push(&mut self.decoder, input)? else {
            return Ok(None);
        };
        let ids = |contents: &Contents| -> Vec<u32> {
            contents.entries.iter().map(|entry| entry.dump_id).collect()
        };
        if self.contents.as_ref().map(ids) == Some(ids(&again)) {
            Ok(Some(Phase::Over))
        } else {
            Err(input.malformed("the second table of contents is another"))
        }
    }

    fn block_type(&mut self, input: &mut Input<'_>) -> Result<Option<Phase>, ArchiveError> {
        match self.decoder.byte(input) {
            None => Ok(None),
            Some(1) => Ok(Some(Phase::BlockId(Block::Data))),
            Some(3) => Ok(Some(Phase::BlockId(Block::LargeObjects))),
            Some(first @ 0) if self.awaited.is_empty() && !self.is_without_data() => {
                self.begin_again(first, input).map(Some)
            }
            Some(_) => Err(input.malformed("no such type of block")),
        }
    }

    fn block_id<V: Visitor + ?Sized>(
        &mut self,
        block: Block,
        input: &mut Input<'_>,
        visitor: &mut V,
    ) -> Result<Option<Phase>, ArchiveError> {
        let Some(id) = self.int(input)? else {
            return Ok(None);
        };
        let index = u32::try_from(id)
            .ok()
            .and_then(|id| self.awaited.remove(&id));
        let (Some(index), Some(contents)) = (index, &self.contents) else {
            return Err(input.malformed("block of no entry, or its second"));
        };
        let entry = &contents.entries[index];
        // No other entry has data. Of one that is neither, nobody could say whose rows these are.
        let fits = match block {
            Block::LargeObjects => entry.desc == "BLOBS",
            Block::Data => entry.desc == "TABLE DATA",
        };
        if !fits {
            return Err(input.malformed("block of the wrong type"));
        }
        match block {
            Block::Data => visitor.data_start(entry)?,
            Block::LargeObjects => return Ok(Some(Phase::ObjectOid)),
        }
        Ok(Some(Phase::ChunkLength(Block::Data)))
    }

    fn object_oid<V: Visitor + ?Sized>(
        &mut self,
        input: &mut Input<'_>,
        visitor: &mut V,
    ) -> Result<Option<Phase>, ArchiveError> {
        let Some(number) = self.int(input)? else {
            return Ok(None);
        };
        let oid = oid_of(number).ok_or_else(|| input.malformed("impossible oid"))?;
        if oid == 0 {
            return Ok(Some(Phase::BlockType));
        }
        visitor.large_object_start(oid)?;
        Ok(Some(Phase::ChunkLength(Block::LargeObjects)))
    }

    fn chunk_length<V: Visitor + ?Sized>(
        &mut self,
        block: Block,
        input: &mut Input<'_>,
        visitor: &mut V,
    ) -> Result<Option<Phase>, ArchiveError> {
        if block == Block::Data && self.decoder.is_empty() && self.int_size() == 4 {
            whole_chunks(input, visitor)?;
        }
        let Some(length) = self.int(input)? else {
            return Ok(None);
        };
        let left = u64::try_from(length).map_err(|_| input.malformed("negative chunk length"))?;
        if left > 0 {
            return Ok(Some(Phase::Chunk(block, left)));
        }
        match block {
            Block::Data => visitor.data_end().map(|()| Some(Phase::BlockType)),
            Block::LargeObjects => visitor.large_object_end().map(|()| Some(Phase::ObjectOid)),
        }
    }

    fn int_size(&self) -> u8 {
        self.contents.as_ref().map_or(4, |c| c.header.int_size)
    }

    fn int(&mut self, input: &mut Input<'_>) -> Result<Option<i64>, ArchiveError> {
        let size = self.int_size();
        self.decoder.int(input, size)
    }
}

/// The hot loop: chunks that are whole in `input`, which nearly all of them are. Stops before
/// anything else: the end of the block, a chunk cut in two, an impossible length.
#[inline]
fn whole_chunks<V: Visitor + ?Sized>(
    input: &mut Input<'_>,
    visitor: &mut V,
) -> Result<(), ArchiveError> {
    while let Some(&[0, b0, b1, b2, b3]) = input.rest().first_chunk::<5>() {
        let length = u32::from_le_bytes([b0, b1, b2, b3]) as usize;
        if length == 0 || length > input.rest().len() - 5 {
            break;
        }
        visitor.data(&input.take(5 + length)[5..])?;
    }
    Ok(())
}

fn chunk<V: Visitor + ?Sized>(
    block: Block,
    left: u64,
    input: &mut Input<'_>,
    visitor: &mut V,
) -> Result<Phase, ArchiveError> {
    let bytes = input.take(usize::try_from(left).unwrap_or(usize::MAX));
    match block {
        Block::Data => visitor.data(bytes)?,
        Block::LargeObjects => visitor.large_object_data(bytes)?,
    }
    match left - bytes.len() as u64 {
        0 => Ok(Phase::ChunkLength(block)),
        left => Ok(Phase::Chunk(block, left)),
    }
}

/// `pg_dump` prints an OID as a signed C integer, so from 2^31 on it is negative.
fn oid_of(number: i64) -> Option<u32> {
    let signed = i32::try_from(number).map(i32::cast_unsigned);
    signed.or_else(|_| u32::try_from(number)).ok()
}

fn await_data(contents: &Contents) -> Result<HashMap<u32, usize>, &'static str> {
    let mut ids = std::collections::HashSet::with_capacity(contents.entries.len());
    let mut awaited = HashMap::new();
    for (index, entry) in contents.entries.iter().enumerate() {
        if !ids.insert(entry.dump_id) {
            return Err("two entries with one dump id");
        }
        if entry.had_dumper {
            awaited.insert(entry.dump_id, index);
        }
    }
    Ok(awaited)
}

fn require_all(contents: &Contents, awaited: &HashMap<u32, usize>) -> Result<(), ArchiveError> {
    let Some((&dump_id, &index)) = awaited.iter().min() else {
        return Ok(());
    };
    Err(ArchiveError::MissingData {
        dump_id,
        name: contents.entries[index].tag.clone(),
        missing: awaited.len(),
    })
}
