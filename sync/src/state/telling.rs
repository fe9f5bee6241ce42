//! When what changed here is to be told, where no content that is yet to be sealed goes with it.

use std::time::Duration;

use rdrivefs_remote::env::Instant;

/// What changed is told once nothing has changed for this long, so that what belongs together goes
/// together; and at the latest after this, while changes keep coming.
const QUIET: Duration = Duration::from_millis(200);
const WAIT_MAX: Duration = Duration::from_secs(1);

/// What is known of changes that are not told.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// How many there are, and when the last came.
    seen: Option<(u64, Instant)>,
    /// When the first came that is not told.
    since: Option<Instant>,
}

impl Telling {
    /// Whether it is time, there being so many changes since the beginning.
    pub(super) fn is_due(&mut self, changes: u64, now: Instant) -> bool {
        match self.seen {
            Some((seen, _)) if seen == changes => {}
            // Whatever there was at the beginning is told to each remote when it comes.
            None => self.seen = Some((changes, now)),
            Some(_) => {
                self.seen = Some((changes, now));
                self.since.get_or_insert(now);
            }
        }
        let last = self.seen.map_or(now, |(_, last)| last);
        let waited = |since: Instant| now.since(since) >= WAIT_MAX;
        self.since.is_some_and(|since| now.since(last) >= QUIET || waited(since))
    }

    /// Whether it waited for longer than it should for what is being sealed.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.since(since) >= 2 * WAIT_MAX)
    }

    /// What changed until now is on its way.
    pub(super) fn done(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    #[test]
    fn a_change_is_told_when_it_is_quiet_and_once() {
        let mut telling = Telling::default();
        assert!(!telling.is_due(7, at(0)));
        assert!(!telling.is_due(7, at(5_000)), "what there was is not what changed");
        assert!(!telling.is_due(8, at(6_000)));
        assert!(!telling.is_due(9, at(6_100)));
        assert!(!telling.is_due(9, at(6_299)));
        assert!(telling.is_due(9, at(6_300)));
        assert!(telling.is_due(9, at(6_400)), "until it is done");
        telling.done();
        assert!(!telling.is_due(9, at(60_000)));
    }

    #[test]
    fn changes_without_end_are_told_meanwhile() {
        let mut telling = Telling::default();
        let mut told = 0;
        for ms in (0..10_000).step_by(50) {
            if telling.is_due(ms, at(ms)) {
                telling.done();
                told += 1;
            }
        }
        assert!((8..=10).contains(&told), "{told} times in 10 s");
    }
}
