//! The requests of the kernel, one function each: decode, ask the core, reply.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rdrivefs_sync::Error;
use rdrivefs_sync::error::Posix;
use rdrivefs_sync::remote::env::Env;

use super::convert::{file_attr, ino, kind, nothing, permissions, time, time_or_now};
use super::core::Core;
use super::core::words::{Caller, Rename, SeekTo, SetAttr};
use super::errno::errno;
use super::kernel::{Kernel, negotiate};
use super::listing::{fill, fill_plus};
use super::loans::Changer;
use super::reply::{
    TTL, reply_attr, reply_data, reply_empty, reply_entry, reply_written, reply_xattr,
};
use super::standing;
use super::state::State;

/// The longest copy answered at once: its length must fit the reply, and stay interruptible.
const COPY_BYTES_MAX: u64 = 1 << 30;
/// The longest write that is done sooner than another thread is woken for it.
const SHORT_WRITE_BYTES_MAX: usize = 64 << 10;

/// A filesystem for the kernel, made of a core.
pub struct Adapter<C>(Arc<State<C>>);

impl<C: Core> Adapter<C> {
    /// An adapter served by `loop_threads` threads, that reaches the kernel by `kernel`.
    pub fn new(core: Arc<C>, kernel: Arc<Kernel>, env: Env, loop_threads: usize) -> Self {
        Self(Arc::new(State::new(core, kernel, env, loop_threads)))
    }
}

fn caller(req: &Request, umask: u32) -> Caller {
    Caller { uid: req.uid(), gid: req.gid(), umask }
}

impl<C: Core> Filesystem for Adapter<C> {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        negotiate(config)
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.0.guard("lookup", || match self.0.lookup(ino(parent), name.as_bytes()) {
            Err(Error::Posix(Posix::NoEntry)) => reply.entry(&TTL, &nothing(), Generation(0)),
            found => reply_entry("lookup", reply, found),
        });
    }

    fn forget(&self, _: &Request, node: INodeNo, count: u64) {
        self.0.guard("forget", || self.0.core.forget(ino(node), count));
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.0.guard("getattr", || reply_attr("getattr", reply, self.0.core.attr(ino(node))));
    }

    fn setattr(
        &self,
        req: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        crtime: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.0.guard("setattr", || {
            let (atime, mtime) = (
                atime.map(|t| time_or_now(&self.0.env, t)),
                mtime.map(|t| time_or_now(&self.0.env, t)),
            );
            let (ctime, crtime) = (ctime.map(time), crtime.map(time));
            let mut set = SetAttr { mode, uid, gid, size, atime, mtime, ctime, crtime };
            reply_attr("setattr", reply, self.0.set_attr(ino(node), Changer::of(req), &mut set));
        });
    }

    fn readlink(&self, _: &Request, node: INodeNo, reply: ReplyData) {
        self.0
            .guard("readlink", || reply_data("readlink", reply, self.0.core.read_link(ino(node))));
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        self.0.guard("mknod", || {
            let (who, parent, name) = (caller(req, umask), ino(parent), name.as_bytes());
            let made = match kind(mode) {
                None => Err(Posix::Invalid.into()),
                Some(kind) => {
                    self.0.core.make_node(&who, parent, name, kind, permissions(mode), rdev)
                }
            };
            reply_entry("mknod", reply, self.0.told(made));
        });
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        self.0.guard("mkdir", || {
            let (who, mode) = (caller(req, umask), permissions(mode));
            let made = self.0.core.make_directory(&who, ino(parent), name.as_bytes(), mode);
            reply_entry("mkdir", reply, self.0.told(made));
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.0.guard("unlink", || {
            reply_empty("unlink", reply, self.0.core.unlink(ino(parent), name.as_bytes()));
        });
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.0.guard("rmdir", || {
            reply_empty("rmdir", reply, self.0.core.remove_directory(ino(parent), name.as_bytes()));
        });
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        self.0.guard("symlink", || {
            let (who, target) = (caller(req, 0), target.as_os_str().as_bytes());
            let made = self.0.core.symlink(&who, ino(parent), name.as_bytes(), target);
            reply_entry("symlink", reply, self.0.told(made));
        });
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let how = match flags {
            flags if flags.is_empty() => Rename::Replace,
            RenameFlags::RENAME_NOREPLACE => Rename::NoReplace,
            RenameFlags::RENAME_EXCHANGE => Rename::Exchange,
            _ => return reply.error(Errno::EINVAL),
        };
        self.0.guard("rename", || {
            let from = (ino(parent), name.as_bytes().to_vec());
            let to = (ino(new_parent), new_name.as_bytes().to_vec());
            let overtaken = self.0.overtaken((from.0, &from.1), (to.0, &to.1), how);
            self.0.after_calling_in("rename", overtaken, move |state| {
                let renamed = state.core.rename((from.0, &from.1), (to.0, &to.1), how);
                reply_empty("rename", reply, renamed);
            });
        });
    }

    fn link(&self, _: &Request, node: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.0.guard("link", || {
            let linked = self.0.core.link(ino(node), ino(parent), name.as_bytes());
            reply_entry("link", reply, self.0.told(linked));
        });
    }

    /// The kernel opens files by itself once it was told so, and sends neither OPEN nor RELEASE any
    /// more: the reference it has on the inode says all we need to know.
    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.0.guard("create", || {
            let (who, parent, name) = (caller(req, umask), ino(parent), name.as_bytes());
            let exclusive = flags.cast_unsigned() & rustix::fs::OFlags::EXCL.bits() != 0;
            let create = || self.0.core.create(&who, parent, name, permissions(mode));
            match self.0.create(create, exclusive) {
                Ok(attr) => {
                    let (stat, generation) = (file_attr(&attr), Generation(attr.generation));
                    let keep = FopenFlags::FOPEN_KEEP_CACHE;
                    reply.created(&TTL, &stat, generation, FileHandle(0), keep);
                }
                Err(error) => reply.error(errno("create", &error)),
            }
        });
    }

    fn read(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.0.read(ino(node), offset, size, reply);
    }

    fn write(
        &self,
        req: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (node, by) = (ino(node), Changer::of(req));
        let short = data.len() <= SHORT_WRITE_BYTES_MAX;
        let permit = if short { self.0.carry_short() } else { self.0.carry() };
        if permit.is_some() {
            return self.0.guard("write", || {
                reply_written("write", reply, self.0.write(node, offset, data, write_flags, by));
            });
        }
        self.0.wait_writing(data, move |state, data| {
            reply_written("write", reply, state.write(node, offset, data, write_flags, by));
        });
    }

    /// The kernel has written back what was dirty before it asks; told once, it asks no more.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.0.carry_or_wait("fsync", move |state| {
            reply_empty("fsync", reply, state.core.sync(ino(node)));
        });
    }

    /// The kernel may keep a listing: it drops it at each change it makes, we at the others.
    fn opendir(&self, _: &Request, node: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.0.guard("opendir", || {
            let keep = FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE;
            let may_keep = self.0.may_keep_listing(ino(node));
            reply.opened(FileHandle(0), if may_keep { keep } else { FopenFlags::empty() });
        });
    }

    fn readdir(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.0.guard("readdir", || match fill(&*self.0.core, ino(node), offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno("readdir", &error)),
        });
    }

    fn readdirplus(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.0.guard("readdirplus", || {
            match fill_plus(&*self.0.core, ino(node), offset, &mut reply) {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(errno("readdirplus", &error)),
            }
        });
    }

    fn fsyncdir(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.0.carry_or_wait("fsyncdir", move |state| {
            reply_empty("fsyncdir", reply, state.core.sync_directory(ino(node)));
        });
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.0.guard("statfs", || match self.0.core.statfs() {
            Ok(s) => reply
                .statfs(s.blocks, s.bfree, s.bavail, s.files, s.ffree, s.bsize, s.namelen, s.bsize),
            Err(error) => reply.error(errno("statfs", &error)),
        });
    }

    fn setxattr(
        &self,
        _: &Request,
        node: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        self.0.guard("setxattr", || {
            if name.as_bytes() == standing::NAME {
                return reply.error(Errno::EPERM);
            }
            let set = self.0.set_xattr(ino(node), name.as_bytes(), value, flags.cast_unsigned());
            reply_empty("setxattr", reply, set);
        });
    }

    fn getxattr(&self, _: &Request, node: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if name.as_bytes() == standing::NAME {
            return self.0.tell_state(ino(node), move |state| {
                reply_xattr("getxattr", reply, size, state.map(|state| standing::words(&state)));
            });
        }
        self.0.guard("getxattr", || {
            let value = self.0.core.xattr(ino(node), name.as_bytes());
            reply_xattr("getxattr", reply, size, value);
        });
    }

    fn listxattr(&self, req: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        // Linux lists these to CAP_SYS_ADMIN alone. The kernel tells us no capabilities, so to root.
        let hidden = |name: &[u8]| req.uid() != 0 && name.starts_with(b"trusted.");
        self.0.guard("listxattr", || {
            let names = self.0.core.xattrs(ino(node)).map(|names| {
                let told = names.iter().filter(|name| *name != standing::NAME && !hidden(name));
                told.flat_map(|name| name.iter().copied().chain([0])).collect()
            });
            reply_xattr("listxattr", reply, size, names);
        });
    }

    fn removexattr(&self, _: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.0.guard("removexattr", || {
            if name.as_bytes() == standing::NAME {
                return reply.error(Errno::EPERM);
            }
            let removed = self.0.core.remove_xattr(ino(node), name.as_bytes());
            reply_empty("removexattr", reply, removed);
        });
    }

    fn fallocate(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.0.carry_or_wait("fallocate", move |state| {
            let done = state.core.allocate(ino(node), mode.cast_unsigned(), offset, length);
            reply_empty("fallocate", reply, done);
        });
    }

    fn lseek(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        const SEEK_DATA: i32 = 3;
        const SEEK_HOLE: i32 = 4;
        let (to, Ok(offset)) = (
            match whence {
                SEEK_DATA => SeekTo::Data,
                SEEK_HOLE => SeekTo::Hole,
                _ => return reply.error(Errno::EINVAL),
            },
            u64::try_from(offset),
        ) else {
            return reply.error(Errno::ENXIO);
        };
        let node = ino(node);
        // Dirty pages make no hole of data, so data where it was asked for needs no calling in.
        let here =
            to == SeekTo::Data && self.0.core.seek(node, offset, to).is_ok_and(|at| at == offset);
        let overtaken = if here { Vec::new() } else { vec![node] };
        self.0.after_calling_in("lseek", overtaken, move |state| {
            match state.core.seek(node, offset, to) {
                Ok(found) => reply.offset(i64::try_from(found).unwrap_or(i64::MAX)),
                Err(error) => reply.error(errno("lseek", &error)),
            }
        });
    }

    fn copy_file_range(
        &self,
        _: &Request,
        from: INodeNo,
        _: FileHandle,
        from_offset: u64,
        to: INodeNo,
        _: FileHandle,
        to_offset: u64,
        len: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.0.carry_or_wait("copy_file_range", move |state| {
            let (from, to) = ((ino(from), from_offset), (ino(to), to_offset));
            let copied = state.core.copy_range(from, to, len.min(COPY_BYTES_MAX));
            let count = copied.map(|n| u32::try_from(n).expect("no more than was asked for"));
            reply_written("copy_file_range", reply, count);
        });
    }
}
