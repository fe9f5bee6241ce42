//! The conflict matrix: every pair of twelve operations, on the same path, on a directory and what is
//! in it, done by two devices at once; and triples of them by three. Each case has a directory of its
//! own, so that one world holds them all.
//!
//! In the end all devices show what the view of all records shows, and in it every content is to be
//! read that nobody who saw it wrote over or removed.

use std::collections::BTreeSet;

use super::devices::{ME, World, read, tell, tell_view};
use super::random::{Rng, first_seed};
use super::*;

const OPS: [Op; 12] = [
    Op::Create,
    Op::Edit,
    Op::Truncate,
    Op::Chmod,
    Op::Xattr,
    Op::Remove,
    Op::Rename,
    Op::Move,
    Op::Replace,
    Op::Link,
    Op::Turn,
    Op::Exchange,
];

/// What is worked on, by one and the other.
const RELATIONS: [(&str, &str); 5] =
    [("p/m/f", "p/m/f"), ("p/m", "p/m"), ("p/m", "p/m/f"), ("p/m/f", "p/m"), ("p", "p/m/f")];

/// Triples that are tried.
const TRIPLES: usize = 150;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    /// Another file beside it, by a name everybody takes.
    Create,
    /// New content; in a directory a file by a name everybody takes.
    Edit,
    /// No content; in a directory another one with a file.
    Truncate,
    Chmod,
    Xattr,
    /// With all that is in it.
    Remove,
    /// To a name of the device's.
    Rename,
    /// To a name everybody takes, elsewhere.
    Move,
    /// By another that was made beside it, as editors save.
    Replace,
    /// A second name, everybody the same; of a directory a symlink.
    Link,
    /// A directory becomes a file, a file a directory.
    Turn,
    /// With another file.
    Exchange,
}

/// What was written and what of it nobody meant to go.
#[derive(Default)]
struct Contents {
    written: usize,
    alive: BTreeSet<String>,
}

/// A path as one device has it.
struct Target<'a> {
    tree: &'a Tree,
    device: usize,
    case: Ino,
    dir: Ino,
    name: &'a str,
    ino: Ino,
}

impl Contents {
    fn put(&mut self, tree: &Tree, dir: Ino, name: &str) -> Ino {
        self.write(tree, tree.create(&ME, dir, name.as_bytes(), 0o644).unwrap().ino)
    }

    fn write(&mut self, tree: &Tree, ino: Ino) -> Ino {
        self.goes(tree, ino);
        self.written += 1;
        let content = format!("content-{:05}", self.written);
        tree.write(ino, 0, content.as_bytes()).unwrap();
        self.alive.insert(content);
        ino
    }

    fn goes(&mut self, tree: &Tree, ino: Ino) {
        let content = String::from_utf8(read(tree, ino)).unwrap();
        self.alive.remove(&content);
    }

    fn remove(&mut self, tree: &Tree, dir: Ino, name: &[u8]) {
        let found = tree.lookup(dir, name).unwrap();
        if found.kind != Kind::Directory {
            if found.kind == Kind::File {
                self.goes(tree, found.ino);
            }
            return tree.unlink(dir, name).unwrap();
        }
        for entry in tree.list(found.ino, 0, 99).unwrap() {
            self.remove(tree, found.ino, &entry.name);
        }
        tree.remove_directory(dir, name).unwrap();
    }
}

impl Target<'_> {
    fn find<'a>(tree: &'a Tree, device: usize, case: &str, path: &'a str) -> Target<'a> {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = super::find(tree, &format!("{case}/{above}"));
        let ino = super::find(tree, &format!("{case}/{path}"));
        Target { tree, device, case: super::find(tree, case), dir, name, ino }
    }

    fn is_directory(&self) -> bool {
        self.tree.attr(self.ino).unwrap().kind == Kind::Directory
    }

    fn elsewhere(&self) -> Ino {
        self.tree.lookup(self.case, b"q").unwrap().ino
    }

    fn act(&self, op: Op, contents: &mut Contents) {
        let (tree, dir, name, ino) = (self.tree, self.dir, self.name, self.ino);
        match op {
            Op::Create => _ = contents.put(tree, dir, "n"),
            Op::Edit if self.is_directory() => _ = contents.put(tree, ino, "e"),
            Op::Edit => _ = contents.write(tree, ino),
            Op::Truncate if self.is_directory() => {
                contents.put(tree, mkdir(tree, ino, "s"), "f");
            }
            Op::Truncate => {
                contents.goes(tree, ino);
                tree.set_attr(ino, &SetAttr { size: Some(0), ..SetAttr::default() }).unwrap();
            }
            Op::Chmod => {
                let mode = Some(0o700 + self.device as u32);
                tree.set_attr(ino, &SetAttr { mode, ..SetAttr::default() }).unwrap();
            }
            Op::Xattr => {
                let value = [b'0' + self.device as u8];
                tree.set_xattr(ino, b"user.k", &value, SetXattr::Any).unwrap();
            }
            Op::Remove => contents.remove(tree, dir, name.as_bytes()),
            Op::Rename => mv(tree, (dir, name), (dir, &format!("r{}", self.device))),
            Op::Move => mv(tree, (dir, name), (self.elsewhere(), "v")),
            Op::Replace | Op::Turn => self.replace(op == Op::Turn, contents),
            Op::Link if self.is_directory() => {
                tree.symlink(&ME, self.elsewhere(), b"l", name.as_bytes()).unwrap();
            }
            Op::Link => _ = tree.link(ino, self.elsewhere(), b"l").unwrap(),
            Op::Exchange => {
                let from = (dir, name.as_bytes());
                tree.rename(from, (self.elsewhere(), b"t"), Rename::Exchange).unwrap();
            }
        }
    }

    fn replace(&self, by_other_kind: bool, contents: &mut Contents) {
        let (tree, dir, name) = (self.tree, self.dir, self.name);
        let directory = self.is_directory();
        if directory != by_other_kind {
            contents.put(tree, mkdir(tree, dir, "tmp"), "g");
        } else {
            contents.put(tree, dir, "tmp");
        }
        if directory || by_other_kind {
            contents.remove(tree, dir, name.as_bytes());
        } else {
            contents.goes(tree, self.ino);
        }
        mv(tree, (dir, "tmp"), (dir, name));
    }
}

/// A case is a directory, and what each device does to which path in it.
type Case = (String, Vec<(Op, &'static str)>);

fn begin(world: &World, cases: &[Case], contents: &mut Contents) {
    let tree = &world.devices[0].tree;
    for (case, _) in cases {
        let case = mkdir(tree, ROOT, case);
        let (p, q) = (mkdir(tree, case, "p"), mkdir(tree, case, "q"));
        contents.put(tree, q, "t");
        contents.put(tree, mkdir(tree, p, "m"), "f");
    }
    world.exchange();
}

fn play(devices: usize, cases: &[Case]) {
    let (world, mut contents) = (World::new(devices), Contents::default());
    begin(&world, cases, &mut contents);
    for (n, device) in world.devices.iter().enumerate() {
        for (case, acts) in cases {
            let (op, path) = acts[n];
            Target::find(&device.tree, n, case, path).act(op, &mut contents);
        }
    }
    world.exchange();
    let shown = tell_view(&world.view());
    let case_of = |line: &str| line.split('/').nth(1).unwrap_or_default().to_owned();
    for device in &world.devices {
        let other = tell(&device.tree);
        let (a, b): (BTreeSet<_>, BTreeSet<_>) = (shown.iter().collect(), other.iter().collect());
        let differ: BTreeSet<_> = a.symmetric_difference(&b).map(|line| case_of(line)).collect();
        let differ: Vec<_> = cases.iter().filter(|(case, _)| differ.contains(case)).collect();
        let (only, not): (Vec<_>, Vec<_>) =
            (b.difference(&a).collect(), a.difference(&b).collect());
        assert!(
            shown == other,
            "device {}: {differ:#?}\nit has {only:#?}\nit has not {not:#?}",
            device.number
        );
    }
    for content in &contents.alive {
        assert!(shown.iter().any(|line| line.contains(content.as_str())), "{content} is lost");
    }
}

#[test]
fn whatever_two_devices_do_at_once_nothing_is_lost_and_both_show_the_same() {
    for (one, other) in RELATIONS {
        let pairs = OPS.iter().flat_map(|a| OPS.iter().map(move |b| (*a, *b)));
        let cases = pairs.map(|(a, b)| (format!("{a:?} {b:?}"), vec![(a, one), (b, other)]));
        play(2, &cases.collect::<Vec<_>>());
    }
}

#[test]
fn whatever_three_devices_do_at_once_nothing_is_lost_and_all_show_the_same() {
    let mut rng = Rng(first_seed());
    let cases = (0..TRIPLES).map(|n| {
        let acts = (0..3).map(|_| (OPS[rng.below(12)], ["p", "p/m", "p/m/f"][rng.below(3)]));
        let acts: Vec<_> = acts.collect();
        (format!("{n} {acts:?}").replace('/', "_"), acts)
    });
    play(3, &cases.collect::<Vec<_>>());
}
