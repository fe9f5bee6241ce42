//! The figures a drive is held to, measured with the programs as a person runs them:
//!
//! ```text
//! cargo build --release --workspace --bins
//! cargo run --release -p rdrivefs-tests --example figures [NAME…]
//! ```
//!
//! Each line is a figure, what was seen, and the bound. Everything runs on loopback and in a
//! temporary folder of some GiB; quote medians of several runs on a machine that does nothing else.
//! What a layer costs step by step is `cargo run --release -p rdrivefs-sync --example seal_bench`.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use rdrivefs_tests::world::{Device, Node, World, disk_bytes, run};

const MIB: u64 = 1 << 20;

/// A part of the figures: what `NAME` on the command line picks.
type Part = (&'static str, fn());

const PARTS: [Part; 5] = [
    ("big", big_file),
    ("small", small_files),
    ("overwrite", overwrites),
    ("insert", insert),
    ("mount", mount_ready),
];

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load before: {}", load.trim());
    for (name, part) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            part();
        }
    }
}

fn told(what: &str, seen: String, bound: &str) {
    println!("{what:<58} {seen:>16}   {bound}");
}

/// Bytes nobody can compress.
fn noise(seed: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).expect("it fits in memory")];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// What a closure gives, and the seconds it takes.
#[allow(clippy::disallowed_methods, reason = "a measurement is of the real world")]
fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let begun = Instant::now();
    let done = work();
    (done, begun.elapsed().as_secs_f64())
}

fn write(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).expect("a file can be made");
    file.write_all(bytes).expect("it can be written");
    file.sync_all().expect("it is durable");
}

/// Bytes that crossed the loopback, both ways, headers and all.
fn loopback_bytes() -> u64 {
    let all = fs::read_to_string("/proc/net/dev").expect("the kernel counts");
    let line = all.lines().find(|line| line.trim_start().starts_with("lo:")).expect("a loopback");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

/// The most memory a process ever had, in MiB.
fn peak_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("it is counted");
    let kib: f64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    kib / 1024.0
}

fn tell_memory(what: &str, device: &Device, node: &Node) {
    let pid = device.daemon().expect("it is mounted");
    told(&format!("{what}: rdrivefs resident, MiB"), format!("{:.0}", peak_mib(pid)), "<= 150");
    let node = peak_mib(node.pid());
    told(&format!("{what}: rdrivefs-node resident, MiB"), format!("{node:.0}"), "<= 100");
}

fn verify(device: &Device) {
    let report = device.json(&["verify", "--confidence", "99.9%", "--loss", "1%"]);
    assert_eq!((report["samples"].as_u64(), report["failures"].as_u64()), (Some(688), Some(0)));
}

/// 1 GiB: pushing, storing, proving, evicting and reading it back in pieces.
fn big_file() {
    let world = World::new();
    let node = world.node("node");
    let device = world.founder("a", &node);
    device.mount();
    let plain = 1024 * MIB;
    let file = device.dir.join("big");
    let data = noise(1, plain);
    let (report, seconds) = timed(|| {
        write(&file, &data);
        device.json(&["sync"])
    });
    assert_eq!(report["agreed"], true, "{report}");
    let speed = |seconds: f64| format!("{:.0}", plain as f64 / 1e6 / seconds);
    told("1 GiB written, sealed and pushed, MB/s", speed(seconds), "");
    let ratio = disk_bytes(&node.store) as f64 / plain as f64;
    told("stored at the node, outboards and logs included", format!("{ratio:.4}"), "<= 1.04");
    let report = device.json(&["verify", "--samples", "40000"]);
    let rate = 40_000.0 / (report["elapsed_ms"].as_f64().expect("a number") / 1e3);
    told("challenges answered and checked, 1/s", format!("{rate:.0}"), ">= 2000");
    verify(&device);
    device.ok(&["evict", device.dir_str()]);
    told("cache after evicting, bytes", device.cache_bytes().to_string(), "near 0");
    tell_memory("1 GiB", &device, &node);
    device.unmount();
    device.mount();
    // The link is up, as it is while a drive is mounted.
    device.ok(&["pull"]);
    let open = File::open(&file).expect("it is there");
    let mut byte = [0];
    let ((), seconds) = timed(|| open.read_exact_at(&mut byte, 0).expect("it comes back"));
    told("first byte of an evicted file, ms", format!("{:.1}", seconds * 1e3), "<= 10 + rtt");
    let mut most = 0;
    for n in 0..16 {
        let at = (n * 67_108_859 + 12_345) / 4096 * 4096;
        let before = loopback_bytes();
        let mut block = [0; 4096];
        open.read_exact_at(&mut block, at).expect("it comes back");
        most = most.max(loopback_bytes() - before);
        assert!(block[..] == data[at as usize..at as usize + 4096], "never wrong bytes");
    }
    told("most bytes moved by a random 4 KiB read", most.to_string(), "<= 131072");
    drop(open);
    device.unmount();
    push_alone(&world, &node, &data);
}

/// Pushing alone, with everything sealed before and no mount.
fn push_alone(world: &World, node: &Node, data: &[u8]) {
    let device = world.device("b");
    let phrase = world.path("other-phrase");
    let phrase = phrase.to_str().expect("temporary paths are text");
    device.ok(&["init", "--no-passphrase", "--recovery-file", phrase]);
    let from = world.path("plain");
    write(&from, data);
    device.ok(&["put", from.to_str().expect("text"), "/big"]);
    device.ok(&["evict", "--drive-path", "--dry-run", "/"]);
    device.ok(&["remote", "add", "home", &node.invite()]);
    let (report, seconds) = timed(|| device.json(&["push"]));
    let bytes = report["pushed_bytes"].as_f64().expect("a number");
    told("pushing sealed layers, MB/s", format!("{:.0}", bytes / 1e6 / seconds), ">= 130");
}

/// 20,000 small files, as sources are.
fn small_files() {
    let world = World::new();
    let node = world.node("node");
    let device = world.founder("a", &node);
    device.mount();
    let text = noise(7, 64 << 10);
    let line = |n: usize| hex::encode(&text[n * 37 % 60_000..][..16]);
    let ((), seconds) = timed(|| {
        for n in 0..20_000_usize {
            let dir = device.dir.join(format!("{}", n / 200));
            if n % 200 == 0 {
                fs::create_dir(&dir).expect("a directory can be made");
            }
            let body: String = (0..20 + n % 100).map(|i| line(n + i % 7) + ";\n").collect();
            fs::write(dir.join(format!("file-{n}.c")), body).expect("a file can be written");
        }
        device.ok(&["sync"]);
    });
    told("20,000 small files written and pushed, s", format!("{seconds:.1}"), "<= 15");
    tell_memory("20,000 files", &device, &node);
}

/// 1 % of the 4 KiB blocks of a synced file of 256 MiB, rewritten at random.
fn overwrites() {
    let world = World::new();
    let node = world.node("node");
    let device = world.founder("a", &node);
    device.mount();
    let file = device.dir.join("data");
    write(&file, &noise(1, 256 * MIB));
    device.ok(&["sync"]);
    let blocks = 256 * MIB / 4096;
    let draws = noise(2, blocks / 100 * 8);
    let open = File::options().write(true).open(&file).expect("it is there");
    for (n, draw) in draws.chunks(8).enumerate() {
        let block = u64::from_le_bytes(draw.try_into().expect("eight bytes")) % blocks;
        open.write_all_at(&noise(100 + n as u64, 4096), block * 4096).expect("it can be written");
    }
    open.sync_all().expect("it is durable");
    drop(open);
    let before = loopback_bytes();
    device.ok(&["sync"]);
    let sent = (loopback_bytes() - before) as f64 / MIB as f64;
    told("sent after 1 % of the blocks of 256 MiB changed, MiB", format!("{sent:.2}"), "<= 6");
    tell_memory("overwrites", &device, &node);
}

/// One byte put before 1 GiB that is synced.
fn insert() {
    let world = World::new();
    let node = world.node("node");
    let device = world.founder("a", &node);
    device.mount();
    let file = device.dir.join("data");
    let data = noise(1, 1024 * MIB);
    write(&file, &data);
    device.ok(&["sync"]);
    let before = loopback_bytes();
    let mut open = File::create(&file).expect("it is there");
    open.write_all(&[1]).and_then(|()| open.write_all(&data)).expect("it can be written");
    open.sync_all().expect("it is durable");
    drop(open);
    device.ok(&["sync"]);
    let sent = (loopback_bytes() - before) as f64 / MIB as f64;
    told("sent after one byte was put before 1 GiB, MiB", format!("{sent:.2}"), "<= 8");
    tell_memory("insert", &device, &node);
}

/// A drive of 100,000 files, mounted again.
fn mount_ready() {
    let world = World::new();
    let node = world.node("node");
    let device = world.founder("a", &node);
    device.mount();
    for n in 0..100_000_usize {
        let dir = device.dir.join(format!("{}", n / 500));
        if n % 500 == 0 {
            fs::create_dir(&dir).expect("a directory can be made");
        }
        fs::write(dir.join(format!("file-{n}")), n.to_string()).expect("a file can be written");
    }
    device.ok(&["sync"]);
    device.unmount();
    let mut times: Vec<f64> = Vec::new();
    for _ in 0..5 {
        let ((), seconds) = timed(|| {
            device.mount();
            drop(fs::read_dir(&device.dir).expect("the folder is usable"));
        });
        times.push(seconds);
        device.unmount();
    }
    times.sort_by(f64::total_cmp);
    told("mount ready with 100,000 files, s (median of 5)", format!("{:.3}", times[2]), "<= 0.3");
    device.mount();
    let said = run(Command::new("find").arg(&device.dir));
    assert!(said.out.lines().count() > 100_000);
    tell_memory("100,000 files", &device, &node);
}
