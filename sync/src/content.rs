//! Contents: the plain bytes of chunks, wherever their layers lie.
//!
//! A chunk is found by the index (which layer, which key), its sealed bytes come from the cache or,
//! through it, from a remote, and single blocks of it are opened. Local bytes that do not open are
//! dropped and asked for once more from a remote; what still does not open is an error that names
//! the layer and the chunk, never wrong bytes.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rdrivefs_remote::identity::DriveId;

use crate::cache::{Cache, LayerRef, Source};
use crate::error::{Error, Result};
use crate::index::Index;
use crate::index::layers::LayerNumber;
use crate::layer::LayerReader;
use crate::tree::Chunks;

/// Layers whose tables of contents are held in memory; one of small files takes some 100 KiB.
const READERS_MAX: usize = 64;

/// Opened stretches kept for the next read of the same blocks, each up to 64 KiB.
const OPENED_MAX: usize = 64;

/// A layer ready to be read.
#[derive(Clone)]
struct Open {
    layer: LayerRef,
    reader: Arc<LayerReader>,
}

/// Reads chunks. Locks: each map for itself, never over reading or opening.
pub struct Contents {
    drive: DriveId,
    index: Arc<Index>,
    cache: Arc<Cache>,
    source: Arc<dyn Source>,
    readers: Mutex<Recent<i64, Open>>,
    opened: Mutex<Recent<(i64, u32, u32), Arc<Vec<u8>>>>,
}

impl Contents {
    /// Contents over these parts.
    pub fn new(
        drive: DriveId,
        index: Arc<Index>,
        cache: Arc<Cache>,
        source: Arc<dyn Source>,
    ) -> Self {
        Self {
            drive,
            index,
            cache,
            source,
            readers: Mutex::new(Recent::new(READERS_MAX)),
            opened: Mutex::new(Recent::new(OPENED_MAX)),
        }
    }

    /// The bytes of the layer that `chunks` lie in, joined where they touch; all of the layer when
    /// these are all its chunks.
    ///
    /// # Errors
    /// Of the index.
    pub fn spans(&self, layer: LayerNumber, chunks: &HashSet<u32>) -> Result<Vec<Range<u64>>> {
        let open = self.open(layer.0)?;
        if chunks.len() >= open.reader.chunk_count() as usize {
            return Ok(vec![0..open.layer.len]);
        }
        let mut spans: Vec<_> = chunks.iter().map(|n| open.reader.span(*n)).collect::<Result<_>>()?;
        spans.sort_by_key(|span| span.start);
        let mut joined: Vec<Range<u64>> = Vec::with_capacity(spans.len());
        for span in spans {
            match joined.last_mut() {
                Some(last) if last.end >= span.start => last.end = last.end.max(span.end),
                _ => joined.push(span),
            }
        }
        Ok(joined)
    }

    /// Brings the sealed bytes of these chunks into the cache.
    ///
    /// # Errors
    /// Of the index, the cache or the source.
    pub fn fetch(&self, layer: LayerNumber, chunks: &HashSet<u32>) -> Result<u64> {
        let open = self.open(layer.0)?;
        let before = self.cache.present(&open.layer)?;
        for span in self.spans(layer, chunks)? {
            self.cache.read(&open.layer, span, &*self.source)?;
        }
        Ok(self.cache.present(&open.layer)? - before)
    }

    fn open(&self, number: i64) -> Result<Open> {
        if let Some(open) = lock(&self.readers).get(&number) {
            return Ok(open);
        }
        let row = self.index.layer(LayerNumber(number))?;
        let layer = LayerRef { id: row.id, len: row.len };
        let reader = row.secret.reader(&self.drive)?;
        let open = Open { layer, reader: Arc::new(reader) };
        lock(&self.readers).put(number, open.clone());
        Ok(open)
    }

    fn read_blocks(&self, open: &Open, number: u32, blocks: Range<u32>) -> Result<Vec<u8>> {
        let span = open.reader.span_of(number, blocks.clone())?;
        let sealed = self.cache.read(&open.layer, span.clone(), &*self.source)?;
        let Err(first) = open.reader.open(number, blocks.clone(), &sealed) else {
            return open.reader.open(number, blocks, &sealed);
        };
        tracing::warn!(layer = %open.layer.id, number, "a local chunk does not open: {first}");
        self.cache.evict(&open.layer, &[widened(&span, open.layer.len)])?;
        let again = self.cache.read(&open.layer, span, &*self.source).map_err(|e| {
            Error::corrupt(
                format!("chunk {number} of layer {}", open.layer.id),
                format!("{first}; and no remote has it: {e}"),
            )
        })?;
        open.reader.open(number, blocks, &again)
    }
}

impl Chunks for Contents {
    fn read(&self, layer: i64, number: u32, range: Range<u32>) -> Result<Vec<u8>> {
        let open = self.open(layer)?;
        let blocks = open.reader.blocks_around(number, range.clone())?;
        let single = (layer, number, blocks.start);
        if let Some(opened) = lock(&self.opened).get(&single) {
            if let Some(bytes) = cut(&opened, &range, blocks.start) {
                return Ok(bytes);
            }
        }
        let opened = self.read_blocks(&open, number, blocks.clone())?;
        let bytes = cut(&opened, &range, blocks.start).ok_or_else(|| {
            Error::corrupt(format!("chunk {number} of layer {}", open.layer.id), "it is shorter")
        })?;
        if bytes.len() < opened.len() && opened.len() <= 64 << 10 {
            lock(&self.opened).put(single, Arc::new(opened));
        }
        Ok(bytes)
    }
}
