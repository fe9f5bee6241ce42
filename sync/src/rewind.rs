//! Rewinding: a folder becomes again what it was, by changes made here like any other.
//!
//! What is there and does not belong is set aside first, so that every name is free for what was
//! there then; files that only moved are moved back, what is gone is made anew with the bytes that a
//! version names, and at the end what nobody asked for is removed. Nothing is brought that is not
//! here, and all of it can be rewound in its turn. One that is broken off leaves what it had set aside
//! in the root; nothing of it is lost, and the next one of the whole drive takes it away.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::error::{Error, Posix, Result};
use crate::id::{FileId, Ino};
use crate::index::Index;
use crate::merge::extents_of;
use crate::progress::Progress;
use crate::record::{Kind, TimeNs};
use crate::report::{DrivePath, RewindReport};
use crate::tree::node::Field;
use crate::tree::words::{Caller, Rename, SetAttr, SetXattr};
use crate::tree::{Restored, Tree};
use crate::view::naming::suffixed;
use crate::view::{Entry, File, Version, View};

/// Entries listed in one step.
const STEP: usize = 1_024;

/// How the name begins of where what is set aside lies meanwhile.
const ASIDE: &str = ".rewinding-";

/// Files whose contents are set in one transaction.
const CONTENTS_MAX: usize = 1_024;

/// A name in a directory.
type Place = (Ino, Vec<u8>);

/// A folder on its way back.
pub struct Rewind<'a> {
    tree: &'a Tree,
    index: &'a Index,
    then: &'a View,
    /// Where what is set aside lies, once something is.
    aside: Option<Place>,
    /// Files that are somewhere else than they were then.
    elsewhere: HashMap<FileId, Place>,
    /// Files that stand where they are to stand.
    standing: HashSet<FileId>,
    /// What files were called that are set aside.
    names: HashMap<Vec<u8>, Vec<u8>>,
    /// What became of files that were gone: which were made for them.
    made: HashMap<FileId, FileId>,
    /// What files are to hold; one may be met under several names.
    contents: BTreeMap<FileId, Version>,
    /// Directories whose time is set last, since every entry changes it.
    times: Vec<(Ino, TimeNs)>,
    report: RewindReport,
}

impl<'a> Rewind<'a> {
    /// Back to what `then` shows.
    pub fn new(tree: &'a Tree, index: &'a Index, then: &'a View) -> Self {
        Self {
            tree,
            index,
            then,
            aside: None,
            elsewhere: HashMap::new(),
            standing: HashSet::new(),
            names: HashMap::new(),
            made: HashMap::new(),
            contents: BTreeMap::new(),
            times: Vec::new(),
            report: RewindReport::default(),
        }
    }

    /// Takes a path back, with everything below it; the directories above it are made if they are
    /// gone.
    ///
    /// # Errors
    /// [`Error::Refused`] when what a file holds now is told nowhere yet and would be lost; of the
    /// index. What was done stays.
    pub fn path(mut self, path: &[u8], progress: &Progress) -> Result<RewindReport> {
        let names: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|n| !n.is_empty()).collect();
        let Some((last, above)) = names.split_last() else {
            self.note_places(Ino::ROOT)?;
            self.directory(Ino::ROOT, FileId::ROOT, None, progress)?;
            return self.end();
        };
        let (mut now, mut then) = (Ino::ROOT, Some(FileId::ROOT));
        for name in above {
            let entry = then.and_then(|dir| self.then.entry(dir, name));
            then = entry.map(|entry| entry.file);
            now = match (self.find(now, name)?, entry) {
                (Some((ino, Kind::Directory)), _) => ino,
                (None, Some(entry)) => self.make(now, name, entry)?,
                _ => return Err(Posix::NoEntry.into()),
            };
        }
        if let Some((ino, Kind::Directory)) = self.find(now, last)? {
            self.note_places(ino)?;
        }
        self.directory(now, then.unwrap_or(FileId::ROOT), Some((last, then.is_some())), progress)?;
        self.end()
    }

    /// Takes a directory back, or one name of it.
    fn directory(
        &mut self,
        dir: Ino,
        then: FileId,
        only: Option<(&[u8], bool)>,
        progress: &Progress,
    ) -> Result<()> {
        let mut left = vec![(dir, then, only)];
        while let Some((dir, then, only)) = left.pop() {
            progress.check()?;
            let counts = |name: &[u8]| only.is_none_or(|(only, _)| only == name);
            let known = only.is_none_or(|(_, known)| known);
            let wanted: BTreeMap<&[u8], &Entry> =
                self.then.entries(then).filter(|(name, _)| known && counts(name)).collect();
            let mut there = HashMap::new();
            for (name, ino, _) in self.names(dir)? {
                if !counts(&name) || self.is_aside(dir, &name) {
                    continue;
                }
                match wanted.get(&name[..]) {
                    Some(entry) if entry.file == ino.file() => drop(there.insert(name, ino)),
                    _ => self.set_aside(dir, name, ino)?,
                }
            }
            for (name, entry) in wanted {
                let ino = match there.get(name) {
                    Some(ino) => *ino,
                    None => self.place(dir, name, entry)?,
                };
                self.standing.insert(ino.file());
                self.attributes(ino, entry)?;
                if entry.kind == Kind::Directory {
                    left.push((ino, entry.file, None));
                }
            }
            if self.contents.len() >= CONTENTS_MAX {
                self.fill()?;
            }
        }
        Ok(())
    }

    /// Lets a file stand under a name that is free.
    fn place(&mut self, dir: Ino, name: &[u8], entry: &Entry) -> Result<Ino> {
        let file = self.made.get(&entry.file).copied().unwrap_or(entry.file);
        if entry.kind != Kind::Directory
            && self.standing.contains(&file)
            && let Some(ino) = self.tree.present_ino(file)?
        {
            self.tree.link(ino, dir, name)?;
            self.tree.tell_done(dir, name);
            self.report.made += 1;
            return Ok(ino);
        }
        if let Some((from, old)) = self.elsewhere.remove(&entry.file)
            && let Some((ino, _)) = self.find(from, &old)?.filter(|(i, _)| i.file() == entry.file)
        {
            self.tree.rename((from, &old), (dir, name), Rename::NoReplace)?;
            self.tree.tell_done(from, &old);
            self.tree.tell_done(dir, name);
            self.report.moved += 1;
            return Ok(ino);
        }
        self.make(dir, name, entry)
    }

    fn make(&mut self, dir: Ino, name: &[u8], entry: &Entry) -> Result<Ino> {
        let file = self.then.file(entry.file).ok_or(Posix::NoEntry)?;
        let own = own();
        let mode = file.mode.unwrap_or(0o600);
        let made = match entry.kind {
            Kind::Directory => self.tree.make_directory(&own, dir, name, mode)?,
            Kind::Symlink => self.tree.symlink(&own, dir, name, &file.target)?,
            Kind::File => self.tree.create(&own, dir, name, mode)?,
            kind => self.tree.make_node(&own, dir, name, kind, mode, file.rdev)?,
        };
        self.tree.tell_done(dir, name);
        self.made.insert(entry.file, made.ino.file());
        self.report.made += 1;
        Ok(made.ino)
    }

    /// Notes what is to become of a file's content, and sets all else.
    fn attributes(&mut self, ino: Ino, entry: &Entry) -> Result<()> {
        let Some(file) = self.then.file(entry.file) else { return Ok(()) };
        let row = self.tree.row(ino)?;
        if let Some(version) = &file.version {
            let holds = row.heads.first() == Some(&version.id.0) && !row.is_changed(Field::Content);
            if !holds {
                self.contents.insert(ino.file(), version.clone());
            }
        }
        let differs = |then: Option<u32>, now: u32| then.filter(|then| *then != now);
        let set = SetAttr {
            mode: differs(file.mode, row.mode),
            uid: differs(file.uid, row.uid),
            gid: differs(file.gid, row.gid),
            ..SetAttr::default()
        };
        if set.mode.is_some() || set.uid.is_some() || set.gid.is_some() {
            self.tree.set_attr(ino, &set)?;
            self.report.attributes += 1;
        }
        self.xattrs(ino, file)?;
        self.tree.tell_attributes(ino);
        self.times.extend(file.mtime.map(|time| (ino, time)));
        Ok(())
    }

    fn xattrs(&mut self, ino: Ino, file: &File) -> Result<()> {
        let now = self.tree.xattrs(ino)?;
        for name in &now {
            if !file.xattrs.contains_key(name) {
                self.tree.remove_xattr(ino, name)?;
                self.report.attributes += 1;
            }
        }
        for (name, value) in &file.xattrs {
            if !now.contains(name) || self.tree.xattr(ino, name)? != *value {
                self.tree.set_xattr(ino, name, value, SetXattr::Any)?;
                self.report.attributes += 1;
            }
        }
        Ok(())
    }

    /// Contents, times, and the end of what was set aside.
    fn end(mut self) -> Result<RewindReport> {
        self.fill()?;
        for (ino, time) in std::mem::take(&mut self.times).into_iter().rev() {
            let now = match self.tree.present_ino(ino.file())? {
                Some(ino) => ino,
                None => continue,
            };
            if self.tree.row(now)?.mtime != time {
                self.tree.set_attr(now, &SetAttr { mtime: Some(time), ..SetAttr::default() })?;
                self.tree.tell_attributes(now);
            }
        }
        if let Some((ino, name)) = self.aside.take() {
            self.remove_all(ino)?;
            self.tree.remove_directory(Ino::ROOT, &name)?;
            self.tree.tell_done(Ino::ROOT, &name);
        }
        self.tree.flush()?;
        Ok(self.report)
    }

    /// Lets files hold what they held.
    fn fill(&mut self) -> Result<()> {
        let contents = std::mem::take(&mut self.contents);
        self.report.contents += contents.len() as u64;
        let restored = contents.into_iter().map(|(file, version)| {
            let extents = extents_of(self.index, version.content)?;
            Ok((file, Restored { size: version.size, mtime: version.mtime, extents }))
        });
        let restored = restored.collect::<Result<Vec<_>>>()?;
        if restored.is_empty() {
            return Ok(());
        }
        let mut merging = self.tree.merging()?;
        let done = restored.into_iter().try_for_each(|(file, to)| merging.restore(file, to));
        merging.finish()?;
        done
    }

    fn remove_all(&mut self, dir: Ino) -> Result<()> {
        let mut left = vec![(dir, None, self.names(dir)?)];
        while let Some((dir, _, names)) = left.last_mut() {
            let dir = *dir;
            match names.pop() {
                Some((name, ino, Kind::Directory)) => {
                    let within = self.names(ino)?;
                    left.push((ino, Some((dir, name)), within));
                }
                // What has another name where it belongs is not lost with this one.
                Some((name, ino, _))
                    if !self.standing.contains(&ino.file()) && self.check_told(ino).is_err() =>
                {
                    // Somebody wrote to it meanwhile.
                    self.keep(dir, &name)?;
                }
                Some((name, _, _)) => {
                    self.tree.unlink(dir, &name)?;
                    self.report.removed += 1;
                }
                None => {
                    let own: Option<Place> = left.pop().and_then(|(_, own, _)| own);
                    if let Some((above, name)) = own {
                        self.tree.remove_directory(above, &name)?;
                        self.report.removed += 1;
                    }
                }
            }
        }
        Ok(())
    }

    /// Keeps a file that would be lost in the root.
    fn keep(&mut self, dir: Ino, name: &[u8]) -> Result<()> {
        let plain = self.names.get(name).cloned().unwrap_or_else(|| name.to_vec());
        let (mut kept, mut count) = (suffixed(&plain, "kept"), 1);
        while self.find(Ino::ROOT, &kept)?.is_some() {
            count += 1;
            kept = suffixed(&plain, &format!("kept, {count}"));
        }
        self.tree.rename((dir, name), (Ino::ROOT, &kept), Rename::NoReplace)?;
        self.tree.tell_done(Ino::ROOT, &kept);
        self.report.kept.push(DrivePath([b"/", &kept[..]].concat()));
        Ok(())
    }

    /// Takes what does not belong under a name out of the way.
    fn set_aside(&mut self, dir: Ino, name: Vec<u8>, ino: Ino) -> Result<()> {
        self.check_told(ino)?;
        let (aside, mut to) = (self.aside_dir()?, format!("{:x}", ino.0).into_bytes());
        while self.find(aside, &to)?.is_some() {
            to.push(b'+');
        }
        self.tree.rename((dir, &name), (aside, &to), Rename::NoReplace)?;
        self.tree.tell_done(dir, &name);
        self.names.insert(to.clone(), name);
        self.elsewhere.insert(ino.file(), (aside, to));
        Ok(())
    }

    fn aside_dir(&mut self) -> Result<Ino> {
        if let Some((ino, _)) = &self.aside {
            return Ok(*ino);
        }
        // Nobody else has a folder of this name: what is in it at the end goes.
        let mut count = self.tree.changes();
        let name = loop {
            let name = format!("{ASIDE}{count:x}").into_bytes();
            if self.find(Ino::ROOT, &name)?.is_none() {
                break name;
            }
            count += 1;
        };
        let made = self.tree.make_directory(&own(), Ino::ROOT, &name, 0o700)?;
        self.tree.tell_done(Ino::ROOT, &name);
        self.aside = Some((made.ino, name));
        Ok(made.ino)
    }

    fn is_aside(&self, dir: Ino, name: &[u8]) -> bool {
        dir == Ino::ROOT && self.aside.as_ref().is_some_and(|(_, aside)| aside == name)
    }

    /// Notes where files are that were somewhere else then.
    fn note_places(&mut self, top: Ino) -> Result<()> {
        let mut left = vec![top];
        while let Some(dir) = left.pop() {
            for (name, ino, kind) in self.names(dir)? {
                let there = self.then.entry(dir.file(), &name);
                match there {
                    Some(entry) if entry.file == ino.file() => {
                        self.standing.insert(ino.file());
                    }
                    _ => drop(self.elsewhere.insert(ino.file(), (dir, name))),
                }
                match kind {
                    Kind::Directory => left.push(ino),
                    _ => self.check_told(ino)?,
                }
            }
        }
        Ok(())
    }

    /// What is told nowhere cannot be had back.
    fn check_told(&self, ino: Ino) -> Result<()> {
        let row = self.tree.row(ino)?;
        if row.kind == Kind::File && row.is_changed(Field::Content) {
            return Err(Error::Refused(
                "what a file holds now is on no remote yet and would be lost; `rdrivefs sync` first"
                    .into(),
            ));
        }
        Ok(())
    }

    fn names(&self, dir: Ino) -> Result<Vec<(Vec<u8>, Ino, Kind)>> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let some = self.tree.list_names(dir, after, STEP)?;
            let Some(last) = some.last() else { return Ok(all) };
            after = last.cookie;
            all.extend(some.into_iter().map(|name| (name.name, name.ino, name.kind)));
        }
    }

    fn find(&self, dir: Ino, name: &[u8]) -> Result<Option<(Ino, Kind)>> {
        match self.tree.lookup(dir, name) {
            Err(Error::Posix(Posix::NoEntry)) => Ok(None),
            found => found.map(|attr| Some((attr.ino, attr.kind))),
        }
    }
}

/// Whoever has the drive.
fn own() -> Caller {
    let uid = rustix::process::geteuid().as_raw();
    Caller { uid, gid: rustix::process::getegid().as_raw(), umask: 0 }
}
