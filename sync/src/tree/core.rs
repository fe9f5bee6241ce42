//! The tree's state, and how its files are found in memory.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use rdrivefs_remote::env::Env;

use crate::error::{Posix, Result};
use crate::id::{self, DeviceNumber, Ino};
use crate::index::Index;
use crate::journal::{Appended, Journal, Position};
use crate::record::TimeNs;
use crate::tree::node::{Node, Row, State};
use crate::tree::words::Change;

/// Where chunks are read from.
pub trait Chunks: Send + Sync {
    /// The plain bytes of `range` of a chunk.
    ///
    /// # Errors
    /// When they are neither here nor to be had, or do not open.
    fn read(&self, layer: i64, number: u32, range: Range<u32>) -> Result<Vec<u8>>;
}

/// Files kept in memory beside those that must be.
pub(super) const CLEAN_NODES_MAX: usize = 32_768;

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
    /// Files in memory.
    pub(super) nodes: Mutex<HashMap<Ino, Arc<Node>>>,
    /// Of these, files the index does not have as they are.
    pub(super) dirty: Mutex<HashMap<Ino, Arc<Node>>>,
    /// Of these, files with content in the journal.
    pub(super) staged: Mutex<HashMap<Ino, Arc<Node>>>,
    /// How often the kernel was told of an inode and did not give it back.
    pub(super) references: Mutex<HashMap<Ino, u64>>,
    /// The next number to draw.
    pub(super) counter: AtomicU64,
    pub(super) heard: OnceLock<Heard>,
    pub(super) upkeep: Mutex<crate::tree::upkeep_state::Upkeep>,
}

impl Tree {
    /// A file in memory or from the index.
    pub(super) fn node(&self, ino: Ino) -> Result<Arc<Node>> {
        if let Some(node) = lock(&self.nodes).get(&ino) {
            return Ok(node.clone());
        }
        let row = self.index.node(ino)?.ok_or(Posix::Stale)?;
        let node = Arc::new(Node::new(ino, Row::decode(ino, &row)?, false, self.env.instant()));
        // Whoever was first has the node everybody shares.
        Ok(lock(&self.nodes).entry(ino).or_insert(node).clone())
    }

    /// Notes that a file must be written into the index.
    pub(super) fn dirtied(&self, node: &Arc<Node>, state: &mut State) {
        if !state.dirty {
            state.dirty = true;
            lock(&self.dirty).insert(node.ino, node.clone());
        }
    }

    /// Keeps the set of files with staged content in step.
    pub(super) fn restaged(&self, node: &Arc<Node>, state: &mut State) {
        let staged = state.row.unsealed() > 0;
        if staged && state.dirty_since.is_none() {
            state.dirty_since = Some(self.env.instant());
            lock(&self.staged).insert(node.ino, node.clone());
        } else if !staged && state.dirty_since.is_some() {
            state.dirty_since = None;
            lock(&self.staged).remove(&node.ino);
        }
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
        self.journal.append(record)
    }

    /// Appends a record that makes room: it may use the reserve.
    pub(super) fn append_reserved(&self, record: &[u8]) -> Result<Position> {
        Ok(self.journal.append_reserved(record, &[])?.position)
    }

    /// Tells the kernel's side of a change.
    pub(super) fn tell(&self, change: Change) {
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
