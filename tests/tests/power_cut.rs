//! Many at work at once, and the power goes: what was synced is there, and what was not is there
//! up to some moment of each one's work, never in another order.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rdrivefs_sync::Result;
use rdrivefs_sync::id::Ino;
use rdrivefs_sync::journal::Settings;
use rdrivefs_sync::journal::fault::{FaultDisk, Faults};
use rdrivefs_sync::tree::Tree;
use rdrivefs_sync::tree::words::{Caller, Rename, SetAttr};
use rdrivefs_tests::model::{Clock, Rng, TreeTarget};

const ME: Caller = Caller { uid: 0, gid: 0, umask: 0 };

/// Each has a folder of its own; they share the journal, the index and the upkeep.
const WRITERS: usize = 4;

/// Names in a folder: few, so that they are replaced, renamed over and unlinked all the time.
const NAMES: u64 = 5;

/// What a folder holds, as one number.
type Digest = [u8; 32];

/// What one writer did: how its folder looked after each step, and how far it was promised.
struct Ledger {
    after: Mutex<Vec<(Digest, String)>>,
    promised: AtomicUsize,
}

/// A step of a writer.
#[derive(Debug)]
enum Step {
    Create(u64),
    Write { name: u64, at: u64, bytes: Vec<u8> },
    Truncate { name: u64, size: u64 },
    Rename { from: u64, to: u64 },
    Unlink(u64),
    Sync(u64),
}

fn name(n: u64) -> Vec<u8> {
    format!("n{n}").into_bytes()
}

fn noise(seed: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn digest(files: &BTreeMap<Vec<u8>, Vec<u8>>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for (name, bytes) in files {
        hasher.update(name).update(b"=").update(blake3::hash(bytes).as_bytes());
    }
    *hasher.finalize().as_bytes()
}

impl Step {
    fn random(rng: &mut Rng, files: &BTreeMap<Vec<u8>, Vec<u8>>) -> Self {
        let (n, other) = (rng.below(NAMES), rng.below(NAMES));
        let (there, len) = (files.contains_key(&name(n)), rng.pick(&[10, 700, 5_000, 90_000]));
        match rng.below(12) {
            _ if !there => Self::Create(n),
            0..=5 => {
                let at = rng.pick(&[0, 0, 300, 4_096, 50_000]);
                Self::Write { name: n, at, bytes: noise(rng.below(u64::MAX), 1 + rng.below(len)) }
            }
            6 => Self::Truncate { name: n, size: rng.below(len) },
            7 | 8 if n != other => Self::Rename { from: n, to: other },
            9 => Self::Unlink(n),
            _ => Self::Sync(n),
        }
    }

    /// What it makes of a folder.
    fn imagine(&self, files: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
        match self {
            Self::Create(n) => drop(files.insert(name(*n), Vec::new())),
            Self::Write { name: n, at, bytes } => {
                let file = files.get_mut(&name(*n)).unwrap();
                let end = *at as usize + bytes.len();
                file.resize(file.len().max(end), 0);
                file[*at as usize..end].copy_from_slice(bytes);
            }
            Self::Truncate { name: n, size } => {
                files.get_mut(&name(*n)).unwrap().resize(*size as usize, 0);
            }
            Self::Rename { from, to } => {
                let file = files.remove(&name(*from)).unwrap();
                files.insert(name(*to), file);
            }
            Self::Unlink(n) => drop(files.remove(&name(*n))),
            Self::Sync(_) => {}
        }
    }

    fn carry_out(&self, tree: &Tree, dir: Ino) -> Result<()> {
        let find = |n: u64| tree.lookup(dir, &name(n)).map(|attr| attr.ino);
        match self {
            Self::Create(n) => tree.create(&ME, dir, &name(*n), 0o644).map(drop),
            Self::Write { name: n, at, bytes } => tree.write(find(*n)?, *at, bytes).map(drop),
            Self::Truncate { name: n, size } => {
                let set = SetAttr { size: Some(*size), ..SetAttr::default() };
                tree.set_attr(find(*n)?, &set).map(drop)
            }
            Self::Rename { from, to } => {
                tree.rename((dir, &name(*from)), (dir, &name(*to)), Rename::Replace)
            }
            Self::Unlink(n) => tree.unlink(dir, &name(*n)),
            Self::Sync(n) => tree.sync(find(*n)?),
        }
    }

    /// Keeps account of the last step that made anything of the file of each name.
    fn touch(&self, number: usize, touched: &mut BTreeMap<u64, usize>) {
        match self {
            Self::Create(n) | Self::Write { name: n, .. } | Self::Truncate { name: n, .. } => {
                touched.insert(*n, number);
            }
            Self::Rename { from, to } => {
                touched.remove(from);
                touched.insert(*to, number);
            }
            Self::Unlink(n) => drop(touched.remove(n)),
            Self::Sync(_) => {}
        }
    }
}

impl Ledger {
    fn new() -> Self {
        let nothing = (digest(&BTreeMap::new()), "the beginning".to_owned());
        Self { after: Mutex::new(vec![nothing]), promised: AtomicUsize::new(0) }
    }

    /// Works until the machine is gone. What a step would make is noted before it is tried: one
    /// that failed may have come through all the same.
    fn work(&self, tree: &Tree, dir: Ino, mut rng: Rng) {
        let (mut files, mut touched) = (BTreeMap::new(), BTreeMap::new());
        for _ in 0..2_000 {
            let step = Step::random(&mut rng, &files);
            step.imagine(&mut files);
            let number = {
                let mut after = self.after.lock().unwrap();
                after.push((digest(&files), format!("{step:?}").chars().take(60).collect()));
                after.len() - 1
            };
            step.touch(number, &mut touched);
            if step.carry_out(tree, dir).is_err() {
                return;
            }
            if let Step::Sync(n) = step {
                // All that the file is, and what came before that.
                self.promised.fetch_max(touched[&n], Ordering::Relaxed);
            }
        }
    }

    /// The folder is as it was after some step, and not before the last that was promised.
    fn check(&self, found: &BTreeMap<Vec<u8>, Vec<u8>>, when: &str) {
        let (after, promised) = (self.after.lock().unwrap(), self.promised.load(Ordering::Relaxed));
        let found = digest(found);
        let met = after.iter().rposition(|(digest, _)| *digest == found);
        let met = met.unwrap_or_else(|| panic!("{when}: it never looked like this"));
        let steps = after.len() - 1;
        let lost: Vec<_> = after[met..=promised.max(met)].iter().map(|(_, step)| step).collect();
        assert!(met >= promised, "{when}: {met} of {steps}, promised {promised}: lost {lost:#?}");
    }
}

fn found(tree: &Tree, dir: Ino) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let entries = tree.list(dir, 0, 100).unwrap().into_iter();
    let read = |ino| tree.read(ino, 0, u32::MAX).unwrap();
    entries.map(|entry| (entry.name, read(entry.attr.ino))).collect()
}

/// The index as it lies on the disk, while nobody writes it back.
fn copy_index(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in ["index", "index-wal"] {
        match std::fs::read(from.join(file)) {
            Ok(bytes) => std::fs::write(to.join(file), bytes).unwrap(),
            Err(_) => drop(std::fs::remove_file(to.join(file))),
        }
    }
}

/// Segments so small that many come and go.
fn small() -> Settings {
    Settings {
        log_segment_bytes: 400 << 10,
        data_segment_bytes: 500 << 10,
        ahead_bytes: 16 << 10,
        ballast_bytes: 10 << 10,
        ..Settings::default()
    }
}

/// Seals, flushes and makes checkpoints until the machine is gone. Behind each checkpoint that
/// succeeded the index is put aside: the one a power cut may leave at worst.
fn keep_up(target: &TreeTarget, end: &AtomicBool, mut rng: Rng, dir: &Path) -> bool {
    let mut aside = true;
    while !end.load(Ordering::Relaxed) {
        match rng.below(6) {
            0 => drop(target.tree().flush()),
            1 | 2 => {
                aside = target.tree().checkpoint().is_ok();
                if !aside {
                    return false;
                }
                copy_index(dir, &dir.join("aside"));
            }
            _ => {
                target.begin_seal().into_iter().for_each(|job| target.end_seal(job));
            }
        }
        std::thread::yield_now();
    }
    aside
}

/// One life of a tree up to its end; how many steps were promised.
fn cut(seed: u64) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = Rng(seed);
    let disk = FaultDisk::new();
    let clock = Clock::default();
    let mut target =
        TreeTarget::on_disk(dir.path(), clock, Arc::new(disk.clone()), small()).unwrap();
    let folder = |n: usize| format!("w{n}").into_bytes();
    let make = |n| target.tree().make_directory(&ME, Ino::ROOT, &folder(n), 0o755).unwrap().ino;
    let folders: Vec<_> = (0..WRITERS).map(make).collect();
    target.tree().checkpoint().unwrap();
    copy_index(dir.path(), &dir.path().join("aside"));
    let ledgers: Vec<_> = (0..WRITERS).map(|_| Ledger::new()).collect();
    let die_at = Some(disk.calls() + 50 + rng.below(3_000));
    disk.set_faults(Faults { die_at, ..Faults::default() });
    let end = AtomicBool::new(false);
    let aside = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|n| {
                let (target, ledger, dir) = (&target, &ledgers[n], folders[n]);
                let rng = Rng(seed << 8 | n as u64);
                scope.spawn(move || ledger.work(target.tree(), dir, rng))
            })
            .collect();
        let (target, end, upkeep) = (&target, &end, Rng(seed << 8 | 0xff));
        let dir = dir.path();
        let keeper = scope.spawn(move || keep_up(target, end, upkeep, dir));
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        end.store(true, Ordering::Relaxed);
        keeper.join().unwrap()
    });
    // The index may be as old as the last checkpoint, or as new as it was when the power went.
    let old = aside && rng.below(2) == 0;
    let crashed = Arc::new(disk.crash(rng.below(u64::MAX)));
    let back = |dir: &Path| {
        if old {
            copy_index(&dir.join("aside"), dir);
        }
    };
    let when = format!("seed {seed}, index {}", if old { "old" } else { "new" });
    target.reopen_on(crashed, back).unwrap_or_else(|e| panic!("{when}: {e}"));
    for (n, ledger) in ledgers.iter().enumerate() {
        let dir = target.tree().lookup(Ino::ROOT, &folder(n)).unwrap().ino;
        ledger.check(&found(target.tree(), dir), &format!("{when}, writer {n}"));
    }
    // It goes on from there.
    let dir = target.tree().lookup(Ino::ROOT, &folder(0)).unwrap().ino;
    let before = found(target.tree(), dir);
    target.tree().checkpoint().unwrap();
    target.reopen().unwrap();
    assert!(found(target.tree(), dir) == before, "{when}: opened once more");
    target.tree().create(&ME, dir, b"after", 0o644).unwrap();
    ledgers.iter().map(|ledger| ledger.promised.load(Ordering::Relaxed)).sum()
}

#[test]
fn what_many_synced_is_there_after_a_power_cut() {
    let many = std::env::var("POWER_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let first = std::env::var("POWER_CUT").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let promised: usize = (first..first + many).map(cut).sum();
    assert!(promised > 100, "there was something to lose: {promised} steps promised");
}
