//! One file of a segment, made so that it is whole or absent.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::seal::Key;

use super::disk::DiskFile;
use super::header::{self, Header, UNFINISHED};
use super::space::Ground;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// One file of a segment.
pub(super) struct Piece {
    pub(super) generation: u16,
    pub(super) base: u64,
    /// `None` until it is read.
    pub(super) file: Option<Arc<dyn DiskFile>>,
}

/// Makes the file of a piece under an unfinished name, lets `fill` write it, makes it durable and
/// gives it its name: a file that goes by its name has a whole header. On a full disk the reserve
/// gives way.
pub(super) fn write_piece(
    ground: &Ground,
    header: &Header,
    key: &Key,
    fill: impl Fn(&dyn DiskFile) -> std::io::Result<()>,
) -> Result<Arc<dyn DiskFile>> {
    let name = header::name(header.role, header.id);
    let unfinished = format!("{name}{UNFINISHED}");
    let write = || {
        let file = ground.disk.create(&unfinished)?;
        file.write_at(0, &header.encode(key))?;
        fill(&*file)?;
        file.datasync()?;
        ground.disk.rename(&unfinished, &name)?;
        ground.disk.sync_dir()?;
        Ok(file)
    };
    ground.with_reserve(|| {
        write().map_err(|error| {
            // It may be the rename that failed, or what came after it.
            let _ = ground.disk.remove(&unfinished);
            Error::io(name.clone())(error)
        })
    })
}

/// Writes zeros over a range of a file.
pub(super) fn zero(file: &dyn DiskFile, start: u64, end: u64) -> std::io::Result<()> {
    let mut at = start;
    while at < end {
        let step = (end - at).min(ZEROS.len() as u64);
        file.write_at(at, &ZEROS[..usize::try_from(step).expect("at most 64 KiB")])?;
        at += step;
    }
    Ok(())
}
