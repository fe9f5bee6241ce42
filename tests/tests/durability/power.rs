//! R03: the power goes. The home lies on a disk of its own, which is cut off while many write.
//!
//! A sync that is under way at that moment may be confirmed by the filesystem below and lost all
//! the same (ext4 does so when it is shut down, as nothing real does): only what was promised
//! before the cut began counts.

use std::thread::sleep;
use std::time::Duration;

use rdrivefs_tests::loop_disk::LoopDisk;
use rdrivefs_tests::model::Rng;
use rdrivefs_tests::rounds::rounds;
use rdrivefs_tests::work::Work;
use rdrivefs_tests::world::{Device, World, run};

use crate::{back_in_time, doctor_explains, kill, mount_again};

const WRITERS: usize = 3;

/// Enough for what the writers keep, and the kernel replays its log in no time.
const DISK_MIB: u64 = 600;

/// A device whose home lies on a disk.
fn device_on(world: &World, disk: &LoopDisk) -> Device {
    let dir = world.path("drive");
    std::fs::create_dir_all(&dir).unwrap();
    Device { home: disk.dir.join("home"), dir }
}

fn cuts(kind: &str, times: usize, seed: u64) {
    let world = World::new();
    let Some(disk) = LoopDisk::new(&world.path(""), "disk", kind, DISK_MIB) else { return };
    let node = world.node("node");
    let a = device_on(&world, &disk);
    let phrase = world.path("phrase");
    a.ok(&["init", "--no-passphrase", "--recovery-file", phrase.to_str().unwrap()]);
    a.ok(&["remote", "add", "home", &node.invite()]);
    a.mount();
    let work = Work::new(&a.dir, WRITERS, seed).unwrap();
    let (mut rng, mut took) = (Rng(seed), Vec::new());
    for n in 0..times {
        let pid = a.daemon().expect("a daemon serves the mount");
        work.run(usize::MAX, || {
            sleep(Duration::from_millis(50 + rng.below(1_200)));
            work.cut();
            disk.cut();
            kill(pid);
        });
        drop(run(std::process::Command::new("umount").arg("-l").arg(&a.dir)));
        disk.replay();
        let when = format!("{kind}, seed {seed}, cut {n}");
        if n % 3 == 2 {
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
}

#[test]
fn r03_a_loss_of_power_takes_nothing_that_was_promised() {
    cuts("ext4", 6, 3);
}

fn a_thousand_cuts(kind: &str) {
    for seed in rounds(20) {
        cuts(kind, 50, 300 + seed);
        println!("{kind}: {} losses of power", 50 * (seed + 1));
    }
}

#[test]
#[ignore = "long: 1,000 losses of power, half an hour"]
fn r03_a_thousand_losses_of_power_on_ext4_take_nothing_that_was_promised() {
    a_thousand_cuts("ext4");
}

#[test]
#[ignore = "long: 1,000 losses of power, half an hour"]
fn r03_a_thousand_losses_of_power_on_xfs_take_nothing_that_was_promised() {
    a_thousand_cuts("xfs");
}
