//! R02: the daemon is killed at a given system call, of each sort that touches the disk.
//!
//! One fixed script, one kill after the other at calls ever further on, from the opening of the
//! drive until it was unmounted. Each time the drive opens, and the folder looks as it did after
//! some step of the script that was not before the last one promised.

use rdrivefs_tests::traced::{Fault, Traced, can_trace};
use rdrivefs_tests::work::Work;
use rdrivefs_tests::world::Device;

use crate::founder;

/// Calls that change the disk or the order of things on it. Answers to the kernel go by `writev`.
const SORTS: [&str; 7] = [
    "pwrite64",
    "fdatasync",
    "fsync",
    "rename,unlink,mkdir",
    "openat,open",
    "write,writev",
    "fallocate,ftruncate",
];

/// So many times the calls are gone through, each time so many further on from one to the next:
/// the first times tell of all sorts already.
const PASSES: usize = 10;

/// When the kill came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Killed {
    /// Before the script was through.
    AtWork,
    /// While the daemon made everything durable and left.
    Leaving,
    /// There are not so many calls.
    Never,
}

/// Kills the daemon at a call, and looks what is there.
fn kill_at(a: &Device, calls: &str, n: usize, steps: usize) -> Killed {
    let when = format!("call {n} of {calls}");
    let fault = Fault { calls: calls.into(), what: "signal=SIGKILL", when: n.to_string() };
    let mut traced = Traced::mount(a, &fault);
    let place = a.dir.join(format!("{}-{n}", calls.split(',').next().unwrap()));
    let work = (!traced.is_gone()).then(|| {
        std::fs::create_dir(&place).ok()?;
        Work::new(&place, 1, 7).ok()
    });
    let work = work.flatten();
    if let Some(work) = &work {
        work.script(steps);
    }
    // Only a daemon that is dead makes a step fail here.
    let killed = match work.as_ref().is_some_and(|work| work.error().is_none()) {
        false => Killed::AtWork,
        true => {
            drop(a.run(&["unmount", "--now", a.dir_str()]));
            if traced.was_killed() { Killed::Leaving } else { Killed::Never }
        }
    };
    traced.kill();
    a.mount();
    if let Some(work) = work {
        work.check(&when);
    }
    a.unmount();
    killed
}

#[test]
fn r02_a_daemon_killed_at_a_system_call_leaves_a_prefix() {
    if !can_trace() {
        return;
    }
    let (_world, _node, a) = founder();
    let places = [
        ("pwrite64", &[1, 3, 9, 22, 30, 45][..]),
        ("fdatasync", &[1, 2, 4]),
        ("fsync", &[2]),
        ("rename,unlink,mkdir", &[2]),
        ("write,writev", &[3, 12]),
    ];
    let mut at_work = 0;
    for (calls, numbers) in places {
        for n in numbers {
            let killed = kill_at(&a, calls, *n, 60);
            println!("call {n} of {calls}: {killed:?}");
            at_work += usize::from(killed == Killed::AtWork);
        }
    }
    assert!(at_work >= 6, "only {at_work} kills came before the end of the script");
}

#[test]
#[ignore = "long: every call of a script of 300 steps, minutes"]
fn r02_a_daemon_killed_at_any_system_call_leaves_a_prefix() {
    if !can_trace() {
        return;
    }
    for first in 1..=PASSES {
        for calls in SORTS {
            let (_world, _node, a) = founder();
            let mut numbers = (first..).step_by(PASSES);
            let never = numbers.find(|n| kill_at(&a, calls, *n, 300) == Killed::Never);
            println!("{calls}: killed at calls {first} to {} by {PASSES}", never.unwrap() - 1);
        }
    }
}
