//! The blocks opened last, so that a run of small reads opens each block once.

use std::collections::VecDeque;
use std::sync::Arc;

use super::place::Place;

/// How many blocks are kept: 2 MiB at most, enough for a few readers at once.
const BLOCKS_MAX: usize = 32;

/// The blocks opened last, the newest in front.
#[derive(Default)]
pub(super) struct Cache(VecDeque<(Place, Arc<Vec<u8>>)>);

impl Cache {
    pub(super) fn get(&mut self, place: Place) -> Option<Arc<Vec<u8>>> {
        let index = self.0.iter().position(|(other, _)| *other == place)?;
        if index > 0 {
            let found = self.0.remove(index)?;
            self.0.push_front(found);
        }
        self.0.front().map(|(_, plain)| plain.clone())
    }

    pub(super) fn put(&mut self, place: Place, plain: Arc<Vec<u8>>) {
        self.0.truncate(BLOCKS_MAX - 1);
        self.0.push_front((place, plain));
    }

    /// Forgets a segment that is gone.
    pub(super) fn forget(&mut self, segment: u32) {
        self.0.retain(|(place, _)| place.segment != segment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_used_goes_first_and_segments_are_forgotten() {
        let place = |at| Place { segment: u32::from(at >= 100), at, len: 1 };
        let mut cache = Cache::default();
        for at in 0..BLOCKS_MAX as u64 {
            cache.put(place(at), Arc::new(vec![at as u8]));
        }
        assert_eq!(cache.get(place(0)).unwrap()[0], 0);
        cache.put(place(100), Arc::new(vec![100]));
        assert!(cache.get(place(0)).is_some());
        assert!(cache.get(place(1)).is_none());
        cache.forget(0);
        assert!(cache.get(place(0)).is_none());
        assert!(cache.get(place(100)).is_some());
    }
}
