//! The content of a file: stretches and where their bytes lie. What no stretch covers is a hole.

use std::collections::BTreeMap;
use std::ops::Range;

use minicbor::{Decode, Encode};

use crate::index::layers::{ChunkPlace, LayerNumber};
use crate::journal::Place;

/// The longest stretch that is joined of others: no chunk and no block is longer.
const JOINED_BYTES_MAX: u64 = 4 << 20;

/// Where the bytes of a stretch lie.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Source {
    /// In the row itself: tiny files.
    #[n(0)]
    Bytes(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// In the journal, not sealed yet.
    #[n(1)]
    Staged {
        /// The block.
        #[n(0)]
        place: Place,
        /// Where in the block the stretch begins.
        #[n(1)]
        skip: u32,
    },
    /// In a chunk of a layer.
    #[n(2)]
    Chunk {
        /// The layer's number in the index.
        #[n(0)]
        layer: i64,
        /// The chunk's number in the layer.
        #[n(1)]
        number: u32,
        /// Where in the chunk the stretch begins.
        #[n(2)]
        skip: u32,
    },
}

/// A stretch of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Bytes it covers.
    pub len: u64,
    /// Where they lie.
    pub source: Source,
}

/// The stretches of a file by where they begin; they never overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extents {
    map: BTreeMap<u64, Extent>,
    stored: u64,
    staged: u64,
    inline: u64,
}

impl Source {
    /// A stretch of a chunk.
    pub fn chunk(place: ChunkPlace, skip: u32) -> Self {
        Self::Chunk { layer: place.layer.0, number: place.number, skip }
    }

    /// Whether the bytes are in the journal.
    pub fn is_staged(&self) -> bool {
        matches!(self, Self::Staged { .. })
    }

    /// The layer the bytes are in, if they are in one.
    pub fn layer(&self) -> Option<LayerNumber> {
        match self {
            Self::Chunk { layer, .. } => Some(LayerNumber(*layer)),
            _ => None,
        }
    }

    /// Whether `next` is what follows `len` bytes of this.
    fn leads_to(&self, next: &Self, len: u64) -> bool {
        let follows = |skip: u32, next: u32| u64::from(skip) + len == u64::from(next);
        match (self, next) {
            (Self::Staged { place, skip }, Self::Staged { place: other, skip: next }) => {
                place == other && follows(*skip, *next)
            }
            (
                Self::Chunk { layer, number, skip },
                Self::Chunk { layer: other_layer, number: other, skip: next },
            ) => layer == other_layer && number == other && follows(*skip, *next),
            _ => false,
        }
    }

    /// The `len` bytes from `by` on.
    fn part(&self, by: u64, len: u64) -> Self {
        let step = u32::try_from(by).expect("a stretch is far shorter than 4 GiB");
        match self {
            Self::Bytes(bytes) => {
                let start = step as usize;
                Self::Bytes(bytes[start..start + len as usize].to_vec())
            }
            Self::Staged { place, skip } => Self::Staged { place: *place, skip: skip + step },
            Self::Chunk { layer, number, skip } => {
                Self::Chunk { layer: *layer, number: *number, skip: skip + step }
            }
        }
    }
}

impl Extents {
    /// Bytes that are not holes.
    pub fn stored(&self) -> u64 {
        self.stored
    }

    /// Bytes in the journal.
    pub fn staged(&self) -> u64 {
        self.staged
    }

    /// Bytes in the row itself.
    pub fn inline(&self) -> u64 {
        self.inline
    }

    /// How many stretches there are.
    pub fn count(&self) -> usize {
        self.map.len()
    }

    /// All stretches in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Extent)> {
        self.map.iter().map(|(at, extent)| (*at, extent))
    }

    /// Puts a stretch in place of whatever was there.
    pub fn put(&mut self, at: u64, len: u64, source: Source) {
        if len == 0 {
            return;
        }
        self.cut(at..at + len);
        self.add(at, Extent { len, source });
        self.join(at + len);
        self.join(at);
    }

    /// Makes one stretch of the two that meet at `at`, if the bytes of one follow the other's.
    fn join(&mut self, at: u64) {
        let Some((first, before)) = self.map.range(..at).next_back() else { return };
        let Some(after) = self.map.get(&at) else { return };
        let (first, len) = (*first, before.len);
        let end = len + after.len;
        if first + len == at
            && end <= JOINED_BYTES_MAX
            && before.source.leads_to(&after.source, len)
        {
            let before = self.take(first);
            drop(self.take(at));
            self.add(first, Extent { len: end, source: before.source });
        }
    }

    /// Makes a hole.
    pub fn cut(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.map.range(..range.start).next_back().map(|(at, _)| *at);
        let inside = self.map.range(range.clone()).map(|(at, _)| *at);
        let touched: Vec<u64> = first.into_iter().chain(inside).collect();
        for at in touched {
            let end = at + self.map[&at].len;
            if end <= range.start {
                continue;
            }
            let old = self.take(at);
            if at < range.start {
                let len = range.start - at;
                self.add(at, Extent { len, source: old.source.part(0, len) });
            }
            if end > range.end {
                let len = end - range.end;
                let source = old.source.part(range.end - at, len);
                self.add(range.end, Extent { len, source });
            }
        }
    }

    /// The stretches of a range, cut to it; holes are left out.
    pub fn pieces(&self, range: &Range<u64>) -> Vec<(Range<u64>, Source)> {
        let first = self.map.range(..=range.start).next_back();
        let rest = self.map.range(range.start.saturating_add(1)..range.end.max(range.start + 1));
        let mut pieces = Vec::new();
        for (at, extent) in first.into_iter().chain(rest) {
            let start = (*at).max(range.start);
            let end = (at + extent.len).min(range.end);
            if start < end {
                pieces.push((start..end, extent.source.part(start - at, end - start)));
            }
        }
        pieces
    }

    /// The first byte from `at` on that is not in a hole.
    pub fn next_data(&self, at: u64) -> Option<u64> {
        if let Some((start, extent)) = self.map.range(..=at).next_back()
            && start + extent.len > at
        {
            return Some(at);
        }
        self.map.range(at..).next().map(|(start, _)| *start)
    }

    /// The first byte from `at` on that is in a hole.
    pub fn next_hole(&self, at: u64) -> u64 {
        let mut at = at;
        while let Some((start, extent)) = self.map.range(..=at).next_back() {
            if start + extent.len <= at {
                break;
            }
            at = start + extent.len;
        }
        at
    }

    /// The segments of the journal that bytes lie in.
    pub fn segments(&self) -> impl Iterator<Item = u32> {
        self.map.values().filter_map(|extent| match &extent.source {
            Source::Staged { place, .. } => Some(place.segment),
            _ => None,
        })
    }

    /// The runs of neighbouring bytes that are in no layer.
    pub fn unsealed_runs(&self) -> Vec<Range<u64>> {
        self.runs(|source| source.layer().is_none())
    }

    /// The runs of neighbouring bytes, holes between them.
    pub fn data_runs(&self) -> Vec<Range<u64>> {
        self.runs(|_| true)
    }

    fn runs(&self, of: impl Fn(&Source) -> bool) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for (at, extent) in self.iter().filter(|(_, extent)| of(&extent.source)) {
            match runs.last_mut() {
                Some(last) if last.end == at => last.end += extent.len,
                _ => runs.push(at..at + extent.len),
            }
        }
        runs
    }

    /// Replaces what of `range` still lies just where `before` had it; later writes stay.
    /// `source` gives the new place of a byte offset, and how far it goes.
    pub fn replace_unchanged(
        &mut self,
        range: &Range<u64>,
        before: &Self,
        source: impl Fn(&Range<u64>) -> Source,
    ) {
        for (piece, old) in before.pieces(range) {
            for (now, present) in self.pieces(&piece) {
                let expected = old.part(now.start - piece.start, now.end - now.start);
                if present == expected {
                    let new = source(&now);
                    self.put(now.start, now.end - now.start, new);
                }
            }
        }
    }

    fn add(&mut self, at: u64, extent: Extent) {
        self.stored += extent.len;
        match &extent.source {
            Source::Staged { .. } => self.staged += extent.len,
            Source::Bytes(_) => self.inline += extent.len,
            Source::Chunk { .. } => {}
        }
        self.map.insert(at, extent);
    }

    fn take(&mut self, at: u64) -> Extent {
        let old = self.map.remove(&at).expect("it was just found");
        self.stored -= old.len;
        match &old.source {
            Source::Staged { .. } => self.staged -= old.len,
            Source::Bytes(_) => self.inline -= old.len,
            Source::Chunk { .. } => {}
        }
        old
    }
}

impl<C> Encode<C> for Extents {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(self.map.len() as u64)?;
        for (at, extent) in &self.map {
            e.array(3)?.u64(*at)?.u64(extent.len)?;
            extent.source.encode(e, ctx)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Extents {
    fn decode(d: &mut minicbor::Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        let count = d.array()?.ok_or_else(|| minicbor::decode::Error::message("no length"))?;
        let mut extents = Self::default();
        for _ in 0..count {
            if d.array()? != Some(3) {
                return Err(minicbor::decode::Error::message("not an extent"));
            }
            let (at, len) = (d.u64()?, d.u64()?);
            extents.put(at, len, Source::decode(d, ctx)?);
        }
        Ok(extents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn staged(n: u64, len: u64) -> Source {
        Source::Staged { place: Place { segment: 1, at: n, len: len as u32 }, skip: 0 }
    }

    /// The slow obvious twin: for every byte of the file, which write put it there and where in it.
    type Twin = Vec<Option<(u64, u64)>>;

    fn read(extents: &Extents, size: u64) -> Twin {
        let mut twin = vec![None; size as usize];
        for (range, source) in extents.pieces(&(0..size)) {
            let Source::Staged { place, skip } = source else { panic!("only staged here") };
            for (n, byte) in range.enumerate() {
                twin[byte as usize] = Some((place.at, u64::from(skip) + n as u64));
            }
        }
        twin
    }

    proptest! {
        #[test]
        fn stretches_are_what_was_written_last(
            ops in prop::collection::vec((0_u64..64, 1_u64..32, any::<bool>()), 1..40)
        ) {
            let mut extents = Extents::default();
            let mut twin: Twin = vec![None; 96];
            for (n, (at, len, write)) in ops.into_iter().enumerate() {
                for (skip, byte) in (at..at + len).enumerate() {
                    twin[byte as usize] = write.then_some((n as u64, skip as u64));
                }
                match write {
                    true => extents.put(at, len, staged(n as u64, len)),
                    false => extents.cut(at..at + len),
                }
                prop_assert_eq!(&read(&extents, 96), &twin);
                let stored = twin.iter().flatten().count() as u64;
                prop_assert_eq!((extents.stored(), extents.staged()), (stored, stored));
            }
            for at in 0..96 {
                let data = (at..96).find(|n| twin[*n as usize].is_some());
                prop_assert_eq!(extents.next_data(at), data);
                let hole = (at..96).find(|n| twin[*n as usize].is_none()).unwrap_or(96);
                prop_assert_eq!(extents.next_hole(at), hole);
            }
            let bytes = minicbor::to_vec(&extents).unwrap();
            prop_assert_eq!(minicbor::decode::<Extents>(&bytes).unwrap(), extents);
        }
    }

    #[test]
    fn neighbours_in_one_chunk_are_one_stretch() {
        let mut extents = Extents::default();
        let place = ChunkPlace { layer: LayerNumber(5), number: 3 };
        for at in [20, 0, 30, 10] {
            extents.put(at, 10, Source::chunk(place, at as u32));
        }
        assert_eq!(extents.pieces(&(0..40)), [(0..40, Source::chunk(place, 0))]);
        extents.put(40, 10, Source::chunk(place, 0));
        assert_eq!(extents.count(), 2, "the same chunk from its beginning is another stretch");
    }

    #[test]
    fn sealing_replaces_only_what_was_not_written_meanwhile() {
        let mut extents = Extents::default();
        extents.put(0, 100, staged(1, 100));
        let before = extents.clone();
        extents.put(40, 20, staged(2, 20));
        let place = ChunkPlace { layer: LayerNumber(5), number: 3 };
        extents.replace_unchanged(&(0..100), &before, |r| Source::chunk(place, r.start as u32));
        assert_eq!(extents.unsealed_runs(), [40..60]);
        let pieces = extents.pieces(&(0..100));
        assert_eq!(pieces[0], (0..40, Source::chunk(place, 0)));
        assert_eq!(pieces[2], (60..100, Source::chunk(place, 60)));
    }
}
