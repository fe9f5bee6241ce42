//! Names: looking up, making, moving, removing and listing.

use crate::error::{Error, Posix, Result};
use crate::id::{Ino, LinkId};
use crate::index::entries::EntryRow;
use crate::record::Kind;
use crate::tree::acl;
use crate::tree::core::{Tree, lock};
use crate::tree::op::{Made, Op};
use crate::tree::words::{Attr, Caller, Change, Entry, Name, Rename};

/// Longest name, as Linux has it.
const NAME_BYTES_MAX: usize = 255;

/// Longest target of a symlink: a page less its end.
const TARGET_BYTES_MAX: usize = 4095;

/// Most names of a file, as ext4 has it.
const LINKS_MAX: u32 = 65_000;

const SET_GROUP: u32 = 0o2000;

/// What a new file is to be.
struct Wish<'a> {
    kind: Kind,
    mode: u32,
    rdev: u32,
    target: &'a [u8],
}

impl Tree {
    /// What a name leads to.
    ///
    /// # Errors
    /// [`Posix::NoEntry`] and the others of `lookup`.
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr> {
        self.find(parent, name, |child| self.attr(child))
    }

    /// As [`Tree::lookup`], for the kernel, which is told of the inode: its reference is counted
    /// before anything is read, so that no pull changes behind its back what it is about to get.
    ///
    /// # Errors
    /// As [`Tree::lookup`].
    pub fn lookup_told(&self, parent: Ino, name: &[u8]) -> Result<Attr> {
        self.find(parent, name, |child| self.attr_told(child))
    }

    fn attr_told(&self, ino: Ino) -> Result<Attr> {
        self.remember(ino, 1);
        self.attr(ino).inspect_err(|_| self.forget(ino, 1))
    }

    fn find(&self, parent: Ino, name: &[u8], look: impl Fn(Ino) -> Result<Attr>) -> Result<Attr> {
        let child = || {
            let _moving = self.moving_shared();
            Ok::<_, Error>(self.entry(parent, name)?.ok_or(Posix::NoEntry)?.child)
        };
        let mut before = child()?;
        loop {
            match look(before) {
                // It went meanwhile, and another may stand there now.
                Err(Error::Posix(Posix::Stale)) => {
                    let now = child()?;
                    if now == before {
                        return Err(Error::corrupt("the index", format!("{now:?} is not there")));
                    }
                    before = now;
                }
                attr => return attr,
            }
        }
    }

    /// The directory that holds `dir`; the root holds itself.
    ///
    /// # Errors
    /// [`Posix::Stale`].
    pub fn parent(&self, dir: Ino) -> Result<Ino> {
        let parent = self.node(dir)?.read().row.parent;
        Ok(if dir == Ino::ROOT { Ino::ROOT } else { Ino(parent) })
    }

    /// Makes a regular file.
    ///
    /// # Errors
    /// Those of `open(2)` with `O_CREAT | O_EXCL`.
    pub fn create(&self, caller: &Caller, parent: Ino, name: &[u8], mode: u32) -> Result<Attr> {
        self.make(caller, parent, name, &Wish { kind: Kind::File, mode, rdev: 0, target: b"" })
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// Those of `mkdir(2)`.
    pub fn make_directory(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        mode: u32,
    ) -> Result<Attr> {
        self.make(caller, parent, name, &Wish { kind: Kind::Directory, mode, rdev: 0, target: b"" })
    }

    /// Makes a file of any kind but directory and symlink.
    ///
    /// # Errors
    /// Those of `mknod(2)`.
    pub fn make_node(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        kind: Kind,
        mode: u32,
        rdev: u32,
    ) -> Result<Attr> {
        if matches!(kind, Kind::Directory | Kind::Symlink) {
            return Err(Posix::Invalid.into());
        }
        self.make(caller, parent, name, &Wish { kind, mode, rdev, target: b"" })
    }

    /// Makes a symlink.
    ///
    /// # Errors
    /// Those of `symlink(2)`.
    pub fn symlink(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        target: &[u8],
    ) -> Result<Attr> {
        if target.len() > TARGET_BYTES_MAX {
            return Err(Posix::NameTooLong.into());
        }
        self.make(caller, parent, name, &Wish { kind: Kind::Symlink, mode: 0o777, rdev: 0, target })
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// Those of `link(2)`.
    pub fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr> {
        let _gate = self.shared();
        let _names = lock(&self.names);
        self.check_new(parent, name)?;
        let node = self.node(ino)?;
        let (kind, nlink) = {
            let state = node.read();
            (state.row.kind, state.row.nlink)
        };
        if kind == Kind::Directory {
            return Err(Posix::NotPermitted.into());
        }
        if nlink >= LINKS_MAX {
            return Err(Posix::TooManyLinks.into());
        }
        let (link, name, now) = (self.draw(), name.to_vec(), self.now());
        self.carry_out(&Op::Link { ino: ino.0, link, parent: parent.0, name, now })?;
        self.attr(ino)
    }

    /// Where a symlink leads.
    ///
    /// # Errors
    /// [`Posix::Invalid`] when it is none.
    pub fn read_link(&self, ino: Ino) -> Result<Vec<u8>> {
        let node = self.node(ino)?;
        let state = node.read();
        match state.row.kind {
            Kind::Symlink => Ok(state.row.target.clone()),
            _ => Err(Posix::Invalid.into()),
        }
    }

    /// Removes a name of anything but a directory.
    ///
    /// # Errors
    /// Those of `unlink(2)`.
    pub fn unlink(&self, parent: Ino, name: &[u8]) -> Result<()> {
        let _gate = self.shared();
        let _names = lock(&self.names);
        let entry = self.entry(parent, name)?.ok_or(Posix::NoEntry)?;
        if self.kind(entry.child)? == Kind::Directory {
            return Err(Posix::IsDirectory.into());
        }
        self.remove(&entry)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// Those of `rmdir(2)`.
    pub fn remove_directory(&self, parent: Ino, name: &[u8]) -> Result<()> {
        let _gate = self.shared();
        let _names = lock(&self.names);
        let entry = self.entry(parent, name)?.ok_or(Posix::NoEntry)?;
        self.check_empty_directory(entry.child)?;
        self.remove(&entry)
    }

    /// Moves a name.
    ///
    /// # Errors
    /// Those of `renameat2(2)`.
    pub fn rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), how: Rename) -> Result<()> {
        let _gate = self.shared();
        let _names = lock(&self.names);
        let source = self.entry(from.0, from.1)?.ok_or(Posix::NoEntry)?;
        let target = self.entry(to.0, to.1)?;
        let directory = self.kind(source.child)? == Kind::Directory;
        if directory && self.is_inside(to.0, source.child)? {
            return Err(Posix::Invalid.into());
        }
        let now = self.now();
        let Some(target) = target else {
            if how == Rename::Exchange {
                return Err(Posix::NoEntry.into());
            }
            self.check_new(to.0, to.1)?;
            return self.carry_out(&moving(&source, to, None, now));
        };
        match how {
            Rename::NoReplace => Err(Posix::Exists.into()),
            _ if target.link == source.link => Ok(()),
            Rename::Exchange => {
                let target_directory = self.kind(target.child)? == Kind::Directory;
                if target_directory && self.is_inside(from.0, target.child)? {
                    return Err(Posix::Invalid.into());
                }
                let (one, other) = (source.link.0, target.link.0);
                self.carry_out(&Op::Exchange { one, other, now })
            }
            // Two names of one file: POSIX leaves both.
            Rename::Replace if target.child == source.child => Ok(()),
            Rename::Replace => {
                match (directory, self.kind(target.child)? == Kind::Directory) {
                    (true, false) => return Err(Posix::NotDirectory.into()),
                    (false, true) => return Err(Posix::IsDirectory.into()),
                    (true, true) => self.check_empty_directory(target.child)?,
                    (false, false) => {}
                }
                self.carry_out(&moving(&source, to, Some(target.link), now))?;
                self.purge_if_unreachable(target.child)
            }
        }
    }

    /// At most `limit` entries behind the cookie `after`, in the order of their cookies.
    ///
    /// # Errors
    /// [`Posix::NotDirectory`], [`Posix::Stale`]; of the index.
    pub fn list(&self, dir: Ino, after: u64, limit: usize) -> Result<Vec<Entry>> {
        self.check_directory(dir)?;
        let entries = self.index.entries_after(dir, after, limit)?;
        let listed = entries.into_iter().map(|entry| {
            let attr = self.attr(entry.child)?;
            Ok(Entry { cookie: entry.link.0, name: entry.name, attr })
        });
        // A file that went meanwhile is no error of the listing.
        listed
            .filter(|entry: &Result<Entry>| !matches!(entry, Err(Error::Posix(Posix::Stale))))
            .collect()
    }

    /// As [`Tree::list`], without attributes, which are not even looked at.
    ///
    /// # Errors
    /// As [`Tree::list`].
    pub fn list_names(&self, dir: Ino, after: u64, limit: usize) -> Result<Vec<Name>> {
        self.check_directory(dir)?;
        let entries = self.index.entries_after(dir, after, limit)?;
        let listed = entries.into_iter().map(|entry| {
            let kind = entry.kind.map_or_else(|| self.kind(entry.child), Ok)?;
            Ok(Name { cookie: entry.link.0, name: entry.name, ino: entry.child, kind })
        });
        listed
            .filter(|name: &Result<Name>| !matches!(name, Err(Error::Posix(Posix::Stale))))
            .collect()
    }

    /// Whether a directory has at most `count` names.
    ///
    /// # Errors
    /// Of the index.
    pub fn has_at_most(&self, dir: Ino, count: usize) -> Result<bool> {
        self.index.has_at_most(dir, count)
    }

    /// Keeps a file's content, or all below a directory, on this computer, or no longer.
    ///
    /// # Errors
    /// Of the journal.
    pub fn pin(&self, ino: Ino, pinned: bool) -> Result<()> {
        let _gate = self.shared();
        let _names = lock(&self.names);
        self.node(ino)?;
        let op = Op::Pin { ino: ino.0, pinned };
        let at = self.append(&op.encode())?.position;
        self.applied_to_file(self.apply(&op, at))
    }

    /// The kernel was told of the inode `count` more times.
    pub fn remember(&self, ino: Ino, count: u64) {
        *lock(&self.references).entry(ino).or_default() += count;
    }

    /// The kernel gives `count` of its references back.
    pub fn forget(&self, ino: Ino, count: u64) {
        {
            let mut references = lock(&self.references);
            let Some(left) = references.get_mut(&ino) else { return };
            *left = left.saturating_sub(count);
            if *left > 0 {
                return;
            }
            references.remove(&ino);
        }
        let let_go = || {
            let _gate = self.shared();
            let salvaged = self.salvage(ino)?;
            self.purge_if_unreachable(ino)?;
            Ok::<_, Error>(salvaged)
        };
        match let_go() {
            // It came without a call of the kernel's, which may keep the listing it is not in.
            Ok(Some((parent, name))) => self.tell(Change::Entry { parent, name }),
            Ok(None) => {}
            Err(e) => tracing::warn!(?ino, error = %e, "an orphan stays until the next start"),
        }
    }

    pub(super) fn entry(&self, parent: Ino, name: &[u8]) -> Result<Option<EntryRow>> {
        if name.len() > NAME_BYTES_MAX {
            return Err(Posix::NameTooLong.into());
        }
        let entry = self.index.entry(parent, name)?;
        if entry.is_none() {
            self.check_directory(parent)?;
        }
        Ok(entry)
    }

    pub(super) fn kind(&self, ino: Ino) -> Result<Kind> {
        Ok(self.node(ino)?.read().row.kind)
    }

    /// Appends a change and applies it; the caller holds the gate and the names.
    pub(super) fn carry_out(&self, op: &Op) -> Result<()> {
        let at = self.append(&op.encode())?.position;
        self.applied(self.apply(op, at))
    }

    fn make(&self, caller: &Caller, parent: Ino, name: &[u8], wish: &Wish<'_>) -> Result<Attr> {
        let _gate = self.shared();
        let _names = lock(&self.names);
        self.check_new(parent, name)?;
        let (parent_mode, parent_gid) = {
            let node = self.node(parent)?;
            let state = node.read();
            (state.row.mode, state.row.gid)
        };
        let inherits = parent_mode & SET_GROUP != 0;
        let gid = if inherits { parent_gid } else { caller.gid };
        let default = self.default_acl(parent)?.filter(|_| wish.kind != Kind::Symlink);
        let (mut mode, access) = match &default {
            Some(default) => acl::inherit(default, wish.mode)?,
            None => (wish.mode & !caller.umask, None),
        };
        if wish.kind == Kind::Symlink {
            mode = 0o777;
        }
        if inherits && wish.kind == Kind::Directory {
            mode |= SET_GROUP;
        }
        let ino = self.draw();
        let made = Made {
            ino,
            kind: wish.kind,
            mode: mode & 0o7777,
            uid: caller.uid,
            gid,
            rdev: wish.rdev,
            target: wish.target.to_vec(),
            link: self.draw(),
            parent: parent.0,
            name: name.to_vec(),
            now: self.now(),
            access,
            default: default.filter(|_| wish.kind == Kind::Directory),
        };
        self.carry_out(&Op::Make(Box::new(made)))?;
        self.attr(Ino(ino))
    }

    fn remove(&self, entry: &EntryRow) -> Result<()> {
        let op = Op::Unlink { link: entry.link.0, now: self.now() };
        let at = self.append_reserved(&op.encode())?;
        self.applied(self.apply(&op, at))?;
        self.purge_if_unreachable(entry.child)
    }

    /// Forgets a file without names that nobody holds; the caller holds the gate.
    pub(super) fn purge_if_unreachable(&self, ino: Ino) -> Result<()> {
        if lock(&self.references).contains_key(&ino) {
            return Ok(());
        }
        let node = match self.node(ino) {
            Err(Error::Posix(Posix::Stale)) => return Ok(()),
            node => node?,
        };
        let held = {
            let state = node.read();
            !state.row.links.is_empty() || state.row.is_cut_and_written()
        };
        if held || ino == Ino::ROOT {
            return Ok(());
        }
        self.check_whole()?;
        self.applied(self.purged(&node))
    }

    fn check_new(&self, parent: Ino, name: &[u8]) -> Result<()> {
        if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
            return Err(Posix::Invalid.into());
        }
        if matches!(name, b"." | b"..") || self.entry(parent, name)?.is_some() {
            return Err(Posix::Exists.into());
        }
        if parent != Ino::ROOT && self.node(parent)?.read().row.links.is_empty() {
            return Err(Posix::NoEntry.into());
        }
        Ok(())
    }

    fn check_directory(&self, ino: Ino) -> Result<()> {
        match self.kind(ino)? {
            Kind::Directory => Ok(()),
            _ => Err(Posix::NotDirectory.into()),
        }
    }

    fn check_empty_directory(&self, ino: Ino) -> Result<()> {
        self.check_directory(ino)?;
        match self.index.has_entries(ino)? {
            true => Err(Posix::NotEmpty.into()),
            false => Ok(()),
        }
    }

    /// Whether `dir` is `ancestor` or lies below it.
    fn is_inside(&self, dir: Ino, ancestor: Ino) -> Result<bool> {
        let mut at = dir;
        while at != ancestor && at != Ino::ROOT {
            at = match self.parent(at) {
                // It is in nothing, so neither in `ancestor`.
                Err(Error::Posix(Posix::Stale)) => return Ok(false),
                parent => parent?,
            };
        }
        Ok(at == ancestor)
    }
}

fn moving(
    source: &EntryRow,
    to: (Ino, &[u8]),
    replaced: Option<LinkId>,
    now: crate::record::TimeNs,
) -> Op {
    Op::Move {
        link: source.link.0,
        parent: to.0.0,
        name: to.1.to_vec(),
        replaced: replaced.map(|link| link.0),
        now,
    }
}
