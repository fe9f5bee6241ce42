//! Epochs: the span of one drive key.
//!
//! ```text
//! id         = derive("rdrivefs v1 epoch id", drive ‖ key ‖ parents' ids, ascending)
//! wrapped    = key ‖ keys of the parents, in the order of their ids
//! randomness = derive("rdrivefs v1 wrap randomness", key ‖ id ‖ recipient ‖ recipient's wrap key)
//! associated = "rdrivefs/v1/wrap" ‖ drive ‖ id ‖ recipient
//! ```
//!
//! The id commits to the key and the parents. Wraps are a function of the epoch and of whom it is
//! for: a member recomputes them all and refuses an epoch that shuts somebody, or the phrase, out,
//! or lets somebody else in. Whoever holds an epoch can open its ancestors the same way.
//!
//! One key per purpose is derived with a label; the epoch's key itself seals nothing.

use std::fmt;

use bytes::Bytes;
use rdrivefs_remote::env::Env;
use rdrivefs_remote::identity::{DriveId, PublicKey};
use rdrivefs_remote::member::{self, EpochId, RECOVERY, Wrap};
use zeroize::Zeroizing;

use super::phrase::RecoveryKey;
use super::wrap::{self, WrapPublic, WrapSecret};
use crate::error::{Error, Result};
use crate::seal::{KEY_BYTES, Key};

/// More concurrent epochs than admins of one drive start between two meetings.
pub const PARENTS_MAX: usize = 16;

/// One drive key.
#[derive(Clone, PartialEq, Eq)]
pub struct Epoch {
    drive: DriveId,
    id: EpochId,
    key: Key,
    /// In ascending order of ids.
    parents: Vec<(EpochId, Key)>,
}

/// Somebody an epoch is wrapped to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// A device, or [`RECOVERY`].
    pub who: PublicKey,
    /// Its wrapping key.
    pub key: WrapPublic,
}

impl Recipient {
    /// The recovery phrase, by the key that the root vouches for.
    pub fn recovery(key: &RecoveryKey) -> Self {
        Self { who: RECOVERY, key: key.key.clone() }
    }
}

impl Epoch {
    /// A fresh epoch after `parents`; none for a drive's first.
    ///
    /// # Panics
    /// When there are more than [`PARENTS_MAX`] parents.
    pub fn begin(drive: DriveId, parents: &[&Self], env: &Env) -> Self {
        assert!(parents.len() <= PARENTS_MAX, "heads are joined long before there are that many");
        let mut parents: Vec<_> = parents.iter().map(|p| (p.id, p.key.clone())).collect();
        parents.sort_by_key(|(id, _)| *id);
        parents.dedup_by_key(|(id, _)| *id);
        Self::of_parts(drive, Key::random(env), parents)
    }

    /// The epoch with this key and these parents, which are in ascending order of ids.
    pub fn of_parts(drive: DriveId, key: Key, parents: Vec<(EpochId, Key)>) -> Self {
        let id = id_of(&drive, &key, parents.iter().map(|(id, _)| id));
        Self { drive, id, key, parents }
    }

    /// Opens an epoch with a device's or recovery's wrapping key.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is not wrapped to `who`, does not open, or is not what its id
    /// says.
    pub fn open(
        drive: DriveId,
        record: &member::Epoch,
        who: &PublicKey,
        secret: &WrapSecret,
    ) -> Result<Self> {
        let aad = associated(&drive, &record.id, who);
        let keys = wrap::unwrap(secret, &aad, wrap_for(record, who)?)?;
        Self::of_keys(drive, record, &Zeroizing::new(keys))
    }

    /// Opens the record of a parent of this epoch.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is no parent, has no true wrap for `witness` (anybody it was
    /// wrapped to, [`RECOVERY`] for one), or is not what its id says.
    pub fn open_parent(&self, record: &member::Epoch, witness: &Recipient) -> Result<Self> {
        let parent = self.parents.iter().find(|(id, _)| *id == record.id);
        let (_, key) =
            parent.ok_or_else(|| bad("it is no parent of the epoch that leads to it"))?;
        let aad = associated(&self.drive, &record.id, &witness.who);
        let randomness = randomness(key, &record.id, witness);
        let sealed = wrap_for(record, &witness.who)?;
        let keys = wrap::reopen(&witness.key, &randomness, &aad, sealed)?;
        Self::of_keys(self.drive, record, &Zeroizing::new(keys))
    }

    fn of_keys(drive: DriveId, record: &member::Epoch, keys: &[u8]) -> Result<Self> {
        let (keys, []) = keys.as_chunks::<KEY_BYTES>() else {
            return Err(bad("its wrap holds no whole number of keys"));
        };
        let Some((key, parents)) = keys.split_first() else {
            return Err(bad("its wrap holds no key"));
        };
        let ascending = record.parents.is_sorted_by(|a, b| a < b);
        if parents.len() != record.parents.len() || parents.len() > PARENTS_MAX || !ascending {
            return Err(bad("its parents are not those whose keys it holds"));
        }
        let parents = record.parents.iter().copied().zip(parents.iter().map(|k| Key::from(*k)));
        let epoch = Self::of_parts(drive, Key::from(*key), parents.collect());
        if epoch.id != record.id {
            return Err(bad("its key is not the one its id names"));
        }
        Ok(epoch)
    }

    /// The record that hands this epoch to `recipients`.
    pub fn record(&self, recipients: &[Recipient]) -> member::Epoch {
        let mut wraps: Vec<Wrap> = recipients.iter().map(|to| self.wrap(to)).collect();
        wraps.sort_by_key(|wrap| wrap.to);
        wraps.dedup_by_key(|wrap| wrap.to);
        let parents = self.parents.iter().map(|(id, _)| *id).collect();
        member::Epoch { id: self.id, parents, wraps }
    }

    /// Checks that a record hands this epoch to exactly these recipients, each by a true wrap.
    ///
    /// # Errors
    /// [`Error::Refused`] saying who is shut out, let in, or handed something else.
    pub fn check_wraps(&self, record: &member::Epoch, recipients: &[Recipient]) -> Result<()> {
        let refuse = |why: String| Err(Error::Refused(format!("epoch {}: {why}", short(&self.id))));
        let expected = self.record(recipients);
        if record.id != expected.id || record.parents != expected.parents {
            return refuse("the record is of another epoch".to_owned());
        }
        let has = |list: &[Wrap], who: &PublicKey| list.iter().any(|wrap| wrap.to == *who);
        if let Some(out) = expected.wraps.iter().find(|wrap| !has(&record.wraps, &wrap.to)) {
            return refuse(format!("it shuts out {}", name(&out.to)));
        }
        if let Some(extra) = record.wraps.iter().find(|wrap| !has(&expected.wraps, &wrap.to)) {
            return refuse(format!("it lets in {}", name(&extra.to)));
        }
        let mut pairs = expected.wraps.iter().zip(&record.wraps);
        if let Some((_, wrap)) = pairs.find(|(a, b)| a != b) {
            return refuse(format!("it hands {} something else", name(&wrap.to)));
        }
        if record.wraps.len() != expected.wraps.len() {
            return refuse("it names a recipient twice".to_owned());
        }
        Ok(())
    }

    fn wrap(&self, to: &Recipient) -> Wrap {
        let mut keys = Zeroizing::new(Vec::with_capacity((1 + PARENTS_MAX) * KEY_BYTES));
        keys.extend_from_slice(self.key.as_bytes());
        self.parents.iter().for_each(|(_, key)| keys.extend_from_slice(key.as_bytes()));
        let randomness = randomness(&self.key, &self.id, to);
        let aad = associated(&self.drive, &self.id, &to.who);
        let sealed = Bytes::from(wrap::wrap(&to.key, &randomness, &aad, &keys));
        Wrap { to: to.who, sealed }
    }

    /// The drive it belongs to.
    pub fn drive(&self) -> DriveId {
        self.drive
    }

    /// Its name.
    pub fn id(&self) -> EpochId {
        self.id
    }

    /// The epochs it follows.
    pub fn parents(&self) -> impl Iterator<Item = EpochId> + '_ {
        self.parents.iter().map(|(id, _)| *id)
    }

    /// The keys it is made of, for keeping them sealed.
    pub fn parts(&self) -> (&Key, &[(EpochId, Key)]) {
        (&self.key, &self.parents)
    }

    /// Seals the bodies of commits.
    pub fn log_key(&self) -> Key {
        self.derive("rdrivefs v1 epoch log")
    }

    /// Names chunks within the drive: BLAKE3 keyed with this, of the plain bytes.
    pub fn dedup_key(&self) -> Key {
        self.derive("rdrivefs v1 epoch dedup")
    }

    /// Hashes names that must not be readable where they are looked up.
    pub fn names_key(&self) -> Key {
        self.derive("rdrivefs v1 epoch names")
    }

    /// Seals what is content but lies in no layer.
    pub fn content_key(&self) -> Key {
        self.derive("rdrivefs v1 epoch content")
    }

    /// What the chunker's keys grow from. Asked of a drive's first epoch alone: cut points must
    /// not move when the epoch does.
    pub fn chunker_key(&self) -> Key {
        self.derive("rdrivefs v1 drive chunker")
    }

    fn derive(&self, label: &'static str) -> Key {
        Key::derive(label, &[self.key.as_bytes(), &self.id.0])
    }
}

fn id_of<'a>(drive: &DriveId, key: &Key, parents: impl Iterator<Item = &'a EpochId>) -> EpochId {
    let mut hasher = blake3::Hasher::new_derive_key("rdrivefs v1 epoch id");
    hasher.update(&drive.0).update(key.as_bytes());
    for id in parents {
        hasher.update(&id.0);
    }
    EpochId(*hasher.finalize().as_bytes())
}

fn randomness(key: &Key, id: &EpochId, to: &Recipient) -> Key {
    let material: [&[u8]; 4] = [key.as_bytes(), &id.0, &to.who.0, to.key.as_bytes()];
    Key::derive("rdrivefs v1 wrap randomness", &material)
}

fn associated(drive: &DriveId, id: &EpochId, to: &PublicKey) -> Vec<u8> {
    [b"rdrivefs/v1/wrap", &drive.0[..], &id.0, &to.0].concat()
}

fn wrap_for<'a>(record: &'a member::Epoch, who: &PublicKey) -> Result<&'a [u8]> {
    let wrap = record.wraps.iter().find(|wrap| wrap.to == *who);
    wrap.map(|wrap| &wrap.sealed[..]).ok_or_else(|| bad("it is not wrapped to this key"))
}

fn bad(why: &str) -> Error {
    Error::corrupt("an epoch", why)
}

fn short(id: &EpochId) -> String {
    hex::encode(&id.0[..8])
}

fn name(who: &PublicKey) -> String {
    if *who == RECOVERY { "the recovery phrase".to_owned() } else { who.fingerprint() }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({})", short(&self.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{Phrase, Root};

    const DRIVE: DriveId = DriveId([3; 32]);

    fn member(byte: u8) -> (WrapSecret, Recipient) {
        let secret = WrapSecret::from_seed(Key::from([byte; 32]));
        let key = secret.public();
        (secret, Recipient { who: PublicKey([byte; 32]), key })
    }

    fn recovery() -> (Root, Recipient) {
        let root = Root::from(&Phrase::from_entropy(&[1; 32]));
        let recipient = Recipient::recovery(&root.recovery_key());
        (root, recipient)
    }

    #[test]
    fn members_and_the_phrase_open_an_epoch_and_its_ancestors() {
        let env = Env::real();
        let ((a, to_a), (root, to_recovery)) = (member(1), recovery());
        let first = Epoch::begin(DRIVE, &[], &env);
        let (left, right) =
            (Epoch::begin(DRIVE, &[&first], &env), Epoch::begin(DRIVE, &[&first], &env));
        let child = Epoch::begin(DRIVE, &[&right, &left, &right], &env);
        let to = [to_recovery.clone(), to_a];
        let records = [&first, &left, &child].map(|epoch| epoch.record(&to));

        let opened = Epoch::open(DRIVE, &records[2], &RECOVERY, &root.recovery).unwrap();
        assert_eq!(opened, child);
        assert_eq!(Epoch::open(DRIVE, &records[2], &PublicKey([1; 32]), &a).unwrap(), child);
        let back = opened.open_parent(&records[1], &to_recovery).unwrap();
        assert_eq!(back, left);
        assert_eq!(back.open_parent(&records[0], &to_recovery).unwrap(), first);
        assert!(opened.open_parent(&records[0], &to_recovery).is_err());
        opened.check_wraps(&records[2], &to).unwrap();
    }

    #[test]
    fn s05_an_epoch_with_other_recipients_is_refused_and_they_are_named() {
        let env = Env::real();
        let ((_, to_a), (_, to_b), (_, to_recovery)) = (member(1), member(2), recovery());
        let epoch = Epoch::begin(DRIVE, &[], &env);
        let all = [to_a.clone(), to_b.clone(), to_recovery.clone()];
        let said = |record| epoch.check_wraps(&record, &all).unwrap_err().to_string();
        epoch.check_wraps(&epoch.record(&all), &all).unwrap();
        assert!(said(epoch.record(&all[..2])).contains("shuts out the recovery phrase"));
        assert!(said(epoch.record(&all[1..])).contains(&to_a.who.fingerprint()));
        let more = [&all[..], &[member(4).1]].concat();
        assert!(said(epoch.record(&more)).contains("lets in"));
        // The phrase is named, but the wrap is made out to somebody else's key.
        let forged = Recipient { who: RECOVERY, key: to_b.key.clone() };
        let record = epoch.record(&[to_a, to_b, forged]);
        assert!(said(record).contains("hands the recovery phrase something else"));
        let mut twice = epoch.record(&all);
        twice.wraps.push(twice.wraps[2].clone());
        assert!(epoch.check_wraps(&twice, &all).is_err());
        let other = Epoch::begin(DRIVE, &[], &env).record(&all);
        assert!(said(other).contains("another epoch"));
    }

    #[test]
    fn s11_a_wrap_of_another_epoch_or_place_does_not_open() {
        let env = Env::real();
        let ((a, to_a), (b, to_b)) = (member(1), member(2));
        let (old, new) = (Epoch::begin(DRIVE, &[], &env), Epoch::begin(DRIVE, &[], &env));
        let (who_a, who_b) = (to_a.who, to_b.who);
        let to = [to_a, to_b];
        let mut replayed = new.record(&to);
        replayed.wraps = old.record(&to).wraps;
        assert!(Epoch::open(DRIVE, &replayed, &who_a, &a).is_err());
        let mut swapped = new.record(&to);
        let (x, y) = (swapped.wraps[0].sealed.clone(), swapped.wraps[1].sealed.clone());
        (swapped.wraps[0].sealed, swapped.wraps[1].sealed) = (y, x);
        assert!(Epoch::open(DRIVE, &swapped, &who_a, &a).is_err());
        assert!(Epoch::open(DRIVE, &swapped, &who_b, &b).is_err());
        let record = new.record(&to);
        assert!(Epoch::open(DriveId([4; 32]), &record, &who_a, &a).is_err());
        assert!(Epoch::open(DRIVE, &record, &who_b, &a).is_err());
        let mut relabelled = record.clone();
        relabelled.parents = vec![old.id()];
        assert!(Epoch::open(DRIVE, &relabelled, &who_a, &a).is_err());
        assert_eq!(Epoch::open(DRIVE, &record, &who_a, &a).unwrap(), new);
    }

    #[test]
    fn every_purpose_has_a_key_of_its_own() {
        let epoch = Epoch::begin(DRIVE, &[], &Env::real());
        let keys = [
            epoch.log_key(),
            epoch.dedup_key(),
            epoch.names_key(),
            epoch.content_key(),
            epoch.chunker_key(),
            epoch.key.clone(),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key));
        }
        assert!(!format!("{epoch:?}").contains(&hex::encode(epoch.key.as_bytes())));
    }
}
