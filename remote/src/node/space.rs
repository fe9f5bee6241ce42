//! A space: what one drive keeps on this node, within its quota.
//!
//! Every byte is reserved in the ledger before the first one is taken. Membership entries have an
//! allowance of their own, because revoking a device must work in a full space.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::{Mutex, RwLock};

use crate::blob::BlobId;
use crate::entry::{Entry, LogId, LogKind};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::identity::{DriveId, PublicKey};
use crate::logs::directory::DirectoryLogs;
use crate::logs::{Logs, READ_BYTES_MAX};
use crate::member::Membership;
use crate::node::ledger::{Ledger, Turns};
use crate::proof::Outboard;
use crate::store::directory::DirectoryStore;
use crate::store::{Body, Space as Used, Store};

/// What a drive's membership may take: some thousand devices and a hundred epochs of many wraps.
const MEMBERSHIP_BYTES_MAX: u64 = 32 << 20;
/// Logs of one drive; each device has two for each of its lives.
const LOGS_MAX: usize = crate::wire::HEADS_MAX;

/// One drive's blobs, logs, membership and quota.
pub(super) struct Space {
    drive: DriveId,
    root: PublicKey,
    env: Env,
    blobs: DirectoryStore,
    logs: DirectoryLogs,
    membership: RwLock<Arc<Membership>>,
    /// Blobs with their outboards, and commit logs.
    ledger: Arc<Ledger>,
    /// Who puts or deletes a blob holds its turn, so that each byte is counted once.
    turns: Turns<BlobId>,
    /// Bytes of membership logs.
    member_bytes: AtomicU64,
    /// One append at a time, so that what was checked still holds when it is written.
    appending: Mutex<()>,
}

impl Space {
    /// The space of the drive with this root under `dir`.
    pub(super) async fn open(dir: PathBuf, root: PublicKey, env: &Env) -> Result<Arc<Self>> {
        let drive = DriveId::of(&root);
        let (at, world) = (dir.clone(), env.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let blobs = DirectoryStore::open(&at.join("blobs"), &world)?;
            let logs = DirectoryLogs::open(&at.join("logs"), drive)?;
            Ok::<_, Error>((blobs, logs))
        });
        let (blobs, logs) = opened.await.expect("opening a space does not panic")?;
        let mut space = Self {
            drive,
            root,
            env: env.clone(),
            blobs,
            logs,
            membership: RwLock::new(Arc::new(Membership::replay(drive, &root, &[])?)),
            ledger: Ledger::new(0),
            turns: Turns::default(),
            member_bytes: AtomicU64::new(0),
            appending: Mutex::default(),
        };
        let entries = space.membership_entries().await?;
        let member = entries.iter().map(|entry| entry.encode().len() as u64).sum();
        space.member_bytes.store(member, Ordering::SeqCst);
        let logs = dir_bytes(&dir.join("logs")).saturating_sub(member);
        space.ledger = Ledger::new(space.blobs.space().await?.used + logs);
        *space.membership.write().await = Arc::new(Membership::replay(drive, &root, &entries)?);
        Ok(Arc::new(space))
    }

    pub(super) fn drive(&self) -> DriveId {
        self.drive
    }

    pub(super) fn root(&self) -> PublicKey {
        self.root
    }

    pub(super) fn blobs(&self) -> &DirectoryStore {
        &self.blobs
    }

    pub(super) fn logs(&self) -> &DirectoryLogs {
        &self.logs
    }

    pub(super) fn reserved(&self) -> u64 {
        self.ledger.reserved()
    }

    pub(super) fn set_quota(&self, quota: Option<u64>) {
        self.ledger.set_limit(quota);
    }

    pub(super) async fn membership(&self) -> Arc<Membership> {
        self.membership.read().await.clone()
    }

    /// Whether this device may speak for the drive now.
    pub(super) async fn admits(&self, device: &PublicKey) -> bool {
        *device == self.root || self.membership.read().await.is_active(device)
    }

    /// What is used, logs included, and allowed.
    pub(super) async fn used(&self) -> Result<Used> {
        let blobs = self.blobs.space().await?.blobs;
        Ok(Used { used: self.ledger.used(), quota: self.ledger.limit(), blobs })
    }

    /// Stores a blob within the quota.
    pub(super) async fn put(&self, id: BlobId, body: Body) -> Result<()> {
        let _turn = self.turns.take(id).await;
        if self.length(id).await?.is_some() {
            // It is written again, which heals a rotten one, and takes no more room.
            return self.blobs.put(id, body).await;
        }
        let reservation = self.ledger.reserve(with_outboard(body.len))?;
        self.blobs.put(id, body).await?;
        reservation.keep();
        Ok(())
    }

    /// Appends an entry of an author who belongs to the drive; tells whether members changed.
    pub(super) async fn append(&self, entry: Bytes) -> Result<bool> {
        let entry = Entry::from_bytes(entry)?;
        let _turn = self.appending.lock().await;
        let membership = self.membership().await;
        self.check_author(&entry, &membership)?;
        self.append_checked(&entry).await?;
        if entry.log.kind == LogKind::Commits {
            return Ok(false);
        }
        let entries = self.membership_entries().await?;
        self.adopt(&entries).await?;
        Ok(true)
    }

    /// Checks that `device` belongs to the drive, by what is stored and what it shows; what it
    /// shows is stored if so. Tells whether members changed.
    pub(super) async fn certify(&self, device: &PublicKey, shown: Vec<Bytes>) -> Result<bool> {
        let _turn = self.appending.lock().await;
        let mut fresh = Vec::new();
        let mut entries = self.membership_entries().await?;
        let known: HashSet<Bytes> = entries.iter().map(Entry::encode).collect();
        for bytes in shown {
            if known.contains(&bytes) {
                continue;
            }
            let entry = Entry::from_bytes(bytes)?;
            if entry.drive != self.drive || entry.log.kind != LogKind::Membership {
                return Err(Error::malformed("certificate", "not a membership entry of the drive"));
            }
            entries.push(entry.clone());
            fresh.push(entry);
        }
        let membership = Membership::replay(self.drive, &self.root, &entries)?;
        if *device != self.root && !membership.is_active(device) {
            return Err(stranger());
        }
        let mut changed = false;
        for entry in fresh {
            if self.check_author(&entry, &membership).is_err() {
                continue;
            }
            match self.append_checked(&entry).await {
                Ok(()) => changed = true,
                // An old certificate, or a fork: what is stored stays, and is judged below.
                Err(Error::LogConflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if changed {
            let entries = self.membership_entries().await?;
            self.adopt(&entries).await?;
        }
        if self.admits(device).await {
            return Ok(changed);
        }
        Err(stranger())
    }

    /// Removes a blob, unless the node still holds it: it counts from when the blob was last put.
    pub(super) async fn delete(&self, id: BlobId, retain_ms: u64) -> Result<()> {
        if retain_ms > 0 && self.age_ms(&id)?.is_some_and(|age| age < retain_ms) {
            return Err(Error::Refused(format!("this node holds every blob for {retain_ms} ms")));
        }
        let _turn = self.turns.take(id).await;
        let len = self.length(id).await?;
        self.blobs.delete(id).await?;
        self.ledger.give_back(len.map_or(0, with_outboard));
        Ok(())
    }

    async fn length(&self, id: BlobId) -> Result<Option<u64>> {
        Ok(self.blobs.has(&[id]).await?.into_iter().next().flatten())
    }

    /// How long ago a blob was put, by this node's clock.
    fn age_ms(&self, id: &BlobId) -> Result<Option<u64>> {
        let path = self.blobs.path(id);
        let put = match std::fs::metadata(&path).and_then(|meta| meta.modified()) {
            Ok(put) => put,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(format!("reading {}", path.display()))(e)),
        };
        let put = put.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let put_ms = u64::try_from(put.as_millis()).unwrap_or(u64::MAX);
        // A clock that went back makes the hold longer, never shorter.
        Ok(Some(self.env.wall_ms().0.saturating_sub(put_ms)))
    }

    fn check_author(&self, entry: &Entry, membership: &Membership) -> Result<()> {
        if entry.drive != self.drive {
            return Err(Error::Refused("the entry belongs to another drive".to_owned()));
        }
        let author = entry.log.author;
        let accepted = author == self.root
            || membership.device(&author).is_some_and(|member| match &member.revoked {
                None => true,
                // Others may still bring what was accepted; a membership entry is weighed later.
                Some(revoked) => match entry.log.kind {
                    LogKind::Membership => true,
                    LogKind::Commits => revoked.last.is_some_and(|l| entry.number <= l.number),
                },
            });
        if accepted {
            return Ok(());
        }
        Err(Error::Refused("the entry's author is not a member of the drive".to_owned()))
    }

    /// Appends within the bounds; the caller holds `appending`.
    async fn append_checked(&self, entry: &Entry) -> Result<()> {
        let bytes = entry.encode();
        let len = bytes.len() as u64;
        let heads = self.logs.heads().await?;
        let head = heads.iter().find(|head| head.log == entry.log);
        if head.is_none() && heads.len() >= LOGS_MAX {
            return Err(Error::Refused("the drive has too many logs".to_owned()));
        }
        if head.is_some_and(|head| head.number >= entry.number) {
            // Again, or a conflict: in neither case does the log grow.
            return self.logs.append(bytes).await;
        }
        if entry.log.kind == LogKind::Commits {
            let reservation = self.ledger.reserve(len)?;
            self.logs.append(bytes).await?;
            reservation.keep();
            return Ok(());
        }
        if self.member_bytes.load(Ordering::SeqCst) + len > MEMBERSHIP_BYTES_MAX {
            return Err(Error::Refused("the membership log is full".to_owned()));
        }
        self.logs.append(bytes).await?;
        self.member_bytes.fetch_add(len, Ordering::SeqCst);
        Ok(())
    }

    async fn adopt(&self, entries: &[Entry]) -> Result<()> {
        let membership = Membership::replay(self.drive, &self.root, entries)?;
        *self.membership.write().await = Arc::new(membership);
        Ok(())
    }

    async fn membership_entries(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for head in self.logs.heads().await? {
            if head.log.kind == LogKind::Membership {
                self.read_log(head.log, head.number, &mut entries).await?;
            }
        }
        Ok(entries)
    }

    async fn read_log(&self, log: LogId, last: u64, out: &mut Vec<Entry>) -> Result<()> {
        let mut next = 1;
        while next <= last {
            let some = self.logs.read(log, next, READ_BYTES_MAX).await?;
            if some.is_empty() {
                return Err(Error::malformed("log", "shorter than its head says"));
            }
            next += some.len() as u64;
            for bytes in some {
                out.push(Entry::from_bytes(bytes)?);
            }
        }
        Ok(())
    }
}

/// Whether `device` belongs to the drive of `root` by these entries alone.
pub(super) fn certified(root: &PublicKey, device: &PublicKey, shown: &[Bytes]) -> Result<()> {
    let entries = shown.iter().map(|bytes| Entry::from_bytes(bytes.clone()));
    let entries = entries.collect::<Result<Vec<_>>>()?;
    let membership = Membership::replay(DriveId::of(root), root, &entries)?;
    if device == root || membership.is_active(device) {
        return Ok(());
    }
    Err(stranger())
}

fn stranger() -> Error {
    Error::Refused("this device is not a member of the drive".to_owned())
}

fn with_outboard(len: u64) -> u64 {
    len.saturating_add(Outboard::encoded_len(len))
}

/// The bytes of all files under `dir`.
fn dir_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => dir_bytes(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
