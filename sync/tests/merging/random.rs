//! Random operations on several devices, with exchanges between them.
//!
//! What is held against the merging is as slow and obvious as can be: the view of all that was told
//! is what every device lists, and in it is every content that nobody who saw it wrote over or removed.

use std::collections::BTreeSet;

use super::devices::{Device, ME, World, read, tell, tell_view};
use super::*;

/// Worlds in a normal run; `RDRIVEFS_SEEDS` sets another number.
const SEEDS: u64 = 12;

pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

/// What is done, each as often as it stands here: see [`Play::step`].
const ALL_ALIKE: &[usize] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
/// Mostly to directories.
const DIRECTORIES: &[usize] = &[0, 2, 2, 2, 2, 3, 5, 5, 5, 5, 6, 6, 7, 7, 9, 10, 10, 11, 12];
/// Mostly to files that the kernel holds.
const HELD: &[usize] = &[0, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 13, 13, 14, 14, 14, 15];

/// One world under test.
struct Play {
    world: World,
    rng: Rng,
    what: &'static [usize],
    /// Files that the kernel of a device holds.
    held: Vec<(usize, Ino)>,
    written: u64,
    /// Contents that nobody who saw them removed.
    alive: BTreeSet<String>,
    trace: Vec<String>,
}

struct Found {
    dir: Ino,
    name: Vec<u8>,
    ino: Ino,
    kind: Kind,
}

fn all(tree: &Tree) -> Vec<Found> {
    let (mut found, mut left) = (Vec::new(), vec![ROOT]);
    while let Some(dir) = left.pop() {
        for entry in tree.list(dir, 0, usize::MAX >> 1).unwrap() {
            let (ino, kind) = (entry.attr.ino, entry.attr.kind);
            if kind == Kind::Directory {
                left.push(ino);
            }
            found.push(Found { dir, name: entry.name, ino, kind });
        }
    }
    found
}

impl Play {
    fn new(seed: u64, devices: usize) -> Self {
        let (world, rng) = (World::new(devices), Rng(seed));
        let (what, held, alive, trace) = (ALL_ALIKE, Vec::new(), BTreeSet::new(), Vec::new());
        Self { world, rng, what, held, written: 0, alive, trace }
    }

    fn device(&self, n: usize) -> &Device {
        &self.world.devices[n]
    }

    /// Content that a device writes over or takes a name from: it has seen it. Two devices that
    /// each take another of its names remove it together.
    fn goes(&mut self, tree: &Tree, file: &Found) {
        if file.kind == Kind::File {
            let content = String::from_utf8(read(tree, file.ino)).unwrap();
            self.alive.remove(&content);
        }
    }

    fn pick<'a>(&mut self, found: &'a [Found]) -> Option<&'a Found> {
        if found.is_empty() { None } else { found.get(self.rng.below(found.len())) }
    }

    fn dir(&mut self, found: &[Found]) -> Ino {
        let dirs: Vec<_> = found.iter().filter(|f| f.kind == Kind::Directory).collect();
        let n = self.rng.below(dirs.len() + 1);
        dirs.get(n).map_or(ROOT, |dir| dir.ino)
    }

    fn name(&mut self) -> Vec<u8> {
        [b"a", b"b", b"c", b"d"][self.rng.below(4)].to_vec()
    }

    fn write(&mut self, tree: &Tree, ino: Ino) {
        self.written += 1;
        let content = format!("content-{:04}", self.written);
        tree.write(ino, 0, content.as_bytes()).unwrap();
        self.alive.insert(content);
    }

    fn remove_all(&mut self, tree: &Tree, file: &Found) {
        if file.kind == Kind::Directory {
            for below in all(tree).iter().filter(|below| below.dir == file.ino) {
                self.remove_all(tree, below);
            }
            tree.remove_directory(file.dir, &file.name).unwrap();
            return;
        }
        self.goes(tree, file);
        tree.unlink(file.dir, &file.name).unwrap();
    }

    /// A step, after which nobody holds what it took the last name from: that is to go.
    fn step(&mut self, n: usize) {
        let tree = self.device(n).tree.clone();
        let is_named = |ino: Ino| tree.attr(ino).is_ok_and(|attr| attr.nlink > 0);
        let held = self.held.iter().filter(|(device, ino)| *device == n && is_named(*ino));
        let held: Vec<_> = held.copied().collect();
        self.act(n);
        for (_, ino) in held.iter().filter(|(_, ino)| !is_named(*ino)) {
            self.held.retain(|known| *known != (n, *ino));
            tree.forget(*ino, 1);
        }
    }

    fn let_go(&mut self, at: usize) {
        let (n, ino) = self.held.swap_remove(at);
        self.trace.push(format!("{n}: lets {ino:?} go"));
        self.device(n).tree.forget(ino, 1);
    }

    /// What was written through a handle to what went elsewhere is shown from then on.
    fn let_all_go(&mut self) {
        (0..self.held.len()).rev().for_each(|at| self.let_go(at));
    }

    /// Something with a file that the kernel holds.
    fn hold(&mut self, n: usize, what: usize, file: &Found) {
        let tree = self.device(n).tree.clone();
        let held: Vec<_> = (0..self.held.len()).filter(|at| self.held[*at].0 == n).collect();
        if what == 13 || held.is_empty() {
            if file.kind == Kind::File && !self.held.contains(&(n, file.ino)) {
                tree.remember(file.ino, 1);
                self.held.push((n, file.ino));
            }
            return;
        }
        let at = held[self.rng.below(held.len())];
        let ino = self.held[at].1;
        if what == 15 {
            return self.let_go(at);
        }
        self.trace.push(format!("{n}: writes through {ino:?}"));
        let content = String::from_utf8(read(&tree, ino)).unwrap();
        self.alive.remove(&content);
        self.write(&tree, ino);
    }

    fn act(&mut self, n: usize) {
        let tree = self.device(n).tree.clone();
        let found = all(&tree);
        let (dir, name) = (self.dir(&found), self.name());
        let what = self.what[self.rng.below(self.what.len())];
        let Some(file) = self.pick(&found) else {
            let made = tree.create(&ME, dir, &name, 0o644).unwrap();
            return self.write(&tree, made.ino);
        };
        let shown = |name: &[u8]| name.escape_ascii().to_string();
        self.trace.push(format!(
            "{n}: {what} {:?}/{} {:?} to {dir:?}/{}",
            file.dir,
            shown(&file.name),
            file.ino,
            shown(&name)
        ));
        match what {
            0 | 1 => {
                if let Ok(made) = tree.create(&ME, dir, &name, 0o644) {
                    self.write(&tree, made.ino);
                }
            }
            2 => drop(tree.make_directory(&ME, dir, &name, 0o755)),
            3 | 4 if file.kind == Kind::File => {
                self.goes(&tree, file);
                self.write(&tree, file.ino);
            }
            5 | 6 => self.rename(&tree, file, (dir, &name), Rename::Replace),
            7 => self.rename(&tree, file, (dir, &name), Rename::Exchange),
            8 if file.kind == Kind::File => drop(tree.link(file.ino, dir, &name)),
            9 if file.kind == Kind::File => {
                self.goes(&tree, file);
                tree.unlink(file.dir, &file.name).unwrap();
            }
            10 => drop(tree.remove_directory(file.dir, &file.name)),
            11 => self.remove_all(&tree, file),
            13..=15 => self.hold(n, what, file),
            _ => {
                let mode = [0o600, 0o640, 0o644][self.rng.below(3)];
                if file.kind == Kind::File {
                    let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
                    tree.set_attr(file.ino, &set).unwrap();
                }
                tree.set_xattr(file.ino, b"user.k", &name, SetXattr::Any).unwrap();
            }
        }
    }

    fn rename(&mut self, tree: &Tree, file: &Found, to: (Ino, &[u8]), how: Rename) {
        let there = tree.lookup(to.0, to.1).ok();
        let content = there.filter(|there| {
            how == Rename::Replace && there.kind == Kind::File && there.ino != file.ino
        });
        let content = content.map(|there| String::from_utf8(read(tree, there.ino)).unwrap());
        if tree.rename((file.dir, &file.name), to, how).is_ok()
            && let Some(content) = content
        {
            self.alive.remove(&content);
        }
    }

    fn check(&self, seed: u64) {
        let first = tell_view(&self.world.view());
        for device in &self.world.devices {
            let other = tell(&device.tree);
            if first != other {
                let only = |a: &[String], b: &[String]| {
                    a.iter().filter(|l| !b.contains(l)).cloned().collect::<Vec<_>>().join("\n")
                };
                panic!(
                    "seed {seed}: device {} differs\nthe view only:\n{}\nthe device only:\n{}\n{}\n{}",
                    device.number,
                    only(&first, &other),
                    only(&other, &first),
                    self.trace.join("\n"),
                    self.world.tell_records()
                );
            }
        }
        for content in &self.alive {
            assert!(
                first.iter().any(|line| line.contains(content.as_str())),
                "seed {seed}: {content} is lost\n{}\n{}",
                first.join("\n"),
                self.trace.join("\n")
            );
        }
    }

    /// Some devices tell, some hear.
    fn some_exchange(&mut self) {
        let count = self.world.devices.len();
        for n in 0..count {
            if self.rng.below(2) == 0 {
                self.trace.push(format!("{n} tells"));
                self.device(n).publish();
            }
        }
        for n in 0..count {
            let from = self.rng.below(count);
            self.trace.push(format!("{n} hears {from}"));
            self.device(n).hear(self.device(from));
            self.device(n).merge();
        }
    }
}

fn seeds() -> u64 {
    std::env::var("RDRIVEFS_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(SEEDS)
}

pub(crate) fn first_seed() -> u64 {
    std::env::var("RDRIVEFS_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[test]
fn what_one_device_does_the_others_show() {
    for seed in first_seed()..first_seed() + seeds() {
        let mut play = Play::new(seed, 2);
        for _ in 0..12 {
            for _ in 0..play.rng.below(12) {
                play.step(0);
            }
            play.world.exchange();
            play.trace.push("exchange".into());
            play.check(seed);
            let lines = tell(&play.device(1).tree);
            assert!(
                lines.iter().all(|l| !l.contains("(conflict") && !l.contains("(moved")),
                "seed {seed}: {lines:#?}\n{}",
                play.trace.join("\n")
            );
        }
    }
}

#[test]
fn devices_that_take_turns_never_meet_a_conflict() {
    for seed in first_seed()..first_seed() + seeds() {
        let mut play = Play::new(seed, 3);
        for _ in 0..15 {
            let n = play.rng.below(3);
            for _ in 0..play.rng.below(8) {
                play.step(n);
            }
            play.world.exchange();
            play.trace.push("exchange".into());
            play.check(seed);
            let lines = tell(&play.device(0).tree);
            assert!(
                lines.iter().all(|l| !l.contains("(conflict") && !l.contains("(moved")),
                "seed {seed}: {lines:#?}\n{}",
                play.trace.join("\n")
            );
        }
    }
}

#[test]
fn two_devices_that_write_at_once_end_up_the_same_and_lose_nothing() {
    write_at_once(2, ALL_ALIKE, 4);
}

#[test]
fn devices_that_write_at_once_end_up_the_same_and_lose_nothing() {
    write_at_once(3, ALL_ALIKE, 4);
}

#[test]
fn devices_that_move_directories_at_once_end_up_the_same_and_lose_nothing() {
    write_at_once(3, DIRECTORIES, 9);
}

#[test]
fn devices_that_hold_files_meanwhile_end_up_the_same_and_lose_nothing() {
    write_at_once(2, HELD, 7);
}

fn write_at_once(devices: usize, what: &'static [usize], steps: usize) {
    for seed in first_seed()..first_seed() + seeds() {
        let mut play = Play::new(seed, devices);
        play.what = what;
        for _ in 0..6 {
            for n in 0..devices {
                for _ in 0..play.rng.below(steps) {
                    play.step(n);
                }
            }
            if play.rng.below(3) == 0 {
                play.let_all_go();
                play.world.exchange();
                play.trace.push("exchange".into());
                play.check(seed);
            } else {
                play.some_exchange();
            }
        }
        play.let_all_go();
        play.world.exchange();
        play.check(seed);
    }
}
