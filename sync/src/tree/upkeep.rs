//! Upkeep: writing memory behind the journal, and freeing the journal behind the index.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::index::APPLIED;
use crate::index::nodes::{FILES, Marked, Pending};
use crate::journal::Position;
use crate::tree::core::{Tree, lock};
use crate::tree::node::Node;
use crate::tree::upkeep_state::COUNTER;
use crate::tree::words::Statfs;

/// How often the index is made durable so that the journal can be freed.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

/// A journal with more than this beside what is still to be sealed is freed at once.
const JOURNAL_BYTES_MAX: u64 = 256 << 20;

/// With less than this left for writers, the journal is freed as often as it can be: it is mostly
/// the larger part of what can be freed at once.
const CRAMPED_BYTES: u64 = 128 << 20;

/// What a transaction of the index may come to write at most, in pages of its log.
const INDEX_BYTES: u64 = 16 << 20;

/// What it writes for a few changes.
const INDEX_BYTES_MIN: u64 = 1 << 20;

/// What it may write for a change: a page in each of two tables.
const CHANGE_BYTES: u64 = 8 << 10;

/// What `statfs` counts in.
const BLOCK_BYTES: u64 = 4096;

/// Files that nobody counts: there is no table of inodes to run out of.
const FILES_FREE: u64 = 1 << 32;

/// What is written and not sealed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unsealed {
    /// Bytes.
    pub bytes: u64,
    /// Files.
    pub files: u64,
}

impl Tree {
    /// Whether memory holds what the index does not, or the journal what could be freed.
    pub fn is_dirty(&self) -> bool {
        let upkeep = lock(&self.upkeep);
        !lock(&self.dirty).is_empty()
            || upkeep.purged
            || upkeep.applied < self.journal.last()
            || upkeep.durable < upkeep.applied
    }

    /// Grows with every change made here.
    pub fn changes(&self) -> u64 {
        self.journal.last().0
    }

    /// What is written and not sealed.
    pub fn unsealed(&self) -> Unsealed {
        let staged: Vec<_> = lock(&self.staged).values().cloned().collect();
        let bytes = staged.iter().map(|node| node.read().row.extents.staged()).sum();
        Unsealed { bytes, files: staged.len() as u64 }
    }

    /// Does what is due: syncs the journal, writes the index, frees the journal.
    ///
    /// # Errors
    /// Of the disk; what was not done is tried again.
    pub fn maintain(&self) -> Result<()> {
        self.flush()?;
        let age = self.env.instant().since(lock(&self.upkeep).checkpointed);
        let long = self.journal.bytes_used() > JOURNAL_BYTES_MAX + self.unsealed().bytes;
        if age >= CHECKPOINT_EVERY || long || self.is_cramped()? {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Whether there is so little room that what can be freed should be.
    ///
    /// # Errors
    /// Of the disk.
    pub fn is_cramped(&self) -> Result<bool> {
        Ok(self.journal.available()? < CRAMPED_BYTES)
    }

    /// Sees to it that there is room on the disk for a layer of so many bytes: what the index may
    /// come to need is left in the reserve.
    ///
    /// # Errors
    /// [`Posix::NoSpace`](crate::error::Posix) when there is none.
    pub fn ensure_room(&self, bytes: u64) -> Result<()> {
        self.journal.ensure_free(bytes, 2 * INDEX_BYTES)
    }

    /// Lets some of the reserve go for what a removal writes into the open transaction of the
    /// index; whether there is enough is seen when it ends.
    pub(super) fn let_go_for_index(&self) {
        // The record itself has what is left of the reserve.
        drop(self.journal.ensure_free(INDEX_BYTES_MIN, 0));
    }

    /// Room for the end of the index's transaction, which a full disk would lose: as much as what
    /// changed may come to.
    fn ensure_index_room(&self, nodes: usize, at: Position) -> Result<()> {
        let changed = {
            let upkeep = lock(&self.upkeep);
            let records = at.0.saturating_sub(upkeep.applied.0);
            nodes as u64 + records + u64::from(upkeep.purged)
        };
        match changed {
            0 => Ok(()),
            n => {
                let bytes = INDEX_BYTES_MIN + n.saturating_mul(CHANGE_BYTES);
                self.journal.ensure_free(bytes.min(INDEX_BYTES), 0)
            }
        }
    }

    /// Makes everything durable that was handed over until now.
    ///
    /// # Errors
    /// When it is not durable.
    pub fn sync_all(&self) -> Result<()> {
        self.journal.sync(self.journal.last(), &[]).map(drop)
    }

    /// Writes everything that changed into the index, which then stands at an exact position of
    /// the journal.
    ///
    /// # Errors
    /// Of the index; nothing is lost, since the journal has it.
    pub fn flush(&self) -> Result<()> {
        self.sync_ahead()?;
        let _gate = self.alone();
        self.flush_alone()
    }

    /// Makes durable what a flush would wait for, before anybody is held up: first the bulk, then
    /// what came meanwhile.
    fn sync_ahead(&self) -> Result<()> {
        self.sync_all()?;
        self.sync_all()
    }

    /// As [`Tree::flush`]; the caller has the gate to itself.
    pub(super) fn flush_alone(&self) -> Result<()> {
        self.check_whole()?;
        let at = self.journal.last();
        // Must: the index may reach the disk at any time after its commit, and what it says lies in
        // the journal must be there then.
        let _receipt = self.journal.sync(at, &[])?;
        let nodes: Vec<Arc<Node>> = lock(&self.dirty).values().cloned().collect();
        self.ensure_index_room(nodes.len(), at)?;
        if !nodes.is_empty() || !self.stands_at(at) {
            self.write_rows(&nodes, at)?;
        }
        self.index.commit()?;
        for node in &nodes {
            node.write().dirty = false;
        }
        drop(nodes);
        lock(&self.dirty).clear();
        self.forget_surplus();
        let mut upkeep = lock(&self.upkeep);
        (upkeep.applied, upkeep.purged) = (at, false);
        Ok(())
    }

    /// Makes the index durable and frees the journal behind it.
    ///
    /// # Errors
    /// Of the disk.
    pub fn checkpoint(&self) -> Result<()> {
        self.sync_ahead()?;
        let (applied, mut live) = {
            let _gate = self.alone();
            self.flush_alone()?;
            (lock(&self.upkeep).applied, self.live_segments())
        };
        self.index.make_durable()?;
        self.index.settle_spare();
        // What the durable index knows to lie in the journal stays, overwritten since or not: the
        // record that says so may yet be lost. And nobody may be about to name what was staged.
        let retired = {
            let _gate = self.alone();
            live.append(&mut self.live_segments());
            self.journal.retire(applied, |segment| live.contains(&segment))
        };
        // A file of many MiB takes the disk long to forget.
        self.journal.remove(retired)?;
        let mut upkeep = lock(&self.upkeep);
        upkeep.durable = applied;
        upkeep.checkpointed = self.env.instant();
        Ok(())
    }

    /// What `statfs` tells: the disk under this drive, less what it keeps for itself.
    ///
    /// # Errors
    /// Of the disk.
    pub fn statfs(&self) -> Result<Statfs> {
        let io = |e: rustix::io::Errno| Error::io("ask for free space")(e.into());
        let disk = rustix::fs::statvfs(&self.dir).map_err(io)?;
        let available = self.journal.available()?;
        let free = available / BLOCK_BYTES;
        Ok(Statfs {
            blocks: (disk.f_blocks * disk.f_frsize / BLOCK_BYTES).max(free),
            bfree: free,
            bavail: free,
            files: self.files.load(Ordering::Relaxed).unsigned_abs() + FILES_FREE,
            ffree: FILES_FREE,
            bsize: BLOCK_BYTES as u32,
            namelen: 255,
        })
    }

    /// The gate, shared: for a change.
    pub(super) fn shared(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The gate, alone: for a flush.
    pub(super) fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the index has everything up to `at`: it is not to be written for nothing.
    fn stands_at(&self, at: Position) -> bool {
        let upkeep = lock(&self.upkeep);
        upkeep.applied == at && !upkeep.purged
    }

    fn write_rows(&self, nodes: &[Arc<Node>], at: Position) -> Result<()> {
        nodes.iter().try_for_each(|node| self.write_row(node))?;
        let counter = self.counter.load(Ordering::Relaxed);
        self.index.set_number(APPLIED, at.0.cast_signed())?;
        self.index.set_number(COUNTER, counter.cast_signed())?;
        self.index.set_number(FILES, self.files.load(Ordering::Relaxed))
    }

    fn write_row(&self, node: &Node) -> Result<()> {
        let mut state = node.write();
        self.index.set_node(node.ino, &state.row.encode())?;
        state.stored = true;
        let staged = state.row.unsealed() > 0;
        if staged != state.marked_staged {
            self.index.mark(Marked::Staged, node.ino, staged)?;
            state.marked_staged = staged;
        }
        if state.orphan != state.marked_orphan {
            self.index.mark(Marked::Orphan, node.ino, state.orphan)?;
            state.marked_orphan = state.orphan;
        }
        if state.row.changed != 0 {
            self.index.set_pending(Pending::Node(node.ino), true)?;
        }
        Ok(())
    }

    /// Segments of the journal in which files, or those who seal them, have bytes.
    fn live_segments(&self) -> BTreeSet<u32> {
        let mut live = BTreeSet::new();
        lock(&self.sealing).retain(|segments| {
            let segments = segments.upgrade();
            live.extend(segments.iter().flat_map(|segments| segments.iter().copied()));
            segments.is_some()
        });
        let nodes: Vec<_> = lock(&self.staged).values().cloned().collect();
        for node in nodes {
            live.extend(node.read().row.extents.segments());
        }
        live
    }
}
