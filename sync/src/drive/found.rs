//! Founding a drive, coming back to one with nothing but its phrase and a remote, and joining one
//! with a code.
//!
//! Each way ends with a keybag and an index that holds the membership; the keybag is written
//! last, so that what broke off before is no drive and can be begun again.

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use rdrivefs_remote::entry::{Entry, Head, LogId, LogKind};
use rdrivefs_remote::env::Env;
use rdrivefs_remote::identity::{DriveId, PublicKey, SecretKey};
use rdrivefs_remote::link::{Credentials, Link, NodeUrl};
use rdrivefs_remote::logs::Logs as _;
use rdrivefs_remote::member::{Change, Membership, RECOVERY};
use tokio::runtime::Handle;

use crate::error::{Error, Result};
use crate::home::{Config, Home, replace_file};
use crate::id::DeviceNumber;
use crate::index::Index;
use crate::index::devices::DeviceName;
use crate::index::ledger::RemoteRow;
use crate::keybag::{Keybag, Secrets, Shared, Unlock};
use crate::keys::{Epoch, Phrase, Recipient, Root, WrapPublic, WrapSecret};
use crate::log::Log;
use crate::pairing::{JoinAnswer, JoinRequest, PairingCode};
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
    let secrets = device.secrets(shared(&root, vec![epoch]), number, Key::random(env));
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
    at: &Place<'_>,
    phrase: &Phrase,
    url: &NodeUrl,
    progress: &Progress,
) -> Result<Option<Error>> {
    let root = Root::from(phrase);
    let (device, credentials) = (Newcomer::new(at.env), as_root(&root, url));
    let dialled = at.runtime.block_on(Link::dial(url, credentials, at.env));
    let link = dialled.map_err(|e| match e {
        rdrivefs_remote::Error::Refused(why) => Error::Phrase(format!(
            "the node keeps no drive of this phrase ({why}); check the words and the URL"
        )),
        e => e.into(),
    })?;
    at.begin(|index, local| {
        let (log, heads, refused) =
            at.receive(&link, &root.secret.public(), &device, index, progress)?;
        let epochs = open_epochs(&root, &log.membership())?;
        let (added, number) = device.addition(&log.membership(), &root.secret)?;
        log.accept(added.encode())?;
        at.runtime.block_on(log.send(&link, &heads, progress))?;
        at.runtime.block_on(link.close());
        let secrets = device.secrets(shared(&root, epochs), number, local);
        at.end(index, "home", url, secrets)?;
        Ok(refused)
    })
}

/// Joins the drive of whoever drew `code`, as a device called `name`; whom it was let in by.
///
/// As with [`recover`] refused logs keep nobody from the rest, nor does a node that shows less of
/// them than it showed the other device.
///
/// # Errors
/// [`Error::Code`] when what came back was not made with the code; [`Error::Declined`]; of the link
/// and the disk.
pub(super) fn join(
    at: &Place<'_>,
    code: &PairingCode,
    name: &str,
    progress: &Progress,
    tell: &dyn Fn(&PublicKey),
) -> Result<(PublicKey, Option<Error>)> {
    check_free(at.home)?;
    let device = Newcomer::new(at.env);
    let (secret, own, url) = (&device.device, device.device.public(), &code.node);
    let request = JoinRequest::seal(code, secret, &device.wrap, name, at.env)?;
    tell(&own);
    let answered = Link::pair_join(url, secret, code.mailbox(), request.clone(), at.env);
    let answer = at.runtime.block_on(answered)?;
    let grant = match JoinAnswer::open(code, &request, &own, &device.wrap, &answer)? {
        JoinAnswer::Granted(grant) => *grant,
        JoinAnswer::Declined => return Err(Error::Declined),
    };
    let (root, enroller) = (grant.shared.root, grant.enroller());
    let credentials = Credentials {
        drive: DriveId::of(&root),
        root,
        device: secret.clone(),
        membership: vec![grant.added.encode()],
        invite: None,
    };
    let link = at.runtime.block_on(Link::dial(url, credentials, at.env))?;
    at.begin(|index, local| {
        let (log, _, refused) = at.receive(&link, &root, &device, index, progress)?;
        at.runtime.block_on(link.close());
        check_added(&log.membership(), &own, grant.number)?;
        let refused = refused.or(check_seen(&grant.seen, index)?);
        let named = DeviceName { name: name.to_owned(), stamp: None };
        index.set_device_name(&own, &named)?;
        let secrets = device.secrets(grant.shared, grant.number, local);
        at.end(index, &grant.remote, url, secrets)?;
        Ok((enroller, refused))
    })
}

/// The entry that adds this device must count among all there are.
fn check_added(membership: &Membership, own: &PublicKey, number: DeviceNumber) -> Result<()> {
    let member = membership.device(own).filter(|member| member.revoked.is_none());
    match member {
        Some(member) if member.number == number.0 => Ok(()),
        _ => Err(Error::Refused(
            "the other members changed the drive at the same time, and this device is none of \
             theirs: pair it once more"
                .into(),
        )),
    }
}

/// A node that shows less than it did to the other device has gone back, or hides something.
fn check_seen(seen: &[Head], index: &Index) -> Result<Option<Error>> {
    for head in seen {
        if index.entry_hash(&head.log, head.number)? != Some(head.hash) {
            return Ok(Some(Error::Refused(format!(
                "the node showed entry {} of {} to the other device and does not show it to this one",
                head.number,
                head.log.author.fingerprint()
            ))));
        }
    }
    Ok(None)
}

/// Where a device begins, and what it begins with.
pub(super) struct Place<'a> {
    pub(super) home: &'a Home,
    pub(super) unlock: &'a Unlock<'a>,
    pub(super) env: &'a Env,
    pub(super) runtime: &'a Handle,
}

impl Place<'_> {
    /// Does `work` with an empty index and the key it is sealed with; if it fails, the index goes.
    fn begin<T>(&self, work: impl FnOnce(&Arc<Index>, Key) -> Result<T>) -> Result<T> {
        let local = Key::random(self.env);
        let index = Arc::new(prepare(self.home, &local, self.env)?);
        let done = work(&index, local);
        if done.is_err() {
            drop(fs::remove_file(self.home.index_file()));
        }
        done
    }

    /// Receives all logs that a remote has, with the heads it shows and the first refusal.
    fn receive(
        &self,
        link: &Link,
        root: &PublicKey,
        device: &Newcomer,
        index: &Arc<Index>,
        progress: &Progress,
    ) -> Result<(Log, Vec<Head>, Option<Error>)> {
        let log = Log::open(DriveId::of(root), *root, device.log(), index.clone())?;
        let heads = self.runtime.block_on(link.heads())?;
        let refused = match self.runtime.block_on(log.receive(link, &heads, progress)) {
            Err(e) if e.is_refusal() => Some(e),
            received => received.map(|_| None)?,
        };
        Ok((log, heads, refused))
    }

    /// From here on there is a drive, and it has this remote.
    fn end(&self, index: &Index, remote: &str, url: &NodeUrl, secrets: Secrets) -> Result<()> {
        index.add_remote(&RemoteRow {
            name: remote.to_owned(),
            url: url.without_invite().to_string(),
            added_ms: self.env.wall_ms().0,
        })?;
        finish(self.home, index, secrets, self.unlock, self.env)
    }
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
        let (change, number) = addition(membership, self.device.public(), &self.wrap.public())?;
        Ok((membership.sign(signer, FIRST_INSTANCE, change)?, number))
    }

    /// What a device knows that goes on under this identity.
    pub(super) fn instead_of(&self, old: &Secrets, number: DeviceNumber) -> Secrets {
        let (device, wrap, instance) = (self.device.clone(), self.wrap.clone(), FIRST_INSTANCE);
        Secrets { device, wrap, number, instance, ..old.clone() }
    }

    fn secrets(&self, shared: Shared, number: DeviceNumber, local: Key) -> Secrets {
        Secrets {
            root: shared.root,
            recovery: shared.recovery,
            device: self.device.clone(),
            wrap: self.wrap.clone(),
            number,
            instance: FIRST_INSTANCE,
            chunker: shared.chunker,
            local,
            epochs: shared.epochs,
        }
    }
}

/// The entry by which `signer` adds a device, and the number it gives.
///
/// # Errors
/// [`Error::Refused`] when all numbers were given.
pub(super) fn addition(
    membership: &Membership,
    device: PublicKey,
    wrap_key: &WrapPublic,
) -> Result<(Change, DeviceNumber)> {
    let number = membership
        .next_number()
        .ok_or_else(|| Error::Refused("the drive has had 65,535 devices already".into()))?;
    let wrap_key = Bytes::copy_from_slice(wrap_key.as_bytes());
    Ok((Change::Add { device, number, admin: true, wrap_key }, DeviceNumber(number)))
}

/// What the holder of the phrase knows that all devices know.
fn shared(root: &Root, epochs: Vec<Epoch>) -> Shared {
    let first = epochs.first().expect("a drive has an epoch from its first moment");
    let chunker = first.chunker_key();
    Shared { root: root.secret.public(), recovery: root.recovery_key(), chunker, epochs }
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
    check_free(home)?;
    Index::open(&home.index_file(), local, env.clone())
}

fn check_free(home: &Home) -> Result<()> {
    home.make()?;
    if home.has_drive() {
        return Err(Error::DriveExists(home.config_dir().display().to_string()));
    }
    if home.index_file().exists() {
        return Err(Error::Refused(format!(
            "{} holds an index without keys, left by a start that broke off or by lost keys; \
             move the folder away to begin anew",
            home.state_dir().display()
        )));
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s18_a_node_that_shows_a_new_device_less_than_another_is_exposed() {
        let env = Env::real();
        let dir = tempfile::tempdir().unwrap();
        let index =
            Index::open(&dir.path().join("index"), &Key::random(&env), env.clone()).unwrap();
        let root = Root::from(&Phrase::generate(&env));
        let mut membership = Membership::replay(root.drive(), &root.secret.public(), &[]).unwrap();
        let mut heads = Vec::new();
        for _ in 0..2 {
            let (entry, _) = Newcomer::new(&env).addition(&membership, &root.secret).unwrap();
            index.add_entry(&entry.head(), true, &entry.encode()).unwrap();
            heads.push(entry.head());
            membership = Membership::replay(root.drive(), &root.secret.public(), &[entry]).unwrap();
        }
        assert!(check_seen(&heads, &index).unwrap().is_none());
        let later = Head { number: 3, ..heads[1] };
        let other = Head { hash: [7; 32], ..heads[0] };
        for hidden in [later, other] {
            let found = check_seen(&[heads[0], hidden], &index).unwrap();
            assert!(found.unwrap().to_string().contains("does not show it"));
        }
    }
}
