//! The core as a target: the tree of `rdrivefs-sync` with no kernel above and no remote below.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path as OsPath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdrivefs_sync::error::Posix;
use rdrivefs_sync::id::{DeviceNumber, Ino};
use rdrivefs_sync::index::Index;
use rdrivefs_sync::index::layers::{ChunkPlace, LayerNumber};
use rdrivefs_sync::journal::Journal;
use rdrivefs_sync::journal::Settings;
use rdrivefs_sync::journal::disk::{Directory, Disk};
use rdrivefs_sync::record::{Kind, TimeNs};
use rdrivefs_sync::remote::env::{Env, Instant, World};
use rdrivefs_sync::seal::Key;
use rdrivefs_sync::tree::words::{self, Attr, SeekTo, SetAttr};
use rdrivefs_sync::tree::{Chunks, NewContent, SealJob, Tree};
use rdrivefs_sync::{Error, Result};

use super::ops::{FsOp, Path, SLOTS, bytes};
use super::{Answer, Seen, SeenFile, Target, Told};

/// A clock that stands still until it is moved.
#[derive(Debug, Clone, Default)]
pub struct Clock(Arc<AtomicU64>);

impl Clock {
    /// Moves on by so many nanoseconds.
    pub fn advance(&self, ns: u64) {
        self.0.fetch_add(ns, Ordering::Relaxed);
    }

    /// The time.
    pub fn now(&self) -> TimeNs {
        let ns = self.0.load(Ordering::Relaxed);
        TimeNs { secs: (ns / 1_000_000_000) as i64, nanos: (ns % 1_000_000_000) as u32 }
    }

    /// A world with this clock, and the computer's randomness.
    pub fn env(&self) -> Env {
        struct Still(Clock, Env);
        impl World for Still {
            fn wall_ns(&self) -> u64 {
                self.0.0.load(Ordering::Relaxed)
            }
            fn instant(&self) -> Instant {
                Instant(self.0.0.load(Ordering::Relaxed))
            }
            fn fill(&self, out: &mut [u8]) {
                out.iter_mut().for_each(|byte| [*byte] = self.1.random());
            }
        }
        Env::of(Still(self.clone(), Env::real()))
    }
}

/// Sealed chunks, in memory.
#[derive(Default)]
pub struct MemoryChunks(Mutex<HashMap<(i64, u32), Vec<u8>>>);

impl MemoryChunks {
    fn add(&self, layer: i64, bytes: Vec<u8>) -> ChunkPlace {
        let mut chunks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = chunks.len() as u32;
        chunks.insert((layer, number), bytes);
        ChunkPlace { layer: LayerNumber(layer), number }
    }
}

impl Chunks for MemoryChunks {
    fn read(&self, layer: i64, number: u32, range: Range<u32>) -> Result<Vec<u8>> {
        let chunks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let chunk = chunks.get(&(layer, number)).ok_or(Posix::NoEntry)?;
        Ok(chunk[range.start as usize..range.end as usize].to_vec())
    }
}

/// A tree, where its things are, and what is open in it.
pub struct TreeTarget {
    tree: Option<Tree>,
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    settings: Settings,
    clock: Clock,
    chunks: Arc<MemoryChunks>,
    slots: [Option<Ino>; SLOTS],
}

impl TreeTarget {
    /// Opens what is in `dir`, with the journal in a directory below it.
    ///
    /// # Errors
    /// Of the tree.
    pub fn new(dir: &OsPath, clock: Clock) -> Result<Self> {
        let journal = dir.join("journal");
        std::fs::create_dir_all(&journal).map_err(Error::io("make the journal's directory"))?;
        let disk = Directory::new(&journal).map_err(Error::io("open the journal's directory"))?;
        Self::on_disk(dir, clock, Arc::new(disk), Settings::default())
    }

    /// Opens what is in `dir`, with the journal on a given disk.
    ///
    /// # Errors
    /// Of the tree.
    pub fn on_disk(
        dir: &OsPath,
        clock: Clock,
        disk: Arc<dyn Disk>,
        settings: Settings,
    ) -> Result<Self> {
        let (chunks, slots) = (Arc::default(), [None; SLOTS]);
        let mut target =
            Self { tree: None, dir: dir.to_owned(), disk, settings, clock, chunks, slots };
        target.reopen()?;
        Ok(target)
    }

    /// The tree.
    pub fn tree(&self) -> &Tree {
        self.tree.as_ref().expect("it is open")
    }

    /// Lets go of everything at once, as a killed process does, and opens it again.
    ///
    /// # Errors
    /// Of the tree.
    pub fn reopen(&mut self) -> Result<()> {
        self.tree = None;
        self.slots = [None; SLOTS];
        let (env, key) = (self.clock.env(), Key::from([3; 32]));
        let index = Arc::new(Index::open(&self.dir.join("index"), &key, env.clone())?);
        let open = |at| Journal::open_on(self.disk.clone(), &key, &env, at, self.settings.clone());
        let chunks = self.chunks.clone();
        let device = DeviceNumber(1);
        self.tree = Some(Tree::open_with(env.clone(), device, index, &self.dir, open, chunks)?);
        Ok(())
    }

    /// Lets go of everything, and opens it again with the index and the journal of another time.
    ///
    /// # Errors
    /// Of the tree.
    pub fn reopen_on(&mut self, disk: Arc<dyn Disk>, index: impl FnOnce(&OsPath)) -> Result<()> {
        self.tree = None;
        self.disk = disk;
        index(&self.dir);
        self.reopen()
    }

    /// Begins to seal all that is not sealed; what goes meanwhile is left out.
    pub fn begin_seal(&self) -> Vec<SealJob> {
        let tree = self.tree();
        let ripe = tree.ripe(self.clock.env().instant(), true, usize::MAX);
        let job = |ino| match tree.sealable(ino) {
            Err(Error::Posix(Posix::Stale)) => None,
            job => job.expect("it can be looked at"),
        };
        ripe.into_iter().filter_map(job).collect()
    }

    /// Ends it, in chunks of no natural size, and told of run by run.
    pub fn end_seal(&self, mut job: SealJob) {
        let tree = self.tree();
        if job.fits_inline() {
            let bytes = tree.read_sealing(&job, 0..job.size).expect("the journal keeps it");
            return tree.seal_done(&mut job, NewContent::Inline(bytes));
        }
        for run in job.runs.clone() {
            let mut chunks = Vec::new();
            for start in (run.start..run.end).step_by(50_000) {
                let range = start..(start + 50_000).min(run.end);
                let bytes = tree.read_sealing(&job, range.clone()).expect("the journal keeps it");
                chunks.push((range, self.chunks.add(5, bytes)));
            }
            tree.seal_done(&mut job, NewContent::Chunks(chunks));
        }
    }

    fn find(&self, path: &[Vec<u8>]) -> Result<Attr> {
        let mut at = self.tree().attr(Ino::ROOT)?;
        for name in path {
            at = self.tree().lookup(at.ino, name)?;
        }
        Ok(at)
    }

    fn place<'a>(&self, path: &'a Path) -> Result<(Ino, &'a [u8])> {
        let (name, parent) = path.split_last().ok_or(Posix::Exists)?;
        // The kernel walks to the parent before it calls.
        match self.find(parent)? {
            attr if attr.kind == Kind::Directory => Ok((attr.ino, name)),
            _ => Err(Posix::NotDirectory.into()),
        }
    }

    /// Opening for writing refuses what is no regular file before the call comes to the tree.
    fn regular(&self, path: &Path) -> Result<Ino> {
        let attr = self.find(path)?;
        match attr.kind {
            Kind::File => Ok(attr.ino),
            Kind::Directory => Err(Posix::IsDirectory.into()),
            _ => Err(Posix::Invalid.into()),
        }
    }

    fn slot(&self, slot: usize) -> Result<Ino> {
        Ok(self.slots[slot].ok_or(Posix::Stale)?)
    }

    fn change(&mut self, op: &FsOp) -> Result<Told> {
        let tree = self.tree();
        match op {
            FsOp::Make { caller, path, kind, mode, rdev } => {
                let (parent, name) = self.place(path)?;
                let caller =
                    words::Caller { uid: caller.uid, gid: caller.gid, umask: caller.umask };
                match kind {
                    Kind::File => tree.create(&caller, parent, name, *mode),
                    Kind::Directory => tree.make_directory(&caller, parent, name, *mode),
                    _ => tree.make_node(&caller, parent, name, *kind, *mode, *rdev),
                }?;
            }
            FsOp::Symlink { path, target } => {
                let (parent, name) = self.place(path)?;
                let caller = words::Caller { uid: 0, gid: 0, umask: 0 };
                tree.symlink(&caller, parent, name, target)?;
            }
            FsOp::Link { from, to } => {
                let file = self.find(from)?.ino;
                let (parent, name) = self.place(to)?;
                tree.link(file, parent, name)?;
            }
            FsOp::Unlink { path } => {
                let (parent, name) = self.place(path)?;
                tree.unlink(parent, name)?;
            }
            FsOp::RemoveDirectory { path } => {
                let (parent, name) = self.place(path)?;
                tree.remove_directory(parent, name)?;
            }
            FsOp::Rename { from, to, how } => {
                let from = self.place(from)?;
                // As the kernel does: both parents are found before anything else is looked at.
                tree.rename(from, self.place(to)?, *how)?;
            }
            FsOp::Open { slot, path } => {
                if self.slots[*slot].is_some() {
                    return Err(Posix::Exists.into());
                }
                let ino = self.regular(path)?;
                tree.remember(ino, 1);
                self.slots[*slot] = Some(ino);
            }
            FsOp::Close { slot } => {
                let ino = self.slot(*slot)?;
                tree.forget(ino, 1);
                self.slots[*slot] = None;
            }
            _ => return self.change_file(op),
        }
        Ok(Told::Done)
    }

    fn change_file(&self, op: &FsOp) -> Result<Told> {
        let tree = self.tree();
        match op {
            FsOp::Write { path, offset, len, seed } => {
                let written =
                    tree.write(self.regular(path)?, *offset, &bytes(*seed, *offset, *len));
                return Ok(Told::Number(written? as u64));
            }
            FsOp::WriteOpen { slot, offset, len, seed } => {
                let written = tree.write(self.slot(*slot)?, *offset, &bytes(*seed, *offset, *len));
                return Ok(Told::Number(written? as u64));
            }
            FsOp::Read { path, offset, len } => {
                return Ok(Told::Bytes(tree.read(self.regular(path)?, *offset, *len)?));
            }
            FsOp::ReadOpen { slot, offset, len } => {
                return Ok(Told::Bytes(tree.read(self.slot(*slot)?, *offset, *len)?));
            }
            FsOp::Truncate { path, size } => {
                let set = SetAttr { size: Some(*size), ..SetAttr::default() };
                tree.set_attr(self.regular(path)?, &set)?;
            }
            FsOp::Chmod { path, mode } => {
                let set = SetAttr { mode: Some(*mode), ..SetAttr::default() };
                tree.set_attr(self.find(path)?.ino, &set)?;
            }
            FsOp::Chown { path, uid, gid } => {
                let set = SetAttr { uid: Some(*uid), gid: Some(*gid), ..SetAttr::default() };
                tree.set_attr(self.find(path)?.ino, &set)?;
            }
            FsOp::Utimes { path, secs } => {
                let time = Some(TimeNs { secs: *secs, nanos: 5 });
                let set = SetAttr { atime: time, mtime: time, ..SetAttr::default() };
                tree.set_attr(self.find(path)?.ino, &set)?;
            }
            FsOp::Punch { path, offset, len } => {
                tree.allocate(self.regular(path)?, 3, *offset, *len)?;
            }
            FsOp::Zero { path, offset, len, keep } => {
                tree.allocate(self.regular(path)?, 16 | u32::from(*keep), *offset, *len)?;
            }
            FsOp::Allocate { path, offset, len, keep } => {
                tree.allocate(self.regular(path)?, u32::from(*keep), *offset, *len)?;
            }
            FsOp::Seek { path, offset, data } => {
                let to = if *data { SeekTo::Data } else { SeekTo::Hole };
                return Ok(Told::Number(tree.seek(self.regular(path)?, *offset, to)?));
            }
            FsOp::Copy { from, offset, to, at, len } => {
                let (from, to) = (self.regular(from)?, self.regular(to)?);
                return Ok(Told::Number(tree.copy_range((from, *offset), (to, *at), *len)?));
            }
            FsOp::SetXattr { path, name, len, seed, how } => {
                tree.set_xattr(self.find(path)?.ino, name, &bytes(*seed, 0, *len), *how)?;
            }
            FsOp::RemoveXattr { path, name } => {
                tree.remove_xattr(self.find(path)?.ino, name)?;
            }
            FsOp::Sync { path } => tree.sync(self.find(path)?.ino)?,
            _ => unreachable!("the others are dealt with"),
        }
        Ok(Told::Done)
    }

    fn look(&self, path: &mut Path, at: Attr, first: &mut BTreeMap<Ino, Path>, seen: &mut Seen) {
        let tree = self.tree();
        let same_as = first.entry(at.ino).or_insert_with(|| path.clone()).clone();
        seen.insert(path.clone(), self.file(at, same_as));
        if at.kind != Kind::Directory {
            return;
        }
        let (mut names, mut after) = (Vec::new(), 0);
        loop {
            // Small steps, so that continuing is tested too.
            let page = tree.list(at.ino, after, 3).expect("a directory can be listed");
            let Some(last) = page.last() else { break };
            after = last.cookie;
            names.extend(page.into_iter().map(|entry| (entry.name, entry.attr)));
        }
        names.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, attr) in names {
            assert_eq!(tree.lookup(at.ino, &name).expect("it is listed"), attr);
            if attr.kind == Kind::Directory {
                assert_eq!(tree.parent(attr.ino).expect("it has one"), at.ino);
            }
            path.push(name);
            self.look(path, attr, first, seen);
            path.pop();
        }
    }

    fn file(&self, at: Attr, same_as: Path) -> SeenFile {
        let tree = self.tree();
        let regular = at.kind == Kind::File;
        let bytes = match at.kind {
            Kind::Symlink => tree.read_link(at.ino).expect("it is one"),
            _ if regular => tree.read(at.ino, 0, u32::MAX).expect("it can be read"),
            _ => Vec::new(),
        };
        let mut data: Vec<(u64, u64)> = Vec::new();
        let mut next = 0;
        while let Some(start) = tree.seek(at.ino, next, SeekTo::Data).ok().filter(|_| regular) {
            next = tree.seek(at.ino, start, SeekTo::Hole).expect("a hole ends every run");
            data.push((start, next));
        }
        let names = tree.xattrs(at.ino).expect("they can be listed").into_iter();
        let xattrs = names.map(|name| {
            let value = tree.xattr(at.ino, &name).expect("it is listed");
            (name, value)
        });
        SeenFile {
            same_as,
            kind: at.kind,
            mode: at.mode,
            owner: (at.uid, at.gid),
            nlink: at.nlink,
            rdev: at.rdev,
            size: at.size,
            times: [at.atime, at.mtime, at.ctime, at.crtime],
            bytes,
            data,
            xattrs: xattrs.collect(),
        }
    }
}

impl Target for TreeTarget {
    fn apply(&mut self, op: &FsOp) -> Answer {
        self.change(op).map_err(|error| match error {
            Error::Posix(posix) => posix,
            error => panic!("{op:?}: {error}"),
        })
    }

    fn seen(&mut self) -> Seen {
        let mut seen = Seen::new();
        let root = self.tree().attr(Ino::ROOT).expect("there is a root");
        self.look(&mut Path::new(), root, &mut BTreeMap::new(), &mut seen);
        seen
    }
}
