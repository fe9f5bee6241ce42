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

use crate::error::{Error, Result};
use crate::seal::{Key, NONCE_BYTES};

use super::block::{self, Nonce, Opened};
use super::disk::DiskFile;
use super::header::{self, FIRST, Header, PieceId, Role};
use super::piece::{Piece, write_piece, zero};
use super::place::{Place, Run};
use super::space::{Ground, lock};

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
    pub(super) named: bool,
    /// A sync of the last piece failed: what it says no longer counts.
    pub(super) suspect: bool,
    pub(super) flushing: bool,
    /// Takes no more blocks.
    pub(super) closed: bool,
    /// Sealed blocks that are not durable yet, as written, oldest first.
    pub(super) held: VecDeque<(u64, Vec<u8>)>,
    /// Log: last record's position. Data: position of the last record that names it.
    pub(super) last: u64,
    /// Data: staged into since somebody last asked to free it.
    pub(super) fresh: bool,
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
        let ahead = FIRST + ground.settings.ahead_bytes;
        let file = write_piece(ground, &header, &key, |file| zero(file, FIRST, ahead))?;
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
        let file = ground.disk.create(&name).map_err(Error::io(name.clone()))?;
        file.write_at(0, &header.encode(&key)).map_err(Error::io(name))?;
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
        file.read_at(at - base + FIRST, out).map_err(Error::io(header::place(self.number, at)))
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

    /// Syncs a piece of an earlier run, the last one if none is given.
    pub(super) fn sync_again(&self, generation: Option<u16>) -> Result<()> {
        let mut state = self.state();
        let mut pieces = state.pieces.iter().rev();
        let piece = pieces.find(|piece| generation.is_none_or(|one| one == piece.generation));
        let base = piece.map_or(FIRST, |piece| piece.base);
        let (file, _) = state.piece_at(self, base)?;
        drop(state);
        file.datasync().map_err(Error::io(header::place(self.number, base)))
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
        if state.closed && state.durable >= state.end && !state.flushing {
            state.let_files_go();
        }
    }

    /// Removes the files.
    pub(super) fn remove(&self) -> Result<()> {
        let state = self.state();
        for piece in &state.pieces {
            let id = PieceId { segment: self.number, generation: piece.generation };
            let name = header::name(self.role, id);
            self.ground.disk.remove(&name).map_err(Error::io(name))?;
        }
        Ok(())
    }
}

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

    pub(super) fn let_files_go(&mut self) {
        self.pieces.iter_mut().for_each(|piece| piece.file = None);
    }

    /// Everything before this has been written.
    pub(super) fn written(&self) -> u64 {
        self.writing.keys().next().copied().unwrap_or(self.end)
    }

    fn piece_at(&mut self, segment: &Segment, at: u64) -> Result<(Arc<dyn DiskFile>, u64)> {
        let piece = self.pieces.iter_mut().rev().find(|piece| piece.base <= at);
        let piece = piece.ok_or_else(|| segment.damaged(at, "there is no block there"))?;
        if piece.file.is_none() {
            let id = PieceId { segment: segment.number, generation: piece.generation };
            let name = header::name(segment.role, id);
            piece.file = Some(segment.ground.disk.open(&name).map_err(Error::io(name))?);
            segment.ground.opened_files.fetch_add(1, Ordering::Relaxed);
        }
        Ok((piece.file.clone().expect("it was just opened"), piece.base))
    }

    /// Keeps what was written until it is durable, as far as memory allows. What is let go can
    /// still be read back from the file, and is believed only if it opens.
    pub(super) fn hold(&mut self, segment: &Segment, at: u64, sealed: Vec<u8>) {
        let Ground { held_bytes: budget, settings, .. } = &*segment.ground;
        budget.fetch_add(sealed.len() as u64, Ordering::Relaxed);
        // Writers of a data segment finish in any order.
        let index = self.held.partition_point(|(other, _)| *other < at);
        self.held.insert(index, (at, sealed));
        while budget.load(Ordering::Relaxed) > settings.held_bytes_max
            && segment.role == Role::Data
            && self.let_go(&segment.ground).is_some()
        {}
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
