//! What the engine does next: decided here, purely, from what happened and what time it is.
//!
//! [`State`] maps (event, now) to [`Work`]; the engine carries it out and reports back. There is no
//! clock, no thread and no link here, so that a simulation can drive whole worlds through it.
//!
//! The order within one remote is fixed: layers before the commits that name them. Remotes do not
//! wait for each other. A remote that failed is tried again after a growing pause.

use std::collections::BTreeMap;
use std::time::Duration;

use rdrivefs_remote::env::Instant;

use crate::index::layers::RemoteNumber;

/// First pause after a failure; doubled each time up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// Longest pause: a node that comes back is noticed within it.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How often a remote is asked for news when it cannot tell by itself.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// How often dirty state in memory is written behind the journal.
const MAINTAIN_EVERY: Duration = Duration::from_millis(500);

/// Something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Write what is dirty in memory into the index, and free the journal behind it.
    Maintain,
    /// Seal the files that are ripe.
    Seal,
    /// Send layers, then exchange entries with this remote.
    Sync(RemoteNumber),
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
    /// A remote has entries this device does not.
    News(RemoteNumber),
    /// The work with a remote ended well.
    Synced(RemoteNumber),
    /// The work with a remote failed.
    Failed(RemoteNumber),
}

/// What the parts say when they are asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// Memory holds what the index does not.
    pub dirty: bool,
    /// Files are ripe to be sealed.
    pub ripe: bool,
}

#[derive(Debug, Clone, Copy)]
struct Lane {
    busy: bool,
    wanted: bool,
    /// Not before this.
    due: Instant,
    pause: Duration,
}

/// The engine's mind.
#[derive(Debug, Default)]
pub struct State {
    lanes: BTreeMap<RemoteNumber, Lane>,
    maintained: Option<Instant>,
}

impl State {
    /// Takes note of what happened.
    pub fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Remote(remote) => {
                let lane = Lane { busy: false, wanted: true, due: now, pause: PAUSE_FIRST };
                self.lanes.insert(remote, lane);
            }
            Event::Gone(remote) => drop(self.lanes.remove(&remote)),
            Event::Sealed => self.lanes.values_mut().for_each(|lane| lane.wanted = true),
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
        if facts.ripe {
            work.push(Work::Seal);
        }
        for (remote, lane) in &mut self.lanes {
            let failed_before = lane.pause > PAUSE_FIRST;
            let due = now >= lane.due || (lane.wanted && !failed_before);
            if !lane.busy && due {
                lane.busy = true;
                lane.wanted = false;
                work.push(Work::Sync(*remote));
            }
        }
        work
    }

    fn lane(&mut self, remote: RemoteNumber, change: impl FnOnce(&mut Lane)) {
        if let Some(lane) = self.lanes.get_mut(&remote) {
            change(lane);
        }
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
    const QUIET: Facts = Facts { dirty: false, ripe: false };

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
        let facts = Facts { dirty: true, ripe: true };
        assert_eq!(state.next(facts, at(0)), [Work::Maintain, Work::Seal]);
        assert_eq!(state.next(facts, at(499)), [Work::Seal]);
        assert_eq!(state.next(facts, at(500)), [Work::Maintain, Work::Seal]);
    }

    #[test]
    fn a_removed_remote_is_forgotten() {
        let mut state = two();
        state.handle(Event::Gone(HOME), at(0));
        assert_eq!(state.next(QUIET, at(0)), [Work::Sync(FRIEND)]);
        state.handle(Event::Synced(HOME), at(1));
        assert_eq!(state.next(QUIET, at(1)), []);
    }
}
