//! Founding a drive, and coming back to one with nothing but its phrase and a remote.
//!
//! Either way ends with a keybag and an index that holds the membership; the keybag is written
//! last, so that what broke off before is no drive and can be begun again.

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use rdrivefs_remote::entry::{Entry, LogId, LogKind};
use rdrivefs_remote::env::Env;
use rdrivefs_remote::identity::SecretKey;
use rdrivefs_remote::link::{Credentials, Link, NodeUrl};
use rdrivefs_remote::logs::Logs as _;
use rdrivefs_remote::member::{Change, Membership, RECOVERY};
use tokio::runtime::Handle;

use crate::error::{Error, Result};
use crate::home::{Config, Home, replace_file};
use crate::id::DeviceNumber;
use crate::index::Index;
use crate::index::ledger::RemoteRow;
use crate::keybag::{Keybag, Secrets, Unlock};
use crate::keys::{Epoch, Phrase, Recipient, Root, WrapSecret};
use crate::log::Log;
use crate::progress::Progress;
use crate::seal::Key;

/// The instance a device begins with; a restored one takes a new number altogether.
const FIRST_INSTANCE: u32 = 0;

/// Founds a drive; returns its phrase, which is kept nowhere.
///
/// # Errors
/// [`Error::DriveExists`]; of the disk.
pub(super) fn create(home: &Home, unlock: &Unlock<'_>, env: &Env) -> Result<Phrase> {
    let phrase = Phrase::generate(env);
    let root = Root::from(&phrase);
    let device = Newcomer::new(env);
    let mut membership = Membership::replay(root.drive(), &root.secret.public(), &[])?;
    let (added, number) = device.addition(&membership, &root.secret)?;
    membership =
        Membership::replay(root.drive(), &root.secret.public(), std::slice::from_ref(&added))?;
    let epoch = Epoch::begin(root.drive(), &[], env);
    let recipients = [Recipient::recovery(&root.recovery_key()), device.recipient()];
    let change = Change::Epoch(epoch.record(&recipients));
    let begun = membership.sign(&root.secret, FIRST_INSTANCE, change)?;
    let secrets = device.secrets(&root, number, vec![epoch], env);
    let index = prepare(home, &secrets.local, env)?;
    for entry in [added, begun] {
        index.add_entry(&entry.head(), true, &entry.encode())?;
    }
    finish(home, &index, secrets, unlock, env)?;
    Ok(phrase)
}

/// Comes back to the drive of `phrase` through one remote, as a new device of it.
///
/// What is refused of the logs there is returned, and keeps nobody from the rest.
///
/// # Errors
/// [`Error::Phrase`] when the remote has no drive of this phrase; of the link and the disk.
pub(super) fn recover(
    home: &Home,
    phrase: &Phrase,
    url: &NodeUrl,
    unlock: &Unlock<'_>,
    env: &Env,
    runtime: &Handle,
    progress: &Progress,
) -> Result<Option<Error>> {
    let root = Root::from(phrase);
    let credentials = as_root(&root, url);
    let link = runtime.block_on(Link::dial(url, credentials, env)).map_err(|e| match e {
        rdrivefs_remote::Error::Refused(why) => Error::Phrase(format!(
            "the node keeps no drive of this phrase ({why}); check the words and the URL"
        )),
        e => e.into(),
    })?;
    let device = Newcomer::new(env);
    let local = Key::random(env);
    let index = Arc::new(prepare(home, &local, env)?);
    let come_back = || -> Result<Option<Error>> {
        let log = Log::open(root.drive(), root.secret.public(), device.log(), index.clone())?;
        let heads = runtime.block_on(link.heads())?;
        let refused = match runtime.block_on(log.receive(&link, &heads, progress)) {
            Err(e) if e.is_refusal() => Some(e),
            received => received.map(|_| None)?,
        };
        let epochs = open_epochs(&root, &log.membership())?;
        let (added, number) = device.addition(&log.membership(), &root.secret)?;
        log.accept(added.encode())?;
        runtime.block_on(log.send(&link, &heads, progress))?;
        let lasting = NodeUrl { invite: None, ..url.clone() };
        index.add_remote(&RemoteRow {
            name: "home".into(),
            url: lasting.to_string(),
            added_ms: env.wall_ms().0,
        })?;
        let secrets =
            Secrets { local: local.clone(), ..device.secrets(&root, number, epochs, env) };
        finish(home, &index, secrets, unlock, env)?;
        Ok(refused)
    };
    let result = come_back();
    runtime.block_on(link.close());
    if result.is_err() {
        drop(fs::remove_file(home.index_file()));
    }
    result
}

/// A device that is about to join.
pub(super) struct Newcomer {
    device: SecretKey,
    wrap: WrapSecret,
}

impl Newcomer {
    pub(super) fn new(env: &Env) -> Self {
        let wrap = WrapSecret::from_seed(Key::random(env));
        Self { device: SecretKey::generate(env), wrap }
    }

    pub(super) fn log(&self) -> LogId {
        let author = self.device.public();
        LogId { kind: LogKind::Commits, author, instance: FIRST_INSTANCE }
    }

    fn recipient(&self) -> Recipient {
        Recipient { who: self.device.public(), key: self.wrap.public() }
    }

    pub(super) fn addition(
        &self,
        membership: &Membership,
        signer: &SecretKey,
    ) -> Result<(Entry, DeviceNumber)> {
        let number = membership
            .next_number()
            .ok_or_else(|| Error::Refused("the drive has had 65,535 devices already".into()))?;
        let wrap_key = Bytes::copy_from_slice(self.wrap.public().as_bytes());
        let change = Change::Add { device: self.device.public(), number, admin: true, wrap_key };
        let entry = membership.sign(signer, FIRST_INSTANCE, change)?;
        Ok((entry, DeviceNumber(number)))
    }

    /// What a device knows that goes on under this identity.
    pub(super) fn instead_of(&self, old: &Secrets, number: DeviceNumber) -> Secrets {
        let (device, wrap, instance) = (self.device.clone(), self.wrap.clone(), FIRST_INSTANCE);
        Secrets { device, wrap, number, instance, ..old.clone() }
    }

    fn secrets(&self, root: &Root, number: DeviceNumber, epochs: Vec<Epoch>, env: &Env) -> Secrets {
        let first = epochs.first().expect("a drive has an epoch from its first moment");
        Secrets {
            root: root.secret.public(),
            recovery: root.recovery_key(),
            device: self.device.clone(),
            wrap: self.wrap.clone(),
            number,
            instance: FIRST_INSTANCE,
            chunker: first.chunker_key(),
            local: Key::random(env),
            epochs,
        }
    }
}

fn as_root(root: &Root, url: &NodeUrl) -> Credentials {
    Credentials {
        drive: root.drive(),
        root: root.secret.public(),
        device: root.secret.clone(),
        membership: Vec::new(),
        invite: url.invite.clone(),
    }
}

fn open_epochs(root: &Root, membership: &Membership) -> Result<Vec<Epoch>> {
    let open = |record| Epoch::open(root.drive(), record, &RECOVERY, &root.recovery);
    let epochs: Vec<_> = membership.epochs().iter().map(open).collect::<Result<_>>()?;
    if epochs.is_empty() {
        return Err(Error::Phrase(
            "the node keeps nothing of this drive yet; sync a device with it first".into(),
        ));
    }
    Ok(epochs)
}

fn prepare(home: &Home, local: &Key, env: &Env) -> Result<Index> {
    home.make()?;
    let left = home.index_file();
    if home.has_drive() {
        return Err(Error::DriveExists(home.config_dir().display().to_string()));
    }
    if left.exists() {
        return Err(Error::Refused(format!(
            "{} holds an index without keys, left by a start that broke off or by lost keys; \
             move the folder away to begin anew",
            home.state_dir().display()
        )));
    }
    Index::open(&left, local, env.clone())
}

fn finish(
    home: &Home,
    index: &Index,
    secrets: Secrets,
    unlock: &Unlock<'_>,
    env: &Env,
) -> Result<()> {
    index.checkpoint()?;
    if !home.config_file().exists() {
        replace_file(&home.config_file(), Config::TEMPLATE.as_bytes())?;
    }
    Keybag::create(&home.keys_file(), secrets, unlock, env)?;
    Ok(())
}
