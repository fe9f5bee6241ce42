//! What is known of one remote's proofs: whether an audit is wanted, and how far a running one is.
//!
//! The background's challenges add up, in memory, until they are as many as an audit needs; then
//! they are one. A wrong answer ends the tally, since it went into the ledger by itself. A process
//! that ends loses its tally and no more.

use std::time::Duration;

use rdrivefs_remote::env::{Instant, WallMs};

/// The pause after an audit that failed: asking again until it passes by chance is no proof.
const FAILED_PAUSE: Duration = Duration::from_secs(3_600);

/// What some challenges showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// When, by this computer's clock.
    pub at: WallMs,
    /// Challenges answered, rightly or wrongly.
    pub samples: u64,
    /// Those answered wrongly.
    pub failures: u64,
    /// The bytes they were drawn from.
    pub bytes: u64,
}

/// Challenges answered rightly, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// When the first of them was: what they say is as old as that.
    pub since: WallMs,
    /// How many.
    pub samples: u64,
    /// The bytes the last of them were drawn from.
    pub bytes: u64,
}

/// How an audit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All answers were right, and enough came.
    Clean,
    /// An answer was wrong.
    Failed,
    /// Too few answers came.
    Silent,
}

/// The proofs of one remote.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Proving {
    /// It is being challenged now.
    pub(super) busy: bool,
    /// When it was last given a part of the budget.
    pub(super) challenged: Option<Instant>,
    wanted: bool,
    /// No whole audit before this.
    due: Option<Instant>,
    tally: Option<Tally>,
}

impl Proving {
    /// Something could be dropped if there were a fresh audit.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// Whether to audit it now; it is busy then.
    pub(super) fn begin_audit(&mut self, now: Instant) -> bool {
        let due = self.wanted && !self.busy && self.due.is_none_or(|due| now >= due);
        self.busy |= due;
        due
    }

    pub(super) fn audited(&mut self, verdict: Verdict, now: Instant) {
        let pause = FAILED_PAUSE.as_nanos() as u64;
        self.due = (verdict == Verdict::Failed).then_some(Instant(now.0 + pause));
        (self.busy, self.wanted) = (false, false);
    }

    /// Adds what some challenges showed; gives the audit that they complete, if they do.
    pub(super) fn add(&mut self, spot: Spot, samples: u64) -> Option<Tally> {
        self.busy = false;
        if spot.failures > 0 {
            self.tally = None;
            return None;
        }
        let empty = Tally { since: spot.at, samples: 0, bytes: 0 };
        let mut tally = self.tally.take().unwrap_or(empty);
        if spot.samples > 0 {
            tally = Tally { samples: tally.samples + spot.samples, bytes: spot.bytes, ..tally };
        }
        if tally.samples > 0 && tally.samples >= samples {
            return Some(tally);
        }
        self.tally = (tally.samples > 0).then_some(tally);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot(at: u64, samples: u64, failures: u64) -> Spot {
        Spot { at: WallMs(at), samples, failures, bytes: 1_000 }
    }

    #[test]
    fn challenges_add_up_to_an_audit_as_old_as_the_first() {
        let mut proving = Proving::default();
        assert_eq!(proving.add(spot(1, 0, 0), 30), None, "silence is nothing");
        assert_eq!(proving.add(spot(5, 13, 0), 30), None);
        assert_eq!(proving.add(spot(6, 13, 0), 30), None);
        let tally = Tally { since: WallMs(5), samples: 39, bytes: 1_000 };
        assert_eq!(proving.add(spot(9, 13, 0), 30), Some(tally));
        assert_eq!(proving.add(spot(10, 29, 0), 30), None, "the next begins at nothing");
        assert_eq!(proving.add(spot(11, 13, 1), 30), None, "a wrong answer ends it");
        assert_eq!(proving.add(spot(12, 29, 0), 30), None);
    }

    #[test]
    fn a_failed_audit_is_not_repeated_until_it_passes() {
        let (mut proving, now) = (Proving::default(), Instant(7));
        assert!(!proving.begin_audit(now), "nobody wants one");
        proving.want();
        assert!(proving.begin_audit(now));
        assert!(!proving.begin_audit(now), "it is under way");
        proving.audited(Verdict::Silent, now);
        proving.want();
        assert!(proving.begin_audit(now), "it may have come back");
        proving.audited(Verdict::Failed, now);
        proving.want();
        assert!(!proving.begin_audit(Instant(3_599_000_000_000)));
        assert!(proving.begin_audit(Instant(3_600_000_000_007)));
    }
}
