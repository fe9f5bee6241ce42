//! The end of the log: which positions were given out, which are durable, which are confirmed.
//!
//! A position is confirmed when its record is durable, and every record before it, and all data
//! that any of them names: what is confirmed is a whole prefix, so replay never has to choose
//! between a confirmed record and an earlier one whose data was lost.

use std::collections::VecDeque;
use std::sync::Arc;

use super::place::Run;
use super::segment::Segment;

/// What the log's lock protects; the lock is taken before any segment's.
pub(super) struct Log {
    /// Where records go.
    pub(super) segment: Arc<Segment>,
    /// The next record's position.
    pub(super) next: u64,
    /// The last position whose record is durable.
    pub(super) durable: u64,
    /// The last position that is confirmed.
    pub(super) confirmed: u64,
    /// Ends of records in `segment` not known durable, with their positions.
    ends: VecDeque<(u64, u64)>,
    /// Records not yet confirmed that name data.
    naming: VecDeque<(u64, Vec<Run>)>,
}

impl Log {
    /// The log goes on in `segment` with the record `next`; all before it is confirmed.
    pub(super) fn new(segment: Arc<Segment>, next: u64) -> Self {
        let confirmed = next - 1;
        let (ends, naming) = (VecDeque::new(), VecDeque::new());
        Self { segment, next, durable: confirmed, confirmed, ends, naming }
    }

    /// The last position given out.
    pub(super) fn last(&self) -> u64 {
        self.next - 1
    }

    /// The next record was appended and ends there. Returns its position.
    pub(super) fn appended(&mut self, end: u64, runs: Vec<Run>) -> u64 {
        let position = self.next;
        self.next += 1;
        self.ends.push_back((end, position));
        if !runs.is_empty() {
            self.naming.push_back((position, runs));
        }
        position
    }

    /// The segment `of` is durable before `offset`.
    pub(super) fn reached(&mut self, of: &Arc<Segment>, offset: u64) {
        // Another segment was made durable in whole before the log went on.
        while Arc::ptr_eq(of, &self.segment)
            && self.ends.front().is_some_and(|(end, _)| *end <= offset)
        {
            self.durable = self.ends.pop_front().map_or(self.durable, |(_, position)| position);
        }
    }

    /// Goes on in the next segment, all of this one being durable.
    pub(super) fn roll(&mut self, next: Arc<Segment>) {
        self.segment = next;
        self.ends.clear();
        self.durable = self.last();
    }

    /// How many unconfirmed records name data.
    pub(super) fn naming_len(&self) -> usize {
        self.naming.len()
    }

    /// What records up to `upto` name and may not be durable.
    pub(super) fn named(&self, upto: u64) -> Vec<Run> {
        let naming = self.naming.iter().take_while(|(position, _)| *position <= upto);
        naming.flat_map(|(_, runs)| runs.iter().copied()).collect()
    }

    /// Confirms as much as is durable, the data being so where `durable` says. Returns whether
    /// that is news.
    pub(super) fn confirm(&mut self, durable: impl Fn(&Run) -> bool) -> bool {
        let before = self.confirmed;
        while let Some((position, runs)) = self.naming.front() {
            if *position > self.durable || !runs.iter().all(&durable) {
                self.confirmed = self.confirmed.max(self.durable.min(position - 1));
                return self.confirmed > before;
            }
            self.naming.pop_front();
        }
        self.confirmed = self.confirmed.max(self.durable);
        self.confirmed > before
    }
}
