//! Applying a change: the same way when it is made and when it is replayed.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{Error, Posix, Result};
use crate::id::{Ino, LinkId};
use crate::index::entries::EntryRow;
use crate::index::nodes::{Marked, Pending};
use crate::journal::{Place, Position};
use crate::record::{Kind, Stamp, TimeNs};
use crate::tree::acl;
use crate::tree::core::{Tree, lock};
use crate::tree::extents::Source;
use crate::tree::node::{Field, Node, Row, State};
use crate::tree::op::{Attrs, Made, Op, Record, Shared, WRITE_HEADER_BYTES, Write};
use crate::tree::tomb::{Register, TombRow};

impl Tree {
    /// Applies a record of the journal that the index does not have yet.
    pub(super) fn replay(&self, position: Position, place: Place, record: &[u8]) -> Result<()> {
        let (applied, of_one_file) = match Record::decode(record)? {
            Record::Op(op) => (self.apply(&op, position), op.is_of_one_file()),
            Record::Write(write) => {
                let wrote = self.node(Ino(write.ino)).map(|node| {
                    let mut state = node.write();
                    self.wrote(&node, &mut state, &write, position, place);
                });
                (wrote, true)
            }
        };
        match applied {
            // It was forgotten while the record was on its way into the journal.
            Err(Error::Posix(Posix::Stale)) if of_one_file => {
                tracing::warn!(?position, "a record of a file that is gone");
                Ok(())
            }
            applied => applied,
        }
    }

    /// Applies a change; the caller holds the names.
    pub(super) fn apply(&self, op: &Op, at: Position) -> Result<()> {
        match op {
            Op::Make(made) => self.made(made, at),
            Op::Link { ino, link, parent, name, now } => {
                let node = self.node(Ino(*ino))?;
                self.put_entry(*link, Ino(*parent), name, Ino(*ino))?;
                self.change(&node, at, *now, |row| row.linked(*link));
                node.write().orphan_if_nameless();
                self.touch_directory(Ino(*parent), at, *now, 0)
            }
            Op::Unlink { link, now } => self.unlinked(LinkId(*link), None, at, *now),
            Op::Move { link, parent, name, replaced, now } => {
                let _moving = self.moving_alone();
                if let Some(replaced) = replaced {
                    self.unlinked(LinkId(*replaced), Some(*link), at, *now)?;
                }
                self.moved(LinkId(*link), Ino(*parent), name, at, *now)
            }
            Op::Exchange { one, other, now } => {
                let _moving = self.moving_alone();
                self.exchanged(*one, *other, at, *now)
            }
            Op::Attr(attrs) => {
                let node = self.node(Ino(attrs.ino))?;
                let mut state = node.write();
                self.attrs_set(&node, &mut state, attrs, at)
            }
            Op::Xattr { ino, name, value, now } => {
                self.xattr_set(Ino(*ino), name, value.as_deref(), at, *now)
            }
            Op::Share(shared) => {
                let (from, to) = (self.node(Ino(shared.from))?, self.node(Ino(shared.to))?);
                let pieces = from.read().row.extents.pieces(&shared.range());
                self.shared_made(&to, &mut to.write(), &pieces, shared, at);
                Ok(())
            }
            Op::LongXattr { ino, name, places, now } => {
                let mut value = Vec::new();
                for place in places {
                    value.append(&mut self.journal.read(*place, 0..place.len)?);
                }
                self.xattr_set(Ino(*ino), name, Some(&value), at, *now)
            }
            Op::Staged { ino, offset, places, now } => {
                let node = self.node(Ino(*ino))?;
                let mut state = node.write();
                self.staged_write(&node, &mut state, *offset, places, *now, at);
                Ok(())
            }
            Op::Cut { ino, start, end, size, now } => {
                let node = self.node(Ino(*ino))?;
                let mut state = node.write();
                self.cut_made(&node, &mut state, (*start, *end), *size, *now, at);
                Ok(())
            }
            Op::Salvage { ino, made, link, parent, name, now } => {
                self.salvaged(Ino(*ino), Ino(*made), *link, Ino(*parent), name, *now, at)
            }
            Op::Pin { ino, pinned } => {
                let node = self.node(Ino(*ino))?;
                let mut state = node.write();
                state.row.pinned = *pinned;
                self.dirtied(&node, &mut state);
                Ok(())
            }
        }
    }

    fn made(&self, made: &Made, at: Position) -> Result<()> {
        let ino = Ino(made.ino);
        self.drawn(made.ino);
        self.drawn(made.link);
        let mut row = Row::new(made.kind, made.mode, made.uid, made.gid, made.now);
        row.rdev = made.rdev;
        row.target.clone_from(&made.target);
        row.parent = if made.kind == Kind::Directory { made.parent } else { 0 };
        for field in [Field::File, Field::Mode, Field::Uid, Field::Gid, Field::Mtime] {
            row.touch(field);
        }
        row.linked(made.link);
        let node = self.adopt(ino, row);
        node.write().position = at;
        for (name, value) in [(acl::ACCESS, &made.access), (acl::DEFAULT, &made.default)] {
            if let Some(value) = value {
                self.put_xattr(ino, name, Some(value))?;
            }
        }
        self.put_entry(made.link, Ino(made.parent), &made.name, ino)?;
        let subdirectories = i64::from(made.kind == Kind::Directory);
        self.touch_directory(Ino(made.parent), at, made.now, subdirectories)
    }

    pub(super) fn put_entry(&self, link: u64, parent: Ino, name: &[u8], child: Ino) -> Result<()> {
        self.drawn(link);
        let stamp = Stamp { lamport: 0, device: self.device };
        let (link_id, kind) = (LinkId(link), Some(self.kind(child)?));
        let entry = EntryRow { link: link_id, parent, name: name.to_vec(), child, kind, stamp };
        self.index.set_entry(&entry)?;
        self.index.set_pending(Pending::Link(link), true)
    }

    /// Removes a name, which another may take; the last one makes an orphan.
    fn unlinked(&self, link: LinkId, by: Option<u64>, at: Position, now: TimeNs) -> Result<()> {
        let entry = self.entry_of(link)?;
        let known = self.bury(&entry, by)?;
        self.index.remove_entry(link)?;
        let node = self.node(entry.child)?;
        let directory = node.read().row.kind == Kind::Directory;
        self.change(&node, at, now, |row| {
            row.unlinked(link.0);
            row.ended();
            if known {
                row.hidden.push(link.0);
            }
        });
        node.write().orphan_if_nameless();
        self.bury_with_last(&node)?;
        self.touch_directory(entry.parent, at, now, -i64::from(directory))
    }

    /// Whoever takes the last name of a file has seen what it held, and means all its names: the
    /// tombstones of those that went before say so too.
    fn bury_with_last(&self, node: &Node) -> Result<()> {
        let (hidden, heads) = {
            let row = &node.read().row;
            if !row.links.is_empty() {
                return Ok(());
            }
            (row.hidden.clone(), row.all_heads().collect::<Vec<_>>())
        };
        for link in hidden {
            let Some(mut tomb) = TombRow::of(&self.index, LinkId(link))? else { continue };
            if !tomb.has_seen(heads.iter().copied()) {
                tomb.heads.extend(heads.iter().map(|id| id.0));
                self.index.set_tomb(link, &tomb.encode())?;
                self.index.set_pending(Pending::Tomb(link), true)?;
            }
        }
        Ok(())
    }

    /// Leaves a tombstone where another device may know the link; whether one may.
    fn bury(&self, entry: &EntryRow, by: Option<u64>) -> Result<bool> {
        let untold_place = self.index.is_pending(Pending::Link(entry.link.0))?;
        self.index.set_pending(Pending::Link(entry.link.0), false)?;
        let (link, was) = (entry.link, Register::of(&self.index, entry)?);
        let saw = entry.stamp;
        if saw.lamport == 0 {
            // Nobody knows it; but tombs may wait for it, and wait for its successor from now on.
            if by.is_some() {
                let tomb = TombRow { saw, heads: Vec::new(), by, was: None, untold_place };
                self.index.set_tomb(link.0, &tomb.encode())?;
            }
            return Ok(false);
        }
        let heads = self.node(entry.child)?.read().row.all_heads().map(|id| id.0).collect();
        let mut tomb = TombRow { saw, heads, by, was: Some(was), untold_place };
        if let Some(older) = TombRow::of(&self.index, link)? {
            tomb = tomb.joined(older);
        }
        self.index.set_tomb(link.0, &tomb.encode())?;
        self.index.set_pending(Pending::Tomb(link.0), true)?;
        Ok(true)
    }

    fn moved(
        &self,
        link: LinkId,
        parent: Ino,
        name: &[u8],
        at: Position,
        now: TimeNs,
    ) -> Result<()> {
        let mut entry = self.entry_of(link)?;
        let from = std::mem::replace(&mut entry.parent, parent);
        entry.name = name.to_vec();
        self.index.remove_entry(link)?;
        self.index.set_entry(&entry)?;
        self.index.set_pending(Pending::Link(link.0), true)?;
        let node = self.node(entry.child)?;
        let directory = node.read().row.kind == Kind::Directory;
        self.change(&node, at, now, |row| {
            if directory {
                row.parent = parent.0;
            }
        });
        let crossing = i64::from(directory && from != parent);
        self.touch_directory(from, at, now, -crossing)?;
        self.touch_directory(parent, at, now, crossing)
    }

    fn exchanged(&self, one: u64, other: u64, at: Position, now: TimeNs) -> Result<()> {
        let (a, b) = (self.entry_of(LinkId(one))?, self.entry_of(LinkId(other))?);
        self.index.remove_entry(a.link)?;
        self.moved(b.link, a.parent, &a.name, at, now)?;
        let a_again = EntryRow { parent: b.parent, name: b.name.clone(), ..a.clone() };
        self.index.set_entry(&a_again)?;
        self.index.set_pending(Pending::Link(one), true)?;
        let node = self.node(a.child)?;
        let directory = node.read().row.kind == Kind::Directory;
        self.change(&node, at, now, |row| {
            if directory {
                row.parent = b.parent.0;
            }
        });
        let crossing = i64::from(directory && a.parent != b.parent);
        self.touch_directory(a.parent, at, now, -crossing)?;
        self.touch_directory(b.parent, at, now, crossing)
    }

    pub(super) fn entry_of(&self, link: LinkId) -> Result<EntryRow> {
        let entry = self.index.link(link)?;
        entry.ok_or_else(|| Error::corrupt("the index", format!("{link:?} is not there")))
    }

    /// Changes a row, and its ctime.
    pub(super) fn change(
        &self,
        node: &Arc<Node>,
        at: Position,
        now: TimeNs,
        change: impl FnOnce(&mut Row),
    ) {
        let mut state = node.write();
        change(&mut state.row);
        state.row.ctime = now;
        state.position = state.position.max(at);
        self.dirtied(node, &mut state);
    }

    /// A directory's content changed; `subdirectories` came to it.
    pub(super) fn touch_directory(
        &self,
        ino: Ino,
        at: Position,
        now: TimeNs,
        subdirectories: i64,
    ) -> Result<()> {
        let node = self.node(ino)?;
        self.change(&node, at, now, |row| {
            row.mtime = now;
            row.count_subdirectories(subdirectories);
        });
        Ok(())
    }

    /// A short write, whose bytes lie in its record at `place`.
    pub(super) fn wrote(
        &self,
        node: &Arc<Node>,
        state: &mut State,
        write: &Write<'_>,
        at: Position,
        place: Place,
    ) {
        let source = Source::Staged { place, skip: WRITE_HEADER_BYTES };
        state.row.write_over();
        state.row.extents.put(write.offset, write.data.len() as u64, source);
        self.content_changed(node, state, write.offset + write.data.len() as u64, write.now, at);
    }

    /// A long write, whose bytes lie in blocks of their own.
    pub(super) fn staged_write(
        &self,
        node: &Arc<Node>,
        state: &mut State,
        offset: u64,
        places: &[Place],
        now: TimeNs,
        at: Position,
    ) {
        state.row.write_over();
        let mut next = offset;
        for place in places {
            let source = Source::Staged { place: *place, skip: 0 };
            state.row.extents.put(next, u64::from(place.len), source);
            next += u64::from(place.len);
        }
        self.content_changed(node, state, next, now, at);
    }

    /// A hole, or a new size.
    pub(super) fn cut_made(
        &self,
        node: &Arc<Node>,
        state: &mut State,
        cut: (u64, u64),
        size: u64,
        now: TimeNs,
        at: Position,
    ) {
        state.row.write_over();
        state.row.extents.cut(cut.0..cut.1);
        state.row.size = size;
        self.content_changed(node, state, size.min(state.row.size), now, at);
    }

    /// A range that has the bytes of another.
    pub(super) fn shared_made(
        &self,
        node: &Arc<Node>,
        state: &mut State,
        pieces: &[(Range<u64>, Source)],
        shared: &Shared,
        at: Position,
    ) {
        let end = shared.at + shared.len;
        state.row.write_over();
        state.row.extents.cut(shared.at..end);
        for (range, source) in pieces {
            let place = range.start - shared.start + shared.at;
            state.row.extents.put(place, range.end - range.start, source.clone());
        }
        self.content_changed(node, state, end, shared.now, at);
    }

    pub(super) fn attrs_set(
        &self,
        node: &Arc<Node>,
        state: &mut State,
        attrs: &Attrs,
        at: Position,
    ) -> Result<()> {
        let row = &mut state.row;
        let mut set = |field, changed: bool| {
            if changed {
                row.touch(field);
            }
        };
        set(Field::Mode, attrs.mode.is_some());
        set(Field::Uid, attrs.uid.is_some());
        set(Field::Gid, attrs.gid.is_some());
        set(Field::Mtime, attrs.mtime.is_some());
        row.mode = attrs.mode.unwrap_or(row.mode);
        row.uid = attrs.uid.unwrap_or(row.uid);
        row.gid = attrs.gid.unwrap_or(row.gid);
        row.atime = attrs.atime.unwrap_or(row.atime);
        row.crtime = attrs.crtime.unwrap_or(row.crtime);
        if let Some(size) = attrs.size {
            let now = attrs.mtime.or(attrs.ctime).unwrap_or(row.mtime);
            row.write_over();
            row.extents.cut(size..u64::MAX);
            row.size = size;
            if size == 0 {
                self.journal.drop_stream(node.ino.0);
            }
            self.content_changed(node, state, size, now, at);
        }
        let row = &mut state.row;
        row.mtime = attrs.mtime.unwrap_or(row.mtime);
        row.ctime = attrs.ctime.unwrap_or(row.ctime);
        state.position = state.position.max(at);
        self.dirtied(node, state);
        match &attrs.access {
            None => Ok(()),
            Some(list) => {
                let list = Some(list.as_slice()).filter(|list| !list.is_empty());
                self.put_xattr(node.ino, acl::ACCESS, list)
            }
        }
    }

    fn content_changed(
        &self,
        node: &Arc<Node>,
        state: &mut State,
        end: u64,
        now: TimeNs,
        at: Position,
    ) {
        state.row.size = state.row.size.max(end);
        state.row.mtime = now;
        state.row.ctime = now;
        state.row.touch(Field::Content);
        state.row.again = false;
        state.position = state.position.max(at);
        state.written = self.env.instant();
        self.restaged(node, state);
        self.dirtied(node, state);
    }

    pub(super) fn xattr_set(
        &self,
        ino: Ino,
        name: &[u8],
        value: Option<&[u8]>,
        at: Position,
        now: TimeNs,
    ) -> Result<()> {
        self.put_xattr(ino, name, value)?;
        let node = self.node(ino)?;
        self.change(&node, at, now, |_| ());
        Ok(())
    }

    pub(super) fn put_xattr(&self, ino: Ino, name: &[u8], value: Option<&[u8]>) -> Result<()> {
        let hash = self.index.xattr_hash(ino, name);
        let zero = Stamp { lamport: 0, device: self.device };
        let value = value.map(<[u8]>::to_vec).map(minicbor::bytes::ByteVec::from);
        let row = minicbor::to_vec((minicbor::bytes::ByteVec::from(name.to_vec()), value, zero));
        self.index.set_xattr(ino, &hash, Some(&row.expect("memory takes every write")))?;
        self.index.set_pending(Pending::Xattr(ino, hash), true)
    }

    /// A file that is new to the index.
    pub(super) fn adopt(&self, ino: Ino, row: Row) -> Arc<Node> {
        let node = Arc::new(Node::new(ino, row, false, self.env.instant()));
        lock(&self.nodes).insert(ino, node.clone());
        let mut state = node.write();
        state.stored = false;
        self.dirtied(&node, &mut state);
        drop(state);
        self.files.fetch_add(1, Ordering::Relaxed);
        node
    }

    /// Forgets a file without names. No record tells of it: a replay finds the file without names
    /// as well, and forgets it at its end. Of one that other devices know a grave stays.
    pub(super) fn purged(&self, node: &Node) -> Result<()> {
        let mut state = node.write();
        if state.row.hidden.is_empty() {
            self.index.remove_node(node.ino, state.stored)?;
        } else {
            state.row.bury();
            self.index.set_node(node.ino, &state.row.encode())?;
            self.index.mark(Marked::Orphan, node.ino, false)?;
            self.index.mark(Marked::Staged, node.ino, false)?;
            self.index.set_pending(Pending::Node(node.ino), false)?;
            for (hash, _) in self.index.xattrs(node.ino)? {
                self.index.set_pending(Pending::Xattr(node.ino, hash), false)?;
            }
        }
        drop(state);
        self.drop_node(node.ino);
        self.journal.drop_stream(node.ino.0);
        self.files.fetch_sub(1, Ordering::Relaxed);
        lock(&self.upkeep).purged = true;
        Ok(())
    }
}
