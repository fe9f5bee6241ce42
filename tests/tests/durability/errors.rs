//! R06: the disk under the daemon answers a call with an error. Whoever writes hears of it, or it
//! is made good; what was promised is there when the daemon is killed afterwards.
//!
//! That a failed sync is never called durable later, where the disk really loses what it did not
//! write, is held against a disk in memory in sync/src/journal/tests.rs (r06): an injected error
//! loses nothing by itself.

use std::fs;

use rdrivefs_tests::traced::{Fault, Traced, can_trace};
use rdrivefs_tests::work::Work;
use rdrivefs_tests::world::Device;

use crate::{doctor_explains, founder};

const SORTS: [&str; 6] =
    ["pwrite64", "fdatasync", "fsync", "rename,unlink", "openat,open", "fallocate,ftruncate"];

/// More than any thread makes of a sort in the script.
const CALLS_MAX: usize = 1_000;

/// Lets a call fail; whether anybody who wrote heard of it, if there was such a call.
fn fail_at(a: &Device, calls: &str, when: &str) -> Option<bool> {
    let told = format!("{calls} number {when} fails");
    let fault = Fault { calls: calls.into(), what: "error=EIO", when: when.into() };
    let mut traced = Traced::mount(a, &fault);
    let place = a.dir.join(format!("{}-{when}", calls.split(',').next().unwrap()));
    let work = (!traced.is_gone()).then(|| {
        fs::create_dir(&place).ok()?;
        Some(Work::new(&place, 2, 11).ok()?.careful())
    });
    let work = work.flatten();
    let mut heard = false;
    if let Some(work) = &work {
        work.script(40);
        heard |= work.error().is_some();
    }
    traced.kill();
    let failed = traced.failed_a_call();
    drop(traced);
    a.mount();
    if let Some(work) = work {
        work.check(&told);
        // It goes on as if nothing had been.
        work.script(20);
        assert_eq!(work.error(), None, "{told}: mounted again");
        work.check(&told);
    }
    a.unmount();
    failed.then_some(heard)
}

#[test]
fn r06_an_error_of_the_disk_is_heard_and_takes_nothing_that_was_promised() {
    if !can_trace() {
        return;
    }
    let (_world, _node, a) = founder();
    let places = [
        ("pwrite64", &["2", "12", "40", "20+"][..]),
        ("fdatasync", &["1", "5", "6+"]),
        ("fsync", &["2"]),
        ("rename,unlink", &["1+"]),
        ("openat,open", &["30+"]),
        ("fallocate,ftruncate", &["2"]),
    ];
    let mut heard = 0;
    for (calls, numbers) in places {
        for when in numbers {
            heard += usize::from(fail_at(&a, calls, when) == Some(true));
        }
    }
    assert!(heard > 0, "no error ever reached a writer");
    a.mount();
    a.ok(&["sync"]);
    a.ok(&["verify", "--all"]);
    doctor_explains(&a, "after all errors");
}

#[test]
#[ignore = "long: an error at each call, ten minutes"]
fn r06_an_error_at_any_call_takes_nothing_that_was_promised() {
    if !can_trace() {
        return;
    }
    // By tens, so that the first times tell of all sorts already.
    for first in 1..=10 {
        for calls in SORTS {
            let (_world, _node, a) = founder();
            let mut numbers = (first..CALLS_MAX).step_by(10);
            let never = numbers.find(|n| {
                let one = fail_at(&a, calls, &n.to_string());
                let all = fail_at(&a, calls, &format!("{n}+"));
                println!("{calls} number {n}: heard {one:?}, from there on {all:?}");
                one.or(all).is_none()
            });
            never.expect("the script has an end");
        }
    }
}
