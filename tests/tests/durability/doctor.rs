//! R28: the doctor knows what a crash leaves, and may itself be killed at any time.
//!
//! What the other tests leave it looks at too: see `doctor_explains`.

use std::fs;
use std::ops::Range;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use rdrivefs_tests::rounds::rounds;
use rdrivefs_tests::traced::{Fault, Traced, can_trace};
use rdrivefs_tests::work::Work;

use crate::{doctor_explains, founder, kill};

/// One interruption a number, the later the greater it is.
fn interrupted(numbers: Range<u64>, seed: u64) {
    let (_world, _node, a) = founder();
    a.mount();
    let work = Work::new(&a.dir, 2, seed).unwrap();
    for n in numbers {
        let pid = a.daemon().unwrap();
        work.run(usize::MAX, || {
            sleep(Duration::from_millis(150));
            kill(pid);
        });
        let when = format!("interruption {n}");
        for ms in [5, 40, 90] {
            let mut doctor = a.command(&["doctor", "--repair"]);
            let doctor = doctor.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut doctor = doctor.spawn().unwrap();
            sleep(Duration::from_millis(ms + n));
            drop(doctor.kill());
            doctor.wait().unwrap();
        }
        doctor_explains(&a, &when);
        a.ok(&["doctor", "--repair", "--quiet"]);
        a.mount();
        work.check(&when);
        assert!(work.promised() > 0, "there was load");
        println!("{} interruptions", 3 * (n + 1));
    }
}

#[test]
fn r28_a_doctor_that_is_interrupted_harms_nothing() {
    interrupted(0..4, 28);
}

#[test]
#[ignore = "long: 1,500 interruptions, half an hour"]
fn r28_a_doctor_interrupted_at_any_time_harms_nothing() {
    for round in rounds(10) {
        interrupted(50 * round..50 * (round + 1), 2_800 + round);
    }
}

/// Daemons killed in the middle of what they do to the disk, and the doctor before anybody mounts.
#[test]
fn r28_the_doctor_explains_what_a_killed_daemon_leaves() {
    if !can_trace() {
        return;
    }
    let (_world, _node, a) = founder();
    for (calls, when) in [("pwrite64", "25"), ("fdatasync", "3"), ("rename,unlink", "2")] {
        let fault = Fault { calls: calls.into(), what: "signal=SIGKILL", when: when.into() };
        let mut traced = Traced::mount(&a, &fault);
        let place = a.dir.join(format!("w-{when}"));
        if !traced.is_gone() && fs::create_dir(&place).is_ok() {
            // Whoever cannot begin has met the end already.
            Work::new(&place, 1, 1).iter().for_each(|work| work.script(80));
        }
        assert!(traced.was_killed(), "{calls} {when}: it lives");
        doctor_explains(&a, &format!("{calls} {when}"));
    }
    a.ok(&["doctor", "--repair", "--quiet"]);
    a.mount();
    a.ok(&["sync"]);
    a.ok(&["verify", "--all"]);
}
