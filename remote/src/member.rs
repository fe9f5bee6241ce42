//! Membership: who belongs to a drive, read from its signed logs by clients and nodes alike.
//!
//! The entries of the membership logs form a graph: each names the one before it in its log and
//! the heads of the other membership logs its author had seen. [`Membership::replay`] is a pure
//! function of the set of entries, whatever their order:
//!
//! - The root may always sign; a device may from an addition as admin that its entry has seen.
//! - A revocation voids every entry of the revoked device that it had not seen.
//! - Revocations are weighed in causal order, then from the most senior signer down (the root,
//!   those it added, those they added, …); a revocation once weighed is not undone by a junior's.
//! - A device number belongs to one device for good; a revoked key never comes back.
//!
//! What does not hold is set aside with its reason and changes nothing, so that no one can stop a
//! drive by signing nonsense. Sealed matters (what a wrap contains) belong to the floor above.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::cbor;
use crate::entry::{Entry, Head, Header, LogId, LogKind};
use crate::error::Result;
use crate::identity::{DriveId, PublicKey, SecretKey};

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
        /// Its last accepted commit; none if no commit of it is accepted.
        #[n(1)]
        last: Option<Last>,
    },
    /// A new drive key, wrapped to every member and to the recovery phrase.
    #[n(2)]
    Epoch(#[n(0)] Epoch),
}

/// Number and hash of the last accepted commit of a revoked device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Last {
    /// The number of the commit in its log.
    #[n(0)]
    pub number: u64,
    /// The hash of its entry.
    #[n(1)]
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

/// A device of the drive, as far as the entries tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its identity.
    pub device: PublicKey,
    /// Its newest number.
    pub number: u16,
    /// Whether it may change the membership.
    pub admin: bool,
    /// What epoch keys are wrapped to.
    pub wrap_key: Bytes,
    /// Set once it was revoked.
    pub revoked: Option<Revoked>,
}

/// How a device left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revoked {
    /// Its last accepted commit, if any is.
    pub last: Option<Last>,
}

/// An entry that changes nothing, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Void {
    /// The entry's hash.
    pub hash: [u8; 32],
    /// Why it does not hold.
    pub why: &'static str,
}

/// Who belongs to a drive, and its epochs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    drive: DriveId,
    root: PublicKey,
    members: Vec<Member>,
    epochs: Vec<Epoch>,
    heads: Vec<Head>,
    voids: Vec<Void>,
}

impl Membership {
    /// The membership that these entries make; they may come in any order and more than once.
    ///
    /// # Errors
    /// [`crate::Error::Forged`] when `root` is not the drive's; [`crate::Error::Malformed`] when
    /// an entry belongs to another drive or is not of a membership log.
    pub fn replay(drive: DriveId, root: &PublicKey, entries: &[Entry]) -> Result<Self> {
        let _ = (drive, root, entries);
        unimplemented!("comes next")
    }

    /// The device with this key, revoked or not.
    pub fn device(&self, device: &PublicKey) -> Option<&Member> {
        self.members.iter().find(|m| m.device == *device)
    }

    /// All devices, revoked ones too, in the order of their first numbers.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The epochs, each after its parents.
    pub fn epochs(&self) -> &[Epoch] {
        &self.epochs
    }

    /// Whether this is a device of the drive that was not revoked.
    pub fn is_active(&self, device: &PublicKey) -> bool {
        self.device(device).is_some_and(|m| m.revoked.is_none())
    }

    /// Whether this key may change the membership now.
    pub fn is_admin(&self, key: &PublicKey) -> bool {
        *key == self.root || self.device(key).is_some_and(|m| m.admin && m.revoked.is_none())
    }

    /// A number that no device has; none when all are used up.
    pub fn next_number(&self) -> Option<u16> {
        unimplemented!("comes next")
    }

    /// The heads of the membership logs, of one fork the first.
    pub fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// The entries that change nothing, with the reason.
    pub fn voids(&self) -> &[Void] {
        &self.voids
    }

    /// Signs the next entry of `secret`'s membership log, made with all of this in sight.
    ///
    /// # Errors
    /// [`crate::Error::Malformed`] when the change is too large for an entry.
    pub fn sign(&self, secret: &SecretKey, instance: u32, change: Change) -> Result<Entry> {
        let log = LogId { kind: LogKind::Membership, author: secret.public(), instance };
        let own = self.heads.iter().find(|h| h.log == log).copied();
        let seen = self.heads.iter().filter(|h| h.log != log).copied().collect();
        let header = Header::after(self.drive, &own.unwrap_or(Head::empty(log)), [0; 32]);
        Entry::sign(secret, header, cbor::encode(&Deed { seen, change }).into())
    }
}
