//! What files were: reports of `versions`, `restore`, `undelete` and `rewind`.

use serde::{Deserialize, Serialize};

use super::path::DrivePath;

/// A line of `versions`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VersionLine {
    /// Its id.
    pub version: String,
    /// Whether the file holds it now.
    pub present: bool,
    /// The number of the device that made it.
    pub device: u16,
    /// When it was told, by that device's clock, and never before what that device had seen.
    pub time_ms: u64,
    /// When its content last changed.
    pub mtime_ms: i64,
    /// Bytes.
    pub size: u64,
    /// The versions it replaced.
    pub bases: Vec<String>,
}

/// `restore`: what the file holds now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RestoreReport {
    /// Which file.
    pub path: DrivePath,
    /// The version whose content it has.
    pub version: VersionLine,
}

/// `rewind`, `undelete`: what was changed for it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RewindReport {
    /// What was taken back.
    pub path: DrivePath,
    /// The moment whose state it has.
    pub to_ms: u64,
    /// Names that were made again.
    pub made: u64,
    /// Files that were moved back.
    pub moved: u64,
    /// Files that hold again what they held.
    pub contents: u64,
    /// Attributes that were set back.
    pub attributes: u64,
    /// Names that were not there then and went.
    pub removed: u64,
    /// What was written meanwhile and told nowhere, and is kept here instead of going.
    pub kept: Vec<DrivePath>,
}
