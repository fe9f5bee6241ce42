//! The disk under a directory: how much of it is free, and how much should stay so.

use std::path::Path;

use crate::error::{Error, Result};

/// The reserve is at most this part of a disk, so that a small one stays usable.
const RESERVE_DIVISOR: u64 = 10;

/// The bytes of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// All of them.
    pub total_bytes: u64,
    /// Those that anybody may still write.
    pub free_bytes: u64,
}

impl DiskSpace {
    /// Asks the system.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn under(dir: &Path) -> Result<Self> {
        let what = || format!("ask for free space under {}", dir.display());
        let disk = rustix::fs::statvfs(dir).map_err(|e| Error::io(what())(e.into()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Ok(Self { total_bytes: bytes(disk.f_blocks), free_bytes: bytes(disk.f_bavail) })
    }

    /// What stays free when a person asks for `reserve_bytes`.
    pub fn reserve(&self, reserve_bytes: u64) -> u64 {
        reserve_bytes.min(self.total_bytes / RESERVE_DIVISOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_leaves_a_small_disk_usable() {
        let disk = |mib: u64| DiskSpace { total_bytes: mib << 20, free_bytes: 0 };
        assert_eq!(disk(400).reserve(1 << 30), 40 << 20);
        assert_eq!(disk(100 << 10).reserve(1 << 30), 1 << 30);
        assert_eq!(disk(400).reserve(0), 0);
    }
}
