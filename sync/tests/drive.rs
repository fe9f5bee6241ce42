//! Whole drives as a library: founded, written, closed, synced with a node in this process, proven,
//! evicted, read back, and come back to with nothing but the phrase.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rdrivefs_sync::drive::Drive;
use rdrivefs_sync::home::{Home, Roots};
use rdrivefs_sync::id::Ino;
use rdrivefs_sync::keybag::Unlock;
use rdrivefs_sync::keys::Phrase;
use rdrivefs_sync::progress::Progress;
use rdrivefs_sync::remote::env::{self, Env};
use rdrivefs_sync::remote::link::NodeUrl;
use rdrivefs_sync::remote::node::invite::{Invite, Invites};
use rdrivefs_sync::remote::node::place::Place;
use rdrivefs_sync::remote::node::{Config, Node};
use rdrivefs_sync::report::{DrivePath, KeptReason, Samples, SyncReport, VerifyPlan};
use rdrivefs_sync::tree::Tree;
use rdrivefs_sync::tree::words::{Caller, Kind, Rename, SetAttr, SetXattr};

const ME: Caller = Caller { uid: 1000, gid: 1000, umask: 0 };
const MIB: usize = 1 << 20;

/// Enough for 99.9 % sureness that no 1 % is lost.
const SAMPLES: u64 = 688;

/// A node, and a folder for homes. The runtime is the node's; drives have their own.
struct World {
    dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    node: Option<Node>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = Config { listen, ..Config::new(dir.path().join("node")) };
        let node = runtime.block_on(Node::start(config)).unwrap();
        Self { dir, runtime, node: Some(node) }
    }

    fn url(&self) -> NodeUrl {
        self.node.as_ref().unwrap().url()
    }

    fn invite(&self) -> NodeUrl {
        let env = Env::real();
        let invite = Invite { quota: None, expires_ms: env.wall_ms().0 + 60_000 };
        let place = Place::open(self.dir.path().join("node")).unwrap();
        let secret = Invites::new(&place).create(&invite, &env).unwrap();
        NodeUrl { invite: Some(hex::encode(secret.0)), ..self.url() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn home(&self, name: &str) -> Home {
        home(&self.path(name))
    }

    fn founder(&self) -> (Drive, Phrase) {
        let home = self.home("a");
        let (drive, phrase) = Drive::create(&home, &Unlock::KeyFile, Env::real()).unwrap();
        drive.remote_add("home", &self.invite()).unwrap();
        (drive, phrase)
    }

    fn recover(&self, name: &str, phrase: &Phrase) -> Drive {
        let (home, silent) = (self.home(name), Progress::silent());
        let (drive, refused) =
            Drive::recover(&home, phrase, &self.url(), &Unlock::KeyFile, Env::real(), &silent)
                .unwrap();
        assert!(refused.is_none(), "{refused:?}");
        drive
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _inside = self.runtime.enter();
        self.node.take();
    }
}

fn home(dir: &Path) -> Home {
    Roots::under(dir).home("default").unwrap()
}

fn open(home: &Home) -> Drive {
    Drive::open(home, &Unlock::KeyFile, Env::real()).unwrap()
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn write(tree: &Tree, ino: Ino, data: &[u8]) {
    for (n, part) in data.chunks(MIB).enumerate() {
        assert_eq!(tree.write(ino, (n * MIB) as u64, part).unwrap(), part.len());
    }
}

fn put(tree: &Tree, dir: Ino, name: &[u8], data: &[u8]) -> Ino {
    let ino = tree.create(&ME, dir, name, 0o644).unwrap().ino;
    write(tree, ino, data);
    ino
}

fn read(tree: &Tree, ino: Ino) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let part = tree.read(ino, bytes.len() as u64, MIB as u32).unwrap();
        if part.is_empty() {
            return bytes;
        }
        bytes.extend(part);
    }
}

/// Everything a tree shows, as lines to be compared.
fn tell(tree: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    let mut left = vec![(Ino::ROOT, String::new())];
    while let Some((dir, above)) = left.pop() {
        for entry in tree.list(dir, 0, usize::MAX >> 1).unwrap() {
            let path = format!("{above}/{}", entry.name.escape_ascii());
            let (attr, ino) = (entry.attr, entry.attr.ino);
            let content = match attr.kind {
                Kind::File => blake3::hash(&read(tree, ino)).to_string(),
                Kind::Symlink => tree.read_link(ino).unwrap().escape_ascii().to_string(),
                _ => String::new(),
            };
            let mut xattrs = String::new();
            for name in tree.xattrs(ino).unwrap() {
                let value = tree.xattr(ino, &name).unwrap();
                xattrs += &format!(" {}={}", name.escape_ascii(), value.escape_ascii());
            }
            let (kind, mode, nlink, size) = (attr.kind, attr.mode, attr.nlink, attr.size);
            lines.push(format!("{path} {kind:?} {mode:o} {nlink} {size} {content}{xattrs}"));
            if kind == Kind::Directory {
                left.push((ino, path));
            }
        }
    }
    lines.sort();
    lines
}

fn sync(drive: &Drive) -> SyncReport {
    let report = drive.sync(None, &Progress::silent()).unwrap();
    assert!(report.agreed, "{report:?}");
    report
}

fn audit(drive: &Drive) {
    let samples = Samples::Count(SAMPLES);
    let plan = VerifyPlan { samples, loss: 0.01, local: false, remote: None, path: None };
    let report = drive.verify(&plan, &Progress::silent()).unwrap();
    assert_eq!((report.samples, report.failures), (SAMPLES, 0), "{report:?}");
}

fn root() -> [DrivePath; 1] {
    [DrivePath(b"/".to_vec())]
}

/// Proves and drops everything.
fn evict(drive: &Drive) -> u64 {
    audit(drive);
    let report = drive.evict(&root(), false, &Progress::silent()).unwrap();
    assert_eq!(report.kept, [], "{report:?}");
    report.evicted_bytes
}

fn cached(drive: &Drive) -> u64 {
    drive.status().unwrap().cache.bytes
}

/// A little of everything a filesystem knows.
fn furnish(tree: &Tree) {
    let dir = tree.make_directory(&ME, Ino::ROOT, b"dir", 0o750).unwrap().ino;
    let tiny = put(tree, dir, b"tiny", b"a few bytes");
    tree.link(tiny, Ino::ROOT, b"other name").unwrap();
    tree.set_xattr(tiny, b"user.colour", b"\x00blue", SetXattr::Create).unwrap();
    put(tree, dir, b"middle", &noise(1, 100_000));
    let big = put(tree, Ino::ROOT, b"\xffbig", &noise(2, 3 * MIB));
    tree.set_attr(big, &SetAttr { mode: Some(0o600), ..SetAttr::default() }).unwrap();
    tree.symlink(&ME, dir, b"link", b"../\xffbig").unwrap();
    let sparse = tree.create(&ME, dir, b"sparse", 0o644).unwrap().ino;
    tree.write(sparse, 5 * MIB as u64, &noise(3, 1_000)).unwrap();
    tree.set_attr(sparse, &SetAttr { size: Some(9 * MIB as u64), ..SetAttr::default() }).unwrap();
    put(tree, dir, b"old", b"goes");
    put(tree, dir, b"new", b"comes");
    tree.rename((dir, b"new"), (dir, b"old"), Rename::Replace).unwrap();
    put(tree, dir, b"unlinked", &noise(4, 200_000));
    tree.unlink(dir, b"unlinked").unwrap();
    let deep = tree.make_directory(&ME, dir, b"deep", 0o700).unwrap().ino;
    put(tree, deep, b"one", b"1");
    put(tree, deep, b"two", b"2");
    tree.rename((deep, b"one"), (deep, b"two"), Rename::Exchange).unwrap();
    tree.rename((dir, b"deep"), (Ino::ROOT, b"deep"), Rename::NoReplace).unwrap();
}

/// The home as a loss of power would leave it after all was synced.
fn crash(drive: &Drive, to: &Path) -> Home {
    drive.tree().sync_all().unwrap();
    let from = drive.home().config_dir();
    let from = from.ancestors().nth(2).unwrap();
    let mut copy = std::process::Command::new("cp");
    let copied = copy.args(["-a", "--sparse=always"]).arg(from).arg(to).status();
    assert!(copied.unwrap().success());
    home(to)
}

#[test]
fn a_drive_opens_again_as_it_was_however_it_was_left() {
    let world = World::new();
    let home = world.home("a");
    let (drive, _) = Drive::create(&home, &Unlock::KeyFile, Env::real()).unwrap();
    furnish(drive.tree());
    let told = tell(drive.tree());
    let crashed = crash(&drive, &world.path("crashed"));
    assert_eq!(tell(open(&crashed).tree()), told, "replayed");
    assert_eq!(tell(open(&crashed).tree()), told, "replayed and closed");
    let refused = Drive::open(&home, &Unlock::KeyFile, Env::real());
    assert!(matches!(refused, Err(rdrivefs_sync::Error::InUse(_))));
    drop(drive);
    assert_eq!(tell(open(&home).tree()), told, "closed");
}

/// A change between what the index stands at and its becoming durable would be made twice by a
/// replay, or name bytes that are freed.
#[test]
fn a_checkpoint_beside_changes_leaves_an_index_that_opens() {
    let world = World::new();
    let (drive, _) = Drive::create(&world.home("a"), &Unlock::KeyFile, Env::real()).unwrap();
    let tree = drive.tree().clone();
    let dir = tree.make_directory(&ME, Ino::ROOT, b"dir", 0o755).unwrap().ino;
    std::thread::scope(|scope| {
        let changes = scope.spawn(|| {
            for n in 0..150 {
                put(&tree, dir, format!("{n}").as_bytes(), &noise(n, 5_000));
                drop(tree.unlink(dir, format!("{}", n / 2).as_bytes()));
                tree.make_directory(&ME, dir, b"sub", 0o755).unwrap();
                tree.remove_directory(dir, b"sub").unwrap();
            }
        });
        while !changes.is_finished() {
            tree.checkpoint().unwrap();
        }
    });
    let crashed = crash(&drive, &world.path("crashed"));
    assert_eq!(tell(open(&crashed).tree()), tell(&tree));
}

#[test]
fn what_was_synced_and_evicted_comes_back_and_a_second_device_sees_it() {
    let world = World::new();
    let (a, phrase) = world.founder();
    furnish(a.tree());
    let told = tell(a.tree());
    sync(&a);
    assert_eq!(tell(a.tree()), told, "sealed");
    assert!(evict(&a) > 3 * MIB as u64);
    assert_eq!(tell(a.tree()), told, "read back");
    drop(a);
    let a = open(&world.home("a"));
    assert_eq!(tell(a.tree()), told, "opened");

    let b = world.recover("b", &phrase);
    assert_eq!(tell(b.tree()), told, "recovered");
    put(a.tree(), Ino::ROOT, b"from a", &noise(8, 700_000));
    put(b.tree(), Ino::ROOT, b"from b", b"b was here");
    b.tree().unlink(Ino::ROOT, b"other name").unwrap();
    sync(&a);
    sync(&b);
    sync(&a);
    assert_eq!(tell(a.tree()), tell(b.tree()));
    let dir = a.tree().lookup(Ino::ROOT, b"dir").unwrap().ino;
    assert_eq!(a.tree().lookup(dir, b"tiny").unwrap().nlink, 1);
    let from_b = a.tree().lookup(Ino::ROOT, b"from b").unwrap().ino;
    assert_eq!(read(a.tree(), from_b), b"b was here");
    let from_a = b.tree().lookup(Ino::ROOT, b"from a").unwrap().ino;
    assert_eq!(read(b.tree(), from_a), noise(8, 700_000));
}

#[test]
fn a_byte_inserted_into_a_big_file_sends_a_little() {
    let world = World::new();
    let (drive, _) = world.founder();
    let mut data = noise(1, 64 * MIB);
    let file = put(drive.tree(), Ino::ROOT, b"file", &data);
    let first = sync(&drive).pushed_bytes;
    assert!(first > 64 * MIB as u64, "{first}");
    data.insert(20 * MIB + 7, 1);
    write(drive.tree(), file, &data);
    let second = sync(&drive).pushed_bytes;
    assert!(second <= 8 * MIB as u64, "{second} bytes sent");
    assert!(read(drive.tree(), file) == data);
}

#[test]
fn equal_files_are_sent_once() {
    let world = World::new();
    let (drive, _) = world.founder();
    let data = noise(1, 6 * MIB);
    for name in [b"a", b"b", b"c"] {
        put(drive.tree(), Ino::ROOT, name, &data);
    }
    let sent = sync(&drive).pushed_bytes;
    assert!(sent < 7 * MIB as u64, "{sent} bytes sent");
    put(drive.tree(), Ino::ROOT, b"d", &data);
    let sent = sync(&drive).pushed_bytes;
    assert!(sent < 100_000, "{sent} bytes sent");
}

#[test]
fn small_overwrites_send_little_more_than_themselves() {
    let world = World::new();
    let (drive, _) = world.founder();
    let mut data = noise(1, 32 * MIB);
    let file = put(drive.tree(), Ino::ROOT, b"file", &data);
    sync(&drive);
    // 1 % of the blocks, spread by a stride that meets no block twice.
    let blocks = data.len() / 4096;
    for n in 0..blocks / 100 {
        let at = n * 1_237 % blocks * 4096;
        let new = noise(100 + n as u64, 4096);
        data[at..at + 4096].copy_from_slice(&new);
        drive.tree().write(file, at as u64, &new).unwrap();
    }
    let sent = sync(&drive).pushed_bytes;
    assert!(sent < MIB as u64, "{sent} bytes sent");
    assert!(read(drive.tree(), file) == data);
}

#[test]
fn nothing_is_evicted_unproven_or_pinned_and_a_small_read_brings_little() {
    let world = World::new();
    let (drive, _) = world.founder();
    let data = noise(1, 64 * MIB);
    let file = put(drive.tree(), Ino::ROOT, b"file", &data);
    let silent = Progress::silent();
    let early = drive.evict(&root(), false, &silent).unwrap();
    assert_eq!(early.evicted_bytes, 0);
    assert!(early.kept.iter().all(|kept| kept.reason == KeptReason::NotPushed), "{early:?}");
    sync(&drive);
    let unproven = drive.evict(&root(), false, &silent).unwrap();
    assert_eq!(unproven.evicted_bytes, 0);
    assert!(unproven.kept.iter().all(|kept| kept.reason == KeptReason::NotProven));
    audit(&drive);
    let path = [DrivePath(b"/file".to_vec())];
    assert_eq!(drive.pin(&path, true).unwrap().pinned, path);
    let pinned = drive.evict(&root(), false, &silent).unwrap();
    assert_eq!(pinned.evicted_bytes, 0, "{pinned:?}");
    assert_eq!(drive.evict_bytes(u64::MAX, false, &silent).unwrap().evicted_bytes, 0);
    drive.pin(&path, false).unwrap();
    let before = cached(&drive);
    let dry = drive.evict(&root(), true, &silent).unwrap();
    assert_eq!(cached(&drive), before);
    assert!(dry.evicted_bytes > 60 * MIB as u64);
    evict(&drive);
    for (n, at) in [40_000_001_u64, 9 * MIB as u64, 55_555_555].into_iter().enumerate() {
        let before = cached(&drive);
        let bytes = drive.tree().read(file, at, 4096).unwrap();
        assert!(bytes == data[at as usize..at as usize + 4096]);
        let moved = cached(&drive) - before;
        assert!(moved <= 128 << 10, "read {n} moves {moved} bytes");
    }
    let fetched = drive.fetch(&root(), &silent).unwrap();
    assert!(fetched.fetched_bytes > 60 * MIB as u64, "{fetched:?}");
    assert!(read(drive.tree(), file) == data);
}

/// Chunks of a layer that could not be kept must not be looked for in the next one.
#[test]
fn a_cache_that_refuses_a_layer_costs_no_content() {
    let world = World::new();
    let (drive, _) = world.founder();
    let (one, two) = (noise(1, 2 * MIB), noise(2, 2 * MIB));
    let first = put(drive.tree(), Ino::ROOT, b"first", &one);
    let cache = drive.home().cache_dir();
    let away = cache.with_extension("away");
    std::fs::rename(&cache, &away).unwrap();
    std::fs::write(&cache, b"in the way").unwrap();
    assert!(drive.sync(None, &Progress::silent()).is_err());
    std::fs::remove_file(&cache).unwrap();
    std::fs::rename(&away, &cache).unwrap();
    let zero = put(drive.tree(), Ino::ROOT, b"zero", &noise(3, 2 * MIB));
    drive.tree().write(first, 0, &noise(3, 10)).unwrap();
    drive.tree().write(first, 0, &one[..10]).unwrap();
    let second = put(drive.tree(), Ino::ROOT, b"second", &two);
    sync(&drive);
    assert!(read(drive.tree(), second) == two);
    assert!(read(drive.tree(), first) == one);
    assert!(read(drive.tree(), zero) == noise(3, 2 * MIB));
}

/// Flips a byte of the first layer of that length or more in the node's store, or flips it back.
fn rot(world: &World, len_min: u64) -> PathBuf {
    let mut left = vec![world.path("node")];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            let blob = entry.file_name().unwrap().len() == 64;
            if entry.is_dir() {
                left.push(entry);
            } else if blob && entry.metadata().unwrap().len() >= len_min {
                let mut bytes = std::fs::read(&entry).unwrap();
                bytes[5_000] ^= 1;
                std::fs::write(&entry, bytes).unwrap();
                return entry;
            }
        }
    }
    panic!("no such layer");
}

fn verify(drive: &Drive, samples: Samples) -> rdrivefs_sync::report::VerifyReport {
    let plan = VerifyPlan { samples, loss: 0.01, local: false, remote: None, path: None };
    drive.verify(&plan, &Progress::silent()).unwrap()
}

#[test]
fn damage_stays_named_until_the_layer_was_sent_again() {
    let world = World::new();
    let (drive, _) = world.founder();
    put(drive.tree(), Ino::ROOT, b"file", &noise(1, 4 * MIB));
    put(drive.tree(), Ino::ROOT, b"other", &noise(2, 3 * MIB));
    sync(&drive);
    rot(&world, MIB as u64);
    let first = verify(&drive, Samples::All);
    assert_eq!((first.failures, first.damaged.len()), (1, 1), "{first:?}");
    assert!(!first.damaged[0].files.is_empty(), "{first:?}");
    // Few samples rarely meet it, and it is named all the same; nothing may be evicted meanwhile.
    for _ in 0..3 {
        let again = verify(&drive, Samples::Count(1));
        assert!(again.failures >= 1, "{again:?}");
        assert_eq!(again.damaged[0].object, first.damaged[0].object);
    }
    let kept = drive.evict(&root(), false, &Progress::silent()).unwrap();
    assert_eq!(kept.evicted_bytes, 0, "{kept:?}");
    assert!(sync(&drive).pushed_layers >= 1, "it is sent again, whatever the node says to have");
    assert_eq!(verify(&drive, Samples::All).failures, 0);
    let gone = drive.evict(&root(), false, &Progress::silent()).unwrap();
    assert!(gone.evicted_bytes > 6 * MIB as u64, "an audit of everything counts: {gone:?}");
}

#[test]
fn a_damaged_layer_is_named_once_however_many_challenges_it_fails() {
    let world = World::new();
    let (drive, _) = world.founder();
    put(drive.tree(), Ino::ROOT, b"file", &noise(1, 4 * MIB));
    sync(&drive);
    let layer = rot(&world, MIB as u64);
    let mut bytes = std::fs::read(&layer).unwrap();
    bytes[50_000..3_000_000].fill(0);
    std::fs::write(&layer, &bytes).unwrap();
    let wrong = verify(&drive, Samples::All);
    assert_eq!((wrong.damaged.len(), wrong.damaged[0].offset), (1, Some(4_096)), "{wrong:?}");
    assert_eq!((wrong.failures, wrong.targets[0].failures), (722, 722), "{wrong:?}");
    assert_eq!(wrong.damaged[0].failures, wrong.failures);
    std::fs::remove_file(&layer).unwrap();
    let gone = verify(&drive, Samples::All);
    assert_eq!((gone.damaged.len(), gone.damaged[0].offset), (1, None), "{gone:?}");
    assert_eq!(gone.failures, (bytes.len() as u64).div_ceil(4_096), "all of it: {gone:?}");
    let again = verify(&drive, Samples::Count(1));
    assert_eq!((again.damaged.len(), again.damaged[0].offset), (1, None), "{again:?}");
    assert_eq!(gone.samples, wrong.samples, "{gone:?} {wrong:?}");
}

#[test]
fn damage_that_cannot_be_sent_again_stays_and_the_rest_reads() {
    let world = World::new();
    let (drive, _) = world.founder();
    for (name, seed) in [(b"a", 1), (b"b", 2)] {
        put(drive.tree(), Ino::ROOT, name, &noise(seed, 4 * MIB));
        sync(&drive);
    }
    evict(&drive);
    rot(&world, MIB as u64);
    let found = verify(&drive, Samples::All);
    assert_eq!(found.failures, 1);
    let damaged = found.damaged[0].files[0].clone();
    let synced = drive.sync(None, &Progress::silent()).unwrap();
    assert!(!synced.agreed && synced.pushed_layers == 0, "it is lost, and said to be: {synced:?}");
    assert_eq!(verify(&drive, Samples::Count(1)).damaged[0].files, std::slice::from_ref(&damaged));
    for (name, seed) in [(&b"a"[..], 1), (b"b", 2)] {
        let ino = drive.tree().lookup(Ino::ROOT, name).unwrap().ino;
        let mut failed = 0;
        for (n, right) in noise(seed, 4 * MIB).chunks(4096).enumerate() {
            match drive.tree().read(ino, n as u64 * 4096, 4096) {
                Ok(bytes) => assert!(bytes == right, "never wrong bytes"),
                Err(e) => failed += usize::from(e.is_corrupt()),
            }
        }
        assert_eq!(failed > 0, damaged.0 == [b"/", name].concat(), "{failed} of 1,024");
    }
    rot(&world, MIB as u64);
    assert_eq!(verify(&drive, Samples::All).failures, 0, "put right by its keeper");
    assert_eq!(verify(&drive, Samples::Count(1)).failures, 0);
}

#[test]
fn what_died_before_anybody_was_told_gives_its_room_back() {
    let world = World::new();
    let (drive, _) = Drive::create(&world.home("a"), &Unlock::KeyFile, Env::real()).unwrap();
    let (dead, kept) = (noise(1, 40 * MIB), noise(2, 3 * MIB));
    put(drive.tree(), Ino::ROOT, b"dead", &dead);
    put(drive.tree(), Ino::ROOT, b"kept", &kept);
    drive.evict(&root(), true, &Progress::silent()).unwrap();
    let before = cached(&drive);
    assert!(before > 43 * MIB as u64, "both are sealed");
    drive.tree().unlink(Ino::ROOT, b"dead").unwrap();
    let freed = drive.collect().unwrap();
    assert!(freed > 25 * MIB as u64, "{freed} bytes freed");
    let ino = drive.tree().lookup(Ino::ROOT, b"kept").unwrap().ino;
    assert!(read(drive.tree(), ino) == kept);
    // The same content again is sealed anew, under a number nobody had.
    let again = put(drive.tree(), Ino::ROOT, b"again", &dead);
    drive.evict(&root(), true, &Progress::silent()).unwrap();
    assert!(read(drive.tree(), again) == dead && read(drive.tree(), ino) == kept);
    drop(drive);
    let drive = open(&world.home("a"));
    let again = drive.tree().lookup(Ino::ROOT, b"again").unwrap().ino;
    assert!(read(drive.tree(), again) == dead);
}

/// Flips a byte in the middle of every layer in the cache of `a`.
fn rot_cache(world: &World) {
    let mut left = vec![world.path("a").join("cache")];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                left.push(entry);
            } else if entry.extension().is_some_and(|kind| kind == "layer") {
                let mut bytes = std::fs::read(&entry).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                std::fs::write(&entry, bytes).unwrap();
            }
        }
    }
}

#[test]
fn damage_here_drops_nothing_and_holds_up_nothing() {
    let world = World::new();
    let (drive, _) = world.founder();
    let one = noise(1, 2 * MIB);
    let first = put(drive.tree(), Ino::ROOT, b"first", &one);
    drive.evict(&root(), true, &Progress::silent()).unwrap();
    rot_cache(&world);
    let mut bad = 0;
    for n in 0..512 {
        let read = drive.tree().read(first, n * 4096, 4096);
        bad += usize::from(read.is_err());
    }
    assert!(bad > 0 && bad < 512, "{bad} of 512");
    let before = cached(&drive);
    // It cannot be sent, and what comes after it can.
    let second = put(drive.tree(), Ino::ROOT, b"second", &noise(2, MIB));
    let report = drive.sync(None, &Progress::silent()).unwrap();
    assert!(!report.agreed && report.pushed_layers == 1, "{report:?}");
    assert!(report.remotes[0].error.as_ref().unwrap().contains("damaged"), "{report:?}");
    assert!(cached(&drive) >= before, "nothing was dropped");
    // The same content again is not believed to be there.
    let again = put(drive.tree(), Ino::ROOT, b"again", &one);
    let report = drive.sync(None, &Progress::silent()).unwrap();
    assert_eq!(report.pushed_layers, 1, "{report:?}");
    assert!(read(drive.tree(), again) == one);
    // What came off its bit opens again.
    rot_cache(&world);
    assert!(read(drive.tree(), first) == one);
    assert!(read(drive.tree(), second) == noise(2, MIB), "a remote has it right");
}

#[test]
fn an_attribute_of_a_file_that_is_gone_is_refused_and_recorded_nowhere() {
    let world = World::new();
    let home = world.home("a");
    let (drive, _) = Drive::create(&home, &Unlock::KeyFile, Env::real()).unwrap();
    let ino = put(drive.tree(), Ino::ROOT, b"f", b"x");
    drive.tree().unlink(Ino::ROOT, b"f").unwrap();
    drive.tree().flush().unwrap();
    drive.tree().set_xattr(ino, b"user.a", b"1", SetXattr::Any).unwrap_err();
    drive.tree().pin(ino, true).unwrap_err();
    put(drive.tree(), Ino::ROOT, b"g", b"y");
    let crashed = crash(&drive, &world.path("crashed"));
    assert_eq!(tell(open(&crashed).tree()).len(), 1);
}

#[test]
fn commits_that_would_be_too_long_are_several() {
    let world = World::new();
    let (a, phrase) = world.founder();
    for n in 0..100_u64 {
        let name = format!("f{n}");
        let ino = put(a.tree(), Ino::ROOT, name.as_bytes(), name.as_bytes());
        let value = noise(n, 60_000);
        a.tree().set_xattr(ino, b"user.big", &value, SetXattr::Create).unwrap();
    }
    let sent = sync(&a).pushed_commits;
    assert!(sent >= 3, "{sent} commits");
    let b = world.recover("b", &phrase);
    assert_eq!(tell(b.tree()), tell(a.tree()));
}

#[test]
fn a_device_put_back_from_an_older_copy_publishes_nothing() {
    let world = World::new();
    let (a, _) = world.founder();
    put(a.tree(), Ino::ROOT, b"one", b"1");
    sync(&a);
    let old = crash(&a, &world.path("old"));
    put(a.tree(), Ino::ROOT, b"two", b"2");
    sync(&a);
    drop(a);
    let restored = open(&old);
    put(restored.tree(), Ino::ROOT, b"three", b"3");
    for half in [Drive::push, Drive::sync] {
        let refused = half(&restored, None, &Progress::silent()).unwrap_err();
        assert!(refused.to_string().contains("older copy"), "{refused}");
    }
    let a = open(&world.home("a"));
    assert_eq!(sync(&a).pulled_commits, 0, "the log is what it was");
}

#[test]
fn a_file_of_very_many_stretches_is_cut_anew_and_reaches_others() {
    let world = World::new();
    let (a, phrase) = world.founder();
    let mut data = noise(1, 24 * MIB);
    let file = put(a.tree(), Ino::ROOT, b"file", &data);
    sync(&a);
    for n in 0..70_000_usize {
        let at = n * 349 + n % 3;
        data[at] ^= 0x55;
        a.tree().write(file, at as u64, &data[at..=at]).unwrap();
    }
    sync(&a);
    assert!(a.layers(Some(&DrivePath(b"/file".to_vec()))).unwrap().len() < 100);
    assert!(read(a.tree(), file) == data);
    let b = world.recover("b", &phrase);
    let file = b.tree().lookup(Ino::ROOT, b"file").unwrap().ino;
    assert!(read(b.tree(), file) == data);
}

const YEAR_MS: i64 = 365 * 24 * 3_600_000;

/// The real world with a clock that is off by so many milliseconds.
#[derive(Clone, Default)]
struct Clock(Arc<AtomicI64>);

impl Clock {
    fn off_by(&self, ms: i64) {
        self.0.store(ms, Ordering::Relaxed);
    }

    fn env(&self) -> Env {
        struct Off(Clock, Env);
        impl env::World for Off {
            fn wall_ns(&self) -> u64 {
                let off_ns = self.0.0.load(Ordering::Relaxed) * 1_000_000;
                self.1.wall_ns().saturating_add_signed(off_ns)
            }
            fn instant(&self) -> env::Instant {
                self.1.instant()
            }
            fn fill(&self, out: &mut [u8]) {
                out.iter_mut().for_each(|byte| [*byte] = self.1.random());
            }
        }
        Env::of(Off(self.clone(), Env::real()))
    }
}

/// What an eviction of everything keeps because it is not proven, in layers; nothing goes.
fn unproven(drive: &Drive) -> usize {
    let report = drive.evict(&root(), false, &Progress::silent()).unwrap();
    assert_eq!(report.evicted_bytes, 0, "{report:?}");
    assert!(report.kept.iter().all(|kept| kept.reason == KeptReason::NotProven), "{report:?}");
    report.kept.len()
}

fn founder_by(world: &World, clock: &Clock) -> (Drive, Phrase) {
    let home = world.home("a");
    let (drive, phrase) = Drive::create(&home, &Unlock::KeyFile, clock.env()).unwrap();
    drive.remote_add("home", &world.invite()).unwrap();
    (drive, phrase)
}

#[test]
fn an_audit_is_not_believed_by_a_clock_that_jumped() {
    let world = World::new();
    let clock = Clock::default();
    let (drive, _) = founder_by(&world, &clock);
    let data = noise(1, 2 * MIB);
    let file = put(drive.tree(), Ino::ROOT, b"file", &data);
    sync(&drive);
    audit(&drive);
    for off in [10 * YEAR_MS, -10 * YEAR_MS, 8 * YEAR_MS / 365] {
        clock.off_by(off);
        assert_eq!(unproven(&drive), 1, "an audit made by another clock, {off} ms off");
    }
    assert!(read(drive.tree(), file) == data);
    clock.off_by(0);
    assert!(evict(&drive) > 2 * MIB as u64, "what was proven by the right clock is proven");
    assert!(read(drive.tree(), file) == data);
}

/// A clock that once was ahead leaves an audit from the future: it counts for nothing, and it does
/// not stand in the way of one that is made now.
#[test]
fn an_audit_from_the_future_counts_for_nothing_and_a_new_one_counts() {
    let world = World::new();
    let clock = Clock::default();
    let (drive, _) = founder_by(&world, &clock);
    let data = noise(1, 2 * MIB);
    let file = put(drive.tree(), Ino::ROOT, b"file", &data);
    clock.off_by(5 * YEAR_MS);
    sync(&drive);
    audit(&drive);
    clock.off_by(0);
    assert_eq!(unproven(&drive), 1);
    audit(&drive);
    assert!(evict(&drive) > 2 * MIB as u64, "a clean audit made now");
    assert!(read(drive.tree(), file) == data);
}

/// Commits are ordered by what their makers had seen; whatever their clocks say, none is refused
/// and none wins for ever.
#[test]
fn devices_whose_clocks_are_decades_apart_agree() {
    let world = World::new();
    let ahead = Clock::default();
    ahead.off_by(30 * YEAR_MS);
    let (a, phrase) = founder_by(&world, &ahead);
    furnish(a.tree());
    sync(&a);
    let (behind, silent) = (Clock::default(), Progress::silent());
    behind.off_by(-40 * YEAR_MS);
    let home = world.home("b");
    let lock = Unlock::KeyFile;
    let (b, _) =
        Drive::recover(&home, &phrase, &world.url(), &lock, behind.env(), &silent).unwrap();
    assert_eq!(tell(b.tree()), tell(a.tree()));

    let file = put(a.tree(), Ino::ROOT, b"shared", &noise(7, 300_000));
    sync(&a);
    sync(&b);
    let there = b.tree().lookup(Ino::ROOT, b"shared").unwrap().ino;
    // The one whose clock is behind writes last, and that is what counts.
    b.tree().set_attr(there, &SetAttr { mode: Some(0o600), ..SetAttr::default() }).unwrap();
    write(b.tree(), there, &noise(8, 300_000));
    b.tree().rename((Ino::ROOT, b"shared"), (Ino::ROOT, b"renamed"), Rename::Replace).unwrap();
    put(a.tree(), Ino::ROOT, b"of a", b"a");
    sync(&b);
    sync(&a);
    sync(&b);
    assert_eq!(tell(a.tree()), tell(b.tree()));
    let renamed = a.tree().lookup(Ino::ROOT, b"renamed").unwrap();
    assert!(read(a.tree(), renamed.ino) == noise(8, 300_000));
    assert_eq!(renamed.mode & 0o777, 0o600);
    assert!(a.tree().lookup(Ino::ROOT, b"shared").is_err());
    assert!(read(a.tree(), file).len() == 300_000, "who has it open keeps it");
    let told = tell(a.tree());
    for drive in [&a, &b] {
        assert!(evict(drive) > 0);
        assert_eq!(tell(drive.tree()), told, "read back");
    }
    drop((a, b));
    for (name, env) in [("a", behind.env()), ("b", ahead.env())] {
        let drive = Drive::open(&world.home(name), &Unlock::KeyFile, env).unwrap();
        assert_eq!(tell(drive.tree()), told, "opened by the other clock");
        sync(&drive);
    }
}

/// A file may be gone between being found and being sealed; that is no reason to fail.
#[test]
fn a_sync_while_files_come_and_go_succeeds() {
    let world = World::new();
    let (drive, _) = world.founder();
    let tree = drive.tree().clone();
    let end = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (tree, end) = (&tree, &end);
            scope.spawn(move || {
                for n in 0.. {
                    if end.load(Ordering::Relaxed) {
                        return;
                    }
                    let name = format!("{thread}-{}", n % 20);
                    drop(tree.unlink(Ino::ROOT, name.as_bytes()));
                    put(tree, Ino::ROOT, name.as_bytes(), &noise(n, 3_000));
                }
            });
        }
        let mut failed = None;
        for _ in 0..40 {
            let synced = drive.sync(None, &Progress::silent());
            failed = failed.or(synced.err());
        }
        end.store(true, Ordering::Relaxed);
        assert!(failed.is_none(), "{failed:?}");
    });
    sync(&drive);
}

#[test]
fn what_is_pinned_stays_however_it_is_named() {
    let world = World::new();
    let (drive, _) = world.founder();
    let dir = drive.tree().make_directory(&ME, Ino::ROOT, b"dir", 0o755).unwrap().ino;
    let (data, silent) = (noise(1, 2 * MIB), Progress::silent());
    put(drive.tree(), dir, b"file", &data);
    put(drive.tree(), Ino::ROOT, b"copy", &data);
    sync(&drive);
    audit(&drive);
    let named = |name: &str| [DrivePath(name.as_bytes().to_vec())];
    for (pin, evict) in [("/dir", "/dir/file"), ("/dir", "/copy"), ("/", "/dir"), ("/", "/copy")] {
        drive.pin(&named(pin), true).unwrap();
        let report = drive.evict(&named(evict), false, &silent).unwrap();
        assert_eq!(report.evicted_bytes, 0, "pin {pin}, evict {evict}: {report:?}");
        drive.pin(&named(pin), false).unwrap();
    }
    assert!(drive.evict(&named("/copy"), false, &silent).unwrap().evicted_bytes > MIB as u64);
}
