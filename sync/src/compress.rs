//! Deciding whether a chunk is worth compressing, and doing it block by block.
//!
//! A cheap look at samples tells what is already dense (films, pictures, archives, sealed bytes);
//! such chunks stay raw, in small blocks, so that a random read opens little. Everything else is
//! compressed by zstd in blocks that stand alone. If that saves next to nothing the chunk stays
//! raw after all. Contexts are kept and used again: making one costs more than a small block.
//!
//! Unpacking never writes more than the length it was told, whatever the bytes claim. Nothing here
//! is secret or authenticated: only what has been opened may be given to [`unpack`].

use std::cell::RefCell;

use crate::error::{Error, Result};

/// How the blocks of a chunk are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum Method {
    /// As they are.
    #[n(0)]
    Raw,
    /// Each a zstd frame of its own.
    #[n(1)]
    Zstd,
}

/// Level 1: level 3 saves some five percent more on source text for half the speed.
const LEVEL: i32 = 1;
/// 4 KiB, a page: a random read of one opens one block, at 0.4 % for tags. Reading and opening 16 KiB
/// for it takes a sixth longer, and reads in sequence are as quick.
const RAW_BLOCK_LOG: u8 = 12;
/// 64 KiB: smaller windows compress noticeably worse.
const ZSTD_BLOCK_LOG: u8 = 16;
/// Compressing must save one part in this many to be worth the unpacking.
const GAIN_MIN: usize = 32;
/// Below this a probe costs as much as trying.
const PROBE_BYTES_MIN: usize = 32 << 10;
/// Samples taken for the count of bytes, and the length of each.
const SAMPLES: usize = 16;
const SAMPLE_BYTES: usize = 256;
/// One part in this many is compressed for trial when the count alone cannot tell.
const TRIAL_PART: usize = 32;

impl Method {
    /// The base-two logarithm of the block length.
    pub fn block_log(self) -> u8 {
        match self {
            Self::Raw => RAW_BLOCK_LOG,
            Self::Zstd => ZSTD_BLOCK_LOG,
        }
    }
}

/// A compressor of single blocks; a trait so that a test can put a lying one in its place.
pub trait Compress: Send {
    /// Writes the compressed block into `out` and returns its length, or nothing if it does not
    /// fit or fails, which leaves the chunk raw.
    fn compress(&mut self, block: &[u8], out: &mut [u8]) -> Option<usize>;
}

/// zstd with its context.
pub struct Zstd(zstd::bulk::Compressor<'static>);

impl Default for Zstd {
    fn default() -> Self {
        Self(zstd::bulk::Compressor::new(LEVEL).expect("zstd takes its own level 1"))
    }
}

impl Compress for Zstd {
    fn compress(&mut self, block: &[u8], out: &mut [u8]) -> Option<usize> {
        self.0.compress_to_buffer(block, out).ok()
    }
}

/// Packs chunks, keeping its buffers from one to the next.
pub struct Packer {
    codec: Box<dyn Compress>,
    packed: Vec<u8>,
    lengths: Vec<u32>,
}

/// A chunk ready for sealing.
pub enum Packed<'a> {
    /// It stays as it is.
    Raw,
    /// Compressed blocks, one after the other, with the length of each.
    Zstd(&'a [u8], &'a [u32]),
}

impl Packer {
    /// A packer around a compressor.
    pub fn new(codec: Box<dyn Compress>) -> Self {
        Self { codec, packed: Vec::new(), lengths: Vec::new() }
    }

    /// Packs a chunk.
    pub fn pack(&mut self, plain: &[u8]) -> Packed<'_> {
        if self.is_dense(plain) {
            return Packed::Raw;
        }
        let budget = plain.len() - plain.len() / GAIN_MIN;
        self.reserve(plain.len());
        self.lengths.clear();
        let mut used = 0;
        for block in plain.chunks(1 << ZSTD_BLOCK_LOG) {
            let Some(len) = self.codec.compress(block, &mut self.packed[used..]) else {
                return Packed::Raw;
            };
            used += len;
            self.lengths.push(u32::try_from(len).expect("a block is far below 4 GiB"));
            if used >= budget {
                return Packed::Raw;
            }
        }
        Packed::Zstd(&self.packed[..used], &self.lengths)
    }

    /// Whether samples say that compressing would be in vain.
    fn is_dense(&mut self, plain: &[u8]) -> bool {
        plain.len() >= PROBE_BYTES_MIN && is_even(plain) && !self.trial_gains(plain)
    }

    /// Whether a piece from the middle shrinks; catches what repeats without being uneven.
    fn trial_gains(&mut self, plain: &[u8]) -> bool {
        let len = (plain.len() / TRIAL_PART).max(1 << 12);
        let piece = &plain[(plain.len() - len) / 2..][..len];
        self.reserve(len);
        let packed = self.codec.compress(piece, &mut self.packed);
        packed.is_some_and(|packed| packed < len - len / GAIN_MIN)
    }

    /// Makes room for a chunk that gains, plus one block that does not.
    fn reserve(&mut self, len: usize) {
        let needed = len + zstd::zstd_safe::compress_bound(1 << ZSTD_BLOCK_LOG);
        if self.packed.len() < needed {
            self.packed.resize(needed, 0);
        }
    }
}

/// Whether all byte values are about equally frequent in the samples. For `n` samples the sum of
/// squared counts is `n²/256 + n` in random data; less than one bit of entropy missing per byte
/// keeps it under twice `n²/256`.
fn is_even(plain: &[u8]) -> bool {
    let mut counts = [0_u32; 256];
    let stride = plain.len() / SAMPLES;
    for sample in plain.chunks_exact(stride).take(SAMPLES) {
        for &byte in &sample[..SAMPLE_BYTES.min(stride)] {
            counts[usize::from(byte)] += 1;
        }
    }
    let total: u32 = counts.iter().sum();
    let squares: u32 = counts.iter().map(|count| count * count).sum();
    squares < total * (total / 128)
}

/// Unpacks one block, appending exactly `plain_len` bytes to `out`.
///
/// # Errors
/// [`Error::Corrupt`] when the block holds anything else; nothing stays in `out`.
pub fn unpack(packed: &[u8], plain_len: usize, out: &mut Vec<u8>) -> Result<()> {
    thread_local! {
        static CONTEXT: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    }
    let start = out.len();
    out.resize(start + plain_len, 0);
    let unpacked = CONTEXT.with_borrow_mut(|context| {
        let context = match context {
            Some(context) => context,
            none => none.insert(zstd::bulk::Decompressor::new()?),
        };
        context.decompress_to_buffer(packed, &mut out[start..])
    });
    let why = match unpacked {
        Ok(len) if len == plain_len => return Ok(()),
        Ok(len) => format!("it unpacks to {len} bytes instead of {plain_len}"),
        Err(e) => format!("it does not unpack: {e}"),
    };
    out.truncate(start);
    Err(Error::corrupt("a compressed block", why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut data);
        data
    }

    fn text(len: usize) -> Vec<u8> {
        let words = random(len);
        let word = |byte: &u8| format!("word{} ", byte % 64).into_bytes();
        words.iter().flat_map(word).take(len).collect()
    }

    fn packer() -> Packer {
        Packer::new(Box::new(Zstd::default()))
    }

    fn round_trip(plain: &[u8]) -> usize {
        let mut packer = packer();
        let Packed::Zstd(packed, lengths) = packer.pack(plain) else { return plain.len() };
        let (mut at, mut out) = (0, Vec::new());
        for (length, block) in lengths.iter().zip(plain.chunks(1 << ZSTD_BLOCK_LOG)) {
            unpack(&packed[at..][..*length as usize], block.len(), &mut out).unwrap();
            at += *length as usize;
        }
        assert_eq!((at, out.as_slice()), (packed.len(), plain));
        packed.len()
    }

    #[test]
    fn text_shrinks_and_comes_back() {
        for len in [600, 5000, 65_536, 65_537, 1 << 20] {
            let plain = text(len);
            assert!(round_trip(&plain) < len / 2, "length {len}");
        }
    }

    #[test]
    fn dense_bytes_stay_raw() {
        for len in [1, 100, 5000, 40_000, 1 << 20] {
            assert!(matches!(packer().pack(&random(len)), Packed::Raw), "length {len}");
        }
    }

    #[test]
    fn the_probe_alone_tells_dense_from_uneven_and_from_repeating() {
        assert!(packer().is_dense(&random(1 << 20)));
        assert!(!packer().is_dense(&text(1 << 20)));
        // Every value equally frequent, yet the same 1,000 bytes over and over.
        let repeating: Vec<u8> = random(1000).into_iter().cycle().take(1 << 20).collect();
        assert!(is_even(&repeating));
        assert!(!packer().is_dense(&repeating));
        assert!(round_trip(&repeating) < 100_000);
        // Six bits in eight bytes are worth it.
        let coded: Vec<u8> = random(1 << 20).iter().map(|byte| b' ' + byte % 64).collect();
        assert!(round_trip(&coded) < 820_000);
    }

    #[test]
    fn a_block_unpacks_to_its_length_or_not_at_all() {
        let mut bomb = vec![0; 1000];
        let len = Zstd::default().compress(&vec![7; 10 << 20], &mut bomb).unwrap();
        let bomb = &bomb[..len];
        for plain_len in [0, 1, 65_536, (10 << 20) - 1, (10 << 20) + 1] {
            let mut out = vec![1, 2];
            assert!(unpack(bomb, plain_len, &mut out).unwrap_err().is_corrupt());
            assert_eq!(out, [1, 2]);
        }
        let mut frame = vec![0; 1000];
        let len = Zstd::default().compress(b"some bytes", &mut frame).unwrap();
        let frame = &frame[..len];
        unpack(frame, 10, &mut Vec::new()).unwrap();
        assert!(unpack(&[frame, b"x"].concat(), 10, &mut Vec::new()).is_err());
        (0..len).for_each(|cut| assert!(unpack(&frame[..cut], 10, &mut Vec::new()).is_err()));
        assert!(unpack(b"", 0, &mut Vec::new()).is_ok_and(|()| true));
    }
}
