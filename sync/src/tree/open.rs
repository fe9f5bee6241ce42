//! Opening a tree: the index as it stands, and the journal behind it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use rdrivefs_remote::env::Env;

use crate::error::Result;
use crate::id::{DeviceNumber, FileId, Ino};
use crate::index::nodes::{FILES, Marked};
use crate::index::{APPLIED, Index};
use crate::journal::{Journal, Position, Replay};
use crate::record::Kind;
use crate::seal::Key;
use crate::tree::core::{Chunks, Tree, lock};
use crate::tree::news::News;
use crate::tree::node::Row;
use crate::tree::upkeep_state::{COUNTER, Upkeep};

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
        let journal = |applied| Journal::open(journal_dir, key, &env, applied);
        Self::open_with(env.clone(), device, index, dir, journal, chunks)
    }

    /// As [`Tree::open`], with a journal that is opened at a given position.
    ///
    /// # Errors
    /// As [`Tree::open`].
    pub fn open_with(
        env: Env,
        device: DeviceNumber,
        index: Arc<Index>,
        dir: &Path,
        journal: impl FnOnce(Position) -> Result<(Journal, Replay)>,
        chunks: Arc<dyn Chunks>,
    ) -> Result<Self> {
        let applied = Position(index.number(APPLIED)?.unwrap_or(0).cast_unsigned());
        let counter = index.number(COUNTER)?.unwrap_or(1).cast_unsigned();
        let files = index.number(FILES)?.unwrap_or(0);
        let (journal, replay) = journal(applied)?;
        let first_news = u64::from(u32::from_le_bytes(env.random()));
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
            moving: RwLock::default(),
            nodes: Mutex::default(),
            forgotten: AtomicU64::new(0),
            dirty: Mutex::default(),
            staged: Mutex::default(),
            references: Mutex::default(),
            sealing: Mutex::default(),
            counter: AtomicU64::new(counter),
            files: AtomicI64::new(files),
            failed: AtomicBool::new(false),
            heard: OnceLock::new(),
            news: News::from(first_news),
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
        // Nobody holds anything yet, so files without names go: those of before, and those that a
        // replayed record took the last name from.
        let dirty: Vec<_> = lock(&tree.dirty).values().cloned().collect();
        let nameless = dirty.iter().filter(|node| node.read().orphan).map(|node| node.ino);
        for ino in tree.index.marked(Marked::Orphan)?.into_iter().chain(nameless) {
            tree.salvage(ino)?;
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
        self.adopt(Ino::ROOT, row);
        Ok(())
    }
}
