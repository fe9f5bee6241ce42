//! The view: what a drive shows, as a pure function of the records its devices told.
//!
//! This is the slow and obvious way: it keeps every fact in memory, knows no index, no journal and
//! no order in which records come. The tree does the same a commit at a time and must come to the
//! same result; what a drive was at a past cut is shown by this alone.
//!
//! In this order: [`Facts`] joins the records; `alive` finds which links live and which directory
//! hangs where; `naming` gives out the names. Each rule stands in rdrivefs-design(7), "Merging".

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{FileId, LinkId};
use crate::record::{Kind, Record, Stamp};
use crate::view::alive::{Home, Link, Living};
use crate::view::facts::FileFacts;
use crate::view::naming::{Claim, copy_file, copy_link};

mod alive;
mod facts;
pub(crate) mod naming;
mod words;

pub use facts::Facts;
pub use words::{Entry, File, Named, Version};

/// What a set of records shows.
///
/// ```
/// use rdrivefs_sync::id::{DeviceNumber, FileId, LinkId};
/// use rdrivefs_sync::record::{Kind, Record, Stamp, TimeNs};
/// use rdrivefs_sync::view::View;
///
/// let (file, link) = (FileId(0x100), LinkId(0x200));
/// let born = TimeNs { secs: 0, nanos: 0 };
/// let name = b"letters".to_vec();
/// let records = [
///     Record::File { file, kind: Kind::Directory, rdev: 0, target: Vec::new(), born },
///     Record::Link { link, parent: FileId::ROOT, name, file },
/// ];
/// let stamp = Stamp { lamport: 1, device: DeviceNumber(1) };
/// let view = View::of(records.iter().map(|record| (stamp, record)));
/// let found = view.lookup(b"/letters").expect("it was made");
/// assert_eq!((found.file, view.file(file).expect("it has a name").kind), (file, Kind::Directory));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    directories: BTreeMap<FileId, BTreeMap<Vec<u8>, Entry>>,
    files: BTreeMap<FileId, File>,
}

impl View {
    /// What these records show, in whatever order they come and however often.
    pub fn of<'a>(records: impl IntoIterator<Item = (Stamp, &'a Record)>) -> Self {
        let mut facts = Facts::default();
        for (stamp, record) in records {
            facts.add(stamp, record);
        }
        Self::from_facts(&facts)
    }

    /// What these facts show.
    pub fn from_facts(facts: &Facts) -> Self {
        let living = Living::of(facts);
        let mut view = Self { directories: BTreeMap::new(), files: BTreeMap::new() };
        view.directories.insert(FileId::ROOT, BTreeMap::new());
        for (dir, claims) in claims(facts, &living) {
            let names = naming::arrange(claims);
            let entries = names.into_iter().map(|(name, (claim, plainly))| {
                let named = match claim.named {
                    Named::Plainly if !plainly => Named::Beside,
                    named => named,
                };
                let Claim { link, file, kind, .. } = claim;
                (name, Entry { link, file, kind, named })
            });
            view.directories.insert(dir, entries.collect());
        }
        view.show_files(facts);
        view
    }

    /// The entries of a directory, by name; none of what is no directory here.
    pub fn entries(&self, dir: FileId) -> impl Iterator<Item = (&[u8], &Entry)> {
        self.directories.get(&dir).into_iter().flatten().map(|(name, entry)| (&name[..], entry))
    }

    /// What a name in a directory leads to.
    pub fn entry(&self, dir: FileId, name: &[u8]) -> Option<&Entry> {
        self.directories.get(&dir)?.get(name)
    }

    /// What a path from the root leads to; the root itself has no entry.
    pub fn lookup(&self, path: &[u8]) -> Option<&Entry> {
        let mut names = path.split(|b| *b == b'/').filter(|name| !name.is_empty());
        let first = self.entry(FileId::ROOT, names.next()?);
        names.fold(first, |above, name| self.entry(above?.file, name))
    }

    /// A file that has a name, or the root.
    pub fn file(&self, file: FileId) -> Option<&File> {
        self.files.get(&file)
    }

    /// All files that have names, and the root.
    pub fn files(&self) -> impl Iterator<Item = (FileId, &File)> {
        self.files.iter().map(|(id, file)| (*id, file))
    }

    fn show_files(&mut self, facts: &Facts) {
        let mut links: BTreeMap<FileId, u32> = BTreeMap::new();
        let mut copies: BTreeMap<FileId, (FileId, LinkId)> = BTreeMap::new();
        for (dir, entries) in &self.directories {
            let within = entries.values().filter(|entry| entry.kind == Kind::Directory).count();
            links.insert(*dir, u32::try_from(2 + within).unwrap_or(u32::MAX));
            for entry in entries.values() {
                if entry.kind != Kind::Directory {
                    *links.entry(entry.file).or_default() += 1;
                } else {
                    links.entry(entry.file).or_insert(2);
                }
                if let Named::Copy { of } = entry.named {
                    copies.insert(entry.file, (of, entry.link));
                }
            }
        }
        for (id, nlink) in links {
            let shown = match copies.get(&id) {
                Some((of, link)) => facts.file(*of).and_then(|of| show_copy(of, *link)),
                None => facts.file(id).map(|file| show(file, nlink)),
            };
            // The root is there though no record makes it.
            let shown = shown.unwrap_or_else(|| show(&FileFacts::default(), nlink));
            self.files.insert(id, shown);
        }
    }
}

/// Who wants which name in which directory.
fn claims(facts: &Facts, living: &Living<'_>) -> BTreeMap<FileId, BTreeMap<Vec<u8>, Vec<Claim>>> {
    let mut claims: BTreeMap<FileId, BTreeMap<Vec<u8>, Vec<Claim>>> = BTreeMap::new();
    let (mut copied, mut copies_made) = (BTreeSet::new(), BTreeSet::new());
    // In the order of their numbers: copies stand beside the first name of their file.
    for link in living.links() {
        let Some(file) = facts.file(link.file) else { continue };
        let (parent, name, named) = match living.home(link) {
            Home::Here => (link.place.parent, link.place.name.clone(), Named::Plainly),
            Home::Root(name) => (FileId::ROOT, name, Named::Moved),
        };
        let names = claims.entry(parent).or_default();
        let group = names.entry(name).or_default();
        group.push(claim(link, file, named));
        if copied.insert(link.file) {
            // An id that two files have, which no honest device draws, makes one copy.
            let copies = copies(facts, link.file, file);
            group.extend(copies.into_iter().filter(|copy| copies_made.insert(copy.link)));
        }
    }
    claims
}

fn claim(link: &Link<'_>, file: &FileFacts, named: Named) -> Claim {
    let kind = file.made().kind;
    let at = file.made().born;
    Claim { stamp: link.stamp, link: link.id, file: link.file, kind, at, named }
}

/// Copies of the versions that lost, as far as nobody touched or removed them.
fn copies(facts: &Facts, of: FileId, file: &FileFacts) -> Vec<Claim> {
    let shown = file.winner();
    let losers = file.heads().filter(|id| Some(*id) != shown && facts.is_copied(of, *id));
    let losers = losers.filter_map(|id| {
        let version = file.version(id)?;
        Some(Claim {
            stamp: version.stamp,
            link: copy_link(id),
            file: copy_file(id),
            kind: Kind::File,
            at: version.value.mtime,
            named: Named::Copy { of },
        })
    });
    losers.collect()
}

fn show(facts: &FileFacts, nlink: u32) -> File {
    let made = facts.made();
    let attributes = facts.attributes();
    let version = facts.winner().and_then(|id| facts.shown(id));
    let written = version.as_ref().map(|version| (version.stamp, version.mtime));
    let set = attributes.mtime.as_ref().map(|told| (told.stamp, told.value));
    // Of one commit, what was set counts.
    let mtime = match (written, set) {
        (Some(written), Some(set)) if written.0 > set.0 => Some(written.1),
        (written, set) => set.or(written).map(|told| told.1),
    };
    File {
        kind: made.kind,
        rdev: made.rdev,
        target: made.target.clone(),
        born: made.born,
        mode: attributes.mode.as_ref().map(|told| told.value),
        uid: attributes.uid.as_ref().map(|told| told.value),
        gid: attributes.gid.as_ref().map(|told| told.value),
        mtime,
        xattrs: facts.xattrs(),
        version,
        heads: facts.heads().collect(),
        nlink,
    }
}

/// An untouched copy has its file's attributes, and its version's content and time.
fn show_copy(of: &FileFacts, link: LinkId) -> Option<File> {
    let id = of.heads().find(|id| copy_link(*id) == link)?;
    let version = of.shown(id)?;
    let mtime = Some(version.mtime);
    let (xattrs, version, heads) = (BTreeMap::new(), Some(version), vec![id]);
    Some(File { mtime, xattrs, version, heads, ..show(of, 1) })
}

#[cfg(test)]
mod tests;
