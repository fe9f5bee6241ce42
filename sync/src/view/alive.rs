//! Which links live, and which directory hangs where.
//!
//! A link is dead when a tombstone has seen its place, unless its file has a head that the tombstone
//! has not seen and no other name lives; what lives brings the directories above it back. Of
//! directories that concurrent moves put into each other, the one moved last is cut off and appears
//! in the root, and so does what is put into something that is no directory.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{FileId, LinkId};
use crate::record::{Kind, Stamp};
use crate::view::facts::{Facts, Place, Tomb};
use crate::view::naming::moved_name;

/// A link that leads to something.
pub(super) struct Link<'a> {
    pub(super) id: LinkId,
    pub(super) file: FileId,
    pub(super) place: &'a Place,
    pub(super) stamp: Stamp,
    tomb: Option<&'a Tomb>,
}

/// The links that live.
pub(super) struct Living<'a> {
    links: BTreeMap<LinkId, Link<'a>>,
    /// Directories that have a name, and the root.
    directories: BTreeSet<FileId>,
    /// Links that would make a ring.
    cut: BTreeSet<LinkId>,
}

/// Where a link stands.
pub(super) enum Home {
    /// Where its record puts it.
    Here,
    /// In the root, under this name.
    Root(Vec<u8>),
}

impl<'a> Living<'a> {
    pub(super) fn of(facts: &'a Facts) -> Self {
        let mut links = candidates(facts);
        let living = living(facts, &links);
        links.retain(|id, _| living.contains(id));
        let named = links.values().map(|link| link.file).chain([FileId::ROOT]);
        let directories =
            named.filter(|file| kind(facts, *file) == Some(Kind::Directory)).collect();
        let cut = cut(&links, &directories);
        Self { links, directories, cut }
    }

    /// In the order of their numbers.
    pub(super) fn links(&self) -> impl Iterator<Item = &Link<'a>> {
        self.links.values()
    }

    pub(super) fn home(&self, link: &Link<'_>) -> Home {
        if self.directories.contains(&link.place.parent) && !self.cut.contains(&link.id) {
            return Home::Here;
        }
        Home::Root(moved_name(&link.place.name, link.stamp.device))
    }
}

fn kind(facts: &Facts, file: FileId) -> Option<Kind> {
    match file {
        FileId::ROOT => Some(Kind::Directory),
        file => facts.file(file).map(|file| file.made().kind),
    }
}

/// Links to files that were made. A directory has one name for life, the first it was given.
fn candidates(facts: &Facts) -> BTreeMap<LinkId, Link<'_>> {
    let mut links = BTreeMap::new();
    let mut names: BTreeMap<FileId, (Option<Stamp>, LinkId)> = BTreeMap::new();
    for (id, link) in facts.links() {
        let Some((file, told)) = link.place() else { continue };
        if file == FileId::ROOT || facts.file(file).is_none() {
            continue;
        }
        if kind(facts, file) == Some(Kind::Directory) {
            let name = (link.since(), id);
            let known = names.get(&file).copied();
            if known.is_some_and(|known| known < name) {
                continue;
            }
            names.insert(file, name);
            if let Some((_, beaten)) = known {
                links.remove(&beaten);
            }
        }
        let (place, stamp, tomb) = (&told.value, told.stamp, link.tomb.as_ref());
        links.insert(id, Link { id, file, place, stamp, tomb });
    }
    links
}

impl Link<'_> {
    /// Who removed it had seen it where it is.
    fn is_tombed(&self) -> bool {
        self.tomb.is_some_and(|tomb| self.stamp <= tomb.saw)
    }
}

fn living(facts: &Facts, links: &BTreeMap<LinkId, Link<'_>>) -> BTreeSet<LinkId> {
    let mut names: BTreeMap<FileId, Vec<&Link<'_>>> = BTreeMap::new();
    for link in links.values() {
        names.entry(link.file).or_default().push(link);
    }
    let mut living = BTreeSet::new();
    let mut left = Vec::new();
    for (file, names) in &names {
        let named = names.iter().any(|link| !link.is_tombed());
        for link in
            names.iter().filter(|link| !link.is_tombed() || !named && unseen(facts, *file, link))
        {
            living.insert(link.id);
            left.push(link.place.parent);
        }
    }
    while let Some(dir) = left.pop() {
        for link in names.get(&dir).into_iter().flatten() {
            let directory = kind(facts, dir) == Some(Kind::Directory);
            if directory && living.insert(link.id) {
                left.push(link.place.parent);
            }
        }
    }
    living
}

/// Whether a file has content that whoever removed the link did not know.
fn unseen(facts: &Facts, file: FileId, link: &Link<'_>) -> bool {
    let Some((known, tomb)) = facts.file(file).zip(link.tomb) else { return false };
    known.heads().any(|id| !tomb.heads.contains(&id) && facts.is_head_of(file, id))
}

/// Of every ring of directories, the link that was moved last.
fn cut(links: &BTreeMap<LinkId, Link<'_>>, directories: &BTreeSet<FileId>) -> BTreeSet<LinkId> {
    let dirs = links.values().filter(|link| directories.contains(&link.file));
    let above: BTreeMap<FileId, &Link<'_>> = dirs.map(|link| (link.file, link)).collect();
    let (mut clear, mut cut) = (BTreeSet::new(), BTreeSet::new());
    for dir in above.keys() {
        let (mut way, mut at) = (Vec::new(), *dir);
        while let Some(link) = above.get(&at).filter(|_| !clear.contains(&at)) {
            clear.insert(at);
            way.push(*link);
            at = link.place.parent;
        }
        // Who comes back to where this way began has gone round.
        if let Some(start) = way.iter().position(|link| link.file == at) {
            let newest = way[start..].iter().max_by_key(|link| (link.stamp, link.id));
            cut.extend(newest.map(|link| link.id));
        }
    }
    cut
}
