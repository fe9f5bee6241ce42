//! Cutting files into chunks where their content says so, in a way only the drive's key can tell.
//!
//! A cut stands after byte `p` when a secret pseudorandom function of the 64 bytes before it comes
//! out with its low bits zero: so an inserted byte moves the cuts around it and no others, and the
//! lengths of chunks tell somebody without the key nothing about the content. The function is
//! AES-128 over a rolling polynomial hash in GF(2⁶⁴): the window's bytes go through a secret random
//! table and become the coefficients of a polynomial in x, so two different windows collide with
//! probability 2⁻⁶⁴ over the tables, like Toeplitz hashing and without its cost; AES hides
//! everything else about the hash. The low bits are never tested on the hash itself: that is what
//! the published attacks on keyed chunkers need.
//!
//! A chunk is between 256 KiB and 4 MiB long and about 1.25 MiB in the mean; nothing is evaluated
//! within its first 256 KiB. A cut depends on the chunk's own bytes alone.
//!
//! Where the bytes come from, and what is done with the pieces, is not this module's business.

use std::fmt;

use aes::cipher::{Array, BlockCipherEncrypt as _, KeyInit as _};
use zeroize::{Zeroize as _, Zeroizing};

use crate::seal::Key;

/// No chunk is shorter, but for the last of its file: smaller ones cost more in tables than they
/// could ever save.
pub const MIN_BYTES: usize = 256 << 10;
/// No chunk is longer, so that it can be held in memory and four of them fill a layer.
pub const MAX_BYTES: usize = 4 << 20;

/// A cut every 2²⁰ bytes beyond the shortest length.
const CUT_MASK: u32 = (1 << 20) - 1;
/// The bytes that decide.
const WINDOW: usize = 64;
/// x⁶⁴ = x⁴ + x³ + x + 1: the field is GF(2)[x] modulo the lightest irreducible polynomial.
const REDUCTION: u64 = 0x1b;
/// Rolling hashes computed side by side: one alone waits for its own last step.
const LANES: usize = 4;
/// Hashes a lane makes before all are encrypted together.
const BATCH: usize = 16;
/// Positions a lane covers before it starts afresh further on; the window it has to read first
/// costs one in 64 of it, and a cut throws away four lanes at most.
const LANE_POSITIONS: usize = 4096;

type Block = Array<u8, aes::cipher::consts::U16>;
type Blocks = [Block; LANES * BATCH];

/// The name of a chunk in the drive's own index: BLAKE3 of its plain bytes, keyed, so that it
/// tells nothing to whoever has not the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(pub [u8; 32]);

/// Finds the cuts of a drive.
pub struct Cutter {
    tables: Box<Tables>,
    cipher: aes::Aes128Enc,
}

/// What a byte adds to the hash when it enters the window, and takes from it when it leaves.
struct Tables {
    enter: [u64; 256],
    leave: [u64; 256],
}

impl ChunkId {
    /// The id of these bytes under the epoch's key for ids.
    pub fn of(key: &Key, plain: &[u8]) -> Self {
        Self(*blake3::keyed_hash(key.as_bytes(), plain).as_bytes())
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkId({})", hex::encode(self.0))
    }
}

impl Cutter {
    /// The cutter that grows from a drive's chunker key.
    pub fn new(key: &Key) -> Self {
        let mut stream = Zeroizing::new([0; 16 + 256 * 8]);
        let mut hasher = blake3::Hasher::new_derive_key("rdrivefs v1 cuts");
        hasher.update(key.as_bytes());
        hasher.finalize_xof().fill(&mut stream[..]);
        hasher.zeroize();
        let (cipher_key, table) = stream.split_first_chunk::<16>().expect("it is longer");
        let mut tables = Box::new(Tables { enter: [0; 256], leave: [0; 256] });
        for (byte, value) in table.as_chunks::<8>().0.iter().enumerate() {
            let value = u64::from_le_bytes(*value);
            tables.enter[byte] = value;
            tables.leave[byte] = (0..WINDOW).fold(value, |power, _| times_x(power));
        }
        Self { tables, cipher: aes::Aes128Enc::new(cipher_key.into()) }
    }

    /// The length of the first chunk of `data`, or nothing when more bytes are needed to tell.
    /// With `eof` the data ends the file, and what is left over is a chunk.
    pub fn cut(&self, data: &[u8], eof: bool) -> Option<usize> {
        let end = data.len().min(MAX_BYTES);
        let found = if end > MIN_BYTES { self.first_cut(&data[..end]) } else { None };
        let whole = (end == MAX_BYTES || eof && end > 0).then_some(end);
        found.or(whole)
    }

    /// The first position from `MIN_BYTES` to before the end where the content asks for a cut.
    fn first_cut(&self, data: &[u8]) -> Option<usize> {
        let mut at = MIN_BYTES;
        let mut blocks = [Block::default(); LANES * BATCH];
        while at < data.len() {
            let positions = ((data.len() - at) / (LANES * BATCH) * BATCH).min(LANE_POSITIONS);
            if positions == 0 {
                return (at..data.len()).find(|&position| self.cuts_at(data, position));
            }
            if let Some(cut) = self.scan(data, at, positions, &mut blocks) {
                return Some(cut);
            }
            at += LANES * positions;
        }
        None
    }

    /// The first cut among `LANES * positions` positions from `start` on. Lane `l` covers
    /// `positions` of them, a multiple of `BATCH`, beginning with `start + l * positions`.
    fn scan(
        &self,
        data: &[u8],
        start: usize,
        positions: usize,
        blocks: &mut Blocks,
    ) -> Option<usize> {
        let starts: [usize; LANES] = std::array::from_fn(|lane| start + lane * positions);
        let mut hashes = starts.map(|at| self.hash(&data[at - 1 - WINDOW..at - 1]));
        let mut first = [None; LANES];
        let mut encrypted = [Block::default(); LANES * BATCH];
        for done in (0..positions).step_by(BATCH) {
            self.roll(data, starts.map(|at| at + done), &mut hashes, blocks);
            self.cipher.encrypt_blocks_b2b(blocks, &mut encrypted).expect("both have one length");
            if !encrypted.iter().fold(false, |any, block| any | asks_for_cut(block)) {
                continue;
            }
            for (lane, lane_blocks) in encrypted.as_chunks::<BATCH>().0.iter().enumerate() {
                let hit = lane_blocks.iter().position(asks_for_cut);
                first[lane] = first[lane].or(hit.map(|hit| starts[lane] + done + hit));
            }
            if first[0].is_some() {
                break;
            }
        }
        first.into_iter().flatten().next()
    }

    /// Moves every lane on by `BATCH` bytes, leaving its hashes in the low halves of its blocks.
    #[inline]
    fn roll(
        &self,
        data: &[u8],
        at: [usize; LANES],
        hashes: &mut [u64; LANES],
        blocks: &mut Blocks,
    ) {
        let piece = |from: usize| -> &[u8; BATCH] {
            data[from..].first_chunk().expect("a lane ends within the data")
        };
        let entering = at.map(|at| piece(at - 1));
        let leaving = at.map(|at| piece(at - 1 - WINDOW));
        let lanes = blocks.as_chunks_mut::<BATCH>().0;
        for i in 0..BATCH {
            for lane in 0..LANES {
                let enter = self.tables.enter[usize::from(entering[lane][i])];
                let leave = self.tables.leave[usize::from(leaving[lane][i])];
                hashes[lane] = times_x(hashes[lane]) ^ (enter ^ leave);
                lanes[lane][i][..8].copy_from_slice(&hashes[lane].to_le_bytes());
            }
        }
    }

    /// Whether a cut stands at `position`, asked alone.
    fn cuts_at(&self, data: &[u8], position: usize) -> bool {
        let mut block = Block::default();
        let hash = self.hash(&data[position - WINDOW..position]);
        block[..8].copy_from_slice(&hash.to_le_bytes());
        self.cipher.encrypt_block(&mut block);
        asks_for_cut(&block)
    }

    fn hash(&self, window: &[u8]) -> u64 {
        window.iter().fold(0, |hash, &byte| times_x(hash) ^ self.tables.enter[usize::from(byte)])
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        self.enter.zeroize();
        self.leave.zeroize();
    }
}

impl fmt::Debug for Cutter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cutter(…)")
    }
}

#[inline]
fn times_x(value: u64) -> u64 {
    value << 1 ^ REDUCTION & (value >> 63).wrapping_neg()
}

#[inline]
fn asks_for_cut(encrypted: &Block) -> bool {
    let low = u32::from_le_bytes([encrypted[0], encrypted[1], encrypted[2], encrypted[3]]);
    low & CUT_MASK == 0
}
