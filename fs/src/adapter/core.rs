//! What the adapter asks of a filesystem.
//!
//! The tree of a drive answers it; so does the filesystem in memory that tests and benches mount to
//! see the adapter alone. Every call blocks until it is answered, from any thread, holding no lock
//! of the caller's.

use rdrivefs_sync::Result;
use rdrivefs_sync::error::Posix;
use rdrivefs_sync::id::Ino;
use rdrivefs_sync::report::FileState;

/// The words between adapter and core, which are the tree's.
pub use rdrivefs_sync::tree::words;

use words::{Attr, Caller, Change, Entry, Kind, Name, Rename, SeekTo, SetAttr, SetXattr, Statfs};

/// A filesystem as the adapter needs it.
///
/// A name is 1 to 255 bytes without `/` and NUL. Inodes come from [`Attr::ino`]; the kernel's
/// references are counted by [`remember`](Self::remember) and [`forget`](Self::forget), and a file
/// without names lives until they are gone; who has it open has one, so opens are not told.
#[allow(missing_docs, reason = "each is the system call of its name")]
pub trait Core: Send + Sync + 'static {
    /// A call came in: whatever nobody waits for may make room.
    fn called(&self) {}
    fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr>;
    /// As `lookup`, for the kernel: the inode it leads to is remembered before it is looked at.
    fn lookup_told(&self, parent: Ino, name: &[u8]) -> Result<Attr> {
        self.attr_told(self.lookup(parent, name)?.ino)
    }
    /// As `attr`, for the kernel, which is told of the inode.
    fn attr_told(&self, ino: Ino) -> Result<Attr> {
        self.remember(ino, 1);
        self.attr(ino).inspect_err(|_| self.forget(ino, 1))
    }
    /// The directory that holds `dir`; the root holds itself.
    fn parent(&self, dir: Ino) -> Result<Ino>;
    fn attr(&self, ino: Ino) -> Result<Attr>;
    fn set_attr(&self, ino: Ino, set: &SetAttr) -> Result<Attr>;
    fn create(&self, caller: &Caller, parent: Ino, name: &[u8], mode: u32) -> Result<Attr>;
    fn make_directory(&self, caller: &Caller, parent: Ino, name: &[u8], mode: u32) -> Result<Attr>;
    fn make_node(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        kind: Kind,
        mode: u32,
        rdev: u32,
    ) -> Result<Attr>;
    fn symlink(&self, caller: &Caller, parent: Ino, name: &[u8], target: &[u8]) -> Result<Attr>;
    fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr>;
    fn read_link(&self, ino: Ino) -> Result<Vec<u8>>;
    fn unlink(&self, parent: Ino, name: &[u8]) -> Result<()>;
    fn remove_directory(&self, parent: Ino, name: &[u8]) -> Result<()>;
    fn rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), how: Rename) -> Result<()>;
    /// At most `limit` entries behind the cookie `after`, in the order of their cookies; 0 begins.
    fn list(&self, dir: Ino, after: u64, limit: usize) -> Result<Vec<Entry>>;
    /// As `list`, without attributes.
    fn list_names(&self, dir: Ino, after: u64, limit: usize) -> Result<Vec<Name>>;
    /// Whether a directory has at most `count` names.
    fn has_at_most(&self, dir: Ino, count: usize) -> Result<bool>;
    /// The kernel was told of the inode `count` more times.
    fn remember(&self, ino: Ino, count: u64);
    /// The kernel gives `count` of its references back.
    fn forget(&self, ino: Ino, count: u64);
    /// Whether a read is sure to wait for nothing but this computer's disk. Asks no disk itself.
    fn is_here(&self, _: Ino, _: u64, _: u32) -> bool {
        true
    }
    /// At most `len` bytes; fewer only at the end of the file.
    fn read(&self, ino: Ino, offset: u64, len: u32) -> Result<Vec<u8>>;
    fn write(&self, ino: Ino, offset: u64, data: &[u8]) -> Result<usize>;
    /// As `write`, for pages the kernel held: it keeps the times, and tells them.
    fn write_back(&self, ino: Ino, offset: u64, data: &[u8]) -> Result<usize>;
    /// `fallocate`, with Linux' mode bits. The kernel keeps the times here and in `copy_range` too.
    fn allocate(&self, ino: Ino, mode: u32, offset: u64, len: u64) -> Result<()>;
    fn seek(&self, ino: Ino, offset: u64, to: SeekTo) -> Result<u64>;
    fn copy_range(&self, from: (Ino, u64), to: (Ino, u64), len: u64) -> Result<u64>;
    fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>>;
    fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], how: SetXattr) -> Result<()>;
    fn xattrs(&self, ino: Ino) -> Result<Vec<Vec<u8>>>;
    fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Result<()>;
    /// How far the content of a file has come; of a directory, what is furthest behind below it.
    fn state(&self, _: Ino) -> Result<FileState> {
        Err(Posix::NoData.into())
    }
    fn sync(&self, ino: Ino) -> Result<()>;
    fn sync_directory(&self, dir: Ino) -> Result<()>;
    fn statfs(&self) -> Result<Statfs>;
    /// Registers who hears of changes that did not come through these calls. It may be called
    /// while nothing is locked, and may wait for the kernel.
    fn on_change(&self, heard: Box<dyn Fn(Change) + Send + Sync>);
}
