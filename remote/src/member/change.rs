//! What membership entries say: the CBOR bodies that nodes and clients read alike.
//!
//! A body is a [`Deed`]: the heads its author had seen and one [`Change`]. Structures are arrays in
//! the order of their fields, enums `[variant, [fields]]`, ids and keys byte strings
//! (man/rdrivefs-format.5, "membership"). Whether a change holds is weighed elsewhere.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::cbor;
use crate::entry::Head;
use crate::error::Result;
use crate::identity::PublicKey;

/// In place of a device among an epoch's recipients: the recovery phrase.
pub const RECOVERY: PublicKey = PublicKey([0; 32]);
/// Length of a device's wrapping key: X25519 (32) and ML-KEM-768 encapsulation key (1,184).
pub const WRAP_KEY_BYTES: usize = 1_216;
/// Longest wrap of an epoch key: two key agreements (1,120) and a sealed key, with room to grow.
pub const WRAP_BYTES_MAX: usize = 4_096;

/// The name of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpochId(pub [u8; 32]);

cbor::array!(EpochId);

/// One change of membership.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub enum Change {
    /// A device joins, or goes on with a new number after its state was restored.
    #[n(0)]
    Add {
        /// The device's identity.
        #[n(0)]
        device: PublicKey,
        /// Its number, part of every id it makes; never given to another device.
        #[n(1)]
        number: u16,
        /// Whether it may change the membership.
        #[n(2)]
        admin: bool,
        /// What epoch keys are wrapped to: X25519 ‖ ML-KEM-768, [`WRAP_KEY_BYTES`] long.
        #[n(3)]
        #[cbor(with = "cbor::bytes")]
        wrap_key: Bytes,
    },
    /// A device leaves for good.
    #[n(1)]
    Revoke {
        /// The device's identity.
        #[n(0)]
        device: PublicKey,
        /// The last accepted commit of each of its logs, in ascending order of their instances; no
        /// commit of a log that is not named is accepted.
        #[n(1)]
        last: Vec<Last>,
    },
    /// A new drive key, wrapped to every member and to the recovery phrase.
    #[n(2)]
    Epoch(#[n(0)] Epoch),
}

/// The last accepted commit of one log of a revoked device. Its hash stands for the whole chain up
/// to it; by its number alone another history of the log would be accepted, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct Last {
    /// Which of the device's logs.
    #[n(0)]
    pub instance: u32,
    /// The number of the commit in its log.
    #[n(1)]
    pub number: u64,
    /// The hash of its entry.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub hash: [u8; 32],
}

/// The span of one drive key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Epoch {
    /// Its name.
    #[n(0)]
    pub id: EpochId,
    /// The epochs it follows, in ascending order; none for the first.
    #[n(1)]
    pub parents: Vec<EpochId>,
    /// The key for each recipient, in ascending order of recipients, [`RECOVERY`] among them.
    #[n(2)]
    pub wraps: Vec<Wrap>,
}

impl Epoch {
    /// Whether it is handed to this device, or to [`RECOVERY`].
    pub fn is_for(&self, who: &PublicKey) -> bool {
        self.wraps.iter().any(|wrap| wrap.to == *who)
    }
}

/// An epoch's key, sealed to one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Wrap {
    /// A device, or [`RECOVERY`].
    #[n(0)]
    pub to: PublicKey,
    /// The sealed key, at most [`WRAP_BYTES_MAX`] long.
    #[n(1)]
    #[cbor(with = "cbor::bytes")]
    pub sealed: Bytes,
}

/// The body of a membership entry: a change and the heads its author had seen.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Deed {
    /// Heads of the other membership logs, in ascending order.
    #[n(0)]
    pub seen: Vec<Head>,
    /// What is changed.
    #[n(1)]
    pub change: Change,
}
