//! Writing to a segment: records in one breath, streams beside one another.

use std::sync::Arc;

use rdrivefs_remote::env::Env;

use crate::error::{Error, Result};

use super::block::{self, Head, Kind, Nonce};
use super::disk::DiskFile;
use super::header::{self, FIRST};
use super::piece::zero;
use super::place::{BLOCK_BYTES_MAX, OVERHEAD_BYTES, Place};
use super::segment::{Joint, Segment, State};

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

impl Segment {
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
            .map_err(Error::io(header::place(self.number, at)))?;
        state.end = end;
        state.joint = Joint { link: nonce, last: position, confirmed };
        state.last = position;
        state.hold(self, at, sealed);
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
            zero(&*file, start, start + step).map_err(Error::io(header::place(self.number, end)))
        };
        match grant {
            Grant::Ahead => return Ok(false),
            Grant::Common => {
                self.ground.take(step)?;
                extend(step)?;
            }
            Grant::Reserve => self.ground.with_reserve(|| extend(step))?,
        }
        state.ahead += step;
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
            state.hold(self, start, sealed);
        } else {
            state.holes.push(start..start + bytes as u64);
            state.closed = true;
        }
        drop(state);
        self.changed.notify_all();
        written.map_err(Error::io(header::place(self.number, start)))?;
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
}

/// Start, link, file and the file's base of a range that was reserved.
type Reserved = (u64, Nonce, Arc<dyn DiskFile>, u64);

fn len_u32(plain: &[u8]) -> u32 {
    u32::try_from(plain.len()).expect("a block is at most 84 KiB")
}
