//! The map of a sparse layer: one bit for each range that is present.

use std::ops::Range;

/// The unit of fetching and dropping: 32 KiB, so that a random 4 KiB read that straddles two of
/// them moves 64 KiB and still says little about what was read.
pub const RANGE_BYTES: u64 = 32 << 10;

/// One bit a range, lowest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Map {
    bits: Vec<u8>,
    ranges: u64,
    set: u64,
}

impl Map {
    /// The map of a layer of `len` bytes of which nothing is here.
    pub(super) fn empty(len: u64) -> Self {
        let ranges = len.div_ceil(RANGE_BYTES);
        Self { bits: vec![0; ranges.div_ceil(8) as usize], ranges, set: 0 }
    }

    /// The map of a layer that is whole.
    pub(super) fn full(len: u64) -> Self {
        let mut map = Self::empty(len);
        map.set(0..map.ranges, true);
        map
    }

    /// A map as it was written; what does not fit the layer is taken for empty, and fetched anew.
    pub(super) fn decode(bytes: &[u8], len: u64) -> Self {
        let mut map = Self::empty(len);
        if bytes.len() == map.bits.len() {
            for n in 0..map.ranges {
                if bytes[(n / 8) as usize] >> (n % 8) & 1 == 1 {
                    map.set(n..n + 1, true);
                }
            }
        }
        map
    }

    /// The bytes to write.
    pub(super) fn encode(&self) -> &[u8] {
        &self.bits
    }

    pub(super) fn has(&self, n: u64) -> bool {
        self.bits[(n / 8) as usize] >> (n % 8) & 1 == 1
    }

    pub(super) fn set(&mut self, numbers: Range<u64>, present: bool) {
        for n in numbers.start..numbers.end.min(self.ranges) {
            if self.has(n) != present {
                self.bits[(n / 8) as usize] ^= 1 << (n % 8);
                self.set = if present { self.set + 1 } else { self.set - 1 };
            }
        }
    }

    /// Clears what is not among these.
    pub(super) fn keep(&mut self, numbers: &Range<u64>) {
        self.set(0..numbers.start, false);
        self.set(numbers.end..self.ranges, false);
    }

    pub(super) fn is_full(&self) -> bool {
        self.set == self.ranges
    }

    pub(super) fn is_empty(&self) -> bool {
        self.set == 0
    }

    /// How many ranges are present.
    pub(super) fn count(&self) -> u64 {
        self.set
    }

    /// The first range that is not present among those that touch `bytes`.
    pub(super) fn first_missing(&self, bytes: &Range<u64>) -> Option<u64> {
        let numbers = bytes.start / RANGE_BYTES..bytes.end.div_ceil(RANGE_BYTES).min(self.ranges);
        let mut numbers = numbers;
        numbers.find(|n| !self.has(*n))
    }
}

/// The map ranges that lie wholly inside `range`, as numbers.
pub(super) fn inside(range: &Range<u64>, len: u64) -> Range<u64> {
    let end = if range.end >= len { len.div_ceil(RANGE_BYTES) } else { range.end / RANGE_BYTES };
    range.start.div_ceil(RANGE_BYTES)..end
}
