//! Versions: which one a file has, and what becomes of the one that lost.
//!
//! Of two concurrent versions the later is the file's. The other appears beside it as a copy: a
//! file whose ids are derived from the version, which every device makes for itself. While nobody
//! touches it, it goes when a later version replaces the one it shows.
//!
//! A pulled version of a file that the kernel holds arrives like a rename over the old one: a new
//! inode, the names led to it, the old one staying with whoever has it open.

use std::sync::Arc;

use crate::error::Result;
use crate::id::{FileId, Ino, LinkId, VersionId};
use crate::index::nodes::Marked;
use crate::record::{Kind, Stamp};
use crate::tree::core::lock;
use crate::tree::merging::{Merging, Version};
use crate::tree::node::{Field, Node, Row, State};
use crate::tree::tomb::TombRow;
use crate::tree::unsettled::{CopyOf, Place, Unsettled};
use crate::tree::words::Change;
use crate::view::naming::{copy_file, copy_link};

impl Merging<'_> {
    /// A version of a file's content.
    ///
    /// # Errors
    /// Of the index.
    pub fn version(&mut self, file: FileId, version: Version, stamp: Stamp) -> Result<()> {
        let Some(node) = self.current(file)?.filter(|node| node.read().row.kind == Kind::File)
        else {
            return Ok(());
        };
        self.touched_elsewhere(&node)?;
        self.touched.insert(file);
        let (main, written, known) = {
            let row = &node.read().row;
            let known = row.all_heads().any(|id| id == version.id);
            // A copy that was told begins with the version it is a copy of.
            let begun = copy_file(version.id) == file && !row.heads.is_empty();
            let main = row.told_head();
            (main, row.is_written() && !row.grave, known || begun)
        };
        if known {
            return Ok(());
        }
        for base in &version.bases {
            self.drop_copy(file, *base)?;
        }
        if written {
            // What was written here will be told as the later. Should it be gone before that, the
            // copy must be known to all.
            self.copy(&node, &version, stamp)?;
            self.copies_to_tell.push(version.id);
            if main.is_none_or(|(id, newest)| version.bases.contains(&id) || newest < stamp) {
                let Version { id, size, mtime, extents, .. } = version;
                node.write().row.told_otherwise(id, stamp, size, mtime, extents);
            }
            return Ok(());
        }
        let Some((id, newest)) = main.filter(|(id, _)| !version.bases.contains(id)) else {
            return self.replace(&node, version, stamp);
        };
        if (stamp, version.id) < (newest, id) {
            return self.copy(&node, &version, stamp);
        }
        let loser = {
            let row = &node.read().row;
            let mtime = row.written.unwrap_or(row.mtime);
            let (size, extents) = (row.size, row.extents.clone());
            Version { id, bases: Vec::new(), size, mtime, extents }
        };
        self.copy(&node, &loser, newest)?;
        self.replace(&node, version, stamp)
    }

    /// Somebody else told of a file: if it was a copy, it is none any more.
    pub(super) fn touched_elsewhere(&mut self, node: &Arc<Node>) -> Result<()> {
        let Some(copy) = self.tree.no_copy(node)? else { return Ok(()) };
        self.touched.insert(FileId(copy.file));
        self.forget_copy(copy)
    }

    /// The version is the file's content from now on.
    fn replace(&mut self, node: &Arc<Node>, version: Version, stamp: Stamp) -> Result<()> {
        // The kernel's references are counted before it is told anything, and told under this lock.
        let mut state = node.write();
        let held = lock(&self.tree.references).contains_key(&node.ino);
        if !held {
            self.set_content(node, &mut state, version, stamp);
            return Ok(());
        }
        drop(state);
        let node = self.reincarnate(node)?;
        self.set_content(&node, &mut node.write(), version, stamp);
        Ok(())
    }

    fn set_content(&mut self, node: &Arc<Node>, state: &mut State, version: Version, stamp: Stamp) {
        let row = &mut state.row;
        row.extents = version.extents;
        row.size = version.size;
        row.heads = vec![version.id.0];
        row.version = stamp;
        (row.told, row.written) = (None, Some(version.mtime));
        if std::mem::take(&mut row.again) {
            // Whoever made this version has told of the one before it.
            row.changed &= !(1 << Field::Content as u8);
        }
        if stamp > row.stamps[Field::Mtime as usize] && !row.is_changed(Field::Mtime) {
            row.mtime = version.mtime;
            row.stamps[Field::Mtime as usize] = stamp;
        }
        row.ctime = self.tree.now();
        if !row.grave {
            self.tree.restaged(node, state);
        }
        self.tree.dirtied(node, state);
        self.changes.push(Change::Inode { ino: node.ino });
    }

    /// Makes a copy of a version that lost; where it stands is seen later.
    fn copy(&mut self, of: &Arc<Node>, version: &Version, stamp: Stamp) -> Result<()> {
        let (file, link) = (copy_file(version.id), copy_link(version.id));
        if file == of.ino.file() || self.current(file)?.is_some() {
            return Ok(());
        }
        if TombRow::of(&self.tree.index, link)?.is_some_and(|tomb| tomb.saw >= stamp) {
            return Ok(());
        }
        let mut row = {
            let of = &of.read().row;
            let mut row = Row::new(Kind::File, of.mode, of.uid, of.gid, of.crtime);
            row.pinned = of.pinned;
            row
        };
        row.copy = Some(of.ino.file().0);
        row.size = version.size;
        row.mtime = version.mtime;
        row.extents = version.extents.clone();
        row.heads = vec![version.id.0];
        (row.version, row.written) = (stamp, Some(version.mtime));
        let node = self.tree.adopt(Ino::first(file), row);
        self.replaced(&node);
        let mut state = of.write();
        state.row.others.push(version.id.0);
        self.tree.dirtied(of, &mut state);
        Ok(())
    }

    /// A later version replaced the one that an untouched copy shows.
    fn drop_copy(&mut self, file: FileId, version: VersionId) -> Result<()> {
        let Some(of) = self.current(file)? else { return Ok(()) };
        if !of.read().row.others.contains(&version.0) {
            return Ok(());
        }
        self.withdraw(copy_link(version))?;
        self.forget_copy(CopyOf { file: file.0, version: version.0 })?;
        let Some(copy) = self.current(copy_file(version))? else { return Ok(()) };
        let mut state = copy.write();
        state.row.hidden.clear();
        let beside =
            self.tree.index.link(LinkId(of.read().row.links.first().copied().unwrap_or(0)));
        state.row.cut =
            beside?.map(|entry| Place { parent: entry.parent.file().0, name: entry.name });
        self.nameless.entry(copy.ino.file()).or_default();
        Ok(())
    }

    /// A copy is none any more.
    pub(super) fn forget_copy(&mut self, copy: CopyOf) -> Result<()> {
        if let Some(node) = self.current(copy_file(VersionId(copy.version)))? {
            node.write().row.copy = None;
        }
        if let Some(of) = self.current(FileId(copy.file))? {
            let mut state = of.write();
            state.row.others.retain(|other| *other != copy.version);
            self.tree.dirtied(&of, &mut state);
        }
        Ok(())
    }

    /// Lets the copies of a file's other versions stand beside it, with its attributes.
    pub(super) fn place_copies(&mut self, file: FileId) -> Result<()> {
        let Some(of) = self.current(file)? else { return Ok(()) };
        let (others, first) = {
            let row = &of.read().row;
            (row.others.clone(), row.links.iter().min().copied().map(LinkId))
        };
        let anchor = match first {
            Some(first) => self.entry(first)?,
            None => None,
        };
        let Some(anchor) = anchor else {
            // Whoever removed the file had seen them. Should it come back, they do.
            return others.into_iter().try_for_each(|id| {
                let copy = self.current(copy_file(VersionId(id)))?;
                copy.map_or(Ok(()), |copy| self.hide_copy(&of, &copy, VersionId(id)))
            });
        };
        let place = match Unsettled::of(&self.tree.index, anchor.link)? {
            Some(row) => row.place,
            None => Place { parent: anchor.parent.file().0, name: anchor.name },
        };
        for id in others {
            self.place_copy(&of, VersionId(id), &place)?;
        }
        Ok(())
    }

    fn place_copy(&mut self, of: &Arc<Node>, version: VersionId, place: &Place) -> Result<()> {
        let (file, link) = (of.ino.file().0, copy_link(version));
        let copy = self.current(copy_file(version))?;
        let Some(node) = copy.filter(|node| node.read().row.copy == Some(file)) else {
            return Ok(());
        };
        let stamp = node.read().row.version;
        if TombRow::of(&self.tree.index, link)?.is_some_and(|tomb| tomb.saw >= stamp) {
            return self.forget_copy(CopyOf { file, version: version.0 });
        }
        self.tree.like_original(&node, of);
        let row = Unsettled::of(&self.tree.index, link)?;
        if row.is_some_and(|row| row.place == *place) {
            return Ok(());
        }
        self.hide_copy(of, &node, version)?;
        let copy = Some(CopyOf { file, version: version.0 });
        let row = Unsettled { place: place.clone(), moved: None, kept: false, copy };
        self.put(link, &node, row, stamp)
    }

    /// Takes a copy from where it stands; it is one still.
    fn hide_copy(&mut self, of: &Arc<Node>, copy: &Arc<Node>, version: VersionId) -> Result<()> {
        self.withdraw(copy_link(version))?;
        copy.write().row.copy = Some(of.ino.file().0);
        let mut state = of.write();
        state.row.others.retain(|other| *other != version.0);
        state.row.others.push(version.0);
        self.tree.dirtied(of, &mut state);
        Ok(())
    }

    /// A new inode for a file that the kernel holds; the old one keeps what it has.
    pub(super) fn reincarnate(&mut self, old: &Arc<Node>) -> Result<Arc<Node>> {
        let mut row = old.read().row.clone();
        let mut ino = old.ino.next();
        while self.tree.index.node(ino)?.is_some() {
            ino = ino.next();
        }
        for (hash, xattr) in self.tree.index.xattrs(old.ino)? {
            self.tree.move_pending_xattr(old.ino, ino, &hash)?;
            self.tree.index.set_xattr(ino, &hash, Some(&xattr))?;
        }
        let links = std::mem::take(&mut row.links);
        row.nlink = 0;
        let node = self.tree.adopt(ino, row);
        let mut cut = None;
        for link in links {
            if let Some(mut entry) = self.entry(LinkId(link))? {
                entry.child = ino;
                cut.get_or_insert_with(|| entry.clone());
                self.entry_changed(&entry);
                match self.unshown.contains_key(&entry.link) {
                    true => drop(self.unshown.insert(entry.link, entry)),
                    false => self.tree.index.set_entry(&entry)?,
                }
            }
            node.write().row.linked(link);
            old.write().row.unlinked(link);
        }
        let cut = match cut {
            Some(entry) => Place { parent: entry.parent.file().0, name: entry.name },
            None => self.last_place(&node)?,
        };
        let mut state = old.write();
        // What is written to the old one from now on makes a file of its own of it.
        (state.row.changed, state.row.cut) = (0, Some(cut));
        (state.row.hidden, state.row.others) = (Vec::new(), Vec::new());
        state.marked_orphan(true);
        self.tree.dirtied(old, &mut state);
        drop(state);
        self.tree.index.mark(Marked::Orphan, old.ino, true)?;
        self.replaced(&node);
        Ok(node)
    }

    /// Where a file without names was.
    fn last_place(&self, node: &Node) -> Result<Place> {
        let hidden = node.read().row.hidden.clone();
        for link in hidden {
            if let Some(register) = self.register(LinkId(link))? {
                return Ok(register.place);
            }
        }
        Ok(Place { parent: FileId::ROOT.0, name: b"found".to_vec() })
    }
}
