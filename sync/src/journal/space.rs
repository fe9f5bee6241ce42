//! Room on the disk: what the journal stands on, and the reserve it keeps for those who make room.
//!
//! The reserve is what common writers leave free. A part of it is held by a file of its own, the
//! ballast, because others fill disks too: at zero bytes free the ballast gives way, so that
//! deletes, syncs and the next start still find room. It is filled again when there is space.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::error::{Error, Posix, Result};

use super::disk::{Disk, DiskFile};

/// Space that only deletes, seals and checkpoints may use: it must suffice to make more. It has
/// room for a layer, for the index's own log, and for as much again.
pub const RESERVE_BYTES_MIN: u64 = 64 << 20;

/// How often the disk is asked how much is free: once per so many bytes. Also by how much the
/// ballast gives way at a time.
const GRANT_BYTES: u64 = 4 << 20;
/// The file that holds room.
const BALLAST: &str = "reserve";

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
    /// How much of the reserve a file holds against other users of the disk.
    pub ballast_bytes: u64,
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
            ballast_bytes: RESERVE_BYTES_MIN,
            held_bytes_max: 16 << 20,
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
    /// Files opened again for reading since all were closed.
    pub(super) opened_files: AtomicUsize,
    /// What may be written before the disk is asked again. Taken before the ballast's lock.
    allowance_bytes: Mutex<u64>,
    ballast: Mutex<Ballast>,
}

struct Ballast {
    file: Option<Arc<dyn DiskFile>>,
    bytes: u64,
}

impl Ground {
    /// Finds the ballast of an earlier run.
    pub(super) fn new(disk: Arc<dyn Disk>, settings: Settings) -> Result<Self> {
        let file = match disk.open(BALLAST) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io(BALLAST)(error)),
        };
        let bytes = file.as_ref().map_or(Ok(0), |file| file.len()).map_err(Error::io(BALLAST))?;
        Ok(Self {
            disk,
            settings,
            held_bytes: AtomicU64::new(0),
            opened_files: AtomicUsize::new(0),
            allowance_bytes: Mutex::new(0),
            ballast: Mutex::new(Ballast { file, bytes }),
        })
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
        let ballast = lock(&self.ballast).bytes;
        let free = self.disk.free_space().map_err(Error::io("the journal's free space"))?;
        let reserve = RESERVE_BYTES_MIN + self.settings.reserve_bytes;
        Ok(free.saturating_sub(reserve.saturating_sub(ballast)))
    }

    /// Does what may use the reserve; as long as it meets a full disk, the ballast gives way.
    pub(super) fn with_reserve<T>(&self, mut act: impl FnMut() -> Result<T>) -> Result<T> {
        loop {
            match act() {
                Err(Error::Posix(Posix::NoSpace)) if self.give_way() => {}
                done => return done,
            }
        }
    }

    /// Lets go of as much of the ballast as it takes for `bytes` to be free, if `keep` are left
    /// then, free or in the ballast.
    ///
    /// # Errors
    /// [`Posix::NoSpace`] when that is not so.
    pub(super) fn ensure_free(&self, bytes: u64, keep: u64) -> Result<()> {
        let free = || self.disk.free_space().map_err(Error::io("the journal's free space"));
        if free()? + lock(&self.ballast).bytes < bytes + keep {
            return Err(Posix::NoSpace.into());
        }
        while free()? < bytes && self.give_way() {}
        Ok(())
    }

    /// Lets go of a part of the ballast; whether there was one.
    fn give_way(&self) -> bool {
        let mut ballast = lock(&self.ballast);
        let less = ballast.bytes.saturating_sub(GRANT_BYTES);
        let Some(file) = ballast.file.as_ref().filter(|_| ballast.bytes > 0) else { return false };
        if let Err(error) = file.allocate(less) {
            tracing::warn!(%error, "the reserve does not give way");
            return false;
        }
        ballast.bytes = less;
        true
    }

    /// Makes the ballast whole again if there is space. Without it the reserve is only as good as
    /// the other users of the disk, which is no reason to refuse to work.
    pub(super) fn refill(&self) {
        let usable = self.usable().unwrap_or(0);
        let mut ballast = lock(&self.ballast);
        let most = self.settings.ballast_bytes;
        if usable == 0 || ballast.bytes >= most {
            return;
        }
        let file = ballast.file.take().map_or_else(|| self.disk.create(BALLAST), Ok);
        let filled = file.and_then(|file| {
            let filled = file.allocate(most);
            if filled.is_err() {
                file.allocate(ballast.bytes)?;
            }
            ballast.file = Some(file);
            filled
        });
        match filled {
            Ok(()) => ballast.bytes = most,
            Err(error) => tracing::warn!(%error, "there is no reserve for a full disk"),
        }
    }
}

/// Takes a lock. A panic while one was held has left the journal in an unknown state, and only a
/// restart, which replays it, is right.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread may panic while it changes the journal")
}
