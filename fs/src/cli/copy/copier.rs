//! Copying from one side to another.
//!
//! Must: a file appears under its name only when it is whole. What breaks off leaves the old file,
//! or none.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rdrivefs_sync::progress::Progress;
use rdrivefs_sync::report::Phase;
use rdrivefs_sync::tree::words::Kind;

use super::side::{Meta, Side, Sink, existing};
use super::unfinished::{Temporaries, is_temporary};
use crate::failure::{Exit, Failure, Result};

/// A copy that is under way.
pub(super) struct Copier<'a> {
    from: &'a dyn Side,
    to: &'a dyn Side,
    progress: &'a Progress,
    /// Hears of every file that is done, and of what was left out and why.
    tell: &'a dyn Fn(&Path, Option<&str>),
    /// Where the first name of a file with several went.
    links: HashMap<(u64, u64), PathBuf>,
    temps: Temporaries,
}

impl<'a> Copier<'a> {
    pub(super) fn new(
        (from, to): (&'a dyn Side, &'a dyn Side),
        temps: Temporaries,
        progress: &'a Progress,
        tell: &'a dyn Fn(&Path, Option<&str>),
    ) -> Self {
        Self { from, to, progress, tell, links: HashMap::new(), temps }
    }

    /// Copies a file, or a folder with all that is in it; `named` is what a person asked for.
    pub(super) fn copy(&mut self, from: &Path, to: &Path, named: bool) -> Result<()> {
        let meta = existing(self.from, from)?;
        match meta.kind {
            Kind::Directory => return self.folder(from, to, &meta),
            Kind::File => self.file(from, to, &meta, named)?,
            Kind::Symlink => {
                let target = self.from.target(from)?;
                self.in_place(to, |to, temp| {
                    to.make_symlink(&target, temp)?;
                    to.dress(temp, &meta)
                })?;
            }
            Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => {
                (self.tell)(from, Some("left out: neither a file, a folder nor a symlink"));
                return Ok(());
            }
        }
        self.progress.advance(Phase::Copy, 0, 1);
        (self.tell)(from, None);
        Ok(())
    }

    /// Copies what `read` gives into a file of that name.
    pub(super) fn stream(
        &mut self,
        to: &Path,
        read: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>,
    ) -> Result<()> {
        let progress = self.progress;
        self.in_place(to, |to, temp| {
            let mut sink = to.create(temp)?;
            read(&mut |bytes| {
                progress.advance(Phase::Copy, bytes.len() as u64, 0);
                sink.write(bytes)
            })?;
            sink.finish(true)
        })
    }

    fn folder(&mut self, from: &Path, to: &Path, meta: &Meta) -> Result<()> {
        if !self.to.is_folder(to) {
            if self.to.meta(to)?.is_some() {
                return Err(refused(to, "it is there already and no folder"));
            }
            self.to.make_folder(to)?;
        }
        for name in self.from.names(from)? {
            let path = from.join(&name);
            if is_temporary(&name) {
                (self.tell)(&path, Some("left out: it is not whole yet"));
                continue;
            }
            match self.copy(&path, &to.join(&name), false) {
                Err(_) if self.progress.check().is_ok() && self.is_gone(&path) => {
                    (self.tell)(&path, Some("left out: it went while the folder was copied"));
                }
                copied => copied?,
            }
        }
        self.to.dress(to, meta)
    }

    fn is_gone(&self, path: &Path) -> bool {
        matches!(self.from.meta(path), Ok(None))
    }

    fn file(&mut self, from: &Path, to: &Path, meta: &Meta, durable: bool) -> Result<()> {
        if let Some(first) = meta.links.and_then(|id| self.links.get(&id).cloned()) {
            return self.in_place(to, |to, temp| to.link(&first, temp));
        }
        let (source, progress) = (self.from, self.progress);
        self.in_place(to, |to, temp| {
            let mut sink = to.create(temp)?;
            source.read(from, &mut |bytes| {
                progress.check()?;
                progress.advance(Phase::Copy, bytes.len() as u64, 0);
                add(&mut *sink, bytes)
            })?;
            sink.finish(durable)?;
            drop(sink);
            to.dress(temp, meta)
        })?;
        if let Some(id) = meta.links {
            self.links.insert(id, to.to_owned());
        }
        Ok(())
    }

    /// Makes something under a temporary name beside `path`, and renames it once it is whole.
    fn in_place(
        &mut self,
        path: &Path,
        make: impl FnOnce(&dyn Side, &Path) -> Result<()>,
    ) -> Result<()> {
        if self.to.meta(path)?.is_some_and(|meta| meta.kind == Kind::Directory) {
            return Err(refused(path, "a folder is there already"));
        }
        let temp = self.temps.beside(path)?;
        let made = make(self.to, &temp).and_then(|()| self.to.rename(&temp, path));
        // It may be there also if all went well: to rename one name of a file over another does
        // nothing at all.
        let gone = matches!(self.to.meta(&temp), Ok(None));
        if !gone && self.to.remove(&temp, false).is_err() {
            self.temps.keep_note();
        }
        made
    }
}

/// Runs of zeros stay holes.
fn add(sink: &mut dyn Sink, bytes: &[u8]) -> Result<()> {
    match bytes.iter().all(|byte| *byte == 0) {
        true => sink.skip(bytes.len() as u64),
        false => sink.write(bytes),
    }
}

fn refused(path: &Path, why: &str) -> Failure {
    Failure::new(Exit::Failed, format!("{}: {why}", path.display()))
}

/// Bytes and files there are to copy; what cannot be looked at is met again later.
pub(super) fn measure(side: &dyn Side, path: &Path, progress: &Progress) {
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        match side.meta(&path) {
            Ok(Some(meta)) if meta.kind == Kind::Directory => {
                let names = side.names(&path).unwrap_or_default();
                left.extend(names.into_iter().map(|name| path.join(name)));
            }
            Ok(Some(meta)) => {
                let bytes = if meta.kind == Kind::File { meta.size } else { 0 };
                progress.expect(Phase::Copy, bytes, 1);
            }
            _ => {}
        }
    }
}
