//! Paths of the drive, and what lies below them.

use std::collections::{BTreeMap, HashSet};

use crate::error::{Error, Posix, Result};
use crate::id::Ino;
use crate::index::layers::LayerNumber;
use crate::record::Kind;
use crate::report::DrivePath;
use crate::tree::Tree;
use crate::tree::node::Row;
use crate::tree::words::Attr;

/// Entries listed in one step.
const STEP: usize = 1_024;

/// What a walk meets.
pub(crate) struct Found {
    /// Where.
    pub(crate) path: DrivePath,
    /// What `stat` tells.
    pub(crate) attr: Attr,
    /// Its row.
    pub(crate) row: Row,
    /// Whether it, or a directory above it, is pinned.
    pub(crate) pinned: bool,
}

/// Chunks of layers, by layer.
pub(crate) type Chunks = BTreeMap<LayerNumber, HashSet<u32>>;

/// The inode at a path of the drive.
pub(crate) fn resolve(tree: &Tree, path: &DrivePath) -> Result<Ino> {
    Ok(resolve_with_pin(tree, path)?.0)
}

/// The inode at a path of the drive, and whether a directory above it is pinned.
fn resolve_with_pin(tree: &Tree, path: &DrivePath) -> Result<(Ino, bool)> {
    let (mut at, mut pinned) = (Ino::ROOT, false);
    for name in path.0.split(|b| *b == b'/').filter(|name| !name.is_empty() && *name != b".") {
        pinned |= tree.row(at)?.pinned;
        at = match name {
            b".." => return Err(Posix::Invalid.into()),
            name => tree.lookup(at, name)?.ino,
        };
    }
    Ok((at, pinned))
}

/// Visits a path and everything below it.
pub(crate) fn walk(
    tree: &Tree,
    path: &DrivePath,
    visit: &mut dyn FnMut(Found) -> Result<()>,
) -> Result<()> {
    let (start, pinned) = resolve_with_pin(tree, path)?;
    walk_from(tree, start, normal(path), pinned, visit)
}

/// Visits a file, which has that path, and everything below it.
pub(crate) fn walk_from(
    tree: &Tree,
    start: Ino,
    path: DrivePath,
    pinned: bool,
    visit: &mut dyn FnMut(Found) -> Result<()>,
) -> Result<()> {
    let mut left = vec![(start, path, pinned)];
    while let Some((ino, path, pinned)) = left.pop() {
        let row = match tree.row(ino) {
            // Whatever went since its directory was listed is not below it any more.
            Err(Error::Posix(Posix::Stale)) if ino != start => continue,
            row => row?,
        };
        let pinned = pinned || row.pinned;
        let directory = row.kind == Kind::Directory;
        visit(Found { path: path.clone(), attr: row.attr(ino), row, pinned })?;
        if !directory {
            continue;
        }
        let mut after = 0;
        loop {
            let step = match tree.list(ino, after, STEP) {
                Err(Error::Posix(Posix::Stale)) if ino != start => break,
                step => step?,
            };
            let Some(last) = step.last() else { break };
            after = last.cookie;
            for entry in step {
                left.push((entry.attr.ino, below(&path, &entry.name), pinned));
            }
        }
    }
    Ok(())
}

/// The chunks a file's content lies in.
pub(crate) fn chunks_of(row: &Row, chunks: &mut Chunks) {
    for (_, extent) in row.extents.iter() {
        if let crate::tree::extents::Source::Chunk { layer, number, .. } = &extent.source {
            chunks.entry(LayerNumber(*layer)).or_default().insert(*number);
        }
    }
}

pub(crate) fn below(dir: &DrivePath, name: &[u8]) -> DrivePath {
    match dir.0.as_slice() {
        b"/" => DrivePath([b"/", name].concat()),
        dir => DrivePath([dir, b"/", name].concat()),
    }
}

fn normal(path: &DrivePath) -> DrivePath {
    let names = path.0.split(|b| *b == b'/').filter(|name| !name.is_empty() && *name != b".");
    let mut out = Vec::new();
    for name in names {
        out.push(b'/');
        out.extend_from_slice(name);
    }
    DrivePath(if out.is_empty() { b"/".to_vec() } else { out })
}
