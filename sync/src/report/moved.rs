//! What moved, or would: reports of `sync`, `evict`, `fetch`, `pin`, and progress on the way.

use serde::{Deserialize, Serialize};

use super::path::DrivePath;

/// `sync`, `push`, `pull`: what moved.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SyncReport {
    /// Bytes of layers sent, counted once per remote.
    pub pushed_bytes: u64,
    /// Layers sent, counted once per remote.
    pub pushed_layers: u64,
    /// Commits sent, counted once per remote.
    pub pushed_commits: u64,
    /// Bytes of commits and content received.
    pub pulled_bytes: u64,
    /// Commits of other devices received.
    pub pulled_commits: u64,
    /// Files that could not be sealed, since their bytes in the journal are damaged.
    pub unread_files: u64,
    /// Every remote that was tried.
    pub remotes: Vec<RemoteOutcome>,
    /// Whether this device and every reachable remote agree now.
    pub agreed: bool,
    /// How long it took.
    pub elapsed_ms: u64,
}

/// How one remote fared in a sync.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RemoteOutcome {
    /// Its local name.
    pub name: String,
    /// Whether it answered.
    pub reached: bool,
    /// Whether it holds all that this device has, and this device all its commits.
    pub agreed: bool,
    /// What went wrong, in words.
    pub error: Option<String>,
}

/// `evict`: what was dropped locally and what was not.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EvictReport {
    /// Whether this says what would be done.
    pub dry_run: bool,
    /// Bytes dropped.
    pub evicted_bytes: u64,
    /// Layers of which something was dropped.
    pub evicted_layers: u64,
    /// Bytes that were asked for and kept.
    pub kept_bytes: u64,
    /// Everything that was asked for and kept, with the reason.
    pub kept: Vec<Kept>,
    /// Fresh challenges answered on the way.
    pub challenges: u64,
}

/// Something that was not evicted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The file, where one is known.
    pub path: Option<DrivePath>,
    /// The layer's id, where it is in one.
    pub layer: Option<String>,
    /// How many bytes.
    pub bytes: u64,
    /// Why.
    pub reason: KeptReason,
    /// The reason with names: which remote, which challenge.
    pub detail: String,
}

/// Why something stays on this computer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptReason {
    /// Not sealed yet.
    Dirty,
    /// Remotes do not hold it as the policy asks.
    #[default]
    NotPushed,
    /// A remote that holds it is unreachable or did not answer a fresh challenge rightly.
    NotProven,
    /// It is pinned, or shares a layer with something pinned.
    Pinned,
}

/// `fetch`: what was brought.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FetchReport {
    /// Files looked at.
    pub files: u64,
    /// Bytes of layers brought from remotes; 0 when all was here.
    pub fetched_bytes: u64,
    /// How long it took.
    pub elapsed_ms: u64,
}

/// `pin`, `unpin`: the pins after it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PinReport {
    /// Every pinned path.
    pub pinned: Vec<DrivePath>,
    /// Bytes below them.
    pub bytes: u64,
}

/// How far some work has come; totals grow as more is found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProgressEvent {
    /// What is being done.
    pub phase: Phase,
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes there are to do, as far as known; 0 when unknown.
    pub total_bytes: u64,
    /// Files, layers or challenges done.
    pub done_items: u64,
    /// How many of them there are, as far as known; 0 when unknown.
    pub total_items: u64,
}

/// The kinds of long work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Opening the drive: keys, journal replay.
    #[default]
    Open,
    /// Cutting and sealing; items are files.
    Seal,
    /// Sending; items are layers.
    Push,
    /// Receiving commits; items are commits.
    Pull,
    /// Challenging; items are challenges.
    Verify,
    /// Proving and dropping; items are layers.
    Evict,
    /// Bringing content; items are files.
    Fetch,
    /// Copying into or out of the drive; items are files.
    Copy,
    /// Checking; items are checks.
    Check,
}
