//! What a drive tells about itself: the reports that commands print and scripts read.
//!
//! Every struct here is one JSON document, or one line of a JSON stream, of the command line, and
//! travels over the control socket in the same form: *the field names are a contract*. Fields may be
//! added; none is renamed, removed or given another meaning. Sizes are bytes, times are
//! milliseconds since the Unix epoch (`_ms`), ids and keys are lower-case hexadecimal.
//! An unknown or absent value is `null`, never a magic number. No sentence for people is made here,
//! save `why` and `detail`, which name the object and the check. No logic belongs here.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A path of the drive beginning with `/`, of any bytes but NUL.
///
/// In JSON it is a string in which every byte that is not part of valid UTF-8, and the backslash
/// itself, is written as `\xNN`: no two paths look the same, and each can be read back.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DrivePath(pub Vec<u8>);

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
    /// Whether it was revoked.
    pub revoked: bool,
    /// The number of its newest commit known here; 0 for none.
    pub head: u64,
    /// When that commit was made, by that device's clock.
    pub head_ms: Option<u64>,
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
    /// Bytes of plain content, as `ls -l` would add them up.
    pub bytes: u64,
}

/// What the local cache holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CacheUse {
    /// Bytes of layers present on this disk.
    pub bytes: u64,
    /// The configured bound, if there is one.
    pub bytes_max: Option<u64>,
    /// Of `bytes`, those that pins keep.
    pub pinned_bytes: u64,
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
    /// Commits of this device not yet on every remote.
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
    /// Every object found damaged or missing.
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
    /// Where in the object, in bytes; `null` when all of it is missing.
    pub offset: Option<u64>,
    /// What did not hold.
    pub why: String,
    /// The files it belongs to.
    pub files: Vec<DrivePath>,
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

impl fmt::Display for DrivePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for (i, part) in chunk.valid().split('\\').enumerate() {
                f.write_str(if i == 0 { "" } else { "\\x5c" })?;
                f.write_str(part)?;
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

impl fmt::Debug for DrivePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DrivePath({self})")
    }
}

impl Serialize for DrivePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DrivePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        unescape(&text).map(Self).ok_or_else(|| serde::de::Error::custom("a bad \\x escape"))
    }
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('\\');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.strip_prefix('x')?.get(..2)?;
        let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| plain)?);
        bytes.extend_from_slice(&part.as_bytes()[3..]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_json_whatever_their_bytes() {
        let all: Vec<u8> = (1..=255).collect();
        for path in [&b"/plain"[..], b"/\xff\xfe", b"/a\\x41", "/ä\u{1f600}".as_bytes(), &all] {
            let json = serde_json::to_string(&DrivePath(path.to_vec())).unwrap();
            assert_eq!(serde_json::from_str::<DrivePath>(&json).unwrap().0, path, "{json}");
        }
        let json = serde_json::to_string(&DrivePath(b"/\xff\\".to_vec())).unwrap();
        assert_eq!(json, r#""/\\xff\\x5c""#);
    }

    #[test]
    fn bad_escapes_are_refused() {
        for text in [r#""\\""#, r#""\\n""#, r#""\\x""#, r#""\\x4""#, r#""\\x+4""#, r#""\\xg0""#] {
            assert!(serde_json::from_str::<DrivePath>(text).is_err(), "{text}");
        }
    }
}
