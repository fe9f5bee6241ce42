//! Pieces: a long slice made and sent part by part, so that no answer needs more memory than one.
//!
//! A slice is the pre-order walk over the tree of a blob, cut down to what a range needs. The slice
//! of one aligned part of the range begins with the blob's length and the pairs on the path from
//! the root to that part. The whole slice holds each of these once, where the walk first comes by;
//! so the slices of the parts, each less what the parts before it had in common with it, make up
//! the whole one byte for byte.

use std::ops::Range;

use crate::proof::PREFIX_BYTES;

/// The width of a part: a power of two, so that each is a subtree.
pub(super) const PART_BYTES: u64 = 1 << 20;
/// Bytes of an inner node: the hashes of its children.
const PAIR_BYTES: usize = 64;

/// One part of a range, and how much of its slice was said before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) range: Range<u64>,
    /// The length of the blob.
    pub(super) of: u64,
    /// Bytes to leave out at the front of its slice.
    pub(super) skip: usize,
}

/// The parts of `range` of a blob of `len` bytes.
pub(super) fn parts(len: u64, range: Range<u64>) -> Vec<Part> {
    let range = range.start.min(len)..range.end.min(len);
    let mut parts = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let top = at / PART_BYTES * PART_BYTES;
        let end = (top + PART_BYTES).min(range.end);
        let skip = if parts.is_empty() {
            0
        } else {
            PREFIX_BYTES + PAIR_BYTES * shared(len, top, range.start)
        };
        parts.push(Part { range: at..end, of: len, skip });
        at = end;
    }
    if parts.is_empty() {
        parts.push(Part { range, of: len, skip: 0 });
    }
    parts
}

/// How many of the nodes above the part at `top` also stand above something in the range before it.
fn shared(len: u64, top: u64, first: u64) -> usize {
    let (mut start, mut end) = (0, len);
    let mut count = 0;
    while start < top || end > top + PART_BYTES {
        // Within the range the node begins at the later of the two; before `top`, it was met.
        count += usize::from(start.max(first) < top);
        let middle = start + left(end - start);
        if top < middle {
            end = middle;
        } else {
            start = middle;
        }
    }
    count
}

/// The length of the left child: the largest power of two that leaves something for the right.
fn left(len: u64) -> u64 {
    len.div_ceil(2).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::blob::BlobId;
    use crate::proof::{Outboard, prove, slice_len};

    fn whole_and_parts(bytes: &[u8], range: Range<u64>) -> (Vec<u8>, Vec<u8>) {
        let (id, outboard): (BlobId, _) = Outboard::of(bytes);
        let whole = prove(&outboard, &id, bytes, range.clone()).unwrap().0.to_vec();
        let mut joined = Vec::new();
        for part in parts(bytes.len() as u64, range) {
            let slice = prove(&outboard, &id, bytes, part.range).unwrap().0;
            joined.extend_from_slice(&slice[part.skip..]);
        }
        (whole, joined)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
        #[test]
        fn the_parts_make_up_the_whole(
            len in prop_oneof![0..20_000_000u64, (1..20u64).prop_map(|n| n << 20)],
            a in 0..21_000_000u64, b in 0..21_000_000u64, seed in any::<u8>(),
        ) {
            let bytes: Vec<u8> = (0..len).map(|n| (n / 7) as u8 ^ seed).collect();
            let range = a.min(b)..a.max(b);
            let (whole, joined) = whole_and_parts(&bytes, range.clone());
            prop_assert_eq!(whole.len() as u64, slice_len(len, &range));
            prop_assert!(whole == joined, "len {} range {:?}", len, range);
        }
    }

    #[test]
    fn edges() {
        let bytes: Vec<u8> = (0..5 * PART_BYTES + 1).map(|n| (n / 3) as u8).collect();
        for len in [0, 1, 4096, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES, 5 * PART_BYTES + 1] {
            for range in
                [0..0, 0..1, 0..len, len..len, len..len + 9, 5..u64::MAX, 0..PART_BYTES + 1]
            {
                let (whole, joined) = whole_and_parts(&bytes[..len as usize], range.clone());
                assert!(whole == joined, "len {len} range {range:?}");
            }
        }
    }

    #[test]
    fn no_part_is_wider_than_one() {
        for part in parts(64 << 20, 12_345..64 << 20) {
            assert!(part.range.end - part.range.start <= PART_BYTES);
        }
    }
}
