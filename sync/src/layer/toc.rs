//! The table of contents of a layer: where each chunk lies and how its blocks are kept.
//!
//! It is what a reader trusts about a layer, and it comes from elsewhere: sealed at the end of the
//! layer, and in the record that names the layer, so that reading needs no extra round trip. Thus
//! decoding refuses everything but the one form the writer makes: chunks tile the layer from its
//! header to the table without gap or overlap, lengths fit, nothing trails.
//!
//! Encoded: a CBOR array of chunks, each `[offset, plain_len, method, block_log, [sealed lengths]]`;
//! the lengths are left out of a raw chunk, whose blocks are full but for the last.

use std::ops::Range;

use crate::chunk;
use crate::compress::Method;
use crate::error::{Error, Result};
use crate::seal::TAG_BYTES;

use super::shape::{CHUNKS_MAX, HEADER_BYTES, LAYER_BYTES_MAX};

/// Longest encoded table; the lengths of blocks come on top of the chunks.
pub const TOC_BYTES_MAX: usize = 1 << 20;
/// Block lengths a reader accepts, as powers of two: 4 KiB to 1 MiB.
const BLOCK_LOGS: std::ops::RangeInclusive<u8> = 12..=20;
/// Most that zstd adds to a block it cannot shrink (`block / 256`), and its frame.
const PACKED_EXTRA_MAX: u32 = (1 << 12) + 64;

/// The chunks of a layer, by number.
#[derive(Debug, Clone, PartialEq, Eq, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct Toc {
    /// Number `i` is the `i`-th that was pushed, wherever it lies.
    #[n(0)]
    pub chunks: Vec<TocChunk>,
}

/// One chunk of a layer.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(array)]
pub struct TocChunk {
    /// Where it begins, in bytes from the start of the layer.
    #[n(0)]
    pub offset: u32,
    /// How long it is when opened.
    #[n(1)]
    pub plain_len: u32,
    /// How its blocks are kept.
    #[n(2)]
    pub method: Method,
    /// The base-two logarithm of the plain length of a block.
    #[n(3)]
    pub block_log: u8,
    /// Sealed lengths of the blocks; none for a raw chunk.
    #[n(4)]
    pub blocks: Vec<u32>,
}

impl Toc {
    /// The exact bytes for sealing and for the record.
    pub fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("encoding into memory cannot fail")
    }

    /// Reads a table, accepting only what [`Toc::encode`] would write for a layer that can exist.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the rule that was broken.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let bad = |why: &str| Error::corrupt("the table of contents of a layer", why);
        if bytes.len() > TOC_BYTES_MAX {
            return Err(bad("it is too long"));
        }
        let toc: Self = minicbor::decode(bytes).map_err(|e| bad(&e.to_string()))?;
        if toc.encode() != bytes {
            return Err(bad("it is not in its one canonical form"));
        }
        toc.end().map_err(|why| bad(why))?;
        Ok(toc)
    }

    /// Where the last chunk ends, if everything about the table can be.
    pub(super) fn end(&self) -> Result<u64, &'static str> {
        if self.chunks.is_empty() || self.chunks.len() > CHUNKS_MAX {
            return Err("no layer has this number of chunks");
        }
        let mut places = Vec::with_capacity(self.chunks.len());
        for chunk in &self.chunks {
            places.push((u64::from(chunk.offset), chunk.check()?));
        }
        places.sort_unstable();
        places.iter().try_fold(HEADER_BYTES as u64, |at, &(offset, len)| match offset == at {
            true if at + len <= LAYER_BYTES_MAX as u64 => Ok(at + len),
            true => Err("chunks go beyond the longest layer"),
            false => Err("chunks overlap or leave a gap"),
        })
    }
}

impl TocChunk {
    /// Number of blocks.
    pub fn block_count(&self) -> u32 {
        self.plain_len.div_ceil(self.block_bytes())
    }

    /// Bytes the chunk takes in the layer.
    pub fn sealed_len(&self) -> u64 {
        match self.method {
            Method::Raw => u64::from(self.plain_len) + u64::from(self.block_count()) * TAG,
            Method::Zstd => self.blocks.iter().map(|len| u64::from(*len)).sum(),
        }
    }

    pub(super) fn block_bytes(&self) -> u32 {
        1 << self.block_log
    }

    /// The blocks that hold a range of plain bytes.
    pub(super) fn blocks_of(&self, range: &Range<u32>) -> Range<u32> {
        range.start >> self.block_log..range.end.div_ceil(self.block_bytes())
    }

    /// The plain length of a block.
    pub(super) fn plain_len_of(&self, block: u32) -> u32 {
        self.block_bytes().min(self.plain_len - (block << self.block_log))
    }

    /// The sealed length of a block.
    pub(super) fn sealed_len_of(&self, block: u32) -> u64 {
        match self.method {
            Method::Raw => u64::from(self.plain_len_of(block)) + TAG,
            Method::Zstd => u64::from(self.blocks[block as usize]),
        }
    }

    /// Where a block begins, in bytes from the start of the chunk.
    pub(super) fn start_of(&self, block: u32) -> u64 {
        match self.method {
            Method::Raw => u64::from(block) * (u64::from(self.block_bytes()) + TAG),
            Method::Zstd => self.blocks[..block as usize].iter().map(|len| u64::from(*len)).sum(),
        }
    }

    /// Checks all but the place; returns the sealed length.
    fn check(&self) -> Result<u64, &'static str> {
        if self.plain_len == 0 || self.plain_len as usize > chunk::MAX_BYTES {
            return Err("no chunk has this length");
        }
        if !BLOCK_LOGS.contains(&self.block_log) {
            return Err("no block has this length");
        }
        let expected = match self.method {
            Method::Raw => 0,
            Method::Zstd => self.block_count() as usize,
        };
        if self.blocks.len() != expected {
            return Err("a chunk has another number of blocks than its length asks for");
        }
        let shortest = TAG as u32 + 1;
        let longest = TAG as u32 + self.block_bytes() + PACKED_EXTRA_MAX;
        if self.blocks.iter().any(|len| !(shortest..=longest).contains(len)) {
            return Err("a sealed block has a length it cannot have");
        }
        Ok(self.sealed_len())
    }
}

const TAG: u64 = TAG_BYTES as u64;
