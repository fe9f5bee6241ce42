//! Putting a layer together.

use std::num::NonZeroU32;
use std::ops::Range;

use bytes::Bytes;
use rdrivefs_remote::blob::BlobId;
use rdrivefs_remote::env::Env;
use rdrivefs_remote::foreground::breathe;
use rdrivefs_remote::proof::Outboard;

use crate::chunk::{self, ChunkId, IdHasher};
use crate::compress::{Compress, Method, Packed, Packer, Zstd};
use crate::error::{Error, Result};
use crate::seal::{self, Key, NONCE_BYTES};

use super::header::{self, Binding};
use super::reader::{LayerReader, block_nonce, chunk_key, padding};
use super::shape::{Fill, HEADER_BYTES, LAYER_BYTES_MAX, padme};
use super::toc::{Toc, TocChunk};

/// What is opened at a time for comparing: a multiple of every block, and it stays in the core's
/// own cache.
const PIECE_BYTES: usize = 64 << 10;

/// A layer being filled. Holds its sealed bytes in memory, twice for a moment when it is closed.
pub struct LayerBuilder {
    env: Env,
    key: Key,
    binding: Binding,
    /// The key of the chunks' ids, by which closing checks what it made.
    ids_key: Key,
    ids: Vec<ChunkId>,
    packer: Packer,
    /// Places count from the start of `bodies` until closing shuffles the chunks.
    chunks: Vec<TocChunk>,
    bodies: Vec<u8>,
    fill: Fill,
}

/// A closed layer and what its record needs.
pub struct Sealed {
    /// Its name.
    pub id: BlobId,
    /// The blob.
    pub bytes: Bytes,
    /// The tree that proves ranges of it.
    pub outboard: Outboard,
    /// Its key.
    pub key: Key,
    /// Its nonce, which its seals are bound to.
    pub nonce: [u8; NONCE_BYTES],
    /// Where its chunks lie.
    pub toc: Toc,
}

impl LayerBuilder {
    /// Begins a layer of this drive and epoch under a fresh key. `ids_key` is the key under which
    /// the ids of its chunks were made.
    pub fn new(drive: [u8; 32], epoch: [u8; 32], ids_key: &Key, env: &Env) -> Self {
        Self::with_compressor(drive, epoch, ids_key, env, Box::new(Zstd::default()))
    }

    /// As [`LayerBuilder::new`], with a compressor of the caller's.
    pub fn with_compressor(
        drive: [u8; 32],
        epoch: [u8; 32],
        ids_key: &Key,
        env: &Env,
        compressor: Box<dyn Compress>,
    ) -> Self {
        Self {
            env: env.clone(),
            key: Key::random(env),
            binding: Binding { drive, epoch, nonce: env.random() },
            ids_key: ids_key.clone(),
            ids: Vec::new(),
            packer: Packer::new(compressor),
            chunks: Vec::new(),
            // Untouched pages cost nothing, growing copies.
            bodies: Vec::with_capacity(LAYER_BYTES_MAX),
            fill: Fill::default(),
        }
    }

    /// Compresses and seals a chunk that begins at byte `at` of its file; returns its number. `id`
    /// is what [`ChunkId::of`] makes of `plain`, and closing will hold the sealed bytes against it.
    ///
    /// # Panics
    /// When `plain` is empty, too long for a chunk, or does not fit ([`LayerBuilder::fits`]).
    pub fn push(&mut self, id: ChunkId, at: u64, plain: &[u8]) -> u32 {
        assert!((1..=chunk::MAX_BYTES).contains(&plain.len()), "chunks have 1 byte to 4 MiB");
        assert!(self.fits(plain.len()), "a full layer must be closed before the next chunk");
        let number = u32::try_from(self.chunks.len()).expect("a layer has few chunks");
        let start = self.bodies.len();
        let chunk = self.seal_chunk(number, at, plain);
        self.fill.add((self.bodies.len() - start) as u64, &chunk.blocks);
        self.chunks.push(chunk);
        self.ids.push(id);
        number
    }

    /// The length the layer would close with now, before padding.
    pub fn len(&self) -> u64 {
        self.fill.len()
    }

    /// Whether nothing was pushed yet.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Whether a chunk of this plain length can be pushed.
    pub fn fits(&self, plain_len: usize) -> bool {
        self.fill.fits(plain_len)
    }

    /// Whether the layer should be closed before anything is pushed: it lies just below a padded
    /// length, or the longest chunk would not fit.
    pub fn is_full(&self) -> bool {
        self.fill.is_full()
    }

    /// Closes the layer: shuffles, pads, names it, and then opens every chunk from the bytes that
    /// were named and compares it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the number of a chunk that does not open to what was pushed; the
    /// chunks have to be pushed again.
    ///
    /// # Panics
    /// When nothing was pushed.
    pub fn close(self) -> Result<Sealed> {
        assert!(!self.is_empty(), "a layer without chunks is never closed");
        let (bytes, toc) = self.assemble();
        let (key, binding, ids_key, ids) = (self.key, self.binding, self.ids_key, self.ids);
        // Only one copy of the layer may live through what follows.
        drop(self.bodies);
        let (id, outboard) = Outboard::of(&bytes);
        let reader = LayerReader::parse(&bytes, &key, binding.drive, binding.epoch)?;
        if *reader.toc() != toc {
            return Err(Error::corrupt("a layer being closed", "its table changed on the way"));
        }
        compare(&reader, &bytes, &ids_key, &ids)?;
        Ok(Sealed { id, bytes: bytes.into(), outboard, key, nonce: binding.nonce, toc })
    }

    /// Seals the blocks of a chunk behind the others.
    fn seal_chunk(&mut self, number: u32, at: u64, plain: &[u8]) -> TocChunk {
        let packed = self.packer.pack(plain);
        let (method, phase) = match packed {
            Packed::Raw => (Method::Raw, at % (1 << Method::Raw.block_log())),
            Packed::Zstd(..) => (Method::Zstd, 0),
        };
        let mut chunk = TocChunk {
            offset: u32::try_from(self.bodies.len()).expect("a layer has 16 MiB"),
            plain_len: u32::try_from(plain.len()).expect("a chunk has 4 MiB"),
            method,
            block_log: method.block_log(),
            blocks: Vec::new(),
            phase: NonZeroU32::new(u32::try_from(phase).expect("a block is small")),
        };
        let key = chunk_key(&self.key, number);
        let aad = self.binding.chunk_aad(number, &chunk);
        let last = chunk.block_count() - 1;
        let mut seal = |block: u32, piece: &[u8]| {
            let nonce = block_nonce(block, block == last);
            seal::seal_into(&key, &nonce, &aad, piece, &mut self.bodies);
            breathe();
        };
        match packed {
            Packed::Raw => {
                let block = |number| chunk.plain_of(&(number..number + 1));
                let piece = |range: Range<u32>| &plain[range.start as usize..range.end as usize];
                (0..=last).for_each(|number| seal(number, piece(block(number))));
            }
            Packed::Zstd(mut packed, lengths) => {
                for (number, &len) in (0..).zip(lengths) {
                    let (piece, rest) = packed.split_at(len as usize);
                    packed = rest;
                    seal(number, piece);
                    chunk.blocks.push(len + seal::TAG_BYTES as u32);
                }
            }
        }
        chunk
    }

    /// Lays the chunks out in a random order, with header, table and padding around them.
    fn assemble(&self) -> (Vec<u8>, Toc) {
        let mut toc = Toc { chunks: self.chunks.clone() };
        let mut bytes = Vec::with_capacity(padme(self.len()) as usize);
        bytes.resize(HEADER_BYTES, 0);
        for number in self.shuffled() {
            let chunk = &mut toc.chunks[number];
            let start = chunk.offset as usize;
            chunk.offset = u32::try_from(bytes.len()).expect("a layer has 16 MiB");
            bytes.extend_from_slice(&self.bodies[start..start + chunk.sealed_len() as usize]);
            breathe();
        }
        let at = u32::try_from(bytes.len()).expect("a layer has 16 MiB");
        bytes.extend_from_slice(&header::seal_toc(&self.key, &self.binding, &toc));
        let end = bytes.len();
        let place = at..u32::try_from(end).expect("a layer has 16 MiB");
        let header = header::write(&self.key, &self.binding, &place);
        bytes[..HEADER_BYTES].copy_from_slice(&header);
        bytes.resize(padme(end as u64) as usize, 0);
        padding(&self.key, &mut bytes[end..]);
        assert!(bytes.len() <= LAYER_BYTES_MAX, "what fits was counted from above");
        (bytes, toc)
    }

    fn shuffled(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.chunks.len()).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, self.env.random_below(i as u64 + 1) as usize);
        }
        order
    }
}

impl std::fmt::Debug for LayerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LayerBuilder({} chunks, {} bytes)", self.chunks.len(), self.len())
    }
}

/// Opens every chunk and compares it with what was pushed.
fn compare(reader: &LayerReader, bytes: &[u8], ids_key: &Key, ids: &[ChunkId]) -> Result<()> {
    let mut plain = Vec::new();
    for (number, id) in (0..).zip(ids) {
        let len = reader.plain_len(number)?;
        let mut hasher = IdHasher::new(ids_key);
        for start in (0..len).step_by(PIECE_BYTES) {
            let range = start..len.min(start + PIECE_BYTES as u32);
            let span = reader.span_of(number, range.clone())?;
            let sealed = &bytes[span.start as usize..span.end as usize];
            reader.open_into(number, range, sealed, &mut plain)?;
            hasher.update(&plain);
            breathe();
        }
        if hasher.finish() != *id {
            let what = format!("chunk {number} of a layer being closed");
            return Err(Error::corrupt(what, "it does not open to what was pushed"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder(compressor: Box<dyn Compress>) -> LayerBuilder {
        let key = Key::from([7; 32]);
        LayerBuilder::with_compressor([1; 32], [2; 32], &key, &Env::real(), compressor)
    }

    fn push(builder: &mut LayerBuilder, plain: &[u8]) {
        builder.push(ChunkId::of(&Key::from([7; 32]), plain), 0, plain);
    }

    fn random(len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut data);
        data
    }

    fn filled() -> LayerBuilder {
        let mut builder = builder(Box::new(Zstd::default()));
        push(&mut builder, &random(300));
        push(&mut builder, &[b'x'; 3000]);
        builder
    }

    #[test]
    fn r24_a_bit_flipped_between_seal_and_close_is_found() {
        assert!(filled().close().is_ok());
        for bit in 0..filled().bodies.len() * 8 {
            let mut builder = filled();
            builder.bodies[bit / 8] ^= 1 << (bit % 8);
            assert!(builder.close().is_err_and(|e| e.is_corrupt()), "bit {bit}");
        }
        let mut builder = filled();
        builder.chunks[0].plain_len -= 1;
        assert!(builder.close().is_err());
    }

    /// The plain bytes themselves change between their naming and their sealing.
    #[test]
    fn r24_a_bit_flipped_before_sealing_is_found() {
        let mut plain = random(5000);
        let id = ChunkId::of(&Key::from([7; 32]), &plain);
        plain[4321] ^= 4;
        let mut builder = filled();
        builder.push(id, 0, &plain);
        let error = builder.close().err().expect("it must be refused").to_string();
        assert!(error.contains("chunk 2 of a layer being closed"), "{error}");
    }

    /// Compresses something other than what it was given.
    struct Liar {
        honest: Zstd,
        lie: fn(&mut Vec<u8>),
    }

    impl Compress for Liar {
        fn compress(&mut self, block: &[u8], out: &mut [u8]) -> Option<usize> {
            let mut block = block.to_vec();
            (self.lie)(&mut block);
            self.honest.compress(&block, out)
        }
    }

    #[test]
    fn r25_a_lying_compressor_is_caught() {
        let lies: [fn(&mut Vec<u8>); 4] = [
            |block| block[700] ^= 1,
            |block| block.truncate(2999),
            |block| block.push(0),
            |block| block.clear(),
        ];
        for lie in lies {
            let mut builder = builder(Box::new(Liar { honest: Zstd::default(), lie }));
            push(&mut builder, &[b'x'; 3000]);
            assert!(builder.close().is_err_and(|e| e.is_corrupt()));
        }
        let lie: fn(&mut Vec<u8>) = |_| {};
        let mut builder = builder(Box::new(Liar { honest: Zstd::default(), lie }));
        push(&mut builder, &[b'x'; 3000]);
        assert!(builder.close().is_ok());
    }

    /// One that claims success and leaves whatever was in the buffer.
    struct Idle;

    impl Compress for Idle {
        fn compress(&mut self, _: &[u8], _: &mut [u8]) -> Option<usize> {
            Some(20)
        }
    }

    /// One that never succeeds.
    struct Refusing;

    impl Compress for Refusing {
        fn compress(&mut self, _: &[u8], _: &mut [u8]) -> Option<usize> {
            None
        }
    }

    #[test]
    fn r25_an_idle_compressor_is_caught_and_a_refusing_one_does_no_harm() {
        let mut idle = builder(Box::new(Idle));
        push(&mut idle, &[b'x'; 3000]);
        assert!(idle.close().is_err());
        let mut refusing = builder(Box::new(Refusing));
        push(&mut refusing, &[b'x'; 3000]);
        assert_eq!(refusing.close().unwrap().toc.chunks[0].method, Method::Raw);
    }

    #[test]
    fn a_layer_never_outgrows_its_limit() {
        let plain = random(chunk::MAX_BYTES);
        let mut builder = builder(Box::new(Zstd::default()));
        while !builder.is_full() {
            push(&mut builder, &plain);
        }
        for len in [chunk::MAX_BYTES, 1 << 20, 100_000, 1000, 100, 1] {
            while builder.fits(len) {
                push(&mut builder, &plain[..len]);
            }
        }
        let counted = builder.len();
        let layer = builder.close().unwrap();
        assert_eq!(layer.bytes.len(), LAYER_BYTES_MAX);
        assert!(counted <= LAYER_BYTES_MAX as u64);
        assert!(layer.toc.encode().len() < super::super::TOC_BYTES_MAX);
    }

    #[test]
    fn the_length_is_never_counted_too_short() {
        let mut builder = filled();
        (1..400).for_each(|len| push(&mut builder, &random(len * 7)));
        let counted = builder.len();
        let (bytes, toc) = builder.assemble();
        let place = toc.end().unwrap() + (toc.encode().len() + seal::TAG_BYTES) as u64;
        assert!(counted >= place && counted - place < 4000, "{counted} for {place}");
        assert_eq!(bytes.len() as u64, padme(place));
    }

    /// No run of zeros, no magic, no count: chunks, table and padding look alike.
    #[test]
    fn nothing_but_the_fixed_words_of_the_header_shows() {
        let mut builder = builder(Box::new(Zstd::default()));
        push(&mut builder, &vec![0; 100_000]);
        push(&mut builder, &vec![0; 100_000]);
        let one = builder.close().unwrap();
        let window_zero = one.bytes[12..].windows(5).any(|window| window == [0; 5]);
        assert!(!window_zero);
        let mut other = filled();
        push(&mut other, &random(1000));
        let other = other.close().unwrap();
        assert_eq!(one.bytes[..12], other.bytes[..12]);
        assert_ne!(one.bytes[12..36], other.bytes[12..36]);
    }

    /// The same draws every time.
    struct Fixed(std::sync::Mutex<blake3::OutputReader>);

    impl rdrivefs_remote::env::World for Fixed {
        fn wall_ns(&self) -> u64 {
            0
        }

        fn instant(&self) -> rdrivefs_remote::env::Instant {
            rdrivefs_remote::env::Instant(0)
        }

        fn fill(&self, out: &mut [u8]) {
            self.0.lock().unwrap().fill(out);
        }
    }

    /// Pinned, so that no change of the writer goes unnoticed; what earlier ones wrote opens as the
    /// vectors say. Raw chunks alone, since another zstd may find other frames.
    #[test]
    fn the_bytes_of_a_layer_are_pinned() {
        let env = Env::of(Fixed(std::sync::Mutex::new(blake3::Hasher::new().finalize_xof())));
        let key = Key::from([7; 32]);
        let mut builder = LayerBuilder::new([1; 32], [2; 32], &key, &env);
        [10, 16_384, 40_000].into_iter().for_each(|len| push(&mut builder, &random(len)));
        let layer = builder.close().unwrap();
        assert_eq!(
            layer.id.to_string(),
            "6de803ee9fc47d774d8f1587b684398135647f8354e61d0894273ce2cc0d3390"
        );
    }
}
