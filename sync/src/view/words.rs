//! What a view shows, in words.

use std::collections::BTreeMap;

use crate::id::{FileId, LinkId, VersionId};
use crate::record::{Content, Kind, Stamp, TimeNs};

/// What a name in a directory leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The link that stands there; also the order of a listing.
    pub link: LinkId,
    /// The file.
    pub file: FileId,
    /// What it is.
    pub kind: Kind,
    /// Why the name is what it is.
    pub named: Named,
}

/// Why a name is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// A record says so.
    Plainly,
    /// Another has the name that a record gives it: `name (conflict, DEVICE, DATE)`.
    Beside,
    /// It cannot be where a record puts it, and is in the root: `name (moved, DEVICE)`. Another
    /// may have that name in its turn.
    Moved,
    /// It is an untouched copy of a version that lost, beside the file it is of.
    Copy {
        /// The file.
        of: FileId,
    },
}

/// A file as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// What it is.
    pub kind: Kind,
    /// The number of a device file, else zero.
    pub rdev: u32,
    /// Where a symlink leads, else empty.
    pub target: Vec<u8>,
    /// When it was made.
    pub born: TimeNs,
    /// Permission bits; none where nobody told any.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last change of content.
    pub mtime: Option<TimeNs>,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The version that is its content; none of what has no content, and of files nobody wrote to.
    pub version: Option<Version>,
    /// Versions that nobody wrote over, the one shown among them.
    pub heads: Vec<VersionId>,
    /// Names it has; of a directory, two and the directories in it.
    pub nlink: u32,
}

/// A version of a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its id.
    pub id: VersionId,
    /// When and by whom it was told.
    pub stamp: Stamp,
    /// Bytes.
    pub size: u64,
    /// When it was made.
    pub mtime: TimeNs,
    /// Its bytes.
    pub content: Content,
}
