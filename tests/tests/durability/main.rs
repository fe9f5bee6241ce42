//! What was promised to be durable is there, whatever is killed, cut off, full or broken.
//!
//! Real mounts, real processes and real disks, each test by the number of its promise. The quick
//! slices run always; the full counts are ignored tests, and `tests/run --full` runs them. The same
//! promises are held against a disk in memory that fails at every single call in
//! sync/src/journal/tests.rs, tests/tests/power_cut.rs and [`torn`].

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod calls;
mod doctor;
mod errors;
mod full;
mod golden;
mod index;
mod killed;
mod memory;
mod node_full;
mod one_writer;
mod power;
mod rebuilt;
mod recorded;
mod torn;
mod versions;

use std::process::Command;
use std::time::{Duration, Instant};

use rdrivefs_tests::world::{Device, Node, World, run, wait_for_end};

/// Within this a drive is usable again after a crash.
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// A world with a node, and a device with a drive that knows it.
fn founder() -> (World, Node, Device) {
    let world = World::new();
    let node = world.node("node");
    let device = world.founder("a", &node);
    (world, node, device)
}

/// Sends a process a signal by its name.
fn signal(pid: u32, name: &str) {
    drop(run(Command::new("kill").arg(format!("-{name}")).arg(pid.to_string())));
}

/// Kills a process as a loss of power would.
fn kill(pid: u32) {
    signal(pid, "KILL");
    wait_for_end(pid);
}

/// Mounts after a crash; how long it took until the folder was usable.
#[allow(clippy::disallowed_methods, reason = "tests measure the real world")]
fn mount_again(device: &Device) -> Duration {
    let start = Instant::now();
    device.mount();
    std::fs::read_dir(&device.dir).unwrap().count();
    start.elapsed()
}

/// Half of all crashes are mended within the promised time: one that had to wait for a machine that
/// does other things proves nothing.
fn back_in_time(mut took: Vec<Duration>) {
    took.sort_unstable();
    let middle = took[took.len() / 2];
    assert!(middle <= BACK_WITHIN, "it took {took:?} until the drive was usable again");
}

/// The doctor finds nothing damaged, and knows what to do about whatever is not as it should be.
fn doctor_explains(device: &Device, when: &str) {
    let said = device.run(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&said.out)
        .unwrap_or_else(|e| panic!("{when}: the doctor said {said:?}: {e}"));
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.len() > 3, "{when}: {said:?}");
    for check in checks {
        let state = check["state"].as_str().unwrap();
        assert!(["fine", "warning", "mended"].contains(&state), "{when}: {check}");
        assert!(state != "warning" || check["mend"].is_string(), "{when}: {check}");
    }
    assert_eq!(said.code, Some(0), "{when}: {said:?}");
}
