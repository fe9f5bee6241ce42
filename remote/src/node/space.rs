//! A space: what one drive keeps on this node, within its quota.
//!
//! Every byte is reserved in the ledger before the first one is taken. Membership entries have an
//! allowance of their own, because revoking a device must work in a full space.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Mutex, RwLock};

use crate::blob::BlobId;
use crate::entry::{Entry, Head, LogKind};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::identity::{DriveId, PublicKey};
use crate::logs::directory::DirectoryLogs;
use crate::logs::{Logs, READ_BYTES_MAX};
use crate::member::Membership;
use crate::node::config::RETAIN_MS;
use crate::node::ledger::{Ledger, Turns};
use crate::node::roll::{Roll, check_logs, decoded};
use crate::node::scrub;
use crate::proof::Outboard;
use crate::store::directory::DirectoryStore;
use crate::store::{Body, Space as Used, Store};
use crate::thread::on_a_thread;

/// One drive's blobs, logs, membership and quota.
pub(super) struct Space {
    drive: DriveId,
    root: PublicKey,
    env: Env,
    blobs: DirectoryStore,
    logs: DirectoryLogs,
    /// What the roll makes, for those who only ask.
    membership: RwLock<Arc<Membership>>,
    /// Blobs with their outboards, and commit logs.
    ledger: Arc<Ledger>,
    /// Who puts or deletes a blob holds its turn, so that each byte is counted once.
    turns: Turns<BlobId>,
    /// Held over every append, so that what was checked still holds when it is written.
    roll: Mutex<Roll>,
}

impl Space {
    /// The space of the drive with this root under `dir`.
    pub(super) async fn open(dir: PathBuf, root: PublicKey, env: &Env) -> Result<Arc<Self>> {
        let drive = DriveId::of(&root);
        let (at, world) = (dir.clone(), env.clone());
        let (blobs, logs) = on_a_thread(move || {
            let blobs = DirectoryStore::open(&at.join("blobs"), &world)?;
            Ok((blobs, DirectoryLogs::open(&at.join("logs"), drive)?))
        })
        .await?;
        let roll = Roll::open(drive, root, stored_roll(drive, &logs).await?).await?;
        let log_bytes = on_a_thread(move || Ok(dir_bytes(&dir.join("logs")))).await?;
        let used = blobs.space().await?.used + log_bytes.saturating_sub(roll.bytes());
        Ok(Arc::new(Self {
            drive,
            root,
            env: env.clone(),
            blobs,
            logs,
            membership: RwLock::new(roll.membership()),
            ledger: Ledger::new(used),
            turns: Turns::default(),
            roll: Mutex::new(roll),
        }))
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
        let reserved = self.ledger.reserve(with_outboard(body.len));
        if self.length(id).await?.is_some() {
            return self.put_again(id, body, reserved.is_ok()).await;
        }
        let reservation = reserved?;
        self.blobs.put(id, body).await?;
        reservation.keep();
        Ok(())
    }

    /// Writes a blob once more, which heals a rotten one and takes room only meanwhile; where there
    /// is none for that, one that is sound is left alone, and a rotten one makes room for itself.
    async fn put_again(&self, id: BlobId, body: Body, has_room: bool) -> Result<()> {
        if has_room {
            return self.blobs.put(id, body).await;
        }
        let path = self.blobs.path(&id);
        if on_a_thread(move || Ok(scrub::is_sound(&path, &id))).await? {
            return Ok(());
        }
        self.remove(id).await?;
        let reservation = self.ledger.reserve(with_outboard(body.len))?;
        self.blobs.put(id, body).await?;
        reservation.keep();
        Ok(())
    }

    /// Appends an entry of an author who belongs to the drive; tells whether members changed.
    pub(super) async fn append(&self, entry: Bytes) -> Result<bool> {
        let entry = on_a_thread(move || Entry::from_bytes(entry)).await?;
        if entry.drive != self.drive {
            return Err(Error::Refused("the entry belongs to another drive".to_owned()));
        }
        let mut roll = self.roll.lock().await;
        match entry.log.kind {
            LogKind::Commits => self.append_commit(&entry).await.map(|()| false),
            LogKind::Membership if roll.has(&entry) => Ok(false),
            LogKind::Membership => {
                let with = roll.weigh(std::slice::from_ref(&entry)).await?;
                let stored = self.enlist(&mut roll, entry, &with).await;
                let changed = self.adopt(&mut roll).await?;
                stored.map(|()| changed)
            }
        }
    }

    /// Checks that `device` belongs to the drive, by what is stored and what it shows; what it
    /// shows is stored if so. Tells whether members changed.
    pub(super) async fn certify(&self, device: &PublicKey, shown: Vec<Bytes>) -> Result<bool> {
        let mut roll = self.roll.lock().await;
        let fresh = roll.unknown(shown).await?;
        let mut stored = Ok(());
        // More than can be weighed is not even looked at: what is stored decides.
        if !fresh.is_empty()
            && let Ok(with) = roll.weigh(&fresh).await
        {
            if *device != self.root && !with.is_active(device) {
                return Err(stranger());
            }
            for entry in fresh {
                stored = match self.enlist(&mut roll, entry, &with).await {
                    // An old certificate, a fork, or too much: what is stored stays.
                    Err(Error::LogConflict { .. } | Error::Refused(_)) => continue,
                    other => other,
                };
                if stored.is_err() {
                    break;
                }
            }
        }
        let changed = self.adopt(&mut roll).await?;
        stored?;
        if self.admits(device).await { Ok(changed) } else { Err(stranger()) }
    }

    /// Removes a blob, unless the node still holds it: it counts from when the blob was last put.
    /// Before devices can condemn a blob together, one device's word deletes only where the keeper
    /// chose so: a device that was taken over must not be able to destroy what others rely on.
    pub(super) async fn delete(&self, id: BlobId, retain_ms: u64) -> Result<()> {
        if retain_ms >= RETAIN_MS {
            return Err(Error::Refused("this node deletes nothing".to_owned()));
        }
        // Who waits for a put that is under way must see when that one came.
        let _turn = self.turns.take(id).await;
        if retain_ms > 0 && self.age_ms(&id)?.is_some_and(|age| age < retain_ms) {
            return Err(Error::Refused(format!("this node holds every blob for {retain_ms} ms")));
        }
        self.remove(id).await
    }

    /// Removes a blob; the caller holds its turn.
    async fn remove(&self, id: BlobId) -> Result<()> {
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

    /// Appends a commit within the quota; the caller holds the roll.
    async fn append_commit(&self, entry: &Entry) -> Result<()> {
        let author = &entry.log.author;
        let membership = self.membership().await;
        let accepted = match membership.device(author).map(|member| &member.revoked) {
            Some(None) => true,
            // Others may still bring what was accepted.
            Some(Some(revoked)) => revoked.accepts(entry),
            None => *author == self.root,
        };
        if !accepted {
            let why = "the entry's author is not a member of the drive";
            return Err(Error::Refused(why.to_owned()));
        }
        let grows = self.grows(entry).await?;
        let reservation =
            self.ledger.reserve(if grows { entry.encode().len() as u64 } else { 0 })?;
        self.logs.append(entry.encode()).await?;
        reservation.keep();
        Ok(())
    }

    /// Stores a membership entry that should be kept; `with` is the membership with it.
    async fn enlist(&self, roll: &mut Roll, entry: Entry, with: &Membership) -> Result<()> {
        if self.grows(&entry).await? {
            roll.check(&entry, with)?;
        }
        self.logs.append(entry.encode()).await?;
        roll.add(entry);
        Ok(())
    }

    /// Whether the entry makes its log longer, for which there must be room; else it is there
    /// already, or in conflict with what is.
    async fn grows(&self, entry: &Entry) -> Result<bool> {
        let heads = self.logs.heads().await?;
        check_logs(entry, &self.root, &heads)?;
        let newest = |head: &Head| head.log == entry.log && head.number >= entry.number;
        Ok(!heads.iter().any(newest))
    }

    /// Takes over what the roll makes, whoever put it there; tells whether it is something else.
    async fn adopt(&self, roll: &mut Roll) -> Result<bool> {
        let Some(membership) = roll.adopt().await? else { return Ok(false) };
        *self.membership.write().await = membership;
        Ok(true)
    }
}

/// The membership entries that lie in the logs.
async fn stored_roll(drive: DriveId, logs: &DirectoryLogs) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for Head { log, number: last, .. } in logs.heads().await? {
        let mut next = 1;
        while log.kind == LogKind::Membership && next <= last {
            let some = logs.read(log, next, READ_BYTES_MAX).await?;
            if some.is_empty() {
                return Err(Error::malformed("log", "shorter than its head says"));
            }
            next += some.len() as u64;
            entries.extend(on_a_thread(move || decoded(&drive, some)).await?);
        }
    }
    Ok(entries)
}

/// Whether `device` belongs to the drive of `root` by these entries alone.
pub(super) async fn certified(root: &PublicKey, device: &PublicKey, shown: &[Bytes]) -> Result<()> {
    let (root, device, shown) = (*root, *device, shown.to_vec());
    on_a_thread(move || {
        let drive = DriveId::of(&root);
        let membership = Membership::replay(drive, &root, &decoded(&drive, shown)?)?;
        if device == root || membership.is_active(&device) { Ok(()) } else { Err(stranger()) }
    })
    .await
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::task::{Context, Waker};
    use std::time::{Duration, SystemTime};

    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::entry::{Header, LogId};
    use crate::identity::SecretKey;
    use crate::member::{Change, Last, WRAP_KEY_BYTES};

    struct World {
        _dir: tempfile::TempDir,
        root: SecretKey,
        entries: Vec<Entry>,
        space: Arc<Space>,
    }

    impl World {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let root = SecretKey::from_seed([1; 32]);
            let space = Space::open(dir.path().to_owned(), root.public(), &Env::real()).await;
            Self { _dir: dir, root, entries: Vec::new(), space: space.unwrap() }
        }

        fn change(&mut self, change: Change) -> Bytes {
            let drive = self.space.drive;
            let now = Membership::replay(drive, &self.root.public(), &self.entries).unwrap();
            self.entries.push(now.sign(&self.root, 0, change).unwrap());
            self.entries.last().unwrap().encode()
        }

        fn device(&mut self, seed: u8, admin: bool) -> (SecretKey, Bytes) {
            let device = SecretKey::from_seed([seed; 32]);
            let (wrap_key, number) = (Bytes::from(vec![0; WRAP_KEY_BYTES]), seed.into());
            let add = Change::Add { device: device.public(), number, admin, wrap_key };
            (device, self.change(add))
        }

        /// The next entry of a log, whatever its body.
        fn entry(&self, by: &SecretKey, kind: LogKind, instance: u32, head: Option<Head>) -> Entry {
            let log = LogId { kind, author: by.public(), instance };
            let header =
                Header::after(self.space.drive, &head.unwrap_or(Head::empty(log)), [0; 32]);
            Entry::sign(by, header, Bytes::from_static(b"anything")).unwrap()
        }
    }

    #[tokio::test]
    async fn a_certificate_that_was_stored_by_halves_counts_the_next_time() {
        let mut world = World::new().await;
        let (device, shown) = world.device(2, false);
        let key = device.public();
        let mut cut = Box::pin(world.space.certify(&key, vec![shown.clone()]));
        // Its entry is on the disk, and it does not live to say so.
        while world.space.logs.heads().await.unwrap().is_empty() {
            let polled = cut.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(cut);
        assert!(!world.space.admits(&key).await);
        assert!(world.space.certify(&key, vec![shown]).await.unwrap(), "members changed");
        assert!(world.space.admits(&key).await);
    }

    #[tokio::test]
    async fn s31_nothing_of_a_revoked_device_is_taken_but_what_was_accepted() {
        let mut world = World::new().await;
        let (device, added) = world.device(2, false);
        world.space.append(added).await.unwrap();
        let one = world.entry(&device, LogKind::Commits, 0, None);
        let two = world.entry(&device, LogKind::Commits, 0, Some(one.head()));
        let last = vec![Last { instance: 0, number: 2, hash: two.hash() }];
        let revoke = world.change(Change::Revoke { device: device.public(), last });
        assert!(world.space.append(revoke).await.unwrap());
        let elsewhere = world.entry(&device, LogKind::Commits, 1, None);
        let forged = Head { hash: [7; 32], ..one.head() };
        let forged = world.entry(&device, LogKind::Commits, 0, Some(forged));
        let three = world.entry(&device, LogKind::Commits, 0, Some(two.head()));
        for bad in [&elsewhere, &forged, &three] {
            let refused = world.space.append(bad.encode()).await;
            assert!(matches!(refused, Err(Error::Refused(_))), "{bad:?}");
        }
        for good in [&one, &two] {
            world.space.append(good.encode()).await.unwrap();
        }
        let refused = world.space.append(three.encode()).await;
        assert!(matches!(refused, Err(Error::Refused(_))));
    }

    #[tokio::test]
    async fn who_is_no_admin_writes_no_membership_and_an_admin_no_more_than_their_part() {
        let mut world = World::new().await;
        let (plain, added) = world.device(2, false);
        let (admin, named) = world.device(3, true);
        for entry in [added, named] {
            world.space.append(entry).await.unwrap();
        }
        let refused = async |entry: &Entry| {
            let refused = world.space.append(entry.encode()).await;
            assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
        };
        refused(&world.entry(&plain, LogKind::Membership, 0, None)).await;
        for instance in 0..64 {
            let kinds = [(&admin, LogKind::Membership), (&plain, LogKind::Commits)];
            for entry in kinds.map(|(by, kind)| world.entry(by, kind, instance, None)) {
                world.space.append(entry.encode()).await.unwrap();
            }
        }
        refused(&world.entry(&admin, LogKind::Membership, 64, None)).await;
        refused(&world.entry(&plain, LogKind::Commits, 64, None)).await;
        let mut last = world.entry(&admin, LogKind::Membership, 0, None);
        for _ in 64..256 {
            last = world.entry(&admin, LogKind::Membership, 0, Some(last.head()));
            world.space.append(last.encode()).await.unwrap();
        }
        let more = world.entry(&admin, LogKind::Membership, 0, Some(last.head()));
        refused(&more).await;
        let revoke = world.change(Change::Revoke { device: admin.public(), last: Vec::new() });
        assert!(world.space.append(revoke).await.unwrap(), "the root goes on");
        assert!(!world.space.admits(&admin.public()).await);
    }

    #[tokio::test]
    async fn a_blob_put_again_is_held_again_even_if_its_end_was_asked_for_before() {
        let world = World::new().await;
        let bytes = Bytes::from(vec![5; 100_000]);
        let id = BlobId::of(&bytes);
        world.space.put(id, Body::bytes(bytes.clone())).await.unwrap();
        let day = Duration::from_secs(86_400);
        let long_ago = SystemTime::UNIX_EPOCH
            + Duration::from_millis(world.space.env.wall_ms().0).saturating_sub(31 * day);
        let file = File::options().write(true).open(world.space.blobs.path(&id)).unwrap();
        file.set_modified(long_ago).unwrap();
        let (mut feed, source) = tokio::io::duplex(1 << 20);
        let (again, gone) = (world.space.clone(), world.space.clone());
        let put =
            tokio::spawn(
                async move { again.put(id, Body::stream(100_000, Box::new(source))).await },
            );
        feed.write_all(&bytes[..50_000]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(world.space.reserved() >= 100_000, "what arrives has room even so");
        let delete = tokio::spawn(async move { gone.delete(id, RETAIN_MS - 1).await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        feed.write_all(&bytes[50_000..]).await.unwrap();
        put.await.unwrap().unwrap();
        assert!(matches!(delete.await.unwrap(), Err(Error::Refused(_))));
        assert_eq!(world.space.length(id).await.unwrap(), Some(100_000));
    }

    #[tokio::test]
    async fn in_a_full_space_a_blob_can_be_put_again_and_healed() {
        let world = World::new().await;
        let bytes = Bytes::from(vec![5; 100_000]);
        let id = BlobId::of(&bytes);
        world.space.set_quota(Some(150_000));
        world.space.put(id, Body::bytes(bytes.clone())).await.unwrap();
        let used = world.space.used().await.unwrap();
        world.space.put(id, Body::bytes(bytes.clone())).await.unwrap();
        let mut rotten = bytes.to_vec();
        rotten[7] ^= 1;
        std::fs::write(world.space.blobs.path(&id), rotten).unwrap();
        world.space.put(id, Body::bytes(bytes)).await.unwrap();
        assert!(scrub::is_sound(&world.space.blobs.path(&id), &id));
        assert_eq!(world.space.used().await.unwrap(), used);
    }
}
