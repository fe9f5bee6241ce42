//! R18 and R21: the node is away, or this computer was; what waits may be killed, ends with an
//! error, never with an empty file, and goes on soon after all are back.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use rdrivefs_tests::daemon::{Bounded, Frozen, signal, time};
use rdrivefs_tests::world::{Device, Node, World, run, wait_until};
use rustix::process::Signal;

use crate::{holds, noise, text};

/// A silent node is given up after this: ten seconds without a sign of life and five for a dial, for
/// the kernel's read ahead and once more for the page itself, and as much for a slow machine.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(60);
/// Who is killed is gone within this: the promise's own number.
const KILLED_WITHIN: Duration = Duration::from_secs(1);
/// Whoever needs no remote is not held up by those who do.
const NOT_HELD_UP: Duration = Duration::from_secs(2);
/// Who is back is heard of within this: the promise's own number.
const BACK_WITHIN: Duration = Duration::from_secs(10);

/// A drive with six files of one layer, of which nothing is here any more.
fn evicted(world: &World, node: &Node) -> Device {
    let a = world.founder("a", node);
    a.mount();
    for n in 0..6 {
        fs::write(a.dir.join(format!("f{n}")), noise(&format!("f{n}"), 300_000)).unwrap();
    }
    a.ok(&["sync"]);
    a.ok(&["verify", "--all"]);
    a.ok(&["evict", a.dir_str()]);
    // The kernel's pages go with the mount.
    a.unmount();
    a.mount();
    a.ok(&["sync"]);
    a
}

/// Holds a time to its bound.
fn within(bound: Duration, what: &str, once: impl FnOnce() -> Duration) {
    let took = once();
    println!("{what} after {took:?}");
    assert!(took <= bound, "{what}, but only after {took:?}");
}

fn reader(world: &World, a: &Device, n: usize) -> Bounded {
    let out = fs::File::create(world.path(&format!("out-{n}"))).unwrap();
    let said = fs::File::create(world.path(&format!("said-{n}"))).unwrap();
    let mut cat = Command::new("cat");
    cat.env("LC_ALL", "C");
    Bounded::start(cat.arg(a.dir.join(format!("f{n}"))).stdout(out).stderr(said))
}

#[test]
fn r18_readers_of_a_silent_node_can_be_killed_and_get_an_error_together() {
    let world = World::new();
    let node = world.node("node");
    let a = evicted(&world, &node);
    let silent = Frozen::new(node.pid());
    within(KILLED_WITHIN, "a killed reader is gone", || {
        let mut doomed = reader(&world, &a, 0);
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(doomed.ended_within(Duration::ZERO), None, "it waits");
        doomed.kill();
        let (ended, took) = time(|| doomed.ends_within(GIVEN_UP_WITHIN));
        assert_eq!(ended, None, "it was killed");
        took
    });

    let mut readers: Vec<_> = (0..6).map(|n| reader(&world, &a, n)).collect();
    let (codes, took) =
        time(|| readers.iter_mut().map(|r| r.ends_within(2 * GIVEN_UP_WITHIN)).collect::<Vec<_>>());
    for (n, code) in codes.iter().enumerate() {
        let said = fs::read_to_string(world.path(&format!("said-{n}"))).unwrap();
        assert_eq!(*code, Some(1), "reader {n} has no success: {said}");
        let known = ["Input/output error", "timed out", "unreachable"];
        assert!(known.iter().any(|words| said.contains(words)), "reader {n}: {said}");
    }
    assert!(took <= GIVEN_UP_WITHIN, "six readers waited {took:?}, one after the other");
    drop(silent);
    wait_until("the node is heard again", || fs::read(a.dir.join("f0")).is_ok());
    (0..6).for_each(|n| holds(&a.dir, &format!("f{n}"), &noise(&format!("f{n}"), 300_000)));
}

/// Many more of them than the loop has threads.
#[test]
fn r18_many_readers_of_a_silent_node_hold_up_nobody_whose_files_are_here() {
    const READERS: usize = 100;
    let world = World::new();
    let node = world.node("node");
    let a = world.founder("a", &node);
    a.mount();
    let (away, here) = (a.dir.join("away"), a.dir.join("here"));
    fs::create_dir(&away).unwrap();
    (0..READERS).for_each(|n| {
        fs::write(away.join(format!("f{n}")), noise(&format!("f{n}"), 300_000)).unwrap();
    });
    a.ok(&["sync"]);
    fs::write(&here, noise("here", 300_000)).unwrap();
    a.ok(&["sync"]);
    a.ok(&["verify", "--all"]);
    a.ok(&["evict", text(&away)]);
    a.unmount();
    a.mount();
    a.ok(&["sync"]);
    let silent = Frozen::new(node.pid());
    let mut readers: Vec<_> = (0..READERS)
        .map(|n| {
            let mut cat = Command::new("cat");
            cat.arg(away.join(format!("f{n}"))).stdout(Stdio::null()).stderr(Stdio::null());
            Bounded::start(&mut cat)
        })
        .collect();
    std::thread::sleep(Duration::from_millis(1_500));
    within(NOT_HELD_UP, "a save is durable", || {
        time(|| {
            let file = fs::File::create(a.dir.join("save~")).unwrap();
            (&file).write_all(&noise("save", 100_000)).unwrap();
            file.sync_all().unwrap();
        })
        .1
    });
    within(NOT_HELD_UP, "what is here is read", || {
        time(|| assert!(fs::read(&here).unwrap() == noise("here", 300_000))).1
    });
    within(NOT_HELD_UP, "another save replaces it", || {
        time(|| {
            fs::write(a.dir.join("save"), b"old").unwrap();
            fs::rename(a.dir.join("save~"), a.dir.join("save")).unwrap();
        })
        .1
    });
    let waiting = readers.iter_mut().filter_map(|r| r.ended_within(Duration::ZERO)).count();
    assert_eq!(waiting, 0, "all were still waiting");
    drop(silent);
    for (n, reader) in readers.iter_mut().enumerate() {
        assert_eq!(reader.ends_within(GIVEN_UP_WITHIN), Some(0), "reader {n}");
    }
    holds(&a.dir, "save", &noise("save", 100_000));
}

fn killed_for(pause: Duration) {
    let world = World::new();
    let mut node = world.node("node");
    let a = evicted(&world, &node);
    node.kill();
    let mut lost = reader(&world, &a, 1);
    assert_eq!(lost.ends_within(GIVEN_UP_WITHIN), Some(1), "no empty file is a success");
    within(BACK_WITHIN, "the node that is back is noticed", || {
        node.kill();
        fs::write(a.dir.join("meanwhile"), noise("meanwhile", 300_000)).unwrap();
        // The longer it is away, the longer are the pauses between the attempts.
        std::thread::sleep(pause);
        node.kill_and_restart();
        let pending = || a.json(&["status"])["pending"]["push_bytes"] == 0;
        time(|| wait_until("what was written meanwhile is there", pending)).1
    });
    (0..6).for_each(|n| holds(&a.dir, &format!("f{n}"), &noise(&format!("f{n}"), 300_000)));
}

#[test]
fn r18_a_node_that_was_killed_is_heard_of_soon_after_it_is_back() {
    killed_for(Duration::from_secs(6));
}

#[test]
#[ignore = "long: away for two minutes"]
fn r18_long_a_node_that_was_killed_is_heard_of_soon_after_it_is_back() {
    killed_for(Duration::from_secs(120));
}

/// Every entry of a drive's logs as a device has them.
fn entries(a: &Device) -> Vec<String> {
    let log = a.json(&["log"]);
    let entries = log.as_array().unwrap_or_else(|| panic!("{log}"));
    let place = |entry: &serde_json::Value| {
        ["kind", "device", "instance", "number"].map(|key| entry[key].to_string()).join(" ")
    };
    entries.iter().map(place).collect()
}

fn suspended_for(pause: Duration) {
    let world = World::new();
    let node = world.node("node");
    let a = world.founder("a", &node);
    let b = world.device("b");
    a.mount();
    fs::write(a.dir.join("before"), noise("before", 400_000)).unwrap();
    a.ok(&["sync"]);
    let phrase = world.path("phrase");
    b.ok(&["init", "--no-passphrase", "--recover", text(&phrase), "--remote", &node.url]);
    b.mount();
    // Something is under way when all of it stops.
    fs::write(a.dir.join("under way"), noise("under way", 6_000_000)).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    within(BACK_WITHIN, "the device hears of its node", || {
        let asleep = [Frozen::new(a.daemon().unwrap()), Frozen::new(node.pid())];
        std::thread::sleep(pause);
        drop(asleep);
        let heard = || {
            let status = a.json(&["status"]);
            status["remotes"][0]["health"] == "up" && status["pending"]["push_bytes"] == 0
        };
        time(|| wait_until("the device has heard of its node", heard)).1
    });
    fs::write(a.dir.join("after"), noise("after", 400_000)).unwrap();
    a.ok(&["sync"]);
    b.ok(&["sync"]);
    for (name, len) in [("before", 400_000), ("under way", 6_000_000), ("after", 400_000)] {
        holds(&b.dir, name, &noise(name, len));
    }
    for device in [&a, &b] {
        let entries = entries(device);
        assert!(entries.len() >= 3, "{entries:?}");
        let each: BTreeSet<_> = entries.iter().collect();
        assert_eq!(each.len(), entries.len(), "an entry came twice: {entries:?}");
    }
    a.ok(&["verify", "--all"]);
}

#[test]
fn r21_after_a_suspension_the_link_is_back_and_nothing_came_twice() {
    suspended_for(Duration::from_secs(12));
}

#[test]
#[ignore = "long: asleep for three minutes"]
fn r21_long_after_a_suspension_the_link_is_back_and_nothing_came_twice() {
    suspended_for(Duration::from_secs(180));
}

/// A node takes 16 connections of one device. One that has them all says when to come again, and
/// `sync` does so.
#[test]
fn r21_sync_waits_a_little_for_a_node_that_is_busy() {
    let world = World::new();
    let mut node = world.node("node");
    let a = world.founder("a", &node);
    let copies: Vec<_> = (0..16).map(|n| world.device(&format!("copy-{n}"))).collect();
    for copy in &copies {
        let said = run(Command::new("cp").args(["-a", "-T"]).arg(&a.home).arg(&copy.home));
        assert_eq!(said.code, Some(0), "{said:?}");
        copy.mount();
    }
    wait_until("all connections are taken", || {
        copies.iter().all(|copy| copy.json(&["status"])["remotes"][0]["health"] == "up")
    });
    let daemons: Vec<_> = copies.iter().map(|copy| copy.daemon().unwrap()).collect();
    let mut sync = a.command(&["sync"]);
    let said = fs::File::create(world.path("said")).unwrap();
    let mut sync = Bounded::start(sync.stdout(Stdio::null()).stderr(said));
    assert_eq!(sync.ended_within(Duration::from_millis(1_500)), None, "it waits");
    // They go, and the node forgets them with its process.
    daemons.iter().for_each(|pid| signal(*pid, Signal::KILL));
    node.kill_and_restart();
    let code = sync.ends_within(GIVEN_UP_WITHIN);
    let said = fs::read_to_string(world.path("said")).unwrap();
    assert_eq!(code, Some(0), "and then comes through: {said}");
}
