//! The roll: the membership entries of one drive, decoded once, and the membership they make.
//!
//! What is on the roll is what lies in the drive's logs. Every bound here is well below the one at
//! which a membership can no longer be weighed, so nothing that was stored can stop a drive; and a
//! part of each bound is the root's alone, so that others cannot use up what revoking them takes.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::entry::{Entry, Head, LogKind};
use crate::error::{Error, Result};
use crate::identity::{DriveId, PublicKey};
use crate::member::Membership;
use crate::thread::on_a_thread;
use crate::wire::HEADS_MAX;

/// Logs of one kind by one author: one for each life of a device.
const LIVES_MAX: usize = 64;
/// Membership logs of all admins together; the root's come on top.
const ADMIN_LOGS_MAX: usize = 960;
/// Logs of commits: what membership and the root leave of the heads that one answer holds.
const COMMIT_LOGS_MAX: usize = HEADS_MAX - ADMIN_LOGS_MAX - 2 * LIVES_MAX;

/// Membership entries and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    entries: usize,
    bytes: u64,
}

/// For the root alone: a thousand devices, and some hundred epochs of as many wraps.
const ROOT_MAX: Tally = Tally { entries: 1024, bytes: 8 << 20 };
/// For one admin: a device's whole life takes a handful.
const ADMIN_MAX: Tally = Tally { entries: 256, bytes: 4 << 20 };
/// For all admins together.
const ADMINS_MAX: Tally = Tally { entries: 1024, bytes: 24 << 20 };

/// The membership entries of one drive.
pub(super) struct Roll {
    drive: DriveId,
    root: PublicKey,
    entries: Vec<Entry>,
    hashes: HashSet<[u8; 32]>,
    tallies: BTreeMap<PublicKey, Tally>,
    /// What the first `weighed` entries make.
    membership: Arc<Membership>,
    weighed: usize,
}

impl Roll {
    /// The roll of these entries, as they were stored.
    pub(super) async fn open(drive: DriveId, root: PublicKey, entries: Vec<Entry>) -> Result<Self> {
        let membership = Arc::new(Membership::replay(drive, &root, &[])?);
        let (hashes, tallies) = (HashSet::new(), BTreeMap::new());
        let nothing = Vec::new();
        let mut roll =
            Self { drive, root, entries: nothing, hashes, tallies, membership, weighed: 0 };
        entries.into_iter().for_each(|entry| roll.add(entry));
        roll.adopt().await?;
        Ok(roll)
    }

    /// The membership as it was adopted last.
    pub(super) fn membership(&self) -> Arc<Membership> {
        self.membership.clone()
    }

    /// Whether this entry was stored before.
    pub(super) fn has(&self, entry: &Entry) -> bool {
        self.hashes.contains(&entry.hash())
    }

    /// Bytes of all entries.
    pub(super) fn bytes(&self) -> u64 {
        self.tallies.values().map(|tally| tally.bytes).sum()
    }

    /// Those of `shown` that are not on the roll, decoded.
    pub(super) async fn unknown(&self, mut shown: Vec<Bytes>) -> Result<Vec<Entry>> {
        shown.retain(|bytes| !self.hashes.contains(blake3::hash(bytes).as_bytes()));
        let drive = self.drive;
        on_a_thread(move || decoded(&drive, shown)).await
    }

    /// What the roll would make with `fresh` on it.
    pub(super) async fn weigh(&self, fresh: &[Entry]) -> Result<Membership> {
        let (drive, root) = (self.drive, self.root);
        let entries = [&self.entries[..], fresh].concat();
        on_a_thread(move || Membership::replay(drive, &root, &entries)).await
    }

    /// Whether this membership entry should be kept; `with` is the membership with it.
    pub(super) fn check(&self, entry: &Entry, with: &Membership) -> Result<()> {
        let author = entry.log.author;
        if !with.may_have_signed(&author) {
            return Err(Error::Refused("the entry's author is no admin of the drive".to_owned()));
        }
        let void = || with.voids().iter().any(|void| void.hash == entry.hash());
        if author != self.root && !with.is_active(&author) && void() {
            return Err(Error::Refused("the entry's author was revoked".to_owned()));
        }
        let bytes = entry.encode().len() as u64;
        let own = self.tally(&author).with(bytes);
        let fits = match author == self.root {
            true => own.is_within(&ROOT_MAX),
            false => own.is_within(&ADMIN_MAX) && self.admins().with(bytes).is_within(&ADMINS_MAX),
        };
        if fits { Ok(()) } else { Err(Error::Refused("the membership log is full".to_owned())) }
    }

    /// Puts an entry on the roll that was stored.
    pub(super) fn add(&mut self, entry: Entry) {
        if self.hashes.insert(entry.hash()) {
            let tally = self.tallies.entry(entry.log.author).or_default();
            *tally = tally.with(entry.encode().len() as u64);
            self.entries.push(entry);
        }
    }

    /// The membership of what is on the roll now, if it is another than the one before.
    pub(super) async fn adopt(&mut self) -> Result<Option<Arc<Membership>>> {
        if self.weighed == self.entries.len() {
            return Ok(None);
        }
        self.membership = Arc::new(self.weigh(&[]).await?);
        self.weighed = self.entries.len();
        Ok(Some(self.membership.clone()))
    }

    fn tally(&self, author: &PublicKey) -> Tally {
        self.tallies.get(author).copied().unwrap_or_default()
    }

    /// All entries but the root's.
    fn admins(&self) -> Tally {
        let others = self.tallies.iter().filter(|(author, _)| **author != self.root);
        others.fold(Tally::default(), |sum, (_, tally)| Tally {
            entries: sum.entries + tally.entries,
            bytes: sum.bytes + tally.bytes,
        })
    }
}

impl Tally {
    fn with(self, bytes: u64) -> Self {
        Self { entries: self.entries + 1, bytes: self.bytes + bytes }
    }

    fn is_within(&self, max: &Self) -> bool {
        self.entries <= max.entries && self.bytes <= max.bytes
    }
}

/// Whether there is room for one log more, if the entry begins one.
pub(super) fn check_logs(entry: &Entry, root: &PublicKey, heads: &[Head]) -> Result<()> {
    if heads.iter().any(|head| head.log == entry.log) {
        return Ok(());
    }
    let alike = || heads.iter().filter(|head| head.log.kind == entry.log.kind);
    let own = alike().filter(|head| head.log.author == entry.log.author).count();
    let others = alike().filter(|head| head.log.author != *root).count();
    let max = match entry.log.kind {
        LogKind::Commits => COMMIT_LOGS_MAX,
        LogKind::Membership => ADMIN_LOGS_MAX,
    };
    if own < LIVES_MAX && (entry.log.author == *root || others < max) {
        return Ok(());
    }
    Err(Error::Refused("the drive or the author has too many logs".to_owned()))
}

/// Decodes membership entries of `drive`, which checks their signatures.
pub(super) fn decoded(drive: &DriveId, shown: Vec<Bytes>) -> Result<Vec<Entry>> {
    let decode = |bytes| {
        let entry = Entry::from_bytes(bytes)?;
        if entry.drive != *drive || entry.log.kind != LogKind::Membership {
            return Err(Error::malformed("certificate", "not a membership entry of the drive"));
        }
        Ok(entry)
    };
    shown.into_iter().map(decode).collect()
}
