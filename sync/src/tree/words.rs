//! The words of filesystem calls: what they take and what they tell.

use crate::id::Ino;
pub use crate::record::{Kind, TimeNs};

/// What `stat` tells of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the POSIX thing of that name")]
pub struct Attr {
    pub ino: Ino,
    pub kind: Kind,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub size: u64,
    pub blocks: u64,
    pub atime: TimeNs,
    pub mtime: TimeNs,
    pub ctime: TimeNs,
    pub crtime: TimeNs,
    pub generation: u64,
}

/// Who asks for a new inode.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "each is the POSIX thing of that name")]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    pub umask: u32,
}

/// The attributes to change.
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs, reason = "each is the POSIX thing of that name")]
pub struct SetAttr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<TimeNs>,
    pub mtime: Option<TimeNs>,
    pub ctime: Option<TimeNs>,
    pub crtime: Option<TimeNs>,
}

/// What a rename does with the name it meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the POSIX thing of that name")]
pub enum Rename {
    Replace,
    NoReplace,
    Exchange,
}

/// What a seek looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the POSIX thing of that name")]
pub enum SeekTo {
    Data,
    Hole,
}

/// What setting an extended attribute asks of the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the POSIX thing of that name")]
pub enum SetXattr {
    Create,
    Replace,
    Any,
}

/// One name of a directory, and what it leads to.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "each is the POSIX thing of that name")]
pub struct Name {
    pub cookie: u64,
    pub name: Vec<u8>,
    pub ino: Ino,
    pub kind: Kind,
}

/// One name of a directory, with all attributes.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "each is the POSIX thing of that name")]
pub struct Entry {
    pub cookie: u64,
    pub name: Vec<u8>,
    pub attr: Attr,
}

/// What `statfs` tells.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "each is the POSIX thing of that name")]
pub struct Statfs {
    pub blocks: u64,
    pub bfree: u64,
    pub bavail: u64,
    pub files: u64,
    pub ffree: u64,
    pub bsize: u32,
    pub namelen: u32,
}

/// What changed behind the kernel's back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is the POSIX thing of that name")]
pub enum Change {
    Entry { parent: Ino, name: Vec<u8> },
    Inode { ino: Ino },
    Attributes { ino: Ino },
}
