//! `stream`: how much memory it takes to write very much.
//!
//! Files of 1 GiB, one after the other, of bytes that nobody can compress, onto a drive with a
//! node on this machine, while memory is looked at again and again. It needs room for the node's
//! copy and for the cache, and says so before it begins.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::ground::Drive;
use crate::measure::{MIB, machine, noise, patiently, peak_mib, resident_mib, timed};
use crate::words::Words;

/// The most memory the daemon may ever have.
const DAEMON_MIB_MAX: f64 = 150.0;
/// The most memory the node may ever have.
const NODE_MIB_MAX: f64 = 100.0;
/// Written between two looks.
const LOOK_MIB: u64 = 64;
const FILE_MIB: u64 = 1024;
/// The most that the cache keeps beside the node's copy, as it is configured by default.
const CACHE_MIB: u64 = 20 << 10;

/// Measures and reports; returns the document.
pub(crate) fn stream(words: &Words) -> Result<Value, String> {
    let quick = words.has("quick");
    let total_mib = match quick {
        true => 2 * LOOK_MIB,
        false => words.or("gib", 16_u64)? * 1024,
    };
    let needed = (total_mib + total_mib / 16 + total_mib.min(CACHE_MIB) + 4096) * MIB;
    let free = free_bytes(&std::env::temp_dir())?;
    if !quick && free < needed {
        let gib = |bytes: u64| bytes >> 30;
        let (needed, free) = (gib(needed), gib(free));
        return Err(format!("{needed} GiB are needed where TMPDIR is, and {free} are free"));
    }
    let drive = Drive::new(true);
    let node = drive.node.as_ref().expect("it was asked for").pid();
    let daemon_pid = drive.pid();
    let mut looks = Vec::new();
    let ((), seconds) = timed(|| {
        for file in 0..total_mib.div_ceil(FILE_MIB) {
            let begin = file * FILE_MIB;
            let len = FILE_MIB.min(total_mib - begin);
            write(&drive, file, len, |mib| {
                let (daemon, node) = (resident_mib(daemon_pid), resident_mib(node));
                looks.push(json!([begin + mib, daemon.round(), node.round()]));
            });
            eprintln!("{} MiB of {total_mib}", begin + len);
        }
        patiently(&drive.device, &["sync"]);
    });
    let (daemon, node) = (peak_mib(daemon_pid), peak_mib(node));
    let speed = (total_mib * MIB) as f64 / 1e6 / seconds;
    println!("{total_mib} MiB written, sealed and pushed: {speed:.0} MB/s");
    println!("peak memory of rdrivefs:      {daemon:.0} MiB   (bound {DAEMON_MIB_MAX})");
    println!("peak memory of rdrivefs-node: {node:.0} MiB   (bound {NODE_MIB_MAX})");
    Ok(json!({
        "machine": machine(),
        "mib": total_mib,
        "mb_per_s": speed,
        "daemon_peak_mib": daemon,
        "node_peak_mib": node,
        "daemon_bound_mib": DAEMON_MIB_MAX,
        "node_bound_mib": NODE_MIB_MAX,
        "within": daemon <= DAEMON_MIB_MAX && node <= NODE_MIB_MAX,
        "looks_written_daemon_node_mib": looks,
    }))
}

fn write(drive: &Drive, number: u64, mib: u64, mut look: impl FnMut(u64)) {
    let path = drive.device.dir.join(format!("stream-{number}"));
    let mut file = File::create(path).expect("a file can be made");
    for n in 0..mib {
        file.write_all(&noise((number << 32) + n, MIB)).expect("it can be written");
        if (n + 1) % LOOK_MIB == 0 {
            look(n + 1);
        }
    }
    file.sync_all().expect("it is durable");
}

fn free_bytes(dir: &Path) -> Result<u64, String> {
    let room = rustix::fs::statvfs(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    Ok(room.f_bavail * room.f_frsize)
}
