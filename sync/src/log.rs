//! The logs of the drive: what this device signed, what it accepted, and their exchange.
//!
//! An entry is accepted when its signature holds, it belongs to this drive, it follows the head of
//! its log and its author belongs to the drive. Accepted entries are kept byte for byte, so any
//! member carries anyone's entries to any remote. Membership takes effect at once; what a commit
//! says is applied above, in causal order.
//!
//! A remote that shows a log shorter than it once was is behind, which is no crime; one that shows
//! another entry under a number this device knows has lied, or somebody's device was copied: that
//! is refused with both hashes.

use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use rdrivefs_remote::entry::{Entry, Head, LogId, LogKind};
use rdrivefs_remote::identity::{DriveId, PublicKey};
use rdrivefs_remote::logs::Logs;
use rdrivefs_remote::member::Membership;

use crate::error::{Error, Result};
use crate::index::Index;
use crate::progress::Progress;
use crate::report::Phase;

/// Bytes of entries asked for at once; bounded by what a remote gives.
const READ_BYTES: u64 = 4 << 20;

/// What an exchange with one remote moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exchanged {
    /// Entries sent.
    pub sent: u64,
    /// Entries received.
    pub received: u64,
    /// Bytes of entries received.
    pub received_bytes: u64,
}

/// The logs as this device knows them.
pub struct Log {
    drive: DriveId,
    root: PublicKey,
    /// The log this device writes its commits into; nobody else may.
    own: LogId,
    index: Arc<Index>,
    membership: RwLock<Arc<Membership>>,
}

impl Log {
    /// The logs the index holds.
    ///
    /// # Errors
    /// Of the index, or when its membership entries do not hold.
    pub fn open(drive: DriveId, root: PublicKey, own: LogId, index: Arc<Index>) -> Result<Self> {
        let membership = replay(drive, &root, &index)?;
        Ok(Self { drive, root, own, index, membership: RwLock::new(Arc::new(membership)) })
    }

    /// Who belongs to the drive.
    pub fn membership(&self) -> Arc<Membership> {
        self.membership.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The log of this device's commits.
    pub fn own(&self) -> LogId {
        self.own
    }

    /// Every membership entry: what certifies this device to a node.
    ///
    /// # Errors
    /// Of the index.
    pub fn certificate(&self) -> Result<Vec<Bytes>> {
        membership_entries(&self.index)
    }

    /// Keeps an entry if it is the next of its log and its author may write it; whether it is new.
    ///
    /// # Errors
    /// [`Error::Remote`] naming the forgery or the conflict; [`Error::Refused`] for an author who
    /// does not belong to the drive; of the index.
    pub fn accept(&self, bytes: Bytes) -> Result<bool> {
        let entry = Entry::from_bytes(bytes)?;
        let header = entry.header();
        if header.drive != self.drive {
            return Err(Error::Refused("an entry of another drive".into()));
        }
        let head = self.index.head(&header.log)?.unwrap_or(Head::empty(header.log));
        if header.number <= head.number {
            return Ok(false);
        }
        entry.follows(&head)?;
        match header.log.kind {
            LogKind::Membership => self.accept_membership(&entry)?,
            LogKind::Commits => {
                self.check_author(&entry)?;
                self.index.add_entry(&entry.head(), false, &entry.encode())?;
            }
        }
        Ok(true)
    }

    /// Sends `remote` every entry it lacks, membership first.
    ///
    /// # Errors
    /// Of the remote or the index; [`Error::Refused`] when the remote's history is another one.
    pub async fn send(&self, remote: &impl Logs, progress: &Progress) -> Result<u64> {
        let theirs = remote.heads().await?;
        let mut sent = 0;
        let mut ours = self.index.heads()?;
        ours.sort_by_key(|head| head.log);
        for head in ours {
            let their_number = number_in(&theirs, &head);
            let mut next = their_number + 1;
            while next <= head.number {
                for (entry, _) in self.index.entries(&head.log, next, READ_BYTES as usize)? {
                    progress.check()?;
                    let bytes = entry.len() as u64;
                    remote.append(entry).await?;
                    progress.advance(Phase::Push, bytes, 1);
                    next += 1;
                    sent += 1;
                }
            }
        }
        Ok(sent)
    }

    /// Receives every entry of `remote` that is not here yet, membership first. Entries that are
    /// refused end their log's exchange and are told; the other logs go on.
    ///
    /// # Errors
    /// Of the remote or the index, or the first refusal.
    pub async fn receive(&self, remote: &impl Logs, progress: &Progress) -> Result<Exchanged> {
        let mut exchanged = Exchanged::default();
        let mut refused = None;
        let mut theirs = remote.heads().await?;
        theirs.sort_by_key(|head| head.log);
        for head in theirs {
            progress.check()?;
            match self.receive_log(remote, &head, &mut exchanged, progress).await {
                Err(e) if e.is_transient() => return Err(e),
                Err(e) => {
                    tracing::warn!(log = ?head.log, error = %e, "a log is refused");
                    refused.get_or_insert(e);
                }
                Ok(()) => {}
            }
        }
        refused.map_or(Ok(exchanged), Err)
    }

    async fn receive_log(
        &self,
        remote: &impl Logs,
        theirs: &Head,
        exchanged: &mut Exchanged,
        progress: &Progress,
    ) -> Result<()> {
        let ours = self.index.head(&theirs.log)?.unwrap_or(Head::empty(theirs.log));
        if theirs.number == ours.number && theirs.hash != ours.hash {
            return Err(Error::Refused(format!(
                "two histories of one log: entry {} of {} is {} here and {} there",
                ours.number,
                theirs.log.author.fingerprint(),
                hex::encode(ours.hash),
                hex::encode(theirs.hash),
            )));
        }
        if theirs.log == self.own && theirs.number > ours.number {
            return Err(Error::Refused(
                "this device was restored from an older copy: its log on the remote is longer. \
                 Keep what is unsaved, then set it up anew from the recovery phrase"
                    .into(),
            ));
        }
        let mut next = ours.number + 1;
        while next <= theirs.number {
            let entries = remote.read(theirs.log, next, READ_BYTES).await?;
            if entries.is_empty() {
                return Err(Error::NoRemote("a log ended before its head".into()));
            }
            for entry in entries {
                let bytes = entry.len() as u64;
                self.accept(entry)?;
                exchanged.received += 1;
                exchanged.received_bytes += bytes;
                progress.advance(Phase::Pull, bytes, 1);
                next += 1;
            }
        }
        Ok(())
    }

    fn accept_membership(&self, entry: &Entry) -> Result<()> {
        self.index.add_entry(&entry.head(), true, &entry.encode())?;
        let membership = replay(self.drive, &self.root, &self.index)?;
        *self.membership.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(membership);
        Ok(())
    }

    fn check_author(&self, entry: &Entry) -> Result<()> {
        let membership = self.membership();
        let author = entry.header().log.author;
        let Some(member) = membership.device(&author) else {
            return Err(Error::Refused(format!(
                "a commit of {}, which does not belong to this drive",
                author.fingerprint()
            )));
        };
        let Some(revoked) = member.revoked else { return Ok(()) };
        let last = revoked.last.map_or(0, |last| last.number);
        if entry.header().number > last {
            return Err(Error::Refused(format!(
                "a commit of {} after it was revoked",
                author.fingerprint()
            )));
        }
        Ok(())
    }
}

/// How far the remote is in a log; an entry beyond ours is its to give.
fn number_in(theirs: &[Head], ours: &Head) -> u64 {
    theirs.iter().find(|head| head.log == ours.log).map_or(0, |head| head.number)
}

fn replay(drive: DriveId, root: &PublicKey, index: &Index) -> Result<Membership> {
    let entries: Result<Vec<_>, _> =
        membership_entries(index)?.into_iter().map(Entry::from_bytes).collect();
    Ok(Membership::replay(drive, root, &entries?)?)
}

fn membership_entries(index: &Index) -> Result<Vec<Bytes>> {
    let mut all = Vec::new();
    for head in index.heads()? {
        if head.log.kind != LogKind::Membership {
            continue;
        }
        let mut next = 1;
        while next <= head.number {
            let entries = index.entries(&head.log, next, READ_BYTES as usize)?;
            next += entries.len() as u64;
            all.extend(entries.into_iter().map(|(entry, _)| entry));
        }
    }
    Ok(all)
}
