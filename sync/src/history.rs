//! History: what the drive was, read from the logs of its devices.
//!
//! A commit belongs to a moment by the clock of its maker, but never to one before those of the
//! commits it had seen, nor to one that is yet to come: so whatever was known at a moment is closed
//! under cause and effect. Commits are read one at a time.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use rdrivefs_remote::entry::{Entry, Head, LogId, LogKind};
use rdrivefs_remote::env::WallMs;
use rdrivefs_remote::identity::PublicKey;
use rdrivefs_remote::member::EpochId;

use crate::error::{Error, Result};
use crate::id::{DeviceNumber, FileId, VersionId};
use crate::index::Index;
use crate::keyring::Keyring;
use crate::log::Log;
use crate::progress::Progress;
use crate::record::{Commit, Content, Record, Stamp, TimeNs};
use crate::view::{Facts, View};

/// Removals told within this of each other are of one deed.
const ONE_REMOVAL_MS: u64 = 5_000;

/// Of a name that is removed over and over only the latest removals are looked at.
const MOMENTS_MAX: usize = 32;

/// Bytes of entries read in one step.
const READ_BYTES: usize = 1 << 20;

/// Reads the logs this device has.
pub struct History {
    index: Arc<Index>,
    keyring: Arc<Keyring>,
    log: Arc<Log>,
    now: WallMs,
}

/// A commit and when it was made.
pub struct Told {
    /// When and by whom, as registers are won.
    pub stamp: Stamp,
    /// The device.
    pub device: PublicKey,
    /// The moment it belongs to.
    pub at: WallMs,
    /// What it says.
    pub records: Vec<Record>,
}

/// A version a file had.
pub struct Past {
    /// Its id.
    pub id: VersionId,
    /// When and by whom it was told, as registers are won.
    pub stamp: Stamp,
    /// The device.
    pub device: PublicKey,
    /// The moment it belongs to.
    pub at: WallMs,
    /// The versions it replaced.
    pub bases: Vec<VersionId>,
    /// Bytes.
    pub size: u64,
    /// When it was made.
    pub mtime: TimeNs,
    /// Its bytes.
    pub content: Content,
}

/// Where the reading of one log stands.
struct Cursor {
    log: LogId,
    /// The number of the next entry, and of the last one that counts: all that these had seen is
    /// among them.
    next: u64,
    end: u64,
    read: std::collections::VecDeque<Entry>,
    last: WallMs,
    ended: bool,
}

impl History {
    /// The history that these logs tell.
    pub fn new(index: Arc<Index>, keyring: Arc<Keyring>, log: Arc<Log>, now: WallMs) -> Self {
        Self { index, keyring, log, now }
    }

    /// Visits every commit that was applied, each after all that its maker had seen.
    ///
    /// # Errors
    /// Of the index, when a commit does not open, or the visit's.
    pub fn visit(
        &self,
        progress: &Progress,
        visit: &mut dyn FnMut(Told) -> Result<()>,
    ) -> Result<()> {
        let heads = self.index.heads_applied()?;
        let commits = heads.into_iter().filter(|head| head.log.kind == LogKind::Commits);
        let mut cursors: Vec<Cursor> = commits.map(Cursor::new).collect();
        let mut known: HashMap<(LogId, u64), WallMs> = HashMap::new();
        loop {
            let mut moved = false;
            for cursor in &mut cursors {
                while let Some((commit, entry)) = self.next(cursor)? {
                    progress.check()?;
                    let seen = commit.seen.iter().filter(|head| head.log.kind == LogKind::Commits);
                    let mut at = commit.wall_ms.min(self.now).max(cursor.last);
                    let mut whole = true;
                    for head in seen {
                        match known.get(&(head.log, head.number)) {
                            Some(before) => at = at.max(*before),
                            None => whole = false,
                        }
                    }
                    if !whole {
                        cursor.read.push_front(entry);
                        break;
                    }
                    cursor.passed(&entry, at);
                    known.insert((entry.log, entry.number), at);
                    visit(self.told(&entry, commit, at)?)?;
                    moved = true;
                }
            }
            if !moved && cursors.iter().all(|cursor| cursor.read.is_empty()) {
                return Ok(());
            }
            if !moved {
                return Err(Error::Refused("a commit that another had seen is not here".into()));
            }
        }
    }

    /// What the drive showed at a moment; none before its first commit.
    ///
    /// # Errors
    /// As [`History::visit`].
    pub fn view_at(&self, moment: WallMs, progress: &Progress) -> Result<Option<View>> {
        let (mut facts, mut begun) = (Facts::default(), false);
        self.visit(progress, &mut |told| {
            if told.at <= moment {
                begun = true;
                told.records.iter().for_each(|record| facts.add(told.stamp, record));
            }
            Ok(())
        })?;
        Ok(begun.then(|| View::from_facts(&facts)))
    }

    /// Just before which moments something of this name was removed, the latest first. Removals that
    /// follow one another are one: a large folder takes a while to go.
    ///
    /// # Errors
    /// As [`History::visit`].
    pub fn removals(&self, name: &[u8], progress: &Progress) -> Result<Vec<WallMs>> {
        let (mut links, mut named, mut all) = (HashSet::new(), Vec::new(), BTreeSet::new());
        self.visit(progress, &mut |told| {
            for record in &told.records {
                match record {
                    Record::Link { link, name: its, .. } if its == name => {
                        links.insert(*link);
                    }
                    Record::Unlink { link, .. } => {
                        all.insert(told.at);
                        named.extend(links.contains(link).then_some(told.at));
                    }
                    _ => {}
                }
            }
            Ok(())
        })?;
        let begun = |mut at: WallMs| {
            while let Some(before) = all.range(..at).next_back()
                && at.0 - before.0 <= ONE_REMOVAL_MS
            {
                at = *before;
            }
            WallMs(at.0.saturating_sub(1))
        };
        named.sort_unstable();
        let mut moments = Vec::new();
        for at in named.into_iter().rev() {
            for moment in [begun(at), WallMs(at.0.saturating_sub(1))] {
                if !moments.contains(&moment) && moments.len() < MOMENTS_MAX {
                    moments.push(moment);
                }
            }
        }
        Ok(moments)
    }

    /// Every version of a file that was told, the latest last.
    ///
    /// # Errors
    /// As [`History::visit`].
    pub fn versions(&self, file: FileId, progress: &Progress) -> Result<Vec<Past>> {
        let mut versions = Vec::new();
        self.visit(progress, &mut |told| {
            for record in told.records {
                if let Record::Version { file: of, id, bases, size, mtime, content } = record
                    && of == file
                {
                    let Told { stamp, device, at, .. } = told;
                    versions.push(Past { id, stamp, device, at, bases, size, mtime, content });
                }
            }
            Ok(())
        })?;
        versions.sort_by_key(|version| version.stamp);
        Ok(versions)
    }

    /// The next commit of a log that was applied.
    fn next(&self, cursor: &mut Cursor) -> Result<Option<(Commit, Entry)>> {
        if cursor.read.is_empty() && !cursor.ended {
            let entries = self.index.entries(&cursor.log, cursor.next, READ_BYTES)?;
            cursor.ended = entries.is_empty();
            for (bytes, _) in entries {
                if cursor.next > cursor.end {
                    cursor.ended = true;
                    break;
                }
                cursor.read.push_back(Entry::from_bytes(bytes)?);
                cursor.next += 1;
            }
        }
        let Some(entry) = cursor.read.pop_front() else { return Ok(None) };
        let secrets = self.keyring.secrets();
        let epoch = secrets.epoch_of(&EpochId(entry.epoch));
        let epoch = epoch.ok_or_else(|| {
            Error::Refused("a commit of an epoch this device was not let into".into())
        })?;
        Ok(Some((Commit::open(epoch, &entry)?, entry)))
    }

    fn told(&self, entry: &Entry, commit: Commit, at: WallMs) -> Result<Told> {
        let membership = self.log.membership();
        let device = entry.log.author;
        let member = membership.device(&device);
        let member = member.ok_or_else(|| Error::Refused("a commit of nobody's".into()))?;
        let stamp = Stamp { lamport: commit.lamport, device: DeviceNumber(member.number) };
        Ok(Told { stamp, device, at, records: commit.records })
    }
}

impl Cursor {
    fn new(head: Head) -> Self {
        let (log, end) = (head.log, head.number);
        Self { log, next: 1, end, read: Default::default(), last: WallMs(0), ended: false }
    }

    fn passed(&mut self, entry: &Entry, at: WallMs) {
        debug_assert_eq!(entry.log, self.log, "each log has a cursor of its own");
        self.last = at;
    }
}
