//! R12 and R13: what was synced is there after a kill, what was closed soon is, and a push that
//! fails says so.
//!
//! `sync` and `syncfs` bring no request of their own: the kernel sends none to a filesystem like
//! this. They have dirty pages written back, which is asserted, and promise no more than that.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rdrivefs_tests::daemon::{Bounded, Recorder, kill_at_once};
use rdrivefs_tests::world::{World, run, wait_until};
use rustix::fs::OFlags;

use crate::{alone, holds, noise, text, user};

/// Requests as FUSE numbers them.
const WRITE: u32 = 16;
const FSYNC: u32 = 20;
const FSYNCDIR: u32 = 30;
const SYNCFS: u32 = 50;

/// The ways a program makes a file durable.
const WAYS: [&str; 5] = ["fsync", "fdatasync", "O_SYNC", "O_DSYNC", "msync"];

/// Writes a file by one of the ways; what it holds is promised when this returns.
fn write_durably(way: &str, user: &Path, path: &Path, len: usize) -> Vec<u8> {
    let bytes = noise(text(path), len);
    let flags = match way {
        "O_SYNC" => OFlags::SYNC,
        "O_DSYNC" => OFlags::DSYNC,
        _ => OFlags::empty(),
    };
    if way == "msync" {
        let len = len.to_string();
        let said = run(Command::new(user).args(["mapped", text(path), "77", &len]));
        assert_eq!(said.code, Some(0), "{said:?}");
        return vec![77; bytes.len()];
    }
    let flags = i32::try_from(flags.bits()).unwrap();
    let mut file = File::options().write(true).create(true).custom_flags(flags).open(path).unwrap();
    file.write_all(&bytes).unwrap();
    match way {
        "fsync" => file.sync_all().unwrap(),
        "fdatasync" => file.sync_data().unwrap(),
        _ => {}
    }
    bytes
}

fn killed_after_each_way(rounds: usize) {
    let world = World::new();
    let (a, user) = (alone(&world), user(&world));
    let mut written = Vec::new();
    for round in 0..rounds {
        for way in WAYS {
            a.mount();
            let pid = a.daemon().unwrap();
            let name = format!("{way}-{round}");
            let len = 1 + (round * 77_003 + 260_000) % 900_000;
            let bytes = write_durably(way, &user, &a.dir.join(&name), len);
            kill_at_once(pid);
            written.push((name, bytes));
        }
        a.mount();
        written.iter().for_each(|(name, bytes)| holds(&a.dir, name, bytes));
        kill_at_once(a.daemon().unwrap());
    }
}

#[test]
fn r12_what_was_synced_by_whatever_way_survives_a_kill() {
    killed_after_each_way(1);
}

#[test]
#[ignore = "long: some minutes of kills"]
fn r12_long_what_was_synced_by_whatever_way_survives_a_kill() {
    killed_after_each_way(60);
}

#[test]
fn r12_sync_and_syncfs_ask_for_nothing_of_their_own_and_fsync_does() {
    let world = World::new();
    let a = alone(&world);
    a.mount();
    let dir = File::open(&a.dir).unwrap();
    let mut file = File::create(a.dir.join("f")).unwrap();
    let Some(seen) = Recorder::of_requests(&a, &world.path("syncs")) else { return };
    file.write_all(&noise("f", 200_000)).unwrap();
    rustix::fs::syncfs(&dir).unwrap();
    // It waits for every disk of the machine.
    let mut sync = Bounded::start(&mut Command::new("sync"));
    assert_eq!(sync.ends_within(Duration::from_secs(240)), Some(0));
    let requests = seen.requests();
    assert!(requests.contains(&WRITE), "dirty pages are written back: {requests:?}");
    for never in [FSYNC, FSYNCDIR, SYNCFS] {
        assert!(!requests.contains(&never), "{never} came after all: {requests:?}");
    }
    let seen = Recorder::of_requests(&a, &world.path("fsyncs")).unwrap();
    file.write_all(b"more").unwrap();
    file.sync_all().unwrap();
    let requests = seen.requests();
    assert!(requests.contains(&FSYNC), "{requests:?}");
}

/// Closing hands the kernel's dirty pages to the daemon, which has them in its journal at once; a
/// file that is still open is the kernel's to hand in.
#[test]
fn r13_what_was_closed_is_in_the_journal_within_a_second() {
    let world = World::new();
    let a = alone(&world);
    a.mount();
    for (round, len) in [3, 100_000, 5_000_000].into_iter().enumerate() {
        let name = format!("closed-{round}");
        let bytes = noise(&name, len);
        fs::write(a.dir.join(&name), &bytes).unwrap();
        let pid = a.daemon().unwrap();
        std::thread::sleep(Duration::from_secs(1));
        kill_at_once(pid);
        a.mount();
        holds(&a.dir, &name, &bytes);
    }
}

#[test]
fn r13_a_push_that_fails_is_told_by_exit_code_and_status() {
    let world = World::new();
    let mut node = world.node("node");
    let a = world.founder("a", &node);
    a.mount();
    a.ok(&["sync"]);
    node.kill();
    fs::write(a.dir.join("f"), noise("f", 700_000)).unwrap();
    let said = a.run(&["sync", "--timeout", "60s"]);
    assert_eq!(said.code, Some(4), "{said:?}");
    assert!(said.err.contains("home"), "the remote is named: {said:?}");
    let status = a.json(&["status"]);
    assert!(status["pending"]["push_bytes"].as_u64().unwrap() >= 700_000, "{status}");
    assert_eq!(status["remotes"][0]["health"], "down", "{status}");
    assert!(status["remotes"][0]["error"].is_string(), "{status}");
    let path = a.json(&["status", text(&a.dir.join("f"))]);
    assert_eq!(path["pushed_bytes"], 0, "{path}");
    node.kill_and_restart();
    a.ok(&["sync"]);
    let status = a.json(&["status"]);
    assert_eq!(status["pending"]["push_bytes"], 0, "{status}");
    assert_eq!(status["remotes"][0]["health"], "up", "{status}");
}

/// A node that takes no more is no success either.
#[test]
fn r13_a_push_that_is_refused_is_told_by_exit_code_and_status() {
    let world = World::new();
    let node = world.node("node");
    let a = alone(&world);
    let mut invite = Command::new(rdrivefs_tests::world::program("rdrivefs-node"));
    let invite = run(invite.args(["invite", "--quota", "2MiB", "--store"]).arg(&node.store));
    a.mount();
    a.ok(&["remote", "add", "home", invite.out.trim()]);
    fs::write(a.dir.join("small"), noise("small", 100_000)).unwrap();
    a.ok(&["sync"]);
    fs::write(a.dir.join("large"), noise("large", 4_000_000)).unwrap();
    let said = a.run(&["sync"]);
    assert!(said.code.is_some_and(|code| code != 0), "{said:?}");
    assert!(format!("{}{}", said.out, said.err).contains("quota"), "{said:?}");
    let status = a.json(&["status"]);
    assert!(status["pending"]["push_bytes"].as_u64().unwrap() > 3_900_000, "{status}");
    wait_until("the remote is shown as refusing", || {
        a.json(&["status"])["remotes"][0]["health"] == "refusing"
    });
}
