//! fio: data written in many ways, then read again and compared with its checksums.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::bed::Bed;
use crate::child::run;
use crate::tools::system;
use crate::verdict::Verdict;

/// A way to write; each option follows `--`.
const JOBS: [(&str, &str); 8] = [
    ("sequential", "rw=write bs=128k"),
    ("random", "rw=randwrite bs=4k"),
    ("unaligned", "rw=randwrite bsrange=512-70000 bs_unaligned=1"),
    ("mixed-fsync", "rw=randrw bs=16k fsync=16"),
    ("mmap", "rw=randwrite bs=4k ioengine=mmap"),
    ("aio-direct", "rw=randwrite bs=8k ioengine=libaio direct=1 iodepth=8"),
    ("shared", "rw=randwrite bs=4k numjobs=2 filename=shared group_reporting"),
    ("many-files", "rw=write bs=3000 nrfiles=64 file_service_type=random"),
];

const OPTIONS: &str = "ioengine=psync verify=crc32c verify_fatal=1 do_verify=1 fallocate=none \
    verify_state_save=0 randseed=1 output-format=normal";

/// Writing and reading a few hundred megabytes on any machine.
const LIMIT: Duration = Duration::from_secs(900);

#[test]
fn fio_reads_what_it_wrote() {
    let bed = Bed::new();
    let mut verdict = fio(&bed, "fio", 16);
    bed.settle(&mut verdict);
    verdict.judge(JOBS.len());
}

#[test]
#[ignore = "long: 128 MiB in each of eight ways, minutes"]
fn fio_reads_what_it_wrote_of_much() {
    let bed = Bed::new();
    let mut verdict = fio(&bed, "fio-long", 128);
    bed.settle(&mut verdict);
    verdict.judge(JOBS.len());
}

fn fio(bed: &Bed, suite: &'static str, mib: u64) -> Verdict {
    let program = system("fio");
    let mut verdict = Verdict::new(suite);
    for (name, options) in JOBS {
        let folder = bed.folder(&format!("fio-{name}"));
        let mut command = Command::new(&program);
        command.arg(format!("--name={name}")).arg(format!("--directory={}", folder.display()));
        // Two jobs on one file keep to a half each.
        command.args([format!("--size={mib}m"), format!("--offset_increment={mib}m")]);
        let all = OPTIONS.split_whitespace().chain(options.split_whitespace());
        let ended = run(command.args(all.map(|option| format!("--{option}"))), LIMIT);
        let good = ended.text.contains("err= 0") && !ended.text.contains("verify: bad");
        verdict.program(name, &ended, good, &["verify", "error"]);
        if name != JOBS[0].0 {
            // The first stays to be read again after mounting again.
            fs::remove_dir_all(&folder).unwrap();
        }
    }
    verdict
}
