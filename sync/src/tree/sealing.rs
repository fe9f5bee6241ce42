//! What sealing needs from the tree: which files are ripe, their bytes, and where these lie then.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rdrivefs_remote::env::Instant;

use crate::error::{Error, Posix, Result};
use crate::id::Ino;
use crate::index::layers::ChunkPlace;
use crate::record::{INLINE_BYTES_MAX, Kind};
use crate::tree::core::{Tree, lock};
use crate::tree::extents::{Extents, Source};
use crate::tree::node::{Node, State};

/// How long after it was last written a file is sealed, so that others see a save at once. The
/// kernel tells of no close, so a pause in the writing is all there is to go by.
const QUIET_FOR: Duration = Duration::from_millis(250);

/// How long, where a part was sealed within [`LATELY`]: a file that is written over and over, a log
/// or a database, is not sealed at each breath.
const QUIET_FOR_BUSY: Duration = Duration::from_secs(1);

/// How far back a seal makes a file a busy one.
const LATELY: Duration = Duration::from_secs(10);

/// How old unsealed bytes get at most.
const AGE_MAX: Duration = Duration::from_secs(30);

/// Unsealed bytes of a file that is being streamed into, beyond which sealing begins: it takes half
/// of a small computer from the writer, so most copies are left to end first.
const STREAM_BYTES_MAX: u64 = 256 << 20;

/// The same on a disk with little room, as a part of it and at the least: what is sealed can be
/// pushed, and go.
const STREAM_PART: u64 = 8;
const STREAM_BYTES_MIN: u64 = 64 << 20;

/// A file in more stretches than this is cut anew as a whole the next time it is sealed: lists
/// that long are slow to read and to send.
const RAGGED_EXTENTS: usize = 16 << 10;

/// A file to be sealed, as of one moment.
pub struct SealJob {
    node: Arc<Node>,
    /// Its length.
    pub size: u64,
    /// The stretches to be sealed.
    pub runs: Vec<Range<u64>>,
    /// Whether it is still being written: what is not yet cut before a hole, or the file's end, is
    /// left for later.
    pub streaming: bool,
    /// What is left to be sealed as it was then, and the rest of the file.
    before: Extents,
    /// While this is alive, the journal keeps the segments of `before`.
    segments: Arc<BTreeSet<u32>>,
}

/// Where the bytes of a sealed file lie.
pub enum NewContent {
    /// In the row itself.
    Inline(Vec<u8>),
    /// In these chunks, each from its beginning.
    Chunks(Vec<(Range<u64>, ChunkPlace)>),
}

impl SealJob {
    /// Bytes to be sealed.
    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.end - run.start).sum()
    }

    /// Whether nothing was written at a byte, or it lies behind the end.
    pub fn is_hole(&self, at: u64) -> bool {
        self.before.next_data(at) != Some(at)
    }

    /// Whether the file is so small, and all of it here, that it goes into its record.
    pub fn fits_inline(&self) -> bool {
        let here = self.before.iter().all(|(_, extent)| extent.source.layer().is_none());
        self.size <= INLINE_BYTES_MAX as u64 && here
    }
}

impl Tree {
    /// Whether any file is ripe.
    pub fn is_ripe(&self) -> bool {
        !self.ripe(self.env.instant(), false, 1).is_empty()
    }

    /// Files to be sealed now, at most `max`; with `all`, whatever is not sealed.
    pub fn ripe(&self, now: Instant, all: bool, max: usize) -> Vec<Ino> {
        let staged: Vec<_> = lock(&self.staged).values().cloned().collect();
        if staged.is_empty() {
            return Vec::new();
        }
        // Without an answer of the disk, sealing can only be too early.
        let stream_bytes = self.journal.available().unwrap_or_default() / STREAM_PART;
        let stream_bytes = stream_bytes.clamp(STREAM_BYTES_MIN, STREAM_BYTES_MAX);
        let ripe = staged.iter().filter(|node| {
            let state = node.read();
            state.row.nlink > 0 && (all || is_ripe(&state, now, stream_bytes))
        });
        ripe.take(max).map(|node| node.ino).collect()
    }

    /// The file as it is to be sealed; none when it is gone or there is nothing left to seal.
    ///
    /// # Errors
    /// Of the index.
    pub fn sealable(&self, ino: Ino) -> Result<Option<SealJob>> {
        let node = match self.node(ino) {
            Err(Error::Posix(Posix::Stale)) => return Ok(None),
            node => node?,
        };
        let job = {
            let state = node.read();
            if state.row.unsealed() == 0 || state.row.kind != Kind::File || state.gone {
                return Ok(None);
            }
            let segments = self.keep_segments(&state.row.extents);
            let streaming = self.env.instant().since(state.written) < QUIET_FOR;
            SealJob {
                node: node.clone(),
                size: state.row.size,
                runs: runs(&state.row.extents),
                streaming,
                before: state.row.extents.clone(),
                segments,
            }
        };
        if !job.streaming {
            self.journal.end_stream(ino.0);
        }
        Ok(Some(job))
    }

    /// Bytes of the file as of the job.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read_sealing(&self, job: &SealJob, range: Range<u64>) -> Result<Vec<u8>> {
        self.assemble(&job.before.pieces(&range), &range)
    }

    /// Says where sealed bytes lie, now that their layers are durable; what was written meanwhile
    /// stays as it is. A job may be told so part by part, and the journal is rid of each part.
    pub fn seal_done(&self, job: &mut SealJob, content: NewContent) {
        let _gate = self.shared();
        let node = job.node.clone();
        let mut state = node.write();
        if state.gone {
            return;
        }
        let extents = &mut state.row.extents;
        match content {
            NewContent::Inline(bytes) => {
                let all = 0..job.size;
                let part =
                    |range: &Range<u64>| bytes[range.start as usize..range.end as usize].to_vec();
                extents.replace_unchanged(&all, &job.before, |now| Source::Bytes(part(now)));
                job.before.cut(all);
            }
            NewContent::Chunks(chunks) => {
                for (range, place) in chunks {
                    extents.replace_unchanged(&range, &job.before, |now| {
                        let skip =
                            u32::try_from(now.start - range.start).expect("a chunk is small");
                        Source::chunk(place, skip)
                    });
                    job.before.cut(range);
                }
            }
        }
        job.segments = self.keep_segments(&job.before);
        // What came meanwhile begins to age now.
        state.dirty_since = state.dirty_since.map(|_| self.env.instant());
        state.sealed = Some(self.env.instant());
        self.restaged(&node, &mut state);
        self.dirtied(&node, &mut state);
    }
}

impl Tree {
    /// Keeps the segments that these stretches lie in, for as long as somebody holds what comes
    /// back.
    fn keep_segments(&self, extents: &Extents) -> Arc<BTreeSet<u32>> {
        let segments = Arc::new(extents.segments().collect());
        lock(&self.sealing).push(Arc::downgrade(&segments));
        segments
    }
}

/// What is to be sealed: what is not, or of a ragged file everything, if that makes it less so.
fn runs(extents: &Extents) -> Vec<Range<u64>> {
    if extents.count() > RAGGED_EXTENTS {
        let whole = extents.data_runs();
        if extents.count() > RAGGED_EXTENTS + 2 * whole.len() {
            return whole;
        }
    }
    extents.unsealed_runs()
}

fn is_ripe(state: &State, now: Instant, stream_bytes: u64) -> bool {
    let since = |at: Instant| now.since(at);
    if state.row.extents.staged() >= stream_bytes {
        return true;
    }
    if state.dirty_since.is_some_and(|at| since(at) >= AGE_MAX) {
        return true;
    }
    let busy = state.sealed.is_some_and(|at| since(at) < LATELY);
    since(state.written) >= if busy { QUIET_FOR_BUSY } else { QUIET_FOR }
}

#[cfg(test)]
mod tests {
    use rdrivefs_remote::env::Env;

    use super::*;
    use crate::journal::Place;
    use crate::record::TimeNs;
    use crate::tree::node::Row;

    const SECOND: u64 = 1_000_000_000;

    fn at(ms: u64) -> Instant {
        Instant(1_000 * SECOND + ms * 1_000_000)
    }

    /// A file with so many staged bytes, last written at `written` and begun at `since`.
    fn file(staged: u64, since: Instant, written: Instant, sealed: Option<Instant>) -> Arc<Node> {
        let mut row = Row::new(Kind::File, 0o644, 0, 0, TimeNs { secs: 0, nanos: 0 });
        let place = Place { segment: 1, at: 0, len: 1 };
        row.extents.put(0, staged, Source::Staged { place, skip: 0 });
        row.size = staged;
        let node = Arc::new(Node::new(Ino(0x100), row, true, Env::real().instant()));
        {
            let mut state = node.write();
            (state.dirty_since, state.written, state.sealed) = (Some(since), written, sealed);
        }
        node
    }

    #[test]
    fn a_file_is_sealed_when_it_is_quiet_and_later_where_it_was_just_sealed() {
        let ripe = |node: &Node, ms| is_ripe(&node.read(), at(ms), STREAM_BYTES_MIN);
        let quiet = file(10_000, at(0), at(0), None);
        assert_eq!([249, 250].map(|ms| ripe(&quiet, ms)), [false, true]);
        let busy = file(10_000, at(20_000), at(20_000), Some(at(15_000)));
        assert_eq!([20_250, 20_999, 21_000].map(|ms| ripe(&busy, ms)), [false, false, true]);
        let calm = file(10_000, at(30_000), at(30_000), Some(at(15_000)));
        assert!(ripe(&calm, 30_250), "that was not lately");
    }

    #[test]
    fn a_file_that_is_never_quiet_is_sealed_for_its_age_or_its_size() {
        let ripe = |node: &Node, ms| is_ripe(&node.read(), at(ms), STREAM_BYTES_MIN);
        let old = file(10_000, at(0), at(30_000), None);
        assert_eq!([29_999, 30_000].map(|ms| ripe(&old, ms)), [false, true]);
        let big = file(STREAM_BYTES_MIN, at(0), at(0), None);
        let less = file(STREAM_BYTES_MIN - 1, at(0), at(0), None);
        assert_eq!([ripe(&big, 1), ripe(&less, 1)], [true, false]);
    }
}
