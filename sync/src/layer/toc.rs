//! The table of contents of a layer: where each chunk lies and how its blocks are kept.
//!
//! It is what a reader trusts about a layer, and it comes from elsewhere: sealed at the end of the
//! layer, and in the record that names the layer, so that reading needs no extra round trip. Thus
//! decoding refuses everything but the one form the writer makes: chunks tile the layer from its
//! header to the table without gap or overlap, lengths fit, nothing trails.
//!
//! Encoded: a CBOR array of chunks, each `[offset, plain_len, method, block_log, [sealed lengths]]`;
//! the lengths are left out of a raw chunk, whose blocks are full but for the first and the last.
//! A sixth number, the phase, stands where a raw chunk was cut inside a block of its file: its first
//! block is shorter by so much, and all that follow lie as the file's blocks do, so that a read of
//! one page of the file opens one block.

use std::num::NonZeroU32;
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
    /// How far into a block of its file it begins, if not at its beginning.
    #[n(5)]
    pub phase: Option<NonZeroU32>,
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
        toc.end().map_err(bad)?;
        Ok(toc)
    }

    /// Where the last chunk ends, if everything about the table can be.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn end(&self) -> Result<u64, &'static str> {
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
        (self.plain_len + self.phase()).div_ceil(self.block_bytes())
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

    pub(super) fn phase(&self) -> u32 {
        self.phase.map_or(0, NonZeroU32::get)
    }

    /// The blocks that hold a range of plain bytes.
    pub(super) fn blocks_of(&self, range: &Range<u32>) -> Range<u32> {
        let phase = self.phase();
        (range.start + phase) >> self.block_log..(range.end + phase).div_ceil(self.block_bytes())
    }

    /// The plain bytes that a range of blocks holds.
    pub(super) fn plain_of(&self, blocks: &Range<u32>) -> Range<u32> {
        let at = |block: u32| (block << self.block_log).saturating_sub(self.phase());
        at(blocks.start)..at(blocks.end).min(self.plain_len)
    }

    /// The plain length of a block.
    pub(super) fn plain_len_of(&self, block: u32) -> u32 {
        let plain = self.plain_of(&(block..block + 1));
        plain.end - plain.start
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
            Method::Raw => u64::from(self.plain_of(&(0..block)).end) + u64::from(block) * TAG,
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
        if self.phase() >= self.block_bytes() || self.phase() > 0 && self.method == Method::Zstd {
            return Err("no chunk has this phase");
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(offset: u32, plain_len: u32) -> TocChunk {
        TocChunk {
            offset,
            plain_len,
            method: Method::Raw,
            block_log: 14,
            blocks: Vec::new(),
            phase: None,
        }
    }

    fn zstd(offset: u32, plain_len: u32, blocks: &[u32]) -> TocChunk {
        let blocks = blocks.to_vec();
        TocChunk { offset, plain_len, method: Method::Zstd, block_log: 16, blocks, phase: None }
    }

    /// Three chunks out of order: raw 100 bytes, zstd in two blocks, raw over two blocks.
    fn good() -> Toc {
        let at = HEADER_BYTES as u32;
        let second = zstd(at, 65_537, &[1000, 30]);
        let first = raw(at + 1030, 100);
        Toc { chunks: vec![first, second, raw(at + 1030 + 116, 16_385)] }
    }

    fn refused(toc: &Toc, why: &str) {
        let error = Toc::decode(&toc.encode()).expect_err(why).to_string();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn a_table_comes_back() {
        let toc = good();
        assert_eq!(Toc::decode(&toc.encode()).unwrap(), toc);
        assert_eq!(toc.end(), Ok(92 + 1030 + 116 + 16_385 + 32));
        assert_eq!(toc.encode()[..7], [0x83, 0x85, 0x19, 0x04, 0x62, 0x18, 100]);
    }

    /// Against counting byte by byte.
    #[test]
    fn blocks_lie_as_those_of_the_file() {
        for (phase, plain_len) in
            [(0, 40_000), (1, 16_383), (1, 16_384), (16_383, 2), (9000, 50_000)]
        {
            let chunk = TocChunk { phase: NonZeroU32::new(phase), ..raw(92, plain_len) };
            let block_of = |at: u32| (at + phase) / (1 << 14);
            assert_eq!(chunk.block_count(), block_of(plain_len - 1) + 1);
            let mut start = 0;
            for block in 0..chunk.block_count() {
                let held: Vec<u32> = (0..plain_len).filter(|at| block_of(*at) == block).collect();
                let (first, last) = (held[0], *held.last().unwrap());
                assert_eq!(chunk.plain_of(&(block..block + 1)), first..last + 1);
                assert_eq!(chunk.blocks_of(&(first..last + 1)), block..block + 1);
                assert_eq!(chunk.plain_len_of(block) as usize, held.len());
                assert_eq!(chunk.start_of(block), start);
                start += chunk.sealed_len_of(block);
            }
            assert_eq!(chunk.sealed_len(), start);
            assert_eq!(chunk.blocks_of(&(0..plain_len)), 0..chunk.block_count());
        }
    }

    #[test]
    fn a_phase_is_spelt_in_one_way() {
        let chunk = TocChunk { phase: NonZeroU32::new(5), ..raw(HEADER_BYTES as u32, 20) };
        let with = Toc { chunks: vec![chunk] }.encode();
        assert_eq!(with, [0x81, 0x86, 0x18, 92, 20, 0, 14, 0x80, 5]);
        assert!(Toc::decode(&with).is_ok());
        for phase in [&[0][..], &[0xf6], &[0x18, 5], &[5, 0]] {
            let spelling = [&with[..8], phase].concat();
            assert!(Toc::decode(&spelling).unwrap_err().is_corrupt(), "{phase:?}");
        }
    }

    #[test]
    fn places_that_cannot_be_are_refused() {
        let with = |change: &dyn Fn(&mut Toc)| {
            let mut toc = good();
            change(&mut toc);
            toc
        };
        let tile = "overlap or leave a gap";
        refused(&with(&|toc| toc.chunks[0].offset -= 1), tile);
        refused(&with(&|toc| toc.chunks[0].offset += 1), tile);
        refused(&with(&|toc| toc.chunks[1].offset -= 1), tile);
        refused(&with(&|toc| toc.chunks[2].offset = u32::MAX), tile);
        refused(&with(&|toc| toc.chunks[2].offset = toc.chunks[0].offset), tile);
        refused(&with(&|toc| toc.chunks[0].plain_len += 1), tile);
        refused(&with(&|toc| toc.chunks[1].blocks[0] += 1), tile);
        refused(&with(&|toc| drop(toc.chunks.remove(0))), tile);
        let long = |toc: &mut Toc| {
            let mut at = 92;
            toc.chunks.clear();
            for _ in 0..4 {
                toc.chunks.push(raw(at, 4 << 20));
                at += (4 << 20) + 256 * 16;
            }
        };
        refused(&with(&long), "beyond the longest layer");
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let one = |chunk: TocChunk| Toc { chunks: vec![chunk] };
        let at = HEADER_BYTES as u32;
        refused(&Toc::default(), "number of chunks");
        refused(&Toc { chunks: vec![raw(at, 1); CHUNKS_MAX + 1] }, "number of chunks");
        refused(&one(raw(at, 0)), "no chunk has this length");
        refused(&one(raw(at, (4 << 20) + 1)), "no chunk has this length");
        refused(&one(raw(at, u32::MAX)), "no chunk has this length");
        refused(&one(zstd(at, 65_537, &[50])), "number of blocks");
        refused(&one(zstd(at, 65_536, &[50, 50])), "number of blocks");
        refused(&one(TocChunk { blocks: vec![50], ..raw(at, 34) }), "number of blocks");
        for phase in [1 << 14, u32::MAX] {
            let phase = NonZeroU32::new(phase);
            refused(&one(TocChunk { phase, ..raw(at, 100) }), "no chunk has this phase");
        }
        let phase = NonZeroU32::new(1);
        refused(&one(TocChunk { phase, ..zstd(at, 100, &[50]) }), "no chunk has this phase");
        refused(&one(zstd(at, 100, &[16])), "a length it cannot have");
        refused(&one(zstd(at, 100, &[u32::MAX])), "a length it cannot have");
        refused(&one(zstd(at, 100, &[70_000])), "a length it cannot have");
        for block_log in [0, 11, 21, 32, 255] {
            refused(&one(TocChunk { block_log, ..raw(at, 100) }), "no block has this length");
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        let good = good().encode();
        (0..good.len()).for_each(|cut| assert!(Toc::decode(&good[..cut]).is_err()));
        assert!(Toc::decode(&[&good[..], &[0]].concat()).is_err());
        // An array of open length, a number longer than need be, an unknown method.
        let open = [&[0x9f], &good[1..], &[0xff]].concat();
        let wide = [&good[..5], &[0x19, 0x00, 100], &good[7..]].concat();
        let mut method = good.clone();
        method[7] = 2;
        for spelling in [open, wide, method] {
            assert!(Toc::decode(&spelling).unwrap_err().is_corrupt());
        }
        // Claims of a billion chunks or blocks cost nothing.
        assert!(Toc::decode(&[0x9a, 0x3b, 0x9a, 0xca, 0x00]).is_err());
        let blocks = [0x81, 0x85, 0x18, 92, 0x18, 100, 1, 16, 0x9b, 0, 0, 0, 1, 0, 0, 0, 0];
        assert!(Toc::decode(&blocks).is_err());
        assert!(Toc::decode(&vec![0x80; TOC_BYTES_MAX + 1]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_decodes_is_canonical(
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
            at in 0usize..40, value: u8,
        ) {
            if let Ok(toc) = Toc::decode(&bytes) {
                prop_assert_eq!(toc.encode(), bytes);
            }
            let mut near = good().encode();
            let at = at % near.len();
            near[at] = value;
            if let Ok(toc) = Toc::decode(&near) {
                prop_assert_eq!(toc.encode(), near);
            }
        }
    }
}
