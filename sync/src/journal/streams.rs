//! Which data segment a stream is staged into.
//!
//! Streams share a segment until they have grown big; then each has its own, so that making one
//! durable does not wait for another's ten gigabytes. Which is why the sharing stops early.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::error::Result;

use super::segment::Segment;

/// Streams that are remembered; the one longest unused starts afresh. Bounds open files too.
const STREAMS_MAX: usize = 128;
/// Full segments that need not be durable yet: what a crash takes, and files kept open for it.
const BEHIND_MAX: usize = 8;

/// The segments that are being staged into.
#[derive(Default)]
pub(super) struct Streams {
    shared: Option<Arc<Segment>>,
    by_stream: HashMap<u64, Stream>,
    clock: u64,
    /// Closed, in the order they were, and perhaps not durable.
    behind: VecDeque<Arc<Segment>>,
}

#[derive(Default)]
struct Stream {
    bytes: u64,
    own: Option<Arc<Segment>>,
    used: u64,
}

impl Streams {
    /// The segment that `bytes` more of `stream` go to: the one in use, unless it turned out to be
    /// `full`, else one that `create` makes.
    pub(super) fn segment(
        &mut self,
        (stream, bytes): (u64, u64),
        shared_bytes_max: u64,
        full: Option<&Arc<Segment>>,
        create: impl FnOnce() -> Result<Arc<Segment>>,
    ) -> Result<Arc<Segment>> {
        if !self.by_stream.contains_key(&stream) && self.by_stream.len() >= STREAMS_MAX {
            let oldest = self.by_stream.iter().min_by_key(|(_, known)| known.used);
            let oldest = oldest.map(|(stream, _)| *stream);
            oldest.into_iter().for_each(|stream| self.end(stream));
        }
        self.clock += 1;
        let known = self.by_stream.entry(stream).or_default();
        known.used = self.clock;
        known.bytes = known.bytes.saturating_add(bytes);
        let slot = if known.bytes > shared_bytes_max { &mut known.own } else { &mut self.shared };
        match slot {
            Some(open) if !full.is_some_and(|full| Arc::ptr_eq(full, open)) => Ok(open.clone()),
            _ => {
                let made = create()?;
                if let Some(full) = slot.replace(made.clone()) {
                    full.close();
                    self.behind.push_back(full);
                }
                Ok(made)
            }
        }
    }

    /// No more will come from the stream.
    pub(super) fn end(&mut self, stream: u64) {
        if let Some(own) = self.by_stream.remove(&stream).and_then(|known| known.own) {
            own.close();
            self.behind.push_back(own);
        }
    }

    /// Nobody wants what came from the stream: its segment need not be made durable for being full.
    pub(super) fn forget(&mut self, stream: u64) {
        if let Some(own) = self.by_stream.remove(&stream).and_then(|known| known.own) {
            own.close();
        }
    }

    /// Lets go of segments that are no part of the journal any more, or their files would keep the
    /// disk's room.
    pub(super) fn forget_segments(&mut self, gone: &[Arc<Segment>]) {
        let is_gone = |one: &Arc<Segment>| gone.iter().any(|other| Arc::ptr_eq(one, other));
        self.shared.take_if(|shared| is_gone(shared));
        self.by_stream.values_mut().for_each(|known| drop(known.own.take_if(|own| is_gone(own))));
        self.behind.retain(|behind| !is_gone(behind));
    }

    /// A segment whose turn has come to be made durable.
    pub(super) fn behind(&mut self) -> Option<Arc<Segment>> {
        if self.behind.len() > BEHIND_MAX { self.behind.pop_front() } else { None }
    }
}
