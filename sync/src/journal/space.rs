//! Room on the disk: what the journal stands on, and the reserve it keeps for those who make room.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, MutexGuard};

use crate::error::{Error, Posix, Result};

use super::disk::Disk;

/// Space that only deletes, seals and checkpoints may use: it must suffice to make more.
pub const RESERVE_BYTES_MIN: u64 = 32 << 20;

/// How often the disk is asked how much is free: once per so many bytes.
const GRANT_BYTES: u64 = 4 << 20;

/// The journal's sizes and bounds.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A log segment is followed by the next when it would grow past this.
    pub log_segment_bytes: u64,
    /// As much for data segments: what is freed at once.
    pub data_segment_bytes: u64,
    /// Zeros are written ahead of the log in steps of this, so that a sync changes no metadata.
    pub ahead_bytes: u64,
    /// Space left to deletes, seals and checkpoints, beside [`RESERVE_BYTES_MIN`].
    pub reserve_bytes: u64,
    /// Sealed bytes not yet durable that are kept in memory, in case a sync fails.
    pub held_bytes_max: u64,
    /// The log is synced when so much of it is not yet durable.
    pub unsynced_bytes_max: u64,
    /// Streams share a data segment until they have staged this much.
    pub shared_bytes_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            log_segment_bytes: 32 << 20,
            data_segment_bytes: 64 << 20,
            ahead_bytes: 1 << 20,
            reserve_bytes: 0,
            held_bytes_max: 32 << 20,
            unsynced_bytes_max: 16 << 20,
            shared_bytes_max: 4 << 20,
        }
    }
}

/// What all segments stand on.
pub(super) struct Ground {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) settings: Settings,
    /// Sealed bytes held in memory by all segments together.
    pub(super) held_bytes: AtomicU64,
    /// What may be written before the disk is asked again.
    allowance_bytes: Mutex<u64>,
}

impl Ground {
    pub(super) fn new(disk: Arc<dyn Disk>, settings: Settings) -> Self {
        let (held_bytes, allowance_bytes) = (AtomicU64::new(0), Mutex::new(0));
        Self { disk, settings, held_bytes, allowance_bytes }
    }

    /// Asks for room for `bytes` more outside the reserve.
    ///
    /// # Errors
    /// [`Posix::NoSpace`] while there is still room for those who may use the reserve.
    pub(super) fn take(&self, bytes: u64) -> Result<()> {
        let mut allowance = lock(&self.allowance_bytes);
        if *allowance < bytes {
            *allowance = self.usable()?.min(GRANT_BYTES.max(bytes));
        }
        *allowance = allowance.checked_sub(bytes).ok_or(Posix::NoSpace)?;
        Ok(())
    }

    /// What is free outside the reserve.
    pub(super) fn usable(&self) -> Result<u64> {
        let free = self.disk.free_space().map_err(io_error("the journal's free space"))?;
        Ok(free.saturating_sub(RESERVE_BYTES_MIN + self.settings.reserve_bytes))
    }
}

/// Wraps an I/O error; a full disk or quota is the caller's `ENOSPC`, not a fault of the journal.
pub(super) fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Posix::NoSpace.into(),
        _ => Error::Io { what, source },
    }
}

/// Takes a lock. A panic while one was held has left the journal in an unknown state, and only a
/// restart, which replays it, is right.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread may panic while it changes the journal")
}
