//! What a person changes about keys and members: epochs, revocations, the lock of the keybag.

use std::time::Duration;

use rdrivefs_remote::identity::PublicKey;

use crate::error::{Error, Result};
use crate::keybag::Unlock;
use crate::progress::Progress;
use crate::report::{EpochReport, RevokeReport, SyncReport};

use super::parts::Drive;

/// How long remotes are asked for news before something is signed: what is signed without having
/// seen it holds all the same.
const NEWS_WITHIN: Duration = Duration::from_secs(10);

/// Characters of a fingerprint that are taken for its beginning.
const FINGERPRINT_LEAST: usize = 4;

impl Drive {
    /// Begins an epoch: what is sealed from now on is sealed with a new key.
    ///
    /// # Errors
    /// [`Error::Refused`] when this device may not; of the disk. A remote that is away is named in
    /// the report and told later.
    pub fn key_rotate(&self, progress: &Progress) -> Result<EpochReport> {
        self.hear(progress)?;
        let epoch = self.parts.authority.rotate()?;
        let told = self.settle(progress)?;
        Ok(EpochReport {
            epoch: hex::encode(epoch.0),
            epochs: self.secrets().epochs.len() as u64,
            remotes: told.remotes,
        })
    }

    /// Takes a device out of the drive, named by its number, its name, its key, or the beginning
    /// of its fingerprint.
    ///
    /// # Errors
    /// [`Error::Refused`] when none or several are meant, when it is this device, or when this
    /// device may not; of the disk. A remote that is away is named in the report and told later.
    pub fn device_revoke(&self, device: &str, progress: &Progress) -> Result<RevokeReport> {
        self.hear(progress)?;
        let (key, number) = self.device_named(device)?;
        let epoch = self.parts.authority.revoke(&key)?;
        let SyncReport { remotes, .. } = self.settle(progress)?;
        let membership = self.parts.log.membership();
        let revoked = membership.device(&key).and_then(|member| member.revoked.as_ref());
        let accepted = revoked.and_then(|r| r.last.iter().map(|last| last.number).max());
        Ok(RevokeReport {
            device: key.to_string(),
            device_fingerprint: key.fingerprint(),
            device_number: number,
            accepted: accepted.unwrap_or(0),
            epoch: hex::encode(epoch.0),
            remotes,
        })
    }

    /// Puts another lock on the keys of this device.
    ///
    /// # Errors
    /// As [`Keybag::relock`](crate::keybag::Keybag::relock).
    pub fn relock(&self, unlock: &Unlock<'_>) -> Result<()> {
        self.keyring.relock(unlock)
    }

    /// Asks remotes for what is new; that none answers is no reason not to go on.
    fn hear(&self, progress: &Progress) -> Result<()> {
        match self.pull(Some(NEWS_WITHIN), progress) {
            Err(e) if e.is_refusal() || e.is_transient() || matches!(e, Error::NoRemote(_)) => {
                Ok(())
            }
            heard => heard.map(drop),
        }
    }

    /// The one device that is meant.
    fn device_named(&self, name: &str) -> Result<(PublicKey, u16)> {
        let membership = self.parts.log.membership();
        let infos = self.devices()?;
        let named = |key: &PublicKey, number: u16| {
            let key_text = key.to_string();
            let own = infos.iter().find(|info| info.key == key_text);
            name.parse() == Ok(number)
                || name == key_text
                || own.is_some_and(|info| !info.name.is_empty() && info.name == name)
                || name.len() >= FINGERPRINT_LEAST && key.fingerprint().starts_with(name)
        };
        let all = membership.members().iter();
        let mut meant = all.filter(|member| named(&member.device, member.number));
        match (meant.next(), meant.next()) {
            (Some(member), None) => Ok((member.device, member.number)),
            (None, _) => Err(Error::Refused(format!("there is no device {name}"))),
            (Some(_), Some(_)) => Err(Error::Refused(format!(
                "{name} may be one of several devices; name its number"
            ))),
        }
    }
}
