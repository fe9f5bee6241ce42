//! The tree of a drive as a core: the same calls under the same names.

use rdrivefs_sync::Result;
use rdrivefs_sync::drive::Drive;
use rdrivefs_sync::error::Posix;
use rdrivefs_sync::id::Ino;
use rdrivefs_sync::report::FileState;
use rdrivefs_sync::tree::Tree;

use super::core::Core;
use super::core::words::{
    Attr, Caller, Change, Entry, Kind, Name, Rename, SeekTo, SetAttr, SetXattr, Statfs,
};

/// Whatever has a tree.
pub trait Rooted: Send + Sync + 'static {
    /// The tree.
    fn tree(&self) -> &Tree;
    /// A call came in: see [`Core::called`].
    fn called(&self) {}
    /// How far the content of a file has come: see [`Core::state`].
    ///
    /// # Errors
    /// [`Posix::NoData`] where nobody knows.
    fn state(&self, ino: Ino) -> Result<FileState>;
}

impl Rooted for Drive {
    fn tree(&self) -> &Tree {
        Self::tree(self)
    }

    fn called(&self) {
        self.foreground().called();
    }

    fn state(&self, ino: Ino) -> Result<FileState> {
        self.state_of(ino)
    }
}

impl Rooted for Tree {
    fn tree(&self) -> &Tree {
        self
    }

    fn state(&self, _: Ino) -> Result<FileState> {
        Err(Posix::NoData.into())
    }
}

impl<T: Rooted> Core for T {
    fn called(&self) {
        Rooted::called(self);
    }

    fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr> {
        self.tree().lookup(parent, name)
    }

    fn lookup_told(&self, parent: Ino, name: &[u8]) -> Result<Attr> {
        self.tree().lookup_told(parent, name)
    }

    fn parent(&self, dir: Ino) -> Result<Ino> {
        self.tree().parent(dir)
    }

    fn attr(&self, ino: Ino) -> Result<Attr> {
        self.tree().attr(ino)
    }

    fn set_attr(&self, ino: Ino, set: &SetAttr) -> Result<Attr> {
        self.tree().set_attr(ino, set)
    }

    fn create(&self, caller: &Caller, parent: Ino, name: &[u8], mode: u32) -> Result<Attr> {
        self.tree().create(caller, parent, name, mode)
    }

    fn make_directory(&self, caller: &Caller, parent: Ino, name: &[u8], mode: u32) -> Result<Attr> {
        self.tree().make_directory(caller, parent, name, mode)
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
        self.tree().make_node(caller, parent, name, kind, mode, rdev)
    }

    fn symlink(&self, caller: &Caller, parent: Ino, name: &[u8], target: &[u8]) -> Result<Attr> {
        self.tree().symlink(caller, parent, name, target)
    }

    fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr> {
        self.tree().link(ino, parent, name)
    }

    fn read_link(&self, ino: Ino) -> Result<Vec<u8>> {
        self.tree().read_link(ino)
    }

    fn unlink(&self, parent: Ino, name: &[u8]) -> Result<()> {
        self.tree().unlink(parent, name)
    }

    fn remove_directory(&self, parent: Ino, name: &[u8]) -> Result<()> {
        self.tree().remove_directory(parent, name)
    }

    fn rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), how: Rename) -> Result<()> {
        self.tree().rename(from, to, how)
    }

    fn list(&self, dir: Ino, after: u64, limit: usize) -> Result<Vec<Entry>> {
        self.tree().list(dir, after, limit)
    }

    fn list_names(&self, dir: Ino, after: u64, limit: usize) -> Result<Vec<Name>> {
        self.tree().list_names(dir, after, limit)
    }

    fn has_at_most(&self, dir: Ino, count: usize) -> Result<bool> {
        self.tree().has_at_most(dir, count)
    }

    fn remember(&self, ino: Ino, count: u64) {
        self.tree().remember(ino, count)
    }

    fn forget(&self, ino: Ino, count: u64) {
        self.tree().forget(ino, count)
    }

    fn is_here(&self, ino: Ino, offset: u64, len: u32) -> bool {
        self.tree().is_here(ino, offset, len)
    }

    fn read(&self, ino: Ino, offset: u64, len: u32) -> Result<Vec<u8>> {
        self.tree().read(ino, offset, len)
    }

    fn write(&self, ino: Ino, offset: u64, data: &[u8]) -> Result<usize> {
        self.tree().write(ino, offset, data)
    }

    fn write_back(&self, ino: Ino, offset: u64, data: &[u8]) -> Result<usize> {
        self.tree().write_back(ino, offset, data)
    }

    fn allocate(&self, ino: Ino, mode: u32, offset: u64, len: u64) -> Result<()> {
        self.tree().allocate_back(ino, mode, offset, len)
    }

    fn seek(&self, ino: Ino, offset: u64, to: SeekTo) -> Result<u64> {
        self.tree().seek(ino, offset, to)
    }

    fn copy_range(&self, from: (Ino, u64), to: (Ino, u64), len: u64) -> Result<u64> {
        self.tree().copy_range_back(from, to, len)
    }

    fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        self.tree().xattr(ino, name)
    }

    fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], how: SetXattr) -> Result<()> {
        self.tree().set_xattr(ino, name, value, how)
    }

    fn xattrs(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        self.tree().xattrs(ino)
    }

    fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        self.tree().remove_xattr(ino, name)
    }

    fn state(&self, ino: Ino) -> Result<FileState> {
        Rooted::state(self, ino)
    }

    fn sync(&self, ino: Ino) -> Result<()> {
        self.tree().sync(ino)
    }

    fn sync_directory(&self, dir: Ino) -> Result<()> {
        self.tree().sync_directory(dir)
    }

    fn statfs(&self) -> Result<Statfs> {
        self.tree().statfs()
    }

    fn on_change(&self, heard: Box<dyn Fn(Change) + Send + Sync>) {
        self.tree().on_change(heard)
    }
}
