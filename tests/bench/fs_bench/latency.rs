//! `latency`: what a small write waits while much is sealed and pushed behind it.
//!
//! Writes of 4 KiB at a steady pace, each timed, on a drive that does nothing else; then again
//! from the moment 2 GiB lie in the journal until they are with a node on this machine. The page
//! cache would hide the filesystem, so the writes go around it (`O_DIRECT`). What is held to the
//! bound is the p99 of the second as a multiple of the first, the median of some repetitions.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::ground::Drive;
use crate::measure::{MIB, draws, machine, median, noise, patiently, percentile, timed, write};
use crate::words::Words;

/// How many times slower a small write may be while there is much to do.
const RATIO_MAX: f64 = 3.0;
/// Between two writes: a person's programs do not write without a pause, and a burst would
/// measure itself.
const PAUSE: Duration = Duration::from_millis(2);
/// The file that small writes go to.
const TARGET_MIB: u64 = 16;
const BLOCK_BYTES: u64 = 4096;
/// Writes on an idle drive.
const IDLE_WRITES: usize = 3000;
/// Fewer writes than this while busy tell no p99.
const BUSY_WRITES_MIN: usize = 200;

/// Measures and reports; returns the document.
pub(crate) fn latency(words: &Words) -> Result<Value, String> {
    let quick = words.has("quick");
    let mib = if quick { 32 } else { words.or("gib", 2_u64)? * 1024 };
    let repetitions = words.or("repetitions", if quick { 1 } else { 3_u64 })?;
    let drive = Drive::new(true);
    let mut all = Vec::new();
    for repetition in 0..repetitions {
        let target = drive.device.dir.join("target");
        write(&target, &noise(repetition, TARGET_MIB * MIB));
        patiently(&drive.device, &["sync"]);
        let writer = Writer::open(&target)?;
        let mut left = if quick { 100 } else { IDLE_WRITES };
        let idle = writer.write_while(|| {
            left -= 1;
            left > 0
        });
        for part in 0..mib.div_ceil(1024) {
            let data = noise((repetition << 32) + 1000 + part, MIB * 1024.min(mib - part * 1024));
            write(&drive.device.dir.join(format!("big-{repetition}-{part}")), &data);
        }
        let (busy, pushing_s) = thread::scope(|scope| {
            let pushing = scope.spawn(|| timed(|| patiently(&drive.device, &["sync"])).1);
            let busy = writer.write_while(|| !pushing.is_finished());
            (busy, pushing.join().expect("it does not panic"))
        });
        if busy.len() < BUSY_WRITES_MIN && !quick {
            eprintln!("note: only {} writes while it was pushed: take more GiB", busy.len());
        }
        all.push(told(&idle, &busy, pushing_s));
    }
    let ratios: Vec<f64> = all.iter().filter_map(|one| one["ratio"].as_f64()).collect();
    let ratio = median(&ratios);
    println!("p99 of 4 KiB writes, busy to idle: {ratio:.2}   (bound {RATIO_MAX})");
    Ok(json!({
        "machine": machine(),
        "mib": mib,
        "pause_ms": PAUSE.as_millis() as u64,
        "ratio": ratio,
        "bound": RATIO_MAX,
        "within": ratio <= RATIO_MAX,
        "repetitions": all,
    }))
}

fn told(idle: &[f64], busy: &[f64], pushing_s: f64) -> Value {
    let of = |times: &[f64]| {
        json!({
            "writes": times.len(),
            "p50_ms": percentile(times, 50),
            "p99_ms": percentile(times, 99),
            "max_ms": percentile(times, 100),
        })
    };
    let ratio = percentile(busy, 99) / percentile(idle, 99);
    let one = json!({
        "idle": of(idle), "busy": of(busy), "ratio": ratio, "pushing_s": pushing_s,
    });
    println!("{one}");
    one
}

/// Small writes around the page cache.
struct Writer {
    file: File,
    block: Vec<u8>,
    from: usize,
}

impl Writer {
    fn open(path: &std::path::Path) -> Result<Self, String> {
        let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        let file = File::options().write(true).custom_flags(direct).open(path);
        let file = file.map_err(|e| format!("{}: {e}", path.display()))?;
        // A direct write begins at an address that is a multiple of its block.
        let block = noise(9, 2 * BLOCK_BYTES);
        let from = block.as_ptr().align_offset(BLOCK_BYTES as usize);
        Ok(Self { file, block, from })
    }

    /// Milliseconds of each write, for as long as `more` says.
    fn write_while(&self, mut more: impl FnMut() -> bool) -> Vec<f64> {
        let blocks = TARGET_MIB * MIB / BLOCK_BYTES;
        let mut places = draws(8, 4096, blocks).into_iter().cycle();
        let block = &self.block[self.from..][..BLOCK_BYTES as usize];
        let mut times = Vec::new();
        while more() {
            let at = places.next().expect("they go round") * BLOCK_BYTES;
            let ((), seconds) =
                timed(|| self.file.write_all_at(block, at).expect("it can be written"));
            times.push(seconds * 1e3);
            thread::sleep(PAUSE);
        }
        times
    }
}
