//! What takes long: a folder of a million names, a large repository, a build of this workspace.
//!
//! All of these are ignored tests, which `tests/run --full` runs. Each says its steps as it goes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rdrivefs_tests::source_tree::copy_sources;

use crate::drive::{Drive, shell};

/// Longest that a step may take on a machine that does other things too.
const STEP_MAX: Duration = Duration::from_secs(3 * 3_600);

/// A process that is killed with its test.
struct Step(std::process::Child);

impl Drop for Step {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Runs a script for as long as a step may take; its output goes to a file, and comes back.
#[track_caller]
fn step(drive: &Drive, dir: &Path, what: &str, script: &str) -> String {
    eprintln!("{what}");
    step_of(drive, what, shell(script).current_dir(dir))
}

#[track_caller]
fn step_of(drive: &Drive, what: &str, command: &mut Command) -> String {
    let out = drive.outside("steps").join("out");
    let to = |name: &str| Stdio::from(File::create(out.with_extension(name)).unwrap());
    let child = command.stdin(Stdio::null()).stdout(to("1")).stderr(to("2")).spawn().unwrap();
    let mut step = Step(child);
    let said = |name: &str| fs::read_to_string(out.with_extension(name)).unwrap_or_default();
    let pause = Duration::from_millis(100);
    for _ in 0..STEP_MAX.as_millis() / pause.as_millis() {
        if let Some(status) = step.0.try_wait().unwrap() {
            assert!(status.success(), "{what}: {status}: {}", said("2"));
            return said("1");
        }
        std::thread::sleep(pause);
    }
    panic!("{what}: no end in {STEP_MAX:?}");
}

/// Runs `rdrivefs`, for as long as a step may take.
#[track_caller]
fn tell(drive: &Drive, args: &[&str]) {
    eprintln!("{}", args[0]);
    step_of(drive, args[0], &mut drive.device.command(args));
}

/// The most memory that the process of the mount has had since it was last asked, in MiB.
fn memory_peak_mib(drive: &Drive) -> u64 {
    let process = PathBuf::from(format!("/proc/{}", drive.device.daemon().unwrap()));
    let status = fs::read_to_string(process.join("status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    fs::write(process.join("clear_refs"), "5").unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// Listing a million names must not bring a million names into memory, nor must removing them.
#[test]
#[ignore = "long: a folder of 1,000,000 names"]
fn a_folder_holds_a_million_names() {
    /// Far less than a million names and attributes take, far more than the journal's and the
    /// index's own bounds.
    const MEMORY_MAX_MIB: u64 = 700;
    let drive = Drive::new();
    let dir = drive.dir("million");
    let bounded = |what: &str| {
        let peak = memory_peak_mib(&drive);
        eprintln!("  {peak} MiB at most");
        assert!(peak < MEMORY_MAX_MIB, "{what} took {peak} MiB");
    };
    step(&drive, &dir, "create", "seq -f entry-%07.0f 1000000 | xargs -n 5000 touch");
    bounded("creating");
    assert_eq!(step(&drive, &dir, "list", "ls -U | wc -l"), "1000000\n");
    assert_eq!(step(&drive, &dir, "each once", "ls -U | sort -u | wc -l"), "1000000\n");
    bounded("listing");
    drive.remount();
    assert_eq!(step(&drive, &dir, "list again", "ls -U | wc -l"), "1000000\n");
    bounded("listing after mounting again");
    let one = "test -e entry-0777777 && ! test -e entry-1000001 && echo x > entry-0777777";
    step(&drive, &dir, "find one", one);
    let found = step(&drive, &dir, "find by size", "find . -type f -size +0");
    assert_eq!(found, "./entry-0777777\n");
    bounded("looking at each");
    step(&drive, &dir, "remove", "find . -type f -delete && rmdir ../million");
    bounded("removing");
    drive.remount();
    assert!(!dir.exists());
}

#[test]
#[ignore = "long: this workspace is built in a drive"]
fn this_workspace_builds_in_a_drive() {
    let drive = Drive::kept();
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let dir = drive.dir("workspace");
    let copy =
        format!("tar -C {} --exclude=./target --exclude=./.git -cf - . | tar -xf -", top.display());
    step(&drive, &dir, "copy the sources", &copy);
    let build = || {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["build", "--locked", "--offline", "--bins"]).current_dir(&dir);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("CARGO_") && name != "CARGO_HOME" {
                command.env_remove(name);
            }
        }
        eprintln!("build");
        step_of(&drive, "build", &mut command);
    };
    build();
    let version = step(&drive, &dir, "run it", "target/debug/rdrivefs --version");
    assert!(version.starts_with("rdrivefs "), "{version}");
    drive.remount();
    step(&drive, &dir, "remember the time", "stat -c %Y target/debug/rdrivefs > time");
    build();
    step(&drive, &dir, "nothing was built again", "stat -c %Y target/debug/rdrivefs | cmp - time");
    tell(&drive, &["verify", "--local"]);
}

#[test]
#[ignore = "long: a git repository of 40,000 files"]
fn a_large_repository_lives_in_a_drive() {
    let drive = Drive::kept();
    let repo = drive.dir("repo");
    let files = [40_000, 20_000, 10_000, 5_000].into_iter().find(|files| enough(*files));
    copy_sources(&repo.join("all"), files.unwrap_or(2_500));
    step(&drive, &repo, "add", "git init -q && git add -A -f && git commit -qm all");
    assert_eq!(step(&drive, &repo, "status", "git status --porcelain"), "");
    let edit = "find all -name '*.rs' -size -200k | head -5000 | xargs sed -i '1i // edited'";
    step(&drive, &repo, "edit", edit);
    step(&drive, &repo, "commit", "git add -A && git commit -qm edited && git checkout -q HEAD~1");
    step(
        &drive,
        &repo,
        "and back",
        "git checkout -q main && git gc -q --prune=now && git fsck --strict",
    );
    step(
        &drive,
        &drive.device.dir,
        "clone",
        "git clone -q repo linked && git clone -q --no-local repo copied",
    );
    step(&drive, &drive.device.dir, "compare", "diff -r --no-dereference repo/all copied/all");
    tell(&drive, &["sync"]);
    tell(&drive, &["verify", "--confidence", "99.9%", "--loss", "1%"]);
    tell(&drive, &["evict", drive.device.dir_str()]);
    drive.remount();
    step(
        &drive,
        &repo,
        "fetched again",
        "git fsck --strict && test -z \"$(git status --porcelain)\"",
    );
    step(&drive, &drive.device.dir, "remove", "rm -rf repo linked copied");
}

/// Whether the folder that cargo built from has as many source files.
fn enough(files: usize) -> bool {
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let mut folders = vec![cargo.or(home).unwrap().join("registry/src")];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => seen += 1,
                _ => {}
            }
        }
    }
    seen >= files
}
