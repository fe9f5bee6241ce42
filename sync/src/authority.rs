//! Authority: what an admin device signs about the members and the epochs of the drive.
//!
//! Whoever is revoked loses the drive from the next epoch on, which begins at once. What an admin
//! owes the others without being asked is done in [`Authority::attend`]: an epoch that hands the
//! newest keys to everybody who belongs, and to nobody else; and that what was merged of a revoked
//! device before its revocation was heard of still counts, on every device.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdrivefs_remote::entry::{Entry, LogKind};
use rdrivefs_remote::env::{Env, Instant};
use rdrivefs_remote::identity::PublicKey;
use rdrivefs_remote::member::{Change, EpochId, Last, Membership, Revoked};

use crate::error::{Error, Result};
use crate::index::Index;
use crate::keyring::Keyring;
use crate::keys::Epoch;
use crate::log::Log;
use crate::tree::Tree;

/// How long an admin leaves an epoch that is due to each of those before it, so that not all begin
/// one at the same moment: longer than they take to hear of it.
const TURN: Duration = Duration::from_secs(60);

/// Signs what concerns members and keys.
pub struct Authority {
    env: Env,
    keyring: Arc<Keyring>,
    index: Arc<Index>,
    tree: Arc<Tree>,
    log: Arc<Log>,
    /// Since when these epochs have been in need of one that follows them.
    due: Mutex<Option<(Vec<EpochId>, Instant)>>,
}

impl Authority {
    /// The authority of the device that has this keyring.
    pub fn new(
        env: Env,
        keyring: Arc<Keyring>,
        index: Arc<Index>,
        tree: Arc<Tree>,
        log: Arc<Log>,
    ) -> Self {
        Self { env, keyring, index, tree, log, due: Mutex::default() }
    }

    /// Begins an epoch: from now on this device seals with its key.
    ///
    /// # Errors
    /// [`Error::Refused`] when this device may not; of the index and the keybag.
    pub fn rotate(&self) -> Result<EpochId> {
        self.keyring.learn(&self.log.membership())?;
        let mut id = None;
        self.change(|membership| {
            let epoch = self.keyring.next_epoch(membership)?;
            id = Some(epoch.id);
            Ok(Change::Epoch(epoch))
        })?;
        self.keyring.learn(&self.log.membership())?;
        Ok(id.expect("it was signed"))
    }

    /// Takes a device out of the drive: nothing of it is accepted beyond what was merged here, and
    /// nothing that is sealed from now on can it open.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is none of this key, when it is this device, or when this
    /// device may not; of the index and the keybag.
    pub fn revoke(&self, device: &PublicKey) -> Result<EpochId> {
        if *device == self.keyring.secrets().device.public() {
            return Err(Error::Refused(
                "this is the device you are at; revoke it from another one".into(),
            ));
        }
        if !self.log.membership().is_active(device) {
            return Err(Error::Refused("it is no device of this drive, or not any more".into()));
        }
        let last = self.merged(device)?;
        self.change(|_| Ok(Change::Revoke { device: *device, last }))?;
        if self.log.membership().is_active(device) {
            return Err(Error::Refused("what other members signed forbids to revoke it".into()));
        }
        self.rotate()
    }

    /// Does what is due; whether anything was signed.
    ///
    /// # Errors
    /// Of the index and the keybag.
    pub fn attend(&self) -> Result<bool> {
        let membership = self.log.membership();
        let own = self.keyring.secrets().device.public();
        if !membership.is_admin(&own) {
            return Ok(false);
        }
        let mut signed = false;
        for member in membership.members() {
            let Some(revoked) = &member.revoked else { continue };
            let merged = self.merged(&member.device)?;
            if merged.iter().any(|last| is_beyond(last, revoked)) {
                self.change(|_| Ok(Change::Revoke { device: member.device, last: merged }))?;
                signed = true;
            }
        }
        if self.is_epoch_due(&membership, &own) {
            self.rotate()?;
            signed = true;
        }
        Ok(signed)
    }

    /// Whether an epoch is due and it is for this device to begin it.
    fn is_epoch_due(&self, membership: &Membership, own: &PublicKey) -> bool {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let secrets = self.keyring.secrets();
        let newest: Vec<EpochId> = secrets.newest_epochs().map(Epoch::id).collect();
        if !needs_epoch(membership, &newest) {
            *due = None;
            return false;
        }
        let now = self.env.instant();
        let since = match due.take() {
            Some((known, since)) if known == newest => since,
            _ => now,
        };
        *due = Some((newest, since));
        let active = membership.members().iter().filter(|member| member.revoked.is_none());
        let mut admins: Vec<_> = active
            .filter(|member| member.admin)
            .map(|member| (member.number, member.device))
            .collect();
        admins.sort_unstable();
        let before = admins.iter().take_while(|(_, device)| device != own).count();
        now.since(since) >= TURN * u32::try_from(before).unwrap_or(u32::MAX)
    }

    /// What is merged here of a device's logs.
    fn merged(&self, device: &PublicKey) -> Result<Vec<Last>> {
        let heads = self.index.heads_applied()?.into_iter();
        let its = heads.filter(|head| head.log.author == *device);
        Ok(its
            .filter(|head| head.log.kind == LogKind::Commits && head.number > 0)
            .map(|head| Last { instance: head.log.instance, number: head.number, hash: head.hash })
            .collect())
    }

    /// Signs a change of members that `make` makes of those that are known, and sees to it that it is
    /// durable before it may leave.
    ///
    /// # Errors
    /// What `make` says; [`Error::Refused`] when this device may not; of the index.
    pub fn change(&self, make: impl FnOnce(&Membership) -> Result<Change>) -> Result<Entry> {
        let secrets = self.keyring.secrets();
        // The index is committed by the tree alone, which knows where it stands.
        let held = self.tree.publishing()?;
        let entry = self.log.change(|membership| {
            if !membership.is_admin(&secrets.device.public()) {
                let why = "this device may not change who belongs to the drive";
                return Err(Error::Refused(why.into()));
            }
            Ok(membership.sign(&secrets.device, secrets.instance, make(membership)?)?)
        })?;
        let signed = self.log.own_heads()?;
        held.finish()?;
        self.log.settle(signed)?;
        Ok(entry)
    }
}

/// Whether of the epochs that this device holds the newest are two side by side, or the one is in a
/// hand that should not have it, or out of reach for somebody who belongs. One that does not open is
/// none: nothing was sealed in it by whoever looked.
fn needs_epoch(membership: &Membership, newest: &[EpochId]) -> bool {
    let [newest] = newest else { return true };
    let handed_to = |device: &PublicKey| {
        let record = membership.epochs().iter().find(|record| record.id == *newest);
        record.is_some_and(|record| record.is_for(device))
    };
    membership.members().iter().any(|member| match member.revoked {
        Some(_) => handed_to(&member.device),
        None => membership.is_shut_out(&member.device, newest),
    })
}

/// Whether this is later than what a revocation accepts.
fn is_beyond(last: &Last, revoked: &Revoked) -> bool {
    revoked.last_of(last.instance).is_none_or(|accepted| accepted.number < last.number)
}
