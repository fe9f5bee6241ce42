//! Many operations against as many others, done offline by two devices: what merging them costs.
//! `RDRIVEFS_MANY=10000` with `--release` holds it to its bound.

use std::time::Duration;

use rdrivefs_sync::remote::env::Env;

use super::devices::{ME, tell, tell_view};
use super::random::Rng;
use super::*;

/// Operations of each device in a normal run.
const MANY: usize = 400;

/// What 10,000 may take to be merged into 10,000 others, in a release build.
const BOUND: Duration = Duration::from_secs(2);

fn many() -> usize {
    std::env::var("RDRIVEFS_MANY").ok().and_then(|n| n.parse().ok()).unwrap_or(MANY)
}

/// What people do to a tree of sources: mostly edits and new files, some moves and removals.
fn work(tree: &Tree, n: usize, rng: &mut Rng, count: usize) {
    let dirs: Vec<_> = tree.list(ROOT, 0, 999).unwrap().iter().map(|e| e.attr.ino).collect();
    for at in 0..count {
        let dir = dirs[rng.below(dirs.len())];
        let name = format!("f{}", rng.below(50));
        let found = tree.lookup(dir, name.as_bytes());
        match (rng.below(10), found) {
            (0..=3, Ok(found)) => drop(tree.write(found.ino, 0, format!("{n} {at}").as_bytes())),
            (4, Ok(_)) => rm(tree, dir, &name),
            (5, Ok(_)) => mv(tree, (dir, &name), (dirs[rng.below(dirs.len())], &name)),
            (6, Ok(found)) => drop(tree.set_xattr(found.ino, b"user.k", b"v", SetXattr::Any)),
            (7, Ok(_)) => {
                drop(tree.make_directory(&ME, dir, format!("d{n}-{at}").as_bytes(), 0o755))
            }
            (_, found) => {
                let new = format!("new{n}-{at}");
                let name = if found.is_ok() { &new } else { &name };
                put(tree, dir, name, format!("{n} {at} new").as_bytes());
            }
        }
    }
}

#[test]
fn many_operations_are_merged_into_as_many_others() {
    let (world, count) = (world(2), many());
    let tree = &world.devices[0].tree;
    for d in 0..40 {
        let dir = mkdir(tree, ROOT, &format!("d{d}"));
        for f in 0..count / 200 {
            put(tree, dir, &format!("f{f}"), b"begun");
        }
    }
    world.exchange();
    for (n, device) in world.devices.iter().enumerate() {
        work(&device.tree, n, &mut Rng(n as u64), count);
        device.publish();
    }
    let (a, b) = (&world.devices[0], &world.devices[1]);
    a.hear(b);
    let begun = Env::real().instant();
    a.merge();
    let took = Env::real().instant().since(begun);
    eprintln!("{count} operations merged into {count} others: {took:?}");
    assert!(cfg!(debug_assertions) || took <= BOUND, "{took:?}");
    world.exchange();
    let shown = tell_view(&world.view());
    world.devices.iter().for_each(|device| assert!(shown == tell(&device.tree)));
}

#[test]
fn many_directories_that_were_moved_into_a_new_one_and_removed_with_it_go_as_fast() {
    let (world, count) = (world(2), many());
    let (a, b) = (&world.devices[0], &world.devices[1]);
    for n in 0..count {
        mkdir(&a.tree, ROOT, &format!("d{n}"));
    }
    world.exchange();
    let new = mkdir(&b.tree, ROOT, "new");
    for n in 0..count {
        mv(&b.tree, (ROOT, &format!("d{n}")), (new, &format!("d{n}")));
    }
    world.exchange();
    for n in 0..count {
        rmdir(&b.tree, new, &format!("d{n}"));
    }
    rmdir(&b.tree, ROOT, "new");
    b.publish();
    a.hear(b);
    let begun = Env::real().instant();
    a.merge();
    let took = Env::real().instant().since(begun);
    eprintln!("{count} directories removed: {took:?}");
    assert!(cfg!(debug_assertions) || took <= BOUND, "{took:?}");
    assert_eq!(same(&world).len(), 0);
}
