//! What was checked and what did not hold: `verify` and `doctor`.

use serde::{Deserialize, Serialize};

use super::path::DrivePath;

/// What `verify` is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerifyPlan {
    /// How many challenges.
    pub samples: Samples,
    /// The loss, as a fraction of all bytes, whose chance to stay unseen is to be reported.
    pub loss: f64,
    /// Check the layers in the local cache instead of remotes.
    pub local: bool,
    /// Only this remote; all of them when absent.
    pub remote: Option<String>,
    /// Only the layers of the files at or below this path.
    pub path: Option<DrivePath>,
}

/// How many challenges `verify` sends to each remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Samples {
    /// That many, drawn uniformly over all bytes the remote should hold.
    Count(u64),
    /// Every block of every layer once.
    All,
}

/// `verify`: what was asked, and what did not hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Challenges answered, rightly or wrongly.
    pub samples: u64,
    /// Challenges failed.
    pub failures: u64,
    /// The loss that `unseen` speaks of.
    pub loss: f64,
    /// The probability that a loss of `loss` went unseen on the target that was sampled least; 0
    /// when everything was checked.
    pub unseen: f64,
    /// Each remote, or the local cache.
    pub targets: Vec<VerifyTarget>,
    /// Every object found damaged or missing, once for each place it should be in.
    pub damaged: Vec<Damaged>,
    /// How long it took.
    pub elapsed_ms: u64,
}

/// One place that was challenged.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VerifyTarget {
    /// The remote's local name; `null` for the local cache.
    pub remote: Option<String>,
    /// Whether it could be reached; if not, nothing below was measured.
    pub reached: bool,
    /// Bytes it should hold: what the samples were drawn from.
    pub bytes: u64,
    /// Layers it should hold.
    pub layers: u64,
    /// Challenges answered, rightly or wrongly.
    pub samples: u64,
    /// Challenges failed.
    pub failures: u64,
    /// The probability that a loss of `loss` went unseen here.
    pub unseen: f64,
    /// What went wrong apart from failed challenges, in words.
    pub error: Option<String>,
}

/// An object that is damaged or missing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Damaged {
    /// The layer's id, or the name of a local object.
    pub object: String,
    /// The remote; `null` for this computer.
    pub remote: Option<String>,
    /// Where in the object, in bytes, it was first seen; `null` when all of it is missing.
    pub offset: Option<u64>,
    /// Challenges over it that failed.
    pub failures: u64,
    /// What did not hold.
    pub why: String,
    /// The files it belongs to.
    pub files: Vec<DrivePath>,
}

/// `doctor`: every check, in the order made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DoctorReport {
    /// The checks.
    pub checks: Vec<Check>,
}

/// One thing `doctor` looked at.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at: `keys`, `index`, `journal`, `cache`, `mount`, `remotes`, `clock`, `disk`.
    pub name: String,
    /// How it stands.
    pub state: CheckState,
    /// What was found, naming the object.
    pub detail: String,
    /// What would mend it, if anything is to be done.
    pub mend: Option<String>,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// As it should be.
    #[default]
    Fine,
    /// Works, but should be looked after.
    Warning,
    /// Damaged or missing.
    Damaged,
    /// Was damaged, and `--repair` mended it.
    Mended,
}
