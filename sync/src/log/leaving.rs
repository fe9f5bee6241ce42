//! How much of a log of this device may leave.

use std::sync::atomic::{AtomicU64, Ordering};

use rdrivefs_remote::entry::LogId;

/// A log of this device, and the newest entry of it that is durable here.
pub(super) struct Leaving {
    pub(super) log: LogId,
    number: AtomicU64,
}

impl Leaving {
    pub(super) fn of(log: LogId) -> Self {
        Self { log, number: AtomicU64::new(0) }
    }

    pub(super) fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    pub(super) fn up_to(&self, number: u64) {
        self.number.fetch_max(number, Ordering::Relaxed);
    }
}
