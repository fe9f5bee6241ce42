//! Facts: what records say together, whatever their order: a join of registers and growing sets.
//!
//! A register goes to the later stamp; of two of one stamp, which no honest device makes, to the
//! greater value, so that the order is total. What can be said but once (what a file is, what a
//! version holds, what a link leads to) stays as it was said first.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{FileId, LinkId, VersionId};
use crate::record::{Content, Kind, Record, Stamp, TimeNs};
use crate::view::naming::{copy_file, copy_link};
use crate::view::words::Version;

/// Something told, in the order in which registers are won.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Told<T> {
    pub(super) stamp: Stamp,
    pub(super) value: T,
}

/// What is known by a set of records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    files: BTreeMap<FileId, FileFacts>,
    links: BTreeMap<LinkId, LinkFacts>,
}

/// What is known of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FileFacts {
    made: Option<Told<Made>>,
    attributes: Attributes,
    xattrs: BTreeMap<Vec<u8>, Told<Option<Vec<u8>>>>,
    versions: BTreeMap<VersionId, Told<Written>>,
    /// Versions that others name as what they replace.
    replaced: BTreeMap<VersionId, BTreeSet<VersionId>>,
}

/// What a file is, for good.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Made {
    pub(super) kind: Kind,
    pub(super) rdev: u32,
    pub(super) target: Vec<u8>,
    pub(super) born: TimeNs,
}

/// The registers of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) mode: Option<Told<u32>>,
    pub(super) uid: Option<Told<u32>>,
    pub(super) gid: Option<Told<u32>>,
    pub(super) mtime: Option<Told<TimeNs>>,
}

/// What a version holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Written {
    pub(super) mtime: TimeNs,
    pub(super) size: u64,
    pub(super) content: Content,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) parent: FileId,
    pub(super) name: Vec<u8>,
}

/// What is known of a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LinkFacts {
    /// By the file it is said to lead to: where it was first, and where it is.
    places: BTreeMap<FileId, (Told<Place>, Told<Place>)>,
    pub(super) tomb: Option<Tomb>,
}

/// What those who removed a link had seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tomb {
    pub(super) saw: Stamp,
    pub(super) heads: BTreeSet<VersionId>,
}

/// A root directory is one though nobody tells of it.
static ROOT: Made =
    Made { kind: Kind::Directory, rdev: 0, target: Vec::new(), born: TimeNs { secs: 0, nanos: 0 } };

impl Facts {
    /// Takes a record in.
    pub fn add(&mut self, stamp: Stamp, record: &Record) {
        match record {
            Record::File { file, kind, rdev, target, born } => {
                let (kind, rdev, target, born) = (*kind, *rdev, target.clone(), *born);
                let value = Made { kind, rdev, target, born };
                first(&mut self.of(*file).made, Told { stamp, value });
            }
            Record::Attr { file, mode, uid, gid, mtime, .. } => {
                let attributes = &mut self.of(*file).attributes;
                later(&mut attributes.mode, mode.map(|value| Told { stamp, value }));
                later(&mut attributes.uid, uid.map(|value| Told { stamp, value }));
                later(&mut attributes.gid, gid.map(|value| Told { stamp, value }));
                later(&mut attributes.mtime, mtime.map(|value| Told { stamp, value }));
            }
            Record::Xattr { file, name, value } => {
                let told = Told { stamp, value: value.clone() };
                latest_of(&mut self.of(*file).xattrs, name.clone(), told);
            }
            Record::Link { link, parent, name, file } => {
                let value = Place { parent: *parent, name: name.clone() };
                let told = Told { stamp, value };
                self.links.entry(*link).or_default().add(*file, (told.clone(), told));
            }
            Record::Unlink { link, saw, heads } => {
                let tomb = Tomb { saw: *saw, heads: heads.iter().copied().collect() };
                self.links.entry(*link).or_default().bury(tomb);
            }
            Record::Version { file, id, bases, size, mtime, content } => {
                let value = Written { size: *size, mtime: *mtime, content: content.clone() };
                self.of(*file).write(*id, bases.iter().copied(), Told { stamp, value });
            }
            Record::Layer { .. }
            | Record::Moved { .. }
            | Record::Held { .. }
            | Record::Remote { .. }
            | Record::Device { .. }
            | Record::Policy { .. } => {}
        }
    }

    /// Takes in all that others know.
    pub fn join(&mut self, other: Self) {
        for (id, file) in other.files {
            self.of(id).join(file);
        }
        for (id, link) in other.links {
            let known = self.links.entry(id).or_default();
            link.places.into_iter().for_each(|(file, places)| known.add(file, places));
            link.tomb.into_iter().for_each(|tomb| known.bury(tomb));
        }
    }

    /// Whether a version that lost is shown as a copy beside its file. Who touches a copy tells of
    /// it as a file of its own; who removes it leaves a tombstone for a link nobody told of.
    pub(super) fn is_copied(&self, of: FileId, version: VersionId) -> bool {
        let copy = copy_file(version);
        copy != of && self.file(copy).is_none() && !self.is_copy_removed(of, version)
    }

    /// Whether a version counts against those who remove its file without having seen it.
    pub(super) fn is_head_of(&self, of: FileId, version: VersionId) -> bool {
        let apart = copy_file(version) != of && self.file(copy_file(version)).is_some();
        !apart && !self.is_copy_removed(of, version)
    }

    fn is_copy_removed(&self, of: FileId, version: VersionId) -> bool {
        let told = self.files.get(&of).and_then(|file| file.version(version));
        let tomb = self.links.get(&copy_link(version)).and_then(|link| link.tomb.as_ref());
        copy_file(version) != of
            && told.zip(tomb).is_some_and(|(version, tomb)| version.stamp <= tomb.saw)
    }

    /// What is known of a file that was made.
    pub(super) fn file(&self, file: FileId) -> Option<&FileFacts> {
        self.files.get(&file).filter(|facts| facts.made.is_some() || file == FileId::ROOT)
    }

    pub(super) fn links(&self) -> impl Iterator<Item = (LinkId, &LinkFacts)> {
        self.links.iter().map(|(id, link)| (*id, link))
    }

    fn of(&mut self, file: FileId) -> &mut FileFacts {
        self.files.entry(file).or_default()
    }
}

impl FileFacts {
    /// What it is; the root alone is nobody's making.
    pub(super) fn made(&self) -> &Made {
        self.made.as_ref().map_or(&ROOT, |told| &told.value)
    }

    pub(super) fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    pub(super) fn xattrs(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let set = self.xattrs.iter();
        set.filter_map(|(name, told)| Some((name.clone(), told.value.clone()?))).collect()
    }

    pub(super) fn version(&self, id: VersionId) -> Option<&Told<Written>> {
        self.versions.get(&id).filter(|_| self.made().kind == Kind::File)
    }

    pub(super) fn shown(&self, id: VersionId) -> Option<Version> {
        let Told { stamp, value } = self.version(id)?;
        let Written { mtime, size, content } = value.clone();
        Some(Version { id, stamp: *stamp, size, mtime, content })
    }

    /// The versions that no other replaces.
    pub(super) fn heads(&self) -> impl Iterator<Item = VersionId> + '_ {
        let is_replaced = move |id: &VersionId| {
            let by = self.replaced.get(id);
            by.is_some_and(|by| by.iter().any(|other| other != id))
        };
        let ids = self.versions.keys().filter(move |_| self.made().kind == Kind::File);
        ids.copied().filter(move |id| !is_replaced(id))
    }

    /// The head that is the file's content: the latest.
    pub(super) fn winner(&self) -> Option<VersionId> {
        self.heads().max_by_key(|id| (self.versions[id].stamp, *id))
    }

    fn write(
        &mut self,
        id: VersionId,
        bases: impl IntoIterator<Item = VersionId>,
        told: Told<Written>,
    ) {
        for base in bases {
            self.replaced.entry(base).or_default().insert(id);
        }
        first_of(&mut self.versions, id, told);
    }

    fn join(&mut self, other: Self) {
        other.made.into_iter().for_each(|made| first(&mut self.made, made));
        later(&mut self.attributes.mode, other.attributes.mode);
        later(&mut self.attributes.uid, other.attributes.uid);
        later(&mut self.attributes.gid, other.attributes.gid);
        later(&mut self.attributes.mtime, other.attributes.mtime);
        for (name, told) in other.xattrs {
            latest_of(&mut self.xattrs, name, told);
        }
        for (id, told) in other.versions {
            first_of(&mut self.versions, id, told);
        }
        for (base, by) in other.replaced {
            self.replaced.entry(base).or_default().extend(by);
        }
    }
}

impl LinkFacts {
    /// Where it stands, and what it leads to: what it was said to lead to first.
    pub(super) fn place(&self) -> Option<(FileId, &Told<Place>)> {
        let first = self.places.iter().min_by(|a, b| (&a.1.0, a.0).cmp(&(&b.1.0, b.0)));
        first.map(|(file, (_, place))| (*file, place))
    }

    /// When it was first told of.
    pub(super) fn since(&self) -> Option<Stamp> {
        self.places.values().map(|(first, _)| first.stamp).min()
    }

    fn add(&mut self, file: FileId, (since, now): (Told<Place>, Told<Place>)) {
        let (first, latest) = self.places.entry(file).or_insert((since.clone(), now.clone()));
        if since < *first {
            *first = since;
        }
        if now > *latest {
            *latest = now;
        }
    }

    fn bury(&mut self, tomb: Tomb) {
        let known = self.tomb.get_or_insert_with(|| tomb.clone());
        known.saw = known.saw.max(tomb.saw);
        known.heads.extend(tomb.heads);
    }
}

fn later<T: Ord>(known: &mut Option<Told<T>>, told: Option<Told<T>>) {
    // None is less than anything.
    if told > *known {
        *known = told;
    }
}

fn first<T: Ord>(known: &mut Option<Told<T>>, told: Told<T>) {
    if known.as_ref().is_none_or(|known| told < *known) {
        *known = Some(told);
    }
}

fn latest_of<K: Ord, T: Ord>(map: &mut BTreeMap<K, Told<T>>, key: K, told: Told<T>) {
    let beaten = map.get(&key).is_some_and(|known| *known >= told);
    if !beaten {
        map.insert(key, told);
    }
}

fn first_of<K: Ord, T: Ord>(map: &mut BTreeMap<K, Told<T>>, key: K, told: Told<T>) {
    let beaten = map.get(&key).is_some_and(|known| *known <= told);
    if !beaten {
        map.insert(key, told);
    }
}
