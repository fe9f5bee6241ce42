//! What the engine does next: decided here, purely, from what happened and what time it is.
//!
//! [`State`] maps (event, now) to [`Work`]; the engine carries it out and reports back. There is no
//! clock, no thread and no link here, so that a simulation can drive whole worlds through it.
//!
//! The order within one remote is fixed: layers before the commits that name them. Remotes do not
//! wait for each other. A remote that failed is tried again after a growing pause, which ends when it
//! answers anything. What the cache takes beyond its bounds is evicted, and a remote that lacks the audit which this needs is audited
//! at once; apart from that remotes are challenged at a steady rate.

mod budget;
mod pressure;
mod proving;
mod telling;

use std::collections::BTreeMap;
use std::time::Duration;

use rdrivefs_remote::env::Instant;

use crate::index::layers::RemoteNumber;
use crate::state::budget::Budget;
use crate::state::pressure::Pressure;
use crate::state::proving::Proving;
use crate::state::telling::Telling;

pub use crate::state::pressure::{Bounds, Surplus, Use};
pub use crate::state::proving::{Spot, Tally, Verdict};

/// First pause after a failure; doubled each time up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// Longest pause. It ends before its time when the remote is heard of again.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How often a remote is asked for news when it cannot tell by itself.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// How often dirty state in memory is written behind the journal.
const MAINTAIN_EVERY: Duration = Duration::from_millis(500);

/// The rest after sealing something, so that what follows at once comes into one layer; doubled
/// up to [`SEAL_REST_MAX`] while files keep coming.
const SEAL_REST: Duration = Duration::from_millis(250);
const SEAL_REST_MAX: Duration = Duration::from_secs(2);

/// Files keep coming as long as something was sealed within this.
const SEAL_BUSY: Duration = Duration::from_secs(4);

/// Something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Write what is dirty in memory into the index, and free the journal behind it.
    Maintain,
    /// Seal the files that are ripe.
    Seal,
    /// Send layers, then exchange entries with this remote.
    Sync(RemoteNumber),
    /// Drop what is used least and may go.
    Evict(Surplus),
    /// Audit this remote as an eviction demands.
    Audit(RemoteNumber),
    /// Send this remote so many random challenges.
    Challenge(RemoteNumber, u64),
    /// Write into the ledger that so many challenges in a row were answered rightly.
    Record(RemoteNumber, Tally),
}

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A remote was added, or came back.
    Remote(RemoteNumber),
    /// A remote is no longer the drive's.
    Gone(RemoteNumber),
    /// There are layers or records to send.
    Sealed,
    /// Not everything that is ripe could be sealed.
    SealFailed,
    /// A remote has entries this device does not.
    News(RemoteNumber),
    /// The work with a remote ended well.
    Synced(RemoteNumber),
    /// The work with a remote failed.
    Failed(RemoteNumber),
    /// A remote that had not answered did.
    Back(RemoteNumber),
    /// An eviction missed a fresh audit of this remote.
    Unaudited(RemoteNumber),
    /// An eviction ended.
    Evicted {
        /// Disk bytes it freed.
        bytes: u64,
        /// Whether it told what must stay.
        told: bool,
    },
    /// An audit ended.
    Audited(RemoteNumber, Verdict),
    /// Challenges were answered, or not.
    Challenged(RemoteNumber, Spot),
}

/// What a person has set, as far as it matters here; by default nothing is bounded or challenged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// What the cache may take.
    pub bounds: Bounds,
    /// Challenges a day over all remotes.
    pub challenges_per_day: u64,
    /// Challenges that make an audit.
    pub audit_samples: u64,
}

/// What the parts say when they are asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// Memory holds what the index does not.
    pub dirty: bool,
    /// Files are ripe to be sealed.
    pub ripe: bool,
    /// Grows with every change made here.
    pub changes: u64,
    /// What the cache takes.
    pub space: Use,
}

#[derive(Debug, Clone, Copy)]
struct Lane {
    busy: bool,
    wanted: bool,
    /// Not before this.
    due: Instant,
    pause: Duration,
    proving: Proving,
}

/// The engine's mind.
#[derive(Debug)]
pub struct State {
    lanes: BTreeMap<RemoteNumber, Lane>,
    maintained: Option<Instant>,
    /// When something was last sealed, and the rest after it.
    sealed: Option<(Instant, Duration)>,
    /// Nothing is sealed before this; and how long the pause is after a failure.
    seal_due: Option<(Instant, Duration)>,
    telling: Telling,
    pressure: Pressure,
    budget: Budget,
    audit_samples: u64,
    /// Audits that challenges have added up to.
    complete: Vec<(RemoteNumber, Tally)>,
}

impl State {
    /// A mind that knows no remote yet.
    pub fn new(rules: Rules) -> Self {
        Self {
            lanes: BTreeMap::new(),
            maintained: None,
            sealed: None,
            seal_due: None,
            telling: Telling::default(),
            pressure: Pressure::new(rules.bounds),
            budget: Budget::new(rules.challenges_per_day),
            audit_samples: rules.audit_samples,
            complete: Vec::new(),
        }
    }

    /// Takes note of what happened.
    pub fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Remote(remote) => {
                self.lanes.insert(remote, Lane::new(now));
            }
            Event::Gone(remote) => drop(self.lanes.remove(&remote)),
            Event::Sealed => {
                let busy = self.sealed.is_some_and(|(at, _)| now.since(at) < SEAL_BUSY);
                let rest = match self.sealed {
                    Some((_, rest)) if busy => (rest * 2).min(SEAL_REST_MAX),
                    _ => SEAL_REST,
                };
                self.sealed = Some((now, rest));
                self.seal_due = Some((later(now, rest), PAUSE_FIRST));
                self.telling.done();
                self.lanes.values_mut().for_each(|lane| lane.wanted = true);
            }
            Event::SealFailed => {
                let pause = self.seal_due.map_or(PAUSE_FIRST, |(_, next)| next);
                self.seal_due = Some((later(now, pause), (pause * 2).min(PAUSE_MAX)));
            }
            Event::News(remote) => self.lane(remote, |lane| lane.wanted = true),
            Event::Synced(remote) => self.lane(remote, |lane| {
                lane.busy = false;
                lane.pause = PAUSE_FIRST;
                lane.due = if lane.wanted { now } else { later(now, ASK_EVERY) };
            }),
            Event::Failed(remote) => self.lane(remote, |lane| {
                lane.busy = false;
                lane.wanted = true;
                lane.due = later(now, lane.pause);
                lane.pause = (lane.pause * 2).min(PAUSE_MAX);
            }),
            Event::Back(remote) => self.lane(remote, |lane| {
                lane.pause = PAUSE_FIRST;
                lane.due = lane.due.min(now);
            }),
            Event::Unaudited(remote) => self.lane(remote, |lane| lane.proving.want()),
            Event::Evicted { bytes, told } => self.pressure.evicted(bytes, told, now),
            Event::Audited(remote, verdict) => {
                self.lane(remote, |lane| lane.proving.audited(verdict, now));
                if verdict == Verdict::Clean {
                    self.pressure.eased();
                }
            }
            Event::Challenged(remote, spot) => self.challenged(remote, spot),
        }
    }

    /// What to do now, given what the parts say.
    pub fn next(&mut self, facts: Facts, now: Instant) -> Vec<Work> {
        let mut work = Vec::new();
        let rested = self.maintained.is_none_or(|at| now.since(at) >= MAINTAIN_EVERY);
        if facts.dirty && rested {
            self.maintained = Some(now);
            work.push(Work::Maintain);
        }
        let seal = facts.ripe && self.seal_due.is_none_or(|(due, _)| now >= due);
        if seal {
            work.push(Work::Seal);
        }
        // What is sealed now is told with the rest, unless that does not come to an end.
        let due = self.telling.is_due(facts.changes, now);
        if due && (!seal || self.telling.is_late(now)) {
            self.telling.done();
            self.lanes.values_mut().for_each(|lane| lane.wanted = true);
        }
        for (remote, lane) in &mut self.lanes {
            let failed_before = lane.pause > PAUSE_FIRST;
            let due = now >= lane.due || (lane.wanted && !failed_before);
            if !lane.busy && due {
                lane.busy = true;
                lane.wanted = false;
                work.push(Work::Sync(*remote));
            }
            if lane.proving.begin_audit(now) {
                work.push(Work::Audit(*remote));
            }
        }
        work.extend(self.pressure.next(facts.space, now).map(Work::Evict));
        work.extend(self.challenge(now));
        work.extend(self.complete.drain(..).map(|(remote, tally)| Work::Record(remote, tally)));
        work
    }

    /// Spends what is due of the budget on the remote that waited longest; one that is away or is
    /// being challenged is passed over.
    fn challenge(&mut self, now: Instant) -> Option<Work> {
        let count = self.budget.due(now)?;
        let idle = |lane: &Lane| !lane.proving.busy && lane.pause == PAUSE_FIRST;
        let lanes = self.lanes.iter_mut().filter(|(_, lane)| idle(lane));
        let (remote, lane) = lanes.min_by_key(|(_, lane)| lane.proving.challenged)?;
        lane.proving.busy = true;
        lane.proving.challenged = Some(now);
        self.budget.spend(now);
        Some(Work::Challenge(*remote, count))
    }

    fn challenged(&mut self, remote: RemoteNumber, spot: Spot) {
        let Some(lane) = self.lanes.get_mut(&remote) else { return };
        let tally = lane.proving.add(spot, self.audit_samples);
        self.complete.extend(tally.map(|tally| (remote, tally)));
    }

    fn lane(&mut self, remote: RemoteNumber, change: impl FnOnce(&mut Lane)) {
        if let Some(lane) = self.lanes.get_mut(&remote) {
            change(lane);
        }
    }
}

impl Lane {
    fn new(now: Instant) -> Self {
        let proving = Proving::default();
        Self { busy: false, wanted: true, due: now, pause: PAUSE_FIRST, proving }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new(Rules::default())
    }
}

fn later(now: Instant, by: Duration) -> Instant {
    Instant(now.0 + u64::try_from(by.as_nanos()).expect("pauses are short"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: RemoteNumber = RemoteNumber(1);
    const FRIEND: RemoteNumber = RemoteNumber(2);
    const QUIET: Facts = Facts { dirty: false, ripe: false, changes: 0, space: SPACE };
    const SPACE: Use = Use { cache_bytes: 0, disk_free_bytes: 0 };

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    fn two() -> State {
        let mut state = State::default();
        state.handle(Event::Remote(HOME), at(0));
        state.handle(Event::Remote(FRIEND), at(0));
        state
    }

    #[test]
    fn a_failing_remote_is_left_alone_longer_each_time_and_holds_up_nobody() {
        let mut state = two();
        assert_eq!(state.next(QUIET, at(0)), [Work::Sync(HOME), Work::Sync(FRIEND)]);
        state.handle(Event::Synced(HOME), at(1));
        state.handle(Event::Failed(FRIEND), at(1));
        state.handle(Event::Sealed, at(2));
        assert_eq!(state.next(QUIET, at(2)), [Work::Sync(HOME)]);
        assert_eq!(state.next(QUIET, at(1_000)), []);
        assert_eq!(state.next(QUIET, at(1_001)), [Work::Sync(FRIEND)]);
        state.handle(Event::Failed(FRIEND), at(1_001));
        assert_eq!(state.next(QUIET, at(3_000)), []);
        assert_eq!(state.next(QUIET, at(3_001)), [Work::Sync(FRIEND)]);
    }

    #[test]
    fn a_remote_that_answers_again_is_not_left_alone_any_longer() {
        let mut state = two();
        for round in 0..6 {
            state.next(QUIET, at(100_000 * round));
            state.handle(Event::Failed(HOME), at(100_000 * round));
            state.handle(Event::Synced(FRIEND), at(100_000 * round));
        }
        assert_eq!(state.next(QUIET, at(500_001)), []);
        state.handle(Event::Back(HOME), at(500_002));
        assert_eq!(state.next(QUIET, at(500_002)), [Work::Sync(HOME)]);
        state.handle(Event::Failed(HOME), at(500_003));
        assert_eq!(state.next(QUIET, at(501_003)), [Work::Sync(HOME)], "the pauses begin anew");
    }

    #[test]
    fn what_comes_up_during_a_sync_is_done_after_it() {
        let mut state = two();
        state.next(QUIET, at(0));
        state.handle(Event::News(HOME), at(1));
        assert_eq!(state.next(QUIET, at(2)), []);
        state.handle(Event::Synced(HOME), at(3));
        assert_eq!(state.next(QUIET, at(3)), [Work::Sync(HOME)]);
        state.handle(Event::Synced(HOME), at(4));
        assert_eq!(state.next(QUIET, at(29_999)), []);
        assert_eq!(state.next(QUIET, at(30_004)), [Work::Sync(HOME)]);
    }

    #[test]
    fn memory_is_written_behind_at_a_steady_pace() {
        let mut state = State::default();
        let facts = Facts { dirty: true, ripe: true, ..QUIET };
        assert_eq!(state.next(facts, at(0)), [Work::Maintain, Work::Seal]);
        assert_eq!(state.next(facts, at(499)), [Work::Seal]);
        assert_eq!(state.next(facts, at(500)), [Work::Maintain, Work::Seal]);
    }

    #[test]
    fn sealing_that_failed_rests_longer_each_time() {
        let mut state = State::default();
        let facts = Facts { ripe: true, ..QUIET };
        assert_eq!(state.next(facts, at(0)), [Work::Seal]);
        state.handle(Event::SealFailed, at(0));
        assert_eq!(state.next(facts, at(999)), []);
        assert_eq!(state.next(facts, at(1_000)), [Work::Seal]);
        state.handle(Event::SealFailed, at(1_000));
        assert_eq!(state.next(facts, at(2_999)), []);
        assert_eq!(state.next(facts, at(3_000)), [Work::Seal]);
        state.handle(Event::Sealed, at(3_000));
        assert_eq!(state.next(facts, at(3_250)), [Work::Seal]);
    }

    #[test]
    fn many_files_in_a_row_come_into_few_layers() {
        let mut state = State::default();
        let facts = Facts { ripe: true, ..QUIET };
        let mut rounds = 0;
        for ms in (0..20_000).step_by(10) {
            if state.next(facts, at(ms)) == [Work::Seal] {
                rounds += 1;
                state.handle(Event::Sealed, at(ms));
            }
        }
        assert!(rounds <= 14, "{rounds} rounds in 20 s");
        assert_eq!(state.next(facts, at(30_000)), [Work::Seal]);
        state.handle(Event::Sealed, at(30_000));
        assert_eq!(state.next(facts, at(30_250)), [Work::Seal], "alone it is quick again");
    }

    #[test]
    fn a_removed_remote_is_forgotten() {
        let mut state = two();
        state.handle(Event::Gone(HOME), at(0));
        assert_eq!(state.next(QUIET, at(0)), [Work::Sync(FRIEND)]);
        state.handle(Event::Synced(HOME), at(1));
        assert_eq!(state.next(QUIET, at(1)), []);
    }

    #[test]
    fn a_cache_that_is_too_large_gets_the_audit_it_lacks_at_once() {
        let bounds = Bounds { cache_bytes_max: 1_000, disk_reserve_bytes: 0 };
        let mut state = State::new(Rules { bounds, ..Rules::default() });
        state.handle(Event::Remote(HOME), at(0));
        let space = Use { cache_bytes: 1_100, ..SPACE };
        let full = Facts { space, ..QUIET };
        let surplus = Surplus { bytes: 200, tell: false };
        assert_eq!(state.next(full, at(0)), [Work::Sync(HOME), Work::Evict(surplus)]);
        state.handle(Event::Unaudited(HOME), at(1));
        state.handle(Event::Evicted { bytes: 0, told: false }, at(1));
        assert_eq!(state.next(full, at(1)), [Work::Audit(HOME)]);
        assert_eq!(state.next(full, at(2)), []);
        state.handle(Event::Audited(HOME, Verdict::Clean), at(60));
        assert_eq!(state.next(full, at(60)), [Work::Evict(surplus)]);
    }

    #[test]
    fn the_days_challenges_go_round_and_become_an_audit() {
        let rules = Rules { challenges_per_day: 144_000, audit_samples: 250, ..Rules::default() };
        let mut state = State::new(rules);
        state.handle(Event::Remote(HOME), at(0));
        state.handle(Event::Remote(FRIEND), at(0));
        let mut asked = Vec::new();
        let mut recorded = Vec::new();
        for ms in (0..500_000).step_by(100) {
            for work in state.next(QUIET, at(ms)) {
                match work {
                    Work::Challenge(remote, count) => {
                        asked.push(remote);
                        let at = rdrivefs_remote::env::WallMs(ms);
                        let spot = Spot { at, samples: count, failures: 0, bytes: 1 };
                        state.handle(Event::Challenged(remote, spot), Instant(0));
                    }
                    Work::Record(remote, tally) => recorded.push((remote, tally.samples)),
                    _ => {}
                }
            }
        }
        assert_eq!(asked[..4], [HOME, FRIEND, HOME, FRIEND]);
        assert_eq!(recorded[..2], [(HOME, 256), (FRIEND, 256)]);
        state.handle(Event::Failed(HOME), at(500_000));
        let mut next = (500_000..600_000).flat_map(|ms| state.next(QUIET, at(ms)));
        let next = next.find(|work| matches!(work, Work::Challenge(..)));
        assert!(matches!(next, Some(Work::Challenge(FRIEND, _))), "a remote that is away waits");
    }
}
