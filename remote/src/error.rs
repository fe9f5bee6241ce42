//! One error for the floor: what failed and where, answering the questions a caller asks.

use minicbor::{Decode, Encode};

use crate::blob::{BlobId, NotABlobId};

/// The result of everything on this floor.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a mailbox is of no use to who asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[cbor(index_only)]
pub enum NoPairing {
    /// There is none of that name.
    #[n(0)]
    #[error("no pairing waits there under this code")]
    Unknown,
    /// Its time is over.
    #[n(1)]
    #[error("the code has expired")]
    Expired,
    /// Another device has it.
    #[n(2)]
    #[error("another device has used the code")]
    Used,
}

/// What went wrong while keeping, fetching or checking sealed bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The remote does not hold this blob.
    #[error("blob {0} is missing")]
    Missing(BlobId),
    /// Bytes came back that are not the bytes of this blob.
    #[error("blob {id} is damaged near byte {offset}")]
    Corrupt {
        /// The blob that was asked for.
        id: BlobId,
        /// Where the check failed, in bytes from the blob's start.
        offset: u64,
    },
    /// A signature, certificate or key is not what it must be.
    #[error("not authentic: {0}")]
    Forged(&'static str),
    /// The node's key is not the pinned one.
    #[error("node key changed: pinned {pinned}, shown {shown}")]
    NodeKeyChanged {
        /// Fingerprint pinned when the remote was added.
        pinned: String,
        /// Fingerprint the node showed now.
        shown: String,
    },
    /// The remote knows us but refuses this request.
    #[error("refused: {0}")]
    Refused(String),
    /// The drive's space on this remote is used up.
    #[error("quota exceeded: {used} of {quota} bytes used")]
    Quota {
        /// Bytes stored and reserved.
        used: u64,
        /// Bytes allowed.
        quota: u64,
    },
    /// The remote's disk is full.
    #[error("the remote has no space left")]
    Full,
    /// A log entry is not the next of its log.
    #[error("log conflict: expected number {expected}, got {got}")]
    LogConflict {
        /// The number the log takes next.
        expected: u64,
        /// The number offered.
        got: u64,
    },
    /// Bytes from outside do not parse.
    #[error("malformed {what}: {why}")]
    Malformed {
        /// The kind of thing that was read.
        what: &'static str,
        /// Why it was refused.
        why: String,
    },
    /// A format or protocol version this build does not know.
    #[error("unknown version {version} of {what}")]
    UnknownVersion {
        /// The kind of thing that was read.
        what: &'static str,
        /// The version it claims.
        version: u64,
    },
    /// No connection, or it broke.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// No answer within the deadline.
    #[error("timed out after {0} ms")]
    TimedOut(u64),
    /// The remote asks to slow down.
    #[error("busy, retry in {retry_ms} ms")]
    Busy {
        /// When to try again, in milliseconds.
        retry_ms: u64,
    },
    /// There is no mailbox to join or be joined by.
    #[error("pairing: {0}")]
    Pairing(NoPairing),
    /// The local operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the name of the object.
        what: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// Whether the same request may succeed later without anyone changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::TimedOut(_) | Self::Busy { .. })
    }

    /// Whether the answer is an authenticated "I do not have it".
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing(_))
    }

    /// Whether what came back is provably wrong.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Forged(_) | Self::Malformed { .. })
    }

    /// Wraps an I/O error with what was being done.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// As [`Error::io`] for writing to a disk: one that is full is [`Error::Full`].
    pub fn disk(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io { what, source },
        }
    }

    /// A refusal of foreign bytes.
    pub fn malformed(what: &'static str, why: impl std::fmt::Display) -> Self {
        Self::Malformed { what, why: why.to_string() }
    }
}

impl From<NotABlobId> for Error {
    fn from(why: NotABlobId) -> Self {
        Self::malformed("blob id", why)
    }
}
