//! Opening a tree: the index as it stands, and the journal behind it.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use rdrivefs_remote::env::Env;

use crate::error::Result;
use crate::id::{DeviceNumber, FileId, Ino};
use crate::index::Index;
use crate::index::nodes::Marked;
use crate::journal::{Journal, Position};
use crate::record::Kind;
use crate::seal::Key;
use crate::tree::core::{Chunks, Tree, lock};
use crate::tree::node::{Node, Row};
use crate::tree::upkeep_state::{APPLIED, COUNTER, Upkeep};

impl Tree {
    /// Opens the tree of a drive: what the journal holds beyond the index is applied.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] naming the damage in index or journal; of the disk.
    pub fn open(
        env: Env,
        device: DeviceNumber,
        index: Arc<Index>,
        dir: &Path,
        journal_dir: &Path,
        key: &Key,
        chunks: Arc<dyn Chunks>,
    ) -> Result<Self> {
        let applied = Position(index.number(APPLIED)?.unwrap_or(0).cast_unsigned());
        let counter = index.number(COUNTER)?.unwrap_or(1).cast_unsigned();
        let (journal, replay) = Journal::open(journal_dir, key, &env, applied)?;
        let tree = Self {
            upkeep: Mutex::new(Upkeep::new(applied, env.instant())),
            env,
            device,
            index,
            journal: Arc::new(journal),
            chunks,
            dir: dir.to_owned(),
            gate: RwLock::default(),
            names: Mutex::default(),
            nodes: Mutex::default(),
            dirty: Mutex::default(),
            staged: Mutex::default(),
            references: Mutex::default(),
            counter: AtomicU64::new(counter),
            heard: OnceLock::new(),
        };
        tree.found_root()?;
        for ino in tree.index.marked(Marked::Staged)? {
            let node = tree.node(ino)?;
            lock(&tree.staged).insert(ino, node);
        }
        let mut replayed = 0_u64;
        for record in replay {
            let record = record?;
            tree.replay(record.position, record.place, &record.record)?;
            replayed += 1;
        }
        if replayed > 0 {
            tracing::info!(records = replayed, "the journal was replayed");
        }
        for ino in tree.index.marked(Marked::Orphan)? {
            tree.purge_if_unreachable(ino)?;
        }
        tree.flush()?;
        Ok(tree)
    }

    fn found_root(&self) -> Result<()> {
        if self.index.node(Ino::ROOT)?.is_some() {
            return Ok(());
        }
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let mut row = Row::new(Kind::Directory, 0o755, uid, gid, self.now());
        row.parent = Ino::first(FileId::ROOT).0;
        let node = Arc::new(Node::new(Ino::ROOT, row, false, self.env.instant()));
        lock(&self.nodes).insert(Ino::ROOT, node.clone());
        self.dirtied(&node, &mut node.write());
        Ok(())
    }
}
