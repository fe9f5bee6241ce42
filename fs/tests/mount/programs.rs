//! Other people's programs on the mount: compilers, git, shells.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::daemon::{Local, Mount, on_each_core};

fn run(dir: &Path, program: &str, args: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(args).current_dir(dir).env("GIT_CONFIG_GLOBAL", "/dev/null");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "Tester").env(format!("GIT_{who}_EMAIL"), "t@x");
    }
    let output = command.output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Compiles the helper on the mount and runs it from there.
fn mapper(local: &Local) -> String {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mount/mapper.c");
    let binary = local.path("mapper");
    run(&local.dir, "cc", &["-O1", "-o", binary.to_str().unwrap(), source]);
    binary.to_str().unwrap().into()
}

fn a_program_compiled_there_runs_from_there_and_maps_files(mount: Mount) {
    let local = mount("");
    let mapper = mapper(&local);
    let file = local.path("mapped");
    run(&local.dir, &mapper, &["map", file.to_str().unwrap()]);
    let content = fs::read(&file).unwrap();
    assert_eq!((content.len(), content[0], content[384 * 4096]), (3 << 20, b'a', 135));
    assert_eq!(&content[2 << 20..][..7], b"written");
    assert_eq!(content.last(), Some(&b'z'));
}

fn locks_hold_between_processes(mount: Mount) {
    let local = mount("");
    let mapper = mapper(&local);
    let path = local.path("locked");
    let file = fs::File::create(&path).unwrap();
    let try_lock = || {
        let status = Command::new(&mapper).arg("lock").arg(&path).status().unwrap();
        status.code().unwrap()
    };
    assert_eq!(try_lock(), 0);
    let lock = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    rustix::fs::fcntl_lock(&file, lock).unwrap();
    assert_eq!(try_lock(), 2);
    rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::Unlock).unwrap();
    assert_eq!(try_lock(), 0);
    let other = fs::File::open(&path).unwrap();
    rustix::fs::flock(&file, lock).unwrap();
    assert_eq!(rustix::fs::flock(&other, lock), Err(rustix::io::Errno::AGAIN));
    rustix::fs::flock(&file, rustix::fs::FlockOperation::Unlock).unwrap();
    rustix::fs::flock(&other, lock).unwrap();
}

fn processes_append_without_losing_a_line(mount: Mount) {
    let local = mount("");
    let script = "i=0; while [ $i -lt 200 ]; do echo $0 $i >> log; i=$((i+1)); done";
    let spawn = |name| {
        Command::new("sh").args(["-c", script, name]).current_dir(&local.dir).spawn().unwrap()
    };
    for mut child in ["a", "b", "c", "d"].map(spawn) {
        assert!(child.wait().unwrap().success());
    }
    let log = fs::read_to_string(local.path("log")).unwrap();
    let mut lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.len(), 800);
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), 800, "a line was overwritten");
}

fn git_works(mount: Mount) {
    let local = mount("");
    let git = |dir: &str, args: &[&str]| run(&local.path(dir), "git", args);
    git("", &["init", "-q", "-b", "main", "work"]);
    for number in 0..120 {
        let dir = local.path(&format!("work/src/d{}", number % 7));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("f{number}.txt")), format!("line {number}\n").repeat(50))
            .unwrap();
    }
    git("work", &["add", "."]);
    git("work", &["commit", "-q", "-m", "first"]);
    assert_eq!(git("work", &["status", "--porcelain"]), "");
    git("", &["clone", "-q", "--no-hardlinks", "work", "clone"]);
    fs::write(local.path("clone/src/d1/f1.txt"), "changed\n").unwrap();
    assert_eq!(git("clone", &["status", "--porcelain"]), " M src/d1/f1.txt\n");
    git("clone", &["commit", "-q", "-a", "-m", "second"]);
    git("clone", &["gc", "-q", "--aggressive"]);
    git("clone", &["fsck", "--full", "--strict"]);
    git("work", &["pull", "-q", "--ff-only", "../clone", "main"]);
    assert_eq!(fs::read_to_string(local.path("work/src/d1/f1.txt")).unwrap(), "changed\n");
    run(&local.dir, "diff", &["-r", "work/src", "clone/src"]);
}

#[test]
fn the_mount_helper_hands_over_what_mount_gives_it() {
    let root = tempfile::tempdir().unwrap();
    let stub = "#!/bin/sh\necho \"${RDRIVEFS_HOME-none}\"\nprintf '<%s>' \"$@\"\n";
    fs::write(root.path().join("rdrivefs"), stub).unwrap();
    run(root.path(), "chmod", &["+x", "rdrivefs"]);
    let helper = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/mount.rdrivefs");
    let path = format!("{}:/usr/bin:/bin", root.path().display());
    let help = |args: &[&str]| {
        let output = Command::new(helper)
            .args(args)
            .env("PATH", &path)
            .env_remove("RDRIVEFS_HOME")
            .output()
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) =
        help(&["photos", "/mnt/my photos", "-n", "-o", "rw,allow_other", "-o", "x-a"]);
    assert_eq!(code, 0);
    assert_eq!(said, "none\n<--drive><photos><mount></mnt/my photos><-o><rw,allow_other,x-a>");
    assert_eq!(help(&["/srv/d", "/mnt", "-s", "-v"]).1, "/srv/d\n<-v><mount></mnt>");
    assert_eq!(help(&["/srv/d", "/mnt", "-f"]), (0, String::new()));
    assert_eq!(help(&["/srv/d"]).0, 2);
}

fn access_lists_are_kept_in_step_with_modes_and_inherited(mount: Mount) {
    let local = mount("");
    let script = "umask 077 && echo x > f && chmod 640 f && setfacl -m u:1234:rw f && mkdir d && \
        setfacl -d -m u::rwx,g::rx,o::-,u:1234:rwx d && touch d/f && mkdir d/d && echo made && \
        stat -c %a f d/f d/d && getfacl -nc f && chmod 600 f && getfacl -nc f && \
        getfacl -ncp d/f && getfacl -ncpd d/d && setfacl -b f && stat -c %A f";
    let there = run(&local.dir, "sh", &["-c", script]);
    let own = tempfile::tempdir().unwrap();
    assert_eq!(there, run(own.path(), "sh", &["-c", script]));
    assert!(there.starts_with("made\n660\n660\n770\n"), "{there}");
}

on_each_core!(
    a_program_compiled_there_runs_from_there_and_maps_files,
    locks_hold_between_processes,
    processes_append_without_losing_a_line,
    git_works,
    access_lists_are_kept_in_step_with_modes_and_inherited,
);
