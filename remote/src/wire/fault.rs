//! Faults: errors on their way from a node to a client.
//!
//! A fault carries what the client can act on and nothing about the node's own disk: paths and
//! causes stay in the node's log.

use minicbor::{Decode, Encode};

use crate::blob::BlobId;
use crate::error::{Error, NoPairing};
use crate::wire::limits::TEXT_BYTES_MAX;

/// Why a node did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub enum Fault {
    /// It does not hold the blob.
    #[n(0)]
    Missing(#[n(0)] BlobId),
    /// What it was given, or what it holds, is not the blob.
    #[n(1)]
    Corrupt {
        /// The blob.
        #[n(0)]
        id: BlobId,
        /// Where the check failed.
        #[n(1)]
        offset: u64,
    },
    /// A signature or certificate does not hold.
    #[n(2)]
    Forged(#[n(0)] String),
    /// It will not.
    #[n(3)]
    Refused(#[n(0)] String),
    /// The drive's quota is used up.
    #[n(4)]
    Quota {
        /// Bytes used and reserved.
        #[n(0)]
        used: u64,
        /// Bytes allowed.
        #[n(1)]
        quota: u64,
    },
    /// Its disk is full.
    #[n(5)]
    Full,
    /// The entry is not the next of its log.
    #[n(6)]
    LogConflict {
        /// The number the log takes next.
        #[n(0)]
        expected: u64,
        /// The number offered.
        #[n(1)]
        got: u64,
    },
    /// The request or its body does not parse.
    #[n(7)]
    Malformed(#[n(0)] String),
    /// It speaks none of the versions offered; this is its own.
    #[n(8)]
    UnknownVersion(#[n(0)] u64),
    /// It has too much to do.
    #[n(9)]
    Busy {
        /// When to come back.
        #[n(0)]
        retry_ms: u64,
    },
    /// It failed by itself.
    #[n(10)]
    Failed(#[n(0)] String),
    /// The mailbox is of no use.
    #[n(11)]
    Pairing(#[n(0)] NoPairing),
}

impl From<&Error> for Fault {
    fn from(error: &Error) -> Self {
        match error {
            Error::Missing(id) => Self::Missing(*id),
            Error::Corrupt { id, offset } => Self::Corrupt { id: *id, offset: *offset },
            Error::Forged(why) => Self::Forged((*why).to_owned()),
            Error::Refused(why) => Self::Refused(short(why)),
            Error::Quota { used, quota } => Self::Quota { used: *used, quota: *quota },
            Error::Full => Self::Full,
            Error::LogConflict { expected, got } => {
                Self::LogConflict { expected: *expected, got: *got }
            }
            Error::Malformed { what, why } => Self::Malformed(short(&format!("{what}: {why}"))),
            Error::UnknownVersion { version, .. } => Self::UnknownVersion(*version),
            Error::Busy { retry_ms } => Self::Busy { retry_ms: *retry_ms },
            Error::Pairing(why) => Self::Pairing(*why),
            Error::Io { source, .. } if is_full(source) => Self::Full,
            Error::TimedOut(_) => Self::Refused("the request took too long".to_owned()),
            Error::Io { .. } | Error::Unreachable(_) | Error::NodeKeyChanged { .. } => {
                Self::Failed("the node failed; its log says why".to_owned())
            }
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Missing(id) => Self::Missing(id),
            Fault::Corrupt { id, offset } => Self::Corrupt { id, offset },
            Fault::Forged(_) => Self::Forged("the node found a signature or certificate invalid"),
            Fault::Refused(why) => Self::Refused(short(&why)),
            Fault::Quota { used, quota } => Self::Quota { used, quota },
            Fault::Full => Self::Full,
            Fault::LogConflict { expected, got } => Self::LogConflict { expected, got },
            Fault::Malformed(why) => Self::malformed("request", short(&why)),
            Fault::UnknownVersion(version) => Self::UnknownVersion { what: "the node", version },
            Fault::Busy { retry_ms } => Self::Busy { retry_ms },
            Fault::Pairing(why) => Self::Pairing(why),
            Fault::Failed(why) => {
                Self::Io { what: "the node".to_owned(), source: std::io::Error::other(short(&why)) }
            }
        }
    }
}

/// Whether the system says that no space is left.
fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// The text, cut at its bound and without anything a terminal would obey.
fn short(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut out = String::new();
    for c in clean {
        if out.len() + c.len_utf8() > TEXT_BYTES_MAX {
            break;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_can_act_on_survives_the_way() {
        let id = BlobId([5; 32]);
        let errors = [
            Error::Missing(id),
            Error::Corrupt { id, offset: 9 },
            Error::Quota { used: 1, quota: 2 },
            Error::Full,
            Error::LogConflict { expected: 3, got: 5 },
            Error::UnknownVersion { what: "the node", version: 7 },
            Error::Busy { retry_ms: 11 },
            Error::Refused("no".to_owned()),
            Error::Pairing(NoPairing::Unknown),
            Error::Pairing(NoPairing::Expired),
            Error::Pairing(NoPairing::Used),
        ];
        for error in errors {
            let back = Error::from(Fault::from(&error));
            assert_eq!(format!("{back:?}"), format!("{error:?}"));
        }
    }

    #[test]
    fn the_nodes_own_troubles_stay_with_it() {
        let error = Error::io("writing /srv/secret")(std::io::Error::other("bad sector"));
        assert!(!format!("{:?}", Fault::from(&error)).contains("secret"));
        let full = Error::io("x")(std::io::ErrorKind::StorageFull.into());
        assert_eq!(Fault::from(&full), Fault::Full);
    }

    #[test]
    fn texts_are_bounded_and_tame() {
        let error = Error::from(Fault::Refused("\x1b[2J".repeat(1000)));
        let Error::Refused(text) = error else { panic!("a refusal stays one") };
        assert!(text.len() <= TEXT_BYTES_MAX && !text.contains('\x1b'));
    }
}
