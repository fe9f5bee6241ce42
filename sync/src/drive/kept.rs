//! What lies in the directory of the cache, as the disk has it: for those who count or check it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rdrivefs_remote::blob::BlobId;

use crate::error::{Error, Result};

/// The files of one layer in the cache.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Every file that bears the layer's name.
    pub(super) files: Vec<PathBuf>,
    /// Disk bytes of them all.
    pub(super) disk_bytes: u64,
    /// The length of the file that has the layer whole, if it is there.
    pub(super) whole_bytes: Option<u64>,
    /// When any of them was last written, seconds since 1970.
    pub(super) newest_secs: i64,
}

/// The layers that have files in the cache's directory `dir`.
///
/// # Errors
/// When it cannot be read; a file that goes away meanwhile is no error.
pub(super) fn kept(dir: &Path) -> Result<BTreeMap<BlobId, Kept>> {
    let mut layers = BTreeMap::new();
    let read = |dir: &Path| fs::read_dir(dir).map_err(Error::io(format!("read {}", dir.display())));
    for folder in read(dir)?.flatten().filter(|entry| entry.path().is_dir()) {
        for file in read(&folder.path())?.flatten() {
            let (path, Ok(meta)) = (file.path(), file.metadata()) else { continue };
            let name = path.file_stem().and_then(|name| name.to_str());
            let Some(id) = name.and_then(|name| name.parse::<BlobId>().ok()) else { continue };
            let layer: &mut Kept = layers.entry(id).or_default();
            layer.disk_bytes += meta.blocks() * 512;
            layer.newest_secs = layer.newest_secs.max(meta.mtime());
            if path.extension().is_some_and(|kind| kind == "layer") {
                layer.whole_bytes = Some(meta.len());
            }
            layer.files.push(path);
        }
    }
    Ok(layers)
}
