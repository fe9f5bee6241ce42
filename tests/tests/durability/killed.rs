//! R01: the daemon is killed at any moment, while many write. And what makes bytes durable does.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use rdrivefs_tests::compiled::compiled;
use rdrivefs_tests::model::Rng;
use rdrivefs_tests::rounds::rounds;
use rdrivefs_tests::work::Work;

use crate::{back_in_time, doctor_explains, founder, kill, mount_again};

const WRITERS: usize = 4;

/// Steps of one writer between two kills at most: many more than it comes to.
const STEPS: usize = 100_000;

fn kills(times: usize, seed: u64) {
    let (_world, _node, a) = founder();
    a.mount();
    let work = Work::new(&a.dir, WRITERS, seed).unwrap();
    let (mut rng, mut took) = (Rng(seed), Vec::new());
    for n in 0..times {
        let pid = a.daemon().expect("a daemon serves the mount");
        work.run(STEPS, || {
            sleep(Duration::from_millis(20 + rng.below(600)));
            kill(pid);
        });
        let when = format!("seed {seed}, kill {n}");
        if n % 6 == 5 {
            doctor_explains(&a, &when);
        }
        took.push(mount_again(&a));
        work.check(&when);
    }
    assert!(work.promised() > times, "there was load");
    back_in_time(took);
    a.ok(&["sync"]);
    a.ok(&["verify", "--all"]);
    work.check("after all was sent");
    a.unmount();
    a.mount();
    work.check("after an unmount in order");
    doctor_explains(&a, "at the end");
}

#[test]
fn r01_a_killed_daemon_loses_nothing_that_was_promised() {
    kills(12, 1);
}

/// The machine lives on, and so does what was closed and not synced.
#[test]
fn r01_a_killed_daemon_loses_nothing_that_was_closed() {
    let (_world, _node, a) = founder();
    a.mount();
    let work = Work::new(&a.dir, 2, 21).unwrap();
    for n in 0..4 {
        let pid = a.daemon().unwrap();
        work.run(STEPS, || {
            sleep(Duration::from_millis(150 + 90 * n));
            kill(pid);
        });
        a.mount();
        work.check_handed_over(&format!("kill {n}"));
    }
    assert!(work.promised() > 8, "there was load");
}

#[test]
#[ignore = "long: 10,000 kills, two hours"]
fn r01_ten_thousand_kills_lose_nothing_that_was_promised() {
    for seed in rounds(100) {
        kills(100, 1_000 + seed);
        println!("{} kills", 100 * (seed + 1));
    }
}

/// Each way in which a program asks for durability, by a program of its own.
#[test]
fn r01_every_durability_point_holds_when_the_daemon_is_killed() {
    let (world, _node, a) = founder();
    let durable = compiled(&world.path(""), "durable", include_str!("durable.c"));
    let ways = ["fsync", "fdatasync", "o_sync", "o_dsync", "msync"];
    for round in 0..2 {
        a.mount();
        let pid = a.daemon().unwrap();
        let writers = ways.map(|way| Durable::start(&durable, way, &a.dir, round));
        kill(pid);
        drop(writers);
        a.mount();
        for way in ways {
            let name = format!("{way}{round}");
            let bytes = fs::read(a.dir.join(&name)).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(bytes == vec![b'd'; 200_000], "{name}: {} bytes", bytes.len());
        }
        a.unmount();
    }
}

/// A program that has made a file durable and keeps it open.
struct Durable(Child);

impl Durable {
    fn start(program: &Path, way: &str, dir: &Path, round: usize) -> Self {
        let mut command = Command::new(program);
        command.arg(way).arg(dir.join(format!("{way}{round}"))).stdout(Stdio::piped());
        let mut writer = Self(command.spawn().unwrap());
        let mut line = String::new();
        BufReader::new(writer.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "durable\n", "{way}");
        writer
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The two commands that promise.
#[test]
fn r01_what_was_unmounted_or_synced_by_command_survives() {
    let (_world, _node, a) = founder();
    let write = |name: &str| fs::write(a.dir.join(name), name.repeat(30_000)).unwrap();
    let holds = |path: &Path, name: &str| {
        assert!(fs::read_to_string(path.join(name)).unwrap() == name.repeat(30_000), "{name}");
    };
    a.mount();
    write("sync");
    a.ok(&["sync"]);
    a.kill_daemon();
    a.mount();
    holds(&a.dir, "sync");
    write("unmount");
    a.unmount();
    a.mount();
    holds(&a.dir, "unmount");
    holds(&a.dir, "sync");
}
