//! Making a segment durable, and what follows if that fails.
//!
//! After a failed sync the file is abandoned, and what it had not made durable goes into a new
//! piece of the segment, which carries on at the same offsets.
//!
//! A kernel reports a failed write once and then calls the pages clean, so a second sync of the
//! same file proves nothing: only the sync of a file that every block was written to anew counts.
//! The blocks come from memory, or back from the abandoned file, where they are believed if they
//! open. Sealed for their offset and chained, they are the same bytes there; places stay good. If a
//! block is gone or the new piece fails too, whoever waits gets the error, and the next one to ask
//! has it tried again.

use std::io;
use std::sync::{Arc, MutexGuard};

use crate::error::{Error, Result};

use super::block::{self, Head};
use super::disk::DiskFile;
use super::header::{self, FIRST, Header, PieceId, Role};
use super::piece::{Piece, write_piece, zero};
use super::segment::{Segment, State};

impl Segment {
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
        if state.closed && durable >= state.end {
            state.let_files_go();
        }
        drop(state);
        self.changed.notify_all();
        result.map(|()| durable)
    }

    fn sync_file(&self, file: &dyn DiskFile, named: bool) -> std::io::Result<()> {
        file.datasync()?;
        if named { Ok(()) } else { self.ground.disk.sync_dir() }
    }

    /// Writes a new piece from the end of what is durable on, and appends to it from now on.
    fn rebuild<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
    ) -> (MutexGuard<'a, State>, Result<()>) {
        state.suspect = true;
        if self.role == Role::Data {
            state.closed = true;
            while !state.writing.is_empty() {
                state = self.wait(state);
            }
        }
        let result = self.write_rest(&mut state);
        (state, result)
    }

    fn write_rest(&self, state: &mut State) -> Result<()> {
        let last = state.pieces.last().expect("a segment has a piece");
        let generation = last.generation.checked_add(1);
        let generation = generation.ok_or_else(|| self.lost("too many pieces"))?;
        let (base, joint) = (state.durable, state.settled);
        let header = Header {
            role: self.role,
            id: PieceId { segment: self.number, generation },
            base,
            first: if self.role == Role::Log { joint.last + 1 } else { 0 },
            confirmed: joint.confirmed,
            link: joint.link,
            salt: self.salt,
        };
        let blocks = self.rest(state)?;
        let ahead = state.ahead.max(state.end);
        let file = write_piece(&self.ground, &header, &self.key, |file| {
            if self.role == Role::Log {
                zero(file, state.end - base + FIRST, ahead - base + FIRST)?;
            }
            blocks.iter().try_for_each(|(at, sealed)| file.write_at(at - base + FIRST, sealed))
        })?;
        state.pieces.push(Piece { generation, base, file: Some(file) });
        state.suspect = false;
        let (end, joint) = (state.end, state.joint);
        state.settle(&self.ground, end, joint);
        Ok(())
    }

    /// The sealed blocks that are not durable, with their offsets.
    fn rest(&self, state: &State) -> Result<Vec<(u64, Vec<u8>)>> {
        let mut blocks = Vec::new();
        let mut at = state.durable;
        let (file, base) = state.tail();
        while at < state.end {
            if let Some(hole) = state.holes.iter().find(|hole| hole.start == at) {
                at = hole.end;
                continue;
            }
            let sealed = match state.held.binary_search_by_key(&at, |(start, _)| *start) {
                Ok(index) => state.held[index].1.clone(),
                Err(_) => self.read_back(&file, base, at)?,
            };
            let end = at + sealed.len() as u64;
            blocks.push((at, sealed));
            at = end;
        }
        Ok(blocks)
    }

    fn read_back(&self, file: &Arc<dyn DiskFile>, base: u64, at: u64) -> Result<Vec<u8>> {
        let mut sealed = vec![0; block::SEALED_BYTES_MAX];
        let read = file.read_at(at - base + FIRST, &mut sealed);
        let n = read.map_err(Error::io(header::place(self.number, at)))?;
        let head = Head::decode(&sealed[..n])
            .filter(|_| block::open(&self.key, at, &sealed[..n]).is_some());
        let head = head.ok_or_else(|| self.lost("a block was neither written nor held"))?;
        sealed.truncate(usize::try_from(head.block_bytes()).expect("a block is small"));
        Ok(sealed)
    }

    fn lost(&self, why: &'static str) -> Error {
        let what = format!("journal segment {}", self.number);
        Error::Io { what, source: io::Error::other(why) }
    }
}
