//! Who asks: the drive, the device, and what proves that the one belongs to the other.

use bytes::Bytes;

use crate::identity::{DriveId, PublicKey, SecretKey};

/// What a link shows a node to be let in.
#[derive(Clone)]
pub struct Credentials {
    /// The drive.
    pub drive: DriveId,
    /// The drive's root key.
    pub root: PublicKey,
    /// The device's identity (or the root itself, which needs no certificate).
    pub device: SecretKey,
    /// Membership entries, in order of their logs, that certify the device.
    pub membership: Vec<Bytes>,
    /// Authorises the drive once, where the node does not know it; goes before the URL's.
    pub invite: Option<String>,
}
