//! What other devices changed: for programs that show folders.

use serde::{Deserialize, Serialize};

use super::path::DrivePath;

/// What came since one asked last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NewsReport {
    /// What to ask for next.
    pub next: u64,
    /// Whether some were missed, so that everything is to be looked at again.
    pub missed: bool,
    /// What changed.
    pub changed: Vec<Changed>,
}

/// A place at which something changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// Where.
    pub path: DrivePath,
    /// Whether nothing is there any more.
    pub gone: bool,
}
