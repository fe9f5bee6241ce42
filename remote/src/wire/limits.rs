//! The numbers of the protocol: its versions and its bounds, each with its reason.

use crate::blob::BLOB_BYTES_MAX;

/// What TLS negotiates; a change that old nodes cannot follow changes it.
pub const ALPN: &[u8] = b"rdrivefs/1";
/// The version of the exchanges inside.
pub const VERSION: u16 = 1;
/// Versions a hello may offer: more than there will be.
pub const VERSIONS_MAX: usize = 16;
/// The longest head; the longest real one has under 200 bytes, a fault's text included.
pub const HEAD_BYTES_MAX: u32 = 4096;
/// The longest text in a fault, so that its head fits.
pub const TEXT_BYTES_MAX: usize = 512;
/// The widest range of one get: any blob whole.
pub const GET_BYTES_MAX: u64 = BLOB_BYTES_MAX;
/// Ranges in one `GetMany`: beyond it a batch no longer gets cheaper.
pub const WANTS_MAX: usize = 256;
/// Bytes wanted by one `GetMany` in all, since the answer is made in memory.
pub const WANTED_BYTES_MAX: u64 = 1 << 20;
/// Ids in one `Has`.
pub const IDS_MAX: usize = 4096;
/// Blobs in one answer to `List`.
pub const LIST_MAX: usize = 4096;
/// Membership shown at hello, in bytes: two hundred devices with their certificates.
pub const MEMBERSHIP_BYTES_MAX: u64 = 1 << 20;
/// Heads a watcher may have seen: a log for each of some thousand devices there ever were.
pub const HEADS_MAX: usize = 8192;
/// The secret of an invite: 128 bits, guessed only online.
pub const INVITE_BYTES: usize = 16;

/// What a device that joins says: two public keys, a name, a signature, and what sealing adds.
pub const PAIR_REQUEST_BYTES_MAX: usize = 4 << 10;
/// What it is answered: the secrets of a drive, some two thousand epochs of them.
pub const PAIR_ANSWER_BYTES_MAX: usize = 256 << 10;
/// How long a mailbox can be used, by the node's clock: longer than a person needs.
pub const PAIR_MS_MAX: u64 = 10 * 60_000;

/// Codes a connection is closed with.
pub mod close {
    /// Nothing is wrong: the client is done.
    pub const DONE: u32 = 0;
    /// The device or the drive is not welcome, or no longer.
    pub const REFUSED: u32 = 1;
    /// The node stops; come back later.
    pub const STOPPING: u32 = 2;
    /// Too many connections, or too slow to introduce itself.
    pub const BUSY: u32 = 3;
}

/// Codes the node resets a reply with when the rest of it cannot be sent.
pub mod reset {
    /// The blob turned out to be damaged.
    pub const CORRUPT: u32 = 1;
    /// The node failed.
    pub const FAILED: u32 = 2;
}
