//! R23: every single bit that turns in what is stored is noticed.
//!
//! A real drive is pushed to a real node; then each bit of each object that the node and the device
//! keep (a sample of them in the quick test) is turned on the disk, and the object is read as the
//! other side would: slices with their proofs, entries with their signatures, layers with their
//! hashes. What is read must be refused, or be the right bytes. What a person is told of it is for
//! tests/tests/tamper.rs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rdrivefs_sync::cache::{Cache, LayerRef};
use rdrivefs_sync::remote::blob::BlobId;
use rdrivefs_sync::remote::entry::Entry;
use rdrivefs_sync::remote::env::Env;
use rdrivefs_sync::remote::proof;
use rdrivefs_sync::remote::store::Store as _;
use rdrivefs_sync::remote::store::directory::DirectoryStore;
use rdrivefs_tests::world::{Device, Node, World};

use crate::noise;

/// Bits of each object that the quick test turns.
const SAMPLE: usize = 60;

/// What became of an object with a bit turned.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    Refused,
    /// The right bytes came all the same: what was hit is made again from the rest.
    Right,
    Wrong,
}

/// Small files, in layers of different kinds: packed together, compressed, alone.
fn pushed(world: &World, node: &Node) -> Device {
    let a = world.founder("a", node);
    a.mount();
    let text = "What compresses has other blocks than what does not.\n".repeat(900);
    let batches: [&[(&str, Vec<u8>)]; 3] = [
        &[("tiny", noise("tiny", 90)), ("small", noise("small", 5_000))],
        &[("text", text.into_bytes())],
        &[("middle", noise("middle", 30_000))],
    ];
    for batch in batches {
        for (name, bytes) in batch {
            fs::write(a.dir.join(name), bytes).unwrap();
        }
        a.ok(&["sync"]);
    }
    a.unmount();
    a
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(below(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found.sort();
    found
}

/// Turns bits of the file one after the other and has each looked at; all if `sample` is none.
fn turn(path: &Path, sample: Option<usize>, look: &mut dyn FnMut() -> Read) -> Vec<(u64, Read)> {
    let good = fs::read(path).unwrap();
    let mode = fs::metadata(path).unwrap().permissions();
    let mut open = mode.clone();
    std::os::unix::fs::PermissionsExt::set_mode(&mut open, 0o600);
    fs::set_permissions(path, open).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    let bits = good.len() as u64 * 8;
    let step = sample.map_or(1, |count| (bits / count as u64).max(1));
    let mut found = Vec::new();
    // Beginning and end belong to every sample; a step that is odd meets every bit of a byte.
    let places = (0..bits).step_by((step | 1) as usize).chain([bits - 1]);
    for place in places {
        let at = (place / 8) as usize;
        file.write_all_at(&[good[at] ^ 1 << (place % 8)], at as u64).unwrap();
        found.push((place, look()));
        file.write_all_at(&good[at..=at], at as u64).unwrap();
    }
    assert!(fs::read(path).unwrap() == good);
    fs::set_permissions(path, mode).unwrap();
    found
}

fn refused(path: &Path, found: Vec<(u64, Read)>, may_be_right: bool) -> usize {
    for (bit, read) in &found {
        let well = *read == Read::Refused || may_be_right && *read == Read::Right;
        assert!(well, "bit {bit} of {}: {read:?}", path.display());
    }
    found.len()
}

fn every_flip_is_noticed(sample: Option<usize>) {
    let world = World::new();
    let mut node = world.node("node");
    let a = pushed(&world, &node);
    node.kill();
    let mut turned = BTreeMap::<&str, usize>::new();
    let objects = below(&node.store.join("spaces"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let id_of = |path: &Path| path.file_stem()?.to_str()?.parse::<BlobId>().ok();
    for path in &objects {
        let kind = path.extension().map_or("", |kind| kind.to_str().unwrap());
        let is_entry = path.components().any(|part| part.as_os_str() == "logs");
        if is_entry && path.file_name().unwrap().len() == 16 {
            let mut look = || match Entry::decode(&fs::read(path).unwrap()) {
                Ok(_) => Read::Wrong,
                Err(_) => Read::Refused,
            };
            *turned.entry("entry").or_default() +=
                refused(path, turn(path, sample, &mut look), false);
        } else if let (Some(id), "" | "obao4") = (id_of(path), kind) {
            let good = fs::read(path.with_extension("")).unwrap();
            let len = good.len() as u64;
            let root = path.ancestors().nth(3).unwrap();
            let store = DirectoryStore::open(root, &Env::real()).unwrap();
            let mut look = || {
                let slice = runtime.block_on(store.get(id, 0..len));
                match slice.and_then(|slice| proof::verify(&id, len, 0..len, slice)) {
                    Ok(read) if read.bytes == good => Read::Right,
                    Ok(_) => Read::Wrong,
                    Err(_) => Read::Refused,
                }
            };
            let (name, tree) = if kind.is_empty() { ("blob", false) } else { ("tree", true) };
            *turned.entry(name).or_default() += refused(path, turn(path, sample, &mut look), tree);
        }
    }
    for path in below(&a.home.join("cache")) {
        if path.extension().is_none_or(|kind| kind != "layer") {
            continue;
        }
        let (id, len) = (id_of(&path).unwrap(), fs::metadata(&path).unwrap().len());
        let dir = path.ancestors().nth(2).unwrap();
        let cache = Cache::open(dir).unwrap();
        let mut look = || match cache.check(&LayerRef { id, len }) {
            Err(e) if e.is_corrupt() => Read::Refused,
            _ => Read::Wrong,
        };
        *turned.entry("layer").or_default() +=
            refused(&path, turn(&path, sample, &mut look), false);
    }
    println!("{turned:?}");
    for kind in ["entry", "blob", "tree", "layer"] {
        assert!(turned.get(kind).is_some_and(|n| *n >= SAMPLE), "no {kind} was hit: {objects:?}");
    }
}

#[test]
fn r23_a_turned_bit_is_noticed_in_every_kind_of_object() {
    every_flip_is_noticed(Some(SAMPLE));
}

#[test]
#[ignore = "long: every bit of a small drive"]
fn r23_long_every_turned_bit_is_noticed() {
    every_flip_is_noticed(None);
}
