//! fsx, the file system exerciser: random operations on one file, each read compared with what must
//! be there.
//!
//! Six mixes of operations: through mmap, without it, with the cache thrown away, with space given
//! and taken, and on a larger file. A mix and a seed always give the same operations.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::bed::Bed;
use crate::child::run;
use crate::tools::installed;
use crate::verdict::Verdict;

/// A name, the greatest file, the greatest operation, and weights for the operations; reading,
/// writing, truncating and both through mmap have weight 10 unless something else is said.
type Mix = (&'static str, u64, u64, &'static str);

const SMALL: u64 = 256 << 10;

const MIXES: [Mix; 6] = [
    ("plain", SMALL, 65_536, ""),
    (
        "mmapless",
        SMALL,
        65_536,
        "mapread = 0\nmapwrite = 0\nfsync = 1\nclose_open = 2\ncopy_file_range = 4\n\
         sendfile = 4\nposix_fadvise = 2\n",
    ),
    (
        "all",
        SMALL,
        65_536,
        "close_open = 1\ninvalidate = 1\nfsync = 1\nfdatasync = 1\nsendfile = 4\n\
         posix_fadvise = 2\ncopy_file_range = 5\n",
    ),
    ("fallocate", SMALL, 65_536, "close_open = 1\nfsync = 1\nposix_fallocate = 4\n"),
    ("punch", SMALL, 65_536, "close_open = 1\nfsync = 1\ncopy_file_range = 5\npunch_hole = 6\n"),
    ("big", 8 << 20, 300_000, "close_open = 1\nfsync = 1\ntruncate = 4\n"),
];

/// Of a quick run; the larger file gets an eighth.
const OPERATIONS: u64 = 1_500;

/// It never unmaps what it maps and ends at the system's bound near 560,000 operations, so a
/// million of them are ten runs.
const MANY: u64 = 100_000;

/// What ends a run of few operations on any machine.
const LIMIT: Duration = Duration::from_secs(300);

/// The same for [`MANY`].
const LIMIT_MANY: Duration = Duration::from_secs(1_800);

#[test]
fn fsx_finds_nothing() {
    let bed = Bed::new();
    let fsx = Fsx::on(&bed);
    let mut verdict = Verdict::new("fsx");
    for mix in MIXES {
        fsx.run(&mut verdict, mix, 100, OPERATIONS, LIMIT);
    }
    bed.settle(&mut verdict);
    verdict.judge(MIXES.len());
}

#[test]
#[ignore = "long: four seeds of every mix, minutes"]
fn fsx_finds_nothing_with_other_seeds() {
    let bed = Bed::new();
    let fsx = Fsx::on(&bed);
    let mut verdict = Verdict::new("fsx-long");
    for mix in MIXES {
        for seed in 101..105 {
            fsx.run(&mut verdict, mix, seed, 4 * OPERATIONS, LIMIT);
        }
    }
    bed.settle(&mut verdict);
    verdict.judge(4 * MIXES.len());
}

#[test]
#[ignore = "long: a million operations, half an hour"]
fn fsx_finds_nothing_in_a_million_operations() {
    million("fsx-million", MIXES[0]);
}

#[test]
#[ignore = "long: a million operations with the cache thrown away, half an hour"]
fn fsx_finds_nothing_in_a_million_operations_of_every_kind() {
    million("fsx-million-all", MIXES[2]);
}

#[test]
#[ignore = "long: a million operations with holes, half an hour"]
fn fsx_finds_nothing_in_a_million_operations_with_holes() {
    million("fsx-million-punch", MIXES[4]);
}

fn million(suite: &'static str, mix: Mix) {
    let bed = Bed::new();
    let fsx = Fsx::on(&bed);
    let mut verdict = Verdict::new(suite);
    for seed in 0..10 {
        fsx.run(&mut verdict, mix, seed, MANY, LIMIT_MANY);
    }
    bed.settle(&mut verdict);
    verdict.judge(10);
}

/// fsx on a bed.
pub struct Fsx {
    program: PathBuf,
    folder: PathBuf,
    aside: PathBuf,
}

impl Fsx {
    /// Its folder lies on the drive, its configurations and what it leaves of a failure beside.
    pub fn on(bed: &Bed) -> Self {
        let (folder, aside) = (bed.folder("fsx"), bed.aside("suite"));
        Self { program: installed("fsx"), folder, aside }
    }

    /// The file that [`Fsx::run_many`] works on.
    pub fn file(&self) -> PathBuf {
        self.folder.join(format!("{}.1", MIXES[0].0))
    }

    /// A run that takes minutes.
    pub fn run_many(&self, verdict: &mut Verdict) {
        self.run(verdict, MIXES[0], 1, MANY, LIMIT_MANY);
    }

    fn run(&self, verdict: &mut Verdict, mix: Mix, seed: u64, operations: u64, limit: Duration) {
        let (name, length_max, operation_max, weights) = mix;
        let operations = operations / if length_max > SMALL { 8 } else { 1 };
        let config = self.aside.join(format!("{name}.toml"));
        let sizes = format!("flen = {length_max}\n[opsize]\nmax = {operation_max}\n");
        fs::write(&config, format!("{sizes}[weights]\n{weights}")).unwrap();
        let case = format!("{name}.{seed}");
        let mut command = Command::new(&self.program);
        command.arg("-q").arg("-f").arg(&config).arg("-P").arg(&self.aside);
        command.args(["-N", &operations.to_string(), "-S", &seed.to_string()]);
        let ended = run(command.arg(self.folder.join(&case)), limit);
        let all = ended.text.contains("All operations completed");
        verdict.program(&case, &ended, all, &["Result::unwrap()", "ERROR", "mismatch", "error"]);
    }
}
