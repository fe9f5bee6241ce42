//! The tree held still, to be looked at as a whole.

use std::collections::BTreeSet;
use std::sync::RwLockWriteGuard;

use crate::error::Result;
use crate::id::Ino;
use crate::index::layers::LayerNumber;
use crate::tree::core::Tree;
use crate::tree::node::Row;

/// Rows read in one step.
const STEP: usize = 1_024;

/// While this is held nothing changes, and the index has everything.
pub struct Still<'a> {
    tree: &'a Tree,
    _alone: RwLockWriteGuard<'a, ()>,
}

impl Tree {
    /// Holds the tree still, everything written into the index.
    ///
    /// # Errors
    /// Of the index.
    pub fn still(&self) -> Result<Still<'_>> {
        let alone = self.alone();
        self.flush_alone()?;
        Ok(Still { tree: self, _alone: alone })
    }
}

impl Still<'_> {
    /// Those of `layers` that no file refers to, files without a name included. Reads every row.
    ///
    /// # Errors
    /// Of the index.
    pub fn unreferenced(&self, mut layers: BTreeSet<LayerNumber>) -> Result<BTreeSet<LayerNumber>> {
        let index = &self.tree.index;
        // Kept as signed numbers, so the least comes before all.
        let mut after = Ino(1 << 63);
        while !layers.is_empty() {
            let step = index.nodes_after(after, STEP)?;
            let Some(last) = step.last() else { break };
            after = *last;
            for ino in step {
                let Some(row) = index.node(ino)? else { continue };
                for (_, extent) in Row::decode(ino, &row)?.extents.iter() {
                    extent.source.layer().map(|layer| layers.remove(&layer));
                }
            }
        }
        Ok(layers)
    }
}
