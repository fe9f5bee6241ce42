//! Contents: the plain bytes of chunks, wherever their layers lie.
//!
//! A chunk is found by the index (which layer, which key), its sealed bytes come from the cache or,
//! through it, from a remote, and single blocks of it are opened. For local bytes that do not open
//! a remote is asked, and only what opens takes their place, since what is here may be the last
//! copy; what no remote has right is an error that names the layer and the chunk, never wrong bytes.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rdrivefs_remote::identity::DriveId;

use crate::cache::{Cache, LayerRef, RANGE_BYTES, Source};
use crate::error::{Error, Result};
use crate::index::Index;
use crate::index::layers::{ChunkPlace, LayerNumber};
use crate::layer::LayerReader;
use crate::tree::Chunks;

/// Layers whose tables of contents are held in memory; one of small files takes some 100 KiB.
const READERS_MAX: usize = 64;

/// Opened stretches kept for the next read of the same blocks.
const OPENED_MAX: usize = 64;

/// The longest opened stretch that is kept.
const OPENED_BYTES_MAX: usize = 64 << 10;

/// A layer, a chunk in it, and where in the chunk an opened stretch begins.
type BlockPlace = (i64, u32, u32);

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
    opened: Mutex<Recent<BlockPlace, Arc<Vec<u8>>>>,
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

    /// Where sealed bytes lie here.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// The bytes of the layer that `chunks` lie in, joined where they touch; all of the layer when
    /// these are all its chunks.
    ///
    /// # Errors
    /// Of the index.
    pub fn spans(&self, layer: LayerNumber, chunks: &HashSet<u32>) -> Result<Vec<Range<u64>>> {
        let open = self.open(layer.0)?;
        if chunks.len() >= open.reader.chunk_count() as usize {
            return Ok(Vec::from([0..open.layer.len]));
        }
        let mut spans: Vec<_> =
            chunks.iter().map(|n| open.reader.span(*n)).collect::<Result<_>>()?;
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
            self.cache.fetch(&open.layer, span, &*self.source)?;
        }
        Ok(self.cache.present(&open.layer)?.saturating_sub(before))
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

    fn read_blocks(&self, open: &Open, number: u32, range: Range<u32>) -> Result<Vec<u8>> {
        let span = open.reader.span_of(number, range.clone())?;
        let sealed = self.cache.read(&open.layer, span.clone(), &*self.source)?;
        let first = match open.reader.open(number, range.clone(), &sealed) {
            Ok(opened) => return Ok(opened),
            Err(first) => first,
        };
        tracing::warn!(layer = %open.layer.id, number, "a local chunk does not open: {first}");
        let fresh =
            self.source.fetch(&open.layer, widened(&span, open.layer.len)).map_err(|e| {
                Error::corrupt(
                    format!("chunk {number} of layer {}", open.layer.id),
                    format!("{first}; and no remote has it: {e}"),
                )
            })?;
        let start = (span.start - fresh.start) as usize;
        let sealed = &fresh.bytes[start..start + (span.end - span.start) as usize];
        let opened = open.reader.open(number, range, sealed)?;
        self.cache.mend(&open.layer, &fresh)?;
        Ok(opened)
    }

    /// Whether a chunk can be relied on to have these bytes: it opens to them here, or it is not
    /// here, has their length, and a remote holds it that was not found without it.
    ///
    /// # Errors
    /// Of the index or the disk.
    pub fn has(&self, place: ChunkPlace, plain: &[u8]) -> Result<bool> {
        let (layer, number) = (place.layer, place.number);
        let open = self.open(layer.0)?;
        if open.reader.plain_len(number).ok() != u32::try_from(plain.len()).ok() {
            return Ok(false);
        }
        match self.cache.local(&open.layer, open.reader.span(number)?)? {
            Some(sealed) => {
                let opened = open.reader.open(number, 0..plain.len() as u32, &sealed);
                Ok(opened.is_ok_and(|opened| opened == plain))
            }
            None => Ok(!self.index.holders(layer)?.is_empty()),
        }
    }
}

impl Chunks for Contents {
    fn read(&self, layer: i64, number: u32, range: Range<u32>) -> Result<Vec<u8>> {
        let open = self.open(layer)?;
        let blocks = open.reader.blocks_around(number, range.clone())?;
        let part = |opened: &[u8]| {
            opened[(range.start - blocks.start) as usize..(range.end - blocks.start) as usize]
                .to_vec()
        };
        let place = (layer, number, blocks.start);
        if let Some(opened) = lock(&self.opened).get(&place)
            && opened.len() as u32 == blocks.end - blocks.start
        {
            return Ok(part(&opened));
        }
        let opened = self.read_blocks(&open, number, blocks.clone())?;
        if range == blocks {
            return Ok(opened);
        }
        let bytes = part(&opened);
        if opened.len() <= OPENED_BYTES_MAX {
            lock(&self.opened).put(place, Arc::new(opened));
        }
        Ok(bytes)
    }

    fn is_here(&self, layer: i64, number: u32, range: Range<u32>) -> bool {
        let has = |open: Open| {
            let blocks = open.reader.blocks_around(number, range).ok()?;
            let span = open.reader.span_of(number, blocks).ok()?;
            Some(self.cache.is_known_here(&open.layer, &span))
        };
        self.open(layer).ok().and_then(has).unwrap_or(false)
    }
}

/// The few things used last. Looking is linear, which is quick as long as they are few.
struct Recent<K, V> {
    max: usize,
    tick: u64,
    all: HashMap<K, (u64, V)>,
}

impl<K: std::hash::Hash + Eq + Copy, V: Clone> Recent<K, V> {
    fn new(max: usize) -> Self {
        Self { max, tick: 0, all: HashMap::new() }
    }

    fn get(&mut self, key: &K) -> Option<V> {
        self.tick += 1;
        let (used, value) = self.all.get_mut(key)?;
        *used = self.tick;
        Some(value.clone())
    }

    fn put(&mut self, key: K, value: V) {
        self.tick += 1;
        if self.all.len() >= self.max && !self.all.contains_key(&key) {
            let oldest = self.all.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key);
            oldest.map(|key| self.all.remove(&key));
        }
        self.all.insert(key, (self.tick, value));
    }
}

/// The ranges of the cache's map that a span touches: dropping works on whole ones.
fn widened(span: &Range<u64>, len: u64) -> Range<u64> {
    let start = span.start / RANGE_BYTES * RANGE_BYTES;
    start..span.end.next_multiple_of(RANGE_BYTES).min(len)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
