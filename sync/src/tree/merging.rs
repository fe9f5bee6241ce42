//! What merging needs from the tree: records of other devices, applied by the rules of registers.
//!
//! A register changed here and not published wins, since it will be published with a later stamp.
//! A pulled version of a file that the kernel holds arrives like a rename over the old one: a new
//! inode, the names led to it, the old one staying with whoever has it open.

use std::sync::{Arc, RwLockWriteGuard};

use crate::error::Result;
use crate::id::{FileId, Ino, LinkId, VersionId};
use crate::index::entries::EntryRow;
use crate::index::nodes::{Marked, Pending};
use crate::record::{Kind, Stamp, TimeNs};
use crate::tree::core::{Tree, lock};
use crate::tree::extents::Extents;
use crate::tree::node::{Field, Node, Row};
use crate::tree::words::Change;
use crate::tree::xattrs::XattrRow;

/// The tree held still while records are applied; the kernel hears of it at the end.
pub struct Merging<'a> {
    tree: &'a Tree,
    _alone: RwLockWriteGuard<'a, ()>,
    changes: Vec<Change>,
    finished: bool,
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
        Ok(Merging { tree: self, _alone: alone, changes: Vec::new(), finished: false })
    }
}

impl Merging<'_> {
    /// A file exists.
    ///
    /// # Errors
    /// Of the index.
    pub fn file(
        &self,
        file: FileId,
        kind: Kind,
        rdev: u32,
        target: &[u8],
        born: TimeNs,
    ) -> Result<()> {
        if self.current(file)?.is_some() {
            return Ok(());
        }
        let mode = if kind == Kind::Directory { 0o700 } else { 0o600 };
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let mut row = Row::new(kind, mode, uid, gid, born);
        row.rdev = rdev;
        row.target = target.to_vec();
        self.tree.adopt(Ino::first(file), row);
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
        let mut wins = |field: Field| {
            let later = stamp > row.stamps[field as usize] && !row.is_changed(field);
            if later {
                row.stamps[field as usize] = stamp;
            }
            later
        };
        let mode = set.mode.filter(|_| wins(Field::Mode));
        let uid = set.uid.filter(|_| wins(Field::Uid));
        let gid = set.gid.filter(|_| wins(Field::Gid));
        let mtime = set.mtime.filter(|_| wins(Field::Mtime));
        row.mode = mode.unwrap_or(row.mode);
        row.uid = uid.unwrap_or(row.uid);
        row.gid = gid.unwrap_or(row.gid);
        row.mtime = mtime.unwrap_or(row.mtime);
        row.ctime = self.tree.now();
        self.tree.dirtied(&node, &mut state);
        self.changes.push(Change::Inode { ino: node.ino });
        Ok(())
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
        let beaten = old.is_some_and(|old| old.stamp >= stamp);
        if beaten || index.is_pending(Pending::Xattr(node.ino, hash))? {
            return Ok(());
        }
        let row = XattrRow { name: name.to_vec(), value: value.map(<[u8]>::to_vec), stamp };
        index.set_xattr(node.ino, &hash, Some(&row.encode()))?;
        self.changes.push(Change::Inode { ino: node.ino });
        Ok(())
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
        let index = &self.tree.index;
        let Some(child) = self.current(file)? else { return Ok(()) };
        if let Some(tomb) = index.tomb(link.0)? {
            let saw = crate::tree::tomb::TombRow::decode(&tomb)?.saw;
            if saw >= stamp {
                return Ok(());
            }
        }
        let old = index.link(link)?;
        if let Some(old) = &old {
            if old.stamp >= stamp || index.is_pending(Pending::Link(link.0))? {
                return Ok(());
            }
            self.take_away(old)?;
        }
        let directory = child.read().row.kind == Kind::Directory;
        let (parent, name) = self.place(Ino::first(parent), name, &child, directory, stamp)?;
        let entry = EntryRow { link, parent, name, child: child.ino, stamp };
        self.put(&entry, &child, directory)
    }

    /// A link is gone, as far as its remover had seen.
    ///
    /// # Errors
    /// Of the index.
    pub fn unlink(&mut self, link: LinkId, saw: Stamp, heads: &[VersionId]) -> Result<()> {
        let index = &self.tree.index;
        let tomb = crate::tree::tomb::TombRow {
            saw,
            heads: heads.iter().map(|id| id.0).collect(),
            by: None,
        };
        let Some(entry) = index.link(link)? else {
            return index.set_tomb(link.0, &tomb.encode());
        };
        if entry.stamp > saw || index.is_pending(Pending::Link(link.0))? {
            return Ok(());
        }
        let node = self.tree.node(entry.child)?;
        let keeps = {
            let row = &node.read().row;
            let unseen = row.heads.iter().any(|id| !heads.contains(&VersionId(*id)));
            let last = row.links.len() <= 1;
            last && (unseen || row.is_changed(Field::Content))
        };
        if keeps || index.has_entries(entry.child)? {
            return Ok(());
        }
        index.set_tomb(link.0, &tomb.encode())?;
        self.take_away(&entry)?;
        self.bury_if_nameless(&node)
    }

    /// A version of a file's content.
    ///
    /// # Errors
    /// Of the index.
    pub fn version(&mut self, file: FileId, version: Version, stamp: Stamp) -> Result<()> {
        let Some(node) = self.current(file)? else { return Ok(()) };
        let (known, beaten, seen) = {
            let row = &node.read().row;
            let known = row.heads.contains(&version.id.0);
            let beaten = row.version >= stamp || row.is_changed(Field::Content);
            (known, beaten, !row.heads.is_empty() || row.size > 0)
        };
        if known || beaten {
            return Ok(());
        }
        let held = lock(&self.tree.references).contains_key(&node.ino) || node.read().opens > 0;
        let node = if seen && held { self.reincarnate(&node)? } else { node };
        let mut state = node.write();
        let row = &mut state.row;
        row.extents = version.extents;
        row.size = version.size;
        row.heads = vec![version.id.0];
        row.version = stamp;
        if stamp > row.stamps[Field::Mtime as usize] {
            row.mtime = version.mtime;
            row.stamps[Field::Mtime as usize] = stamp;
        }
        row.ctime = self.tree.now();
        self.tree.restaged(&node, &mut state);
        self.tree.dirtied(&node, &mut state);
        self.changes.push(Change::Inode { ino: node.ino });
        Ok(())
    }

    /// Ends it: everything is in the index in one transaction, durably, and the kernel is told.
    ///
    /// # Errors
    /// Of the index.
    pub fn finish(mut self) -> Result<()> {
        let tree = self.tree;
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

    /// The present incarnation of a file: the one that has names, else the newest.
    fn current(&self, file: FileId) -> Result<Option<Arc<Node>>> {
        if file == FileId::ROOT {
            return self.tree.node(Ino::ROOT).map(Some);
        }
        let first = Ino::first(file);
        let known = lock(&self.tree.nodes).get(&first).cloned();
        if let Some(node) = known.filter(|node| node.read().row.nlink > 0) {
            return Ok(Some(node));
        }
        let mut inos = self.tree.index.incarnations(file)?;
        inos.extend(lock(&self.tree.dirty).keys().filter(|ino| ino.file() == file));
        let mut best = None;
        for ino in inos {
            let node = self.tree.node(ino)?;
            if node.read().row.nlink > 0 {
                return Ok(Some(node));
            }
            best = Some(node);
        }
        Ok(best)
    }

    /// Where a link goes: where it asks to, unless that is taken, gone or inside itself.
    fn place(
        &self,
        parent: Ino,
        name: &[u8],
        child: &Arc<Node>,
        directory: bool,
        stamp: Stamp,
    ) -> Result<(Ino, Vec<u8>)> {
        let exists = self.tree.node(parent).is_ok_and(|node| node.read().row.nlink > 0);
        let cycle = exists && directory && self.tree.is_inside(parent, child.ino)?;
        let (parent, name) = match exists && !cycle {
            true => (parent, name.to_vec()),
            false => (Ino::ROOT, suffixed(name, "moved", stamp)),
        };
        let mut free = name.clone();
        let mut count = 1;
        while self.tree.index.entry(parent, &free)?.is_some() {
            free = suffixed(&name, &format!("conflict {count}"), stamp);
            count += 1;
        }
        Ok((parent, free))
    }

    fn put(&mut self, entry: &EntryRow, child: &Arc<Node>, directory: bool) -> Result<()> {
        self.tree.index.set_entry(entry)?;
        self.tree.index.mark(Marked::Orphan, child.ino, false)?;
        {
            let mut state = child.write();
            state.marked_orphan(false);
            state.row.linked(entry.link.0);
            if directory {
                state.row.nlink = state.row.nlink.max(2);
                state.row.parent = entry.parent.0;
            }
            self.tree.dirtied(child, &mut state);
        }
        self.count_subdirectory(entry.parent, i64::from(directory))?;
        self.entry_changed(entry);
        Ok(())
    }

    fn take_away(&mut self, entry: &EntryRow) -> Result<()> {
        self.tree.index.remove_entry(entry.link)?;
        let child = self.tree.node(entry.child)?;
        let directory = {
            let mut state = child.write();
            state.row.unlinked(entry.link.0);
            self.tree.dirtied(&child, &mut state);
            state.row.kind == Kind::Directory
        };
        self.count_subdirectory(entry.parent, -i64::from(directory))?;
        self.entry_changed(entry);
        Ok(())
    }

    fn count_subdirectory(&self, parent: Ino, by: i64) -> Result<()> {
        let now = self.tree.now();
        let node = self.tree.node(parent)?;
        self.tree.change(&node, crate::journal::Position(0), now, |row| {
            row.nlink = u32::try_from(i64::from(row.nlink) + by).unwrap_or(2);
        });
        Ok(())
    }

    fn bury_if_nameless(&self, node: &Arc<Node>) -> Result<()> {
        if node.read().row.nlink > 0 {
            return Ok(());
        }
        let held = lock(&self.tree.references).contains_key(&node.ino) || node.read().opens > 0;
        match held {
            true => {
                node.write().marked_orphan(true);
                self.tree.index.mark(Marked::Orphan, node.ino, true)
            }
            false => self.tree.purged(node),
        }
    }

    fn reincarnate(&mut self, old: &Arc<Node>) -> Result<Arc<Node>> {
        let mut row = old.read().row.clone();
        let mut ino = old.ino.next();
        while self.tree.node(ino).is_ok() {
            ino = ino.next();
        }
        for (hash, xattr) in self.tree.index.xattrs(old.ino)? {
            self.tree.index.set_xattr(ino, &hash, Some(&xattr))?;
        }
        let links = std::mem::take(&mut row.links);
        row.nlink = 0;
        let node = self.tree.adopt(ino, row);
        for link in links {
            let mut entry = self.tree.entry_of(LinkId(link))?;
            entry.child = ino;
            self.tree.index.set_entry(&entry)?;
            node.write().row.linked(link);
            old.write().row.unlinked(link);
            self.entry_changed(&entry);
        }
        let mut state = old.write();
        // What is written to the old one from now on concerns nobody else.
        state.row.changed = 0;
        state.marked_orphan(true);
        self.tree.dirtied(old, &mut state);
        drop(state);
        self.tree.index.mark(Marked::Orphan, old.ino, true)?;
        Ok(node)
    }

    fn entry_changed(&mut self, entry: &EntryRow) {
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

/// A name with a remark before its extension, cut to what a name may have.
fn suffixed(name: &[u8], remark: &str, stamp: Stamp) -> Vec<u8> {
    let remark = format!(" ({remark}, {})", stamp.device.0).into_bytes();
    let dot = name.iter().rposition(|b| *b == b'.').filter(|at| *at > 0).unwrap_or(name.len());
    let (stem, extension) = name.split_at(dot);
    let room = 255_usize.saturating_sub(remark.len() + extension.len());
    [&stem[..stem.len().min(room)], &remark, extension].concat()
}
