//! R17: nobody hangs for good, whether the daemon is frozen, killed or broken off.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rdrivefs_tests::daemon::{Bounded, Frozen, Switch, kill_at_once, signal};
use rdrivefs_tests::world::{Device, World, has_ended, run, state, wait_until};
use rustix::process::Signal;

use crate::{alone, holds, noise, text, user};

/// Far beyond what any of it takes; who is still there then hangs.
const SOON: Duration = Duration::from_secs(30);

/// Reads, writes, syncs, lists and renames until something fails.
const BUSY: &str = "cd \"$1\" && while :; do
    dd if=/dev/zero of=f$2 bs=64k count=16 conv=fsync,notrunc status=none || exit 1
    cat f$2 >f$2.copy && mv f$2.copy f$2.moved && ls -l >/dev/null && rm f$2.moved || exit 1
done";

fn twenty_busy(dir: &Path) -> Vec<Bounded> {
    let busy = |n: i32| {
        let mut command = Command::new("sh");
        command.args(["-c", BUSY, "sh", text(dir), &n.to_string()]);
        // What the shell has started ends with it, or by itself at its next call.
        Bounded::start(command.stderr(Stdio::null()).current_dir("/").process_group(0))
    };
    let all = (0..20).map(busy).collect();
    wait_until("all of them have written", || (0..20).all(|n| dir.join(format!("f{n}")).exists()));
    all
}

/// The processes of a group, those that have ended aside.
fn group(leader: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let of_it = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let mut fields = rest.split_whitespace();
        let lives = fields.next().is_some_and(|state| state != "Z" && state != "X");
        lives && fields.nth(1) == Some(&leader.to_string())
    };
    pids.filter(of_it).collect()
}

fn kill_all(busy: &mut [Bounded]) {
    for one in busy {
        for pid in group(one.pid()) {
            signal(pid, Signal::KILL);
        }
        one.kill();
    }
}

#[track_caller]
fn all_gone(busy: Vec<Bounded>) {
    let groups: Vec<_> = busy.iter().map(Bounded::pid).collect();
    for mut one in busy {
        one.ends_within(SOON);
    }
    let left = || groups.iter().flat_map(|leader| group(*leader)).collect::<Vec<_>>();
    wait_until("all they started is gone too", || left().is_empty());
}

/// A drive with one file that was promised.
fn promising(world: &World) -> Device {
    let a = alone(world);
    a.mount();
    let path = a.dir.join("promised");
    fs::write(&path, noise("promised", 200_000)).unwrap();
    fs::File::open(&path).unwrap().sync_all().unwrap();
    a
}

fn frozen_for(pause: Duration) {
    let world = World::new();
    let a = promising(&world);
    let pid = a.daemon().unwrap();
    let switch = Switch::of(&a.dir);
    let mut busy = twenty_busy(&a.dir);
    let frozen = Frozen::new(pid);
    std::thread::sleep(pause);
    kill_all(&mut busy);
    drop(frozen);
    all_gone(busy);
    assert_eq!(a.daemon(), Some(pid), "the daemon goes on");
    holds(&a.dir, "promised", &noise("promised", 200_000));
    fs::write(a.dir.join("after"), b"the thaw").unwrap();

    let mut busy = twenty_busy(&a.dir);
    let frozen = Frozen::new(pid);
    std::thread::sleep(pause.min(Duration::from_secs(2)));
    kill_all(&mut busy);
    switch.press();
    all_gone(busy);
    drop(frozen);
    wait_until("the daemon has ended", || has_ended(pid));
    a.mount();
    holds(&a.dir, "promised", &noise("promised", 200_000));
    holds(&a.dir, "after", b"the thaw");
}

#[test]
fn r17_who_is_killed_while_the_daemon_is_frozen_goes_when_it_thaws_or_is_broken_off() {
    frozen_for(Duration::from_secs(2));
}

#[test]
#[ignore = "long: frozen for a minute"]
fn r17_long_who_is_killed_while_the_daemon_is_frozen_goes_when_it_thaws_or_is_broken_off() {
    frozen_for(Duration::from_secs(60));
}

/// A rename over a file has the daemon wait for the kernel, which waits for the daemon. Killed
/// then, it used to hang for good with everybody who used the mount.
fn killed_in_renames(rounds: u64) {
    let world = World::new();
    let (a, user) = (promising(&world), user(&world));
    for round in 0..rounds {
        let _lest_it_hangs = Switch::of(&a.dir);
        let renamer = |tag: &str| {
            let mut command = Command::new(&user);
            command.args(["rename", a.dir_str(), tag, "1000000"]).stderr(Stdio::null());
            Bounded::start(&mut command)
        };
        let all: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "h"].map(renamer).into();
        let pid = a.daemon().unwrap();
        wait_until("names are replaced", || {
            (0..3).all(|n| a.dir.join(format!("name-{n}")).exists())
        });
        std::thread::sleep(Duration::from_millis(50 + round * 37 % 400));
        signal(pid, Signal::KILL);
        for mut one in all {
            assert_eq!(one.ends_within(SOON), Some(1), "an error and no more");
        }
        wait_until("the daemon is gone", || has_ended(pid));
        a.mount();
        holds(&a.dir, "promised", &noise("promised", 200_000));
        for n in 0..3 {
            let bytes = fs::read(a.dir.join(format!("name-{n}"))).unwrap();
            assert!(bytes.len() >= 300_000, "old or new, and whole: {} bytes", bytes.len());
        }
    }
}

#[test]
fn r17_a_daemon_killed_while_it_waits_for_its_own_mount_takes_nobody_with_it() {
    killed_in_renames(6);
}

#[test]
#[ignore = "long: a hundred kills in the midst of renames"]
fn r17_long_a_daemon_killed_while_it_waits_for_its_own_mount_takes_nobody_with_it() {
    killed_in_renames(100);
}

/// The guard of a daemon, if it runs.
fn guard_of(daemon: u32) -> Option<u32> {
    let said = run(Command::new("pgrep").args(["-f", &format!("__guard {daemon} ")]));
    said.out.trim().parse().ok()
}

#[test]
fn r17_the_guard_hears_no_terminal_and_ends_with_its_daemon() {
    let world = World::new();
    let a = promising(&world);
    let pid = a.daemon().unwrap();
    wait_until("the guard runs", || guard_of(pid).is_some());
    let guard = guard_of(pid).unwrap();
    let open = || fs::read_dir(format!("/proc/{guard}/fd")).unwrap().flatten();
    let device = Path::new("/dev/fuse");
    assert!(open().all(|fd| fs::read_link(fd.path()).is_ok_and(|to| to != device)));
    assert_eq!(fs::read_link(format!("/proc/{guard}/cwd")).unwrap(), Path::new("/"));
    for deaf in [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1] {
        signal(guard, deaf);
    }
    holds(&a.dir, "promised", &noise("promised", 200_000));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(guard_of(pid), Some(guard), "it stays");
    holds(&a.dir, "promised", &noise("promised", 200_000));
    a.unmount();
    wait_until("the guard ends with its daemon", || state(guard).is_none_or(|s| s == 'Z'));
    // Another mount, which may well have the same number, is not the old guard's.
    a.mount();
    let next = a.daemon().unwrap();
    wait_until("a new guard runs", || guard_of(next).is_some_and(|new| new != guard));
    let guard = guard_of(next).unwrap();
    kill_at_once(next);
    wait_until("it ends with a killed one as well", || state(guard).is_none_or(|s| s == 'Z'));
}
