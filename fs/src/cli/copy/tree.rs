//! The tree of a drive that is not mounted as a side of a copy.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rdrivefs_sync::Error;
use rdrivefs_sync::error::Posix;
use rdrivefs_sync::id::Ino;
use rdrivefs_sync::tree::Tree;
use rdrivefs_sync::tree::words::{Caller, Kind, Rename, SetAttr, SetXattr};

use super::side::{Meta, STEP_BYTES, Side, Sink, Taking, is_kept};
use crate::failure::{Failure, Result};

/// Entries listed in one step.
const STEP_ENTRIES: usize = 1_024;

/// The files of a drive, by paths from its root.
pub(super) struct InTree<'a>(pub(super) &'a Tree);

struct Open<'a> {
    tree: &'a Tree,
    ino: Ino,
    at: u64,
    path: PathBuf,
}

fn named(path: &Path) -> impl FnOnce(Error) -> Failure {
    let path = path.display().to_string();
    move |e| Failure::from(e).named(path)
}

impl InTree<'_> {
    fn find(&self, path: &Path) -> Result<Ino, Error> {
        let names = path.as_os_str().as_bytes().split(|b| *b == b'/').filter(|n| !n.is_empty());
        let mut at = Ino::ROOT;
        for name in names {
            at = self.0.lookup(at, name)?.ino;
        }
        Ok(at)
    }

    fn ino(&self, path: &Path) -> Result<Ino> {
        self.find(path).map_err(named(path))
    }

    /// The folder of a path, and the name in it.
    fn place<'p>(&self, path: &'p Path) -> Result<(Ino, &'p [u8])> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Failure::words("the drive itself cannot be meant here"));
        };
        Ok((self.ino(folder)?, name.as_bytes()))
    }
}

impl Sink for Open<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.tree.write(self.ino, self.at, bytes).map_err(named(&self.path))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn skip(&mut self, len: u64) -> Result<()> {
        self.at += len;
        Ok(())
    }

    /// It is durable when the drive is closed, which is soon.
    fn finish(&mut self, _durable: bool) -> Result<()> {
        let size = SetAttr { size: Some(self.at), ..SetAttr::default() };
        self.tree.set_attr(self.ino, &size).map(drop).map_err(named(&self.path))
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.tree.forget(self.ino, 1);
    }
}

impl Side for InTree<'_> {
    fn meta(&self, path: &Path) -> Result<Option<Meta>> {
        let ino = match self.find(path) {
            Err(Error::Posix(Posix::NoEntry)) => return Ok(None),
            ino => ino.map_err(named(path))?,
        };
        let attr = self.0.attr(ino).map_err(named(path))?;
        let mut xattrs = Vec::new();
        for name in self.0.xattrs(ino).map_err(named(path))? {
            if is_kept(&name) {
                let value = self.0.xattr(ino, &name).map_err(named(path))?;
                xattrs.push((name, value));
            }
        }
        Ok(Some(Meta {
            kind: attr.kind,
            mode: attr.mode & 0o7777,
            size: attr.size,
            mtime: attr.mtime,
            uid: attr.uid,
            gid: attr.gid,
            links: (attr.nlink > 1 && attr.kind == Kind::File).then_some((0, ino.0)),
            xattrs,
        }))
    }

    fn is_folder(&self, path: &Path) -> bool {
        let attr = self.find(path).and_then(|ino| self.0.attr(ino));
        attr.is_ok_and(|attr| attr.kind == Kind::Directory)
    }

    fn names(&self, folder: &Path) -> Result<Vec<OsString>> {
        let ino = self.ino(folder)?;
        let (mut names, mut after) = (Vec::new(), 0);
        loop {
            let step = self.0.list(ino, after, STEP_ENTRIES).map_err(named(folder))?;
            let Some(last) = step.last() else { return Ok(names) };
            after = last.cookie;
            names.extend(step.into_iter().map(|entry| OsString::from_vec(entry.name)));
        }
    }

    fn target(&self, link: &Path) -> Result<OsString> {
        let target = self.0.read_link(self.ino(link)?).map_err(named(link))?;
        Ok(OsString::from_vec(target))
    }

    fn read(&self, path: &Path, take: Taking<'_>) -> Result<()> {
        let (ino, mut at) = (self.ino(path)?, 0);
        loop {
            let bytes = self.0.read(ino, at, STEP_BYTES as u32).map_err(named(path))?;
            if bytes.is_empty() {
                return Ok(());
            }
            take(&bytes)?;
            at += bytes.len() as u64;
        }
    }

    fn create(&self, path: &Path) -> Result<Box<dyn Sink + '_>> {
        let (folder, name) = self.place(path)?;
        let ino = self.0.create(&caller(), folder, name, 0o600).map_err(named(path))?.ino;
        self.0.remember(ino, 1);
        Ok(Box::new(Open { tree: self.0, ino, at: 0, path: path.to_owned() }))
    }

    fn make_folder(&self, path: &Path) -> Result<()> {
        let (folder, name) = self.place(path)?;
        self.0.make_directory(&caller(), folder, name, 0o700).map(drop).map_err(named(path))
    }

    fn make_symlink(&self, target: &OsString, path: &Path) -> Result<()> {
        let (folder, name) = self.place(path)?;
        let made = self.0.symlink(&caller(), folder, name, target.as_bytes());
        made.map(drop).map_err(named(path))
    }

    fn link(&self, file: &Path, path: &Path) -> Result<()> {
        let ((folder, name), ino) = (self.place(path)?, self.ino(file)?);
        self.0.link(ino, folder, name).map(drop).map_err(named(path))
    }

    fn dress(&self, path: &Path, meta: &Meta) -> Result<()> {
        let ino = self.ino(path)?;
        let root = rustix::process::geteuid().is_root();
        let set = SetAttr {
            mode: (meta.kind != Kind::Symlink).then_some(meta.mode),
            uid: root.then_some(meta.uid),
            gid: root.then_some(meta.gid),
            mtime: Some(meta.mtime),
            ..SetAttr::default()
        };
        for (name, value) in meta.xattrs.iter().filter(|_| meta.kind != Kind::Symlink) {
            self.0.set_xattr(ino, name, value, SetXattr::Any).map_err(named(path))?;
        }
        self.0.set_attr(ino, &set).map(drop).map_err(named(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let (from, into) = (self.place(from)?, self.place(to)?);
        self.0.rename(from, into, Rename::Replace).map_err(named(to))
    }

    fn remove(&self, path: &Path, folder: bool) -> Result<()> {
        let (above, name) = self.place(path)?;
        let removed = match folder {
            true => self.0.remove_directory(above, name),
            false => self.0.unlink(above, name),
        };
        removed.map_err(named(path))
    }
}

fn caller() -> Caller {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Caller { uid, gid, umask: 0 }
}

/// A path of the drive as this side takes it.
pub(super) fn path_of(path: &rdrivefs_sync::report::DrivePath) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(&path.0))
}
