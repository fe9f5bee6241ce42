//! The tree of a drive as a core: the same calls under the same names.

use rdrivefs_sync::Result;
use rdrivefs_sync::id::Ino;
use rdrivefs_sync::tree::Tree;

use super::core::Core;
use super::core::words::{
    Attr, Caller, Change, Entry, Kind, Name, Rename, SeekTo, SetAttr, SetXattr, Statfs,
};

impl Core for Tree {
    fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr> {
        Self::lookup(self, parent, name)
    }

    fn lookup_told(&self, parent: Ino, name: &[u8]) -> Result<Attr> {
        Self::lookup_told(self, parent, name)
    }

    fn parent(&self, dir: Ino) -> Result<Ino> {
        Self::parent(self, dir)
    }

    fn attr(&self, ino: Ino) -> Result<Attr> {
        Self::attr(self, ino)
    }

    fn set_attr(&self, ino: Ino, set: &SetAttr) -> Result<Attr> {
        Self::set_attr(self, ino, set)
    }

    fn create(&self, caller: &Caller, parent: Ino, name: &[u8], mode: u32) -> Result<Attr> {
        Self::create(self, caller, parent, name, mode)
    }

    fn make_directory(&self, caller: &Caller, parent: Ino, name: &[u8], mode: u32) -> Result<Attr> {
        Self::make_directory(self, caller, parent, name, mode)
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
        Self::make_node(self, caller, parent, name, kind, mode, rdev)
    }

    fn symlink(&self, caller: &Caller, parent: Ino, name: &[u8], target: &[u8]) -> Result<Attr> {
        Self::symlink(self, caller, parent, name, target)
    }

    fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr> {
        Self::link(self, ino, parent, name)
    }

    fn read_link(&self, ino: Ino) -> Result<Vec<u8>> {
        Self::read_link(self, ino)
    }

    fn unlink(&self, parent: Ino, name: &[u8]) -> Result<()> {
        Self::unlink(self, parent, name)
    }

    fn remove_directory(&self, parent: Ino, name: &[u8]) -> Result<()> {
        Self::remove_directory(self, parent, name)
    }

    fn rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), how: Rename) -> Result<()> {
        Self::rename(self, from, to, how)
    }

    fn list(&self, dir: Ino, after: u64, limit: usize) -> Result<Vec<Entry>> {
        Self::list(self, dir, after, limit)
    }

    fn list_names(&self, dir: Ino, after: u64, limit: usize) -> Result<Vec<Name>> {
        Self::list_names(self, dir, after, limit)
    }

    fn has_at_most(&self, dir: Ino, count: usize) -> Result<bool> {
        Self::has_at_most(self, dir, count)
    }

    fn remember(&self, ino: Ino, count: u64) {
        Self::remember(self, ino, count)
    }

    fn forget(&self, ino: Ino, count: u64) {
        Self::forget(self, ino, count)
    }

    fn read(&self, ino: Ino, offset: u64, len: u32) -> Result<Vec<u8>> {
        Self::read(self, ino, offset, len)
    }

    fn write(&self, ino: Ino, offset: u64, data: &[u8]) -> Result<usize> {
        Self::write(self, ino, offset, data)
    }

    fn write_back(&self, ino: Ino, offset: u64, data: &[u8]) -> Result<usize> {
        Self::write_back(self, ino, offset, data)
    }

    fn allocate(&self, ino: Ino, mode: u32, offset: u64, len: u64) -> Result<()> {
        Self::allocate_back(self, ino, mode, offset, len)
    }

    fn seek(&self, ino: Ino, offset: u64, to: SeekTo) -> Result<u64> {
        Self::seek(self, ino, offset, to)
    }

    fn copy_range(&self, from: (Ino, u64), to: (Ino, u64), len: u64) -> Result<u64> {
        Self::copy_range_back(self, from, to, len)
    }

    fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        Self::xattr(self, ino, name)
    }

    fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], how: SetXattr) -> Result<()> {
        Self::set_xattr(self, ino, name, value, how)
    }

    fn xattrs(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        Self::xattrs(self, ino)
    }

    fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        Self::remove_xattr(self, ino, name)
    }

    fn sync(&self, ino: Ino) -> Result<()> {
        Self::sync(self, ino)
    }

    fn sync_directory(&self, dir: Ino) -> Result<()> {
        Self::sync_directory(self, dir)
    }

    fn statfs(&self) -> Result<Statfs> {
        Self::statfs(self)
    }

    fn on_change(&self, heard: Box<dyn Fn(Change) + Send + Sync>) {
        Self::on_change(self, heard)
    }
}
