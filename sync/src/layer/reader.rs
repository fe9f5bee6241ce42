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
        let last = blocks.end - 1;
        let end = chunk.start_of(last) + chunk.sealed_len_of(last);
        Ok(start + chunk.start_of(blocks.start)..start + end)
    }

    /// The range widened to the whole blocks it touches: what opening it comes to anyway.
    ///
    /// # Errors
    /// As [`LayerReader::span_of`].
    pub fn blocks_around(&self, number: u32, range: Range<u32>) -> Result<Range<u32>> {
        let chunk = self.chunk_with(number, &range)?;
        let blocks = chunk.blocks_of(&range);
        Ok(chunk.plain_of(&blocks))
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
        let blocks = chunk.blocks_of(&range);
        let skipped = range.start - chunk.plain_of(&blocks).start;
        let opened = self.open_blocks(number, chunk, blocks, sealed, out);
        if opened.is_err() {
            out.clear();
            return opened;
        }
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

#[cfg(test)]
mod tests {
    use super::super::builder::{LayerBuilder, Sealed};
    use super::*;
    use crate::chunk::ChunkId;
    use proptest::prelude::*;
    use rdrivefs_remote::env::Env;

    const DRIVE: [u8; 32] = [1; 32];
    const EPOCH: [u8; 32] = [2; 32];

    fn random(seed: u8, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut data);
        data
    }

    fn text(len: usize) -> Vec<u8> {
        let line = |i: usize| format!("line {} of {i} is much like the others\n", i * i % 977);
        (0..).flat_map(|i| line(i).into_bytes()).take(len).collect()
    }

    fn sealed(chunks: &[Vec<u8>]) -> Sealed {
        let ids_key = Key::from([7; 32]);
        let mut builder = LayerBuilder::new(DRIVE, EPOCH, &ids_key, &Env::real());
        let mut at = 0;
        for (number, plain) in (0..).zip(chunks) {
            assert_eq!(builder.push(ChunkId::of(&ids_key, plain), at, plain), number);
            at += plain.len() as u64;
        }
        builder.close().unwrap()
    }

    fn reader(layer: &Sealed) -> LayerReader {
        LayerReader::new(layer.key.clone(), layer.toc.clone(), DRIVE, EPOCH, layer.nonce)
    }

    fn open(reader: &LayerReader, bytes: &[u8], number: u32) -> Result<Vec<u8>> {
        let span = reader.span(number).unwrap();
        let sealed = bytes.get(span.start as usize..span.end as usize);
        let sealed = sealed.ok_or_else(|| Error::corrupt("a layer", "cut short"))?;
        reader.open(number, 0..reader.plain_len(number).unwrap(), sealed)
    }

    fn small() -> Vec<Vec<u8>> {
        vec![random(1, 40), text(700), random(2, 17), text(2000)]
    }

    #[test]
    fn chunks_come_back_by_record_and_from_the_bytes_alone() {
        let chunks =
            [random(1, 1), random(2, 16_384), random(3, 300_000), text(65_537), text(1 << 20)];
        let layer = sealed(&chunks);
        assert_eq!(layer.bytes.len() as u64, padme(layer.bytes.len() as u64));
        assert_eq!(layer.id, rdrivefs_remote::blob::BlobId::of(&layer.bytes));
        let parsed = LayerReader::parse(&layer.bytes, &layer.key, DRIVE, EPOCH).unwrap();
        assert_eq!((parsed.toc(), parsed.nonce()), (&layer.toc, &layer.nonce));
        assert_eq!(Toc::decode(&layer.toc.encode()).unwrap(), layer.toc);
        for reader in [parsed, reader(&layer)] {
            assert_eq!(reader.chunk_count(), 5);
            for (number, plain) in (0..).zip(&chunks) {
                assert_eq!(&open(&reader, &layer.bytes, number).unwrap(), plain);
            }
        }
        let methods: Vec<Method> = layer.toc.chunks.iter().map(|chunk| chunk.method).collect();
        use Method::{Raw, Zstd};
        assert_eq!(methods, [Raw, Raw, Raw, Zstd, Zstd]);
    }

    #[test]
    fn chunks_lie_in_a_random_order() {
        let chunks: Vec<Vec<u8>> = (0..40).map(|seed| random(seed, 100)).collect();
        let order = |layer: Sealed| {
            let offsets: Vec<u32> = layer.toc.chunks.iter().map(|chunk| chunk.offset).collect();
            offsets
        };
        let (one, two) = (order(sealed(&chunks)), order(sealed(&chunks)));
        assert!(!one.is_sorted());
        assert_ne!(one, two);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn any_range_opens_from_its_span(start in 0u32..200_000, len in 1u32..150_000) {
            let chunks = [random(4, 200_000), text(200_001), random(5, 200_000)];
            let layer = sealed(&chunks);
            let reader = reader(&layer);
            let range = start..(start + len).min(200_000);
            for (number, plain) in (0..).zip(&chunks) {
                let span = reader.span_of(number, range.clone()).unwrap();
                let bytes = &layer.bytes[span.start as usize..span.end as usize];
                let opened = reader.open(number, range.clone(), bytes).unwrap();
                prop_assert_eq!(&opened[..], &plain[range.start as usize..range.end as usize]);
                let wide = reader.blocks_around(number, range.clone()).unwrap();
                prop_assert!(wide.start <= range.start && wide.end >= range.end);
                prop_assert_eq!(reader.span_of(number, wide.clone()).unwrap(), span);
                let opened = reader.open(number, wide.clone(), bytes).unwrap();
                prop_assert_eq!(&opened[..], &plain[wide.start as usize..wide.end as usize]);
            }
        }
    }

    #[test]
    fn a_random_read_of_4_kib_opens_one_small_block() {
        // The second chunk begins within a page of its file, and the pages are those of the file.
        let layer = sealed(&[random(4, 50_001), random(5, 150_000)]);
        for (number, page) in [(0, 20_480..24_576), (1, 53_248 - 50_001..57_344 - 50_001)] {
            let span = reader(&layer).span_of(number, page).unwrap();
            assert_eq!(span.end - span.start, 4096 + 16);
        }
    }

    #[test]
    fn what_does_not_exist_is_an_error() {
        let layer = sealed(&small());
        let reader = reader(&layer);
        assert!(reader.span(4).is_err() && reader.plain_len(u32::MAX).is_err());
        for range in [0..0, 5..5, 40..41, 0..41, 0..u32::MAX] {
            assert!(reader.span_of(0, range.clone()).is_err(), "{range:?}");
            assert!(reader.open(0, range, &[]).is_err());
        }
        let span = reader.span(0).unwrap();
        let bytes = &layer.bytes[span.start as usize..span.end as usize];
        assert!(reader.open(0, 0..40, &[bytes, b"x"].concat()).is_err());
        assert!(reader.open(0, 0..40, &bytes[..bytes.len() - 1]).is_err());
        assert!(reader.open(0, 0..40, &[]).is_err());
    }

    #[test]
    fn s01_every_flipped_byte_is_found_and_spoils_one_chunk_at_most() {
        let chunks = small();
        let layer = sealed(&chunks);
        let reader = reader(&layer);
        for at in 0..layer.bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bad = layer.bytes.to_vec();
                bad[at] ^= flip;
                let mut spoilt = 0;
                for (number, plain) in (0..).zip(&chunks) {
                    match open(&reader, &bad, number) {
                        Ok(opened) => assert_eq!(&opened, plain, "byte {at}"),
                        Err(e) => {
                            assert!(e.is_corrupt());
                            assert!(reader.span(number).unwrap().contains(&(at as u64)));
                            spoilt += 1;
                        }
                    }
                }
                let inside = (0..4).any(|n| reader.span(n).unwrap().contains(&(at as u64)));
                assert_eq!(spoilt, usize::from(inside), "byte {at}");
                // What is no chunk is header, table or padding, and whoever reads those sees it.
                let parsed = LayerReader::parse(&bad, &layer.key, DRIVE, EPOCH);
                assert_eq!(parsed.is_err(), !inside, "byte {at}");
            }
        }
    }

    #[test]
    fn s02_a_layer_cut_or_extended_anywhere_is_refused() {
        let chunks = [random(1, 30_000), text(60_000)];
        let layer = sealed(&chunks);
        let parse = |bytes: &[u8]| LayerReader::parse(bytes, &layer.key, DRIVE, EPOCH);
        parse(&layer.bytes).unwrap();
        let lengths = (0..layer.bytes.len()).step_by(4096).chain([layer.bytes.len() - 1]);
        for len in lengths {
            assert!(parse(&layer.bytes[..len]).is_err(), "cut at {len}");
            for number in 0..2 {
                let opened = open(&reader(&layer), &layer.bytes[..len], number);
                assert!(opened.is_ok_and(|plain| plain == chunks[number as usize]) || len < 40_000);
            }
        }
        for more in (0..5).map(|n| n * 4096 + 4096 - layer.bytes.len() % 4096).chain([1]) {
            let longer = [&layer.bytes[..], &vec![0; more]].concat();
            assert!(parse(&longer).is_err(), "extended by {more}");
        }
    }

    #[test]
    fn s03_nothing_opens_in_another_place() {
        // Of whole blocks, so that both have the same.
        let chunks = [random(1, 40_960), random(2, 40_960)];
        let (layer, other) = (sealed(&chunks), sealed(&chunks));
        let at = |number| {
            let span = reader(&layer).span(number).unwrap();
            span.start as usize..span.end as usize
        };
        // Two chunks of one length exchanged.
        let mut swapped = layer.bytes.to_vec();
        swapped[at(0)].copy_from_slice(&layer.bytes[at(1)]);
        swapped[at(1)].copy_from_slice(&layer.bytes[at(0)]);
        assert!((0..2).all(|number| open(&reader(&layer), &swapped, number).is_err()));
        // Two blocks of one chunk exchanged, and a block twice.
        let block = 4096 + 16;
        let chunk = &layer.bytes[at(0)];
        let blocks = [&chunk[block..2 * block], &chunk[..block], &chunk[2 * block..]].concat();
        assert!(reader(&layer).open(0, 0..40_960, &blocks).is_err());
        assert!(reader(&layer).open(0, 4096..8192, &chunk[..block]).is_err());
        // A chunk cut after a whole block, by a table that says so.
        let mut shorter = layer.toc.clone();
        shorter.chunks[0].plain_len = 8192;
        let cut = LayerReader::new(layer.key.clone(), shorter, DRIVE, EPOCH, layer.nonce);
        assert!(cut.open(0, 0..8192, &chunk[..2 * block]).is_err());
        // The same chunk of another layer, and this layer's under anything else's name.
        let foreign = &other.bytes[reader(&other).span(0).unwrap().start as usize..];
        assert!(reader(&layer).open(0, 0..40_960, &foreign[..chunk.len()]).is_err());
        let [key, toc] = [&layer.key, &other.key].map(|key| (key.clone(), layer.toc.clone()));
        let strangers = [
            LayerReader::new(key.0.clone(), key.1.clone(), [9; 32], EPOCH, layer.nonce),
            LayerReader::new(key.0.clone(), key.1.clone(), DRIVE, [9; 32], layer.nonce),
            LayerReader::new(key.0.clone(), key.1, DRIVE, EPOCH, other.nonce),
            LayerReader::new(toc.0, toc.1, DRIVE, EPOCH, layer.nonce),
        ];
        for stranger in &strangers {
            assert!((0..2).all(|number| open(stranger, &layer.bytes, number).is_err()));
        }
        assert!(LayerReader::parse(&layer.bytes, &key.0, [9; 32], EPOCH).is_err());
        assert!(LayerReader::parse(&layer.bytes, &key.0, DRIVE, [9; 32]).is_err());
        assert!(LayerReader::parse(&layer.bytes, &other.key, DRIVE, EPOCH).is_err());
    }

    /// The method and the block length are bound too: a table cannot make raw bytes of frames.
    #[test]
    fn s03_a_chunk_opens_by_its_own_method_alone() {
        let layer = sealed(&[text(500)]);
        let mut toc = layer.toc.clone();
        let sealed_len = toc.chunks[0].blocks[0];
        toc.chunks[0].blocks.clear();
        toc.chunks[0].method = Method::Raw;
        toc.chunks[0].plain_len = sealed_len - 16;
        let raw = LayerReader::new(layer.key.clone(), toc, DRIVE, EPOCH, layer.nonce);
        assert!(open(&raw, &layer.bytes, 0).is_err());
        let mut toc = layer.toc.clone();
        toc.chunks[0].block_log = 17;
        let other = LayerReader::new(layer.key.clone(), toc, DRIVE, EPOCH, layer.nonce);
        assert!(open(&other, &layer.bytes, 0).is_err());
    }

    #[test]
    fn an_unknown_version_or_suite_is_named() {
        let layer = sealed(&small());
        for at in [8, 9, 10, 11] {
            let mut bad = layer.bytes.to_vec();
            bad[at] += 1;
            let parsed = LayerReader::parse(&bad, &layer.key, DRIVE, EPOCH);
            assert!(matches!(parsed, Err(Error::UnknownVersion { .. })), "byte {at}");
        }
    }

    /// S34: whatever an adversary makes of the rest, a header admits one key.
    #[test]
    fn s34_a_header_names_one_key() {
        let (one, two) = (sealed(&small()), sealed(&small()));
        let mut grafted = one.bytes.to_vec();
        grafted[36..68].copy_from_slice(&two.bytes[36..68]);
        for key in [&one.key, &two.key] {
            let refused = LayerReader::parse(&grafted, key, DRIVE, EPOCH).unwrap_err();
            assert!(refused.to_string().contains("another key"), "{refused}");
        }
    }

    #[test]
    fn a_chunk_key_opens_its_chunk_alone() {
        let layer = sealed(&[random(1, 100), random(2, 100)]);
        let reader = reader(&layer);
        let span = reader.span(1).unwrap();
        let sealed = &layer.bytes[span.start as usize..span.end as usize];
        let aad = reader.binding.chunk_aad(1, &layer.toc.chunks[1]);
        let nonce = block_nonce(0, true);
        let opens = |number| seal::open(&chunk_key(&layer.key, number), &nonce, &aad, sealed);
        assert_eq!(opens(1).unwrap(), random(2, 100));
        assert!(opens(0).is_err());
    }
}
