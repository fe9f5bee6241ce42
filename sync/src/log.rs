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

mod leaving;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use rdrivefs_remote::entry::{Entry, Head, LogId, LogKind};
use rdrivefs_remote::identity::{DriveId, PublicKey};
use rdrivefs_remote::logs::Logs;
use rdrivefs_remote::member::Membership;

use crate::error::{Error, Result};
use crate::index::Index;
use crate::progress::Progress;
use crate::report::Phase;

use self::leaving::Leaving;

/// Bytes of entries asked for at once; bounded by what a remote gives.
const READ_BYTES: u64 = 4 << 20;

/// Logs of revoked devices of which it is known how much is held back.
const HELD_BACK_MAX: usize = 1_024;

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
    /// Held from the look at the members to the entry that was made or taken in with it in sight.
    changing: Mutex<()>,
    /// The newest entries of the own logs that are durable here: what is only in the open
    /// transaction must not be seen by anybody, since its number would be given out again after a
    /// crash.
    leaving: [Leaving; 2],
    /// Commits that remotes show of revoked devices, beyond what is accepted of them.
    held_back: Mutex<BTreeMap<LogId, u64>>,
    /// A remote has more of the own log than this device.
    outdated: AtomicBool,
}

impl Log {
    /// The logs the index holds.
    ///
    /// # Errors
    /// Of the index, or when its membership entries do not hold.
    pub fn open(drive: DriveId, root: PublicKey, own: LogId, index: Arc<Index>) -> Result<Self> {
        let membership = Membership::replay(drive, &root, &decoded_membership(&index)?)?;
        // What an earlier process committed may leave once it is durable.
        index.make_durable()?;
        let leaving = [own, LogId { kind: LogKind::Membership, ..own }].map(Leaving::of);
        let membership = RwLock::new(Arc::new(membership));
        let (held_back, outdated) = (Mutex::default(), AtomicBool::new(false));
        let changing = Mutex::default();
        let log =
            Self { drive, root, own, index, membership, changing, leaving, held_back, outdated };
        log.let_leave(log.own_heads()?);
        Ok(log)
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
        let _changing = match entry.header().log.kind {
            LogKind::Membership => {
                Some(self.changing.lock().unwrap_or_else(PoisonError::into_inner))
            }
            LogKind::Commits => None,
        };
        self.keep(&entry)
    }

    fn keep(&self, entry: &Entry) -> Result<bool> {
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
            LogKind::Membership => self.accept_membership(entry)?,
            LogKind::Commits => {
                self.check_author(entry)?;
                self.index.add_entry(&entry.head(), false, &entry.encode())?;
            }
        }
        Ok(true)
    }

    /// Takes note of the heads a remote shows. One that has more of this device's log than this
    /// device itself shows that it was restored from an older copy: it must publish nothing more.
    ///
    /// # Errors
    /// Of the index.
    pub fn note(&self, theirs: &[Head]) -> Result<()> {
        let ours = self.index.head(&self.own)?.unwrap_or(Head::empty(self.own));
        if number_in(theirs, &ours) > ours.number {
            self.outdated.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether this device may write its log.
    ///
    /// # Errors
    /// [`Error::Refused`] when it was restored from an older copy.
    pub fn check_own(&self) -> Result<()> {
        if self.outdated.load(Ordering::Relaxed) {
            return Err(Error::Refused(
                "this device was restored from an older copy: its log on a remote is longer. \
                 Keep what is unsaved, then set it up anew from the recovery phrase"
                    .into(),
            ));
        }
        Ok(())
    }

    /// The newest entries of this device's logs: of its commits and of its changes of members.
    ///
    /// # Errors
    /// Of the index.
    pub fn own_heads(&self) -> Result<[u64; 2]> {
        let [commits, members] = &self.leaving;
        let number = |leaving: &Leaving| -> Result<u64> {
            Ok(self.index.head(&leaving.log)?.map_or(0, |head| head.number))
        };
        Ok([number(commits)?, number(members)?])
    }

    /// Makes these entries of this device's logs durable, after which they may be sent. The caller
    /// has seen them when all of the index was committed.
    ///
    /// # Errors
    /// Of the disk.
    pub fn settle(&self, committed: [u64; 2]) -> Result<()> {
        let stays = |leaving: &Leaving, number: u64| leaving.number() < number;
        if self.leaving.iter().zip(committed).any(|(leaving, number)| stays(leaving, number)) {
            self.index.make_durable()?;
            self.let_leave(committed);
        }
        Ok(())
    }

    fn let_leave(&self, durable: [u64; 2]) {
        self.leaving.iter().zip(durable).for_each(|(leaving, number)| leaving.up_to(number));
    }

    /// Makes a change of members with all in sight that is known, and keeps it; it may not leave yet.
    ///
    /// # Errors
    /// What `make` says; as [`Log::accept`]; of the index.
    pub fn change(&self, make: impl FnOnce(&Membership) -> Result<Entry>) -> Result<Entry> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = make(&self.membership())?;
        if !self.keep(&entry)? {
            return Err(Error::Refused("the log of this device has that entry already".into()));
        }
        Ok(entry)
    }

    /// How many commits of a revoked device, beyond what is accepted, remotes have shown: they stay
    /// where they are.
    pub fn held_back(&self, device: &PublicKey) -> u64 {
        let held_back = self.held_back.lock().unwrap_or_else(PoisonError::into_inner);
        held_back.iter().filter(|(log, _)| log.author == *device).map(|(_, count)| count).sum()
    }

    /// Sends `remote`, which shows the heads `theirs`, every entry it lacks, membership first. A log
    /// that it refuses holds up no other.
    ///
    /// # Errors
    /// Of the remote or the index, or at last the first refusal.
    pub async fn send(
        &self,
        remote: &impl Logs,
        theirs: &[Head],
        progress: &Progress,
    ) -> Result<u64> {
        let (mut sent, mut refused) = (0, None);
        let mut ours = self.index.heads()?;
        ours.sort_by_key(|head| head.log);
        for mut head in ours {
            if let Some(leaving) = self.leaving.iter().find(|leaving| leaving.log == head.log) {
                head.number = head.number.min(leaving.number());
            }
            match self.send_log(remote, &head, number_in(theirs, &head), &mut sent, progress).await
            {
                Err(e) if e.is_refusal() => {
                    tracing::warn!(log = ?head.log, error = %e, "a log is refused there");
                    refused.get_or_insert(e);
                }
                done => done?,
            }
        }
        refused.map_or(Ok(sent), Err)
    }

    async fn send_log(
        &self,
        remote: &impl Logs,
        ours: &Head,
        theirs: u64,
        sent: &mut u64,
        progress: &Progress,
    ) -> Result<()> {
        let mut next = theirs + 1;
        while next <= ours.number {
            let entries = self.index.entries(&ours.log, next, READ_BYTES as usize)?;
            for (entry, _) in entries.into_iter().take((ours.number - next + 1) as usize) {
                progress.check()?;
                let bytes = entry.len() as u64;
                remote.append(entry).await?;
                progress.advance(Phase::Push, bytes, 1);
                next += 1;
                *sent += 1;
            }
        }
        Ok(())
    }

    /// Receives every entry of `remote`, which shows the heads `theirs`, that is not here yet,
    /// membership first. Entries that are refused end their log's exchange; the other logs go on.
    ///
    /// # Errors
    /// Of the remote or the index, or at last the first refusal.
    pub async fn receive(
        &self,
        remote: &impl Logs,
        theirs: &[Head],
        progress: &Progress,
    ) -> Result<Exchanged> {
        let mut exchanged = Exchanged::default();
        let (mut members, mut commits): (Vec<&Head>, Vec<&Head>) =
            theirs.iter().partition(|head| head.log.kind == LogKind::Membership);
        members.sort_by_key(|head| head.log);
        commits.sort_by_key(|head| head.log);
        // Whoever was added by one who was added comes to be known in the next round.
        loop {
            let before = exchanged.received;
            let refused = self.receive_logs(remote, &members, &mut exchanged, progress).await?;
            if refused.is_some() && exchanged.received > before {
                continue;
            }
            let commits = self.receive_logs(remote, &commits, &mut exchanged, progress).await?;
            return refused.or(commits).map_or(Ok(exchanged), Err);
        }
    }

    /// As [`Log::receive`], for some logs; the first refusal is part of the result.
    async fn receive_logs(
        &self,
        remote: &impl Logs,
        theirs: &[&Head],
        exchanged: &mut Exchanged,
        progress: &Progress,
    ) -> Result<Option<Error>> {
        let mut refused = None;
        for head in theirs {
            progress.check()?;
            match self.receive_log(remote, head, exchanged, progress).await {
                Err(e) if e.is_refusal() => {
                    tracing::warn!(log = ?head.log, error = %e, "a log is refused");
                    refused.get_or_insert(e);
                }
                done => done?,
            }
        }
        Ok(refused)
    }

    async fn receive_log(
        &self,
        remote: &impl Logs,
        theirs: &Head,
        exchanged: &mut Exchanged,
        progress: &Progress,
    ) -> Result<()> {
        let ours = self.index.head(&theirs.log)?.unwrap_or(Head::empty(theirs.log));
        self.check_shared(theirs)?;
        if theirs.log == self.own && theirs.number > ours.number {
            return self.check_own();
        }
        let theirs = &self.accepted_of(theirs);
        let Some(proven) = self.proven(remote, &ours, theirs).await? else { return Ok(()) };
        let mut next = ours.number + 1;
        while next <= theirs.number {
            let read = remote.read(theirs.log, next, READ_BYTES).await?;
            // What lies beyond is left with the remote.
            for (number, entry) in (next..=theirs.number).zip(read) {
                let known = proven.get((number - ours.number - 1) as usize);
                if known.is_some_and(|hash| *hash != *blake3::hash(&entry).as_bytes()) {
                    return Err(after_revocation(&theirs.log));
                }
                let bytes = entry.len() as u64;
                if self.accept(entry)? {
                    exchanged.received += 1;
                    exchanged.received_bytes += bytes;
                    progress.advance(Phase::Pull, bytes, 1);
                }
            }
            // Another remote may have given some of them meanwhile; but on it must go.
            let now = self.index.head(&theirs.log)?.map_or(0, |head| head.number);
            if now < next {
                return Err(Error::Refused("a log that ends before its head".into()));
            }
            next = now + 1;
        }
        Ok(())
    }

    /// How far a log may go: of a revoked device's, up to the last commit that is accepted. What
    /// comes after it is left with the remote.
    fn accepted_of(&self, theirs: &Head) -> Head {
        let membership = self.membership();
        let revoked = membership.device(&theirs.log.author).and_then(|m| m.revoked.as_ref());
        let Some(revoked) = revoked.filter(|_| theirs.log.kind == LogKind::Commits) else {
            return *theirs;
        };
        let last = revoked.last_of(theirs.log.instance).map_or(0, |last| last.number);
        let mut held_back = self.held_back.lock().unwrap_or_else(PoisonError::into_inner);
        match theirs.number.saturating_sub(last) {
            0 => drop(held_back.remove(&theirs.log)),
            // Heads are nobody's word: a remote may show as many logs as it likes.
            beyond if held_back.len() < HELD_BACK_MAX => {
                held_back.insert(theirs.log, beyond);
            }
            _ => {}
        }
        Head { number: theirs.number.min(last), ..*theirs }
    }

    /// What both sides have of a log must be the same.
    fn check_shared(&self, theirs: &Head) -> Result<()> {
        let Some(ours) = self.index.entry_hash(&theirs.log, theirs.number)? else { return Ok(()) };
        if ours == theirs.hash {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "two histories of one log: entry {} of {} is {} here and {} there",
            theirs.number,
            theirs.log.author.fingerprint(),
            hex::encode(ours),
            hex::encode(theirs.hash),
        )))
    }

    /// Of a revoked author's log, the hashes of the entries from ours up to the last accepted one:
    /// only whole does the chain show that it is the one the revocation means. None while the
    /// remote has not all of it; empty where nothing needs to be proven.
    async fn proven(
        &self,
        remote: &impl Logs,
        ours: &Head,
        theirs: &Head,
    ) -> Result<Option<Vec<[u8; 32]>>> {
        let log = theirs.log;
        let membership = self.membership();
        let revoked = membership.device(&log.author).and_then(|member| member.revoked.as_ref());
        let last = match revoked.and_then(|revoked| revoked.last_of(log.instance)) {
            Some(last) if log.kind == LogKind::Commits && ours.number < last.number => last,
            _ => return Ok(Some(Vec::new())),
        };
        let (mut head, mut hashes) = (*ours, Vec::new());
        if theirs.number < last.number {
            return Ok(None);
        }
        while head.number < last.number {
            let entries = remote.read(log, head.number + 1, READ_BYTES).await?;
            let left = (last.number - head.number) as usize;
            if entries.is_empty() {
                return Err(Error::Refused("a log that ends before its head".into()));
            }
            for bytes in entries.into_iter().take(left) {
                let entry = Entry::from_bytes(bytes)?;
                entry.follows(&head)?;
                head = entry.head();
                hashes.push(head.hash);
            }
        }
        if head.hash == last.hash { Ok(Some(hashes)) } else { Err(after_revocation(&log)) }
    }

    /// Keeps a membership entry if its author is known and the whole can still be read with it.
    fn accept_membership(&self, entry: &Entry) -> Result<()> {
        let author = entry.header().log.author;
        if author != self.root && self.membership().device(&author).is_none() {
            return Err(Error::Refused(format!(
                "a change of members by {}, which does not belong to this drive",
                author.fingerprint()
            )));
        }
        let mut entries = decoded_membership(&self.index)?;
        entries.push(entry.clone());
        let membership = Membership::replay(self.drive, &self.root, &entries)?;
        self.index.add_entry(&entry.head(), true, &entry.encode())?;
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
        match &member.revoked {
            Some(revoked) if !revoked.accepts(entry) => Err(after_revocation(&entry.header().log)),
            _ => Ok(()),
        }
    }
}

fn after_revocation(log: &LogId) -> Error {
    Error::Refused(format!("a commit of {} after it was revoked", log.author.fingerprint()))
}

/// How far the remote is in a log; an entry beyond ours is its to give.
fn number_in(theirs: &[Head], ours: &Head) -> u64 {
    theirs.iter().find(|head| head.log == ours.log).map_or(0, |head| head.number)
}

fn decoded_membership(index: &Index) -> Result<Vec<Entry>> {
    membership_entries(index)?.into_iter().map(|bytes| Ok(Entry::from_bytes(bytes)?)).collect()
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

#[cfg(test)]
mod tests {
    use rdrivefs_remote::entry::Header;
    use rdrivefs_remote::env::Env;
    use rdrivefs_remote::identity::SecretKey;
    use rdrivefs_remote::logs::memory::MemoryLogs;
    use rdrivefs_remote::member::{Change, Last, WRAP_KEY_BYTES};

    use super::*;
    use crate::seal::Key;

    /// The commits of one log.
    fn chain(drive: DriveId, device: &SecretKey, instance: u32, bodies: &[&str]) -> Vec<Entry> {
        let log = LogId { kind: LogKind::Commits, author: device.public(), instance };
        let mut head = Head::empty(log);
        let mut entries = Vec::new();
        for body in bodies {
            let header = Header::after(drive, &head, [0; 32]);
            let entry = Entry::sign(device, header, Bytes::from(body.to_string())).unwrap();
            head = entry.head();
            entries.push(entry);
        }
        entries
    }

    #[tokio::test]
    async fn s31_of_a_revoked_device_only_the_history_that_was_accepted_is_taken() {
        let [root, device] = [1, 2].map(|seed| SecretKey::from_seed([seed; 32]));
        let drive = DriveId::of(&root.public());
        let good = chain(drive, &device, 0, &["one", "two", "three"]);
        let mut members = Vec::new();
        let wrap_key = Bytes::from(vec![0; WRAP_KEY_BYTES]);
        let last = vec![Last { instance: 0, number: 3, hash: good[2].hash() }];
        for change in [
            Change::Add { device: device.public(), number: 1, admin: false, wrap_key },
            Change::Revoke { device: device.public(), last },
        ] {
            let now = Membership::replay(drive, &root.public(), &members).unwrap();
            members.push(now.sign(&root, 0, change).unwrap());
        }
        let dir = tempfile::tempdir().unwrap();
        let key = Key::from([7; 32]);
        let index = Index::open(&dir.path().join("index"), &key, Env::real()).unwrap();
        let own = LogId { author: root.public(), ..good[0].log };
        let log = Log::open(drive, root.public(), own, Arc::new(index)).unwrap();
        let receive = async |entries: &[Entry]| {
            let remote = MemoryLogs::new(drive);
            for entry in members.iter().chain(entries) {
                remote.append(entry.encode()).await.unwrap();
            }
            let heads = remote.heads().await.unwrap();
            let got = log.receive(&remote, &heads, &Progress::silent()).await;
            got.map(|got| got.received).ok()
        };
        assert_eq!(receive(&[]).await, Some(2));
        let other_life = chain(drive, &device, 1, &["x"]);
        assert_eq!(receive(&other_life).await, Some(0), "a log that the revocation does not name");
        assert_eq!(log.held_back(&device.public()), 1);
        let forked = chain(drive, &device, 0, &["one", "2", "3"]);
        assert_eq!(receive(&forked).await, None, "a chain that does not end as it must");
        assert_eq!(receive(&forked[..2]).await, Some(0), "nor a part of one");
        assert_eq!(log.index.heads().unwrap().len(), 1, "none of it was kept");
        assert_eq!(receive(&good).await, Some(3));
        let more = chain(drive, &device, 0, &["one", "two", "three", "four"]);
        assert_eq!(receive(&more).await, Some(0), "beyond the cut");
        assert_eq!(log.index.head(&good[0].log).unwrap().unwrap().number, 3);
        assert_eq!(log.held_back(&device.public()), 2);
    }
}
