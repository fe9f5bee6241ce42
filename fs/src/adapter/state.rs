//! What the handlers share: the core, and which thread a request may wait on.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fuser::{ReplyData, WriteFlags};
use rdrivefs_sync::error::Posix;
use rdrivefs_sync::id::Ino;
use rdrivefs_sync::remote::env::Env;
use rdrivefs_sync::report::FileState;
use rdrivefs_sync::{Error, Result};
use rustix::fs::XattrFlags;

use super::convert::permissions;
use super::core::Core;
use super::core::words::{Attr, Kind, Rename, SetAttr, SetXattr};
use super::kernel::Kernel;
use super::listing::PAGE_ENTRIES;
use super::loans::{self, Changer};
use super::pool::Pool;
use super::reply::reply_data;

/// Threads of the request loop that are always left for what answers at once.
const LOOP_RESERVE: usize = 2;
/// Of these, what short writes may take.
const SHORT_RESERVE: usize = 1;
/// Requests that may wait for this computer's disk at one time, beyond those the loop carries.
const WAITING_MAX: usize = 64;
/// Of these, writes, each with its bytes in memory.
const WAITING_WRITES_MAX: usize = 32;
/// Reads that may wait for a remote at one time, beyond those the loop carries.
const AWAY_MAX: usize = 512;
/// Renames and seeks that may wait for the kernel to hand in dirty pages at one time. The pages may
/// be locked for as long as a remote does not answer.
const CALLING_IN_MAX: usize = 512;

/// Directories remembered as listed; beyond it all are taken for new, which costs a slower listing.
const LISTED_MAX: usize = 8192;

/// Entries that fit, with their attributes, into the kernel's first message about a directory.
const SHORT_ENTRIES: usize = PAGE_ENTRIES * 3 / 4;

pub(super) struct State<C> {
    pub(super) core: Arc<C>,
    pub(super) env: Env,
    pub(super) kernel: Arc<Kernel>,
    listed: Mutex<HashSet<Ino>>,
    /// Never waits for `calling_in`, which waits for WRITE requests that may be here, nor for a
    /// remote.
    waiting: Pool,
    waiting_writes: Arc<AtomicUsize>,
    away: Pool,
    calling_in: Pool,
    carried: AtomicUsize,
    carried_max: usize,
}

/// The right to let one thread of the loop wait.
pub(super) struct Carried<'a>(&'a AtomicUsize);

/// A write whose bytes are in memory.
struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Carried<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<C: Core> State<C> {
    pub(super) fn new(core: Arc<C>, kernel: Arc<Kernel>, env: Env, loop_threads: usize) -> Self {
        Self {
            core,
            env,
            kernel,
            listed: Mutex::default(),
            waiting: Pool::new("fuse-waiting", WAITING_MAX),
            waiting_writes: Arc::default(),
            away: Pool::new("fuse-away", AWAY_MAX),
            calling_in: Pool::new("fuse-flush", CALLING_IN_MAX),
            carried: AtomicUsize::new(0),
            carried_max: loop_threads.saturating_sub(LOOP_RESERVE),
        }
    }

    /// Runs the handler of a call that came in.
    pub(super) fn guard(&self, op: &'static str, handler: impl FnOnce()) {
        self.core.called();
        guard(op, handler);
        // Whoever was served after a while is here still.
        self.core.called();
    }

    /// Whether this thread of the loop may wait; if not, the request goes to [`Self::wait`].
    pub(super) fn carry(&self) -> Option<Carried<'_>> {
        let carried = self.carried.fetch_add(1, Ordering::Relaxed);
        let permit = Carried(&self.carried);
        (carried < self.carried_max).then_some(permit)
    }

    /// The same for what is over sooner than another thread is woken, and waits now and then all
    /// the same: it may take one thread more.
    pub(super) fn carry_short(&self) -> Option<Carried<'_>> {
        let carried = self.carried.fetch_add(1, Ordering::Relaxed);
        let permit = Carried(&self.carried);
        (carried < self.carried_max + SHORT_RESERVE).then_some(permit)
    }

    /// Answers a request that may wait long, on a thread of its own.
    pub(super) fn wait(
        self: &Arc<Self>,
        op: &'static str,
        job: impl FnOnce(&Self) + Send + 'static,
    ) {
        let state = Arc::clone(self);
        self.waiting.run(move || state.guard(op, || job(&state)));
    }

    /// Answers a read: here, or when too many already wait, where it holds up none whose bytes are
    /// nearer.
    pub(super) fn read(self: &Arc<Self>, ino: Ino, offset: u64, size: u32, reply: ReplyData) {
        let permit = self.carry();
        let read = move |state: &Self| {
            reply_data("read", reply, state.core.read(ino, offset, size));
        };
        if permit.is_some() {
            return self.guard("read", || read(self));
        }
        let here = catch_unwind(AssertUnwindSafe(|| self.core.is_here(ino, offset, size)));
        let pool = if here.unwrap_or(false) { &self.waiting } else { &self.away };
        let state = Arc::clone(self);
        pool.run(move || state.guard("read", || read(&state)));
    }

    /// Answers a write on a thread of its own, with the bytes copied: the loop's buffer is needed for
    /// the next request. Beyond so many the loop waits, which is over when the disk is.
    pub(super) fn wait_writing(
        self: &Arc<Self>,
        data: &[u8],
        write: impl FnOnce(&Self, &[u8]) + Send + 'static,
    ) {
        let others = self.waiting_writes.fetch_add(1, Ordering::Relaxed);
        let permit = Waiting(Arc::clone(&self.waiting_writes));
        if others >= WAITING_WRITES_MAX {
            self.guard("write", || write(self, data));
            return drop(permit);
        }
        let data = data.to_vec();
        self.wait("write", move |state| {
            write(state, &data);
            drop(permit);
        });
    }

    /// Answers a request that may wait long: here, or on another thread when too many already wait.
    pub(super) fn carry_or_wait(
        self: &Arc<Self>,
        op: &'static str,
        job: impl FnOnce(&Self) + Send + 'static,
    ) {
        match self.carry() {
            Some(_permit) => self.guard(op, || job(self)),
            None => self.wait(op, job),
        }
    }

    /// Has the kernel hand in the dirty pages of `files`, then runs `job`; at once if there are none.
    /// On the loop's own thread while others are free, else on one that may wait.
    pub(super) fn after_calling_in(
        self: &Arc<Self>,
        op: &'static str,
        files: Vec<Ino>,
        job: impl FnOnce(&Self) + Send + 'static,
    ) {
        if files.is_empty() {
            return self.guard(op, || job(self));
        }
        let answer = move |state: &Self| {
            state.guard(op, || {
                files.into_iter().for_each(|ino| state.kernel.call_in(ino));
                job(state);
            });
        };
        // The WRITEs this waits for find a thread of the reserve, or go to another pool.
        if let Some(_permit) = self.carry() {
            return answer(self);
        }
        let state = Arc::clone(self);
        self.calling_in.run(move || answer(&state));
    }

    /// The files whose dirty pages a rename would overtake: those that take over a name another
    /// had, so that after a crash the name is the old file or the whole new one.
    pub(super) fn overtaken(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), how: Rename) -> Vec<Ino> {
        if how == Rename::NoReplace {
            return Vec::new();
        }
        let (Ok(from), Ok(to)) = (self.core.lookup(from.0, from.1), self.core.lookup(to.0, to.1))
        else {
            return Vec::new();
        };
        let files = if how == Rename::Exchange { vec![from, to] } else { vec![from] };
        let files = files.into_iter().filter(|attr| attr.kind == Kind::File);
        files.map(|attr| attr.ino).collect()
    }

    /// The answer to a name: the name itself, or the two by which the kernel finds again what it has
    /// forgotten, for whoever kept a handle. Then nobody has it open, so without a name it is gone.
    pub(super) fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr> {
        match name {
            b"." => match self.core.attr_told(parent)? {
                Attr { nlink: 0, .. } => {
                    self.core.forget(parent, 1);
                    Err(Posix::Stale.into())
                }
                attr => Ok(attr),
            },
            b".." => self.core.attr_told(self.core.parent(parent)?),
            _ => self.core.lookup_told(parent, name),
        }
    }

    /// The attributes of an inode the kernel is told of, read after its reference is counted: a
    /// pull leaves alone what the kernel holds.
    pub(super) fn told(&self, made: Result<Attr>) -> Result<Attr> {
        self.core.attr_told(made?.ino)
    }

    /// Creates a file for an open. The kernel may remember a name as free that a pull has just
    /// filled: told that it is behind, it looks again, and opens or refuses what is there as ever,
    /// with all its checks and truncation.
    pub(super) fn create(
        &self,
        create: impl FnOnce() -> Result<Attr>,
        exclusive: bool,
    ) -> Result<Attr> {
        self.told(match create() {
            Err(Error::Posix(Posix::Exists)) if !exclusive => Err(Posix::Stale.into()),
            made => made,
        })
    }

    /// Tells how far a file has come, what the kernel holds dirty of it among that.
    pub(super) fn tell_state(
        self: &Arc<Self>,
        ino: Ino,
        answer: impl FnOnce(Result<FileState>) + Send + 'static,
    ) {
        let job = move |state: &Self| answer(state.core.state(ino));
        match self.core.attr(ino) {
            Ok(attr) if attr.kind == Kind::File => {
                self.after_calling_in("state", vec![ino], job);
            }
            // A directory may be large.
            _ => self.carry_or_wait("state", job),
        }
    }

    /// Whether the kernel may keep the listing it is about to make. A long directory's first one is
    /// not left to it: it would answer the next, say `ls -l` after `ls`, by itself, and then ask
    /// for each entry alone, where a listing that comes to us brings all attributes along. A short
    /// one comes in a single message, with all attributes.
    pub(super) fn may_keep_listing(&self, dir: Ino) -> bool {
        let again = {
            let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
            if listed.len() >= LISTED_MAX {
                listed.clear();
            }
            !listed.insert(dir)
        };
        again || self.core.has_at_most(dir, SHORT_ENTRIES).unwrap_or(false)
    }

    /// Changes attributes, taking lent rights away where Linux does.
    pub(super) fn set_attr(&self, ino: Ino, by: Changer, set: &mut SetAttr) -> Result<Attr> {
        set.mode = set.mode.map(permissions);
        if set.mode.is_none() && loans::end_with(set, by) {
            set.mode = loans::without(&self.core.attr(ino)?, by);
        }
        self.core.set_attr(ino, set)
    }

    /// Sets an extended attribute. One that is to be both new and there already never is: what it
    /// fails by is what the local filesystems see first.
    pub(super) fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        const BOTH: XattrFlags = XattrFlags::CREATE.union(XattrFlags::REPLACE);
        let how = match XattrFlags::from_bits(flags) {
            Some(XattrFlags::CREATE) => SetXattr::Create,
            Some(XattrFlags::REPLACE) => SetXattr::Replace,
            Some(BOTH) => {
                self.core.xattr(ino, name)?;
                SetXattr::Create
            }
            Some(flags) if flags.is_empty() => SetXattr::Any,
            _ => return Err(Posix::Invalid.into()),
        };
        self.core.set_xattr(ino, name, value, how)
    }

    pub(super) fn write(
        &self,
        ino: Ino,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        by: Changer,
    ) -> Result<u32> {
        if flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID)
            && let Some(mode) = loans::without(&self.core.attr(ino)?, by)
        {
            self.core.set_attr(ino, &SetAttr { mode: Some(mode), ..SetAttr::default() })?;
            self.kernel.forget_attr(ino);
        }
        let written = match flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
            true => self.core.write_back(ino, offset, data)?,
            false => self.core.write(ino, offset, data)?,
        };
        Ok(u32::try_from(written).expect("a write is no longer than the request that brought it"))
    }
}

/// Runs a handler; if it panics, the reply it held is dropped, which answers EIO.
fn guard(op: &'static str, handler: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(handler)).is_err() {
        tracing::error!(op, "a handler panicked; its caller got an I/O error");
    }
}
