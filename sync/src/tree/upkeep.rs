//! Upkeep: writing memory behind the journal, and freeing the journal behind the index.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::index::nodes::{Marked, Pending};
use crate::tree::core::{CLEAN_NODES_MAX, Tree, lock};
use crate::tree::extents::Source;
use crate::tree::node::Node;
use crate::tree::upkeep_state::{APPLIED, COUNTER};
use crate::tree::words::Statfs;

/// How long written bytes may be without being durable when nobody asked for it.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// How often the index is made durable so that the journal can be freed.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);

/// A journal longer than this is freed at once.
const JOURNAL_BYTES_MAX: u64 = 256 << 20;

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
            || upkeep.applied < self.journal.last()
            || upkeep.durable < upkeep.applied
    }

    /// What is written and not sealed.
    pub fn unsealed(&self) -> Unsealed {
        let staged: Vec<_> = lock(&self.staged).values().cloned().collect();
        let bytes = staged.iter().map(|node| node.read().row.extents.staged()).sum();
        Unsealed { bytes, files: staged.len() as u64 }
    }

    /// Does what is due: syncs the journal, writes the index, frees the journal, forgets files that
    /// need not be in memory.
    ///
    /// # Errors
    /// Of the disk; what was not done is tried again.
    pub fn maintain(&self) -> Result<()> {
        let now = self.env.instant();
        let (sync_due, checkpoint_due) = {
            let upkeep = lock(&self.upkeep);
            let age = now.since(upkeep.checkpointed);
            let long = self.journal.bytes_used() > JOURNAL_BYTES_MAX;
            (now.since(upkeep.synced) >= SYNC_EVERY, age >= CHECKPOINT_EVERY || long)
        };
        if sync_due && self.journal.confirmed() < self.journal.last() {
            self.sync_all()?;
        }
        self.flush()?;
        if checkpoint_due {
            self.checkpoint()?;
        }
        self.forget_clean();
        Ok(())
    }

    /// Makes everything durable that was handed over until now.
    ///
    /// # Errors
    /// When it is not durable.
    pub fn sync_all(&self) -> Result<()> {
        let last = self.journal.last();
        let nodes: Vec<_> = lock(&self.staged).values().cloned().collect();
        let mut segments = BTreeSet::new();
        for node in &nodes {
            segments.append(&mut node.write().segments);
        }
        let numbers: Vec<u32> = segments.into_iter().collect();
        let synced = self.journal.sync(last, &numbers);
        if synced.is_err() {
            nodes.iter().for_each(|node| node.write().segments.extend(&numbers));
        }
        let _receipt = synced?;
        lock(&self.upkeep).synced = self.env.instant();
        Ok(())
    }

    /// Writes everything that changed into the index, which then stands at an exact position of
    /// the journal.
    ///
    /// # Errors
    /// Of the index; nothing is lost, since the journal has it.
    pub fn flush(&self) -> Result<()> {
        let _gate = self.alone();
        self.flush_alone()
    }

    /// As [`Tree::flush`]; the caller has the gate to itself.
    pub(super) fn flush_alone(&self) -> Result<()> {
        let at = self.journal.last();
        let nodes: Vec<Arc<Node>> = lock(&self.dirty).values().cloned().collect();
        for node in &nodes {
            self.write_row(node)?;
        }
        self.index.set_number(APPLIED, at.0.cast_signed())?;
        let counter = self.counter.load(std::sync::atomic::Ordering::Relaxed);
        self.index.set_number(COUNTER, counter.cast_signed())?;
        self.index.commit()?;
        for node in &nodes {
            node.write().dirty = false;
        }
        lock(&self.dirty).clear();
        lock(&self.upkeep).applied = at;
        Ok(())
    }

    /// Makes the index durable and frees the journal behind it.
    ///
    /// # Errors
    /// Of the disk.
    pub fn checkpoint(&self) -> Result<()> {
        let applied = lock(&self.upkeep).applied;
        self.index.checkpoint()?;
        let live = self.live_segments();
        self.journal.free(applied, |segment| live.contains(&segment))?;
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
            files: self.index.node_count()? + FILES_FREE,
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

    fn write_row(&self, node: &Arc<Node>) -> Result<()> {
        let mut state = node.write();
        if state.gone {
            return Ok(());
        }
        self.index.set_node(node.ino, &state.row.encode())?;
        let staged = state.row.unsealed() > 0;
        if staged != state.marked_staged {
            self.index.mark(Marked::Staged, node.ino, staged)?;
            state.marked_staged = staged;
        }
        if state.row.changed != 0 {
            self.index.set_pending(Pending::Node(node.ino), true)?;
        }
        Ok(())
    }

    fn live_segments(&self) -> BTreeSet<u32> {
        let nodes: Vec<_> = lock(&self.staged).values().cloned().collect();
        let mut live = BTreeSet::new();
        for node in nodes {
            for (_, extent) in node.read().row.extents.iter() {
                if let Source::Staged { place, .. } = &extent.source {
                    live.insert(place.segment);
                }
            }
        }
        live
    }

    /// Forgets files that are as the index has them and that nobody is at.
    fn forget_clean(&self) {
        let mut nodes = lock(&self.nodes);
        if nodes.len() <= CLEAN_NODES_MAX {
            return;
        }
        nodes.retain(|_, node| {
            Arc::strong_count(node) > 1 || {
                let state = node.read();
                state.dirty || state.opens > 0
            }
        });
    }
}
