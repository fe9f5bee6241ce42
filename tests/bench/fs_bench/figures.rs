//! `figures`: what a drive is held to, measured with the programs as a person runs them.
//!
//! Each line is a figure, what was seen, and the bound. Everything runs on loopback and in a
//! temporary folder of some GiB; quote medians of several runs on a machine that does nothing else.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::process::Command;

use rdrivefs_tests::world::{Device, Node, World, disk_bytes, run};
use serde_json::{Value, json};

use crate::measure::{MIB, loopback_bytes, machine, median, noise, peak_mib, timed, write};
use crate::words::Words;

/// What was seen: figure, value, bound.
type Seen = Vec<Value>;

/// A part of the figures: what `NAME` on the command line picks.
type Part = (&'static str, fn(&mut Seen));

const PARTS: [Part; 5] = [
    ("big", big_file),
    ("small", small_files),
    ("overwrite", overwrites),
    ("insert", insert),
    ("mount", mount_ready),
];

/// Measures the parts named, or all; returns the document.
pub(crate) fn figures(words: &Words) -> Result<Value, String> {
    let known = |name: &String| PARTS.iter().any(|(part, _)| part == name);
    if let Some(name) = words.rest.iter().find(|name| !known(name)) {
        return Err(format!("{name} is none of the figures"));
    }
    let machine = machine();
    let mut seen = Vec::new();
    for (name, part) in PARTS {
        if words.rest.is_empty() || words.rest.iter().any(|wanted| wanted == name) {
            part(&mut seen);
        }
    }
    Ok(json!({"machine": machine, "figures": seen}))
}

fn told(seen: &mut Seen, what: &str, value: String, bound: &str) {
    println!("{what:<58} {value:>16}   {bound}");
    seen.push(json!({"figure": what, "seen": value, "bound": bound}));
}

fn tell_memory(seen: &mut Seen, what: &str, device: &Device, node: &Node) {
    let pid = device.daemon().expect("it is mounted");
    told(
        seen,
        &format!("{what}: rdrivefs resident, MiB"),
        format!("{:.0}", peak_mib(pid)),
        "<= 150",
    );
    let node = peak_mib(node.pid());
    told(seen, &format!("{what}: rdrivefs-node resident, MiB"), format!("{node:.0}"), "<= 100");
}

fn verify(device: &Device) {
    let report = device.json(&["verify", "--confidence", "99.9%", "--loss", "1%"]);
    assert_eq!((report["samples"].as_u64(), report["failures"].as_u64()), (Some(688), Some(0)));
}

/// 1 GiB: pushing, storing, proving, evicting and reading it back in pieces.
fn big_file(seen: &mut Seen) {
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
    told(seen, "1 GiB written, sealed and pushed, MB/s", speed(seconds), "");
    let ratio = disk_bytes(&node.store) as f64 / plain as f64;
    told(seen, "stored at the node, outboards and logs included", format!("{ratio:.4}"), "<= 1.04");
    let report = device.json(&["verify", "--samples", "40000"]);
    let rate = 40_000.0 / (report["elapsed_ms"].as_f64().expect("a number") / 1e3);
    told(seen, "challenges answered and checked, 1/s", format!("{rate:.0}"), ">= 2000");
    verify(&device);
    device.ok(&["evict", device.dir_str()]);
    told(seen, "cache after evicting, bytes", device.cache_bytes().to_string(), "near 0");
    tell_memory(seen, "1 GiB", &device, &node);
    device.unmount();
    device.mount();
    // The link is up, as it is while a drive is mounted.
    device.ok(&["pull"]);
    let open = File::open(&file).expect("it is there");
    let mut byte = [0];
    let ((), seconds) = timed(|| open.read_exact_at(&mut byte, 0).expect("it comes back"));
    told(seen, "first byte of an evicted file, ms", format!("{:.1}", seconds * 1e3), "<= 10 + rtt");
    let mut most = 0;
    for n in 0..16 {
        let at = (n * 67_108_859 + 12_345) / 4096 * 4096;
        let before = loopback_bytes();
        let mut block = [0; 4096];
        open.read_exact_at(&mut block, at).expect("it comes back");
        most = most.max(loopback_bytes() - before);
        assert!(block[..] == data[at as usize..at as usize + 4096], "never wrong bytes");
    }
    told(seen, "most bytes moved by a random 4 KiB read", most.to_string(), "<= 131072");
    drop(open);
    device.unmount();
    push_alone(seen, &world, &node, &data);
}

/// Pushing alone, with everything sealed before and no mount.
fn push_alone(seen: &mut Seen, world: &World, node: &Node, data: &[u8]) {
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
    told(seen, "pushing sealed layers, MB/s", format!("{:.0}", bytes / 1e6 / seconds), ">= 130");
}

/// 20,000 small files, as sources are.
fn small_files(seen: &mut Seen) {
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
    told(seen, "20,000 small files written and pushed, s", format!("{seconds:.1}"), "<= 15");
    tell_memory(seen, "20,000 files", &device, &node);
}

/// 1 % of the 4 KiB blocks of a synced file of 256 MiB, rewritten at random.
fn overwrites(seen: &mut Seen) {
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
    told(
        seen,
        "sent after 1 % of the blocks of 256 MiB changed, MiB",
        format!("{sent:.2}"),
        "<= 6",
    );
    tell_memory(seen, "overwrites", &device, &node);
}

/// One byte put before 1 GiB that is synced.
fn insert(seen: &mut Seen) {
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
    told(seen, "sent after one byte was put before 1 GiB, MiB", format!("{sent:.2}"), "<= 8");
    tell_memory(seen, "insert", &device, &node);
}

/// A drive of 100,000 files, mounted again.
fn mount_ready(seen: &mut Seen) {
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
    told(
        seen,
        "mount ready with 100,000 files, s (median of 5)",
        format!("{:.3}", median(&times)),
        "<= 0.3",
    );
    device.mount();
    let said = run(Command::new("find").arg(&device.dir));
    assert!(said.out.lines().count() > 100_000);
    tell_memory(seen, "100,000 files", &device, &node);
}
