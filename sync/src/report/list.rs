//! Lines of the listings: `ls`, `layers` and `log`.

use serde::{Deserialize, Serialize};

use super::path::DrivePath;

/// A line of `layers`: a stretch of a file in a layer, or, without a path, a layer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerUse {
    /// The layer's id, the BLAKE3 hash of its bytes.
    pub layer: String,
    /// Where in the file the stretch begins; `null` without a path.
    pub offset: Option<u64>,
    /// Plain bytes of the stretch; without a path, of all chunks in the layer.
    pub len: u64,
    /// The layer's own length.
    pub layer_bytes: u64,
    /// Bytes of the layer present here.
    pub cached_bytes: u64,
    /// The remotes that hold it.
    pub held: Vec<Holder>,
}

/// A remote that holds a layer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Holder {
    /// Its local name.
    pub remote: String,
    /// When it last proved this very layer.
    pub proven_ms: Option<u64>,
}

/// A line of `log`: one signed entry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// Which log: commits or membership.
    pub kind: LogKind,
    /// The author's public key.
    pub device: String,
    /// The author's name, empty when none was given.
    pub device_name: String,
    /// The author's instance.
    pub instance: u32,
    /// The entry's number in its log, from 1.
    pub number: u64,
    /// The entry's hash.
    pub hash: String,
    /// The hash of the entry before it; zeros at number 1.
    pub previous: String,
    /// The epoch it is sealed under.
    pub epoch: String,
    /// When it was made, by its author's clock.
    pub time_ms: Option<u64>,
    /// Its Lamport time; `null` for membership.
    pub lamport: Option<u64>,
    /// How many records or changes it carries.
    pub records: u64,
    /// Its length as signed and sent.
    pub bytes: u64,
}

/// Which log an entry is from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogKind {
    /// Who belongs to the drive.
    Membership,
    /// What changed in the tree.
    #[default]
    Commits,
}

/// An entry of `ls`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ListEntry {
    /// The path.
    pub path: DrivePath,
    /// What it is.
    pub kind: FileKind,
    /// Bytes, as `ls -l` shows them.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Modification time, seconds since the Unix epoch.
    pub mtime_secs: i64,
    /// Its nanoseconds.
    pub mtime_nanos: u32,
    /// Where a symlink points.
    pub target: Option<DrivePath>,
    /// How far its content has come; `null` for what has none.
    pub state: Option<FileState>,
}

/// How far a file's content has come, and where it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    /// The least of its bytes: dirty before sealed before pushed before proven.
    pub stage: Stage,
    /// Whether all of it is readable here without a remote.
    pub cached: bool,
    /// Whether it is pinned.
    pub pinned: bool,
}

/// The stages a byte goes through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Written, not sealed yet.
    #[default]
    Dirty,
    /// In a layer of this computer.
    Sealed,
    /// Held by remotes as the policy asks.
    Pushed,
    /// And proven recently enough to be evicted.
    Proven,
}

/// The kind of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the variants are the file types of POSIX")]
pub enum FileKind {
    #[default]
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}
