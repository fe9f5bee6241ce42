//! What was done here to links that no record tells of as they stand: they are told from now on.
//!
//! A person who removes the winner of a name, works on a copy or empties a directory that a
//! tombstone was kept for has seen what stood there, and expects it to stay. So before anything is
//! published or merged, whatever was touched is settled: it becomes, by records, what it was by
//! sight.

use std::sync::Arc;

use crate::error::{Error, Posix, Result};
use crate::id::{FileId, Ino, LinkId, VersionId};
use crate::index::entries::EntryRow;
use crate::index::nodes::Pending;
use crate::record::Kind;
use crate::tree::core::{Tree, lock};
use crate::tree::node::{Field, Node, Row};
use crate::tree::unsettled::{CopyOf, Place, Unsettled};
use crate::view::naming::{conflict_name, copy_file, copy_link};

impl Tree {
    /// Settles what was touched here. The caller has the gate to itself.
    pub(super) fn settle_touched(&self) -> Result<()> {
        let at = Some(self.journal.last());
        // Of many commits that come while nothing is done here, none costs what is unsettled.
        if lock(&self.upkeep).settled == at && !self.index.has_pending()? {
            return Ok(());
        }
        for link in self.index.unsettled_links()? {
            let Some(row) = Unsettled::of(&self.index, link)? else { continue };
            let entry = self.index.link(link)?;
            match (&entry, row.copy) {
                (entry, Some(copy)) => self.settle_copy(entry.as_ref(), &row, copy)?,
                (None, None) => self.index.remove_unsettled(link)?,
                (Some(entry), None) => self.settle_link(entry, &row)?,
            }
        }
        lock(&self.upkeep).settled = at;
        Ok(())
    }

    fn settle_link(&self, entry: &EntryRow, row: &Unsettled) -> Result<()> {
        let pending = Pending::Link(entry.link.0);
        if self.index.is_pending(pending)? {
            return self.index.remove_unsettled(entry.link);
        }
        let here = entry.parent.file().0 == row.place.parent;
        let lonely = here && self.index.entry(entry.parent, &row.place.name)?.is_none();
        let untied = match &row.moved {
            Some(place) => !self.is_tied(entry.child, FileId(place.parent))?,
            None => false,
        };
        let touched = lonely || untied || row.kept && self.is_kept_touched(entry)?;
        if touched || self.has_room(entry, row)? {
            self.index.remove_unsettled(entry.link)?;
            self.index.set_pending(pending, true)?;
            let node = self.node(entry.child)?;
            self.tell_kept(&node)?;
        }
        Ok(())
    }

    /// A name of a file is told, which is enough for tombstones of others to count: so those that
    /// stand against one are told too.
    fn tell_kept(&self, node: &Node) -> Result<()> {
        let links = node.read().row.links.clone();
        for link in links.into_iter().map(LinkId) {
            if Unsettled::of(&self.index, link)?.is_some_and(|row| row.kept) {
                self.index.remove_unsettled(link)?;
                self.index.set_pending(Pending::Link(link.0), true)?;
            }
        }
        Ok(())
    }

    /// Whether what keeps a directory out of where its record puts it is as it was: the way from
    /// there leads through it, and nobody here moved or removed what is on that way.
    fn is_tied(&self, dir: Ino, to: FileId) -> Result<bool> {
        if self.kind(dir)? != Kind::Directory {
            return Ok(true);
        }
        let mut at = Ino::first(to);
        while at != dir {
            let node = match self.node(at) {
                Err(Error::Posix(Posix::Stale)) => return Ok(false),
                node => node?,
            };
            let (link, above) = {
                let row = &node.read().row;
                (row.links.first().copied(), Ino(row.parent))
            };
            let Some(link) = link.filter(|_| at != Ino::ROOT) else { return Ok(false) };
            if self.index.is_pending(Pending::Link(link))? {
                return Ok(false);
            }
            at = above;
        }
        Ok(true)
    }

    /// Whether a link has a longer name than it needs, since another of its group went.
    fn has_room(&self, entry: &EntryRow, row: &Unsettled) -> Result<bool> {
        let node = self.node(entry.child)?;
        let at = {
            let row = &node.read().row;
            if row.copy.is_some() { row.mtime } else { row.crtime }
        };
        let plain = conflict_name(&row.place.name, entry.stamp.device, at);
        let has_it = entry.name == plain || entry.name == row.place.name;
        Ok(!has_it && self.index.entry(entry.parent, &plain)?.is_none())
    }

    /// Whether what kept a link against its tombstone is not what it was.
    fn is_kept_touched(&self, entry: &EntryRow) -> Result<bool> {
        let node = self.node(entry.child)?;
        if node.read().row.kind == Kind::Directory {
            return Ok(!self.index.has_entries(entry.child)?);
        }
        if self.has_pending_links(&node)? {
            return Ok(true);
        }
        // Who takes one of several kept names away means the others to stay.
        let hidden = node.read().row.hidden.clone();
        for link in hidden {
            if self.index.is_pending(Pending::Tomb(link))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn has_pending_links(&self, node: &Node) -> Result<bool> {
        let links = node.read().row.links.clone();
        for link in links {
            if self.index.is_pending(Pending::Link(link))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A version whose copy is told of or removed may be why its file stands against a tombstone.
    /// Whoever did that saw the file stay.
    fn tell_file_kept(&self, copy: CopyOf) -> Result<()> {
        let of = self.present(FileId(copy.file))?;
        of.map_or(Ok(()), |of| self.tell_kept(&of))
    }

    fn settle_copy(&self, entry: Option<&EntryRow>, row: &Unsettled, copy: CopyOf) -> Result<()> {
        let Some(entry) = entry else {
            self.index.remove_unsettled(copy_link(VersionId(copy.version)))?;
            // It may have another name by now.
            let node = self.present(copy_file(VersionId(copy.version)))?;
            if let Some(node) = node.filter(|node| !node.read().row.links.is_empty()) {
                self.own_copy(&node)?;
            }
            self.tell_file_kept(copy)?;
            return self.forget_other(copy);
        };
        let node = self.node(entry.child)?;
        let of = self.present(FileId(copy.file))?;
        let of = of.filter(|of| !of.read().row.links.is_empty());
        let touched = match &of {
            None => true,
            Some(of) => {
                let elsewhere = self.place_beside(of)?.is_none_or(|place| place != row.place);
                elsewhere || self.has_pending_links(of)? || self.has_pending_links(&node)?
            }
        };
        let changed = {
            let state = node.read();
            state.row.changed != 0 || state.row.links.len() > 1
        };
        let touched = touched || changed || self.has_room(entry, row)?;
        if touched || !self.index.xattrs(node.ino)?.is_empty() {
            self.own_copy(&node)?;
            return self.forget_other(copy);
        }
        debug_assert!(row.moved.is_none(), "a copy is beside its file");
        if let Some(of) = of {
            self.like_original(&node, &of);
        }
        Ok(())
    }

    /// The place that copies of a file want: that of the first of its names.
    fn place_beside(&self, of: &Node) -> Result<Option<Place>> {
        let first = of.read().row.links.iter().min().copied().map(LinkId);
        let Some(first) = first else { return Ok(None) };
        let entry = self.entry_of(first)?;
        Ok(Some(match Unsettled::of(&self.index, first)? {
            Some(row) => row.place,
            None => Place { parent: entry.parent.file().0, name: entry.name },
        }))
    }

    /// A copy becomes a file like any other, which is told of; says what it was of.
    pub(super) fn own_copy(&self, node: &Arc<Node>) -> Result<Option<CopyOf>> {
        let Some(copy) = self.no_copy(node)? else { return Ok(None) };
        self.tell_file_kept(copy)?;
        let mut state = node.write();
        let row = &mut state.row;
        row.again = !row.is_changed(Field::Content);
        for field in
            [Field::File, Field::Mode, Field::Uid, Field::Gid, Field::Mtime, Field::Content]
        {
            row.touch(field);
        }
        self.dirtied(node, &mut state);
        let link = copy_link(VersionId(copy.version));
        self.index.set_pending(Pending::Link(link.0), true)?;
        self.index.remove_unsettled(link)?;
        Ok(Some(copy))
    }

    /// A copy becomes a file like any other, of which somebody else has told; says what it was of.
    pub(super) fn no_copy(&self, node: &Arc<Node>) -> Result<Option<CopyOf>> {
        let copy = {
            let mut state = node.write();
            let Some(file) = state.row.copy.take() else { return Ok(None) };
            self.dirtied(node, &mut state);
            let version = state.row.heads.first().copied().expect("a copy is of a version");
            CopyOf { file, version }
        };
        let link = copy_link(VersionId(copy.version));
        if let Some(row) = Unsettled::of(&self.index, link)? {
            Unsettled { copy: None, ..row }.keep(&self.index, link)?;
        }
        Ok(Some(copy))
    }

    /// The file has one copy less beside it.
    pub(super) fn forget_other(&self, copy: CopyOf) -> Result<()> {
        let Some(of) = self.present(FileId(copy.file))? else { return Ok(()) };
        let mut state = of.write();
        state.row.others.retain(|other| *other != copy.version);
        self.dirtied(&of, &mut state);
        Ok(())
    }

    /// Gives an untouched copy the attributes of the file it is beside.
    pub(super) fn like_original(&self, copy: &Arc<Node>, of: &Node) {
        let (mode, uid, gid) = {
            let row = &of.read().row;
            (row.mode, row.uid, row.gid)
        };
        let mut state = copy.write();
        if (state.row.mode, state.row.uid, state.row.gid) != (mode, uid, gid) {
            (state.row.mode, state.row.uid, state.row.gid) = (mode, uid, gid);
            self.dirtied(copy, &mut state);
        }
    }

    /// The present incarnation of a file: the one that has names, else the newest that no pulled
    /// version cut off. A file that is gone is found too if it could come back; it is in nobody's
    /// sight then.
    pub(super) fn present(&self, file: FileId) -> Result<Option<Arc<Node>>> {
        if file == FileId::ROOT {
            return self.node(Ino::ROOT).map(Some);
        }
        let known = lock(&self.nodes).get(&Ino::first(file)).cloned();
        if let Some(node) = known.filter(|node| !node.read().row.links.is_empty()) {
            return Ok(Some(node));
        }
        let mut best = None;
        for ino in self.index.incarnations(file)? {
            let node = self.node_or_grave(ino)?;
            let (named, replaced) = {
                let row = &node.read().row;
                (!row.links.is_empty(), row.is_replaced())
            };
            if named {
                return Ok(Some(node));
            }
            if !replaced {
                best = Some(node);
            }
        }
        Ok(best)
    }

    fn node_or_grave(&self, ino: Ino) -> Result<Arc<Node>> {
        if let Some(node) = lock(&self.dirty).get(&ino) {
            return Ok(node.clone());
        }
        match self.node(ino) {
            Err(Error::Posix(Posix::Stale)) => {
                let row = self.index.node(ino)?;
                let row = row.ok_or_else(|| Error::corrupt("the index", "a row went"))?;
                let row = Row::decode(ino, &row)?;
                Ok(Arc::new(Node::new(ino, row, false, self.env.instant())))
            }
            node => node,
        }
    }

    /// What is to be told of an attribute is told of the new inode.
    pub(super) fn move_pending_xattr(&self, from: Ino, to: Ino, hash: &[u8; 16]) -> Result<()> {
        if !self.index.is_pending(Pending::Xattr(from, *hash))? {
            return Ok(());
        }
        self.index.set_pending(Pending::Xattr(from, *hash), false)?;
        self.index.set_pending(Pending::Xattr(to, *hash), true)
    }
}
