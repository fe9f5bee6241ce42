//! pjdfstest: what POSIX says of some twenty system calls, case by case.
//!
//! Run by root it changes users itself and tries every kind of file and every refusal; run by
//! nobody it does what one user can, on a mount that belongs to another.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::bed::{Bed, open_to_all};
use crate::child::{Ended, run};
use crate::tools::{installed, system};
use crate::verdict::Verdict;

/// Longest the suite may take; it takes seconds on a quiet machine.
const LIMIT: Duration = Duration::from_secs(900);

/// What the drive promises, and how long a case sleeps for a timestamp to change: longer than a
/// tick of any kernel. The users are those that every system has.
const FEATURES: &str = "[features]\nposix_fallocate = {}\nutime_now = {}\nutimensat = {}\n\
    rename_ctime = {}\nstat_st_birthtime = {}\n[settings]\nnaptime = 0.02\n";

/// The cases that make the mount read only for a moment. They have a run of their own, since others
/// leave files open in the process, and a mount with those stays writable.
const READ_ONLY: &str = "erofs";

/// Of 398 cases 397 run: nobody says how many links a file may have.
const FLOOR_ROOT: usize = 380;

/// Cases that need no privilege.
const FLOOR_NOBODY: usize = 240;

#[test]
fn pjdfstest_as_root_finds_nothing() {
    let bed = Bed::new();
    let mut verdict = posix(&bed, "pjdfstest", None);
    bed.settle(&mut verdict);
    verdict.judge(FLOOR_ROOT);
}

#[test]
fn pjdfstest_as_nobody_finds_nothing() {
    let bed = Bed::new();
    let mut verdict = posix(&bed, "pjdfstest-nobody", Some(User::named("nobody")));
    bed.settle(&mut verdict);
    verdict.judge(FLOOR_NOBODY);
}

fn posix(bed: &Bed, suite: &'static str, user: Option<User>) -> Verdict {
    let (folder, aside) = (bed.short_folder("p"), bed.aside("suite"));
    let second = aside.join("second");
    fs::create_dir(&second).unwrap();
    if let Some(user) = &user {
        for path in [&folder, &second] {
            std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid)).unwrap();
        }
    }
    // The target folder may lie where nobody may look.
    let program = aside.join("pjdfstest");
    fs::copy(installed("pjdfstest"), &program).unwrap();
    open_to_all(&program);
    let start = |remount: bool| {
        let config = aside.join(format!("remount-{remount}.toml"));
        fs::write(&config, configuration(remount)).unwrap();
        open_to_all(&config);
        let mut command = Command::new(&program);
        command.arg("-c").arg(&config).arg("-p").arg(&folder).arg("-s").arg(&second);
        if let Some(user) = &user {
            command.uid(user.uid).gid(user.gid);
        }
        command
    };
    let mut verdict = Verdict::new(suite);
    read(&run(&mut start(false), LIMIT), &mut verdict);
    if user.is_none() {
        let path = path_with_mount(&bed.aside("bin"));
        read(&run(start(true).arg(READ_ONLY).env("PATH", path), LIMIT), &mut verdict);
    }
    verdict
}

/// A PATH whose `mount` does not call the helper of a FUSE filesystem, none of which can remount.
fn path_with_mount(bin: &Path) -> std::ffi::OsString {
    let script = format!("#!/bin/sh\nexec {} -i \"$@\"\n", system("mount").display());
    fs::write(bin.join("mount"), script).unwrap();
    open_to_all(&bin.join("mount"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::iter::once(bin.to_owned()).chain(std::env::split_paths(&path));
    std::env::join_paths(places).unwrap()
}

/// What it said: `NAME ok`, `NAME FAILED`, `NAME skipped`, each with a reason in a line of its own.
fn read(ended: &Ended, verdict: &mut Verdict) {
    let text = without_colours(&ended.text);
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("Summary: ") {
            return match ended.well() || !verdict.failed().is_empty() {
                true => (),
                false => verdict.fail("(ended badly)", ended.why(&["Error"])),
            };
        }
        let words: Vec<_> = line.split_whitespace().collect();
        let reason = lines.peek().and_then(|next| next.strip_prefix('\t')).unwrap_or("");
        match words[..] {
            [name, "ok"] if is_case(name) => verdict.pass(name),
            [name, "FAILED"] if is_case(name) => verdict.fail(name, reason),
            [name, "skipped"] if is_case(name) => verdict.skip(name, reason),
            _ => (),
        }
    }
    verdict.fail("(no end)", ended.why(&["Error", "error"]));
}

fn is_case(name: &str) -> bool {
    name.contains("::")
}

fn without_colours(text: &str) -> String {
    let mut pieces = text.split("\u{1b}[");
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| text + piece.split_once('m').map_or(piece, |(_, rest)| rest))
}

fn configuration(remount: bool) -> String {
    let entry = |name| format!("[\"{name}\", \"{}\"]", User::named(name).group);
    let entries = [entry("nobody"), entry("daemon")].join(", ");
    format!("{FEATURES}allow_remount = {remount}\n[dummy_auth]\nentries = [{entries}]\n")
}

/// A user of this system and the group it belongs to.
struct User {
    uid: u32,
    gid: u32,
    group: String,
}

impl User {
    fn named(name: &str) -> Self {
        let user = entry("/etc/passwd", |fields| fields[0] == name);
        let user = user.unwrap_or_else(|| panic!("(missing) there is no user {name}"));
        let group = entry("/etc/group", |fields| fields[2] == user[3]);
        let group = group.unwrap_or_else(|| panic!("(missing) {name} has no group"));
        let number = |text: &str| text.parse().unwrap();
        Self { uid: number(&user[2]), gid: number(&user[3]), group: group[0].clone() }
    }
}

fn entry(file: &str, is: impl Fn(&[String]) -> bool) -> Option<Vec<String>> {
    let text = fs::read_to_string(Path::new(file)).unwrap();
    let mut entries = text.lines().map(|line| line.split(':').map(str::to_owned).collect());
    entries.find(|fields: &Vec<_>| fields.len() >= 4 && is(fields))
}

#[test]
fn a_failed_case_and_a_suite_that_breaks_off_are_seen() {
    let said = |text: &str, code| {
        let mut verdict = Verdict::new("pjdfstest");
        read(&Ended { code: Some(code), text: text.into() }, &mut verdict);
        verdict
    };
    let ok = "\u{1b}[34mchmod::a\u{1b}[0m     \u{1b}[32mok\u{1b}[0m\n";
    let bad =
        "\u{1b}[34mchmod::b::regular\u{1b}[0m \u{1b}[31mFAILED\u{1b}[0m\n\tleft is not right\n";
    let end = "\n\u{1b}[1mSummary\u{1b}[0m: 1 failed, 0 skipped, 1 passed\n";
    let verdict = said(&format!("{ok}{bad}{end}"), 1);
    assert_eq!(verdict.failed()["chmod::b::regular"], "left is not right");
    assert_eq!(verdict.line(), "pjdfstest: 1 passed, 1 failed, 0 skipped");
    assert!(said(&format!("{ok}{end}"), 0).failed().is_empty());
    assert!(said(&format!("{ok}{end}"), 1).failed().contains_key("(ended badly)"));
    assert!(said(ok, 0).failed().contains_key("(no end)"));
}
