//! R08: the kernel kills the daemon for want of memory, at work.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use rdrivefs_tests::memory_limit::MemoryLimit;
use rdrivefs_tests::work::Work;
use rdrivefs_tests::world::run;

use crate::{founder, kill};

/// Where the daemon can begin; it is made narrower while it works.
const ROOM_BYTES: u64 = 512 << 20;

/// How often it is made narrower before it is given up.
const SQUEEZES_MAX: usize = 200;

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
            let process = format!("/proc/{pid}");
            let killed = (0..SQUEEZES_MAX).any(|_| {
                limit.squeeze();
                sleep(Duration::from_millis(50));
                !Path::new(&process).exists()
            });
            if !killed {
                println!("there was memory enough all the time; killed by hand");
                kill(pid);
            }
        });
        pid = mount();
        work.check(&format!("killed for memory {n}"));
    }
    println!("{} of {times} were killed by the kernel", limit.kills());
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
#[ignore = "long: 200 times out of memory, ten minutes"]
fn r08_two_hundred_times_out_of_memory_loses_nothing_that_was_promised() {
    killed_for_memory(200, 88);
}
