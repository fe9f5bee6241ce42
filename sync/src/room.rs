//! Room: what goes from the cache first when something must.
//!
//! Whole layers, least recently used first; those not used since the start come before all others,
//! oldest first. A layer that a pinned path lies in stays. Whether a layer may go is the evictor's
//! to say; how much should go, and when, is decided above.

use std::sync::Arc;

use crate::cache::{Cache, LayerRef};
use crate::error::Result;
use crate::evict::{Evicted, Evictor, Want};
use crate::index::Index;
use crate::index::layers::LayerNumber;
use crate::progress::Progress;
use crate::report::DrivePath;
use crate::tree::Tree;
use crate::walk::{Chunks, chunks_of, walk};

/// Layers proven and dropped in one step, at most.
const STEP_LAYERS: usize = 64;

/// Makes room in the cache.
pub struct Room {
    index: Arc<Index>,
    cache: Arc<Cache>,
    tree: Arc<Tree>,
    evictor: Arc<Evictor>,
}

impl Room {
    /// Room in this cache.
    pub fn new(
        index: Arc<Index>,
        cache: Arc<Cache>,
        tree: Arc<Tree>,
        evictor: Arc<Evictor>,
    ) -> Self {
        Self { index, cache, tree, evictor }
    }

    /// Frees at least so many disk bytes, or all that may go; `tell` hears of each step.
    ///
    /// # Errors
    /// Of the index or the disk, or when cancelled.
    pub async fn make(
        &self,
        bytes: u64,
        dry_run: bool,
        progress: &Progress,
        tell: &mut (dyn FnMut(Evicted) -> Result<()> + Send),
    ) -> Result<u64> {
        let mut left = tokio::task::block_in_place(|| self.order(progress))?.into_iter();
        let mut freed = 0;
        while freed < bytes {
            progress.check()?;
            let step = self.step(&mut left, bytes - freed)?;
            if step.is_empty() {
                break;
            }
            let evicted = self.evictor.evict(step, dry_run, progress).await?;
            freed += evicted.bytes;
            tell(evicted)?;
        }
        Ok(freed)
    }

    /// The layers that may be asked for, those to go first in front.
    fn order(&self, progress: &Progress) -> Result<Vec<LayerNumber>> {
        let pinned = self.pinned(progress)?;
        let mut layers = Vec::new();
        for (id, used) in self.cache.layers()? {
            let number = self.index.layer_number(&id)?;
            layers.extend(number.filter(|n| !pinned.contains_key(n)).map(|number| (used, number)));
        }
        layers.sort_unstable();
        Ok(layers.into_iter().map(|(_, number)| number).collect())
    }

    /// The chunks that pinned paths lie in, wherever else these may be used too.
    ///
    /// # Errors
    /// Of the index, or when cancelled.
    pub fn pinned(&self, progress: &Progress) -> Result<Chunks> {
        let mut chunks = Chunks::new();
        walk(&self.tree, &DrivePath(b"/".to_vec()), &mut |found| {
            if found.pinned {
                chunks_of(&found.row, &mut chunks);
            }
            progress.check()
        })?;
        Ok(chunks)
    }

    /// The next layers, as many as hold `bytes`.
    fn step(&self, left: &mut impl Iterator<Item = LayerNumber>, bytes: u64) -> Result<Vec<Want>> {
        let (mut step, mut held) = (Vec::new(), 0);
        while held < bytes && step.len() < STEP_LAYERS {
            let Some(number) = left.next() else { break };
            // One that was collected since it was listed is gone already.
            let Some(row) = self.index.layer_if_any(number)? else { continue };
            let layer = LayerRef { id: row.id, len: row.len };
            held += self.cache.present(&layer)?;
            step.push(Want { number, layer, ranges: Vec::from([0..row.len]) });
        }
        Ok(step)
    }
}
