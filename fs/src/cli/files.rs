//! Files of the drive without looking at its mount: put, get and rm.
//!
//! Where the drive is mounted the paths lead through the mount; else its tree is worked on itself.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rdrivefs_sync::error::Posix;
use rdrivefs_sync::id::Ino;
use rdrivefs_sync::report::DrivePath;
use rdrivefs_sync::tree::Tree;
use rdrivefs_sync::tree::words::{Caller, Kind, SetAttr};

use crate::failure::{Failure, Result};

/// Bytes moved in one go.
const STEP_BYTES: usize = 1 << 20;

/// Entries listed in one step.
const STEP_ENTRIES: usize = 1_024;

/// Copies a file or folder of this computer (`-`: standard input) to a place in the tree.
pub(super) fn put(tree: &Tree, from: &Path, to: &DrivePath) -> Result<()> {
    let (parent, name) = parent_of(tree, to, true)?;
    if from.as_os_str() == "-" {
        return put_stream(tree, &mut std::io::stdin().lock(), parent, &name, 0o600);
    }
    put_path(tree, from, parent, &name)
}

/// Copies a file or folder of the tree to this computer (`-`: standard output).
pub(super) fn get(tree: &Tree, from: &DrivePath, to: &Path) -> Result<()> {
    let ino = resolve(tree, from)?;
    if to.as_os_str() == "-" {
        return get_stream(tree, ino, &mut std::io::stdout().lock());
    }
    get_path(tree, ino, to)
}

/// Removes a file, or a folder with all that is in it.
pub(super) fn remove(tree: &Tree, path: &DrivePath) -> Result<()> {
    let (parent, name) = parent_of(tree, path, false)?;
    remove_entry(tree, parent, &name)
}

/// The inode at a path.
pub(super) fn resolve(tree: &Tree, path: &DrivePath) -> Result<Ino> {
    let mut at = Ino::ROOT;
    for name in names(path) {
        at = tree.lookup(at, name).map_err(|e| named(e, path))?.ino;
    }
    Ok(at)
}

fn names(path: &DrivePath) -> impl Iterator<Item = &[u8]> {
    path.0.split(|b| *b == b'/').filter(|name| !name.is_empty())
}

fn named(error: rdrivefs_sync::Error, path: &DrivePath) -> Failure {
    let failure = Failure::from(error);
    Failure { error: format!("{path}: {}", failure.error), ..failure }
}

fn parent_of(tree: &Tree, path: &DrivePath, make: bool) -> Result<(Ino, Vec<u8>)> {
    let names: Vec<&[u8]> = names(path).collect();
    let Some((last, above)) = names.split_last() else {
        return Err(Failure::words("the drive itself cannot be meant here"));
    };
    let mut at = Ino::ROOT;
    for name in above {
        at = match tree.lookup(at, name) {
            Err(rdrivefs_sync::Error::Posix(Posix::NoEntry)) if make => {
                tree.make_directory(&caller(), at, name, 0o700)?.ino
            }
            found => found.map_err(|e| named(e, path))?.ino,
        };
    }
    Ok((at, last.to_vec()))
}

fn caller() -> Caller {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Caller { uid, gid, umask: 0o077 }
}

fn put_path(tree: &Tree, from: &Path, parent: Ino, name: &[u8]) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let what = || Failure::io(format!("read {}", from.display()));
    let meta = std::fs::symlink_metadata(from).map_err(what())?;
    if meta.is_symlink() {
        let target = std::fs::read_link(from).map_err(what())?;
        tree.symlink(&caller(), parent, name, target.as_os_str().as_bytes())?;
        return Ok(());
    }
    if meta.is_dir() {
        let dir = match tree.lookup(parent, name) {
            Ok(there) => there.ino,
            Err(_) => tree.make_directory(&caller(), parent, name, meta.mode() & 0o7777)?.ino,
        };
        for entry in std::fs::read_dir(from).map_err(what())? {
            let entry = entry.map_err(what())?;
            put_path(tree, &entry.path(), dir, entry.file_name().as_bytes())?;
        }
        return Ok(());
    }
    let mut file = File::open(from).map_err(what())?;
    put_stream(tree, &mut file, parent, name, meta.mode() & 0o7777)
}

fn put_stream(
    tree: &Tree,
    from: &mut impl Read,
    parent: Ino,
    name: &[u8],
    mode: u32,
) -> Result<()> {
    let ino = match tree.lookup(parent, name) {
        Ok(there) => {
            let empty = SetAttr { size: Some(0), ..SetAttr::default() };
            tree.set_attr(there.ino, &empty)?.ino
        }
        Err(_) => tree.create(&Caller { umask: 0, ..caller() }, parent, name, mode)?.ino,
    };
    tree.opened(ino)?;
    let mut buffer = vec![0; STEP_BYTES];
    let mut at = 0;
    let copied = loop {
        match from.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(n) => match tree.write(ino, at, &buffer[..n]) {
                Ok(_) => at += n as u64,
                Err(e) => break Err(e.into()),
            },
            Err(e) => break Err(Failure::io("read what is put")(e)),
        }
    };
    tree.release(ino);
    copied.and_then(|()| Ok(tree.sync(ino)?))
}

fn get_path(tree: &Tree, ino: Ino, to: &Path) -> Result<()> {
    let what = || Failure::io(format!("write {}", to.display()));
    let attr = tree.attr(ino)?;
    match attr.kind {
        Kind::Directory => {
            std::fs::create_dir_all(to).map_err(what())?;
            let mut after = 0;
            loop {
                let step = tree.list(ino, after, STEP_ENTRIES)?;
                let Some(last) = step.last() else { return Ok(()) };
                after = last.cookie;
                for entry in step {
                    let name = std::ffi::OsStr::from_bytes(&entry.name);
                    get_path(tree, entry.attr.ino, &to.join(name))?;
                }
            }
        }
        Kind::Symlink => {
            let target = tree.read_link(ino)?;
            let target = std::ffi::OsStr::from_bytes(&target);
            std::os::unix::fs::symlink(target, to).map_err(what())
        }
        Kind::File => get_stream(tree, ino, &mut File::create(to).map_err(what())?),
        _ => Ok(()),
    }
}

fn get_stream(tree: &Tree, ino: Ino, to: &mut impl Write) -> Result<()> {
    let mut at = 0;
    loop {
        let bytes = tree.read(ino, at, STEP_BYTES as u32)?;
        if bytes.is_empty() {
            return to.flush().map_err(Failure::io("write what is got"));
        }
        to.write_all(&bytes).map_err(Failure::io("write what is got"))?;
        at += bytes.len() as u64;
    }
}

fn remove_entry(tree: &Tree, parent: Ino, name: &[u8]) -> Result<()> {
    let attr = tree.lookup(parent, name)?;
    if attr.kind != Kind::Directory {
        return Ok(tree.unlink(parent, name)?);
    }
    loop {
        let step = tree.list(attr.ino, 0, STEP_ENTRIES)?;
        if step.is_empty() {
            return Ok(tree.remove_directory(parent, name)?);
        }
        for entry in step {
            remove_entry(tree, attr.ino, &entry.name)?;
        }
    }
}
