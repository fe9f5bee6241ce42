//! Uses: which layers were used last, so that others go first.
//!
//! Kept in memory and counted, not timed: after a start all layers are equally old. There are as
//! many entries as layers here that were used, since one that is dropped is forgotten.

use std::collections::HashMap;

use rdrivefs_remote::blob::BlobId;

/// The order of uses since this process began.
#[derive(Debug, Default)]
pub(super) struct Uses {
    count: u64,
    last: HashMap<BlobId, u64>,
}

impl Uses {
    pub(super) fn note(&mut self, id: BlobId) {
        self.count += 1;
        self.last.insert(id, self.count);
    }

    pub(super) fn forget(&mut self, id: &BlobId) {
        self.last.remove(id);
    }

    /// When it was used: larger is later, none is not since the start.
    pub(super) fn last(&self, id: &BlobId) -> Option<u64> {
        self.last.get(id).copied()
    }
}
