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

use aes::cipher::consts::U16;
use aes::cipher::{
    Array, BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt as _, BlockSizeUser,
    KeyInit as _,
};
use rdrivefs_remote::foreground::{PIECE_BYTES, breathe};
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
/// Hashes rolled in one go, between two groups of encryptions.
const UNIT: usize = 8;
/// Hashes encrypted together, a multiple of what any backend of AES takes at once.
const BATCH: usize = 64;

type Block = Array<u8, U16>;
type Batch = [Block; BATCH];

/// The name of a chunk in the drive's own index: BLAKE3 of its plain bytes, keyed, so that it
/// tells nothing to whoever has not the key; cut to 16 bytes, which no chance makes collide.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(pub [u8; 16]);

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
        let mut hasher = IdHasher::new(key);
        for piece in plain.chunks(PIECE_BYTES) {
            hasher.update(piece);
            breathe();
        }
        hasher.finish()
    }
}

/// Computes a chunk's id piece by piece; pieces of 16 KiB and more are as fast as the whole.
pub struct IdHasher(blake3::Hasher);

impl IdHasher {
    /// Begins a chunk.
    pub fn new(key: &Key) -> Self {
        Self(blake3::Hasher::new_keyed(key.as_bytes()))
    }

    /// Takes the next bytes.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The id of all of them.
    pub fn finish(mut self) -> ChunkId {
        let hash = self.0.finalize();
        self.0.zeroize();
        ChunkId(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
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
        let mut found = None;
        let mut position = MIN_BYTES;
        let batches = (data.len() - MIN_BYTES) / BATCH;
        if batches > 0 {
            let hash = self.hash(&data[position - 1 - WINDOW..position - 1]);
            let rolling = Rolling { tables: &self.tables, data, position, hash };
            self.cipher.encrypt_with_backend(Scan { rolling, batches, found: &mut found });
            position += batches * BATCH;
        }
        found.or_else(|| (position..data.len()).find(|&position| self.cuts_at(data, position)))
    }

    /// Whether a cut stands at `position`, asked alone.
    fn cuts_at(&self, data: &[u8], position: usize) -> bool {
        let mut block = Block::default();
        let hash = self.hash(&data[position - WINDOW..position]);
        block[..8].copy_from_slice(&hash.to_le_bytes());
        self.cipher.encrypt_block(&mut block);
        distance(&block) == 0
    }

    fn hash(&self, window: &[u8]) -> u64 {
        window.iter().fold(0, |hash, &byte| times_x(hash) ^ self.tables.enter[usize::from(byte)])
    }
}

/// The rolling hash on its way through the data.
struct Rolling<'a> {
    tables: &'a Tables,
    data: &'a [u8],
    /// The position to come; `hash` is that of the window before the one that ends here.
    position: usize,
    hash: u64,
}

impl Rolling<'_> {
    /// Leaves the hashes of the next positions in the low halves of `blocks`.
    #[inline(always)]
    fn roll(&mut self, blocks: &mut [Block; UNIT]) {
        let piece = |from: usize| -> &[u8; UNIT] {
            self.data[from..].first_chunk().expect("batches end within the data")
        };
        let entering = piece(self.position - 1);
        let leaving = piece(self.position - 1 - WINDOW);
        for ((block, &enter), &leave) in blocks.iter_mut().zip(entering).zip(leaving) {
            let enter = self.tables.enter[usize::from(enter)];
            let leave = self.tables.leave[usize::from(leave)];
            self.hash = times_x(self.hash) ^ (enter ^ leave);
            block[..8].copy_from_slice(&self.hash.to_le_bytes());
        }
        self.position += UNIT;
    }
}

/// Runs through whole batches of positions inside one call of the cipher's backend, where AES is
/// inlined: the hashes of the next batch are rolled between the encryptions of this one, so that
/// the two share the core instead of waiting for each other.
struct Scan<'a> {
    rolling: Rolling<'a>,
    batches: usize,
    found: &'a mut Option<usize>,
}

impl BlockSizeUser for Scan<'_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for Scan<'_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(mut self, backend: &B) {
        let (mut even, mut odd) = ([Block::default(); BATCH], [Block::default(); BATCH]);
        let (mut now, mut next) = (&mut even, &mut odd);
        let mut encrypted = [Block::default(); BATCH];
        for unit in now.as_chunks_mut().0 {
            self.rolling.roll(unit);
        }
        for left in (0..self.batches).rev() {
            let first = self.rolling.position - BATCH;
            let ahead = if left > 0 { &mut next[..] } else { &mut [] };
            if encrypt_and_roll(backend, now, &mut encrypted, &mut self.rolling, ahead) {
                let hit = encrypted.iter().position(|block| distance(block) == 0);
                *self.found = hit.map(|hit| first + hit);
                return;
            }
            std::mem::swap(&mut now, &mut next);
        }
    }
}

/// Encrypts one batch and rolls the units of `ahead`, the one after it, in between. Tells
/// whether any position of the batch asks for a cut.
#[inline(always)]
fn encrypt_and_roll<B: BlockCipherEncBackend<BlockSize = U16>>(
    backend: &B,
    hashes: &Batch,
    encrypted: &mut Batch,
    rolling: &mut Rolling<'_>,
    ahead: &mut [Block],
) -> bool {
    let mut units = ahead.as_chunks_mut::<UNIT>().0.iter_mut();
    let (groups, rest) = Array::<Block, B::ParBlocksSize>::slice_as_chunks(hashes);
    let (groups_out, rest_out) = Array::<Block, B::ParBlocksSize>::slice_as_chunks_mut(encrypted);
    // One below zero has its top bit set, so one pass without a branch sees whether any was zero.
    let mut below = 0;
    let mut done = 0;
    let mut rolled = 0;
    for (group, out) in groups.iter().zip(groups_out) {
        backend.encrypt_par_blocks((group, &mut *out).into());
        below |= out.iter().fold(0, |below, block| below | distance(block).wrapping_sub(1));
        done += group.len();
        while rolled + UNIT <= done {
            if let Some(unit) = units.next() {
                rolling.roll(unit);
            }
            rolled += UNIT;
        }
    }
    for (block, out) in rest.iter().zip(rest_out) {
        backend.encrypt_block((block, &mut *out).into());
        below |= distance(out).wrapping_sub(1);
    }
    units.for_each(|unit| rolling.roll(unit));
    below >> 31 == 1
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

#[inline(always)]
fn times_x(value: u64) -> u64 {
    value << 1 ^ REDUCTION & (value >> 63).wrapping_neg()
}

/// What the bits that decide lack of zero.
#[inline(always)]
fn distance(encrypted: &Block) -> u32 {
    let low = encrypted.0.first_chunk().expect("a block has 16 bytes");
    u32::from_le_bytes(*low) & CUT_MASK
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cutter(byte: u8) -> Cutter {
        Cutter::new(&Key::from([byte; 32]))
    }

    fn random(seed: u8, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut data);
        data
    }

    fn cuts(cutter: &Cutter, data: &[u8]) -> Vec<usize> {
        let mut ends = vec![0];
        while let Some(cut) = cutter.cut(&data[ends[ends.len() - 1]..], true) {
            ends.push(ends[ends.len() - 1] + cut);
        }
        ends.split_off(1)
    }

    /// The slow twin: every position by itself, the hash from its definition as a polynomial.
    fn twin(cutter: &Cutter, data: &[u8]) -> usize {
        let powers: Vec<u64> = std::iter::successors(Some(1), |power| Some(multiply(*power, 2)))
            .take(WINDOW)
            .collect();
        let term = |age: usize, byte: usize| multiply(cutter.tables.enter[byte], powers[age]);
        let terms: Vec<Vec<u64>> =
            (0..WINDOW).map(|age| (0..256).map(|byte| term(age, byte)).collect()).collect();
        for length in MIN_BYTES..data.len().min(MAX_BYTES) {
            let window = data[length - WINDOW..length].iter().rev().enumerate();
            let hash = window.fold(0, |hash, (age, byte)| hash ^ terms[age][usize::from(*byte)]);
            let mut block = [0; 16];
            block[..8].copy_from_slice(&hash.to_le_bytes());
            let mut block = block.into();
            cutter.cipher.encrypt_block(&mut block);
            if block[0] == 0 && block[1] == 0 && block[2].trailing_zeros() >= 4 {
                return length;
            }
        }
        data.len().min(MAX_BYTES)
    }

    /// Multiplication in GF(2⁶⁴), by the book.
    fn multiply(a: u64, b: u64) -> u64 {
        let wide = (0..64).filter(|i| b >> i & 1 == 1).fold(0, |sum, i| sum ^ u128::from(a) << i);
        let modulus = 1 << 64 | 0x1b;
        let narrow = (64..128).rev().fold(wide, |rest, bit| {
            if rest >> bit & 1 == 1 { rest ^ modulus << (bit - 64) } else { rest }
        });
        narrow as u64
    }

    #[test]
    fn the_field_is_a_field() {
        assert_eq!(multiply(1 << 63, 2), 0x1b);
        assert_eq!(times_x(1 << 63 | 5), multiply(1 << 63 | 5, 2));
        // x has full order only if the polynomial is irreducible: x^(2^64) = x, and no sooner
        // at the proper divisor 2^32.
        let square = |n: u64, times: u32| (0..times).fold(n, |power, _| multiply(power, power));
        assert_eq!(square(2, 64), 2);
        assert_ne!(square(2, 32), 2);
    }

    /// A place where the twin would not reach in reasonable time is compared by planting: the
    /// window before a known cut is copied to wherever the test wants one.
    #[test]
    fn a_window_cuts_wherever_it_stands() {
        let cutter = cutter(1);
        let data = random(1, 12 << 20);
        let cut = cuts(&cutter, &data).into_iter().find(|end| end % BATCH != 0).unwrap();
        let window = &data[cut - WINDOW..cut];
        let quiet = vec![0; MAX_BYTES];
        assert_eq!(cutter.cut(&quiet, false), Some(MAX_BYTES), "zeros ask for no cut here");
        for offset in (0..150).chain([BATCH * 1000 - 1, BATCH * 1000, (3 << 20) + 17]) {
            let mut planted = vec![0; MIN_BYTES + offset + 700];
            planted[MIN_BYTES + offset - WINDOW..][..WINDOW].copy_from_slice(window);
            let cut = Some(MIN_BYTES + offset);
            assert_eq!(cutter.cut(&planted[..MIN_BYTES + offset + 1], false), cut);
            assert_eq!(cutter.cut(&planted, false), cut);
        }
        // Nothing is evaluated before the shortest length.
        for early in [1, 2, BATCH, 1000] {
            let mut planted = quiet.clone();
            planted[MIN_BYTES - early - WINDOW..][..WINDOW].copy_from_slice(window);
            assert_eq!(cutter.cut(&planted, false), Some(MAX_BYTES));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn the_twin_agrees(seed: u8, key: u8, beyond in 0usize..40_000) {
            let data = random(seed, MIN_BYTES + beyond);
            let cutter = cutter(key);
            prop_assert_eq!(cutter.cut(&data, true), Some(twin(&cutter, &data)));
        }
    }

    #[test]
    fn the_twin_agrees_on_a_real_cut() {
        let cutter = cutter(1);
        let data = random(1, 16 << 20);
        // The shortest chunk, lest the twin take too long.
        let ends = cuts(&cutter, &data);
        let starts = [0].into_iter().chain(ends.iter().copied());
        let (start, end) = starts.zip(&ends).min_by_key(|(start, end)| *end - start).unwrap();
        assert_eq!(twin(&cutter, &data[start..]), end - start);
        assert!(end - start < MAX_BYTES / 2);
    }

    #[test]
    fn more_is_asked_for_until_the_answer_is_certain() {
        let cutter = cutter(1);
        assert_eq!(cutter.cut(&[], false), None);
        assert_eq!(cutter.cut(&[], true), None);
        assert_eq!(cutter.cut(&[1], false), None);
        assert_eq!(cutter.cut(&[1], true), Some(1));
        let zeros = vec![0; MAX_BYTES + 1];
        assert_eq!(cutter.cut(&zeros[..MIN_BYTES], false), None);
        assert_eq!(cutter.cut(&zeros[..MAX_BYTES - 1], false), None);
        assert_eq!(cutter.cut(&zeros[..MAX_BYTES - 1], true), Some(MAX_BYTES - 1));
        assert_eq!(cutter.cut(&zeros, false), Some(MAX_BYTES));
    }

    #[test]
    fn one_byte_at_the_front_moves_the_first_cuts_only() {
        let cutter = cutter(3);
        let data = random(3, 64 << 20);
        let before = cuts(&cutter, &data);
        let mut shifted = vec![77];
        shifted.extend_from_slice(&data);
        let after: Vec<usize> = cuts(&cutter, &shifted).into_iter().map(|end| end - 1).collect();
        let kept = before.iter().filter(|end| after.contains(end)).count();
        assert!(before.len() > 40, "{}", before.len());
        assert!(kept + 3 >= before.len(), "{kept} of {} cuts were kept", before.len());
    }

    #[test]
    fn lengths_are_as_designed() {
        let data = random(4, 160 << 20);
        let ends = cuts(&cutter(4), &data);
        let lengths: Vec<usize> =
            [0].iter().chain(&ends).zip(&ends).map(|(start, end)| end - start).collect();
        let inner = &lengths[..lengths.len() - 1];
        assert!(inner.iter().all(|len| (MIN_BYTES..=MAX_BYTES).contains(len)));
        let mean = inner.iter().sum::<usize>() / inner.len();
        assert!((1100 << 10..1450 << 10).contains(&mean), "mean {mean}");
        assert!(inner.iter().any(|len| *len < 400 << 10) && inner.iter().any(|len| *len > 3 << 20));
    }

    #[test]
    fn another_key_cuts_elsewhere() {
        let data = random(5, 32 << 20);
        let (one, two) = (cuts(&cutter(5), &data), cuts(&cutter(6), &data));
        let (_, one) = one.split_last().unwrap();
        assert!(one.len() > 10);
        assert!(one.iter().all(|end| !two.contains(end)));
    }

    /// Fixed for good: other cuts would upload every drive anew.
    #[test]
    fn the_cuts_are_those_of_the_first_version() {
        let data = random(9, 8 << 20);
        let first: Vec<usize> = cuts(&cutter(9), &data).into_iter().take(4).collect();
        assert_eq!(first, [2416369, 4178806, 5123308, 5899073]);
        let id = ChunkId::of(&Key::from([9; 32]), b"plain");
        assert_eq!(id.0, blake3::keyed_hash(&[9; 32], b"plain").as_bytes()[..16]);
        let mut pieces = IdHasher::new(&Key::from([9; 32]));
        [&b"pl"[..], b"", b"ain"].iter().for_each(|piece| pieces.update(piece));
        assert_eq!(pieces.finish(), id);
    }
}
