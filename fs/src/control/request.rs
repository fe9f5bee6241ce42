//! The words between a command and the process that has the drive open.

use rdrivefs_sync::pairing::PairingCode;
use rdrivefs_sync::report::{DrivePath, Keep, VerifyPlan};
use serde::{Deserialize, Serialize};

/// Which halves of a sync are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Half {
    /// Both.
    Sync,
    /// Sending.
    Push,
    /// Receiving.
    Pull,
}

/// Which version of a file is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// The one before the present one.
    Before,
    /// The one with this id.
    Id(String),
    /// The one that was there at this moment.
    AtMs(u64),
}

/// What a command asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The drive as a whole.
    Status,
    /// Where the files below a path stand.
    StatusOf {
        /// The path.
        path: DrivePath,
    },
    /// Push, pull or both.
    Sync {
        /// Which.
        half: Half,
        /// How long at most.
        timeout_ms: Option<u64>,
    },
    /// Challenge remotes, or check the cache.
    Verify {
        /// How.
        plan: VerifyPlan,
    },
    /// Drop local copies.
    Evict {
        /// Below these paths; none for the oldest of all.
        paths: Vec<DrivePath>,
        /// Until so many bytes are free.
        free_bytes: Option<u64>,
        /// Only say what would be.
        dry_run: bool,
    },
    /// Bring what lies below these paths.
    Fetch {
        /// The paths.
        paths: Vec<DrivePath>,
    },
    /// Keep what lies below these paths here always, or no longer.
    Pin {
        /// The paths.
        paths: Vec<DrivePath>,
        /// Keep, or no longer.
        pinned: bool,
    },
    /// The layers of a file, or all.
    Layers {
        /// The file.
        path: Option<DrivePath>,
    },
    /// The signed log.
    Log {
        /// Of this device alone.
        device: Option<String>,
    },
    /// Whose keys these are.
    KeyShow,
    /// Begin an epoch.
    KeyRotate,
    /// Take a device out of the drive.
    DeviceRevoke {
        /// Its number, name, key, or the beginning of its fingerprint.
        device: String,
    },
    /// Check everything.
    Doctor {
        /// And mend what can safely be mended.
        repair: bool,
    },
    /// Add a remote.
    RemoteAdd {
        /// Its name.
        name: String,
        /// Its URL.
        url: String,
    },
    /// All remotes.
    RemoteList,
    /// Forget a remote.
    RemoteRemove {
        /// Its name.
        name: String,
    },
    /// Accept a remote's new key.
    RemoteTrust {
        /// Its name.
        name: String,
        /// The key, or its fingerprint, as its keeper told it.
        key: String,
    },
    /// All devices.
    DeviceList,
    /// Call this device so.
    DeviceName {
        /// The name.
        name: String,
    },
    /// Draw a code for a device that is to join.
    PairOpen {
        /// The remote to meet at; the first that answers without one.
        remote: Option<String>,
        /// How long the code is good for.
        lifetime_ms: Option<u64>,
    },
    /// Wait for the device that comes with a code.
    PairWait {
        /// The remote it comes to.
        remote: String,
        /// The code.
        code: PairingCode,
        /// How long at most.
        timeout_ms: u64,
    },
    /// Let the device that came in, or not.
    PairAnswer {
        /// The remote it waits at.
        remote: String,
        /// The code.
        code: PairingCode,
        /// Its key, so that no other is answered.
        device: String,
        /// Whether it is let in.
        granted: bool,
    },
    /// What lies below a path.
    List {
        /// The path.
        path: DrivePath,
        /// How many levels.
        depth: Option<usize>,
    },
    /// The versions of a file.
    Versions {
        /// The file.
        path: DrivePath,
    },
    /// Let a file hold what it held.
    Restore {
        /// The file.
        path: DrivePath,
        /// When, or in which version.
        which: Which,
    },
    /// Take what is at a path back to what it was.
    Rewind {
        /// The path.
        path: DrivePath,
        /// When.
        to_ms: u64,
    },
    /// Have back what was removed.
    Undelete {
        /// From here.
        path: DrivePath,
    },
    /// What devices did not agree on.
    Conflicts,
    /// Settle what is in conflict.
    Resolve {
        /// At this path.
        path: DrivePath,
        /// What is to stay.
        keep: Keep,
    },
    /// What other devices changed.
    News {
        /// What the last answer said to ask for; none for the moment to begin from.
        from: Option<u64>,
        /// How long to wait for the first of it.
        wait_ms: u64,
    },
    /// Where the drive is mounted.
    MountPoint,
    /// Seal everything and send it to the remotes that answer.
    Settle,
    /// Make everything durable here, then unmount.
    Unmount,
}

impl Request {
    /// The paths of the drive it names.
    pub fn paths(&self) -> &[DrivePath] {
        match self {
            Self::StatusOf { path }
            | Self::List { path, .. }
            | Self::Resolve { path, .. }
            | Self::Versions { path }
            | Self::Restore { path, .. } => std::slice::from_ref(path),
            Self::Layers { path } => path.as_slice(),
            Self::Verify { plan } => plan.path.as_slice(),
            Self::Evict { paths, .. } | Self::Fetch { paths } | Self::Pin { paths, .. } => paths,
            _ => &[],
        }
    }
}
