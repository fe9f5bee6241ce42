//! Collecting: layers that no commit has named and no file refers to any more.
//!
//! A file that is removed or written anew after it was sealed, and before anybody was told, leaves
//! such layers behind. They are looked for only when room is short, since every file's row is read.
//!
//! Must: the index forgets a layer, durably, before its bytes go; a crash in between leaves bytes
//! that nobody knows of, never a reference to nothing. Any error ends it with nothing removed.
//! Layers that others know of are not collected here.

use std::collections::BTreeSet;

use crate::cache::{Cache, LayerRef};
use crate::error::Result;
use crate::index::Index;
use crate::index::layers::LayerNumber;
use crate::tree::Tree;

/// Removes such layers; returns the disk bytes freed. The caller sees to it that nobody seals.
///
/// # Errors
/// Of the index or the disk.
pub(super) fn collect(index: &Index, cache: &Cache, tree: &Tree) -> Result<u64> {
    let unnamed = index.layers_unpublished(usize::MAX >> 1)?;
    if unnamed.is_empty() {
        return Ok(0);
    }
    let mut gone = Vec::new();
    {
        let still = tree.still()?;
        for number in still.unreferenced(unnamed.into_iter().collect::<BTreeSet<LayerNumber>>())? {
            let row = index.layer(number)?;
            gone.push((number, LayerRef { id: row.id, len: row.len }));
        }
        gone.iter().try_for_each(|(number, _)| index.remove_layer(*number))?;
        index.commit()?;
        index.make_durable()?;
    }
    let mut freed = 0;
    for (_, layer) in gone {
        freed += cache.evict(&layer, &[0..layer.len])?;
    }
    Ok(freed)
}
