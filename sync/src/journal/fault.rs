//! A disk in memory that fails as disks do: for tests and the simulation.
//!
//! It keeps what was synced apart from what was only written. [`FaultDisk::crash`] gives the disk
//! that a power cut would leave: of the writes that were not synced any may be there, whole or in
//! some of their sectors, and of the names that were not synced any may be there or not. A sync
//! that fails leaves its writes readable but never to become durable, and the next one succeeds,
//! as on Linux.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::{Disk, DiskFile};

/// A write is torn at multiples of this.
const SECTOR_BYTES: usize = 512;

/// What goes wrong, counted in calls that change or sync something.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// This call and all after it fail: the machine is gone.
    pub die_at: Option<u64>,
    /// This call fails with the error, once.
    pub fail_at: Option<(u64, io::ErrorKind)>,
    /// As `fail_at`, and so do all calls of the same sort after it.
    pub again: bool,
    /// A sync that fails takes back all but the first sector of what it did not write, as if memory
    /// had run short since.
    pub lose: bool,
}

/// A directory in memory.
#[derive(Clone, Default)]
pub struct FaultDisk(Arc<Mutex<World>>);

#[derive(Default)]
struct World {
    files: BTreeMap<u64, Content>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    unsynced_names: Vec<Change>,
    next: u64,
    calls: u64,
    syncs: u64,
    faults: Faults,
    failing: Option<Sort>,
    capacity_bytes: Option<u64>,
    sync_ms: u64,
}

#[derive(Default, Clone)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone)]
enum Change {
    Add(String, u64),
    Rename(String, String, u64),
    Remove(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Write,
    Sync,
    Name,
}

struct Handle {
    disk: FaultDisk,
    file: u64,
}

impl FaultDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("no test goes on after a panic")
    }

    /// Chooses what goes wrong; counting goes on from the calls made so far.
    pub fn set_faults(&self, faults: Faults) {
        let mut world = self.world();
        world.faults = faults;
        world.failing = None;
    }

    /// How many bytes all files may take together.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.world().capacity_bytes = bytes;
    }

    /// Lets every sync of a file take so long.
    pub fn set_sync_ms(&self, sync_ms: u64) {
        self.world().sync_ms = sync_ms;
    }

    /// Calls so far that change or sync something.
    pub fn calls(&self) -> u64 {
        self.world().calls
    }

    /// Syncs of files so far.
    pub fn syncs(&self) -> u64 {
        self.world().syncs
    }

    /// The disk after a power cut; `seed` decides what survives of what was not synced.
    pub fn crash(&self, seed: u64) -> Self {
        let world = self.world();
        let mut draw = Draw(seed);
        let mut names = world.durable_names.clone();
        for change in &world.unsynced_names {
            if draw.coin() {
                change.apply(&mut names);
            }
        }
        let files = world.files.iter().map(|(id, content)| (*id, content.crash(&mut draw)));
        let files = files.collect();
        let durable_names = names.clone();
        let next = world.next;
        let after = World { files, names, durable_names, next, ..World::default() };
        Self(Arc::new(Mutex::new(after)))
    }

    /// The disk as another process would find it after this one was killed.
    pub fn copy(&self) -> Self {
        let world = self.world();
        let (files, names) = (world.files.clone(), world.names.clone());
        let (durable_names, unsynced_names) =
            (world.durable_names.clone(), world.unsynced_names.clone());
        let next = world.next;
        let after = World { files, names, durable_names, unsynced_names, next, ..World::default() };
        Self(Arc::new(Mutex::new(after)))
    }

    /// The names and lengths of all files.
    pub fn lengths(&self) -> Vec<(String, usize)> {
        let world = self.world();
        let names = world.names.iter();
        names.map(|(name, id)| (name.clone(), world.files[id].now.len())).collect()
    }

    /// Damages one byte of a file.
    pub fn flip(&self, name: &str, at: usize, mask: u8) {
        let mut world = self.world();
        let id = world.names[name];
        let content = world.files.get_mut(&id).expect("a name has a file");
        content.now[at] ^= mask;
        content.durable.clone_from(&content.now);
        content.unsynced.clear();
    }
}

impl World {
    /// Counts a call and says whether it fails.
    fn call(&mut self, sort: Sort) -> io::Result<()> {
        let number = self.calls;
        self.calls += 1;
        if self.faults.die_at.is_some_and(|at| number >= at) {
            return Err(io::Error::other("the machine is gone"));
        }
        let Some((at, kind)) = self.faults.fail_at else { return Ok(()) };
        if number == at {
            self.failing = Some(sort);
        }
        if number == at || (self.faults.again && self.failing == Some(sort)) {
            return Err(kind.into());
        }
        Ok(())
    }

    fn used_bytes(&self) -> u64 {
        self.names.values().map(|id| self.files[id].now.len() as u64).sum()
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        let called = self.call(Sort::Name);
        if called.is_ok() {
            change.apply(&mut self.names);
        }
        if called.is_ok() || self.faults.die_at.is_some() {
            self.unsynced_names.push(change);
        }
        called
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Add(name, id) => {
                names.insert(name.clone(), *id);
            }
            Self::Rename(from, to, id) => {
                names.remove(from);
                names.insert(to.clone(), *id);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl Content {
    fn crash(&self, draw: &mut Draw) -> Self {
        let mut durable = self.durable.clone();
        for (at, bytes) in &self.unsynced {
            let fate = draw.next() % 4;
            for (index, sector) in sectors(*at, bytes) {
                if fate == 0 || (fate == 1 && draw.coin()) {
                    put(&mut durable, index, sector);
                }
            }
        }
        Self { now: durable.clone(), durable, unsynced: Vec::new() }
    }
}

/// The pieces of a write that a disk writes as one.
fn sectors(at: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let first = (SECTOR_BYTES - at % SECTOR_BYTES).min(bytes.len());
    let (head, rest) = bytes.split_at(first);
    let rest = rest.chunks(SECTOR_BYTES).enumerate();
    let rest = rest.map(move |(index, sector)| (at + first + index * SECTOR_BYTES, sector));
    std::iter::once((at, head)).chain(rest)
}

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[at..end].copy_from_slice(bytes);
}

/// Splitmix64: the same seed, the same crash.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn coin(&mut self) -> bool {
        self.next().is_multiple_of(2)
    }
}

impl Disk for FaultDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        if world.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = world.next;
        world.next += 1;
        world.files.insert(file, Content::default());
        world.change(Change::Add(name.to_owned(), file))?;
        Ok(Arc::new(Handle { disk: self.clone(), file }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.world().names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(Handle { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        let file = world.names.get(from).copied().ok_or(io::ErrorKind::NotFound)?;
        world.change(Change::Rename(from.to_owned(), to.to_owned(), file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        if !world.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.change(Change::Remove(name.to_owned()))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.world().names.keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut world = self.world();
        world.call(Sort::Sync)?;
        world.unsynced_names.clear();
        world.durable_names = world.names.clone();
        Ok(())
    }

    fn free_space(&self) -> io::Result<u64> {
        let world = self.world();
        let capacity = world.capacity_bytes.unwrap_or(u64::MAX);
        Ok(capacity.saturating_sub(world.used_bytes()))
    }
}

impl DiskFile for Handle {
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut world = self.disk.world();
        let called = world.call(Sort::Write);
        let dying = world.faults.die_at.is_some();
        let at = usize::try_from(at).expect("a test file is small");
        let content = &world.files[&self.file];
        let growth = (at + bytes.len()).saturating_sub(content.now.len()) as u64;
        if world.capacity_bytes.is_some_and(|most| world.used_bytes() + growth > most) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let content = world.files.get_mut(&self.file).expect("a handle has a file");
        if called.is_ok() {
            put(&mut content.now, at, bytes);
        }
        if called.is_ok() || dying {
            content.unsynced.push((at, bytes.to_vec()));
        } else {
            // Who knows how far it came: half, and only in memory.
            put(&mut content.now, at, &bytes[..bytes.len() / 2]);
            content.unsynced.push((at, bytes[..bytes.len() / 2].to_vec()));
        }
        called
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<usize> {
        let world = self.disk.world();
        let content = &world.files[&self.file].now;
        let start = usize::try_from(at).map_or(content.len(), |at| at.min(content.len()));
        let n = out.len().min(content.len() - start);
        out[..n].copy_from_slice(&content[start..start + n]);
        Ok(n)
    }

    fn datasync(&self) -> io::Result<()> {
        let mut world = self.disk.world();
        let called = world.call(Sort::Sync);
        world.syncs += 1;
        let (dying, sync_ms) = (world.faults.die_at.is_some(), world.sync_ms);
        let lose = world.faults.lose;
        let content = world.files.get_mut(&self.file).expect("a handle has a file");
        match called {
            Ok(()) => {
                let unsynced = std::mem::take(&mut content.unsynced);
                for (at, bytes) in unsynced {
                    put(&mut content.durable, at, &bytes);
                }
            }
            // The pages are clean now, and what they hold will never be written.
            Err(_) if !dying => {
                let unsynced = std::mem::take(&mut content.unsynced);
                if lose {
                    let len = content.now.len();
                    content.now.clone_from(&content.durable);
                    content.now.resize(len, 0);
                    for (at, bytes) in unsynced {
                        put(&mut content.now, at, &bytes[..bytes.len().min(SECTOR_BYTES)]);
                    }
                }
            }
            Err(_) => {}
        }
        drop(world);
        if sync_ms > 0 {
            std::thread::sleep(std::time::Duration::from_millis(sync_ms));
        }
        called
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.world().files[&self.file].now.len() as u64)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut world = self.disk.world();
        world.call(Sort::Write)?;
        let content = &world.files[&self.file];
        let growth = len.saturating_sub(content.now.len() as u64);
        if world.capacity_bytes.is_some_and(|most| world.used_bytes() + growth > most) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let content = world.files.get_mut(&self.file).expect("a handle has a file");
        let len = usize::try_from(len).expect("a test file is small");
        // What is in it is of no interest, so the same is durable.
        content.now.resize(len, 0);
        content.durable.resize(len, 0);
        Ok(())
    }
}
