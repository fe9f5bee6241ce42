//! Opening what lies in a layer, one block at a time if need be.

use std::ops::Range;

use crate::compress::{self, Method};
use crate::error::{Error, Result};
use crate::seal::{self, Key, NONCE_BYTES, Tampered};

use super::header::{self, Binding};
use super::shape::padme;
use super::toc::{Toc, TocChunk};

/// Opens chunks of one layer from its sealed bytes, wherever these come from: they are not to be
/// trusted, and what they yield is what was sealed or an error.
#[derive(Debug)]
pub struct LayerReader {
    key: Key,
    binding: Binding,
    toc: Toc,
}

impl LayerReader {
    /// A reader from what the record of a layer says.
    pub fn new(
        key: Key,
        toc: Toc,
        drive: [u8; 32],
        epoch: [u8; 32],
        nonce: [u8; NONCE_BYTES],
    ) -> Self {
        Self { key, binding: Binding { drive, epoch, nonce }, toc }
    }

    /// A reader from the whole layer alone, down to the last byte of its padding.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when anything is not as the key's owner wrote it for this drive and
    /// epoch, [`Error::UnknownVersion`].
    pub fn parse(bytes: &[u8], key: &Key, drive: [u8; 32], epoch: [u8; 32]) -> Result<Self> {
        let (binding, toc, end) = header::open(bytes, key, drive, epoch)?;
        let mut expected = vec![0; (padme(end as u64) as usize) - end];
        padding(key, &mut expected);
        if bytes[end..] != expected {
            return Err(Error::corrupt("the padding of a layer", "its length or content is wrong"));
        }
        Ok(Self { key: key.clone(), binding, toc })
    }

    /// The table of contents.
    pub fn toc(&self) -> &Toc {
        &self.toc
    }

    /// The layer's nonce, for its record.
    pub fn nonce(&self) -> &[u8; NONCE_BYTES] {
        &self.binding.nonce
    }

    /// How many chunks there are.
    pub fn chunk_count(&self) -> u32 {
        u32::try_from(self.toc.chunks.len()).expect("a table is far shorter")
    }

    /// The plain length of a chunk.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the layer has no such chunk.
    pub fn plain_len(&self, number: u32) -> Result<u32> {
        Ok(self.chunk(number)?.plain_len)
    }

    /// The bytes of the layer that a whole chunk takes.
    ///
    /// # Errors
    /// As [`LayerReader::plain_len`].
    pub fn span(&self, number: u32) -> Result<Range<u64>> {
        let chunk = self.chunk(number)?;
        let start = u64::from(chunk.offset);
        Ok(start..start + chunk.sealed_len())
    }

    /// The bytes of the layer needed to open a range of a chunk: contiguous, whole blocks.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the layer has no such chunk or the chunk no such range.
    pub fn span_of(&self, number: u32, range: Range<u32>) -> Result<Range<u64>> {
        let chunk = self.chunk_with(number, &range)?;
        let blocks = chunk.blocks_of(&range);
        let start = u64::from(chunk.offset);
        Ok(start + chunk.start_of(blocks.start)..start + chunk.start_of(blocks.end))
    }

    /// The range widened to the whole blocks it touches: what opening it comes to anyway.
    ///
    /// # Errors
    /// As [`LayerReader::span_of`].
    pub fn blocks_around(&self, number: u32, range: Range<u32>) -> Result<Range<u32>> {
        let chunk = self.chunk_with(number, &range)?;
        let blocks = chunk.blocks_of(&range);
        let end = (u64::from(blocks.end) << chunk.block_log).min(u64::from(chunk.plain_len));
        Ok(blocks.start << chunk.block_log..end as u32)
    }

    /// Opens a range of a chunk. `sealed` are the bytes [`LayerReader::span_of`] names for it.
    ///
    /// # Errors
    /// [`Error::Corrupt`], naming the chunk and the block, when a block is not the one that was
    /// sealed in this place.
    pub fn open(&self, number: u32, range: Range<u32>, sealed: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.open_into(number, range, sealed, &mut out)?;
        Ok(out)
    }

    /// As [`LayerReader::open`], into a buffer of the caller's, whose content is replaced.
    ///
    /// # Errors
    /// As [`LayerReader::open`]; the buffer is left empty.
    pub fn open_into(
        &self,
        number: u32,
        range: Range<u32>,
        sealed: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        out.clear();
        let chunk = self.chunk_with(number, &range)?;
        let opened = self.open_blocks(number, chunk, chunk.blocks_of(&range), sealed, out);
        if opened.is_err() {
            out.clear();
            return opened;
        }
        let skipped = range.start & (chunk.block_bytes() - 1);
        out.truncate((skipped + range.end - range.start) as usize);
        out.drain(..skipped as usize);
        Ok(())
    }

    fn open_blocks(
        &self,
        number: u32,
        chunk: &TocChunk,
        blocks: Range<u32>,
        sealed: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let key = chunk_key(&self.key, number);
        let aad = self.binding.chunk_aad(number, chunk);
        let last = chunk.block_count() - 1;
        let mut packed = Vec::new();
        let mut rest = sealed;
        for block in blocks {
            let what = || format!("block {block} of chunk {number} of a layer");
            let split = rest.split_at_checked(chunk.sealed_len_of(block) as usize);
            let (sealed, after) = split.ok_or_else(|| Error::corrupt(what(), "it is cut short"))?;
            rest = after;
            let nonce = block_nonce(block, block == last);
            let into = if chunk.method == Method::Raw { &mut *out } else { &mut packed };
            seal::open_into(&key, &nonce, &aad, sealed, into)
                .map_err(|Tampered| Error::corrupt(what(), Tampered))?;
            if chunk.method == Method::Zstd {
                compress::unpack(&packed, chunk.plain_len_of(block) as usize, out)
                    .map_err(|e| Error::corrupt(what(), e))?;
                packed.clear();
            }
        }
        if rest.is_empty() {
            return Ok(());
        }
        Err(Error::corrupt(format!("chunk {number} of a layer"), "there are more bytes than asked"))
    }

    fn chunk(&self, number: u32) -> Result<&TocChunk> {
        let chunk = self.toc.chunks.get(number as usize);
        chunk.ok_or_else(|| Error::corrupt("a layer", format!("it has no chunk {number}")))
    }

    fn chunk_with(&self, number: u32, range: &Range<u32>) -> Result<&TocChunk> {
        let chunk = self.chunk(number)?;
        if range.start < range.end && range.end <= chunk.plain_len {
            return Ok(chunk);
        }
        let what = format!("chunk {number} of a layer");
        Err(Error::corrupt(what, format!("it has no range {range:?} in {}", chunk.plain_len)))
    }
}

/// A chunk's own key; opens nothing beside it.
pub(super) fn chunk_key(layer: &Key, number: u32) -> Key {
    Key::derive("rdrivefs v1 chunk", &[layer.as_bytes(), &number.to_le_bytes()])
}

/// A block's nonce: its number, and whether it is the last, so that no chunk can be cut or joined.
pub(super) fn block_nonce(block: u32, last: bool) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[..8].copy_from_slice(&u64::from(block).to_le_bytes());
    nonce[8] = u8::from(last);
    nonce
}

/// Fills `out` with the padding of the layer under this key.
pub(super) fn padding(key: &Key, out: &mut [u8]) {
    let key = Key::derive("rdrivefs v1 layer padding", &[key.as_bytes()]);
    blake3::Hasher::new_keyed(key.as_bytes()).finalize_xof().fill(out);
}
