//! Pressure: whether the cache takes more than it may, by how much, and how long to let it be after
//! trying in vain.

use std::time::Duration;

use rdrivefs_remote::env::Instant;

/// First pause after an eviction that freed nothing; doubled each time up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_secs(5);

/// Longest pause: what was pushed or proven meanwhile goes within it.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// Between two evictions in any case: looking for what is used least takes a while.
const REST: Duration = Duration::from_secs(1);

/// How often it is told that what is too much cannot go.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Eviction goes this share below its bound, so that it is not needed again at once.
const LOW_WATER_DIVISOR: u64 = 10;

/// What a person has set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Disk bytes the cache may take.
    pub cache_bytes_max: u64,
    /// Bytes that stay free on the cache's disk.
    pub disk_reserve_bytes: u64,
}

/// How it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Use {
    /// Disk bytes the cache takes.
    pub cache_bytes: u64,
    /// Bytes free on its disk.
    pub disk_free_bytes: u64,
}

/// What to drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surplus {
    /// Disk bytes to free.
    pub bytes: u64,
    /// Whether to tell what must stay; the engine says whether there was something to tell.
    pub tell: bool,
}

/// When to evict.
#[derive(Debug)]
pub(super) struct Pressure {
    bounds: Bounds,
    busy: bool,
    due: Option<Instant>,
    pause: Duration,
    told: Option<Instant>,
}

impl Bounds {
    /// How much to drop: nothing within the bounds, beyond them as much as leaves some room.
    fn surplus(&self, is: Use) -> u64 {
        let (max, reserve) = (self.cache_bytes_max, self.disk_reserve_bytes);
        let low = max - max / LOW_WATER_DIVISOR;
        let over = if is.cache_bytes > max { is.cache_bytes - low } else { 0 };
        let missing = reserve.saturating_sub(is.disk_free_bytes);
        let short = if missing > 0 { missing + reserve / LOW_WATER_DIVISOR } else { 0 };
        over.max(short).min(is.cache_bytes)
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self { cache_bytes_max: u64::MAX, disk_reserve_bytes: 0 }
    }
}

impl Pressure {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, busy: false, due: None, pause: PAUSE_FIRST, told: None }
    }

    /// What to drop now, if anything; it is under way then.
    pub(super) fn next(&mut self, is: Use, now: Instant) -> Option<Surplus> {
        let bytes = self.bounds.surplus(is);
        if bytes == 0 || self.busy || self.due.is_some_and(|due| now < due) {
            return None;
        }
        self.busy = true;
        // The first attempt may only lack an audit, which it asks for.
        let again = self.pause > PAUSE_FIRST;
        let tell = again && self.told.is_none_or(|told| now.since(told) >= TELL_EVERY);
        Some(Surplus { bytes, tell })
    }

    /// An eviction ended; `told` if it had something to tell, and did.
    pub(super) fn evicted(&mut self, freed_bytes: u64, told: bool, now: Instant) {
        self.busy = false;
        if told {
            self.told = Some(now);
        }
        if freed_bytes > 0 {
            self.pause = PAUSE_FIRST;
            self.due = Some(later(now, REST));
        } else {
            self.due = Some(later(now, self.pause));
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
    }

    /// More may go than before: no need to wait.
    pub(super) fn eased(&mut self) {
        self.due = None;
        self.pause = PAUSE_FIRST;
    }
}

fn later(now: Instant, by: Duration) -> Instant {
    Instant(now.0 + u64::try_from(by.as_nanos()).expect("pauses are short"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { cache_bytes_max: 1_000, disk_reserve_bytes: 100 };

    fn is(cache_bytes: u64, disk_free_bytes: u64) -> Use {
        Use { cache_bytes, disk_free_bytes }
    }

    fn at(secs: u64) -> Instant {
        Instant(secs * 1_000_000_000)
    }

    #[test]
    fn too_much_goes_down_to_the_low_water_and_no_further() {
        let cases = [
            (is(1_000, 100), 0, "at both bounds"),
            (is(1_001, 100), 101, "down to 900"),
            (is(500, 99), 11, "the disk is short, up to 110 free"),
            (is(1_500, 0), 600, "the larger of both"),
            (is(20, 0), 20, "no more than there is"),
            (is(0, 0), 0, "an empty cache"),
        ];
        for (is, surplus, why) in cases {
            assert_eq!(BOUNDS.surplus(is), surplus, "{why}");
        }
        assert_eq!(Bounds::default().surplus(is(u64::MAX, 0)), 0);
    }

    #[test]
    fn what_frees_nothing_is_tried_less_and_less_often() {
        let (mut pressure, full) = (Pressure::new(BOUNDS), is(2_000, 500));
        let mut tries = Vec::new();
        let mut tells = Vec::new();
        for second in 0..1_300 {
            if let Some(surplus) = pressure.next(full, at(second)) {
                assert_eq!(pressure.next(full, at(second)), None, "it is under way");
                tries.push(second);
                tells.extend(surplus.tell.then_some(second));
                pressure.evicted(0, surplus.tell, at(second));
            }
        }
        assert_eq!(tries, [0, 5, 15, 35, 75, 155, 315, 615, 915, 1_215]);
        assert_eq!(tells, [5, 75, 155, 315, 615, 915, 1_215], "once a minute at most");
        pressure.eased();
        assert!(pressure.next(full, at(1_301)).is_some(), "something may go now");
        pressure.evicted(50, false, at(1_301));
        assert_eq!(pressure.next(full, at(1_301)), None);
        assert!(pressure.next(full, at(1_302)).is_some(), "it goes on");
    }
}
