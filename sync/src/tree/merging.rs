//! What merging needs from the tree: records of other devices, applied by the rules of registers.
//!
//! A register changed here and not published wins, since it will be published with a later stamp.
//! The records of a commit are taken in one by one and change what is known of files and links;
//! what stands where is found from that at the end, for all of them together: see `settling`.
//! Whatever members' records say is no error of this device's: what makes no sense has no effect.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, RwLockWriteGuard};

use crate::error::Result;
use crate::id::{FileId, Ino, LinkId, VersionId};
use crate::index::entries::EntryRow;
use crate::index::nodes::Pending;
use crate::record::{Kind, Stamp, TimeNs};
use crate::tree::core::Tree;
use crate::tree::extents::Extents;
use crate::tree::node::{Field, Node, Row};
use crate::tree::tomb::{Register, TombRow};
use crate::tree::unsettled::Place;
use crate::tree::words::Change;
use crate::tree::xattrs::XattrRow;

/// The tree held still while records are applied; the kernel hears of it at the end.
pub struct Merging<'a> {
    pub(super) tree: &'a Tree,
    _alone: RwLockWriteGuard<'a, ()>,
    pub(super) changes: Vec<Change>,
    finished: bool,
    /// The files this commit is about, graves among them.
    nodes: HashMap<FileId, Arc<Node>>,
    /// What is known of links that do not stand yet.
    pub(super) links: HashMap<LinkId, Register>,
    /// Files whose names must be looked at.
    pub(super) touched: BTreeSet<FileId>,
    /// Files that may have lost their last name, and which that was.
    pub(super) nameless: BTreeMap<FileId, Option<Place>>,
    /// Directories out of which something went.
    pub(super) emptied: BTreeSet<FileId>,
    /// Places about which something changed.
    pub(super) places: BTreeSet<Place>,
    /// Links that have their directory and not yet their name.
    pub(super) unshown: BTreeMap<LinkId, EntryRow>,
    /// Those of each directory.
    pub(super) coming: HashMap<Ino, BTreeSet<LinkId>>,
    /// Versions whose copies everybody must be told of, whatever becomes of their files.
    pub(super) copies_to_tell: Vec<VersionId>,
    /// Directories that came to stand: they may lie in themselves, or hold what they could not.
    pub(super) came: BTreeSet<FileId>,
    /// See [`Merging::outside`]; none while nobody asked.
    pub(super) outside: Option<BTreeMap<LinkId, FileId>>,
    /// Whether something lives in directories that tombstones are about, once all has come.
    pub(super) used: Option<HashMap<Ino, bool>>,
}

/// Attributes that a record sets.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last change of content.
    pub mtime: Option<TimeNs>,
}

/// A version of a file's content.
pub struct Version {
    /// Its id.
    pub id: VersionId,
    /// The versions it replaces.
    pub bases: Vec<VersionId>,
    /// Bytes.
    pub size: u64,
    /// When it was made.
    pub mtime: TimeNs,
    /// Where its bytes lie.
    pub extents: Extents,
}

impl Tree {
    /// Holds the tree still, everything written into the index.
    ///
    /// # Errors
    /// Of the index.
    pub fn merging(&self) -> Result<Merging<'_>> {
        let alone = self.alone();
        self.flush_alone()?;
        self.settle_touched()?;
        Ok(Merging {
            tree: self,
            _alone: alone,
            changes: Vec::new(),
            finished: false,
            nodes: HashMap::new(),
            links: HashMap::new(),
            touched: BTreeSet::new(),
            nameless: BTreeMap::new(),
            emptied: BTreeSet::new(),
            places: BTreeSet::new(),
            unshown: BTreeMap::new(),
            coming: HashMap::new(),
            copies_to_tell: Vec::new(),
            came: BTreeSet::new(),
            outside: None,
            used: None,
        })
    }
}

impl Merging<'_> {
    /// A file exists.
    ///
    /// # Errors
    /// Of the index.
    pub fn file(
        &mut self,
        file: FileId,
        kind: Kind,
        rdev: u32,
        target: &[u8],
        born: TimeNs,
    ) -> Result<()> {
        if let Some(node) = self.current(file)? {
            // Somebody touched a copy: from now on it is a file like any other.
            return self.touched_elsewhere(&node);
        }
        let mode = if kind == Kind::Directory { 0o700 } else { 0o600 };
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let mut row = Row::new(kind, mode, uid, gid, born);
        row.rdev = rdev;
        row.target = target.to_vec();
        let node = self.tree.adopt(Ino::first(file), row);
        self.nodes.insert(file, node);
        Ok(())
    }

    /// Attributes are set.
    ///
    /// # Errors
    /// Of the index.
    pub fn attributes(&mut self, file: FileId, set: &Attributes, stamp: Stamp) -> Result<()> {
        let Some(node) = self.current(file)? else { return Ok(()) };
        let mut state = node.write();
        let row = &mut state.row;
        let (mode, uid, gid, mtime) = (row.mode, row.uid, row.gid, row.mtime);
        // Of one time, which no honest device tells, the greater counts: everywhere the same.
        let mut wins = |field: Field, greater: bool| {
            let known = row.stamps[field as usize];
            let later = (stamp > known || stamp == known && greater) && !row.is_changed(field);
            if later {
                row.stamps[field as usize] = stamp;
            }
            later
        };
        let mode = set.mode.filter(|set| wins(Field::Mode, *set > mode));
        let uid = set.uid.filter(|set| wins(Field::Uid, *set > uid));
        let gid = set.gid.filter(|set| wins(Field::Gid, *set > gid));
        let mtime = set.mtime.filter(|set| wins(Field::Mtime, *set > mtime));
        row.mode = mode.unwrap_or(row.mode);
        row.uid = uid.unwrap_or(row.uid);
        row.gid = gid.unwrap_or(row.gid);
        row.mtime = mtime.unwrap_or(row.mtime);
        row.ctime = self.tree.now();
        self.tree.dirtied(&node, &mut state);
        drop(state);
        // Copies of it have its attributes.
        self.touched.insert(file);
        self.attributes_changed(&node)
    }

    /// An extended attribute is set or removed.
    ///
    /// # Errors
    /// Of the index.
    pub fn xattr(
        &mut self,
        file: FileId,
        name: &[u8],
        value: Option<&[u8]>,
        stamp: Stamp,
    ) -> Result<()> {
        let Some(node) = self.current(file)? else { return Ok(()) };
        let index = &self.tree.index;
        let hash = index.xattr_hash(node.ino, name);
        let old = index.xattr(node.ino, &hash)?.map(|row| XattrRow::decode(&row)).transpose()?;
        let beaten = old.is_some_and(|old| (old.stamp, old.value.as_deref()) >= (stamp, value));
        if beaten || index.is_pending(Pending::Xattr(node.ino, hash))? {
            return Ok(());
        }
        let row = XattrRow { name: name.to_vec(), value: value.map(<[u8]>::to_vec), stamp };
        index.set_xattr(node.ino, &hash, Some(&row.encode()))?;
        self.attributes_changed(&node)
    }

    /// A link stands in a place.
    ///
    /// # Errors
    /// Of the index.
    pub fn link(
        &mut self,
        link: LinkId,
        parent: FileId,
        name: &[u8],
        file: FileId,
        stamp: Stamp,
    ) -> Result<()> {
        let Some(child) = self.current(file)?.filter(|_| file != FileId::ROOT) else {
            return Ok(());
        };
        let known = self.register(link)?;
        let place = Place { parent: parent.0, name: name.to_vec() };
        let another = known.as_ref().is_some_and(|known| known.child != file.0);
        // Of one time, which no honest device tells, the greater counts: everywhere the same.
        let beaten = known.is_some_and(|known| (known.stamp, &known.place) >= (stamp, &place));
        if another || beaten {
            return Ok(());
        }
        if self.tree.index.is_pending(Pending::Link(link.0))? {
            return self.seen(link, stamp);
        }
        {
            let row = &child.read().row;
            let mut names = row.links.iter().chain(&row.hidden);
            if row.kind == Kind::Directory && names.any(|known| *known != link.0) {
                // A directory has one name for life.
                return Ok(());
            }
        }
        self.withdraw(link)?;
        self.links.insert(link, Register { place, child: file.0, stamp });
        self.hide(&child, link);
        self.touched.insert(file);
        Ok(())
    }

    /// A link that was moved here was moved elsewhere too: whoever removes it here has seen that.
    fn seen(&mut self, link: LinkId, stamp: Stamp) -> Result<()> {
        match self.entry(link)? {
            Some(entry) => self.tree.index.set_entry(&EntryRow { stamp, ..entry }),
            None => Ok(()),
        }
    }

    /// A link is gone, as far as its remover had seen.
    ///
    /// # Errors
    /// Of the index.
    pub fn unlink(&mut self, link: LinkId, saw: Stamp, heads: &[VersionId]) -> Result<()> {
        let heads = heads.iter().map(|id| id.0).collect();
        let mut tomb = TombRow { saw, heads, by: None, was: None, untold_place: false };
        if let Some(older) = TombRow::of(&self.tree.index, link)? {
            tomb = older.joined(tomb);
        }
        self.tree.index.set_tomb(link.0, &tomb.encode())?;
        if let Some(register) = self.register(link)? {
            self.touched.insert(FileId(register.child));
            // A version whose copy is removed keeps its file no longer.
            let child = self.current(FileId(register.child))?;
            self.touched.extend(child.and_then(|child| child.read().row.copy).map(FileId));
        }
        Ok(())
    }

    /// Ends it: everything is in the index in one transaction, durably, and the kernel is told.
    ///
    /// # Errors
    /// Of the index.
    pub fn finish(mut self) -> Result<()> {
        let tree = self.tree;
        self.settle()?;
        tree.flush_alone()?;
        // What is done here from now on may rest on what came from elsewhere, and the journal has
        // only the former.
        tree.index.make_durable()?;
        self.finished = true;
        let changes = std::mem::take(&mut self.changes);
        // The kernel may ask back at once.
        drop(self);
        for change in changes {
            tree.tell(change);
        }
        Ok(())
    }

    /// A file as it is now, a grave if it is one: see [`Tree::present`].
    pub(super) fn current(&mut self, file: FileId) -> Result<Option<Arc<Node>>> {
        if let Some(node) = self.nodes.get(&file).filter(|node| !node.read().gone) {
            return Ok(Some(node.clone()));
        }
        let node = self.tree.present(file)?;
        match &node {
            Some(node) => self.nodes.insert(file, node.clone()),
            None => self.nodes.remove(&file),
        };
        Ok(node)
    }

    /// From now on this is the file.
    pub(super) fn replaced(&mut self, node: &Arc<Node>) {
        self.nodes.insert(node.ino.file(), node.clone());
    }

    /// The latest that is known of a link, whether it stands, is to stand or is gone.
    pub(super) fn register(&self, link: LinkId) -> Result<Option<Register>> {
        let index = &self.tree.index;
        if let Some(known) = self.links.get(&link) {
            return Ok(Some(known.clone()));
        }
        match self.entry(link)? {
            Some(entry) => Register::of(index, &entry).map(Some),
            None => Ok(TombRow::of(index, link)?.and_then(|tomb| tomb.was)),
        }
    }

    /// A link that stands, with or without its name.
    pub(super) fn entry(&self, link: LinkId) -> Result<Option<EntryRow>> {
        match self.unshown.get(&link) {
            Some(entry) => Ok(Some(entry.clone())),
            None => self.tree.index.link(link),
        }
    }

    /// The attributes of a file changed. The kernel may be about to learn the old ones with a
    /// name, and keeps the times of a file it holds, so it is told to look its names up again too.
    fn attributes_changed(&mut self, node: &Node) -> Result<()> {
        self.changes.push(Change::Attributes { ino: node.ino });
        let links = node.read().row.links.clone();
        for link in links {
            if let Some(entry) = self.entry(LinkId(link))? {
                self.entry_changed(&entry);
            }
        }
        Ok(())
    }

    pub(super) fn entry_changed(&mut self, entry: &EntryRow) {
        self.changes.push(Change::Entry { parent: entry.parent, name: entry.name.clone() });
    }
}

/// Records half applied must not be committed with what comes next: only a start from the last
/// commit mends that.
impl Drop for Merging<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.tree.failed.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
}
