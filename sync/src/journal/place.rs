//! The words of the journal: where a record stands in time, and where staged bytes lie on disk.

/// Most bytes of a record or of a staged block: a random read opens one block.
pub const BLOCK_BYTES_MAX: usize = 64 << 10;
/// What a block takes on disk beyond its plain bytes: 72 of header, 16 of tag.
pub(super) const OVERHEAD_BYTES: usize = 88;

/// A record's number, counted from 1 without gaps; 0 stands before the first.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    minicbor::Encode,
    minicbor::Decode,
)]
#[cbor(transparent)]
pub struct Position(#[n(0)] pub u64);

/// One sealed block of the journal: what to remember in order to read staged bytes again. It stays
/// good until the segment is freed, even if the file behind it had to be abandoned.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode,
)]
#[cbor(array)]
pub struct Place {
    /// The segment's number.
    #[n(0)]
    pub segment: u32,
    /// Where the block begins, in bytes of the segment.
    #[n(1)]
    pub at: u64,
    /// Plain bytes in the whole block.
    #[n(2)]
    pub len: u32,
}

impl Place {
    /// Where the block ends and the next one begins.
    pub fn end(&self) -> u64 {
        self.at + u64::from(self.len) + OVERHEAD_BYTES as u64
    }
}

/// Blocks of one data segment that lie one behind the other and that a record names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) segment: u32,
    pub(super) at: u64,
    pub(super) end: u64,
}

impl Run {
    /// Joins neighbouring places; keeps the order in which they are named.
    pub(super) fn join(places: &[Place]) -> Vec<Self> {
        let mut runs: Vec<Self> = Vec::new();
        for place in places {
            match runs.last_mut() {
                Some(run) if run.segment == place.segment && run.end == place.at => {
                    run.end = place.end();
                }
                _ => {
                    runs.push(Self { segment: place.segment, at: place.at, end: place.end() });
                }
            }
        }
        runs
    }
}
