//! Which inodes are open for writing, that is, may have dirty pages in the kernel.
//!
//! The kernel writes dirty pages back when a file is closed, and again before it releases it, so an
//! inode without a writable handle has none.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdrivefs_sync::id::Ino;

#[derive(Default)]
pub(super) struct Writers(Mutex<HashMap<Ino, u32>>);

impl Writers {
    pub(super) fn opened(&self, ino: Ino) {
        *self.lock().entry(ino).or_default() += 1;
    }

    pub(super) fn closed(&self, ino: Ino) {
        let mut writers = self.lock();
        if let Some(count) = writers.get_mut(&ino) {
            *count -= 1;
            if *count == 0 {
                writers.remove(&ino);
            }
        }
    }

    /// Whether nothing at all is open for writing.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    pub(super) fn has(&self, ino: Ino) -> bool {
        self.lock().contains_key(&ino)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ino, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_close_counts() {
        let writers = Writers::default();
        writers.opened(Ino(2));
        writers.opened(Ino(2));
        writers.closed(Ino(2));
        assert!(writers.has(Ino(2)));
        writers.closed(Ino(2));
        assert!(!writers.has(Ino(2)) && writers.is_empty());
    }
}
