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
//! drive by signing nonsense. A senior signer whose key was stolen can still revoke juniors who
//! concurrently revoke it; the phrase is the last word. What a wrap contains is not known here.

mod change;
mod graph;
mod weigh;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::cbor;
use crate::entry::{Entry, Head, Header, LogId, LogKind};
use crate::error::{Error, Result};
use crate::identity::{DriveId, PublicKey, SecretKey};
use crate::member::graph::Graph;
use crate::member::weigh::{Addition, Weighed, weigh};

pub use change::{
    Change, Deed, Epoch, EpochId, Last, RECOVERY, WRAP_BYTES_MAX, WRAP_KEY_BYTES, Wrap,
};
pub use graph::Void;

/// The first number given to a device; 0 stays free for what belongs to no device.
const FIRST_NUMBER: u16 = 1;

/// A device of the drive, as far as the entries tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its identity.
    pub device: PublicKey,
    /// Its newest number.
    pub number: u16,
    /// Whether it may change the membership.
    pub admin: bool,
    /// Who signed its first addition: another device, or the root.
    pub added_by: PublicKey,
    /// What epoch keys are wrapped to.
    pub wrap_key: Bytes,
    /// Set once it was revoked.
    pub revoked: Option<Revoked>,
}

/// How a device left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// The last accepted commit of each of its logs: of all revocations the latest, since whoever
    /// revokes it again has merged more of it.
    pub last: Vec<Last>,
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
    /// Every number that any entry ever gave, void or not.
    numbers: BTreeSet<u16>,
    /// The root and every device that ever was an admin.
    signers: BTreeSet<PublicKey>,
    /// Epochs with devices that joined while they began, so that neither knew the other.
    shut_out: BTreeSet<(EpochId, PublicKey)>,
}

impl Revoked {
    /// The last accepted commit of the log of this instance; none if none of it is accepted.
    pub fn last_of(&self, instance: u32) -> Option<&Last> {
        self.last.iter().find(|last| last.instance == instance)
    }

    /// Whether this commit can be accepted by its own place: whether the chain ends as it must
    /// shows only once the last one is there.
    pub fn accepts(&self, commit: &Entry) -> bool {
        self.last_of(commit.log.instance).is_some_and(|last| {
            commit.number < last.number
                || (commit.number, commit.hash()) == (last.number, last.hash)
        })
    }
}

impl Membership {
    /// The membership that these entries make; they may come in any order and more than once.
    ///
    /// # Errors
    /// [`Error::Forged`] when `root` is not the drive's; [`Error::Malformed`] when an entry belongs
    /// to another drive or is not of a membership log, or when there are too many.
    pub fn replay(drive: DriveId, root: &PublicKey, entries: &[Entry]) -> Result<Self> {
        if DriveId::of(root) != drive {
            return Err(Error::Forged("the root is not this drive's"));
        }
        if entries.iter().any(|entry| entry.drive != drive) {
            return Err(Error::malformed("membership", "an entry belongs to another drive"));
        }
        if entries.iter().any(|entry| entry.log.kind != LogKind::Membership) {
            return Err(Error::malformed("membership", "an entry belongs to another kind of log"));
        }
        let graph = Graph::of(root, entries)?;
        Ok(Self::of(drive, root, &graph))
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

    /// The epochs that none follows: more than one where they were begun concurrently.
    pub fn newest_epochs(&self) -> impl Iterator<Item = &Epoch> {
        let followed = |id| self.epochs.iter().any(|epoch| epoch.parents.contains(id));
        self.epochs.iter().filter(move |epoch| !followed(&epoch.id))
    }

    /// Whether an epoch was neither handed to this device nor known to whoever added it.
    pub fn is_shut_out(&self, device: &PublicKey, epoch: &EpochId) -> bool {
        self.shut_out.contains(&(*epoch, *device))
    }

    /// Whether this is a device of the drive that was not revoked.
    pub fn is_active(&self, device: &PublicKey) -> bool {
        self.device(device).is_some_and(|m| m.revoked.is_none())
    }

    /// Whether this key may change the membership now.
    pub fn is_admin(&self, key: &PublicKey) -> bool {
        *key == self.root || self.device(key).is_some_and(|m| m.admin && m.revoked.is_none())
    }

    /// Whether this key has a membership log that anyone should keep: the root, and whoever is or
    /// once was an admin. What such a key signs may still change nothing.
    pub fn may_have_signed(&self, key: &PublicKey) -> bool {
        self.signers.contains(key)
    }

    /// The least number that no device ever had; none when all are used up.
    pub fn next_number(&self) -> Option<u16> {
        (FIRST_NUMBER..=u16::MAX).find(|number| !self.numbers.contains(number))
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
    /// [`Error::Malformed`] when the change is too large for an entry.
    pub fn sign(&self, secret: &SecretKey, instance: u32, change: Change) -> Result<Entry> {
        let log = LogId { kind: LogKind::Membership, author: secret.public(), instance };
        let own = self.heads.iter().find(|h| h.log == log).copied();
        let seen = self.heads.iter().filter(|h| h.log != log).copied().collect();
        let header = Header::after(self.drive, &own.unwrap_or(Head::empty(log)), [0; 32]);
        Entry::sign(secret, header, cbor::encode(&Deed { seen, change }).into())
    }

    fn of(drive: DriveId, root: &PublicKey, graph: &Graph) -> Self {
        let weighed = weigh(root, graph);
        let mut voids = graph.outside.clone();
        for (node, verdict) in graph.nodes.iter().zip(&weighed.verdicts) {
            voids.extend(verdict.err().map(|why| Void { hash: node.head.hash, why }));
        }
        voids.sort_unstable_by_key(|void| void.hash);
        let numbers = graph.nodes.iter().filter_map(|node| match node.change {
            Ok(Change::Add { number, .. }) => Some(number),
            _ => None,
        });
        let admins = |(device, some): (&PublicKey, &Vec<Addition<'_>>)| {
            some.iter().any(|addition| addition.admin).then_some(*device)
        };
        let signers = weighed.additions.iter().filter_map(admins).chain([*root]).collect();
        Self {
            drive,
            root: *root,
            signers,
            shut_out: shut_out(graph, &weighed),
            members: members(graph, &weighed),
            epochs: weighed.epochs.iter().map(|(_, epoch)| (*epoch).clone()).collect(),
            heads: graph.heads(),
            voids,
            numbers: numbers.collect(),
        }
    }
}

fn shut_out(graph: &Graph, weighed: &Weighed<'_>) -> BTreeSet<(EpochId, PublicKey)> {
    let mut out = BTreeSet::new();
    for (index, epoch) in &weighed.epochs {
        let unknown = |device: &PublicKey, additions: &[Addition<'_>]| {
            let newest = additions.last().expect("a device is listed once it was added");
            !epoch.is_for(device) && !graph.nodes[newest.index].has_seen(*index)
        };
        let devices = weighed.additions.iter().filter(|(device, all)| unknown(device, all));
        out.extend(devices.map(|(device, _)| (epoch.id, *device)));
    }
    out
}

/// The newest addition of each device says what it is, its revocations how it left.
fn members(graph: &Graph, weighed: &Weighed<'_>) -> Vec<Member> {
    let revoked = |of: &PublicKey| {
        let mut latest: Option<BTreeMap<u32, Last>> = None;
        for index in &weighed.revocations {
            let Ok(Change::Revoke { device, last }) = &graph.nodes[*index].change else { continue };
            if device == of {
                let latest = latest.get_or_insert_default();
                for last in last {
                    let known = latest.entry(last.instance).or_insert(*last);
                    *known = (*known).max(*last);
                }
            }
        }
        latest.map(|latest| Revoked { last: latest.into_values().collect() })
    };
    let mut members = Vec::new();
    for (device, additions) in &weighed.additions {
        let newest = additions.last().expect("a device is listed once it was added");
        let member = Member {
            device: *device,
            number: newest.number,
            admin: newest.admin,
            added_by: *graph.nodes[additions[0].index].author(),
            wrap_key: newest.wrap_key.clone(),
            revoked: revoked(device),
        };
        members.push((additions[0].number, member));
    }
    members.sort_unstable_by_key(|(first, _)| *first);
    members.into_iter().map(|(_, member)| member).collect()
}

#[cfg(test)]
mod tests;
