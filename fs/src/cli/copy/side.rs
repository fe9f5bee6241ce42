//! One side of a copy: this computer's files, or the tree of a drive that is not mounted.

use std::ffi::OsString;
use std::path::Path;

use rdrivefs_sync::tree::words::{Kind, TimeNs};

use crate::failure::{Exit, Failure, Result};

/// Bytes moved in one go.
pub(super) const STEP_BYTES: usize = 1 << 20;

/// What a copy keeps of a file beside its content.
#[derive(Debug, Clone)]
pub(super) struct Meta {
    pub(super) kind: Kind,
    /// Permission bits, set-id and sticky bits among them.
    pub(super) mode: u32,
    pub(super) size: u64,
    pub(super) mtime: TimeNs,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// What tells that two names are one file, where it has more than one.
    pub(super) links: Option<(u64, u64)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A file that is being written.
pub(super) trait Sink {
    /// Adds bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
    /// Adds a hole.
    fn skip(&mut self, len: u64) -> Result<()>;
    /// The file is whole; with `durable` it is also on disk.
    fn finish(&mut self, durable: bool) -> Result<()>;
}

/// What takes bytes as they are read.
pub(super) type Taking<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

/// Files, wherever they are. Every failure names its path; no call follows a symlink at the end of
/// a path but [`Side::is_folder`] and [`Side::read`].
pub(super) trait Side {
    /// What lies at a path, if anything does.
    fn meta(&self, path: &Path) -> Result<Option<Meta>>;
    /// Whether something can be put into it.
    fn is_folder(&self, path: &Path) -> bool;
    /// The names in a folder.
    fn names(&self, folder: &Path) -> Result<Vec<OsString>>;
    /// Where a symlink points.
    fn target(&self, link: &Path) -> Result<OsString>;
    /// The content of a file, a step at a time.
    fn read(&self, path: &Path, take: Taking<'_>) -> Result<()>;
    /// A new file, for its owner alone.
    fn create(&self, path: &Path) -> Result<Box<dyn Sink + '_>>;
    /// A new folder, for its owner alone.
    fn make_folder(&self, path: &Path) -> Result<()>;
    /// A new symlink.
    fn make_symlink(&self, target: &OsString, path: &Path) -> Result<()>;
    /// A second name for a file.
    fn link(&self, file: &Path, path: &Path) -> Result<()>;
    /// Gives mode, times and attributes, and the owner where that is allowed.
    fn dress(&self, path: &Path, meta: &Meta) -> Result<()>;
    /// Renames over what may be there.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Removes a file, or an empty folder.
    fn remove(&self, path: &Path, folder: bool) -> Result<()>;
}

/// What lies at a path; nothing is a failure.
pub(super) fn existing(side: &dyn Side, path: &Path) -> Result<Meta> {
    side.meta(path)?.ok_or_else(|| {
        Failure::new(Exit::Failed, format!("{}: no such file or directory", path.display()))
    })
}

/// Extended attributes that mean the same elsewhere: a person's own and access lists.
pub(super) fn is_kept(xattr: &[u8]) -> bool {
    xattr.starts_with(b"user.") || xattr.starts_with(b"system.posix_acl_")
}
