//! One layer in the cache: its file, its map, and who is fetching.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use rdrivefs_remote::blob::BlobId;
use rdrivefs_remote::foreground::{CALL_BYTES, breathe};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use crate::cache::layer_ref::LayerRef;
use crate::cache::map::{Map, RANGE_BYTES, inside};
use crate::error::{Error, Result};

/// What is read in one call: the most the kernel asks for at once. Whole layers are read in pieces.
const CALL_BYTES_MAX: usize = 1 << 20;

/// A layer with its file open. Locks: `ahead` (held while fetching, so that no range is fetched
/// twice at once) before `state`.
pub(super) struct Part {
    id: BlobId,
    len: u64,
    paths: Paths,
    ahead: Mutex<ReadAhead>,
    /// Fetches that failed.
    failures: AtomicU64,
    state: RwLock<State>,
}

struct Paths {
    layer: PathBuf,
    part: PathBuf,
    map: PathBuf,
    tree: PathBuf,
}

struct State {
    file: Option<File>,
    map: Map,
    /// Bits are set in memory that the map on disk does not have yet.
    unsaved: bool,
    /// The layer's file has another length than the layer.
    odd: bool,
}

/// How far to fetch ahead: doubled while the reader goes on where it stopped. And how the last fetch
/// failed, if it did for a reason that may pass.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    next: u64,
    window_bytes: u64,
    failed: Option<Error>,
}

impl ReadAhead {
    /// Where the fetch for `missing` should end.
    pub(super) fn window_end(&mut self, missing: &Range<u64>, len: u64, max_bytes: u64) -> u64 {
        let sequential = missing.start == self.next && self.next != 0;
        let grown = (self.window_bytes * 2).clamp(RANGE_BYTES, max_bytes);
        self.window_bytes = if sequential { grown } else { 0 };
        self.next = (missing.end + self.window_bytes).min(len);
        self.next
    }
}

impl Part {
    pub(super) fn open(layer: &LayerRef, path: &dyn Fn(&str) -> PathBuf) -> Result<Self> {
        let paths = Paths {
            layer: path("layer"),
            part: path("part"),
            map: path("map"),
            tree: path("tree"),
        };
        let state = State::open(&paths, layer.len)
            .map_err(Error::io(format!("open layer {}", layer.id)))?;
        Ok(Self {
            id: layer.id,
            len: layer.len,
            paths,
            ahead: Mutex::default(),
            failures: AtomicU64::new(0),
            state: RwLock::new(state),
        })
    }

    /// Waits for the right to fetch. Who waited while another's fetch failed shares its error:
    /// many readers of a remote that is silent wait for it together, not one after the other.
    pub(super) fn begin_fetching(&self) -> Result<MutexGuard<'_, ReadAhead>> {
        let before = self.failures.load(Ordering::Relaxed);
        let mut ahead = self.fetching();
        if self.failures.load(Ordering::Relaxed) == before {
            ahead.failed = None;
        }
        match ahead.failed.as_ref().and_then(Error::again) {
            Some(error) => Err(error),
            None => Ok(ahead),
        }
    }

    /// Notes how a fetch failed.
    pub(super) fn failed(&self, ahead: &mut ReadAhead, error: &Error) {
        ahead.failed = error.again();
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn fetching(&self) -> MutexGuard<'_, ReadAhead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn present_bytes(&self) -> u64 {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        (state.map.count() * RANGE_BYTES).min(self.len)
    }

    /// Whether the layer's file has another length than the layer.
    pub(super) fn is_odd(&self) -> bool {
        self.state.read().unwrap_or_else(PoisonError::into_inner).odd
    }

    /// The bytes of `range` if all of them are here.
    pub(super) fn read_present(&self, range: &Range<u64>) -> Result<Option<Bytes>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if range.end > self.len || range.start > range.end {
            return Err(Error::corrupt(format!("layer {}", self.id), "it is shorter than asked"));
        }
        if state.map.first_missing(range).is_some() {
            return Ok(None);
        }
        let file = state.file.as_ref().expect("what is present has a file");
        let bytes = read_at(file, range).map_err(Error::io(format!("read layer {}", self.id)))?;
        Ok(Some(bytes))
    }

    /// The span of missing ranges that touches `range` first, clamped to the range's end.
    pub(super) fn first_missing(&self, range: &Range<u64>) -> Option<Range<u64>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let first = state.map.first_missing(&(range.start..range.end.min(self.len)))?;
        let start = first * RANGE_BYTES;
        Some(start..range.end.next_multiple_of(RANGE_BYTES).min(self.len))
    }

    /// Whether nothing of `range` is missing, as far as can be told at once.
    pub(super) fn is_known_here(&self, range: &Range<u64>) -> bool {
        let state = self.state.try_read();
        state.is_ok_and(|state| range.end <= self.len && state.map.first_missing(range).is_none())
    }

    /// The missing bytes from `start` on, up to `end` or the first range that is present.
    pub(super) fn run_of_missing(&self, start: u64, end: u64) -> Range<u64> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let mut n = start / RANGE_BYTES;
        while n * RANGE_BYTES < end && !state.map.has(n) {
            n += 1;
        }
        start..(n * RANGE_BYTES).min(self.len)
    }

    /// Writes fetched bytes and marks the ranges they cover; returns the disk bytes they take.
    pub(super) fn fill(&self, start: u64, bytes: &[u8]) -> Result<u64> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let fill = |state: &mut State| -> std::io::Result<u64> {
            let file = state.writable(&self.paths, self.len)?;
            let before = file.metadata()?.blocks();
            file.write_all_at(bytes, start)?;
            Ok((file.metadata()?.blocks().saturating_sub(before)) * 512)
        };
        let grown = fill(&mut state).map_err(Error::io(format!("write layer {}", self.id)))?;
        state.map.set(inside(&(start..start + bytes.len() as u64), self.len), true);
        state.unsaved = true;
        Ok(grown)
    }

    /// Bytes first, then the map that vouches for them; a layer that became whole gets its name.
    pub(super) fn flush(&self) -> Result<()> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if !state.unsaved {
            return Ok(());
        }
        state.save(&self.paths).map_err(Error::io(format!("write map of layer {}", self.id)))
    }

    /// Clears the map durably, then drops the bytes; returns the disk bytes freed.
    pub(super) fn drop_ranges(&self, ranges: &[Range<u64>]) -> Result<u64> {
        let _fetching = self.fetching();
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let mut map = state.map.clone();
        for range in ranges {
            map.set(inside(range, self.len), false);
        }
        if map == state.map {
            return Ok(0);
        }
        state
            .shrink(map, &self.paths, self.len)
            .map_err(Error::io(format!("drop ranges of layer {}", self.id)))
    }
}

impl State {
    fn open(paths: &Paths, len: u64) -> std::io::Result<Self> {
        let open = |path| match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        };
        if let Some(file) = open(&paths.layer)? {
            // What is left of a file that was cut short may be the last copy.
            let left = file.metadata()?.len();
            let mut map = Map::full(len);
            map.keep(&inside(&(0..left), len));
            return Ok(Self { file: Some(file), map, unsaved: false, odd: left != len });
        }
        let file = open(&paths.part)?;
        let mut map = match (&file, fs::read(&paths.map)) {
            (Some(_), Ok(bytes)) => Map::decode(&bytes, len),
            _ => Map::empty(len),
        };
        if let Some(file) = &file {
            map.keep(&inside(&(0..file.metadata()?.len()), len));
            file.set_len(len)?;
        }
        Ok(Self { file, map, unsaved: false, odd: false })
    }

    fn writable(&mut self, paths: &Paths, len: u64) -> std::io::Result<&File> {
        if self.odd {
            write_map(&paths.map, self.map.encode())?;
            fs::rename(&paths.layer, &paths.part)?;
            self.file.as_ref().expect("what is odd has a file").set_len(len)?;
            self.odd = false;
        }
        if self.file.is_none() {
            fs::create_dir_all(paths.part.parent().expect("a cache path has a folder"))?;
            let mut options = OpenOptions::new();
            let file =
                options.read(true).write(true).create(true).truncate(false).open(&paths.part)?;
            file.set_len(len)?;
            self.file = Some(file);
        }
        Ok(self.file.as_ref().expect("it was just opened"))
    }

    fn save(&mut self, paths: &Paths) -> std::io::Result<()> {
        if let Some(file) = &self.file {
            file.sync_data()?;
        }
        write_map(&paths.map, self.map.encode())?;
        if self.map.is_full() && paths.part.exists() {
            fs::rename(&paths.part, &paths.layer)?;
        }
        self.unsaved = false;
        Ok(())
    }

    fn shrink(&mut self, map: Map, paths: &Paths, len: u64) -> std::io::Result<u64> {
        let before = self.blocks();
        let dropped: Vec<u64> =
            (0..len.div_ceil(RANGE_BYTES)).filter(|n| self.map.has(*n) && !map.has(*n)).collect();
        self.map = map;
        if self.map.is_empty() {
            let tree = fs::metadata(&paths.tree).map_or(0, |m| m.blocks());
            // Must: no map outlives the bytes it vouches for.
            if paths.map.exists() {
                remove(&paths.map)?;
                File::open(paths.map.parent().expect("a cache path has a folder"))?.sync_all()?;
            }
            for path in [&paths.layer, &paths.part, &paths.tree] {
                remove(path)?;
            }
            self.file = None;
            (self.unsaved, self.odd) = (false, false);
            return Ok((before + tree) * 512);
        }
        write_map(&paths.map, self.map.encode())?;
        let mut tree = 0;
        if paths.layer.exists() {
            fs::rename(&paths.layer, &paths.part)?;
            tree = fs::metadata(&paths.tree).map_or(0, |m| m.blocks());
            remove(&paths.tree)?;
            self.odd = false;
        }
        File::open(paths.map.parent().expect("a cache path has a folder"))?.sync_all()?;
        let file = self.file.as_ref().expect("what is present has a file");
        for n in dropped {
            let end = ((n + 1) * RANGE_BYTES).min(len);
            punch(file, n * RANGE_BYTES..end)?;
        }
        Ok((tree + before.saturating_sub(self.blocks())) * 512)
    }

    fn blocks(&self) -> u64 {
        self.file.as_ref().and_then(|f| f.metadata().ok()).map_or(0, |m| m.blocks())
    }
}

fn write_map(path: &std::path::Path, bits: &[u8]) -> std::io::Result<()> {
    let temp = path.with_extension("new");
    let mut file = File::create(&temp)?;
    file.write_all(bits)?;
    file.sync_data()?;
    fs::rename(temp, path)
}

fn punch(file: &File, range: Range<u64>) -> std::io::Result<()> {
    use rustix::fs::FallocateFlags as Flags;
    let flags = Flags::PUNCH_HOLE | Flags::KEEP_SIZE;
    Ok(rustix::fs::fallocate(file, flags, range.start, range.end - range.start)?)
}

fn remove(path: &std::path::Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn read_at(file: &File, range: &Range<u64>) -> std::io::Result<Bytes> {
    let len = usize::try_from(range.end - range.start).expect("a layer fits in memory");
    if len > CALL_BYTES_MAX {
        return read_in_pieces(file, range.start, len);
    }
    // No zeros are written first over what is read at once.
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let at = range.start + bytes.len() as u64;
        match rustix::io::pread(file, spare_capacity(&mut bytes), at) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    bytes.truncate(len);
    Ok(bytes.into())
}

fn read_in_pieces(file: &File, start: u64, len: usize) -> std::io::Result<Bytes> {
    let (mut bytes, mut piece) = (Vec::with_capacity(len), vec![0; CALL_BYTES]);
    while bytes.len() < len {
        let piece = &mut piece[..CALL_BYTES.min(len - bytes.len())];
        file.read_exact_at(piece, start + bytes.len() as u64)?;
        bytes.extend_from_slice(piece);
        breathe();
    }
    Ok(bytes.into())
}
