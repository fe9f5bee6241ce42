//! The laws of merging, on records of all sorts, and each rule by itself.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;
use crate::id::{DeviceNumber, VersionId};
use crate::record::{Content, TimeNs};

type Told = (Stamp, Record);

fn born(secs: i64) -> TimeNs {
    TimeNs { secs, nanos: 0 }
}

fn id(count: u64) -> u64 {
    crate::id::draw(DeviceNumber(1), count)
}

fn stamp(lamport: u64, device: u16) -> Stamp {
    Stamp { lamport, device: DeviceNumber(device) }
}

fn file(count: u64) -> FileId {
    if count == 0 { FileId::ROOT } else { FileId(id(count)) }
}

fn made(count: u64, kind: Kind) -> Record {
    Record::File { file: file(count), kind, rdev: 0, target: Vec::new(), born: born(0) }
}

fn link(link: u64, parent: u64, name: &str, to: u64) -> Record {
    let name = name.as_bytes().to_vec();
    Record::Link { link: LinkId(id(link)), parent: file(parent), name, file: file(to) }
}

fn unlink(link: u64, saw: Stamp, heads: &[u64]) -> Record {
    let heads = heads.iter().map(|head| VersionId(id(*head))).collect();
    Record::Unlink { link: LinkId(id(link)), saw, heads }
}

fn version(of: u64, version: u64, bases: &[u64]) -> Record {
    let content = Content::Inline(version.to_le_bytes().to_vec());
    let bases = bases.iter().map(|base| VersionId(id(*base))).collect();
    let id = VersionId(id(version));
    Record::Version { file: file(of), id, bases, size: 8, mtime: born(0), content }
}

fn mode(of: u64, mode: u32) -> Record {
    let (uid, gid, mtime, atime, ctime, crtime) = (None, None, None, None, None, None);
    Record::Attr { file: file(of), mode: Some(mode), uid, gid, mtime, atime, ctime, crtime }
}

/// Records of few files, so that they meet: sensible ones and all others.
fn record() -> impl Strategy<Value = Record> {
    let name = prop_oneof!["[ab]", "[aA]", Just("\u{e4}".to_owned()), Just("a\u{308}".to_owned())];
    let kinds = prop_oneof![3 => Just(None), 1 => Just(Some(Kind::File))];
    let copy = |version: u64| copy_file(VersionId(id(version)));
    prop_oneof![
        3 => (1..8_u64, kinds).prop_map(|(count, kind)| {
            let kind = kind.unwrap_or(if count < 5 { Kind::Directory } else { Kind::File });
            made(count, kind)
        }),
        5 => (1..10_u64, 0..6_u64, name, 1..8_u64).prop_map(|(at, p, n, to)| link(at, p, &n, to)),
        3 => (1..10_u64, 0..9_u64, 1..4_u16, btree_set(1..7_u64, 0..4)).prop_map(
            |(at, lamport, device, heads)| {
                unlink(at, stamp(lamport, device), &heads.into_iter().collect::<Vec<_>>())
            }
        ),
        // A version replaces such as were there before it.
        4 => (5..8_u64, 1..7_u64, btree_set(1..7_u64, 0..3)).prop_map(|(of, id, bases)| {
            let bases: Vec<_> = bases.into_iter().filter(|base| *base < id).collect();
            version(of, id, &bases)
        }),
        1 => (0..8_u64, 0..0o777_u32).prop_map(|(of, bits)| mode(of, bits)),
        1 => (0..8_u64, "[kl]", proptest::option::of("[vw]")).prop_map(|(of, name, value)| {
            let value = value.map(String::into_bytes);
            Record::Xattr { file: file(of), name: name.into_bytes(), value }
        }),
        1 => (1..7_u64).prop_map(move |id| Record::File {
            file: copy(id), kind: Kind::File, rdev: 0, target: Vec::new(), born: born(0),
        }),
        1 => (1..7_u64, 0..9_u64).prop_map(|(version, lamport)| Record::Unlink {
            link: copy_link(VersionId(id(version))), saw: stamp(lamport, 2), heads: Vec::new(),
        }),
    ]
}

fn told() -> impl Strategy<Value = Vec<Told>> {
    vec(((1..9_u64, 1..4_u16).prop_map(|(l, d)| stamp(l, d)), record()), 0..50)
}

fn facts(told: &[Told]) -> Facts {
    let mut facts = Facts::default();
    told.iter().for_each(|(stamp, record)| facts.add(*stamp, record));
    facts
}

fn view(told: &[Told]) -> View {
    View::of(told.iter().map(|(stamp, record)| (*stamp, record)))
}

fn joined(one: &Facts, other: &Facts) -> Facts {
    let mut both = one.clone();
    both.join(other.clone());
    both
}

fn paths(view: &View) -> BTreeMap<String, Entry> {
    let (mut paths, mut left) = (BTreeMap::new(), vec![(FileId::ROOT, String::new())]);
    while let Some((dir, above)) = left.pop() {
        for (name, entry) in view.entries(dir) {
            let path = format!("{above}/{}", String::from_utf8_lossy(name));
            left.push((entry.file, path.clone()));
            assert!(paths.insert(path, *entry).is_none(), "a name twice");
        }
    }
    paths
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_records_and_how_often_they_come_is_nothing(
        (one, other) in told().prop_flat_map(|told| {
            let twice = [told.clone(), told[..told.len() / 2].to_vec()].concat();
            (Just(told), Just(twice).prop_shuffle())
        })
    ) {
        prop_assert_eq!(view(&one), view(&other));
    }

    #[test]
    fn joining_is_commutative_associative_and_idempotent(a in told(), b in told(), c in told()) {
        let all = facts(&[a.clone(), b.clone(), c.clone()].concat());
        let (a, b, c) = (facts(&a), facts(&b), facts(&c));
        prop_assert_eq!(joined(&a, &b), joined(&b, &a));
        prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
        prop_assert_eq!(joined(&all, &b), all.clone());
        prop_assert_eq!(joined(&joined(&a, &b), &c), all);
    }

    #[test]
    fn it_is_a_tree_whose_names_can_be_names(told in told()) {
        let view = view(&told);
        let paths = paths(&view);
        let mut directories = BTreeSet::from([FileId::ROOT]);
        let mut names: BTreeMap<FileId, u32> = BTreeMap::new();
        for (path, entry) in &paths {
            let name = path.rsplit('/').next().expect("it has a name");
            prop_assert!(!name.is_empty() && name.len() <= 255);
            let file = view.file(entry.file).expect("what has a name is there");
            prop_assert_eq!(file.kind, entry.kind);
            *names.entry(entry.file).or_default() += 1;
            if entry.kind == Kind::Directory {
                prop_assert!(directories.insert(entry.file), "a directory in two");
            }
        }
        for (id, file) in view.files() {
            let within = view.entries(id).filter(|(_, entry)| entry.kind == Kind::Directory);
            match file.kind {
                Kind::Directory => {
                    prop_assert!(directories.contains(&id), "a directory nobody comes to");
                    prop_assert_eq!(file.nlink as usize, 2 + within.count());
                }
                _ => prop_assert_eq!(Some(&file.nlink), names.get(&id)),
            }
        }
    }

    /// Every head can be read, unless the names of its file were removed by who knew it.
    #[test]
    fn no_version_is_lost(told in told()) {
        let (facts, view) = (facts(&told), view(&told));
        let shown: BTreeSet<_> =
            view.files().filter_map(|(id, file)| Some((id, file.version.as_ref()?.id))).collect();
        for (id, file) in (5..8).filter_map(|n| Some((FileId(id(n)), facts.file(FileId(id(n)))?))) {
            let links: Vec<_> = facts
                .links()
                .filter(|(_, link)| link.place().is_some_and(|(to, _)| to == id))
                .collect();
            for head in file.heads() {
                let apart = facts.file(copy_file(head)).is_some();
                let seen = links.iter().all(|(_, link)| {
                    link.tomb.as_ref().is_some_and(|tomb| tomb.heads.contains(&head))
                });
                let removed = facts.links().any(|(id, link)| {
                    id == copy_link(head) && link.tomb.is_some()
                });
                let shown = shown.contains(&(id, head)) || shown.contains(&(copy_file(head), head));
                let directory = file.made().kind == Kind::Directory;
                prop_assert!(
                    shown || apart || seen || removed || directory,
                    "{head:?} of {id:?} is lost: {told:?}"
                );
            }
        }
    }

    /// A name that nobody removed where it is stands, once. Of directories only one ever does.
    #[test]
    fn every_link_that_nobody_removed_stands(told in told()) {
        let (facts, view) = (facts(&told), view(&told));
        let paths = paths(&view);
        for (id, link) in facts.links() {
            let Some((to, place)) = link.place().filter(|(to, _)| *to != FileId::ROOT) else {
                continue;
            };
            let Some(file) = facts.file(to) else { continue };
            let tombed = link.tomb.as_ref().is_some_and(|tomb| place.stamp <= tomb.saw);
            let stands = paths.values().filter(|entry| entry.link == id).count();
            prop_assert!(stands < 2);
            if !tombed && file.made().kind != Kind::Directory {
                prop_assert_eq!(stands, 1);
            }
        }
    }
}

/// A drive with a file `x` and a directory `d`, told by the first device.
fn begun() -> Vec<Told> {
    let records = [
        made(1, Kind::File),
        version(1, 10, &[]),
        link(2, 0, "x.txt", 1),
        made(3, Kind::Directory),
        link(4, 0, "d", 3),
    ];
    records.into_iter().map(|record| (stamp(1, 1), record)).collect()
}

#[track_caller]
fn shows(told: &[(u64, u16, Record)], expected: &[&str]) -> View {
    let later = told.iter().cloned().map(|(lamport, device, r)| (stamp(lamport, device), r));
    let all: Vec<_> = begun().into_iter().chain(later).collect();
    let view = view(&all);
    assert_eq!(paths(&view).into_keys().collect::<Vec<_>>(), expected);
    let backwards: Vec<_> = all.into_iter().rev().collect();
    assert_eq!(view, self::view(&backwards));
    view
}

const X: &str = "/x.txt";
const COPY: &str = "/x (conflict, 1, 1970-01-01).txt";

#[test]
fn of_two_heads_the_later_has_the_name_and_the_other_stands_beside() {
    let edits = [(2, 1, version(1, 11, &[10])), (2, 2, version(1, 12, &[10]))];
    let view = shows(&edits, &["/d", COPY, X]);
    assert_eq!(view.lookup(b"x.txt").unwrap().file, file(1));
    assert_eq!(view.file(file(1)).unwrap().version.as_ref().unwrap().id, VersionId(id(12)));
    let copy = view.lookup(COPY.as_bytes()).unwrap();
    assert_eq!(
        (copy.named, copy.file),
        (Named::Copy { of: file(1) }, copy_file(VersionId(id(11))))
    );
    // Who knew both and wrote over them leaves one.
    let over = [&edits[..], &[(3, 2, version(1, 13, &[11, 12]))]].concat();
    shows(&over, &["/d", X]);
    // Whose copy was removed is not shown, and is no reason for its file to stay.
    let link = copy_link(VersionId(id(11)));
    let removed = (3, 2, Record::Unlink { link, saw: stamp(2, 1), heads: Vec::new() });
    let gone = [&edits[..], &[removed, (4, 2, unlink(2, stamp(1, 1), &[12]))]].concat();
    shows(&gone[..3], &["/d", X]);
    shows(&gone, &["/d"]);
}

#[test]
fn a_copy_that_somebody_told_of_is_a_file_of_its_own() {
    let copy = copy_file(VersionId(id(11)));
    let (target, name) = (Vec::new(), b"mine".to_vec());
    let own = [
        (2, 1, version(1, 11, &[10])),
        (2, 2, version(1, 12, &[10])),
        (3, 1, Record::File { file: copy, kind: Kind::File, rdev: 0, target, born: born(0) }),
        (
            3,
            1,
            Record::Link { link: copy_link(VersionId(id(11))), parent: file(3), name, file: copy },
        ),
    ];
    shows(&own, &["/d", "/d/mine", X]);
}

#[test]
fn a_removed_link_lives_if_it_was_moved_or_written_meanwhile() {
    let gone = (3, 1, unlink(2, stamp(1, 1), &[10]));
    shows(std::slice::from_ref(&gone), &["/d"]);
    shows(&[gone.clone(), (2, 2, link(2, 3, "y", 1))], &["/d", "/d/y"]);
    shows(&[gone.clone(), (2, 2, version(1, 11, &[10]))], &["/d", X]);
    // Another name is enough for what was written.
    let named = [gone, (2, 2, version(1, 11, &[10])), (2, 2, link(5, 3, "z", 1))];
    shows(&named, &["/d", "/d/z"]);
}

#[test]
fn what_lives_brings_the_directories_above_it_back() {
    let gone = (2, 1, unlink(4, stamp(1, 1), &[]));
    shows(std::slice::from_ref(&gone), &[X]);
    let within = [
        gone,
        (2, 2, made(5, Kind::Directory)),
        (2, 2, link(6, 3, "e", 5)),
        (2, 2, made(7, Kind::File)),
        (2, 2, link(8, 5, "f", 7)),
    ];
    shows(&within, &["/d", "/d/e", "/d/e/f", X]);
    let emptied = [&within[..], &[(3, 1, unlink(8, stamp(2, 2), &[]))]].concat();
    shows(&emptied, &["/d", "/d/e", X]);
}

#[test]
fn two_that_want_one_name_get_two() {
    let two = [(2, 1, made(5, Kind::File)), (2, 1, link(6, 0, "x.txt", 5))];
    let view = shows(&two, &["/d", COPY, X]);
    assert_eq!(view.lookup(b"/x.txt").unwrap().file, file(5));
    assert_eq!(view.lookup(COPY.as_bytes()).unwrap().named, Named::Beside);
    // Several of one day are told apart by their links, whatever came first.
    let three = [&two[..], &[(3, 1, made(7, Kind::File)), (3, 1, link(8, 0, "x.txt", 7))]].concat();
    let another = format!("/x (conflict, 1, 1970-01-01, {:x}).txt", id(6));
    shows(&three, &["/d", COPY, &another, X]);
    // A name that is taken is not given to who lost another.
    let taken =
        [&two[..], &[(3, 1, made(7, Kind::File)), (3, 1, link(8, 0, &COPY[1..], 7))]].concat();
    let another = format!("/x (conflict, 1, 1970-01-01, {:x}).txt", id(2));
    let view = shows(&taken, &["/d", COPY, &another, X]);
    assert_eq!(view.lookup(COPY.as_bytes()).unwrap().file, file(7));
}

#[test]
fn names_that_differ_by_case_or_unicode_form_are_kept_apart() {
    let mut told = Vec::new();
    for (at, name) in [(20, "X.TXT"), (22, "\u{e4}"), (24, "a\u{308}")] {
        told.extend([(2, 2, made(at, Kind::File)), (2, 2, link(at + 1, 0, name, at))]);
    }
    shows(&told, &["/X.TXT", "/a\u{308}", "/d", X, "/\u{e4}"]);
}

#[test]
fn a_ring_of_moves_is_cut_at_its_newest() {
    let ring = [
        (2, 1, made(5, Kind::Directory)),
        (2, 1, link(6, 0, "e", 5)),
        (3, 1, link(4, 5, "d", 3)),
        (3, 2, link(6, 3, "e", 5)),
    ];
    let moved = "/e (moved, 2)";
    let view = shows(&ring, &[moved, "/e (moved, 2)/d", X]);
    assert_eq!(view.lookup(moved.as_bytes()).unwrap().named, Named::Moved);
    // When the other goes elsewhere, it is where it was moved to.
    let open = [&ring[..], &[(4, 1, link(4, 0, "d", 3))]].concat();
    shows(&open, &["/d", "/d/e", X]);
}

#[test]
fn what_is_in_no_directory_is_in_the_root() {
    shows(&[(2, 1, made(5, Kind::File)), (2, 1, link(6, 1, "f", 5))], &["/d", "/f (moved, 1)", X]);
}

#[test]
fn registers_go_to_the_later_and_ties_to_the_greater() {
    let modes = |told: &[(u64, u16, u32)]| {
        let told: Vec<_> = told.iter().map(|(l, d, bits)| (*l, *d, mode(1, *bits))).collect();
        shows(&told, &["/d", X]).file(file(1)).unwrap().mode
    };
    assert_eq!(modes(&[(3, 1, 0o600), (2, 2, 0o644)]), Some(0o600));
    assert_eq!(modes(&[(2, 1, 0o600), (2, 2, 0o400)]), Some(0o400));
    assert_eq!(modes(&[(2, 1, 0o600), (2, 1, 0o644)]), Some(0o644));
}
