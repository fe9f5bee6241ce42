//! What `status`, `remote list` and `key show` tell: the drive, its members, where it stands.

use serde::{Deserialize, Serialize};

use crate::pairing::PairingCode;

use super::list::FileKind;
use super::path::DrivePath;

/// `status`: the drive as a whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The drive's local name.
    pub drive: String,
    /// The drive's id.
    pub drive_id: String,
    /// This device.
    pub device: DeviceInfo,
    /// Where the drive is mounted, if it is; filled in by the process that mounted it.
    pub mount: Option<MountInfo>,
    /// The tree's size.
    pub tree: TreeUse,
    /// The local cache of layers.
    pub cache: CacheUse,
    /// What is not yet everywhere.
    pub pending: Pending,
    /// Every remote, with its health.
    pub remotes: Vec<RemoteInfo>,
    /// Files with more than one newest version.
    pub conflicts: u64,
    /// Every device of the drive, this one among them.
    pub devices: Vec<DeviceInfo>,
}

/// A device of the drive.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Its name, empty when none was given.
    pub name: String,
    /// Its public key.
    pub key: String,
    /// Its number within the drive.
    pub number: u16,
    /// Its key's fingerprint, for people to compare.
    #[serde(default)]
    pub fingerprint: String,
    /// Whether it may add and revoke devices.
    #[serde(default)]
    pub admin: bool,
    /// The key of the device that added it; `null` where the recovery phrase did.
    #[serde(default)]
    pub added_by: Option<String>,
    /// Whether it is the device that tells this.
    #[serde(default)]
    pub this_device: bool,
    /// Whether it was revoked.
    pub revoked: bool,
    /// Commits of it, once it was revoked, that remotes have shown and that do not count.
    pub held_back: u64,
    /// The number of its newest commit known here; 0 for none.
    pub head: u64,
    /// When that commit was made, by that device's clock.
    pub head_ms: Option<u64>,
}

/// `device add`: a code for one device, printed as soon as a node keeps a mailbox for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairingOffer {
    /// The code.
    pub code: PairingCode,
    /// The remote on whose node the two devices meet.
    pub remote: String,
    /// When the code ends, by this computer's clock.
    pub expires_ms: u64,
}

/// A device that waits to be let in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Joiner {
    /// What it calls itself.
    pub name: String,
    /// Its public key.
    pub key: String,
    /// The fingerprint to compare with what it shows.
    pub fingerprint: String,
}

/// Where a drive is mounted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MountInfo {
    /// The mount point: an absolute path of this computer, as UTF-8 where it can be.
    pub dir: String,
    /// The process that serves it.
    pub pid: u32,
    /// Since when.
    pub since_ms: u64,
}

/// How much the tree holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TreeUse {
    /// Files of every kind, directories included.
    pub files: u64,
    /// Bytes of plain content, as `ls -l` would add them up; `null` where there are too many files
    /// to add up for a status.
    pub bytes: Option<u64>,
    /// Bytes of all layers of the drive, here or elsewhere: what one copy of it takes.
    pub layer_bytes: u64,
}

/// What the local cache holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CacheUse {
    /// Bytes of layers present on this disk.
    pub bytes: u64,
    /// The configured bound, if there is one.
    pub bytes_max: Option<u64>,
    /// Of `bytes`, those that pins keep; `null`, for nobody counts them.
    pub pinned_bytes: Option<u64>,
    /// Of `bytes`, those that could be evicted now as far as the ledger tells.
    pub proven_bytes: u64,
    /// Layers of which anything is present.
    pub layers: u64,
}

/// What still has a way to go.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    /// Bytes in the journal that are not sealed yet.
    pub dirty_bytes: u64,
    /// Files with such bytes, or with metadata not yet in a commit.
    pub dirty_files: u64,
    /// Bytes of sealed layers that no remote holds yet.
    pub push_bytes: u64,
    /// Layers that no remote holds yet.
    pub push_layers: u64,
    /// Bytes pushed but not proven recently enough to be evicted.
    pub unproven_bytes: u64,
    /// Changes of names, attributes and contents that no commit of this device carries yet.
    pub commits: u64,
}

/// A remote: an element of `remote list` and of `status`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RemoteInfo {
    /// Its local name.
    pub name: String,
    /// Its URL, without the invite.
    pub url: String,
    /// Fingerprint of its pinned key, if it has one.
    pub fingerprint: Option<String>,
    /// Its health.
    pub health: Health,
    /// The last failure in words, if the last attempt failed.
    pub error: Option<String>,
    /// Round trip of the last request.
    pub rtt_ms: Option<f64>,
    /// Layers of the drive it holds, by the index.
    pub layers: u64,
    /// Bytes of those layers.
    pub bytes: u64,
    /// Bytes it says are used by the drive, outboards included.
    pub used_bytes: Option<u64>,
    /// Bytes it allows the drive.
    pub quota_bytes: Option<u64>,
    /// When it last answered anything.
    pub seen_ms: Option<u64>,
    /// When it last answered a challenge rightly.
    pub proven_ms: Option<u64>,
    /// Challenges it answered rightly, as the ledger counts.
    pub challenges: u64,
    /// Challenges it failed, as the ledger counts.
    pub failures: u64,
}

/// How a remote does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Not spoken to since this process began.
    #[default]
    Unknown,
    /// It answered the last request.
    Up,
    /// It did not answer the last request.
    Down,
    /// It refuses this device or drive, or has no room.
    Refusing,
    /// It failed a challenge, changed its key or showed two histories: not to be trusted.
    Distrusted,
}

/// `status PATH`: where one file or the files below one directory stand.
///
/// The byte counts are of plain content. They overlap: proven bytes are pushed, pushed are sealed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PathStatus {
    /// The path.
    pub path: DrivePath,
    /// What it is.
    pub kind: FileKind,
    /// Files counted: 1, or all files below a directory.
    pub files: u64,
    /// Bytes of content counted; holes count for nothing.
    pub bytes: u64,
    /// Written, not sealed yet.
    pub dirty_bytes: u64,
    /// In layers.
    pub sealed_bytes: u64,
    /// In layers that remotes hold as the policy asks.
    pub pushed_bytes: u64,
    /// Of those, proven recently enough to be evicted.
    pub proven_bytes: u64,
    /// Readable here without a remote.
    pub cached_bytes: u64,
    /// Whether the path or a directory above it is pinned.
    pub pinned: bool,
}

/// `key show`: identities and how the keys are kept. No secret is in it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct KeyInfo {
    /// The drive's local name.
    pub drive: String,
    /// The drive's id.
    pub drive_id: String,
    /// Fingerprint of the drive's root key.
    pub root_fingerprint: String,
    /// This device's public key.
    pub device: String,
    /// Its fingerprint.
    pub device_fingerprint: String,
    /// Its number within the drive.
    pub device_number: u16,
    /// The newest epoch.
    pub epoch: String,
    /// How many epochs this device can open.
    pub epochs: u64,
    /// How the keys lie on this disk.
    pub kept_under: KeptUnder,
}

/// What guards the keys at rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptUnder {
    /// Argon2id of a passphrase.
    #[default]
    Passphrase,
    /// A key file beside them, mode 0600: whoever reads this disk has them.
    KeyFile,
}
