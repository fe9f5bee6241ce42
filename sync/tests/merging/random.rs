//! Random operations on several devices, with exchanges between them.
//!
//! What is held against the merging is as slow and obvious as can be: the same listing on every
//! device at the end, and every content in it that nobody who saw it wrote over or removed.

use std::collections::BTreeSet;

use super::devices::{Device, ME, World, read, tell};
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

/// One world under test.
struct Play {
    world: World,
    rng: Rng,
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
        Self { world, rng, written: 0, alive: BTreeSet::new(), trace: Vec::new() }
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

    fn step(&mut self, n: usize) {
        let tree = self.device(n).tree.clone();
        let found = all(&tree);
        let (dir, name) = (self.dir(&found), self.name());
        let what = self.rng.below(13);
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
        let first = tell(&self.device(0).tree);
        for device in &self.world.devices {
            let other = tell(&device.tree);
            if first != other {
                let only = |a: &[String], b: &[String]| {
                    a.iter().filter(|l| !b.contains(l)).cloned().collect::<Vec<_>>().join("\n")
                };
                panic!(
                    "seed {seed}: device {} differs\nfirst only:\n{}\nother only:\n{}\n{}",
                    device.number,
                    only(&first, &other),
                    only(&other, &first),
                    self.trace.join("\n")
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

fn first_seed() -> u64 {
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
    write_at_once(2);
}

#[test]
fn devices_that_write_at_once_end_up_the_same_and_lose_nothing() {
    write_at_once(3);
}

fn write_at_once(devices: usize) {
    for seed in first_seed()..first_seed() + seeds() {
        let mut play = Play::new(seed, devices);
        for _ in 0..6 {
            for n in 0..devices {
                for _ in 0..play.rng.below(4) {
                    play.step(n);
                }
            }
            if play.rng.below(3) == 0 {
                play.world.exchange();
                play.trace.push("exchange".into());
                play.check(seed);
            } else {
                play.some_exchange();
            }
        }
        play.world.exchange();
        play.check(seed);
    }
}
