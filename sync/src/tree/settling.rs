//! Settling: from what is known of links to what stands where, for all of a commit at once.
//!
//! The rules are those of the view, which is the same in the slow and obvious way. A link is dead
//! when a tombstone has seen its place, unless its file has a head the tombstone has not seen and no
//! other name, or it leads to a directory in use. First files that are dead go; then what lives and
//! does not stand is put where its record says, with the directories above it, and rings are cut;
//! then dead directories go, and those that are empty by that; at last each name about which
//! something changed is given to the latest of those who want it, and the others stand beside it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::id::{FileId, Ino, LinkId, VersionId};
use crate::index::entries::EntryRow;
use crate::index::nodes::{Marked, Pending};
use crate::journal::Position;
use crate::record::{Kind, Stamp};
use crate::tree::core::lock;
use crate::tree::merging::Merging;
use crate::tree::node::Node;
use crate::tree::tomb::{Register, TombRow};
use crate::tree::unsettled::{Place, Unsettled};
use crate::tree::xattrs::XattrRow;
use crate::view::naming::{copy_file, copy_link, moved_name};

/// Whether a link lives.
struct Verdict {
    link: LinkId,
    lives: bool,
    /// There is a tombstone that has seen its place.
    tombed: bool,
}

impl Merging<'_> {
    /// Puts everything where it belongs.
    pub(super) fn settle(&mut self) -> Result<()> {
        let touched = self.touched.clone();
        let mut directories = BTreeSet::new();
        for file in &touched {
            let Some(node) = self.current(*file)? else { continue };
            if node.read().row.kind == Kind::Directory {
                directories.insert(*file);
            } else {
                self.bury_dead(&node)?;
            }
        }
        for file in &touched {
            self.bring(*file)?;
        }
        self.untie()?;
        for file in &touched {
            self.place_copies(*file)?;
        }
        directories.append(&mut self.emptied);
        self.used = Some(HashMap::new());
        self.bury_empty(directories)?;
        for file in self.touched.clone() {
            self.mark_kept(file)?;
        }
        while let Some(place) = self.places.pop_first() {
            self.arrange(&place)?;
        }
        for version in std::mem::take(&mut self.copies_to_tell) {
            let copy = self.current(copy_file(version))?;
            if let Some(copy) = copy.filter(|copy| copy.read().row.copy.is_some()) {
                let copy = self.tree.own_copy(&copy)?;
                copy.map_or(Ok(()), |copy| self.forget_copy(copy))?;
            }
        }
        let nameless = std::mem::take(&mut self.nameless);
        nameless.into_iter().try_for_each(|(file, last)| self.end_if_nameless(file, last))
    }

    /// Which links of a file live.
    fn verdicts(&mut self, node: &Node) -> Result<Vec<Verdict>> {
        let index = &self.tree.index;
        let (links, directory, written) = {
            let row = &node.read().row;
            let links: Vec<_> = row.links.iter().chain(&row.hidden).map(|id| LinkId(*id)).collect();
            (links, row.kind == Kind::Directory, row.is_written() && !row.links.is_empty())
        };
        let mut verdicts = Vec::with_capacity(links.len());
        let mut tombs = Vec::with_capacity(links.len());
        for link in links {
            let Some(register) = self.register(link)? else { continue };
            let pending = index.is_pending(Pending::Link(link.0))?;
            let tomb = TombRow::of(index, link)?.filter(|tomb| register.stamp <= tomb.saw);
            let tomb = tomb.filter(|_| !pending);
            verdicts.push(Verdict { link, lives: tomb.is_none(), tombed: tomb.is_some() });
            tombs.push(tomb);
        }
        if verdicts.iter().any(|verdict| verdict.lives) && !directory || verdicts.is_empty() {
            return Ok(verdicts);
        }
        if directory {
            let in_use = verdicts.iter().any(|verdict| !verdict.lives) && self.in_use(node.ino)?;
            verdicts.iter_mut().for_each(|verdict| verdict.lives |= in_use);
            return Ok(verdicts);
        }
        let heads = self.heads(node)?;
        for (verdict, tomb) in verdicts.iter_mut().zip(tombs) {
            let seen = tomb.is_none_or(|tomb| tomb.has_seen(heads.iter().copied()));
            verdict.lives = written || !seen;
        }
        Ok(verdicts)
    }

    /// The versions of a file that whoever removes it must have seen: all that nobody wrote over,
    /// but such as became files of their own, or whose copies were removed.
    fn heads(&mut self, node: &Node) -> Result<Vec<VersionId>> {
        let (heads, newest): (Vec<_>, _) = {
            let row = &node.read().row;
            (row.all_heads().collect(), row.version)
        };
        let file = node.ino.file();
        let mut left = Vec::with_capacity(heads.len());
        for id in heads {
            let copy = self.current(copy_file(id))?.filter(|copy| copy.ino.file() != file);
            let (of, stamp) = match copy {
                Some(copy) => {
                    let row = &copy.read().row;
                    (row.copy.map(FileId), row.version)
                }
                None => (Some(file), newest),
            };
            let tomb = TombRow::of(&self.tree.index, copy_link(id))?;
            let removed = copy_file(id) != file && tomb.is_some_and(|tomb| tomb.saw >= stamp);
            if of == Some(file) && !removed {
                left.push(id);
            }
        }
        Ok(left)
    }

    /// Takes away what is dead of a file; returns the directories it was in.
    fn bury_dead(&mut self, node: &Arc<Node>) -> Result<Vec<FileId>> {
        let mut left = Vec::new();
        for verdict in self.verdicts(node)? {
            let entry = self.entry(verdict.link)?.filter(|_| !verdict.lives);
            let Some(entry) = entry else { continue };
            let register = Register::of(&self.tree.index, &entry)?;
            self.withdraw(verdict.link)?;
            left.extend([entry.parent.file(), register.parent()]);
            self.remember_grave(verdict.link, register)?;
        }
        Ok(left)
    }

    /// Takes away dead directories that are empty, and those that are empty by that.
    fn bury_empty(&mut self, mut left: BTreeSet<FileId>) -> Result<()> {
        while let Some(dir) = left.pop_last() {
            if let Some(node) = self.current(dir)?.filter(|_| dir != FileId::ROOT) {
                left.extend(self.bury_dead(&node)?);
            }
        }
        Ok(())
    }

    /// Keeps what is known of a dead link with its tombstone.
    fn remember_grave(&mut self, link: LinkId, register: Register) -> Result<()> {
        self.links.remove(&link);
        let Some(mut tomb) = TombRow::of(&self.tree.index, link)? else { return Ok(()) };
        (tomb.was, tomb.untold_place) = (Some(register), false);
        self.tree.index.set_tomb(link.0, &tomb.encode())
    }

    /// Lets what lives of a file stand.
    fn bring(&mut self, file: FileId) -> Result<()> {
        let Some(node) = self.current(file)? else { return Ok(()) };
        let stands = {
            let row = &node.read().row;
            row.kind == Kind::Directory && !row.links.is_empty()
        };
        if stands {
            return Ok(());
        }
        let verdicts = self.verdicts(&node)?;
        let mut told = false;
        for Verdict { link, lives, tombed } in &verdicts {
            if *lives && self.entry(*link)?.is_none() {
                self.bring_link(*link)?;
                told |= *tombed && self.tree.index.is_pending(Pending::Link(link.0))?;
            }
        }
        // One name that is told of is enough for a tombstone of another to count.
        for Verdict { link, .. } in verdicts.iter().filter(|v| told && v.lives && v.tombed) {
            self.tree.index.set_pending(Pending::Link(link.0), true)?;
        }
        Ok(())
    }

    /// Lets a link stand, and the directories above it.
    fn bring_link(&mut self, link: LinkId) -> Result<()> {
        let mut chain = vec![link];
        while let Some(register) = self.register(chain[chain.len() - 1])? {
            let dir = register.parent();
            let Some(node) = self.current(dir)?.filter(|_| dir != FileId::ROOT) else { break };
            let above = {
                let row = &node.read().row;
                let hidden = row.hidden.first().copied().map(LinkId);
                hidden.filter(|_| row.links.is_empty() && row.kind == Kind::Directory)
            };
            let Some(above) = above.filter(|above| !chain.contains(above)) else { break };
            self.touched.insert(dir);
            chain.push(above);
        }
        for link in chain.into_iter().rev() {
            if let Some(register) = self.register(link)? {
                self.stand(link, &register)?;
            }
        }
        Ok(())
    }

    /// Puts a link into its directory, or into the root if that cannot be.
    pub(super) fn stand(&mut self, link: LinkId, register: &Register) -> Result<()> {
        let Some(dir) = self.home(register.parent())? else {
            return self.stand_outside(link, register);
        };
        let place = Place { parent: dir.file().0, name: register.place.name.clone() };
        self.stand_at(link, register, Unsettled { place, moved: None, kept: false, copy: None })
    }

    /// Puts a link into the root, since it cannot be where its record puts it.
    pub(super) fn stand_outside(&mut self, link: LinkId, register: &Register) -> Result<()> {
        let name = moved_name(&register.place.name, register.stamp.device);
        let (place, moved) = (Place { parent: FileId::ROOT.0, name }, Some(register.place.clone()));
        self.stand_at(link, register, Unsettled { place, moved, kept: false, copy: None })
    }

    fn stand_at(&mut self, link: LinkId, register: &Register, row: Unsettled) -> Result<()> {
        let Some(child) = self.current(FileId(register.child))? else { return Ok(()) };
        self.tell_place(link)?;
        self.put(link, &child, row, register.stamp)
    }

    /// A link that was moved here and removed before that was told comes back to where nobody else
    /// knows it to be: so they are told.
    fn tell_place(&self, link: LinkId) -> Result<()> {
        let index = &self.tree.index;
        let tomb = TombRow::of(index, link)?.filter(|tomb| tomb.untold_place);
        let Some(mut tomb) = tomb.filter(|_| !self.links.contains_key(&link)) else {
            return Ok(());
        };
        tomb.untold_place = false;
        index.set_tomb(link.0, &tomb.encode())?;
        index.set_pending(Pending::Link(link.0), true)
    }

    /// Puts a link where its row wants it; which name it gets is seen later.
    pub(super) fn put(
        &mut self,
        link: LinkId,
        child: &Arc<Node>,
        row: Unsettled,
        stamp: Stamp,
    ) -> Result<()> {
        let parent = Ino::first(FileId(row.place.parent));
        row.keep(&self.tree.index, link)?;
        self.tree.index.mark(Marked::Orphan, child.ino, false)?;
        self.exhume(child)?;
        let directory = {
            let mut state = child.write();
            let directory = state.row.kind == Kind::Directory;
            state.marked_orphan(false);
            state.row.linked(link.0);
            if directory {
                state.row.nlink = state.row.nlink.max(2);
                state.row.parent = parent.0;
            }
            self.tree.dirtied(child, &mut state);
            directory
        };
        if directory {
            self.came.insert(child.ino.file());
        }
        self.count_subdirectory(parent, i64::from(directory))?;
        self.links.remove(&link);
        let name = row.place.name.clone();
        let kind = Some(child.read().row.kind);
        let entry = EntryRow { link, parent, name, child: child.ino, kind, stamp };
        self.unshown.insert(link, entry);
        if let Some(moved) = row.moved {
            self.outside()?.insert(link, FileId(moved.parent));
        }
        self.places.insert(row.place);
        self.coming.entry(parent).or_default().insert(link);
        Ok(())
    }

    /// Brings a file back out of its grave, with what was to be told of it.
    fn exhume(&self, node: &Arc<Node>) -> Result<()> {
        if !std::mem::take(&mut node.write().row.grave) {
            return Ok(());
        }
        lock(&self.tree.nodes).insert(node.ino, node.clone());
        self.tree.files.fetch_add(1, Ordering::Relaxed);
        for (hash, xattr) in self.tree.index.xattrs(node.ino)? {
            let untold = XattrRow::decode(&xattr)?.stamp.lamport == 0;
            if untold {
                self.tree.index.set_pending(Pending::Xattr(node.ino, hash), true)?;
            }
        }
        Ok(())
    }

    /// The directory of that number, if it has a name.
    fn home(&mut self, dir: FileId) -> Result<Option<Ino>> {
        let Some(node) = self.current(dir)? else { return Ok(None) };
        let row = &node.read().row;
        let named = dir == FileId::ROOT || !row.links.is_empty();
        Ok(Some(node.ino).filter(|_| named && row.kind == Kind::Directory))
    }

    /// Takes a link from where it stands, if it does; it is known still.
    pub(super) fn withdraw(&mut self, link: LinkId) -> Result<()> {
        let Some(entry) = self.entry(link)? else { return Ok(()) };
        if let Some(row) = Unsettled::of(&self.tree.index, link)? {
            if let Some(copy) = row.copy {
                self.forget_copy(copy)?;
            }
            if let Some(moved) = row.moved {
                self.outside()?.remove(&link);
                self.emptied.insert(FileId(moved.parent));
            }
            self.places.insert(row.place);
        }
        self.tree.index.remove_unsettled(link)?;
        if self.unshown.remove(&link).is_some() {
            self.coming.entry(entry.parent).or_default().remove(&link);
        } else {
            self.tree.index.remove_entry(link)?;
            let place = Place { parent: entry.parent.file().0, name: entry.name.clone() };
            self.nameless.insert(entry.child.file(), Some(place.clone()));
            self.places.insert(place);
            self.entry_changed(&entry);
        }
        let child = self.tree.node(entry.child)?;
        let directory = {
            let mut state = child.write();
            state.row.unlinked(link.0);
            state.row.kind == Kind::Directory
        };
        self.hide(&child, link);
        self.nameless.entry(entry.child.file()).or_default();
        self.emptied.insert(entry.parent.file());
        self.count_subdirectory(entry.parent, -i64::from(directory))
    }

    /// Notes that a file has a name that does not stand.
    pub(super) fn hide(&self, child: &Arc<Node>, link: LinkId) {
        let mut state = child.write();
        if !state.row.hidden.contains(&link.0) {
            state.row.hidden.push(link.0);
        }
        self.tree.dirtied(child, &mut state);
    }

    fn count_subdirectory(&self, parent: Ino, by: i64) -> Result<()> {
        let now = self.tree.now();
        let node = self.tree.node(parent)?;
        self.tree.change(&node, Position(0), now, |row| {
            if by != 0 {
                row.count_subdirectories(by);
            }
        });
        Ok(())
    }

    /// Notes which links of a file stand against a tombstone, and keeps what is known of those
    /// that do not stand.
    fn mark_kept(&mut self, file: FileId) -> Result<()> {
        let Some(node) = self.current(file)? else { return Ok(()) };
        for Verdict { link, lives, tombed } in self.verdicts(&node)? {
            match self.entry(link)? {
                None => {
                    if let Some(register) = self.links.get(&link).cloned() {
                        self.remember_grave(link, register)?;
                    }
                    self.nameless.entry(file).or_default();
                }
                Some(entry) => self.set_kept(&entry, lives && tombed)?,
            }
        }
        Ok(())
    }

    fn set_kept(&mut self, entry: &EntryRow, kept: bool) -> Result<()> {
        let index = &self.tree.index;
        let place = Place { parent: entry.parent.file().0, name: entry.name.clone() };
        let row = match Unsettled::of(index, entry.link)? {
            None if !kept => return Ok(()),
            None => Unsettled { place: place.clone(), moved: None, kept, copy: None },
            Some(row) if row.kept == kept => return Ok(()),
            Some(row) => Unsettled { kept, ..row },
        };
        self.places.insert(row.place.clone());
        row.keep(index, entry.link)
    }

    fn end_if_nameless(&mut self, file: FileId, last: Option<Place>) -> Result<()> {
        let Some(node) = self.current(file)?.filter(|_| file != FileId::ROOT) else {
            return Ok(());
        };
        let held = {
            let mut state = node.write();
            if !state.row.links.is_empty() || state.row.grave {
                return Ok(());
            }
            state.row.ended();
            if state.row.kind == Kind::File && state.row.cut.is_none() {
                state.row.cut = last;
            }
            self.tree.dirtied(&node, &mut state);
            lock(&self.tree.references).contains_key(&node.ino)
        };
        if !held {
            return self.tree.purged(&node);
        }
        node.write().marked_orphan(true);
        self.tree.index.mark(Marked::Orphan, node.ino, true)
    }
}
