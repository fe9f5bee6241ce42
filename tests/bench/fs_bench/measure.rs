//! What a bench measures with: a clock, bytes nobody can compress, the kernel's counts.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use rdrivefs_tests::world::Device;

/// A power of two that files are measured in.
pub(crate) const MIB: u64 = 1 << 20;

/// What a closure gives, and the seconds it takes.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let begun = now();
    let done = work();
    (done, begun.elapsed().as_secs_f64())
}

/// The clock.
#[allow(clippy::disallowed_methods, reason = "a measurement is of the real world")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Bytes nobody can compress.
pub(crate) fn noise(seed: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).expect("it fits in memory")];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Numbers below `below`, the same at every run.
pub(crate) fn draws(seed: u64, count: usize, below: u64) -> Vec<u64> {
    let bytes = noise(seed, count as u64 * 8);
    bytes.as_chunks::<8>().0.iter().map(|draw| u64::from_le_bytes(*draw) % below).collect()
}

/// Writes a file and makes it durable.
pub(crate) fn write(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).expect("a file can be made");
    file.write_all(bytes).expect("it can be written");
    file.sync_all().expect("it is durable");
}

/// Bytes that crossed the loopback, both ways, headers and all.
pub(crate) fn loopback_bytes() -> u64 {
    let all = fs::read_to_string("/proc/net/dev").expect("the kernel counts");
    let line = all.lines().find(|line| line.trim_start().starts_with("lo:")).expect("a loopback");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

/// The most memory a process ever had, in MiB.
pub(crate) fn peak_mib(pid: u32) -> f64 {
    memory_mib(pid, "VmHWM:")
}

/// The memory a process has now, in MiB.
pub(crate) fn resident_mib(pid: u32) -> f64 {
    memory_mib(pid, "VmRSS:")
}

fn memory_mib(pid: u32, which: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with(which)).expect("it is counted");
    let kib: f64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    kib / 1024.0
}

/// Runs a command of a device to its end however long that takes; it must succeed.
pub(crate) fn patiently(device: &Device, args: &[&str]) {
    let said = device.command(args).stdin(std::process::Stdio::null()).output();
    let said = said.expect("it starts");
    let why = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "rdrivefs {args:?}: {why}");
}

/// The middle of some numbers; between two, the mean of them.
pub(crate) fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// The number that `percent` of the numbers do not exceed.
pub(crate) fn percentile(numbers: &[f64], percent: usize) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// What this machine is, for whoever reads the figures later.
pub(crate) fn machine() -> serde_json::Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let line = |text: &str, key: &str| {
        let found = text.lines().find(|line| line.starts_with(key));
        found.and_then(|line| line.split(':').nth(1)).unwrap_or("?").trim().to_owned()
    };
    serde_json::json!({
        "cpu": line(&cpu, "model name"),
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "memory": line(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load": read("/proc/loadavg").trim(),
        "debug_build": cfg!(debug_assertions),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles_are_what_they_are_called() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert!((percentile(&hundred, 99) - 99.0).abs() < 1e-9);
        assert!((percentile(&hundred, 50) - 50.0).abs() < 1e-9);
        assert!(median(&[]).is_nan() && percentile(&[], 99).is_nan());
    }
}
