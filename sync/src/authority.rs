//! Authority: what an admin device signs about the members and the epochs of the drive.
//!
//! Whoever is revoked loses the drive from the next epoch on, which begins at once. What an admin
//! owes the others without being asked is done in [`Authority::attend`]: an epoch that hands the
//! newest keys to everybody who belongs, and to nobody else; and that what was merged of a revoked
//! device before its revocation was heard of still counts, on every device.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdrivefs_remote::entry::LogKind;
use rdrivefs_remote::env::{Env, Instant};
use rdrivefs_remote::identity::PublicKey;
use rdrivefs_remote::member::{Change, EpochId, Last, Membership, Revoked};

use crate::error::{Error, Result};
use crate::index::Index;
use crate::keyring::Keyring;
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
        let epoch = self.keyring.next_epoch(&self.log.membership())?;
        let id = epoch.id;
        self.sign(Change::Epoch(epoch))?;
        self.keyring.learn(&self.log.membership())?;
        Ok(id)
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
        self.sign(Change::Revoke { device: *device, last: self.merged(device)? })?;
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
                self.sign(Change::Revoke { device: member.device, last: merged })?;
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
        let newest: Vec<EpochId> = membership.newest_epochs().map(|epoch| epoch.id).collect();
        let secrets = self.keyring.secrets();
        let whole = |id: &EpochId| secrets.epoch_of(id).is_some();
        if !needs_epoch(membership) || !newest.iter().all(whole) {
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

    fn sign(&self, change: Change) -> Result<()> {
        let secrets = self.keyring.secrets();
        let membership = self.log.membership();
        if !membership.is_admin(&secrets.device.public()) {
            return Err(Error::Refused(
                "this device may not change who belongs to the drive".into(),
            ));
        }
        let entry = membership.sign(&secrets.device, secrets.instance, change)?;
        self.log.accept(entry.encode())?;
        // The index is committed by the tree alone, which knows where it stands.
        self.tree.flush()?;
        self.log.settle()
    }
}

/// Whether the newest keys are in a hand that should not have them, or in two epochs side by side, or
/// out of reach for somebody who belongs.
fn needs_epoch(membership: &Membership) -> bool {
    let mut newest = membership.newest_epochs();
    let (Some(epoch), None) = (newest.next(), newest.next()) else { return true };
    membership.members().iter().any(|member| match member.revoked {
        Some(_) => epoch.is_for(&member.device),
        None => membership.is_shut_out(&member.device),
    })
}

/// Whether this is later than what a revocation accepts.
fn is_beyond(last: &Last, revoked: &Revoked) -> bool {
    revoked.last_of(last.instance).is_none_or(|accepted| accepted.number < last.number)
}
