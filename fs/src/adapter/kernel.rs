//! What the program tells the kernel unasked: forget this name, write back and drop these pages.
//!
//! Such a message may wait in the kernel for a request that only we can answer. So none is sent
//! while a lock of the core is held, nor from a thread of the request loop that others rely on;
//! changes that the core announces go through a queue to a thread of their own.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};

use fuser::{InitFlags, KernelConfig, Notifier};
use rdrivefs_sync::id::Ino;

use super::convert::node;
use super::core::words::Change;

/// The most the kernel sends in one WRITE: its own limit for a request without privileges.
const WRITE_BYTES_MAX: u32 = 1 << 20;
/// Read-ahead and write-back requests under way. Those that wait for a remote count among them, and
/// beyond it the kernel sends none of anybody's. It grants less to a daemon that is not root's on a
/// computer with little memory: 330 or so for each GiB.
const BACKGROUND_MAX: u16 = 4096;
/// What the kernel is asked for, where it has it. Not ATOMIC_O_TRUNC: a truncation is a SETATTR.
/// Not POSIX_LOCKS and FLOCK_LOCKS: the kernel keeps locks itself. HANDLE_KILLPRIV_V2 saves an
/// xattr request per write.
const WANTED: [InitFlags; 14] = [
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_BIG_WRITES,
    InitFlags::FUSE_MAX_PAGES,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_WRITEBACK_CACHE,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_EXPORT_SUPPORT,
];
/// Announced changes that may wait for the kernel before the announcer does.
const CHANGES_MAX: usize = 1 << 14;

/// The way to the kernel, open while the mount is served.
#[derive(Default)]
pub struct Kernel(RwLock<Option<Notifier>>);

impl Kernel {
    /// Opens the way, once there is a session.
    pub fn connect(&self, notifier: Notifier) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(notifier);
    }

    /// Closes it: a descriptor kept open would let calls hang on a mount nobody serves any more.
    pub fn disconnect(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A function to announce changes to; threads pass them on until the function is dropped. The
    /// pages of a file may be locked for as long as a remote does not answer, so content does not
    /// go in one queue with the rest.
    pub fn listener(self: &Arc<Self>) -> std::io::Result<impl Fn(Change) + Send + Sync + use<>> {
        let (content, names) = (self.queue("fuse-content")?, self.queue("fuse-names")?);
        // Nobody listens only after the thread has died, and then the mount is ending.
        Ok(move |change| match change {
            Change::Inode { .. } => drop(content.send(change)),
            Change::Entry { .. } | Change::Attributes { .. } => drop(names.send(change)),
        })
    }

    fn queue(self: &Arc<Self>, name: &str) -> std::io::Result<SyncSender<Change>> {
        let (sender, receiver): (SyncSender<Change>, Receiver<Change>) = sync_channel(CHANGES_MAX);
        let kernel = Arc::clone(self);
        std::thread::Builder::new().name(name.into()).spawn(move || {
            for change in receiver {
                kernel.invalidate(&change);
            }
        })?;
        Ok(sender)
    }

    /// Has the kernel write back what it holds dirty of a file, wait for that, and drop its pages.
    pub(super) fn call_in(&self, ino: Ino) {
        self.notify("flush", |notifier| notifier.inval_inode(node(ino), 0, 0));
    }

    /// Has the kernel ask for a file's attributes anew; takes no lock there and waits for nothing.
    pub(super) fn forget_attr(&self, ino: Ino) {
        self.notify("attributes", |notifier| notifier.inval_inode(node(ino), -1, 0));
    }

    fn invalidate(&self, change: &Change) {
        match change {
            Change::Entry { parent, name } => {
                let name = OsStr::from_bytes(name);
                self.notify("entry", |notifier| notifier.inval_entry(node(*parent), name));
                // The listing, which the kernel keeps in the directory's pages.
                self.notify("listing", |notifier| notifier.inval_inode(node(*parent), 0, 0));
            }
            Change::Inode { ino } => self.call_in(*ino),
            Change::Attributes { ino } => self.forget_attr(*ino),
        }
    }

    fn notify(&self, what: &str, send: impl FnOnce(&Notifier) -> std::io::Result<()>) {
        let notifier = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(notifier) = notifier
            && let Err(error) = send(&notifier)
        {
            tracing::debug!(what, %error, "the kernel did not take an invalidation");
        }
    }
}

/// Agrees with the kernel on what the adapter needs.
pub(super) fn negotiate(config: &mut KernelConfig) -> std::io::Result<()> {
    for flag in WANTED {
        if config.add_capabilities(flag).is_err() {
            tracing::info!(?flag, "this kernel does not offer it");
        }
    }
    let write = config.set_max_write(WRITE_BYTES_MAX).map(drop);
    let background = config.set_max_background(BACKGROUND_MAX).map(drop).map_err(u32::from);
    write.and(background).map_err(|nearest| {
        std::io::Error::other(format!("the kernel's interface allows {nearest} at the nearest"))
    })
}
