//! The rows: what programs do all day, on every ground in turn, with the ratio to the ceiling.
//!
//! A repetition runs one row on all grounds before the next, so that what else the machine does
//! meets all of them; a ratio is taken within a repetition, and what is told is the median of
//! the ratios, not the ratio of medians. A ratio tells the speed as a part of the reference's:
//! 1.0 is as fast, 0.5 takes twice as long, whatever the unit.
//!
//! *Cold* is after a remount of the drive with the kernel's caches emptied. The ceiling lives in
//! memory and cannot be remounted: its cold rows lose the kernel's caches alone.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::ground::{Ground, say_how_cold};
use crate::measure::{MIB, draws, machine, median, noise, percentile, timed};
use crate::tree::{PER_FOLDER, Tree};
use crate::words::Words;

const PIECE_BYTES: usize = 1 << 20;
const BLOCK_BYTES: usize = 4 << 10;

/// How much of everything.
struct Plan {
    big_bytes: u64,
    block_ops: usize,
    fsyncs: usize,
    files: usize,
    /// Which repetition it is, so that none writes the bytes of another.
    repetition: usize,
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    MbPerS,
    PerS,
    Ms,
}

/// One number of one repetition on one ground.
struct Seen {
    row: &'static str,
    unit: Unit,
    value: f64,
}

type Step = fn(&mut Ground, &Plan) -> Vec<Seen>;

const STEPS: [Step; 15] = [
    write_big,
    read_cold,
    read_warm,
    random_read,
    overwrite,
    fsync,
    create,
    list,
    stat_cold,
    stat_warm,
    read_all,
    append,
    save,
    rename_all,
    delete_all,
];

/// `rows`: measures and reports; returns the document.
pub(crate) fn rows(words: &Words) -> Result<Value, String> {
    let quick = words.has("quick");
    let pick = |full: u64, quickly: u64| if quick { quickly } else { full };
    let count = |full: usize, quickly: usize| if quick { quickly } else { full };
    let mut plan = Plan {
        big_bytes: words.or("mib", pick(512, 8))? * MIB,
        block_ops: count(5_000, 100),
        fsyncs: count(500, 20),
        files: words.or("files", count(5_000, PER_FOLDER))?,
        repetition: 0,
    };
    let repetitions = words.or("repetitions", count(5, 1))?;
    let mut grounds: Vec<Ground> = Ground::null().into_iter().collect();
    grounds.push(Ground::drive(words.has("with-node")));
    for dir in words.all("dir") {
        let (name, path) = dir.split_once('=').ok_or("--dir takes NAME=PATH")?;
        grounds.push(Ground::folder(name, &PathBuf::from(path))?);
    }
    let reference = words.or("reference", grounds[0].name.clone())?;
    if !grounds.iter().any(|ground| ground.name == reference) {
        return Err(format!("--reference {reference} is none of the grounds"));
    }
    say_how_cold();
    let mut table = Table::new(&grounds, &reference);
    for repetition in 0..repetitions {
        eprintln!("repetition {} of {repetitions}", repetition + 1);
        plan.repetition = repetition;
        for step in STEPS {
            let seen = grounds.iter_mut().map(|ground| step(ground, &plan)).collect();
            table.add(seen);
        }
    }
    table.print();
    let memory = grounds.iter().filter_map(|g| Some((g.name.clone(), g.peak_mib()?.into())));
    let memory: serde_json::Map<_, _> = memory.collect();
    println!("peak memory of daemons, MiB: {}", Value::from(memory.clone()));
    Ok(json!({
        "machine": machine(),
        "repetitions": repetitions,
        "big_mib": plan.big_bytes / MIB,
        "files": plan.files,
        "with_node": words.has("with-node"),
        "reference": reference,
        "rows": table.json(),
        "peak_mib": memory,
    }))
}

fn mb_per_s(row: &'static str, bytes: u64, seconds: f64) -> Vec<Seen> {
    vec![Seen { row, unit: Unit::MbPerS, value: bytes as f64 / 1e6 / seconds }]
}

fn per_s(row: &'static str, count: usize, seconds: f64) -> Vec<Seen> {
    vec![Seen { row, unit: Unit::PerS, value: count as f64 / seconds }]
}

fn big(ground: &Ground) -> PathBuf {
    ground.dir.join("big")
}

fn tree(ground: &Ground, plan: &Plan) -> Tree {
    Tree::new(&ground.dir.join("small"), plan.files)
}

fn write_big(ground: &mut Ground, plan: &Plan) -> Vec<Seen> {
    let data = noise(1_000 + plan.repetition as u64, plan.big_bytes);
    // Nothing of the repetition before has to be freed while this is timed.
    drop(fs::remove_file(big(ground)));
    let ((), seconds) = timed(|| {
        let file = File::create(big(ground)).expect("a file can be made");
        for (n, piece) in data.chunks(PIECE_BYTES).enumerate() {
            file.write_all_at(piece, (n * PIECE_BYTES) as u64).expect("it can be written");
        }
        file.sync_all().expect("it is durable");
    });
    mb_per_s("write in sequence, fsync", plan.big_bytes, seconds)
}

fn read_big(ground: &Ground, plan: &Plan) -> f64 {
    let mut piece = vec![0; PIECE_BYTES];
    timed(|| {
        let file = File::open(big(ground)).expect("it is there");
        for n in 0..plan.big_bytes / PIECE_BYTES as u64 {
            file.read_exact_at(&mut piece, n * PIECE_BYTES as u64).expect("it can be read");
        }
    })
    .1
}

fn read_cold(ground: &mut Ground, plan: &Plan) -> Vec<Seen> {
    ground.cool();
    mb_per_s("read in sequence, cold", plan.big_bytes, read_big(ground, plan))
}

fn read_warm(ground: &mut Ground, plan: &Plan) -> Vec<Seen> {
    mb_per_s("read in sequence, warm", plan.big_bytes, read_big(ground, plan))
}

fn places(plan: &Plan) -> Vec<u64> {
    let blocks = plan.big_bytes / BLOCK_BYTES as u64;
    let draws = draws(5, plan.block_ops, blocks);
    draws.into_iter().map(|block| block * BLOCK_BYTES as u64).collect()
}

fn random_read(ground: &mut Ground, plan: &Plan) -> Vec<Seen> {
    ground.cool();
    let (places, mut block) = (places(plan), [0; BLOCK_BYTES]);
    let file = File::open(big(ground)).expect("it is there");
    let read = |at: &u64| file.read_exact_at(&mut block, *at).expect("it can be read");
    let ((), seconds) = timed(|| places.iter().for_each(read));
    per_s("read 4 KiB at random, cold", plan.block_ops, seconds)
}

fn overwrite(ground: &mut Ground, plan: &Plan) -> Vec<Seen> {
    let (places, block) = (places(plan), noise(6, BLOCK_BYTES as u64));
    let file = File::options().write(true).open(big(ground)).expect("it is there");
    let ((), seconds) = timed(|| {
        let write = |at: &u64| file.write_all_at(&block, *at).expect("it can be written");
        places.iter().for_each(write);
        file.sync_all().expect("it is durable");
    });
    per_s("overwrite 4 KiB at random, one fsync", plan.block_ops, seconds)
}

fn fsync(ground: &mut Ground, plan: &Plan) -> Vec<Seen> {
    let block = noise(7, BLOCK_BYTES as u64);
    let file = File::create(ground.dir.join("synced")).expect("a file can be made");
    let one = |n: usize| {
        let ((), seconds) = timed(|| {
            let at = (n % 64 * BLOCK_BYTES) as u64;
            file.write_all_at(&block, at).expect("it can be written");
            file.sync_all().expect("it is durable");
        });
        seconds * 1e3
    };
    let times: Vec<f64> = (0..plan.fsyncs).map(one).collect();
    let of = |row, percent| Seen { row, unit: Unit::Ms, value: percentile(&times, percent) };
    vec![of("write 4 KiB and fsync, p50", 50), of("write 4 KiB and fsync, p99", 99)]
}

fn create(ground: &mut Ground, plan: &Plan) -> Vec<Seen> {
    let tree = tree(ground, plan);
    per_s("create files of 1 KiB", tree.files(), tree.create())
}

fn list(ground: &mut Ground, plan: &Plan) -> Vec<Seen> {
    ground.cool();
    let tree = tree(ground, plan);
    per_s("list, cold", tree.files(), tree.list())
}

fn stat_cold(ground: &mut Ground, plan: &Plan) -> Vec<Seen> {
    ground.cool();
    let tree = tree(ground, plan);
    per_s("stat all, cold", tree.files(), tree.stat())
}

fn stat_warm(ground: &mut Ground, plan: &Plan) -> Vec<Seen> {
    let tree = tree(ground, plan);
    per_s("stat all, warm", tree.files(), tree.stat())
}

fn read_all(ground: &mut Ground, plan: &Plan) -> Vec<Seen> {
    ground.cool();
    let tree = tree(ground, plan);
    per_s("read all, cold", tree.files(), tree.read())
}

fn append(ground: &mut Ground, plan: &Plan) -> Vec<Seen> {
    let tree = tree(ground, plan);
    per_s("open, append, close", tree.files(), tree.append())
}

fn save(ground: &mut Ground, plan: &Plan) -> Vec<Seen> {
    let tree = tree(ground, plan).some(2);
    per_s("save: beside, fsync, rename", tree.files(), tree.save())
}

fn rename_all(ground: &mut Ground, plan: &Plan) -> Vec<Seen> {
    let tree = tree(ground, plan);
    per_s("rename all", tree.files(), tree.rename())
}

fn delete_all(ground: &mut Ground, plan: &Plan) -> Vec<Seen> {
    let tree = tree(ground, plan).renamed();
    per_s("delete all", tree.files(), tree.delete())
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::MbPerS => "MB/s",
            Self::PerS => "1/s",
            Self::Ms => "ms",
        }
    }

    /// The speed of `value` as a part of that of `reference`.
    fn ratio(self, value: f64, reference: f64) -> f64 {
        if self == Self::Ms { reference / value } else { value / reference }
    }
}

/// All that was seen: for each row, for each ground, one number a repetition.
struct Table {
    grounds: Vec<String>,
    reference: usize,
    rows: Vec<(&'static str, Unit, Vec<Vec<f64>>)>,
}

impl Table {
    fn new(grounds: &[Ground], reference: &str) -> Self {
        let grounds: Vec<String> = grounds.iter().map(|ground| ground.name.clone()).collect();
        let reference = grounds.iter().position(|name| name == reference).expect("it is one");
        Self { grounds, reference, rows: Vec::new() }
    }

    /// Adds what one step gave, ground by ground.
    fn add(&mut self, seen: Vec<Vec<Seen>>) {
        for (ground, all) in seen.into_iter().enumerate() {
            for Seen { row, unit, value } in all {
                let at = self.rows.iter().position(|(name, ..)| *name == row);
                let at = at.unwrap_or_else(|| {
                    self.rows.push((row, unit, vec![Vec::new(); self.grounds.len()]));
                    self.rows.len() - 1
                });
                self.rows[at].2[ground].push(value);
            }
        }
    }

    fn ratio(&self, unit: Unit, values: &[Vec<f64>], ground: usize) -> f64 {
        let pairs = values[ground].iter().zip(&values[self.reference]);
        median(&pairs.map(|(value, reference)| unit.ratio(*value, *reference)).collect::<Vec<_>>())
    }

    fn print(&self) {
        print!("{:<38} {:>5}", "", "");
        self.grounds.iter().for_each(|name| print!(" {name:>12} {:>6}", "ratio"));
        println!();
        for (row, unit, values) in &self.rows {
            print!("{row:<38} {:>5}", unit.name());
            for (ground, all) in values.iter().enumerate() {
                print!(" {:>12.3} {:>6.2}", median(all), self.ratio(*unit, values, ground));
            }
            println!();
        }
    }

    fn json(&self) -> Value {
        let row = |(row, unit, values): &(&'static str, Unit, Vec<Vec<f64>>)| {
            let grounds = self.grounds.iter().enumerate().map(|(n, name)| {
                let ratio = self.ratio(*unit, values, n);
                let seen = json!({"median": median(&values[n]), "ratio": ratio, "all": values[n]});
                (name.clone(), seen)
            });
            let grounds: serde_json::Map<_, _> = grounds.collect();
            json!({"row": row, "unit": unit.name(), "grounds": grounds})
        };
        self.rows.iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_within_a_repetition_and_tell_speed() {
        let grounds = vec!["null".to_owned(), "drive".to_owned()];
        let mut table = Table { grounds, reference: 0, rows: Vec::new() };
        let of = |unit, value| vec![Seen { row: "r", unit, value }];
        for (null, drive) in [(10.0, 5.0), (100.0, 50.0), (1.0, 0.5)] {
            table.add(vec![of(Unit::PerS, null), of(Unit::PerS, drive)]);
        }
        assert_eq!(table.json()[0]["grounds"]["drive"]["ratio"], 0.5);
        assert_eq!(table.json()[0]["grounds"]["drive"]["median"], 5.0);
        assert!((Unit::Ms.ratio(4.0, 1.0) - 0.25).abs() < 1e-9, "four times the time");
    }
}
