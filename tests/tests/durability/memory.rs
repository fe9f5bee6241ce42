//! R08: the kernel kills the daemon for want of memory, at work; and an allocation fails, any one.
//!
//! A failed allocation ends the daemon at that instant, or makes a call fail. Rust lets nobody but
//! unsafe code stand in for its allocator, so the kernel does it: glibc is told to keep no
//! memory of its own (`MALLOC_MMAP_THRESHOLD_=0`), so that each `malloc` of the daemon, SQLite's
//! among them, is one `mmap`, and strace refuses the n-th of a thread and all that follow. Counted
//! from the start it is the opening of the drive that meets it, replay included; counted from when
//! the drive is mounted, it is whichever thread at work comes first to its n-th. It is the real
//! program on its real disk that fails, at every allocation there is; which thread is first at
//! work is chance.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::sleep;
use std::time::Duration;

use rdrivefs_tests::daemon::Switch;
use rdrivefs_tests::memory_limit::MemoryLimit;
use rdrivefs_tests::traced::{Fault, Traced, can_trace};
use rdrivefs_tests::work::Work;
use rdrivefs_tests::world::{Device, has_ended, run};

use crate::{doctor_explains, founder, kill};

/// Where the daemon can begin; it is made narrower while it works.
const ROOM_BYTES: u64 = 512 << 20;

/// How often it is made narrower before it is given up.
const SQUEEZES_MAX: usize = 200;

/// Each allocation asks the kernel, and none is served from room that a thread reserved before.
const BY_THE_KERNEL: [(&str, &str); 3] = [
    ("MALLOC_MMAP_THRESHOLD_", "0"),
    ("MALLOC_MMAP_MAX_", "1000000000"),
    ("MALLOC_ARENA_MAX", "1"),
];

/// Who is not answered within this is let go, by breaking the mount off.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

fn killed_for_memory(times: usize, seed: u64) {
    let (_world, _node, a) = founder();
    let Some(limit) = MemoryLimit::new("r08", ROOM_BYTES) else { return };
    let mount = || {
        limit.set(ROOM_BYTES);
        let said = run(&mut limit.inside(&a.command(&["mount", a.dir_str()])));
        assert_eq!(said.code, Some(0), "{said:?}");
        a.daemon().expect("a daemon serves the mount")
    };
    let mut pid = mount();
    let work = Work::new(&a.dir, 3, seed).unwrap();
    for n in 0..times {
        work.run(usize::MAX, || {
            sleep(Duration::from_millis(200 + 130 * (n as u64 % 4)));
            let killed = (0..SQUEEZES_MAX).any(|_| {
                limit.squeeze();
                sleep(Duration::from_millis(50));
                has_ended(pid)
            });
            if !killed {
                println!("there was memory enough all the time; killed by hand");
                kill(pid);
            }
        });
        pid = mount();
        work.check(&format!("killed for memory {n}"));
        println!("{} of {} were killed by the kernel", limit.kills(), n + 1);
    }
    a.unmount();
    a.mount();
    a.ok(&["sync"]);
    a.ok(&["verify", "--all"]);
    work.check("at the end");
    assert!(work.promised() > 0, "there was load");
}

#[test]
fn r08_a_daemon_killed_for_memory_loses_nothing_that_was_promised() {
    killed_for_memory(3, 8);
}

#[test]
#[ignore = "long: 200 times out of memory, minutes"]
fn r08_two_hundred_times_out_of_memory_loses_nothing_that_was_promised() {
    killed_for_memory(200, 88);
}

/// From when on allocations are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    FromStart,
    WhileMounted,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The daemon ended.
    Ended,
    /// A writer was told.
    Told,
    /// Nobody came to that allocation, or could do without it.
    Nothing,
}

/// Lets allocations fail from the n-th of a thread on. The work goes on from what is found.
fn no_memory_from(a: &Device, work: &Work, counted: Counted, n: usize) -> Outcome {
    // Nothing else grows the memory there is, except where this was refused.
    let no_more = |calls: &str, when| Fault { calls: calls.into(), what: "error=ENOMEM", when };
    let faults = [no_more("mmap", format!("{n}+")), no_more("brk,mremap", "1+".into())];
    let mut traced = match counted {
        Counted::FromStart => Traced::mount_with(a, &faults, &BY_THE_KERNEL),
        Counted::WhileMounted => Traced::attach(a, &faults, &BY_THE_KERNEL),
    };
    if !traced.is_gone() {
        std::thread::scope(|scope| {
            let (done, waiting) = channel::<()>();
            scope.spawn(move || {
                if waiting.recv_timeout(ANSWERED_WITHIN) == Err(RecvTimeoutError::Timeout) {
                    println!("somebody waited in vain");
                    Switch::of(&a.dir).press();
                }
            });
            work.script(60);
            drop(done);
        });
    }
    // Whoever died at work is gone a moment after the writers heard of it.
    let told = work.error().is_some();
    let gone = (0..25).any(|_| {
        let gone = traced.is_gone();
        sleep(Duration::from_millis(if gone || !told { 0 } else { 20 }));
        gone
    });
    let outcome = match gone {
        true => Outcome::Ended,
        false if told => Outcome::Told,
        false => Outcome::Nothing,
    };
    drop(traced);
    a.mount();
    let when = format!("no memory from allocation {n} of a thread on, counted {counted:?}");
    work.check_handed_over(&when);
    // So that the next opening has something to replay.
    work.script(12);
    a.kill_daemon();
    println!("{counted:?} {n}: {outcome:?}");
    outcome
}

/// What came of each.
fn no_memory(allocations: impl Iterator<Item = (Counted, usize)>) -> Vec<Outcome> {
    let (_world, _node, a) = founder();
    a.mount();
    let work = Work::new(&a.dir, 2, 80).unwrap().careful();
    work.script(20);
    a.kill_daemon();
    let outcomes = allocations.map(|(counted, n)| no_memory_from(&a, &work, counted, n)).collect();
    doctor_explains(&a, "after all allocations that failed");
    a.mount();
    a.ok(&["sync"]);
    a.ok(&["verify", "--all"]);
    work.check("at the end");
    assert!(work.promised() > 0, "there was load");
    outcomes
}

#[test]
fn r08_an_allocation_that_fails_loses_nothing_that_was_promised() {
    if !can_trace() {
        return;
    }
    let opening = [150, 2_000, 2_800].map(|n| (Counted::FromStart, n));
    let at_work = [1, 9, 150, 400].map(|n| (Counted::WhileMounted, n));
    let outcomes = no_memory(opening.into_iter().chain(at_work));
    let ended = outcomes.iter().filter(|outcome| **outcome == Outcome::Ended).count();
    assert!(ended >= 4, "{outcomes:?}");
    let met = outcomes.iter().filter(|outcome| **outcome != Outcome::Nothing).count();
    assert!(met >= 6, "{outcomes:?}");
}

#[test]
#[ignore = "long: 1,400 allocations that fail, an hour"]
fn r08_long_any_allocation_that_fails_loses_nothing_that_was_promised() {
    if !can_trace() {
        return;
    }
    let opening = (1..3_100).step_by(4).map(|n| (Counted::FromStart, n));
    let at_work = (1..200).chain((200..3_000).step_by(7)).map(|n| (Counted::WhileMounted, n));
    no_memory(opening.chain(at_work));
}
