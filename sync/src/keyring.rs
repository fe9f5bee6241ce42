//! The keyring: the secrets of an open drive, shared by all who seal, open and sign.
//!
//! It follows the membership: an epoch that was begun elsewhere and handed to this device is
//! opened, checked and kept as soon as the membership tells of it. The keybag's file is written
//! before anybody sees a change of it, so what was sealed can be opened after a crash.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rdrivefs_remote::env::Env;
use rdrivefs_remote::identity::PublicKey;
use rdrivefs_remote::member::{self, Membership, RECOVERY};

use crate::error::{Error, Result};
use crate::keybag::{Keybag, Secrets, Unlock};
use crate::keys::{Epoch, PARENTS_MAX, Recipient, WrapPublic};

/// The secrets of an open drive. Locks: `bag` over a change, and inside it `secrets` only to put
/// the new ones there.
pub struct Keyring {
    env: Env,
    bag: Mutex<Keybag>,
    secrets: RwLock<Arc<Secrets>>,
}

impl Keyring {
    /// A ring of what the bag holds.
    pub fn new(bag: Keybag, env: Env) -> Self {
        let secrets = RwLock::new(Arc::new(bag.secrets().clone()));
        Self { env, bag: Mutex::new(bag), secrets }
    }

    /// The secrets as they are now.
    pub fn secrets(&self) -> Arc<Secrets> {
        self.secrets.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the secrets, the file first.
    ///
    /// # Errors
    /// [`Error::Io`]; nothing is changed then.
    pub fn update(&self, change: impl FnOnce(&mut Secrets)) -> Result<()> {
        self.change(&mut self.bag.lock().unwrap_or_else(PoisonError::into_inner), change)
    }

    fn change(&self, bag: &mut Keybag, change: impl FnOnce(&mut Secrets)) -> Result<()> {
        bag.update(&self.env, change)?;
        let secrets = Arc::new(bag.secrets().clone());
        *self.secrets.write().unwrap_or_else(PoisonError::into_inner) = secrets;
        Ok(())
    }

    /// Puts another lock on the keybag's file.
    ///
    /// # Errors
    /// As [`Keybag::relock`].
    pub fn relock(&self, unlock: &Unlock<'_>) -> Result<()> {
        let mut bag = self.bag.lock().unwrap_or_else(PoisonError::into_inner);
        bag.relock(unlock, &self.env)
    }

    /// Keeps every epoch of the membership that is handed to this device; returns how many are new.
    /// One that hands somebody a key that is not the epoch's is not kept, and nothing is sealed in it.
    ///
    /// # Errors
    /// [`Error::Io`]; nothing is changed then.
    pub fn learn(&self, membership: &Membership) -> Result<usize> {
        let mut bag = self.bag.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = unknown(bag.secrets(), membership);
        let count = fresh.len();
        if count > 0 {
            self.change(&mut bag, |secrets| secrets.add_epochs(fresh, membership))?;
        }
        Ok(count)
    }

    /// A fresh epoch after all there are, and the record that hands it to everybody who belongs to
    /// the drive now, and to the recovery phrase.
    ///
    /// # Errors
    /// When the wrapping key of a member is none.
    pub fn next_epoch(&self, membership: &Membership) -> Result<member::Epoch> {
        let secrets = self.secrets();
        // One that does not open holds up nobody, and more than these are joined in turn.
        let parents: Vec<&Epoch> = secrets.newest_epochs().take(PARENTS_MAX).collect();
        let epoch = Epoch::begin(secrets.drive(), &parents, &self.env);
        let active = membership.members().iter().filter(|member| member.revoked.is_none());
        let mut to = vec![Recipient::recovery(&secrets.recovery)];
        for member in active {
            to.push(Recipient { who: member.device, key: WrapPublic::decode(&member.wrap_key)? });
        }
        Ok(epoch.record(&to))
    }
}

/// The epochs of the membership that these secrets open and do not hold.
pub(crate) fn unknown(known: &Secrets, membership: &Membership) -> Vec<Epoch> {
    let mut fresh: Vec<Epoch> = Vec::new();
    // From the newest back: whoever has an epoch has the keys of those it follows.
    for record in membership.epochs().iter().rev() {
        if known.epoch_of(&record.id).is_some() {
            continue;
        }
        let mut children = fresh.iter().chain(&known.epochs);
        let child = children.find(|epoch| epoch.parents().any(|id| id == record.id));
        let epoch = match (record.is_for(&known.device.public()), child) {
            (true, _) => opened(known, record, membership),
            (false, Some(child)) => {
                child.open_parent(record, &Recipient::recovery(&known.recovery))
            }
            // It was begun by somebody who did not know this device yet.
            (false, None) => continue,
        };
        match epoch {
            Ok(epoch) => fresh.push(epoch),
            Err(error) => tracing::warn!(%error, "an epoch is refused"),
        }
    }
    fresh
}

/// Opens an epoch, and sees to it that everybody it names was handed the same.
fn opened(secrets: &Secrets, record: &member::Epoch, membership: &Membership) -> Result<Epoch> {
    let epoch = Epoch::open(secrets.drive(), record, &secrets.device.public(), &secrets.wrap)?;
    let recipient = |who: &PublicKey| match (*who == RECOVERY, membership.device(who)) {
        (true, _) => Ok(Recipient::recovery(&secrets.recovery)),
        (_, Some(member)) => {
            Ok(Recipient { who: *who, key: WrapPublic::decode(&member.wrap_key)? })
        }
        _ => Err(Error::corrupt("an epoch", "it is wrapped to nobody of this drive")),
    };
    let to = record.wraps.iter().map(|wrap| recipient(&wrap.to)).collect::<Result<Vec<_>>>()?;
    epoch.check_wraps(record, &to)?;
    Ok(epoch)
}
