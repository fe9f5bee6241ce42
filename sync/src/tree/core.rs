//! The tree's state, and how its files are found in memory.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};

use rdrivefs_remote::env::Env;

use crate::error::{Error, Posix, Result};
use crate::id::{self, DeviceNumber, Ino};
use crate::index::Index;
use crate::journal::{Appended, Journal, Place, Position};
use crate::record::TimeNs;
use crate::tree::news::News;
use crate::tree::node::{Node, Row, State};
use crate::tree::words::Change;

/// Where chunks are read from.
pub trait Chunks: Send + Sync {
    /// The plain bytes of `range` of a chunk.
    ///
    /// # Errors
    /// When they are neither here nor to be had, or do not open.
    fn read(&self, layer: i64, number: u32, range: Range<u32>) -> Result<Vec<u8>>;
    /// Whether they are sure to be on this computer, as far as is known without asking its disk.
    fn is_here(&self, _layer: i64, _number: u32, _range: Range<u32>) -> bool {
        true
    }
}

/// Files kept in memory beside those that must be: about 30 MiB.
pub(super) const CLEAN_NODES_MAX: usize = 32_768;

/// How many of them go at once when there are more, so that looking for them is worth it.
const CLEAN_NODES_STEP: usize = CLEAN_NODES_MAX / 4;

/// Who hears of changes behind the kernel's back.
pub(super) type Heard = Box<dyn Fn(Change) + Send + Sync>;

/// The files of a drive on this device.
pub struct Tree {
    pub(super) env: Env,
    pub(super) device: DeviceNumber,
    pub(super) index: Arc<Index>,
    pub(super) journal: Arc<Journal>,
    pub(super) chunks: Arc<dyn Chunks>,
    /// The directory whose disk is this drive's.
    pub(super) dir: PathBuf,
    /// Shared by every change, alone for a flush: the index stands at an exact position.
    pub(super) gate: RwLock<()>,
    /// One change of names at a time.
    pub(super) names: Mutex<()>,
    /// Alone while a name is taken from one place and put in another: no reader finds it nowhere.
    pub(super) moving: RwLock<()>,
    /// Files in memory.
    pub(super) nodes: Mutex<HashMap<Ino, Arc<Node>>>,
    /// How often a file left `nodes`: a row read before that may be an old one.
    pub(super) forgotten: AtomicU64,
    /// Of these, files the index does not have as they are.
    pub(super) dirty: Mutex<HashMap<Ino, Arc<Node>>>,
    /// Of these, files with content in the journal.
    pub(super) staged: Mutex<HashMap<Ino, Arc<Node>>>,
    /// How often the kernel was told of an inode and did not give it back.
    pub(super) references: Mutex<HashMap<Ino, u64>>,
    /// Journal segments that are being read for sealing.
    pub(super) sealing: Mutex<Vec<Weak<BTreeSet<u32>>>>,
    /// The next number to draw.
    pub(super) counter: AtomicU64,
    /// How many files there are.
    pub(super) files: AtomicI64,
    /// A change is in the journal and could not be applied: memory is not to be trusted any more.
    pub(super) failed: AtomicBool,
    pub(super) heard: OnceLock<Heard>,
    pub(super) news: News,
    pub(super) upkeep: Mutex<crate::tree::upkeep_state::Upkeep>,
}

impl Tree {
    /// A file in memory or from the index.
    pub(super) fn node(&self, ino: Ino) -> Result<Arc<Node>> {
        loop {
            if let Some(node) = lock(&self.nodes).get(&ino) {
                return Ok(node.clone());
            }
            let forgotten = self.forgotten.load(Ordering::Acquire);
            let row = self.index.node(ino)?.ok_or(Posix::Stale)?;
            let row = Row::decode(ino, &row)?;
            if row.grave {
                return Err(Posix::Stale.into());
            }
            let node = Node::new(ino, row, false, self.env.instant());
            let mut nodes = lock(&self.nodes);
            if self.forgotten.load(Ordering::Acquire) != forgotten {
                continue;
            }
            if nodes.len() >= CLEAN_NODES_MAX + CLEAN_NODES_STEP {
                self.forget_clean(&mut nodes);
            }
            // Whoever was first has the node everybody shares.
            return Ok(nodes.entry(ino).or_insert_with(|| Arc::new(node)).clone());
        }
    }

    /// Forgets what a burst of changes left in memory, now that the index has it.
    pub(super) fn forget_surplus(&self) {
        let mut nodes = lock(&self.nodes);
        if nodes.len() > CLEAN_NODES_MAX {
            self.forget_clean(&mut nodes);
            nodes.shrink_to(CLEAN_NODES_MAX + CLEAN_NODES_STEP);
        }
    }

    /// Forgets files that are as the index has them and that nobody is at, until few enough are
    /// left. Which ones is chance.
    fn forget_clean(&self, nodes: &mut HashMap<Ino, Arc<Node>>) {
        let mut surplus = nodes.len().saturating_sub(CLEAN_NODES_MAX);
        let before = nodes.len();
        nodes.retain(|_, node| {
            // Who looks a file up holds its lock only after this map's, so a file that is held by
            // this map alone is not being changed.
            let keep = surplus == 0 || Arc::strong_count(node) > 1 || node.is_held();
            surplus -= usize::from(!keep);
            keep
        });
        if nodes.len() < before {
            self.forgotten.fetch_add(1, Ordering::Release);
        }
    }

    /// Takes a file out of memory for good; the index does not have it either.
    pub(super) fn drop_node(&self, ino: Ino) {
        let mut nodes = lock(&self.nodes);
        self.forgotten.fetch_add(1, Ordering::Release);
        let node = nodes.remove(&ino);
        drop(nodes);
        if let Some(node) = node {
            node.write().gone = true;
        }
        lock(&self.dirty).remove(&ino);
        lock(&self.staged).remove(&ino);
    }

    /// Notes that a file must be written into the index.
    pub(super) fn dirtied(&self, node: &Arc<Node>, state: &mut State) {
        if !state.dirty && !state.gone {
            state.dirty = true;
            lock(&self.dirty).insert(node.ino, node.clone());
        }
    }

    /// Keeps the set of files with staged content in step.
    pub(super) fn restaged(&self, node: &Arc<Node>, state: &mut State) {
        let staged = state.row.unsealed() > 0 && !state.gone;
        if staged && state.dirty_since.is_none() {
            state.dirty_since = Some(self.env.instant());
            lock(&self.staged).insert(node.ino, node.clone());
        } else if !staged && state.dirty_since.is_some() {
            state.dirty_since = None;
            lock(&self.staged).remove(&node.ino);
        }
    }

    /// A look at names, which are all somewhere meanwhile.
    pub(super) fn moving_shared(&self) -> RwLockReadGuard<'_, ()> {
        self.moving.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A change during which a name may be nowhere.
    pub(super) fn moving_alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.moving.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number nobody ever had.
    pub(super) fn draw(&self) -> u64 {
        id::draw(self.device, self.counter.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes sure a number that was found in use is not drawn again.
    pub(super) fn drawn(&self, number: u64) {
        if number >> 48 == u64::from(self.device.0) {
            self.counter.fetch_max((number >> 8 & ((1 << 40) - 1)) + 1, Ordering::Relaxed);
        }
    }

    /// The time now, by this computer's clock.
    pub(super) fn now(&self) -> TimeNs {
        let ns = self.env.wall_ns();
        let nanos = u32::try_from(ns % 1_000_000_000).expect("below a second");
        TimeNs { secs: (ns / 1_000_000_000).cast_signed(), nanos }
    }

    /// Appends a record that makes a change.
    pub(super) fn append(&self, record: &[u8]) -> Result<Appended> {
        self.check_whole()?;
        self.journal.append(record)
    }

    /// Appends a record that names staged bytes.
    pub(super) fn append_naming(&self, record: &[u8], data: &[Place]) -> Result<Position> {
        self.check_whole()?;
        Ok(self.journal.append_naming(record, data)?.position)
    }

    /// Appends a record that makes room: it may use the reserve.
    pub(super) fn append_reserved(&self, record: &[u8]) -> Result<Position> {
        self.check_whole()?;
        self.let_go_for_index();
        Ok(self.journal.append_reserved(record, &[])?.position)
    }

    /// Passes on how a change that is in the journal was applied. If it was not, memory is behind
    /// the journal and nothing may rest on it: only a replay mends that.
    pub(super) fn applied<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        result
    }

    /// As [`Tree::applied`], for a change of one file, which may have been forgotten between the
    /// record and its application: there is nothing to be behind of then.
    pub(super) fn applied_to_file<T>(&self, result: Result<T>) -> Result<T> {
        match result {
            Err(Error::Posix(Posix::Stale)) => Err(Posix::Stale.into()),
            result => self.applied(result),
        }
    }

    pub(super) fn check_whole(&self) -> Result<()> {
        if !self.failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let why = std::io::Error::other("a change could not be applied, start again to replay it");
        Err(Error::io("the index")(why))
    }

    /// Tells the kernel's side of a change.
    pub(super) fn tell(&self, change: Change) {
        self.news.add(change.clone());
        if let Some(heard) = self.heard.get() {
            heard(change);
        }
    }

    /// A file as it is: for those who look at many.
    ///
    /// # Errors
    /// [`Posix::Stale`].
    pub fn row(&self, ino: Ino) -> Result<Row> {
        Ok(self.node(ino)?.read().row.clone())
    }

    /// Registers who hears of changes that did not come through the calls of a filesystem.
    pub fn on_change(&self, heard: Box<dyn Fn(Change) + Send + Sync>) {
        // One kernel mounts a tree; a second registration has nobody to tell.
        drop(self.heard.set(heard));
    }
}

/// A lock; what a panicking thread left behind is whole, since each change is made at once.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
