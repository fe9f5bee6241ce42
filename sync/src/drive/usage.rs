//! How much of what there is, for `status`: counted from the index and the cache, never by asking
//! a remote.

use std::collections::HashSet;

use crate::error::Result;
use crate::id::Ino;
use crate::index::layers::RemoteNumber;
use crate::record::Kind;
use crate::report::{CacheUse, TreeUse};
use crate::tree::node::Row;

use super::kept::kept;
use super::parts::{Drive, rule};

/// Files whose sizes are added up: each row has to be opened, and `status` is to answer at once.
const SUMMED_FILES_MAX: u64 = 20_000;

/// Rows read in one step.
const STEP: usize = 1_024;

impl Drive {
    pub(super) fn tree_use(&self) -> Result<TreeUse> {
        let index = &self.parts.index;
        let layer_bytes = index.with(|db| {
            db.query_row("SELECT coalesce(sum(len), 0) FROM layer", [], |row| row.get(0))
        })?;
        let files = index.node_count()?;
        let bytes = (files <= SUMMED_FILES_MAX).then(|| self.content_bytes()).transpose()?;
        Ok(TreeUse { files, bytes, layer_bytes })
    }

    pub(super) fn cache_use(&self) -> Result<CacheUse> {
        let kept = kept(&self.home.cache_dir())?;
        let proven = self.proven_layers()?;
        let proven_bytes =
            kept.iter().filter(|(id, _)| proven.contains(id.as_bytes())).map(|(_, k)| k.disk_bytes);
        Ok(CacheUse {
            bytes: self.parts.cache.bytes_used(),
            bytes_max: Some(self.config.cache_size.0),
            pinned_bytes: None,
            proven_bytes: proven_bytes.sum(),
            layers: kept.len() as u64,
        })
    }

    /// Bytes of layers that some remote holds, and none whose audit would let them be evicted.
    pub(super) fn unproven_bytes(&self) -> Result<u64> {
        let audited = self.audited_list()?;
        self.parts.index.with(|db| {
            let query = format!(
                "SELECT coalesce(sum(len), 0) FROM layer WHERE number IN (SELECT layer FROM held)
                 AND number NOT IN (SELECT layer FROM held WHERE remote IN ({audited}))"
            );
            db.query_row(&query, [], |row| row.get(0))
        })
    }

    /// The remotes whose newest audit is clean, fresh and large enough to evict on.
    pub(super) fn audited(&self) -> Result<Vec<RemoteNumber>> {
        let rule = rule(&self.config);
        let samples = crate::verify::samples_for(rule.confidence, rule.loss);
        let now = self.parts.env.wall_ms();
        let mut fresh = Vec::new();
        for remote in self.parts.remotes.all() {
            let audit = self.parts.index.newest_audit(remote.number, samples)?;
            if audit.is_some_and(|audit| audit.is_fresh(now, rule.audit_age_ms)) {
                fresh.push(remote.number);
            }
        }
        Ok(fresh)
    }

    fn content_bytes(&self) -> Result<u64> {
        let (mut bytes, mut after) = (0, Ino(0));
        loop {
            let step = self.parts.index.nodes_after(after, STEP)?;
            let Some(last) = step.last() else { return Ok(bytes) };
            after = *last;
            for ino in step {
                // A file that goes away meanwhile counts for nothing.
                let size = |row: Row| if row.kind == Kind::File { row.size } else { 0 };
                bytes += self.parts.tree.row(ino).map_or(0, size);
            }
        }
    }

    fn proven_layers(&self) -> Result<HashSet<[u8; 32]>> {
        let audited = self.audited_list()?;
        self.parts.index.with(|db| {
            let query = format!(
                "SELECT id FROM layer
                 WHERE number IN (SELECT layer FROM held WHERE remote IN ({audited}))"
            );
            db.prepare(&query)?.query_map([], |row| row.get(0))?.collect()
        })
    }

    /// The numbers of [`Drive::audited`] as SQL takes them.
    fn audited_list(&self) -> Result<String> {
        let numbers: Vec<String> =
            self.audited()?.iter().map(|remote| remote.0.to_string()).collect();
        Ok(numbers.join(","))
    }
}
