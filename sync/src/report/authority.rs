//! What was signed about keys and members: reports of `key rotate` and `device revoke`.

use serde::{Deserialize, Serialize};

use super::moved::RemoteOutcome;

/// `key rotate`: the epoch that was begun.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// Its id.
    pub epoch: String,
    /// How many epochs this device can open.
    pub epochs: u64,
    /// Which remotes know of it; one that is away is told later.
    pub remotes: Vec<RemoteOutcome>,
}

/// `device revoke`: how a device left.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RevokeReport {
    /// Its public key.
    pub device: String,
    /// The fingerprint of it.
    pub device_fingerprint: String,
    /// Its number within the drive.
    pub device_number: u16,
    /// The number of its last commit that is accepted; 0 for none.
    pub accepted: u64,
    /// The epoch that was begun without it.
    pub epoch: String,
    /// Which remotes know of it; one that is away is told later.
    pub remotes: Vec<RemoteOutcome>,
}
