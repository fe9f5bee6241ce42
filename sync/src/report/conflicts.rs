//! What devices did not agree on: report of `conflicts`.

use serde::{Deserialize, Serialize};

use super::path::DrivePath;

/// One thing that stands where it does since two devices did not know of each other.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Conflict {
    /// On what they do not agree.
    pub dispute: Dispute,
    /// Where it stands.
    pub path: DrivePath,
    /// What it lost to, if that is there.
    pub beside: Option<DrivePath>,
    /// The number of the device that made it as it is.
    pub device: u16,
    /// The number of the device that made what it lost to.
    pub by: Option<u16>,
    /// When its content last changed.
    pub mtime_ms: i64,
    /// Bytes.
    pub size: u64,
}

/// What devices do not agree on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dispute {
    /// The content of a file: this is the version that lost.
    #[default]
    Content,
    /// A name: this is what lost it.
    Name,
    /// Where a directory is: it could not be where it was moved to.
    Place,
    /// Whether it is there: it was removed on one device and changed on another.
    Removal,
}

/// Which side of a conflict is to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// What this device made.
    Mine,
    /// What another made.
    Theirs,
    /// Each under the name that it has.
    Both,
}

/// `conflicts resolve`: what was done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ResolveReport {
    /// Where what stays is.
    pub kept: Vec<DrivePath>,
    /// What went; its versions can be restored.
    pub removed: Vec<DrivePath>,
}
