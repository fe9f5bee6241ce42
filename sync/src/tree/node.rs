//! A file as the tree holds it: its row, and what is known of it in memory alone.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use minicbor::{Decode, Encode};
use rdrivefs_remote::env::Instant;

use crate::error::{Error, Result};
use crate::id::{Ino, VersionId};
use crate::journal::Position;
use crate::record::{INLINE_BYTES_MAX, Kind, Stamp, TimeNs};
use crate::tree::extents::Extents;
use crate::tree::unsettled::Place;
use crate::tree::words::Attr;

/// A register of a file; each is merged by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Field {
    /// Permission bits.
    Mode,
    /// Owner.
    Uid,
    /// Group.
    Gid,
    /// Last change of content.
    Mtime,
    /// The content itself.
    Content,
    /// That the file exists.
    File,
}

/// How many registers have a stamp of their own: those before [`Field::Content`].
const STAMPS: usize = 4;

/// What the index keeps of a file.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Row {
    /// What it is.
    #[n(0)]
    pub kind: Kind,
    /// Permission bits, `0o7777` at most.
    #[n(1)]
    pub mode: u32,
    /// Owner.
    #[n(2)]
    pub uid: u32,
    /// Group.
    #[n(3)]
    pub gid: u32,
    /// Names it has; of a directory, 2 and its subdirectories.
    #[n(4)]
    pub nlink: u32,
    /// Its names.
    #[n(19)]
    pub links: Vec<u64>,
    /// Device number of a device file.
    #[n(5)]
    pub rdev: u32,
    /// Bytes.
    #[n(6)]
    pub size: u64,
    /// Last reading.
    #[n(7)]
    pub atime: TimeNs,
    /// Last change of content.
    #[n(8)]
    pub mtime: TimeNs,
    /// Last change of anything.
    #[n(9)]
    pub ctime: TimeNs,
    /// When it was made.
    #[n(10)]
    pub crtime: TimeNs,
    /// The directory a directory is in.
    #[n(11)]
    pub parent: u64,
    /// Where a symlink leads.
    #[cbor(n(12), with = "minicbor::bytes")]
    pub target: Vec<u8>,
    /// Where its bytes lie.
    #[n(13)]
    pub extents: Extents,
    /// Registers changed here and not published, one bit a [`Field`].
    #[n(14)]
    pub changed: u8,
    /// When and by whom each register was set, as published.
    #[n(15)]
    pub stamps: [Stamp; STAMPS],
    /// The newest versions of its content.
    #[n(16)]
    pub heads: Vec<u64>,
    /// The stamp of the newest version.
    #[n(17)]
    pub version: Stamp,
    /// Whether its content stays on this computer.
    #[n(18)]
    pub pinned: bool,
    /// Losing heads of which untouched copies stand beside it.
    #[n(20)]
    #[cbor(default)]
    pub others: Vec<u64>,
    /// Names it had or is to have, and has not.
    #[n(21)]
    #[cbor(default)]
    pub hidden: Vec<u64>,
    /// It is gone, and known still, so that a concurrent change can bring it back.
    #[n(22)]
    #[cbor(default)]
    pub grave: bool,
    /// What its head holds, while it is being written over.
    #[n(23)]
    pub(super) told: Option<Told>,
    /// The content to be told is the version that is its head.
    #[n(24)]
    #[cbor(default)]
    pub again: bool,
    /// What was pulled took its names, of which this is one.
    #[n(25)]
    pub(super) cut: Option<Place>,
    /// It is an untouched copy of a version of this file.
    #[n(26)]
    pub copy: Option<u64>,
    /// The time of its head, of which its own may differ.
    #[n(27)]
    pub(super) written: Option<TimeNs>,
}

/// The content of a version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Told {
    #[n(0)]
    size: u64,
    #[n(1)]
    extents: Extents,
    #[n(2)]
    mtime: Option<TimeNs>,
    /// If it came while the other was written over: which it is, and when it was told. What is
    /// written has the bases it was begun with.
    #[n(3)]
    head: Option<(u64, Stamp)>,
}

/// A file in memory. Lock: the state alone; taken after the gate and the names, before the index.
pub struct Node {
    /// Its inode.
    pub ino: Ino,
    state: RwLock<State>,
}

/// What is behind a node's lock.
#[derive(Debug)]
pub struct State {
    /// The row; newer than the index while `dirty`.
    pub row: Row,
    /// The index does not have this row yet.
    pub dirty: bool,
    /// The index has a row of it, older or not.
    pub stored: bool,
    /// The index says that content is staged.
    pub marked_staged: bool,
    /// It lost its last name.
    pub orphan: bool,
    /// The index says so.
    pub marked_orphan: bool,
    /// The last record about it.
    pub position: Position,
    /// When its oldest unsealed byte came.
    pub dirty_since: Option<Instant>,
    /// When its content last changed.
    pub written: Instant,
    /// When some of it was last sealed.
    pub sealed: Option<Instant>,
    /// It was removed, and nothing must be written any more.
    pub gone: bool,
}

impl Row {
    /// A new file.
    pub fn new(kind: Kind, mode: u32, uid: u32, gid: u32, now: TimeNs) -> Self {
        let stamp = Stamp { lamport: 0, device: crate::id::DeviceNumber(0) };
        Self {
            kind,
            mode,
            uid,
            gid,
            nlink: if kind == Kind::Directory { 2 } else { 0 },
            links: Vec::new(),
            rdev: 0,
            size: 0,
            atime: now,
            mtime: now,
            ctime: now,
            crtime: now,
            parent: 0,
            target: Vec::new(),
            extents: Extents::default(),
            changed: 0,
            stamps: [stamp; STAMPS],
            heads: Vec::new(),
            version: stamp,
            pinned: false,
            others: Vec::new(),
            hidden: Vec::new(),
            grave: false,
            told: None,
            again: false,
            cut: None,
            copy: None,
            written: None,
        }
    }

    /// Notes that a register was changed here.
    pub fn touch(&mut self, field: Field) {
        self.changed |= 1 << field as u8;
    }

    /// Whether a register was changed here and not published.
    pub fn is_changed(&self, field: Field) -> bool {
        self.changed >> field as u8 & 1 == 1
    }

    /// Bytes that are in no layer and too many for the row.
    pub fn unsealed(&self) -> u64 {
        let inline = if self.size > INLINE_BYTES_MAX as u64 { self.extents.inline() } else { 0 };
        self.extents.staged() + inline
    }

    /// Another name leads here.
    pub fn linked(&mut self, link: u64) {
        self.cut = None;
        self.hidden.retain(|known| *known != link);
        self.links.push(link);
        if self.kind != Kind::Directory {
            self.nlink = u32::try_from(self.links.len()).expect("names are bounded");
        }
    }

    /// A name is gone. Of a directory the count says how many directories are in it, so it stays
    /// until it is clear that no name comes back: see [`Row::ended`].
    pub fn unlinked(&mut self, link: u64) {
        self.links.retain(|known| *known != link);
        if self.kind != Kind::Directory {
            self.nlink = u32::try_from(self.links.len()).expect("names are bounded");
        }
    }

    /// Without a name it is gone, a directory too.
    pub fn ended(&mut self) {
        if self.links.is_empty() {
            self.nlink = 0;
        }
    }

    /// Directories came into a directory, or left it.
    pub(super) fn count_subdirectories(&mut self, by: i64) {
        let count = i64::from(self.nlink) + by;
        // What lives is decided by names, so a wrong count would be seen and do no more harm.
        debug_assert!(count >= 2, "a directory counts those in it: {count}");
        self.nlink = u32::try_from(count).unwrap_or_default().max(2);
    }

    /// Whether somebody wrote to it after what was pulled had taken its names.
    pub(super) fn is_cut_and_written(&self) -> bool {
        self.cut.is_some() && self.links.is_empty() && self.is_written()
    }

    /// Whether another inode has the names it had.
    pub(super) fn is_replaced(&self) -> bool {
        self.cut.is_some() && self.links.is_empty() && self.hidden.is_empty()
    }

    /// What is left of it when it is gone: what a concurrent change needs to bring it back. What
    /// was changed here and not told is told then.
    pub(super) fn bury(&mut self) {
        self.unwrite();
        (self.grave, self.nlink, self.pinned, self.cut) = (true, 0, false, None);
    }

    /// Nobody knows what was written since its head, and nobody will: it is its head again.
    pub(super) fn unwrite(&mut self) {
        if self.is_written() {
            let Told { size, extents, mtime, head } = self.told.take().unwrap_or_default();
            (self.size, self.extents) = (size, extents);
            if !self.is_changed(Field::Mtime) {
                self.mtime = mtime.unwrap_or(self.mtime);
            }
            if let Some((head, stamp)) = head {
                (self.heads, self.version) = (vec![head], stamp);
            }
            self.changed &= !(1 << Field::Content as u8);
        }
    }

    /// The version that others have as its content, and when it was told.
    pub(super) fn told_head(&self) -> Option<(VersionId, Stamp)> {
        let head = self.told.as_ref().and_then(|told| told.head);
        let head = head.or_else(|| Some((*self.heads.first()?, self.version)));
        head.map(|(id, stamp)| (VersionId(id), stamp))
    }

    /// Its content is being written, and elsewhere it became another.
    pub(super) fn told_otherwise(
        &mut self,
        id: VersionId,
        stamp: Stamp,
        size: u64,
        mtime: TimeNs,
        extents: Extents,
    ) {
        let head = Some((id.0, stamp));
        self.told = Some(Told { size, extents, mtime: Some(mtime), head });
    }

    /// The newest versions of its content.
    pub fn heads(&self) -> Vec<VersionId> {
        self.heads.iter().map(|id| VersionId(*id)).collect()
    }

    /// The same, and those of which copies stand beside it.
    pub(super) fn all_heads(&self) -> impl Iterator<Item = VersionId> + '_ {
        self.heads.iter().chain(&self.others).map(|id| VersionId(*id))
    }

    /// Its content is about to be changed.
    pub(super) fn write_over(&mut self) {
        if !self.is_written() && !self.heads.is_empty() {
            let (size, extents, mtime) = (self.size, self.extents.clone(), Some(self.mtime));
            self.told = Some(Told { size, extents, mtime, head: None });
        }
    }

    /// Whether its content was changed here since its head, or instead of it.
    pub(super) fn is_written(&self) -> bool {
        self.is_changed(Field::Content) && !self.again
    }

    /// What `stat` tells.
    pub fn attr(&self, ino: Ino) -> Attr {
        let size = match self.kind {
            Kind::Symlink => self.target.len() as u64,
            Kind::Directory => DIRECTORY_BYTES,
            _ => self.size,
        };
        Attr {
            ino,
            kind: self.kind,
            mode: self.mode,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: self.rdev,
            size,
            blocks: self.extents.stored().div_ceil(BLOCK_BYTES) * (BLOCK_BYTES / 512),
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            crtime: self.crtime,
            generation: 0,
        }
    }

    /// The bytes for the index.
    pub fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("memory takes every write")
    }

    /// A row from the index.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the inode.
    pub fn decode(ino: Ino, bytes: &[u8]) -> Result<Self> {
        minicbor::decode(bytes).map_err(|e| Error::corrupt(format!("the row of {ino:?}"), e))
    }
}

/// What a directory claims to take, as ext4 does.
const DIRECTORY_BYTES: u64 = 4096;

/// The unit in which used space is told.
const BLOCK_BYTES: u64 = 4096;

impl State {
    /// Notes whether a file that had a name has none any more.
    pub(super) fn orphan_if_nameless(&mut self) {
        self.orphan = self.row.links.is_empty();
    }

    /// Notes what the index says of it now.
    pub(super) fn marked_orphan(&mut self, orphan: bool) {
        (self.orphan, self.marked_orphan) = (orphan, orphan);
    }
}

impl Node {
    /// A node with this row.
    pub fn new(ino: Ino, row: Row, dirty: bool, now: Instant) -> Self {
        let staged = row.unsealed() > 0;
        let state = State {
            row,
            dirty,
            stored: !dirty,
            marked_staged: staged && !dirty,
            orphan: false,
            marked_orphan: false,
            position: Position(0),
            dirty_since: staged.then_some(now),
            written: now,
            sealed: None,
            gone: false,
        };
        Self { ino, state: RwLock::new(state) }
    }

    /// Whether it must stay in memory: the index does not have it as it is.
    pub(super) fn is_held(&self) -> bool {
        self.read().dirty
    }

    /// Looks at it.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes it.
    pub fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}
