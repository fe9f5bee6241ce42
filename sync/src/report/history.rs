//! What files were: reports of `versions` and `restore`.

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
