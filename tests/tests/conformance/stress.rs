//! stress-ng: many ways to make a filesystem stumble, two processes each, checking what they read.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::bed::Bed;
use crate::child::run;
use crate::tools::system;
use crate::verdict::Verdict;

/// Those that found the most in other filesystems.
const QUICK: &str = "chmod copy-file dentry dir fallocate filename flock fpunch getdent hdd iomix \
    link lockf mknod open readahead rename seek symlink xattr";

/// All others that touch files.
const MORE: &str = "access aio aiol chattr chdir chown dirdeep dirmany dnotify dup fcntl fiemap \
    file-ioctl fsize fstat handle inode-flags inotify io lease locka lockofd revio sync-file \
    touch utime mmap msync mmapfork mmaphuge mmapmany sendfile splice tee vm-splice unlink";

/// Little enough for a small disk; names as POSIX allows them.
const OPTIONS: &str = "--verify --hdd-bytes 16m --fallocate-bytes 16m --iomix-bytes 16m \
    --seek-size 16m --aiol-requests 4 --readahead-bytes 16m --copy-file-bytes 128m --mmap-file \
    --mmap-bytes 8m --filename-opts posix";

/// Cases that must have run, in some version of it or other: 20 are known of the quick ones.
const FLOOR: usize = 15;

/// Of all.
const FLOOR_LONG: usize = 35;

/// Its codes for what the machine has no room for, and for what is not implemented here.
const SKIPPED: [i32; 2] = [3, 4];

#[test]
fn stress_ng_finds_nothing() {
    let bed = Bed::new();
    let mut verdict = stress(&bed, "stress-ng", QUICK, 1);
    bed.settle(&mut verdict);
    verdict.judge(FLOOR);
}

#[test]
#[ignore = "long: 56 stressors for four seconds each, minutes"]
fn stress_ng_finds_nothing_with_every_stressor() {
    let bed = Bed::new();
    let mut verdict = stress(&bed, "stress-ng-long", &format!("{QUICK} {MORE}"), 4);
    bed.settle(&mut verdict);
    verdict.judge(FLOOR_LONG);
}

fn stress(bed: &Bed, suite: &'static str, stressors: &str, seconds: u64) -> Verdict {
    let (program, folder) = (system("stress-ng"), bed.folder("stress"));
    let mut verdict = Verdict::new(suite);
    let known = run(Command::new(&program).arg("--help"), Duration::from_secs(60)).text;
    for stressor in stressors.split_whitespace() {
        if known.contains(&format!("--{stressor} N")) {
            one(&mut verdict, &program, &folder, stressor, seconds);
        } else {
            verdict.skip(stressor, "this stress-ng does not know it");
        }
    }
    verdict
}

fn one(verdict: &mut Verdict, program: &Path, folder: &Path, stressor: &str, seconds: u64) {
    let mut command = Command::new(program);
    command.arg("--temp-path").arg(folder).arg(format!("--{stressor}")).arg("2");
    command.args(["-t", &seconds.to_string()]).args(OPTIONS.split_whitespace());
    // It ends its stressors late on a busy machine, and some clear away much.
    let ended = run(&mut command, Duration::from_secs(180 + seconds));
    let passed_over = ended.text.contains("skipping stressor");
    match ended.code {
        Some(code) if SKIPPED.contains(&code) || (code == 0 && passed_over) => {
            verdict.skip(stressor, &ended.why(&["skip", "not implemented"]));
        }
        _ => verdict.program(stressor, &ended, true, &["fail:", "error:"]),
    }
}
