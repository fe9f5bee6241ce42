//! R04: of what was not synced any sector may be there or not. The whole core, on a disk in memory
//! that keeps apart what is durable, is cut off after each of its calls.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use rdrivefs_sync::journal::Settings;
use rdrivefs_sync::journal::fault::FaultDisk;
use rdrivefs_tests::model::{Clock, Model, Rng, Seen, Target, TreeTarget, difference, random_op};
use rdrivefs_tests::rounds::rounds;

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

/// The index as it lies on the disk.
fn copy_index(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in ["index", "index-wal"] {
        match std::fs::read(from.join(file)) {
            Ok(bytes) => std::fs::write(to.join(file), bytes).unwrap(),
            Err(_) => drop(std::fs::remove_file(to.join(file))),
        }
    }
}

/// Whether a sight is on its way from one to the next: a long call is many records, so each file
/// that differs may be old, new, or hold the old or the new byte in each place.
fn between(old: &Seen, new: &Seen, found: &Seen) -> bool {
    let known = found.keys().all(|path| old.contains_key(path) || new.contains_key(path));
    known
        && old.keys().chain(new.keys()).all(|path| match (&old.get(path), &new.get(path)) {
            (old, new) if old == new => found.get(path) == *old,
            (Some(old), Some(new)) => found.get(path).is_some_and(|found| {
                let fits = |(at, byte): (usize, &u8)| {
                    let (a, b) = (old.bytes.get(at), new.bytes.get(at));
                    a == Some(byte) || b == Some(byte) || *byte == 0
                };
                found.bytes.iter().enumerate().all(fits)
            }),
            // It came or went.
            _ => true,
        })
}

/// One life, cut off after every `every`-th call; how many times.
fn cut_after_calls(seed: u64, calls: usize, every: usize) -> usize {
    let (dir, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let aside = dir.path().join("aside");
    let (mut rng, clock, disk) = (Rng(seed), Clock::default(), FaultDisk::new());
    clock.advance(1_000_000_000_000);
    let on = Arc::new(disk.clone());
    let mut tree = TreeTarget::on_disk(dir.path(), clock.clone(), on, small()).unwrap();
    let root = tree.tree().attr(rdrivefs_sync::id::Ino::ROOT).unwrap();
    let mut model = Model::new(clock.clone(), (root.uid, root.gid));
    tree.tree().checkpoint().unwrap();
    copy_index(dir.path(), &aside);
    let mut possible = VecDeque::from([model.seen()]);
    let mut cuts = 0;
    for n in 0..calls {
        clock.advance(1 + rng.below(3_000_000_000));
        let op = random_op(&mut rng);
        let (expected, got) = (model.apply(&op), tree.apply(&op));
        assert!(expected == got, "{op:?}: expected {expected:?}, got {got:?}");
        possible.push_back(model.seen());
        match rng.below(12) {
            0 | 1 => {
                tree.tree().sync_all().unwrap();
                possible.drain(..possible.len() - 1);
            }
            2 => {
                tree.tree().checkpoint().unwrap();
                copy_index(dir.path(), &aside);
            }
            3 => tree.tree().flush().unwrap(),
            _ => {}
        }
        if n % every != 0 {
            continue;
        }
        // The index may be as old as the last checkpoint, or as new as it is.
        let from = if rng.below(2) == 0 { aside.as_path() } else { dir.path() };
        let home = after.path().join(n.to_string());
        copy_index(from, &home);
        let when = format!("seed {seed}, after call {n}, {op:?}");
        let crashed = Arc::new(disk.crash(rng.below(u64::MAX)));
        let mut back = TreeTarget::on_disk(&home, clock.clone(), crashed, small())
            .unwrap_or_else(|e| panic!("{when}: {e}"));
        let found = back.seen();
        let whole = possible.iter().any(|seen| difference(seen, &found).is_none());
        let part = || {
            let (first, rest) = possible.as_slices();
            let all: Vec<_> = first.iter().chain(rest).collect();
            all.windows(2).any(|two| between(two[0], two[1], &found))
        };
        let newest = possible.back().unwrap();
        assert!(whole || part(), "{when}: {:?}", difference(newest, &found));
        drop(back);
        std::fs::remove_dir_all(&home).unwrap();
        cuts += 1;
    }
    cuts
}

#[test]
fn r04_torn_sectors_leave_a_prefix_of_the_whole_core() {
    let cuts: usize = (0..3).map(|seed| cut_after_calls(40 + seed, 150, 4)).sum();
    assert!(cuts > 100);
}

#[test]
#[ignore = "long: 60,000 torn disks, half an hour"]
fn r04_torn_sectors_after_any_call_leave_a_prefix_of_the_whole_core() {
    for seed in rounds(100) {
        cut_after_calls(4_000 + seed, 600, 1);
        println!("{} torn disks", 600 * (seed + 1));
    }
}
