//! The ledger of a space: bytes used, bytes reserved, bytes allowed, exact at every moment.
//!
//! Bytes are reserved before the first one is taken. A reservation becomes used bytes in one step,
//! or ends with what made it; so used and reserved together never pass the limit, whatever races,
//! and nothing that fits is refused because it was counted twice.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::error::{Error, Result};

/// What one drive uses and may use.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: u64,
    reserved: u64,
    limit: Option<u64>,
}

/// Bytes set aside until this is dropped or kept.
#[derive(Debug)]
pub(super) struct Reservation {
    ledger: Arc<Ledger>,
    bytes: u64,
}

impl Ledger {
    /// A ledger that begins with so many bytes used, and no limit.
    pub(super) fn new(used: u64) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { used, ..State::default() }) })
    }

    /// Sets bytes aside, or says that there are not so many.
    pub(super) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation> {
        let mut state = self.state();
        let used = state.used + state.reserved;
        match state.limit {
            Some(quota) if used.saturating_add(bytes) > quota => Err(Error::Quota { used, quota }),
            _ => {
                state.reserved += bytes;
                drop(state);
                Ok(Reservation { ledger: self.clone(), bytes })
            }
        }
    }

    /// Gives bytes back that were used.
    pub(super) fn give_back(&self, bytes: u64) {
        let mut state = self.state();
        state.used = state.used.saturating_sub(bytes);
    }

    pub(super) fn set_limit(&self, limit: Option<u64>) {
        self.state().limit = limit;
    }

    pub(super) fn limit(&self) -> Option<u64> {
        self.state().limit
    }

    pub(super) fn used(&self) -> u64 {
        self.state().used
    }

    pub(super) fn reserved(&self) -> u64 {
        self.state().reserved
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// What was reserved is used now.
    pub(super) fn keep(mut self) {
        let mut state = self.ledger.state();
        state.reserved -= self.bytes;
        state.used += self.bytes;
        drop(state);
        self.bytes = 0;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.ledger.state().reserved -= self.bytes;
    }
}

/// Turns: of all who work on one thing, one at a time.
#[derive(Debug)]
pub(super) struct Turns<K: Eq + Hash + Copy> {
    queues: Mutex<HashMap<K, Arc<tokio::sync::Mutex<()>>>>,
}

/// One's turn, until dropped.
pub(super) struct Turn<'t, K: Eq + Hash + Copy> {
    turns: &'t Turns<K>,
    key: K,
    held: Option<OwnedMutexGuard<()>>,
}

impl<K: Eq + Hash + Copy> Default for Turns<K> {
    fn default() -> Self {
        Self { queues: Mutex::default() }
    }
}

impl<K: Eq + Hash + Copy> Turns<K> {
    /// Waits for one's turn with `key`.
    pub(super) async fn take(&self, key: K) -> Turn<'_, K> {
        // Made first, so that a wait that is given up tidies up, too.
        let mut turn = Turn { turns: self, key, held: None };
        let queue = self.queues().entry(key).or_default().clone();
        turn.held = Some(queue.lock_owned().await);
        turn
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<K, Arc<tokio::sync::Mutex<()>>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Copy> Drop for Turn<'_, K> {
    fn drop(&mut self) {
        let mut queues = self.turns.queues();
        self.held = None;
        if queues.get(&self.key).is_some_and(|queue| Arc::strong_count(queue) == 1) {
            queues.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_end_or_are_kept_and_never_pass_the_limit() {
        let ledger = Ledger::new(10);
        ledger.set_limit(Some(100));
        let first = ledger.reserve(60).unwrap();
        assert!(matches!(ledger.reserve(31), Err(Error::Quota { used: 70, quota: 100 })));
        let second = ledger.reserve(30).unwrap();
        drop(second);
        first.keep();
        assert_eq!((ledger.used(), ledger.reserved()), (70, 0));
        assert!(ledger.reserve(u64::MAX).is_err());
        ledger.give_back(70);
        ledger.reserve(100).unwrap().keep();
        ledger.set_limit(Some(50));
        assert!(ledger.reserve(1).is_err(), "a limit may fall below what is used");
        ledger.set_limit(None);
        assert!(ledger.reserve(1 << 60).is_ok());
    }

    #[tokio::test]
    async fn turns_come_one_at_a_time_and_leave_nothing() {
        let turns = Turns::default();
        let first = turns.take(1).await;
        let wait = std::time::Duration::from_millis(10);
        assert!(tokio::time::timeout(wait, turns.take(1)).await.is_err());
        drop(turns.take(2).await);
        drop(first);
        drop(turns.take(1).await);
        assert!(turns.queues().is_empty());
    }
}
