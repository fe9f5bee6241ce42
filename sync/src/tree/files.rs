//! Files: attributes, reading, writing, holes.

use std::ops::Range;

use crate::error::{Error, Posix, Result};
use crate::id::Ino;
use crate::record::{Kind, TimeNs};
use crate::tree::acl;
use crate::tree::core::Tree;
use crate::tree::extents::Source;
use crate::tree::node::State;
use crate::tree::op::{Attrs, Op, Shared, WRITE_BYTES_MAX, Write};
use crate::tree::words::{Attr, SeekTo, SetAttr};

/// The largest file: what a signed 64-bit offset reaches.
const SIZE_MAX: u64 = i64::MAX as u64;

/// `fallocate`: the size stays.
const KEEP_SIZE: u32 = 1;
/// `fallocate`: the range becomes a hole.
const PUNCH_HOLE: u32 = 2;
/// `fallocate`: the range reads as zeros.
const ZERO_RANGE: u32 = 16;

const SET_USER: u32 = 0o4000;
const SET_GROUP: u32 = 0o2000;
const GROUP_EXECUTES: u32 = 0o010;

/// The times of a file before its content changed.
struct Times(TimeNs, TimeNs);

impl Times {
    fn of(state: &State) -> Self {
        Self(state.row.mtime, state.row.ctime)
    }

    /// Puts them back, where the kernel keeps the file's times.
    fn keep(self, state: &mut State, kernel: bool) {
        if kernel {
            (state.row.mtime, state.row.ctime) = (self.0, self.1);
        }
    }
}

impl Tree {
    /// What `stat` tells.
    ///
    /// # Errors
    /// [`Posix::Stale`].
    pub fn attr(&self, ino: Ino) -> Result<Attr> {
        Ok(self.node(ino)?.read().row.attr(ino))
    }

    /// Changes attributes; a new size cuts or extends.
    ///
    /// # Errors
    /// Those of `chmod`, `chown`, `truncate` and `utimensat`.
    pub fn set_attr(&self, ino: Ino, set: &SetAttr) -> Result<Attr> {
        let _gate = self.shared();
        let node = self.node(ino)?;
        let access = match set.mode {
            Some(mode) => {
                self.access_acl(ino)?.map(|acl| acl::with_mode(&acl, mode)).transpose()?
            }
            None => None,
        };
        let mut state = node.write();
        check_size(&state, set.size)?;
        let now = self.now();
        let owner = set.uid.is_some() || set.gid.is_some();
        let cleared = without_set_ids(&state).filter(|_| owner && set.mode.is_none());
        let shrinks = set.size.is_some_and(|size| size <= state.row.size);
        let attrs = Attrs {
            ino: ino.0,
            mode: set.mode.map(|mode| mode & 0o7777).or(cleared),
            uid: set.uid,
            gid: set.gid,
            size: set.size,
            atime: set.atime,
            mtime: set.mtime.or(set.size.map(|_| now)),
            ctime: Some(set.ctime.unwrap_or(now)),
            crtime: set.crtime,
            access,
        };
        let record = Op::Attr(Box::new(attrs.clone())).encode();
        let at = match shrinks {
            true => self.append_reserved(&record)?,
            false => self.append(&record)?.position,
        };
        self.applied(self.attrs_set(&node, &mut state, &attrs, at))?;
        Ok(state.row.attr(ino))
    }

    /// At most `len` bytes; fewer only at the end of the file.
    ///
    /// # Errors
    /// [`Posix::IsDirectory`]; [`Error::Corrupt`] and those of remotes when bytes cannot be had.
    pub fn read(&self, ino: Ino, offset: u64, len: u32) -> Result<Vec<u8>> {
        let node = self.node(ino)?;
        let (pieces, range) = {
            let state = node.read();
            if state.row.kind == Kind::Directory {
                return Err(Posix::IsDirectory.into());
            }
            let end = offset.saturating_add(u64::from(len)).min(state.row.size);
            let range = offset.min(end)..end;
            (state.row.extents.pieces(&range), range)
        };
        match self.assemble(&pieces, &range) {
            // The bytes may have moved in between: sealed, or written anew.
            Err(e) => {
                let again = node.read().row.extents.pieces(&range);
                if again == pieces { Err(e) } else { self.assemble(&again, &range) }
            }
            read => read,
        }
    }

    /// Whether [`Tree::read`] is sure to find all of it on this computer, as far as can be told at once.
    pub fn is_here(&self, ino: Ino, offset: u64, len: u32) -> bool {
        let Ok(node) = self.node(ino) else { return false };
        let pieces = {
            let state = node.read();
            let end = offset.saturating_add(u64::from(len)).min(state.row.size);
            state.row.extents.pieces(&(offset.min(end)..end))
        };
        pieces.into_iter().all(|(at, source)| match source {
            Source::Chunk { layer, number, skip } => {
                let len = u32::try_from(at.end - at.start).unwrap_or(u32::MAX);
                self.chunks.is_here(layer, number, skip..skip.saturating_add(len))
            }
            Source::Bytes(_) | Source::Staged { .. } => true,
        })
    }

    /// Writes; returns how much, which is all.
    ///
    /// # Errors
    /// [`Posix::NoSpace`] and the others of `pwrite(2)`.
    pub fn write(&self, ino: Ino, offset: u64, data: &[u8]) -> Result<usize> {
        self.write_at(ino, offset, data, true)
    }

    /// As [`Tree::write`], for pages the kernel held. It keeps the times of such a file itself and
    /// tells them, though not where a second write falls into one tick of its clock: a time of ours
    /// would stay then, and show once the kernel has forgotten its own. Only a replay takes ours,
    /// since the kernel's may not have come.
    ///
    /// # Errors
    /// As [`Tree::write`].
    pub fn write_back(&self, ino: Ino, offset: u64, data: &[u8]) -> Result<usize> {
        self.write_at(ino, offset, data, false)
    }

    fn write_at(&self, ino: Ino, offset: u64, data: &[u8], timed: bool) -> Result<usize> {
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= SIZE_MAX);
        end.ok_or(Posix::TooBig)?;
        if data.is_empty() {
            return Ok(0);
        }
        let _gate = self.shared();
        let node = self.node(ino)?;
        let now = self.now();
        if data.len() <= WRITE_BYTES_MAX {
            let write = Write { ino: ino.0, offset, now, data };
            let mut state = node.write();
            check_regular(&state)?;
            let appended = self.append(&write.encode())?;
            let times = Times::of(&state);
            self.wrote(&node, &mut state, &write, appended.position, appended.place);
            times.keep(&mut state, !timed);
            return Ok(data.len());
        }
        check_regular(&node.read())?;
        let places = self.journal.stage(ino.0, data)?;
        let op = Op::Staged { ino: ino.0, offset, places, now };
        let Op::Staged { places, .. } = &op else { unreachable!("it was just made") };
        let mut state = node.write();
        let at = self.append_naming(&op.encode(), places)?;
        let times = Times::of(&state);
        self.staged_write(&node, &mut state, offset, places, now, at);
        times.keep(&mut state, !timed);
        Ok(data.len())
    }

    /// `fallocate`, with Linux' mode bits.
    ///
    /// # Errors
    /// [`Posix::NotSupported`] for modes that shift content; those of `fallocate(2)`.
    pub fn allocate(&self, ino: Ino, mode: u32, offset: u64, len: u64) -> Result<()> {
        self.allocate_at(ino, mode, (offset, len), true)
    }

    /// As [`Tree::allocate`], for the kernel; the times are its own, as in [`Tree::write_back`].
    ///
    /// # Errors
    /// As [`Tree::allocate`].
    pub fn allocate_back(&self, ino: Ino, mode: u32, offset: u64, len: u64) -> Result<()> {
        self.allocate_at(ino, mode, (offset, len), false)
    }

    fn allocate_at(
        &self,
        ino: Ino,
        mode: u32,
        (offset, len): (u64, u64),
        timed: bool,
    ) -> Result<()> {
        let end = offset.checked_add(len).filter(|end| *end <= SIZE_MAX).ok_or(Posix::TooBig)?;
        if len == 0 {
            return Err(Posix::Invalid.into());
        }
        let hole = mode & (PUNCH_HOLE | ZERO_RANGE) != 0;
        if mode & !(KEEP_SIZE | PUNCH_HOLE | ZERO_RANGE) != 0 {
            return Err(Posix::NotSupported.into());
        }
        if mode & PUNCH_HOLE != 0 && mode & KEEP_SIZE == 0 {
            return Err(Posix::NotSupported.into());
        }
        let _gate = self.shared();
        let node = self.node(ino)?;
        let mut state = node.write();
        check_regular(&state)?;
        let size = state.row.size;
        let grown = if mode & KEEP_SIZE == 0 { size.max(end) } else { size };
        // Zeros that nobody wrote take no room here, so only what shows is done.
        if !hole && grown == size {
            return Ok(());
        }
        let (cut, now) = (if hole { (offset, end) } else { (size, size) }, self.now());
        let op = Op::Cut { ino: ino.0, start: cut.0, end: cut.1, size: grown, now };
        let at = self.append_reserved(&op.encode())?;
        let times = Times::of(&state);
        self.cut_made(&node, &mut state, cut, grown, now, at);
        times.keep(&mut state, !timed);
        Ok(())
    }

    /// The next data or hole from `offset` on.
    ///
    /// # Errors
    /// [`Posix::NoSuchOffset`] behind the end, or when there is no more data.
    pub fn seek(&self, ino: Ino, offset: u64, to: SeekTo) -> Result<u64> {
        let node = self.node(ino)?;
        let state = node.read();
        let size = state.row.size;
        if offset >= size {
            return Err(Posix::NoSuchOffset.into());
        }
        match to {
            SeekTo::Hole => Ok(state.row.extents.next_hole(offset).min(size)),
            SeekTo::Data => state
                .row
                .extents
                .next_data(offset)
                .filter(|at| *at < size)
                .ok_or_else(|| Posix::NoSuchOffset.into()),
        }
    }

    /// Copies bytes from one file to another; fewer only at the end of the first. Nothing is read:
    /// the two share what they have in common until one of them is written.
    ///
    /// # Errors
    /// Those of `copy_file_range(2)`.
    pub fn copy_range(&self, from: (Ino, u64), to: (Ino, u64), len: u64) -> Result<u64> {
        self.copy_range_at(from, to, len, true)
    }

    /// As [`Tree::copy_range`], for the kernel; the times are its own, as in [`Tree::write_back`].
    ///
    /// # Errors
    /// As [`Tree::copy_range`].
    pub fn copy_range_back(&self, from: (Ino, u64), to: (Ino, u64), len: u64) -> Result<u64> {
        self.copy_range_at(from, to, len, false)
    }

    fn copy_range_at(
        &self,
        from: (Ino, u64),
        to: (Ino, u64),
        len: u64,
        timed: bool,
    ) -> Result<u64> {
        to.1.checked_add(len).filter(|end| *end <= SIZE_MAX).ok_or(Posix::TooBig)?;
        let same = from.0 == to.0;
        if same && from.1 < to.1.saturating_add(len) && to.1 < from.1.saturating_add(len) {
            return Err(Posix::Invalid.into());
        }
        let _gate = self.shared();
        let (source, target) = (self.node(from.0)?, self.node(to.0)?);
        // In the order of their numbers, so that two copies never wait for each other.
        let before = (from.0 < to.0).then(|| source.read());
        let mut state = target.write();
        let after = (from.0 > to.0).then(|| source.read());
        let held = before.as_deref().or(after.as_deref()).unwrap_or(&state);
        check_regular(held)?;
        let len = len.min(held.row.size.saturating_sub(from.1));
        let (start, at, now) = (from.1, to.1, self.now());
        let shared = Shared { from: from.0.0, start, to: to.0.0, at, len, now };
        let pieces = held.row.extents.pieces(&shared.range());
        check_regular(&state)?;
        if len > 0 {
            let position = self.append(&Op::Share(shared.clone()).encode())?.position;
            let times = Times::of(&state);
            self.shared_made(&target, &mut state, &pieces, &shared, position);
            times.keep(&mut state, !timed);
        }
        Ok(len)
    }

    /// Makes everything about the file durable: its content, its attributes, its names.
    ///
    /// # Errors
    /// When it is not durable.
    pub fn sync(&self, ino: Ino) -> Result<()> {
        let node = self.node(ino)?;
        let position = node.read().position;
        self.journal.sync(position, &[]).map(drop)
    }

    /// Makes everything about a directory durable.
    ///
    /// # Errors
    /// When it is not durable.
    pub fn sync_directory(&self, dir: Ino) -> Result<()> {
        self.sync(dir)
    }

    /// The bytes of a range, given where its stretches lie.
    pub(super) fn assemble(
        &self,
        pieces: &[(Range<u64>, Source)],
        range: &Range<u64>,
    ) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(range.end - range.start).expect("a short read")];
        for (at, source) in pieces {
            let start = (at.start - range.start) as usize;
            let len = (at.end - at.start) as usize;
            let part = self.read_source(source, len)?;
            if part.len() != len {
                return Err(Error::corrupt("a stretch of a file", "it is shorter than it was"));
            }
            bytes[start..start + len].copy_from_slice(&part);
        }
        Ok(bytes)
    }

    fn read_source(&self, source: &Source, len: usize) -> Result<Vec<u8>> {
        let span = |skip: u32| skip..skip + u32::try_from(len).expect("a stretch is short");
        match source {
            Source::Bytes(bytes) => Ok(bytes.clone()),
            Source::Staged { place, skip } => self.journal.read(*place, span(*skip)),
            Source::Chunk { layer, number, skip } => self.chunks.read(*layer, *number, span(*skip)),
        }
    }
}

fn check_size(state: &State, size: Option<u64>) -> Result<()> {
    match (size, state.row.kind) {
        (None, _) => Ok(()),
        (Some(_), Kind::Directory) => Err(Posix::IsDirectory.into()),
        (Some(size), _) if size > SIZE_MAX => Err(Posix::TooBig.into()),
        (Some(_), Kind::File) => Ok(()),
        (Some(_), _) => Err(Posix::Invalid.into()),
    }
}

/// Only regular files have content; the kernel sees to it, other callers may not.
fn check_regular(state: &State) -> Result<()> {
    match state.row.kind {
        _ if state.gone => Err(Posix::Stale.into()),
        Kind::File => Ok(()),
        Kind::Directory => Err(Posix::IsDirectory.into()),
        _ => Err(Posix::Invalid.into()),
    }
}

/// The mode without the set-id bits, if it has any that a change of owner takes away.
fn without_set_ids(state: &State) -> Option<u32> {
    let mode = state.row.mode;
    let lost = match mode & GROUP_EXECUTES {
        0 => SET_USER,
        _ => SET_USER | SET_GROUP,
    };
    (state.row.kind == Kind::File && mode & lost != 0).then_some(mode & !lost)
}
