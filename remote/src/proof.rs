//! Proofs: ranges of a blob that can be checked against its id alone, and the trees they need.
//!
//! A blob's id is the root of a BLAKE3 tree over its 1 KiB chunks (Bao). Whoever keeps the blob
//! keeps an [`Outboard`] beside it: the tree down to groups of 4 KiB, in pre-order, 1.6 % of the
//! blob. A [`Slice`] is a range with the path that ties it to the root; at 1 KiB groups it is
//! byte for byte what the reference `bao` crate calls a slice. [`verify`] consumes a slice and is
//! the only maker of [`Verified`], so bytes nobody checked cannot be mistaken for bytes of a blob.
//!
//! The length of a blob is believed from whoever asks (a layer record names it): a slice that
//! does not reach the blob's end cannot prove it. Reading and keeping blobs belongs to `store`.
//!
//! Layouts (integers little-endian; man/rdrivefs-format.5, "outboard" and "slice"):
//! outboard = blob length u64 ‖ pairs of hashes in pre-order; slice = blob length u64 ‖ pairs of
//! hashes and groups in pre-order, those that the range needs. An empty range is its length alone.

use std::fs::File;
use std::io;
use std::ops::Range;

use bao_tree::iter::{BaoChunk, PostOrderChunkIter};
use bao_tree::{BaoTree, BlockSize, ChunkNum, ChunkRanges, TreeNode};
use blake3::Hash;
use blake3::hazmat::{HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};
use bytes::{Bytes, BytesMut};

use crate::blob::{BLOB_BYTES_MAX, BlobId};
use crate::error::{Error, Result};
use crate::foreground::{PIECE_BYTES, breathe};

/// Bytes under one leaf of an outboard: a random 4 KiB read costs no more than it asks for.
pub const GROUP_BYTES: u64 = 4 << 10;
/// What stands before the tree in an outboard and in a slice: the blob's length.
pub const PREFIX_BYTES: usize = 8;

const GROUP: BlockSize = BlockSize::from_chunk_log(2);
const PAIR_BYTES: usize = 64;
const _: () = assert!(GROUP.bytes() as u64 == GROUP_BYTES);

/// A range of a blob as a Bao slice, exactly as it came: not to be believed before [`verify`]
/// has consumed it.
#[derive(Debug, Clone)]
pub struct Slice(pub Bytes);

/// Bytes of a blob that were checked against its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Where they begin in the blob; a multiple of [`GROUP_BYTES`] unless they are empty.
    pub start: u64,
    /// The bytes: the range asked for, widened to whole groups, cut at the blob's end.
    pub bytes: Bytes,
}

/// The hash tree of a blob, kept beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outboard {
    /// Length of the blob in bytes.
    pub len: u64,
    /// Pairs of hashes in pre-order, exactly as many as the length demands.
    pub tree: Vec<u8>,
}

/// Bytes that can be read from any place: a file or memory.
pub trait ReadAt {
    /// Fills `out` with the bytes from `at`.
    ///
    /// # Errors
    /// Those of the source; [`io::ErrorKind::UnexpectedEof`] when it ends too early.
    fn read_exact_at(&self, out: &mut [u8], at: u64) -> io::Result<()>;
}

/// Computes a blob's id and outboard while its bytes pass by, in memory of the outboard's size.
pub struct Hasher {
    tree: BaoTree,
    steps: PostOrderChunkIter,
    /// The group to come, if bytes are still to come.
    leaf: Option<Leaf>,
    /// The beginning of that group, when it came in pieces.
    partial: Vec<u8>,
    hashes: Vec<Hash>,
    pairs: Vec<u8>,
    taken: u64,
}

#[derive(Clone, Copy)]
struct Leaf {
    start: ChunkNum,
    len: usize,
    is_root: bool,
}

impl Outboard {
    /// The id and the outboard of a blob in memory.
    pub fn of(bytes: &[u8]) -> (BlobId, Self) {
        let mut hasher = Hasher::new(bytes.len() as u64);
        for piece in bytes.chunks(PIECE_BYTES) {
            hasher.update(piece);
            breathe();
        }
        hasher.finish().expect("as many bytes as announced")
    }

    /// How long the encoded outboard of a blob of `len` bytes is.
    pub fn encoded_len(len: u64) -> u64 {
        PREFIX_BYTES as u64 + BaoTree::new(len, GROUP).outboard_size()
    }

    /// The bytes of the file beside the blob.
    pub fn encode(&self) -> Vec<u8> {
        [&self.len.to_le_bytes()[..], &self.tree].concat()
    }

    /// Reads what [`Outboard::encode`] wrote. Whether the hashes are right shows when a slice
    /// made with them is verified.
    ///
    /// # Errors
    /// [`Error::Malformed`] when its size is not the one its length demands.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (len, tree) = bytes
            .split_first_chunk::<PREFIX_BYTES>()
            .ok_or_else(|| Error::malformed("outboard", "too short"))?;
        let len = u64::from_le_bytes(*len);
        if len > BLOB_BYTES_MAX || bytes.len() as u64 != Self::encoded_len(len) {
            return Err(Error::malformed("outboard", "not the size its length demands"));
        }
        Ok(Self { len, tree: tree.to_vec() })
    }
}

/// The slice of `range` of a blob in `data`, whose outboard is in memory.
///
/// # Errors
/// [`Error::Io`] when the data cannot be read; [`Error::Corrupt`] when there is too little of it.
pub fn prove(
    outboard: &Outboard,
    id: &BlobId,
    data: &(impl ReadAt + ?Sized),
    range: Range<u64>,
) -> Result<Slice> {
    prove_with(id, outboard.len, &outboard.tree[..], 0, data, range)
}

/// As [`prove`], reading of an outboard that lies encoded in `tree` only the hashes it needs.
///
/// # Errors
/// As [`prove`], and [`Error::Corrupt`] when the outboard is of a blob longer than there can be.
pub fn prove_encoded(
    tree: &(impl ReadAt + ?Sized),
    id: &BlobId,
    data: &(impl ReadAt + ?Sized),
    range: Range<u64>,
) -> Result<Slice> {
    let mut len = [0; PREFIX_BYTES];
    tree.read_exact_at(&mut len, 0).map_err(reading(id, 0))?;
    let len = u64::from_le_bytes(len);
    if len > BLOB_BYTES_MAX {
        return Err(Error::Corrupt { id: *id, offset: 0 });
    }
    prove_with(id, len, tree, PREFIX_BYTES as u64, data, range)
}

/// How long the slice of `range` of a blob of `len` bytes is: what a reader may wait for.
pub fn slice_len(len: u64, range: &Range<u64>) -> u64 {
    let tree = BaoTree::new(len, GROUP);
    let Some(ranges) = chunk_ranges(tree, range) else { return PREFIX_BYTES as u64 };
    let parts = tree.ranges_pre_order_chunks_iter_ref(&ranges, 0).map(|step| match step {
        BaoChunk::Parent { .. } => PAIR_BYTES as u64,
        BaoChunk::Leaf { size, .. } => size as u64,
    });
    PREFIX_BYTES as u64 + parts.sum::<u64>()
}

/// `range` as [`verify`] returns it: whole groups, cut at the blob's end.
pub fn aligned(len: u64, range: &Range<u64>) -> Range<u64> {
    aligned_to(GROUP_BYTES, len, range)
}

/// Checks a slice of `range` of the blob `id` of `len` bytes and takes out its bytes.
///
/// # Errors
/// [`Error::Corrupt`] at the first byte that is not the blob's, also when the slice is too short
/// or too long; [`Error::Malformed`] when it speaks of another length.
pub fn verify(id: &BlobId, len: u64, range: Range<u64>, slice: Slice) -> Result<Verified> {
    verify_at(GROUP, id, len, range, slice)
}

impl Hasher {
    /// For a blob of exactly `len` bytes.
    pub fn new(len: u64) -> Self {
        Self::with_group(GROUP, len)
    }

    fn with_group(group: BlockSize, len: u64) -> Self {
        let tree = BaoTree::new(len, group);
        let pairs = usize::try_from(tree.outboard_size()).expect("blobs are bounded");
        let mut hasher = Self {
            tree,
            steps: tree.post_order_chunks_iter(),
            leaf: None,
            partial: Vec::new(),
            hashes: Vec::new(),
            pairs: vec![0; pairs],
            taken: 0,
        };
        hasher.advance();
        hasher
    }

    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.taken = self.taken.saturating_add(bytes.len() as u64);
        while let Some(leaf) = self.leaf {
            let missing = leaf.len - self.partial.len();
            if bytes.len() < missing {
                self.partial.extend_from_slice(bytes);
                return;
            }
            let (now, later) = bytes.split_at(missing);
            bytes = later;
            let hash = if self.partial.is_empty() {
                leaf_hash(leaf.start, now, leaf.is_root)
            } else {
                self.partial.extend_from_slice(now);
                leaf_hash(leaf.start, &self.partial, leaf.is_root)
            };
            self.partial.clear();
            self.hashes.push(hash);
            self.advance();
        }
    }

    /// The id and the outboard, once all bytes were taken.
    ///
    /// # Errors
    /// [`Error::Malformed`] when there were fewer or more bytes than announced.
    pub fn finish(mut self) -> Result<(BlobId, Outboard)> {
        let len = self.tree.size();
        if self.taken != len {
            let why = format!("{} bytes came where {len} were announced", self.taken);
            return Err(Error::malformed("blob", why));
        }
        self.update(&[]); // the one group of an empty blob
        let root = self.hashes.pop().expect("a tree has a root");
        Ok((BlobId(*root.as_bytes()), Outboard { len, tree: self.pairs }))
    }

    /// Joins hashes up to the next group.
    fn advance(&mut self) {
        self.leaf = None;
        for step in self.steps.by_ref() {
            match step {
                BaoChunk::Leaf { start_chunk, size, is_root, .. } => {
                    self.leaf = Some(Leaf { start: start_chunk, len: size, is_root });
                    return;
                }
                BaoChunk::Parent { node, is_root, .. } => {
                    let right = self.hashes.pop().expect("post-order: the right child is done");
                    let left = self.hashes.pop().expect("post-order: the left child is done");
                    let at = pair_offset(self.tree, node);
                    self.pairs[at..at + 32].copy_from_slice(left.as_bytes());
                    self.pairs[at + 32..at + 64].copy_from_slice(right.as_bytes());
                    self.hashes.push(parent_hash(&left, &right, is_root));
                }
            }
        }
    }
}

impl ReadAt for [u8] {
    fn read_exact_at(&self, out: &mut [u8], at: u64) -> io::Result<()> {
        let start = usize::try_from(at).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let source = start.checked_add(out.len()).and_then(|end| self.get(start..end));
        out.copy_from_slice(source.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ReadAt for File {
    fn read_exact_at(&self, out: &mut [u8], at: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, out, at)
    }
}

fn prove_with(
    id: &BlobId,
    len: u64,
    pairs: &(impl ReadAt + ?Sized),
    pairs_at: u64,
    data: &(impl ReadAt + ?Sized),
    range: Range<u64>,
) -> Result<Slice> {
    let source = Source { tree: BaoTree::new(len, GROUP), pairs, pairs_at, data };
    Ok(Slice(source.slice(&range).map_err(reading(id, range.start))?))
}

/// What a slice is cut from.
struct Source<'a, P: ?Sized, D: ?Sized> {
    tree: BaoTree,
    pairs: &'a P,
    pairs_at: u64,
    data: &'a D,
}

impl<P: ReadAt + ?Sized, D: ReadAt + ?Sized> Source<'_, P, D> {
    fn slice(&self, range: &Range<u64>) -> io::Result<Bytes> {
        let tree = self.tree;
        let mut out = Vec::from(tree.size().to_le_bytes());
        let Some(ranges) = chunk_ranges(tree, range) else { return Ok(out.into()) };
        for step in tree.ranges_pre_order_chunks_iter_ref(&ranges, 0) {
            let from = out.len();
            match step {
                BaoChunk::Parent { node, .. } => {
                    let at = self.pairs_at + pair_offset(tree, node) as u64;
                    out.resize(from + PAIR_BYTES, 0);
                    self.pairs.read_exact_at(&mut out[from..], at)?;
                }
                BaoChunk::Leaf { start_chunk, size, .. } => {
                    out.resize(from + size, 0);
                    self.data.read_exact_at(&mut out[from..], start_chunk.to_bytes())?;
                }
            }
        }
        Ok(out.into())
    }
}

fn verify_at(
    group: BlockSize,
    id: &BlobId,
    len: u64,
    range: Range<u64>,
    slice: Slice,
) -> Result<Verified> {
    let tree = BaoTree::new(len, group);
    let mut rest = Rest { id, bytes: slice.0 };
    if rest.take(PREFIX_BYTES, 0)? != len.to_le_bytes()[..] {
        return Err(Error::malformed("slice", "speaks of another length"));
    }
    let wanted = aligned_to(group.bytes() as u64, len, &range);
    let mut bytes = match chunk_ranges(tree, &range) {
        Some(ranges) => verified_leaves(tree, &ranges, &mut rest)?,
        None => Vec::new(),
    };
    if !rest.bytes.is_empty() {
        return Err(Error::Corrupt { id: *id, offset: wanted.end });
    }
    let bytes = if bytes.len() == 1 { bytes.swap_remove(0) } else { concat(&bytes) };
    Ok(Verified { start: wanted.start, bytes })
}

/// Walks down from the root; what a hash above does not name ends the walk.
fn verified_leaves(tree: BaoTree, ranges: &ChunkRanges, rest: &mut Rest) -> Result<Vec<Bytes>> {
    let mut leaves = Vec::new();
    let mut expected = vec![Hash::from_bytes(rest.id.0)];
    for step in tree.ranges_pre_order_chunks_iter_ref(ranges, 0) {
        let hash = expected.pop().expect("pre-order: every step was named by one above");
        match step {
            BaoChunk::Parent { node, is_root, left, right, .. } => {
                let offset = node.chunk_range().start.to_bytes();
                let pair = rest.take(PAIR_BYTES, offset)?;
                let (l, r) = (pair_half(&pair, 0), pair_half(&pair, 32));
                rest.check(parent_hash(&l, &r, is_root) == hash, offset)?;
                expected.extend(right.then_some(r));
                expected.extend(left.then_some(l));
            }
            BaoChunk::Leaf { start_chunk, size, is_root, .. } => {
                let offset = start_chunk.to_bytes();
                let leaf = rest.take(size, offset)?;
                rest.check(leaf_hash(start_chunk, &leaf, is_root) == hash, offset)?;
                leaves.push(leaf);
            }
        }
    }
    Ok(leaves)
}

/// What is left of a slice, and whose it should be.
struct Rest<'a> {
    id: &'a BlobId,
    bytes: Bytes,
}

impl Rest<'_> {
    fn take(&mut self, len: usize, offset: u64) -> Result<Bytes> {
        self.check(self.bytes.len() >= len, offset)?;
        Ok(self.bytes.split_to(len))
    }

    fn check(&self, holds: bool, offset: u64) -> Result<()> {
        if holds { Ok(()) } else { Err(Error::Corrupt { id: *self.id, offset }) }
    }
}

fn concat(leaves: &[Bytes]) -> Bytes {
    let mut out = BytesMut::with_capacity(leaves.iter().map(Bytes::len).sum());
    leaves.iter().for_each(|leaf| out.extend_from_slice(leaf));
    out.freeze()
}

/// The chunks of a range widened to groups; none for an empty range of a blob that has bytes.
fn chunk_ranges(tree: BaoTree, range: &Range<u64>) -> Option<ChunkRanges> {
    if tree.size() == 0 {
        return Some(ChunkRanges::all());
    }
    let wanted = aligned_to(tree.block_size().bytes() as u64, tree.size(), range);
    let start = ChunkNum::full_chunks(wanted.start);
    if wanted.is_empty() {
        None
    } else if wanted.end == tree.size() {
        Some(ChunkRanges::from(start..))
    } else {
        Some(ChunkRanges::from(start..ChunkNum::full_chunks(wanted.end)))
    }
}

fn aligned_to(group: u64, len: u64, range: &Range<u64>) -> Range<u64> {
    let (start, end) = (range.start.min(len), range.end.min(len));
    if start >= end {
        return start..start;
    }
    start / group * group..end.next_multiple_of(group).min(len)
}

fn pair_offset(tree: BaoTree, node: TreeNode) -> usize {
    let index = tree.pre_order_offset(node).expect("the walk stays above the groups");
    usize::try_from(index).expect("blobs are bounded") * PAIR_BYTES
}

fn pair_half(pair: &[u8], at: usize) -> Hash {
    Hash::from_slice(&pair[at..at + 32]).expect("half a pair is a hash")
}

fn leaf_hash(start: ChunkNum, bytes: &[u8], is_root: bool) -> Hash {
    if is_root {
        return blake3::hash(bytes);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(start.to_bytes());
    hasher.update(bytes);
    Hash::from_bytes(hasher.finalize_non_root())
}

fn parent_hash(left: &Hash, right: &Hash, is_root: bool) -> Hash {
    if is_root {
        merge_subtrees_root(left.as_bytes(), right.as_bytes(), Mode::Hash)
    } else {
        Hash::from_bytes(merge_subtrees_non_root(left.as_bytes(), right.as_bytes(), Mode::Hash))
    }
}

/// A blob or an outboard that ends too early is damage, not a failure of the disk.
fn reading(id: &BlobId, offset: u64) -> impl FnOnce(io::Error) -> Error {
    let id = *id;
    move |error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::Corrupt { id, offset },
        _ => Error::io(format!("reading blob {id}"))(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read as _};

    use proptest::prelude::*;

    use super::*;

    fn data(len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().update(&len.to_le_bytes()).finalize_xof().fill(&mut out);
        out
    }

    fn slice_of(bytes: &[u8], range: Range<u64>) -> (BlobId, Slice) {
        let (id, outboard) = Outboard::of(bytes);
        let slice = prove(&outboard, &id, bytes, range).unwrap();
        (id, slice)
    }

    const LENGTHS: [usize; 14] =
        [0, 1, 1023, 1024, 1025, 4095, 4096, 4097, 8192, 12_288, 12_289, 65_536, 100_000, 131_073];

    #[test]
    fn the_root_is_the_hash_and_any_range_comes_back() {
        for len in LENGTHS {
            let bytes = data(len);
            let (id, outboard) = Outboard::of(&bytes);
            assert_eq!(id, BlobId::of(&bytes), "{len}");
            assert_eq!(Outboard::decode(&outboard.encode()).unwrap(), outboard);
            for start in LENGTHS {
                for take in [0, 1, 4096, 5000, 200_000] {
                    let range = start as u64..(start + take) as u64;
                    let slice = prove(&outboard, &id, &bytes[..], range.clone()).unwrap();
                    let also =
                        prove_encoded(&outboard.encode()[..], &id, &bytes[..], range.clone());
                    assert_eq!(also.unwrap().0, slice.0);
                    assert_eq!(slice.0.len() as u64, slice_len(len as u64, &range));
                    let got = verify(&id, len as u64, range.clone(), slice).unwrap();
                    let want = aligned(len as u64, &range);
                    assert_eq!(got.start, want.start);
                    assert_eq!(got.bytes, bytes[want.start as usize..want.end as usize]);
                }
            }
        }
    }

    #[test]
    fn bytes_may_come_in_any_pieces() {
        let bytes = data(50_001);
        for piece in [1, 7, 1000, 4096, 4097, 30_000] {
            let mut hasher = Hasher::new(bytes.len() as u64);
            bytes.chunks(piece).for_each(|p| hasher.update(p));
            assert_eq!(hasher.finish().unwrap(), Outboard::of(&bytes));
        }
        for wrong in [0, 50_000, 50_002] {
            let mut hasher = Hasher::new(wrong);
            hasher.update(&bytes);
            assert!(matches!(hasher.finish(), Err(Error::Malformed { .. })), "{wrong}");
        }
    }

    /// The same code at 1 KiB groups against the reference implementation.
    #[test]
    fn at_one_chunk_a_group_outboards_and_slices_are_those_of_bao() {
        for len in LENGTHS {
            let bytes = data(len);
            let mut hasher = Hasher::with_group(BlockSize::ZERO, len as u64);
            hasher.update(&bytes);
            let (id, outboard) = hasher.finish().unwrap();
            let (bao_outboard, bao_hash) = bao::encode::outboard(&bytes);
            assert_eq!(id.0, *bao_hash.as_bytes());
            assert_eq!(outboard.encode(), bao_outboard, "{len}");
            let tree = BaoTree::new(len as u64, BlockSize::ZERO);
            let source = Source { tree, pairs: &outboard.tree[..], pairs_at: 0, data: &bytes[..] };
            for start in LENGTHS.into_iter().filter(|start| *start < len.max(1)) {
                for take in [1, 1024, 5000, 200_000] {
                    let range = start as u64..(start + take).min(len.max(1)) as u64;
                    let ours = source.slice(&range).unwrap();
                    assert_eq!(ours, bao_slice(&bytes, &bao_outboard, &range), "{len} {range:?}");
                    let got = verify_at(BlockSize::ZERO, &id, len as u64, range, Slice(ours));
                    assert!(got.is_ok());
                }
            }
        }
    }

    fn bao_slice(bytes: &[u8], outboard: &[u8], range: &Range<u64>) -> Vec<u8> {
        let mut out = Vec::new();
        let take = range.end - range.start;
        let (data, outboard) = (Cursor::new(bytes), Cursor::new(outboard));
        bao::encode::SliceExtractor::new_outboard(data, outboard, range.start, take)
            .read_to_end(&mut out)
            .unwrap();
        out
    }

    #[test]
    fn a_slice_of_4_kib_groups_is_read_by_bao() {
        let bytes = data(100_000);
        let (id, slice) = slice_of(&bytes, 9_000..9_001);
        let mut out = Vec::new();
        // A group of four chunks lacks bao's three inner pairs; a whole group has them computable,
        // so only the path above is shared: header and pairs must be the same bytes.
        let (outboard, hash) = bao::encode::outboard(&bytes);
        assert_eq!(hash.as_bytes(), id.as_bytes());
        let theirs = bao_slice(&bytes, &outboard, &(8_192..12_288));
        let path = slice.0.len() - GROUP_BYTES as usize;
        assert_eq!(slice.0[..path], theirs[..path]);
        bao::decode::SliceDecoder::new(&theirs[..], &hash, 8_192, 4_096)
            .read_to_end(&mut out)
            .unwrap();
        assert_eq!(out, slice.0[path..]);
    }

    #[test]
    fn s55_every_flipped_bit_of_a_slice_is_refused() {
        let bytes = data(9_000);
        for range in [0..1, 4_096..4_097, 8_999..9_000, 0..9_000] {
            let (id, slice) = slice_of(&bytes, range.clone());
            for at in 0..slice.0.len() {
                let mut evil = slice.0.to_vec();
                evil[at] ^= 1 << (at % 8);
                let got = verify(&id, 9_000, range.clone(), Slice(evil.into()));
                assert!(got.unwrap_err().is_corrupt(), "byte {at} of {range:?}");
            }
        }
    }

    #[test]
    fn s55_a_slice_cut_short_or_continued_is_refused() {
        let (id, slice) = slice_of(&data(9_000), 4_096..4_097);
        for len in 0..slice.0.len() {
            let cut = Slice(slice.0.slice(..len));
            assert!(verify(&id, 9_000, 4_096..4_097, cut).unwrap_err().is_corrupt(), "{len}");
        }
        for more in [1, 64, 4_096] {
            let long = Slice([&slice.0[..], &vec![0; more]].concat().into());
            assert!(verify(&id, 9_000, 4_096..4_097, long).unwrap_err().is_corrupt(), "{more}");
        }
    }

    #[test]
    fn s55_the_right_data_under_another_root_is_refused() {
        let (_, slice) = slice_of(&data(9_000), 0..4_096);
        let other = BlobId::of(b"other");
        assert!(verify(&other, 9_000, 0..4_096, slice).unwrap_err().is_corrupt());
    }

    #[test]
    fn s55_a_slice_of_another_blob_is_refused() {
        let (id, _) = slice_of(&data(9_000), 0..4_096);
        let mut bytes = data(9_000);
        bytes[8_999] ^= 1; // the same data in the range asked for
        let (_, slice) = slice_of(&bytes, 0..4_096);
        assert!(verify(&id, 9_000, 0..4_096, slice).unwrap_err().is_corrupt());
    }

    #[test]
    fn s55_a_slice_of_another_offset_is_refused() {
        // Alike everywhere: only the path tells places apart, and neighbours share it.
        let alike = vec![7; 64 << 10];
        for (bytes, first) in [(data(64 << 10), 1), (alike, 2)] {
            for there in first..16u64 {
                let (id, slice) = slice_of(&bytes, there << 12..(there << 12) + 1);
                let got = verify(&id, 64 << 10, 0..1, slice);
                assert!(got.is_err_and(|e| e.is_corrupt()), "{there}");
            }
        }
        let bytes = data(64 << 10);
        let (id, slice) = slice_of(&bytes, 0..8_192);
        assert!(verify(&id, 64 << 10, 0..4_096, slice.clone()).unwrap_err().is_corrupt());
        assert!(verify(&id, 64 << 10, 0..12_288, slice).unwrap_err().is_corrupt());
    }

    #[test]
    fn s55_a_lie_about_the_length_is_refused() {
        let bytes = data(9_000);
        for range in [0..1, 8_999..9_000] {
            let (id, slice) = slice_of(&bytes, range.clone());
            for lie in [0u64, 1, 4_096, 8_192, 8_999, 9_001, 12_289, 1 << 40, u64::MAX >> 1] {
                let said = Slice([&lie.to_le_bytes()[..], &slice.0[8..]].concat().into());
                let got = verify(&id, 9_000, range.clone(), said.clone());
                assert!(got.unwrap_err().is_corrupt(), "said {lie}");
                assert!(verify(&id, lie, range.clone(), slice.clone()).is_err(), "asked {lie}");
            }
        }
        // Both sides wrong in the same way: caught wherever the shape of the tree changes or the
        // last group is read; this is why the length must come from a record.
        let (id, slice) = slice_of(&bytes, 8_999..9_000);
        let said = Slice([&8_999u64.to_le_bytes()[..], &slice.0[8..]].concat().into());
        assert!(verify(&id, 8_999, 8_998..8_999, said).unwrap_err().is_corrupt());
    }

    #[test]
    fn s55_outboards_of_the_wrong_size_are_refused() {
        let (_, outboard) = Outboard::of(&data(9_000));
        let good = outboard.encode();
        for bad in [&good[..0], &good[..7], &good[..8], &good[..good.len() - 1]] {
            assert!(Outboard::decode(bad).is_err());
        }
        assert!(Outboard::decode(&[&good[..], &[0]].concat()).is_err());
        assert!(Outboard::decode(&u64::MAX.to_le_bytes()).is_err());
    }

    #[test]
    fn s55_a_damaged_outboard_or_blob_makes_slices_that_are_refused() {
        let bytes = data(20_000);
        let (id, outboard) = Outboard::of(&bytes);
        for at in 0..outboard.tree.len() {
            let mut evil = outboard.clone();
            evil.tree[at] ^= 0x80;
            let slice = prove(&evil, &id, &bytes[..], 0..20_000).unwrap();
            assert!(verify(&id, 20_000, 0..20_000, slice).unwrap_err().is_corrupt());
        }
        let mut evil = bytes.clone();
        evil[12_345] ^= 1;
        let slice = prove(&outboard, &id, &evil[..], 0..20_000).unwrap();
        match verify(&id, 20_000, 0..20_000, slice) {
            Err(Error::Corrupt { offset: 12_288, .. }) => {}
            other => panic!("the group that is damaged must be named: {other:?}"),
        }
    }

    proptest! {
        #[test]
        fn any_range_of_any_blob_is_the_bytes_of_that_range(
            len in 0usize..70_000,
            start in 0u64..80_000,
            take in 0u64..80_000,
        ) {
            let bytes = data(len);
            let (id, slice) = slice_of(&bytes, start..start + take);
            let got = verify(&id, len as u64, start..start + take, slice).unwrap();
            let end = (start + take).min(len as u64);
            if start < end {
                let (from, to) = ((start - got.start) as usize, (end - got.start) as usize);
                prop_assert_eq!(&got.bytes[from..to], &bytes[start as usize..end as usize]);
            } else {
                prop_assert!(got.bytes.is_empty());
            }
        }

        #[test]
        fn s55_nothing_random_is_believed(noise in prop::collection::vec(any::<u8>(), 0..9_000)) {
            let got = verify(&BlobId([3; 32]), 9_000, 0..4_096, Slice(noise.into()));
            prop_assert!(got.unwrap_err().is_corrupt());
        }
    }
}
