//! The cache: sealed layers kept on this computer, whole or in part.
//!
//! A layer lies in the cache as the very bytes a remote holds, so addressing is the same here and
//! there. `ID.layer` is whole, `ID.part` is sparse and `ID.map` says which of its ranges are
//! present; `ID.tree` is the outboard of a whole layer.
//!
//! Must: a bit of the map is set only after `fdatasync` of the range, and cleared durably before
//! the range is dropped; a whole layer appears under its name only when it is durable. What comes
//! from elsewhere arrives here already verified against the layer's id. The cache neither decides
//! what may be dropped nor opens what it keeps.

mod layer_ref;
mod map;
mod part;
mod uses;

use std::collections::HashMap;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rdrivefs_remote::blob::BlobId;
use rdrivefs_remote::foreground;
use rdrivefs_remote::proof::{Outboard, Verified};

pub use crate::cache::map::RANGE_BYTES;
use crate::cache::part::Part;
use crate::cache::uses::Uses;

pub use crate::cache::layer_ref::{LayerRef, Source};
use crate::error::{Error, Posix, Result};

/// Layer files held open at once, far below the usual limit of 1,024 descriptors.
const OPEN_FILES_MAX: usize = 128;

/// The most a sequential reader has fetched ahead of it.
const AHEAD_BYTES_MAX: u64 = 4 << 20;

/// Sealed layers on this computer's disk. Locks: `parts` before the inside of a [`Part`], `uses` by
/// itself; none is held by a caller.
pub struct Cache {
    dir: PathBuf,
    /// Layers in use; a bounded set of open files.
    parts: Mutex<HashMap<BlobId, Arc<Part>>>,
    uses: Mutex<Uses>,
    /// Disk bytes in use, maps aside, kept in step without asking the disk again.
    used_bytes: AtomicU64,
}

impl Cache {
    /// Opens the cache in `dir`, clearing away what a crash left half made.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).map_err(Error::io(format!("create {}", dir.display())))?;
        let used = sweep(dir).map_err(Error::io(format!("read {}", dir.display())))?;
        let used_bytes = AtomicU64::new(used);
        Ok(Self {
            dir: dir.to_owned(),
            parts: Mutex::default(),
            uses: Mutex::default(),
            used_bytes,
        })
    }

    /// Disk bytes the cache takes.
    pub fn bytes_used(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// The layers of which something is here, each with the number of its last use: larger is later,
    /// none is not since this cache was opened.
    ///
    /// # Errors
    /// Of the disk.
    pub fn layers(&self) -> Result<Vec<(BlobId, Option<u64>)>> {
        let ids = ids(&self.dir).map_err(Error::io(format!("read {}", self.dir.display())))?;
        let uses = self.uses();
        Ok(ids.into_iter().map(|id| (id, uses.last(&id))).collect())
    }

    /// Keeps a whole layer; durable when this returns.
    ///
    /// # Errors
    /// When the disk refuses; nothing is visible then.
    pub fn keep(&self, id: BlobId, bytes: &[u8], outboard: &Outboard) -> Result<()> {
        let path = self.path(id, "layer");
        let folder = path.parent().expect("a cache path has a folder");
        let what = || format!("write layer {id}");
        let keep = || -> std::io::Result<u64> {
            if !folder.exists() {
                fs::create_dir_all(folder)?;
                File::open(&self.dir)?.sync_all()?;
            }
            let tree = write_durably(&self.path(id, "tree"), &outboard.encode())?;
            let layer = write_durably(&path, bytes)?;
            File::open(folder)?.sync_all()?;
            Ok(tree + layer)
        };
        let written = keep().map_err(Error::io(what()))?;
        self.used_bytes.fetch_add(written, Ordering::Relaxed);
        self.uses().note(id);
        self.lock().remove(&id);
        Ok(())
    }

    /// The bytes of `range`, fetched from `source` where they are not here. A full disk keeps
    /// nothing of it, and keeps nobody from reading.
    ///
    /// # Errors
    /// Of the disk, or of the source.
    pub fn read(&self, layer: &LayerRef, range: Range<u64>, source: &dyn Source) -> Result<Bytes> {
        match self.fetch(layer, range.clone(), source) {
            Err(Error::Posix(Posix::NoSpace)) => passed_on(layer, range, source),
            other => other,
        }
    }

    /// As [`Cache::read`], for those who want the bytes to be here then.
    ///
    /// # Errors
    /// As [`Cache::read`]; [`Posix::NoSpace`].
    pub fn fetch(&self, layer: &LayerRef, range: Range<u64>, source: &dyn Source) -> Result<Bytes> {
        let part = self.part(layer)?;
        self.uses().note(layer.id);
        if let Some(bytes) = part.read_present(&range)? {
            return Ok(bytes);
        }
        let mut ahead = match part.begin_fetching() {
            Ok(ahead) => ahead,
            // What is missing here may be there by now all the same.
            Err(error) => return part.read_present(&range)?.ok_or(error),
        };
        while let Some(missing) = part.first_missing(&range) {
            let end = ahead.window_end(&missing, layer.len, AHEAD_BYTES_MAX);
            let wanted = part.run_of_missing(missing.start, end);
            let fetched = source.fetch(layer, wanted);
            let verified = fetched.inspect_err(|e| part.failed(&mut ahead, e))?;
            let grown = part.fill(verified.start, &verified.bytes)?;
            self.used_bytes.fetch_add(grown, Ordering::Relaxed);
        }
        // Nothing is dropped while `ahead` is held, so what was fetched is still there.
        let bytes = part.read_present(&range)?;
        drop(ahead);
        bytes
            .ok_or_else(|| Error::corrupt(format!("layer {}", layer.id), "a fetched range is gone"))
    }

    /// The whole layer, if all of it is here.
    ///
    /// # Errors
    /// Of the disk.
    pub fn whole(&self, layer: &LayerRef) -> Result<Option<Bytes>> {
        self.local(layer, 0..layer.len)
    }

    /// Whether all bytes of `range` are sure to be here: waits for nobody, and so does not know of a
    /// layer that is not in use, or just being changed.
    pub fn is_known_here(&self, layer: &LayerRef, range: &Range<u64>) -> bool {
        let Ok(parts) = self.parts.try_lock() else { return false };
        parts.get(&layer.id).is_some_and(|part| part.is_known_here(range))
    }

    /// The bytes of `range`, if all of them are here.
    ///
    /// # Errors
    /// Of the disk.
    pub fn local(&self, layer: &LayerRef, range: Range<u64>) -> Result<Option<Bytes>> {
        self.part(layer)?.read_present(&range)
    }

    /// Writes verified bytes over what is here and was found damaged.
    ///
    /// # Errors
    /// Of the disk.
    pub fn mend(&self, layer: &LayerRef, verified: &Verified) -> Result<()> {
        let grown = self.part(layer)?.fill(verified.start, &verified.bytes)?;
        self.used_bytes.fetch_add(grown, Ordering::Relaxed);
        Ok(())
    }

    /// How many bytes of the layer are here.
    ///
    /// # Errors
    /// Of the disk.
    pub fn present(&self, layer: &LayerRef) -> Result<u64> {
        if !self.path(layer.id, "layer").exists() && !self.path(layer.id, "map").exists() {
            let known = self.lock().get(&layer.id).cloned();
            return Ok(known.map_or(0, |part| part.present_bytes()));
        }
        Ok(self.part(layer)?.present_bytes())
    }

    /// Drops `ranges` of the layer (all of it when they cover it) and returns the bytes freed.
    /// Only whole map ranges inside a given range go. That they may go was decided above.
    ///
    /// # Errors
    /// Of the disk.
    pub fn evict(&self, layer: &LayerRef, ranges: &[Range<u64>]) -> Result<u64> {
        let part = self.part(layer)?;
        let freed = part.drop_ranges(ranges)?;
        self.used_bytes.fetch_sub(freed.min(self.bytes_used()), Ordering::Relaxed);
        let mut parts = self.lock();
        // Besides the map and this, nobody has it: who is about to fetch into it must find it again.
        if part.present_bytes() == 0 && Arc::strong_count(&part) == 2 {
            parts.remove(&layer.id);
            drop(parts);
            self.uses().forget(&layer.id);
        }
        Ok(freed)
    }

    /// Makes the maps of what was fetched durable, after the bytes themselves.
    ///
    /// # Errors
    /// Of the disk; what was not written is fetched again after a crash.
    pub fn flush(&self) -> Result<()> {
        let parts: Vec<_> = self.lock().values().cloned().collect();
        parts.iter().try_for_each(|part| part.flush())
    }

    /// Checks a whole layer against its id, reading every byte.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the layer; or of the disk.
    pub fn check(&self, layer: &LayerRef) -> Result<bool> {
        let damaged =
            |why: &str| Err(Error::corrupt(format!("layer {} in the cache", layer.id), why));
        if self.part(layer)?.is_odd() {
            return damaged("its length differs");
        }
        match self.whole(layer)? {
            None => Ok(false),
            Some(bytes) if BlobId::of(&bytes) == layer.id => Ok(true),
            Some(_) => damaged("hash differs"),
        }
    }

    fn part(&self, layer: &LayerRef) -> Result<Arc<Part>> {
        let mut parts = self.lock();
        if let Some(part) = parts.get(&layer.id) {
            return Ok(part.clone());
        }
        if parts.len() >= OPEN_FILES_MAX {
            let idle = |part: &Arc<Part>| Arc::strong_count(part) == 1;
            let gone: Vec<_> = parts.iter().filter(|(_, p)| idle(p)).map(|(id, _)| *id).collect();
            for id in gone.into_iter().take(OPEN_FILES_MAX / 2) {
                let part = parts.remove(&id).expect("it was just listed");
                part.flush()?;
            }
        }
        let part = Arc::new(Part::open(layer, &|kind| self.path(layer.id, kind))?);
        parts.insert(layer.id, part.clone());
        Ok(part)
    }

    fn path(&self, id: BlobId, kind: &str) -> PathBuf {
        let name = id.to_string();
        self.dir.join(&name[..2]).join(format!("{name}.{kind}"))
    }

    fn uses(&self) -> std::sync::MutexGuard<'_, Uses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<BlobId, Arc<Part>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of `range` from `source`, of which nothing is kept.
fn passed_on(layer: &LayerRef, range: Range<u64>, source: &dyn Source) -> Result<Bytes> {
    let range = range.start..range.end.min(layer.len);
    let verified = source.fetch(layer, range.clone())?;
    let from = |at: u64| usize::try_from(at - verified.start).expect("a layer fits in memory");
    Ok(verified.bytes.slice(from(range.start)..from(range.end)))
}

/// Writes a file under its name only once it is durable; returns the disk bytes it takes.
fn write_durably(path: &Path, bytes: &[u8]) -> std::io::Result<u64> {
    let temp = path.with_extension("new");
    let write = || -> std::io::Result<u64> {
        let mut file = File::create(&temp)?;
        foreground::write_all(&mut file, bytes)?;
        file.sync_data()?;
        fs::rename(&temp, path)?;
        Ok(file.metadata()?.blocks() * 512)
    };
    write().inspect_err(|_| {
        // On a full disk even the half of a file is in the way; without it there is none to remove.
        drop(fs::remove_file(&temp));
    })
}

/// Removes half-made files, and parts of which no map says what is present; returns the disk bytes
/// the rest takes.
fn sweep(dir: &Path) -> std::io::Result<u64> {
    let mut used = 0;
    for path in files(dir)? {
        let kind = path.extension().and_then(|kind| kind.to_str());
        let lost = kind == Some("part") && !path.with_extension("map").exists();
        match kind {
            Some("new") => fs::remove_file(path)?,
            Some("part") if lost => fs::remove_file(path)?,
            Some("map") => {}
            _ => used += fs::metadata(path)?.blocks() * 512,
        }
    }
    Ok(used)
}

/// The layers that have a file, whole or sparse.
fn ids(dir: &Path) -> std::io::Result<Vec<BlobId>> {
    let kept =
        |path: &PathBuf| path.extension().is_some_and(|kind| kind == "layer" || kind == "part");
    let id = |path: PathBuf| path.file_stem().and_then(|name| name.to_str()?.parse().ok());
    Ok(files(dir)?.into_iter().filter(kept).filter_map(id).collect())
}

/// The files one folder down.
fn files(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in fs::read_dir(dir)? {
        let folder = folder?;
        if folder.file_type()?.is_dir() {
            for file in fs::read_dir(folder.path())? {
                files.push(file?.path());
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests;
