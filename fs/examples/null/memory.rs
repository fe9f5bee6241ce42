//! A filesystem in memory behind the adapter: it keeps nothing, seals nothing and waits for no disk.
//!
//! What the adapter can reach at best, and a second core to test it with. It has the manners of a
//! local filesystem.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use rdrivefs::adapter::Core;
use rdrivefs::adapter::words::{
    Attr, Caller, Change, Entry, Kind, Name, Rename, SeekTo, SetAttr, SetXattr, Statfs, TimeNs,
};
use rdrivefs_sync::Result;
use rdrivefs_sync::error::Posix;
use rdrivefs_sync::id::Ino;
use rdrivefs_sync::remote::env::Env;

#[path = "acl.rs"]
mod acl;

use acl::{ACCESS, Acl, DEFAULT};

const BLOCK_BYTES: u64 = 64 * 1024;
const NAME_BYTES_MAX: usize = 255;
const SET_GROUP: u32 = 0o2000;
const ROOM_BLOCKS: u64 = 1 << 28;

/// Called as an operation begins, with its name and inode: a test makes it slow, or a panic.
pub(crate) type Hook = Box<dyn Fn(&'static str, Ino) + Send + Sync>;
type Heard = Box<dyn Fn(Change) + Send + Sync>;

/// The filesystem; every inode is reached by its number.
pub(crate) struct Memory {
    env: Env,
    hook: OnceLock<Hook>,
    heard: OnceLock<Heard>,
    next: AtomicU64,
    nodes: RwLock<HashMap<Ino, Arc<Node>>>,
    /// Taken first; changes of names exclude each other and all lookups.
    names: RwLock<()>,
}

struct Node {
    ino: Ino,
    kind: Kind,
    rdev: u32,
    target: Vec<u8>,
    meta: Mutex<Meta>,
    data: RwLock<Data>,
    dir: Mutex<Dir>,
}

#[derive(Default)]
struct Meta {
    mode: u32,
    uid: u32,
    gid: u32,
    nlink: u32,
    times: [TimeNs; 4],
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    held: u64,
}

#[derive(Default)]
struct Data {
    size: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
}

#[derive(Default)]
struct Dir {
    parent: Option<Ino>,
    names: HashMap<Vec<u8>, (u64, Ino)>,
    order: BTreeMap<u64, Vec<u8>>,
}

impl Dir {
    fn put(&mut self, cookie: u64, name: &[u8], ino: Ino) {
        self.names.insert(name.to_vec(), (cookie, ino));
        self.order.insert(cookie, name.to_vec());
    }

    fn take(&mut self, name: &[u8]) {
        if let Some((cookie, _)) = self.names.remove(name) {
            self.order.remove(&cookie);
        }
    }
}

impl Data {
    fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        let end = self.size.min(offset.saturating_add(len));
        let mut out = vec![0; end.saturating_sub(offset) as usize];
        let mut at = offset;
        while at < end {
            let (number, skip) = (at / BLOCK_BYTES, (at % BLOCK_BYTES) as usize);
            let step = (BLOCK_BYTES - skip as u64).min(end - at) as usize;
            if let Some(have) = self.blocks.get(&number).and_then(|block| block.get(skip..)) {
                let have = &have[..have.len().min(step)];
                out[(at - offset) as usize..][..have.len()].copy_from_slice(have);
            }
            at += step as u64;
        }
        out
    }

    fn write(&mut self, offset: u64, mut data: &[u8]) {
        let mut at = offset;
        self.size = self.size.max(offset + data.len() as u64);
        while !data.is_empty() {
            let (number, skip) = (at / BLOCK_BYTES, (at % BLOCK_BYTES) as usize);
            let (now, later) = data.split_at(data.len().min(BLOCK_BYTES as usize - skip));
            let block = self.blocks.entry(number).or_default();
            if block.len() < skip + now.len() {
                block.resize(skip + now.len(), 0);
            }
            block[skip..skip + now.len()].copy_from_slice(now);
            at += now.len() as u64;
            data = later;
        }
    }

    /// Makes a range zero, giving whole blocks back.
    fn punch(&mut self, from: u64, to: u64) {
        let inside = from.div_ceil(BLOCK_BYTES)..to / BLOCK_BYTES;
        if inside.start < inside.end {
            self.blocks.retain(|number, _| !inside.contains(number));
        }
        for number in [from / BLOCK_BYTES, to / BLOCK_BYTES] {
            if let Some(block) = self.blocks.get_mut(&number) {
                let base = number * BLOCK_BYTES;
                let end = (to.saturating_sub(base)).min(block.len() as u64) as usize;
                let start = from.saturating_sub(base).min(end as u64) as usize;
                block[start..end].fill(0);
            }
        }
    }

    fn resize(&mut self, size: u64) {
        if size < self.size {
            self.punch(size, self.size.next_multiple_of(BLOCK_BYTES));
        }
        self.size = size;
    }

    fn seek(&self, offset: u64, to: SeekTo) -> Option<u64> {
        if offset >= self.size {
            return None;
        }
        let first = offset / BLOCK_BYTES;
        let number = match to {
            SeekTo::Data => *self.blocks.range(first..).next()?.0,
            SeekTo::Hole => (first..).find(|number| !self.blocks.contains_key(number))?,
        };
        let at = (number * BLOCK_BYTES).max(offset);
        match to {
            SeekTo::Data => (at < self.size).then_some(at),
            SeekTo::Hole => Some(at.min(self.size)),
        }
    }
}

impl Memory {
    /// An empty filesystem whose root belongs to the caller.
    pub(crate) fn new(env: Env) -> Self {
        let memory = Self {
            env,
            hook: OnceLock::new(),
            heard: OnceLock::new(),
            next: AtomicU64::new(2),
            nodes: RwLock::default(),
            names: RwLock::default(),
        };
        let caller = Caller {
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            umask: 0,
        };
        let root = memory.node(&caller, Ino::ROOT, Kind::Directory, 0o755, 0, &[]);
        root.dir.lock().unwrap().parent = Some(Ino::ROOT);
        memory.nodes.write().unwrap().insert(Ino::ROOT, root);
        memory
    }

    /// Has `hook` called from now on.
    #[allow(dead_code, reason = "for tests")]
    pub(crate) fn hook(&self, hook: Hook) {
        assert!(self.hook.set(hook).is_ok(), "one hook a filesystem");
    }

    /// Tells the kernel of a change made by calling the core.
    #[allow(dead_code, reason = "for tests")]
    pub(crate) fn announce(&self, change: Change) {
        self.heard.get().expect("a mounted filesystem")(change);
    }

    /// Inodes that are named or held.
    #[allow(dead_code, reason = "for tests")]
    pub(crate) fn inodes(&self) -> usize {
        self.nodes.read().unwrap().len()
    }

    fn begin(&self, op: &'static str, ino: Ino) {
        if let Some(hook) = self.hook.get() {
            hook(op, ino);
        }
    }

    fn now(&self) -> TimeNs {
        let ns = self.env.wall_ns();
        TimeNs { secs: (ns / 1_000_000_000) as i64, nanos: (ns % 1_000_000_000) as u32 }
    }

    fn get(&self, ino: Ino) -> Result<Arc<Node>> {
        Ok(self.nodes.read().unwrap().get(&ino).cloned().ok_or(Posix::Stale)?)
    }

    fn directory(&self, ino: Ino) -> Result<Arc<Node>> {
        let node = self.get(ino)?;
        if node.kind == Kind::Directory { Ok(node) } else { Err(Posix::NotDirectory.into()) }
    }

    fn child(&self, parent: &Node, name: &[u8]) -> Result<Arc<Node>> {
        if name.len() > NAME_BYTES_MAX {
            return Err(Posix::NameTooLong.into());
        }
        let found = parent.dir.lock().unwrap().names.get(name).map(|(_, ino)| *ino);
        self.get(found.ok_or(Posix::NoEntry)?)
    }

    fn node(
        &self,
        caller: &Caller,
        ino: Ino,
        kind: Kind,
        mode: u32,
        rdev: u32,
        target: &[u8],
    ) -> Arc<Node> {
        let meta = Meta {
            mode: mode & !caller.umask,
            uid: caller.uid,
            gid: caller.gid,
            nlink: if kind == Kind::Directory { 2 } else { 1 },
            times: [self.now(); 4],
            ..Meta::default()
        };
        let data = Data { size: target.len() as u64, ..Data::default() };
        Arc::new(Node {
            ino,
            kind,
            rdev,
            target: target.to_vec(),
            meta: Mutex::new(meta),
            data: RwLock::new(data),
            dir: Mutex::default(),
        })
    }

    fn make(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        (kind, mode, rdev): (Kind, u32, u32),
        target: &[u8],
    ) -> Result<Attr> {
        let _names = self.names.write().unwrap();
        let parent = self.directory(parent)?;
        if self.exists(&parent, name)? {
            return Err(Posix::Exists.into());
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let node = self.node(caller, Ino(number), kind, mode, rdev, target);
        {
            let (above, mut meta) = (parent.meta.lock().unwrap(), node.meta.lock().unwrap());
            inherit(&above, &mut meta, kind, mode)?;
            if above.mode & SET_GROUP != 0 {
                meta.gid = above.gid;
                meta.mode |= if kind == Kind::Directory { SET_GROUP } else { 0 };
            }
        }
        self.nodes.write().unwrap().insert(node.ino, Arc::clone(&node));
        self.enter(&parent, name, &node);
        Ok(self.stat(&node))
    }

    fn exists(&self, parent: &Node, name: &[u8]) -> Result<bool> {
        match self.child(parent, name) {
            Ok(_) => Ok(true),
            Err(rdrivefs_sync::Error::Posix(Posix::NoEntry)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn enter(&self, parent: &Node, name: &[u8], node: &Node) {
        let cookie = self.next.fetch_add(1, Ordering::Relaxed);
        parent.dir.lock().unwrap().put(cookie, name, node.ino);
        if node.kind == Kind::Directory {
            node.dir.lock().unwrap().parent = Some(parent.ino);
            parent.meta.lock().unwrap().nlink += 1;
        }
        self.touch(parent);
    }

    fn leave(&self, parent: &Node, name: &[u8], node: &Node) {
        parent.dir.lock().unwrap().take(name);
        if node.kind == Kind::Directory {
            parent.meta.lock().unwrap().nlink -= 1;
        }
        self.touch(parent);
    }

    fn touch(&self, node: &Node) {
        let now = self.now();
        let mut meta = node.meta.lock().unwrap();
        (meta.times[1], meta.times[2]) = (now, now);
    }

    /// One name less; an inode nobody names or holds is gone.
    fn drop_name(&self, node: &Node) {
        let now = self.now();
        let mut meta = node.meta.lock().unwrap();
        meta.nlink = if node.kind == Kind::Directory { 0 } else { meta.nlink - 1 };
        meta.times[2] = now;
        drop(meta);
        self.purge(node, |held| held);
    }

    fn purge(&self, node: &Node, held: impl FnOnce(u64) -> u64) {
        let mut meta = node.meta.lock().unwrap();
        meta.held = held(meta.held);
        let gone = meta.held == 0 && meta.nlink == 0 && node.ino != Ino::ROOT;
        drop(meta);
        if gone {
            self.nodes.write().unwrap().remove(&node.ino);
        }
    }

    fn stat(&self, node: &Node) -> Attr {
        let data = node.data.read().unwrap();
        let meta = node.meta.lock().unwrap();
        let [atime, mtime, ctime, crtime] = meta.times;
        let held = (data.blocks.len() as u64 * BLOCK_BYTES).min(data.size.next_multiple_of(4096));
        Attr {
            ino: node.ino,
            kind: node.kind,
            mode: meta.mode,
            nlink: meta.nlink,
            uid: meta.uid,
            gid: meta.gid,
            rdev: node.rdev,
            size: if node.kind == Kind::Directory { 4096 } else { data.size },
            blocks: held / 512,
            atime,
            mtime,
            ctime,
            crtime,
            generation: 0,
        }
    }

    /// Whether `ino` is `dir` or lies above it.
    fn is_above(&self, ino: Ino, mut dir: Ino) -> Result<bool> {
        while dir != ino {
            if dir == Ino::ROOT {
                return Ok(false);
            }
            dir = self.parent(dir)?;
        }
        Ok(true)
    }

    fn may_replace(&self, moved: &Node, met: &Node) -> Result<()> {
        match (moved.kind == Kind::Directory, met.kind == Kind::Directory) {
            (true, false) => Err(Posix::NotDirectory.into()),
            (false, true) => Err(Posix::IsDirectory.into()),
            (true, true) if !met.dir.lock().unwrap().names.is_empty() => {
                Err(Posix::NotEmpty.into())
            }
            _ => Ok(()),
        }
    }
}

/// Gives a new inode the lists its directory has for those made in it; the caller's mask does not
/// count then.
fn inherit(above: &Meta, meta: &mut Meta, kind: Kind, mode: u32) -> Result<()> {
    let Some(default) = above.xattrs.get(DEFAULT).filter(|_| kind != Kind::Symlink) else {
        return Ok(());
    };
    let mut list = Acl::parse(default)?;
    list.set_mode(mode, true);
    meta.mode = mode & !0o777 | list.mode();
    if !list.is_mode() {
        meta.xattrs.insert(ACCESS.to_vec(), list.encode());
    }
    if kind == Kind::Directory {
        meta.xattrs.insert(DEFAULT.to_vec(), default.clone());
    }
    Ok(())
}

impl Core for Memory {
    fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr> {
        let _names = self.names.read().unwrap();
        Ok(self.stat(&*self.child(&*self.directory(parent)?, name)?))
    }

    fn parent(&self, dir: Ino) -> Result<Ino> {
        Ok(self.directory(dir)?.dir.lock().unwrap().parent.ok_or(Posix::Stale)?)
    }

    fn attr(&self, ino: Ino) -> Result<Attr> {
        Ok(self.stat(&*self.get(ino)?))
    }

    fn set_attr(&self, ino: Ino, set: &SetAttr) -> Result<Attr> {
        let node = self.get(ino)?;
        if let Some(size) = set.size {
            node.data.write().unwrap().resize(size);
        }
        let now = self.now();
        {
            let mut meta = node.meta.lock().unwrap();
            meta.mode = set.mode.unwrap_or(meta.mode);
            if let (Some(mode), Some(list)) = (set.mode, meta.xattrs.get_mut(ACCESS)) {
                let mut acl = Acl::parse(list)?;
                acl.set_mode(mode, false);
                *list = acl.encode();
            }
            meta.uid = set.uid.unwrap_or(meta.uid);
            meta.gid = set.gid.unwrap_or(meta.gid);
            meta.times[0] = set.atime.unwrap_or(meta.times[0]);
            let written = if set.size.is_some() { now } else { meta.times[1] };
            meta.times[1] = set.mtime.unwrap_or(written);
            meta.times[2] = set.ctime.unwrap_or(now);
        }
        Ok(self.stat(&node))
    }

    fn create(&self, caller: &Caller, parent: Ino, name: &[u8], mode: u32) -> Result<Attr> {
        self.make(caller, parent, name, (Kind::File, mode, 0), &[])
    }

    fn make_directory(&self, caller: &Caller, parent: Ino, name: &[u8], mode: u32) -> Result<Attr> {
        self.make(caller, parent, name, (Kind::Directory, mode, 0), &[])
    }

    fn make_node(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        kind: Kind,
        mode: u32,
        rdev: u32,
    ) -> Result<Attr> {
        self.make(caller, parent, name, (kind, mode, rdev), &[])
    }

    fn symlink(&self, caller: &Caller, parent: Ino, name: &[u8], target: &[u8]) -> Result<Attr> {
        self.make(caller, parent, name, (Kind::Symlink, 0o777, 0), target)
    }

    fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr> {
        let _names = self.names.write().unwrap();
        let (node, parent) = (self.get(ino)?, self.directory(parent)?);
        if node.kind == Kind::Directory {
            return Err(Posix::NotPermitted.into());
        }
        if self.exists(&parent, name)? {
            return Err(Posix::Exists.into());
        }
        let now = self.now();
        {
            let mut meta = node.meta.lock().unwrap();
            meta.nlink += 1;
            meta.times[2] = now;
        }
        self.enter(&parent, name, &node);
        Ok(self.stat(&node))
    }

    fn read_link(&self, ino: Ino) -> Result<Vec<u8>> {
        self.begin("read_link", ino);
        Ok(self.get(ino)?.target.clone())
    }

    fn unlink(&self, parent: Ino, name: &[u8]) -> Result<()> {
        let _names = self.names.write().unwrap();
        let parent = self.directory(parent)?;
        let node = self.child(&parent, name)?;
        if node.kind == Kind::Directory {
            return Err(Posix::IsDirectory.into());
        }
        self.leave(&parent, name, &node);
        self.drop_name(&node);
        Ok(())
    }

    fn remove_directory(&self, parent: Ino, name: &[u8]) -> Result<()> {
        let _names = self.names.write().unwrap();
        let parent = self.directory(parent)?;
        let node = self.child(&parent, name)?;
        if node.kind != Kind::Directory {
            return Err(Posix::NotDirectory.into());
        }
        if !node.dir.lock().unwrap().names.is_empty() {
            return Err(Posix::NotEmpty.into());
        }
        self.leave(&parent, name, &node);
        self.drop_name(&node);
        Ok(())
    }

    fn rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), how: Rename) -> Result<()> {
        let _names = self.names.write().unwrap();
        let (source, target) = (self.directory(from.0)?, self.directory(to.0)?);
        let moved = self.child(&source, from.1)?;
        let met = if self.exists(&target, to.1)? { Some(self.child(&target, to.1)?) } else { None };
        if moved.kind == Kind::Directory && self.is_above(moved.ino, target.ino)? {
            return Err(Posix::Invalid.into());
        }
        match (how, &met) {
            (Rename::NoReplace, Some(_)) => return Err(Posix::Exists.into()),
            (Rename::Exchange, None) => return Err(Posix::NoEntry.into()),
            (_, Some(met)) if met.ino == moved.ino => return Ok(()),
            (Rename::Replace, Some(met)) => self.may_replace(&moved, met)?,
            _ => {}
        }
        self.leave(&source, from.1, &moved);
        if let Some(met) = &met {
            self.leave(&target, to.1, met);
            if how == Rename::Exchange {
                self.enter(&source, from.1, met);
            } else {
                self.drop_name(met);
            }
        }
        self.enter(&target, to.1, &moved);
        let now = self.now();
        moved.meta.lock().unwrap().times[2] = now;
        Ok(())
    }

    fn list(&self, dir: Ino, after: u64, limit: usize) -> Result<Vec<Entry>> {
        let _names = self.names.read().unwrap();
        let node = self.directory(dir)?;
        let page: Vec<_> = {
            let dir = node.dir.lock().unwrap();
            let rest = dir.order.range(after + 1..).take(limit);
            rest.map(|(cookie, name)| (*cookie, name.clone(), dir.names[name].1)).collect()
        };
        let entry = |(cookie, name, ino)| Ok(Entry { cookie, name, attr: self.attr(ino)? });
        page.into_iter().map(entry).collect()
    }

    fn list_names(&self, dir: Ino, after: u64, limit: usize) -> Result<Vec<Name>> {
        let named = |entry: Entry| {
            let Entry { cookie, name, attr } = entry;
            Name { cookie, name, ino: attr.ino, kind: attr.kind }
        };
        Ok(self.list(dir, after, limit)?.into_iter().map(named).collect())
    }

    fn has_at_most(&self, dir: Ino, count: usize) -> Result<bool> {
        Ok(self.directory(dir)?.dir.lock().unwrap().order.len() <= count)
    }

    fn remember(&self, ino: Ino, count: u64) {
        if let Ok(node) = self.get(ino) {
            node.meta.lock().unwrap().held += count;
        }
    }

    fn forget(&self, ino: Ino, count: u64) {
        if let Ok(node) = self.get(ino) {
            self.purge(&node, |held| held.checked_sub(count).expect("more forgotten than told"));
        }
    }

    fn read(&self, ino: Ino, offset: u64, len: u32) -> Result<Vec<u8>> {
        self.begin("read", ino);
        Ok(self.get(ino)?.data.read().unwrap().read(offset, len.into()))
    }

    fn write(&self, ino: Ino, offset: u64, data: &[u8]) -> Result<usize> {
        self.begin("write", ino);
        let node = self.get(ino)?;
        node.data.write().unwrap().write(offset, data);
        self.touch(&node);
        Ok(data.len())
    }

    fn write_back(&self, ino: Ino, offset: u64, data: &[u8]) -> Result<usize> {
        self.begin("write", ino);
        self.get(ino)?.data.write().unwrap().write(offset, data);
        Ok(data.len())
    }

    fn allocate(&self, ino: Ino, mode: u32, offset: u64, len: u64) -> Result<()> {
        const KEEP_SIZE: u32 = 1;
        const PUNCH_HOLE: u32 = 2;
        const ZERO_RANGE: u32 = 0x10;
        if mode & !(KEEP_SIZE | PUNCH_HOLE | ZERO_RANGE) != 0 {
            return Err(Posix::NotSupported.into());
        }
        let node = self.get(ino)?;
        {
            let mut data = node.data.write().unwrap();
            let end = offset.checked_add(len).ok_or(Posix::TooBig)?;
            if mode & (PUNCH_HOLE | ZERO_RANGE) != 0 {
                data.punch(offset, end);
            }
            if mode & KEEP_SIZE == 0 {
                data.size = data.size.max(end);
            }
        }
        self.touch(&node);
        Ok(())
    }

    fn seek(&self, ino: Ino, offset: u64, to: SeekTo) -> Result<u64> {
        let found = self.get(ino)?.data.read().unwrap().seek(offset, to);
        Ok(found.ok_or(Posix::NoSuchOffset)?)
    }

    fn copy_range(&self, from: (Ino, u64), to: (Ino, u64), len: u64) -> Result<u64> {
        let (mut done, step) = (0, 1 << 20);
        while done < len {
            let part = self.read(from.0, from.1 + done, (len - done).min(step) as u32)?;
            if part.is_empty() {
                break;
            }
            done += self.write(to.0, to.1 + done, &part)? as u64;
        }
        Ok(done)
    }

    fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        let node = self.get(ino)?;
        let value = node.meta.lock().unwrap().xattrs.get(name).cloned();
        Ok(value.ok_or(Posix::NoData)?)
    }

    fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], how: SetXattr) -> Result<()> {
        if name.starts_with(b"system.") && name != ACCESS && name != DEFAULT {
            return Err(Posix::NotSupported.into());
        }
        let node = self.get(ino)?;
        let mut meta = node.meta.lock().unwrap();
        if name == ACCESS {
            let list = Acl::parse(value)?;
            meta.mode = meta.mode & !0o777 | list.mode();
            if list.is_mode() {
                meta.xattrs.remove(ACCESS);
                return Ok(());
            }
        }
        match (how, meta.xattrs.contains_key(name)) {
            (SetXattr::Create, true) => return Err(Posix::Exists.into()),
            (SetXattr::Replace, false) => return Err(Posix::NoData.into()),
            _ => meta.xattrs.insert(name.to_vec(), value.to_vec()),
        };
        Ok(())
    }

    fn xattrs(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        Ok(self.get(ino)?.meta.lock().unwrap().xattrs.keys().cloned().collect())
    }

    fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        let node = self.get(ino)?;
        let removed = node.meta.lock().unwrap().xattrs.remove(name);
        Ok(removed.map(drop).ok_or(Posix::NoData)?)
    }

    fn sync(&self, _: Ino) -> Result<()> {
        Ok(())
    }

    fn sync_directory(&self, _: Ino) -> Result<()> {
        Ok(())
    }

    fn statfs(&self) -> Result<Statfs> {
        let (room, files) = (ROOM_BLOCKS, 1 << 32);
        Ok(Statfs {
            blocks: room,
            bfree: room,
            bavail: room,
            files,
            ffree: files,
            bsize: 4096,
            namelen: 255,
        })
    }

    /// Nothing changes here but through the calls above, unless a test says so.
    fn on_change(&self, heard: Heard) {
        drop(self.heard.set(heard));
    }
}
