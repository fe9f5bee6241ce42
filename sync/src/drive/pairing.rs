//! Letting another device in, step by step: a code, whoever comes with it, and the answer; and what
//! this device is called.
//!
//! Must: the entry that adds a device is durable here before it leaves, and on the remote before the
//! device is answered. Between the steps nothing is kept here: whoever holds the code can take the
//! next one, so that a person may think it over while the drive is used.

use rdrivefs_remote::entry::{Entry, Head};
use rdrivefs_remote::identity::PublicKey;
use rdrivefs_remote::logs::Logs as _;
use rdrivefs_remote::wire::PAIR_MS_MAX;

use crate::error::{Error, Result};
use crate::index::devices::DeviceName;
use crate::pairing::{Grant, JoinAnswer, JoinRequest, PairingCode};
use crate::progress::Progress;
use crate::record::check_device_name;
use crate::remotes::Remote;
use crate::report::{DeviceInfo, Joiner, PairingOffer};
use crate::state::Event;

use super::found::addition;
use super::parts::Drive;

/// What a remote is called on the other device where its name here is too long for that.
const REMOTE: &str = "home";

impl Drive {
    /// Draws a code for one device and opens a mailbox for it, on the remote of that name or the
    /// first that answers. It ends after `lifetime_ms`, and never later than after ten minutes.
    ///
    /// # Errors
    /// [`Error::Refused`] when this device may add none; [`Error::NoRemote`]; of the link.
    pub fn pair_open(
        &self,
        remote: Option<&str>,
        lifetime_ms: Option<u64>,
    ) -> Result<PairingOffer> {
        self.check_admin()?;
        let lifetime_ms = lifetime_ms.unwrap_or(PAIR_MS_MAX).min(PAIR_MS_MAX);
        let (env, mut last) = (&self.parts.env, None);
        for remote in self.chosen(remote)? {
            let code = PairingCode::draw(&remote.url, env);
            let opening = remote.link.pair_open(code.mailbox(), lifetime_ms);
            match self.parts.runtime.block_on(opening) {
                Ok(()) => {
                    let expires_ms = env.wall_ms().0 + lifetime_ms;
                    return Ok(PairingOffer { code, remote: remote.name.clone(), expires_ms });
                }
                Err(e) => last = Some(e),
            }
        }
        Err(last.expect("there is a remote, and it failed").into())
    }

    /// The device that came with a code, if one did within `timeout_ms`.
    ///
    /// # Errors
    /// [`Error::Code`] when what came was not made with the code; of the link.
    pub fn pair_wait(
        &self,
        remote: &str,
        code: &PairingCode,
        timeout_ms: u64,
    ) -> Result<Option<Joiner>> {
        let request = self.pair_request(&*self.parts.remotes.named(remote)?, code, timeout_ms)?;
        Ok(request.map(|request| Joiner {
            name: request.name,
            key: request.device.to_string(),
            fingerprint: request.device.fingerprint(),
        }))
    }

    /// Lets the device with this key in, which a person has confirmed to be the right one.
    ///
    /// # Errors
    /// [`Error::Refused`] when another device waits, or it belongs to the drive already; of the
    /// link, the index and the disk.
    pub fn pair_grant(
        &self,
        remote: &str,
        code: &PairingCode,
        device: &PublicKey,
        progress: &Progress,
    ) -> Result<DeviceInfo> {
        let remote = self.parts.remotes.named(remote)?;
        let request = self.waiting(&remote, code, device)?;
        // What others signed meanwhile must be seen by what is signed now.
        match self.parts.runtime.block_on(self.parts.pull(&remote, progress)) {
            Err(e) if !e.is_refusal() => return Err(e),
            _ => {}
        }
        let grant = self.add(&remote, &request, progress)?;
        let (mailbox, drive) = (code.mailbox(), self.secrets().drive());
        let answer = JoinAnswer::Granted(Box::new(grant));
        let answer = answer.seal(code, &request, &drive, &self.parts.env)?;
        self.parts.runtime.block_on(remote.link.pair_answer(mailbox, answer))?;
        let key = device.to_string();
        let added = self.devices()?.into_iter().find(|info| info.key == key).unwrap_or_default();
        // Its own commits tell its name, once there are some.
        Ok(DeviceInfo { name: request.name, ..added })
    }

    /// Tells the device that waits that it is not let in.
    ///
    /// # Errors
    /// As [`Drive::pair_grant`].
    pub fn pair_decline(&self, remote: &str, code: &PairingCode, device: &PublicKey) -> Result<()> {
        let remote = self.parts.remotes.named(remote)?;
        let request = self.waiting(&remote, code, device)?;
        let drive = self.secrets().drive();
        let answer = JoinAnswer::Declined.seal(code, &request, &drive, &self.parts.env)?;
        let answering = remote.link.pair_answer(code.mailbox(), answer);
        Ok(self.parts.runtime.block_on(answering)?)
    }

    /// Calls this device so, here at once and on the others with its next commit.
    ///
    /// # Errors
    /// [`Error::Refused`] for a name that is none; of the index.
    pub fn name_device(&self, name: &str) -> Result<DeviceInfo> {
        check_device_name(name).map_err(|why| Error::Refused(why.into()))?;
        let own = self.secrets().device.public();
        let named = DeviceName { name: name.to_owned(), stamp: None };
        self.parts.index.set_device_name(&own, &named)?;
        self.parts.tree.flush()?;
        self.parts.tree.checkpoint()?;
        self.tell(Event::Sealed);
        let found = self.devices()?.into_iter().find(|device| device.this_device);
        Ok(found.unwrap_or_default())
    }

    fn pair_request(
        &self,
        remote: &Remote,
        code: &PairingCode,
        timeout_ms: u64,
    ) -> Result<Option<JoinRequest>> {
        let waiting = remote.link.pair_wait(code.mailbox(), timeout_ms);
        let message = self.parts.runtime.block_on(waiting)?;
        message.map(|message| JoinRequest::open(code, &message)).transpose()
    }

    /// The request of this device and no other.
    fn waiting(
        &self,
        remote: &Remote,
        code: &PairingCode,
        device: &PublicKey,
    ) -> Result<JoinRequest> {
        let request = self.pair_request(remote, code, 0)?.filter(|r| r.device == *device);
        request.ok_or_else(|| Error::Refused("this device does not wait to be let in".into()))
    }

    /// Signs the entry that adds a device and sees to it that the remote has it.
    fn add(&self, remote: &Remote, request: &JoinRequest, progress: &Progress) -> Result<Grant> {
        let (log, index) = (&self.parts.log, &self.parts.index);
        self.check_admin()?;
        let added = self.parts.authority.change(|membership| {
            if membership.device(&request.device).is_some() {
                return Err(Error::Refused("it is or was a device of this drive already".into()));
            }
            Ok(addition(membership, request.device, &request.wrap_key)?.0)
        })?;
        let secrets = self.secrets();
        if log.membership().device(&request.device).is_none() {
            return Err(Error::Refused("what other members signed forbids to add it".into()));
        }
        self.keep_known();
        let seen = self.parts.runtime.block_on(self.send_logs(remote, &added, progress))?;
        let seen = seen.into_iter().filter_map(|head| {
            let ours = index.entry_hash(&head.log, head.number).transpose()?;
            ours.map(|ours| (ours == head.hash).then_some(head)).transpose()
        });
        let mut seen = seen.collect::<Result<Vec<_>>>()?;
        seen.sort_by_key(|head| head.log);
        let named = check_device_name(&remote.name).map(|()| remote.name.as_str());
        Grant::new(secrets.shared(), added, seen, named.unwrap_or(REMOTE).to_owned())
    }

    /// Sends what the remote lacks of all logs; the heads it has then, the entry among them.
    async fn send_logs(
        &self,
        remote: &Remote,
        added: &Entry,
        progress: &Progress,
    ) -> Result<Vec<Head>> {
        let theirs = self.parts.remotes.noted(remote, remote.link.heads().await)?;
        let sent = self.parts.log.send(&*remote.link, &theirs, progress).await;
        let theirs = self.parts.remotes.noted(remote, remote.link.heads().await)?;
        let has = |head: &Head| head.log == added.log && head.number >= added.number;
        match (sent, theirs.iter().any(has)) {
            (Err(e), false) => Err(e),
            (Ok(_), false) => Err(Error::Refused("the remote does not keep the entry".into())),
            // Another log that is refused there is told by a sync.
            (Err(e), true) if !e.is_refusal() => Err(e),
            (_, true) => Ok(theirs),
        }
    }

    fn check_admin(&self) -> Result<()> {
        match self.parts.log.membership().is_admin(&self.secrets().device.public()) {
            true => Ok(()),
            false => Err(Error::Refused("this device may not add others to the drive".into())),
        }
    }
}
