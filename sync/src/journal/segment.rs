//! A segment: an append-only address space of sealed blocks, kept in one file, or in several pieces
//! after a failed sync.
//!
//! A log segment has one writer at a time, which seals and writes in one breath. In a data segment
//! a writer reserves its range under the lock, then seals and writes beside the others.
//!
//! The lock protects everything but the files; it is taken after the log's. A sync runs outside
//! it, one at a time, and whoever waits for a range that it covers shares it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use rdrivefs_remote::env::Env;

use crate::error::{Error, Posix, Result};
use crate::seal::{Key, NONCE_BYTES};

use super::block::{self, Head, Kind, Nonce, Opened};
use super::disk::DiskFile;
use super::header::{self, FIRST, HEADER_BYTES, Header, PieceId, Role, UNFINISHED};
use super::place::{BLOCK_BYTES_MAX, OVERHEAD_BYTES, Place, Run};
use super::space::{Ground, io_error, lock};

/// The least that is written ahead when the disk is all but full.
const AHEAD_BYTES_MIN: u64 = 4 << 10;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Where the room for a block may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grant {
    /// Only what is written ahead already.
    Ahead,
    /// What is free outside the reserve.
    Common,
    /// The reserve too.
    Reserve,
}

/// A block for the log.
pub(super) struct Entry<'a> {
    pub(super) kind: Kind,
    pub(super) runs: u16,
    pub(super) position: u64,
    pub(super) confirmed: u64,
    pub(super) nonce: Nonce,
    pub(super) plain: &'a [u8],
}

/// A point in the log's chain: the last block's nonce and the last record's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Joint {
    pub(super) link: Nonce,
    pub(super) last: u64,
    pub(super) confirmed: u64,
}

/// An append-only address space of sealed blocks.
pub(super) struct Segment {
    pub(super) number: u32,
    pub(super) role: Role,
    pub(super) ground: Arc<Ground>,
    pub(super) key: Key,
    pub(super) salt: Nonce,
    state: Mutex<State>,
    pub(super) changed: Condvar,
}

/// One file of a segment.
pub(super) struct Piece {
    pub(super) generation: u16,
    pub(super) base: u64,
    /// `None` until it is read.
    pub(super) file: Option<Arc<dyn DiskFile>>,
}

/// What the segment's lock protects.
pub(super) struct State {
    /// By ascending base; each holds the blocks from its base to the next one's.
    pub(super) pieces: Vec<Piece>,
    /// Where the next block goes.
    pub(super) end: u64,
    /// The end of the chain.
    pub(super) joint: Joint,
    /// Log: the file is written to here, with zeros beyond `end`.
    pub(super) ahead: u64,
    /// Data: ranges reserved and not yet written.
    pub(super) writing: BTreeMap<u64, u64>,
    /// Data: ranges whose writing failed; nobody was given their places.
    pub(super) holes: Vec<Range<u64>>,
    /// Everything before this is durable, with `settled` as the end of its chain.
    pub(super) durable: u64,
    pub(super) settled: Joint,
    /// Whether the first piece's name is durable.
    named: bool,
    /// A sync of the last piece failed: what it says no longer counts.
    pub(super) suspect: bool,
    flushing: bool,
    /// Takes no more blocks.
    pub(super) closed: bool,
    /// Sealed blocks that are not durable yet, as written, oldest first.
    pub(super) held: VecDeque<(u64, Vec<u8>)>,
    /// Log: last record's position. Data: position of the last record that names it.
    pub(super) last: u64,
    /// Data: staged into since somebody last asked to free it.
    fresh: bool,
}

impl Segment {
    /// A new log segment that follows `joint`; durable when this returns.
    pub(super) fn create_log(
        ground: &Arc<Ground>,
        journal: &Key,
        env: &Env,
        number: u32,
        joint: Joint,
    ) -> Result<Self> {
        let id = PieceId { segment: number, generation: 0 };
        let Joint { link, last, confirmed } = joint;
        let (role, first) = (Role::Log, last + 1);
        let header = Header { role, id, base: FIRST, first, confirmed, link, salt: env.random() };
        let key = header.key(journal);
        let mut ahead = FIRST + ground.settings.ahead_bytes;
        let full = write_piece(ground, &header, &key, |file| zero(file, FIRST, ahead));
        let file = full.or_else(|error| match error {
            Error::Posix(Posix::NoSpace) => {
                ahead = FIRST;
                write_piece(ground, &header, &key, |_| Ok(()))
            }
            other => Err(other),
        })?;
        let state = State { joint, settled: joint, ahead, named: true, last, ..State::new(file) };
        Ok(Self::of(ground, &header, key, state))
    }

    /// A new data segment; its name becomes durable with the first sync.
    pub(super) fn create_data(
        ground: &Arc<Ground>,
        journal: &Key,
        env: &Env,
        number: u32,
    ) -> Result<Self> {
        let id = PieceId { segment: number, generation: 0 };
        let (role, base, link, salt) = (Role::Data, FIRST, [0; NONCE_BYTES], env.random());
        let header = Header { role, id, base, first: 0, confirmed: 0, link, salt };
        let key = header.key(journal);
        let name = header::name(role, id);
        ground.take(FIRST)?;
        let file = ground.disk.create(&name).map_err(io_error(name.clone()))?;
        file.write_at(0, &header.encode(&key)).map_err(io_error(name))?;
        Ok(Self::of(ground, &header, key, State::new(file)))
    }

    /// A segment of an earlier run, up to `end`; it is only read.
    pub(super) fn reopened(
        ground: &Arc<Ground>,
        header: &Header,
        key: Key,
        pieces: Vec<Piece>,
        end: u64,
    ) -> Self {
        let state = State {
            pieces,
            end,
            durable: end,
            ahead: end,
            named: true,
            closed: true,
            ..State::empty()
        };
        Self::of(ground, header, key, state)
    }

    /// A segment whose headers are lost: it opens nothing and can only be removed.
    pub(super) fn unreadable(
        ground: &Arc<Ground>,
        env: &Env,
        role: Role,
        number: u32,
        pieces: Vec<Piece>,
    ) -> Self {
        let id = PieceId { segment: number, generation: 0 };
        let (base, link, salt) = (FIRST, [0; NONCE_BYTES], [0; NONCE_BYTES]);
        let header = Header { role, id, base, first: 0, confirmed: 0, link, salt };
        Self::reopened(ground, &header, Key::random(env), pieces, FIRST)
    }

    fn of(ground: &Arc<Ground>, header: &Header, key: Key, state: State) -> Self {
        Self {
            number: header.id.segment,
            role: header.role,
            ground: ground.clone(),
            key,
            salt: header.salt,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Appends a block to the log; `None` if it has no room, and the next segment's turn has come.
    pub(super) fn append(&self, entry: &Entry<'_>, grant: Grant) -> Result<Option<Place>> {
        let mut state = self.state();
        let bytes = entry.plain.len() + OVERHEAD_BYTES;
        let at = state.end;
        let end = at + bytes as u64;
        if state.closed || end > self.ground.settings.log_segment_bytes {
            return Ok(None);
        }
        if !self.make_room(&mut state, end, grant)? {
            return Ok(None);
        }
        let (kind, runs, position) = (entry.kind, entry.runs, entry.position);
        let (len, link) = (len_u32(entry.plain), state.joint.link);
        let (confirmed, nonce) = (entry.confirmed, entry.nonce);
        let head = Head { len, kind, runs, position, confirmed, link, nonce };
        let mut sealed = Vec::with_capacity(bytes);
        block::seal(&self.key, at, &head, entry.plain, &mut sealed);
        let (file, base) = state.tail();
        // After an error nothing has moved: the next block is written over what may stand there.
        file.write_at(at - base + FIRST, &sealed)
            .map_err(io_error(header::place(self.number, at)))?;
        state.end = end;
        state.joint = Joint { link: nonce, last: position, confirmed };
        state.last = position;
        self.hold(&mut state, at, sealed);
        Ok(Some(Place { segment: self.number, at, len }))
    }

    /// Writes zeros ahead of the log until it reaches `end`.
    fn make_room(&self, state: &mut State, end: u64, grant: Grant) -> Result<bool> {
        if end <= state.ahead {
            return Ok(true);
        }
        let need = end - state.ahead;
        let step = self.ground.settings.ahead_bytes.max(need);
        let (file, base) = state.tail();
        let extend = |step: u64| {
            let start = state.ahead - base + FIRST;
            zero(&*file, start, start + step).map_err(io_error(header::place(self.number, end)))
        };
        let done = match grant {
            Grant::Ahead => return Ok(false),
            Grant::Common => {
                self.ground.take(step)?;
                extend(step).map(|()| step)
            }
            Grant::Reserve => extend(step).map(|()| step).or_else(|_| {
                let least = need.next_multiple_of(AHEAD_BYTES_MIN);
                extend(least).map(|()| least)
            }),
        }?;
        state.ahead += done;
        Ok(true)
    }

    /// Appends a stream's bytes in blocks; `None` if they have no room here.
    pub(super) fn stage(&self, env: &Env, data: &[u8]) -> Result<Option<Vec<Place>>> {
        let blocks = data.chunks(BLOCK_BYTES_MAX);
        let nonces: Vec<Nonce> = blocks.clone().map(|_| env.random()).collect();
        let bytes = data.len() + nonces.len() * OVERHEAD_BYTES;
        let Some((start, mut link, file, base)) = self.reserve(bytes as u64, &nonces)? else {
            return Ok(None);
        };
        let (mut sealed, mut places) =
            (Vec::with_capacity(bytes), Vec::with_capacity(nonces.len()));
        for (plain, nonce) in blocks.zip(nonces) {
            let at = start + sealed.len() as u64;
            let len = len_u32(plain);
            let (kind, runs, position, confirmed) = (Kind::Data, 0, 0, 0);
            let head = Head { len, kind, runs, position, confirmed, link, nonce };
            block::seal(&self.key, at, &head, plain, &mut sealed);
            places.push(Place { segment: self.number, at, len });
            link = nonce;
        }
        let written = file.write_at(start - base + FIRST, &sealed);
        let mut state = self.state();
        state.writing.remove(&start);
        if written.is_ok() {
            self.hold(&mut state, start, sealed);
        } else {
            state.holes.push(start..start + bytes as u64);
            state.closed = true;
        }
        drop(state);
        self.changed.notify_all();
        written.map_err(io_error(header::place(self.number, start)))?;
        Ok(Some(places))
    }

    fn reserve(&self, bytes: u64, nonces: &[Nonce]) -> Result<Option<Reserved>> {
        self.ground.take(bytes)?;
        let mut state = self.state();
        let start = state.end;
        if state.closed || start + bytes > self.ground.settings.data_segment_bytes {
            return Ok(None);
        }
        let link = state.joint.link;
        state.joint.link = nonces.last().copied().unwrap_or(link);
        state.end += bytes;
        state.fresh = true;
        state.writing.insert(start, start + bytes);
        let (file, base) = state.tail();
        Ok(Some((start, link, file, base)))
    }

    /// Keeps what was written until it is durable, as far as memory allows. What is let go can
    /// still be read back from the file, and is believed only if it opens.
    fn hold(&self, state: &mut State, at: u64, sealed: Vec<u8>) {
        let budget = &self.ground.held_bytes;
        budget.fetch_add(sealed.len() as u64, Ordering::Relaxed);
        // Writers of a data segment finish in any order.
        let later = state.held.iter().rev().take_while(|(other, _)| *other > at).count();
        let index = state.held.len() - later;
        state.held.insert(index, (at, sealed));
        while budget.load(Ordering::Relaxed) > self.ground.settings.held_bytes_max
            && self.role == Role::Data
            && state.let_go(&self.ground).is_some()
        {}
    }

    /// Makes everything before `upto` durable and says up to where it is. Those who wait for a
    /// range that a running sync does not cover share the next one.
    pub(super) fn flush(&self, upto: u64) -> Result<u64> {
        let mut state = self.state();
        let upto = upto.min(state.end);
        loop {
            if state.durable >= upto {
                return Ok(state.durable);
            }
            if !state.flushing && state.written() >= upto {
                break;
            }
            state = self.wait(state);
        }
        state.flushing = true;
        let (target, joint) = (state.written(), state.joint);
        let named = state.named;
        let mut synced = Err(None);
        if !state.suspect {
            let (file, _) = state.tail();
            drop(state);
            synced = self.sync_file(&*file, named).map_err(Some);
            state = self.state();
        }
        let result = match synced {
            Ok(()) => {
                state.settle(&self.ground, target, joint);
                Ok(())
            }
            Err(first) => {
                if let Some(error) = first {
                    tracing::warn!(segment = self.number, %error, "a sync failed, rewriting");
                }
                let result;
                (state, result) = self.rebuild(state);
                result
            }
        };
        state.flushing = false;
        let durable = state.durable;
        drop(state);
        self.changed.notify_all();
        result.map(|()| durable)
    }

    fn sync_file(&self, file: &dyn DiskFile, named: bool) -> std::io::Result<()> {
        file.datasync()?;
        if named { Ok(()) } else { self.ground.disk.sync_dir() }
    }

    pub(super) fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).expect("no thread may panic while it changes the journal")
    }

    /// The block at a place, opened.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it is not the block that was written there.
    pub(super) fn read(&self, place: Place) -> Result<Opened> {
        let bytes = usize::try_from(place.end() - place.at).expect("a block is small");
        let mut sealed = vec![0; bytes.min(block::SEALED_BYTES_MAX)];
        let n = self.read_bytes(place.at, &mut sealed)?;
        match block::open(&self.key, place.at, &sealed[..n]) {
            Some(opened) if opened.head.len == place.len => Ok(opened),
            _ => Err(self.damaged(place.at, "the block does not open")),
        }
    }

    /// The sealed bytes from `at` on, as many as there are.
    pub(super) fn read_bytes(&self, at: u64, out: &mut [u8]) -> Result<usize> {
        let (file, base) = self.state().piece_at(self, at)?;
        file.read_at(at - base + FIRST, out).map_err(io_error(header::place(self.number, at)))
    }

    pub(super) fn damaged(&self, at: u64, why: &str) -> Error {
        Error::corrupt(header::place(self.number, at), why)
    }

    /// Whether there are files for all of a run.
    pub(super) fn covers(&self, run: &Run) -> bool {
        let state = self.state();
        state.end >= run.end && state.pieces.first().is_some_and(|piece| piece.base <= run.at)
    }

    /// Everything before this is durable.
    pub(super) fn durable(&self) -> u64 {
        self.state().durable
    }

    pub(super) fn unsynced_bytes(&self) -> u64 {
        let state = self.state();
        state.end - state.durable
    }

    pub(super) fn bytes_used(&self) -> u64 {
        let state = self.state();
        state.ahead.max(state.end)
    }

    /// Syncs a segment of an earlier run.
    pub(super) fn sync_again(&self) -> Result<()> {
        let (file, _) = self.state().piece_at(self, u64::MAX - 1)?;
        file.datasync().map_err(io_error(header::place(self.number, 0)))
    }

    /// Forgets a piece whose file was removed; whether it was the only one.
    pub(super) fn forget(&self, generation: u16) -> bool {
        let mut state = self.state();
        state.pieces.retain(|piece| piece.generation != generation);
        state.pieces.is_empty()
    }

    /// Takes no more blocks from now on.
    pub(super) fn close(&self) {
        self.state().closed = true;
    }

    /// A record at `position` names this segment.
    pub(super) fn named_at(&self, position: u64) {
        let mut state = self.state();
        state.last = state.last.max(position);
    }

    /// Whether it may go, all records up to `applied` being of no more use; it is closed if so.
    /// What was staged since the last call may still be unknown to who decides what is live.
    pub(super) fn retire(&self, applied: u64) -> bool {
        let mut state = self.state();
        let idle = !state.fresh && state.writing.is_empty() && !state.flushing;
        state.fresh = false;
        let retired = idle && state.last <= applied;
        state.closed |= retired;
        retired
    }

    /// Closes the files of a segment that is only read, to be opened again at need.
    pub(super) fn let_files_go(&self) {
        let mut state = self.state();
        if state.closed && state.durable >= state.end {
            state.pieces.iter_mut().for_each(|piece| piece.file = None);
        }
    }

    /// Removes the files.
    pub(super) fn remove(&self) -> Result<()> {
        let state = self.state();
        for piece in &state.pieces {
            let id = PieceId { segment: self.number, generation: piece.generation };
            let name = header::name(self.role, id);
            self.ground.disk.remove(&name).map_err(io_error(name))?;
        }
        Ok(())
    }
}

/// Start, link, file and the file's base of a range that was reserved.
type Reserved = (u64, Nonce, Arc<dyn DiskFile>, u64);

impl State {
    fn empty() -> Self {
        let joint = Joint { link: [0; NONCE_BYTES], last: 0, confirmed: 0 };
        Self {
            pieces: Vec::new(),
            end: FIRST,
            joint,
            ahead: FIRST,
            writing: BTreeMap::new(),
            holes: Vec::new(),
            durable: FIRST,
            settled: joint,
            named: false,
            suspect: false,
            flushing: false,
            closed: false,
            held: VecDeque::new(),
            last: 0,
            fresh: false,
        }
    }

    fn new(file: Arc<dyn DiskFile>) -> Self {
        let piece = Piece { generation: 0, base: FIRST, file: Some(file) };
        Self { pieces: vec![piece], ..Self::empty() }
    }

    /// The file that blocks are appended to, and its base.
    pub(super) fn tail(&self) -> (Arc<dyn DiskFile>, u64) {
        let piece = self.pieces.last().expect("a segment has a piece");
        let file = piece.file.clone().expect("a segment that is appended to has its file open");
        (file, piece.base)
    }

    /// Everything before this has been written.
    fn written(&self) -> u64 {
        self.writing.keys().next().copied().unwrap_or(self.end)
    }

    fn piece_at(&mut self, segment: &Segment, at: u64) -> Result<(Arc<dyn DiskFile>, u64)> {
        let piece = self.pieces.iter_mut().rev().find(|piece| piece.base <= at);
        let piece = piece.ok_or_else(|| segment.damaged(at, "there is no block there"))?;
        if piece.file.is_none() {
            let id = PieceId { segment: segment.number, generation: piece.generation };
            let name = header::name(segment.role, id);
            piece.file = Some(segment.ground.disk.open(&name).map_err(io_error(name))?);
        }
        Ok((piece.file.clone().expect("it was just opened"), piece.base))
    }

    /// Everything before `target` is durable.
    pub(super) fn settle(&mut self, ground: &Ground, target: u64, joint: Joint) {
        self.durable = self.durable.max(target);
        self.settled = joint;
        self.named = true;
        while self.held.front().is_some_and(|(at, sealed)| at + sealed.len() as u64 <= target) {
            self.let_go(ground);
        }
    }

    fn let_go(&mut self, ground: &Ground) -> Option<()> {
        let (_, sealed) = self.held.pop_front()?;
        ground.held_bytes.fetch_sub(sealed.len() as u64, Ordering::Relaxed);
        Some(())
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let ground = self.ground.clone();
        if let Ok(state) = self.state.get_mut() {
            while state.let_go(&ground).is_some() {}
        }
    }
}

/// Makes the file of a piece under an unfinished name, lets `fill` write it, makes it durable and
/// gives it its name: a file that goes by its name has a whole header.
pub(super) fn write_piece(
    ground: &Ground,
    header: &Header,
    key: &Key,
    fill: impl FnOnce(&dyn DiskFile) -> std::io::Result<()>,
) -> Result<Arc<dyn DiskFile>> {
    let name = header::name(header.role, header.id);
    let unfinished = format!("{name}{UNFINISHED}");
    let written = || {
        let file = ground.disk.create(&unfinished)?;
        file.write_at(0, &header.encode(key))?;
        fill(&*file)?;
        file.datasync()?;
        ground.disk.rename(&unfinished, &name)?;
        ground.disk.sync_dir()?;
        Ok(file)
    };
    written().map_err(|error| {
        // It may be the rename that failed, or what came after it.
        let _ = ground.disk.remove(&unfinished);
        io_error(name)(error)
    })
}

/// Writes zeros over a range of a file.
pub(super) fn zero(file: &dyn DiskFile, start: u64, end: u64) -> std::io::Result<()> {
    let mut at = start;
    while at < end {
        let step = (end - at).min(ZEROS.len() as u64);
        file.write_at(at, &ZEROS[..usize::try_from(step).expect("at most 64 KiB")])?;
        at += step;
    }
    Ok(())
}

fn len_u32(plain: &[u8]) -> u32 {
    u32::try_from(plain.len()).expect("a block is at most 84 KiB")
}

const _: () = assert!(HEADER_BYTES as u64 == FIRST);
