//! The model: maps of names and vectors of bytes.

use std::collections::BTreeMap;

use rdrivefs_sync::error::Posix;
use rdrivefs_sync::record::{Kind, TimeNs};
use rdrivefs_sync::tree::words::{Rename, SetXattr};

use super::ops::{Caller, FsOp, Path, SLOTS, bytes};
use super::tree::Clock;
use super::{Answer, Seen, SeenFile, Target, Told};

#[derive(Debug, Clone)]
struct File {
    kind: Kind,
    mode: u32,
    uid: u32,
    gid: u32,
    rdev: u32,
    times: [TimeNs; 4],
    /// One element a byte; none in a hole.
    content: Vec<Option<u8>>,
    target: Vec<u8>,
    names: BTreeMap<Vec<u8>, usize>,
    parent: usize,
    nlink: u32,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The model of a filesystem. Files are never removed from its table.
#[derive(Debug, Clone)]
pub struct Model {
    files: Vec<File>,
    slots: [Option<usize>; SLOTS],
    clock: Clock,
}

const ATIME: usize = 0;
const MTIME: usize = 1;
const CTIME: usize = 2;

impl Model {
    /// A filesystem with nothing but a root.
    pub fn new(clock: Clock, root: (u32, u32)) -> Self {
        let now = clock.now();
        let mut root = File::new(Kind::Directory, 0o755, root, now);
        root.nlink = 2;
        Self { files: vec![root], slots: [None; SLOTS], clock }
    }

    /// What a crash leaves: nothing is open any more.
    pub fn close_all(&mut self) {
        self.slots = [None; SLOTS];
    }

    fn find(&self, path: &[Vec<u8>]) -> Result<usize, Posix> {
        let mut at = 0;
        for name in path {
            at = self.child(at, name)?.ok_or(Posix::NoEntry)?;
        }
        Ok(at)
    }

    fn child(&self, dir: usize, name: &[u8]) -> Result<Option<usize>, Posix> {
        match self.files[dir].kind {
            Kind::Directory => Ok(self.files[dir].names.get(name).copied()),
            _ => Err(Posix::NotDirectory),
        }
    }

    fn place<'a>(&self, path: &'a [Vec<u8>]) -> Result<(usize, &'a [u8]), Posix> {
        let (name, parent) = path.split_last().ok_or(Posix::Exists)?;
        let parent = self.find(parent)?;
        self.child(parent, name)?;
        Ok((parent, name))
    }

    fn free(&self, path: &Path) -> Result<(usize, Vec<u8>), Posix> {
        let (parent, name) = self.place(path)?;
        match self.child(parent, name)? {
            Some(_) => Err(Posix::Exists),
            None => Ok((parent, name.to_vec())),
        }
    }

    fn touch(&mut self, file: usize, which: &[usize]) {
        let now = self.clock.now();
        which.iter().for_each(|time| self.files[file].times[*time] = now);
    }

    fn put(&mut self, (parent, name): (usize, Vec<u8>), file: usize) {
        self.files[parent].names.insert(name, file);
        if self.files[file].kind == Kind::Directory {
            self.files[file].parent = parent;
            self.files[parent].nlink += 1;
        }
        self.touch(parent, &[MTIME, CTIME]);
    }

    fn take(&mut self, parent: usize, name: &[u8]) -> usize {
        let file = self.files[parent].names.remove(name).expect("it was found");
        if self.files[file].kind == Kind::Directory {
            self.files[parent].nlink -= 1;
        }
        self.touch(parent, &[MTIME, CTIME]);
        self.touch(file, &[CTIME]);
        file
    }

    fn remove(&mut self, parent: usize, name: &[u8]) {
        let file = self.take(parent, name);
        let gone = if self.files[file].kind == Kind::Directory { 2 } else { 1 };
        self.files[file].nlink -= gone;
    }

    fn make(&mut self, caller: &Caller, path: &Path, kind: Kind, mode: u32, rdev: u32) -> Answer {
        let place = self.free(path)?;
        let above = &self.files[place.0];
        let inherits = above.mode & 0o2000 != 0;
        let gid = if inherits { above.gid } else { caller.gid };
        let mut mode = mode & !caller.umask;
        if inherits && kind == Kind::Directory {
            mode |= 0o2000;
        }
        let mut file = File::new(kind, mode, (caller.uid, gid), self.clock.now());
        file.rdev = rdev;
        file.nlink = if kind == Kind::Directory { 2 } else { 1 };
        self.files.push(file);
        self.put(place, self.files.len() - 1);
        Ok(Told::Done)
    }

    fn rename(&mut self, from: &Path, to: &Path, how: Rename) -> Answer {
        let (from_dir, from_name) = self.place(from)?;
        let (to_dir, to_name) = self.place(to)?;
        let file = self.child(from_dir, from_name)?.ok_or(Posix::NoEntry)?;
        let other = self.child(to_dir, to_name)?;
        if self.is_inside(to_dir, file) {
            return Err(Posix::Invalid);
        }
        let Some(other) = other else {
            if how == Rename::Exchange {
                return Err(Posix::NoEntry);
            }
            self.take(from_dir, from_name);
            self.put((to_dir, to_name.to_vec()), file);
            return Ok(Told::Done);
        };
        if (from_dir, from_name) == (to_dir, to_name) && how != Rename::NoReplace {
            return Ok(Told::Done);
        }
        let directory = |at: usize| self.files[at].kind == Kind::Directory;
        match how {
            Rename::NoReplace => return Err(Posix::Exists),
            Rename::Exchange => {
                if self.is_inside(from_dir, other) {
                    return Err(Posix::Invalid);
                }
                self.take(from_dir, from_name);
                self.take(to_dir, to_name);
                self.put((from_dir, from_name.to_vec()), other);
                self.put((to_dir, to_name.to_vec()), file);
                return Ok(Told::Done);
            }
            Rename::Replace if file == other => return Ok(Told::Done),
            Rename::Replace => {}
        }
        match (directory(file), directory(other)) {
            (true, false) => return Err(Posix::NotDirectory),
            (false, true) => return Err(Posix::IsDirectory),
            (true, true) if !self.files[other].names.is_empty() => return Err(Posix::NotEmpty),
            _ => {}
        }
        self.remove(to_dir, to_name);
        self.take(from_dir, from_name);
        self.put((to_dir, to_name.to_vec()), file);
        Ok(Told::Done)
    }

    fn is_inside(&self, dir: usize, ancestor: usize) -> bool {
        let mut at = dir;
        while at != ancestor && at != 0 {
            at = self.files[at].parent;
        }
        at == ancestor
    }

    fn write(&mut self, file: usize, offset: u64, data: &[u8]) -> Answer {
        let end = offset as usize + data.len();
        let content = &mut self.files[file].content;
        if content.len() < end {
            content.resize(end, None);
        }
        for (place, byte) in content[offset as usize..end].iter_mut().zip(data) {
            *place = Some(*byte);
        }
        self.touch(file, &[MTIME, CTIME]);
        Ok(Told::Number(data.len() as u64))
    }

    fn read(&self, file: usize, offset: u64, len: u64) -> Vec<u8> {
        let content = &self.files[file].content;
        let start = (offset as usize).min(content.len());
        let end = (offset.saturating_add(len) as usize).min(content.len());
        content[start..end].iter().map(|byte| byte.unwrap_or(0)).collect()
    }

    fn cut(&mut self, file: usize, offset: u64, len: u64) {
        let content = &mut self.files[file].content;
        let start = (offset as usize).min(content.len());
        let end = ((offset + len) as usize).min(content.len());
        content[start..end].fill(None);
    }

    fn resize(&mut self, file: usize, size: u64) {
        self.files[file].content.resize(size as usize, None);
        self.touch(file, &[MTIME, CTIME]);
    }

    fn allocate(&mut self, path: &Path, range: (u64, u64), keep: bool, zero: bool) -> Answer {
        let file = self.regular(path)?;
        let size = self.files[file].content.len() as u64;
        let grown = if keep { size } else { size.max(range.0 + range.1) };
        if zero {
            self.cut(file, range.0, range.1);
        }
        if zero || grown != size {
            self.resize(file, grown);
        }
        Ok(Told::Done)
    }

    /// The regular file of a path, for calls that begin with opening it for writing.
    fn regular(&self, path: &Path) -> Result<usize, Posix> {
        let file = self.find(path)?;
        match self.files[file].kind {
            Kind::File => Ok(file),
            Kind::Directory => Err(Posix::IsDirectory),
            _ => Err(Posix::Invalid),
        }
    }

    fn chown(&mut self, path: &Path, uid: u32, gid: u32) -> Answer {
        let at = self.find(path)?;
        let file = &mut self.files[at];
        (file.uid, file.gid) = (uid, gid);
        if file.kind == Kind::File {
            file.mode &= if file.mode & 0o010 != 0 { 0o1777 } else { 0o3777 };
        }
        self.touch(at, &[CTIME]);
        Ok(Told::Done)
    }

    fn seek(&self, path: &Path, offset: u64, data: bool) -> Answer {
        let content = &self.files[self.regular(path)?].content;
        if offset >= content.len() as u64 {
            return Err(Posix::NoSuchOffset);
        }
        let found = (offset as usize..content.len()).find(|at| content[*at].is_some() == data);
        match found {
            Some(at) => Ok(Told::Number(at as u64)),
            None if data => Err(Posix::NoSuchOffset),
            None => Ok(Told::Number(content.len() as u64)),
        }
    }

    fn copy(&mut self, from: (&Path, u64), to: (&Path, u64), len: u64) -> Answer {
        let (source, target) = (self.regular(from.0)?, self.regular(to.0)?);
        let overlaps = from.1 < to.1 + len && to.1 < from.1 + len;
        if source == target && overlaps {
            return Err(Posix::Invalid);
        }
        let content = &self.files[source].content;
        let start = (from.1 as usize).min(content.len());
        let end = ((from.1 + len) as usize).min(content.len());
        let part = content[start..end].to_vec();
        if part.is_empty() {
            return Ok(Told::Number(0));
        }
        let at = to.1 as usize;
        let content = &mut self.files[target].content;
        content.resize(content.len().max(at + part.len()), None);
        content[at..at + part.len()].copy_from_slice(&part);
        self.touch(target, &[MTIME, CTIME]);
        Ok(Told::Number(part.len() as u64))
    }

    fn set_xattr(&mut self, path: &Path, name: &[u8], value: Vec<u8>, how: SetXattr) -> Answer {
        let file = self.find(path)?;
        let xattrs = &mut self.files[file].xattrs;
        match (how, xattrs.contains_key(name)) {
            (SetXattr::Create, true) => return Err(Posix::Exists),
            (SetXattr::Replace, false) => return Err(Posix::NoData),
            _ => xattrs.insert(name.to_vec(), value),
        };
        self.touch(file, &[CTIME]);
        Ok(Told::Done)
    }

    fn slot(&self, slot: usize) -> Result<usize, Posix> {
        self.slots[slot].ok_or(Posix::Stale)
    }

    fn change(&mut self, op: &FsOp) -> Answer {
        match op {
            FsOp::Make { caller, path, kind, mode, rdev } => {
                self.make(caller, path, *kind, *mode, *rdev)
            }
            FsOp::Symlink { path, target } => {
                let caller = Caller { uid: 0, gid: 0, umask: 0 };
                self.make(&caller, path, Kind::Symlink, 0o777, 0)?;
                self.files.last_mut().expect("just made").target.clone_from(target);
                Ok(Told::Done)
            }
            FsOp::Link { from, to } => {
                let file = self.find(from)?;
                let place = self.free(to)?;
                if self.files[file].kind == Kind::Directory {
                    return Err(Posix::NotPermitted);
                }
                self.put(place, file);
                self.files[file].nlink += 1;
                self.touch(file, &[CTIME]);
                Ok(Told::Done)
            }
            FsOp::Unlink { path } | FsOp::RemoveDirectory { path } => {
                let (parent, name) = self.place(path)?;
                let file = self.child(parent, name)?.ok_or(Posix::NoEntry)?;
                let directory = self.files[file].kind == Kind::Directory;
                match (directory, matches!(op, FsOp::Unlink { .. })) {
                    (true, true) => return Err(Posix::IsDirectory),
                    (false, false) => return Err(Posix::NotDirectory),
                    (true, false) if !self.files[file].names.is_empty() => {
                        return Err(Posix::NotEmpty);
                    }
                    _ => self.remove(parent, name),
                }
                Ok(Told::Done)
            }
            FsOp::Rename { from, to, how } => self.rename(from, to, *how),
            FsOp::Open { slot, path } => {
                if self.slots[*slot].is_some() {
                    return Err(Posix::Exists);
                }
                self.slots[*slot] = Some(self.regular(path)?);
                Ok(Told::Done)
            }
            FsOp::Close { slot } => {
                self.slot(*slot)?;
                self.slots[*slot] = None;
                Ok(Told::Done)
            }
            _ => self.change_file(op),
        }
    }

    fn change_file(&mut self, op: &FsOp) -> Answer {
        match op {
            FsOp::Write { path, offset, len, seed } => {
                self.write(self.regular(path)?, *offset, &bytes(*seed, *offset, *len))
            }
            FsOp::WriteOpen { slot, offset, len, seed } => {
                self.write(self.slot(*slot)?, *offset, &bytes(*seed, *offset, *len))
            }
            FsOp::Read { path, offset, len } => {
                Ok(Told::Bytes(self.read(self.regular(path)?, *offset, u64::from(*len))))
            }
            FsOp::ReadOpen { slot, offset, len } => {
                Ok(Told::Bytes(self.read(self.slot(*slot)?, *offset, u64::from(*len))))
            }
            FsOp::Truncate { path, size } => {
                self.resize(self.regular(path)?, *size);
                Ok(Told::Done)
            }
            FsOp::Chmod { path, mode } => {
                let file = self.find(path)?;
                self.files[file].mode = *mode;
                self.touch(file, &[CTIME]);
                Ok(Told::Done)
            }
            FsOp::Chown { path, uid, gid } => self.chown(path, *uid, *gid),
            FsOp::Utimes { path, secs } => {
                let file = self.find(path)?;
                let time = TimeNs { secs: *secs, nanos: 5 };
                self.files[file].times[ATIME] = time;
                self.files[file].times[MTIME] = time;
                self.touch(file, &[CTIME]);
                Ok(Told::Done)
            }
            FsOp::Punch { path, offset, len } => self.allocate(path, (*offset, *len), true, true),
            FsOp::Zero { path, offset, len, keep } => {
                self.allocate(path, (*offset, *len), *keep, true)
            }
            FsOp::Allocate { path, offset, len, keep } => {
                self.allocate(path, (*offset, *len), *keep, false)
            }
            FsOp::Seek { path, offset, data } => self.seek(path, *offset, *data),
            FsOp::Copy { from, offset, to, at, len } => self.copy((from, *offset), (to, *at), *len),
            FsOp::SetXattr { path, name, len, seed, how } => {
                self.set_xattr(path, name, bytes(*seed, 0, *len), *how)
            }
            FsOp::RemoveXattr { path, name } => {
                let file = self.find(path)?;
                self.files[file].xattrs.remove(name).ok_or(Posix::NoData)?;
                self.touch(file, &[CTIME]);
                Ok(Told::Done)
            }
            FsOp::Sync { path } => self.find(path).map(|_| Told::Done),
            _ => unreachable!("the others are dealt with"),
        }
    }

    fn look(
        &self,
        path: &mut Path,
        file: usize,
        first: &mut BTreeMap<usize, Path>,
        seen: &mut Seen,
    ) {
        let this = &self.files[file];
        let same_as = first.entry(file).or_insert_with(|| path.clone()).clone();
        let shown = SeenFile {
            same_as,
            kind: this.kind,
            mode: this.mode,
            owner: (this.uid, this.gid),
            nlink: this.nlink,
            rdev: this.rdev,
            size: match this.kind {
                Kind::Directory => 4096,
                Kind::Symlink => this.target.len() as u64,
                _ => this.content.len() as u64,
            },
            times: this.times,
            bytes: match this.kind {
                Kind::Symlink => this.target.clone(),
                _ => self.read(file, 0, u64::MAX),
            },
            data: runs(&this.content),
            xattrs: this.xattrs.clone(),
        };
        seen.insert(path.clone(), shown);
        for (name, child) in &this.names {
            path.push(name.clone());
            self.look(path, *child, first, seen);
            path.pop();
        }
    }
}

impl Target for Model {
    fn apply(&mut self, op: &FsOp) -> Answer {
        self.change(op)
    }

    fn seen(&mut self) -> Seen {
        let mut seen = Seen::new();
        self.look(&mut Path::new(), 0, &mut BTreeMap::new(), &mut seen);
        seen
    }
}

impl File {
    fn new(kind: Kind, mode: u32, (uid, gid): (u32, u32), now: TimeNs) -> Self {
        let (names, xattrs) = (BTreeMap::new(), BTreeMap::new());
        let (content, target) = (Vec::new(), Vec::new());
        let times = [now; 4];
        let (rdev, parent, nlink) = (0, 0, 0);
        Self { kind, mode, uid, gid, rdev, times, content, target, names, parent, nlink, xattrs }
    }
}

fn runs(content: &[Option<u8>]) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (at, _) in content.iter().enumerate().filter(|(_, byte)| byte.is_some()) {
        match runs.last_mut() {
            Some(run) if run.1 == at as u64 => run.1 += 1,
            _ => runs.push((at as u64, at as u64 + 1)),
        }
    }
    runs
}
