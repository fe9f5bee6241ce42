//! R07: the disk under a node is full, at any of the writes that a put takes.
//!
//! What a node in small memory does when a put finds no room is held in remote/tests/program.rs,
//! and what a device says then in tests/tests/bad_input.rs. Here the disk is a real ext4 on which so
//! many blocks are left, from none to enough, that each write of a put in turn is the one that
//! finds no room. The node serves what it has all the while, also when it is killed and started
//! without a free block.

use std::fs::{self, File};

use rdrivefs_tests::loop_disk::LoopDisk;
use rdrivefs_tests::world::{Device, Node, Said, World, wait_until};

use crate::doctor_explains;

const DISK_MIB: u64 = 16;
/// A block of so small an ext4.
const BLOCK_BYTES: u64 = 1024;
/// Of a file that is put: so small that many puts fit.
const FILE_BYTES: usize = 150_000;

/// Bytes that no compressor makes smaller.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn name(n: u64) -> String {
    format!("f{n}")
}

fn put(a: &Device, n: u64) -> Said {
    fs::write(a.dir.join(name(n)), noise(n, FILE_BYTES)).unwrap();
    a.run(&["sync", "--timeout", "20s"])
}

/// The file is nowhere but on the node, and comes from there.
fn comes_from_the_node(a: &Device, n: u64, when: &str) {
    let path = a.dir.join(name(n));
    let state = a.json(&["ls", path.to_str().unwrap()]);
    assert_eq!(state[0]["state"]["cached"], false, "{when}: {state}");
    assert!(fs::read(path).unwrap() == noise(n, FILE_BYTES), "{when}: {}", name(n));
}

/// So many blocks are left for each put in turn; returns how many were refused, none where there can
/// be no such disk.
fn with_blocks_left(left: &[u64]) -> Option<u64> {
    let world = World::new();
    let disk = LoopDisk::new(&world.path(""), "disk", "ext4", DISK_MIB)?;
    let mut node = Node::start(&disk.dir.join("store"), "127.0.0.1:0");
    let a = world.founder("a", &node);
    a.mount();
    let (mut refused, mut next) = (0, 0);
    let mut kept = Vec::new();
    for blocks in left {
        let when = format!("{blocks} blocks are left");
        // What will be read while nothing can be written.
        assert_eq!(put(&a, next).code, Some(0), "{when}: there is room before");
        a.ok(&["verify", "--all"]);
        a.ok(&["evict", a.dir_str()]);
        kept.push(next);
        let filler = disk.fill();
        let room = fs::metadata(&filler).unwrap().len().saturating_sub(blocks * BLOCK_BYTES);
        let file = File::options().write(true).open(&filler).unwrap();
        file.set_len(room).and_then(|()| file.sync_all()).unwrap();
        drop(file);
        let said = put(&a, next + 1);
        if said.code != Some(0) {
            refused += 1;
            let words = format!("{}{}", said.out, said.err);
            assert!(words.contains("no space"), "{when}: {said:?}");
        }
        println!("{when}: {:?} {}", said.code, said.err.lines().next().unwrap_or_default());
        comes_from_the_node(&a, next, &when);
        a.ok(&["verify", "--all"]);
        if blocks % 2 == 0 {
            node.kill_and_restart();
            wait_until("the device reaches the node again", || {
                a.run(&["verify", "--all"]).code == Some(0)
            });
        }
        fs::remove_file(&filler).unwrap();
        a.ok(&["sync"]);
        a.ok(&["verify", "--all"]);
        kept.push(next + 1);
        next += 2;
    }
    a.ok(&["evict", a.dir_str()]);
    a.unmount();
    a.mount();
    for n in kept {
        comes_from_the_node(&a, n, "at the end");
    }
    doctor_explains(&a, "after its node was full");
    let left = fs::read_dir(disk.dir.join("store")).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    let left: Vec<_> = left.iter().filter(|name| name.to_string_lossy().ends_with("tmp")).collect();
    assert!(left.is_empty(), "{left:?}");
    Some(refused)
}

#[test]
fn r07_a_node_without_room_refuses_serves_and_recovers() {
    assert_ne!(with_blocks_left(&[0, 9, 100, 170, 600]), Some(0), "no put was ever refused");
}

#[test]
#[ignore = "long: 240 puts on a full disk, half an hour"]
fn r07_long_a_node_without_room_for_any_write_refuses_serves_and_recovers() {
    let all: Vec<u64> = (0..240).collect();
    // With enough blocks none is.
    let refused: Option<u64> = all.chunks(20).map(with_blocks_left).sum();
    assert_ne!(refused, Some(0), "no put was ever refused");
}
